//! The writers that are open: how much memory they may take over all sources, and what they took since the last commit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use contract::{Positions, Result};
use tantivy::IndexWriter;
use tantivy::indexer::UserOperation;

use crate::Settings;
use crate::document::{Indexed, RowBatch, RowDocument};
use crate::error::failed;
use crate::index::HotIndex;
use crate::settings::WRITER_MEMORY_BYTES_MIN;

/// Rows that are handed to an indexing thread at once.
const ROWS_HANDED: usize = 128;

/// The memory of the open writers of all sources.
pub(crate) struct WriterMemory {
    bytes_max: usize,
    used: AtomicUsize,
}

/// A writer's part of it, given back with the writer.
pub(crate) struct Grant {
    memory: Arc<WriterMemory>,
    bytes: usize,
}

impl WriterMemory {
    pub(crate) fn new(settings: &Settings) -> Arc<Self> {
        let bytes_max = settings.open_writers_max.saturating_mul(settings.writer_memory_bytes);
        Arc::new(Self { bytes_max, used: AtomicUsize::new(0) })
    }

    /// Whether a part of `bytes` is left.
    fn has(&self, bytes: usize) -> bool {
        self.used.load(Ordering::Relaxed) + bytes <= self.bytes_max
    }

    /// `bytes`, or what is left of the memory, or the least that a writer needs: so no source waits for another.
    fn grant(self: &Arc<Self>, bytes: usize) -> Grant {
        let left = self.bytes_max.saturating_sub(self.used.load(Ordering::Relaxed));
        let bytes = left.clamp(WRITER_MEMORY_BYTES_MIN, bytes);
        self.used.fetch_add(bytes, Ordering::Relaxed);
        Grant { memory: self.clone(), bytes }
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        self.memory.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
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
    /// After the writer, so that the memory is free when it is given back.
    _grant: Grant,
}

/// The open writers of one source, by index.
#[derive(Default)]
pub(crate) struct Writers {
    open: BTreeMap<String, OpenWriter>,
    /// Counts uses of writers.
    turn: u64,
}

impl Writers {
    pub(crate) fn get(&self, name: &str) -> Option<&OpenWriter> {
        self.open.get(name)
    }

    /// The writer of an index, which is opened if it is not. If the memory of all sources is used up, the one of this
    /// source that is unused for longest is committed, with the mark of what was added to it and no more, and closed.
    pub(crate) fn open(
        &mut self,
        index: Arc<HotIndex>,
        settings: &Settings,
        memory: &Arc<WriterMemory>,
    ) -> Result<&mut OpenWriter> {
        self.turn += 1;
        let name = index.name.clone();
        if !self.open.contains_key(&name) {
            if !memory.has(settings.writer_memory_bytes) {
                self.close_oldest()?;
            }
            let grant = memory.grant(settings.writer_memory_bytes);
            let (writer, mark) = (index.writer(settings, grant.bytes)?, index.mark());
            let (turn, used) = (self.turn, Instant::now());
            let open = OpenWriter { index, writer, mark, is_changed: false, turn, used, _grant: grant };
            self.open.insert(name.clone(), open);
        }
        let open = self.open.get_mut(&name).expect("just made sure of");
        (open.turn, open.used) = (self.turn, Instant::now());
        Ok(open)
    }

    fn close_oldest(&mut self) -> Result<()> {
        let oldest = self.open.iter().min_by_key(|(_, open)| open.turn).map(|(name, _)| name.clone());
        match oldest.and_then(|name| self.open.remove(&name)) {
            Some(mut open) => open.commit(),
            None => Ok(()),
        }
    }

    /// Makes all that was added durable; `written` is the mark of every index then.
    pub(crate) fn commit(&mut self, written: &Positions) -> Result<()> {
        for open in self.open.values_mut().filter(|open| open.is_changed) {
            open.reach(written);
            open.commit()?;
        }
        Ok(())
    }

    /// Closes one without a commit.
    pub(crate) fn close(&mut self, name: &str) {
        self.open.remove(name);
    }

    /// Closes those that took nothing for a while. Their memory goes; the next row opens them again.
    pub(crate) fn close_idle(&mut self, idle: Duration) {
        self.open.retain(|_, open| open.is_changed || open.used.elapsed() < idle);
    }

    /// Closes all, without what was added since the last commits, and frees the space that it took on disk.
    pub(crate) fn abandon(&mut self) {
        for (name, open) in std::mem::take(&mut self.open) {
            let index = open.index.clone();
            drop(open);
            if let Err(error) = index.delete_leftovers() {
                tracing::warn!(index = %name, "what was not committed to `{name}` takes space until the next start: {error}");
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }
}

impl OpenWriter {
    /// Adds rows.
    pub(crate) fn add(&mut self, batch: &Arc<RowBatch>, rows: &[usize]) -> Result<()> {
        self.is_changed = true;
        let batch = Arc::new(Indexed::new(self.index.fields.clone(), batch.clone()));
        for rows in rows.chunks(ROWS_HANDED) {
            let add = |&row: &usize| UserOperation::Add(RowDocument { batch: batch.clone(), row });
            if let Err(error) = self.writer.run(rows.iter().map(add)) {
                // The indexing thread has ended; why, it says when it is joined.
                let cause = self.writer.prepare_commit().err().unwrap_or(error);
                return Err(failed(format!("write to the index `{}`", self.index.name), cause));
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_sources_share_the_memory_of_writers_and_none_is_left_without() {
        let settings = Settings { open_writers_max: 2, writer_memory_bytes: 64_000_000, ..Settings::default() };
        let memory = WriterMemory::new(&settings);
        let whole: Vec<_> = (0..2).map(|_| memory.grant(64_000_000)).collect();
        assert!(whole.iter().all(|grant| grant.bytes == 64_000_000) && !memory.has(64_000_000));
        let least = memory.grant(64_000_000);
        assert_eq!(least.bytes, WRITER_MEMORY_BYTES_MIN);
        drop((whole, least));
        assert!(memory.has(128_000_000));
    }
}
