//! A run handed over to Spark, for what one machine cannot hold.
//!
//! Spark is named by the setting `cold.spark_command`: `spark-submit …`, or a Python with PySpark and `SPARK_REMOTE` for Spark
//! Connect. It is given the program `run_view.py` and a job: the tables at the versions that this run is about, the statement,
//! and a folder that both can reach. What it writes there is read, and stored as any result is, in one commit with the
//! watermark. So a Spark that dies leaves nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use contract::{Error, Result, SourceId};
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::process::Command;

use super::dialect::for_spark;
use super::file::ViewFile;
use super::moment::Moment;
use crate::durable::unique_name;

/// The program that Spark runs.
const PROGRAM: &str = include_str!("spark/run_view.py");

/// Bytes of what Spark says that are kept to look for the reason of a failure.
const SAID_BYTES_MAX: u64 = 1 << 20;

/// What Spark wrote; gone when dropped.
pub(super) struct Written {
    folder: PathBuf,
}

impl Written {
    /// The folder of Parquet files.
    pub(super) fn output(&self) -> PathBuf {
        self.folder.join("output")
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.folder) {
            tracing::warn!(folder = %self.folder.display(), %error, "what Spark wrote stays");
        }
    }
}

/// Has Spark answer a view's first statement over silver as it is committed.
///
/// # Errors
/// `Change` where no Spark is set or it cannot be started; `Retry` where it failed or took too long.
pub(super) async fn answer(
    view: &ViewFile,
    moments: &BTreeMap<SourceId, Moment>,
    command: &[String],
    exchange: &Path,
    seconds_max: u64,
) -> Result<Written> {
    let doing = || format!("run the view `{}` on Spark", view.name);
    let Some((program, arguments)) = command.split_first() else {
        return Err(Error::change(format!(
            "{}: none is set; say how it is started: `cold.spark_command = [\"spark-submit\", \"--packages\", \
             \"io.delta:delta-spark_2.13:4.4.0\"]`",
            doing()
        )));
    };
    let written = Written { folder: exchange.join(format!("{}-{}", view.name, unique_name())) };
    let tables = moments.iter().map(|(source, moment)| {
        let (place, version) = (moment.place(), moment.files().version);
        (format!("silver.{source}"), json!({"path": place, "version": version}))
    });
    let tables: serde_json::Map<_, _> = tables.collect();
    let job = json!({"tables": tables, "statement": for_spark(&view.stored.sql)?, "output": written.output()});
    let [script, job_file] = ["run_view.py", "job.json"].map(|name| written.folder.join(name));
    let prepared = std::fs::create_dir_all(&written.folder)
        .and_then(|()| std::fs::write(&script, PROGRAM))
        .and_then(|()| std::fs::write(&job_file, job.to_string()));
    prepared.map_err(|error| Error::stop(doing()).because(error))?;
    let mut spark = Command::new(program);
    spark.args(arguments).arg(&script).arg(&job_file).kill_on_drop(true);
    spark.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut spark = spark.spawn().map_err(|error| {
        Error::change(format!("{}: start `{program}` (setting `cold.spark_command`)", doing())).because(error)
    })?;
    let mut said = spark.stderr.take().expect("piped above");
    let mut kept = Vec::new();
    let ended = async {
        // What is beyond is read and forgotten: a full pipe would stop Spark.
        (&mut said).take(SAID_BYTES_MAX).read_to_end(&mut kept).await?;
        tokio::io::copy(&mut said, &mut tokio::io::sink()).await?;
        spark.wait().await
    };
    let ended = tokio::time::timeout(Duration::from_secs(seconds_max), ended).await;
    let ended = ended
        .map_err(|_| Error::retry(format!("{} within {seconds_max} s (setting `cold.spark_seconds_max`)", doing())))?;
    let status = ended.map_err(|error| Error::retry(doing()).because(error))?;
    if !status.success() {
        let said = String::from_utf8_lossy(&kept);
        let reason = said.lines().find(|line| line.starts_with("failed to"));
        let reason = reason.or_else(|| said.lines().rfind(|line| !line.trim().is_empty())).unwrap_or("it said nothing");
        return Err(Error::retry(format!("{}: it ended with {status}: {reason}", doing())));
    }
    Ok(written)
}
