//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Collects public signals and DNS traffic, logs them, and answers questions over the last days and over
/// everything. With no setting at all everything is embedded.
#[derive(Debug, Parser)]
#[command(name = "databroker", version, arg_required_else_help = true)]
pub(crate) struct Arguments {
    /// Settings; what is not in it has the default. Without the flag `databroker.toml` is read if it is there.
    #[arg(long, global = true, value_name = "FILE", env = "DATABROKER_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Where everything is kept.
    #[arg(long, global = true, value_name = "DIR", default_value = "./data", env = "DATABROKER_DATA")]
    pub(crate) data: PathBuf,
    /// Print one machine-readable JSON document.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run everything in one process: collect, process, serve.
    Up {
        /// Feed it the samples shipped in the program, with their times moved to now; no network.
        #[arg(long)]
        sample: bool,
    },
    /// Run collectors alone: what they bring goes to Kafka, and webhooks are answered here.
    Collect {
        /// Only these sources; all when absent.
        #[arg(value_name = "SOURCE")]
        sources: Vec<String>,
        /// Feed Kafka the samples shipped in the program, with their times moved to now; no network.
        #[arg(long)]
        sample: bool,
    },
    /// Bring records from Kafka into both stores, sharing its partitions with other `process`es.
    Process,
    /// Answer searches, SQL, status and metrics from the stores, beside those that write them.
    Serve,
    /// Read files of a source to their end, into both stores.
    Backfill {
        /// The source: arxiv, dns, github or news.
        source: String,
        /// arXiv: OAI-PMH pages, Atom, the snapshot; DNS: pcap, pcapng, dnstap; GitHub: GH Archive hours, NDJSON, API pages;
        /// news: RSS, Atom, JSON Feed. Packed by gzip, zstd, xz or not at all.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Search the last days of a source: the Lucene-style query string, newest first.
    Search {
        /// The source: arxiv, dns, github or news.
        source: String,
        /// `type:PushEvent AND repo_name:rust*`; all when absent.
        #[arg(default_value = "*", allow_hyphen_values = true)]
        query: String,
        /// Only events at or after this time: RFC 3339, a date, or date math such as `now-6h`.
        #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
        from: Option<String>,
        /// Only events before this time.
        #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
        to: Option<String>,
        /// How many to show.
        #[arg(long, default_value_t = 10)]
        size: u64,
        /// Best matches first, instead of the newest.
        #[arg(long)]
        by_score: bool,
    },
    /// Ask in SQL, over `bronze.SOURCE`, `silver.SOURCE` and `ops.*`.
    Sql {
        /// The query; it may begin with a comment, `-- …`.
        #[arg(allow_hyphen_values = true)]
        query: String,
    },
    /// Follow a source: each row as a line of JSON, as the running process makes it, until Ctrl-C.
    Tail {
        /// The source: arxiv, dns, github or news.
        source: String,
        /// A condition in SQL over the row's columns: `type = 'ReleaseEvent' AND NOT is_bot`.
        #[arg(allow_hyphen_values = true)]
        filter: Option<String>,
    },
    /// Write rows into files, as of the last commits: a table part by part into a folder, or a query into one file.
    Export {
        /// A table, `silver.github`, or a query in SQL.
        #[arg(value_name = "TABLE|QUERY", allow_hyphen_values = true)]
        what: String,
        /// The folder of a table's files, or the file of a query's rows.
        #[arg(long, value_name = "PATH")]
        to: PathBuf,
        /// parquet, csv, ndjson, arrow or json.
        #[arg(long, default_value = "parquet")]
        format: String,
        /// Go on with the export of a table that was ended early or killed: no row is missing then, and none comes twice.
        #[arg(long)]
        resume: bool,
    },
    /// Topics of the log: partitions, offsets, bytes.
    Topics,
    /// What runs, how far each store is, what was missed.
    Status,
    /// Prove that nothing was lost and nothing counted twice; exits 1 if a proof fails.
    Verify {
        /// Only this source.
        source: Option<String>,
        /// Mend what can be mended from bronze and the log.
        #[arg(long)]
        repair: bool,
    },
    /// Make the rows of a source anew from its raw records, by this version; then put them in the place of the old ones, in both
    /// stores at once. Everything goes on meanwhile. The old rows are kept for a while (`--back`).
    Reprocess(ReprocessArguments),
    /// Look for what is wrong with the set-up; exits 1 if something is.
    Doctor,
    /// Index templates on a real Elasticsearch, and how they differ from those of this version.
    Templates {
        /// Install those of this version, also where somebody changed one.
        #[arg(long)]
        force: bool,
    },
    /// Records that could not become rows.
    DeadLetters {
        /// Only this source.
        #[arg(long)]
        source: Option<String>,
        /// How many to show.
        #[arg(long, default_value_t = 20)]
        limit: u64,
        #[command(subcommand)]
        action: Option<DeadLetterAction>,
    },
    /// Questions whose answers are kept up to date: SQL over silver, stored in `gold` and merged with the newest rows.
    Views {
        #[command(subcommand)]
        action: ViewAction,
    },
    /// News feeds: which are polled, lists of them in and out, those of a page.
    Feeds {
        #[command(subcommand)]
        action: FeedAction,
    },
    /// Print the settings in force, as TOML.
    Config {
        /// Print the commented reference of all settings instead.
        #[arg(long)]
        reference: bool,
    },
}

impl Command {
    /// Whether it runs until it is told to end.
    pub(crate) fn is_service(&self) -> bool {
        matches!(self, Self::Up { .. } | Self::Collect { .. } | Self::Process | Self::Serve)
    }
}

#[derive(Clone, Debug, Default, clap::Args, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ReprocessArguments {
    /// The source: arxiv, dns, github or news.
    pub(crate) source: String,
    /// Only events of the day (for arXiv and news: the month) of this time and later: RFC 3339, a date, or such as `now-6h`.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) since: Option<String>,
    /// Only say what would change: rows added, gone and changed, by column.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Go back to the rows that were there before the last time; what came since is made by this version.
    #[arg(long, conflicts_with = "since")]
    pub(crate) back: bool,
    /// Give up what an interrupted run has made so far.
    #[arg(long, conflicts_with_all = ["since", "dry_run", "back"])]
    pub(crate) discard: bool,
    /// How many rows of each kind of change to show.
    #[arg(long, value_name = "ROWS", default_value_t = 3)]
    pub(crate) examples: usize,
    /// Who asked, so that it can be asked to end.
    #[arg(skip)]
    pub(crate) run: Option<String>,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum FeedAction {
    /// Those that `up` polls, by `[news] feeds` and `opml`, and how each does.
    List,
    /// The same as OPML, for other readers.
    Export {
        /// Where to; the standard output when absent.
        file: Option<PathBuf>,
    },
    /// Read an OPML list and print what the settings need to poll its feeds.
    Import {
        /// A file, or an address.
        #[arg(value_name = "FILE|URL")]
        location: String,
    },
    /// Find the feeds of a page.
    Discover {
        /// The page's address.
        url: String,
    },
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum ViewAction {
    /// All views: what each answers, how old its stored result is, and which are refused and why.
    List,
    /// The answer of a view, and how far it reaches.
    Show {
        /// The view.
        name: String,
        /// Only rows at or after this time: RFC 3339, a date, or such as `now-6h`. For a view with a time.
        #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
        from: Option<String>,
        /// Only rows before this time.
        #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
        to: Option<String>,
        /// Only rows for which this SQL expression over the answer's columns is true: `type = 'PushEvent'`.
        #[arg(long, value_name = "SQL", allow_hyphen_values = true)]
        filter: Option<String>,
        /// The first so many rows.
        #[arg(long, value_name = "ROWS", default_value_t = 50)]
        top: u64,
    },
    /// Bring stored results up to date now.
    Run {
        /// Only these; all when absent.
        #[arg(value_name = "NAME")]
        names: Vec<String>,
        /// Make all anew, not only what changed.
        #[arg(long)]
        whole: bool,
        /// What computes: this process, or the Spark that the settings name (`cold.spark_command`), which makes all anew.
        #[arg(long, value_enum, default_value_t = Engine::Embedded)]
        engine: Engine,
    },
    /// What a view is made of: its SQL, how its columns merge, up to where its result is stored, its last runs.
    Explain {
        /// The view.
        name: String,
    },
}

/// What computes the run of a view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Engine {
    #[default]
    Embedded,
    Spark,
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum DeadLetterAction {
    /// Log them again, to be processed as they are understood now.
    Replay,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_that_begins_with_a_comment_is_a_query_and_flags_beside_it_stay_flags() {
        for query in ["-- how many = n\nSELECT 1", "--x\nSELECT 1", "-- 1", "-1"] {
            for words in [&["databroker", "sql", query][..], &["databroker", "sql", "--json", query]] {
                for trailing in [&[][..], &["--data", "d"]] {
                    let arguments = Arguments::try_parse_from([words, trailing].concat()).unwrap();
                    assert!(
                        matches!(&arguments.command, Command::Sql { query: read } if read == query),
                        "{arguments:?}"
                    );
                    assert_eq!(arguments.json, words.len() == 4);
                    assert_eq!(arguments.data, PathBuf::from(if trailing.is_empty() { "./data" } else { "d" }));
                }
            }
            let behind = Arguments::try_parse_from(["databroker", "sql", query, "--json"]).unwrap();
            assert!(behind.json);
        }
        assert!(Arguments::try_parse_from(["databroker", "sql", "SELECT 1", "--jsno"]).is_err());
    }
}
