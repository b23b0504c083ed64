//! What every [`HotStore`] does. An implementation runs all of [`CASES`], each on a [`Subject`] of its own.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt;
use futures::future::BoxFuture;
use serde_json::json;

use crate::{
    Column, Expired, HotStore, Kind, LogRecord, Offset, OffsetRange, Partition, Period, Positions, Processor,
    RawRecord, RecordId, Reject, Remedy, RowBuilder, RowSchema, Rows, RowsBuilder, Search, SourceId, Span, Timestamp,
    Value, row_json,
};

/// The source of all rows here.
pub const SOURCE: SourceId = SourceId("made");

/// What the store's clock says: 2026-11-22T12:00:00Z.
pub const NOW: Timestamp = Timestamp(1_795_348_800_000_000);

/// The retention that the store is opened with.
pub const RETENTION_DAYS: u16 = 10;

/// The columns of the rows: one of each kind and way to search.
pub static SCHEMA: RowSchema = RowSchema {
    source: SOURCE,
    period: Period::Day,
    columns: &[
        column("kind", Kind::Text, Search::Exact),
        column("title", Kind::Text, Search::Words),
        column("tags", Kind::TextList, Search::Exact),
        column("notes", Kind::TextList, Search::Words),
        column("size", Kind::Integer, Search::Exact),
        column("public", Kind::Boolean, Search::Exact),
        column("created_at", Kind::Timestamp, Search::Exact),
        column("ratio", Kind::Float, Search::Exact),
        column("parts", Kind::StructList(PARTS), Search::Exact),
    ],
};

const PARTS: &[Column] =
    &[column("parts.name", Kind::Text, Search::Exact), column("parts.size", Kind::Integer, Search::Exact)];

/// One store's data.
#[async_trait]
pub trait Subject: Send + Sync {
    /// Opens the store of [`SCHEMA`] with [`RETENTION_DAYS`] at [`NOW`], on the same data every time. The one opened
    /// before was dropped, as if its process had been killed: what it did not commit may be gone.
    async fn open(&self) -> Arc<dyn HotStore>;

    /// Opens the store on the same data beside others that are open, as another process does; none where the engine does not
    /// allow that.
    async fn open_beside(&self) -> Option<Arc<dyn HotStore>> {
        None
    }
}

/// A case: panics, with the reason, if the store does not do what it should.
pub type Case = for<'a> fn(&'a dyn Subject) -> BoxFuture<'a, ()>;

macro_rules! cases {
    ($($(#[doc = $doc:literal])* $name:ident($subject:ident) $body:block)*) => {
        $($(#[doc = $doc])* #[doc = ""] #[doc = "# Panics"] #[doc = "When the store does not do so."] pub async fn $name($subject: &dyn Subject) $body)*
        /// All cases, by name.
        pub const CASES: &[(&str, Case)] = &[$((stringify!($name), |subject| Box::pin($name(subject)))),*];
    };
}

cases! {
    /// A span that starts beyond what was written is refused, and the store goes on as if it had not been given.
    a_gap_is_refused(subject) {
        let store = subject.open().await;
        store.write(&rows(&[(0, 0..5)])).await.expect("written");
        let refused = store.write(&rows(&[(0, 6..9)])).await.expect_err("5 is missing");
        assert_eq!(refused.remedy(), Remedy::Stop);
        store.write(&rows(&[(1, 3..4)])).await.expect_err("partition 1 starts at 0");
        store.write(&rows(&[(0, 5..9)])).await.expect("no gap");
        assert_eq!(store.commit(SOURCE).await.expect("committed"), positions(&[(0, 9)]));
        assert_eq!(stored(&*store).await, expected(&[&rows(&[(0, 0..9)])]));
    }

    /// Spans that were written already, wholly or in part, before or after a commit, add only what is new.
    rows_written_again_stand_once(subject) {
        let store = subject.open().await;
        store.write(&rows(&[(0, 0..10), (1, 0..4)])).await.expect("written");
        store.write(&rows(&[(0, 0..10), (1, 0..4)])).await.expect("wholly known");
        store.write(&rows(&[(0, 5..15), (1, 0..6)])).await.expect("known in part");
        store.commit(SOURCE).await.expect("committed");
        store.write(&rows(&[(0, 0..15)])).await.expect("wholly known");
        store.write(&rows(&[(0, 14..20), (1, 5..7)])).await.expect("known in part");
        assert_eq!(store.commit(SOURCE).await.expect("committed"), positions(&[(0, 20), (1, 7)]));
        assert_eq!(stored(&*store).await, expected(&[&rows(&[(0, 0..20), (1, 0..7)])]));
    }

    /// What was written and not committed is written again after a restart, and stands there once.
    rows_not_committed_stand_once_after_a_restart(subject) {
        let store = subject.open().await;
        store.write(&rows(&[(0, 0..10)])).await.expect("written");
        store.commit(SOURCE).await.expect("committed");
        store.write(&rows(&[(0, 10..20), (1, 0..3)])).await.expect("written");
        drop(store);
        let store = subject.open().await;
        assert_eq!(store.committed(SOURCE).await.expect("readable"), positions(&[(0, 10)]));
        store.write(&rows(&[(0, 10..16), (1, 0..1)])).await.expect("written again, cut elsewhere");
        store.write(&rows(&[(0, 16..20), (1, 1..3)])).await.expect("written again");
        store.commit(SOURCE).await.expect("committed");
        assert_eq!(stored(&*store).await, expected(&[&rows(&[(0, 0..20), (1, 0..3)])]));
    }

    /// Rows and positions of a commit are there after a restart.
    a_commit_survives_a_restart(subject) {
        let store = subject.open().await;
        assert_eq!(store.committed(SOURCE).await.expect("readable"), Positions::default());
        store.write(&rows(&[(0, 0..30), (2, 0..30)])).await.expect("written");
        assert_eq!(store.committed(SOURCE).await.expect("readable"), Positions::default());
        let next = store.commit(SOURCE).await.expect("committed");
        assert_eq!(next, positions(&[(0, 30), (2, 30)]));
        drop(store);
        let store = subject.open().await;
        assert_eq!(store.committed(SOURCE).await.expect("readable"), next);
        assert_eq!(stored(&*store).await, expected(&[&rows(&[(0, 0..30), (2, 0..30)])]));
    }

    /// Partitions that are taken again go on from their last commit; what was written of others stays.
    a_resume_forgets_what_was_not_committed_of_its_partitions_alone(subject) {
        let store = subject.open().await;
        assert_eq!(store.resume(SOURCE, &[0, 1]).await.expect("resumed"), positions(&[(0, 0), (1, 0)]));
        store.write(&rows(&[(0, 0..10), (1, 0..10)])).await.expect("written");
        store.commit(SOURCE).await.expect("committed");
        store.write(&rows(&[(0, 10..15), (1, 10..15)])).await.expect("written");
        store.write(&rows(&[(1, 15..20), (0, 15..20), (3, 0..4)])).await.expect("written");
        assert_eq!(store.resume(SOURCE, &[0, 2]).await.expect("resumed"), positions(&[(0, 10), (2, 0)]));
        store.write(&rows(&[(0, 20..25)])).await.expect_err("10..20 are forgotten");
        store.write(&rows(&[(0, 10..18), (1, 20..22)])).await.expect("written again, cut elsewhere");
        assert_eq!(store.commit(SOURCE).await.expect("committed"), positions(&[(0, 18), (1, 22), (3, 4)]));
        store.write(&rows(&[(0, 18..20)])).await.expect("written");
        store.commit(SOURCE).await.expect("committed");
        assert_eq!(store.resume(SOURCE, &[3, 0]).await.expect("resumed"), positions(&[(0, 20), (3, 4)]));
        assert_eq!(stored(&*store).await, expected(&[&rows(&[(0, 0..20), (1, 0..22), (3, 0..4)])]));
        drop(store);
        let store = subject.open().await;
        assert_eq!(store.committed(SOURCE).await.expect("readable"), positions(&[(0, 20), (1, 22), (3, 4)]));
        assert_eq!(stored(&*store).await, expected(&[&rows(&[(0, 0..20), (1, 0..22), (3, 0..4)])]));
    }

    /// Where an engine allows several processes: who takes a partition over goes on behind the last commit of whoever had
    /// it, and one that does not know that it lost it changes nothing.
    a_partition_goes_from_one_process_to_another_and_a_zombie_changes_nothing(subject) {
        let (Some(one), Some(other)) = (subject.open_beside().await, subject.open_beside().await) else { return };
        one.write(&rows(&[(0, 0..10), (1, 0..10)])).await.expect("written");
        one.commit(SOURCE).await.expect("committed");
        one.write(&rows(&[(0, 10..20), (1, 10..12)])).await.expect("written");
        assert_eq!(other.resume(SOURCE, &[0]).await.expect("resumed"), positions(&[(0, 10)]));
        other.write(&rows(&[(0, 10..30)])).await.expect("written");
        assert_eq!(other.commit(SOURCE).await.expect("committed").of(0), 30);
        one.write(&rows(&[(0, 20..25)])).await.expect("what it has no right to is no error");
        assert!(one.commit(SOURCE).await.expect("nor here").of(1) == 12);
        let next = positions(&[(0, 30), (1, 12)]);
        for store in [&one, &other] {
            assert_eq!(store.committed(SOURCE).await.expect("readable"), next);
            assert_eq!(stored(&**store).await, expected(&[&rows(&[(0, 0..30), (1, 0..12)])]));
        }
        assert_eq!(one.resume(SOURCE, &[0]).await.expect("resumed"), positions(&[(0, 30)]));
        one.write(&rows(&[(0, 30..35)])).await.expect("written");
        one.commit(SOURCE).await.expect("committed");
        assert_eq!(other.committed(SOURCE).await.expect("readable"), positions(&[(0, 35), (1, 12)]));
        assert_eq!(stored(&*other).await, expected(&[&rows(&[(0, 0..35), (1, 0..12)])]));
    }

    /// A span without a row, all of it duplicates and rejects, moves the position.
    a_span_without_rows_moves_the_position(subject) {
        let store = subject.open().await;
        let empty = RowsBuilder::new(&SCHEMA).finish(span(&[(0, 0..7)]));
        store.write(&empty).await.expect("written");
        assert_eq!(store.commit(SOURCE).await.expect("committed"), positions(&[(0, 7)]));
        drop(store);
        let store = subject.open().await;
        assert_eq!(store.committed(SOURCE).await.expect("readable"), positions(&[(0, 7)]));
    }

    /// Rows older than the retention are not kept; those within it are, to the day.
    rows_past_the_retention_are_not_kept(subject) {
        let store = subject.open().await;
        let first = store.first_day(NOW).expect("a retention was set");
        assert_eq!(first, days_before(10).day());
        let old = rows_at(&[(0, 0..4)], |_| Timestamp(first.start().0 - 1));
        let young = rows_at(&[(0, 4..8)], |_| first.start());
        store.write(&old).await.expect("written");
        store.write(&young).await.expect("written");
        assert_eq!(store.commit(SOURCE).await.expect("committed"), positions(&[(0, 8)]));
        assert_eq!(stored(&*store).await, expected(&[&young]));
    }

    /// A day past the retention leaves when the cold store has all of it, and not before.
    a_day_leaves_only_when_the_cold_store_has_it(subject) {
        let store = subject.open().await;
        let (old, young) = (rows_at(&[(0, 0..6)], |_| days_before(9)), rows_at(&[(0, 6..9), (1, 0..2)], |_| NOW));
        store.write(&old).await.expect("written");
        store.commit(SOURCE).await.expect("committed");
        store.write(&young).await.expect("written");
        let later = NOW.plus(Duration::from_secs(2 * 86_400));
        let name = "made-2026.11.13".to_owned();
        let waiting = Expired { removed: vec![], waiting: vec![name.clone()] };
        assert_eq!(store.expire(SOURCE, NOW, &positions(&[(0, 9), (1, 2)])).await.expect("done"), Expired::default());
        assert_eq!(store.expire(SOURCE, later, &positions(&[(0, 5)])).await.expect("done"), waiting);
        assert_eq!(stored(&*store).await, expected(&[&old, &young]));
        let removed = Expired { removed: vec![name], waiting: vec![] };
        assert_eq!(store.expire(SOURCE, later, &positions(&[(0, 6)])).await.expect("done"), removed);
        assert_eq!(names(&*store, "made").await, ["made-2026.11.22"]);
        assert_eq!(stored(&*store).await, expected(&[&young]));
        drop(store);
        let store = subject.open().await;
        assert_eq!(store.committed(SOURCE).await.expect("readable"), positions(&[(0, 9), (1, 2)]));
        assert_eq!(stored(&*store).await, expected(&[&young]));
    }

    /// Search and count see what was committed, in Elasticsearch's form.
    search_finds_what_was_committed(subject) {
        let store = subject.open().await;
        store.write(&rows(&[(0, 0..30)])).await.expect("written");
        store.commit(SOURCE).await.expect("committed");
        let request = json!({"query": {"match": {"title": "SEVENTEEN"}}});
        let answer = store.search("made", &request).await.expect("answered");
        assert_eq!(answer["hits"]["total"], json!({"value": 1, "relation": "eq"}), "{answer}");
        let hit = &answer["hits"]["hits"][0];
        assert_eq!((&hit["_id"], &hit["_index"]), (&json!("id-0-17"), &json!("made-2026.11.20")));
        assert_eq!(hit["_source"], expected(&[&rows(&[(0, 17..18)])])[&(0, 17)].1);
        for (query, count) in [
            (json!({"term": {"kind": "odd"}}), 15),
            (json!({"term": {"tags": "third"}}), 10),
            (json!({"match_phrase": {"notes": "a note of 4"}}), 1),
            (json!({"range": {"size": {"gte": 10, "lt": 20}}}), 8),
            (json!({"exists": {"field": "notes"}}), 15),
            (json!({"range": {"ratio": {"gt": 1.75, "lte": 3.25}}}), 3),
            (json!({"term": {"ratio": 2.25}}), 1),
            (json!({"exists": {"field": "ratio"}}), 15),
            (json!({"term": {"parts.name": "second"}}), 10),
            (json!({"range": {"parts.size": {"lt": 10}}}), 6),
            (json!({"query_string": {"query": "parts.name:first AND ratio:>=7"}}), 1),
            (json!({"match_all": {}}), 30),
        ] {
            let answer = store.count("made-*", &json!({"query": query})).await.expect("answered");
            assert_eq!(answer["count"], count, "{query}");
        }
    }

    /// A request that is wrong, and an index that is not there, are answered as Elasticsearch does.
    a_wrong_request_is_answered_with_its_status(subject) {
        let store = subject.open().await;
        store.write(&rows(&[(0, 0..3)])).await.expect("written");
        store.commit(SOURCE).await.expect("committed");
        let wrong = json!({"query": {"no_such_query": {}}});
        assert_eq!(store.search("made", &wrong).await.expect_err("no such query").status, 400);
        let all = json!({"query": {"match_all": {}}});
        let missing = store.search("made-1999.01.01", &all).await.expect_err("no such index");
        assert_eq!((missing.status, missing.kind), (404, "index_not_found_exception"));
        assert_eq!(store.count("nothing-*", &all).await.expect("a pattern may be empty")["count"], 0);
    }

    /// Indices are one a day, and found by name, pattern and alias; the mapping names the columns' types.
    indices_are_found_by_name_pattern_and_alias(subject) {
        let store = subject.open().await;
        store.write(&rows(&[(0, 0..30)])).await.expect("written");
        store.commit(SOURCE).await.expect("committed");
        let all = ["made-2026.11.20", "made-2026.11.21", "made-2026.11.22"];
        for expression in ["made", "made-*", "*", "_all", "made-2026.11.20,made-2026.11.2*"] {
            assert_eq!(names(&*store, expression).await, all, "{expression}");
        }
        assert_eq!(names(&*store, "made-*,-*.21").await, [all[0], all[2]]);
        let summaries = store.indices(all[0]).await.expect("answered");
        assert_eq!(summaries.iter().map(|index| index.rows).collect::<Vec<_>>(), [10]);
        assert!(summaries[0].bytes > 0);
        let mapping = store.mapping(all[1]).await.expect("answered");
        let properties = &mapping[all[1]]["mappings"]["properties"];
        for (name, kind) in
            [("kind", "keyword"), ("title", "text"), ("size", "long"), ("public", "boolean"), ("event_time", "date")]
        {
            assert_eq!(properties[name]["type"], kind, "{name}");
        }
    }

    /// Single rows are replaced and removed, durably and wherever they stand; the position does not move.
    single_rows_are_replaced_and_removed(subject) {
        let store = subject.open().await;
        store.write(&rows(&[(0, 0..20)])).await.expect("written");
        let next = store.commit(SOURCE).await.expect("committed");
        store.remove(SOURCE, &[(0, 3), (0, 4), (0, 99), (1, 5)]).await.expect("removed");
        let all = rows(&[(0, 0..20)]);
        let mut left = expected(&[&all]);
        left.retain(|place, _| ![(0, 3), (0, 4)].contains(place));
        assert_eq!(stored(&*store).await, left);
        // One that is missing, one that is there, one that moves to another day, one that is too old.
        let moved = rows_at(&[(0, 5..6)], |_| days_before(4));
        let old = rows_at(&[(0, 6..7)], |_| days_before(40));
        for batch in [&rows(&[(0, 3..5)]).silver, &rows(&[(0, 7..8)]).silver, &moved.silver, &old.silver] {
            store.replace(SOURCE, batch).await.expect("replaced");
        }
        let mut repaired = expected(&[&all]);
        repaired.extend(expected(&[&moved]));
        assert_eq!(stored(&*store).await, repaired);
        assert_eq!(store.committed(SOURCE).await.expect("readable"), next);
        drop(store);
        let store = subject.open().await;
        assert_eq!(stored(&*store).await, repaired);
        store.write(&rows(&[(0, 10..25)])).await.expect("written");
        store.commit(SOURCE).await.expect("committed");
        repaired.extend(expected(&[&rows(&[(0, 20..25)])]));
        assert_eq!(stored(&*store).await, repaired);
    }
}

/// Rows by place: id and JSON.
pub type Stored = BTreeMap<(Partition, Offset), (String, serde_json::Value)>;

/// What the store holds. Every row stands in the index of its day, and once.
///
/// # Panics
/// If not, or if the rows cannot be read.
pub async fn stored(store: &dyn HotStore) -> Stored {
    let mut rows = store.rows(SOURCE).await.expect("readable");
    let mut found = BTreeMap::new();
    while let Some(row) = rows.try_next().await.expect("readable") {
        let json: serde_json::Value = serde_json::from_str(&row.source_json).expect("JSON");
        let day = json["event_time"].as_str().and_then(|time| time.get(..10)).expect("a time").replace('-', ".");
        assert!(day.starts_with(row.index.trim_start_matches("made-")), "{day} in `{}`", row.index);
        let twice = found.insert((row.partition, row.offset), (row.id, json));
        assert_eq!(twice, None, "a row stands twice");
    }
    found
}

/// What a store should hold after these rows.
///
/// # Panics
/// If a row's JSON cannot be read.
pub fn expected(all: &[&Rows]) -> Stored {
    let mut expected = BTreeMap::new();
    for rows in all {
        for row in 0..rows.silver.num_rows() {
            let mut json = Vec::new();
            row_json::write_row(&rows.silver, row, &mut json);
            let json: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
            let place = |name: &str| json[name].as_i64().expect("a common column");
            expected
                .insert((place("_partition") as Partition, place("_offset")), (id(&rows.silver, row), json.clone()));
        }
    }
    expected
}

/// The rows of offsets per partition, over three days: today, yesterday and the day before, in turn.
pub fn rows(ranges: &[(Partition, Range<Offset>)]) -> Rows {
    rows_at(ranges, |offset| days_before(offset % 3))
}

/// The rows of offsets per partition at given times.
///
/// # Panics
/// If the times are such that no row can be made.
pub fn rows_at(ranges: &[(Partition, Range<Offset>)], time: impl Fn(Offset) -> Timestamp) -> Rows {
    let mut builder = RowsBuilder::new(&SCHEMA);
    for (partition, offsets) in ranges {
        for offset in offsets.clone() {
            let record = RawRecord {
                id: RecordId::from(format!("id-{partition}-{offset}")),
                event_time: time(offset),
                fetched_at: NOW,
                body: Bytes::from(offset.to_string()),
            };
            let record = LogRecord { partition: *partition, offset, appended_at: NOW, record };
            builder.record(&record, &Made).expect("a row");
        }
    }
    builder.finish(span(ranges))
}

/// So many days before [`NOW`].
pub fn days_before(days: i64) -> Timestamp {
    NOW.minus(Duration::from_secs(days.unsigned_abs() * 86_400))
}

/// Positions from pairs.
pub fn positions(next: &[(Partition, Offset)]) -> Positions {
    Positions(next.iter().copied().collect())
}

/// Makes a row of a record whose body is a number.
struct Made;

impl Processor for Made {
    fn process(&self, record: &RawRecord, row: &mut RowBuilder) -> Result<(), Reject> {
        let number: i64 = std::str::from_utf8(&record.body).expect("digits").parse().expect("a number");
        let name = if number == 17 { "seventeen" } else { "another" };
        row.text(SCHEMA.place("kind"), if number % 2 == 0 { "even" } else { "odd" });
        row.text(SCHEMA.place("title"), &format!("The \"{name}\" of {number}, naïve – 例え"));
        let tags = ["all", "third"];
        row.texts(SCHEMA.place("tags"), tags.into_iter().take(if number % 3 == 0 { 2 } else { 1 }));
        if number % 2 == 0 {
            row.texts(SCHEMA.place("notes"), ["first", &format!("a note of {number}")]);
        }
        if number % 5 != 0 {
            row.integer(SCHEMA.place("size"), number);
        }
        row.boolean(SCHEMA.place("public"), number % 4 == 0);
        row.timestamp(SCHEMA.place("created_at"), Timestamp(record.event_time.0 - number));
        if number % 2 == 1 {
            row.float(SCHEMA.place("ratio"), number as f64 / 4.0);
        }
        let parts = [[Value::Text("first"), Value::Integer(number)], [Value::Text("second"), Value::Null]];
        row.structs(SCHEMA.place("parts"), parts.into_iter().take((number % 3) as usize));
        Ok(())
    }
}

const fn column(name: &'static str, kind: Kind, search: Search) -> Column {
    Column { name, kind, search, doc: "Made for the suite." }
}

fn span(ranges: &[(Partition, Range<Offset>)]) -> Span {
    let range = |(partition, offsets): &(Partition, Range<Offset>)| OffsetRange {
        partition: *partition,
        from: offsets.start,
        to: offsets.end,
    };
    Span { source: SOURCE, ranges: ranges.iter().map(range).collect() }
}

fn id(batch: &RecordBatch, row: usize) -> String {
    use arrow::array::AsArray;
    batch.column_by_name("_id").expect("a common column").as_string::<i32>().value(row).to_owned()
}

async fn names(store: &dyn HotStore, expression: &str) -> Vec<String> {
    let found = store.indices(expression).await.expect("answered");
    found.into_iter().map(|index| index.name).collect()
}
