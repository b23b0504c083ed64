//! The ledger's way: from the topic `databroker.coverage` to the table `ops.coverage`.

use std::time::Duration;

use contract::{Coverage, Error, OffsetRange, Result, Topic};
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::Engines;
use crate::retry::until_done;

/// Lines of the ledger are gathered this long, so that a table of small facts stays one of few files.
const GATHER: Duration = Duration::from_secs(10);
/// Bytes of lines that are committed at once.
const BYTES_MAX: usize = 1 << 20;

/// Runs until `stop`, and then brings what is left.
///
/// # Errors
/// When the log or the table cannot go on.
pub async fn run_coverage(engines: &Engines, stop: &CancellationToken) -> Result<()> {
    loop {
        while bring(engines, stop).await? {}
        if stop.is_cancelled() {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(GATHER) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// Commits what the log has; whether there was something.
async fn bring(engines: &Engines, stop: &CancellationToken) -> Result<bool> {
    let Engines { log, cold, troubles, .. } = engines;
    let topic = Topic::coverage();
    let mut at = cold.coverage_committed().await?;
    at.0.entry(0).or_insert(0);
    let batch = log.read(&topic, &at, BYTES_MAX, Duration::ZERO).await?;
    let range = OffsetRange { partition: 0, from: at.of(0), to: batch.next.of(0) };
    if range.from == range.to {
        return Ok(false);
    }
    let mut lines = Vec::with_capacity(batch.records.len());
    for record in &batch.records {
        // We write this topic alone; a line of another form is a foreign hand's and is named, not lost: the
        // log keeps it.
        match serde_json::from_slice::<Coverage>(&record.record.body) {
            Ok(line) => lines.push((record.offset, line)),
            Err(cause) => error!(offset = record.offset, "a line of `{topic}` is no coverage: {cause}"),
        }
    }
    until_done("coverage cold", troubles, stop, || cold.commit_coverage(range, &lines)).await?;
    log.release(&topic, &batch.next).await.map_err(|cause| Error::stop("release coverage").because(cause))?;
    Ok(true)
}
