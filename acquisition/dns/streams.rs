//! Puts TCP streams together and cuts them into DNS messages: each is a length in two bytes and as many bytes
//! (RFC 1035, section 4.2.2).
//!
//! | what is captured | what comes out |
//! | --- | --- |
//! | segments out of order, or again, also after the end | each message once |
//! | a stream from its middle, or with a hole that nothing fills | messages from the next segment on that starts with one |
//! | a message over several segments, several in one | each, with the time of the packet that made it whole |
//! | a segment that the capture cut | its message as far as it goes; the stream goes on behind it |
//! | a FIN before what was lost is sent again | all up to the FIN's place |
//!
//! Connections of HTTP/2 in the clear are followed where their first bytes are seen: see [`super::http2`].
//!
//! A hole is given up when the receiver acknowledges bytes behind it, three seconds after what lies behind it came, when
//! too much waits behind it, when the stream is reset or begins anew, or at the end.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;

use super::dnstap::{Moment, SocketProtocol};
use super::http2::Bodies;
use super::stream::{Frame, Out, Stream, StreamLosses, is_over};

/// Directions of connections that are followed, those that ended among them; the one that was not used for longest
/// makes room.
const STREAMS_MAX: usize = 8_192;

/// Bytes that all of them hold; the one that was not used for longest makes room.
const HELD_BYTES_MAX: usize = 32 << 20;

/// One direction of a connection: who sends to whom.
pub(super) type Direction = (SocketAddr, SocketAddr);

/// A TCP segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment<'a> {
    pub(super) direction: Direction,
    pub(super) sequence: u32,
    /// The next byte of the other direction that is waited for, where it says so.
    pub(super) acknowledged: Option<u32>,
    /// SYN.
    pub(super) starts: bool,
    /// FIN: it is the last one.
    pub(super) is_last: bool,
    /// RST: nothing more comes.
    pub(super) is_reset: bool,
    pub(super) bytes: &'a [u8],
    /// How many bytes it had behind these that were not captured.
    pub(super) missing: usize,
}

/// Where messages go: the direction, how it travelled, the time, the message.
pub(super) type Sink<'s> = dyn FnMut(Direction, SocketProtocol, Option<Moment>, &[u8]) + 's;

/// See the module.
#[derive(Default)]
pub(super) struct Streams {
    followed: HashMap<Direction, Stream>,
    /// By when they were used last.
    used: BTreeMap<u64, Direction>,
    /// Holes in the order in which they are given up: the direction, the number of the hole, and since when.
    holes: VecDeque<(Direction, u64, Moment)>,
    next_number: u64,
    held_bytes: usize,
    losses: StreamLosses,
}

impl Streams {
    /// Takes a segment, and hands out the messages that it makes whole.
    pub(super) fn add(&mut self, segment: &Segment<'_>, time: Option<Moment>, sink: &mut Sink<'_>) {
        let direction = segment.direction;
        self.look_at_other(segment, time, sink);
        // SYN counts as one byte; data may come with it: RFC 7413.
        let sequence = segment.sequence.wrapping_add(u32::from(segment.starts));
        let is_another = |stream: &Stream| segment.starts && stream.first != sequence;
        if self.followed.get(&direction).is_some_and(is_another) {
            self.forget(direction, sink);
        }
        let has_nothing = segment.bytes.is_empty() && segment.missing == 0 && !segment.starts;
        if has_nothing && !self.followed.contains_key(&direction) {
            return;
        }
        self.follow(direction, || Stream::new(sequence, if segment.starts { Frame::Known } else { Frame::Lost }));
        self.change(direction, sink, |stream, out| {
            stream.pass_old_holes(time, out);
            stream.add(sequence, segment, time, out);
        });
        while self.followed.len() > STREAMS_MAX || self.held_bytes > HELD_BYTES_MAX {
            let Some((_, oldest)) = self.used.first_key_value() else { break };
            self.forget(*oldest, sink);
        }
    }

    /// Follows both directions of the connection whose client's first words the segment has.
    pub(super) fn follow_http2(&mut self, segment: &Segment<'_>) {
        let (client, server) = segment.direction;
        self.follow((client, server), || Stream::new(segment.sequence, Frame::Http2(Bodies::default())));
        if let Some(next) = segment.acknowledged {
            self.follow((server, client), || Stream::new(next, Frame::Http2(Bodies::default())));
        }
    }

    /// Whether the direction is followed already.
    pub(super) fn has(&self, direction: &Direction) -> bool {
        self.followed.contains_key(direction)
    }

    /// Gives up the holes that were waited for long enough by a clock.
    pub(super) fn pass_time(&mut self, now: Moment, sink: &mut Sink<'_>) {
        while let Some(&(direction, number, since)) = self.holes.front()
            && is_over(since, now)
        {
            self.holes.pop_front();
            if self.followed.get(&direction).is_some_and(|stream| stream.hole == Some(number)) {
                self.change(direction, sink, |stream, out| {
                    stream.hole = None;
                    stream.pass_old_holes(Some(now), out);
                });
            }
        }
    }

    /// Hands out what waits behind holes that nothing will fill.
    pub(super) fn end(&mut self, sink: &mut Sink<'_>) {
        while let Some((_, &oldest)) = self.used.first_key_value() {
            self.forget(oldest, sink);
        }
    }

    /// How many directions have something waiting behind a hole.
    pub(super) fn waiting(&self) -> usize {
        self.followed.values().filter(|stream| stream.has_hole()).count()
    }

    /// What all of them hold, about.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// What was not kept so far.
    pub(super) fn losses(&self) -> StreamLosses {
        self.losses
    }

    /// Of the other direction the receiver may have what was not captured, and time passes for it too.
    fn look_at_other(&mut self, segment: &Segment<'_>, time: Option<Moment>, sink: &mut Sink<'_>) {
        let (source, destination) = segment.direction;
        let other = (destination, source);
        if self.followed.get(&other).is_some_and(Stream::has_hole) {
            self.change(other, sink, |stream, out| {
                stream.pass_acknowledged(segment.acknowledged, out);
                stream.pass_old_holes(time, out);
            });
        }
    }

    fn follow(&mut self, direction: Direction, make: impl FnOnce() -> Stream) {
        let number = self.number();
        let stream = self.followed.entry(direction).or_insert_with(make);
        self.used.remove(&std::mem::replace(&mut stream.used, number));
        self.used.insert(number, direction);
    }

    /// Never zero, which a new stream has.
    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    /// Does something with a stream, and counts what comes of it.
    fn change(&mut self, direction: Direction, sink: &mut Sink<'_>, work: impl FnOnce(&mut Stream, &mut Out<'_>)) {
        let number = self.number();
        let Some(stream) = self.followed.get_mut(&direction) else { return };
        let before = stream.held_bytes();
        work(stream, &mut |protocol, time, message| sink(direction, protocol, time, message));
        self.held_bytes = self.held_bytes + stream.held_bytes() - before;
        self.losses.add(std::mem::take(&mut stream.losses));
        let since = stream.waits_since();
        match (stream.hole, since) {
            (None, Some(since)) => {
                stream.hole = Some(number);
                self.holes.push_back((direction, number, since));
            }
            (Some(_), None) => stream.hole = None,
            _ => {}
        }
        // Holes that were filled are taken off only when their time comes.
        if self.holes.len() > 4 * STREAMS_MAX {
            let followed = &self.followed;
            let waits = |direction: &Direction, number| {
                followed.get(direction).is_some_and(|stream| stream.hole == Some(number))
            };
            self.holes.retain(|(direction, number, _)| waits(direction, *number));
        }
    }

    fn forget(&mut self, direction: Direction, sink: &mut Sink<'_>) {
        self.change(direction, sink, |stream, out| stream.close(out));
        if let Some(stream) = self.followed.remove(&direction) {
            self.held_bytes -= stream.held_bytes();
            self.used.remove(&stream.used);
        }
    }
}
