//! Watches a folder of captures: each file is read by the source's file collector once it is whole.
//!
//! | case | outcome |
//! | --- | --- |
//! | a file that was renamed into the folder | read at once |
//! | a file whose bytes and time did not change for `dns.directory_settle_seconds` | read |
//! | hidden files, `*.tmp`, `*.part`, empty ones, folders, pipes | left alone |
//! | a file that was read, under another name or time | its content's hash is known: not read again |
//! | a file that grew after it was read, its start the same | read on: as many records as were logged are passed over |
//! | TCP segments at its end that wait for one before them | left for what may still be appended; once the file has not changed for twelve times as long as it takes to settle, read without it. If it grows even then, their messages come again |
//! | a file that became another one | read |
//! | a file that is gone before it was read whole | a line of what was missed |
//! | a file that cannot be read | an error is reported once, the others go on; it is tried again when it changes |
//! | `dns.directory_after_read` is `delete` | a file is removed once its last record is in the log, if it is still the same |
//! | more than 2,048 files that were read | those that came first are forgotten; all that came until then count as read |
//! | a forgotten one that grows, or whose inode is changed otherwise (`chmod`, a hard link) | read as another file: rows of messages that state their time are known by their ids |
//! | more than 2,048 files that came within a minute | read as the first of them can be forgotten, after twelve times as long as it takes to settle |
//! | files that came before 2,048 others and are read after them, as one that settles beside many that are renamed in | read; twice as many files are known by name meanwhile |
//!
//! The file that came first is read first, so that captures that follow each other are read in their order. When a file
//! came is the time at which its inode changed: the file system's own, so that an old file which is moved in is new. What
//! came until a moment is only taken to be all where it was listed, and listed again twelve times as long after as it
//! takes to settle; so the clock of a file server does not matter, as long as it is not set back behind files that were
//! forgotten. The folder is listed each second, a large one less often: that works on every file system, and nothing
//! depends on an event that was not delivered.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use contract::{
    Acknowledge, Clock, Collector, CollectorId, Coverage, CoverageKind, Cursor, Error, Harvest, Remedy, Result,
    SourceId, Timestamp,
};
use serde::{Deserialize, Serialize};

use super::file::Waiting;
use super::folder_list::{Arrival, Known, Listed, key, list, look};
use super::renames::Renames;
use super::settings::AfterRead;
use crate::OpenFile;
use crate::file::{cursor_after, hash_start};

/// Files of a folder that were read and are known by name. Each takes about 85 bytes of the cursor, which every harvest
/// carries.
pub(super) const FILES_MAX: usize = 2_048;

/// In times of settling: after so long nothing is appended to a file any more, and a folder lists all that came before.
const FINAL_TIMES: u32 = 12;

/// Hexadecimal digits of a file's hash that are kept.
const CONTENT_DIGITS: usize = 16;

/// Between two looks at the folder; so many times as long as a look takes, if that is longer.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
const LOOK_TIMES: u32 = 20;

/// Notes of one file that become lines of coverage.
const NOTES_MAX: usize = 16;

/// Opens a file; blocks for as long as reading it once takes. Where it is given, it tells what waits at the end.
pub(super) type OpenCapture = Arc<dyn Fn(&Path, Option<Waiting>) -> Result<OpenFile> + Send + Sync>;

/// What is set of a folder.
pub(super) struct Folder {
    pub(super) path: PathBuf,
    pub(super) settle: Duration,
    pub(super) after_read: AfterRead,
    pub(super) files_max: usize,
}

/// See the module.
pub(super) struct FolderCollector {
    id: CollectorId,
    source: SourceId,
    folder: Folder,
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
    /// What waits at the end of it.
    waiting: Waiting,
    /// Files to be removed once the next harvest is on disk: path and look.
    done: Vec<(PathBuf, String)>,
    /// Whether the folder was looked at; what the first cursor says was read, is read for sure.
    has_looked: bool,
    look_interval: Duration,
    /// When the last of the files came that were seen at a time, see [`Arrival::at`].
    newest: Option<(Timestamp, i64)>,
    /// All that came until then is in the folder's listing.
    listed_to: Option<i64>,
}

/// Where the collector stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Progress {
    /// Files of the folder that were read, by the hash of their name.
    read: BTreeMap<String, WasRead>,
    /// All others that came until then were read too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    older: Option<Arrival>,
    /// The one that is being read.
    file: Option<Reading>,
}

/// A file as it was when it was read: its look, the hash of its content, its length, its records, and how many TCP streams
/// wait at its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct WasRead(String, String, u64, u64, #[serde(default)] usize);

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
    /// Nothing more is waited for at its end.
    #[serde(default)]
    is_final: bool,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
}

impl FolderCollector {
    /// A collector of one folder.
    pub(super) fn new(source: SourceId, folder: Folder, clock: Arc<dyn Clock>, open: OpenCapture) -> Self {
        let id = CollectorId(format!("{source}/directory:{}", folder.path.display()));
        let (renamed, unsettled, failed, waiting, done) = Default::default();
        let (renames, reading, newest, listed_to, has_looked) = (None, None, None, None, false);
        Self {
            id,
            source,
            folder,
            clock,
            open,
            renames,
            renamed,
            unsettled,
            failed,
            reading,
            waiting,
            done,
            has_looked,
            look_interval: LOOK_INTERVAL,
            newest,
            listed_to,
        }
    }

    /// Opens the next file that is whole and was not read; the content of one that was, under another look, is noted.
    /// Answers what is missed of files that are gone.
    async fn next_file(&mut self, progress: &mut Progress) -> Result<Vec<Coverage>> {
        let listed = self.list(progress).await?;
        let gone = self.forget_gone(&listed, progress);
        let is_first = !std::mem::replace(&mut self.has_looked, true);
        if is_first {
            listed.iter().filter(|file| progress.has(file)).for_each(|file| self.note_done(file));
        }
        for (file, is_final) in self.whole(&listed, progress) {
            if !progress.read.contains_key(&file.key) && !self.make_room(&listed, progress) {
                continue;
            }
            let opened = match self.open_file(&file.came.name, is_final).await {
                Ok(opened) => opened,
                Err(error) => {
                    self.failed.insert(file.look);
                    return Err(error);
                }
            };
            self.renamed.remove(&file.came.name);
            let content = content(&opened);
            let known = progress.read.values().find(|WasRead(_, known, ..)| *known == content).cloned();
            let is_again = progress.read.get(&file.key).is_some_and(|WasRead(look, ..)| *look == file.look);
            if let Some(WasRead(_, _, bytes, records, waiting)) = known
                && !is_again
            {
                self.note_done(&file);
                progress.read.insert(file.key, WasRead(file.look, content, bytes, records, waiting));
                continue;
            }
            let passed =
                Self::passed(self.folder.path.join(&file.came.name), &file, progress.read.get(&file.key)).await;
            let cursor = if passed == 0 { Cursor::default() } else { cursor_after(passed)? };
            let Listed { came: Arrival { name, .. }, look, bytes, .. } = file;
            let (cursor, records, from, to) = (cursor.0, 0, None, None);
            self.reading = Some(opened);
            progress.file = Some(Reading { name, look, content, bytes, cursor, passed, records, is_final, from, to });
            break;
        }
        Ok(gone)
    }

    /// What waited at the end of a file that is gone, is missed.
    fn forget_gone(&mut self, listed: &[Listed], progress: &mut Progress) -> Vec<Coverage> {
        let keys: HashSet<&str> = listed.iter().map(|file| file.key.as_str()).collect();
        self.failed.retain(|look| listed.iter().any(|file| file.look == *look));
        let gone = progress.read.extract_if(.., |key, _| !keys.contains(key.as_str()));
        let waiting: usize = gone.map(|(_, WasRead(.., waiting))| waiting).sum();
        if waiting == 0 {
            return Vec::new();
        }
        let reason = format!("files are gone in which {waiting} TCP streams waited for a segment");
        vec![self.line(CoverageKind::Missed, (None, None), waiting as u64, reason)]
    }

    /// Forgets files that came first, for one more. Answers whether there is room; where only files that came before and are
    /// still to be read hold that up, there is, for as many again.
    fn make_room(&self, listed: &[Listed], progress: &mut Progress) -> bool {
        let excess = (progress.read.len() + 1).saturating_sub(self.folder.files_max);
        if excess == 0 {
            return true;
        }
        let (read, other): (Vec<_>, Vec<_>) = listed.iter().partition(|file| progress.has(file));
        let first_other = other.iter().filter(|file| !self.failed.contains(&file.look)).map(|file| &file.came).min();
        let mut old: Vec<_> = read.into_iter().filter(|file| Some(file.came.at) <= self.listed_to).collect();
        old.sort_unstable_by_key(|file| &file.came);
        let free = old.iter().take_while(|file| first_other.is_none_or(|first| file.came < *first)).take(excess);
        let mut forgotten = 0;
        for file in free {
            progress.read.remove(&file.key);
            progress.older = progress.older.take().max(Some(file.came.clone()));
            forgotten += 1;
        }
        forgotten == excess || forgotten < old.len() && excess <= self.folder.files_max
    }

    /// Has a file removed with the next harvest, if that is set.
    fn note_done(&mut self, file: &Listed) {
        if self.folder.after_read == AfterRead::Delete {
            self.done.push((self.folder.path.join(&file.came.name), file.look.clone()));
        }
    }

    /// How many records of a file were logged before it grew.
    async fn passed(path: PathBuf, file: &Listed, before: Option<&WasRead>) -> u64 {
        let Some(WasRead(_, content, bytes, records, _)) = before.cloned() else { return 0 };
        if file.bytes < bytes {
            return 0;
        }
        match tokio::task::spawn_blocking(move || hash_start(&path, bytes)).await {
            Ok(Ok((hash, _))) if hash.starts_with(&content) => records,
            _ => 0,
        }
    }

    async fn list(&mut self, progress: &Progress) -> Result<Vec<Listed>> {
        let failed = |error: io::Error| {
            Error::retry(format!("list the folder `{}` of `dns.directories`", self.folder.path.display()))
                .because(error)
        };
        // Before the listing, so that a file is in it that is renamed in the moment after.
        match &self.renames {
            Some(renames) => self.renamed.extend(renames.take()),
            None => self.renames = Renames::of(&self.folder.path),
        }
        let keys = progress.read.keys().cloned().collect();
        let known = Known { keys, renamed: self.renamed.clone(), older: progress.older.clone() };
        let (folder, started) = (self.folder.path.clone(), Instant::now());
        let listed = tokio::task::spawn_blocking(move || list(&folder, &known)).await;
        let listed = listed.map_err(|error| failed(io::Error::other(error)))?.map_err(failed)?;
        self.look_interval = LOOK_INTERVAL.max(started.elapsed() * LOOK_TIMES);
        self.note_newest(listed.newest);
        Ok(listed.files)
    }

    /// What came until the last of some time ago is in this listing, whatever the folder's clock says.
    fn note_newest(&mut self, newest: Option<i64>) {
        let now = self.clock.now();
        let wait = (self.folder.settle * FINAL_TIMES).as_micros() as i64;
        if self.newest.is_some_and(|(seen_at, _)| now.0 - seen_at.0 < wait) {
            return;
        }
        self.listed_to = self.newest.map(|(_, newest)| newest);
        self.newest = newest.map(|newest| (now, newest));
    }

    /// Files that were not read and will not change for now, in the order in which they came; and those of which more was waited for, once
    /// they will not change at all.
    fn whole(&mut self, listed: &[Listed], progress: &Progress) -> Vec<(Listed, bool)> {
        let now = self.clock.now();
        let settle = self.folder.settle.as_micros() as i64;
        let mut unsettled = HashMap::new();
        let mut whole = Vec::new();
        for file in listed {
            if self.failed.contains(&file.look) {
                continue;
            }
            if let Some(WasRead(look, .., waiting)) = progress.read.get(&file.key)
                && *look == file.look
            {
                let is_final = now.0 - file.came.modified.0 >= settle * i64::from(FINAL_TIMES);
                whole.extend((*waiting > 0 && is_final).then(|| (file.clone(), true)));
                continue;
            }
            let same = self.unsettled.get(&file.came.name).filter(|(look, _)| *look == file.look);
            let since = same.map_or(now, |&(_, since)| since);
            // The second for clocks of file servers that are ahead of ours.
            let is_settled = now.0 - file.came.modified.0 >= settle || now.0 - since.0 >= settle;
            if is_settled || self.renamed.contains(&file.came.name) {
                // What is deleted cannot grow.
                whole.push((file.clone(), self.folder.after_read == AfterRead::Delete));
            } else {
                unsettled.insert(file.came.name.clone(), (file.look.clone(), since));
            }
        }
        self.unsettled = unsettled;
        self.renamed.retain(|name| whole.iter().any(|(file, _)| file.came.name == *name));
        whole.sort_by(|(a, _), (b, _)| a.came.cmp(&b.came));
        whole
    }

    /// The future borrows nothing: an open file may not be looked at by two threads at once.
    fn open_file(&self, name: &str, is_final: bool) -> impl Future<Output = Result<OpenFile>> + Send + use<> {
        let (open, folder, path) = (self.open.clone(), self.folder.path.clone(), self.folder.path.join(name));
        let waiting = (!is_final).then(|| self.waiting.clone());
        async move {
            let failed = || Error::retry(format!("watch `{}`", folder.display()));
            let opened = tokio::task::spawn_blocking(move || open(&path, waiting)).await;
            let opened = opened.map_err(|error| failed().because(error))?;
            opened.map_err(|error| match error.remedy() {
                Remedy::Stop => error,
                _ => failed().because(error),
            })
        }
    }

    fn line(
        &self,
        kind: CoverageKind,
        (from, to): (Option<Timestamp>, Option<Timestamp>),
        records: u64,
        reason: String,
    ) -> Coverage {
        let now = self.clock.now();
        let (from, to) = (from.unwrap_or(now), to.unwrap_or(now));
        let (source, collector) = (self.source.0.to_owned(), self.id.0.clone());
        Coverage { source, collector, kind, from, to: Timestamp(to.0.saturating_add(1)), records, reason }
    }

    /// Without records; files that are done with it are removed once it is on disk.
    fn harvest(&mut self, progress: &Progress) -> Result<Harvest> {
        let cursor = serde_json::to_string(progress).map_err(|error| Error::stop("write a cursor").because(error))?;
        Ok(Harvest {
            source: self.source,
            collector: self.id.clone(),
            records: Vec::new(),
            coverage: Vec::new(),
            cursor: Cursor(cursor),
            poll_again_in: Some(Duration::ZERO),
            acknowledge: (!self.done.is_empty()).then(|| remove_later(std::mem::take(&mut self.done))),
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
                let coverage = vec![self.line(CoverageKind::Missed, (reading.from, reading.to), 0, reason)];
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
            let times = (reading.from, reading.to);
            coverage.push(self.line(CoverageKind::Covered, times, reading.records, covered));
            let notes = notes.into_iter().flatten().take(NOTES_MAX);
            coverage.extend(notes.map(|note| self.line(CoverageKind::Missed, times, 0, note)));
            self.has_read(&mut progress, reading);
        }
        Ok(Harvest { records: brought.records, coverage, ..self.harvest(&progress)? })
    }

    fn has_read(&mut self, progress: &mut Progress, reading: Reading) {
        let Reading { name, look, content, bytes, passed, records, is_final, .. } = reading;
        let is_again = progress.read.get(&key(&name)).is_some_and(|WasRead(known, ..)| *known == look);
        // Should it grow even so, what waited at its end comes again: behind what came before that.
        let records = if is_again { passed } else { passed + records };
        let waiting = if is_final { 0 } else { self.waiting.load(Ordering::Relaxed) };
        if waiting == 0 && self.folder.after_read == AfterRead::Delete {
            self.done.push((self.folder.path.join(&name), look.clone()));
        }
        progress.read.insert(key(&name), WasRead(look, content, bytes, records, waiting));
        progress.file = None;
    }
}

impl Progress {
    /// Whether all of a file was read.
    fn has(&self, file: &Listed) -> bool {
        self.read.get(&file.key).is_some_and(|WasRead(look, .., waiting)| *look == file.look && *waiting == 0)
    }
}

/// Removes the files that still look the same. One that cannot be removed stays, and is known.
fn remove_later(files: Vec<(PathBuf, String)>) -> Acknowledge {
    Acknowledge::new(move || {
        for (path, known) in &files {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let is_same = std::fs::metadata(path).is_ok_and(|metadata| look(&name, &metadata) == *known);
            if is_same {
                std::fs::remove_file(path).unwrap_or_default();
            }
        }
    })
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
        let mut coverage = Vec::new();
        if progress.file.is_none() {
            self.reading = None;
            coverage = self.next_file(&mut progress).await?;
        }
        let Some(reading) = progress.file.take() else {
            return Ok(Harvest { coverage, poll_again_in: Some(self.look_interval), ..self.harvest(&progress)? });
        };
        if self.reading.is_none() {
            // None where it is gone or another.
            let opened = self.open_file(&reading.name, reading.is_final).await.ok();
            self.reading = opened.filter(|opened| content(opened) == reading.content);
        }
        if self.reading.is_none() {
            let reason = format!("`{}` is gone, or another, before it was read whole", reading.name);
            let coverage = vec![self.line(CoverageKind::Missed, (reading.from, reading.to), 0, reason)];
            return Ok(Harvest { coverage, ..self.harvest(&progress)? });
        }
        let mut harvest = self.read_on(progress, reading).await?;
        harvest.coverage.append(&mut coverage);
        Ok(harvest)
    }
}

/// The start of the hash that names the file's collector: enough to tell [`FILES_MAX`] apart.
fn content(file: &OpenFile) -> String {
    let id = file.collector.id().0;
    let hash = id.rsplit('/').next().unwrap_or_default();
    hash.chars().take(CONTENT_DIGITS).collect()
}
