//! The ledger's way: from the topic `databroker.coverage` to the table `ops.coverage`.

use std::time::Duration;

use contract::{Coverage, OffsetRange, Positions, Result, Share, Topic};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::Engines;
use crate::reader::READ_WAIT;
use crate::retry::{until_done, until_stopped};

/// Lines of the ledger are gathered this long, so that a table of small facts stays one of few files.
const GATHER: Duration = Duration::from_secs(10);
/// Bytes of lines that are committed at once.
const BYTES_MAX: usize = 1 << 20;

/// Starts what runs until `stop`, and then brings what is left. To be called before anything is appended. Where several
/// processes share the partitions, only who has the ledger's brings lines.
///
/// # Errors
/// When the table's position cannot be read, or the log cannot go on behind it. The task ends with an error when the
/// log or the table cannot go on.
pub async fn start_coverage(engines: Engines, stop: CancellationToken) -> Result<JoinHandle<Result<()>>> {
    if engines.group.is_none() {
        begin(&engines).await?;
    }
    Ok(tokio::spawn(async move { run(&engines, &stop).await }))
}

async fn begin(engines: &Engines) -> Result<()> {
    let (topic, at) = (Topic::coverage(), committed(engines).await?);
    engines.log.release(&topic, &at).await?;
    engines.log.begin_after(&topic, &at).await
}

async fn run(engines: &Engines, stop: &CancellationToken) -> Result<()> {
    let mut share = Share::default();
    loop {
        while follow(engines, &mut share, stop).await? && bring(engines, stop).await? {}
        if stop.is_cancelled() {
            return Ok(());
        }
        rest(engines, &share, stop).await;
    }
}

/// Whether this process has the ledger's partition. What is brought is committed at once, so there is nothing to give up.
async fn follow(engines: &Engines, share: &mut Share, stop: &CancellationToken) -> Result<bool> {
    let Some(group) = &engines.group else { return Ok(true) };
    let topic = Topic::coverage();
    let now = group.share(&topic);
    if now != *share {
        *share = now;
        group.settled(&topic, share);
        if !share.partitions.is_empty() {
            let begun = until_stopped("coverage", &engines.troubles, stop, || Box::pin(begin(engines)));
            begun.await?;
        }
    }
    Ok(!share.partitions.is_empty())
}

/// Until lines were gathered long enough, or this process's share changes.
async fn rest(engines: &Engines, share: &Share, stop: &CancellationToken) {
    let until = Instant::now() + GATHER;
    let has_changed = || engines.group.as_ref().is_some_and(|group| group.share(&Topic::coverage()) != *share);
    while !stop.is_cancelled() && Instant::now() < until && !has_changed() {
        tokio::select! {
            () = tokio::time::sleep(READ_WAIT) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// The next offset of the ledger's only partition.
async fn committed(engines: &Engines) -> Result<Positions> {
    Ok(Positions([(0, engines.cold.coverage_committed().await?.of(0))].into()))
}

/// Commits what the log has; whether there was something.
async fn bring(engines: &Engines, stop: &CancellationToken) -> Result<bool> {
    let Engines { log, cold, troubles, .. } = engines;
    let (topic, at) = (Topic::coverage(), committed(engines).await?);
    let batch = until_stopped("coverage log", troubles, stop, || log.read(&topic, &at, BYTES_MAX, Duration::ZERO));
    let Some(batch) = batch.await? else { return Ok(false) };
    let range = OffsetRange { partition: 0, from: at.of(0), to: batch.next.of(0) };
    if range.from == range.to {
        return Ok(false);
    }
    for lost in &batch.lost {
        error!(from = lost.range.from, to = lost.range.to, "lines of `{topic}` are lost: {}", lost.reason);
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
    if let Err(error) = log.release(&topic, &batch.next).await {
        info!("`{topic}` keeps lines longer than needed: {error}");
    }
    Ok(true)
}
