//! The codecs of Kafka's clients, also those in which the log itself writes nothing, each with a bound.
//! Source: <https://kafka.apache.org/41/design/#recordbatch>, attributes.

use std::io::{Error, Read, Result};

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use lz4_flex::frame::FrameDecoder;

const NONE: i16 = 0;
const GZIP: i16 = 1;
const SNAPPY: i16 = 2;
const LZ4: i16 = 3;
const ZSTD: i16 = 4;

/// How Java's clients begin a stream of snappy blocks, with its version and the oldest that can read it; librdkafka's
/// send one block without it. Other versions are not known to anybody, so they are no stream.
const SNAPPY_STREAM: &[u8] = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";

/// The largest window of zstd, as a power of two, that is reserved for a client: what level 19 uses.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// Unpacks what a client packed with the codec of that number, to `bytes_max` bytes at the most.
pub(crate) fn unpack(codec: i16, packed: &Bytes, bytes_max: usize) -> Result<Bytes> {
    match codec {
        NONE if packed.len() > bytes_max => Err(too_much(bytes_max)),
        NONE => Ok(packed.clone()),
        GZIP => read_all(MultiGzDecoder::new(&packed[..]), bytes_max),
        SNAPPY => unpack_snappy(packed, bytes_max),
        LZ4 => read_all(FrameDecoder::new(&packed[..]), bytes_max),
        ZSTD => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(&packed[..])?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            read_all(decoder, bytes_max)
        }
        _ => Err(Error::other(format!("codec {codec} is not known"))),
    }
}

fn read_all(decoder: impl Read, bytes_max: usize) -> Result<Bytes> {
    let mut out = Vec::new();
    decoder.take(bytes_max as u64 + 1).read_to_end(&mut out)?;
    if out.len() > bytes_max { Err(too_much(bytes_max)) } else { Ok(out.into()) }
}

fn unpack_snappy(packed: &[u8], bytes_max: usize) -> Result<Bytes> {
    let mut out = Vec::new();
    if !packed.starts_with(SNAPPY_STREAM) {
        snappy_block(packed, bytes_max, &mut out)?;
        return Ok(out.into());
    }
    let cut = || Error::other("a stream of snappy blocks is cut");
    let mut left = &packed[SNAPPY_STREAM.len()..];
    while !left.is_empty() {
        let (length, rest) = left.split_first_chunk().ok_or_else(cut)?;
        let (block, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize).ok_or_else(cut)?;
        snappy_block(block, bytes_max, &mut out)?;
        left = rest;
    }
    Ok(out.into())
}

fn snappy_block(block: &[u8], bytes_max: usize, out: &mut Vec<u8>) -> Result<()> {
    let from = out.len();
    let to = from.saturating_add(snap::raw::decompress_len(block)?);
    if to > bytes_max {
        return Err(too_much(bytes_max));
    }
    out.resize(to, 0);
    snap::raw::Decoder::new().decompress(block, &mut out[from..])?;
    Ok(())
}

fn too_much(bytes_max: usize) -> Error {
    Error::other(format!("more than {bytes_max} bytes when unpacked"))
}
