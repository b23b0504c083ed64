//! The loop around a collector: poll, append, again; the clock, the backoff and the metrics are here.
//!
//! | `stop` is said while | what happens |
//! | --- | --- |
//! | a poll or a pause goes on | it is given up: nothing was brought yet |
//! | the log takes no harvest, which a poll brought | it is offered until the deadline, since it may be of what is told once |
//! | others' records wait in the collector | they are logged too; how many are not in the log by the deadline is said |

use std::time::Duration;

use contract::{Acknowledge, Appended, Collector, CoverageKind, Cursor, Harvest, Remedy, Result, metric};
use contract::{Clock, Error};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::Engines;
use crate::retry::until_done;

/// The longest wait after failed polls; a source that is back is asked within this time.
const BACKOFF_MAX: Duration = Duration::from_secs(15 * 60);
const BACKOFF_FIRST: Duration = Duration::from_secs(1);

/// How long the log may take for what is held when the program is asked to end: `docker stop` kills after 10 s.
const DRAIN_MAX: Duration = Duration::from_secs(8);

/// What a collector brought until it ended or was stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Records appended to the log.
    pub records: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// Whether it has no more; else it was stopped before.
    pub ended: bool,
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
    let Engines { log, troubles, .. } = engines;
    let id = collector.id();
    let mut cursor = until_done("log", troubles, stop, || log.cursor(&id)).await?.unwrap_or_default();
    let mut collected = Collected::default();
    let mut held = Vec::new();
    let mut next = poll(collector, &cursor, engines, true, stop).await?;
    while let Some(harvest) = next.take() {
        let wait = harvest.poll_again_in;
        let (is_logged, ahead) = {
            let appended = append(engines, &harvest, &cursor, stop);
            // A file's next harvest is read and unpacked while this one is being synced to disk.
            let ahead = poll(collector, &harvest.cursor, engines, false, stop);
            tokio::pin!(appended, ahead);
            let (appended, early) = match wait {
                Some(Duration::ZERO) => tokio::select! {
                    appended = &mut appended => (appended?, None),
                    polled = &mut ahead => (appended.await?, Some(polled)),
                },
                _ => (appended.await?, None),
            };
            // What is logged is told now: the next poll may wait for as long as nothing happens.
            if let Some(appended) = &appended {
                note(&harvest, &*engines.clock);
                heard(&harvest, appended);
                collected.add(&harvest);
            }
            let ahead = match (wait, early) {
                (Some(Duration::ZERO), None) => ahead.await?,
                (_, early) => early.transpose()?.flatten(),
            };
            (appended.is_some(), ahead)
        };
        if !is_logged {
            held.push(harvest);
            held.extend(ahead);
            break;
        }
        cursor = harvest.cursor;
        collected.ended = wait.is_none();
        next = match wait {
            Some(wait) if !wait.is_zero() => {
                tokio::select! {
                    () = tokio::time::sleep(wait) => poll(collector, &cursor, engines, true, stop).await?,
                    () = stop.cancelled() => None,
                }
            }
            _ => ahead,
        };
    }
    if stop.is_cancelled() {
        drain(collector, engines, cursor, held, |harvest, appended| {
            heard(harvest, appended);
            collected.add(harvest);
        })
        .await?;
    }
    Ok(collected)
}

/// Logs what was brought and not logged, and what others handed in: neither is asked for again.
async fn drain(
    collector: &mut dyn Collector,
    engines: &Engines,
    mut cursor: Cursor,
    held: Vec<Harvest>,
    mut heard: impl FnMut(&Harvest, &Appended),
) -> Result<()> {
    let deadline = tokio::time::Instant::now() + DRAIN_MAX;
    let never = CancellationToken::new();
    let mut brought = held.last().map_or_else(|| cursor.clone(), |harvest| harvest.cursor.clone());
    let mut held = held.into_iter();
    let mut left_out = 0;
    loop {
        let next = match held.next() {
            Some(harvest) => Some(harvest),
            None => collector.drain(&brought).await?,
        };
        let Some(harvest) = next else { break };
        brought = harvest.cursor.clone();
        match tokio::time::timeout_at(deadline, append(engines, &harvest, &cursor, &never)).await {
            Ok(appended) => {
                note(&harvest, &*engines.clock);
                heard(&harvest, &appended?.unwrap_or_default());
                cursor = harvest.cursor;
            }
            Err(_) => left_out += harvest.records.len() as u64,
        }
    }
    if left_out > 0 {
        let id = collector.id();
        let seconds = DRAIN_MAX.as_secs();
        warn!(collector = %id, left_out, "`{id}`: {left_out} records were not logged within {seconds} s; what is sent once is lost");
    }
    Ok(())
}

impl Collected {
    fn add(&mut self, harvest: &Harvest) {
        self.records += harvest.records.len() as u64;
        self.bytes += harvest.records.iter().map(|record| record.body.len() as u64).sum::<u64>();
    }
}

/// One harvest, after as many tries as it takes; none when stopped. `is_logged` says that the cursor is in the log: what a
/// failed poll learned must not overtake the records before it.
async fn poll(
    collector: &mut dyn Collector,
    cursor: &Cursor,
    engines: &Engines,
    is_logged: bool,
    stop: &CancellationToken,
) -> Result<Option<Harvest>> {
    let (id, troubles) = (collector.id(), &engines.troubles);
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
        if let Some(learned) = collector.learned().filter(|_| is_logged) {
            append(engines, &learned, cursor, stop).await?;
        }
        warn!(collector = %id, failures, wait_ms = wait.as_millis() as u64, "`{id}`: {error}; asking again");
        tokio::select! {
            () = tokio::time::sleep(wait) => backoff = (backoff * 2).min(BACKOFF_MAX),
            () = stop.cancelled() => return Ok(None),
        }
    }
}

/// Appends a harvest, after as many tries as it takes: what was appended; none when stopped while the log took nothing.
///
/// # Errors
/// Of the log, where trying again cannot mend them.
pub async fn append(
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
    metric::COLLECTOR_INTERVAL.set(&labels, harvest.poll_again_in.unwrap_or_default().as_secs_f64());
    let missed = harvest.coverage.iter().filter(|line| line.kind == CoverageKind::Missed);
    let missed: u64 = missed.map(|line| line.records).sum();
    metric::COVERAGE_MISSED_RECORDS.add(&labels, missed);
}

/// The collector's name in metrics. Files come and go and feeds may be thousands: one series for all of them keeps the
/// number of series bounded.
fn series(collector: &str) -> &str {
    ["file", "feed"].into_iter().find(|kind| collector.split('/').nth(1) == Some(kind)).unwrap_or(collector)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use async_trait::async_trait;
    use contract::{Batch, CollectorId, Extent, Log, Positions, SystemClock, Topic};
    use tokio::sync::mpsc;

    use super::*;
    use crate::memory::{MemoryLog, MemoryStore, SOURCE, record};

    /// A log that can be full.
    struct Capped {
        log: Arc<MemoryLog>,
        is_full: AtomicBool,
        is_broken: AtomicBool,
        cursors: std::sync::Mutex<Vec<Cursor>>,
    }

    impl Default for Capped {
        fn default() -> Self {
            let (is_full, is_broken, cursors) = Default::default();
            Self { log: MemoryLog::of(1), is_full, is_broken, cursors }
        }
    }

    #[async_trait]
    impl Log for Capped {
        async fn append(&self, harvest: &Harvest) -> Result<Appended> {
            if self.is_broken.load(Ordering::Relaxed) {
                return Err(Error::stop("sync the log"));
            }
            if self.is_full.load(Ordering::Relaxed) {
                return Err(Error::retry("append: the log is full"));
            }
            self.cursors.lock().unwrap().push(harvest.cursor.clone());
            self.log.append(harvest).await
        }
        async fn cursor(&self, collector: &CollectorId) -> Result<Option<Cursor>> {
            self.log.cursor(collector).await
        }
        async fn cursors(&self, prefix: &str) -> Result<Vec<(CollectorId, Cursor)>> {
            self.log.cursors(prefix).await
        }
        async fn read(&self, topic: &Topic, from: &Positions, bytes_max: usize, wait: Duration) -> Result<Batch> {
            self.log.read(topic, from, bytes_max, wait).await
        }
        async fn extents(&self) -> Result<std::collections::BTreeMap<Topic, Extent>> {
            self.log.extents().await
        }
        async fn begin_after(&self, topic: &Topic, committed: &Positions) -> Result<()> {
            self.log.begin_after(topic, committed).await
        }
        async fn release(&self, topic: &Topic, positions: &Positions) -> Result<()> {
            self.log.release(topic, positions).await
        }
    }

    /// Answers what was pushed, and then waits; drains the rest.
    #[derive(Default)]
    struct Pushed {
        now: VecDeque<&'static str>,
        at_the_end: VecDeque<&'static str>,
    }

    fn harvest(id: &str) -> Harvest {
        Harvest {
            source: SOURCE,
            collector: CollectorId("made/pushed".to_owned()),
            records: vec![record(id, 1, id)],
            coverage: Vec::new(),
            cursor: Cursor(id.to_owned()),
            poll_again_in: Some(Duration::ZERO),
            acknowledge: None,
        }
    }

    #[async_trait]
    impl Collector for Pushed {
        fn id(&self) -> CollectorId {
            CollectorId("made/pushed".to_owned())
        }
        async fn poll(&mut self, _: &Cursor) -> Result<Harvest> {
            match self.now.pop_front() {
                Some(id) => Ok(harvest(id)),
                None => std::future::pending().await,
            }
        }
        async fn drain(&mut self, _: &Cursor) -> Result<Option<Harvest>> {
            Ok(self.at_the_end.pop_front().map(harvest))
        }
    }

    fn engines(log: &Arc<Capped>) -> Engines {
        let [hot, cold] = [MemoryStore::new("hot"), MemoryStore::new("cold")];
        Engines { log: log.clone(), hot, cold, clock: Arc::new(SystemClock), group: None, troubles: Arc::default() }
    }

    async fn logged(log: &Capped) -> Vec<String> {
        let at = Positions([(0, 0)].into());
        let batch = log.read(&Topic::raw(SOURCE), &at, 1, Duration::ZERO).await.unwrap();
        batch.records.iter().map(|at| at.record.id.to_string()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_harvest_is_told_once_it_is_logged_though_the_next_poll_waits() {
        let (log, stop) = (Arc::<Capped>::default(), CancellationToken::new());
        let mut collector = Pushed { now: ["a"].into(), ..Pushed::default() };
        let (told, mut heard) = mpsc::channel(1);
        let engines = engines(&log);
        let tell = |harvest: &Harvest, _: &Appended| told.try_send(harvest.cursor.clone()).unwrap();
        let running = collect(&mut collector, &engines, &stop, tell);
        let heard = async {
            let first = tokio::time::timeout(Duration::from_secs(1), heard.recv()).await;
            stop.cancel();
            first
        };
        let (collected, heard) = tokio::join!(running, heard);
        assert_eq!(heard.expect("at once"), Some(Cursor("a".to_owned())));
        assert_eq!(collected.unwrap(), Collected { records: 1, bytes: 1, ended: false });
    }

    /// Fails at first, and learns why; all but the first time from a cursor that is not logged yet.
    struct Learning(u32);

    #[async_trait]
    impl Collector for Learning {
        fn id(&self) -> CollectorId {
            CollectorId("made/pushed".to_owned())
        }
        async fn poll(&mut self, cursor: &Cursor) -> Result<Harvest> {
            self.0 += 1;
            match self.0 {
                1 | 3 => Err(Error::retry(format!("poll after `{}`", cursor.0))),
                2 => Ok(harvest("a")),
                _ => std::future::pending().await,
            }
        }
        fn learned(&mut self) -> Option<Harvest> {
            Some(Harvest { records: Vec::new(), ..harvest(&format!("failure {}", self.0)) })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_failed_poll_learned_is_logged_unless_records_before_it_may_not_be() {
        let (log, stop) = (Arc::<Capped>::default(), CancellationToken::new());
        let (mut collector, engines) = (Learning(0), engines(&log));
        let cursors = || log.cursors.lock().unwrap().iter().map(|cursor| cursor.0.clone()).collect::<Vec<_>>();
        let watch = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let before_the_next = cursors();
            tokio::time::sleep(Duration::from_secs(600)).await;
            stop.cancel();
            before_the_next
        };
        let (collected, before_the_next) = tokio::join!(collect(&mut collector, &engines, &stop, |_, _| {}), watch);
        assert_eq!((before_the_next, collected.unwrap().records), (vec!["failure 1".to_owned()], 1));
        assert_eq!(cursors(), ["failure 1", "a"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_log_that_fails_ends_the_loop_though_the_next_poll_waits() {
        let log = Arc::<Capped>::default();
        log.is_broken.store(true, Ordering::Relaxed);
        let mut collector = Pushed { now: ["a"].into(), ..Pushed::default() };
        let (engines, stop) = (engines(&log), CancellationToken::new());
        let running = collect(&mut collector, &engines, &stop, |_, _| {});
        let ended = tokio::time::timeout(Duration::from_secs(1), running).await.expect("at once");
        assert_eq!(ended.unwrap_err().remedy(), Remedy::Stop);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_log_holds_up_the_end_for_a_while_and_not_for_ever() {
        let (log, stop) = (Arc::<Capped>::default(), CancellationToken::new());
        log.is_full.store(true, Ordering::Relaxed);
        stop.cancel();
        let mut collector = Pushed { at_the_end: ["a", "b"].into(), ..Pushed::default() };
        let started = tokio::time::Instant::now();
        let collected = collect(&mut collector, &engines(&log), &stop, |_, _| {}).await.unwrap();
        assert_eq!((collected.records, started.elapsed()), (0, DRAIN_MAX));
        assert!(collector.at_the_end.is_empty(), "whoever waits for them is let go");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_brought_is_offered_again_at_the_end() {
        let (log, stop) = (Arc::<Capped>::default(), CancellationToken::new());
        log.is_full.store(true, Ordering::Relaxed);
        let mut collector = Pushed { now: ["a", "b"].into(), at_the_end: ["c"].into() };
        let engines = engines(&log);
        let free = async {
            tokio::time::sleep(Duration::from_secs(60)).await;
            stop.cancel();
            tokio::time::sleep(Duration::from_secs(2)).await;
            log.is_full.store(false, Ordering::Relaxed);
        };
        let (collected, ()) = tokio::join!(collect(&mut collector, &engines, &stop, |_, _| {}), free);
        assert_eq!(collected.unwrap().records, 3);
        assert_eq!(logged(&log).await, ["a", "b", "c"]);
    }
}
