//! Keeping house: fewer and larger files, checkpoints, and no more of the past than the settings say.

use contract::Result;
use deltalake::DeltaTable;
use deltalake::protocol::checkpoints::{cleanup_expired_logs_for, create_checkpoint};
use futures::TryStreamExt;

use crate::place::{self, Place};
use crate::store::Inner;
use crate::table::{Table, failed};

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
        match self.forget_previous().await {
            Ok(forgotten) => lines.extend(forgotten),
            Err(error) => drop(failed.get_or_insert(error)),
        }
        failed.map_or(Ok(lines), Err)
    }

    async fn maintain_table(&self, table: &Table) -> Result<String> {
        if self.has_others() {
            table.refresh().await?;
        }
        // Files of other columns stay as they are: they are to be made anew, and another version may go on with them.
        let (before, after) = if table.is_of_other_columns() { (0, 0) } else { self.compact(table).await? };
        let checkpoint = self.checkpoint(table).await?;
        let cleaned = self.clean_log(table).await?;
        let removed = self.vacuum(table).await?;
        let checkpoint = checkpoint.map_or_else(String::new, |version| format!(", checkpoint at {version}"));
        let name = &table.layout.name;
        Ok(format!(
            "`{name}`: {before} files compacted into {after}, {removed} files and {cleaned} log entries removed{checkpoint}"
        ))
    }

    /// Writes a checkpoint if enough commits came since the last; answers its version.
    async fn checkpoint(&self, table: &Table) -> Result<Option<u64>> {
        let Some((store, state)) = table.log().await else { return Ok(None) };
        let last = last_checkpoint(&table.layout.log).await;
        let last = last.map_err(|error| place::failed(format!("list the log of `{}`", table.layout.name), error))?;
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

async fn last_checkpoint(place: &Place) -> object_store::Result<Option<u64>> {
    let mut last = None;
    let mut log = place.store().list(Some(&place.location("_delta_log")));
    while let Some(entry) = log.try_next().await? {
        let Some((version, kind)) = entry.location.filename().and_then(|name| name.split_once('.')) else { continue };
        if kind.starts_with("checkpoint")
            && let Ok(version) = version.parse::<u64>()
        {
            last = last.max(Some(version));
        }
    }
    Ok(last)
}
