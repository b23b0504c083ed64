//! Opening: what a killed process left is cleaned, what is damaged is set aside, and the position falls back so that it is
//! built anew.
//!
//! A damaged index is moved to `quarantine/`. The checkpoint knows the lowest offset of its rows: the source's position
//! falls back to there, durably and before the move, so a crash in between loses nothing. The runtime then writes all rows from
//! that position again; the indices that are well have a mark of their own and skip them, the lost one is made anew.
//! A checkpoint that is damaged or missing is position 0, for the same reason and with the same, only longer, way back.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::{fs, io};

use contract::{Error, Positions, Result, RowSchema};

use crate::checkpoint::{self, Checkpoint, Unreadable};
use crate::directory::{file_names, sync_folder};
use crate::draft::finish_exchange;
use crate::fields::Fields;
use crate::index::{HotIndex, Unusable};
use crate::names::period;
use crate::source::{Common, HotSource, Progress};

/// What a folder is renamed to before it is deleted, so that it is gone at once or not at all.
pub(crate) const DELETED: &str = ".deleted";

/// The folder of what was found damaged.
const QUARANTINE: &str = "quarantine";

/// What was found in a source's part of the folder.
struct Found {
    indices: BTreeMap<String, Arc<HotIndex>>,
    unborn: Vec<String>,
    /// Names and reasons.
    damaged: Vec<(String, String)>,
}

impl HotSource {
    /// Opens a source's indices and mends what can be mended; answers what a person should know of, a sentence each.
    pub(crate) fn open(common: Common, schema: &'static RowSchema) -> Result<(Self, Vec<String>)> {
        let (folder, mut notes) = (&*common.folder, Vec::new());
        finish_exchange(folder, schema.source)?;
        delete_leftovers(folder, schema)?;
        let mut found = find(folder, schema)?;
        let mut checkpoint = load_checkpoint(folder, schema, &found, &mut notes)?;
        for name in std::mem::take(&mut found.unborn) {
            if checkpoint.first.contains_key(&name) {
                found.damaged.push((name, "all its files are missing".to_owned()));
            } else {
                // All that may stand in it is a first `meta.json` that was half written.
                fs::remove_dir_all(folder.join(&name)).map_err(|error| open_error(schema).because(error))?;
            }
        }
        set_aside(folder, schema, &found, &mut checkpoint, &mut notes)?;
        for index in found.indices.values() {
            index.delete_leftovers()?;
        }
        Ok((Self::with(common.clone(), schema, found.indices, checkpoint), notes))
    }

    /// Opens a source's indices as they are, to be read only.
    pub(crate) fn open_read_only(common: Common, schema: &'static RowSchema) -> Result<(Self, Vec<String>)> {
        let folder = &*common.folder;
        let found = find(folder, schema)?;
        let checkpoint = match Checkpoint::load(folder, schema.source) {
            Ok(checkpoint) => checkpoint.unwrap_or_default(),
            Err(Unreadable::Damaged(_)) => Checkpoint::default(),
            Err(Unreadable::Disk(error)) => return Err(open_error(schema).because(error)),
        };
        let note = |(name, reason): &(String, String)| format!("the index `{name}` is left out: {reason}");
        let notes = found.damaged.iter().map(note).collect();
        Ok((Self::with(common.clone(), schema, found.indices, checkpoint), notes))
    }

    /// Takes in what another process, which writes, did since.
    pub(crate) fn refresh(&self) -> Result<()> {
        let now = find(&self.common.folder, self.schema)?;
        if let Ok(Some(checkpoint)) = Checkpoint::load(&self.common.folder, self.id()) {
            self.progress.lock().unwrap_or_else(PoisonError::into_inner).checkpoint = checkpoint;
        }
        *self.indices.write().unwrap_or_else(PoisonError::into_inner) = now.indices;
        Ok(())
    }

    fn with(
        common: Common,
        schema: &'static RowSchema,
        indices: BTreeMap<String, Arc<HotIndex>>,
        checkpoint: Checkpoint,
    ) -> Self {
        Self {
            schema,
            common,
            fields: Arc::new(Fields::new(schema)),
            indices: RwLock::new(indices),
            progress: Mutex::new(Progress::at(checkpoint)),
        }
    }
}

/// Deletes what was on its way out when the process died.
fn delete_leftovers(folder: &Path, schema: &RowSchema) -> Result<()> {
    let clean = || -> io::Result<()> {
        for name in file_names(folder)? {
            let is_ours = name.strip_suffix(DELETED).is_some_and(|index| period(schema.source, index).is_some());
            if is_ours {
                fs::remove_dir_all(folder.join(name))?;
            }
        }
        Ok(())
    };
    clean().map_err(|error| open_error(schema).because(error))
}

fn find(folder: &Path, schema: &'static RowSchema) -> Result<Found> {
    let mut found = Found { indices: BTreeMap::new(), unborn: Vec::new(), damaged: Vec::new() };
    let names = file_names(folder).map_err(|error| open_error(schema).because(error))?;
    for name in names.into_iter().filter(|name| period(schema.source, name).is_some()) {
        match HotIndex::open(folder, &name, schema) {
            Ok(index) => {
                found.indices.insert(name, Arc::new(index));
            }
            // Another process may remove it while this one reads.
            Err(_) if !folder.join(&name).exists() => {}
            Err(Unusable::Unborn) => found.unborn.push(name),
            Err(Unusable::Damaged(reason)) => found.damaged.push((name, reason)),
            Err(Unusable::Disk(error)) => return Err(error),
        }
    }
    Ok(found)
}

fn load_checkpoint(folder: &Path, schema: &RowSchema, found: &Found, notes: &mut Vec<String>) -> Result<Checkpoint> {
    let source = schema.source;
    match Checkpoint::load(folder, source) {
        Ok(Some(checkpoint)) => Ok(checkpoint),
        Ok(None) => {
            if found.indices.values().any(|index| index.mark() != Positions::default()) {
                notes.push(format!("the checkpoint of `{source}` is missing: its position falls back to the start"));
            }
            Ok(Checkpoint::default())
        }
        Err(Unreadable::Disk(error)) => Err(open_error(schema).because(error)),
        Err(Unreadable::Damaged(reason)) => {
            let path = checkpoint::path(folder, source);
            let place = quarantine(folder, &path).map_err(|error| open_error(schema).because(error))?;
            notes.push(format!(
                "the checkpoint of `{source}` is damaged ({reason}) and stands in `{}` now: the position falls back to the start",
                place.display()
            ));
            Ok(Checkpoint::default())
        }
    }
}

/// Moves damaged indices out of the way, and falls back to before their rows and those of indices that are missing.
fn set_aside(
    folder: &Path,
    schema: &RowSchema,
    found: &Found,
    checkpoint: &mut Checkpoint,
    notes: &mut Vec<String>,
) -> Result<()> {
    let is_there = |name: &String| found.indices.contains_key(name) || found.damaged.iter().any(|(is, _)| is == name);
    let missing: Vec<String> = checkpoint.first.keys().filter(|name| !is_there(name)).cloned().collect();
    if missing.is_empty() && found.damaged.is_empty() {
        return Ok(());
    }
    let before = checkpoint.next.clone();
    for name in found.damaged.iter().map(|(name, _)| name).chain(&missing) {
        checkpoint.fall_back(name);
        checkpoint.first.remove(name);
    }
    checkpoint.save(folder, schema.source).map_err(|error| open_error(schema).because(error))?;
    for (name, reason) in &found.damaged {
        let place = quarantine(folder, &folder.join(name)).map_err(|error| open_error(schema).because(error))?;
        notes.push(format!("the index `{name}` is damaged ({reason}) and stands in `{}` now", place.display()));
    }
    notes.extend(missing.iter().map(|name| format!("the index `{name}` is missing")));
    let (before, after) = (text(&before), text(&checkpoint.next));
    notes.push(format!("the position of `{}` falls back from {before} to {after}, to build anew", schema.source));
    Ok(())
}

/// Moves a file or folder to a name in `quarantine/` that is free; durable when it returns.
fn quarantine(folder: &Path, path: &Path) -> io::Result<PathBuf> {
    let aside = folder.join(QUARANTINE);
    fs::create_dir_all(&aside)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let free = |number: &u32| !aside.join(format!("{name}.{number}")).exists();
    let number = (1..u32::MAX).find(free).ok_or(io::ErrorKind::AlreadyExists)?;
    let place = aside.join(format!("{name}.{number}"));
    fs::rename(path, &place)?;
    sync_folder(&aside)?;
    sync_folder(folder)?;
    Ok(place)
}

fn text(positions: &Positions) -> String {
    let parts = positions.0.iter().map(|(partition, next)| format!("{partition}:{next}"));
    format!("[{}]", parts.collect::<Vec<_>>().join(" "))
}

fn open_error(schema: &RowSchema) -> Error {
    Error::stop(format!("open the hot store of `{}`", schema.source))
}
