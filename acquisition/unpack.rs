//! Reads a file, packed by gzip (all members), zstd and lz4 (all frames), xz (all streams) or not at all.
//! Damage does not end in an error: what lies before it is read, and [`Unpacked::damage`] says what was found.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::BytesMut;
use encoding_rs::{CoderResult, Decoder};
use flate2::{Crc, Decompress, FlushDecompress, Status};
use liblzma::bufread::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream};
use lz4_flex::frame::FrameDecoder;

/// Bytes that one [`Unpacked::read`] adds at the most.
pub(crate) const READ_BYTES_MAX: usize = 256 << 10;

/// Bytes of the file that its form is told from.
const HEAD_BYTES: usize = 64 << 10;

/// Window of a zstd frame, as a power of two: what `zstd` itself takes without `--long`, and the bound of its memory.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// A gzip header without options, which stands in for a damaged one. Source: RFC 1952, section 2.3.
const PLAIN_GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

type Input = BufReader<Box<dyn Read + Send>>;

/// Bytes that unpacking xz may take: `xz -9` needs 65 MiB.
const XZ_MEMORY_BYTES_MAX: u64 = 128 << 20;

const XZ_MAGIC: &[u8] = &[0xfd, b'7', b'z', b'X', b'Z', 0];
const LZ4_MAGIC: &[u8] = &[0x04, 0x22, 0x4d, 0x18];

/// What the unpacked bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// JSON in UTF-8 or UTF-16, told by its byte order mark or first bytes: handed on as UTF-8. A damaged gzip header is
    /// repaired where JSON comes out.
    Text,
    /// Anything: handed on as it is.
    Bytes,
}

/// A file that is being read. See the module.
pub(crate) struct Unpacked {
    codec: Codec,
    text: TextForm,
    damage: Option<String>,
    remark: Option<String>,
    ended: bool,
}

enum Codec {
    Plain(Input),
    Gzip(Gzip),
    Zstd(zstd::Decoder<'static, Input>),
    Xz(XzDecoder<Input>),
    Lz4(FrameDecoder<Input>),
}

enum TextForm {
    /// Not yet told: the first bytes of the content.
    Unknown,
    AsItIs,
    Utf16(Box<Utf16>),
}

struct Utf16 {
    decoder: Decoder,
    raw: BytesMut,
    had_errors: bool,
}

/// Counts what is read from the file itself, for progress.
struct Counted {
    file: File,
    bytes_read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(out)?;
        self.bytes_read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

impl Unpacked {
    /// Opens a file; `bytes_read` goes up with what is read of it, compressed.
    pub(crate) fn open(path: &Path, form: Form, bytes_read: Arc<AtomicU64>) -> io::Result<Self> {
        let is_named_gzip = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gz"));
        Self::from_reader(Counted { file: File::open(path)?, bytes_read }, form, is_named_gzip)
    }

    /// Reads from anything.
    pub(crate) fn from_reader(
        mut source: impl Read + Send + 'static,
        form: Form,
        is_named_gzip: bool,
    ) -> io::Result<Self> {
        let mut head = Vec::with_capacity(HEAD_BYTES);
        source.by_ref().take(HEAD_BYTES as u64).read_to_end(&mut head)?;
        let mut remark = None;
        let is_gzip = head.starts_with(GZIP_MAGIC);
        let is_skippable_zstd = matches!(head.get(..4), Some([0x50..=0x5f, 0x2a, 0x4d, 0x18]));
        let is_zstd = head.starts_with(ZSTD_MAGIC) || is_skippable_zstd;
        let is_xz = head.starts_with(XZ_MAGIC);
        let is_lz4 = head.starts_with(LZ4_MAGIC);
        let mut repaired = false;
        let may_be_damaged = form == Form::Text && is_named_gzip && !is_gzip && !is_zstd && !looks_like_json(&head);
        if may_be_damaged && let Some(good) = repair_gzip_header(&head) {
            head = good;
            repaired = true;
            remark = Some("the gzip header is damaged; read as if it were whole".to_owned());
        }
        let whole: Box<dyn Read + Send> = Box::new(Cursor::new(head).chain(source));
        let input = BufReader::with_capacity(HEAD_BYTES, whole);
        let codec = if is_gzip || repaired {
            Codec::Gzip(Gzip::new(input))
        } else if is_zstd {
            let mut decoder = zstd::Decoder::with_buffer(input)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Codec::Zstd(decoder)
        } else if is_xz {
            let stream = Stream::new_stream_decoder(XZ_MEMORY_BYTES_MAX, CONCATENATED)?;
            Codec::Xz(XzDecoder::new_stream(input, stream))
        } else if is_lz4 {
            Codec::Lz4(FrameDecoder::new(input))
        } else {
            Codec::Plain(input)
        };
        let text = match form {
            Form::Text => TextForm::Unknown,
            Form::Bytes => TextForm::AsItIs,
        };
        Ok(Self { codec, text, damage: None, remark, ended: false })
    }

    /// Appends the next bytes; false at the end.
    ///
    /// # Errors
    /// When the file itself cannot be read. Damaged content is no error.
    pub(crate) fn read(&mut self, out: &mut BytesMut) -> io::Result<bool> {
        if self.ended {
            return Ok(false);
        }
        let before = out.len();
        // An empty read is no end: a byte order mark, or half of a character.
        while out.len() == before && !self.ended {
            match &mut self.text {
                TextForm::Unknown => self.read_first(out)?,
                TextForm::AsItIs => self.ended = !read_codec(&mut self.codec, out, &mut self.damage)?,
                TextForm::Utf16(form) => {
                    self.ended = !read_codec(&mut self.codec, &mut form.raw, &mut self.damage)?;
                    form.decode(out, self.ended);
                }
            }
        }
        if let TextForm::Utf16(form) = &self.text
            && form.had_errors
            && self.remark.is_none()
        {
            self.remark = Some("some of it is not UTF-16; U+FFFD stands in its place".to_owned());
        }
        Ok(out.len() > before)
    }

    /// What made the reading stop before the end, once it did.
    pub(crate) fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }

    /// What is odd about the file but cost nothing.
    pub(crate) fn remark(&self) -> Option<&str> {
        self.remark.as_deref()
    }

    /// Tells the form of the text from its first bytes.
    fn read_first(&mut self, out: &mut BytesMut) -> io::Result<()> {
        let mut first = BytesMut::new();
        while first.len() < 4 && !self.ended {
            self.ended = !read_codec(&mut self.codec, &mut first, &mut self.damage)?;
        }
        let utf16 = |encoding: &'static encoding_rs::Encoding| {
            let decoder = encoding.new_decoder_with_bom_removal();
            TextForm::Utf16(Box::new(Utf16 { decoder, raw: BytesMut::new(), had_errors: false }))
        };
        self.text = match first[..] {
            [0xff, 0xfe, ..] | [b'{' | b'[', 0, ..] => utf16(encoding_rs::UTF_16LE),
            [0xfe, 0xff, ..] | [0, b'{' | b'[', ..] => utf16(encoding_rs::UTF_16BE),
            _ => TextForm::AsItIs,
        };
        match &mut self.text {
            TextForm::Utf16(form) => {
                form.raw = first;
                form.decode(out, self.ended);
            }
            _ => out.extend_from_slice(first.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&first)),
        }
        Ok(())
    }
}

impl Utf16 {
    fn decode(&mut self, out: &mut BytesMut, is_last: bool) {
        loop {
            let from = out.len();
            out.resize(from + READ_BYTES_MAX, 0);
            let (result, read, written, had_errors) = self.decoder.decode_to_utf8(&self.raw, &mut out[from..], is_last);
            out.truncate(from + written);
            self.had_errors |= had_errors;
            bytes::Buf::advance(&mut self.raw, read);
            if result == CoderResult::InputEmpty {
                return;
            }
        }
    }
}

/// A header that is right, where the rest inflates into what looks like JSON.
fn repair_gzip_header(head: &[u8]) -> Option<Vec<u8>> {
    let with_header = |header: &[u8]| [header, head.get(header.len()..).unwrap_or_default()].concat();
    let candidates = [with_header(&PLAIN_GZIP_HEADER[..3]), with_header(&PLAIN_GZIP_HEADER)];
    candidates.into_iter().find(|candidate| {
        let mut gzip = Gzip::new(BufReader::new(Box::new(Cursor::new(candidate.clone()))));
        let (mut text, mut damage) = (BytesMut::new(), None);
        let is_read = gzip.read(&mut text, &mut damage).is_ok_and(|more| more);
        is_read && looks_like_json(&text)
    })
}

fn looks_like_json(bytes: &[u8]) -> bool {
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let starts_utf16 = bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]);
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    starts_utf16 || matches!(first, Some(b'{' | b'['))
}

fn read_codec(codec: &mut Codec, out: &mut BytesMut, damage: &mut Option<String>) -> io::Result<bool> {
    match codec {
        Codec::Plain(input) => read_some(input, out).map(|count| count > 0),
        Codec::Gzip(gzip) => gzip.read(out, damage),
        Codec::Zstd(decoder) => read_stream("zstd", decoder, out, damage),
        Codec::Xz(decoder) => read_stream("xz", decoder, out, damage),
        // It stops between two frames once, and goes on if there is another.
        Codec::Lz4(decoder) => Ok(read_stream("lz4", decoder, out, damage)?
            || (damage.is_none() && read_stream("lz4", decoder, out, damage)?)),
    }
}

fn read_stream(
    name: &str,
    decoder: &mut impl Read,
    out: &mut BytesMut,
    damage: &mut Option<String>,
) -> io::Result<bool> {
    match read_some(decoder, out) {
        Ok(count) => Ok(count > 0),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            *damage = Some(format!("the {name} stream ends early"));
            Ok(false)
        }
        // What the operating system reports has a number; the rest is the content's fault.
        Err(error) if error.raw_os_error().is_none() => {
            *damage = Some(format!("the {name} stream is damaged ({error})"));
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn read_some(input: &mut impl Read, out: &mut BytesMut) -> io::Result<usize> {
    let from = out.len();
    out.resize(from + READ_BYTES_MAX, 0);
    let count = loop {
        match input.read(&mut out[from..]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => break other,
        }
    };
    out.truncate(from + count.as_ref().copied().unwrap_or(0));
    count
}

/// A gzip reader that hands out every byte before a damage, which `flate2`'s own readers do not.
struct Gzip {
    input: Input,
    inflate: Decompress,
    crc: Crc,
    in_member: bool,
    members: u64,
    ended: bool,
}

impl Gzip {
    fn new(input: Input) -> Self {
        Self { input, inflate: Decompress::new(false), crc: Crc::new(), in_member: false, members: 0, ended: false }
    }

    fn read(&mut self, out: &mut BytesMut, damage: &mut Option<String>) -> io::Result<bool> {
        while !self.ended {
            if !self.in_member && !self.begin_member(damage)? {
                break;
            }
            if self.inflate_some(out, damage)? {
                return Ok(true);
            }
        }
        self.ended = true;
        Ok(false)
    }

    /// Reads a member's header; false where no further member is.
    fn begin_member(&mut self, damage: &mut Option<String>) -> io::Result<bool> {
        loop {
            let input = self.input.fill_buf()?;
            if input.is_empty() {
                return Ok(false);
            }
            // Tapes pad with zeros, and `gzip` ignores them too.
            let padding = input.iter().take_while(|&&byte| byte == 0 && self.members > 0).count();
            if padding == 0 {
                break;
            }
            self.input.consume(padding);
        }
        match read_header(&mut self.input) {
            Ok(true) => {
                self.inflate.reset(false);
                self.crc.reset();
                self.in_member = true;
                self.members += 1;
                Ok(true)
            }
            Ok(false) => {
                let found = format!("bytes after gzip member {} are no gzip and were left out", self.members);
                damage.get_or_insert(found);
                Ok(false)
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                damage.get_or_insert("the gzip stream ends early".to_owned());
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Appends what the next input gives; false if that is nothing.
    fn inflate_some(&mut self, out: &mut BytesMut, damage: &mut Option<String>) -> io::Result<bool> {
        let from = out.len();
        out.resize(from + READ_BYTES_MAX, 0);
        let mut written = 0;
        let outcome = loop {
            let input = self.input.fill_buf()?;
            if input.is_empty() {
                break Some("the gzip stream ends early".to_owned());
            }
            let (total_in, total_out) = (self.inflate.total_in(), self.inflate.total_out());
            let result = self.inflate.decompress(input, &mut out[from + written..], FlushDecompress::None);
            written += (self.inflate.total_out() - total_out) as usize;
            self.input.consume((self.inflate.total_in() - total_in) as usize);
            match result {
                Err(_) => break Some("the gzip stream is damaged".to_owned()),
                Ok(Status::StreamEnd) => {
                    self.in_member = false;
                    break None;
                }
                Ok(_) if from + written == out.len() => break None,
                Ok(_) => {}
            }
        };
        out.truncate(from + written);
        self.crc.update(&out[from..]);
        match outcome {
            Some(found) => {
                damage.get_or_insert(found);
                self.ended = true;
            }
            None if !self.in_member => self.check_trailer(damage)?,
            None => {}
        }
        Ok(written > 0)
    }

    /// Compares the member with its checksum; where that fails, a further member is still read.
    fn check_trailer(&mut self, damage: &mut Option<String>) -> io::Result<()> {
        let mut trailer = [0; 8];
        match self.input.read_exact(&mut trailer) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                damage.get_or_insert("the gzip stream ends early, in its checksum".to_owned());
                self.ended = true;
                return Ok(());
            }
            other => other?,
        }
        let [a, b, c, d, e, f, g, h] = trailer;
        let is_whole =
            u32::from_le_bytes([a, b, c, d]) == self.crc.sum() && u32::from_le_bytes([e, f, g, h]) == self.crc.amount();
        if is_whole {
            return Ok(());
        }
        let next = self.input.fill_buf()?.first();
        if next.is_none_or(|&byte| byte == GZIP_MAGIC[0]) {
            damage.get_or_insert("the gzip checksum does not fit: some of it may be wrong".to_owned());
        } else {
            // A damaged stream may look as if it ended here.
            damage.get_or_insert("the gzip stream is damaged".to_owned());
            self.ended = true;
        }
        Ok(())
    }
}

/// Reads the header of a gzip member; false if there is none. Source: RFC 1952, section 2.3.
fn read_header(input: &mut Input) -> io::Result<bool> {
    let mut fixed = [0; 10];
    let magic_is_right = input.fill_buf()?.first() == Some(&GZIP_MAGIC[0]);
    if !magic_is_right {
        return Ok(false);
    }
    input.read_exact(&mut fixed)?;
    if !fixed.starts_with(GZIP_MAGIC) || fixed[2] != 8 {
        return Ok(false);
    }
    let flags = fixed[3];
    if flags & 0b100 != 0 {
        let mut length = [0; 2];
        input.read_exact(&mut length)?;
        input.read_exact(&mut vec![0; usize::from(u16::from_le_bytes(length))])?;
    }
    for flag in [0b1000, 0b1_0000] {
        if flags & flag != 0 {
            while pass_byte(input)? != 0 {}
        }
    }
    if flags & 0b10 != 0 {
        input.read_exact(&mut [0; 2])?;
    }
    Ok(true)
}

fn pass_byte(input: &mut Input) -> io::Result<u8> {
    let mut byte = [0];
    input.read_exact(&mut byte)?;
    Ok(byte[0])
}
