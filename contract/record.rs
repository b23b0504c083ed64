//! The raw record: what a source said, byte for byte.

use std::fmt;

use bytes::Bytes;

use crate::Timestamp;

/// The name of a source: `github`. Lower-case letters only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId(pub &'static str);

impl fmt::Display for SourceId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.0)
    }
}

/// The id of a record within its source and event day: the source's own, or made from the content.
/// It is also the record's key in the log, so that the same id always falls into the same partition.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId(Bytes);

impl RecordId {
    /// Takes UTF-8 bytes as they are; none if they are not UTF-8.
    pub fn from_utf8(bytes: Bytes) -> Option<Self> {
        std::str::from_utf8(&bytes).is_ok().then_some(Self(bytes))
    }

    /// The id as text.
    #[expect(clippy::missing_panics_doc, reason = "both constructors take UTF-8 only")]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("checked by both constructors")
    }
}

impl From<String> for RecordId {
    fn from(text: String) -> Self {
        Self(Bytes::from(text))
    }
}

impl From<&str> for RecordId {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

impl fmt::Debug for RecordId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "`{self}`")
    }
}

/// One record as collected. A record that nothing can be made of (a cut event, binary) is one too:
/// its id comes from its content and its event time is the fetch time, and the processor rejects it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawRecord {
    /// Its id, which is also its key.
    pub id: RecordId,
    /// When it happened, as the source says; the fetch time where the source says nothing.
    pub event_time: Timestamp,
    /// When the collector got it.
    pub fetched_at: Timestamp,
    /// What the source said.
    pub body: Bytes,
}
