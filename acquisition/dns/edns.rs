//! EDNS: what the OPT record says. Source: RFC 6891, section 6.1.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::name::Malformed;

/// The number of the OPT record's type.
pub(super) const OPT: u16 = 41;

const NSID: u16 = 3;
pub(super) const CLIENT_SUBNET: u16 = 8;
const COOKIE: u16 = 10;
const EXTENDED_ERROR: u16 = 15;

/// Bytes of a client's cookie: RFC 7873, section 4.
const CLIENT_COOKIE_BYTES: usize = 8;

/// What an OPT record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Edns<'a> {
    pub(super) udp_size: u16,
    pub(super) version: u8,
    /// The eight bits above the header's RCODE.
    pub(super) rcode_high: u8,
    pub(super) dnssec_ok: bool,
    options: &'a [u8],
}

/// One option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EdnsOption<'a> {
    /// Which server it is, in any form: RFC 5001.
    Nsid(&'a [u8]),
    ClientSubnet(ClientSubnet<'a>),
    /// Of the client, and of the server where it is known: RFC 7873.
    Cookie {
        client: &'a [u8],
        server: &'a [u8],
    },
    /// RFC 8914.
    ExtendedError {
        code: u16,
        text: &'a [u8],
    },
    Other,
}

/// Whom the answer is for: RFC 7871, section 6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClientSubnet<'a> {
    pub(super) is_ipv6: bool,
    pub(super) source_bits: u8,
    pub(super) scope_bits: u8,
    /// Its first bytes.
    pub(super) address: &'a [u8],
}

impl<'a> Edns<'a> {
    /// From the fields of the OPT record.
    pub(super) fn new(class: u16, ttl: u32, options: &'a [u8]) -> Self {
        let [rcode_high, version, flags, _] = ttl.to_be_bytes();
        Self { udp_size: class, version, rcode_high, dnssec_ok: flags & 0x80 != 0, options }
    }

    /// The options with their numbers, until one that is cut.
    pub(super) fn options(&self) -> impl Iterator<Item = Result<(u16, EdnsOption<'a>), Malformed>> + use<'a> {
        let mut rest = self.options;
        std::iter::from_fn(move || {
            let (head, tail) = match rest.split_first_chunk::<4>() {
                Some(split) => split,
                None if rest.is_empty() => return None,
                None => {
                    rest = &[];
                    return Some(Err(Malformed::Cut));
                }
            };
            let (code, length) = (u16::from_be_bytes([head[0], head[1]]), u16::from_be_bytes([head[2], head[3]]));
            let Some((data, tail)) = tail.split_at_checked(usize::from(length)) else {
                rest = &[];
                return Some(Err(Malformed::Cut));
            };
            rest = tail;
            Some(EdnsOption::read(code, data).ok_or(Malformed::Option).map(|option| (code, option)))
        })
    }
}

impl<'a> EdnsOption<'a> {
    fn read(code: u16, data: &'a [u8]) -> Option<Self> {
        match code {
            NSID => Some(Self::Nsid(data)),
            CLIENT_SUBNET => ClientSubnet::read(data).map(Self::ClientSubnet),
            COOKIE => {
                let (client, server) = data.split_at_checked(CLIENT_COOKIE_BYTES)?;
                Some(Self::Cookie { client, server })
            }
            EXTENDED_ERROR => {
                let (code, text) = data.split_first_chunk()?;
                Some(Self::ExtendedError { code: u16::from_be_bytes(*code), text })
            }
            _ => Some(Self::Other),
        }
    }
}

impl<'a> ClientSubnet<'a> {
    pub(super) fn read(data: &'a [u8]) -> Option<Self> {
        let (&[family_high, family, source_bits, scope_bits], address) = data.split_first_chunk()?;
        let is_ipv6 = match (family_high, family) {
            (0, 1) => false,
            (0, 2) => true,
            _ => return None,
        };
        let bits_max = if is_ipv6 { 128 } else { 32 };
        let is_sound = source_bits <= bits_max && address.len() * 8 <= usize::from(bits_max);
        is_sound.then_some(Self { is_ipv6, source_bits, scope_bits, address })
    }

    /// `192.0.2.0/24`.
    pub(super) fn text(&self) -> String {
        let mut octets = [0; 16];
        octets[..self.address.len()].copy_from_slice(self.address);
        let [a, b, c, d, ..] = octets;
        match self.is_ipv6 {
            true => format!("{}/{}", Ipv6Addr::from(octets), self.source_bits),
            false => format!("{}/{}", Ipv4Addr::new(a, b, c, d), self.source_bits),
        }
    }
}

/// The name of an option, from <https://www.iana.org/assignments/dns-parameters>.
pub(super) fn option_name(code: u16) -> Option<&'static str> {
    Some(match code {
        1 => "LLQ",
        2 => "UL",
        3 => "NSID",
        5 => "DAU",
        6 => "DHU",
        7 => "N3U",
        8 => "CLIENT-SUBNET",
        9 => "EXPIRE",
        10 => "COOKIE",
        11 => "TCP-KEEPALIVE",
        12 => "PADDING",
        13 => "CHAIN",
        14 => "KEY-TAG",
        15 => "EXTENDED-ERROR",
        16 => "CLIENT-TAG",
        17 => "SERVER-TAG",
        18 => "REPORT-CHANNEL",
        19 => "ZONEVERSION",
        20 => "MQTYPE-QUERY",
        21 => "MQTYPE-RESPONSE",
        20292 => "UMBRELLA-IDENT",
        26946 => "DEVICE-ID",
        _ => return None,
    })
}

/// The purpose of an extended error, from <https://www.iana.org/assignments/dns-parameters>.
pub(super) fn extended_error_name(code: u16) -> Option<&'static str> {
    const NAMES: [&str; 31] = [
        "Other Error",
        "Unsupported DNSKEY Algorithm",
        "Unsupported DS Digest Type",
        "Stale Answer",
        "Forged Answer",
        "DNSSEC Indeterminate",
        "DNSSEC Bogus",
        "Signature Expired",
        "Signature Not Yet Valid",
        "DNSKEY Missing",
        "RRSIGs Missing",
        "No Zone Key Bit Set",
        "NSEC Missing",
        "Cached Error",
        "Not Ready",
        "Blocked",
        "Censored",
        "Filtered",
        "Prohibited",
        "Stale NXDOMAIN Answer",
        "Not Authoritative",
        "Not Supported",
        "No Reachable Authority",
        "Network Error",
        "Invalid Data",
        "Signature Expired before Valid",
        "Too Early",
        "Unsupported NSEC3 Iterations Value",
        "Unable to conform to policy",
        "Synthesized",
        "Invalid Query Type",
    ];
    NAMES.get(usize::from(code)).copied()
}
