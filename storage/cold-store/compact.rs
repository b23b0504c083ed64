//! Compaction: small files become large ones, whose rows stand together by what queries filter on.
//!
//! It goes in steps, each a commit of its own: the small files of one partition value, up to the size that a file is to have.
//! A step reads and writes a row group at a time, and what it sorts spills to disk as queries do, so the memory does not grow
//! with the table.
//!
//! Rows of silver are sorted by the columns that `cold.cluster_by` names: files and row groups then have narrow bounds of
//! them, and a query that filters on one skips most.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use contract::{Error, Remedy, Result};
use deltalake::kernel::Action;
use deltalake::protocol::DeltaOperation;
use futures::StreamExt;
use tokio::runtime::Handle;

use crate::committed::{Committed, CommittedFile};
use crate::layout::PartitionValue;
use crate::rewrite::Rewrite;
use crate::scan::Scan;
use crate::store::{Inner, finished};
use crate::table::{Commit, Outcome, Table, View};

/// Files of one step at the most: what is kept of each while it is read, however small it is, bounds the memory too.
const STEP_FILES_MAX: usize = 500;

impl Inner {
    /// Compacts the small files of each partition value; answers how many files became how many.
    pub(crate) async fn compact(&self, table: &Table) -> Result<(usize, usize)> {
        let committed = table.view().committed.clone();
        let mut by_value: BTreeMap<&PartitionValue, Vec<&Arc<CommittedFile>>> = BTreeMap::new();
        for file in &committed.files {
            by_value.entry(&file.value).or_default().push(file);
        }
        let (mut before, mut after) = (0, 0);
        for mut files in by_value.into_values() {
            loop {
                let chosen = choose(&files, self.settings.target_file_bytes, self.settings.compaction_files_min);
                if chosen.is_empty() {
                    break;
                }
                let names: HashSet<&str> = chosen.iter().map(|file| file.relative.as_str()).collect();
                files.retain(|file| !names.contains(file.relative.as_str()));
                let (count, begun) = (chosen.len(), Instant::now());
                let actions = self.compacted(table, &chosen).await?;
                let target_size = i64::try_from(self.settings.target_file_bytes).unwrap_or(i64::MAX);
                let operation = DeltaOperation::Optimize { predicate: None, target_size };
                let new = actions.len() - count;
                match table.commit(Commit::new(actions, operation, begun, self.now_ms())).await? {
                    Outcome::Done => (before, after) = (before + count, after + new),
                    // Another process did it.
                    Outcome::Overtaken(reason) => tracing::debug!(table = table.layout.name, "{reason}"),
                }
            }
        }
        Ok((before, after))
    }

    /// Writes the rows of files into new ones; answers the actions that put these in their place.
    async fn compacted(&self, table: &Table, files: &[Arc<CommittedFile>]) -> Result<Vec<Action>> {
        let rewrite = || self.rewrite(table, files.to_vec(), self.settings.target_file_bytes, false);
        match self.clustered(table, rewrite()).await {
            // Queries may have all memory that sorting may take; then the rows keep their order until the next time.
            Err(error) if error.remedy() == Remedy::Retry => {
                tracing::debug!(table = table.layout.name, "compacted without clustering: {error}");
            }
            clustered => return clustered,
        }
        let rewrite = rewrite();
        finished(tokio::task::spawn_blocking(move || rewrite.run(|_| None))).await
    }

    async fn clustered(&self, table: &Table, rewrite: Rewrite) -> Result<Vec<Action>> {
        let columns = self.cluster_columns(table);
        if columns.is_empty() {
            return finished(tokio::task::spawn_blocking(move || rewrite.run(|_| None))).await;
        }
        let order: Vec<_> = columns.iter().map(|column| format!("\"{column}\"")).collect();
        let name = &table.layout.name;
        let query = format!("SELECT * FROM {name} ORDER BY {}, _partition, _offset", order.join(", "));
        let committed = Committed { files: rewrite.files.clone(), ..Committed::default() };
        let view = View { committed: Arc::new(committed), pending: Vec::new() };
        let mut sorted = self.engine.scan(&query, vec![Scan::named(table.layout.clone(), view)]).await?.batches;
        let write = move || {
            let handle = Handle::current();
            rewrite.replace(std::iter::from_fn(|| handle.block_on(sorted.next())))
        };
        finished(tokio::task::spawn_blocking(write)).await
    }

    /// The columns of a table by which its rows are sorted, the first one first.
    fn cluster_columns(&self, table: &Table) -> Vec<String> {
        let layout = &table.layout;
        let Some(source) = layout.name.strip_prefix("silver.") else { return Vec::new() };
        let named = self.settings.cluster_by.iter().filter_map(|name| name.split_once('.'));
        let own = named.filter(|(of, _)| *of == source).map(|(_, column)| column.to_owned());
        own.filter(|column| layout.files.field_with_name(column).is_ok()).collect()
    }
}

impl crate::Settings {
    /// Checks that the columns which `cluster_by` names are there and can be sorted by.
    ///
    /// # Errors
    /// `Change`, with the name.
    pub fn check_clustering(&self, schemas: &[&contract::RowSchema]) -> Result<()> {
        for name in &self.cluster_by {
            let found = name.split_once('.').and_then(|(source, column)| {
                let schema = schemas.iter().find(|schema| schema.source.0 == source)?;
                let field = schema.arrow().field_with_name(column).cloned().ok()?;
                (!field.data_type().is_nested()).then_some(())
            });
            if found.is_none() {
                return Err(Error::change(format!(
                    "use the setting `cold.cluster_by`: `{name}` is no column with one value a row (as `github.type`)"
                )));
            }
        }
        Ok(())
    }
}

/// The smallest files that together make a worthwhile new one: at least `count_min`, no more than `target_bytes`,
/// and none larger than all smaller ones together. So each row is rewritten about as many times as the size
/// doubles, not each time.
fn choose(files: &[&Arc<CommittedFile>], target_bytes: u64, count_min: usize) -> Vec<Arc<CommittedFile>> {
    let mut by_size = files.to_vec();
    by_size.sort_by_key(|file| file.bytes);
    let (mut total, mut count) = (0_u64, 0);
    for file in by_size.iter().take(STEP_FILES_MAX) {
        let outgrows = count >= count_min && file.bytes > total;
        if outgrows || total.saturating_add(file.bytes) > target_bytes {
            break;
        }
        total += file.bytes;
        count += 1;
    }
    if count < count_min {
        return Vec::new();
    }
    let mut chosen: Vec<_> = by_size.into_iter().take(count).cloned().collect();
    chosen.sort_by(|one, other| (one.modified_ms, &one.relative).cmp(&(other.modified_ms, &other.relative)));
    chosen
}
