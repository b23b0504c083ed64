//! What every cold store must do.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt};

use super::cold_store_shared as shared;
use crate::{
    ColdStore, Column, Coverage, CoverageKind, Kind, LogRecord, Offset, OffsetRange, Partition, Period, Positions,
    Processor, RawRecord, Reject, Remedy, RowBuilder, RowSchema, Rows, RowsBuilder, Search, SourceId, Span, Timestamp,
    Value,
};

/// The source of the suite.
pub const SOURCE: SourceId = SourceId("github");

/// The columns of the suite's rows.
pub static SCHEMA: RowSchema = RowSchema {
    source: SOURCE,
    period: Period::Day,
    columns: &[
        Column { name: "type", kind: Kind::Text, search: Search::Exact, doc: "Alternates between two texts." },
        Column { name: "number", kind: Kind::Integer, search: Search::Exact, doc: "The offset." },
        Column { name: "labels", kind: Kind::TextList, search: Search::Exact, doc: "None, one or two texts." },
        Column { name: "public", kind: Kind::Boolean, search: Search::Exact, doc: "True, or null." },
        Column { name: "created_at", kind: Kind::Timestamp, search: Search::Exact, doc: "The time of the event." },
        Column { name: "ratio", kind: Kind::Float, search: Search::Exact, doc: "A quarter of the offset." },
        Column { name: "parts", kind: Kind::StructList(PARTS), search: Search::Exact, doc: "None, one or two." },
    ],
};

const PARTS: &[Column] = &[
    Column { name: "parts.name", kind: Kind::Text, search: Search::Exact, doc: "A text." },
    Column { name: "parts.size", kind: Kind::Integer, search: Search::Exact, doc: "The offset, or null." },
];

/// A place where a store lives on when it is closed; empty at first. A store is closed before the next is opened for
/// writing.
#[async_trait]
pub trait Place: Send + Sync {
    /// Opens the store for writing, with [`SCHEMA`].
    async fn open(&self) -> Arc<dyn ColdStore>;

    /// Opens the store for reading beside one that writes.
    async fn open_read_only(&self) -> Arc<dyn ColdStore>;

    /// Opens the store for writing beside others that were opened so, as another process does.
    async fn open_shared(&self) -> Arc<dyn ColdStore>;
}

type Case = fn(Arc<dyn Place>) -> BoxFuture<'static, ()>;

/// All cases, by the behaviour that each proves. Each is run in a place of its own and panics where the store is wrong.
pub const CASES: &[(&str, Case)] = &[
    ("a gap is refused and nothing of its span is taken", |place| Box::pin(gap(place))),
    ("a span written again adds nothing", |place| Box::pin(written_again(place))),
    ("a span written again in part adds the rest", |place| Box::pin(written_again_in_part(place))),
    ("rows that are not committed vanish with the process", |place| Box::pin(uncommitted(place))),
    ("positions survive, of several partitions and of spans without records", |place| Box::pin(positions(place))),
    ("a resume forgets what was not committed of its partitions alone", |place| Box::pin(shared::resume(place))),
    ("a partition goes from one process to another, and a zombie changes nothing", |place| {
        Box::pin(shared::handed_over(place))
    }),
    ("the ledger is committed once, whoever does it", |place| Box::pin(shared::ledger(place))),
    ("queries see each row once before, during and after commits", |place| Box::pin(queries_during_commits(place))),
    ("ids of a day are found among the committed rows", |place| Box::pin(ids(place))),
    ("dead letters keep their bytes", |place| Box::pin(dead_letters(place))),
    ("coverage is committed once", |place| Box::pin(coverage(place))),
    ("a query that writes, or is wrong, is refused with its place", |place| Box::pin(refused(place))),
    ("a reader sees what is committed and cannot write", |place| Box::pin(reader(place))),
    ("maintenance changes no row", |place| Box::pin(maintenance(place))),
];

/// The rows of offsets `from..to` of a partition. Every tenth offset is a dead letter; the event days are
/// 2015-01-01 and, from offset 1,000 on, the day after; the id is `PARTITION-OFFSET`.
///
/// # Panics
/// If the contract's builder keeps a row that the processor rejects, or the other way round.
pub fn rows(partition: Partition, from: Offset, to: Offset) -> Rows {
    let mut builder = RowsBuilder::new(&SCHEMA);
    for offset in from..to {
        let rejected = builder.record(&record(partition, offset), &Suite).is_err();
        assert_eq!(rejected, offset % 10 == 9);
    }
    builder.finish(Span { source: SOURCE, ranges: vec![OffsetRange { partition, from, to }] })
}

/// The one number that a query answers.
///
/// # Panics
/// If it answers something else.
pub async fn number(store: &dyn ColdStore, query: &str) -> i64 {
    let batches = answer(store, query).await;
    let rows: Vec<&RecordBatch> = batches.iter().filter(|batch| batch.num_rows() > 0).collect();
    assert_eq!(rows.len(), 1, "{query}");
    rows[0].column(0).as_primitive::<Int64Type>().value(0)
}

/// What a query answers.
///
/// # Panics
/// If it fails.
pub async fn answer(store: &dyn ColdStore, query: &str) -> Vec<RecordBatch> {
    let stream = store.sql(query).await.unwrap_or_else(|error| panic!("{query}: {error}"));
    stream.batches.try_collect().await.unwrap_or_else(|error| panic!("{query}: {error}"))
}

struct Suite;

impl Processor for Suite {
    fn process(&self, record: &RawRecord, row: &mut RowBuilder) -> Result<(), Reject> {
        let offset: i64 = std::str::from_utf8(&record.body).ok().and_then(|text| text.parse().ok()).unwrap_or(9);
        if offset % 10 == 9 {
            return Err(Reject::new("type", format!("{offset} ends in nine")));
        }
        row.text(SCHEMA.place("type"), if offset % 2 == 0 { "PushEvent" } else { "IssuesEvent" });
        row.integer(SCHEMA.place("number"), offset);
        let labels = ["bug", "good first issue"];
        row.texts(SCHEMA.place("labels"), labels.into_iter().take((offset % 3) as usize));
        if offset % 4 == 0 {
            row.boolean(SCHEMA.place("public"), true);
        }
        row.timestamp(SCHEMA.place("created_at"), record.event_time);
        row.float(SCHEMA.place("ratio"), offset as f64 / 4.0);
        let parts = [[Value::Text("first"), Value::Integer(offset)], [Value::Text("second"), Value::Null]];
        row.structs(SCHEMA.place("parts"), parts.into_iter().take((offset % 3) as usize));
        Ok(())
    }
}

fn start() -> Timestamp {
    Timestamp::parse_rfc3339("2015-01-01T00:00:00Z").expect("valid")
}

/// The record at an offset; its body is the offset.
pub fn record(partition: Partition, offset: Offset) -> LogRecord {
    let day = if offset < 1_000 { 0 } else { 86_400_000_000 };
    let event_time = Timestamp(start().0 + day + offset % 1_000 * 1_000 + 7);
    let body = Bytes::from(offset.to_string());
    let id = format!("{partition}-{offset}").as_str().into();
    let fetched_at = Timestamp(event_time.0 + 1_000_000);
    let record = RawRecord { id, event_time, fetched_at, body };
    LogRecord { partition, offset, appended_at: Timestamp(fetched_at.0 + 1_000), record }
}

async fn counts(store: &dyn ColdStore) -> (i64, i64, i64) {
    let bronze = number(store, "SELECT count(*) FROM bronze.github").await;
    let silver = number(store, "SELECT count(*) FROM silver.github").await;
    (bronze, silver, number(store, "SELECT count(*) FROM ops.dead_letters").await)
}

/// Every offset below `to` stands once, in silver or in the dead letters, and in bronze.
async fn assert_complete(store: &dyn ColdStore, to: i64) {
    assert_eq!(counts(store).await, (to, to - to / 10, to / 10));
    for table in ["bronze.github", "(SELECT _offset FROM silver.github UNION ALL SELECT _offset FROM ops.dead_letters)"]
    {
        assert_eq!(number(store, &format!("SELECT count(DISTINCT _offset) FROM {table}")).await, to, "{table}");
    }
    let wrong = "SELECT count(*) FROM silver.github WHERE ratio <> _offset / 4.0 OR cardinality(labels) <> _offset % 3 \
                 OR cardinality(parts) <> _offset % 3 OR parts[1]['size'] <> _offset OR parts[2]['name'] <> 'second'";
    assert_eq!(number(store, wrong).await, 0, "values of lists and structs are kept");
}

/// Positions from pairs.
pub(super) fn at(next: &[(Partition, Offset)]) -> Positions {
    Positions(next.iter().copied().collect::<BTreeMap<_, _>>())
}

async fn gap(place: Arc<dyn Place>) {
    let store = place.open().await;
    let error = store.write(&rows(0, 10, 20)).await.expect_err("offsets 0..10 are missing");
    assert_eq!(error.remedy(), Remedy::Stop, "{error}");
    assert!(error.to_string().contains("0..10"), "{error}");
    assert_eq!(counts(store.as_ref()).await, (0, 0, 0));
    store.write(&rows(0, 0, 20)).await.expect("no gap");
    assert_eq!(store.commit(SOURCE).await.expect("commits"), at(&[(0, 20)]));
    assert_complete(store.as_ref(), 20).await;
}

async fn written_again(place: Arc<dyn Place>) {
    let store = place.open().await;
    for _ in 0..2 {
        store.write(&rows(0, 0, 30)).await.expect("taken or dropped");
        store.commit(SOURCE).await.expect("commits");
        store.write(&rows(0, 10, 20)).await.expect("dropped");
    }
    assert_complete(store.as_ref(), 30).await;
    drop(store);
    let store = place.open().await;
    store.write(&rows(0, 0, 30)).await.expect("dropped");
    assert_eq!(store.commit(SOURCE).await.expect("commits"), at(&[(0, 30)]));
    assert_complete(store.as_ref(), 30).await;
}

async fn written_again_in_part(place: Arc<dyn Place>) {
    let store = place.open().await;
    store.write(&rows(0, 0, 30)).await.expect("taken");
    store.write(&rows(0, 20, 40)).await.expect("taken in part");
    store.commit(SOURCE).await.expect("commits");
    store.write(&rows(0, 35, 60)).await.expect("taken in part");
    assert_complete(store.as_ref(), 60).await;
    store.commit(SOURCE).await.expect("commits");
    assert_complete(store.as_ref(), 60).await;
}

async fn uncommitted(place: Arc<dyn Place>) {
    let store = place.open().await;
    store.write(&rows(0, 0, 30)).await.expect("taken");
    store.commit(SOURCE).await.expect("commits");
    store.write(&rows(0, 30, 50)).await.expect("taken");
    assert_complete(store.as_ref(), 50).await;
    assert_eq!(store.committed(SOURCE).await.expect("readable"), at(&[(0, 30)]));
    drop(store);
    let store = place.open().await;
    assert_complete(store.as_ref(), 30).await;
    store.write(&rows(0, 30, 50)).await.expect("taken");
    store.commit(SOURCE).await.expect("commits");
    assert_complete(store.as_ref(), 50).await;
}

async fn positions(place: Arc<dyn Place>) {
    let store = place.open().await;
    assert_eq!(store.committed(SOURCE).await.expect("readable"), Positions::default());
    store.write(&rows(0, 0, 9)).await.expect("taken");
    store.write(&rows(3, 0, 12)).await.expect("taken");
    store.commit(SOURCE).await.expect("commits");
    let mut hole = rows(0, 9, 9);
    hole.span.ranges = vec![OffsetRange { partition: 0, from: 9, to: 15 }];
    store.write(&hole).await.expect("taken");
    let next = store.commit(SOURCE).await.expect("commits");
    assert_eq!((next.of(0), next.of(3)), (15, 12));
    drop(store);
    let store = place.open().await;
    let known = store.committed(SOURCE).await.expect("readable");
    assert_eq!((known.of(0), known.of(1), known.of(3)), (15, 0, 12));
    store.write(&rows(0, 15, 20)).await.expect("no gap");
    store.write(&rows(3, 0, 13)).await.expect("taken in part");
    store.commit(SOURCE).await.expect("commits");
    assert_eq!(number(store.as_ref(), "SELECT count(*) FROM bronze.github WHERE _partition = 3").await, 13);
    assert_eq!(number(store.as_ref(), "SELECT count(*) FROM bronze.github").await, 9 + 5 + 13);
}

async fn queries_during_commits(place: Arc<dyn Place>) {
    const SPANS: i64 = 12;
    let store = place.open().await;
    let writing = async {
        for span in 0..SPANS {
            store.write(&rows(0, span * 100, span * 100 + 100)).await.expect("taken");
            store.commit(SOURCE).await.expect("commits");
        }
    };
    let query = "SELECT count(*), count(DISTINCT _offset), (SELECT count(*) FROM bronze.github) AS records FROM \
                 (SELECT _offset FROM silver.github UNION ALL SELECT _offset FROM ops.dead_letters)";
    let asking = async {
        let mut seen = 0;
        while seen < SPANS * 100 {
            let batches = answer(store.as_ref(), query).await;
            let row = batches.iter().find(|batch| batch.num_rows() > 0).expect("one row");
            let value = |place: usize| row.column(place).as_primitive::<Int64Type>().value(0);
            assert_eq!((value(1), value(2)), (value(0), value(0)), "each row once, in bronze too");
            assert!(value(0) >= seen && value(0) % 100 == 0, "whole spans, and none is lost: {} {seen}", value(0));
            seen = value(0);
        }
    };
    futures::join!(writing, asking);
    assert_complete(store.as_ref(), SPANS * 100).await;
}

async fn ids(place: Arc<dyn Place>) {
    let store = place.open().await;
    let (day, other) = (start().day(), crate::Day(start().day().0 + 1));
    store.write(&rows(0, 0, 1_100)).await.expect("taken");
    assert_eq!(store.find_ids(SOURCE, day, &["0-0"]).await.expect("readable"), [], "not committed yet");
    store.commit(SOURCE).await.expect("commits");
    let mut found = store.find_ids(SOURCE, day, &["0-998", "0-5", "0-9", "0-1000", "1-5"]).await.expect("readable");
    found.sort_by_key(|place| place.offset);
    let found: Vec<_> = found.iter().map(|place| (place.id.as_str(), place.partition, place.offset)).collect();
    assert_eq!(found, [("0-5", 0, 5), ("0-998", 0, 998)], "0-9 is a dead letter, 0-1000 of another day");
    assert_eq!(store.find_ids(SOURCE, other, &["0-1000"]).await.expect("readable").len(), 1);
    assert_eq!(store.find_ids(SOURCE, day, &[]).await.expect("readable"), []);
    let stream = store.ids(SOURCE, other).await.expect("readable");
    let names: Vec<_> = stream.schema.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["id", "_partition", "_offset"]);
    let batches: Vec<RecordBatch> = stream.batches.try_collect().await.expect("readable");
    let ids: Vec<String> = (batches.iter())
        .flat_map(|batch| batch.column(0).as_string::<i32>().iter().flatten().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    assert_eq!(ids.len(), 90);
    assert!(ids.contains(&"0-1098".to_owned()));
    let range = |partition, from, to| OffsetRange { partition, from, to };
    let at = async |ranges: &[OffsetRange]| {
        let mut places = store.rows_at(SOURCE, ranges).await.expect("readable");
        places.sort_unstable();
        places
    };
    assert_eq!(at(&[range(0, 7, 11), range(1, 0, 9)]).await, [(0, 7), (0, 8), (0, 10)], "9 is a dead letter");
    assert_eq!(at(&[range(0, 998, 1_002), range(0, 2_000, 3_000)]).await, [(0, 998), (0, 1_000), (0, 1_001)]);
    assert_eq!(at(&[]).await, []);
}

async fn dead_letters(place: Arc<dyn Place>) {
    let store = place.open().await;
    store.write(&rows(0, 0, 20)).await.expect("taken");
    store.commit(SOURCE).await.expect("commits");
    let query = "SELECT body, kind, reason, source, id FROM ops.dead_letters WHERE _offset = 19";
    let batches = answer(store.as_ref(), query).await;
    let row = batches.iter().find(|batch| batch.num_rows() == 1).expect("one dead letter");
    assert_eq!(row.column(0).as_binary::<i32>().value(0), b"19");
    let text = |place: usize| row.column(place).as_string::<i32>().value(0);
    assert_eq!((text(1), text(2), text(3), text(4)), ("type", "19 ends in nine", "github", "0-19"));
}

/// A line of the ledger.
pub fn line(offset: Offset) -> (Offset, Coverage) {
    let (from, to) = (start(), Timestamp(start().0 + 60_000_000));
    let collector = "github/events".to_owned();
    let reason = format!("line {offset}");
    let kind = if offset % 2 == 0 { CoverageKind::Covered } else { CoverageKind::Missed };
    (offset, Coverage { source: "github".to_owned(), collector, kind, from, to, records: 7, reason })
}

async fn coverage(place: Arc<dyn Place>) {
    let lines: Vec<_> = (0..10).map(line).collect();
    let range = |from, to| OffsetRange { partition: 0, from, to };
    let store = place.open().await;
    store.commit_coverage(range(0, 4), &lines[..4]).await.expect("commits");
    store.commit_coverage(range(2, 6), &lines[2..6]).await.expect("commits the rest");
    let error = store.commit_coverage(range(8, 10), &lines[8..]).await.expect_err("6..8 are missing");
    assert_eq!(error.remedy(), Remedy::Stop, "{error}");
    drop(store);
    let store = place.open().await;
    assert_eq!(store.coverage_committed().await.expect("readable"), at(&[(0, 6)]));
    store.commit_coverage(range(0, 10), &lines).await.expect("commits the rest");
    store.commit_coverage(range(10, 12), &[]).await.expect("a span without lines moves the position");
    assert_eq!(store.coverage_committed().await.expect("readable"), at(&[(0, 12)]));
    let store = store.as_ref();
    assert_eq!(number(store, "SELECT count(DISTINCT _offset) FROM ops.coverage").await, 10);
    assert_eq!(number(store, "SELECT sum(records) FROM ops.coverage WHERE kind = 'missed'").await, 35);
}

async fn refused(place: Arc<dyn Place>) {
    let store = place.open().await;
    store.write(&rows(0, 0, 10)).await.expect("taken");
    let writes = [
        "DROP TABLE silver.github",
        "DELETE FROM silver.github",
        "UPDATE silver.github SET number = 1",
        "INSERT INTO silver.github SELECT * FROM silver.github",
        "CREATE TABLE t AS SELECT 1",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
        "COPY silver.github TO 'out.parquet'",
        "SET datafusion.execution.batch_size = 1",
        "EXPLAIN ANALYZE DELETE FROM silver.github",
    ];
    let wrong =
        ["SELEC 1", "SELECT nothing FROM silver.github", "SELECT 1 FROM silver.gthub", "SELECT 1; SELECT 2", ""];
    for query in writes.into_iter().chain(wrong) {
        let error = store.sql(query).await.map(|_| ()).expect_err(query);
        assert_eq!(error.remedy(), Remedy::Change, "{query}: {error}");
    }
    let message = async |query: &str| store.sql(query).await.map(|_| ()).expect_err(query).to_string();
    let column = message("SELECT _offset,\n nmber FROM silver.github").await;
    assert!(column.contains("number") && column.to_lowercase().contains("line 2"), "{column}");
    assert!(message("SELECT 1 FROM silver.gthub").await.contains("silver.github"));
    assert!(message("SELECT 1 FROM\nWHERE 2").await.to_lowercase().contains("line"));
    for query in
        ["SHOW TABLES", "DESCRIBE silver.github", "EXPLAIN SELECT 1", "WITH a AS (SELECT 1 AS b) SELECT b FROM a"]
    {
        assert!(!answer(store.as_ref(), query).await.is_empty(), "{query}");
    }
    assert_complete(store.as_ref(), 10).await;
}

async fn reader(place: Arc<dyn Place>) {
    let reader = place.open_read_only().await;
    assert_eq!(counts(reader.as_ref()).await, (0, 0, 0), "before the store was made");
    let store = place.open().await;
    store.write(&rows(0, 0, 30)).await.expect("taken");
    store.commit(SOURCE).await.expect("commits");
    store.write(&rows(0, 30, 40)).await.expect("taken");
    assert_complete(reader.as_ref(), 30).await;
    assert_eq!(reader.committed(SOURCE).await.expect("readable"), at(&[(0, 30)]));
    assert_eq!(reader.find_ids(SOURCE, start().day(), &["0-5"]).await.expect("readable").len(), 1);
    let error = reader.write(&rows(0, 30, 40)).await.expect_err("reading only");
    assert_eq!(error.remedy(), Remedy::Change, "{error}");
    reader.commit(SOURCE).await.expect_err("reading only");
    reader.maintain().await.expect_err("reading only");
    store.commit(SOURCE).await.expect("commits");
    assert_complete(reader.as_ref(), 40).await;
}

async fn maintenance(place: Arc<dyn Place>) {
    let store = place.open().await;
    let queries = async {
        for _ in 0..5 {
            let mut stream = store.sql("SELECT _offset FROM silver.github ORDER BY 1").await.expect("readable").batches;
            while let Some(batch) = stream.next().await {
                batch.expect("readable while files are replaced");
            }
        }
    };
    for span in 0..25 {
        store.write(&rows(0, span * 50, span * 50 + 50)).await.expect("taken");
        store.commit(SOURCE).await.expect("commits");
    }
    let (lines, ()) = futures::join!(store.maintain(), queries);
    assert!(!lines.expect("maintains").is_empty());
    assert_complete(store.as_ref(), 1_250).await;
    drop(store);
    let store = place.open().await;
    assert_complete(store.as_ref(), 1_250).await;
    store.write(&rows(0, 1_000, 1_300)).await.expect("taken in part");
    store.commit(SOURCE).await.expect("commits");
    assert_complete(store.as_ref(), 1_300).await;
}
