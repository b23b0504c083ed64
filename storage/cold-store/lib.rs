//! The cold store: everything for good, as Delta tables on this disk, with SQL over them.
//!
//! | table | columns | partitioned by |
//! | --- | --- | --- |
//! | `bronze.SOURCE` | [`contract::bronze_schema`] | `append_day`: the day of `appended_at` |
//! | `silver.SOURCE` | [`contract::RowSchema::arrow`] | `event_day` or `event_month`: first day of the [`contract::Period`] of `event_time` |
//! | `ops.dead_letters` | [`contract::dead_letter_schema`] | `source` |
//! | `ops.coverage` | [`coverage_schema`] | not at all |
//!
//! They lie in `DIR/SCHEMA/NAME` and ask of a reader no more than Delta's reader version 1.
//! Delta's protocol: <https://github.com/delta-io/delta/blob/master/PROTOCOL.md>.
//!
//! # How offsets and rows become true together
//!
//! A Delta commit is one file that names the data files it adds. Ours also holds one `txn` action per
//! partition (appId `databroker/silver.github/PARTITION`) whose version is the next offset. The three
//! tables of a source are committed one after another, **silver last**; bronze and the dead letters only
//! when rows of theirs wait, silver always. So silver's `txn` says "all three tables hold all below", and a
//! table's own position is the higher of its own `txn` and silver's:
//!
//! | found at the start, for a span 5..9 | what happened | what a replay of 5..9 does |
//! | --- | --- | --- |
//! | no `txn` at 9 | died before any commit; its data files are orphans that the vacuum removes | writes all three |
//! | bronze at 9, dead letters and silver at 5 | died after the first commit | bronze drops what it is given, the others take it |
//! | bronze and dead letters at 9, silver at 5 | died after the second | silver takes it, the others drop it |
//! | silver at 9, bronze at 5 | the span had no records (holes only): bronze had nothing to commit | nothing: all count as 9 |
//! | silver at 9, dead letters at 5 | the span had no dead letters | nothing: all count as 9 |
//! | a second process commits meanwhile | it holds the same `txn`, which Delta's conflict check refuses | it must stop |
//!
//! Data files are on stable storage before the commit that names them is written, and that file appears
//! under its name only once it is on stable storage itself; see `durable.rs`.
#![forbid(unsafe_code)]

mod commit;
mod data_file;
mod durable;
mod file_stats;
mod ids;
mod layout;
mod maintain;
mod query;
mod query_error;
mod repair;
mod rewrite;
mod scan;
mod settings;
mod store;
mod table;
#[cfg(test)]
mod tests;
mod vacuum;

pub use layout::coverage_schema;
pub use settings::Settings;
pub use store::{DeltaStore, TableSummary};
