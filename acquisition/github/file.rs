//! Events from a file: GH Archive hours, NDJSON, pages of the Events API, bulk files; see [`super::framing`].

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use contract::{Clock, Collector, CollectorId, Cursor, Error, Harvest, RawRecord, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::framing::{Framer, Piece};
use super::schema::SCHEMA;
use crate::unpack::{READ_BYTES_MAX, Unpacked};
use crate::{Context, HarvestSize, OpenFile};

/// Harvests that are read ahead of the append. With the one being appended and the one being made this bounds the
/// memory to three.
const HARVESTS_AHEAD_MAX: usize = 1;

/// Bytes that are allocated at once for what is read; bodies are slices of these.
const CHUNK_BYTES: usize = 1 << 20;

/// Where a file's collector stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Progress {
    /// Records in the log.
    records: u64,
    /// Whether these are all.
    done: bool,
}

/// Where the bytes come from; asked again after a restart from an older cursor.
type Open = Arc<dyn Fn() -> io::Result<Unpacked> + Send + Sync>;

/// Changes a record after it was cut out, in place of its bytes as they are.
pub(super) type Adapt = Arc<dyn Fn(RawRecord) -> RawRecord + Send + Sync>;

/// What is told beside the records.
#[derive(Clone, Default)]
struct Told {
    notes: Arc<Mutex<Vec<String>>>,
    skipped_lines: Arc<AtomicU64>,
}

/// Reads one file to its end. Its cursor counts records: framing is deterministic, so a resumed collector cuts the
/// file again and leaves out what is in the log already.
pub(super) struct FileCollector {
    id: CollectorId,
    name: String,
    open: Open,
    adapt: Option<Adapt>,
    clock: Arc<dyn Clock>,
    size: HarvestSize,
    told: Told,
    reading: Option<Reading>,
}

struct Reading {
    /// The cursor of the harvest that was handed out last.
    at: Progress,
    harvests: mpsc::Receiver<io::Result<(Vec<RawRecord>, Progress)>>,
}

/// Opens a file for a backfill. Reads it once, for its hash.
///
/// # Errors
/// `Change` when the file cannot be read.
pub(crate) fn open_file(path: &Path, context: &Context) -> Result<OpenFile> {
    let unreadable = |error: io::Error| Error::change(format!("read `{}`", path.display())).because(error);
    let (hash, bytes_total) = hash_file(path).map_err(unreadable)?;
    let bytes_read = Arc::new(AtomicU64::new(0));
    let (path, counter): (PathBuf, _) = (path.to_owned(), bytes_read.clone());
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    let open: Open = Arc::new(move || {
        counter.store(0, Ordering::Relaxed);
        Unpacked::open(&path, counter.clone())
    });
    let collector = FileCollector::new(format!("github/file/{hash}"), name, open, None, context);
    Ok(collector.into_open_file(bytes_total, bytes_read))
}

/// The same for bytes that are part of the program.
pub(super) fn open_bytes(id: &str, bytes: &'static [u8], adapt: Adapt, context: &Context) -> OpenFile {
    let open: Open = Arc::new(move || Unpacked::from_reader(bytes, false));
    let collector = FileCollector::new(id.to_owned(), id.to_owned(), open, Some(adapt), context);
    let length = bytes.len() as u64;
    collector.into_open_file(length, Arc::new(AtomicU64::new(length)))
}

impl FileCollector {
    fn new(id: String, name: String, open: Open, adapt: Option<Adapt>, context: &Context) -> Self {
        let (clock, size) = (context.clock.clone(), context.harvest);
        Self { id: CollectorId(id), name, open, adapt, clock, size, told: Told::default(), reading: None }
    }

    fn into_open_file(self, bytes_total: u64, bytes_read: Arc<AtomicU64>) -> OpenFile {
        let Told { notes, skipped_lines } = self.told.clone();
        OpenFile { collector: Box::new(self), bytes_total, bytes_read, notes, skipped_lines }
    }

    fn harvest(&self, records: Vec<RawRecord>, progress: Progress) -> Result<Harvest> {
        let cursor = serde_json::to_string(&progress).map_err(|error| Error::stop("write a cursor").because(error))?;
        Ok(Harvest {
            source: SCHEMA.source,
            collector: self.id.clone(),
            records,
            coverage: Vec::new(),
            cursor: Cursor(cursor),
            poll_again_in: (!progress.done).then_some(std::time::Duration::ZERO),
        })
    }

    /// Starts a thread that cuts the file from `progress` on, so that this overlaps with the append.
    fn start(&self, progress: Progress) -> Reading {
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
        let open = self.open.clone();
        tokio::task::spawn_blocking(move || reader.run(&open));
        Reading { at: progress, harvests }
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
        let mut reading = match self.reading.take() {
            Some(reading) if reading.at == progress => reading,
            _ => self.start(progress),
        };
        match reading.harvests.recv().await {
            Some(Ok((records, progress))) => {
                reading.at = progress;
                self.reading = Some(reading);
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
    fn run(mut self, open: &Open) {
        let outcome = open().and_then(|unpacked| self.read(unpacked));
        // Where the collector is gone, no one is left to be told.
        let _gone = match outcome {
            Ok(Ok(())) | Ok(Err(Abandoned)) => Ok(()),
            Err(error) => self.sender.blocking_send(Err(error)),
        };
    }

    fn read(&mut self, mut unpacked: Unpacked) -> io::Result<std::result::Result<(), Abandoned>> {
        let mut framer = Framer::new();
        let mut pieces = Vec::new();
        self.told.notes.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clear();
        let mut cut = 0;
        loop {
            let buffer = framer.buffer();
            if buffer.capacity() - buffer.len() < READ_BYTES_MAX {
                buffer.reserve(CHUNK_BYTES);
            }
            let more = unpacked.read(buffer)?;
            framer.pull(!more, &mut pieces);
            self.told.skipped_lines.store(framer.skipped_lines(), Ordering::Relaxed);
            cut += pieces.len() as u64;
            for piece in pieces.drain(..) {
                if self.take(piece).is_err() {
                    return Ok(Err(Abandoned));
                }
            }
            if !more {
                break;
            }
        }
        self.note(&unpacked, &framer, cut);
        self.progress.done = true;
        Ok(self.send())
    }

    fn take(&mut self, piece: Piece) -> std::result::Result<(), Abandoned> {
        if self.skip > 0 {
            self.skip -= 1;
            return Ok(());
        }
        let is_full = !self.records.is_empty()
            && (self.records.len() >= self.size.records_max || self.bytes + piece.body().len() > self.size.bytes_max);
        if is_full {
            self.send()?;
        }
        self.bytes += piece.body().len();
        let record = piece.into_record(self.clock.now());
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

    fn note(&self, unpacked: &Unpacked, framer: &Framer, cut: u64) {
        let mut notes = Vec::new();
        notes.extend(unpacked.remark().map(|remark| format!("`{}`: {remark}", self.name)));
        match unpacked.damage() {
            Some(damage) => notes.push(format!("`{}`: {damage}; {cut} records were read", self.name)),
            None if framer.is_in_list() => notes.push(format!("`{}`: it ends inside an array", self.name)),
            None => {}
        }
        self.told.notes.lock().unwrap_or_else(std::sync::PoisonError::into_inner).extend(notes);
    }
}

/// SHA-256 in hexadecimal, and the length.
fn hash_file(path: &Path) -> io::Result<(String, u64)> {
    use std::fmt::Write;
    let mut file = File::open(path)?;
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
    let mut hash = String::with_capacity(64);
    for byte in hasher.finalize() {
        write!(hash, "{byte:02x}").expect("a string takes all");
    }
    Ok((hash, length))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn event(id: u64) -> String {
        let noise = id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        format!("{{\"id\":\"{id}\",\"type\":\"X\",\"actor\":\"{noise:x}\",\"created_at\":\"2015-01-01T00:00:00Z\"}}\n")
    }

    fn events(count: u64) -> Vec<u8> {
        (0..count).map(event).collect::<String>().into_bytes()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// The records of a file of such content, and what is told about it.
    async fn read(name: &str, content: &[u8]) -> (Vec<RawRecord>, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        let mut open = open_file(&path, &Context::default()).unwrap();
        let (mut cursor, mut records) = (Cursor::default(), Vec::new());
        loop {
            let harvest = open.collector.poll(&cursor).await.unwrap();
            records.extend(harvest.records);
            cursor = harvest.cursor;
            if harvest.poll_again_in.is_none() {
                break;
            }
        }
        assert_eq!(open.bytes_total, content.len() as u64);
        let notes = open.notes.lock().unwrap().clone();
        let is_all_read = open.bytes_read.load(Ordering::Relaxed) == open.bytes_total;
        assert!(is_all_read || !notes.is_empty(), "only a damage ends the reading early");
        (records, notes)
    }

    fn is_event(record: &RawRecord, id: u64) -> bool {
        record.id.as_str() == id.to_string() && record.body == event(id).trim_end()
    }

    #[tokio::test]
    async fn gzip_zstd_and_plain_files_give_the_same_records() {
        let plain = events(20_000);
        let zstd = zstd::encode_all(&plain[..], 1).unwrap();
        let members = [gzip(&plain[..1_000_000]), gzip(&plain[1_000_000..]), vec![0; 512]].concat();
        for (name, content) in [("a.json", &plain), ("a.gz", &gzip(&plain)), ("a.json.zst", &zstd), ("b.gz", &members)]
        {
            let (records, notes) = read(name, content).await;
            assert_eq!(records.len(), 20_000, "{name}");
            assert!(records.iter().zip(0..).all(|(record, id)| is_event(record, id)), "{name}");
            assert!(notes.is_empty(), "{notes:?}");
        }
    }

    #[tokio::test]
    async fn all_events_before_a_damage_are_read_and_the_damage_is_told() {
        let plain = events(20_000);
        let (first, second) = plain.split_at(events(10_000).len());
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(first).unwrap();
        encoder.flush().unwrap();
        let middle = encoder.get_ref().len();
        encoder.write_all(second).unwrap();
        let whole = encoder.finish().unwrap();
        // A block type that deflate does not have.
        let damaged = [&whole[..middle], &[0b111], &whole[middle + 1..]].concat();
        let cut = &whole[..middle + 1_000];
        for (content, damage) in [(&damaged[..], "the gzip stream is damaged"), (cut, "the gzip stream ends early")] {
            let (records, notes) = read("a.json.gz", content).await;
            let good = records.iter().zip(0..).take_while(|&(record, id)| is_event(record, id)).count();
            assert!(good >= 10_000, "{damage}: {good}");
            assert!(records.len() <= good + 1, "what was broken is one record: {good} of {}", records.len());
            assert_eq!(notes, [format!("`a.json.gz`: {damage}; {} records were read", records.len())]);
        }
    }

    #[tokio::test]
    async fn a_wrong_checksum_and_a_foreign_tail_cost_no_event() {
        let mut wrong = gzip(&events(10));
        let checksum = wrong.len() - 8;
        wrong[checksum] ^= 1;
        let (records, notes) = read("a.gz", &wrong).await;
        assert_eq!(records.len(), 10);
        assert_eq!(notes, ["`a.gz`: the gzip checksum does not fit: some of it may be wrong; 10 records were read"]);
        let (records, _) = read("a.gz", &[wrong, gzip(&events(5))].concat()).await;
        assert_eq!(records.len(), 15, "the member after it is read");
        let (records, notes) = read("a.gz", &[&gzip(&events(10))[..], b"tail"].concat()).await;
        assert_eq!(records.len(), 10);
        assert_eq!(notes, ["`a.gz`: bytes after gzip member 1 are no gzip and were left out; 10 records were read"]);
    }

    #[tokio::test]
    async fn a_damaged_gzip_header_is_repaired_where_the_rest_is_whole() {
        let whole = gzip(&events(10));
        for damage in [&[0x1f, 0xef][..], &[0; 10]] {
            let content = [damage, &whole[damage.len()..]].concat();
            let (records, notes) = read("a.gz", &content).await;
            assert_eq!(records.len(), 10);
            assert_eq!(notes, ["`a.gz`: the gzip header is damaged; read as if it were whole"]);
        }
        // What was decoded as text once is lost: one record, for the dead letters.
        let lost = String::from_utf8_lossy(&whole).into_owned();
        let (records, _) = read("a.gz", lost.as_bytes()).await;
        assert_eq!(records.len(), 1);
        assert_eq!(records[0].body, lost.as_bytes());
    }

    #[tokio::test]
    async fn a_cut_zstd_file_gives_what_lies_before() {
        let whole = zstd::encode_all(&events(200_000)[..], 1).unwrap();
        let (records, notes) = read("a.zst", &whole[..whole.len() / 2]).await;
        let good = records.iter().zip(0..).take_while(|&(record, id)| is_event(record, id)).count();
        assert!(good > 50_000, "{good}");
        assert_eq!(notes, [format!("`a.zst`: the zstd stream ends early; {} records were read", records.len())]);
    }

    #[tokio::test]
    async fn an_empty_file_is_done_at_once() {
        assert_eq!(read("a.json", b"").await, (Vec::new(), Vec::new()));
    }

    #[tokio::test]
    async fn a_missing_file_is_for_the_user_to_change() {
        let error = open_file(Path::new("no/such.json"), &Context::default()).unwrap_err();
        assert_eq!(error.remedy(), contract::Remedy::Change);
        assert!(error.to_string().starts_with("failed to read `no/such.json`: "), "{error}");
    }
}
