//! One source's part of the store: its indices, the writers that are open, and how far it is.
//!
//! | the process dies | what the store finds when it opens again |
//! | --- | --- |
//! | before `commit` | nothing of what was written, or, in an index whose writer was closed to make room, its rows with its mark |
//! | in `commit`, after some indices | those have their rows and a mark beyond the checkpoint: written again, these rows are skipped there; the others take theirs |
//! | in `commit`, before the checkpoint | the same, in all indices |
//! | while a day is removed | the whole day, or none of it and a folder `NAME.deleted`, which is then deleted |
//!
//! When the disk is full the writers are closed without their rows; these stay in memory until a commit, and are added again
//! before the next one.
//!
//! Rows of more indices than can be open (papers of twenty years) wait for the commit and are then added index by index: opened
//! for each batch, every index would be written as often as there are batches.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::Int64Type;
use contract::{
    Day, Error, Partition, Positions, Remedy, Result, RowSchema, Rows, SourceId, Timestamp, drop_below, metric,
};

use crate::Settings;
use crate::checkpoint::Checkpoint;
use crate::document::{Budget, RowBatch};
use crate::error::{disk_failed, refuse_gap};
use crate::fields::Fields;
use crate::index::HotIndex;
use crate::names::{Groups, by_index, choose_name};
use crate::writers::{OpenWriter, WriterMemory, Writers};

/// Places of the common columns among those of a row.
const PARTITION: usize = 0;
const OFFSET: usize = 1;
pub(crate) const ID: usize = 2;
pub(crate) const EVENT_TIME: usize = 3;

/// What all sources have in common.
#[derive(Clone)]
pub(crate) struct Common {
    pub(crate) folder: PathBuf,
    pub(crate) settings: Settings,
    /// Of rows that wait to be indexed.
    pub(crate) budget: Arc<Budget>,
    pub(crate) memory: Arc<WriterMemory>,
}

pub(crate) struct HotSource {
    pub(crate) schema: &'static RowSchema,
    pub(crate) common: Common,
    pub(crate) fields: Arc<Fields>,
    /// The indices by name. Queries take what is here and need nothing else.
    pub(crate) indices: RwLock<BTreeMap<String, Arc<HotIndex>>>,
    pub(crate) progress: Mutex<Progress>,
}

/// What changes when rows are written; one call at a time.
#[derive(Default)]
pub(crate) struct Progress {
    /// The next offsets to write.
    pub(crate) written: Positions,
    pub(crate) checkpoint: Checkpoint,
    pub(crate) writers: Writers,
    /// What was written since the last commit and added to the writers, in order.
    uncommitted: Vec<Written>,
    /// What was written behind that and waits for the commit.
    waiting: Vec<Written>,
    /// Whether the writers lack what was written since the last commit: the disk was full.
    is_torn: bool,
    /// What went wrong for good: what the writers hold is not known any more, so nothing is taken.
    pub(crate) failed: Option<String>,
}

impl Progress {
    pub(crate) fn at(checkpoint: Checkpoint) -> Self {
        Self { written: checkpoint.next.clone(), checkpoint, ..Self::default() }
    }
}

/// Rows of a span.
#[derive(Clone)]
struct Written {
    batch: RecordBatch,
    groups: Groups,
    /// The next offsets after them.
    next: Positions,
}

impl Written {
    /// Gives up the rows of some partitions, all of which lie at or behind `committed`.
    fn forget(&mut self, committed: &Positions) {
        let places = Places::of(&self.batch);
        for rows in self.groups.values_mut() {
            rows.retain(|&row| !committed.0.contains_key(&places.partition(row)));
        }
        self.groups.retain(|_, rows| !rows.is_empty());
        self.next.put(committed);
    }

    /// All as one, in order; none of none.
    fn joined(all: Vec<Self>) -> Option<Self> {
        let next = all.last()?.next.clone();
        let batch = concat_batches(&all[0].batch.schema(), all.iter().map(|written| &written.batch));
        let batch = batch.expect("batches of one schema");
        let (mut groups, mut before) = (Groups::new(), 0);
        for written in all {
            for (name, rows) in written.groups {
                groups.entry(name).or_default().extend(rows.into_iter().map(|row| before + row));
            }
            before += written.batch.num_rows();
        }
        Some(Self { batch, groups, next })
    }
}

impl HotSource {
    pub(crate) fn id(&self) -> SourceId {
        self.schema.source
    }

    /// The first day that is kept.
    pub(crate) fn first_day(&self, now: Timestamp) -> Option<Day> {
        first_day(self.common.settings.retention_days, now)
    }

    /// Takes the rows of a span.
    pub(crate) fn write(&self, rows: &Rows, now: Timestamp) -> Result<()> {
        let mut progress = self.progress()?;
        refuse_gap(self.id(), &rows.span, &progress.written)?;
        self.restore(&mut progress)?;
        let mut next = progress.written.clone();
        for (&partition, &offset) in &rows.span.next().0 {
            next.advance(partition, offset);
        }
        let batch = drop_below(&rows.silver, &progress.written);
        let groups = self.groups(&batch, self.first_day(now));
        let written = Written { batch, groups, next };
        let is_wide = written.groups.len() > self.common.settings.open_writers_max;
        if is_wide || !progress.waiting.is_empty() {
            progress.written = written.next.clone();
            progress.waiting.push(written);
            return Ok(());
        }
        let outcome = self.add(&mut progress, &written);
        self.settle(&mut progress, outcome)?;
        progress.written = written.next.clone();
        if !written.groups.is_empty() {
            progress.uncommitted.push(written);
        }
        Ok(())
    }

    /// Makes all that was written durable: first every index, then the checkpoint that says so.
    pub(crate) fn commit(&self) -> Result<Positions> {
        let mut progress = self.progress()?;
        self.commit_all(&mut progress)?;
        Ok(progress.checkpoint.next.clone())
    }

    /// Forgets what was written of some partitions and not committed, and answers their next offsets. Where the writer of
    /// an index was closed to make room the index has the rows already, and its mark says so when they come again.
    pub(crate) fn resume(&self, partitions: &[Partition]) -> Result<Positions> {
        let mut progress = self.progress()?;
        let committed = progress.checkpoint.next.only(partitions);
        if progress.written.only(partitions) != committed {
            progress.writers.abandon();
            progress.is_torn = true;
            let Progress { uncommitted, waiting, written, .. } = &mut *progress;
            uncommitted.iter_mut().chain(waiting).for_each(|written| written.forget(&committed));
            written.put(&committed);
        }
        Ok(committed)
    }

    /// The next offsets as of the last commit.
    pub(crate) fn committed(&self) -> Positions {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).checkpoint.next.clone()
    }

    /// The indices, by name.
    pub(crate) fn all(&self) -> Vec<Arc<HotIndex>> {
        self.indices.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The right to change the source, unless it failed.
    pub(crate) fn progress(&self) -> Result<MutexGuard<'_, Progress>> {
        let failed = || Error::stop(format!("use the hot store of `{}` after it failed", self.id()));
        let progress = self.progress.lock().map_err(|_| failed().because("a write panicked"))?;
        match &progress.failed {
            Some(reason) => Err(failed().because(reason.clone())),
            None => Ok(progress),
        }
    }

    /// After an error it is not known what the writers hold: they are closed. Where the disk was full, what they lost is
    /// added again later; else nothing is taken any more.
    pub(crate) fn settle<T>(&self, progress: &mut Progress, outcome: Result<T>) -> Result<T> {
        if let Err(error) = &outcome {
            progress.writers.abandon();
            progress.is_torn = true;
            if error.remedy() != Remedy::Retry {
                progress.failed = Some(error.to_string());
            }
        }
        outcome
    }

    /// Adds again what the writers lost.
    fn restore(&self, progress: &mut Progress) -> Result<()> {
        if !progress.is_torn {
            return Ok(());
        }
        for written in progress.uncommitted.clone() {
            let outcome = self.add(progress, &written);
            self.settle(progress, outcome)?;
        }
        progress.is_torn = false;
        Ok(())
    }

    /// Adds what waits, so that each index is opened once.
    fn add_waiting(&self, progress: &mut Progress) -> Result<()> {
        let Some(written) = Written::joined(std::mem::take(&mut progress.waiting)) else { return Ok(()) };
        progress.uncommitted.push(written.clone());
        let outcome = self.add(progress, &written);
        self.settle(progress, outcome)
    }

    /// Commits, and closes the writers that are not used.
    pub(crate) fn commit_all(&self, progress: &mut Progress) -> Result<()> {
        self.restore(progress)?;
        self.add_waiting(progress)?;
        let outcome = self.try_commit(progress);
        self.settle(progress, outcome)?;
        progress.writers.close_idle(Duration::from_secs(self.common.settings.writer_idle_seconds));
        Ok(())
    }

    fn try_commit(&self, progress: &mut Progress) -> Result<()> {
        if progress.written == progress.checkpoint.next {
            return Ok(());
        }
        let written = progress.written.clone();
        progress.writers.commit(&written)?;
        self.save(progress, |checkpoint| checkpoint.next = written)?;
        progress.uncommitted.clear();
        Ok(())
    }

    /// Replaces the checkpoint.
    pub(crate) fn save(&self, progress: &mut Progress, change: impl FnOnce(&mut Checkpoint)) -> Result<()> {
        let mut checkpoint = progress.checkpoint.clone();
        change(&mut checkpoint);
        checkpoint
            .save(&self.common.folder, self.id())
            .map_err(|error| disk_failed(format!("write the checkpoint of `{}`", self.id()), error))?;
        progress.checkpoint = checkpoint;
        Ok(())
    }

    /// The rows by the index they belong to, without those that are too old for any.
    pub(crate) fn groups(&self, batch: &RecordBatch, first_day: Option<Day>) -> Groups {
        by_index(batch, first_day, |day| {
            let indices = self.indices.read().unwrap_or_else(PoisonError::into_inner);
            let keeps_all = self.common.settings.retention_days == 0;
            choose_name(self.id(), day, keeps_all, |name| indices.contains_key(name))
        })
    }

    /// Adds rows to their indices, without those that an index has; `next` becomes the indices' mark.
    fn add(&self, progress: &mut Progress, Written { batch, groups, next }: &Written) -> Result<()> {
        let places = Places::of(batch);
        let mut kept = vec![false; batch.num_rows()];
        let mut new = Groups::new();
        for (name, rows) in groups {
            // Also of rows that the index has: their checkpoint may not have been written.
            progress.checkpoint.note_first(name, &places.first(rows));
            let mark = self.mark(progress, name);
            let is_new = |&&row: &&usize| places.offset(row) >= mark.of(places.partition(row));
            let rows: Vec<usize> = rows.iter().filter(is_new).copied().collect();
            rows.iter().for_each(|&row| kept[row] = true);
            if !rows.is_empty() {
                new.insert(name.clone(), rows);
            }
        }
        if new.is_empty() {
            return Ok(());
        }
        let batch = Arc::new(RowBatch::new(self.schema, batch, &kept, &self.common.budget));
        for (name, rows) in new {
            let open = self.open_writer(progress, &name)?;
            open.add(&batch, &rows)?;
            open.reach(next);
        }
        Ok(())
    }

    fn mark(&self, progress: &Progress, name: &str) -> Positions {
        match progress.writers.get(name) {
            Some(open) => open.mark.clone(),
            None => {
                let indices = self.indices.read().unwrap_or_else(PoisonError::into_inner);
                indices.get(name).map(|index| index.mark()).unwrap_or_default()
            }
        }
    }

    /// The writer of an index, which is made if it is not there.
    pub(crate) fn open_writer<'a>(&self, progress: &'a mut Progress, name: &str) -> Result<&'a mut OpenWriter> {
        progress.writers.open(self.index(name)?, &self.common.settings, &self.common.memory)
    }

    fn index(&self, name: &str) -> Result<Arc<HotIndex>> {
        let known = self.indices.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        if let Some(index) = known {
            return Ok(index);
        }
        let index = Arc::new(HotIndex::create(&self.common.folder, self.id(), name, self.fields.clone())?);
        let mut indices = self.indices.write().unwrap_or_else(PoisonError::into_inner);
        indices.insert(name.to_owned(), index.clone());
        metric::HOT_INDICES.set(&[self.id().0], indices.len() as f64);
        Ok(index)
    }
}

/// Partition and offset of the rows of a batch.
pub(crate) struct Places<'a> {
    partitions: &'a [i64],
    offsets: &'a [i64],
}

impl<'a> Places<'a> {
    pub(crate) fn of(batch: &'a RecordBatch) -> Self {
        let integers = |place| batch.column(place).as_primitive::<Int64Type>().values();
        Self { partitions: integers(PARTITION), offsets: integers(OFFSET) }
    }

    pub(crate) fn partition(&self, row: usize) -> Partition {
        self.partitions[row] as Partition
    }

    pub(crate) fn offset(&self, row: usize) -> i64 {
        self.offsets[row]
    }

    /// The lowest offset per partition among some rows.
    pub(crate) fn first(&self, rows: &[usize]) -> Positions {
        let mut first = BTreeMap::new();
        for &row in rows {
            let place = first.entry(self.partition(row)).or_insert(self.offset(row));
            *place = (*place).min(self.offset(row));
        }
        Positions(first)
    }
}

/// The first day that is kept: an event is searchable for at least the whole retention.
pub(crate) fn first_day(retention_days: u16, now: Timestamp) -> Option<Day> {
    let retention = Duration::from_secs(u64::from(retention_days) * 86_400);
    (retention_days > 0).then(|| now.minus(retention).day())
}
