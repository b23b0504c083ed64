//! Processors: from a raw record to a row.

use std::fmt;

use crate::{RawRecord, RowBuilder};

/// Makes a row of a record. Pure: the same record gives the same row on any machine at any time.
pub trait Processor: Send + Sync {
    /// Writes the record's own columns. Those common to all sources (`_partition`, `_offset`,
    /// `_id`, `event_time`, `fetched_at`) are written by the runtime; a column that is not written is null.
    /// A processor checks first and writes then: after an error it has written nothing.
    ///
    /// # Errors
    /// The reason for which the record becomes a dead letter.
    fn process(&self, record: &RawRecord, row: &mut RowBuilder) -> Result<(), Reject>;
}

/// Why a record cannot become a row; reads alone: "`payload.size` is a string, should be an integer".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// A word for counting: `json`, `type`, `size`, `time`, `panic`.
    pub kind: &'static str,
    /// The sentence for a reader.
    pub reason: String,
}

impl Reject {
    /// A reject of a kind for a reason.
    pub fn new(kind: &'static str, reason: impl Into<String>) -> Self {
        Self { kind, reason: reason.into() }
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.reason)
    }
}
