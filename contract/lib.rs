//! What the stages promise each other. Every stage depends on this crate and on no other stage;
//! only the binary knows them all.
//!
//! # Glossary: one word per thing
//!
//! | word | meaning |
//! | --- | --- |
//! | source | what signals come from: `github`. Its folder is `acquisition/SOURCE` |
//! | collector | one named reader of a source with a cursor of its own: `github/events`, `github/file/SHA256` |
//! | harvest | what one poll of a collector brought: records, coverage and the next cursor |
//! | record | what a source said, byte for byte, with an id and times: [`RawRecord`] |
//! | topic, partition, offset | as in Kafka; a record is logged at one offset of one partition of `SOURCE.raw` |
//! | position | the next offset to read or to expect, per partition: [`Positions`] |
//! | share | the partitions of a topic that a process has, where several `process` share them: [`Share`] |
//! | span | a run of offsets per partition that is processed as one: [`Span`] |
//! | row | the typed form of a record, a line of `silver.SOURCE` |
//! | duplicate | a record whose id already stands as a row at a lower offset of its partition |
//! | dead letter | a record that cannot become a row, with its bytes and the reason |
//! | view | a question in SQL whose answer is kept: a batch layer's stored result and the speed layer over the rows since |
//! | watermark | of a view: the next offset per partition that its stored result does not hold |
//! | draft | of silver and the hot store: their rows made anew beside those in use, until they are exchanged for these |
//! | hot store, cold store | the last days, searchable; everything for good, as Delta tables |
//! | coverage | which interval of a source was seen, and what is known to be missed |
#![forbid(unsafe_code)]

mod assignments;
mod clock;
mod collector;
#[cfg(feature = "conformance")]
pub mod conformance;
mod drafts;
mod error;
pub mod limits;
mod log;
pub mod metric;
mod nearest;
mod position;
mod processor;
mod record;
pub mod row_json;
mod rows;
mod schema;
mod secret;
mod store;
mod structs;
mod timestamp;
mod views;
mod webhook;

pub use assignments::{Assignments, Share};
pub use clock::{Clock, SystemClock};
pub use collector::{Acknowledge, Collector, CollectorId, Coverage, CoverageKind, Cursor, Harvest};
pub use drafts::{ColdDrafts, Draft, DraftOf, Held, HotDrafts, Previous};
pub use error::{Error, QueryFault, Remedy, Result, with_causes};
pub use log::{Appended, Batch, Extent, Log, LogRecord, Lost, PartitionExtent, Topic};
pub use metric::Metric;
pub use nearest::{meant, nearest};
pub use position::{Offset, OffsetRange, Partition, Positions, Span, partition_of};
pub use processor::{Processor, Reject};
pub use record::{RawRecord, RecordId, SourceId};
pub use rows::{RowBuilder, Rows, RowsBuilder, bronze_batch, bronze_schema, dead_letter_schema, drop_below};
pub use schema::{COMMON, Column, Kind, Leaf, Period, RowSchema, Search};
pub use secret::Secret;
pub use store::{
    ColdStore, ColdTable, Expired, HotStore, IdPlace, IndexSummary, RowStream, SearchError, Store, StoredRow,
    TableStream,
};
pub use structs::Value;
pub use timestamp::{Day, Timestamp};
pub use views::{Boundary, SourceBoundary, StoredResult, ViewAnswer, ViewRequest, ViewSummary, Views};
pub use webhook::{Webhook, WebhookAnswer, WebhookRequest};
