//! Drafts of silver, and their exchange.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use arrow::array::RecordBatch;
use contract::conformance::cold_store::{SCHEMA, SOURCE, number, record, rows};
use contract::{
    ColdDrafts, ColdStore, DraftOf, OffsetRange, Positions, Processor, RawRecord, Reject, Remedy, RowBuilder,
    RowSchema, Rows, RowsBuilder, Span, Timestamp, bronze_schema,
};

use crate::draft::DRAFT;
use crate::growth_test::{CHANGED, GROWN, grown_rows};
use crate::{DeltaStore, Settings};

/// 2026-11-01.
static NOW: AtomicI64 = AtomicI64::new(1_793_491_200_000_000);

fn now() -> Timestamp {
    Timestamp(NOW.load(Ordering::SeqCst))
}

/// A later version: understands what ends in nine, and no more what ends in eight.
struct Later;

impl Processor for Later {
    fn process(&self, record: &RawRecord, row: &mut RowBuilder) -> Result<(), Reject> {
        if record.body.ends_with(b"8") {
            return Err(Reject::new("type", "it ends in eight"));
        }
        row.text(SCHEMA.place("type"), "LaterEvent");
        Ok(())
    }
}

pub(crate) fn later(from: i64, to: i64) -> Rows {
    let mut builder = RowsBuilder::new(&SCHEMA);
    for offset in from..to {
        assert_eq!(builder.record(&record(0, offset), &Later).is_err(), offset % 10 == 8);
    }
    without_bronze(builder.finish(Span { source: SOURCE, ranges: vec![OffsetRange { partition: 0, from, to }] }))
}

/// As a draft takes them.
fn without_bronze(rows: Rows) -> Rows {
    Rows { bronze: RecordBatch::new_empty(bronze_schema()), ..rows }
}

fn settings() -> Settings {
    Settings { compaction_files_min: 2, vacuum_retention_hours: 1, ..Settings::default() }
}

async fn open(directory: &Path) -> DeltaStore {
    DeltaStore::open(directory, &[&SCHEMA], settings(), Arc::new(now)).await.unwrap()
}

async fn write(store: &dyn ColdStore, rows: &Rows) -> Positions {
    store.write(rows).await.unwrap();
    store.commit(SOURCE).await.unwrap()
}

pub(crate) fn anew(since: Option<Timestamp>) -> DraftOf {
    DraftOf { since, made_by: "test".to_owned() }
}

/// Rows of the older, rows of the later version, dead letters that end in nine, in eight.
async fn counts(store: &dyn ColdStore) -> [i64; 4] {
    let letters = |digit: &str| format!("SELECT count(*) FROM ops.dead_letters WHERE reason LIKE '%{digit}'");
    [
        number(store, "SELECT count(*) FROM silver.github WHERE type <> 'LaterEvent'").await,
        number(store, "SELECT count(*) FROM silver.github WHERE type = 'LaterEvent'").await,
        number(store, &letters("nine")).await,
        number(store, &letters("eight")).await,
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_draft_takes_the_place_of_silver_at_once_and_what_was_there_can_come_back() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    write(&store, &rows(0, 0, 100)).await;
    assert!(store.draft(SOURCE).await.unwrap().is_none() && store.previous(SOURCE).await.unwrap().is_none());
    let draft = store.begin_draft(SOURCE, &anew(None)).await.unwrap();
    write(&*draft.store, &later(0, 60)).await;
    let refused = store.exchange(SOURCE, &store.hold().await).await.expect_err("the draft is behind");
    assert_eq!(refused.remedy(), Remedy::Change);
    assert_eq!(counts(&store).await, [90, 0, 10, 0]);
    drop((draft, store));

    let store = open(directory.path()).await;
    let draft = store.draft(SOURCE).await.unwrap().expect("it is there still");
    assert_eq!((draft.of.clone(), draft.is_exchanged), (anew(None), false));
    assert_eq!(draft.store.committed(SOURCE).await.unwrap().of(0), 60);
    write(&*draft.store, &later(60, 100)).await;
    assert_eq!(counts(&*draft.store).await, [0, 90, 0, 10]);
    store.exchange(SOURCE, &store.hold().await).await.unwrap();
    assert_eq!(counts(&store).await, [0, 90, 0, 10]);
    assert_eq!(number(&store, "SELECT count(*) FROM bronze.github").await, 100);
    assert!(store.draft(SOURCE).await.unwrap().expect("until it is ended").is_exchanged);
    store.exchange(SOURCE, &store.hold().await).await.unwrap();
    store.end_draft(SOURCE).await.unwrap();
    assert!(store.draft(SOURCE).await.unwrap().is_none());
    let log = std::fs::read_dir(directory.path().join("silver/github/_delta_log")).unwrap();
    let texts = log.map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap());
    let exchanges = texts.filter(|text| text.contains("databroker/exchanges/github/0")).count();
    assert_eq!(exchanges, 1, "one commit");

    write(&store, &rows(0, 100, 120)).await;
    let draft = store.begin_draft_of_previous(SOURCE, "test").await.unwrap();
    assert_eq!(draft.store.committed(SOURCE).await.unwrap().of(0), 100);
    write(&*draft.store, &without_bronze(rows(0, 100, 120))).await;
    store.exchange(SOURCE, &store.hold().await).await.unwrap();
    store.end_draft(SOURCE).await.unwrap();
    assert_eq!(counts(&store).await, [108, 0, 12, 0]);
    write(&store, &rows(0, 120, 130)).await;
    assert_eq!(counts(&store).await, [117, 0, 13, 0]);
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// A store whose process died between the commit of silver and that of the dead letters.
async fn cut_short(directory: &Path) {
    let store = open(directory).await;
    write(&store, &rows(0, 0, 50)).await;
    let draft = store.begin_draft(SOURCE, &anew(None)).await.unwrap();
    write(&*draft.store, &later(0, 50)).await;
    let letters = directory.join("ops/dead_letters/_delta_log");
    let saved = tempfile::tempdir().unwrap();
    copy(&letters, saved.path());
    store.exchange(SOURCE, &store.hold().await).await.unwrap();
    drop((draft, store));
    std::fs::remove_dir_all(&letters).unwrap();
    std::fs::create_dir(&letters).unwrap();
    copy(saved.path(), &letters);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exchange_cut_short_between_its_tables_is_known_and_finished() {
    let directory = tempfile::tempdir().unwrap();
    cut_short(directory.path()).await;
    let store = open(directory.path()).await;
    assert_eq!(counts(&store).await, [0, 45, 5, 0]);
    assert!(store.draft(SOURCE).await.unwrap().expect("to be finished").is_exchanged);
    store.exchange(SOURCE, &store.hold().await).await.unwrap();
    assert_eq!(counts(&store).await, [0, 45, 0, 5]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_finish_the_same_exchange_at_once_lose_no_file() {
    for _ in 0..6 {
        let directory = tempfile::tempdir().unwrap();
        cut_short(directory.path()).await;
        let shared =
            async || DeltaStore::open_shared(directory.path(), &[&SCHEMA], settings(), Arc::new(now)).await.unwrap();
        let stores = [shared().await, shared().await, shared().await];
        let finish = async |store: &DeltaStore| store.exchange(SOURCE, &store.hold().await).await;
        let [one, other, third] = &stores;
        let finished = tokio::join!(finish(one), finish(other), finish(third));
        assert!(finished.0.is_ok() && finished.1.is_ok() && finished.2.is_ok(), "{finished:?}");
        assert_eq!(counts(other).await, [0, 45, 0, 5]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_an_exchange_since_a_day_earlier_rows_and_dead_letters_stay_there_and_back() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    // The second day begins at offset 1,000.
    write(&store, &rows(0, 0, 1_100)).await;
    let since = Timestamp::parse_rfc3339("2015-01-02T00:00:00Z").unwrap();
    let draft = store.begin_draft(SOURCE, &anew(Some(since))).await.unwrap();
    let made = later(0, 1_100);
    let only = |batch: &RecordBatch| contract::drop_below(batch, &Positions([(0, 1_000)].into()));
    let made = Rows { silver: only(&made.silver), dead_letters: only(&made.dead_letters), ..made };
    write(&*draft.store, &made).await;
    store.exchange(SOURCE, &store.hold().await).await.unwrap();
    store.end_draft(SOURCE).await.unwrap();
    assert_eq!(counts(&store).await, [900, 90, 100, 10]);
    assert_eq!(store.previous(SOURCE).await.unwrap().unwrap().since, Some(since));
    let draft = store.begin_draft_of_previous(SOURCE, "test").await.unwrap();
    assert_eq!(draft.of.since, Some(since));
    assert_eq!(counts(&*draft.store).await, [90, 0, 10, 0], "of that day alone");
    store.exchange(SOURCE, &store.hold().await).await.unwrap();
    assert_eq!(counts(&store).await, [990, 0, 110, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vacuum_takes_no_file_of_a_draft_or_of_what_is_kept_and_both_go_in_their_time() {
    let directory = tempfile::tempdir().unwrap();
    let begin = now();
    let store = open(directory.path()).await;
    write(&store, &rows(0, 0, 50)).await;
    let draft = store.begin_draft(SOURCE, &anew(None)).await.unwrap();
    write(&*draft.store, &later(0, 50)).await;
    let files = || {
        let all = walk(directory.path());
        all.into_iter().filter(|path| path.ends_with(".parquet")).collect::<Vec<_>>()
    };
    let drafted = files();
    let later_on = |hours: u64| NOW.store(begin.plus(Duration::from_secs(hours * 3_600)).0, Ordering::SeqCst);
    // Files are as old as the system says, which is long after the clock of this test: what is removed by age is all.
    later_on(20 * 365 * 24);
    store.maintain().await.unwrap();
    assert_eq!(files(), drafted);
    store.exchange(SOURCE, &store.hold().await).await.unwrap();
    store.end_draft(SOURCE).await.unwrap();
    later_on(20 * 365 * 24 + 100);
    store.maintain().await.unwrap();
    assert_eq!(files(), drafted, "a hundred hours later what was there is kept");
    assert_eq!(counts(&store).await, [0, 45, 0, 5]);
    later_on(20 * 365 * 24 + 170);
    store.maintain().await.unwrap();
    assert!(store.previous(SOURCE).await.unwrap().is_none());
    store.maintain().await.unwrap();
    assert!(files().len() < drafted.len(), "{:?}", files());
    assert_eq!(counts(&store).await, [0, 45, 0, 5]);
    let nothing = store.begin_draft_of_previous(SOURCE, "test").await.err().expect("it is gone");
    assert!(nothing.to_string().contains("nothing is kept of it"), "{nothing}");
    NOW.store(begin.0, Ordering::SeqCst);
}

fn walk(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(walk(&path)) } else { found.push(path.display().to_string()) }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silver_with_other_columns_takes_no_rows_until_it_is_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    write(&store, &rows(0, 0, 20)).await;
    drop(store);
    let open_as = async |schema: &'static RowSchema| {
        DeltaStore::open_to_remake(directory.path(), &[schema], settings(), Arc::new(now), SOURCE).await.unwrap()
    };
    let store = open_as(&GROWN).await;
    assert!(!store.is_of_other_columns(SOURCE), "what is only missing is added");
    drop(store);
    // `CHANGED` lacks the new columns, and has another type for an old one.
    let store = open_as(&CHANGED).await;
    assert!(store.is_of_other_columns(SOURCE));
    let draft = store.begin_draft(SOURCE, &anew(None)).await.unwrap();
    let mut builder = RowsBuilder::new(&CHANGED);
    for offset in 0..20 {
        builder.record(&record(0, offset), &Numbers).unwrap();
    }
    let made = builder.finish(Span { source: SOURCE, ranges: vec![OffsetRange { partition: 0, from: 0, to: 20 }] });
    write(&*draft.store, &without_bronze(made)).await;
    store.exchange(SOURCE, &store.hold().await).await.unwrap();
    store.end_draft(SOURCE).await.unwrap();
    assert!(!store.is_of_other_columns(SOURCE));
    drop((draft, store));

    let store = DeltaStore::open(directory.path(), &[&CHANGED], settings(), Arc::new(now)).await.unwrap();
    assert_eq!(number(&store, "SELECT count(*) FROM silver.github WHERE number = 'n' || _offset").await, 20);
    let refused = store.begin_draft_of_previous(SOURCE, "test").await.err().expect("it has other columns");
    assert!(refused.to_string().contains("the version that made it can go back"), "{refused}");
    drop(store);
    // That version.
    let store = open_as(&GROWN).await;
    let draft = store.begin_draft_of_previous(SOURCE, "test").await.unwrap();
    store.exchange(SOURCE, &store.hold().await).await.unwrap();
    store.end_draft(SOURCE).await.unwrap();
    drop((draft, store));
    let store = DeltaStore::open(directory.path(), &[&GROWN], settings(), Arc::new(now)).await.unwrap();
    assert_eq!(number(&store, "SELECT sum(number) FROM silver.github").await, (0..20).sum::<i64>() - 9 - 19);
    write(&store, &grown_rows(20, 30)).await;
    assert_eq!(number(&store, "SELECT count(*) FROM silver.github").await, 28);
}

/// Writes the number as a text.
struct Numbers;

impl Processor for Numbers {
    fn process(&self, record: &RawRecord, row: &mut RowBuilder) -> Result<(), Reject> {
        let text = format!("n{}", String::from_utf8_lossy(&record.body));
        row.text(CHANGED.place("number"), &text);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_draft_that_was_half_removed_is_an_older_state_of_it_or_none() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    write(&store, &rows(0, 0, 50)).await;
    let draft = store.begin_draft(SOURCE, &anew(None)).await.unwrap();
    write(&*draft.store, &later(0, 20)).await;
    write(&*draft.store, &later(20, 50)).await;
    drop(draft);
    let log = directory.path().join(DRAFT).join("github/silver/github/_delta_log");
    let mut entries: Vec<_> = std::fs::read_dir(&log).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    let mut ends = Vec::new();
    while let Some(newest) = entries.pop() {
        std::fs::remove_file(newest).unwrap();
        let draft = store.draft(SOURCE).await.unwrap();
        ends.push(match draft {
            Some(draft) => Some(draft.store.committed(SOURCE).await.unwrap().of(0)),
            None => None,
        });
    }
    assert_eq!(ends, [Some(20), Some(0), None, None]);
    let draft = store.begin_draft(SOURCE, &anew(None)).await.unwrap();
    assert_eq!(draft.store.committed(SOURCE).await.unwrap().of(0), 0);
}
