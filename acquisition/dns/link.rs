//! Link layers: from a packet's first byte to its IP header.

use super::packets::Passed;

/// What a layer carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inner<'a> {
    /// From the IP header on, of either version.
    Ip(&'a [u8]),
    /// Neither.
    Other,
}

/// VLAN tags and the like within each other.
const LAYERS_MAX: usize = 8;

/// Below this a type is a length: IEEE 802.3, clause 3.2.6.
const LENGTH_MAX: u16 = 0x05dc;

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const ETHERNET_IN_TUNNEL: u16 = 0x6558;

/// Passes the link layer of a type: <https://www.tcpdump.org/linktypes.html>.
pub(super) fn link_payload(link: u16, bytes: &[u8]) -> Result<Inner<'_>, Passed> {
    match link {
        // Ethernet.
        1 => ethernet(bytes),
        // Null and loop: a family in the byte order of some machine. The IP version tells as much.
        0 | 108 => ip_or_other(bytes.get(4..)),
        // PPP, with and without its HDLC frame.
        9 | 50 => ppp(bytes.strip_prefix(&[0xff, 0x03]).unwrap_or(bytes)),
        // PPPoE.
        51 => ppp(bytes.get(6..).ok_or(Passed::Broken)?),
        // Raw IP, as it was numbered over the years.
        12 | 14 | 101 | 228 | 229 => ip_or_other(Some(bytes)),
        // Linux cooked, both versions.
        113 => typed(bytes, 14, 16),
        276 => typed(bytes, 0, 20),
        _ => Err(Passed::Link),
    }
}

/// Passes what an EtherType announces.
pub(super) fn payload_of(mut kind: u16, mut bytes: &[u8]) -> Result<Inner<'_>, Passed> {
    for _ in 0..LAYERS_MAX {
        match kind {
            IPV4 | IPV6 => return ip_or_other(Some(bytes)),
            // VLAN, QinQ and their forerunner.
            0x8100 | 0x88a8 | 0x9100 => {
                kind = u16_at(bytes, 2)?;
                bytes = bytes.get(4..).ok_or(Passed::Broken)?;
            }
            0x8847 | 0x8848 => return mpls(bytes),
            // PPPoE, session.
            0x8864 => return ppp(bytes.get(6..).ok_or(Passed::Broken)?),
            // PPP in GRE, with and without its HDLC frame.
            0x880b => return ppp(bytes.strip_prefix(&[0xff, 0x03]).unwrap_or(bytes)),
            ETHERNET_IN_TUNNEL => {
                kind = u16_at(bytes, 12)?;
                bytes = bytes.get(14..).ok_or(Passed::Broken)?;
            }
            // LLC with SNAP.
            0..=LENGTH_MAX if bytes.starts_with(&[0xaa, 0xaa, 3, 0, 0, 0]) => {
                kind = u16_at(bytes, 6)?;
                bytes = bytes.get(8..).ok_or(Passed::Broken)?;
            }
            _ => return Ok(Inner::Other),
        }
    }
    Ok(Inner::Other)
}

fn ethernet(bytes: &[u8]) -> Result<Inner<'_>, Passed> {
    typed(bytes, 12, 14)
}

fn typed(bytes: &[u8], type_at: usize, payload_at: usize) -> Result<Inner<'_>, Passed> {
    let kind = u16_at(bytes, type_at)?;
    payload_of(kind, bytes.get(payload_at..).ok_or(Passed::Broken)?)
}

/// RFC 3032, section 2.1. What follows the last label is not announced; IP shows in its first byte, and what else may
/// stand there starts with zero bits (RFC 4385).
fn mpls(mut bytes: &[u8]) -> Result<Inner<'_>, Passed> {
    for _ in 0..LAYERS_MAX {
        let (&[_, _, bottom, _], rest) = bytes.split_first_chunk().ok_or(Passed::Broken)?;
        bytes = rest;
        if bottom & 1 != 0 {
            return match bytes.first() {
                Some(first) if first >> 4 == 0 => ethernet(bytes.get(4..).ok_or(Passed::Broken)?),
                _ => ip_or_other(Some(bytes)),
            };
        }
    }
    Ok(Inner::Other)
}

/// RFC 1661, section 2; a protocol below 256 may be written in one byte.
fn ppp(bytes: &[u8]) -> Result<Inner<'_>, Passed> {
    match bytes {
        [0x21, rest @ ..] | [0x57, rest @ ..] | [0, 0x21, rest @ ..] | [0, 0x57, rest @ ..] => ip_or_other(Some(rest)),
        [_, ..] => Ok(Inner::Other),
        [] => Err(Passed::Broken),
    }
}

fn ip_or_other(bytes: Option<&[u8]>) -> Result<Inner<'_>, Passed> {
    let bytes = bytes.ok_or(Passed::Broken)?;
    match bytes.first().ok_or(Passed::Broken)? >> 4 {
        4 | 6 => Ok(Inner::Ip(bytes)),
        _ => Ok(Inner::Other),
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, Passed> {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map(|&pair| u16::from_be_bytes(pair)).ok_or(Passed::Broken)
}
