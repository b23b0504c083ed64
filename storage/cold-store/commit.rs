//! Commits: what waits becomes files, and the files become the table's.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use contract::{
    Coverage, CoverageKind, Error, Offset, OffsetRange, Partition, Positions, Result, SourceId, drop_below,
};
use deltalake::kernel::Action;
use deltalake::protocol::{DeltaOperation, OutputMode};

use crate::data_file::write_files;
use crate::marks::{Moves, prefix};
use crate::store::{Inner, Written, finished};
use crate::table::{Commit, Outcome, Table, View};

/// How often rows are chosen anew because another process moved their position; each time there are fewer.
const ATTEMPTS_MAX: usize = 100;

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

    /// Forgets the rows that stand in the committed files, whoever committed them.
    pub(crate) fn settle(&mut self, table: &str) {
        for pending in &mut self.pending {
            pending.rows = drop_below(&pending.rows, &self.committed.marks.of(&prefix(table, pending.source)));
        }
        self.pending.retain(|pending| pending.rows.num_rows() > 0);
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
            if known.committed.reaches(&known.next()) {
                return Ok(known.committed.clone());
            }
            (known.clone(), source.tables().map(|table| table.view().waiting(id)))
        };
        for ((table, batches), held) in source.tables().into_iter().zip(waiting).zip(&known.tables) {
            let last = Arc::ptr_eq(table, &source.silver);
            if last || !batches.is_empty() {
                // What the table holds, which after a crash may be more than all three do.
                self.append(table, &prefix(&table.layout.name, id), batches, held).await?;
            }
        }
        let now = Written::of(id, source);
        let mut written = self.written();
        let written = written.entry(id).or_default();
        for (known, now) in written.tables.iter_mut().zip(&now.tables) {
            *known = known.max(now);
        }
        written.committed = now.committed.clone();
        Ok(now.committed)
    }

    /// Commits lines of the ledger.
    pub(crate) async fn commit_coverage(&self, range: OffsetRange, lines: &[(Offset, Coverage)]) -> Result<()> {
        self.check_writable()?;
        let _turn = self.coverage_turn.lock().await;
        if self.has_others() {
            self.coverage.refresh().await?;
        }
        let mut held = self.coverage.positions(COVERAGE_PREFIX);
        let from = held.of(range.partition);
        if range.from > from {
            return Err(Error::stop(format!("commit coverage: offsets {from}..{} would be missing", range.from)));
        }
        let lines: Vec<_> = lines.iter().collect();
        let batches = if lines.is_empty() { Vec::new() } else { vec![coverage_rows(range, &lines)] };
        held.advance(range.partition, range.to);
        self.append(&self.coverage, COVERAGE_PREFIX, batches, &held).await
    }

    /// Writes arranged rows into new files and adds them to the table, whose position becomes `held`, in one commit. What
    /// another process committed of it meanwhile is left out.
    async fn append(&self, table: &Table, prefix: &str, batches: Vec<RecordBatch>, held: &Positions) -> Result<()> {
        for _ in 0..ATTEMPTS_MAX {
            if self.has_others() {
                table.refresh().await?;
            }
            let found = table.positions(prefix);
            let moves = Moves::between(prefix, &found, held);
            if moves.is_empty() {
                return Ok(());
            }
            let left = batches.iter().map(|batch| drop_below(batch, &found)).filter(|batch| batch.num_rows() > 0);
            let (left, begun, now) = (left.collect::<Vec<_>>(), Instant::now(), self.clock.now());
            let (layout, properties) = (table.layout.clone(), self.properties.clone());
            let write = move || write_files(&layout, &properties, &left, now);
            let adds = finished(tokio::task::spawn_blocking(write)).await?;
            let operation = DeltaOperation::StreamingUpdate {
                output_mode: OutputMode::Append,
                query_id: "databroker".to_owned(),
                epoch_id: now.0.div_euclid(1_000),
            };
            let actions = adds.into_iter().map(Action::Add).collect();
            let commit = Commit { moves, ..Commit::new(actions, operation, begun, self.now_ms()) };
            match table.commit(commit).await? {
                Outcome::Done => return Ok(()),
                Outcome::Overtaken(reason) => tracing::debug!(table = table.layout.name, "{reason}"),
            }
        }
        let name = &table.layout.name;
        Err(Error::retry(format!("commit to `{name}`: others were faster {ATTEMPTS_MAX} times")))
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
