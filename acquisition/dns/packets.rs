//! From packets to DNS messages: link layers, IP, tunnels, UDP and TCP.
//!
//! | layer | read |
//! | --- | --- |
//! | link | Ethernet (also LLC/SNAP), raw IP, Linux cooked (SLL, SLL2), null and loop, PPP |
//! | between | VLAN, QinQ, MPLS, PPPoE |
//! | IP | 4 with options, 6 with extension headers, the authentication header in both; fragments are put together |
//! | tunnels | IP in IP, GRE, ERSPAN, VXLAN (also GPE), Geneve, [`TUNNELS_MAX`] within each other |
//! | transport | UDP; TCP, see [`super::streams`]; HTTP/2 in the clear, see [`super::http2`] |
//!
//! What a packet in an ICMP error quotes is no message of its own and is passed over.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::capture::Packet;
use super::dnstap::{Moment, SocketProtocol};
use super::fragments::Fragments;
use super::http2::PREFACE;
use super::ip::{IpPacket, Payload, upper_layer};
use super::link::{Inner, link_payload, payload_of};
use super::message::is_whole_message;
use super::recorder::Sighting;
use super::stream::StreamLosses;
use super::streams::{Direction, Segment, Streams};

/// Tunnels within each other.
const TUNNELS_MAX: usize = 3;

const TCP: u8 = 6;
const UDP: u8 = 17;
const GRE: u8 = 47;
const IPV4_IN_IP: u8 = 4;
const IPV6_IN_IP: u8 = 41;

/// Its messages have the form of DNS messages and are none.
const NETBIOS_NAME_PORT: u16 = 137;

const VXLAN_PORT: u16 = 4789;
const VXLAN_GPE_PORT: u16 = 4790;
const GENEVE_PORT: u16 = 6081;

/// Link types, as captures number them.
const ETHERNET: u16 = 1;
const RAW_IP: u16 = 101;

/// Packets of which no message was made, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PacketCounts {
    /// Whole, and without DNS: by design.
    pub(super) other: u64,
    /// Of a link layer that is not read.
    pub(super) link: u64,
    /// Cut, or with lengths that cannot be, before the DNS message.
    pub(super) broken: u64,
    /// Fragments of datagrams that were never whole.
    pub(super) fragments: u64,
    /// Holes in TCP streams.
    pub(super) holes: u64,
    /// Runs of bytes of TCP streams of which no message could be made.
    pub(super) stream_pieces: u64,
    /// Those bytes.
    pub(super) stream_bytes: u64,
}

/// One line of what was not kept; empty if that is nothing.
impl fmt::Display for PacketCounts {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            (self.link, "packets of a link layer that is not read"),
            (self.broken, "packets cut or broken before the DNS message"),
            (self.fragments, "IP fragments of datagrams that are not whole"),
            (self.holes, "holes in TCP streams"),
            (self.stream_bytes, "bytes of TCP streams without a whole message"),
        ];
        let mut separator = "";
        for (count, what) in parts.iter().filter(|(count, _)| *count > 0) {
            write!(out, "{separator}{count} {what}")?;
            separator = ", ";
        }
        Ok(())
    }
}

/// Finds messages in packets. It keeps what fragments and streams need, so one of them sees all packets of a file or an
/// interface in order.
pub(super) struct Packets {
    ports: Vec<u16>,
    on_any_port: bool,
    fragments: Fragments,
    streams: Streams,
    counts: PacketCounts,
}

/// Why a packet gives nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passed {
    Other,
    Link,
    Broken,
}

impl Packets {
    /// Takes messages from and to these ports; over UDP on any port, if so, where they can be nothing else.
    pub(super) fn new(ports: &[u16], on_any_port: bool) -> Self {
        Self {
            ports: ports.to_vec(),
            on_any_port,
            fragments: Fragments::default(),
            streams: Streams::default(),
            counts: PacketCounts::default(),
        }
    }

    /// Hands out the messages that the packet makes whole.
    pub(super) fn add(&mut self, packet: &Packet<'_>, sink: &mut dyn FnMut(&Sighting<'_>)) {
        let outcome = link_payload(packet.link, packet.bytes).and_then(|inner| self.inner(inner, packet, 0, sink));
        match outcome {
            Ok(()) => {}
            Err(Passed::Other) => self.counts.other += 1,
            Err(Passed::Link) => self.counts.link += 1,
            Err(Passed::Broken) => self.counts.broken += 1,
        }
    }

    /// Gives up what was waited for long enough by the clock that gives the packets their times. In a file there may be
    /// several clocks, so there each connection and datagram waits by the times of its own packets alone.
    pub(super) fn pass_time(&mut self, now: Moment, sink: &mut dyn FnMut(&Sighting<'_>)) {
        self.fragments.pass_time(now);
        self.streams.pass_time(now, &mut |direction, protocol, time, dns| {
            sink(&sighting(direction, protocol, time, dns));
        });
    }

    /// How many TCP streams have something waiting behind a hole, which [`Packets::end`] would hand out.
    pub(super) fn waiting(&self) -> usize {
        self.streams.waiting()
    }

    /// Hands out what waits behind holes that nothing will fill.
    pub(super) fn end(&mut self, sink: &mut dyn FnMut(&Sighting<'_>)) {
        self.streams.end(&mut |direction, protocol, time, dns| sink(&sighting(direction, protocol, time, dns)));
    }

    /// What was not kept so far.
    pub(super) fn counts(&self) -> PacketCounts {
        PacketCounts { fragments: self.fragments.incomplete(), ..self.lost() }
    }

    /// The same while packets still come: without what may become whole yet.
    pub(super) fn lost(&self) -> PacketCounts {
        let StreamLosses { holes, pieces, bytes } = self.streams.losses();
        let fragments = self.fragments.given_up();
        PacketCounts { fragments, holes, stream_pieces: pieces, stream_bytes: bytes, ..self.counts }
    }

    fn inner(
        &mut self,
        inner: Inner<'_>,
        packet: &Packet<'_>,
        tunnels: usize,
        sink: &mut dyn FnMut(&Sighting<'_>),
    ) -> Result<(), Passed> {
        let bytes = match inner {
            Inner::Ip(bytes) => bytes,
            Inner::Other => return Err(Passed::Other),
        };
        let ip = IpPacket::read(bytes)?;
        match ip.payload {
            Payload::Whole(payload) => self.transport(&ip, payload, packet, tunnels, sink),
            Payload::Fragment(fragment) => match self.fragments.add(&fragment, packet.time) {
                Some(whole) => self.transport(&ip, &whole, packet, tunnels, sink),
                None => Ok(()),
            },
        }
    }

    fn transport(
        &mut self,
        ip: &IpPacket<'_>,
        payload: &[u8],
        packet: &Packet<'_>,
        tunnels: usize,
        sink: &mut dyn FnMut(&Sighting<'_>),
    ) -> Result<(), Passed> {
        let tunnel =
            |inner: Result<Inner<'_>, Passed>, packets: &mut Self, sink: &mut dyn FnMut(&Sighting<'_>)| match tunnels
                < TUNNELS_MAX
            {
                true => packets.inner(inner?, packet, tunnels + 1, sink),
                false => Err(Passed::Other),
            };
        let (protocol, payload) = upper_layer(ip.protocol, payload, ip.source.is_ipv6())?;
        match protocol {
            UDP => {
                let datagram = Udp::read(payload)?;
                let ports = [datagram.source, datagram.destination];
                let is_dns = match self.is_ours(ports) {
                    true => !datagram.bytes.is_empty(),
                    false if ports.contains(&VXLAN_PORT) => return tunnel(vxlan(datagram.bytes), self, sink),
                    false if ports.contains(&VXLAN_GPE_PORT) => return tunnel(vxlan_gpe(datagram.bytes), self, sink),
                    false if ports.contains(&GENEVE_PORT) => return tunnel(geneve(datagram.bytes), self, sink),
                    false if ports.contains(&NETBIOS_NAME_PORT) => false,
                    false => self.on_any_port && is_whole_message(datagram.bytes),
                };
                if !is_dns {
                    return Err(Passed::Other);
                }
                sink(&datagram.sighting(ip, packet.time));
                Ok(())
            }
            TCP => self.segment(ip, payload, packet, sink),
            IPV4_IN_IP | IPV6_IN_IP => tunnel(Ok(Inner::Ip(payload)), self, sink),
            GRE => tunnel(gre(payload), self, sink),
            _ => Err(Passed::Other),
        }
    }

    fn is_ours(&self, ports: [u16; 2]) -> bool {
        ports.iter().any(|port| self.ports.contains(port))
    }

    fn segment(
        &mut self,
        ip: &IpPacket<'_>,
        payload: &[u8],
        packet: &Packet<'_>,
        sink: &mut dyn FnMut(&Sighting<'_>),
    ) -> Result<(), Passed> {
        let segment = tcp(ip, payload)?;
        let (source, destination) = segment.direction;
        let is_followed = self.is_ours([source.port(), destination.port()]) || self.streams.has(&segment.direction);
        match is_followed {
            true => {}
            false if self.on_any_port && segment.bytes.starts_with(PREFACE) => self.streams.follow_http2(&segment),
            false => return Err(Passed::Other),
        }
        self.streams.add(&segment, packet.time, &mut |direction, protocol, time, dns| {
            sink(&sighting(direction, protocol, time, dns));
        });
        Ok(())
    }
}

fn sighting(direction: Direction, protocol: SocketProtocol, time: Option<Moment>, dns: &[u8]) -> Sighting<'_> {
    Sighting { time, source: direction.0, destination: direction.1, protocol, dns }
}

struct Udp<'a> {
    source: u16,
    destination: u16,
    bytes: &'a [u8],
}

impl<'a> Udp<'a> {
    /// A length of zero, or beyond what is there, takes what is there: RFC 2675, section 4, and cut captures.
    fn read(payload: &'a [u8]) -> Result<Self, Passed> {
        let (&[a, b, c, d, e, f, ..], rest) = payload.split_first_chunk::<8>().ok_or(Passed::Broken)?;
        let length = usize::from(u16::from_be_bytes([e, f]));
        let length = length.checked_sub(8).unwrap_or(rest.len());
        let bytes = rest.get(..length).unwrap_or(rest);
        Ok(Self { source: u16::from_be_bytes([a, b]), destination: u16::from_be_bytes([c, d]), bytes })
    }

    fn sighting(&self, ip: &IpPacket<'_>, time: Option<Moment>) -> Sighting<'a> {
        Sighting {
            time,
            source: SocketAddr::new(ip.source, self.source),
            destination: SocketAddr::new(ip.destination, self.destination),
            protocol: SocketProtocol::UDP,
            dns: self.bytes,
        }
    }
}

/// RFC 9293, section 3.1.
fn tcp<'a>(ip: &IpPacket<'_>, payload: &'a [u8]) -> Result<Segment<'a>, Passed> {
    const FIN: u8 = 1;
    const SYN: u8 = 2;
    const RST: u8 = 4;
    const ACK: u8 = 16;
    let head = payload.first_chunk::<20>().ok_or(Passed::Broken)?;
    let port = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
    let bytes = payload.get(usize::from(head[12] >> 4) * 4..).ok_or(Passed::Broken)?;
    let has = |flag: u8| head[13] & flag != 0;
    let socket = |address: IpAddr, port| SocketAddr::new(address, port);
    Ok(Segment {
        direction: (socket(ip.source, port(0)), socket(ip.destination, port(2))),
        sequence: u32::from_be_bytes([head[4], head[5], head[6], head[7]]),
        acknowledged: has(ACK).then(|| u32::from_be_bytes([head[8], head[9], head[10], head[11]])),
        starts: has(SYN),
        is_last: has(FIN),
        is_reset: has(RST),
        bytes,
        missing: ip.missing,
    })
}

/// RFC 7348, section 5.
fn vxlan(bytes: &[u8]) -> Result<Inner<'_>, Passed> {
    link_payload(ETHERNET, bytes.get(8..).ok_or(Passed::Broken)?)
}

/// <https://datatracker.ietf.org/doc/draft-ietf-nvo3-vxlan-gpe/>, section 3.1.
fn vxlan_gpe(bytes: &[u8]) -> Result<Inner<'_>, Passed> {
    let (&[_, _, _, next, ..], payload) = bytes.split_first_chunk::<8>().ok_or(Passed::Broken)?;
    match next {
        1 | 2 => link_payload(RAW_IP, payload),
        3 => link_payload(ETHERNET, payload),
        _ => Ok(Inner::Other),
    }
}

/// RFC 8926, section 3.4.
fn geneve(bytes: &[u8]) -> Result<Inner<'_>, Passed> {
    let (&[first, _, high, low, ..], _) = bytes.split_first_chunk::<8>().ok_or(Passed::Broken)?;
    let payload = bytes.get(8 + usize::from(first & 0x3f) * 4..).ok_or(Passed::Broken)?;
    payload_of(u16::from_be_bytes([high, low]), payload)
}

/// RFC 2784, with the key and sequence number of RFC 2890 and the acknowledgement of RFC 2637; ERSPAN:
/// <https://datatracker.ietf.org/doc/html/draft-foschiano-erspan-03>, section 4.
fn gre(bytes: &[u8]) -> Result<Inner<'_>, Passed> {
    let (&[flags, version, high, low], _) = bytes.split_first_chunk().ok_or(Passed::Broken)?;
    let words = [flags & 0x80, flags & 0x20, flags & 0x10, version & 0x80].iter().filter(|&&bit| bit != 0).count();
    let payload = bytes.get(4 + words * 4..).ok_or(Passed::Broken)?;
    match u16::from_be_bytes([high, low]) {
        // ERSPAN: without a sequence number it has no header of its own.
        0x88be if flags & 0x10 == 0 => link_payload(ETHERNET, payload),
        0x88be => link_payload(ETHERNET, payload.get(8..).ok_or(Passed::Broken)?),
        0x22eb => {
            let has_more = payload.get(11).ok_or(Passed::Broken)? & 1 != 0;
            link_payload(ETHERNET, payload.get(if has_more { 20 } else { 12 }..).ok_or(Passed::Broken)?)
        }
        kind => payload_of(kind, payload),
    }
}
