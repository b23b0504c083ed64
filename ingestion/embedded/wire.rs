//! The little-endian fields of frame heads and index files.

/// Reads fields one after the other; answers none where the bytes end too early.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.bytes(4).map(|bytes| u32::from_le_bytes(bytes.try_into().expect("four bytes")))
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.bytes(8).map(|bytes| u64::from_le_bytes(bytes.try_into().expect("eight bytes")))
    }

    pub(crate) fn i64(&mut self) -> Option<i64> {
        self.u64().map(|value| value as i64)
    }

    /// A number of things that take at least `bytes_each` further bytes each, so that a false number
    /// cannot make the reader reserve memory for things that are not there.
    pub(crate) fn count(&mut self, bytes_each: usize) -> Option<usize> {
        let count = self.u32()? as usize;
        (count.checked_mul(bytes_each)? <= self.0.len()).then_some(count)
    }

    pub(crate) fn text(&mut self) -> Option<&'a str> {
        let length = self.u32()? as usize;
        std::str::from_utf8(self.bytes(length)?).ok()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Writes a number of things or bytes, which all callers keep below [`crate::frame::FRAME_BYTES_MAX`].
pub(crate) fn put_count(out: &mut Vec<u8>, count: usize) {
    let count = u32::try_from(count).expect("bounded by the size of a frame");
    out.extend_from_slice(&count.to_le_bytes());
}

pub(crate) fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

pub(crate) fn put_i64(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(&value.to_le_bytes());
}

pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_count(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_back_and_a_false_count_is_refused() {
        let mut bytes = Vec::new();
        put_text(&mut bytes, "github.raw");
        put_i64(&mut bytes, -7);
        put_u64(&mut bytes, 9);
        put_count(&mut bytes, 1_000_000);
        let mut fields = Fields(&bytes);
        assert_eq!(fields.text(), Some("github.raw"));
        assert_eq!(fields.i64(), Some(-7));
        assert_eq!(fields.u64(), Some(9));
        assert_eq!(fields.count(8), None, "a million things of 8 bytes are not there");
        assert!(fields.is_empty());
        assert_eq!(fields.u32(), None);
    }
}
