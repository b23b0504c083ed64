//! Commits: what waits becomes files, and the files become the table's.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use contract::{
    Coverage, CoverageKind, Error, Offset, OffsetRange, Partition, Positions, Result, SourceId, drop_below,
};
use deltalake::kernel::{Action, Transaction};
use deltalake::protocol::{DeltaOperation, OutputMode};

use crate::data_file::write_files;
use crate::store::{Inner, finished, prefix};
use crate::table::{Table, View, transactions};

/// The appIds of `ops.coverage`: `databroker/ops.coverage/0`.
pub(crate) const COVERAGE_PREFIX: &str = "databroker/ops.coverage";

impl View {
    /// Bytes of a source that wait.
    pub(crate) fn bytes(&self, source: SourceId) -> usize {
        self.pending
            .iter()
            .filter(|pending| pending.source == source)
            .map(|pending| pending.rows.get_array_memory_size())
            .sum()
    }

    fn waiting(&self, source: SourceId) -> Vec<RecordBatch> {
        self.pending.iter().filter(|pending| pending.source == source).map(|pending| pending.rows.clone()).collect()
    }

    /// Forgets what waits of some partitions of a source.
    pub(crate) fn forget(&mut self, source: SourceId, partitions: &[Partition]) {
        let nothing = Positions(partitions.iter().map(|&partition| (partition, Offset::MAX)).collect());
        for pending in self.pending.iter_mut().filter(|pending| pending.source == source) {
            pending.rows = drop_below(&pending.rows, &nothing);
        }
        self.pending.retain(|pending| pending.rows.num_rows() > 0);
    }

    /// Forgets the oldest `count` batches of a source: they are in the files now.
    fn settle(&mut self, source: SourceId, count: usize) {
        let mut left = count;
        self.pending.retain(|pending| {
            let settled = pending.source == source && left > 0;
            left -= usize::from(settled);
            !settled
        });
    }
}

impl Inner {
    /// Commits what was written for the source until now; see the crate's documentation for the order.
    pub(crate) async fn commit(&self, id: SourceId) -> Result<Positions> {
        self.check_writable()?;
        let source = self.source(id)?;
        let _turn = source.turn.lock().await;
        let (known, waiting) = {
            let written = self.written();
            let Some(known) = written.get(&id) else { return Ok(Positions::default()) };
            if known.committed == known.next() {
                return Ok(known.next());
            }
            (known.clone(), source.tables().map(|table| table.view().waiting(id)))
        };
        let next = known.next();
        for ((table, batches), held) in source.tables().into_iter().zip(waiting).zip(&known.tables) {
            let last = Arc::ptr_eq(table, &source.silver);
            if last || !batches.is_empty() {
                let count = batches.len();
                // What the table holds, which after a crash may be more than all three do.
                let marks = transactions(&prefix(table, id), held, self.now_ms());
                self.append(table, batches, marks, move |view| view.settle(id, count)).await?;
            }
        }
        self.written().entry(id).or_default().committed = next.clone();
        Ok(next)
    }

    /// Commits lines of the ledger.
    pub(crate) async fn commit_coverage(&self, range: OffsetRange, lines: &[(Offset, Coverage)]) -> Result<()> {
        self.check_writable()?;
        let mut known = self.coverage_known.lock().await;
        let from = known.of(range.partition);
        if range.from > from {
            return Err(Error::stop(format!("commit coverage: offsets {from}..{} would be missing", range.from)));
        }
        if range.to <= from {
            return Ok(());
        }
        let new: Vec<_> = lines.iter().filter(|(offset, _)| *offset >= from).collect();
        let batches = if new.is_empty() { Vec::new() } else { vec![coverage_rows(range, &new)] };
        let mut next = known.clone();
        next.advance(range.partition, range.to);
        let marks = transactions(COVERAGE_PREFIX, &next, self.now_ms());
        self.append(&self.coverage, batches, marks, |_| {}).await?;
        *known = next;
        Ok(())
    }

    /// Writes arranged rows into new files and adds them to the table with `marks`, in one commit.
    pub(crate) async fn append(
        &self,
        table: &Table,
        batches: Vec<RecordBatch>,
        marks: Vec<Transaction>,
        settle: impl FnOnce(&mut View) + Send,
    ) -> Result<()> {
        let (layout, properties, now) = (table.layout.clone(), self.properties.clone(), self.clock.now());
        let write = move || write_files(&layout, &properties, &batches, now);
        let adds = finished(tokio::task::spawn_blocking(write)).await?;
        let operation = DeltaOperation::StreamingUpdate {
            output_mode: OutputMode::Append,
            query_id: "databroker".to_owned(),
            epoch_id: now.0.div_euclid(1_000),
        };
        table.commit(adds.into_iter().map(Action::Add).collect(), marks, operation, settle).await
    }

    /// Milliseconds since 1970, as the Delta log counts time.
    pub(crate) fn now_ms(&self) -> i64 {
        self.clock.now().0.div_euclid(1_000)
    }
}

fn coverage_rows(range: OffsetRange, lines: &[&(Offset, Coverage)]) -> RecordBatch {
    let integers = |of: &dyn Fn(&(Offset, Coverage)) -> i64| -> ArrayRef {
        Arc::new(lines.iter().map(|line| of(line)).collect::<Int64Array>())
    };
    let texts = |of: &dyn for<'a> Fn(&'a Coverage) -> &'a str| -> ArrayRef {
        Arc::new(lines.iter().map(|(_, line)| Some(of(line))).collect::<StringArray>())
    };
    let times = |of: &dyn Fn(&Coverage) -> i64| -> ArrayRef {
        let values: TimestampMicrosecondArray = lines.iter().map(|(_, line)| Some(of(line))).collect();
        Arc::new(values.with_timezone("UTC"))
    };
    let columns = vec![
        integers(&|_| i64::from(range.partition)),
        integers(&|(offset, _)| *offset),
        texts(&|line| &line.source),
        texts(&|line| &line.collector),
        texts(&|line| match line.kind {
            CoverageKind::Covered => "covered",
            CoverageKind::Missed => "missed",
        }),
        times(&|line| line.from.0),
        times(&|line| line.to.0),
        integers(&|(_, line)| i64::try_from(line.records).unwrap_or(i64::MAX)),
        texts(&|line| &line.reason),
    ];
    RecordBatch::try_new(crate::coverage_schema(), columns).expect("the columns follow the schema")
}
