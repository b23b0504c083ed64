//! One limiter for all endpoints of arXiv: one request at a time, and a while between two.
//!
//! Source: <https://info.arxiv.org/help/api/tou.html>: "no more than one request every three seconds, and limit requests
//! to a single connection at a time".

use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, sleep_until};

/// The longest that requests are spread, by the setting or when arXiv refuses them without saying how long to wait. It
/// lies below [`WAIT_HERE_MAX`]: a poll of several requests waits between them, and would else never come to its end.
pub(super) const INTERVAL_MAX: Duration = Duration::from_secs(60);

/// A longer wait is for the runtime, which can stop meanwhile and says what it waits for.
const WAIT_HERE_MAX: Duration = Duration::from_secs(65);

/// See the module.
#[derive(Debug)]
pub(super) struct Gate {
    pace: Mutex<Pace>,
}

/// The right to make one request; the next may start a while after it is dropped.
#[derive(Debug)]
pub(super) struct Pass<'a> {
    pace: MutexGuard<'a, Pace>,
}

/// How fast requests follow each other: slower with each refusal, and faster again as they are served.
#[derive(Clone, Copy, Debug)]
struct Pace {
    least: Duration,
    interval: Duration,
    /// What arXiv asked for.
    wait: Duration,
    /// Before this no request starts.
    next: Instant,
}

impl Gate {
    /// Lets a request through every `least` at the most.
    pub(super) fn new(least: Duration) -> Self {
        let next = Instant::now();
        Self { pace: Mutex::new(Pace { least, interval: least, wait: Duration::ZERO, next }) }
    }

    /// Waits for a turn; answers how long it would take where that is long.
    pub(super) async fn enter(&self) -> Result<Pass<'_>, Duration> {
        let pace = self.pace.lock().await;
        let wait = pace.next.saturating_duration_since(Instant::now());
        if wait > WAIT_HERE_MAX {
            return Err(wait);
        }
        sleep_until(pace.next).await;
        Ok(Pass { pace })
    }
}

impl Pass<'_> {
    /// arXiv answered.
    pub(super) fn served(&mut self) {
        self.pace.served();
    }

    /// arXiv refused. Answers the wait.
    pub(super) fn refused(&mut self, retry_after: Option<Duration>) -> Duration {
        self.pace.refused(retry_after)
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.pace.end(Instant::now());
    }
}

impl Pace {
    fn served(&mut self) {
        self.interval = (self.interval * 3 / 4).max(self.least);
    }

    fn refused(&mut self, retry_after: Option<Duration>) -> Duration {
        // From nothing, doubling leads nowhere.
        let doubled = (self.interval * 2).max(Duration::from_millis(100)).min(INTERVAL_MAX);
        self.interval = doubled.max(self.least);
        self.wait = retry_after.unwrap_or(self.interval);
        self.wait
    }

    fn end(&mut self, now: Instant) {
        self.next = now + self.interval.max(std::mem::take(&mut self.wait));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn pace() -> Pace {
        Pace { least: 3 * SECOND, interval: 3 * SECOND, wait: Duration::ZERO, next: Instant::now() }
    }

    #[test]
    fn refusals_slow_down_and_answers_speed_up_again() {
        let mut pace = pace();
        for expected in [6, 12, 24, 48, 60, 60] {
            assert_eq!(pace.refused(None), expected * SECOND);
        }
        pace.served();
        assert_eq!(pace.interval, 45 * SECOND);
        (0..20).for_each(|_| pace.served());
        assert_eq!(pace.interval, 3 * SECOND);
    }

    #[test]
    fn the_next_request_waits_for_the_interval_or_for_what_arxiv_asked() {
        let (mut pace, now) = (pace(), Instant::now());
        pace.end(now);
        assert_eq!(pace.next, now + 3 * SECOND);
        assert_eq!(pace.refused(Some(600 * SECOND)), 600 * SECOND);
        pace.end(now);
        assert_eq!(pace.next, now + 600 * SECOND);
        pace.end(now);
        assert_eq!(pace.next, now + 6 * SECOND, "it asked once");
    }

    #[tokio::test]
    async fn one_request_at_a_time_and_a_while_between_two() {
        let gate = Gate::new(Duration::from_millis(30));
        let start = Instant::now();
        for _ in 0..3 {
            let pass = gate.enter().await.unwrap();
            assert!(gate.pace.try_lock().is_err(), "one at a time");
            drop(pass);
        }
        assert!(start.elapsed() >= Duration::from_millis(60));
    }

    #[tokio::test]
    async fn a_long_wait_is_told_to_all() {
        let gate = Gate::new(3 * SECOND);
        assert_eq!(gate.enter().await.unwrap().refused(Some(600 * SECOND)), 600 * SECOND);
        let wait = gate.enter().await.map(drop).unwrap_err();
        assert!(wait > 590 * SECOND && wait <= 600 * SECOND);
    }
}
