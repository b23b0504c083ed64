//! Watches a folder of captures: each file is read by the source's file collector once it is whole.
//!
//! | case | outcome |
//! | --- | --- |
//! | a file that was renamed into the folder | read at once |
//! | a file whose bytes and time did not change for `dns.directory_settle_seconds` | read |
//! | hidden files, `*.tmp`, `*.part`, empty ones, folders, pipes | left alone |
//! | a file that was read, under another name or time | its content's hash is known: not read again |
//! | a file that grew after it was read, its start the same | read on: as many records as were logged are passed over |
//! | a file that became another one | read |
//! | a file that is gone before it was read whole | a line of what was missed |
//! | a file that cannot be read | an error is reported once, the others go on; it is tried again when it changes |
//! | more than 2,048 files | an error: the cursor names each, so that none is read twice; move away what was read |
//!
//! The oldest file comes first, so that captures that follow each other are read in their order. The folder is listed
//! each second: that works on every file system, and nothing depends on an event that was not delivered.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use contract::{
    Clock, Collector, CollectorId, Coverage, CoverageKind, Cursor, Error, Harvest, Remedy, Result, SourceId, Timestamp,
};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::renames::Renames;
use crate::OpenFile;
use crate::file::{cursor_after, hash_start};

/// Files of a folder. Each takes about 85 bytes of the cursor, which every harvest carries.
const FILES_MAX: usize = 2_048;

/// Hexadecimal digits of a file's hash that are kept.
const CONTENT_DIGITS: usize = 16;

/// Between two looks at the folder.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Notes of one file that become lines of coverage.
const NOTES_MAX: usize = 16;

/// Opens a file; blocks for as long as reading it once takes.
pub(super) type OpenCapture = Arc<dyn Fn(&Path) -> Result<OpenFile> + Send + Sync>;

/// See the module.
pub(super) struct FolderCollector {
    id: CollectorId,
    source: SourceId,
    folder: PathBuf,
    settle: Duration,
    clock: Arc<dyn Clock>,
    open: OpenCapture,
    renames: Option<Renames>,
    /// Files that were renamed in and not read yet, by name.
    renamed: HashSet<String>,
    /// Files that are not settled: what they looked like, and since when.
    unsettled: HashMap<String, (String, Timestamp)>,
    /// Files that could not be read, by how they looked.
    failed: HashSet<String>,
    reading: Option<OpenFile>,
}

/// Where the collector stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Progress {
    /// Files of the folder that were read, by the hash of their name.
    read: BTreeMap<String, WasRead>,
    /// The one that is being read.
    file: Option<Reading>,
}

/// A file as it was when it was read: its look, the hash of its content, its length, and its records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct WasRead(String, String, u64, u64);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reading {
    name: String,
    look: String,
    content: String,
    bytes: u64,
    /// The file collector's.
    cursor: String,
    /// Records that were passed over, since they were logged before the file grew.
    passed: u64,
    /// Records logged since.
    records: u64,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
}

/// One file as the folder lists it.
#[derive(Clone, Debug)]
struct Listed {
    name: String,
    /// Hash of the name.
    key: String,
    /// Hash of name, length and time of the last write.
    look: String,
    bytes: u64,
    modified: Timestamp,
}

impl FolderCollector {
    /// A collector of one folder.
    pub(super) fn new(
        source: SourceId,
        folder: PathBuf,
        settle: Duration,
        clock: Arc<dyn Clock>,
        open: OpenCapture,
    ) -> Self {
        let id = CollectorId(format!("{source}/directory:{}", folder.display()));
        let (renamed, unsettled, failed) = Default::default();
        Self { id, source, folder, settle, clock, open, renames: None, renamed, unsettled, failed, reading: None }
    }

    /// The next file that is whole and was not read; the content of one that was, under another look, is noted.
    async fn next_file(&mut self, progress: &mut Progress) -> Result<()> {
        let listed = self.list().await?;
        let keys: HashSet<&str> = listed.iter().map(|file| file.key.as_str()).collect();
        progress.read.retain(|key, _| keys.contains(key.as_str()));
        self.failed.retain(|look| listed.iter().any(|file| file.look == *look));
        for file in self.whole(&listed, progress) {
            let opened = match self.open_file(&file.name).await {
                Ok(opened) => opened,
                Err(error) => {
                    self.failed.insert(file.look);
                    return Err(error);
                }
            };
            self.renamed.remove(&file.name);
            let content = content(&opened);
            if let Some(WasRead(_, _, bytes, records)) =
                progress.read.values().find(|WasRead(_, known, ..)| *known == content).cloned()
            {
                progress.read.insert(file.key, WasRead(file.look, content, bytes, records));
                continue;
            }
            let passed = Self::passed(self.folder.join(&file.name), &file, progress.read.get(&file.key)).await;
            let cursor = if passed == 0 { Cursor::default() } else { cursor_after(passed)? };
            let Listed { name, look, bytes, .. } = file;
            let (cursor, records, from, to) = (cursor.0, 0, None, None);
            self.reading = Some(opened);
            progress.file = Some(Reading { name, look, content, bytes, cursor, passed, records, from, to });
            break;
        }
        Ok(())
    }

    /// How many records of a file were logged before it grew.
    async fn passed(path: PathBuf, file: &Listed, before: Option<&WasRead>) -> u64 {
        let Some(WasRead(_, content, bytes, records)) = before.cloned() else { return 0 };
        if file.bytes <= bytes {
            return 0;
        }
        match tokio::task::spawn_blocking(move || hash_start(&path, bytes)).await {
            Ok(Ok((hash, _))) if hash.starts_with(&content) => records,
            _ => 0,
        }
    }

    async fn list(&mut self) -> Result<Vec<Listed>> {
        let failed = |error: io::Error| {
            Error::retry(format!("list the folder `{}` of `dns.directories`", self.folder.display())).because(error)
        };
        // Before the listing, so that a file is in it that is renamed in the moment after.
        match &self.renames {
            Some(renames) => self.renamed.extend(renames.take()),
            None => self.renames = Renames::of(&self.folder),
        }
        let folder = self.folder.clone();
        let listed = tokio::task::spawn_blocking(move || list(&folder)).await;
        let listed = listed.map_err(|error| failed(io::Error::other(error)))?.map_err(failed)?;
        if listed.len() > FILES_MAX {
            let count = listed.len();
            let right = format!("it has {count} files, {FILES_MAX} at the most: move away those that were read");
            return Err(failed(io::Error::other(right)));
        }
        Ok(listed)
    }

    /// Files that were not read and will not change any more, the oldest first.
    fn whole(&mut self, listed: &[Listed], progress: &Progress) -> Vec<Listed> {
        let now = self.clock.now();
        let settle = self.settle.as_micros() as i64;
        let mut unsettled = HashMap::new();
        let mut whole = Vec::new();
        for file in listed {
            let was_read = progress.read.get(&file.key).is_some_and(|WasRead(look, ..)| *look == file.look);
            if was_read || self.failed.contains(&file.look) {
                continue;
            }
            let same = self.unsettled.get(&file.name).filter(|(look, _)| *look == file.look);
            let since = same.map_or(now, |&(_, since)| since);
            // The second for clocks of file servers that are ahead of ours.
            let is_settled = now.0 - file.modified.0 >= settle || now.0 - since.0 >= settle;
            if is_settled || self.renamed.contains(&file.name) {
                whole.push(file.clone());
            } else {
                unsettled.insert(file.name.clone(), (file.look.clone(), since));
            }
        }
        self.unsettled = unsettled;
        self.renamed.retain(|name| whole.iter().any(|file| file.name == *name));
        whole.sort_by(|a, b| (a.modified, &a.name).cmp(&(b.modified, &b.name)));
        whole
    }

    /// The future borrows nothing: an open file may not be looked at by two threads at once.
    fn open_file(&self, name: &str) -> impl Future<Output = Result<OpenFile>> + Send + use<> {
        let (open, folder, path) = (self.open.clone(), self.folder.clone(), self.folder.join(name));
        async move {
            let failed = || Error::retry(format!("watch `{}`", folder.display()));
            let opened = tokio::task::spawn_blocking(move || open(&path)).await;
            let opened = opened.map_err(|error| failed().because(error))?;
            opened.map_err(|error| match error.remedy() {
                Remedy::Stop => error,
                _ => failed().because(error),
            })
        }
    }

    fn line(&self, kind: CoverageKind, reading: &Reading, records: u64, reason: String) -> Coverage {
        let now = self.clock.now();
        let (from, to) = (reading.from.unwrap_or(now), reading.to.unwrap_or(now));
        let (source, collector) = (self.source.0.to_owned(), self.id.0.clone());
        Coverage { source, collector, kind, from, to: Timestamp(to.0.saturating_add(1)), records, reason }
    }

    fn harvest(&self, progress: &Progress) -> Result<Harvest> {
        let cursor = serde_json::to_string(progress).map_err(|error| Error::stop("write a cursor").because(error))?;
        Ok(Harvest {
            source: self.source,
            collector: self.id.clone(),
            records: Vec::new(),
            coverage: Vec::new(),
            cursor: Cursor(cursor),
            poll_again_in: Some(Duration::ZERO),
            acknowledge: None,
        })
    }

    /// What of the open file comes next.
    async fn read_on(&mut self, mut progress: Progress, mut reading: Reading) -> Result<Harvest> {
        let Some(file) = &mut self.reading else { return self.harvest(&progress) };
        let polled = file.collector.poll(&Cursor(reading.cursor.clone())).await;
        let brought = match polled {
            Ok(brought) => brought,
            Err(error) if error.remedy() == Remedy::Stop => return Err(error),
            Err(error) => {
                self.reading = None;
                self.failed.insert(reading.look.clone());
                progress.file = None;
                let reason = format!("`{}`: {error}", reading.name);
                let coverage = vec![self.line(CoverageKind::Missed, &reading, 0, reason)];
                return Ok(Harvest { coverage, ..self.harvest(&progress)? });
            }
        };
        let times = brought.records.iter().map(|record| record.event_time);
        reading.from = times.clone().chain(reading.from).min();
        reading.to = times.chain(reading.to).max();
        reading.records += brought.records.len() as u64;
        reading.cursor = brought.cursor.0;
        let mut coverage = Vec::new();
        if brought.poll_again_in.is_some() {
            progress.file = Some(reading);
        } else {
            let notes = self.reading.take().map(|file| file.notes);
            let notes =
                notes.map(|notes| notes.lock().map_or_else(|error| error.into_inner().clone(), |notes| notes.clone()));
            let covered = format!("the file `{}`", reading.name);
            coverage.push(self.line(CoverageKind::Covered, &reading, reading.records, covered));
            let notes = notes.into_iter().flatten().take(NOTES_MAX);
            coverage.extend(notes.map(|note| self.line(CoverageKind::Missed, &reading, 0, note)));
            let records = reading.passed + reading.records;
            progress.read.insert(key(&reading.name), WasRead(reading.look, reading.content, reading.bytes, records));
            progress.file = None;
        }
        Ok(Harvest { records: brought.records, coverage, ..self.harvest(&progress)? })
    }
}

#[async_trait]
impl Collector for FolderCollector {
    fn id(&self) -> CollectorId {
        self.id.clone()
    }

    async fn poll(&mut self, cursor: &Cursor) -> Result<Harvest> {
        let mut progress: Progress = match cursor.0.as_str() {
            "" => Progress::default(),
            text => serde_json::from_str(text)
                .map_err(|error| Error::stop(format!("read the cursor of `{}`", self.id)).because(error))?,
        };
        if progress.file.is_none() {
            self.reading = None;
            self.next_file(&mut progress).await?;
        }
        let Some(reading) = progress.file.take() else {
            return Ok(Harvest { poll_again_in: Some(LOOK_INTERVAL), ..self.harvest(&progress)? });
        };
        if self.reading.is_none() {
            // None where it is gone or another.
            let opened = self.open_file(&reading.name).await.ok();
            self.reading = opened.filter(|opened| content(opened) == reading.content);
        }
        if self.reading.is_none() {
            let reason = format!("`{}` is gone, or another, before it was read whole", reading.name);
            let coverage = vec![self.line(CoverageKind::Missed, &reading, 0, reason)];
            return Ok(Harvest { coverage, ..self.harvest(&progress)? });
        }
        self.read_on(progress, reading).await
    }
}

/// The start of the hash that names the file's collector: enough to tell [`FILES_MAX`] apart.
fn content(file: &OpenFile) -> String {
    let id = file.collector.id().0;
    let hash = id.rsplit('/').next().unwrap_or_default();
    hash.chars().take(CONTENT_DIGITS).collect()
}

fn key(name: &str) -> String {
    format!("{:016x}", xxh3_64(name.as_bytes()))
}

fn list(folder: &Path) -> io::Result<Vec<Listed>> {
    let mut listed = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        // A file whose name is no text, or that went meanwhile, is none of ours.
        let (Ok(name), Ok(metadata)) = (entry.file_name().into_string(), std::fs::metadata(entry.path())) else {
            continue;
        };
        let is_unfinished = name.starts_with('.') || name.ends_with(".tmp") || name.ends_with(".part");
        if metadata.is_file() && metadata.len() > 0 && !is_unfinished {
            let (key, look, modified) = (key(&name), look(&name, &metadata), modified(&metadata));
            listed.push(Listed { name, key, look, bytes: metadata.len(), modified });
        }
        // One more than allowed is enough to say so.
        if listed.len() > FILES_MAX {
            break;
        }
    }
    Ok(listed)
}

fn look(name: &str, metadata: &Metadata) -> String {
    let text = format!("{name}/{}/{}.{}", metadata.len(), metadata.mtime(), metadata.mtime_nsec());
    format!("{:016x}", xxh3_64(text.as_bytes()))
}

fn modified(metadata: &Metadata) -> Timestamp {
    Timestamp(metadata.mtime().saturating_mul(1_000_000).saturating_add(metadata.mtime_nsec() / 1_000))
}
