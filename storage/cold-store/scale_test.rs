//! Many commits, many files: memory, and what clustering is good for.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use arrow::util::pretty::pretty_format_batches;
use contract::conformance::cold_store::{SCHEMA, SOURCE, answer, number, rows};
use contract::{ColdStore, Store, SystemClock};

use crate::{DeltaStore, Settings};

const COMMITS: u64 = 2_000;

/// Files of each commit: one per event day.
const FILES: u64 = 5;

/// Bytes of memory that maintenance may take, with all else of its process.
const MEMORY_BYTES_MAX: u64 = 500 << 20;

/// Names the table's folder for the process that is measured.
const FOLDER: &str = "DATABROKER_TEST_SCALE_FOLDER";

const NAME: &str = "scale_test::a_table_of_2_000_commits_and_10_000_files_is_maintained_in_500_mb";

async fn open(directory: &Path, settings: Settings) -> DeltaStore {
    DeltaStore::open(directory, &[&SCHEMA], settings, Arc::new(SystemClock)).await.unwrap()
}

/// Makes a table of many commits without making them one by one: each names other links to the same few files.
fn make_long_log(directory: &Path) {
    let table = directory.join("silver/github");
    let log = |version: u64| table.join(format!("_delta_log/{version:020}.json"));
    let lines = fs::read_to_string(log(1)).unwrap();
    let add = lines.lines().find(|line| line.starts_with(r#"{"add""#)).unwrap();
    let others: Vec<_> = lines.lines().filter(|line| !line.starts_with(r#"{"add""#)).collect();
    let first: serde_json::Value = serde_json::from_str(add).unwrap();
    let first = first["add"]["path"].as_str().unwrap();
    for day in 1..=FILES {
        fs::create_dir_all(table.join(format!("event_day=2015-02-{day:02}"))).unwrap();
    }
    for version in 2..2 + COMMITS {
        let mut commit = others.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
        for day in 1..=FILES {
            let path = format!("event_day=2015-02-{day:02}/part-{version}.zstd.parquet");
            fs::hard_link(table.join(first), table.join(&path)).unwrap();
            commit.push(add.replace(first, &path).replace("2015-01-01\"}", &format!("2015-02-{day:02}\"}}")));
        }
        fs::write(log(version), commit.join("\n") + "\n").unwrap();
    }
}

/// The most memory that this process had, in bytes: `VmHWM` of `proc_pid_status(5)`.
fn memory_peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

fn folder() -> Option<std::ffi::OsString> {
    std::env::var_os(FOLDER)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_of_2_000_commits_and_10_000_files_is_maintained_in_500_mb() {
    let settings = Settings { query_memory_bytes_max: 64 << 20, ..Settings::default() };
    if let Some(directory) = folder() {
        let store = open(Path::new(&directory), settings).await;
        let files = |tables: &[crate::TableSummary]| tables.iter().map(|table| table.files).max();
        assert_eq!(files(&store.tables().await.unwrap()), Some((COMMITS * FILES) as usize + 1));
        store.maintain().await.unwrap();
        let left = files(&store.tables().await.unwrap());
        let rows = number(&store, "SELECT count(*) FROM silver.github WHERE number >= 0").await;
        println!("measured {} {} {rows}", memory_peak(), left.unwrap());
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), settings).await;
    store.write(&rows(0, 0, 50)).await.unwrap();
    store.commit(SOURCE).await.unwrap();
    drop(store);
    make_long_log(directory.path());
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", NAME, "--nocapture"])
        .env(FOLDER, directory.path())
        // The C library keeps what is freed for each thread that had it; `databroker` has an allocator that does not.
        .env("MALLOC_ARENA_MAX", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout).into_owned() + &String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success(), "{said}");
    let line = said.lines().find_map(|line| line.split_once("measured ")).expect(&said).1;
    let numbers: Vec<u64> = line.split(' ').map(|number| number.parse().unwrap()).collect();
    let [peak, files, rows] = numbers[..] else { panic!("{line}") };
    println!("{} MiB, {files} files left", peak >> 20);
    assert!(peak < MEMORY_BYTES_MAX, "{peak} bytes");
    // Five hundred files become one at a time.
    assert!(files <= 5 * FILES, "{files} files");
    assert_eq!(rows, 45 * (1 + COMMITS * FILES));
}

/// Row groups that a query reads and those that it leaves out, by what `EXPLAIN ANALYZE` says of it.
async fn row_groups(store: &DeltaStore, filter: &str) -> BTreeMap<&'static str, u64> {
    let query = format!("EXPLAIN ANALYZE SELECT count(_id) FROM silver.github WHERE {filter}");
    let plan = pretty_format_batches(&answer(store, &query).await).unwrap().to_string();
    let (_, said) = plan.split_once("row_groups_pruned_statistics=").unwrap_or_else(|| panic!("{plan}"));
    let mut numbers = said.split(|letter: char| !letter.is_ascii_digit()).filter(|part| !part.is_empty());
    let mut next = || numbers.next().and_then(|number| number.parse().ok()).expect(&plan);
    BTreeMap::from([("all", next()), ("read", next())])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clustered_rows_let_a_query_skip_the_row_groups_of_others() {
    let mut found = Vec::new();
    for cluster_by in [vec![], vec!["github.type".to_owned(), "github.labels".to_owned(), "news.feed_url".to_owned()]] {
        let directory = tempfile::tempdir().unwrap();
        let settings = Settings { cluster_by, row_group_rows: 50, compaction_files_min: 4, ..Settings::default() };
        let store = open(directory.path(), settings).await;
        for commit in 0..8 {
            store.write(&rows(0, commit * 100, commit * 100 + 100)).await.unwrap();
            store.commit(SOURCE).await.unwrap();
        }
        store.maintain().await.unwrap();
        let tables = store.tables().await.unwrap();
        assert_eq!(tables.iter().find(|table| table.name == "silver.github").unwrap().files, 1);
        assert_eq!(number(&store, "SELECT count(DISTINCT _offset) FROM silver.github WHERE number >= 0").await, 720);
        found.push(row_groups(&store, "type = 'PushEvent'").await);
    }
    assert_eq!(found[0], BTreeMap::from([("all", 15), ("read", 15)]), "in the order of the log");
    assert_eq!(found[1], BTreeMap::from([("all", 15), ("read", 9)]), "sorted by type, of which 400 rows of 720 are");
}
