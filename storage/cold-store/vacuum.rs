//! Removing data files that no reader needs any more.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use contract::{Error, Result};
use futures::TryStreamExt;

use crate::durable::STAGING_SUFFIX;
use crate::store::{Inner, finished};
use crate::table::{Table, failed};

impl Inner {
    /// Removes files that are no part of the table and for as long as the setting says were none: replaced ones by
    /// the time in the log, those that a crash left by their own. Answers how many.
    pub(crate) async fn vacuum(&self, table: &Table) -> Result<usize> {
        let retention_ms = self.settings.vacuum_retention_hours.saturating_mul(3_600_000);
        let cutoff_ms = self.now_ms().saturating_sub_unsigned(retention_ms);
        // First what is there and only then what is needed: what is written in between is not on the list.
        let root = table.layout.root.clone();
        let found = finished(tokio::task::spawn_blocking(move || list(&root, cutoff_ms))).await?;
        if found.is_empty() {
            return Ok(0);
        }
        // Also what another process committed until now.
        table.refresh().await?;
        let Some((store, state)) = table.log().await else { return Ok(0) };
        let mut needed: HashSet<PathBuf> = table.view().committed.files.iter().map(|file| file.path.clone()).collect();
        let doing = || format!("read the removed files of `{}`", table.layout.name);
        let mut tombstones = state.all_tombstones(store.as_ref());
        while let Some(tombstone) = tombstones.try_next().await.map_err(|error| failed(doing(), error))? {
            if tombstone.deletion_timestamp().is_none_or(|time| time > cutoff_ms) {
                needed.insert(table.layout.root.join(tombstone.path().as_ref()));
            }
        }
        let surplus: Vec<PathBuf> = found.into_iter().filter(|path| !needed.contains(path)).collect();
        finished(tokio::task::spawn_blocking(move || remove(&surplus))).await
    }
}

/// Data files, and what was never finished, last changed before the cutoff.
fn list(root: &Path, cutoff_ms: i64) -> Result<Vec<PathBuf>> {
    let mut old = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let failed = |error: io::Error| Error::stop(format!("list the files in `{}`", folder.display())).because(error);
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let metadata = match entry.metadata() {
                // Another process gave it its name, or removed it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                metadata => metadata.map_err(failed)?,
            };
            let name = entry.file_name().to_string_lossy().into_owned();
            if metadata.is_dir() {
                folders.push(entry.path());
                continue;
            }
            let in_log = folder.ends_with("_delta_log");
            let candidate = name.ends_with(STAGING_SUFFIX) || (name.ends_with(".parquet") && !in_log);
            let changed = metadata.modified().map_err(failed)?.duration_since(UNIX_EPOCH).unwrap_or_default();
            if candidate && changed.as_millis() < u128::from(cutoff_ms.max(0).unsigned_abs()) {
                old.push(entry.path());
            }
        }
    }
    Ok(old)
}

fn remove(paths: &[PathBuf]) -> Result<usize> {
    for path in paths {
        match fs::remove_file(path) {
            // Another process did.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => {
                removed.map_err(|error| Error::stop(format!("remove the file `{}`", path.display())).because(error))?;
            }
        }
    }
    Ok(paths.len())
}
