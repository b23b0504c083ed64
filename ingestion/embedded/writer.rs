//! The one thread that writes: it gathers the appends that wait, gives them their offsets, writes them with one
//! fdatasync, and removes old segments.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use contract::{
    Appended, Clock, CollectorId, Cursor, Error, Offset, OffsetRange, Partition, Positions, Remedy, Result, Timestamp,
    Topic, metric,
};
use tokio::sync::{mpsc, oneshot};

use crate::disk::{Disk, DiskFile, is_full, write_whole};
use crate::frame::{Batch, Ends, Head};
use crate::record_batch::EncodedBatch;
use crate::segment::{self, Segment};
use crate::settings::Settings;
use crate::shared::Shared;

/// Appends that are written with one fdatasync at the most, and so bytes that a crash can leave half written.
const GROUP_BYTES_MAX: u64 = 32 << 20;

/// What the writer is asked to do.
pub(crate) enum Job {
    Append(Append),
    BeginAfter { topic: Topic, committed: Positions, reply: oneshot::Sender<Result<()>> },
    Release { topic: Topic, positions: Positions, reply: oneshot::Sender<Result<()>> },
    CreateTopic { topic: Topic, partitions: Partition, reply: oneshot::Sender<Result<()>> },
}

/// Says what an append notes, given where its batches stand.
pub(crate) type Cursors = Box<dyn FnOnce(&[Batch]) -> Vec<(CollectorId, Cursor)> + Send>;

/// An encoded harvest.
pub(crate) struct Append {
    /// One at the most per partition.
    pub(crate) batches: Vec<(Topic, Partition, EncodedBatch)>,
    /// What is noted in the same frame, once the offsets are known.
    pub(crate) cursors: Cursors,
    pub(crate) appended_at: Timestamp,
    pub(crate) reply: oneshot::Sender<Result<Appended>>,
}

/// An append with its place in the journal.
struct Placed {
    head: Head,
    head_bytes: Vec<u8>,
    batches: Vec<EncodedBatch>,
    reply: oneshot::Sender<Result<Appended>>,
}

/// An error that several appenders are told.
#[derive(Clone)]
struct Refusal {
    remedy: Remedy,
    doing: String,
}

pub(crate) struct Writer {
    shared: Arc<Shared>,
    settings: Settings,
    clock: Arc<dyn Clock>,
    file: Box<dyn DiskFile>,
    next_sequence: u64,
    /// Where the next records go; ahead of the shared state only during a commit.
    ends: Ends,
    released: Ends,
    /// Whether a frame was appended that no later one proves to be on stable storage.
    is_unproven: bool,
    is_full: bool,
}

impl Writer {
    /// Goes on at the end of the active segment, which `file` is.
    pub(crate) fn new(shared: Arc<Shared>, settings: Settings, clock: Arc<dyn Clock>, file: Box<dyn DiskFile>) -> Self {
        let (next_sequence, ends) = {
            let state = shared.state();
            (state.active.next_sequence, state.ends.clone())
        };
        let mut released = ends.clone();
        released.0.values_mut().flatten().for_each(|next| *next = 0);
        Self { shared, settings, clock, file, next_sequence, ends, released, is_unproven: false, is_full: false }
    }

    /// Says which topics the stores read. What others hold goes by its age alone.
    pub(crate) fn set_stored(&mut self, is_stored: impl Fn(&Topic) -> bool) {
        let others = self.released.0.iter_mut().filter(|(topic, _)| !is_stored(topic));
        others.flat_map(|(_, nexts)| nexts).for_each(|next| *next = Offset::MAX);
    }

    /// Works until no sender is left.
    pub(crate) fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        self.tell_bytes();
        metric::LOG_FULL.set(&[], 0.0);
        let mut held = None;
        while let Some(job) = held.take().or_else(|| jobs.blocking_recv()) {
            match job {
                Job::BeginAfter { topic, committed, reply } => {
                    let answer = self.begin_after(&topic, &committed);
                    send(reply, answer);
                }
                Job::Release { topic, positions, reply } => {
                    let answer = self.release(&topic, &positions);
                    send(reply, answer);
                }
                Job::CreateTopic { topic, partitions, reply } => self.create_topic(topic, partitions, reply),
                Job::Append(first) => {
                    let mut bytes = first.bytes();
                    let mut group = vec![first];
                    while bytes < GROUP_BYTES_MAX {
                        match jobs.try_recv() {
                            Ok(Job::Append(append)) => {
                                bytes += append.bytes();
                                group.push(append);
                            }
                            Ok(other) => {
                                held = Some(other);
                                break;
                            }
                            Err(_) => break,
                        }
                    }
                    self.append(group, bytes);
                }
            }
        }
        self.close();
    }

    /// Every frame names all topics, so an empty one is enough to keep a new topic.
    fn create_topic(&mut self, topic: Topic, partitions: Partition, reply: oneshot::Sender<Result<()>>) {
        self.ends.0.entry(topic.clone()).or_insert_with(|| vec![0; partitions as usize]);
        self.released.0.insert(topic, vec![Offset::MAX; partitions as usize]);
        let (written, answer) = oneshot::channel();
        let appended_at = self.clock.now();
        self.append(
            vec![Append { batches: Vec::new(), cursors: Box::new(|_| Vec::new()), appended_at, reply: written }],
            0,
        );
        let answer = answer.blocking_recv().expect("every append is answered");
        send(reply, answer.map(|_| ()));
    }

    fn append(&mut self, group: Vec<Append>, bytes: u64) {
        if let Err(refusal) = self.make_room(bytes) {
            return refuse(group.into_iter().map(|append| append.reply), &refusal);
        }
        let durable_below = self.next_sequence;
        let ends_before = self.ends.clone();
        let placed: Vec<Placed> = group.into_iter().map(|append| self.place(append, durable_below)).collect();
        let position = self.shared.state().active.length;
        if let Err(error) = self.write(&placed) {
            // Nothing was synced yet, so after cutting the file back it holds what it held before.
            if is_full(&error) && self.file.truncate(position).is_ok() {
                self.ends = ends_before;
                self.next_sequence = durable_below;
                let refusal = self.disk_is_full(&error);
                return refuse(placed.into_iter().map(|placed| placed.reply), &refusal);
            }
            let refusal = self.broken("write to the log", &error);
            return refuse(placed.into_iter().map(|placed| placed.reply), &refusal);
        }
        if let Err(error) = self.file.sync() {
            let refusal = self.broken("sync the log", &error);
            return refuse(placed.into_iter().map(|placed| placed.reply), &refusal);
        }
        self.publish(placed);
        self.is_unproven = true;
        self.tell_full(false);
    }

    fn write(&mut self, placed: &[Placed]) -> io::Result<()> {
        let mut parts: Vec<&[u8]> = Vec::new();
        for placed in placed {
            parts.push(&placed.head_bytes);
            parts.extend(placed.batches.iter().map(|batch| &batch.bytes[..]));
        }
        self.file.append(&parts)
    }

    /// Gives an append its number and its offsets.
    fn place(&mut self, append: Append, durable_below: u64) -> Placed {
        let before = self.ends.clone();
        let mut batches = Vec::with_capacity(append.batches.len());
        let mut encoded = Vec::with_capacity(append.batches.len());
        for (topic, partition, mut batch) in append.batches {
            let base_offset = before.of(&topic, partition);
            batch.set_base_offset(base_offset);
            let bytes = u32::try_from(batch.bytes.len()).expect("bounded by the size of a frame");
            let (records, section_bytes, crc) = (batch.records, batch.section_bytes, batch.crc);
            let place = Batch { topic, partition, base_offset, records, bytes, section_bytes, crc };
            self.ends.set(&place.topic, partition, place.end());
            batches.push(place);
            encoded.push(batch);
        }
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let appended_at = append.appended_at;
        let cursors = (append.cursors)(&batches);
        let head = Head { sequence, durable_below, appended_at, is_snapshot: false, before, batches, cursors };
        Placed { head_bytes: head.to_bytes(), head, batches: encoded, reply: append.reply }
    }

    /// Shows readers what is on stable storage now, and answers the appenders.
    fn publish(&mut self, placed: Vec<Placed>) {
        let mut answers = Vec::with_capacity(placed.len());
        {
            let mut state = self.shared.state_mut();
            for Placed { head, head_bytes, batches, reply } in placed {
                let bytes = (head_bytes.len() + batches.iter().map(|batch| batch.bytes.len()).sum::<usize>()) as u64;
                let position = state.active.length;
                state.active.take(position, bytes, &head, self.settings.index_interval_bytes);
                let ranges = head.batches.iter().filter(|batch| batch.topic != Topic::coverage());
                let ranges = ranges
                    .map(|batch| OffsetRange { partition: batch.partition, from: batch.base_offset, to: batch.end() })
                    .collect();
                state.take_cursors(head.cursors);
                answers.push((reply, Appended { ranges, bytes }));
            }
            state.ends.clone_from(&self.ends);
        }
        self.shared.changed.send_modify(|version| *version += 1);
        self.tell_bytes();
        answers.into_iter().for_each(|(reply, appended)| send(reply, Ok(appended)));
    }

    /// Begins a new segment when the active one is full, and refuses when the disk cap is reached.
    fn make_room(&mut self, bytes: u64) -> Result<(), Refusal> {
        if let Some(reason) = self.shared.broken() {
            let doing = format!("append to the log: {reason}");
            return Err(Refusal { remedy: Remedy::Stop, doing });
        }
        let disk_bytes_max = self.settings.disk_bytes_max;
        if self.shared.state().bytes() + bytes > disk_bytes_max {
            self.retain(bytes)?;
            let total = self.shared.state().bytes();
            if total + bytes > disk_bytes_max {
                self.tell_full(true);
                let doing = format!(
                    "append {bytes} bytes to the log: it holds {total} of `log.disk_bytes_max = {disk_bytes_max}`, \
                     and the stores have not yet committed what could go"
                );
                return Err(Refusal { remedy: Remedy::Retry, doing });
            }
        }
        let is_filled = {
            let state = self.shared.state();
            let appended = state.active.length - state.active.base_length;
            state.active.has_appends() && appended + bytes > self.settings.segment_bytes_max
        };
        if is_filled {
            self.roll()?;
            self.retain(0)?;
        }
        Ok(())
    }

    /// Goes on behind what the stores hold, where the log ends before that: its end was lost, or it was begun anew.
    fn begin_after(&mut self, topic: &Topic, committed: &Positions) -> Result<()> {
        self.check_partitions("go on behind", topic, committed)?;
        if self.ends_of(topic).reaches(committed) {
            return Ok(());
        }
        let ends = self.ends_of(topic);
        tracing::error!(%topic, ?ends, ?committed, "the log ends before what the stores hold; it goes on behind that");
        let is_empty = {
            let state = self.shared.state();
            state.sealed.is_empty() && !state.active.has_appends()
        };
        if is_empty {
            // Nothing is missed of what every store has: a log without records begins there.
            let released = Positions(committed.0.keys().map(|&p| (p, self.released.of(topic, p))).collect());
            self.advance(topic, &released.min(committed));
            self.roll()?;
            let unused = self.shared.state().sealed.first().cloned().expect("it was just sealed");
            self.remove_oldest(&unused)?;
        }
        self.advance(topic, committed);
        Ok(())
    }

    fn advance(&mut self, topic: &Topic, to: &Positions) {
        for (&partition, &next) in &to.0 {
            if next > self.ends.of(topic, partition) {
                self.ends.set(topic, partition, next);
            }
        }
        self.shared.state_mut().ends.clone_from(&self.ends);
    }

    fn ends_of(&self, topic: &Topic) -> Positions {
        Positions((0..).zip(self.ends.0.get(topic).into_iter().flatten().copied()).collect())
    }

    fn check_partitions(&self, doing: &str, topic: &Topic, positions: &Positions) -> Result<()> {
        self.shared.check_healthy(&format!("{doing} offsets of the log"))?;
        let partitions = self.ends.0.get(topic).map_or(0, Vec::len) as Partition;
        match positions.0.keys().find(|&&partition| !(0..partitions).contains(&partition)) {
            Some(unknown) => {
                Err(Error::change(format!("{doing} partition {unknown} of `{topic}` (it has {partitions})")))
            }
            None => Ok(()),
        }
    }

    /// Takes note of what every store has committed, and removes what may go.
    fn release(&mut self, topic: &Topic, positions: &Positions) -> Result<()> {
        self.check_partitions("release", topic, positions)?;
        for (&partition, &next) in &positions.0 {
            if next > self.released.of(topic, partition) {
                self.released.set(topic, partition, next);
            }
        }
        Ok(self.retain(0)?)
    }

    /// Removes the oldest segments as long as all they hold is released and they are too old or too much.
    /// Under the disk cap (`wanted` bytes are to be added) being released is enough.
    fn retain(&mut self, wanted: u64) -> Result<(), Refusal> {
        let now = self.clock.now();
        let retention = Duration::from_secs(self.settings.retention_hours.saturating_mul(3_600));
        let (bytes_max, disk_bytes_max) = (self.settings.retention_bytes, self.settings.disk_bytes_max);
        let is_due = move |segment: &Segment, total: u64| {
            total > bytes_max || total + wanted > disk_bytes_max || now.since(segment.appended_until) > retention
        };
        let active_may_go = {
            let state = self.shared.state();
            let active = &state.active;
            active.has_appends() && active.is_below(&self.released) && is_due(active, state.bytes())
        };
        if active_may_go {
            self.roll()?;
        }
        loop {
            let oldest = {
                let state = self.shared.state();
                let total = state.bytes();
                state.sealed.first().filter(|s| s.is_below(&self.released) && is_due(s, total)).cloned()
            };
            let Some(oldest) = oldest else { return Ok(()) };
            self.remove_oldest(&oldest)?;
        }
    }

    /// The segment leaves the state first, so that no reader looks for a file that is gone. Its index goes last and
    /// the folder is synced before the next segment goes: a crash leaves an index without a segment, which opening
    /// clears away, but never a hole between segments.
    fn remove_oldest(&mut self, oldest: &Segment) -> Result<(), Refusal> {
        let shared = Arc::clone(&self.shared);
        shared.state_mut().sealed.remove(0);
        let journal = &shared.folders.journal;
        let log_name = segment::log_name(oldest.first_sequence);
        let removed = shared
            .disk
            .remove(&journal.join(&log_name))
            .and_then(|()| shared.disk.remove(&journal.join(segment::index_name(oldest.first_sequence))))
            .and_then(|()| shared.disk.sync_folder(journal));
        removed.map_err(|error| self.broken("remove a segment of the log", &error))?;
        tracing::info!(segment = log_name, "removed a segment of the log: every store holds it");
        self.tell_bytes();
        Ok(())
    }

    /// Seals the active segment and begins the next.
    fn roll(&mut self) -> Result<(), Refusal> {
        let shared = Arc::clone(&self.shared);
        let (sequence, index) = {
            let state = shared.state();
            (state.active.first_sequence, state.active.to_bytes())
        };
        let written = write_whole(&*shared.disk, &shared.folders.journal, &segment::index_name(sequence), &index);
        written.map_err(|error| self.not_rolled("write the index of a log segment", &error))?;
        let head = Head {
            is_snapshot: true,
            cursors: shared.state().cursors.clone().into_iter().collect(),
            ..self.empty_head()
        };
        let interval = self.settings.index_interval_bytes;
        let created = create_segment(&*shared.disk, &shared.folders.journal, &head, interval);
        let (file, active) = created.map_err(|error| self.not_rolled("begin a log segment", &error))?;
        self.file = file;
        self.next_sequence = active.next_sequence;
        self.is_unproven = false; // the next segment proves it
        let mut state = shared.state_mut();
        let sealed = std::mem::replace(&mut state.active, active);
        state.sealed.push(Arc::new(sealed));
        Ok(())
    }

    /// Proves by an empty frame that the last appends were on stable storage: should they be damaged while the
    /// log is closed, they are not taken for a commit that never ended.
    fn close(mut self) {
        if !self.is_unproven || self.shared.check_healthy("close the log").is_err() {
            return;
        }
        let head = self.empty_head();
        if let Err(error) = self.file.append(&[&head.to_bytes()]).and_then(|()| self.file.sync()) {
            tracing::warn!(%error, "the log could not write its closing frame; nothing is lost by that");
        }
    }

    fn empty_head(&self) -> Head {
        Head {
            sequence: self.next_sequence,
            durable_below: self.next_sequence,
            appended_at: self.clock.now(),
            is_snapshot: false,
            before: self.ends.clone(),
            batches: Vec::new(),
            cursors: Vec::new(),
        }
    }

    /// A full disk leaves a file that nothing was told of; the next try begins it again.
    fn not_rolled(&mut self, doing: &str, error: &io::Error) -> Refusal {
        if is_full(error) { self.disk_is_full(error) } else { self.broken(doing, error) }
    }

    /// Makes room for the next try, if every store has what the oldest segment holds, however young it is.
    fn disk_is_full(&mut self, error: &io::Error) -> Refusal {
        self.tell_full(true);
        let oldest = self.shared.state().sealed.first().filter(|s| s.is_below(&self.released)).cloned();
        if let Some(oldest) = oldest
            && let Err(refusal) = self.remove_oldest(&oldest)
        {
            return refusal;
        }
        Refusal { remedy: Remedy::Retry, doing: format!("append to the log: the disk is full: {error}") }
    }

    fn broken(&self, doing: &str, error: &io::Error) -> Refusal {
        let doing = format!("{doing}: {error}");
        self.shared.break_down(&doing);
        Refusal { remedy: Remedy::Stop, doing }
    }

    fn tell_full(&mut self, is_full: bool) {
        if is_full != self.is_full {
            self.is_full = is_full;
            metric::LOG_FULL.set(&[], f64::from(u8::from(is_full)));
            if is_full {
                tracing::warn!("the log is full and takes nothing until space is released");
            } else {
                tracing::info!("the log takes appends again");
            }
        }
    }

    fn tell_bytes(&self) {
        metric::LOG_BYTES.set(&[], self.shared.state().bytes() as f64);
    }
}

impl Append {
    fn bytes(&self) -> u64 {
        self.batches.iter().map(|(_, _, batch)| batch.bytes.len() as u64).sum()
    }
}

/// Creates the segment whose first frame is `head`, on stable storage when it answers.
pub(crate) fn create_segment(
    disk: &dyn Disk,
    journal: &Path,
    head: &Head,
    index_interval_bytes: u64,
) -> io::Result<(Box<dyn DiskFile>, Segment)> {
    let bytes = head.to_bytes();
    let mut segment = Segment::new(head.sequence);
    segment.take(segment::HEADER_BYTES, bytes.len() as u64, head, index_interval_bytes);
    let mut file = disk.create(&journal.join(segment::log_name(head.sequence)))?;
    file.append(&[&segment::header(head.sequence), &bytes])?;
    file.sync()?;
    disk.sync_folder(journal)?;
    Ok((file, segment))
}

fn send<T>(reply: oneshot::Sender<T>, answer: T) {
    // An appender that no longer waits has been cancelled; its append stands all the same.
    drop(reply.send(answer));
}

fn refuse(replies: impl Iterator<Item = oneshot::Sender<Result<Appended>>>, refusal: &Refusal) {
    replies.for_each(|reply| send(reply, Err(refusal.clone().into())));
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.remedy, refusal.doing)
    }
}
