//! Tables as they were.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use contract::conformance::cold_store::{SCHEMA, SOURCE, answer, number, rows};
use contract::{Clock, ColdStore, Remedy, Store, SystemClock, Timestamp};
use futures::TryStreamExt;
use tempfile::TempDir;

use crate::{DeltaStore, Settings};

async fn open(directory: &TempDir, log_retention_hours: u64, clock: Arc<dyn Clock>) -> DeltaStore {
    let settings = Settings {
        checkpoint_interval_commits: 4,
        compaction_files_min: 2,
        vacuum_retention_hours: 1,
        log_retention_hours,
        ..Settings::default()
    };
    DeltaStore::open(directory.path(), &[&SCHEMA], settings, clock).await.unwrap()
}

async fn commit(store: &DeltaStore, from: i64) {
    store.write(&rows(0, from, from + 10)).await.unwrap();
    store.commit(SOURCE).await.unwrap();
}

async fn refusal(store: &DeltaStore, query: &str) -> String {
    let error = match store.sql(query).await {
        Ok(stream) => stream.batches.try_collect::<Vec<_>>().await.expect_err(query),
        Err(error) => error,
    };
    assert_eq!(error.remedy(), Remedy::Change, "{error}");
    error.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_is_read_as_of_a_version_a_time_and_an_offset() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory, 24, Arc::new(SystemClock)).await;
    let mut times = Vec::new();
    for round in 0..6 {
        commit(&store, round * 10).await;
        times.push(SystemClock.now());
        // A commit's time has milliseconds.
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    store.maintain().await.unwrap();
    store.write(&rows(0, 60, 65)).await.unwrap();
    for (version, time) in (1..).zip(times) {
        let rows = version * 9;
        let version = format!("SELECT count(*) FROM at_version('silver.github', {version})");
        assert_eq!(number(&store, &version).await, rows);
        let time = format!("SELECT count(*) FROM at_time('github', '{time}') WHERE _offset >= 0");
        assert_eq!(number(&store, &time).await, rows);
    }
    let of = async |from: &str| number(&store, &format!("SELECT count(*) FROM {from}")).await;
    assert_eq!(of("at_offset('silver.github', 0, 35)").await, 32);
    assert_eq!(of("at_offset('silver.github', 0, 63) AS past WHERE past.number > 9").await, 54 + 3 - 9);
    assert_eq!(of("at_offset('bronze.github', 1, 35)").await, 0);
    assert_eq!(of("at_offset('bronze.github', 1, 5, 0, 7)").await, 7);
    let gained = "silver.github AS present LEFT JOIN at_version('github', 2) AS past USING (_partition, _offset) WHERE past._id IS NULL";
    assert_eq!(of(gained).await, 54 + 5 - 18);
    let columns = async |from: &str| answer(&store, &format!("SELECT * FROM {from} LIMIT 1")).await[0].schema();
    assert_eq!(columns("at_version('silver.github', 1)").await, columns("silver.github").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_is_gone_is_refused_and_the_oldest_one_named() {
    let directory = tempfile::tempdir().unwrap();
    let ahead_micros = Arc::new(AtomicI64::new(0));
    let clock: Arc<dyn Clock> = {
        let ahead = ahead_micros.clone();
        Arc::new(move || Timestamp(SystemClock.now().0 + ahead.load(Ordering::Relaxed)))
    };
    let store = open(&directory, 24, clock.clone()).await;
    commit(&store, 0).await;
    commit(&store, 10).await;
    store.maintain().await.unwrap();
    let before = SystemClock.now();
    commit(&store, 20).await;
    ahead_micros.store(3 * 3_600_000_000, Ordering::Relaxed);
    let log = directory.path().join("silver/github/_delta_log");
    store.maintain().await.unwrap();
    // Version 3 compacted two files, which the vacuum took.
    let said = refusal(&store, "SELECT count(_id) FROM at_version('silver.github', 2)").await;
    assert!(said.contains("files of it were removed, 3 is the oldest version that is whole"), "{said}");
    drop(store);
    let store = open(&directory, 1, clock).await;
    for round in 3..9 {
        commit(&store, round * 10).await;
    }
    store.maintain().await.unwrap();
    let oldest = fs::read_dir(&log).unwrap().filter_map(|entry| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        name.strip_suffix(".json").and_then(|version| version.parse::<u64>().ok())
    });
    let oldest = oldest.min().unwrap();
    assert!(oldest > 0, "the log was cleaned");
    let said = refusal(&store, "SELECT * FROM at_version('silver.github', 0)").await;
    assert!(said.contains("its log has the versions"), "{said}");
    let said = refusal(&store, "SELECT * FROM at_version('silver.github', 999)").await;
    assert!(said.contains("its log has the versions"), "{said}");
    let said = refusal(&store, &format!("SELECT * FROM at_time('silver.github', '{}')", before)).await;
    assert!(said.contains("the oldest version in its log is"), "{said}");
}

#[tokio::test]
async fn a_function_that_is_used_wrongly_says_how_it_is_used() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory, 24, Arc::new(SystemClock)).await;
    for (from, part) in [
        ("at_version('silver.github')", "at_version('silver.github', 12)"),
        ("at_version(12, 'silver.github')", "at_version('silver.github', 12)"),
        ("at_time('silver.github', 'yesterday')", "2026-11-01T00:00:00Z"),
        ("at_offset('silver.github', 0)", "at_offset('silver.github', 0, 4711)"),
        ("at_version('silver.gihub', 1)", "known: bronze.github"),
    ] {
        let said = refusal(&store, &format!("SELECT * FROM {from}")).await;
        assert!(said.contains(part), "{said}");
    }
}
