//! Puts TCP streams together and cuts them into DNS messages: each is a length in two bytes and as many bytes
//! (RFC 1035, section 4.2.2).
//!
//! | what is captured | what comes out |
//! | --- | --- |
//! | segments out of order, or again | each message once |
//! | a stream from its middle, or with a hole that nothing fills | messages from the next segment on that starts with one |
//! | a message over several segments, several in one | each, with the time of the packet that made it whole |
//!
//! Connections of HTTP/2 in the clear are followed where their first bytes are seen: see [`super::http2`].
//!
//! A hole is given up when the stream ends or begins anew, when [`AHEAD_BYTES_MAX`] wait behind it, or at the end.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;

use super::dnstap::{Moment, SocketProtocol};
use super::http2::Bodies;
use super::message::HEADER_BYTES;

/// Directions of connections that are followed; the one that is longest there makes room.
const STREAMS_MAX: usize = 8_192;

/// Bytes that wait behind a hole: the usual window without scaling.
const AHEAD_BYTES_MAX: usize = 64 << 10;

/// Segments that wait behind a hole.
const AHEAD_SEGMENTS_MAX: usize = 256;

/// One direction of a connection: who sends to whom.
pub(super) type Direction = (SocketAddr, SocketAddr);

/// A TCP segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment<'a> {
    pub(super) direction: Direction,
    pub(super) sequence: u32,
    /// The next byte of the other direction that is waited for.
    pub(super) acknowledged: u32,
    pub(super) starts: bool,
    /// FIN or RST.
    pub(super) ends: bool,
    pub(super) bytes: &'a [u8],
}

/// Where messages go: the direction, how it travelled, the time, the message.
pub(super) type Sink<'s> = dyn FnMut(Direction, SocketProtocol, Option<Moment>, &[u8]) + 's;

/// See the module.
#[derive(Default)]
pub(super) struct Streams {
    open: HashMap<Direction, Stream>,
    /// In the order of their first segments; the number tells a later stream of the same direction.
    order: VecDeque<(Direction, u64)>,
    next_number: u64,
    holes: u64,
    passed_bytes: u64,
}

impl Streams {
    /// Takes a segment, and hands out the messages that it makes whole.
    pub(super) fn add(&mut self, segment: &Segment<'_>, time: Option<Moment>, sink: &mut Sink<'_>) {
        let direction = segment.direction;
        if segment.starts {
            self.close(direction, sink);
        }
        let has_nothing = segment.bytes.is_empty() && !segment.starts;
        if has_nothing && !self.open.contains_key(&direction) {
            return;
        }
        let stream = self.stream(direction, || {
            let frame = if segment.starts { Frame::Known } else { Frame::Lost };
            Stream::new(segment.sequence.wrapping_add(u32::from(segment.starts)), frame)
        });
        // SYN counts as one byte; data may come with it: RFC 7413.
        let sequence = segment.sequence.wrapping_add(u32::from(segment.starts));
        stream.add(sequence, segment.bytes, time);
        stream.hand_out(direction, sink);
        if stream.is_hole_given_up() {
            stream.pass_hole();
            stream.hand_out(direction, sink);
        }
        if segment.ends {
            self.close(direction, sink);
        }
        while self.order.len() > STREAMS_MAX {
            self.drop_oldest(sink);
        }
    }

    /// Follows both directions of the connection whose client's first words the segment has.
    pub(super) fn follow_http2(&mut self, segment: &Segment<'_>) {
        let (client, server) = segment.direction;
        let starts = [((client, server), segment.sequence), ((server, client), segment.acknowledged)];
        for (direction, next) in starts {
            self.stream(direction, || Stream::new(next, Frame::Http2(Bodies::default())));
        }
    }

    /// Whether the direction is followed already.
    pub(super) fn has(&self, direction: &Direction) -> bool {
        self.open.contains_key(direction)
    }

    fn stream(&mut self, direction: Direction, make: impl FnOnce() -> Stream) -> &mut Stream {
        self.open.entry(direction).or_insert_with(|| {
            self.next_number += 1;
            self.order.push_back((direction, self.next_number));
            Stream { number: self.next_number, ..make() }
        })
    }

    /// Hands out what waits behind holes that nothing will fill.
    pub(super) fn end(&mut self, sink: &mut Sink<'_>) {
        while !self.order.is_empty() {
            self.drop_oldest(sink);
        }
    }

    /// Holes that were given up, and bytes of which no message was made.
    pub(super) fn losses(&self) -> (u64, u64) {
        (self.holes, self.passed_bytes)
    }

    fn drop_oldest(&mut self, sink: &mut Sink<'_>) {
        let Some((direction, number)) = self.order.pop_front() else { return };
        if self.open.get(&direction).is_some_and(|stream| stream.number == number) {
            self.close(direction, sink);
        }
    }

    fn close(&mut self, direction: Direction, sink: &mut Sink<'_>) {
        let Some(mut stream) = self.open.remove(&direction) else { return };
        while !stream.ahead.is_empty() {
            stream.pass_hole();
            stream.hand_out(direction, sink);
        }
        self.holes += stream.holes;
        self.passed_bytes += stream.passed_bytes + stream.bytes.len() as u64;
    }
}

/// Where in messages the bytes of a stream start.
#[derive(Debug)]
enum Frame {
    /// With a message.
    Known,
    /// With what may be one.
    Guessed,
    /// Anywhere, or the stream is not DNS at all.
    Lost,
    /// With a frame of HTTP/2.
    Http2(Bodies),
}

struct Stream {
    number: u64,
    /// The sequence number of the byte after `bytes`.
    next: u32,
    /// In order, from the start of a message on, as far as `frame` says.
    bytes: Vec<u8>,
    frame: Frame,
    /// When the last of `bytes` came.
    time: Option<Moment>,
    /// Behind a hole, by position.
    ahead: BTreeMap<u64, (Option<Moment>, Vec<u8>)>,
    ahead_bytes: usize,
    /// Of the byte after `bytes`, counted from the first.
    position: u64,
    holes: u64,
    passed_bytes: u64,
}

impl Stream {
    fn new(next: u32, frame: Frame) -> Self {
        Self {
            number: 0,
            next,
            bytes: Vec::new(),
            frame,
            time: None,
            ahead: BTreeMap::new(),
            ahead_bytes: 0,
            position: 0,
            holes: 0,
            passed_bytes: 0,
        }
    }

    fn add(&mut self, sequence: u32, bytes: &[u8], time: Option<Moment>) {
        let distance = i64::from(sequence.wrapping_sub(self.next).cast_signed());
        if distance > 0 {
            if bytes.is_empty() {
                return;
            }
            let place = self.position + distance.unsigned_abs();
            let held = self.ahead.get(&place).map_or(0, |(_, held)| held.len());
            if held < bytes.len() {
                self.ahead_bytes += bytes.len() - held;
                self.ahead.insert(place, (time, bytes.to_vec()));
            }
            return;
        }
        let known = usize::try_from(distance.unsigned_abs()).unwrap_or(usize::MAX);
        let Some(new @ [_, ..]) = bytes.get(known..) else { return };
        self.append(new, time);
        while let Some(entry) = self.ahead.first_entry().filter(|entry| *entry.key() <= self.position) {
            let (place, (_, held)) = entry.remove_entry();
            self.ahead_bytes -= held.len();
            let known = (self.position - place) as usize;
            // What filled the hole made it whole, so its time counts.
            self.append(held.get(known..).unwrap_or_default(), time);
        }
    }

    fn append(&mut self, bytes: &[u8], time: Option<Moment>) {
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
        self.bytes.extend_from_slice(bytes);
        self.next = self.next.wrapping_add(bytes.len() as u32);
        self.position += bytes.len() as u64;
        self.time = time;
    }

    fn hand_out(&mut self, direction: Direction, sink: &mut Sink<'_>) {
        let time = self.time;
        if let Frame::Http2(bodies) = &mut self.frame {
            return bodies.take(&mut self.bytes, &mut |message| sink(direction, SocketProtocol::DOH, time, message));
        }
        let mut at = 0;
        while let Some((&[high, low], rest)) = self.bytes.get(at..).and_then(|rest| rest.split_first_chunk()) {
            if !matches!(self.frame, Frame::Known) && !may_start_message(self.bytes.get(at..).unwrap_or_default()) {
                self.frame = Frame::Lost;
                return;
            }
            let Some(message) = rest.get(..usize::from(u16::from_be_bytes([high, low]))) else { break };
            if !message.is_empty() {
                sink(direction, SocketProtocol::TCP, time, message);
            }
            self.frame = Frame::Known;
            at += 2 + message.len();
        }
        self.bytes.drain(..at);
    }

    fn pass_bytes(&mut self) {
        self.passed_bytes += self.bytes.len() as u64;
        self.bytes.clear();
    }

    fn is_hole_given_up(&self) -> bool {
        self.ahead_bytes > AHEAD_BYTES_MAX || self.ahead.len() > AHEAD_SEGMENTS_MAX
    }

    /// Goes on behind the hole.
    fn pass_hole(&mut self) {
        let Some((place, (time, held))) = self.ahead.pop_first() else { return };
        self.ahead_bytes -= held.len();
        self.holes += 1;
        self.pass_bytes();
        match &mut self.frame {
            Frame::Http2(bodies) => bodies.lose(),
            frame => *frame = Frame::Lost,
        }
        self.next = self.next.wrapping_add((place - self.position) as u32);
        self.position = place;
        let next = self.next;
        self.add(next, &held, time);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn message(number: u8) -> Vec<u8> {
        [&[0, 13, 0, number][..], &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, number]].concat()
    }

    /// The numbers of the messages that come out of segments: offset in the stream (from a SYN at 0) and bytes.
    fn read(segments: &[(u32, &[u8])], with_start: bool) -> (Vec<u8>, (u64, u64)) {
        let (mut streams, mut found) = (Streams::default(), Vec::new());
        let ends: Direction = ("192.0.2.1:40000".parse().unwrap(), "192.0.2.53:53".parse().unwrap());
        let first = u32::MAX - 10;
        let mut sink = |_: Direction, _: SocketProtocol, _: Option<Moment>, message: &[u8]| found.push(message[1]);
        let segment = |sequence, starts, bytes| Segment {
            direction: ends,
            sequence,
            acknowledged: 0,
            starts,
            ends: false,
            bytes,
        };
        if with_start {
            streams.add(&segment(first, true, &[]), None, &mut sink);
        }
        for &(offset, bytes) in segments {
            streams.add(&segment(first.wrapping_add(1 + offset), false, bytes), None, &mut sink);
        }
        streams.end(&mut sink);
        (found, streams.losses())
    }

    #[test]
    fn messages_come_out_of_any_segments() {
        let stream = [message(1), message(2), message(3)].concat();
        assert_eq!(read(&[(0, &stream)], true).0, [1, 2, 3]);
        let bytes: Vec<(u32, &[u8])> = stream.chunks(1).enumerate().map(|(at, byte)| (at as u32, byte)).collect();
        assert_eq!(read(&bytes, true), (vec![1, 2, 3], (0, 0)));
        let backwards: Vec<_> = bytes.iter().rev().copied().collect();
        assert_eq!(read(&backwards, true), (vec![1, 2, 3], (0, 0)));
        let again = [(0, &stream[..20]), (0, &stream[..20]), (30, &stream[30..]), (10, &stream[10..])];
        assert_eq!(read(&again, true), (vec![1, 2, 3], (0, 0)));
    }

    #[test]
    fn behind_a_hole_the_next_message_at_the_start_of_a_segment_is_found() {
        let stream = [message(1), message(2), message(3), message(4)].concat();
        // The second message is never whole; the third starts within a segment, the fourth with one.
        let holed = [(0, &stream[..15]), (20, &stream[20..45]), (45, &stream[45..])];
        assert_eq!(read(&holed, true), (vec![1, 4], (1, 25)));
        assert_eq!(read(&[(15, &stream[15..])], false), (vec![2, 3, 4], (0, 0)), "a stream from its middle");
    }

    #[test]
    fn what_is_not_dns_is_passed_over() {
        let noise = b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n";
        assert_eq!(read(&[(0, noise)], false), (Vec::new(), (0, noise.len() as u64)));
    }
}
