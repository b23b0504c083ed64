//! The durable partitioned log: the trait that the embedded log and Kafka both answer.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use crate::{
    CollectorId, Cursor, Harvest, Offset, OffsetRange, Partition, Positions, RawRecord, Result, SourceId, Timestamp,
};

/// The name of a topic: `github.raw`, `databroker.coverage`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic(pub String);

impl Topic {
    /// The topic of a source's records: `github.raw`.
    pub fn raw(source: SourceId) -> Self {
        Self(format!("{source}.raw"))
    }

    /// The topic of coverage, `databroker.coverage`: one partition, each value a [`crate::Coverage`] as JSON.
    pub fn coverage() -> Self {
        Self("databroker.coverage".to_owned())
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// A log of topics with partitions. Offsets of a partition ascend and never change.
///
/// | case | what holds |
/// | --- | --- |
/// | `append` answered `Ok` | records, coverage and cursor are on stable storage and stay |
/// | `append` answered an error, or the process died in it | all of the harvest is there, or nothing of it |
/// | a harvest is appended again with a cursor that was not stored | it is logged again: the collector polls from the stored cursor, so this does not happen |
/// | `read` | answers only what is on stable storage, in offset order per partition, and each offset once |
/// | the log lost its end, or was begun anew | after `begin_after` no offset that a store holds is given again |
#[async_trait]
pub trait Log: Send + Sync {
    /// Logs the records in `SOURCE.raw`, the coverage in `databroker.coverage`, and the cursor.
    ///
    /// # Errors
    /// `Retry` when the log takes nothing now (its disk cap is reached), `Stop` when the disk failed.
    async fn append(&self, harvest: &Harvest) -> Result<Appended>;

    /// Where a collector stands; none if it never appended.
    ///
    /// # Errors
    /// When the log cannot be read.
    async fn cursor(&self, collector: &CollectorId) -> Result<Option<Cursor>>;

    /// All cursors whose collector's name starts with `prefix`, by name.
    ///
    /// # Errors
    /// When the log cannot be read.
    async fn cursors(&self, prefix: &str) -> Result<Vec<(CollectorId, Cursor)>>;

    /// Records of a topic at and after `from`, of any of the partitions that `from` names: at least one
    /// if there is one, then about `body_bytes_max` bytes of bodies at the most. Waits up to `wait` for the first.
    ///
    /// # Errors
    /// `Stop` for an offset below the start of a partition: what stood there was removed by retention.
    async fn read(&self, topic: &Topic, from: &Positions, body_bytes_max: usize, wait: Duration) -> Result<Batch>;

    /// The topics and how far each partition reaches.
    ///
    /// # Errors
    /// When the log cannot be read.
    async fn extents(&self) -> Result<BTreeMap<Topic, Extent>>;

    /// How far each partition of a topic reaches; no partitions if there is no such topic yet.
    ///
    /// # Errors
    /// As `extents`.
    async fn extent(&self, topic: &Topic) -> Result<Extent> {
        Ok(self.extents().await?.remove(topic).unwrap_or_default())
    }

    /// Makes sure that the next records of a topic stand at or behind `committed`, what any store holds: given again,
    /// its offsets would be taken for records that are stored already, and new records dropped. What lies between the
    /// end of the log and `committed` is lost to readers. To be called, after `release`, before the first append.
    ///
    /// # Errors
    /// `Change` when the log has no such partition or cannot go on behind `committed`, `Stop` when the disk failed.
    async fn begin_after(&self, topic: &Topic, committed: &Positions) -> Result<()>;

    /// Whether every offset between the start and the end of a partition is a record's. Kafka's have holes: the ends of
    /// transactions, and what was undone.
    fn is_dense(&self) -> bool {
        true
    }

    /// Says that all below `positions` is committed by every store, so that retention may remove it.
    ///
    /// # Errors
    /// When the log cannot take it.
    async fn release(&self, topic: &Topic, positions: &Positions) -> Result<()>;
}

/// What an append added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Appended {
    /// The offsets given to the records, per partition of `SOURCE.raw`.
    pub ranges: Vec<OffsetRange>,
    /// How many bytes were written to the log for it.
    pub bytes: u64,
}

/// A record in the log.
#[derive(Clone, Debug)]
pub struct LogRecord {
    /// Its partition.
    pub partition: Partition,
    /// Its offset.
    pub offset: Offset,
    /// When it was appended.
    pub appended_at: Timestamp,
    /// The record.
    pub record: RawRecord,
}

/// What a read brought.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The records; ascending by offset within a partition.
    pub records: Vec<LogRecord>,
    /// Where to read next, for all partitions asked.
    pub next: Positions,
    /// Offsets between `from` and `next` that were in the log once and can no longer be read.
    pub lost: Vec<Lost>,
}

/// Offsets that damage took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Which.
    pub range: OffsetRange,
    /// Where and why: the segment, the byte, and the copy in quarantine.
    pub reason: String,
}

/// How far a topic reaches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Per partition, from 0.
    pub partitions: Vec<PartitionExtent>,
}

impl Extent {
    /// The next offset of every partition.
    pub fn end(&self) -> Positions {
        Positions((0..).zip(&self.partitions).map(|(p, extent)| (p, extent.end)).collect())
    }

    /// The first offset still there, of every partition.
    pub fn start(&self) -> Positions {
        Positions((0..).zip(&self.partitions).map(|(p, extent)| (p, extent.start)).collect())
    }
}

/// How far a partition reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartitionExtent {
    /// The first offset that is still there.
    pub start: Offset,
    /// The next offset to be given.
    pub end: Offset,
    /// Bytes on disk.
    pub bytes: u64,
}
