//! IP headers of both versions. Sources: RFC 791, section 3.1; RFC 8200, sections 3 and 4.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::fragments::{Fragment, FragmentKey};
use super::packets::Passed;

/// Extension headers of one packet: each kind comes once but one.
const EXTENSIONS_MAX: usize = 12;

const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;

/// A packet after its headers.
#[derive(Debug)]
pub(super) struct IpPacket<'a> {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    /// Of the payload: <https://www.iana.org/assignments/protocol-numbers>.
    pub(super) protocol: u8,
    pub(super) payload: Payload<'a>,
    /// Bytes of the payload that were sent and not captured.
    pub(super) missing: usize,
}

/// What a packet carries.
#[derive(Debug)]
pub(super) enum Payload<'a> {
    /// All of it, or what was captured of it.
    Whole(&'a [u8]),
    /// A part of it.
    Fragment(Fragment<'a>),
}

impl<'a> Payload<'a> {
    /// What was captured of a fragment in part can never be put together; the first one says most even so.
    fn of(fragment: Fragment<'a>, is_cut: bool) -> Result<Self, Passed> {
        match (fragment.offset, fragment.is_last) {
            // Not fragmented, or a fragment of its own: RFC 6946.
            (0, true) => Ok(Self::Whole(fragment.bytes)),
            (0, false) if is_cut => Ok(Self::Whole(fragment.bytes)),
            _ if is_cut => Err(Passed::Broken),
            _ => Ok(Self::Fragment(fragment)),
        }
    }
}

impl<'a> IpPacket<'a> {
    /// Reads from the IP header on.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, Passed> {
        match bytes.first().map(|first| first >> 4) {
            Some(4) => Self::read_v4(bytes),
            Some(6) => Self::read_v6(bytes),
            _ => Err(Passed::Broken),
        }
    }

    fn read_v4(bytes: &'a [u8]) -> Result<Self, Passed> {
        let head = bytes.first_chunk::<20>().ok_or(Passed::Broken)?;
        let number = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        let address = |at: usize| Ipv4Addr::new(head[at], head[at + 1], head[at + 2], head[at + 3]).into();
        let (source, destination): (IpAddr, IpAddr) = (address(12), address(16));
        let head_bytes = usize::from(head[0] & 0xf) * 4;
        // Cards that cut segments themselves leave the total length zero.
        let end = match usize::from(number(2)) {
            0 => bytes.len(),
            total => total.min(bytes.len()),
        };
        let is_sound = head_bytes >= 20;
        let payload = bytes.get(head_bytes..end).filter(|_| is_sound).ok_or(Passed::Broken)?;
        let (flags, offset) = (number(6) >> 13, usize::from(number(6) & 0x1fff) * 8);
        let has_more = flags & 1 != 0;
        let protocol = head[9];
        let key = FragmentKey { source, destination, protocol, id: number(4).into() };
        let missing = usize::from(number(2)).saturating_sub(bytes.len());
        let payload = Payload::of(Fragment { key, offset, is_last: !has_more, bytes: payload }, missing > 0)?;
        Ok(Self { source, destination, protocol, payload, missing })
    }

    fn read_v6(bytes: &'a [u8]) -> Result<Self, Passed> {
        let (head, rest) = bytes.split_first_chunk::<40>().ok_or(Passed::Broken)?;
        let address = |octets: &[u8]| {
            <[u8; 16]>::try_from(octets).map(|octets| IpAddr::from(Ipv6Addr::from(octets))).map_err(|_| Passed::Broken)
        };
        let (source, destination) = (address(&head[8..24])?, address(&head[24..40])?);
        // Zero is a jumbogram's, or a card's as above.
        let length = usize::from(u16::from_be_bytes([head[4], head[5]]));
        let missing = length.saturating_sub(rest.len());
        let payload = if length == 0 { rest } else { rest.get(..length).unwrap_or(rest) };
        let (protocol, payload) = upper_layer(head[6], payload, true)?;
        if protocol == FRAGMENT {
            return Self::fragment(source, destination, payload, missing);
        }
        Ok(Self { source, destination, protocol, payload: Payload::Whole(payload), missing })
    }

    fn fragment(source: IpAddr, destination: IpAddr, payload: &'a [u8], missing: usize) -> Result<Self, Passed> {
        let (&[protocol, _, high, low, a, b, c, d], bytes) = payload.split_first_chunk().ok_or(Passed::Broken)?;
        let position = u16::from_be_bytes([high, low]);
        let (offset, has_more) = (usize::from(position & !7), position & 1 != 0);
        let key = FragmentKey { source, destination, protocol, id: u32::from_be_bytes([a, b, c, d]) };
        let payload = Payload::of(Fragment { key, offset, is_last: !has_more, bytes }, missing > 0)?;
        Ok(Self { source, destination, protocol, payload, missing })
    }
}

/// The first protocol that is no extension header, and its bytes. IPv4 has one of them, the authentication header; they
/// stand also in what fragments are put together to.
pub(super) fn upper_layer(mut protocol: u8, mut bytes: &[u8], is_ipv6: bool) -> Result<(u8, &[u8]), Passed> {
    for _ in 0..EXTENSIONS_MAX {
        let units = match protocol {
            // In units of four bytes, two less: RFC 4302, section 2.2.
            AUTHENTICATION => 4,
            // Hop-by-hop, routing, destination, mobility, host identity, shim: in units of eight.
            0 | 43 | 60 | 135 | 139 | 140 if is_ipv6 => 8,
            _ => return Ok((protocol, bytes)),
        };
        let (&[next, length], _) = bytes.split_first_chunk().ok_or(Passed::Broken)?;
        bytes = bytes.get(8 + usize::from(length) * units..).ok_or(Passed::Broken)?;
        protocol = next;
    }
    Err(Passed::Broken)
}
