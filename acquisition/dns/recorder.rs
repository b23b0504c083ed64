//! Makes records of messages: pairs a response with its query, hides addresses, and writes the dnstap body.

use std::net::{IpAddr, SocketAddr};

use bytes::{Bytes, BytesMut};
use contract::{RawRecord, RecordId, Result, Timestamp};

use super::address::AddressMask;
use super::dnstap::{Dnstap, MessageType, Moment, SocketProtocol, ip_address, range_in};
use super::message::client_subnet;
use super::pairs::{Ends, Pairs};
use super::settings::Settings;

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
        Ok(Self { mask, pairs: Pairs::new(settings.pair_seconds), arena: BytesMut::new() })
    }

    /// One under the same settings that has seen nothing yet.
    pub(super) fn fresh(&self) -> Self {
        Self { mask: self.mask.clone(), pairs: self.pairs.fresh(), arena: BytesMut::new() }
    }

    /// The record of a message that was captured: a dnstap message of the type `TOOL_QUERY` or `TOOL_RESPONSE`.
    /// Its QR bit tells which, and so who is the client.
    pub(super) fn captured(&mut self, seen: &Sighting<'_>, id: RecordId, fetched_at: Timestamp) -> RawRecord {
        let is_response = seen.dns.get(2).is_some_and(|flags| flags & 0x80 != 0);
        let (client, server) =
            if is_response { (seen.destination, seen.source) } else { (seen.source, seen.destination) };
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
            dnstap.query_time = seen.time.and_then(|time| self.pairs.answered(&ends, time, seen.dns));
            (dnstap.response_time, dnstap.response_message) = (seen.time, Some(seen.dns));
        } else {
            if let Some(time) = seen.time {
                self.pairs.asked(&ends, time, seen.dns);
            }
            (dnstap.query_time, dnstap.query_message) = (seen.time, Some(seen.dns));
        }
        self.reserve(seen.dns.len() + ENVELOPE_BYTES_MAX);
        dnstap.write(&mut self.arena);
        let mut body = self.arena.split();
        hide(&self.mask, &mut body);
        let event_time = seen.time.and_then(Moment::timestamp).unwrap_or(fetched_at);
        RawRecord { id, event_time, fetched_at, body: body.freeze() }
    }

    /// The record of a dnstap message that a server sent: its bytes, with the query's time after them where it was
    /// missing and known. What is none stays as it is, for the processor to reject.
    pub(super) fn tapped(&mut self, frame: Bytes, id: RecordId, fetched_at: Timestamp) -> RawRecord {
        let Ok(dnstap) = Dnstap::read(&frame) else {
            return RawRecord { id, event_time: fetched_at, fetched_at, body: frame };
        };
        let time = dnstap.time();
        let event_time = time.and_then(Moment::timestamp).unwrap_or(fetched_at);
        let query_time = self.pair(&dnstap);
        let body = if query_time.is_none() && self.mask.is_whole() {
            frame
        } else {
            self.reserve(frame.len() + ENVELOPE_BYTES_MAX);
            self.arena.extend_from_slice(&frame);
            if let Some(query_time) = query_time {
                Dnstap::append_query_time(dnstap.message_type, query_time, &mut self.arena);
            }
            let mut body = self.arena.split();
            hide(&self.mask, &mut body);
            body.freeze()
        };
        RawRecord { id, event_time, fetched_at, body }
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
}

/// Hides the addresses in an encoded dnstap message, in place.
fn hide(mask: &AddressMask, body: &mut [u8]) {
    if mask.is_whole() {
        return;
    }
    let Ok(dnstap) = Dnstap::read(body) else { return };
    let is_local = dnstap.response_port.is_some_and(|port| LOCAL_PORTS.iter().any(|&local| u32::from(local) == port));
    let server = dnstap.response_address.filter(|_| is_local);
    let addresses = [dnstap.query_address, server].map(|address| address.map(|address| range_in(body, address)));
    let subnets = [dnstap.query_message, dnstap.response_message].map(|dns| {
        let dns = dns?;
        let subnet = client_subnet(dns)?;
        Some((range_in(body, subnet.address), subnet))
    });
    let subnets =
        subnets.map(|found| found.map(|(range, subnet)| (range, subnet.is_ipv6, usize::from(subnet.source_bits))));
    for range in addresses.into_iter().flatten() {
        mask.hide(&mut body[range]);
    }
    for (range, is_ipv6, bits) in subnets.into_iter().flatten() {
        mask.hide_subnet(&mut body[range], is_ipv6, bits);
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
        assert_eq!(recorder.tapped(query.clone(), "1".into(), Timestamp(0)).body, query);
        let paired = recorder.tapped(response.clone(), "2".into(), Timestamp(0)).body;
        assert!(paired.starts_with(&response) && paired.len() > response.len());
        assert!(Dnstap::read(&paired).unwrap().query_time.is_some());
        assert_eq!(recorder.tapped(response.clone(), "3".into(), Timestamp(0)).body, response, "it was answered");
        let noise = Bytes::from_static(b"noise");
        assert_eq!(recorder.tapped(noise.clone(), "4".into(), Timestamp(9)).body, noise);
    }

    #[test]
    fn a_hidden_address_is_nowhere_in_the_record_and_pairs_are_still_found() {
        for addresses in [AddressForm::Prefix, AddressForm::Hash] {
            let mut recorder = recorder(addresses);
            let query = recorder.captured(&sighting(QUERY, 5), "1".into(), Timestamp(0));
            let response = recorder.captured(&sighting(&response(), 6), "2".into(), Timestamp(0));
            let again = recorder.tapped(query.body.clone(), "3".into(), Timestamp(0));
            for body in [&query.body, &response.body, &again.body] {
                assert_eq!(memchr::memmem::find(body, &[192, 0, 2, 99]), None, "{addresses:?}");
                assert!(memchr::memmem::find(body, &[198, 51, 100, 53]).is_some(), "the server is no client");
            }
            assert!(Dnstap::read(&response.body).unwrap().query_time.is_some());
        }
    }
}
