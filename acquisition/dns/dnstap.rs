//! The raw body of every record: one message of the dnstap schema, read and written without copies.
//!
//! Schema: <https://github.com/dnstap/dnstap.pb/blob/master/dnstap.proto>. Fields that no row needs (`extra`,
//! `query_zone`, `policy`, `http_protocol`) are passed over; they stay in the body unless addresses are hidden.

use std::net::IpAddr;

use bytes::{BufMut, BytesMut};
use contract::Timestamp;

use super::protobuf::{
    FIXED32, Fields, LENGTH_DELIMITED, Value, put_bytes, put_number, put_tag, put_varint, sized_len, tag_len,
    varint_len,
};

/// What is in a Frame Stream of dnstap messages.
pub(super) const CONTENT_TYPE: &[u8] = b"protobuf:dnstap.Dnstap";

/// Bytes of one dnstap message: the largest DNS message twice, and a wide margin for `extra` and the identity.
pub(super) const DNSTAP_BYTES_MAX: usize = 1 << 20;

/// A point in time as dnstap and captures have it, finer and wider than a [`Timestamp`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment {
    /// Since 1970-01-01T00:00:00 UTC.
    pub(super) seconds: u64,
    /// Below a second.
    pub(super) nanos: u32,
}

impl Moment {
    /// None before 1970.
    pub(super) fn of(time: Timestamp) -> Option<Self> {
        let micros = u64::try_from(time.0).ok()?;
        Some(Self { seconds: micros / 1_000_000, nanos: (micros % 1_000_000) as u32 * 1_000 })
    }

    /// In microseconds; none after the year 9999, or where the nanoseconds make a second or more.
    pub(super) fn timestamp(self) -> Option<Timestamp> {
        const END_OF_YEAR_9999: u64 = 253_402_300_800;
        let is_sound = self.seconds < END_OF_YEAR_9999 && self.nanos < 1_000_000_000;
        is_sound.then(|| Timestamp(self.seconds as i64 * 1_000_000 + i64::from(self.nanos / 1_000)))
    }

    /// Nanoseconds since 1970, stopped at the end of the range.
    pub(super) fn total_nanos(self) -> u64 {
        self.seconds.saturating_mul(1_000_000_000).saturating_add(u64::from(self.nanos))
    }
}

/// `dnstap.Message.Type`: who talks to whom, and whether it is the query or the response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct MessageType(pub(super) u32);

impl MessageType {
    /// What a capture gives: seen on the wire, by none of the two.
    pub(super) const TOOL_QUERY: Self = Self(11);
    /// The same, answered.
    pub(super) const TOOL_RESPONSE: Self = Self(12);

    /// Whether the message itself is the response. The schema numbers them in pairs.
    pub(super) fn is_response(self) -> bool {
        self.0.is_multiple_of(2)
    }

    /// What two ends are to each other: the same for a query and its response. Who asks an authority is a client to it:
    /// BIND says `AUTH_QUERY` of a query and `CLIENT_RESPONSE` of its response.
    pub(super) fn role(self) -> u32 {
        const AUTH: u32 = 1;
        const CLIENT: u32 = 3;
        match self.0.div_ceil(2) {
            CLIENT => AUTH,
            role => role,
        }
    }

    /// The name in the schema.
    pub(super) fn name(self) -> Option<&'static str> {
        const NAMES: [&str; 14] = [
            "AUTH_QUERY",
            "AUTH_RESPONSE",
            "RESOLVER_QUERY",
            "RESOLVER_RESPONSE",
            "CLIENT_QUERY",
            "CLIENT_RESPONSE",
            "FORWARDER_QUERY",
            "FORWARDER_RESPONSE",
            "STUB_QUERY",
            "STUB_RESPONSE",
            "TOOL_QUERY",
            "TOOL_RESPONSE",
            "UPDATE_QUERY",
            "UPDATE_RESPONSE",
        ];
        NAMES.get((self.0 as usize).wrapping_sub(1)).copied()
    }
}

/// `dnstap.SocketProtocol`: how the message travelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct SocketProtocol(pub(super) u32);

impl SocketProtocol {
    pub(super) const UDP: Self = Self(1);
    pub(super) const TCP: Self = Self(2);
    /// Over HTTP.
    pub(super) const DOH: Self = Self(4);

    /// The name in the schema, in lower case.
    pub(super) fn name(self) -> Option<&'static str> {
        const NAMES: [&str; 7] = ["udp", "tcp", "dot", "doh", "dnscrypt-udp", "dnscrypt-tcp", "doq"];
        NAMES.get((self.0 as usize).wrapping_sub(1)).copied()
    }
}

/// One dnstap message; slices of its encoded form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Dnstap<'a> {
    /// Which server said it.
    pub(super) identity: Option<&'a [u8]>,
    /// What software the server is.
    pub(super) version: Option<&'a [u8]>,
    /// Always there in a message that [`Dnstap::read`] accepts.
    pub(super) message_type: MessageType,
    pub(super) socket_protocol: Option<SocketProtocol>,
    /// Who asked: 4 or 16 bytes.
    pub(super) query_address: Option<&'a [u8]>,
    /// Who answers.
    pub(super) response_address: Option<&'a [u8]>,
    pub(super) query_port: Option<u32>,
    pub(super) response_port: Option<u32>,
    pub(super) query_time: Option<Moment>,
    pub(super) query_message: Option<&'a [u8]>,
    pub(super) response_time: Option<Moment>,
    pub(super) response_message: Option<&'a [u8]>,
}

/// What keeps bytes from being a dnstap message; reads after "the dnstap message".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// It ends inside a field.
    Cut,
    /// A field has a type that protobuf does not have, or a number with more than 64 bits.
    Encoding,
    /// `type` is not `MESSAGE`.
    Type,
    /// There is no `message`, or it has no `type`.
    NoMessage,
    /// A message type that the schema does not have.
    MessageType,
    /// Neither the query nor the response is there.
    NoDns,
}

impl Broken {
    /// The sentence for a reader.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Cut => "the dnstap message ends inside a field",
            Self::Encoding => "the dnstap message is not protobuf",
            Self::Type => "the dnstap `type` is not `MESSAGE` (1)",
            Self::NoMessage => "the dnstap message has no `message` with a `type`",
            Self::MessageType => "the dnstap `message.type` is none of the schema's (1 to 14)",
            Self::NoDns => "the dnstap message carries neither a query nor a response",
        }
    }
}

// Fields of `Dnstap`.
const IDENTITY: u64 = 1;
const VERSION: u64 = 2;
const EXTRA: u64 = 3;
const MESSAGE: u64 = 14;
const TYPE: u64 = 15;
// Fields of `Message`.
const MESSAGE_TYPE: u64 = 1;
const SOCKET_FAMILY: u64 = 2;
const SOCKET_PROTOCOL: u64 = 3;
const QUERY_ADDRESS: u64 = 4;
const RESPONSE_ADDRESS: u64 = 5;
const QUERY_PORT: u64 = 6;
const RESPONSE_PORT: u64 = 7;
const QUERY_TIME_SEC: u64 = 8;
const QUERY_TIME_NSEC: u64 = 9;
const QUERY_MESSAGE: u64 = 10;
const RESPONSE_TIME_SEC: u64 = 12;
const RESPONSE_TIME_NSEC: u64 = 13;
const RESPONSE_MESSAGE: u64 = 14;

/// The only value of `Dnstap.Type`.
const TYPE_MESSAGE: u64 = 1;

impl<'a> Dnstap<'a> {
    /// Reads one message. Where a field comes twice the later one counts, and two `message` are merged, as
    /// protobuf says.
    ///
    /// # Errors
    /// When it is none, or carries no DNS message.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, Broken> {
        let mut dnstap = Self::default();
        let mut dnstap_type = TYPE_MESSAGE;
        let mut fields = Fields(bytes);
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (IDENTITY, Value::Bytes(bytes)) => dnstap.identity = Some(bytes),
                (VERSION, Value::Bytes(bytes)) => dnstap.version = Some(bytes),
                (MESSAGE, Value::Bytes(bytes)) => dnstap.merge(bytes)?,
                (TYPE, Value::Number(number)) => dnstap_type = number,
                _ => {}
            }
        }
        match dnstap.message_type {
            _ if dnstap_type != TYPE_MESSAGE => Err(Broken::Type),
            MessageType(0) => Err(Broken::NoMessage),
            unknown if unknown.name().is_none() => Err(Broken::MessageType),
            _ if dnstap.dns().is_none() => Err(Broken::NoDns),
            _ => Ok(dnstap),
        }
    }

    fn merge(&mut self, message: &'a [u8]) -> Result<(), Broken> {
        let mut fields = Fields(message);
        let (mut query_time, mut response_time) = (self.query_time, self.response_time);
        let moment = |time: &mut Option<Moment>| *time.get_or_insert_default();
        while let Some((number, value)) = fields.next()? {
            match (number, value) {
                (MESSAGE_TYPE, Value::Number(number)) => self.message_type = MessageType(narrow(number)),
                (SOCKET_PROTOCOL, Value::Number(number)) => {
                    self.socket_protocol = Some(SocketProtocol(narrow(number)));
                }
                (QUERY_ADDRESS, Value::Bytes(bytes)) => self.query_address = Some(bytes),
                (RESPONSE_ADDRESS, Value::Bytes(bytes)) => self.response_address = Some(bytes),
                (QUERY_PORT, Value::Number(number)) => self.query_port = Some(narrow(number)),
                (RESPONSE_PORT, Value::Number(number)) => self.response_port = Some(narrow(number)),
                (QUERY_TIME_SEC, Value::Number(seconds)) => {
                    query_time = Some(Moment { seconds, ..moment(&mut query_time) });
                }
                (QUERY_TIME_NSEC, Value::Number(nanos)) => {
                    query_time = Some(Moment { nanos: narrow(nanos), ..moment(&mut query_time) });
                }
                (QUERY_MESSAGE, Value::Bytes(bytes)) => self.query_message = Some(bytes),
                (RESPONSE_TIME_SEC, Value::Number(seconds)) => {
                    response_time = Some(Moment { seconds, ..moment(&mut response_time) });
                }
                (RESPONSE_TIME_NSEC, Value::Number(nanos)) => {
                    response_time = Some(Moment { nanos: narrow(nanos), ..moment(&mut response_time) });
                }
                (RESPONSE_MESSAGE, Value::Bytes(bytes)) => self.response_message = Some(bytes),
                _ => {}
            }
        }
        (self.query_time, self.response_time) = (query_time, response_time);
        Ok(())
    }

    /// The DNS message that this is about: the response of a response, the query of a query; the other one where
    /// only that is there.
    pub(super) fn dns(&self) -> Option<&'a [u8]> {
        match self.message_type.is_response() {
            true => self.response_message.or(self.query_message),
            false => self.query_message.or(self.response_message),
        }
    }

    /// When it was seen: the response's time of a response, else the query's.
    pub(super) fn time(&self) -> Option<Moment> {
        match self.message_type.is_response() {
            true => self.response_time.or(self.query_time),
            false => self.query_time.or(self.response_time),
        }
    }

    /// The other message of the exchange, where both are there: of a response its query.
    pub(super) fn other(&self) -> Option<Self> {
        let (Some(_), Some(_)) = (self.query_message, self.response_message) else { return None };
        let MessageType(number) = self.message_type;
        Some(match self.message_type.is_response() {
            true => {
                let message_type = MessageType(number - 1);
                Self { message_type, response_message: None, response_time: None, ..*self }
            }
            false => Self { message_type: MessageType(number + 1), query_message: None, ..*self },
        })
    }

    /// Appends what stands for bytes that are no dnstap message and must not be written: a message that says so.
    pub(super) fn write_note(note: &str, out: &mut BytesMut) {
        put_bytes(out, EXTRA, Some(note.as_bytes()));
        put_number(out, TYPE, Some(TYPE_MESSAGE));
    }

    /// Appends the encoded form, with the socket family that the addresses have.
    pub(super) fn write(&self, out: &mut BytesMut) {
        let opaque = |field, bytes: Option<&[u8]>| bytes.map_or(0, |bytes| sized_len(field, bytes.len()));
        let number = |field, number: Option<u64>| number.map_or(0, |number| tag_len(field) + varint_len(number));
        let time = |field, time: Option<Moment>| {
            time.map_or(0, |time| tag_len(field) + varint_len(time.seconds) + tag_len(field + 1) + 4)
        };
        let family = self.query_address.or(self.response_address).map(|bytes| if bytes.len() == 4 { 1 } else { 2 });
        let protocol = self.socket_protocol.map(|protocol| u64::from(protocol.0));
        let ports = [self.query_port.map(u64::from), self.response_port.map(u64::from)];
        let message_len = number(MESSAGE_TYPE, Some(u64::from(self.message_type.0)))
            + number(SOCKET_FAMILY, family)
            + number(SOCKET_PROTOCOL, protocol)
            + opaque(QUERY_ADDRESS, self.query_address)
            + opaque(RESPONSE_ADDRESS, self.response_address)
            + number(QUERY_PORT, ports[0])
            + number(RESPONSE_PORT, ports[1])
            + time(QUERY_TIME_SEC, self.query_time)
            + opaque(QUERY_MESSAGE, self.query_message)
            + time(RESPONSE_TIME_SEC, self.response_time)
            + opaque(RESPONSE_MESSAGE, self.response_message);
        put_bytes(out, IDENTITY, self.identity);
        put_bytes(out, VERSION, self.version);
        put_tag(out, MESSAGE, LENGTH_DELIMITED);
        put_varint(out, message_len as u64);
        let start = out.len();
        put_number(out, MESSAGE_TYPE, Some(u64::from(self.message_type.0)));
        put_number(out, SOCKET_FAMILY, family);
        put_number(out, SOCKET_PROTOCOL, protocol);
        put_bytes(out, QUERY_ADDRESS, self.query_address);
        put_bytes(out, RESPONSE_ADDRESS, self.response_address);
        put_number(out, QUERY_PORT, ports[0]);
        put_number(out, RESPONSE_PORT, ports[1]);
        put_time(out, QUERY_TIME_SEC, self.query_time);
        put_bytes(out, QUERY_MESSAGE, self.query_message);
        put_time(out, RESPONSE_TIME_SEC, self.response_time);
        put_bytes(out, RESPONSE_MESSAGE, self.response_message);
        debug_assert_eq!(out.len() - start, message_len, "both lists name the same fields");
        put_number(out, TYPE, Some(TYPE_MESSAGE));
    }

    /// Appends the query's time to an encoded response, whose own bytes stay as they are: a second `message` is
    /// merged with the first by every reader. It repeats the `type`, without which some refuse it.
    pub(super) fn append_query_time(message_type: MessageType, time: Moment, out: &mut BytesMut) {
        let mut message = BytesMut::with_capacity(24);
        put_number(&mut message, MESSAGE_TYPE, Some(u64::from(message_type.0)));
        put_time(&mut message, QUERY_TIME_SEC, Some(time));
        put_bytes(out, MESSAGE, Some(&message));
    }
}

/// The address that 4 or 16 bytes are.
pub(super) fn ip_address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

/// A number that the schema bounds to 32 bits; a larger one is none of those the schema knows.
fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn put_time(out: &mut BytesMut, field: u64, time: Option<Moment>) {
    if let Some(time) = time {
        put_number(out, field, Some(time.seconds));
        put_tag(out, field + 1, FIXED32);
        out.put_u32_le(time.nanos);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response() -> Dnstap<'static> {
        Dnstap {
            identity: Some(b"ns1"),
            message_type: MessageType::TOOL_RESPONSE,
            socket_protocol: Some(SocketProtocol::UDP),
            query_address: Some(&[192, 0, 2, 1]),
            response_address: Some(&[192, 0, 2, 53]),
            query_port: Some(40_000),
            response_port: Some(53),
            response_time: Some(Moment { seconds: 1_700_000_000, nanos: 999_999_999 }),
            response_message: Some(&[7; 300]),
            ..Dnstap::default()
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut bytes = BytesMut::new();
        response().write(&mut bytes);
        assert_eq!(Dnstap::read(&bytes), Ok(response()));
    }

    #[test]
    fn of_two_messages_the_other_is_one_of_its_own() {
        let both = Dnstap { query_message: Some(&[1; 12]), ..response() };
        let query = both.other().unwrap();
        assert_eq!((query.message_type, query.dns()), (MessageType::TOOL_QUERY, Some(&[1; 12][..])));
        assert_eq!((query.response_time, query.query_address), (None, both.query_address));
        let response_of = Dnstap { message_type: MessageType::TOOL_QUERY, ..both }.other().unwrap();
        assert_eq!((response_of.message_type, response_of.dns()), (MessageType::TOOL_RESPONSE, Some(&[7; 300][..])));
        assert_eq!(response().other(), None);
    }

    #[test]
    fn an_appended_query_time_is_merged_and_leaves_the_bytes_before_it() {
        let mut bytes = BytesMut::new();
        response().write(&mut bytes);
        let before = bytes.clone();
        let query_time = Moment { seconds: 1_700_000_000, nanos: 1 };
        Dnstap::append_query_time(MessageType::TOOL_RESPONSE, query_time, &mut bytes);
        assert!(bytes.starts_with(&before));
        assert_eq!(Dnstap::read(&bytes), Ok(Dnstap { query_time: Some(query_time), ..response() }));
    }

    #[test]
    fn every_cut_and_every_foreign_message_says_what_is_wrong() {
        let mut bytes = BytesMut::new();
        response().write(&mut bytes);
        // Its last two bytes are `type`, which may be left out.
        for end in 0..bytes.len() - 2 {
            assert!(Dnstap::read(&bytes[..end]).is_err(), "{end}");
        }
        assert_eq!(Dnstap::read(&[]), Err(Broken::NoMessage));
        assert_eq!(Dnstap::read(&[0x78, 2]), Err(Broken::Type));
        assert_eq!(Dnstap::read(&[0x72, 2, 8, 15]), Err(Broken::MessageType));
        assert_eq!(Dnstap::read(&[0x72, 2, 8, 1]), Err(Broken::NoDns));
        assert_eq!(Dnstap::read(&[0x73]), Err(Broken::Encoding));
        assert_eq!(Dnstap::read(&[0xff; 11]), Err(Broken::Encoding));
    }

    #[test]
    fn a_moment_beyond_the_calendar_is_no_timestamp() {
        assert_eq!(Moment { seconds: 1, nanos: 2_999 }.timestamp(), Some(Timestamp(1_000_002)));
        assert_eq!(Moment { seconds: 1, nanos: 1_000_000_000 }.timestamp(), None);
        assert_eq!(Moment { seconds: u64::MAX, nanos: 0 }.timestamp(), None);
    }
}
