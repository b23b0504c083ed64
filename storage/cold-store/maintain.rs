//! Keeping house: fewer and larger files, checkpoints, and no more of the past than the settings say.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use contract::{Error, Result};
use deltalake::DeltaTable;
use deltalake::protocol::DeltaOperation;
use deltalake::protocol::checkpoints::{cleanup_expired_logs_for, create_checkpoint};

use crate::layout::PartitionValue;
use crate::marks::Moves;
use crate::rewrite::Rewrite;
use crate::store::{Inner, finished};
use crate::table::{Commit, CommittedFile, Outcome, Table, failed};

impl Inner {
    /// See [`contract::ColdStore::maintain`].
    pub(crate) async fn maintain(&self) -> Result<Vec<String>> {
        self.check_writable()?;
        let Ok(_turn) = self.maintenance.try_lock() else {
            return Ok(vec!["maintenance is running already".to_owned()]);
        };
        let (mut lines, mut failed) = (Vec::new(), None);
        let mut tables = self.tables();
        tables.extend(self.gold_tables().await);
        for table in tables {
            match self.maintain_table(&table).await {
                Ok(line) => lines.push(line),
                // The other tables need it all the same.
                Err(error) => {
                    tracing::warn!(table = table.layout.name, "`{}` was not maintained: {error}", table.layout.name);
                    failed.get_or_insert(error);
                }
            }
        }
        failed.map_or(Ok(lines), Err)
    }

    async fn maintain_table(&self, table: &Table) -> Result<String> {
        if self.access.has_others() {
            table.refresh().await?;
        }
        let (before, after) = self.compact(table).await?;
        let checkpoint = self.checkpoint(table).await?;
        let cleaned = self.clean_log(table).await?;
        let removed = self.vacuum(table).await?;
        let checkpoint = checkpoint.map_or_else(String::new, |version| format!(", checkpoint at {version}"));
        let name = &table.layout.name;
        Ok(format!(
            "`{name}`: {before} files compacted into {after}, {removed} files and {cleaned} log entries removed{checkpoint}"
        ))
    }

    /// Compacts the small files of each partition value; answers how many files became how many.
    async fn compact(&self, table: &Table) -> Result<(usize, usize)> {
        let committed = table.view().committed.clone();
        let mut by_value: BTreeMap<&PartitionValue, Vec<&Arc<CommittedFile>>> = BTreeMap::new();
        for file in &committed.files {
            by_value.entry(&file.value).or_default().push(file);
        }
        let (mut before, mut after) = (0, 0);
        for files in by_value.into_values() {
            let chosen = choose(&files, self.settings.target_file_bytes, self.settings.compaction_files_min);
            if chosen.is_empty() {
                continue;
            }
            let (count, begun) = (chosen.len(), Instant::now());
            let rewrite = Rewrite {
                layout: table.layout.clone(),
                properties: self.properties.clone(),
                files: chosen,
                target_bytes: self.settings.target_file_bytes,
                now: self.clock.now(),
                data_change: false,
            };
            let actions = finished(tokio::task::spawn_blocking(move || rewrite.run(|_| None))).await?;
            let target_size = i64::try_from(self.settings.target_file_bytes).unwrap_or(i64::MAX);
            let operation = DeltaOperation::Optimize { predicate: None, target_size };
            let new = actions.len() - count;
            let commit = Commit { actions, moves: Moves::none(), operation, begun, now_ms: self.now_ms() };
            match table.commit(commit).await? {
                Outcome::Done => (before, after) = (before + count, after + new),
                // Another process did it.
                Outcome::Overtaken(reason) => tracing::debug!(table = table.layout.name, "{reason}"),
            }
        }
        Ok((before, after))
    }

    /// Writes a checkpoint if enough commits came since the last; answers its version.
    async fn checkpoint(&self, table: &Table) -> Result<Option<u64>> {
        let Some((store, state)) = table.log().await else { return Ok(None) };
        let last = last_checkpoint(&table.layout.root.join("_delta_log"));
        let last =
            last.map_err(|error| Error::stop(format!("list the log of `{}`", table.layout.name)).because(error))?;
        if state.version() < last.unwrap_or(0) + self.settings.checkpoint_interval_commits {
            return Ok(None);
        }
        let doing = || format!("write a checkpoint of `{}`", table.layout.name);
        let mut fresh = DeltaTable::new(store);
        fresh.load().await.map_err(|error| failed(doing(), error))?;
        create_checkpoint(&fresh, None).await.map_err(|error| failed(doing(), error))?;
        table.reload().await?;
        Ok(fresh.version())
    }

    /// Removes log entries that are old enough and that a checkpoint covers; answers how many.
    async fn clean_log(&self, table: &Table) -> Result<usize> {
        let Some((store, state)) = table.log().await else { return Ok(0) };
        let retention_ms = self.settings.log_retention_hours.saturating_mul(3_600_000);
        let cutoff_ms = self.now_ms().saturating_sub_unsigned(retention_ms);
        let cleaned = cleanup_expired_logs_for(state.version(), store.as_ref(), cutoff_ms, None).await;
        let cleaned = cleaned.map_err(|error| failed(format!("clean the log of `{}`", table.layout.name), error))?;
        if cleaned > 0 {
            // What was read before names entries that are gone.
            table.reload().await?;
        }
        Ok(cleaned)
    }
}

/// The smallest files that together make a worthwhile new one: at least `count_min`, no more than `target_bytes`,
/// and none larger than all smaller ones together. So each row is rewritten about as many times as the size
/// doubles, not each time.
fn choose(files: &[&Arc<CommittedFile>], target_bytes: u64, count_min: usize) -> Vec<Arc<CommittedFile>> {
    let mut by_size = files.to_vec();
    by_size.sort_by_key(|file| file.bytes);
    let (mut total, mut count) = (0_u64, 0);
    for file in &by_size {
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

fn last_checkpoint(log: &Path) -> std::io::Result<Option<u64>> {
    let mut last = None;
    for entry in fs::read_dir(log)? {
        let name = entry?.file_name();
        let Some((version, kind)) = name.to_str().and_then(|name| name.split_once('.')) else { continue };
        if kind.starts_with("checkpoint")
            && let Ok(version) = version.parse::<u64>()
        {
            last = last.max(Some(version));
        }
    }
    Ok(last)
}
