//! One source's part of the store: its indices, the writers that are open, and how far it is.
//!
//! | the process dies | what the store finds when it opens again |
//! | --- | --- |
//! | before `commit` | nothing of what was written, or, in an index whose writer was closed to make room, its rows with its mark |
//! | in `commit`, after some indices | those have their rows and a mark beyond the checkpoint: written again, these rows are skipped there; the others take theirs |
//! | in `commit`, before the checkpoint | the same, in all indices |
//! | while a day is removed | the whole day, or none of it and a folder `NAME.deleted`, which is then deleted |

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use contract::{Day, Error, Partition, Positions, Result, RowSchema, Rows, SourceId, Timestamp, drop_below, metric};
use tantivy::IndexWriter;
use tantivy::indexer::UserOperation;

use crate::Settings;
use crate::checkpoint::Checkpoint;
use crate::document::{Budget, Indexed, RowBatch, RowDocument};
use crate::fields::Fields;
use crate::index::HotIndex;
use crate::names::{daily_name, monthly_name};

/// Rows that are handed to an indexing thread at once.
const ROWS_HANDED: usize = 128;

/// Places of the common columns among those of a row.
const PARTITION: usize = 0;
const OFFSET: usize = 1;
const EVENT_TIME: usize = 3;

pub(crate) struct HotSource {
    pub(crate) schema: &'static RowSchema,
    pub(crate) folder: PathBuf,
    pub(crate) settings: Settings,
    pub(crate) fields: Arc<Fields>,
    pub(crate) budget: Arc<Budget>,
    /// The indices by name. Queries take what is here and need nothing else.
    pub(crate) indices: RwLock<BTreeMap<String, Arc<HotIndex>>>,
    pub(crate) progress: Mutex<Progress>,
    pub(crate) too_old: AtomicU64,
}

/// What changes when rows are written; one call at a time.
#[derive(Default)]
pub(crate) struct Progress {
    /// The next offsets to write.
    pub(crate) written: Positions,
    pub(crate) checkpoint: Checkpoint,
    pub(crate) writers: BTreeMap<String, OpenWriter>,
    /// What went wrong for good: what the writers hold is not known any more, so nothing is taken.
    pub(crate) failed: Option<String>,
    /// Counts uses of writers.
    pub(crate) turn: u64,
}

/// An index that takes rows.
pub(crate) struct OpenWriter {
    pub(crate) index: Arc<HotIndex>,
    pub(crate) writer: IndexWriter<RowDocument>,
    /// The next offsets of what was added: those of its rows that lie below are in the writer or committed.
    pub(crate) mark: Positions,
    pub(crate) is_changed: bool,
    turn: u64,
    used: Instant,
}

impl HotSource {
    pub(crate) fn id(&self) -> SourceId {
        self.schema.source
    }

    /// The first day that is kept.
    pub(crate) fn first_day(&self, now: Timestamp) -> Option<Day> {
        first_day(&self.settings, now)
    }

    /// Takes the rows of a span.
    pub(crate) fn write(&self, rows: &Rows, now: Timestamp) -> Result<()> {
        let mut progress = self.progress()?;
        if let Some(gap) = rows.span.gap_after(&progress.written) {
            return Err(Error::stop(format!(
                "write rows of `{}`: offsets {} to {} of partition {} were not written before them",
                self.id(),
                gap.from,
                gap.to,
                gap.partition
            )));
        }
        let mut next = progress.written.clone();
        for (&partition, &offset) in &rows.span.next().0 {
            next.advance(partition, offset);
        }
        let batch = drop_below(&rows.silver, &progress.written);
        let (groups, too_old) = self.groups(&batch, self.first_day(now));
        let outcome = self.add(&mut progress, &batch, groups, &next);
        self.settle(&mut progress, outcome)?;
        progress.written = next;
        self.too_old.fetch_add(too_old, Ordering::Relaxed);
        Ok(())
    }

    /// Makes all that was written durable: first every index, then the checkpoint that says so.
    pub(crate) fn commit(&self) -> Result<Positions> {
        let mut progress = self.progress()?;
        self.commit_all(&mut progress)?;
        self.close_idle(&mut progress);
        Ok(progress.checkpoint.next.clone())
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

    /// Notes an error after which it is not known what the writers hold.
    pub(crate) fn settle<T>(&self, progress: &mut Progress, outcome: Result<T>) -> Result<T> {
        if let Err(error) = &outcome {
            progress.failed = Some(error.to_string());
        }
        outcome
    }

    pub(crate) fn commit_all(&self, progress: &mut Progress) -> Result<()> {
        let outcome = self.try_commit(progress);
        self.settle(progress, outcome)
    }

    fn try_commit(&self, progress: &mut Progress) -> Result<()> {
        if progress.written == progress.checkpoint.next {
            return Ok(());
        }
        let written = progress.written.clone();
        for open in progress.writers.values_mut().filter(|open| open.is_changed) {
            open.reach(&written);
            open.commit()?;
        }
        self.save(progress, |checkpoint| checkpoint.next = written)
    }

    /// Replaces the checkpoint.
    pub(crate) fn save(&self, progress: &mut Progress, change: impl FnOnce(&mut Checkpoint)) -> Result<()> {
        let mut checkpoint = progress.checkpoint.clone();
        change(&mut checkpoint);
        checkpoint
            .save(&self.folder, self.id())
            .map_err(|error| Error::stop(format!("write the checkpoint of `{}`", self.id())).because(error))?;
        progress.checkpoint = checkpoint;
        Ok(())
    }

    /// The rows by the index they belong to, and how many are too old for any.
    pub(crate) fn groups(&self, batch: &RecordBatch, first_day: Option<Day>) -> (BTreeMap<String, Vec<usize>>, u64) {
        let times = batch.column(EVENT_TIME).as_primitive::<TimestampMicrosecondType>();
        let mut days: BTreeMap<Day, Vec<usize>> = BTreeMap::new();
        for (row, &time) in times.values().iter().enumerate() {
            days.entry(Timestamp(time).day()).or_default().push(row);
        }
        let mut groups: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        let mut too_old = 0;
        for (day, mut rows) in days {
            if first_day.is_some_and(|first| day < first) {
                too_old += rows.len() as u64;
            } else {
                groups.entry(self.index_name(day)).or_default().append(&mut rows);
            }
        }
        (groups, too_old)
    }

    /// The index of a day. One that is there already is used whatever the settings say, so that a day never
    /// stands in two after `retention_days` was changed.
    fn index_name(&self, day: Day) -> String {
        let (daily, monthly) = (daily_name(self.id(), day), monthly_name(self.id(), day));
        let indices = self.indices.read().unwrap_or_else(PoisonError::into_inner);
        let by_month = match (indices.contains_key(&daily), indices.contains_key(&monthly)) {
            (true, _) => false,
            (false, true) => true,
            (false, false) => self.settings.retention_days == 0,
        };
        if by_month { monthly } else { daily }
    }

    /// Adds rows to their indices, without those that an index has; `next` becomes the indices' mark.
    fn add(
        &self,
        progress: &mut Progress,
        batch: &RecordBatch,
        mut groups: BTreeMap<String, Vec<usize>>,
        next: &Positions,
    ) -> Result<()> {
        let places = Places::of(batch);
        let mut kept = vec![false; batch.num_rows()];
        for (name, rows) in &mut groups {
            // Also of rows that the index has: their checkpoint may not have been written.
            progress.checkpoint.note_first(name, &places.first(rows));
            let mark = self.mark(progress, name);
            rows.retain(|&row| places.offset(row) >= mark.of(places.partition(row)));
            rows.iter().for_each(|&row| kept[row] = true);
        }
        groups.retain(|_, rows| !rows.is_empty());
        if groups.is_empty() {
            return Ok(());
        }
        let batch = Arc::new(RowBatch::new(self.schema, batch, &kept, &self.budget));
        for (name, rows) in groups {
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

    /// The writer of an index, which is made if it is not there. If too many are open, the one unused for longest is
    /// committed, with the mark of what was added to it and no more, and closed.
    pub(crate) fn open_writer<'a>(&self, progress: &'a mut Progress, name: &str) -> Result<&'a mut OpenWriter> {
        progress.turn += 1;
        let turn = progress.turn;
        if !progress.writers.contains_key(name) {
            if progress.writers.len() >= self.settings.open_writers_max {
                let unused = progress.writers.iter().min_by_key(|(_, open)| open.turn);
                let unused = unused.map(|(name, _)| name.clone()).expect("at least one is allowed");
                let mut open = progress.writers.remove(&unused).expect("just found");
                open.commit()?;
            }
            let index = self.index(name)?;
            let (writer, mark) = (index.writer(&self.settings)?, index.mark());
            let open = OpenWriter { index, writer, mark, is_changed: false, turn, used: Instant::now() };
            progress.writers.insert(name.to_owned(), open);
        }
        let open = progress.writers.get_mut(name).expect("just made sure of");
        (open.turn, open.used) = (turn, Instant::now());
        Ok(open)
    }

    fn index(&self, name: &str) -> Result<Arc<HotIndex>> {
        let known = self.indices.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        if let Some(index) = known {
            return Ok(index);
        }
        let index = Arc::new(HotIndex::create(&self.folder, self.id(), name, self.fields.clone())?);
        let mut indices = self.indices.write().unwrap_or_else(PoisonError::into_inner);
        indices.insert(name.to_owned(), index.clone());
        metric::HOT_INDICES.set(&[self.id().0], indices.len() as f64);
        Ok(index)
    }

    /// Closes writers that took nothing for a while. Their memory goes; the next row opens them again.
    fn close_idle(&self, progress: &mut Progress) {
        let idle = Duration::from_secs(self.settings.writer_idle_seconds);
        progress.writers.retain(|_, open| open.is_changed || open.used.elapsed() < idle);
    }
}

impl OpenWriter {
    /// Adds rows.
    pub(crate) fn add(&mut self, batch: &Arc<RowBatch>, rows: &[usize]) -> Result<()> {
        self.is_changed = true;
        let batch = Arc::new(Indexed { fields: self.index.fields.clone(), rows: batch.clone() });
        for rows in rows.chunks(ROWS_HANDED) {
            let add = |&row: &usize| UserOperation::Add(RowDocument { batch: batch.clone(), row });
            self.writer
                .run(rows.iter().map(add))
                .map_err(|error| Error::stop(format!("write to the index `{}`", self.index.name)).because(error))?;
        }
        Ok(())
    }

    /// Notes that all rows below `next` were added. While rows are written again the mark may be ahead already, and stays.
    pub(crate) fn reach(&mut self, next: &Positions) {
        next.0.iter().for_each(|(&partition, &offset)| self.mark.advance(partition, offset));
    }

    /// Makes what was added durable, if anything was.
    pub(crate) fn commit(&mut self) -> Result<()> {
        if self.is_changed {
            self.index.commit(&mut self.writer, &self.mark)?;
            self.is_changed = false;
        }
        Ok(())
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
pub(crate) fn first_day(settings: &Settings, now: Timestamp) -> Option<Day> {
    let retention = Duration::from_secs(u64::from(settings.retention_days) * 86_400);
    (settings.retention_days > 0).then(|| now.minus(retention).day())
}
