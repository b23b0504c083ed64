//! Messages from files: pcap, pcapng, Frame Streams of dnstap messages, and single dnstap messages.
//!
//! | file | records |
//! | --- | --- |
//! | pcap, pcapng | each DNS message that a packet makes whole |
//! | Frame Streams, of either direction, with and without START and STOP | each data frame; of one that holds a query and its response two |
//! | one dnstap message without a frame | it |
//! | anything else | one, of its start, which the processor rejects |
//!
//! Ids are the first 16 digits of the file's SHA-256, a dash, and the number of the record in the file, from 1.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Buf, Bytes, BytesMut};
use contract::{RawRecord, RecordId, Result, Timestamp};

use super::capture::{Capture, Step};
use super::dnstap::{DNSTAP_BYTES_MAX, Dnstap};
use super::frame::{BrokenFrame, ControlType, Frame, next_frame};
use super::packets::Packets;
use super::recorder::{Recorder, Sighting};
use super::schema::SCHEMA;
use super::settings::Settings;
use crate::file::{Cutter, FileInfo, Reading};
use crate::unpack::Form;
use crate::{Context, OpenFile};

/// Digits of the file's hash in an id.
const HASH_DIGITS: usize = 16;

/// Opens a file for a backfill.
///
/// # Errors
/// `Change` when the file cannot be read, or a setting is wrong.
pub(super) fn open_file(path: &Path, settings: &crate::Settings, context: &Context) -> Result<OpenFile> {
    crate::file::open(path, context, reading(&settings.dns, None)?)
}

/// How files are read, under these settings. What waits behind holes in TCP streams at the end of the file is handed
/// out there, unless `waiting` is to be told how many streams have it: then the file may still grow.
///
/// # Errors
/// `Change` when a setting is wrong.
pub(super) fn reading(
    settings: &Settings,
    waiting: Option<Waiting>,
) -> Result<Reading<impl Fn(&FileInfo) -> Box<dyn Cutter> + use<>>> {
    let recorder = Recorder::new(settings)?;
    let (ports, on_any_port): (Arc<[u16]>, _) = (settings.ports.clone().into(), settings.on_any_port);
    let cutter = move |info: &FileInfo| -> Box<dyn Cutter> {
        Box::new(DnsCutter {
            buffer: BytesMut::new(),
            form: FileForm::Unknown,
            numbering: Numbering { prefix: info.sha256.get(..HASH_DIGITS).unwrap_or_default().to_owned(), count: 0 },
            packets: Packets::new(&ports, on_any_port),
            recorder: recorder.fresh(),
            waiting: waiting.clone(),
            bytes_passed: 0,
            bytes_to_pass: 0,
            notes: Vec::new(),
        })
    };
    Ok(Reading { source: SCHEMA.source, form: Form::Bytes, cutter })
}

/// How many TCP streams have something waiting at the end of a file.
pub(super) type Waiting = Arc<AtomicUsize>;

enum FileForm {
    Unknown,
    Capture(Capture),
    Frames {
        is_stopped: bool,
    },
    /// One message, or nothing that can be told: a record of it is made at the end.
    Single,
    /// The rest cannot be told apart.
    Broken,
}

struct DnsCutter {
    buffer: BytesMut,
    form: FileForm,
    numbering: Numbering,
    packets: Packets,
    recorder: Recorder,
    waiting: Option<Waiting>,
    /// Before the buffer.
    bytes_passed: u64,
    /// Of a frame that is too large, and not in the buffer yet.
    bytes_to_pass: u64,
    notes: Vec<String>,
}

/// Gives ids.
struct Numbering {
    prefix: String,
    count: u64,
}

impl Numbering {
    fn next(&mut self) -> RecordId {
        self.count += 1;
        RecordId::from(format!("{}-{}", self.prefix, self.count))
    }
}

impl Cutter for DnsCutter {
    fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    fn cut(&mut self, is_end: bool, now: Timestamp, records: &mut Vec<RawRecord>) {
        if matches!(self.form, FileForm::Unknown) {
            self.form = match self.buffer.first_chunk() {
                Some(&magic) => form_of(magic),
                None if is_end => FileForm::Single,
                None => return,
            };
        }
        match self.form {
            FileForm::Unknown => {}
            FileForm::Capture(_) => self.cut_packets(is_end, now, records),
            FileForm::Frames { .. } => self.cut_frames(is_end, now, records),
            FileForm::Single => self.cut_single(is_end, now, records),
            FileForm::Broken => self.pass(self.buffer.len()),
        }
    }

    fn skipped(&self) -> u64 {
        self.packets.counts().other
    }

    fn notes(&self) -> Vec<String> {
        let lost = self.packets.counts().to_string();
        let lost = (!lost.is_empty()).then(|| format!("not kept: {lost}"));
        self.notes.iter().cloned().chain(lost).collect()
    }
}

/// A frame starts with a zero: the escape of a control frame, or the length of a data frame below 16 MiB. The first
/// field of a dnstap message never does.
fn form_of(magic: [u8; 4]) -> FileForm {
    match Capture::of(magic) {
        Some(capture) => FileForm::Capture(capture),
        None if magic[0] == 0 => FileForm::Frames { is_stopped: false },
        None => FileForm::Single,
    }
}

impl DnsCutter {
    fn cut_packets(&mut self, is_end: bool, now: Timestamp, records: &mut Vec<RawRecord>) {
        let FileForm::Capture(capture) = &mut self.form else { return };
        let (recorder, numbering) = (&mut self.recorder, &mut self.numbering);
        let mut sink = |seen: &Sighting<'_>| records.push(recorder.captured(seen, numbering.next(), now));
        let mut at = 0;
        let broken = loop {
            match capture.step(self.buffer.get(at..).unwrap_or_default()) {
                Step::More => break None,
                Step::Pass(length) => at += length,
                Step::Packet(length, packet) => {
                    self.packets.add(&packet, &mut sink);
                    at += length;
                }
                Step::Broken(reason) => break Some(reason),
            }
        };
        match &self.waiting {
            Some(waiting) if is_end && broken.is_none() => waiting.store(self.packets.waiting(), Ordering::Relaxed),
            _ if is_end || broken.is_some() => self.packets.end(&mut sink),
            _ => {}
        }
        self.pass(at);
        self.end(is_end, broken, "packet");
    }

    fn cut_frames(&mut self, is_end: bool, now: Timestamp, records: &mut Vec<RawRecord>) {
        let broken = loop {
            self.pass_too_large();
            let length = self.buffer.len();
            match next_frame(&mut self.buffer) {
                Ok(None) => break None,
                Ok(Some(Frame::Data(frame))) => {
                    self.recorder.tapped(frame, now, &mut || self.numbering.next(), records);
                }
                Ok(Some(Frame::Control(control))) => {
                    // FINISH answers STOP in a recording of both directions.
                    let is_stopped = matches!(control.kind, ControlType::Stop | ControlType::Finish);
                    self.form = FileForm::Frames { is_stopped };
                    if !control.allows_dnstap() {
                        break Some("a stream of another content than dnstap messages".to_owned());
                    }
                }
                Err(BrokenFrame::TooLarge(length)) => {
                    let (at, reason) = (self.bytes_passed, BrokenFrame::TooLarge(length).reason());
                    self.notes.push(format!("at byte {at} there is {reason}; it was left out"));
                    self.bytes_to_pass = 4 + u64::from(length);
                    continue;
                }
                Err(broken @ BrokenFrame::Control) => break Some(broken.reason()),
            }
            self.bytes_passed += (length - self.buffer.len()) as u64;
        };
        self.end(is_end, broken, "frame");
        if is_end && self.bytes_to_pass > 0 {
            self.notes.push(format!("it ends {} bytes before that frame does", self.bytes_to_pass));
        } else if is_end && matches!(self.form, FileForm::Frames { is_stopped: false }) {
            self.notes.push("it ends without a STOP frame: messages after it may be missing".to_owned());
        }
    }

    fn cut_single(&mut self, is_end: bool, now: Timestamp, records: &mut Vec<RawRecord>) {
        let is_too_large = self.buffer.len() > DNSTAP_BYTES_MAX;
        if !is_end && !is_too_large {
            return;
        }
        if !self.buffer.is_empty() {
            let kept = self.buffer.len().min(DNSTAP_BYTES_MAX);
            let body: Bytes = self.buffer.split_to(kept).freeze();
            if Dnstap::read(&body).is_err() {
                self.notes.push("it is no pcap, no pcapng and no dnstap".to_owned());
            }
            self.recorder.tapped(body, now, &mut || self.numbering.next(), records);
        }
        self.form = FileForm::Broken;
        self.pass(self.buffer.len());
    }

    /// Notes why the reading ends before the end of the file, if it does.
    fn end(&mut self, is_end: bool, broken: Option<String>, what: &str) {
        let at = self.bytes_passed;
        if let Some(reason) = broken {
            self.notes.push(format!("at byte {at} there is {reason}; the rest was left out"));
            self.form = FileForm::Broken;
            self.pass(self.buffer.len());
        } else if is_end && !self.buffer.is_empty() {
            self.notes.push(format!(
                "it ends inside the {what} at byte {at}, {} bytes of which are there",
                self.buffer.len()
            ));
        }
    }

    /// Passes what is there of a frame that is too large.
    fn pass_too_large(&mut self) {
        let there = usize::try_from(self.bytes_to_pass).unwrap_or(usize::MAX).min(self.buffer.len());
        self.bytes_to_pass -= there as u64;
        self.pass(there);
    }

    fn pass(&mut self, bytes: usize) {
        self.buffer.advance(bytes);
        self.bytes_passed += bytes as u64;
    }
}

#[cfg(test)]
mod tests {
    use contract::Cursor;

    use super::*;

    /// What is told about a fixture, and how many packets were passed over by design.
    async fn told(name: &str) -> (String, u64) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("dns/fixture").join(name);
        let mut open = open_file(&path, &crate::Settings::default(), &Context::default()).unwrap();
        let mut cursor = Cursor::default();
        loop {
            let harvest = open.collector.poll(&cursor).await.unwrap();
            cursor = harvest.cursor;
            if harvest.poll_again_in.is_none() {
                break;
            }
        }
        let notes = open.notes.lock().unwrap().join("; ");
        (notes, open.skipped.load(std::sync::atomic::Ordering::Relaxed))
    }

    #[tokio::test]
    async fn a_capture_packed_by_any_tool_gives_the_same_messages() {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("dns/fixture/layers.pcap");
        let plain = std::fs::read(&fixture).unwrap();
        let read_all = |mut from: Box<dyn std::io::Read>| {
            let mut out = Vec::new();
            from.read_to_end(&mut out).unwrap();
            out
        };
        let source = || std::io::Cursor::new(plain.clone());
        let packed = [
            plain.clone(),
            read_all(Box::new(liblzma::read::XzEncoder::new(source(), 6))),
            read_all(Box::new(flate2::read::GzEncoder::new(source(), flate2::Compression::fast()))),
            zstd::encode_all(source(), 1).unwrap(),
        ];
        let folder = tempfile::tempdir().unwrap();
        let mut bodies = Vec::new();
        for (number, bytes) in packed.iter().enumerate() {
            let path = folder.path().join(number.to_string());
            std::fs::write(&path, bytes).unwrap();
            let mut open = open_file(&path, &crate::Settings::default(), &Context::default()).unwrap();
            let harvest = open.collector.poll(&Cursor::default()).await.unwrap();
            bodies.push(harvest.records.into_iter().map(|record| record.body).collect::<Vec<_>>());
        }
        assert!(bodies[0].len() > 10 && bodies.iter().all(|of| *of == bodies[0]));
    }

    #[tokio::test]
    async fn a_damaged_packing_hides_no_note_of_what_was_not_kept() {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("dns/fixture/layers.pcap");
        let mut packed = zstd::encode_all(&std::fs::read(fixture).unwrap()[..], 1).unwrap();
        packed.extend(b"(\xb5/\xfd no frame");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pcap.zst");
        std::fs::write(&path, packed).unwrap();
        let mut open = open_file(&path, &crate::Settings::default(), &Context::default()).unwrap();
        open.collector.poll(&Cursor::default()).await.unwrap();
        let notes = open.notes.lock().unwrap().clone();
        assert!(notes.len() > 1 && notes[0].contains("records were read"), "{notes:?}");
        assert!(notes.iter().any(|note| note.contains("not kept: ")), "{notes:?}");
    }

    #[tokio::test]
    async fn a_frame_that_is_too_large_is_left_out_and_the_next_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.fstrm");
        let frame = |length: usize| [&(length as u32).to_be_bytes()[..], &vec![0x7f; length]].concat();
        let stop = super::super::frame::control_frame(ControlType::Stop);
        std::fs::write(&path, [&frame(5)[..], &frame(DNSTAP_BYTES_MAX + 1), &frame(7), &stop].concat()).unwrap();
        let mut open = open_file(&path, &crate::Settings::default(), &Context::default()).unwrap();
        let records = open.collector.poll(&Cursor::default()).await.unwrap().records;
        assert_eq!(records.iter().map(|record| record.body.len()).collect::<Vec<_>>(), [5, 7]);
        let note =
            "`a.fstrm`: at byte 9 there is a frame of 1048577 bytes, should be 1048576 at the most; it was left out";
        assert_eq!(*open.notes.lock().unwrap(), [note]);
    }

    #[tokio::test]
    async fn what_was_not_kept_is_told_by_reason() {
        let layers = "`layers.pcap`: not kept: 1 IP fragments of datagrams that are not whole";
        assert_eq!(told("layers.pcap").await, (layers.to_owned(), 4));
        let (streams, _) = told("streams.pcap").await;
        assert_eq!(
            streams,
            "`streams.pcap`: not kept: 1 holes in TCP streams, 110 bytes of TCP streams without a whole message"
        );
        assert_eq!(told("edns.pcapng").await, (String::new(), 0));
    }

    #[tokio::test]
    async fn an_early_end_is_told_with_its_place() {
        for (name, note) in [
            ("raw-then-cut.pcap", "it ends inside the packet at byte 97, 88 bytes of which are there"),
            (
                "no-stop.dnstap.gz",
                "it ends inside the frame at byte 139, 103 bytes of which are there; `no-stop.dnstap.gz`: it ends without a STOP frame: messages after it may be missing",
            ),
            (
                "no-start.fstrm",
                "at byte 210 there is a frame of 2147483647 bytes, should be 1048576 at the most; it was left out; `no-start.fstrm`: it ends 2147483638 bytes before that frame does",
            ),
            (
                "other-content.fstrm",
                "at byte 0 there is a stream of another content than dnstap messages; the rest was left out",
            ),
            ("other.txt", "it is no pcap, no pcapng and no dnstap"),
        ] {
            assert_eq!(told(name).await, (format!("`{name}`: {note}"), 0));
        }
        for whole in ["both-ways.fstrm", "taps.fstrm", "single.dnstap"] {
            assert_eq!(told(whole).await, (String::new(), 0));
        }
    }
}
