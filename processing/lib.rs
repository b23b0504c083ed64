//! The runtime between the log and the stores: reads a source's records, tells duplicates, makes rows
//! once, and hands them to both stores, each of which commits at its own pace.
//!
//! ```text
//! log ──read──► process ──► queue ──► hot: write, commit ≤ 1 s
//!      (drop duplicates,  └► queue ──► cold: write, commit by size or time
//!       reject, rows)
//! ```
//!
//! | crash | what is lost | what happens at the next start |
//! | --- | --- | --- |
//! | before a store's commit | the store's uncommitted rows | reading starts at the lower of both positions; the same rows are made again |
//! | between the commits of the two stores | nothing | the store that is ahead drops what it knows |
//! | after a commit, before the log hears of it | nothing | the log keeps the records a little longer |
//! | a partition goes to another process | what was committed in time is there; the rest the other one makes again | the other one starts where the stores stand |
//! | this process was paused while others took its partitions | what it had not committed | stores drop what they have; it hears of it, forgets, and joins with nothing |
//! | and the log is lost, or its end | what no store has committed | the log goes on behind what the stores hold, before anything is appended; the hot store is filled from silver; what only one of them has is named in the ledger |
#![forbid(unsafe_code)]

mod collect;
mod coverage;
#[cfg(test)]
mod handover_test;
mod known_ids;
mod loops;
mod lost;
#[cfg(test)]
mod memory;
mod pipeline;
#[cfg(test)]
mod pipeline_test;
mod reader;
mod rebuild;
mod reprocess;
mod retry;
mod store_loop;
mod troubles;
pub mod verify;

use std::sync::Arc;
use std::time::Duration;

use contract::{Assignments, Clock, ColdStore, HotStore, Log, Processor, RowSchema};

pub use collect::{Collected, append, collect};
pub use coverage::start_coverage;
pub use pipeline::{Flush, Pause, Pipeline, PipelineHandle, begin_after_stores};
pub use reprocess::{Change, Difference, Progress, Reprocess, Wanted};
pub use retry::until_done;
pub use store_loop::CommitPolicy;
pub use troubles::Troubles;

/// How often each store commits, and how often the janitor looks.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Rows are searchable at the most this long after they were read, when the source is caught up.
    /// Milliseconds; below 1,000 keeps "searchable within a second".
    pub hot_commit_interval_ms: u64,
    /// While a backlog is worked off, the hot store commits after this long instead: each commit makes a
    /// segment, and few large ones cost less. Milliseconds.
    pub hot_commit_backlog_ms: u64,
    /// The hot store commits after this many bytes of rows at the latest. Until then they stay in memory, to be written
    /// again should the disk be full.
    pub hot_commit_bytes_max: u64,
    /// Bytes of records that are read from the log and made rows at once. More make larger steps between
    /// the log and the stores; fewer cost more per record.
    pub batch_bytes_max: usize,
    /// Time between expiry of hot days and maintenance of the cold store. Milliseconds.
    pub janitor_interval_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            hot_commit_interval_ms: 500,
            hot_commit_backlog_ms: 5_000,
            hot_commit_bytes_max: 128 << 20,
            batch_bytes_max: 4 << 20,
            janitor_interval_ms: 60_000,
        }
    }
}

impl Settings {
    /// When the hot store commits.
    pub fn hot_policy(&self) -> CommitPolicy {
        CommitPolicy {
            interval: Duration::from_millis(self.hot_commit_interval_ms),
            backlog_interval: Duration::from_millis(self.hot_commit_backlog_ms),
            bytes_max: self.hot_commit_bytes_max,
        }
    }
}

/// The engines that a source's pipeline joins.
#[derive(Clone)]
pub struct Engines {
    /// Where records come from.
    pub log: Arc<dyn Log>,
    /// The last days.
    pub hot: Arc<dyn HotStore>,
    /// Everything.
    pub cold: Arc<dyn ColdStore>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What this process has of the partitions, where several share them; alone it has all.
    pub group: Option<Arc<dyn Assignments>>,
    /// What is being tried again at the moment.
    pub troubles: Arc<Troubles>,
}

/// What makes rows of a source's records.
#[derive(Clone, Copy)]
pub struct Recipe {
    /// The columns; names the source.
    pub schema: &'static RowSchema,
    /// Record in, row out.
    pub processor: &'static dyn Processor,
}
