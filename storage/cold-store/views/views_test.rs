//! What views promise, over whole stores.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::util::pretty::pretty_format_batches;
use contract::conformance::cold_store::{SCHEMA, SOURCE, answer, line, number, rows};
use contract::{
    ColdStore, ColdTable, Offset, OffsetRange, Partition, Positions, Remedy, Store, SystemClock, Timestamp,
    ViewRequest, Views,
};
use futures::TryStreamExt;

use crate::sharing_test::{Random, seeds};
use crate::{DeltaStore, Settings, ViewEngine};

/// A view with a time, and every way to merge.
const HOURS: &str = "\
-- answers: events by hour and type
-- keys: hour, type
-- sum: events, total
-- min: first
-- max: last
-- any: same
-- distinct: ids
-- time: hour
SELECT date_trunc('hour', event_time) AS hour, type, count(*) AS events, sum(number) AS total, min(_offset) AS first,
       max(ratio) AS last, min(type) AS same, sketch(_id) AS ids
FROM silver.github
GROUP BY 1, 2;
SELECT hour, type, events, total, first, last, same, estimate(ids) AS ids FROM merged ORDER BY hour, type";

/// A view without a time, over lists and parts under each other.
const LABELS: &str = "\
-- answers: how often each label and type is there
-- keys: label
-- sum: rows
SELECT label, count(*) AS rows
FROM (SELECT unnest(labels) AS label FROM silver.github UNION ALL SELECT type AS label FROM silver.github) AS parts
GROUP BY label;
SELECT label, rows FROM merged ORDER BY rows, label";

struct Made {
    directory: tempfile::TempDir,
    store: DeltaStore,
}

fn settings() -> Settings {
    Settings { checkpoint_interval_commits: 10, compaction_files_min: 3, views_shipped: false, ..Settings::default() }
}

impl Made {
    async fn with(views: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("views")).unwrap();
        views.iter().for_each(|(name, text)| put(directory.path(), name, text));
        let cold = directory.path().join("cold");
        let store = DeltaStore::open(&cold, &[&SCHEMA], settings(), Arc::new(SystemClock)).await.unwrap();
        Self { directory, store }
    }

    async fn write(&self, partition: Partition, from: Offset, to: Offset) {
        self.store.write(&rows(partition, from, to)).await.unwrap();
    }
}

fn put(data: &Path, name: &str, text: &str) {
    fs::write(data.join("views").join(format!("{name}.sql")), text).unwrap();
}

async fn shown(store: &DeltaStore, view: &str, request: &ViewRequest) -> String {
    let answer = store.view(view, request).await.unwrap();
    let batches: Vec<_> = answer.table.batches.try_collect().await.unwrap();
    pretty_format_batches(&batches).unwrap().to_string()
}

/// The view's statements over everything, without any layer.
async fn expected(store: &DeltaStore, text: &str) -> String {
    let sql: Vec<_> = text.lines().filter(|line| !line.starts_with("--")).collect();
    let sql = sql.join("\n");
    let (stored, shown) = sql.split_once(';').unwrap();
    pretty_format_batches(&answer(store, &format!("WITH merged AS ({stored}) {shown}")).await).unwrap().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_stored_the_merged_answer_is_that_over_everything() {
    for seed in seeds(4) {
        let made = Made::with(&[("hours", HOURS), ("labels", LABELS)]).await;
        let mut random = Random { seed, drawn: 0 };
        // Partition 1 is all of the second day, so that days change apart from each other.
        let mut next: [Offset; 3] = [0, 1_000, 990];
        made.store.write(&rows(1, 0, 1_000)).await.unwrap();
        made.store.write(&rows(2, 0, 990)).await.unwrap();
        for _ in 0..14 {
            match random.below(7) {
                0 => _ = made.store.commit(SOURCE).await.unwrap(),
                1 => _ = made.store.run_view("hours", random.below(4) == 0, ViewEngine::Embedded, 1).await.unwrap(),
                2 => _ = made.store.run_view("labels", false, ViewEngine::Embedded, 1).await.unwrap(),
                3 => _ = made.store.maintain().await.unwrap(),
                _ => {
                    let partition = random.below(3) as usize;
                    let to = next[partition] + 1 + random.below(40) as Offset;
                    made.write(partition as Partition, next[partition], to).await;
                    next[partition] = to;
                }
            }
            for (view, text) in [("hours", HOURS), ("labels", LABELS)] {
                let (found, expected) =
                    (shown(&made.store, view, &ViewRequest::default()).await, expected(&made.store, text).await);
                assert_eq!(found, expected, "seed {seed}, view {view}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_makes_the_days_anew_that_changed_and_nothing_where_none_did() {
    let made = Made::with(&[("hours", HOURS), ("labels", LABELS)]).await;
    let (store, mode) = (&made.store, |run: crate::ViewRun| (run.mode, run.periods));
    made.write(0, 0, 1_200).await;
    store.commit(SOURCE).await.unwrap();
    assert_eq!(mode(store.run_view("hours", false, ViewEngine::Embedded, 1).await.unwrap()), ("whole", None));
    assert_eq!(mode(store.run_view("hours", false, ViewEngine::Embedded, 1).await.unwrap()), ("nothing", None));
    // Rows that wait are the speed layer's.
    made.write(0, 1_200, 1_300).await;
    assert_eq!(mode(store.run_view("hours", false, ViewEngine::Embedded, 1).await.unwrap()), ("nothing", None));
    store.commit(SOURCE).await.unwrap();
    assert_eq!(mode(store.run_view("hours", false, ViewEngine::Embedded, 1).await.unwrap()), ("periods", Some(1)));
    assert_eq!(mode(store.run_view("labels", false, ViewEngine::Embedded, 1).await.unwrap()), ("whole", None));
    // Rows in other files are the same rows.
    for part in 13..17 {
        made.write(0, part * 100, part * 100 + 100).await;
        store.commit(SOURCE).await.unwrap();
    }
    store.run_view("hours", false, ViewEngine::Embedded, 1).await.unwrap();
    let done = store.maintain().await.unwrap();
    assert!(
        done.iter().any(|line| line.starts_with("`silver.github`: ") && !line.contains(" 0 files compacted")),
        "{done:?}"
    );
    assert_eq!(mode(store.run_view("hours", false, ViewEngine::Embedded, 1).await.unwrap()), ("nothing", None));
    // A row that is mended away leaves its day.
    store.mend(SOURCE, ColdTable::Silver, &[(0, 3)], None).await.unwrap();
    assert_eq!(mode(store.run_view("hours", false, ViewEngine::Embedded, 1).await.unwrap()), ("periods", Some(1)));
    assert_eq!(shown(store, "hours", &ViewRequest::default()).await, expected(store, HOURS).await);
    assert_eq!(mode(store.run_view("hours", true, ViewEngine::Embedded, 1).await.unwrap()), ("whole", None));
    let runs = "SELECT count(*) FROM ops.runs WHERE view = 'hours' AND outcome = 'done' AND rows > 0";
    assert_eq!(number(store, runs).await, 5, "a run that found nothing to do is no run");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_whose_file_changed_is_computed_anew_and_stored_in_its_new_columns() {
    let made = Made::with(&[("made", HOURS)]).await;
    made.write(0, 0, 50).await;
    made.store.commit(SOURCE).await.unwrap();
    made.store.run_view("made", false, ViewEngine::Embedded, 1).await.unwrap();
    put(made.directory.path(), "made", LABELS);
    let stored = made.store.views().await.unwrap()[0].stored.clone().unwrap();
    assert!(!stored.is_current);
    assert_eq!(shown(&made.store, "made", &ViewRequest::default()).await, expected(&made.store, LABELS).await);
    assert_eq!(made.store.run_view("made", false, ViewEngine::Embedded, 1).await.unwrap().mode, "whole");
    assert!(made.store.views().await.unwrap()[0].stored.as_ref().is_some_and(|stored| stored.is_current));
    assert_eq!(shown(&made.store, "made", &ViewRequest::default()).await, expected(&made.store, LABELS).await);
    let place = made.directory.path().join("cold/gold/made");
    let table = deltalake::open_table(deltalake::table::builder::parse_table_uri(place.to_str().unwrap()).unwrap());
    let columns = table.await.unwrap().snapshot().unwrap().snapshot().arrow_schema();
    assert_eq!(columns.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>(), ["label", "rows"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_says_how_far_each_layer_reaches_and_what_was_covered() {
    let made = Made::with(&[("hours", HOURS)]).await;
    let store = &made.store;
    let before = store.view("hours", &ViewRequest::default()).await.unwrap().boundary;
    assert_eq!((before.batch_at, before.sources[0].watermark.clone()), (None, Positions::default()));
    made.write(0, 0, 50).await;
    store.commit(SOURCE).await.unwrap();
    store.run_view("hours", false, ViewEngine::Embedded, 1).await.unwrap();
    made.write(0, 50, 60).await;
    store.commit_coverage(OffsetRange { partition: 0, from: 0, to: 1 }, &[line(0)]).await.unwrap();
    let after = store.view("hours", &ViewRequest::default()).await.unwrap().boundary;
    assert!(after.batch_at.is_some());
    let source = &after.sources[0];
    assert_eq!((source.watermark.of(0), source.rows_to.of(0)), (50, 60));
    assert!(source.covered.is_some() || source.missed_intervals > 0, "{source:?}");
    let outside = ViewRequest { to: Some(Timestamp(0)), ..ViewRequest::default() };
    let outside = store.view("hours", &outside).await.unwrap().boundary;
    assert_eq!((outside.sources[0].covered, outside.sources[0].missed_intervals), (None, 0));
    // Another process sees what is committed.
    let cold = made.directory.path().join("cold");
    let reader = DeltaStore::open_read_only(&cold, &[&SCHEMA], settings(), Arc::new(SystemClock)).await.unwrap();
    let read = reader.view("hours", &ViewRequest::default()).await.unwrap().boundary;
    assert_eq!((read.sources[0].watermark.of(0), read.sources[0].rows_to.of(0)), (50, 50));
    assert!(read.sources[0].fresh_to.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_cuts_the_time_filters_and_takes_the_first_rows() {
    let made = Made::with(&[("hours", HOURS), ("labels", LABELS)]).await;
    let store = &made.store;
    made.write(0, 0, 1_200).await;
    store.commit(SOURCE).await.unwrap();
    store.run_view("hours", false, ViewEngine::Embedded, 1).await.unwrap();
    made.write(0, 1_200, 1_300).await;
    let second_day = Timestamp::parse_rfc3339("2015-01-02T00:00:00Z").unwrap();
    let count = async |request: ViewRequest| {
        let answer = store.view("hours", &request).await.unwrap();
        let batches: Vec<arrow::array::RecordBatch> = answer.table.batches.try_collect().await.unwrap();
        batches.iter().map(arrow::array::RecordBatch::num_rows).sum::<usize>()
    };
    let all = count(ViewRequest::default()).await;
    let (from, to) = (
        count(ViewRequest { from: Some(second_day), ..ViewRequest::default() }).await,
        count(ViewRequest { to: Some(second_day), ..ViewRequest::default() }).await,
    );
    assert!(from > 0 && to > 0 && from + to == all, "{from} + {to} of {all}");
    let filter = |filter: &str| ViewRequest { filter: Some(filter.to_owned()), ..ViewRequest::default() };
    assert_eq!(count(filter("type = 'PushEvent'")).await * 2, all);
    assert_eq!(count(ViewRequest { rows_max: Some(1), ..filter("type = 'PushEvent'") }).await, 1);
    for (view, request, expected) in [
        ("hours", filter("typ = 'x'"), "typ"),
        ("hours", filter("type"), "neither true nor false"),
        ("labels", ViewRequest { from: Some(second_day), ..ViewRequest::default() }, "its header names no `time`"),
        ("labls", ViewRequest::default(), "did you mean `labels`?"),
    ] {
        let error = store.view(view, &request).await.err().expect(expected);
        assert_eq!(error.remedy(), Remedy::Change);
        assert!(error.to_string().contains(expected), "{error} lacks {expected}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_merged_rows_of_a_view_are_a_table_of_sql() {
    let made = Made::with(&[("labels", LABELS)]).await;
    made.write(0, 0, 50).await;
    made.store.commit(SOURCE).await.unwrap();
    made.store.run_view("labels", false, ViewEngine::Embedded, 1).await.unwrap();
    made.write(0, 50, 60).await;
    let events = number(&made.store, "SELECT sum(rows) FROM gold.labels WHERE label LIKE '%Event'").await;
    assert_eq!(events, number(&made.store, "SELECT count(*) FROM silver.github").await);
    let tables = "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'gold'";
    assert_eq!(number(&made.store, tables).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_view_is_refused_with_its_line_and_what_would_be_right() {
    let good = |from: &str, to: &str| {
        assert!(HOURS.contains(from), "{from}");
        HOURS.replace(from, to)
    };
    let cases = [
        ("typo", good("count(*)", "cuont(*)"), "line 9): Invalid function 'cuont'"),
        ("column", good("max(ratio)", "max(ration)"), "ration"),
        ("table", good("silver.github", "bronze.github"), "known: silver.github"),
        ("second", good("FROM merged", "FROM merge"), "known: silver.merged"),
        ("writes", good("SELECT hour, type, events", "DELETE FROM merged; --"), "it may only read"),
        (
            "merges",
            good("sum: events, total", "sum: events"),
            "the header does not say how `total` merges: add `-- sum: total`",
        ),
        ("wrongly", good("min: first", "sum: first"), "`first` is min(…), which merges by `min`, not `sum`"),
        ("absent", good("any: same", "any: same, other"), "the header names `other`, which is no column"),
        ("key", good("keys: hour, type", "keys: hour"), "it groups by `type`: add it to `-- keys: …`"),
        ("average", good("sum(number)", "avg(number)"), "store sum and count"),
        ("distinct", good("sum(number)", "count(DISTINCT number)"), "store `sketch(…) AS total`"),
        ("computed", good("sum(number)", "sum(number) / count(*)"), "`total` is computed from aggregates"),
        ("having", good("GROUP BY 1, 2;", "GROUP BY 1, 2 HAVING count(*) > 1;"), "HAVING has no place"),
        ("limit", good("GROUP BY 1, 2;", "GROUP BY 1, 2 LIMIT 5;"), "LIMIT has no place"),
        ("order", good("GROUP BY 1, 2;", "GROUP BY 1, 2 ORDER BY 1;"), "ORDER BY has no place"),
        ("now", good("sum(number)", "sum(extract(YEAR FROM now()))"), "answers otherwise each time"),
        ("week", good("'hour'", "'week'"), "must be made of `event_time` alone"),
        (
            "other_time",
            good("date_trunc('hour', event_time)", "date_trunc('hour', fetched_at)"),
            "must be made of `event_time` alone",
        ),
        (
            "join",
            good("FROM silver.github\n", "FROM silver.github, (SELECT number AS other FROM silver.github) AS others\n"),
            "a join (put the sides",
        ),
    ];
    let files: Vec<_> = cases.iter().map(|(name, text, _)| (*name, text.as_str())).collect();
    let made = Made::with(&files).await;
    let listed = made.store.views().await.unwrap();
    assert_eq!(listed.len(), cases.len());
    for (name, _, expected) in cases {
        let refused = listed.iter().find(|view| view.name == name).unwrap().answers.clone().expect_err(name);
        assert!(refused.contains(expected) && refused.contains(&format!("{name}.sql, line ")), "{name}: {refused}");
        let error = made.store.run_view(name, false, ViewEngine::Embedded, 1).await.expect_err(name);
        assert_eq!(error.remedy(), Remedy::Change, "{name}: {error}");
    }
}
