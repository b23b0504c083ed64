//! The codecs of a record batch, framed as Kafka frames them.

use std::io::{Read, Write};

use bytes::Bytes;
use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};
use serde::{Deserialize, Serialize};

const ZSTD_LEVEL: i32 = 1;

/// Scratch memory that an encoder may keep between two batches; what a rare large batch took is given back.
const SCRATCH_BYTES_MAX: usize = 4 << 20;

/// How the records of a batch are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// As they are.
    None,
    /// LZ4 frames with independent blocks, the only ones that Kafka's Java client reads.
    Lz4,
    /// Zstandard, level 1.
    #[default]
    Zstd,
}

impl Compression {
    /// The number in the attributes of a batch.
    /// Source: <https://kafka.apache.org/41/design/#recordbatch>.
    pub(crate) fn code(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    pub(crate) fn of_code(code: i16) -> Option<Self> {
        [Self::None, Self::Lz4, Self::Zstd].into_iter().find(|codec| codec.code() == code)
    }
}

/// The memory that encoding needs, kept between batches: a zstd context alone takes about a megabyte.
pub(crate) struct Encoder {
    /// The records before compression.
    pub(crate) section: Vec<u8>,
    compressed: Vec<u8>,
    zstd: zstd::bulk::Compressor<'static>,
}

impl Encoder {
    pub(crate) fn new() -> Self {
        let zstd = zstd::bulk::Compressor::new(ZSTD_LEVEL).expect("level 1 exists");
        Self { section: Vec::new(), compressed: Vec::new(), zstd }
    }

    /// Empties the memory for the next batch.
    pub(crate) fn clear(&mut self) {
        for scratch in [&mut self.section, &mut self.compressed] {
            scratch.clear();
            scratch.shrink_to(SCRATCH_BYTES_MAX);
        }
    }

    /// The section in the codec's form.
    pub(crate) fn compress(&mut self, compression: Compression) -> &[u8] {
        self.compressed.clear();
        match compression {
            Compression::None => return &self.section,
            Compression::Lz4 => {
                let mut info = FrameInfo::new();
                info.block_mode = BlockMode::Independent;
                info.block_size = BlockSize::Max256KB;
                let mut encoder = FrameEncoder::with_frame_info(info, &mut self.compressed);
                encoder.write_all(&self.section).expect("a vector takes all");
                encoder.finish().expect("a vector takes all");
            }
            Compression::Zstd => {
                self.compressed.reserve(zstd::zstd_safe::compress_bound(self.section.len()));
                self.zstd
                    .compress_to_buffer(&self.section, &mut self.compressed)
                    .expect("the bound given by zstd is reserved");
            }
        }
        &self.compressed
    }
}

/// The records before compression, of which there are `section_bytes_max` at the most.
pub(crate) fn decompress(
    compression: Compression,
    bytes: Bytes,
    section_bytes_max: usize,
) -> Result<Bytes, std::io::Error> {
    match compression {
        Compression::None => Ok(bytes),
        Compression::Lz4 => {
            let mut section = Vec::with_capacity(section_bytes_max);
            let more_than_allowed = section_bytes_max as u64 + 1;
            FrameDecoder::new(&bytes[..]).take(more_than_allowed).read_to_end(&mut section)?;
            if section.len() > section_bytes_max {
                return Err(std::io::Error::other(format!("more than {section_bytes_max} bytes when unpacked")));
            }
            Ok(section.into())
        }
        Compression::Zstd => zstd::bulk::decompress(&bytes, section_bytes_max).map(Bytes::from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_codec_gives_back_what_it_took_and_refuses_to_unpack_more_than_allowed() {
        let text: Vec<u8> = (0..300_000_u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
            let mut encoder = Encoder::new();
            encoder.section.extend_from_slice(&text);
            let packed = Bytes::copy_from_slice(encoder.compress(compression));
            assert_eq!(decompress(compression, packed.clone(), text.len()).unwrap(), text, "{compression:?}");
            if compression != Compression::None {
                assert!(packed.len() < text.len(), "{compression:?}");
                let refused = decompress(compression, packed, text.len() - 1);
                assert!(refused.is_err(), "{compression:?}");
            }
        }
    }
}
