//! Makes records of messages: pairs a response with its query, hides addresses, and writes the dnstap body.

use std::net::{IpAddr, SocketAddr};

use bytes::{Bytes, BytesMut};
use contract::{Error, RawRecord, RecordId, Result, Timestamp};
use sha2::{Digest, Sha256};

use super::address::AddressMask;
use super::dnstap::{Broken, Dnstap, MessageType, Moment, SocketProtocol, ip_address};
use super::hide::hide_clients;
use super::pairs::{Ends, Pairs};
use super::settings::Settings;
use crate::hexadecimal::hexadecimal;

/// Bytes that are allocated at once; bodies are slices of these.
const CHUNK_BYTES: usize = 1 << 20;

/// Bytes that a body has beside its DNS message, at the most.
const ENVELOPE_BYTES_MAX: usize = 160;

/// mDNS and LLMNR, where the answering side is somebody's machine too.
const LOCAL_PORTS: [u16; 2] = [5353, 5355];

/// A DNS message as it was seen on the wire.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sighting<'a> {
    /// None where the capture does not say.
    pub(super) time: Option<Moment>,
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    pub(super) protocol: SocketProtocol,
    pub(super) dns: &'a [u8],
}

/// See the module. It keeps what it needs to pair, so one of them sees all messages of a file or an interface in order.
pub(super) struct Recorder {
    mask: AddressMask,
    /// Of servers.
    ports: Vec<u16>,
    pairs: Pairs,
    arena: BytesMut,
}

impl Recorder {
    /// As set.
    ///
    /// # Errors
    /// `Change` when a setting is wrong.
    pub(super) fn new(settings: &Settings) -> Result<Self> {
        let mask = AddressMask::new(settings)?;
        let seconds = settings.pair_seconds;
        if !(1..=600).contains(&seconds) {
            return Err(Error::change(format!("use `dns.pair_seconds` = {seconds} (should be 1 to 600)")));
        }
        Ok(Self { mask, ports: settings.ports.clone(), pairs: Pairs::new(seconds), arena: BytesMut::new() })
    }

    /// One under the same settings that has seen nothing yet.
    pub(super) fn fresh(&self) -> Self {
        let (mask, ports) = (self.mask.clone(), self.ports.clone());
        Self { mask, ports, pairs: self.pairs.fresh(), arena: BytesMut::new() }
    }

    /// The record of a message that was captured: a dnstap message of the type `TOOL_QUERY` or `TOOL_RESPONSE`, which
    /// its QR bit tells.
    pub(super) fn captured(&mut self, seen: &Sighting<'_>, id: RecordId, fetched_at: Timestamp) -> RawRecord {
        let is_response = seen.dns.get(2).is_some_and(|flags| flags & 0x80 != 0);
        let Roles { client, server, is_certain } = self.roles(seen, is_response);
        let ends = Ends { client: Some(client), server: Some(server), protocol: Some(seen.protocol), role: 0 };
        let (client_octets, server_octets) = (Octets::of(client.ip()), Octets::of(server.ip()));
        let mut dnstap = Dnstap {
            message_type: if is_response { MessageType::TOOL_RESPONSE } else { MessageType::TOOL_QUERY },
            socket_protocol: Some(seen.protocol),
            query_address: Some(client_octets.bytes()),
            response_address: Some(server_octets.bytes()),
            query_port: Some(client.port().into()),
            response_port: Some(server.port().into()),
            ..Dnstap::default()
        };
        if is_response {
            // What a client sends answers nothing.
            let time = seen.time.filter(|_| server == seen.source);
            dnstap.query_time = time.and_then(|time| self.pairs.answered(&ends, time, seen.dns));
            (dnstap.response_time, dnstap.response_message) = (seen.time, Some(seen.dns));
        } else {
            if let Some(time) = seen.time {
                self.pairs.asked(&ends, time, seen.dns);
            }
            (dnstap.query_time, dnstap.query_message) = (seen.time, Some(seen.dns));
        }
        let event_time = seen.time.and_then(Moment::timestamp).unwrap_or(fetched_at);
        RawRecord { id, event_time, fetched_at, body: self.body(&dnstap, is_certain) }
    }

    /// The client is the one whose port is none of a server's. Where that does not tell, QR does, which anyone can set.
    fn roles(&self, seen: &Sighting<'_>, is_response: bool) -> Roles {
        let at_server = [seen.source, seen.destination].map(|end| self.ports.contains(&end.port()));
        let (is_certain, from_server) = match at_server {
            [true, false] => (true, true),
            [false, true] => (true, false),
            _ => (false, is_response),
        };
        match from_server {
            true => Roles { client: seen.destination, server: seen.source, is_certain },
            false => Roles { client: seen.source, server: seen.destination, is_certain },
        }
    }

    /// Appends the records of what a server sent as a dnstap message: its bytes, with the query's time after them where
    /// it was missing and known. Where it holds a query and its response, each is a record. What is no dnstap message
    /// stays as it is, for the processor to reject; where addresses are hidden, its hash stands for it.
    pub(super) fn tapped(
        &mut self,
        frame: Bytes,
        fetched_at: Timestamp,
        next_id: &mut dyn FnMut() -> RecordId,
        records: &mut Vec<RawRecord>,
    ) {
        let is_whole = self.mask.is_whole();
        let dnstap = match Dnstap::read(&frame) {
            Ok(dnstap) => dnstap,
            Err(broken) => {
                let body = if is_whole { frame } else { hash_of(&frame, broken) };
                return records.push(RawRecord { id: next_id(), event_time: fetched_at, fetched_at, body });
            }
        };
        let event_time = dnstap.time().and_then(Moment::timestamp).unwrap_or(fetched_at);
        let mut push = |body| records.push(RawRecord { id: next_id(), event_time, fetched_at, body });
        let other = dnstap.other().map(|other| (self.pair(&other), self.body(&other, true)));
        let query_time = self.pair(&dnstap);
        let body = match query_time {
            _ if !is_whole => self.body(&Dnstap { query_time: dnstap.query_time.or(query_time), ..dnstap }, true),
            None => frame.clone(),
            Some(query_time) => {
                self.reserve(frame.len() + ENVELOPE_BYTES_MAX);
                self.arena.extend_from_slice(&frame);
                Dnstap::append_query_time(dnstap.message_type, query_time, &mut self.arena);
                self.arena.split().freeze()
            }
        };
        match other {
            Some((_, other)) if dnstap.message_type.is_response() => [other, body].into_iter().for_each(push),
            Some((_, other)) => [body, other].into_iter().for_each(push),
            None => push(body),
        }
    }

    /// The encoded form, in which addresses are hidden as set, and nothing stands but what rows are made of. The server
    /// is hidden too where it may be the client, and where it is somebody's machine.
    fn body(&mut self, dnstap: &Dnstap<'_>, is_certain: bool) -> Bytes {
        let length = [dnstap.identity, dnstap.version, dnstap.query_message, dnstap.response_message];
        self.reserve(length.iter().flatten().map(|bytes| bytes.len()).sum::<usize>() + ENVELOPE_BYTES_MAX);
        if self.mask.is_whole() {
            dnstap.write(&mut self.arena);
            return self.arena.split().freeze();
        }
        let ports = [dnstap.query_port, dnstap.response_port];
        let is_local = LOCAL_PORTS.iter().any(|&port| ports.contains(&Some(port.into())));
        let address = |address: Option<&[u8]>, hides: bool| {
            let mut octets = Octets::of(ip_address(address?)?);
            if hides {
                self.mask.hide(octets.bytes_mut());
            }
            Some(octets)
        };
        let client = address(dnstap.query_address, true);
        let server = address(dnstap.response_address, is_local || !is_certain);
        let message = |dns: Option<&[u8]>| {
            let mut dns = dns?.to_vec();
            hide_clients(&self.mask, &mut dns, is_local);
            Some(dns)
        };
        let (query, response) = (message(dnstap.query_message), message(dnstap.response_message));
        let hidden = Dnstap {
            query_address: client.as_ref().map(Octets::bytes),
            response_address: server.as_ref().map(Octets::bytes),
            query_message: query.as_deref(),
            response_message: response.as_deref(),
            ..*dnstap
        };
        hidden.write(&mut self.arena);
        self.arena.split().freeze()
    }

    /// Notes a query; the time of a response's query, where the response does not say it.
    fn pair(&mut self, dnstap: &Dnstap<'_>) -> Option<Moment> {
        let (time, dns) = (dnstap.time()?, dnstap.dns()?);
        let end = |address: Option<&[u8]>, port: Option<u32>| {
            Some(SocketAddr::new(ip_address(address?)?, u16::try_from(port.unwrap_or(0)).unwrap_or(0)))
        };
        let ends = Ends {
            client: end(dnstap.query_address, dnstap.query_port),
            server: end(dnstap.response_address, dnstap.response_port),
            protocol: dnstap.socket_protocol,
            role: dnstap.message_type.role(),
        };
        if !dnstap.message_type.is_response() {
            self.pairs.asked(&ends, time, dns);
            return None;
        }
        match dnstap.query_time {
            Some(_) => None,
            None => self.pairs.answered(&ends, time, dns),
        }
    }

    fn reserve(&mut self, bytes: usize) {
        if self.arena.capacity() - self.arena.len() < bytes {
            self.arena = BytesMut::with_capacity(CHUNK_BYTES.max(bytes));
        }
    }
}

/// Who is what in an exchange.
struct Roles {
    client: SocketAddr,
    server: SocketAddr,
    /// Whether the ports say so.
    is_certain: bool,
}

/// What stands for a frame that cannot be read, so that nothing in it can be hidden.
fn hash_of(frame: &[u8], broken: Broken) -> Bytes {
    let hash = hexadecimal(&Sha256::digest(frame));
    let reason = broken.reason();
    let note = format!("{reason}; its {} bytes are not kept since addresses are hidden: SHA-256 {hash}", frame.len());
    let mut out = BytesMut::new();
    Dnstap::write_note(&note, &mut out);
    out.freeze()
}

/// An address as dnstap has it.
struct Octets([u8; 16], usize);

impl Octets {
    fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => Self(ip.to_ipv6_compatible().octets(), 4),
            IpAddr::V6(ip) => Self(ip.octets(), 16),
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.0[16 - self.1..]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0[16 - self.1..]
    }
}

#[cfg(test)]
mod tests {
    use super::super::settings::AddressForm;
    use super::*;

    const QUERY: &[u8] =
        b"\0\x01\x01\0\0\x01\0\0\0\0\0\x01\x01a\0\0\x01\0\x01\0\0\x29\x04\xd0\0\0\0\0\0\x0c\0\x08\0\x08\0\x01\x20\0\xc0\0\x02\x63";

    fn response() -> Vec<u8> {
        let mut response = QUERY.to_vec();
        response[2] |= 0x80;
        response
    }

    fn sighting(dns: &[u8], seconds: u64) -> Sighting<'_> {
        let (client, server) = ("192.0.2.99:40000".parse().unwrap(), "198.51.100.53:53".parse().unwrap());
        let (source, destination) = if dns[2] & 0x80 == 0 { (client, server) } else { (server, client) };
        Sighting { time: Some(Moment { seconds, nanos: 7 }), source, destination, protocol: SocketProtocol::UDP, dns }
    }

    fn tapped(recorder: &mut Recorder, frame: Bytes) -> Vec<RawRecord> {
        let mut records = Vec::new();
        recorder.tapped(frame, Timestamp(9), &mut || "1".into(), &mut records);
        records
    }

    fn recorder(addresses: AddressForm) -> Recorder {
        Recorder::new(&Settings { addresses, hash_key: "key".to_owned().into(), ..Settings::default() }).unwrap()
    }

    #[test]
    fn a_captured_response_says_when_it_was_asked_and_by_whom() {
        let mut recorder = recorder(AddressForm::Whole);
        let query = recorder.captured(&sighting(QUERY, 5), "1".into(), Timestamp(0));
        let record = recorder.captured(&sighting(&response(), 6), "2".into(), Timestamp(0));
        let query = Dnstap::read(&query.body).unwrap();
        assert_eq!((query.message_type, query.query_message), (MessageType::TOOL_QUERY, Some(QUERY)));
        let dnstap = Dnstap::read(&record.body).unwrap();
        assert_eq!(dnstap.query_time, Some(Moment { seconds: 5, nanos: 7 }));
        assert_eq!((dnstap.query_address, dnstap.query_port), (Some(&[192, 0, 2, 99][..]), Some(40_000)));
        assert_eq!(record.event_time, Timestamp(6_000_000));
    }

    #[test]
    fn a_tapped_message_keeps_its_bytes_and_gets_the_time_it_lacks() {
        let mut recorder = recorder(AddressForm::Whole);
        let frame = |message_type, query_message: Option<&[u8]>, response_message: Option<&[u8]>| {
            let time = Moment { seconds: 5, nanos: 0 };
            let dnstap = Dnstap {
                message_type: MessageType(message_type),
                query_time: query_message.map(|_| time),
                query_message,
                response_time: response_message.map(|_| time),
                response_message,
                ..Dnstap::default()
            };
            let mut frame = BytesMut::new();
            dnstap.write(&mut frame);
            frame.freeze()
        };
        let (query, response) = (frame(5, Some(QUERY), None), frame(6, None, Some(&response()[..])));
        let mut body = |frame: &Bytes| tapped(&mut recorder, frame.clone()).remove(0).body;
        assert_eq!(body(&query), query);
        let paired = body(&response);
        assert!(paired.starts_with(&response) && paired.len() > response.len());
        assert!(Dnstap::read(&paired).unwrap().query_time.is_some());
        assert_eq!(body(&response), response, "it was answered");
        let noise = Bytes::from_static(b"noise");
        assert_eq!(body(&noise), noise);
    }

    #[test]
    fn a_tapped_query_and_its_response_are_two_records_in_their_order() {
        let response = response();
        let both = Dnstap {
            message_type: MessageType(6),
            query_message: Some(QUERY),
            response_message: Some(&response),
            response_time: Some(Moment { seconds: 5, nanos: 0 }),
            ..Dnstap::default()
        };
        let mut frame = BytesMut::new();
        both.write(&mut frame);
        let frame = frame.freeze();
        let records = tapped(&mut recorder(AddressForm::Whole), frame.clone());
        assert_eq!(records[1].body, frame);
        let query = Dnstap::read(&records[0].body).unwrap();
        assert_eq!((query.message_type, query.dns()), (MessageType(5), Some(QUERY)));
        assert!(records.iter().all(|record| record.event_time == Timestamp(5_000_000)));
    }

    #[test]
    fn who_asks_is_told_by_the_port_whatever_a_message_says() {
        let mut recorder = recorder(AddressForm::Prefix);
        let mut forged = sighting(QUERY, 5);
        let query = recorder.captured(&forged, "1".into(), Timestamp(0));
        let response = response();
        forged.dns = &response;
        let record = recorder.captured(&forged, "1".into(), Timestamp(0));
        let dnstap = Dnstap::read(&record.body).unwrap();
        assert_eq!((dnstap.message_type, dnstap.query_port), (MessageType::TOOL_RESPONSE, Some(40_000)));
        assert_eq!(dnstap.query_address, Some(&[192, 0, 2, 0][..]));
        assert_eq!(dnstap.query_time, None, "it answers nothing");
        let true_one = recorder.captured(&sighting(&response, 6), "2".into(), Timestamp(0));
        let query_time = Dnstap::read(&query.body).unwrap().query_time;
        assert_eq!(Dnstap::read(&true_one.body).unwrap().query_time, query_time);
        forged.destination.set_port(5300);
        let record = recorder.captured(&forged, "1".into(), Timestamp(0));
        assert_eq!(memchr::memmem::find(&record.body, &[192, 0, 2, 99]), None, "no port tells, so both are hidden");
    }

    #[test]
    fn a_frame_that_cannot_be_read_is_not_kept_where_addresses_are_hidden() {
        let records = tapped(&mut recorder(AddressForm::Hash), Bytes::from_static(b"noise of 192.0.2.99"));
        assert_eq!(Dnstap::read(&records[0].body), Err(Broken::NoMessage));
        let text = String::from_utf8_lossy(&records[0].body);
        assert!(text.contains("its 19 bytes are not kept") && !text.contains("192.0.2.99"), "{text}");
    }

    #[test]
    fn a_hidden_address_is_nowhere_in_the_record_and_pairs_are_still_found() {
        for addresses in [AddressForm::Prefix, AddressForm::Hash] {
            let mut recorder = recorder(addresses);
            let query = recorder.captured(&sighting(QUERY, 5), "1".into(), Timestamp(0));
            let response = recorder.captured(&sighting(&response(), 6), "2".into(), Timestamp(0));
            let again = tapped(&mut recorder, query.body.clone()).remove(0);
            for body in [&query.body, &response.body, &again.body] {
                assert_eq!(memchr::memmem::find(body, &[192, 0, 2, 99]), None, "{addresses:?}");
                assert!(memchr::memmem::find(body, &[198, 51, 100, 53]).is_some(), "the server is no client");
            }
            assert!(Dnstap::read(&response.body).unwrap().query_time.is_some());
        }
    }
}
