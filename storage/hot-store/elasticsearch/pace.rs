//! How large a bulk request is: as large as the server takes in good time.

use std::time::Duration;

/// What the first request carries.
const BYTES_FIRST: usize = 2 << 20;

/// What a request carries at the least.
const BYTES_MIN: usize = 64 << 10;

/// Answers slower than this make requests smaller; four times faster ones make them larger.
const SLOW: Duration = Duration::from_secs(2);

/// The size of the next bulk request.
pub(super) struct Pace {
    bytes: usize,
    bytes_max: usize,
}

impl Pace {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes: BYTES_FIRST.min(bytes_max), bytes_max }
    }

    /// Bytes that the next request carries at the most; one larger row may exceed it.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// A request of so many bytes went well.
    pub(super) fn answered(&mut self, sent: usize, took: Duration) {
        if took > SLOW {
            self.shrink();
        } else if took < SLOW / 4 && sent * 2 > self.bytes {
            self.bytes = (self.bytes + self.bytes / 4).min(self.bytes_max);
        }
    }

    /// The server has too much to do.
    pub(super) fn shrink(&mut self) {
        self.bytes = (self.bytes / 2).max(BYTES_MIN.min(self.bytes_max));
    }

    /// A request of so many bytes is too large.
    pub(super) fn too_large(&mut self, sent: usize) {
        self.bytes_max = self.bytes_max.min(sent / 2).max(1);
        self.bytes = self.bytes.min(self.bytes_max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fast_answers_to_full_requests_make_them_larger_and_slow_ones_smaller() {
        let mut pace = Pace::new(4 << 20);
        let (fast, slow) = (Duration::from_millis(20), Duration::from_secs(3));
        pace.answered(1_000, fast);
        assert_eq!(pace.bytes(), 2 << 20, "a small request says nothing");
        (0..20).for_each(|_| pace.answered(pace.bytes(), fast));
        assert_eq!(pace.bytes(), 4 << 20);
        pace.answered(4 << 20, slow);
        assert_eq!(pace.bytes(), 2 << 20);
        (0..20).for_each(|_| pace.shrink());
        assert_eq!(pace.bytes(), 64 << 10);
    }

    #[test]
    fn what_was_too_large_is_never_sent_again() {
        let mut pace = Pace::new(4 << 20);
        pace.too_large(1 << 20);
        assert_eq!(pace.bytes(), 512 << 10);
        (0..20).for_each(|_| pace.answered(pace.bytes(), Duration::ZERO));
        assert_eq!(pace.bytes(), 512 << 10);
    }
}
