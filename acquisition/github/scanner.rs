//! Follows the structure of one JSON object, byte by byte and across refills, to learn where it ends, what it
//! says about itself, and whether events lie inside it. Values are not checked here: the processor does.

use contract::limits::{JSON_DEPTH_MAX, RECORD_BYTES_MAX};

/// What an object says about itself at its own level.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Envelope {
    /// Where the value of `id` stands, without quotes.
    pub(super) id: Option<(usize, usize)>,
    /// Where the value of `created_at` stands, without quotes.
    pub(super) created_at: Option<(usize, usize)>,
    has_type: bool,
    has_subject: bool,
    keys: u32,
    action_key: bool,
}

impl Envelope {
    /// Whether the object is an event: a `type`, a `created_at`, and something it is about.
    pub(super) fn is_event(&self) -> bool {
        self.has_type && self.has_subject && self.created_at.is_some()
    }

    /// Whether the object is the action line of a bulk request: `{"index":{…}}`.
    pub(super) fn is_bulk_action(&self) -> bool {
        self.keys == 1 && self.action_key
    }
}

/// An object, or the bytes between events, inside a wrapper.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) start: usize,
    pub(super) end: usize,
    /// None for bytes that are no event.
    pub(super) envelope: Option<Envelope>,
}

/// How far a scan came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// All bytes are read and the object is open.
    More,
    /// An event lies inside what is too large to be one event itself; it is in [`Scanner::found`].
    Inner,
    /// The object ends before [`Scanner::at`].
    Closed,
    /// This is not JSON at [`Scanner::at`].
    Broken,
}

/// See the module. Positions count from the start of the buffer that is being scanned.
#[derive(Debug)]
pub(super) struct Scanner {
    /// Where the object starts.
    pub(super) start: usize,
    /// The next byte to look at.
    pub(super) at: usize,
    /// The outermost events inside, and what lies between them.
    pub(super) found: Vec<Found>,
    /// The object itself, once closed.
    pub(super) envelope: Envelope,
    expect: Expect,
    frames: Vec<Frame>,
    /// Open containers beyond the frames: these are only counted.
    deeper: usize,
    /// Inside what is dropped: the number of frames at which this ends.
    dropped: Option<usize>,
    root_dropped: bool,
    streams: bool,
    /// The number of frames around the outermost events, which tells a stream's events from objects inside them.
    event_depth: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    KeyOrEnd,
    Key,
    KeyText(usize),
    Colon,
    Value,
    ValueOrEnd,
    ValueText(usize),
    Word(usize),
    CommaOrEnd,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    is_object: bool,
    start: usize,
    key: Key,
    envelope: Envelope,
    /// Whether events lie inside.
    wraps: bool,
    /// In a wrapper, up to where its content is accounted for.
    taken_to: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Id,
    Type,
    CreatedAt,
    Subject,
    Action,
    Other,
}

impl Key {
    fn of(name: &[u8]) -> Self {
        match name {
            b"id" => Self::Id,
            b"type" => Self::Type,
            b"created_at" => Self::CreatedAt,
            b"actor" | b"repo" | b"repository" | b"payload" => Self::Subject,
            b"index" | b"create" | b"update" | b"delete" => Self::Action,
            _ => Self::Other,
        }
    }
}

impl Scanner {
    pub(super) fn new() -> Self {
        Self {
            start: 0,
            at: 0,
            found: Vec::new(),
            envelope: Envelope::default(),
            expect: Expect::KeyOrEnd,
            frames: Vec::with_capacity(16),
            deeper: 0,
            dropped: None,
            root_dropped: false,
            streams: false,
            event_depth: usize::MAX,
        }
    }

    /// Begins anew with the object whose brace stands at `start`.
    pub(super) fn begin(&mut self, start: usize) {
        self.start = start;
        self.at = start + 1;
        self.found.clear();
        self.frames.clear();
        self.deeper = 0;
        self.dropped = None;
        self.root_dropped = false;
        self.streams = false;
        self.event_depth = usize::MAX;
        self.open(true, start);
    }

    /// Whether the object is known as a wrapper whose events are handed out as they end.
    pub(super) fn streams(&self) -> bool {
        self.streams
    }

    /// The first byte that is still needed: the object's first, or in a wrapper the first that is not accounted for.
    pub(super) fn keep_from(&self) -> usize {
        if self.dropped.is_some() {
            return self.at;
        }
        let wrapper = self.frames.iter().rposition(|frame| frame.wraps).filter(|_| self.streams);
        wrapper.map_or(self.start, |place| self.frames[place].taken_to)
    }

    /// Whether what is open now is being passed over.
    pub(super) fn is_dropping(&self) -> bool {
        self.dropped.is_some()
    }

    /// Whether the object as a whole was passed over from some point on.
    pub(super) fn is_dropped(&self) -> bool {
        self.root_dropped
    }

    /// Passes over the rest of what is too large: the whole object, or one element of a wrapper.
    pub(super) fn drop_open(&mut self) {
        let wrapper = self.frames.iter().rposition(|frame| frame.wraps).filter(|_| self.streams);
        self.dropped = Some(wrapper.map_or(0, |place| place + 1));
        self.root_dropped |= wrapper.is_none();
    }

    /// Moves all positions down by `count` bytes that left the buffer.
    pub(super) fn shift(&mut self, count: usize) {
        let down = |place: &mut usize| *place = place.saturating_sub(count);
        let down_range = |range: &mut Option<(usize, usize)>| {
            if let Some((from, to)) = range {
                *from = from.saturating_sub(count);
                *to = to.saturating_sub(count);
            }
        };
        down(&mut self.start);
        down(&mut self.at);
        for frame in &mut self.frames {
            down(&mut frame.start);
            down(&mut frame.taken_to);
            down_range(&mut frame.envelope.id);
            down_range(&mut frame.envelope.created_at);
        }
        if let Expect::KeyText(place) | Expect::ValueText(place) | Expect::Word(place) = &mut self.expect {
            down(place);
        }
    }

    /// Goes on to the end of `bytes` at the most.
    pub(super) fn scan(&mut self, bytes: &[u8]) -> Step {
        while self.at < bytes.len() {
            let step = match self.expect {
                Expect::KeyText(_) | Expect::ValueText(_) => self.scan_text(bytes),
                Expect::Word(_) => self.scan_word(bytes),
                _ => self.scan_mark(bytes),
            };
            if let Some(step) = step {
                return step;
            }
        }
        Step::More
    }

    fn scan_text(&mut self, bytes: &[u8]) -> Option<Step> {
        let Some(place) = memchr::memchr3(b'"', b'\\', b'\n', &bytes[self.at..]) else {
            self.at = bytes.len();
            return None;
        };
        self.at += place;
        match bytes[self.at] {
            b'"' => {
                self.end_text(bytes);
                self.at += 1;
                None
            }
            b'\\' if self.at + 1 == bytes.len() => Some(Step::More),
            b'\\' => {
                self.at += 2;
                None
            }
            // A line end cannot stand in a JSON text: the line was cut.
            _ => Some(Step::Broken),
        }
    }

    fn end_text(&mut self, bytes: &[u8]) {
        let end = self.at;
        let Some(frame) = self.frames.last_mut().filter(|_| self.deeper == 0) else {
            self.expect = if matches!(self.expect, Expect::KeyText(_)) { Expect::Colon } else { Expect::CommaOrEnd };
            return;
        };
        match self.expect {
            Expect::KeyText(start) => {
                frame.key = Key::of(&bytes[start..end]);
                frame.envelope.keys += 1;
                frame.envelope.has_subject |= frame.key == Key::Subject;
                self.expect = Expect::Colon;
            }
            Expect::ValueText(start) => {
                match frame.key {
                    Key::Type => frame.envelope.has_type = true,
                    Key::CreatedAt => frame.envelope.created_at = Some((start, end)),
                    Key::Id => frame.envelope.id = Some((start, end)),
                    _ => {}
                }
                self.expect = Expect::CommaOrEnd;
            }
            _ => {}
        }
    }

    /// A number, `true`, `false` or `null`; the first character that cannot belong to one ends it.
    fn scan_word(&mut self, bytes: &[u8]) -> Option<Step> {
        let Expect::Word(start) = self.expect else { return None };
        let belongs = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.');
        let rest = &bytes[self.at..];
        let Some(length) = rest.iter().position(|byte| !belongs(byte)) else {
            self.at = bytes.len();
            return None;
        };
        self.at += length;
        if let Some(frame) = self.frames.last_mut().filter(|frame| self.deeper == 0 && frame.key == Key::Id) {
            frame.envelope.id = Some((start, self.at));
        }
        self.expect = Expect::CommaOrEnd;
        None
    }

    /// White space or a character of the structure.
    fn scan_mark(&mut self, bytes: &[u8]) -> Option<Step> {
        let byte = bytes[self.at];
        let place = self.at;
        let broken = Some(Step::Broken);
        let can_end = matches!(self.expect, Expect::KeyOrEnd | Expect::ValueOrEnd | Expect::CommaOrEnd);
        self.at += 1;
        match (byte, self.expect) {
            (b' ' | b'\t' | b'\n' | b'\r', _) => {}
            (b'"', Expect::KeyOrEnd | Expect::Key) => self.expect = Expect::KeyText(self.at),
            (b'"', Expect::Value | Expect::ValueOrEnd) => self.expect = Expect::ValueText(self.at),
            (b':', Expect::Colon) => self.expect = Expect::Value,
            (b'{' | b'[', Expect::Value | Expect::ValueOrEnd) => {
                if let Some(frame) = self.frames.last_mut().filter(|_| self.deeper == 0 && byte == b'{') {
                    frame.envelope.action_key |= frame.key == Key::Action;
                }
                self.open(byte == b'{', place);
            }
            (b'}' | b']', _) if can_end => return self.close(byte == b'}', bytes),
            (b',', Expect::CommaOrEnd) => self.expect = if self.in_object() { Expect::Key } else { Expect::Value },
            (b'-' | b'0'..=b'9' | b't' | b'f' | b'n', Expect::Value | Expect::ValueOrEnd) => {
                self.expect = Expect::Word(place);
            }
            // Beyond the frames only brackets are counted, so a key may look like a value and the other way round.
            (b',' | b':', _) if self.deeper > 0 => self.expect = Expect::ValueOrEnd,
            _ => {
                self.at = place;
                return broken;
            }
        }
        None
    }

    fn in_object(&self) -> bool {
        self.deeper == 0 && self.frames.last().is_some_and(|frame| frame.is_object)
    }

    fn open(&mut self, is_object: bool, start: usize) {
        if self.frames.len() == JSON_DEPTH_MAX + 1 {
            self.deeper += 1;
            self.expect = Expect::ValueOrEnd;
            return;
        }
        let envelope = Envelope::default();
        let frame = Frame { is_object, start, key: Key::Other, envelope, wraps: false, taken_to: start + 1 };
        self.frames.push(frame);
        self.expect = if is_object { Expect::KeyOrEnd } else { Expect::ValueOrEnd };
    }

    fn close(&mut self, is_object: bool, bytes: &[u8]) -> Option<Step> {
        self.expect = Expect::CommaOrEnd;
        if self.deeper > 0 {
            self.deeper -= 1;
            return None;
        }
        if self.in_object() != is_object {
            self.at -= 1;
            return Some(Step::Broken);
        }
        let frame = self.frames.pop()?;
        let was_dropped = self.dropped.is_some();
        if self.dropped == Some(self.frames.len()) {
            self.dropped = None;
            if let Some(parent) = self.frames.last_mut() {
                parent.taken_to = self.at;
            }
        }
        let is_event = is_object && frame.envelope.is_event();
        if self.frames.is_empty() {
            self.envelope = frame.envelope;
            // What a wrapper holds beside its events is not wanted; what an event holds is part of it.
            if is_event && !self.streams {
                self.found.clear();
            }
            return Some(Step::Closed);
        }
        let is_inner_event = is_event && !(self.streams && self.frames.len() > self.event_depth);
        if was_dropped || !(is_inner_event || frame.wraps) {
            return None;
        }
        self.note_inner(&frame, is_inner_event, bytes);
        self.streams |= self.at - self.start > RECORD_BYTES_MAX;
        self.streams.then_some(Step::Inner)
    }

    /// An event, or a container of events, ends here.
    fn note_inner(&mut self, frame: &Frame, is_event: bool, bytes: &[u8]) {
        let end = self.at;
        if !is_event && !frame.is_object {
            self.note_rest(frame.taken_to, end - 1, bytes);
        }
        if is_event {
            self.event_depth = self.event_depth.min(self.frames.len());
            while self.found.last().is_some_and(|inner| inner.start > frame.start) {
                self.found.pop();
            }
        }
        let Some(parent) = self.frames.last().copied() else { return };
        if !parent.is_object {
            self.note_rest(parent.taken_to, frame.start, bytes);
        }
        if is_event {
            self.found.push(Found { start: frame.start, end, envelope: Some(frame.envelope) });
        }
        if let Some(parent) = self.frames.last_mut() {
            parent.wraps = true;
            parent.taken_to = end;
        }
    }

    /// Elements between the events of an array are no events, but not to be lost.
    fn note_rest(&mut self, from: usize, to: usize, bytes: &[u8]) {
        let Some((start, end)) = trim(bytes, from, to) else { return };
        self.found.push(Found { start, end, envelope: None });
    }
}

/// The range without white space and commas at its ends; none if nothing is left.
pub(super) fn trim(bytes: &[u8], from: usize, to: usize) -> Option<(usize, usize)> {
    let is_content = |byte: &u8| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b',');
    let range = bytes.get(from..to)?;
    let first = range.iter().position(is_content)?;
    let last = range.iter().rposition(is_content)?;
    Some((from + first, from + last + 1))
}
