//! Collectors: what asks a source, and what it brings.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::{RawRecord, Result, SourceId, Timestamp};

/// The name of one collector, `SOURCE/WHAT`: `github/events`, `github/file/SHA256`. It names the
/// cursor in the log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CollectorId(pub String);

impl fmt::Display for CollectorId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// Where a collector stands, in a form of its own (JSON text by custom); empty before the first harvest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor(pub String);

/// Answers polls. It keeps nothing that the cursor does not say: a new one, given the same cursor,
/// goes on where this one stood.
#[async_trait]
pub trait Collector: Send {
    /// Its name.
    fn id(&self) -> CollectorId;

    /// Brings what is new after `cursor`. The runtime appends the answer to the log in one piece and
    /// calls again with the harvest's cursor; it may do so before that append has ended, but a cursor
    /// counts only once it is in the log.
    ///
    /// # Errors
    /// With the remedy `Retry` or `RetryAfter` the runtime calls again with the same cursor.
    async fn poll(&mut self, cursor: &Cursor) -> Result<Harvest>;

    /// What the poll that has just failed learned all the same, asked once after it: a harvest without records, whose cursor
    /// is logged for those who read cursors. The next poll is given the cursor before it. Most learn nothing.
    fn learned(&mut self) -> Option<Harvest> {
        None
    }

    /// What is still held once the program is asked to end, called until it answers none; nothing further is accepted
    /// after the first call. Most collectors hold nothing: they are asked, and what they did not bring is there next time.
    ///
    /// # Errors
    /// What is held is lost then, and the error says how much.
    async fn drain(&mut self, _cursor: &Cursor) -> Result<Option<Harvest>> {
        Ok(None)
    }
}

/// What one poll brought. Records, coverage and cursor enter the log together or not at all.
#[derive(Clone, Debug)]
pub struct Harvest {
    /// The source.
    pub source: SourceId,
    /// Who harvested.
    pub collector: CollectorId,
    /// The records, in the order they are to be logged.
    pub records: Vec<RawRecord>,
    /// What this poll saw and what it knows it missed.
    pub coverage: Vec<Coverage>,
    /// Where the collector stands after it.
    pub cursor: Cursor,
    /// When to poll again; none when there will never be more (a file that was read to its end).
    pub poll_again_in: Option<Duration>,
    /// Told once all of this is on disk: whoever handed in the records waits for it.
    pub acknowledge: Option<Acknowledge>,
}

/// Called once, when a harvest is on disk.
#[derive(Clone)]
pub struct Acknowledge(Arc<dyn Fn() + Send + Sync>);

impl Acknowledge {
    /// Calls `tell` then.
    pub fn new(tell: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }

    /// Says that the harvest is on disk.
    pub fn on_disk(&self) {
        (self.0)();
    }
}

impl fmt::Debug for Acknowledge {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Acknowledge")
    }
}

/// Whether an interval was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CoverageKind {
    /// All that the source offered of the interval was taken.
    Covered,
    /// Something of the interval was missed.
    Missed,
}

/// One line of the ledger of what was seen and what was missed; a record of the topic
/// `databroker.coverage`, as JSON, and a row of `ops.coverage`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Coverage {
    /// The source's name.
    pub source: String,
    /// The collector's name.
    pub collector: String,
    /// Seen or missed.
    pub kind: CoverageKind,
    /// Start of the interval, by the source's clock.
    pub from: Timestamp,
    /// End of the interval, not part of it.
    pub to: Timestamp,
    /// How many records: taken if covered, estimated if missed.
    pub records: u64,
    /// Why, in words: `page 3 ends after the last event seen`.
    pub reason: String,
}
