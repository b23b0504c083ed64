//! TCP streams.

use super::dnstap::{Moment, SocketProtocol};
use super::streams::{Direction, Segment, Streams};

/// The sequence number of a SYN; it wraps early.
const FIRST: u32 = u32::MAX - 10;

fn message(number: u8) -> Vec<u8> {
    [&[0, 13, 0, number][..], &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, number]].concat()
}

fn client() -> Direction {
    ("192.0.2.1:40000".parse().unwrap(), "192.0.2.53:53".parse().unwrap())
}

/// A stream that starts after [`FIRST`], and the numbers and times in seconds of the messages that came out.
#[derive(Default)]
struct Subject {
    streams: Streams,
    found: Vec<(u8, u64)>,
}

impl Subject {
    fn started() -> Self {
        let mut subject = Self::default();
        subject.add(0, Segment { sequence: FIRST, starts: true, ..at(0, &[]) });
        subject
    }

    fn add(&mut self, seconds: u64, segment: Segment<'_>) {
        let time = Some(Moment { seconds, nanos: 0 });
        let found = &mut self.found;
        self.streams.add(&segment, time, &mut |_, _, time, message| note(found, time, message));
    }

    fn end(mut self) -> (Vec<(u8, u64)>, (u64, u64)) {
        let found = &mut self.found;
        self.streams.end(&mut |_, _, time, message| note(found, time, message));
        let losses = self.streams.losses();
        (self.found, (losses.holes, losses.bytes))
    }
}

fn note(found: &mut Vec<(u8, u64)>, time: Option<Moment>, message: &[u8]) {
    found.push((message[1], time.map_or(0, |time| time.seconds)));
}

/// A segment at an offset of the stream.
fn at(offset: u32, bytes: &[u8]) -> Segment<'_> {
    Segment {
        direction: client(),
        sequence: FIRST.wrapping_add(1 + offset),
        acknowledged: None,
        starts: false,
        is_last: false,
        is_reset: false,
        bytes,
        missing: 0,
    }
}

/// What comes out of segments that come a second apart.
fn read(segments: &[(u32, &[u8])], with_start: bool) -> (Vec<u8>, (u64, u64)) {
    let mut subject = if with_start { Subject::started() } else { Subject::default() };
    for (seconds, &(offset, bytes)) in (1..).zip(segments) {
        subject.add(seconds / 10, at(offset, bytes));
    }
    let (found, losses) = subject.end();
    (found.into_iter().map(|(number, _)| number).collect(), losses)
}

#[test]
fn messages_come_out_of_any_segments() {
    let stream = [message(1), message(2), message(3)].concat();
    assert_eq!(read(&[(0, &stream)], true).0, [1, 2, 3]);
    let bytes: Vec<(u32, &[u8])> = stream.chunks(1).enumerate().map(|(at, byte)| (at as u32, byte)).collect();
    assert_eq!(read(&bytes, true), (vec![1, 2, 3], (0, 0)));
    let pairs: Vec<(u32, &[u8])> = stream.chunks(2).enumerate().map(|(at, pair)| (at as u32 * 2, pair)).collect();
    let backwards: Vec<_> = pairs.iter().rev().copied().collect();
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

#[test]
fn each_message_has_the_time_of_the_segment_that_made_it_whole() {
    let stream = [message(1), message(2), message(3), message(4)].concat();
    let mut subject = Subject::started();
    for (seconds, from, to) in [(10, 15, 30), (11, 30, 40), (12, 40, 60)] {
        subject.add(seconds, at(from as u32, &stream[from..to]));
    }
    assert_eq!(subject.end().0, [(2, 10), (3, 12), (4, 12)], "behind a hole that nothing fills");
    let mut subject = Subject::started();
    for (seconds, from, to) in [(10, 15, 30), (11, 40, 60), (12, 0, 20), (13, 30, 40)] {
        subject.add(seconds, at(from as u32, &stream[from..to]));
    }
    assert_eq!(subject.end().0, [(1, 12), (2, 12), (3, 13), (4, 13)], "behind holes that were filled");
}

#[test]
fn a_hole_is_given_up_after_a_while_or_when_the_other_side_has_its_bytes() {
    let stream = [message(1), message(2), message(3)].concat();
    let mut subject = Subject::started();
    subject.add(10, at(15, &stream[15..30]));
    subject.add(13, at(30, &[]));
    assert_eq!(subject.found, []);
    subject.add(14, at(30, &stream[30..]));
    assert_eq!(subject.found, [(2, 10), (3, 14)], "by the times of its own packets");

    let mut subject = Subject::started();
    subject.add(10, at(15, &stream[15..30]));
    let (source, destination) = client();
    let back = |offset: u32| Segment {
        direction: (destination, source),
        acknowledged: Some(FIRST.wrapping_add(1 + offset)),
        ..at(0, &[])
    };
    subject.add(10, back(0));
    assert_eq!(subject.found, [], "the other side waits for it too");
    subject.add(10, back(30));
    assert_eq!(subject.found, [(2, 10)]);

    let mut subject = Subject::started();
    subject.add(10, at(15, &stream[15..30]));
    let found = &mut subject.found;
    let mut pass = |seconds| {
        let now = Moment { seconds, nanos: 0 };
        subject.streams.pass_time(now, &mut |_, _, time, message| note(found, time, message));
        found.len()
    };
    assert_eq!((pass(13), pass(14)), (0, 1), "by a clock, where the connection is quiet");
}

#[test]
fn a_stream_ends_at_its_last_byte_and_what_is_sent_again_is_known() {
    let stream = [message(1), message(2)].concat();
    let mut subject = Subject::started();
    subject.add(1, Segment { is_last: true, ..at(20, &stream[20..]) });
    subject.add(2, at(0, &stream[..20]));
    assert_eq!(subject.found, [(1, 2), (2, 2)], "the end came before what was lost");
    for segment in [at(0, &stream), Segment { is_last: true, ..at(20, &stream[20..]) }] {
        subject.add(3, segment);
    }
    assert_eq!(subject.found.len(), 2, "sent again after the end");
    subject.add(4, Segment { sequence: 7, starts: true, ..at(0, &[]) });
    subject.add(4, Segment { sequence: 8, ..at(0, &stream[..15]) });
    assert_eq!(subject.found.last(), Some(&(1, 4)), "another connection of the same ports");
    subject.add(5, Segment { sequence: 38, is_reset: true, ..at(0, &stream[15..]) });
    assert_eq!(subject.end().0.last(), Some(&(2, 5)), "a reset waits for nothing");
}

#[test]
fn a_segment_that_the_capture_cut_gives_what_there_is_and_the_stream_goes_on() {
    let long = [&[0, 100, 0, 1][..], &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0], &[1; 88]].concat();
    let stream = [long.clone(), message(2), message(3)].concat();
    let mut subject = Subject::started();
    subject.add(1, Segment { missing: 62, ..at(0, &stream[..40]) });
    assert_eq!(subject.found, [(1, 1)]);
    subject.add(2, at(102, &stream[102..117]));
    subject.add(3, at(117, &stream[117..]));
    assert_eq!(subject.end(), (vec![(1, 1), (2, 2), (3, 3)], (0, 0)));
    // The rest of the message comes with the next segment, in front of another.
    let mut subject = Subject::started();
    subject.add(1, Segment { missing: 30, ..at(0, &stream[..40]) });
    subject.add(2, at(70, &stream[70..]));
    assert_eq!(subject.end(), (vec![(1, 1), (2, 2), (3, 2)], (0, 0)));
    // Where the next message starts is not known: it is found at the start of a segment.
    let mut subject = Subject::started();
    subject.add(1, Segment { missing: 70, ..at(0, &stream[..40]) });
    subject.add(2, at(110, &stream[110..117]));
    subject.add(3, at(117, &stream[117..]));
    assert_eq!(subject.end(), (vec![(1, 1), (3, 3)], (1, 7)));
}

#[test]
fn what_all_streams_hold_is_bounded() {
    let mut streams = Streams::default();
    let (mut found, body) = (0, [&[0xff, 0xfd][..], &[0; 60_000]].concat());
    for port in 0..2_000 {
        let direction = (([192, 0, 2, 1], 1_000 + port).into(), client().1);
        let segment = |offset, bytes| Segment { direction, ..at(offset, bytes) };
        let mut sink = |_: Direction, _: SocketProtocol, _: Option<Moment>, _: &[u8]| found += 1;
        streams.add(&Segment { sequence: FIRST, starts: true, ..segment(0, &[]) }, None, &mut sink);
        streams.add(&segment(0, &body), None, &mut sink);
        streams.add(&segment(100_000, &body[..50_000]), None, &mut sink);
        assert!(streams.held_bytes() <= 32 << 20);
    }
    assert!(streams.held_bytes() > 30 << 20);
    let losses = streams.losses();
    assert!(losses.pieces >= 1_400 && losses.bytes > 100 << 20, "{losses:?}");
}
