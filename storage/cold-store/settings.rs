//! The settings of the cold store: section `[cold]`.

use std::path::PathBuf;
use std::time::Duration;

use contract::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::remote::Credentials;

/// What queries filter on besides the time, by source.
const CLUSTER_BY: [&str; 5] =
    ["github.type", "github.repo_name", "dns.registrable_domain", "arxiv.primary_category", "news.feed_url"];

/// How the cold store writes, keeps house and answers queries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Where the tables lie: a folder, or below a prefix of an object store as `s3://BUCKET/PREFIX`, `az://CONTAINER/PREFIX` or
    /// `gs://BUCKET/PREFIX`. Empty: the folder `cold` of the data directory, which with an object store holds only what queries
    /// spill and files on their way.
    pub url: String,
    /// Where the object store answers, as `https://storage.example:9000`; empty is the provider's own address.
    pub endpoint: String,
    /// The region of an `s3://`; empty is that of the environment, or `us-east-1`.
    pub region: String,
    /// Whether an `endpoint` beyond this machine may be spoken to without TLS.
    pub allow_http: bool,
    /// A file with what logs in: lines `NAME = value` with the names of the environment (`~/.aws/credentials` is such a file),
    /// or for `gs://` the JSON of a service account. Counts more than the environment.
    pub credentials_file: String,
    /// What logs in, from the environment; who reads that sets it.
    #[serde(skip)]
    pub credentials: Credentials,
    /// Seconds for one request to an object store, 30: after it the request is sent again.
    pub request_seconds_max: u64,
    /// How often a request that failed is sent again, 5, with growing pauses; then what needed it waits and begins anew.
    pub request_retries_max: u32,
    /// Milliseconds between commits, 10,000: each makes at least one file per table and event day, so more
    /// often means more small files; queries see rows that are not committed too, so nothing waits for it.
    pub commit_interval_ms: u64,
    /// Bytes of rows in memory that make a commit due before its time, 64 MiB: it bounds what a crash makes
    /// the broker read again, and the memory.
    pub commit_bytes_max: usize,
    /// Bytes of a data file that compaction aims at, 128 MiB: Delta engines read such files well.
    pub target_file_bytes: u64,
    /// Small files of one partition value before they are compacted, 8.
    pub compaction_files_min: usize,
    /// Columns of silver, as `SOURCE.COLUMN`, by which compaction sorts the rows of a file, the first one first: what queries
    /// filter on. They then skip most row groups. Lists cannot be sorted by.
    pub cluster_by: Vec<String>,
    /// Rows of one Parquet row group, 131,072: the unit that readers skip by its statistics.
    pub row_group_rows: usize,
    /// Bytes of one Parquet row group while it is written, 32 MiB: it bounds the memory of a writer whatever
    /// the size of the rows.
    pub row_group_bytes: usize,
    /// Level of zstd, 1 to 22, 1: level 3 takes twice the time for about a tenth less.
    pub zstd_level: i32,
    /// Commits of a table between checkpoints, 100: opening a table reads the last checkpoint and every
    /// commit since.
    pub checkpoint_interval_commits: u64,
    /// Hours for which data files stay after compaction replaced them, 1 to 168, 24: a reader with an older
    /// version of the table still finds its files. Delta itself forgets what was replaced after 168.
    pub vacuum_retention_hours: u64,
    /// Hours for which old commits stay in the table's log, 24: how far back time travel goes.
    pub log_retention_hours: u64,
    /// Hours for which what silver was is kept after `reprocess` put other rows in its place, 168: so long it can be gone back
    /// to. Its files stay for as long.
    pub previous_retention_hours: u64,
    /// Bytes of memory that all running queries together may use for sorting, joining and grouping, 512 MiB; beyond it they
    /// spill to disk. Counts of distinct values cannot: those of 200,000 texts a day over ten days need half of it.
    pub query_memory_bytes_max: usize,
    /// Bytes on disk that running queries may spill, 8 GiB.
    pub query_spill_bytes_max: u64,
    /// Seconds that a query may take, 300.
    pub query_seconds_max: u64,
    /// Rows that a query may answer, 1,000,000: more belongs into a file of its own, read by an engine that
    /// opens the tables.
    pub query_rows_max: usize,
    /// Parts in which a query runs at the same time, 2; about the number of cores it may take.
    pub query_threads: usize,
    /// The folder of the user's views, `views`: a file `NAME.sql` each; if relative, then to the data directory.
    pub views_folder: PathBuf,
    /// Whether the views that come with the program are there, true.
    pub views_shipped: bool,
    /// How Spark is started for `views run --engine spark`, none: the program and its first arguments; ours follow.
    pub spark_command: Vec<String>,
    /// A folder that this process and Spark can reach, for what they hand each other; empty: the one for what queries spill.
    pub spark_folder: PathBuf,
    /// Seconds that a run on Spark may take, 3,600.
    pub spark_seconds_max: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            url: String::new(),
            endpoint: String::new(),
            region: String::new(),
            allow_http: false,
            credentials_file: String::new(),
            credentials: Credentials::default(),
            request_seconds_max: 30,
            request_retries_max: 5,
            commit_interval_ms: 10_000,
            commit_bytes_max: 64 << 20,
            target_file_bytes: 128 << 20,
            compaction_files_min: 8,
            cluster_by: CLUSTER_BY.map(str::to_owned).to_vec(),
            row_group_rows: 131_072,
            row_group_bytes: 32 << 20,
            zstd_level: 1,
            checkpoint_interval_commits: 100,
            vacuum_retention_hours: 24,
            log_retention_hours: 24,
            previous_retention_hours: 168,
            query_memory_bytes_max: 512 << 20,
            query_spill_bytes_max: 8 << 30,
            query_seconds_max: 300,
            query_rows_max: 1_000_000,
            query_threads: 2,
            views_folder: PathBuf::from("views"),
            views_shipped: true,
            spark_command: Vec::new(),
            spark_folder: PathBuf::new(),
            spark_seconds_max: 3_600,
        }
    }
}

impl Settings {
    /// How long what silver was is kept.
    pub(crate) fn previous_retention(&self) -> Duration {
        Duration::from_secs(self.previous_retention_hours.saturating_mul(3_600))
    }

    /// Says which setting is out of its range.
    ///
    /// # Errors
    /// `Change`, with the range.
    pub fn check(&self) -> Result<()> {
        let ranges: [(&str, u64, u64, u64); 15] = [
            ("commit_interval_ms", self.commit_interval_ms, 1, 86_400_000),
            ("commit_bytes_max", self.commit_bytes_max as u64, 1, 1 << 40),
            ("target_file_bytes", self.target_file_bytes, 1 << 10, 1 << 40),
            ("compaction_files_min", self.compaction_files_min as u64, 2, 10_000),
            ("row_group_rows", self.row_group_rows as u64, 1, 1 << 30),
            ("row_group_bytes", self.row_group_bytes as u64, 1 << 10, 1 << 40),
            ("zstd_level", u64::try_from(self.zstd_level).unwrap_or(0), 1, 22),
            ("checkpoint_interval_commits", self.checkpoint_interval_commits, 1, 1_000_000),
            ("vacuum_retention_hours", self.vacuum_retention_hours, 1, 168),
            ("log_retention_hours", self.log_retention_hours, 1, 1_000_000),
            ("previous_retention_hours", self.previous_retention_hours, 0, 1_000_000),
            ("request_seconds_max", self.request_seconds_max, 1, 600),
            ("request_retries_max", u64::from(self.request_retries_max), 0, 20),
            ("query_seconds_max", self.query_seconds_max, 1, 3_000),
            ("query_threads", self.query_threads as u64, 1, 1_024),
        ];
        match ranges.iter().find(|(_, value, low, high)| !(low..=high).contains(&value)) {
            Some((name, _, low, high)) => {
                Err(Error::change(format!("use the setting `cold.{name}`: it must lie between {low} and {high}")))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_out_of_its_range_is_named_with_the_range() {
        let settings = Settings { vacuum_retention_hours: 0, ..Settings::default() };
        let error = settings.check().expect_err("out of range");
        assert!(error.to_string().contains("`cold.vacuum_retention_hours`: it must lie between 1 and 168"), "{error}");
        Settings::default().check().expect("the defaults are in range");
    }

    #[test]
    fn an_unknown_setting_is_an_error() {
        let error = serde_json::from_str::<Settings>(r#"{"zstd_levle":3}"#).expect_err("unknown");
        assert!(error.to_string().contains("zstd_levle"), "{error}");
    }
}
