//! What the binary hands in: the stores, the commands, the metrics and the health.

use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use contract::{Clock, ColdStore, Error, HotStore, Remedy, Result, Views, Webhook};
use futures::Stream;
use serde_json::Value;
use tokio::sync::mpsc;

/// What is served. Cheap to clone.
#[derive(Clone)]
pub struct Services {
    /// Answers searches.
    pub hot: Arc<dyn HotStore>,
    /// Answers SQL.
    pub cold: Arc<dyn ColdStore>,
    /// Answers views.
    pub views: Arc<dyn Views>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Runs commands.
    pub control: Arc<dyn Control>,
    /// Follows sources.
    pub tail: Arc<dyn Tail>,
    /// Answer below `/webhooks/`, each below its own path.
    pub webhooks: Vec<Arc<dyn Webhook>>,
    /// The metrics in Prometheus' text format.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// Whether requests should come here, and the JSON that says why or why not.
    pub health: Arc<dyn Fn() -> (bool, Value) + Send + Sync>,
}

/// Runs the commands of the binary inside the running process: `status`, `verify`, `backfill`, …
#[async_trait]
pub trait Control: Send + Sync {
    /// Runs `command` (its name on the command line) to its end and answers what `--json` prints.
    ///
    /// `progress` takes values for the one who asked, one line each. It holds a few and then waits for the
    /// asker: what may be skipped goes in by `try_send`. When the asker goes away or the server ends,
    /// `progress` is closed; the command goes on and should end at the next good place.
    ///
    /// # Errors
    /// `Change` for an unknown command or wrong arguments; else what the command failed at.
    async fn run(&self, command: &str, arguments: Value, progress: mpsc::Sender<Value>) -> Result<Value>;
}

/// Rows of sources as they are made.
#[async_trait]
pub trait Tail: Send + Sync {
    /// Follows a source from now on, or from after the event with the id `after`. `filter` is a condition in SQL over
    /// the columns of its rows.
    ///
    /// # Errors
    /// `Change` for an unknown source, a wrong filter or id.
    async fn begin(&self, source: &str, filter: Option<&str>, after: Option<&str>) -> Result<TailStream>;
}

/// Rows as they are made; without an end, until the process ends.
pub type TailStream = Pin<Box<dyn Stream<Item = Result<Tailed>> + Send>>;

/// A row, and where to go on after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tailed {
    /// For `Last-Event-ID`: the next offset of each partition, `0:17,1:4`.
    pub id: String,
    /// The row as one line of JSON; none where only the place has moved on.
    pub row: Option<String>,
}

/// The exit code of a process that ends with `error` (those of `sysexits.h`): 64 wrong use or settings, 69 a peer is
/// away, 70 a defect of ours.
pub fn exit_code(error: &Error) -> u8 {
    match error.remedy() {
        Remedy::Change => 64,
        Remedy::Retry | Remedy::RetryAfter(_) => 69,
        Remedy::Stop => 70,
    }
}
