//! What the crate promises, over whole stores.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arrow::array::AsArray;
use arrow::util::pretty::pretty_format_batches;
use async_trait::async_trait;
use contract::conformance::cold_store::{CASES, Place, SCHEMA, SOURCE, answer, number, rows};
use contract::{Clock, ColdStore, ColdTable, Positions, Remedy, Store, SystemClock, Timestamp};
use futures::TryStreamExt;
use tempfile::TempDir;

use crate::{DeltaStore, Settings};

struct Directory(TempDir);

#[async_trait]
impl Place for Directory {
    async fn open(&self) -> Arc<dyn ColdStore> {
        Arc::new(open(self.0.path(), settings()).await)
    }

    async fn open_read_only(&self) -> Arc<dyn ColdStore> {
        let store = DeltaStore::open_read_only(self.0.path(), &[&SCHEMA], settings(), Arc::new(SystemClock)).await;
        Arc::new(store.unwrap())
    }

    async fn open_shared(&self) -> Arc<dyn ColdStore> {
        let store = DeltaStore::open_shared(self.0.path(), &[&SCHEMA], settings(), Arc::new(SystemClock)).await;
        Arc::new(store.unwrap())
    }
}

fn settings() -> Settings {
    Settings { checkpoint_interval_commits: 10, compaction_files_min: 4, ..Settings::default() }
}

async fn open(directory: &Path, settings: Settings) -> DeltaStore {
    DeltaStore::open(directory, &[&SCHEMA], settings, Arc::new(SystemClock)).await.unwrap()
}

async fn write_and_commit(store: &DeltaStore, from: i64, to: i64) -> Positions {
    store.write(&rows(0, from, to)).await.unwrap();
    store.commit(SOURCE).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_an_aggregation_are_sorted_by_every_column_whichever_comes_first() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), settings()).await;
    store.write(&rows(0, 0, 200)).await.unwrap();
    let groups = "WITH g AS (SELECT _id AS k, count(*) AS n FROM silver.github GROUP BY 1)";
    for query in [
        "SELECT n, k, row_number() OVER (ORDER BY n DESC) AS place FROM g ORDER BY n DESC, k",
        "SELECT n, k FROM g ORDER BY n DESC, k",
        "SELECT n, upper(k) AS k FROM g ORDER BY n, k",
    ] {
        let batches = answer(&store, &format!("{groups} {query}")).await;
        let keys: Vec<String> = (batches.iter())
            .flat_map(|batch| {
                batch.column(1).as_string::<i32>().iter().flatten().map(str::to_owned).collect::<Vec<_>>()
            })
            .collect();
        assert!(keys.len() == 180 && keys.is_sorted(), "{query}: {keys:?}");
    }
}

/// Every offset below `to` stands once in bronze, and in silver or the dead letters.
async fn assert_complete(store: &DeltaStore, to: i64) {
    for table in ["bronze.github", "(SELECT _offset FROM silver.github UNION ALL SELECT _offset FROM ops.dead_letters)"]
    {
        assert_eq!(number(store, &format!("SELECT count(*) FROM {table}")).await, to, "{table}");
        assert_eq!(number(store, &format!("SELECT count(DISTINCT _offset) FROM {table}")).await, to, "{table}");
    }
}

async fn text(store: &DeltaStore, query: &str) -> String {
    pretty_format_batches(&answer(store, query).await).unwrap().to_string()
}

fn files(directory: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.to_string_lossy().ends_with(ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.path().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_passes_the_suite_of_the_contract() {
    for (name, case) in CASES {
        let place = Arc::new(Directory(tempfile::tempdir().unwrap()));
        assert!(tokio::spawn(case(place)).await.is_ok(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_between_the_commits_of_its_tables_it_holds_every_offset_once_after_the_replay() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), settings()).await;
    write_and_commit(&store, 0, 40).await;
    write_and_commit(&store, 40, 80).await;
    drop(store);
    // Undoing the last commits leaves the directory as a kill before them would.
    for undone in 0..=3 {
        let killed = tempfile::tempdir().unwrap();
        copy(directory.path(), killed.path());
        for table in ["silver/github", "ops/dead_letters", "bronze/github"].iter().take(undone) {
            let log = killed.path().join(table).join("_delta_log");
            fs::remove_file(files(&log, ".json").pop().unwrap()).unwrap();
        }
        let store = open(killed.path(), settings()).await;
        let next = store.committed(SOURCE).await.unwrap();
        assert_eq!(next.of(0), if undone == 0 { 80 } else { 40 }, "{undone}");
        for from in [20, 40, 60, 80] {
            store.write(&rows(0, from, from + 20)).await.unwrap();
        }
        assert_complete(&store, 100).await;
        store.commit(SOURCE).await.unwrap();
        assert_complete(&store, 100).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_small_commits_become_few_files_a_short_log_and_the_same_rows() {
    const COMMITS: i64 = 300;
    let directory = tempfile::tempdir().unwrap();
    let ahead_micros = Arc::new(AtomicI64::new(0));
    let clock: Arc<dyn Clock> = {
        let ahead = ahead_micros.clone();
        Arc::new(move || Timestamp(SystemClock.now().0 + ahead.load(Ordering::Relaxed)))
    };
    let settings =
        Settings { vacuum_retention_hours: 1, log_retention_hours: 1, checkpoint_interval_commits: 50, ..settings() };
    let store = DeltaStore::open(directory.path(), &[&SCHEMA], settings.clone(), clock).await.unwrap();
    for commit in 0..COMMITS {
        write_and_commit(&store, commit * 4, commit * 4 + 4).await;
        if commit % 50 == 49 {
            store.maintain().await.unwrap();
        }
    }
    let orphan = directory.path().join("silver/github/event_day=2015-01-01/part-orphan.zstd.parquet");
    fs::write(&orphan, "of a killed commit").unwrap();
    ahead_micros.store(2 * 3_600_000_000, Ordering::Relaxed);
    write_and_commit(&store, COMMITS * 4, COMMITS * 4 + 10).await;
    store.maintain().await.unwrap();
    ahead_micros.store(5 * 3_600_000_000, Ordering::Relaxed);
    let lines = store.maintain().await.unwrap();
    assert_eq!(lines.len(), 5, "{lines:?}");
    assert_complete(&store, COMMITS * 4 + 10).await;
    for summary in store.tables().await.unwrap() {
        let root = directory.path().join(summary.name.replace('.', "/"));
        assert!(summary.files <= 16, "{summary:?}");
        assert_eq!(
            files(&root, ".zstd.parquet").len(),
            summary.files,
            "replaced files and orphans are gone: {summary:?}"
        );
        assert!(files(&root.join("_delta_log"), ".json").len() <= 80, "{summary:?}");
    }
    assert!(!orphan.exists());
    drop(store);
    let store = open(directory.path(), settings).await;
    assert_eq!(store.committed(SOURCE).await.unwrap().of(0), COMMITS * 4 + 10);
    assert_complete(&store, COMMITS * 4 + 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_on_a_day_reads_that_days_files_only_and_a_count_reads_none() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), settings()).await;
    write_and_commit(&store, 0, 1_050).await;
    store.write(&rows(0, 1_050, 1_060)).await.unwrap();
    for filter in ["event_day = '2015-01-02'", "event_time >= '2015-01-02T00:00:00Z'", "_offset > 1000"] {
        let plan = text(&store, &format!("EXPLAIN SELECT _id FROM silver.github WHERE {filter}")).await;
        assert!(plan.contains("event_day=2015-01-02") && !plan.contains("event_day=2015-01-01"), "{filter}\n{plan}");
        assert!(plan.contains("DataSourceExec: partitions=1"), "the rows that wait are read too: {plan}");
        let row_groups_are_skipped = plan.contains("pruning_predicate=");
        assert!(row_groups_are_skipped || filter.starts_with("event_day"), "{filter}\n{plan}");
    }
    let plan = text(&store, "EXPLAIN SELECT count(*) FROM silver.github").await;
    assert!(!plan.contains("DataSourceExec"), "{plan}");
    assert_eq!(number(&store, "SELECT count(*) FROM silver.github").await, 954);
    assert_eq!(number(&store, "SELECT count(*) FROM silver.github WHERE event_day = '2015-01-02'").await, 54);
    assert_eq!(number(&store, "SELECT max(_offset) FROM github").await, 1_058);
    let newest = text(&store, "SELECT max(event_time) FROM silver.github WHERE _offset < 50").await;
    assert!(newest.contains("2015-01-01T00:00:00.048007Z"), "{newest}");
    let longest = text(&store, "SELECT max(event_time) FROM silver.github").await;
    assert!(longest.contains("2015-01-02T00:00:00.058007Z"), "not the bound in the log: {longest}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_beyond_a_limit_is_told_which() {
    let directory = tempfile::tempdir().unwrap();
    let limits = Settings { query_rows_max: 100, query_memory_bytes_max: 100_000, query_seconds_max: 1, ..settings() };
    let store = open(directory.path(), limits).await;
    write_and_commit(&store, 0, 500).await;
    let fails = async |query: &str, setting: &str| {
        let stream = store.sql(query).await;
        let error = match stream {
            Ok(stream) => stream.batches.try_collect::<Vec<_>>().await.expect_err(query),
            Err(error) => error,
        };
        assert_eq!(error.remedy(), Remedy::Retry, "{error}");
        assert!(error.to_string().contains(setting), "{error}");
    };
    fails("SELECT * FROM silver.github", "cold.query_rows_max").await;
    fails("SELECT array_agg(value) FROM generate_series(1, 1000000)", "cold.query_memory_bytes_max").await;
    let endless = "SELECT count(*) FROM generate_series(1, 100000000) a, generate_series(1, 100000000) b WHERE a.value = -b.value + 1";
    fails(&format!("{endless} OR a.value * b.value < 0"), "cold.query_seconds_max").await;
    let rows = |batches: Vec<arrow::array::RecordBatch>| batches.iter().map(|batch| batch.num_rows()).sum::<usize>();
    assert_eq!(rows(answer(&store, "SELECT _id FROM silver.github LIMIT 100").await), 100);
    let all = store.scan("SELECT * FROM silver.github").await.unwrap().batches.try_collect().await.unwrap();
    assert_eq!(rows(all), 450, "our own reading knows no such limit");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_cannot_be_maintained_keeps_no_other_from_it() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), settings()).await;
    for commit in 0..6 {
        write_and_commit(&store, commit * 20, commit * 20 + 20).await;
    }
    let broken = files(&directory.path().join("bronze"), ".parquet").pop().unwrap();
    fs::write(&broken, b"no Parquet").unwrap();
    let error = store.maintain().await.unwrap_err();
    assert!(error.to_string().contains(broken.to_str().unwrap()), "{error}");
    let tables = store.tables().await.unwrap();
    let files_of = |name: &str| tables.iter().find(|table| table.name == name).unwrap().files;
    assert_eq!((files_of("bronze.github"), files_of("silver.github")), (6, 1));
    let left = files(&directory.path().join("bronze"), ".parquet").len();
    assert_eq!(left, 6, "nothing is left of the compaction that failed");
}

#[tokio::test]
async fn rows_are_mended_one_by_one_without_moving_the_position() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), settings()).await;
    write_and_commit(&store, 0, 30).await;
    write_and_commit(&store, 30, 60).await;
    store.mend(SOURCE, ColdTable::Silver, &[(0, 5), (0, 41), (1, 7), (0, 999)], None).await.unwrap();
    store.mend(SOURCE, ColdTable::DeadLetters, &[(0, 9)], None).await.unwrap();
    assert_eq!(number(&store, "SELECT count(*) FROM silver.github").await, 52);
    assert_eq!(number(&store, "SELECT count(*) FROM ops.dead_letters").await, 5);
    let spoilt = rows(0, 5, 6);
    store.mend(SOURCE, ColdTable::Silver, &[], Some(&spoilt.silver)).await.unwrap();
    store.mend(SOURCE, ColdTable::Silver, &[(0, 5)], Some(&spoilt.silver)).await.unwrap();
    store.mend(SOURCE, ColdTable::Silver, &[], Some(&rows(0, 41, 42).silver)).await.unwrap();
    store.mend(SOURCE, ColdTable::DeadLetters, &[], Some(&rows(0, 9, 10).dead_letters)).await.unwrap();
    assert_complete(&store, 60).await;
    drop(store);
    let store = open(directory.path(), settings()).await;
    assert_eq!(store.committed(SOURCE).await.unwrap().of(0), 60);
    assert_complete(&store, 60).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_engine_may_compact_a_table_meanwhile() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), settings()).await;
    for commit in 0..3 {
        write_and_commit(&store, commit * 20, commit * 20 + 20).await;
    }
    for name in ["bronze/github", "silver/github"] {
        let path = directory.path().join(name);
        let table = deltalake::open_table(deltalake::ensure_table_uri(path.to_str().unwrap()).unwrap()).await.unwrap();
        let (table, done) = table.optimize().await.unwrap();
        assert_eq!((done.num_files_removed, table.version()), (3, Some(4)));
    }
    assert_complete(&store, 60).await;
    for commit in 3..8 {
        write_and_commit(&store, commit * 20, commit * 20 + 20).await;
    }
    let compacted = store.maintain().await.unwrap();
    assert!(
        compacted.iter().any(|line| line.starts_with("`silver.github`: 6 files compacted into 1")),
        "{compacted:?}"
    );
    assert_complete(&store, 160).await;
}

#[tokio::test]
async fn the_tables_ask_for_the_lowest_protocol_and_say_what_their_columns_mean() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), settings()).await;
    let names: Vec<_> = store.tables().await.unwrap().into_iter().map(|table| table.name).collect();
    assert_eq!(names, ["bronze.github", "ops.coverage", "ops.dead_letters", "ops.runs", "silver.github"]);
    for name in names {
        let log = directory.path().join(name.replace('.', "/")).join("_delta_log/00000000000000000000.json");
        let log = fs::read_to_string(log).unwrap();
        assert!(log.contains(r#""minReaderVersion":1,"minWriterVersion":2"#), "{log}");
        assert!(name != "silver.github" || log.contains("Partition of the log record."), "{log}");
    }
}
