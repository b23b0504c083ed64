//! `ops.runs`: how the runs of views went.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use contract::{Error, Result, Timestamp};
use deltalake::kernel::Action;
use deltalake::protocol::{DeltaOperation, SaveMode};

use super::run::{ViewEngine, ViewRun};
use crate::data_file::write_files;
use crate::store::{Inner, finished};
use crate::table::{Commit, Outcome};

/// One run.
pub(super) struct Line<'a> {
    pub(super) view: &'a str,
    pub(super) started_at: Timestamp,
    pub(super) finished_at: Timestamp,
    pub(super) engine: ViewEngine,
    /// From 1.
    pub(super) attempt: u32,
    pub(super) ran: &'a Result<ViewRun>,
}

impl Inner {
    /// Adds a line to `ops.runs`.
    pub(super) async fn write_down(&self, line: &Line<'_>) -> Result<()> {
        let (layout, properties, now) = (self.runs.layout.clone(), self.properties.clone(), self.clock.now());
        let (rows, begun) = (line.row()?, Instant::now());
        let write = move || write_files(&layout, &properties, &[rows], now);
        let adds = finished(tokio::task::spawn_blocking(write)).await?;
        let operation = DeltaOperation::Write { mode: SaveMode::Append, partition_by: None, predicate: None };
        let commit = Commit::new(adds.into_iter().map(Action::Add).collect(), operation, begun, self.now_ms());
        match self.runs.commit(commit).await? {
            Outcome::Done => Ok(()),
            Outcome::Overtaken(reason) => Err(Error::retry(format!("write down a run in `ops.runs`: {reason}"))),
        }
    }
}

impl Line<'_> {
    fn row(&self) -> Result<RecordBatch> {
        let text = |value: Option<&str>| -> ArrayRef { Arc::new(StringArray::from(vec![value])) };
        let time =
            |at: Timestamp| -> ArrayRef { Arc::new(TimestampMicrosecondArray::from(vec![at.0]).with_timezone("UTC")) };
        let number = |value: Option<u64>| -> ArrayRef {
            Arc::new(Int64Array::from(vec![value.map(|value| i64::try_from(value).unwrap_or(i64::MAX))]))
        };
        let done = self.ran.as_ref().ok();
        let reason = self.ran.as_ref().err().map(ToString::to_string);
        let columns = vec![
            text(Some(self.view)),
            time(self.started_at),
            time(self.finished_at),
            text(done.map(|run| run.mode)),
            text(Some(self.engine.name())),
            number(Some(u64::from(self.attempt))),
            text(Some(if done.is_some() { "done" } else { "failed" })),
            number(done.map(|run| run.rows)),
            number(done.and_then(|run| run.periods)),
            text(reason.as_deref()),
        ];
        let row = RecordBatch::try_new(crate::layout::runs_schema(), columns);
        row.map_err(|error| Error::stop("write down a run in `ops.runs`").because(error))
    }
}
