//! Data of records in presentation form. Each type is a list of fields in [`super::types`]; a type that is unknown, and
//! data that does not fit its type, is written as RFC 3597, section 5 has it: `\# 3 01ff00`.

use std::net::Ipv6Addr;
use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use contract::Day;

use super::name::{Form, Malformed, is_compressed, push_decimal_escape, write_name};
use super::rdata_special::{write_address_prefixes, write_host_identity, write_location, write_service_parameters};
use super::types::{Field, fields, push_type};

/// Appends the data that stands at `range` of the message.
///
/// # Errors
/// When it does not fit its type; it is written as of an unknown type then.
pub(super) fn write_data(
    record_type: u16,
    message: &[u8],
    range: Range<usize>,
    out: &mut Vec<u8>,
) -> Result<(), Malformed> {
    // An update deletes by records without data: RFC 2136, section 2.5.
    if range.is_empty() {
        return Ok(());
    }
    let start = out.len();
    let outcome = match fields(record_type) {
        Some(fields) => write_fields(fields, message, range.clone(), out),
        None => {
            write_unknown(message.get(range).unwrap_or_default(), out);
            return Ok(());
        }
    };
    if outcome.is_err() {
        out.truncate(start);
        write_unknown(message.get(range).unwrap_or_default(), out);
    }
    outcome
}

fn write_fields(fields: &[Field], message: &[u8], range: Range<usize>, out: &mut Vec<u8>) -> Result<(), Malformed> {
    let mut data = Data { message: message.get(..range.end).unwrap_or_default(), at: range.start };
    for (place, &field) in fields.iter().enumerate() {
        let before = out.len();
        if place > 0 {
            out.push(b' ');
        }
        let start = out.len();
        write_field(field, &mut data, out)?;
        if out.len() == start {
            out.truncate(before);
        }
    }
    match data.at == range.end {
        true => Ok(()),
        false => Err(Malformed::Data),
    }
}

/// What is left of a record's data; pointers in names reach into the whole message before it.
pub(super) struct Data<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Data<'a> {
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let taken = self.message.get(self.at..self.at + count).ok_or(Malformed::Data)?;
        self.at += count;
        Ok(taken)
    }

    pub(super) fn chunk<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| Malformed::Data)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        self.chunk::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Malformed> {
        self.chunk().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        self.chunk().map(u32::from_be_bytes)
    }

    pub(super) fn rest(&mut self) -> &'a [u8] {
        let rest = self.message.get(self.at..).unwrap_or_default();
        self.at = self.message.len();
        rest
    }

    pub(super) fn is_empty(&self) -> bool {
        self.at == self.message.len()
    }

    /// A length in a byte, and as many bytes.
    pub(super) fn counted(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.u8()?;
        self.take(usize::from(length))
    }

    pub(super) fn name(&mut self, out: &mut Vec<u8>) -> Result<(), Malformed> {
        self.at = write_name(self.message, self.at, Form::Exact, out).map_err(|malformed| match malformed {
            Malformed::Cut => Malformed::Data,
            other => other,
        })?;
        Ok(())
    }

    /// A name that must not be compressed.
    pub(super) fn plain_name(&mut self, out: &mut Vec<u8>) -> Result<(), Malformed> {
        match is_compressed(self.message, self.at) {
            true => Err(Malformed::Data),
            false => self.name(out),
        }
    }
}

fn write_field(field: Field, data: &mut Data<'_>, out: &mut Vec<u8>) -> Result<(), Malformed> {
    match field {
        Field::U8 => push_number(data.u8()?.into(), out),
        Field::U16 => push_number(data.u16()?.into(), out),
        Field::U32 => push_number(data.u32()?.into(), out),
        Field::Name => data.name(out)?,
        Field::Ipv4 => push_ipv4(data.chunk()?, out),
        Field::Ipv6 => push_ipv6(data.chunk::<16>()?.into(), out),
        Field::Text => push_quoted(data.counted()?, out),
        Field::Texts => {
            push_quoted(data.counted()?, out);
            while !data.is_empty() {
                out.push(b' ');
                push_quoted(data.counted()?, out);
            }
        }
        Field::TextRest => push_quoted(data.rest(), out),
        Field::Word => push_escaped(data.counted()?, out),
        Field::Hex => push_hex(data.rest(), out),
        Field::CountedHex => match data.counted()? {
            [] => out.push(b'-'),
            salt => push_hex(salt, out),
        },
        Field::CountedBase32 => push_base32(data.counted()?, out),
        Field::Base64 => push_base64(data.rest(), out),
        Field::LongBase64 => {
            let length = data.u16()?;
            push_number(length.into(), out);
            if length > 0 {
                out.push(b' ');
                push_base64(data.take(length.into())?, out);
            }
        }
        Field::Type => push_type(data.u16()?, out),
        Field::Types => write_types(data, out)?,
        Field::Time => push_time(data.u32()?, out),
        Field::LongTime => {
            let [a, b, c, d, e, f] = data.chunk()?;
            push_number(u64::from_be_bytes([0, 0, a, b, c, d, e, f]), out);
        }
        Field::Gateway { kind_mask } => write_gateway(kind_mask, data, out)?,
        Field::Eui(bytes) => push_grouped(data.take(bytes)?, 1, b'-', out),
        Field::Locator64 => push_grouped(&data.chunk::<8>()?, 2, b':', out),
        Field::Location => write_location(data, out)?,
        Field::AddressPrefixes => write_address_prefixes(data, out)?,
        Field::HostIdentity => write_host_identity(data, out)?,
        Field::ServiceParameters => write_service_parameters(data, out)?,
    }
    Ok(())
}

/// The type bitmap of RFC 4034, section 4.1.2: windows of 32 bytes at the most, each once and in order.
fn write_types(data: &mut Data<'_>, out: &mut Vec<u8>) -> Result<(), Malformed> {
    let (start, mut window_before) = (out.len(), None);
    while !data.is_empty() {
        let window = data.u8()?;
        let bitmap = data.counted()?;
        if bitmap.len() > 32 || window_before.replace(window) >= Some(window) {
            return Err(Malformed::Data);
        }
        for (place, byte) in bitmap.iter().enumerate() {
            for bit in (0..8_u16).filter(|bit| byte & (0x80 >> bit) != 0) {
                if out.len() > start {
                    out.push(b' ');
                }
                push_type(u16::from(window) << 8 | (place as u16) << 3 | bit, out);
            }
        }
    }
    Ok(())
}

/// The gateway of RFC 4025, section 2.5 and RFC 8777, section 4.2: its kind was the second field, and the precedence
/// and (in the former) the algorithm stand between.
fn write_gateway(kind_mask: u8, data: &mut Data<'_>, out: &mut Vec<u8>) -> Result<(), Malformed> {
    let kind = data.u8()?;
    if kind_mask == 0xff {
        push_number(kind.into(), out);
        out.push(b' ');
        push_number(data.u8()?.into(), out);
    } else {
        push_number((kind >> 7).into(), out);
        out.push(b' ');
        push_number((kind & kind_mask).into(), out);
    }
    out.push(b' ');
    match kind & kind_mask {
        0 => out.push(b'.'),
        1 => push_ipv4(data.chunk()?, out),
        2 => push_ipv6(data.chunk::<16>()?.into(), out),
        3 => data.name(out)?,
        _ => return Err(Malformed::Data),
    }
    Ok(())
}

fn write_unknown(data: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"\\# ");
    push_number(data.len() as u64, out);
    out.push(b' ');
    push_hex(data, out);
}

pub(super) fn push_text(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(text.as_bytes());
}

pub(super) fn push_number(number: u64, out: &mut Vec<u8>) {
    let (mut digits, mut at, mut rest) = ([0; 20], 20, number);
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            return out.extend_from_slice(&digits[at..]);
        }
    }
}

pub(super) fn push_ipv4(octets: [u8; 4], out: &mut Vec<u8>) {
    for (place, octet) in octets.into_iter().enumerate() {
        if place > 0 {
            out.push(b'.');
        }
        push_number(octet.into(), out);
    }
}

/// As RFC 5952 has it: without zeros at the start of a group, and `::` for the first of the longest runs of zero groups.
pub(super) fn push_ipv6(ip: Ipv6Addr, out: &mut Vec<u8>) {
    if let Some(ip) = ip.to_ipv4_mapped() {
        push_text("::ffff:", out);
        return push_ipv4(ip.octets(), out);
    }
    let groups = ip.segments();
    let (mut run, mut longest) = (0, 0..0);
    for (place, &group) in groups.iter().enumerate() {
        run = if group == 0 { run + 1 } else { 0 };
        if run > longest.len() {
            longest = place + 1 - run..place + 1;
        }
    }
    if longest.len() < 2 {
        longest = 8..8;
    }
    for (place, group) in groups.into_iter().enumerate() {
        if longest.contains(&place) {
            if place == longest.start {
                push_text("::", out);
            }
            continue;
        }
        if place > 0 && place != longest.end {
            out.push(b':');
        }
        let [high, low] = group.to_be_bytes();
        let digits = [high >> 4, high & 0xf, low >> 4, low & 0xf];
        let first = digits.iter().position(|&digit| digit != 0).unwrap_or(3);
        out.extend(digits[first..].iter().map(|&digit| HEX_DIGITS[usize::from(digit)]));
    }
}

/// In quotes, as RFC 1035, section 5.1 has it.
pub(super) fn push_quoted(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    push_escaped(bytes, out);
    out.push(b'"');
}

fn push_escaped(bytes: &[u8], out: &mut Vec<u8>) {
    for &byte in bytes {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b' '..=b'~' => out.push(byte),
            _ => push_decimal_escape(byte, out),
        }
    }
}

const HEX_DIGITS: &[u8; 16] = b"0123456789abcdef";

pub(super) fn push_hex(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend(bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xf].map(|digit| HEX_DIGITS[usize::from(digit)])));
}

fn push_grouped(bytes: &[u8], size: usize, separator: u8, out: &mut Vec<u8>) {
    for (place, group) in bytes.chunks(size).enumerate() {
        if place > 0 {
            out.push(separator);
        }
        push_hex(group, out);
    }
}

pub(super) fn push_base64(bytes: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    // The room is exact, so there is none to miss.
    let written = STANDARD.encode_slice(bytes, &mut out[start..]).unwrap_or(0);
    out.truncate(start + written);
}

/// Base 32 with the extended hex alphabet, without padding: RFC 5155, section 3.3.
fn push_base32(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
    let (mut bits, mut count) = (0_u32, 0);
    for &byte in bytes {
        bits = bits << 8 | u32::from(byte);
        count += 8;
        while count >= 5 {
            count -= 5;
            out.push(DIGITS[(bits >> count & 31) as usize]);
        }
    }
    if count > 0 {
        out.push(DIGITS[(bits << (5 - count) & 31) as usize]);
    }
}

/// `YYYYMMDDHHmmSS`: RFC 4034, section 3.2.
fn push_time(seconds: u32, out: &mut Vec<u8>) {
    let (year, month, day) = Day((seconds / 86_400) as i32).civil();
    let of_day = seconds % 86_400;
    let digits = [of_day / 3_600, of_day / 60 % 60, of_day % 60];
    push_number(year.unsigned_abs().into(), out);
    for number in [month.unsigned_abs().into(), day.unsigned_abs().into()].into_iter().chain(digits) {
        out.extend_from_slice(&[b'0' + (number / 10) as u8, b'0' + (number % 10) as u8]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_ipv6_address_is_written_as_everyone_does(groups in prop::array::uniform8(prop_oneof![Just(0_u16), any::<u16>(), 0..32_u16])) {
            let ip = Ipv6Addr::from(groups);
            for ip in [ip, Ipv6Addr::from(u128::from(ip) & 0xffff_ffff | 0xffff_0000_0000)] {
                let mut out = Vec::new();
                push_ipv6(ip, &mut out);
                prop_assert_eq!(String::from_utf8(out).unwrap(), ip.to_string());
            }
        }
    }
}
