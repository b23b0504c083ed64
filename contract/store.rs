//! The stores: the two ends that rows are written to.

use std::fmt;
use std::pin::Pin;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use futures_core::Stream;
use serde_json::Value;

use crate::{Coverage, Day, Offset, OffsetRange, Partition, Positions, Result, Rows, SourceId, Timestamp};

/// Takes rows and remembers, with them, which offsets they came from.
///
/// | case | what holds |
/// | --- | --- |
/// | `commit` answered `Ok(next)` | every row written so far and "all below `next` is done" are on stable storage, together |
/// | the process died between `write` and `commit` | the store opens as of its last commit; the runtime reads the log again from there |
/// | the process died inside `commit` | parts of the store may hold rows beyond `committed`; written again, they stand there once |
/// | a span is written that starts beyond what was written | refused: it would leave a gap |
/// | a span is written that was written already, wholly or in part | what is known is dropped, the rest is taken |
/// | partitions are given up and taken again by `resume` | what was written of them and not committed is forgotten; written again, it stands there once |
/// | another process took partitions and committed, `resume` was not called (a zombie) | rows of the same offsets are dropped at `commit`, which is no error; positions never go back |
#[async_trait]
pub trait Store: Send + Sync {
    /// Its name in metrics and messages: `hot` or `cold`.
    fn name(&self) -> &'static str;

    /// Takes the rows of a span. They may be seen by queries from now on; they stay only after `commit`.
    ///
    /// # Errors
    /// `Stop` when the span leaves a gap or the disk failed, `Retry` when a peer is away; after an error
    /// nothing of the span counts as written.
    async fn write(&self, rows: &Rows) -> Result<()>;

    /// Makes all that was written for the source durable, and answers the next offsets.
    ///
    /// # Errors
    /// As `write`. The rows stay with the store, and `commit` may be called again.
    async fn commit(&self, source: SourceId) -> Result<Positions>;

    /// The next offsets as of the last commit.
    ///
    /// # Errors
    /// When the store cannot be read.
    async fn committed(&self, source: SourceId) -> Result<Positions>;

    /// Begins to take rows of some partitions that another process may have written until now: forgets what was written of
    /// them and not committed, and answers their next offsets as of the last commit, whoever made it; 0 for a partition
    /// without one. What was written of other partitions stays.
    ///
    /// # Errors
    /// As `write`.
    async fn resume(&self, source: SourceId, partitions: &[Partition]) -> Result<Positions>;
}

/// The store of the last days: full text, Elasticsearch's query language.
#[async_trait]
pub trait HotStore: Store {
    /// Elasticsearch's `_search`: `indices` is a comma-separated list of names, patterns (`github-*`) or
    /// aliases, `request` the body, the answer Elasticsearch's response body.
    /// Source: <https://www.elastic.co/guide/en/elasticsearch/reference/8.19/search-search.html>.
    ///
    /// # Errors
    /// Elasticsearch's own: 400 for what is malformed or not supported, 404 for an index that is not there.
    async fn search(&self, indices: &str, request: &Value) -> Result<Value, SearchError>;

    /// Elasticsearch's `_count`; see `search`.
    ///
    /// # Errors
    /// As `search`.
    async fn count(&self, indices: &str, request: &Value) -> Result<Value, SearchError>;

    /// Elasticsearch's `_mapping`; see `search`.
    ///
    /// # Errors
    /// As `search`.
    async fn mapping(&self, indices: &str) -> Result<Value, SearchError>;

    /// The indices that match, by name.
    ///
    /// # Errors
    /// As `search`.
    async fn indices(&self, pattern: &str) -> Result<Vec<IndexSummary>, SearchError>;

    /// The first day that the store keeps at `now`; none when it keeps all.
    fn first_day(&self, now: Timestamp) -> Option<Day>;

    /// Removes the indices of a source whose days lie before [`HotStore::first_day`], but only those whose
    /// every offset lies below `cold`; makes what it keeps durable first.
    ///
    /// # Errors
    /// When the disk or peer fails.
    async fn expire(&self, source: SourceId, now: Timestamp, cold: &Positions) -> Result<Expired>;

    /// All committed rows of a source, index by index, for proofs.
    ///
    /// # Errors
    /// When the store cannot be read.
    async fn rows(&self, source: SourceId) -> Result<RowStream>;

    /// Writes single rows anew, outside the order of offsets, and makes them durable: those of `rows` that
    /// the store keeps at present are there once afterwards. For repair only; positions do not move.
    ///
    /// # Errors
    /// As `write`.
    async fn replace(&self, source: SourceId, rows: &RecordBatch) -> Result<()>;

    /// Removes single rows by partition and offset, durably. For repair only.
    ///
    /// # Errors
    /// As `write`.
    async fn remove(&self, source: SourceId, places: &[(Partition, Offset)]) -> Result<()>;
}

/// Rows as the hot store holds them.
pub type RowStream = Pin<Box<dyn Stream<Item = Result<StoredRow>> + Send>>;

/// A row as the hot store holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRow {
    /// The index: `github-2026.11.22`.
    pub index: String,
    /// The partition of its record.
    pub partition: Partition,
    /// The offset of its record.
    pub offset: Offset,
    /// Its `_id`.
    pub id: String,
    /// Its `_source`: the row as [`crate::row_json::write_row`] writes it.
    pub source_json: String,
}

/// A line of `_cat/indices`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexSummary {
    /// `github-2026.11.22`.
    pub name: String,
    /// Rows, as searches see them.
    pub rows: u64,
    /// Bytes on disk.
    pub bytes: u64,
}

/// What left the hot store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// Names of the removed indices.
    pub removed: Vec<String>,
    /// Names of those that are due but wait for the cold store.
    pub waiting: Vec<String>,
}

/// An error as Elasticsearch answers it: `{"error":{"type":…,"reason":…},"status":…}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchError {
    /// The HTTP status.
    pub status: u16,
    /// Elasticsearch's name of the error: `parsing_exception`.
    pub kind: &'static str,
    /// What is wrong, and what would be right.
    pub reason: String,
}

impl fmt::Display for SearchError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.kind, self.reason)
    }
}

impl std::error::Error for SearchError {}

/// The store of everything: Delta tables and SQL over them.
#[async_trait]
pub trait ColdStore: Store {
    /// The ids of the committed rows of the period of event time that starts at `day`: batches of `id` (text), `_partition`, `_offset`
    /// (64-bit). The memory by which duplicates are told.
    ///
    /// # Errors
    /// When the table cannot be read.
    async fn ids(&self, source: SourceId, day: Day) -> Result<TableStream>;

    /// Where ids of the period that starts at `day` stand among the committed rows; only those that do.
    ///
    /// # Errors
    /// When the table cannot be read.
    async fn find_ids(&self, source: SourceId, day: Day, ids: &[&str]) -> Result<Vec<IdPlace>>;

    /// Which offsets of some runs hold committed rows, in no order.
    ///
    /// # Errors
    /// When the table cannot be read.
    async fn rows_at(&self, source: SourceId, ranges: &[OffsetRange]) -> Result<Vec<(Partition, Offset)>>;

    /// Answers a query over `bronze.*`, `silver.*` and `ops.*`: committed files and rows that are only
    /// written, as one table. Read-only; time and memory are limited by the store's settings.
    ///
    /// # Errors
    /// `Change` for a query that is wrong, with its place; `Retry` when a limit was reached.
    async fn sql(&self, query: &str) -> Result<TableStream>;

    /// As `sql`, for our own reading of whole tables: without limits of rows and time, in small batches. Such a query
    /// selects and filters; to sort, join or group whole tables takes memory that it is not granted.
    ///
    /// # Errors
    /// When a table cannot be read.
    async fn scan(&self, query: &str) -> Result<TableStream> {
        self.sql(query).await
    }

    /// Adds lines of the ledger, which stand at `range` of `databroker.coverage`, to `ops.coverage` and
    /// commits them; what is below the committed position is dropped.
    ///
    /// # Errors
    /// As `write`.
    async fn commit_coverage(&self, range: OffsetRange, lines: &[(Offset, Coverage)]) -> Result<()>;

    /// The next offset of `databroker.coverage`.
    ///
    /// # Errors
    /// When the table cannot be read.
    async fn coverage_committed(&self) -> Result<Positions>;

    /// Mends single rows of a source in one table, outside the order of offsets, in one commit: removes
    /// all that stand at `remove`, adds those of `append`. For repair only; positions do not move.
    ///
    /// # Errors
    /// As `write`.
    async fn mend(
        &self,
        source: SourceId,
        table: ColdTable,
        remove: &[(Partition, Offset)],
        append: Option<&RecordBatch>,
    ) -> Result<()>;

    /// Compacts small files, writes checkpoints, removes files and log entries that no reader needs any
    /// more. Bounded in memory; commits go on meanwhile. Answers what was done, a line a table.
    ///
    /// # Errors
    /// When a table cannot be read or written; nothing is lost then.
    async fn maintain(&self) -> Result<Vec<String>>;
}

/// The tables that hold what a source said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ColdTable {
    /// `bronze.SOURCE`: every record.
    Bronze,
    /// `silver.SOURCE`: the rows.
    Silver,
    /// The source's part of `ops.dead_letters`.
    DeadLetters,
}

/// Where the row of an id stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdPlace {
    /// The id.
    pub id: String,
    /// The partition of its record.
    pub partition: Partition,
    /// The offset of its record.
    pub offset: Offset,
}

/// Columnar answers of one schema.
pub struct TableStream {
    /// The columns.
    pub schema: SchemaRef,
    /// The batches.
    pub batches: Pin<Box<dyn Stream<Item = Result<RecordBatch>> + Send>>,
}
