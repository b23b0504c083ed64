//! Data whose form no list of fields can say.

use super::name::Malformed;
use super::rdata::{Data, push_base64, push_hex, push_ipv4, push_ipv6, push_number, push_quoted, push_text};

/// LOC: RFC 1876, section 3. Sizes and precisions are in metres.
pub(super) fn write_location(data: &mut Data<'_>, out: &mut Vec<u8>) -> Result<(), Malformed> {
    let [version, sizes @ ..] = data.chunk::<4>()?;
    if version != 0 {
        return Err(Malformed::Data);
    }
    for letters in [['N', 'S'], ['E', 'W']] {
        let angle = i64::from(data.u32()?) - (1 << 31);
        let letter = letters[usize::from(angle < 0)];
        let millis = angle.unsigned_abs();
        let (degrees, minutes, seconds) = (millis / 3_600_000, millis / 60_000 % 60, millis / 1_000 % 60);
        push_text(&format!("{degrees} {minutes} {seconds}.{:03} {letter} ", millis % 1_000), out);
    }
    let centimetres = i64::from(data.u32()?) - 10_000_000;
    let sign = if centimetres < 0 { "-" } else { "" };
    push_text(&format!("{sign}{}.{:02}m", centimetres.abs() / 100, centimetres.abs() % 100), out);
    for size in sizes {
        let (base, exponent) = (u64::from(size >> 4), u32::from(size & 0xf));
        if base > 9 || exponent > 9 {
            return Err(Malformed::Data);
        }
        let centimetres = base * 10_u64.pow(exponent);
        push_text(&format!(" {}.{:02}m", centimetres / 100, centimetres % 100), out);
    }
    Ok(())
}

/// APL: RFC 3123, section 4.
pub(super) fn write_address_prefixes(data: &mut Data<'_>, out: &mut Vec<u8>) -> Result<(), Malformed> {
    let start = out.len();
    while !data.is_empty() {
        let (family, prefix, length) = (data.u16()?, data.u8()?, data.u8()?);
        let bytes = data.take(usize::from(length & 0x7f))?;
        let mut octets = [0; 16];
        octets.get_mut(..bytes.len()).ok_or(Malformed::Data)?.copy_from_slice(bytes);
        if out.len() > start {
            out.push(b' ');
        }
        if length & 0x80 != 0 {
            out.push(b'!');
        }
        push_number(family.into(), out);
        out.push(b':');
        match (family, octets) {
            (1, [a, b, c, d, ..]) if bytes.len() <= 4 => push_ipv4([a, b, c, d], out),
            (2, octets) => push_ipv6(octets.into(), out),
            _ => return Err(Malformed::Data),
        }
        out.push(b'/');
        push_number(prefix.into(), out);
    }
    Ok(())
}

/// HIP: RFC 8005, section 5, whose names are never compressed.
pub(super) fn write_host_identity(data: &mut Data<'_>, out: &mut Vec<u8>) -> Result<(), Malformed> {
    let (tag_length, algorithm, key_length) = (data.u8()?, data.u8()?, data.u16()?);
    push_number(algorithm.into(), out);
    out.push(b' ');
    push_hex(data.take(tag_length.into())?, out);
    out.push(b' ');
    push_base64(data.take(key_length.into())?, out);
    while !data.is_empty() {
        out.push(b' ');
        data.plain_name(out)?;
    }
    Ok(())
}

/// The parameters of SVCB and HTTPS: RFC 9460, section 2.1. What does not fit its key is quoted as it is.
pub(super) fn write_service_parameters(data: &mut Data<'_>, out: &mut Vec<u8>) -> Result<(), Malformed> {
    let mut is_first = true;
    while !data.is_empty() {
        let (key, length) = (data.u16()?, data.u16()?);
        let value = data.take(length.into())?;
        if !std::mem::take(&mut is_first) {
            out.push(b' ');
        }
        push_key(key, out);
        if value.is_empty() {
            continue;
        }
        out.push(b'=');
        let start = out.len();
        if write_value(key, value, out).is_none() {
            out.truncate(start);
            push_quoted(value, out);
        }
    }
    Ok(())
}

const MANDATORY: u16 = 0;
const ALPN: u16 = 1;
const PORT: u16 = 3;
const IPV4_HINT: u16 = 4;
const ECH: u16 = 5;
const IPV6_HINT: u16 = 6;

/// Names from <https://www.iana.org/assignments/dns-svcb>.
fn push_key(key: u16, out: &mut Vec<u8>) {
    const NAMES: [&str; 11] = [
        "mandatory",
        "alpn",
        "no-default-alpn",
        "port",
        "ipv4hint",
        "ech",
        "ipv6hint",
        "dohpath",
        "ohttp",
        "tls-supported-groups",
        "docpath",
    ];
    match NAMES.get(usize::from(key)) {
        Some(name) => push_text(name, out),
        None => {
            out.extend_from_slice(b"key");
            push_number(key.into(), out);
        }
    }
}

fn write_value(key: u16, mut value: &[u8], out: &mut Vec<u8>) -> Option<()> {
    match key {
        PORT => push_number(u16::from_be_bytes(value.try_into().ok()?).into(), out),
        ECH => push_base64(value, out),
        MANDATORY => write_list(value.chunks(2), out, |key, out| {
            push_key(u16::from_be_bytes(key.try_into().ok()?), out);
            Some(())
        })?,
        IPV4_HINT => write_list(value.chunks(4), out, |octets, out| {
            push_ipv4(octets.try_into().ok()?, out);
            Some(())
        })?,
        IPV6_HINT => write_list(value.chunks(16), out, |octets, out| {
            push_ipv6(<[u8; 16]>::try_from(octets).ok()?.into(), out);
            Some(())
        })?,
        ALPN => {
            let protocols = std::iter::from_fn(|| {
                let (&length, rest) = value.split_first()?;
                let protocol = rest.get(..usize::from(length)).unwrap_or(&[]);
                value = rest.get(usize::from(length)..).unwrap_or_default();
                Some(protocol)
            });
            write_list(protocols, out, |protocol, out| {
                let is_plain = protocol.iter().all(|&byte| byte.is_ascii_graphic() && !br#",\""#.contains(&byte));
                (is_plain && !protocol.is_empty()).then(|| out.extend_from_slice(protocol))
            })?;
        }
        _ => return None,
    }
    Some(())
}

fn write_list<'a>(
    items: impl Iterator<Item = &'a [u8]>,
    out: &mut Vec<u8>,
    write: impl Fn(&[u8], &mut Vec<u8>) -> Option<()>,
) -> Option<()> {
    for (place, item) in items.enumerate() {
        if place > 0 {
            out.push(b',');
        }
        write(item, out)?;
    }
    Some(())
}
