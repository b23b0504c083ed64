//! The cold store: everything for good, as Delta tables on this disk or in an object store, with SQL over them.
//!
//! | table | columns | partitioned by |
//! | --- | --- | --- |
//! | `bronze.SOURCE` | [`contract::bronze_schema`] | `append_day`: the day of `appended_at` |
//! | `silver.SOURCE` | [`contract::RowSchema::arrow`] | `event_day` or `event_month`: first day of the [`contract::Period`] of `event_time` |
//! | `ops.dead_letters` | [`contract::dead_letter_schema`] | `source` |
//! | `ops.coverage` | [`coverage_schema`] | not at all |
//! | `ops.runs` | [`runs_schema`] | not at all |
//! | `gold.VIEW` | what the view's first statement selects | its time by `event_day` or `event_month`, if it has one |
//!
//! They lie in `DIR/SCHEMA/NAME`, or below the URL `cold.url` (`place.rs` says what differs), and ask of a reader no more than Delta's reader version 1.
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
//!
//! # Several processes
//!
//! Opened by [`DeltaStore::open_shared`], several processes write to the same tables, each the rows of partitions of its own.
//! What makes that safe is one thing: a commit's file appears under its version's name only if there is none of that name
//! (`durable.rs`). Rows are a pure function of the log, so two processes that hold the same offsets hold the same rows.
//!
//! | case | what holds |
//! | --- | --- |
//! | two commit at the same time, other partitions | the slower one takes the next version |
//! | a process lost a partition and does not know (a zombie), or the new owner meets what a zombie committed | a `txn` is not where it was found: the rows below the new one are dropped, the rest is committed, positions never go back |
//! | the zombie committed bronze and stopped | the new owner's bronze rows are dropped up to there; silver, which says what is done, is the new owner's |
//! | a query meanwhile | reads the logs first, and rows that wait are left out where the log has them: each row once |
//! | a process commits while another one vacuums | files that no commit names are taken an hour after they were written, and a commit names none older than half an hour |
//! | two compact the same files | the second finds its files gone, and gives up; all rows are there |
//! | old commits are cleaned while a process is behind | it reads the log anew from the last checkpoint |
//!
//! # Time travel
//!
//! Queries may name a table as it was, see `travel.rs`: `SELECT * FROM at_version('silver.github', 12)`,
//! `at_time('silver.github', '2026-11-01T00:00:00Z')`, `at_offset('silver.github', 0, 4711)`.
//!
//! Data files are on stable storage before the commit that names them is written, and that file appears
//! under its name only once it is on stable storage itself; see `durable.rs`.
#![forbid(unsafe_code)]

mod access;
mod columns;
mod commit;
mod committed;
mod compact;
mod data_file;
mod draft;
mod durable;
mod exchange;
#[cfg(test)]
mod exchange_test;
mod file_stats;
mod folders;
#[cfg(test)]
mod foreign_test;
#[cfg(test)]
mod growth_test;
mod ids;
mod layout;
mod live;
mod maintain;
mod marks;
mod open;
mod place;
mod query;
mod query_error;
mod query_threads;
mod reader;
#[cfg(test)]
#[cfg(feature = "real-servers")]
mod real_servers_test;
mod remote;
#[cfg(test)]
mod remote_test;
mod repair;
mod rewrite;
mod row_filter;
#[cfg(test)]
mod scale_test;
mod scan;
mod session;
mod settings;
#[cfg(test)]
mod sharing_test;
mod store;
mod table;
#[cfg(test)]
mod tests;
mod travel;
#[cfg(test)]
mod travel_test;
mod truncate;
mod uniqueness;
mod vacuum;
mod views;

pub use layout::{coverage_schema, runs_schema};
pub use live::LiveTable;
pub use remote::Credentials;
pub use row_filter::RowFilter;
pub use session::Session;
pub use settings::Settings;
pub use store::{DeltaStore, TableSummary};
pub use views::{Explained, ViewEngine, ViewRun};
