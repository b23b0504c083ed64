//! The table in which a view's result is stored, and what its last run says of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use contract::{Positions, Result, SourceId, Timestamp};
use serde::{Deserialize, Serialize};

use super::check::Shape;
use super::file::ViewFile;
use crate::committed::Committed;
use crate::layout::Layout;
use crate::store::Inner;
use crate::table::Table;

/// Where the table's metadata keeps the [`Run`] that made it.
pub(crate) const RUN_KEY: &str = "databroker.run";

/// The run that made a stored result: a part of the table's metadata, so that it becomes true with the rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Run {
    /// [`ViewFile::fingerprint`].
    pub(crate) fingerprint: String,
    /// When it began.
    pub(crate) at: Timestamp,
    /// What it read, by source.
    pub(crate) read: BTreeMap<String, Read>,
}

/// What a run read of one source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Read {
    /// The id of silver's table: another one has other versions.
    pub(crate) table: String,
    /// Silver's version.
    pub(crate) version: u64,
    /// The next offsets.
    pub(crate) watermark: Positions,
}

/// The table of a view, opened.
pub(crate) struct Gold {
    pub(crate) table: Arc<Table>,
    pub(crate) fingerprint: String,
}

impl Gold {
    /// What the table holds, and the run that made it; nothing if that was made by another statement.
    pub(crate) fn current(&self) -> Option<(Arc<Committed>, Run)> {
        let committed = self.table.view().committed.clone();
        let run = committed.run()?;
        (run.fingerprint == self.fingerprint).then_some((committed, run))
    }

    /// The starts of the appIds of its `txn` actions: the watermark in a source, and the count of its runs.
    pub(crate) fn prefix(&self, of: &str) -> String {
        format!("databroker/{}/{of}", self.table.layout.name)
    }
}

impl Committed {
    /// The run that made a stored result.
    pub(crate) fn run(&self) -> Option<Run> {
        self.configuration.get(RUN_KEY).and_then(|run| serde_json::from_str(run).ok())
    }
}

/// The count of a table's runs, among its sources.
pub(crate) const RUNS: &str = "runs";

impl Inner {
    /// The table of a view as its file is now.
    pub(crate) async fn gold(&self, view: &ViewFile, shape: &Shape) -> Result<Arc<Gold>> {
        let fingerprint = view.fingerprint();
        let mut known = self.gold.lock().await;
        let gold = match known.get(&view.name).filter(|gold| gold.fingerprint == fingerprint) {
            Some(gold) => gold.clone(),
            None => {
                let period = shape.time.map(|(_, period)| period);
                let layout = Layout::gold(&view.name, &self.place, &shape.columns, period);
                let names = shape.sources.iter().map(|source: &SourceId| source.0).chain([RUNS]);
                let prefixes = names.map(|name| format!("databroker/{}/{name}", layout.name)).collect();
                let table = Arc::new(Table::open_read_only(layout, prefixes).await?);
                let gold = Arc::new(Gold { table, fingerprint });
                known.insert(view.name.clone(), gold.clone());
                gold
            }
        };
        drop(known);
        gold.table.refresh().await?;
        Ok(gold)
    }

    /// The tables of views that were opened, for maintenance.
    pub(crate) async fn gold_tables(&self) -> Vec<Arc<Table>> {
        let known = self.gold.lock().await;
        // Before its first run there is none.
        known.values().map(|gold| gold.table.clone()).filter(|table| table.view().committed.version.is_some()).collect()
    }
}
