//! The loop around a collector: poll, append, again; the clock, the backoff and the metrics are here.

use std::time::Duration;

use contract::{Acknowledge, Appended, Collector, CoverageKind, Cursor, Harvest, Remedy, Result, metric};
use contract::{Clock, Error};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::retry::until_done;
use crate::{Engines, Troubles};

/// The longest wait after failed polls; a source that is back is asked within this time.
const BACKOFF_MAX: Duration = Duration::from_secs(15 * 60);
const BACKOFF_FIRST: Duration = Duration::from_secs(1);

/// What a collector brought until it ended or was stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Records appended to the log.
    pub records: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
}

/// Runs a collector until it has no more, or `stop` is said. A poll that fails is tried again for as long
/// as that can help; `heard` is told of each harvest that entered the log.
///
/// # Errors
/// Of the collector or the log, where trying again cannot mend them.
pub async fn collect(
    collector: &mut dyn Collector,
    engines: &Engines,
    stop: &CancellationToken,
    mut heard: impl FnMut(&Harvest, &Appended),
) -> Result<Collected> {
    let id = collector.id();
    let Engines { log, clock, troubles, .. } = engines;
    let mut cursor = log.cursor(&id).await?.unwrap_or_default();
    let mut collected = Collected::default();
    let mut next = poll(collector, &cursor, troubles, stop).await?;
    while let Some(harvest) = next.take() {
        let wait = harvest.poll_again_in;
        // A file's next harvest is read and unpacked while this one is being synced to disk.
        let ahead = async {
            match wait {
                Some(Duration::ZERO) => poll(collector, &harvest.cursor, troubles, stop).await,
                _ => Ok(None),
            }
        };
        let (appended, ahead) = tokio::join!(append(engines, &harvest, &cursor, stop), ahead);
        let Some(appended) = appended? else { break };
        note(&harvest, &**clock);
        heard(&harvest, &appended);
        collected.add(&harvest);
        cursor = harvest.cursor.clone();
        next = match wait {
            None => None,
            Some(Duration::ZERO) => ahead?,
            Some(wait) => {
                tokio::select! {
                    () = tokio::time::sleep(wait) => poll(collector, &cursor, troubles, stop).await?,
                    () = stop.cancelled() => None,
                }
            }
        };
    }
    if stop.is_cancelled() {
        // What others handed in is not asked for again: it is logged before the end.
        while let Some(harvest) = collector.drain(&cursor).await? {
            append(engines, &harvest, &cursor, &CancellationToken::new()).await?;
            collected.add(&harvest);
            cursor = harvest.cursor;
        }
    }
    Ok(collected)
}

impl Collected {
    fn add(&mut self, harvest: &Harvest) {
        self.records += harvest.records.len() as u64;
        self.bytes += harvest.records.iter().map(|record| record.body.len() as u64).sum::<u64>();
    }
}

/// One harvest, after as many tries as it takes; none when stopped.
async fn poll(
    collector: &mut dyn Collector,
    cursor: &Cursor,
    troubles: &Troubles,
    stop: &CancellationToken,
) -> Result<Option<Harvest>> {
    let id = collector.id();
    let source = id.0.split('/').next().unwrap_or_default().to_owned();
    let mut backoff = BACKOFF_FIRST;
    let mut failures = 0_u64;
    loop {
        let polled = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(None),
            polled = collector.poll(cursor) => polled,
        };
        let error = match polled {
            Ok(harvest) => {
                if failures > 0 {
                    troubles.clear(&id.0);
                    info!(collector = %id, failures, "`{id}` answers again");
                }
                return Ok(Some(harvest));
            }
            Err(error) => error,
        };
        metric::COLLECTOR_ERRORS.add(&[&source, series(&id.0)], 1);
        let wait = match error.remedy() {
            Remedy::Retry => backoff,
            Remedy::RetryAfter(wait) => wait,
            Remedy::Change | Remedy::Stop => return Err(error),
        };
        failures += 1;
        troubles.note(&id.0, &error);
        warn!(collector = %id, failures, wait_ms = wait.as_millis() as u64, "`{id}`: {error}; asking again");
        tokio::select! {
            () = tokio::time::sleep(wait) => backoff = (backoff * 2).min(BACKOFF_MAX),
            () = stop.cancelled() => return Ok(None),
        }
    }
}

/// What was appended; none when stopped while the log took nothing.
async fn append(
    engines: &Engines,
    harvest: &Harvest,
    before: &Cursor,
    stop: &CancellationToken,
) -> Result<Option<Appended>> {
    let nothing_new = harvest.records.is_empty() && harvest.coverage.is_empty() && harvest.cursor == *before;
    if nothing_new {
        harvest.acknowledge.iter().for_each(Acknowledge::on_disk);
        return Ok(Some(Appended::default()));
    }
    let appended = until_done("log", &engines.troubles, stop, || engines.log.append(harvest)).await;
    match appended {
        Ok(appended) => {
            harvest.acknowledge.iter().for_each(Acknowledge::on_disk);
            Ok(Some(appended))
        }
        Err(error) if stop.is_cancelled() && error.remedy() != Remedy::Stop => Ok(None),
        Err(error) => {
            Err(Error::new(error.remedy(), format!("log a harvest of `{}`", harvest.collector)).because(error))
        }
    }
}

fn note(harvest: &Harvest, clock: &dyn Clock) {
    let labels = [harvest.source.0, harvest.collector.0.as_str()];
    let labels = [labels[0], series(labels[1])];
    metric::COLLECTED_RECORDS.add(&labels, harvest.records.len() as u64);
    metric::COLLECTED_BYTES.add(&labels, harvest.records.iter().map(|record| record.body.len() as u64).sum());
    metric::COLLECTOR_LAST_SUCCESS.set(&labels, clock.now().0 as f64 / 1e6);
    let missed = harvest.coverage.iter().filter(|line| line.kind == CoverageKind::Missed);
    let missed: u64 = missed.map(|line| line.records).sum();
    metric::COVERAGE_MISSED_RECORDS.add(&labels, missed);
}

/// The collector's name in metrics. Files come and go and feeds may be thousands: one series for all of them keeps the
/// number of series bounded.
fn series(collector: &str) -> &str {
    ["file", "feed"].into_iter().find(|kind| collector.split('/').nth(1) == Some(kind)).unwrap_or(collector)
}
