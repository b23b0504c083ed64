//! Removing data files that no reader needs any more.

use std::collections::HashSet;

use contract::Result;
use deltalake::Path;
use futures::stream::{self, StreamExt, TryStreamExt};

use crate::durable::STAGING_SUFFIX;
use crate::place::{Place, failed};
use crate::store::Inner;
use crate::table::Table;

impl Inner {
    /// Removes files that are no part of the table and for as long as the setting says were none: replaced ones by
    /// the time in the log, those that a crash left by their own. Answers how many.
    pub(crate) async fn vacuum(&self, table: &Table) -> Result<usize> {
        let retention_ms = self.settings.vacuum_retention_hours.saturating_mul(3_600_000);
        let cutoff_ms = self.now_ms().saturating_sub_unsigned(retention_ms);
        // First what is there and only then what is needed: what is written in between is not on the list.
        let place = &table.layout.place;
        let found = list(place, cutoff_ms).await?;
        if found.is_empty() {
            return Ok(0);
        }
        // Before the table's own: an exchange may make a draft's files the table's meanwhile.
        let beside = self.named_beside(table).await?;
        // Also what another process committed until now.
        table.refresh().await?;
        let Some((store, state)) = table.log().await else { return Ok(0) };
        let files = table.view().committed.clone();
        let mut needed: HashSet<Path> = files.files.iter().map(|file| place.location(&file.relative)).collect();
        needed.extend(beside.iter().map(|file| place.location(file)));
        let doing = || format!("read the removed files of `{}`", table.layout.name);
        let mut tombstones = state.all_tombstones(store.as_ref());
        while let Some(tombstone) = tombstones.try_next().await.map_err(|error| failed(doing(), error))? {
            if tombstone.deletion_timestamp().is_none_or(|time| time > cutoff_ms) {
                needed.insert(place.location(tombstone.path().as_ref()));
            }
        }
        let surplus: Vec<_> = found.into_iter().filter(|path| !needed.contains(path)).map(Ok).collect();
        let count = surplus.len();
        // One that another process removed meanwhile is no error.
        let mut removed = place.store().delete_stream(stream::iter(surplus).boxed());
        while let Some(removed) = removed.next().await {
            match removed {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(failed(format!("remove old files of `{}`", table.layout.name), error)),
            }
        }
        Ok(count)
    }
}

/// Data files, and what was never finished, last changed before the cutoff.
async fn list(place: &Place, cutoff_ms: i64) -> Result<Vec<Path>> {
    let log = place.location("_delta_log");
    let doing = || format!("list the files in `{}`", place.shown(""));
    let mut old = Vec::new();
    let mut all = place.store().list(Some(place.prefix()));
    while let Some(file) = all.try_next().await.map_err(|error| failed(doing(), error))? {
        let name = file.location.filename().unwrap_or_default();
        let in_log = file.location.prefix_matches(&log);
        let candidate = name.ends_with(STAGING_SUFFIX) || (name.ends_with(".parquet") && !in_log);
        if candidate && file.last_modified.timestamp_millis() < cutoff_ms {
            old.push(file.location);
        }
    }
    Ok(old)
}
