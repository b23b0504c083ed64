//! The collector of what is pushed: dnstap listeners and network interfaces, one collector each.
//!
//! | case | outcome |
//! | --- | --- |
//! | messages come | a harvest at least every 200 ms, sooner when 8,192 records or 8 MiB are there |
//! | the queue is full | as `dns.overload` says, see [`super::queue`]; what is lost is a line of coverage by reason |
//! | a socket or interface cannot be opened, or goes away | what is queued is harvested, then an error to retry |
//! | the program is asked to end | nothing new is taken, what is there is harvested: [`Collector::drain`] |
//! | the program was away | a line of coverage says from when to when, with no number: nobody counted |
//!
//! A message that was taken off its socket and not yet logged is lost when the process dies: at most what the queue
//! and two harvests hold. dnstap has no acknowledgement that could prevent it.
//!
//! **Ids.** A live message has no id of its own; the same bytes twice are two messages. Its id is
//! `START-PLACE-NUMBER`: when its collector was made, in hexadecimal microseconds since 1970; which of the settings'
//! listeners (`l0`, `l1`, …) or interfaces (`i0`, …) it is; and a counter from 1. No two runs start in the same
//! microsecond, so ids are unique; numbers that are missing were lost by name.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use contract::{
    Clock, Collector, CollectorId, Coverage, CoverageKind, Cursor, Error, Harvest, RecordId, Result, Timestamp,
};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::queue::{Queue, QueueSettings, Taken};
use super::recorder::Recorder;
use super::schema::SCHEMA;
use crate::Context;

/// How often a cursor and a line of coverage say that all was seen: the ledger grows by 1,440 lines a day.
const COVERAGE_MICROS: i64 = 60_000_000;

/// For what the kernel still holds when the program ends.
pub(super) const LAST_READ_WAIT: Duration = Duration::from_secs(1);

/// Where messages come from.
#[async_trait]
pub(super) trait Tap: Send + Sync {
    /// The last part of the collector's name, and how messages name it: `unix:/run/dnstap.sock`.
    fn name(&self) -> String;

    /// Opens it and has its messages handed to `intake` by tasks that end once `stop` changes.
    async fn open(&self, intake: &Arc<Intake>, stop: watch::Receiver<bool>) -> Result<JoinSet<Result<()>>>;
}

/// Makes records of messages and queues them; shared by all tasks of a collector.
pub(super) struct Intake {
    pub(super) collector: CollectorId,
    pub(super) queue: Queue,
    pub(super) clock: Arc<dyn Clock>,
    recorder: Mutex<Recorder>,
    id_prefix: String,
    numbered: AtomicU64,
}

impl Intake {
    /// Queues dnstap messages in their order, as the overload policy says.
    pub(super) async fn tapped(&self, frames: &mut Vec<Bytes>) {
        let fetched_at = self.clock.now();
        let records = {
            let mut recorder = self.recorder();
            let mut records = Vec::with_capacity(frames.len());
            for frame in frames.drain(..) {
                recorder.tapped(frame, fetched_at, &mut || self.next_id(), &mut records);
            }
            records
        };
        self.queue.push(records).await;
    }

    /// What pairs and hides; held for as long as a batch takes.
    pub(super) fn recorder(&self) -> MutexGuard<'_, Recorder> {
        // A table of waiting queries is worth using whatever happened to its last user.
        self.recorder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// See the module.
    pub(super) fn next_id(&self) -> RecordId {
        let number = self.numbered.fetch_add(1, Ordering::Relaxed) + 1;
        RecordId::from(format!("{}-{number}", self.id_prefix))
    }
}

/// Where the collector stands. Nothing is fetched anew by it; it says what was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Progress {
    /// Since when all was seen but the losses that were named, and no line of coverage says so yet.
    from: Timestamp,
    /// Until when.
    to: Timestamp,
    /// Records between them.
    records: u64,
}

/// See the module.
pub(super) struct LiveCollector {
    intake: Arc<Intake>,
    tap: Box<dyn Tap>,
    running: Option<Running>,
    /// Whether a harvest was handed out since the tap was opened; the first one tells of the time before.
    has_begun: bool,
}

struct Running {
    stop: watch::Sender<bool>,
    tasks: JoinSet<Result<()>>,
}

impl LiveCollector {
    /// A collector whose ids have `place`; it opens `tap` when it is polled first.
    pub(super) fn new(
        tap: Box<dyn Tap>,
        place: &str,
        queue: QueueSettings,
        recorder: Recorder,
        context: &Context,
    ) -> Self {
        let collector = CollectorId(format!("dns/{}", tap.name()));
        let intake = Intake {
            collector: collector.clone(),
            queue: Queue::new(collector, queue),
            clock: context.clock.clone(),
            recorder: Mutex::new(recorder),
            id_prefix: format!("{:x}-{place}", context.clock.now().0),
            numbered: AtomicU64::new(0),
        };
        Self { intake: Arc::new(intake), tap, running: None, has_begun: false }
    }

    async fn open(&mut self) -> Result<&mut Running> {
        let running = match self.running.take() {
            Some(running) => running,
            None => {
                let (stop, stopped) = watch::channel(false);
                let tasks = self.tap.open(&self.intake, stopped).await?;
                self.has_begun = false;
                Running { stop, tasks }
            }
        };
        Ok(self.running.insert(running))
    }

    fn harvest(&mut self, cursor: &Cursor) -> Result<Harvest> {
        let before = Progress::read(cursor, &self.intake.collector)?;
        let Taken { records, lost } = self.intake.queue.take();
        let now = self.intake.clock.now();
        let line = |kind, from, to, records, reason: String| {
            let (source, collector) = (SCHEMA.source.0.to_owned(), self.intake.collector.0.clone());
            Coverage { source, collector, kind, from, to, records, reason }
        };
        let covered = |seen: &Progress| {
            let reason = "all messages but those of the lines `missed`".to_owned();
            line(CoverageKind::Covered, seen.from, seen.to, seen.records, reason)
        };
        let mut coverage = Vec::new();
        let mut seen = match before {
            Some(seen) if self.has_begun => seen,
            Some(seen) => {
                coverage.extend((seen.records > 0).then(|| covered(&seen)));
                coverage.push(line(CoverageKind::Missed, seen.to, now, 0, "nobody listened".to_owned()));
                Progress { from: now, to: now, records: 0 }
            }
            None => Progress { from: now, to: now, records: 0 },
        };
        self.has_begun = true;
        seen.records += records.len() as u64;
        let is_news = !records.is_empty() || !lost.is_empty() || before.is_none();
        for loss in lost {
            let end = Timestamp(loss.to.0.saturating_add(1));
            coverage.push(line(CoverageKind::Missed, loss.from, end, loss.records, loss.reason.to_owned()));
        }
        let is_due = now.0.saturating_sub(seen.from.0) >= COVERAGE_MICROS;
        // A quiet minute is told too; between, a poll that brings nothing leaves the log alone.
        if is_news || is_due || !coverage.is_empty() {
            seen.to = now;
        }
        if is_due {
            coverage.push(covered(&seen));
            seen = Progress { from: now, to: now, records: 0 };
        }
        let next = serde_json::to_string(&seen).map_err(|error| Error::stop("write a cursor").because(error))?;
        Ok(Harvest {
            source: SCHEMA.source,
            collector: self.intake.collector.clone(),
            records,
            coverage,
            cursor: Cursor(next),
            poll_again_in: Some(Duration::ZERO),
            acknowledge: None,
        })
    }
}

#[async_trait]
impl Collector for LiveCollector {
    fn id(&self) -> CollectorId {
        self.intake.collector.clone()
    }

    async fn poll(&mut self, cursor: &Cursor) -> Result<Harvest> {
        let intake = self.intake.clone();
        let ended = {
            let running = self.open().await?;
            tokio::select! {
                ended = running.ended() => Some(ended),
                () = intake.queue.fill() => None,
            }
        };
        if let Some(ended) = ended {
            self.running = None;
            if intake.queue.is_empty() {
                return Err(ended);
            }
        }
        self.harvest(cursor)
    }

    async fn drain(&mut self, cursor: &Cursor) -> Result<Option<Harvest>> {
        let intake = self.intake.clone();
        if let Some(running) = &mut self.running {
            running.stop.send_replace(true);
            // Tasks may wait for room in the queue, which the harvest makes.
            let all_ended = async { while running.tasks.join_next().await.is_some() {} };
            let is_over = tokio::select! {
                biased;
                () = all_ended => true,
                () = intake.queue.fill() => false,
            };
            if is_over {
                self.running = None;
            }
        }
        if self.running.is_none() && intake.queue.is_empty() {
            return Ok(None);
        }
        self.harvest(cursor).map(Some)
    }
}

impl Running {
    /// Returns why, once nothing is listened to any more.
    async fn ended(&mut self) -> Error {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(Err(error))) => return error,
                Some(Ok(Ok(()))) => {}
                Some(Err(panic)) => return Error::stop("listen: a task failed").because(panic),
                None => return Error::retry("listen: all has ended"),
            }
        }
    }
}

impl Progress {
    fn read(cursor: &Cursor, collector: &CollectorId) -> Result<Option<Self>> {
        if cursor.0.is_empty() {
            return Ok(None);
        }
        let progress = serde_json::from_str(&cursor.0);
        progress.map(Some).map_err(|error| Error::stop(format!("read the cursor of `{collector}`")).because(error))
    }
}
