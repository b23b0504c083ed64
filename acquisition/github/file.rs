//! Events from a file: GH Archive hours, NDJSON, pages of the Events API, bulk files; see [`super::framing`].

use std::path::Path;

use bytes::BytesMut;
use contract::{RawRecord, Result, Timestamp};

use super::framing::{Framer, Piece};
use super::schema::SCHEMA;
use crate::file::{self, Cutter, PlainReading, Reading};
use crate::unpack::{Form, READ_BYTES_MAX};
use crate::{Context, OpenFile};

/// Bytes that are allocated at once for what is read; bodies are slices of these.
const CHUNK_BYTES: usize = 1 << 20;

/// Opens a file for a backfill.
///
/// # Errors
/// `Change` when the file cannot be read.
pub(crate) fn open_file(path: &Path, _: &crate::Settings, context: &Context) -> Result<OpenFile> {
    file::open(path, context, reading())
}

/// How files of events are read.
pub(super) fn reading() -> PlainReading {
    Reading { source: SCHEMA.source, form: Form::Text, cutter: |_| Box::new(EventCutter::default()) }
}

#[derive(Default)]
struct EventCutter {
    framer: Framer,
    pieces: Vec<Piece>,
}

impl Cutter for EventCutter {
    fn buffer(&mut self) -> &mut BytesMut {
        let buffer = self.framer.buffer();
        if buffer.capacity() - buffer.len() < READ_BYTES_MAX {
            buffer.reserve(CHUNK_BYTES);
        }
        buffer
    }

    fn cut(&mut self, is_end: bool, now: Timestamp, records: &mut Vec<RawRecord>) {
        self.framer.pull(is_end, &mut self.pieces);
        records.extend(self.pieces.drain(..).map(|piece| piece.into_record(now)));
    }

    fn skipped(&self) -> u64 {
        self.framer.skipped_lines()
    }

    fn notes(&self) -> Vec<String> {
        self.framer.is_in_list().then(|| "it ends inside an array".to_owned()).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::atomic::Ordering;

    use contract::Cursor;
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

    fn lz4(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// The records of a file of such content, and what is told about it.
    async fn read(name: &str, content: &[u8]) -> (Vec<RawRecord>, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        let mut open = open_file(&path, &crate::Settings::default(), &Context::default()).unwrap();
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
    async fn packed_and_plain_files_give_the_same_records() {
        let plain = events(20_000);
        let (first, second) = plain.split_at(1_000_000);
        let zstd = zstd::encode_all(&plain[..], 1).unwrap();
        let members = [gzip(first), gzip(second), vec![0; 512]].concat();
        let frames = [lz4(first), lz4(second)].concat();
        let files = [&plain, &gzip(&plain), &zstd, &members, &frames];
        for (name, content) in ["a.json", "a.gz", "a.json.zst", "b.gz", "a.lz4"].into_iter().zip(files) {
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
        let error = open_file(Path::new("no/such.json"), &crate::Settings::default(), &Context::default()).unwrap_err();
        assert_eq!(error.remedy(), contract::Remedy::Change);
        assert!(error.to_string().starts_with("failed to read `no/such.json`: "), "{error}");
    }
}
