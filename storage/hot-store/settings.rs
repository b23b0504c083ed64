//! What can be set about the hot store.

use contract::{Error, Result};
use serde::{Deserialize, Serialize};

/// Bytes that tantivy asks of a writer at the least.
pub(crate) const WRITER_MEMORY_BYTES_MIN: usize = 15_000_000;

/// Bytes that tantivy takes for a writer at the most.
const WRITER_MEMORY_BYTES_MAX: usize = u32::MAX as usize - 1_000_000;

/// The section `[hot]` of the settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// How many days an event stays searchable; older rows are in the cold store only. 0 keeps all, in
    /// indices by month. Ten days answer what people search for and bound the disk.
    pub retention_days: u16,
    /// Indices, over all sources, that take rows at the same time, each with all of `writer_memory_bytes`. Beyond it a
    /// source commits and closes the one of its own that it used longest ago, or has one with the least memory: live rows
    /// fall into one or two days, and more writers only cost memory.
    pub open_writers_max: usize,
    /// Bytes of rows that one open index collects in memory before it writes a segment, at least 15 MB. Larger
    /// ones make fewer segments during a backfill; with a commit a second, live rows never fill it.
    pub writer_memory_bytes: usize,
    /// Bytes of rows, over all sources, that wait to be indexed. Lets parsing and indexing overlap, no more.
    pub queued_bytes_max: usize,
    /// Seconds without a row after which an open index is closed and its memory given back.
    pub writer_idle_seconds: u64,
    /// Segments of about the same size that are merged into one. Fewer make searches faster and
    /// indexing dearer: each row is rewritten once per tenfold growth or so.
    pub merge_segments_min: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            retention_days: 10,
            open_writers_max: 4,
            writer_memory_bytes: 64_000_000,
            queued_bytes_max: 32_000_000,
            writer_idle_seconds: 60,
            merge_segments_min: 10,
        }
    }
}

impl Settings {
    /// Names the first setting that is out of its range.
    ///
    /// # Errors
    /// `Change`, with what would have been right.
    pub fn check(&self) -> Result<()> {
        let wrong = |what: String| Err(Error::change(format!("use the settings `hot`: {what}")));
        if self.open_writers_max == 0 {
            return wrong("`open_writers_max` is 0 (at least 1)".to_owned());
        }
        if !(WRITER_MEMORY_BYTES_MIN..WRITER_MEMORY_BYTES_MAX).contains(&self.writer_memory_bytes) {
            let given = self.writer_memory_bytes;
            return wrong(format!(
                "`writer_memory_bytes` is {given} ({WRITER_MEMORY_BYTES_MIN} to {WRITER_MEMORY_BYTES_MAX})"
            ));
        }
        if self.queued_bytes_max == 0 {
            return wrong("`queued_bytes_max` is 0 (at least 1)".to_owned());
        }
        if self.merge_segments_min < 2 {
            return wrong(format!("`merge_segments_min` is {} (at least 2)", self.merge_segments_min));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_within_their_ranges() {
        assert!(Settings::default().check().is_ok());
    }

    #[test]
    fn a_setting_out_of_range_is_named_with_its_range() {
        let settings = Settings { writer_memory_bytes: 1, ..Settings::default() };
        let error = settings.check().expect_err("too little").to_string();
        assert_eq!(error, "failed to use the settings `hot`: `writer_memory_bytes` is 1 (15000000 to 4293967295)");
    }
}
