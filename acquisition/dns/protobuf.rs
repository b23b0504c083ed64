//! The encoding of dnstap messages: <https://protobuf.dev/programming-guides/encoding/>.

use bytes::{BufMut, BytesMut};

use super::dnstap::Broken;

pub(super) const VARINT: u64 = 0;
const FIXED64: u64 = 1;
pub(super) const LENGTH_DELIMITED: u64 = 2;
pub(super) const FIXED32: u64 = 5;

pub(super) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of an encoded message, one after the other.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    /// The next field: its number and value.
    pub(super) fn next(&mut self) -> Result<Option<(u64, Value<'a>)>, Broken> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let value = match tag & 7 {
            VARINT => Value::Number(self.varint()?),
            FIXED64 => Value::Number(u64::from_le_bytes(*self.0.split_off_first_chunk()?)),
            LENGTH_DELIMITED => {
                let length = usize::try_from(self.varint()?).map_err(|_| Broken::Cut)?;
                let (bytes, rest) = self.0.split_at_checked(length).ok_or(Broken::Cut)?;
                self.0 = rest;
                Value::Bytes(bytes)
            }
            FIXED32 => Value::Number(u64::from(u32::from_le_bytes(*self.0.split_off_first_chunk()?))),
            _ => return Err(Broken::Encoding),
        };
        Ok(Some((tag >> 3, value)))
    }

    fn varint(&mut self) -> Result<u64, Broken> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or(Broken::Cut)?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Broken::Encoding)
    }
}

trait SplitChunk<'a> {
    fn split_off_first_chunk<const N: usize>(&mut self) -> Result<&'a [u8; N], Broken>;
}

impl<'a> SplitChunk<'a> for &'a [u8] {
    fn split_off_first_chunk<const N: usize>(&mut self) -> Result<&'a [u8; N], Broken> {
        let (chunk, rest) = self.split_first_chunk().ok_or(Broken::Cut)?;
        *self = rest;
        Ok(chunk)
    }
}

pub(super) fn varint_len(number: u64) -> usize {
    (64 - (number | 1).leading_zeros() as usize).div_ceil(7)
}

pub(super) fn tag_len(field: u64) -> usize {
    varint_len(field << 3)
}

pub(super) fn sized_len(field: u64, length: usize) -> usize {
    tag_len(field) + varint_len(length as u64) + length
}

pub(super) fn put_varint(out: &mut BytesMut, mut number: u64) {
    while number >= 0x80 {
        out.put_u8(number as u8 | 0x80);
        number >>= 7;
    }
    out.put_u8(number as u8);
}

pub(super) fn put_tag(out: &mut BytesMut, field: u64, wire_type: u64) {
    put_varint(out, field << 3 | wire_type);
}

pub(super) fn put_number(out: &mut BytesMut, field: u64, number: Option<u64>) {
    if let Some(number) = number {
        put_tag(out, field, VARINT);
        put_varint(out, number);
    }
}

pub(super) fn put_bytes(out: &mut BytesMut, field: u64, bytes: Option<&[u8]>) {
    if let Some(bytes) = bytes {
        put_tag(out, field, LENGTH_DELIMITED);
        put_varint(out, bytes.len() as u64);
        out.put_slice(bytes);
    }
}
