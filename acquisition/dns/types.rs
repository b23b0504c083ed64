//! Names of numbers, and what the data of each type of record is made of.
//!
//! Source: <https://www.iana.org/assignments/dns-parameters>.

use super::rdata::push_number;

/// One field of a record's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    U8,
    U16,
    U32,
    /// A domain name, compressed or not.
    Name,
    Ipv4,
    Ipv6,
    /// A character string: a length in a byte, and as many bytes. In quotes.
    Text,
    /// All that is left, as character strings; one at least.
    Texts,
    /// All that is left, as one text in quotes.
    TextRest,
    /// A character string without quotes.
    Word,
    /// All that is left, in hexadecimal.
    Hex,
    /// A length in a byte, and as many bytes in hexadecimal; `-` for none.
    CountedHex,
    /// A length in a byte, and as many bytes in base 32.
    CountedBase32,
    /// All that is left, in base 64.
    Base64,
    /// A length in two bytes, and as many bytes in base 64.
    LongBase64,
    /// The number of a type.
    Type,
    /// The bitmap of types that exist.
    Types,
    /// Seconds in 32 bits, as a date.
    Time,
    /// Seconds in 48 bits, as a number.
    LongTime,
    /// An address or a name, by a kind in the bits of the mask of the byte before.
    Gateway {
        kind_mask: u8,
    },
    /// An identifier of so many bytes, with `-` between.
    Eui(usize),
    /// Eight bytes in groups of two, with `:` between.
    Locator64,
    Location,
    AddressPrefixes,
    HostIdentity,
    ServiceParameters,
}

use Field::{
    AddressPrefixes, Base64, CountedBase32, CountedHex, Eui, Gateway, Hex, HostIdentity, Ipv4, Ipv6, Location,
    Locator64, LongBase64, LongTime, Name, ServiceParameters, Text, TextRest, Texts, Time, Type, Types, U8, U16, U32,
    Word,
};

const KEY: &[Field] = &[U16, U8, U8, Base64];
const DIGEST: &[Field] = &[U16, U8, U8, Hex];
const SIGNATURE: &[Field] = &[Type, U8, U8, U32, Time, Time, U16, Name, Base64];
const CERTIFICATE: &[Field] = &[U8, U8, U8, Hex];
const SERVICE: &[Field] = &[U16, Name, ServiceParameters];

/// A type whose data has no presentation form, or never is.
const OPAQUE: &[Field] = &[];

/// All types of records: number, name, fields.
#[rustfmt::skip]
const RECORD_TYPES: &[(u16, &str, &[Field])] = &[
    (1, "A", &[Ipv4]),
    (2, "NS", &[Name]),
    (3, "MD", &[Name]),
    (4, "MF", &[Name]),
    (5, "CNAME", &[Name]),
    (6, "SOA", &[Name, Name, U32, U32, U32, U32, U32]),
    (7, "MB", &[Name]),
    (8, "MG", &[Name]),
    (9, "MR", &[Name]),
    (10, "NULL", OPAQUE),
    (11, "WKS", OPAQUE),
    (12, "PTR", &[Name]),
    (13, "HINFO", &[Text, Text]),
    (14, "MINFO", &[Name, Name]),
    (15, "MX", &[U16, Name]),
    (16, "TXT", &[Texts]),
    (17, "RP", &[Name, Name]),
    (18, "AFSDB", &[U16, Name]),
    (19, "X25", &[Text]),
    (20, "ISDN", &[Texts]),
    (21, "RT", &[U16, Name]),
    (22, "NSAP", OPAQUE),
    (23, "NSAP-PTR", &[Name]),
    (24, "SIG", SIGNATURE),
    (25, "KEY", KEY),
    (26, "PX", &[U16, Name, Name]),
    (27, "GPOS", &[Text, Text, Text]),
    (28, "AAAA", &[Ipv6]),
    (29, "LOC", &[Location]),
    (30, "NXT", OPAQUE),
    (31, "EID", OPAQUE),
    (32, "NIMLOC", OPAQUE),
    (33, "SRV", &[U16, U16, U16, Name]),
    (34, "ATMA", OPAQUE),
    (35, "NAPTR", &[U16, U16, Text, Text, Text, Name]),
    (36, "KX", &[U16, Name]),
    (37, "CERT", &[U16, U16, U8, Base64]),
    (38, "A6", OPAQUE),
    (39, "DNAME", &[Name]),
    (40, "SINK", OPAQUE),
    (41, "OPT", OPAQUE),
    (42, "APL", &[AddressPrefixes]),
    (43, "DS", DIGEST),
    (44, "SSHFP", &[U8, U8, Hex]),
    (45, "IPSECKEY", &[U8, Gateway { kind_mask: 0xff }, Base64]),
    (46, "RRSIG", SIGNATURE),
    (47, "NSEC", &[Name, Types]),
    (48, "DNSKEY", KEY),
    (49, "DHCID", &[Base64]),
    (50, "NSEC3", &[U8, U8, U16, CountedHex, CountedBase32, Types]),
    (51, "NSEC3PARAM", &[U8, U8, U16, CountedHex]),
    (52, "TLSA", CERTIFICATE),
    (53, "SMIMEA", CERTIFICATE),
    (55, "HIP", &[HostIdentity]),
    (56, "NINFO", &[Texts]),
    (57, "RKEY", KEY),
    (58, "TALINK", &[Name, Name]),
    (59, "CDS", DIGEST),
    (60, "CDNSKEY", KEY),
    (61, "OPENPGPKEY", &[Base64]),
    (62, "CSYNC", &[U32, U16, Types]),
    (63, "ZONEMD", &[U32, U8, U8, Hex]),
    (64, "SVCB", SERVICE),
    (65, "HTTPS", SERVICE),
    (66, "DSYNC", &[Type, U8, U16, Name]),
    (67, "HHIT", &[Base64]),
    (68, "BRID", &[Base64]),
    (99, "SPF", &[Texts]),
    (100, "UINFO", OPAQUE),
    (101, "UID", OPAQUE),
    (102, "GID", OPAQUE),
    (103, "UNSPEC", OPAQUE),
    (104, "NID", &[U16, Locator64]),
    (105, "L32", &[U16, Ipv4]),
    (106, "L64", &[U16, Locator64]),
    (107, "LP", &[U16, Name]),
    (108, "EUI48", &[Eui(6)]),
    (109, "EUI64", &[Eui(8)]),
    (128, "NXNAME", OPAQUE),
    (249, "TKEY", &[Name, Time, Time, U16, U16, LongBase64, LongBase64]),
    (250, "TSIG", &[Name, LongTime, U16, LongBase64, U16, U16, LongBase64]),
    (251, "IXFR", OPAQUE),
    (252, "AXFR", OPAQUE),
    (253, "MAILB", OPAQUE),
    (254, "MAILA", OPAQUE),
    (255, "ANY", OPAQUE),
    (256, "URI", &[U16, U16, TextRest]),
    (257, "CAA", &[U8, Word, TextRest]),
    (258, "AVC", &[Texts]),
    (259, "DOA", OPAQUE),
    (260, "AMTRELAY", &[U8, Gateway { kind_mask: 0x7f }]),
    (261, "RESINFO", &[Texts]),
    (262, "WALLET", &[Texts]),
    (263, "CLA", &[Texts]),
    (264, "IPN", OPAQUE),
    (32768, "TA", DIGEST),
    (32769, "DLV", DIGEST),
];

/// Types below this are found by their number.
const INDEXED_TYPES: usize = 512;

/// Where each type stands in [`RECORD_TYPES`], plus one.
const INDEX: [u8; INDEXED_TYPES] = {
    let mut index = [0; INDEXED_TYPES];
    let mut place = 0;
    while place < RECORD_TYPES.len() {
        let number = RECORD_TYPES[place].0 as usize;
        if number < INDEXED_TYPES {
            index[number] = place as u8 + 1;
        }
        place += 1;
    }
    index
};

fn record_type(number: u16) -> Option<&'static (u16, &'static str, &'static [Field])> {
    match INDEX.get(usize::from(number)) {
        Some(&place) => RECORD_TYPES.get(usize::from(place).checked_sub(1)?),
        None => RECORD_TYPES.iter().find(|&&(known, ..)| known == number),
    }
}

/// What the data of a type is made of; none where it has no presentation form.
pub(super) fn fields(number: u16) -> Option<&'static [Field]> {
    record_type(number).map(|&(_, _, fields)| fields).filter(|fields| !fields.is_empty())
}

/// Appends the name of a type: `A`; `TYPE1234` where it has none (RFC 3597, section 5).
pub(super) fn push_type(number: u16, out: &mut Vec<u8>) {
    push_name(record_type(number).map(|&(_, name, _)| name), "TYPE", number, out);
}

/// Appends the name of a class: `IN`; `CLASS1234` where it has none (RFC 3597, section 5).
pub(super) fn push_class(number: u16, out: &mut Vec<u8>) {
    let name = match number {
        1 => Some("IN"),
        3 => Some("CH"),
        4 => Some("HS"),
        254 => Some("NONE"),
        255 => Some("ANY"),
        _ => None,
    };
    push_name(name, "CLASS", number, out);
}

/// The name of an opcode: `QUERY`.
pub(super) fn opcode_name(number: u16) -> Option<&'static str> {
    match number {
        0 => Some("QUERY"),
        1 => Some("IQUERY"),
        2 => Some("STATUS"),
        4 => Some("NOTIFY"),
        5 => Some("UPDATE"),
        6 => Some("DSO"),
        _ => None,
    }
}

/// The name of an RCODE: `NXDOMAIN`. 16 is `BADVERS` of EDNS.
pub(super) fn rcode_name(number: u16) -> Option<&'static str> {
    const LOW: [&str; 12] = [
        "NOERROR",
        "FORMERR",
        "SERVFAIL",
        "NXDOMAIN",
        "NOTIMP",
        "REFUSED",
        "YXDOMAIN",
        "YXRRSET",
        "NXRRSET",
        "NOTAUTH",
        "NOTZONE",
        "DSOTYPENI",
    ];
    const HIGH: [&str; 8] = ["BADVERS", "BADKEY", "BADTIME", "BADMODE", "BADNAME", "BADALG", "BADTRUNC", "BADCOOKIE"];
    match usize::from(number) {
        low @ 0..12 => Some(LOW[low]),
        high @ 16..24 => Some(HIGH[high - 16]),
        _ => None,
    }
}

fn push_name(name: Option<&str>, prefix: &str, number: u16, out: &mut Vec<u8>) {
    match name {
        Some(name) => out.extend_from_slice(name.as_bytes()),
        None => {
            out.extend_from_slice(prefix.as_bytes());
            push_number(number.into(), out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_found_and_the_list_is_sorted() {
        assert!(RECORD_TYPES.is_sorted_by_key(|&(number, ..)| number));
        for &(number, name, _) in RECORD_TYPES {
            let mut out = Vec::new();
            push_type(number, &mut out);
            assert_eq!(out, name.as_bytes());
        }
        let unknown = |push: fn(u16, &mut Vec<u8>), number| {
            let mut out = Vec::new();
            push(number, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(unknown(push_type, 54), "TYPE54");
        assert_eq!(unknown(push_type, 65280), "TYPE65280");
        assert_eq!(unknown(push_class, 2), "CLASS2");
        assert_eq!((opcode_name(5), opcode_name(3)), (Some("UPDATE"), None));
        assert_eq!((rcode_name(11), rcode_name(12), rcode_name(23)), (Some("DSOTYPENI"), None, Some("BADCOOKIE")));
    }
}
