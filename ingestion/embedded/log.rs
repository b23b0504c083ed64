//! The log itself: [`contract::Log`] over a folder.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use contract::{
    Appended, Batch, Clock, CollectorId, Cursor, Error, Extent, Harvest, Log, Partition, Positions, Result, SourceId,
    Timestamp, Topic, metric,
};
use tokio::sync::{mpsc, oneshot};

use crate::check::{Check, check_all};
use crate::disk::{Disk, DiskFile, RealDisk};
use crate::encode::{INLINE_BYTES_MAX, Part, encode, encoding_threads, split};
use crate::frame::{Ends, Head};
use crate::hold::lock;
use crate::read::{check_asked, has_more, read};
use crate::record_batch::EncodedBatch;
use crate::recovery::{Folders, Opened, Recovery, recover};
use crate::segment;
use crate::settings::Settings;
use crate::shared::{Shared, State};
use crate::writer::{Append, Cursors, Job, Writer, create_segment};

/// Jobs that wait for the writer. Each appender has one at the most, and there are few appenders; each job holds
/// an encoded harvest.
const QUEUED_JOBS_MAX: usize = 16;

/// The durable log in one folder. Dropping it waits for the writes under way and gives the folder free.
pub struct EmbeddedLog {
    pub(crate) shared: Arc<Shared>,
    pub(crate) settings: Settings,
    pub(crate) clock: Arc<dyn Clock>,
    /// None when opened to read only.
    writing: Option<Writing>,
}

struct Writing {
    jobs: mpsc::Sender<Job>,
    thread: JoinHandle<()>,
    encoders: rayon::ThreadPool,
    /// Holds the folder as long as it lives.
    _lock: Option<File>,
}

impl EmbeddedLog {
    /// Opens the log in `folder`, which is created if it is not there, for `sources`. Blocks for the reading of the
    /// last segment: some tens of milliseconds. `Recovery` says what was damaged and what was done.
    ///
    /// # Errors
    /// `Change` when another process has the folder open, when a setting is out of its range, or when there are
    /// more partitions than the setting says; `Stop` when the disk fails.
    pub fn open(
        folder: &Path,
        sources: &[SourceId],
        settings: Settings,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, Recovery)> {
        let failed = |error| Error::stop(format!("open the log in `{}`", folder.display())).because(error);
        create_durably(folder).map_err(failed)?;
        let lock = lock(folder)?;
        Self::open_on(Arc::new(RealDisk), folder, sources, settings, clock, Some(lock))
    }

    /// Opens what is in `folder` as it stands now and changes nothing, whether or not a process is writing there:
    /// then the end that is just being written looks like one that was cut short. What is appended later is not seen.
    ///
    /// # Errors
    /// `Stop` when the disk fails.
    pub fn open_read_only(folder: &Path, clock: Arc<dyn Clock>) -> Result<(Self, Recovery)> {
        let settings = Settings::default();
        let folders = folders(folder);
        let mut opened = recover(&RealDisk, &folders, settings.index_interval_bytes, false)?;
        let active = opened.segments.pop().map_or_else(|| segment::Segment::new(0), Arc::unwrap_or_clone);
        let recovery = std::mem::take(&mut opened.recovery);
        let mut ends = opened.ends;
        ends.0.entry(Topic::coverage()).or_insert_with(|| vec![0]);
        let state = State { sealed: opened.segments, active, ends, cursors: opened.cursors };
        let shared = Arc::new(Shared::new(Arc::new(RealDisk), folders, false, state));
        Ok((Self { shared, settings, clock, writing: None }, recovery))
    }

    pub(crate) fn open_on(
        disk: Arc<dyn Disk>,
        folder: &Path,
        sources: &[SourceId],
        settings: Settings,
        clock: Arc<dyn Clock>,
        lock: Option<File>,
    ) -> Result<(Self, Recovery)> {
        let settings = settings.checked()?;
        let folders = folders(folder);
        let failed = |error| Error::stop(format!("open the log in `{}`", folder.display())).because(error);
        disk.create_folder(&folders.journal).map_err(failed)?;
        disk.sync_folder(folder).map_err(failed)?;
        let mut opened = recover(&*disk, &folders, settings.index_interval_bytes, true)?;
        let topics: Vec<Topic> =
            sources.iter().map(|&source| Topic::raw(source)).chain(settings.named_topics()).collect();
        add_topics(&mut opened.ends, &topics, settings.partitions)?;
        let mut recovery = std::mem::take(&mut opened.recovery);
        recovery.segments = recovery.segments.max(1);
        let (state, file) = begin(&*disk, &folders, opened, &settings, &*clock).map_err(failed)?;
        let shared = Arc::new(Shared::new(disk, folders, true, state));
        let mut writer = Writer::new(Arc::clone(&shared), settings.clone(), Arc::clone(&clock), file);
        writer.set_stored(|topic| *topic == Topic::coverage() || sources.iter().any(|id| *topic == Topic::raw(*id)));
        let (jobs, waiting) = mpsc::channel(QUEUED_JOBS_MAX);
        let thread = std::thread::Builder::new().name("log-writer".to_owned());
        let thread = thread.spawn(move || writer.run(waiting)).map_err(failed)?;
        let writing = Some(Writing { jobs, thread, encoders: encoding_threads()?, _lock: lock });
        Ok((Self { shared, settings, clock, writing }, recovery))
    }

    /// Reads every frame from disk and computes every checksum; reports what differs and changes nothing.
    ///
    /// # Errors
    /// `Stop` when a file cannot be read at all.
    pub async fn check(&self) -> Result<Check> {
        let shared = Arc::clone(&self.shared);
        blocking("check the log", move || check_all(&shared)).await
    }

    /// Appends batches, one at the most per partition, and what is noted with them, in one frame.
    pub(crate) async fn append_encoded(
        &self,
        batches: Vec<(Topic, Partition, EncodedBatch)>,
        cursors: Cursors,
        appended_at: Timestamp,
    ) -> Result<Appended> {
        self.ask("append to the log", |reply| Job::Append(Append { batches, cursors, appended_at, reply })).await
    }

    /// Adds a topic that no source has, with its partitions empty.
    pub(crate) async fn create_topic(&self, topic: &Topic, partitions: Partition) -> Result<()> {
        let topic = topic.clone();
        self.ask("create a topic", |reply| Job::CreateTopic { topic, partitions, reply }).await
    }

    async fn ask<T>(&self, doing: &str, job: impl FnOnce(oneshot::Sender<Result<T>>) -> Job) -> Result<T> {
        let writing = self.writing(doing)?;
        let (reply, answer) = oneshot::channel();
        writing.jobs.send(job(reply)).await.map_err(|_| gone(doing))?;
        answer.await.map_err(|_| gone(doing))?
    }

    /// The job is made by the threads that encode, and goes from there to the writer.
    async fn ask_encoded<T: Send + 'static>(
        &self,
        doing: &str,
        job: impl FnOnce(oneshot::Sender<Result<T>>) -> Job + Send + 'static,
    ) -> Result<T> {
        let writing = self.writing(doing)?;
        let (reply, answer) = oneshot::channel();
        let jobs = writing.jobs.clone();
        // If the writer is gone, so is the reply: that is how the appender hears of it.
        writing.encoders.spawn(move || drop(jobs.blocking_send(job(reply))));
        answer.await.map_err(|_| gone(doing))?
    }

    fn writing(&self, doing: &str) -> Result<&Writing> {
        let refused = || Error::change(format!("{doing}: this process has opened the log to read only"));
        self.writing.as_ref().ok_or_else(refused)
    }
}

#[async_trait]
impl Log for EmbeddedLog {
    async fn append(&self, harvest: &Harvest) -> Result<Appended> {
        self.shared.check_healthy("append to the log")?;
        let started = Instant::now();
        let topic = Topic::raw(harvest.source);
        let partitions = self.shared.state().ends.0.get(&topic).map_or(0, Vec::len) as Partition;
        if partitions == 0 {
            return Err(Error::change(format!(
                "append records of `{}`, which this log was not opened for",
                harvest.source
            )));
        }
        let appended_at = self.clock.now();
        let parts = split(harvest, partitions, appended_at)?;
        let is_small = parts.iter().map(Part::bytes).sum::<usize>() <= INLINE_BYTES_MAX;
        let cursor = (harvest.collector.clone(), harvest.cursor.clone());
        let compression = self.settings.compression;
        let job = move |reply| {
            let batches = encode(parts, appended_at, compression);
            Job::Append(Append { batches, cursors: Box::new(|_| vec![cursor]), appended_at, reply })
        };
        let appended = match is_small {
            true => self.ask("append to the log", job).await,
            false => self.ask_encoded("append to the log", job).await,
        }?;
        metric::LOG_APPEND_SECONDS.observe(&[], started.elapsed().as_secs_f64());
        Ok(appended)
    }

    async fn cursor(&self, collector: &CollectorId) -> Result<Option<Cursor>> {
        self.shared.check_healthy("read a cursor")?;
        Ok(self.shared.state().cursors.get(collector).cloned())
    }

    async fn cursors(&self, prefix: &str) -> Result<Vec<(CollectorId, Cursor)>> {
        self.shared.check_healthy("read cursors")?;
        let state = self.shared.state();
        let from = state.cursors.range(CollectorId(prefix.to_owned())..);
        let matching = from.take_while(|(collector, _)| collector.0.starts_with(prefix));
        Ok(matching.map(|(collector, cursor)| (collector.clone(), cursor.clone())).collect())
    }

    async fn read(&self, topic: &Topic, from: &Positions, body_bytes_max: usize, wait: Duration) -> Result<Batch> {
        let mut changed = self.shared.changed.subscribe();
        let waited = tokio::time::sleep(wait);
        tokio::pin!(waited);
        loop {
            self.shared.check_healthy("read the log")?;
            changed.borrow_and_update();
            check_asked(&self.shared, topic, from)?;
            if has_more(&self.shared, topic, from) {
                // Off the runtime: it reads files and unpacks some megabytes.
                let (shared, topic, from) = (Arc::clone(&self.shared), topic.clone(), from.clone());
                return blocking("read the log", move || read(&shared, &topic, &from, body_bytes_max)).await;
            }
            tokio::select! {
                () = &mut waited => return Ok(Batch { next: from.clone(), ..Batch::default() }),
                changed = changed.changed() => changed.expect("the sender lives in `self`"),
            }
        }
    }

    async fn extents(&self) -> Result<BTreeMap<Topic, Extent>> {
        self.shared.check_healthy("read the extents of the log")?;
        Ok(self.shared.state().extents())
    }

    async fn begin_after(&self, topic: &Topic, committed: &Positions) -> Result<()> {
        let (topic, committed) = (topic.clone(), committed.clone());
        self.ask("go on behind what the stores hold", |reply| Job::BeginAfter { topic, committed, reply }).await
    }

    async fn release(&self, topic: &Topic, positions: &Positions) -> Result<()> {
        let (topic, positions) = (topic.clone(), positions.clone());
        self.ask("release offsets of the log", |reply| Job::Release { topic, positions, reply }).await
    }
}

impl Drop for EmbeddedLog {
    fn drop(&mut self) {
        let Some(Writing { jobs, thread, encoders: _, _lock }) = self.writing.take() else { return };
        drop(jobs);
        if thread.join().is_err() {
            tracing::error!("the log's writer has panicked");
        }
    }
}

fn gone(doing: &str) -> Error {
    Error::stop(format!("{doing}: the log's writer has ended"))
}

async fn blocking<T: Send + 'static>(doing: &str, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::stop(doing).because(error))?
}

fn folders(folder: &Path) -> Folders {
    Folders { journal: folder.join("journal"), quarantine: folder.join("quarantine") }
}

/// Names the topics where they are new, and gives them the partitions they lack.
fn add_topics(ends: &mut Ends, topics: &[Topic], partitions: Partition) -> Result<()> {
    for topic in topics {
        let nexts = ends.0.entry(topic.clone()).or_default();
        if nexts.len() > partitions as usize {
            return Err(Error::change(format!(
                "open the log with `log.partitions = {partitions}` (`{topic}` has {} already, and they may only grow)",
                nexts.len()
            )));
        }
        nexts.resize(partitions as usize, 0);
    }
    ends.0.entry(Topic::coverage()).or_insert_with(|| vec![0]);
    Ok(())
}

/// The state to start with and the file to append to; a log that is empty gets its first segment.
fn begin(
    disk: &dyn Disk,
    folders: &Folders,
    mut opened: Opened,
    settings: &Settings,
    clock: &dyn Clock,
) -> std::io::Result<(State, Box<dyn DiskFile>)> {
    let (file, active) = match opened.segments.pop() {
        Some(last) => {
            let path = folders.journal.join(segment::log_name(last.first_sequence));
            (disk.open_to_append(&path)?, Arc::unwrap_or_clone(last))
        }
        None => {
            let head = Head {
                sequence: 0,
                durable_below: 0,
                appended_at: clock.now(),
                is_snapshot: true,
                before: opened.ends.clone(),
                batches: Vec::new(),
                cursors: Vec::new(),
            };
            create_segment(disk, &folders.journal, &head, settings.index_interval_bytes)?
        }
    };
    Ok((State { sealed: opened.segments, active, ends: opened.ends, cursors: opened.cursors }, file))
}

/// Creates a folder and the folders above it, so that a crash does not take it away with all it will hold.
pub(crate) fn create_durably(folder: &Path) -> std::io::Result<()> {
    let is_missing = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
    let missing: Vec<&Path> = folder.ancestors().take_while(is_missing).collect();
    std::fs::create_dir_all(folder)?;
    for created in missing {
        let parent = created.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        RealDisk.sync_folder(parent)?;
    }
    Ok(())
}
