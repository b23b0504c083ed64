//! Reads files for a backfill, whatever the source: unpacks, has a source's [`Cutter`] cut out the records, and hands
//! them on in harvests.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::BytesMut;
use contract::{Clock, Collector, CollectorId, Cursor, Error, Harvest, RawRecord, Result, SourceId, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use crate::hexadecimal::hexadecimal;
use crate::unpack::{Form, READ_BYTES_MAX, Unpacked};
use crate::{Context, HarvestSize, OpenFile};

/// Harvests that are read ahead of the append. With the one being appended and the one being made this bounds the
/// memory to three.
const HARVESTS_AHEAD_MAX: usize = 1;

/// Cuts the unpacked bytes of one file into records. It is deterministic: the same bytes give the same records, however
/// they arrive, since a resumed collector cuts the file again and leaves out what is in the log already.
pub(crate) trait Cutter: Send {
    /// Where the next bytes go, [`READ_BYTES_MAX`] at the most.
    fn buffer(&mut self) -> &mut BytesMut;

    /// Appends to `records` all that end in the bytes so far; `is_end` says that no more will come.
    fn cut(&mut self, is_end: bool, now: Timestamp, records: &mut Vec<RawRecord>);

    /// How many pieces carried no record by design.
    fn skipped(&self) -> u64 {
        0
    }

    /// What is odd about the file, for the user; asked once, at its end.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }
}

/// What a cutter is told of its file.
#[derive(Clone, Debug)]
pub(crate) struct FileInfo {
    /// Its name, without the folders.
    pub(crate) name: String,
    /// The SHA-256 of its bytes in hexadecimal.
    pub(crate) sha256: String,
}

/// How a source reads its files.
pub(crate) struct Reading<M> {
    /// The source.
    pub(crate) source: SourceId,
    /// What the unpacked bytes are.
    pub(crate) form: Form,
    /// Makes the cutter of a file.
    pub(crate) cutter: M,
}

/// A [`Reading`] whose cutter needs nothing beside its file.
pub(crate) type PlainReading = Reading<fn(&FileInfo) -> Box<dyn Cutter>>;

/// Where a file's collector stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Progress {
    /// Records in the log.
    records: u64,
    /// Whether these are all.
    done: bool,
}

/// The cursor of a file's collector once so many of its records are in the log.
///
/// # Errors
/// None that can be met.
pub(crate) fn cursor_after(records: u64) -> Result<Cursor> {
    Progress { records, done: false }.cursor()
}

impl Progress {
    fn cursor(&self) -> Result<Cursor> {
        let text = serde_json::to_string(self).map_err(|error| Error::stop("write a cursor").because(error))?;
        Ok(Cursor(text))
    }
}

/// Where the bytes come from; asked again after a restart from an older cursor.
type Open = Arc<dyn Fn() -> io::Result<Unpacked> + Send + Sync>;

type MakeCutter = Arc<dyn Fn() -> Box<dyn Cutter> + Send + Sync>;

/// Changes a record after it was cut out, in place of its bytes as they are.
pub(crate) type Adapt = Arc<dyn Fn(RawRecord) -> RawRecord + Send + Sync>;

/// What is told beside the records.
#[derive(Clone, Default)]
struct Told {
    notes: Arc<Mutex<Vec<String>>>,
    skipped: Arc<AtomicU64>,
}

/// Reads one file to its end. Its cursor counts records: framing is deterministic, so a resumed collector cuts the
/// file again and leaves out what is in the log already.
struct FileCollector {
    id: CollectorId,
    name: String,
    source: SourceId,
    open: Open,
    make_cutter: MakeCutter,
    adapt: Option<Adapt>,
    clock: Arc<dyn Clock>,
    size: HarvestSize,
    told: Told,
    ahead: Option<Ahead>,
}

struct Ahead {
    /// The cursor of the harvest that was handed out last.
    at: Progress,
    harvests: mpsc::Receiver<io::Result<(Vec<RawRecord>, Progress)>>,
}

/// Opens a file for a backfill. Reads it once, for its hash.
///
/// # Errors
/// `Change` when the file cannot be read.
pub(crate) fn open<M>(path: &Path, context: &Context, reading: Reading<M>) -> Result<OpenFile>
where
    M: Fn(&FileInfo) -> Box<dyn Cutter> + Send + Sync + 'static,
{
    let unreadable = |error: io::Error| Error::change(format!("read `{}`", path.display())).because(error);
    let (sha256, bytes_total) = hash_start(path, u64::MAX).map_err(unreadable)?;
    let bytes_read = Arc::new(AtomicU64::new(0));
    let (path, counter): (PathBuf, _) = (path.to_owned(), bytes_read.clone());
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    let form = reading.form;
    let open: Open = Arc::new(move || {
        counter.store(0, Ordering::Relaxed);
        Unpacked::open(&path, form, counter.clone())
    });
    let id = format!("{}/file/{sha256}", reading.source);
    let collector = FileCollector::new(id, FileInfo { name, sha256 }, open, reading, None, context);
    Ok(collector.into_open_file(bytes_total, bytes_read))
}

/// The same for bytes that are part of the program, such as a sample.
pub(crate) fn open_bytes<M>(
    id: &str,
    bytes: &'static [u8],
    adapt: Adapt,
    context: &Context,
    reading: Reading<M>,
) -> OpenFile
where
    M: Fn(&FileInfo) -> Box<dyn Cutter> + Send + Sync + 'static,
{
    let form = reading.form;
    let open: Open = Arc::new(move || Unpacked::from_reader(bytes, form, false));
    let info = FileInfo { name: id.to_owned(), sha256: hexadecimal(&Sha256::digest(bytes)) };
    let collector = FileCollector::new(id.to_owned(), info, open, reading, Some(adapt), context);
    let length = bytes.len() as u64;
    collector.into_open_file(length, Arc::new(AtomicU64::new(length)))
}

impl FileCollector {
    fn new<M>(
        id: String,
        info: FileInfo,
        open: Open,
        reading: Reading<M>,
        adapt: Option<Adapt>,
        context: &Context,
    ) -> Self
    where
        M: Fn(&FileInfo) -> Box<dyn Cutter> + Send + Sync + 'static,
    {
        let Reading { source, cutter, .. } = reading;
        let name = info.name.clone();
        let make_cutter: MakeCutter = Arc::new(move || cutter(&info));
        let (clock, size) = (context.clock.clone(), context.harvest);
        let (id, told) = (CollectorId(id), Told::default());
        Self { id, name, source, open, make_cutter, adapt, clock, size, told, ahead: None }
    }

    fn into_open_file(self, bytes_total: u64, bytes_read: Arc<AtomicU64>) -> OpenFile {
        let Told { notes, skipped } = self.told.clone();
        OpenFile { collector: Box::new(self), bytes_total, bytes_read, notes, skipped }
    }

    fn harvest(&self, records: Vec<RawRecord>, progress: Progress) -> Result<Harvest> {
        Ok(Harvest {
            source: self.source,
            collector: self.id.clone(),
            records,
            coverage: Vec::new(),
            cursor: progress.cursor()?,
            poll_again_in: (!progress.done).then_some(std::time::Duration::ZERO),
            acknowledge: None,
        })
    }

    /// Starts a thread that cuts the file from `progress` on, so that this overlaps with the append.
    fn start(&self, progress: Progress) -> Ahead {
        let (sender, harvests) = mpsc::channel(HARVESTS_AHEAD_MAX);
        let reader = Reader {
            name: self.name.clone(),
            adapt: self.adapt.clone(),
            clock: self.clock.clone(),
            size: self.size,
            told: self.told.clone(),
            sender,
            progress,
            skip: progress.records,
            records: Vec::new(),
            bytes: 0,
        };
        let (open, make_cutter) = (self.open.clone(), self.make_cutter.clone());
        tokio::task::spawn_blocking(move || reader.run(&open, make_cutter().as_mut()));
        Ahead { at: progress, harvests }
    }
}

#[async_trait]
impl Collector for FileCollector {
    fn id(&self) -> CollectorId {
        self.id.clone()
    }

    async fn poll(&mut self, cursor: &Cursor) -> Result<Harvest> {
        let progress: Progress = match cursor.0.as_str() {
            "" => Progress::default(),
            text => serde_json::from_str(text)
                .map_err(|error| Error::stop(format!("read the cursor `{text}` of `{}`", self.id)).because(error))?,
        };
        if progress.done {
            return self.harvest(Vec::new(), progress);
        }
        let mut ahead = match self.ahead.take() {
            Some(ahead) if ahead.at == progress => ahead,
            _ => self.start(progress),
        };
        match ahead.harvests.recv().await {
            Some(Ok((records, progress))) => {
                ahead.at = progress;
                self.ahead = Some(ahead);
                self.harvest(records, progress)
            }
            Some(Err(error)) => Err(Error::change(format!("read `{}`", self.name)).because(error)),
            None => Err(Error::stop(format!("read `{}`: its reader is gone", self.name))),
        }
    }
}

/// Runs on a thread of its own.
struct Reader {
    name: String,
    adapt: Option<Adapt>,
    clock: Arc<dyn Clock>,
    size: HarvestSize,
    told: Told,
    sender: mpsc::Sender<io::Result<(Vec<RawRecord>, Progress)>>,
    progress: Progress,
    /// Records that are in the log already.
    skip: u64,
    records: Vec<RawRecord>,
    bytes: usize,
}

/// The collector is gone.
struct Abandoned;

impl Reader {
    fn run(mut self, open: &Open, cutter: &mut dyn Cutter) {
        let outcome = open().and_then(|unpacked| self.read(unpacked, cutter));
        // Where the collector is gone, no one is left to be told.
        let _gone = match outcome {
            Ok(Ok(())) | Ok(Err(Abandoned)) => Ok(()),
            Err(error) => self.sender.blocking_send(Err(error)),
        };
    }

    fn read(
        &mut self,
        mut unpacked: Unpacked,
        cutter: &mut dyn Cutter,
    ) -> io::Result<std::result::Result<(), Abandoned>> {
        let mut cut = Vec::new();
        self.told.notes.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clear();
        let mut total = 0;
        loop {
            let more = unpacked.read(cutter.buffer())?;
            cutter.cut(!more, self.clock.now(), &mut cut);
            self.told.skipped.store(cutter.skipped(), Ordering::Relaxed);
            total += cut.len() as u64;
            for record in cut.drain(..) {
                if self.take(record).is_err() {
                    return Ok(Err(Abandoned));
                }
            }
            if !more {
                break;
            }
        }
        self.note(&unpacked, cutter, total);
        self.progress.done = true;
        Ok(self.send())
    }

    fn take(&mut self, record: RawRecord) -> std::result::Result<(), Abandoned> {
        if self.skip > 0 {
            self.skip -= 1;
            return Ok(());
        }
        let is_full = !self.records.is_empty()
            && (self.records.len() >= self.size.records_max || self.bytes + record.body.len() > self.size.bytes_max);
        if is_full {
            self.send()?;
        }
        self.bytes += record.body.len();
        self.records.push(match &self.adapt {
            Some(adapt) => adapt(record),
            None => record,
        });
        self.progress.records += 1;
        Ok(())
    }

    fn send(&mut self) -> std::result::Result<(), Abandoned> {
        self.bytes = 0;
        let records = std::mem::take(&mut self.records);
        self.sender.blocking_send(Ok((records, self.progress))).map_err(|_| Abandoned)
    }

    fn note(&self, unpacked: &Unpacked, cutter: &dyn Cutter, total: u64) {
        let mut notes: Vec<String> = unpacked.remark().map(str::to_owned).into_iter().collect();
        notes.extend(unpacked.damage().map(|damage| format!("{damage}; {total} records were read")));
        notes.extend(cutter.notes());
        let named = notes.into_iter().map(|note| format!("`{}`: {note}", self.name));
        self.told.notes.lock().unwrap_or_else(std::sync::PoisonError::into_inner).extend(named);
    }
}

/// SHA-256 of a file's first `bytes_max` bytes in hexadecimal, and how many these are.
///
/// # Errors
/// When it cannot be read.
pub fn hash_start(path: &Path, bytes_max: u64) -> io::Result<(String, u64)> {
    let mut file = File::open(path)?.take(bytes_max);
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; READ_BYTES_MAX];
    let mut length = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                hasher.update(&buffer[..count]);
                length += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok((hexadecimal(&hasher.finalize()), length))
}
