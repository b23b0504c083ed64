//! Cuts a stream of bytes into events: the exact bytes of each, in order, in bounded memory.
//!
//! | input | pieces |
//! | --- | --- |
//! | objects one a line, or one after the other, or in arrays of any layout | each object |
//! | an object that is no event itself but holds events (`{"items":[…]}`, `{"_source":{…}}`) | the events in it |
//! | the action line of a bulk request (`{"index":{…}}`) | none; it is counted |
//! | anything else between two events: a cut event, text, binary | one piece, up to the next event |
//! | what is larger than [`BODY_BYTES_MAX`] | its start; the rest is passed over |
//!
//! The pieces do not depend on how the bytes arrive.

use bytes::{Bytes, BytesMut};
use contract::limits::{BODY_BYTES_MAX, ID_BYTES_MAX};
use contract::{RawRecord, RecordId, Timestamp};
use sha2::{Digest, Sha256};

use super::scanner::{Envelope, Found, Scanner, Step, trim};
use super::time::parse_time;
use crate::hexadecimal::hexadecimal;

/// Bytes that may be looked at again after broken JSON, as a multiple of those that were broken: nested objects are
/// candidates for the next event, and hostile nesting must not make that quadratic.
const RESCAN_FACTOR: usize = 8;

/// White space between `{` and `"` that is still taken for the start of an object in broken input.
const INDENT_BYTES_MAX: usize = 256;

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// A piece of the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    body: Bytes,
    id: Option<RecordId>,
    created_at: Option<Timestamp>,
}

impl Piece {
    /// The record made of it: an id from its content if it states none, the fetch time if it states none.
    pub(super) fn into_record(self, fetched_at: Timestamp) -> RawRecord {
        let id = self.id.unwrap_or_else(|| content_id(&self.body));
        RawRecord { id, event_time: self.created_at.unwrap_or(fetched_at), fetched_at, body: self.body }
    }
}

/// `sha256:` and the first 16 bytes of the hash in hexadecimal.
fn content_id(body: &[u8]) -> RecordId {
    RecordId::from(format!("sha256:{}", hexadecimal(&Sha256::digest(body)[..16])))
}

/// See the module.
#[derive(Debug)]
pub(super) struct Framer {
    buffer: BytesMut,
    /// The next byte to look at, unless an object is open.
    at: usize,
    scanner: Scanner,
    is_open: bool,
    junk: Junk,
    rescan_bytes_left: usize,
    /// The furthest byte at which JSON was found broken.
    broken_at: usize,
    marks: Vec<Found>,
    skipped_lines: u64,
    lists_open: u64,
}

/// Bytes that are no event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Junk {
    None,
    /// From here on.
    Since(usize),
    /// More of a piece that was cut: passed over.
    Dropped,
}

impl Default for Framer {
    fn default() -> Self {
        Self {
            buffer: BytesMut::new(),
            at: 0,
            scanner: Scanner::new(),
            is_open: false,
            junk: Junk::None,
            rescan_bytes_left: 0,
            broken_at: 0,
            marks: Vec::new(),
            skipped_lines: 0,
            lists_open: 0,
        }
    }
}

impl Framer {
    /// Where the caller appends bytes, UTF-8, before [`Framer::pull`].
    pub(super) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// How many action lines were skipped so far.
    pub(super) fn skipped_lines(&self) -> u64 {
        self.skipped_lines
    }

    /// Whether an array at the top is open: at the end of the input, it was cut.
    pub(super) fn is_in_list(&self) -> bool {
        self.lists_open > 0
    }

    /// Appends to `pieces` all that end in the bytes so far; `is_end` says that no more will come.
    pub(super) fn pull(&mut self, is_end: bool, pieces: &mut Vec<Piece>) {
        loop {
            let goes_on = match (self.is_open, self.junk) {
                (true, _) => self.scan_object(is_end),
                (false, Junk::None) => self.scan_between(is_end),
                (false, _) => self.scan_junk(is_end),
            };
            if !goes_on {
                break;
            }
        }
        if is_end {
            self.flush_junk(self.buffer.len());
        }
        self.cut(pieces);
    }

    /// Passes what separates events.
    fn scan_between(&mut self, is_end: bool) -> bool {
        let Some(&byte) = self.buffer.get(self.at) else { return false };
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' | b',' | b'\x1E' => self.at += 1,
            b'[' => {
                self.lists_open += 1;
                self.at += 1;
            }
            b']' if self.lists_open > 0 => {
                self.lists_open -= 1;
                self.at += 1;
            }
            b'{' => self.open(self.at),
            _ => {
                let rest = &self.buffer[self.at..];
                if rest.starts_with(BYTE_ORDER_MARK) {
                    self.at += BYTE_ORDER_MARK.len();
                } else if BYTE_ORDER_MARK.starts_with(rest) && !is_end {
                    return false;
                } else {
                    self.junk = Junk::Since(self.at);
                }
            }
        }
        true
    }

    fn open(&mut self, start: usize) {
        self.scanner.begin(start);
        self.is_open = true;
    }

    fn scan_object(&mut self, is_end: bool) -> bool {
        let length = self.buffer.len();
        let limit = match self.scanner.is_dropping() {
            true => length,
            false => length.min(self.scanner.keep_from() + BODY_BYTES_MAX),
        };
        match self.scanner.scan(&self.buffer[..limit]) {
            Step::Inner => self.take_found(),
            Step::Closed => self.end_object(),
            Step::Broken => self.break_object(self.scanner.at),
            Step::More if limit < length => self.drop_object(),
            Step::More if is_end => self.break_object(length),
            Step::More => return false,
        }
        true
    }

    fn end_object(&mut self) {
        self.is_open = false;
        self.at = self.scanner.at;
        let (start, end, envelope) = (self.scanner.start, self.scanner.at, self.scanner.envelope);
        let is_handed_out = self.scanner.is_dropped() || self.scanner.streams();
        if !self.scanner.found.is_empty() {
            self.take_found();
        } else if is_handed_out {
            self.junk = Junk::None;
        } else if envelope.is_event() {
            self.flush_junk(start);
            self.marks.push(Found { start, end, envelope: Some(envelope) });
        } else if self.junk != Junk::None {
            // Part of something broken, such as the actor of an event that was cut.
        } else if envelope.is_bulk_action() {
            self.skipped_lines += 1;
        } else {
            self.marks.push(Found { start, end, envelope: Some(envelope) });
        }
    }

    fn take_found(&mut self) {
        if let Some(first) = self.scanner.found.first() {
            self.flush_junk(first.start);
        }
        self.marks.append(&mut self.scanner.found);
    }

    /// The object is no JSON at `place`: it becomes junk, and the next event is looked for inside it, since
    /// an event that was cut takes in what follows.
    fn break_object(&mut self, place: usize) {
        self.is_open = false;
        let from = self.scanner.start.max(self.broken_at);
        self.rescan_bytes_left += RESCAN_FACTOR * place.saturating_sub(from);
        self.broken_at = self.broken_at.max(place);
        if self.scanner.is_dropping() || self.scanner.is_dropped() {
            self.junk = Junk::Dropped;
            self.at = place;
            return;
        }
        if self.scanner.streams() {
            self.junk = Junk::Since(self.scanner.keep_from());
            self.at = self.scanner.keep_from();
            return;
        }
        let start = self.scanner.start;
        if self.junk == Junk::None {
            self.junk = Junk::Since(start);
        }
        let scanned = place - start;
        let may_rescan = scanned <= self.rescan_bytes_left;
        self.rescan_bytes_left = self.rescan_bytes_left.saturating_sub(scanned);
        self.at = if may_rescan { start + 1 } else { self.broken_at.max(start + 1) };
    }

    /// What is open exceeds the limit: its start becomes a piece.
    fn drop_object(&mut self) {
        let mut start = self.scanner.keep_from();
        let end = self.scanner.at;
        if let Some(last) = self.scanner.found.last() {
            start = last.end;
            self.take_found();
        }
        if let Junk::Since(since) = self.junk {
            start = since;
        }
        if self.junk != Junk::Dropped {
            self.marks.push(Found { start, end: end.min(start + BODY_BYTES_MAX), envelope: None });
        }
        self.junk = Junk::None;
        self.scanner.drop_open();
    }

    /// Looks for what may be an object: a brace and a key.
    fn scan_junk(&mut self, is_end: bool) -> bool {
        let brace = memchr::memchr(b'{', &self.buffer[self.at..]).map(|step| self.at + step);
        let reached = brace.unwrap_or(self.buffer.len());
        if let Junk::Since(start) = self.junk
            && reached - start > BODY_BYTES_MAX
        {
            self.marks.push(Found { start, end: start + BODY_BYTES_MAX, envelope: None });
            self.junk = Junk::Dropped;
        }
        self.at = reached;
        let Some(brace) = brace else { return false };
        let indent_end = self.buffer.len().min(brace + 1 + INDENT_BYTES_MAX);
        let mut indent = self.buffer[brace + 1..indent_end].iter();
        match indent.find(|byte| !byte.is_ascii_whitespace()) {
            Some(b'"') => self.open(brace),
            None if indent_end == self.buffer.len() && indent_end < brace + 1 + INDENT_BYTES_MAX && !is_end => {
                return false;
            }
            _ => self.at = brace + 1,
        }
        true
    }

    /// An event was found, or the end: what lies before is one piece.
    fn flush_junk(&mut self, end: usize) {
        if let Junk::Since(start) = self.junk {
            if end - start > BODY_BYTES_MAX {
                self.marks.push(Found { start, end: start + BODY_BYTES_MAX, envelope: None });
            } else if let Some((start, end)) = trim(&self.buffer, start, end) {
                self.marks.push(Found { start, end, envelope: None });
            }
        }
        self.junk = Junk::None;
        self.rescan_bytes_left = 0;
    }

    /// Takes the marked pieces out of the buffer, and with them all that no one needs any more.
    fn cut(&mut self, pieces: &mut Vec<Piece>) {
        let needed = if self.is_open { self.scanner.keep_from() } else { self.at };
        let keep_from = match self.junk {
            Junk::Since(start) => start.min(needed),
            _ => needed,
        };
        let region = self.buffer.split_to(keep_from).freeze();
        for mark in self.marks.drain(..) {
            pieces.push(piece(&region, &mark));
        }
        self.at = self.at.saturating_sub(keep_from);
        self.broken_at = self.broken_at.saturating_sub(keep_from);
        self.scanner.shift(keep_from);
        if let Junk::Since(start) = &mut self.junk {
            *start -= keep_from;
        }
    }
}

fn piece(region: &Bytes, mark: &Found) -> Piece {
    let envelope: Envelope = mark.envelope.unwrap_or_default();
    let id = envelope.id.and_then(|(start, end)| {
        let bytes = &region[start..end];
        let is_usable = !bytes.is_empty() && bytes.len() <= ID_BYTES_MAX && !bytes.contains(&b'\\') && bytes != b"null";
        is_usable.then(|| RecordId::from_utf8(region.slice(start..end)))?
    });
    let created_at = envelope.created_at.and_then(|(start, end)| {
        let text = std::str::from_utf8(&region[start..end]).ok()?;
        parse_time(text)
    });
    Piece { body: region.slice(mark.start..mark.end), id, created_at }
}

#[cfg(test)]
mod tests {
    use contract::limits::RECORD_BYTES_MAX;
    use proptest::prelude::*;

    use super::*;

    fn event(id: u32) -> String {
        format!(r#"{{"id":"{id}","type":"X","actor":{{"id":7}},"payload":{{}},"created_at":"2015-01-01T00:00:00Z"}}"#)
    }

    /// The bodies when `input` arrives in chunks of `size`, and how many bytes waited in the buffer at the most.
    fn framed(input: &[u8], size: usize) -> (Vec<Piece>, usize) {
        let (mut framer, mut pieces, mut waiting_max) = (Framer::default(), Vec::new(), 0);
        for chunk in input.chunks(size) {
            framer.buffer().extend_from_slice(chunk);
            framer.pull(false, &mut pieces);
            waiting_max = waiting_max.max(framer.buffer().len());
        }
        framer.pull(true, &mut pieces);
        assert!(framer.buffer().is_empty(), "all is accounted for");
        (pieces, waiting_max)
    }

    fn bodies(input: &str) -> Vec<String> {
        let (pieces, _) = framed(input.as_bytes(), usize::MAX);
        pieces.iter().map(|piece| String::from_utf8(piece.body.to_vec()).unwrap()).collect()
    }

    #[test]
    fn events_are_found_in_every_layout() {
        let [one, two, three] = [1, 2, 3].map(event);
        let all = vec![one.clone(), two.clone(), three.clone()];
        let wide = |text: &str| text.replace(',', " ,\n   ");
        assert_eq!(bodies(&format!("{one}\n{two}\r\n\n{three}")), all);
        assert_eq!(bodies(&format!("{one}{two}{three}")), all);
        assert_eq!(bodies(&format!("\u{feff}[{one},{two},\n{three}]\n")), all);
        assert_eq!(bodies(&format!("[{one}][{two}]\u{feff}[[{three}]]")), all);
        assert_eq!(bodies(&format!("[\n {},\n {}\n]", wide(&one), wide(&two))), [wide(&one), wide(&two)]);
        assert_eq!(bodies(&format!(r#"{{"total":3,"items":[{one},{two},{three}],"next":{{"a":[1]}}}}"#)), all);
        assert_eq!(bodies(&format!(r#"{{"event":{one}}}{{"_source":{two}}}{{"a":{{"b":[[{three}]]}}}}"#)), all);
        assert_eq!(bodies(&format!(r#"{{"index":{{"_id":"1"}}}}\n{one}"#).replace("\\n", "\n")), [one]);
    }

    #[test]
    fn an_event_keeps_events_inside_it() {
        let outer = event(1).replace(r#""payload":{}"#, &format!(r#""payload":{{"list":[{}]}}"#, event(2)));
        assert_eq!(bodies(&outer), [outer]);
    }

    #[test]
    fn what_is_no_event_is_one_piece_and_the_next_event_is_found() {
        let (one, two) = (event(1), event(2));
        let cut = &one[..one.len() - 40];
        assert_eq!(bodies(&format!("{cut}\n{two}")), [cut, &two]);
        assert_eq!(bodies(&format!("{cut}{two}")), [cut, &two]);
        assert_eq!(bodies(&format!("[{one},{cut},{two}]")), [&one, cut, &two]);
        assert_eq!(
            bodies(&format!("{one}\nnot JSON\nat all\n{two}\n\u{1}\u{2}")),
            [&one, "not JSON\nat all", &two, "\u{1}\u{2}"]
        );
        assert_eq!(bodies(&format!("{one}{cut}")), [&one, cut]);
        assert_eq!(bodies(r#"{"foo":1}{"foo":2}"#), [r#"{"foo":1}"#, r#"{"foo":2}"#]);
        let items = format!(r#"{{"items":[{one},"odd",{two},{{"foo":1}}]}}"#);
        assert_eq!(bodies(&items), [&one, r#""odd""#, &two, r#"{"foo":1}"#]);
        // A line that was cut after a colon takes in the event that follows, up to where that shows.
        assert_eq!(bodies(&format!("{{\"actor\":\n{one}\n{two}\n")), [r#"{"actor":"#, &one, &two]);
    }

    #[test]
    fn a_record_takes_id_and_time_from_the_event_or_from_content_and_fetch() {
        let now = Timestamp(1);
        let mut records = framed(format!("{}\nodd", event(5)).as_bytes(), usize::MAX).0.into_iter();
        let record = records.next().unwrap().into_record(now);
        assert_eq!((record.id.as_str(), record.event_time.to_string()), ("5", "2015-01-01T00:00:00Z".to_owned()));
        let record = records.next().unwrap().into_record(now);
        // The first half of what `printf odd | sha256sum` prints.
        assert_eq!(record.id.as_str(), "sha256:990cb8ebd0afb7150da453a213036a92");
        assert_eq!(record.event_time, now);
    }

    #[test]
    fn an_event_over_the_limit_is_cut_and_the_next_is_whole() {
        let large = event(1).replace(r#""payload":{}"#, &format!(r#""payload":"{}""#, "x".repeat(BODY_BYTES_MAX)));
        let input = format!("{large}\n{}\n{}", event(2), large.replace('}', ""));
        let (pieces, waiting_max) = framed(input.as_bytes(), 1 << 20);
        let lengths: Vec<usize> = pieces.iter().map(|piece| piece.body.len()).collect();
        assert_eq!(lengths, [BODY_BYTES_MAX, event(2).len(), BODY_BYTES_MAX]);
        assert!(waiting_max <= BODY_BYTES_MAX + (1 << 20), "{waiting_max}");
    }

    #[test]
    fn a_wrapper_of_any_size_is_read_in_bounded_memory() {
        let events: Vec<String> = (0..200_000).map(event).collect();
        let mut input = format!(r#"{{"total":1,"items":[{}"#, events.join(",\n"));
        let (whole, _) = framed(format!("{input}]}}").as_bytes(), 1 << 20);
        assert_eq!(whole.len(), events.len());
        input.push_str(r#",{"broken" "#);
        let (pieces, waiting_max) = framed(input.as_bytes(), 1 << 16);
        assert_eq!(pieces.len(), events.len() + 1);
        assert!(pieces.iter().zip(&events).all(|(piece, event)| piece.body == event));
        assert!(input.len() > 2 * RECORD_BYTES_MAX && waiting_max <= RECORD_BYTES_MAX + (1 << 20), "{waiting_max}");
    }

    #[test]
    fn binary_is_one_piece_of_limited_size() {
        let input: Vec<u8> = (0..BODY_BYTES_MAX + 5_000_000).map(|place| (place * 7 % 251) as u8 | 0x80).collect();
        let (pieces, waiting_max) = framed(&input, 1 << 20);
        assert_eq!(pieces.len(), 1);
        assert_eq!(pieces[0].body, input[..BODY_BYTES_MAX]);
        assert!(waiting_max <= BODY_BYTES_MAX + (1 << 20));
    }

    #[test]
    fn hostile_nesting_takes_linear_time() {
        let start = std::time::Instant::now();
        for hostile in [r#"{"a":"#, "[", r#"{""#, "{\"a\":[", "{ \"a\":{\"b\":1},"] {
            let input = hostile.repeat((2 << 20) / hostile.len());
            assert!(framed(input.as_bytes(), 1 << 16).0.len() <= 1, "{hostile}");
        }
        // A quadratic scan of 2 MB takes minutes.
        assert!(start.elapsed().as_secs() < 30, "{:?}", start.elapsed());
    }

    proptest! {
        #[test]
        fn the_pieces_do_not_depend_on_how_the_bytes_arrive(
            parts in prop::collection::vec(0..16_usize, 0..24),
            size in 1..40_usize,
        ) {
            let tokens = [
                event(1), event(2), event(3)[..60].to_owned(), event(4)[30..].to_owned(), "\n".into(), "[".into(), "]".into(),
                ",".into(), "{".into(), "}".into(), "\"".into(), r#"{"items":["#.into(), r#"{"index":{}}"#.into(), "\\".into(),
                "\u{feff}".into(), " x ".into(),
            ];
            let input: String = parts.iter().map(|&part| tokens[part].as_str()).collect();
            let whole = framed(input.as_bytes(), usize::MAX).0;
            prop_assert_eq!(&whole, &framed(input.as_bytes(), size).0);
        }

        #[test]
        fn an_event_on_a_line_of_its_own_is_found_after_any_text(junk in "[^{}\"\\\\]{0,40}") {
            let input = format!("{junk}\n{}\n{junk}\n{}", event(1), event(2));
            let found = bodies(&input);
            prop_assert!(found.contains(&event(1)) && found.contains(&event(2)));
        }
    }
}
