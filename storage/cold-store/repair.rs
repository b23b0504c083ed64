//! Mending single rows, outside the order of offsets: `databroker verify --repair`.

use std::cell::Cell;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::Int64Type;
use contract::{ColdTable, Error, Offset, Partition, Result, SourceId};
use datafusion::common::ScalarValue;
use deltalake::kernel::Action;
use deltalake::protocol::DeltaOperation;

use crate::committed::CommittedFile;
use crate::data_file::write_files;
use crate::layout::{PartitionValue, Partitioning};
use crate::store::{Inner, finished};
use crate::table::{Commit, Outcome, Table};

type Places = HashSet<(Partition, Offset)>;

impl Inner {
    /// See [`contract::ColdStore::mend`].
    pub(crate) async fn mend(
        &self,
        source: SourceId,
        table: ColdTable,
        remove: Places,
        append: Option<RecordBatch>,
    ) -> Result<()> {
        self.check_writable()?;
        let tables = self.source(source)?;
        let table = match table {
            ColdTable::Bronze => &tables.bronze,
            ColdTable::Silver => &tables.silver,
            ColdTable::DeadLetters => &tables.dead_letters,
        };
        // Compaction would rewrite the same files.
        let _turn = self.maintenance.lock().await;
        let begun = Instant::now();
        let mut actions = self.without(table, source, Arc::new(remove)).await?;
        if let Some(rows) = append {
            let rows = table.layout.arrange(&rows)?;
            let (layout, properties, now) = (table.layout.clone(), self.properties.clone(), self.clock.now());
            let write = move || write_files(&layout, &properties, &[rows], now);
            actions.extend(finished(tokio::task::spawn_blocking(write)).await?.into_iter().map(Action::Add));
        }
        if actions.is_empty() {
            return Ok(());
        }
        let operation = DeltaOperation::Delete { predicate: None };
        let commit = Commit::new(actions, operation, begun, self.now_ms());
        match table.commit(commit).await? {
            Outcome::Done => Ok(()),
            Outcome::Overtaken(reason) => {
                Err(Error::retry(format!("mend rows of `{}`", table.layout.name)).because(reason))
            }
        }
    }

    /// The actions that take rows out of the files in which they stand.
    async fn without(&self, table: &Table, source: SourceId, places: Arc<Places>) -> Result<Vec<Action>> {
        let own = match table.layout.partitioning {
            Partitioning::Column(_) => Some(PartitionValue::Text(source.0.to_owned())),
            Partitioning::Period { .. } | Partitioning::None => None,
        };
        let committed = table.view().committed.clone();
        let files = committed.files.iter().filter(|file| own.as_ref().is_none_or(|own| *own == file.value));
        let mut actions = Vec::new();
        for file in files.filter(|file| may_hold(file, &places)) {
            let rewrite = self.rewrite(table, vec![file.clone()], u64::MAX, true);
            let places = places.clone();
            let run = move || {
                let hits = Cell::new(0);
                let changed = rewrite.run(|batch| Some(others(batch, &places, &hits)))?;
                if hits.get() > 0 {
                    return Ok(changed);
                }
                rewrite.discard(changed);
                Ok(Vec::new())
            };
            actions.extend(finished(tokio::task::spawn_blocking(run)).await?);
        }
        Ok(actions)
    }
}

/// The rows at other places; counts those that are not.
fn others(batch: &RecordBatch, places: &Places, hits: &Cell<usize>) -> BooleanArray {
    let column = |place: usize| batch.column(place).as_primitive::<Int64Type>();
    let (partitions, offsets) = (column(0), column(1));
    let keep: BooleanArray = (0..batch.num_rows())
        .map(|row| Some(!places.contains(&(partitions.value(row) as Partition, offsets.value(row)))))
        .collect();
    hits.set(hits.get() + keep.false_count());
    keep
}

fn may_hold(file: &CommittedFile, places: &Places) -> bool {
    let within = |column: usize, value: i64| {
        let Some(bounds) = file.bounds.column_statistics.get(column) else { return true };
        let integer = |bound: Option<&ScalarValue>| match bound {
            Some(ScalarValue::Int64(bound)) => *bound,
            _ => None,
        };
        integer(bounds.min_value.get_value()).is_none_or(|low| low <= value)
            && integer(bounds.max_value.get_value()).is_none_or(|high| high >= value)
    };
    places.iter().any(|&(partition, offset)| within(0, i64::from(partition)) && within(1, offset))
}
