//! The folders of a process: where it locks, spills, and has tables and views, if they are of this disk.

use std::fs;
use std::path::{Path, PathBuf};

use contract::{Error, Result};

use crate::Settings;
use crate::durable::create_directory;
use crate::place::Place;
use crate::remote::is_remote;

/// Where this process locks, spills and, if the store is of this disk, keeps the tables: `directory`, unless `cold.url` is
/// another folder.
pub(crate) fn folder(directory: &Path, settings: &Settings) -> Result<PathBuf> {
    let other = settings.url.strip_prefix("file://").unwrap_or(&settings.url);
    let folder = if other.is_empty() || is_remote(other) { directory } else { Path::new(other) };
    std::path::absolute(folder)
        .map_err(|error| Error::change(format!("open the cold store `{}`", folder.display())).because(error))
}

/// Where the tables lie, by `cold.url`, for a process that has the folder `directory` and may write files into `spill`.
pub(crate) fn place(directory: &Path, settings: &Settings, spill: Option<PathBuf>) -> Result<Place> {
    settings.check()?;
    if is_remote(&settings.url) { Place::remote(settings, spill) } else { Place::on_disk(directory) }
}

/// Makes the folder of a store; answers its path from the root.
pub(crate) fn make(directory: &Path, settings: &Settings) -> Result<PathBuf> {
    let folder = folder(directory, settings)?;
    let made = create_directory(&folder).and_then(|()| fs::canonicalize(&folder));
    made.map_err(|error| Error::stop(format!("open the cold store `{}`", folder.display())).because(error))
}

/// The settings with paths that do not depend on where the process stands: what is relative is so to the data directory,
/// in which the store's lies.
pub(crate) fn rooted(settings: Settings, directory: &Path) -> Settings {
    let views_folder = directory.parent().unwrap_or(directory).join(&settings.views_folder);
    Settings { views_folder, ..settings }
}
