//! Foreign readers judge a table after every kind of maintenance: delta-rs, Polars and DuckDB from Python, and Spark.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use contract::conformance::cold_store::{SCHEMA, SOURCE, answer, rows};
use contract::{Clock, ColdStore, RowSchema, Store, SystemClock, Timestamp};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::growth_test::{GROWN, grown_rows};
use crate::{DeltaStore, Settings};

/// Answers `{STATE: {READER: [[type, rows, ids, sum of numbers], …]}}` for the folders that are named.
const READ: &str = r#"
import sys, json, os, deltalake, polars, duckdb, duckdb_extensions
connection = duckdb.connect()
duckdb_extensions.import_extension("delta", con=connection)
connection.execute("LOAD delta")
COUNT = "SELECT type, count(*), count(DISTINCT _id), CAST(coalesce(sum(number), 0) AS BIGINT) FROM {} GROUP BY 1 ORDER BY 1 NULLS LAST"
def ordered(rows):
    return sorted(([row[0], row[1], row[2], row[3] or 0] for row in rows), key=lambda row: (row[0] is None, row[0]))
found = {}
for path in sys.argv[1:]:
    arrow = deltalake.DeltaTable(path).to_pyarrow_table()
    lazy = polars.scan_delta(path).group_by("type").agg(polars.len(), polars.col("_id").n_unique().alias("ids"), polars.col("number").sum())
    found[os.path.basename(path)] = {
        "delta-rs": ordered(connection.execute(COUNT.format("arrow")).fetchall()),
        "duckdb": ordered(connection.execute(COUNT.format("delta_scan('" + path + "')")).fetchall()),
        "polars": ordered(lazy.collect().rows()),
    }
print(json.dumps(found))
sys.stdout.flush()
# Threads of these libraries at times bring the interpreter down while it ends.
os._exit(0)
"#;

/// The same with one session of Spark.
#[cfg(feature = "real-servers")]
const READ_WITH_SPARK: &str = r#"
import sys, json, os
from pyspark.sql import SparkSession
spark = SparkSession.builder.getOrCreate()
spark.sparkContext.setLogLevel("OFF")
COUNT = "SELECT type, count(*), count(DISTINCT _id), coalesce(sum(number), 0) FROM delta.`{}` GROUP BY 1 ORDER BY 1 NULLS LAST"
found = {}
for path in sys.argv[1:]:
    found[os.path.basename(path)] = {"spark": [list(row) for row in spark.sql(COUNT.format(path)).collect()]}
print(json.dumps(found))
spark.stop()
"#;

/// Copies of a table after each step, with what it holds.
struct States {
    folder: TempDir,
    ahead_micros: Arc<AtomicI64>,
    found: Vec<(PathBuf, Value)>,
}

impl States {
    async fn open(&self, schema: &'static RowSchema) -> DeltaStore {
        let ahead = self.ahead_micros.clone();
        let clock: Arc<dyn Clock> = Arc::new(move || Timestamp(SystemClock.now().0 + ahead.load(Ordering::Relaxed)));
        let settings = Settings {
            checkpoint_interval_commits: 5,
            compaction_files_min: 3,
            vacuum_retention_hours: 1,
            log_retention_hours: 1,
            ..Settings::default()
        };
        DeltaStore::open_shared(&self.folder.path().join("store"), &[schema], settings, clock).await.unwrap()
    }

    async fn keep(&mut self, store: &DeltaStore, name: &str) {
        let query = "SELECT type, count(*), count(DISTINCT _id), coalesce(sum(number), 0) FROM silver.github GROUP BY 1 \
                     ORDER BY 1 NULLS LAST";
        let mut counts = Vec::new();
        for batch in answer(store, query).await {
            let number = |column: usize, row: usize| batch.column(column).as_primitive::<Int64Type>().value(row);
            for (row, kind) in batch.column(0).as_string::<i32>().iter().enumerate() {
                counts.push(json!([kind, number(1, row), number(2, row), number(3, row)]));
            }
        }
        let copy = self.folder.path().join(name);
        super::tests::copy(&self.folder.path().join("store/silver/github"), &copy);
        self.found.push((copy, json!(counts)));
    }

    async fn make() -> Self {
        let mut states = Self { folder: tempfile::tempdir().unwrap(), ahead_micros: Arc::default(), found: Vec::new() };
        let (one, other) = (states.open(&SCHEMA).await, states.open(&SCHEMA).await);
        for round in 0..4 {
            for (partition, store) in [(0, &one), (1, &other)] {
                store.write(&rows(partition, round * 300, round * 300 + 300)).await.unwrap();
            }
            let (first, second) = tokio::join!(one.commit(SOURCE), other.commit(SOURCE));
            assert!(first.is_ok() && second.is_ok());
        }
        states.keep(&one, "several-writers").await;
        let lines = one.maintain().await.unwrap();
        let said = lines.iter().find(|line| line.starts_with("`silver.github`")).unwrap();
        assert!(said.contains("checkpoint at"), "{said}");
        states.keep(&one, "compaction-and-checkpoint").await;
        states.ahead_micros.store(3 * 3_600_000_000, Ordering::Relaxed);
        one.write(&rows(0, 1_200, 1_250)).await.unwrap();
        one.commit(SOURCE).await.unwrap();
        let lines = other.maintain().await.unwrap();
        let said = lines.iter().find(|line| line.starts_with("`silver.github`")).unwrap();
        assert!(!said.contains(" 0 files and") && !said.contains("and 0 log entries removed"), "{said}");
        states.keep(&one, "vacuum-and-log-clean-up").await;
        drop((one, other));
        let grown = states.open(&GROWN).await;
        grown.write(&grown_rows(1_250, 1_300)).await.unwrap();
        grown.commit(SOURCE).await.unwrap();
        states.keep(&grown, "new-columns").await;
        for round in 0..4 {
            grown.write(&grown_rows(1_300 + round * 10, 1_310 + round * 10)).await.unwrap();
            grown.commit(SOURCE).await.unwrap();
        }
        grown.maintain().await.unwrap();
        states.keep(&grown, "compaction-of-new-columns").await;
        states
    }

    /// Has a program read all of them, and holds what it says against what they hold.
    fn assert_read_by(&self, readers: &[&str], program: &Path, script: &str) {
        let paths = self.found.iter().map(|(path, _)| path);
        let output = Command::new(program).args(["-c", script]).args(paths).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let said = String::from_utf8(output.stdout).unwrap();
        let said: Value = serde_json::from_str(said.lines().last().unwrap_or_default()).expect(&said);
        for (path, expected) in &self.found {
            let name = path.file_name().unwrap().to_str().unwrap();
            assert!(expected.as_array().is_some_and(|counts| counts.len() >= 2), "{name}: {expected}");
            for reader in readers {
                assert_eq!(&said[name][reader], expected, "{reader} reads {name}");
            }
        }
    }
}

fn python() -> PathBuf {
    let path = std::env::var_os("DATABROKER_TEST_PYTHON");
    path.expect("`DATABROKER_TEST_PYTHON` is set by `./test`, which sets Python up: run that").into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delta_rs_duckdb_and_polars_read_a_table_after_every_kind_of_maintenance() {
    let states = States::make().await;
    states.assert_read_by(&["delta-rs", "duckdb", "polars"], &python(), READ);
}

#[cfg(feature = "real-servers")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_servers_spark_reads_a_table_after_every_kind_of_maintenance() {
    let states = States::make().await;
    let spark = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../engines/spark/python");
    states.assert_read_by(&["spark"], &spark, READ_WITH_SPARK);
}
