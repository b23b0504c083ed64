//! One direction of a TCP connection: its segments put in order and cut into messages. See [`super::streams`].

use std::collections::{BTreeMap, VecDeque};

use super::dnstap::{Moment, SocketProtocol};
use super::http2::Bodies;
use super::message::HEADER_BYTES;
use super::streams::Segment;

/// Bytes that wait behind a hole: the usual window without scaling.
const AHEAD_BYTES_MAX: usize = 64 << 10;

/// Segments that wait behind a hole.
const AHEAD_SEGMENTS_MAX: usize = 256;

/// Bytes that a waiting segment takes beside its own, about.
const HELD_BYTES: usize = 96;

/// Bytes that the time of a segment takes.
const ARRIVAL_BYTES: usize = size_of::<(u64, Option<Moment>)>();

/// How long what lies behind a hole waits, by the times of the packets: senders send again within a second or two.
const HOLE_NANOS: u64 = 3_000_000_000;

/// Where messages go: how it travelled, the time, the message.
pub(super) type Out<'s> = dyn FnMut(SocketProtocol, Option<Moment>, &[u8]) + 's;

/// What was not kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct StreamLosses {
    /// Holes that were given up, and segments that the capture cut before the end of what they began with.
    pub(super) holes: u64,
    /// Runs of bytes of which no message was made.
    pub(super) pieces: u64,
    /// Those bytes.
    pub(super) bytes: u64,
}

impl StreamLosses {
    pub(super) fn add(&mut self, other: Self) {
        self.holes += other.holes;
        self.pieces += other.pieces;
        self.bytes += other.bytes;
    }
}

/// Where in messages the bytes of a stream start.
#[derive(Debug)]
pub(super) enum Frame {
    /// With a message.
    Known,
    /// With what may be one.
    Guessed,
    /// Anywhere, or the stream is not DNS at all.
    Lost,
    /// With a frame of HTTP/2.
    Http2(Bodies),
}

/// See the module. Positions count the bytes from the first on.
pub(super) struct Stream {
    /// The sequence number of its first byte.
    pub(super) first: u32,
    /// When it was used last: its place among the others.
    pub(super) used: u64,
    /// The number of the hole that is waited for.
    pub(super) hole: Option<u64>,
    pub(super) losses: StreamLosses,
    /// The sequence number of the byte after `bytes`, and its position.
    next: u32,
    position: u64,
    /// In order, from the start of a message on, as far as `frame` says.
    bytes: Vec<u8>,
    frame: Frame,
    /// When the segments of `bytes` came, by where they end.
    arrivals: VecDeque<(u64, Option<Moment>)>,
    /// Where the next message starts after one that the capture cut.
    resume_at: u64,
    /// Behind a hole, by position.
    ahead: BTreeMap<u64, Held>,
    ahead_bytes: usize,
    /// After its last byte, once a FIN said so.
    end: Option<u64>,
    /// It has ended; what is sent again is known by `next`.
    is_closed: bool,
}

struct Held {
    time: Option<Moment>,
    bytes: Vec<u8>,
    missing: usize,
}

impl Stream {
    pub(super) fn new(first: u32, frame: Frame) -> Self {
        Self {
            first,
            used: 0,
            hole: None,
            losses: StreamLosses::default(),
            next: first,
            position: 0,
            bytes: Vec::new(),
            frame,
            arrivals: VecDeque::new(),
            resume_at: 0,
            ahead: BTreeMap::new(),
            ahead_bytes: 0,
            end: None,
            is_closed: false,
        }
    }

    /// What it takes in memory, about.
    pub(super) fn held_bytes(&self) -> usize {
        let bodies = if let Frame::Http2(bodies) = &self.frame { bodies.held_bytes() } else { 0 };
        self.bytes.capacity() + self.ahead_bytes + self.arrivals.len() * ARRIVAL_BYTES + bodies
    }

    /// When the first segment behind the hole came; none without a hole or a time.
    pub(super) fn waits_since(&self) -> Option<Moment> {
        self.ahead.first_key_value().and_then(|(_, held)| held.time)
    }

    pub(super) fn has_hole(&self) -> bool {
        !self.ahead.is_empty()
    }

    /// Takes a segment whose bytes start at `sequence`, and hands out what it makes whole.
    pub(super) fn add(&mut self, sequence: u32, segment: &Segment<'_>, time: Option<Moment>, out: &mut Out<'_>) {
        if self.is_closed {
            return;
        }
        let Segment { bytes, missing, .. } = *segment;
        let distance = i64::from(sequence.wrapping_sub(self.next).cast_signed());
        if segment.is_last {
            let end = self.position.saturating_add_signed(distance) + (bytes.len() + missing) as u64;
            self.end = Some(end).filter(|&end| end >= self.position).or(self.end);
        }
        if distance > 0 {
            self.hold(self.position + distance.unsigned_abs(), bytes, missing, time);
            while self.ahead_bytes > AHEAD_BYTES_MAX || self.ahead.len() > AHEAD_SEGMENTS_MAX {
                self.pass_hole(out);
            }
        } else {
            let known = usize::try_from(distance.unsigned_abs()).unwrap_or(usize::MAX);
            self.append_after(known, bytes, missing, time, out);
            self.catch_up(time, out);
        }
        match segment.is_reset {
            true => self.close(out),
            false => self.close_at_end(out),
        }
    }

    /// Gives up the holes whose bytes the receiver has: they were lost on the way to the capture.
    pub(super) fn pass_acknowledged(&mut self, acknowledged: Option<u32>, out: &mut Out<'_>) {
        while let (Some(acknowledged), Some((&place, _))) = (acknowledged, self.ahead.first_key_value()) {
            let distance = i64::from(acknowledged.wrapping_sub(self.next).cast_signed());
            if distance <= 0 || self.position + distance.unsigned_abs() < place {
                break;
            }
            self.pass_hole(out);
        }
        self.close_at_end(out);
    }

    /// Gives up the holes that were waited for long enough at a time.
    pub(super) fn pass_old_holes(&mut self, now: Option<Moment>, out: &mut Out<'_>) {
        while let (Some(since), Some(now)) = (self.waits_since(), now)
            && is_over(since, now)
        {
            self.pass_hole(out);
        }
        self.close_at_end(out);
    }

    /// Hands out what waits behind holes, and takes nothing more.
    pub(super) fn close(&mut self, out: &mut Out<'_>) {
        while !self.ahead.is_empty() {
            self.pass_hole(out);
        }
        self.pass_bytes();
        self.arrivals = VecDeque::new();
        self.is_closed = true;
        if let Frame::Http2(bodies) = &mut self.frame {
            bodies.lose();
        }
    }

    /// A FIN may come before what was lost is sent again.
    fn close_at_end(&mut self, out: &mut Out<'_>) {
        if self.end.is_some_and(|end| self.position >= end) {
            self.close(out);
        }
    }

    fn hold(&mut self, place: u64, bytes: &[u8], missing: usize, time: Option<Moment>) {
        let known = self.ahead.get(&place).map_or(0, |held| held.bytes.len() + held.missing);
        if bytes.len() + missing <= known {
            return;
        }
        let held = Held { time, bytes: bytes.to_vec(), missing };
        self.ahead_bytes += held.bytes.len() + HELD_BYTES;
        if let Some(before) = self.ahead.insert(place, held) {
            self.ahead_bytes -= before.bytes.len() + HELD_BYTES;
        }
    }

    /// Appends what now follows. What filled a hole made it whole, so its time counts too.
    fn catch_up(&mut self, filled: Option<Moment>, out: &mut Out<'_>) {
        while let Some(entry) = self.ahead.first_entry().filter(|entry| *entry.key() <= self.position) {
            let (place, held) = entry.remove_entry();
            self.ahead_bytes -= held.bytes.len() + HELD_BYTES;
            let known = (self.position - place) as usize;
            self.append_after(known, &held.bytes, held.missing, held.time.max(filled), out);
        }
    }

    /// Goes on behind the hole.
    fn pass_hole(&mut self, out: &mut Out<'_>) {
        let Some((place, held)) = self.ahead.pop_first() else { return };
        self.ahead_bytes -= held.bytes.len() + HELD_BYTES;
        self.losses.holes += 1;
        self.pass_bytes();
        self.lose_frame(place);
        self.next = self.next.wrapping_add((place - self.position) as u32);
        self.position = place;
        self.append_after(0, &held.bytes, held.missing, held.time, out);
        self.catch_up(None, out);
    }

    /// Bytes before `position` are missing: where the next message starts is known only after one that was cut.
    fn lose_frame(&mut self, position: u64) {
        match &mut self.frame {
            Frame::Http2(bodies) => bodies.lose(),
            Frame::Known if position <= self.resume_at => {}
            frame => *frame = Frame::Lost,
        }
    }

    /// Appends a segment of which so many bytes are known already.
    fn append_after(&mut self, known: usize, bytes: &[u8], missing: usize, time: Option<Moment>, out: &mut Out<'_>) {
        let missing = missing.saturating_sub(known.saturating_sub(bytes.len()));
        if let Some(new @ [_, ..]) = bytes.get(known..) {
            self.append(new, time, out);
        }
        if missing > 0 {
            self.pass_missing(missing, out);
        }
    }

    fn append(&mut self, bytes: &[u8], time: Option<Moment>, out: &mut Out<'_>) {
        // Each segment may start with a message where the one before it did not.
        let is_lost = match self.frame {
            Frame::Lost => true,
            Frame::Guessed => !may_start_message(&self.bytes),
            Frame::Known | Frame::Http2(_) => false,
        };
        if is_lost {
            self.pass_bytes();
            self.frame = Frame::Guessed;
        }
        let rest_of_cut = usize::try_from(self.resume_at.saturating_sub(self.position)).unwrap_or(usize::MAX);
        self.next = self.next.wrapping_add(bytes.len() as u32);
        self.position += bytes.len() as u64;
        let Some(bytes @ [_, ..]) = bytes.get(rest_of_cut..) else { return };
        match self.arrivals.back_mut() {
            Some((end, same)) if *same == time => *end = self.position,
            _ => self.arrivals.push_back((self.position, time)),
        }
        let mut joined = std::mem::take(&mut self.bytes);
        if joined.is_empty() {
            // The usual case, without a copy.
            let used = self.hand_out(bytes, out);
            joined.extend_from_slice(bytes.get(used..).unwrap_or_default());
        } else {
            joined.extend_from_slice(bytes);
            let used = self.hand_out(&joined, out);
            joined.drain(..used);
        }
        if joined.is_empty() {
            joined = Vec::new();
        }
        self.bytes = joined;
        let start = self.start();
        while self.arrivals.front().is_some_and(|&(end, _)| end <= start) {
            self.arrivals.pop_front();
        }
    }

    /// The position of the first of `bytes`.
    fn start(&self) -> u64 {
        self.position - self.bytes.len() as u64
    }

    /// Hands out the messages that `bytes`, which end at the position, begin with; answers how many of them are done.
    fn hand_out(&mut self, bytes: &[u8], out: &mut Out<'_>) -> usize {
        let start = self.position - bytes.len() as u64;
        if let Frame::Http2(bodies) = &mut self.frame {
            let time = self.arrivals.back().and_then(|&(_, time)| time);
            return bodies.take(bytes, &mut |message| out(SocketProtocol::DOH, time, message));
        }
        let mut at = 0;
        while let Some((&[high, low], rest)) = bytes.get(at..).and_then(|rest| rest.split_first_chunk()) {
            if !matches!(self.frame, Frame::Known) && !may_start_message(bytes.get(at..).unwrap_or_default()) {
                self.frame = Frame::Lost;
                break;
            }
            let Some(message) = rest.get(..usize::from(u16::from_be_bytes([high, low]))) else { break };
            let end = at + 2 + message.len();
            if !message.is_empty() {
                out(SocketProtocol::TCP, self.time_of(start + at as u64, start + end as u64), message);
            }
            self.frame = Frame::Known;
            at = end;
        }
        at
    }

    /// When the last of the segments came that bytes between two positions are of.
    fn time_of(&self, from: u64, to: u64) -> Option<Moment> {
        let mut latest = None;
        for &(end, time) in &self.arrivals {
            if end > from {
                latest = latest.max(time);
            }
            if end >= to {
                break;
            }
        }
        latest
    }

    /// Passes bytes that were sent and not captured. The message that they cut is handed out as far as it goes.
    fn pass_missing(&mut self, missing: usize, out: &mut Out<'_>) {
        let start = self.start();
        let is_message = match self.frame {
            Frame::Known => true,
            Frame::Guessed => self.bytes.len() >= 2 + HEADER_BYTES && may_start_message(&self.bytes),
            Frame::Lost | Frame::Http2(_) => false,
        };
        let after = start.max(self.resume_at);
        let mut next_message = if is_message { after } else { 0 };
        let begun = std::mem::take(&mut self.bytes);
        match begun.split_first_chunk() {
            Some((&length, rest)) if is_message => {
                next_message = after + 2 + u64::from(u16::from_be_bytes(length));
                if rest.len() >= HEADER_BYTES {
                    out(SocketProtocol::TCP, self.time_of(start, self.position), rest);
                } else {
                    self.note_passed(begun.len());
                }
            }
            _ => self.note_passed(begun.len()),
        }
        self.arrivals.clear();
        self.next = self.next.wrapping_add(missing as u32);
        self.position += missing as u64;
        if next_message >= self.position {
            self.frame = Frame::Known;
            self.resume_at = next_message;
        } else {
            self.losses.holes += 1;
            self.lose_frame(u64::MAX);
        }
    }

    fn pass_bytes(&mut self) {
        let passed = std::mem::take(&mut self.bytes);
        self.note_passed(passed.len());
        self.arrivals.clear();
    }

    fn note_passed(&mut self, bytes: usize) {
        self.losses.pieces += u64::from(bytes > 0);
        self.losses.bytes += bytes as u64;
    }
}

/// Whether a hole was waited for long enough. A time before counts as one after: the clock was set.
pub(super) fn is_over(since: Moment, now: Moment) -> bool {
    since.total_nanos().abs_diff(now.total_nanos()) > HOLE_NANOS
}

/// Whether bytes look like a length and a DNS message, as far as they go: a known opcode, one question, and counts that
/// fit.
fn may_start_message(bytes: &[u8]) -> bool {
    let number = |at: usize| {
        let pair = bytes.get(at..).and_then(|rest| rest.first_chunk()).copied();
        pair.map(|pair| usize::from(u16::from_be_bytes(pair)))
    };
    let length = number(0).unwrap_or(HEADER_BYTES);
    let opcode = number(4).unwrap_or(0) >> 11 & 0xf;
    let records = [8, 10, 12].into_iter().filter_map(number).sum::<usize>();
    length >= HEADER_BYTES && opcode <= 6 && number(6).unwrap_or(1) <= 1 && records * 11 <= length
}
