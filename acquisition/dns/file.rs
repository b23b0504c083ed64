//! Messages from files: pcap, pcapng, Frame Streams of dnstap messages, and single dnstap messages.
//!
//! | file | records |
//! | --- | --- |
//! | pcap, pcapng | each DNS message that a packet makes whole |
//! | Frame Streams, of either direction, with and without START and STOP | each data frame |
//! | one dnstap message without a frame | it |
//! | anything else | one, of its start, which the processor rejects |
//!
//! Ids are the first 16 digits of the file's SHA-256, a dash, and the number of the record in the file, from 1.

use std::path::Path;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use contract::{RawRecord, RecordId, Result, Timestamp};

use super::capture::{Capture, Step};
use super::dnstap::DNSTAP_BYTES_MAX;
use super::frame::{ControlType, Frame, next_frame};
use super::packets::Packets;
use super::recorder::{Recorder, Sighting};
use super::schema::SCHEMA;
use super::settings::Settings;
use super::suffix;
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
    suffix::replace(&settings.dns.public_suffix_list)?;
    crate::file::open(path, context, reading(&settings.dns)?)
}

/// How files are read, under these settings.
///
/// # Errors
/// `Change` when a setting is wrong.
pub(super) fn reading(settings: &Settings) -> Result<Reading<impl Fn(&FileInfo) -> Box<dyn Cutter> + use<>>> {
    let recorder = Recorder::new(settings)?;
    let (ports, on_any_port): (Arc<[u16]>, _) = (settings.ports.clone().into(), settings.on_any_port);
    let cutter = move |info: &FileInfo| -> Box<dyn Cutter> {
        Box::new(DnsCutter {
            buffer: BytesMut::new(),
            form: FileForm::Unknown,
            numbering: Numbering { prefix: info.sha256.get(..HASH_DIGITS).unwrap_or_default().to_owned(), count: 0 },
            packets: Packets::new(&ports, on_any_port),
            recorder: recorder.fresh(),
            bytes_passed: 0,
            notes: Vec::new(),
        })
    };
    Ok(Reading { source: SCHEMA.source, form: Form::Bytes, cutter })
}

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
    /// Before the buffer.
    bytes_passed: u64,
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
        if is_end || broken.is_some() {
            self.packets.end(&mut sink);
        }
        self.pass(at);
        self.end(is_end, broken, "packet");
    }

    fn cut_frames(&mut self, is_end: bool, now: Timestamp, records: &mut Vec<RawRecord>) {
        let broken = loop {
            let length = self.buffer.len();
            match next_frame(&mut self.buffer) {
                Ok(None) => break None,
                Ok(Some(Frame::Data(frame))) => {
                    records.push(self.recorder.tapped(frame, self.numbering.next(), now));
                }
                Ok(Some(Frame::Control(control))) => {
                    // FINISH answers STOP in a recording of both directions.
                    let is_stopped = matches!(control.kind, ControlType::Stop | ControlType::Finish);
                    self.form = FileForm::Frames { is_stopped };
                    if !control.allows_dnstap() {
                        break Some("a stream of another content than dnstap messages".to_owned());
                    }
                }
                Err(broken) => break Some(broken.reason()),
            }
            self.bytes_passed += (length - self.buffer.len()) as u64;
        };
        self.end(is_end, broken, "frame");
        if is_end && matches!(self.form, FileForm::Frames { is_stopped: false }) {
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
            let record = self.recorder.tapped(body, self.numbering.next(), now);
            if super::dnstap::Dnstap::read(&record.body).is_err() {
                self.notes.push("it is no pcap, no pcapng and no dnstap".to_owned());
            }
            records.push(record);
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
                "at byte 210 there is a frame of 2147483647 bytes, should be 1048576 at the most; the rest was left out",
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
