//! A stream of Frame Streams as its reader sees it: who may say what, and when. The frames are [`super::frame`]'s.
//!
//! | stream | the writer says | the reader says |
//! | --- | --- | --- |
//! | with handshake (servers at sockets) | READY, START, data…, STOP | ACCEPT after READY, FINISH after STOP |
//! | one way (files, and simple senders at sockets) | START, data…, STOP | nothing |
//!
//! | input | outcome |
//! | --- | --- |
//! | READY that offers types, none of them dnstap's; START of another type | [`Violation::ContentType`] |
//! | READY or START that names no type | taken as dnstap's, as the reference implementation does |
//! | data before START, a frame after STOP, READY twice, ACCEPT or FINISH from a writer | [`Violation::Order`] |
//! | what is no frame | [`Violation::Frame`] |
//! | the end without STOP | no violation: what is left in the buffer was cut |
//!
//! Source: <https://farsightsec.github.io/fstrm/>. Own code: the crate `framestream` writes streams of one way and
//! reads none.

use std::fmt;

use bytes::{Bytes, BytesMut};

use super::dnstap::CONTENT_TYPE;
use super::frame::{BrokenFrame, Control, ControlType, Frame, control_frame, next_frame};

/// What a writer did that the protocol does not allow. Nothing after it can be trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Violation {
    /// No frame.
    Frame(BrokenFrame),
    /// A frame where another one was due: what came, what was due.
    Order(&'static str, &'static str),
    /// The types that are offered.
    ContentType(String),
}

impl Violation {
    /// The word for metrics.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Frame(BrokenFrame::TooLarge(_)) => "frame_too_large",
            Self::Frame(BrokenFrame::Control) => "control_frame",
            Self::Order(..) => "frame_order",
            Self::ContentType(_) => "content_type",
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame(broken) => out.write_str(&broken.reason()),
            Self::Order(came, due) => write!(out, "{came} where {due} was due"),
            Self::ContentType(offered) => {
                write!(out, "content type `{offered}`, should be `{}`", String::from_utf8_lossy(CONTENT_TYPE))
            }
        }
    }
}

/// What the next whole frame asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// One message.
    Data(Bytes),
    /// The stream goes on; to be sent to the writer, if it waits for something.
    Greeted(Option<Bytes>),
    /// The stream ended as it should; the same.
    Stopped(Option<Bytes>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing came yet.
    New,
    /// ACCEPT was said.
    Accepted,
    /// Data may come.
    Started,
    Stopped,
}

/// Reads one stream; feed it with a buffer that grows at its end.
#[derive(Debug)]
pub(super) struct StreamReader {
    state: State,
    has_handshake: bool,
}

impl StreamReader {
    /// At the start of a stream.
    pub(super) fn new() -> Self {
        Self { state: State::New, has_handshake: false }
    }

    /// Takes the next frame off the front of `buffer`; none while it is not whole.
    ///
    /// # Errors
    /// [`Violation`]: read no further.
    pub(super) fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Event>, Violation> {
        match next_frame(buffer).map_err(Violation::Frame)? {
            None => Ok(None),
            Some(Frame::Control(control)) => self.control(&control).map(Some),
            Some(Frame::Data(message)) if self.is_started() => Ok(Some(Event::Data(message))),
            Some(Frame::Data(_)) => Err(self.out_of_order("a data frame")),
        }
    }

    /// Whether data may come: the greeting is over, and the end has not been said.
    pub(super) fn is_started(&self) -> bool {
        self.state == State::Started
    }

    fn control(&mut self, control: &Control) -> Result<Event, Violation> {
        let reply = |kind| Some(control_frame(kind));
        match (control.kind, self.state) {
            (ControlType::Ready, State::New) => {
                check_type(control)?;
                (self.state, self.has_handshake) = (State::Accepted, true);
                Ok(Event::Greeted(reply(ControlType::Accept)))
            }
            (ControlType::Start, State::New | State::Accepted) => {
                check_type(control)?;
                self.state = State::Started;
                Ok(Event::Greeted(None))
            }
            (ControlType::Stop, State::Started) => {
                self.state = State::Stopped;
                Ok(Event::Stopped(self.has_handshake.then_some(ControlType::Finish).and_then(reply)))
            }
            (ControlType::Ready, _) => Err(self.out_of_order("READY")),
            (ControlType::Start, _) => Err(self.out_of_order("START")),
            (ControlType::Stop, _) => Err(self.out_of_order("STOP")),
            (ControlType::Accept, _) => Err(self.out_of_order("ACCEPT, which readers say,")),
            (ControlType::Finish, _) => Err(self.out_of_order("FINISH, which readers say,")),
        }
    }

    fn out_of_order(&self, came: &'static str) -> Violation {
        let due = match self.state {
            State::New => "READY or START",
            State::Accepted => "START",
            State::Started => "data or STOP",
            State::Stopped => "the end",
        };
        Violation::Order(came, due)
    }
}

fn check_type(control: &Control) -> Result<(), Violation> {
    if control.allows_dnstap() {
        return Ok(());
    }
    let offered: Vec<_> = control.content_types.iter().map(|offered| String::from_utf8_lossy(offered)).collect();
    Err(Violation::ContentType(offered.join("`, `")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn data(body: &[u8]) -> Vec<u8> {
        [&(body.len() as u32).to_be_bytes(), body].concat()
    }

    fn control(kind: ControlType) -> Vec<u8> {
        control_frame(kind).to_vec()
    }

    /// A control frame of a number, with fields.
    fn raw(kind: u32, content_types: &[&str]) -> Vec<u8> {
        let number = |number: usize| (number as u32).to_be_bytes().to_vec();
        let field = |name: &&str| [number(1), number(name.len()), name.as_bytes().to_vec()].concat();
        let fields = content_types.iter().map(field).collect::<Vec<_>>().concat();
        [number(0), number(4 + fields.len()), number(kind as usize), fields].concat()
    }

    /// All events of a stream that comes in pieces of `step` bytes, and what is left.
    fn read(bytes: &[u8], step: usize) -> Result<(Vec<Event>, StreamReader, usize), Violation> {
        let (mut reader, mut buffer, mut events) = (StreamReader::new(), BytesMut::new(), Vec::new());
        for piece in bytes.chunks(step) {
            buffer.extend_from_slice(piece);
            while let Some(event) = reader.next(&mut buffer)? {
                events.push(event);
            }
        }
        Ok((events, reader, buffer.len()))
    }

    fn message(body: &'static [u8]) -> Event {
        Event::Data(Bytes::from_static(body))
    }

    #[test]
    fn a_stream_with_handshake_is_answered_at_both_ends() {
        let (ready, start, stop) =
            (control(ControlType::Ready), control(ControlType::Start), control(ControlType::Stop));
        let stream = [ready, start, data(b"one"), data(b"two"), stop].concat();
        for step in [1, 3, 7, stream.len()] {
            let (events, reader, left) = read(&stream, step).unwrap();
            let accept = Event::Greeted(Some(control_frame(ControlType::Accept)));
            let finish = Event::Stopped(Some(control_frame(ControlType::Finish)));
            assert_eq!(events, [accept, Event::Greeted(None), message(b"one"), message(b"two"), finish]);
            assert!(!reader.is_started() && left == 0);
        }
    }

    #[test]
    fn a_stream_of_one_way_is_answered_with_nothing() {
        let stream = [control(ControlType::Start), data(b"one"), control(ControlType::Stop)].concat();
        let (events, reader, left) = read(&stream, 5).unwrap();
        assert_eq!(events, [Event::Greeted(None), message(b"one"), Event::Stopped(None)]);
        assert!(!reader.is_started() && left == 0);
    }

    #[test]
    fn a_stream_that_is_cut_gives_what_is_whole() {
        let stream = [control(ControlType::Start), data(b"one"), data(b"two")].concat();
        let (events, reader, left) = read(&stream[..stream.len() - 1], 4).unwrap();
        assert_eq!(events, [Event::Greeted(None), message(b"one")]);
        assert!(reader.is_started());
        assert_eq!(left, 6, "the length and two of three bytes");
    }

    #[test]
    fn types_that_are_not_named_are_ours_and_one_of_several_is_enough() {
        for ready in [raw(4, &[]), raw(4, &["protobuf:other", "protobuf:dnstap.Dnstap"])] {
            let (events, ..) = read(&[ready, raw(2, &[])].concat(), 9).unwrap();
            assert_eq!(events.len(), 2);
        }
    }

    #[test]
    fn what_the_protocol_does_not_allow_is_named() {
        let [ready, start, stop] = [ControlType::Ready, ControlType::Start, ControlType::Stop].map(control);
        let length = |length: u32| length.to_be_bytes().to_vec();
        let cases: &[(Vec<u8>, &str)] = &[
            (data(b"one"), "a data frame where READY or START was due"),
            ([&ready[..], &data(b"one")].concat(), "a data frame where START was due"),
            (stop.clone(), "STOP where READY or START was due"),
            ([&start[..], &start].concat(), "START where data or STOP was due"),
            ([&start[..], &ready].concat(), "READY where data or STOP was due"),
            ([&ready[..], &ready].concat(), "READY where START was due"),
            ([&start[..], &stop, &data(b"one")].concat(), "a data frame where the end was due"),
            (control(ControlType::Accept), "ACCEPT, which readers say, where READY or START was due"),
            (control(ControlType::Finish), "FINISH, which readers say, where READY or START was due"),
            ([&start[..], &length((1 << 20) + 1)].concat(), "a frame of 1048577 bytes, should be 1048576 at the most"),
            (raw(9, &[]), "a control frame that Frame Streams does not have"),
            ([length(0), length(513)].concat(), "a control frame that Frame Streams does not have"),
            (raw(2, &["protobuf:other"]), "content type `protobuf:other`, should be `protobuf:dnstap.Dnstap`"),
            (raw(4, &["a", "b"]), "content type `a`, `b`, should be `protobuf:dnstap.Dnstap`"),
        ];
        for (stream, expected) in cases {
            let violation = read(stream, 3).expect_err(expected);
            assert_eq!(violation.to_string(), *expected);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_alike_in_any_pieces(
            words in prop::collection::vec(prop_oneof![0_u32..14, any::<u32>()], 0..24),
            begins in any::<bool>(), step in 1_usize..32,
        ) {
            let mut stream = if begins { control(ControlType::Start) } else { Vec::new() };
            stream.extend(words.iter().flat_map(|word| word.to_be_bytes()));
            let at_once = read(&stream, stream.len().max(1)).map(|(events, _, left)| (events, left));
            let in_pieces = read(&stream, step).map(|(events, _, left)| (events, left));
            prop_assert_eq!(at_once, in_pieces);
        }
    }
}
