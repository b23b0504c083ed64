//! From a document's bytes to text.
//!
//! | order | who says |
//! | --- | --- |
//! | 1 | a byte order mark, or UTF-16 and UTF-32 by the zero bytes of `<` or `{` (XML 1.0, appendix F) |
//! | 2 | the charset of the HTTP header |
//! | 3 | the XML declaration, also where text stands before it |
//! | 4 | UTF-8, if the bytes are |
//! | 5 | what the bytes look like (chardetng, Firefox's detector) |
//!
//! Where most of what is not ASCII is UTF-8, or some is and the rest looks like windows-1252, each byte is what it is: a
//! careless program has pasted one into the other.
//!
//! Windows-1252 and what browsers take for it (ISO 8859-1, ASCII) are what servers and programs say without looking: bytes
//! that are UTF-8 are UTF-8, for windows-1252 would never look so by chance.
//!
//! Who says wrong, so that a byte cannot be decoded, is passed over, as long as one is left who says right. A label
//! means what browsers take it for (<https://encoding.spec.whatwg.org>): `iso-8859-1` is windows-1252, `gb2312` GBK.

use std::borrow::Cow;

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{Encoding, GB18030, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};

use super::charset_rare;

/// Bytes at the start of a document where its declaration is looked for.
const DECLARATION_BYTES_MAX: usize = 1024;

/// Text, and how it was made of the bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Decoded<'a> {
    pub(super) text: Cow<'a, str>,
    /// The encoding's name: `UTF-8`, `windows-1252`, `UTF-32`.
    pub(super) charset: &'static str,
    /// Whether some bytes mean nothing in any encoding that was tried, and became U+FFFD.
    pub(super) is_lossy: bool,
}

/// Decodes a document. `http_charset` is the charset parameter of the `Content-Type` header, if it has one.
pub(super) fn decode<'a>(bytes: &'a [u8], http_charset: Option<&str>) -> Decoded<'a> {
    if let Some(is_big_endian) = is_utf_32(bytes) {
        return utf_32(bytes, is_big_endian);
    }
    let declared = declared(bytes);
    let from_mark = Encoding::for_bom(bytes).map(|(encoding, _)| encoding).or_else(|| utf_16(bytes));
    let labels = [http_charset, declared].into_iter().flatten();
    if from_mark.is_none()
        && let Some((text, charset)) = labels.clone().find_map(|label| charset_rare::decode(bytes, label))
    {
        return Decoded { text: Cow::Owned(text), charset, is_lossy: false };
    }
    let strict = |encoding: &'static Encoding| {
        let bytes = encoding_mark_removed(bytes, encoding);
        let text = encoding.decode_without_bom_handling_and_without_replacement(bytes)?;
        Some(Decoded { text, charset: encoding.name(), is_lossy: false })
    };
    let said = from_mark.into_iter().chain(labels.filter_map(named)).chain([UTF_8]);
    let is_utf_8 = std::str::from_utf8(bytes).is_ok();
    let mut meant = said.map(|encoding| if encoding == WINDOWS_1252 && is_utf_8 { UTF_8 } else { encoding });
    if let Some(decoded) = meant.find_map(strict) {
        return decoded;
    }
    let encoding = from_mark.unwrap_or_else(|| guess(bytes));
    let has_utf_8 = match encoding {
        known if known == UTF_8 => true,
        known if known == WINDOWS_1252 => utf_8_letters(bytes) > 0,
        _ => from_mark.is_none() && is_mostly_utf_8(bytes),
    };
    if has_utf_8 {
        return mixed(encoding_mark_removed(bytes, UTF_8));
    }
    let (text, is_lossy) = encoding.decode_without_bom_handling(encoding_mark_removed(bytes, encoding));
    Decoded { text, charset: encoding.name(), is_lossy }
}

/// Whether there is much more UTF-8 than bytes that are none.
fn is_mostly_utf_8(bytes: &[u8]) -> bool {
    let bad: usize = bytes.utf8_chunks().map(|chunk| chunk.invalid().len()).sum();
    utf_8_letters(bytes) > 3 * bad
}

/// Letters beyond ASCII that are UTF-8.
fn utf_8_letters(bytes: &[u8]) -> usize {
    bytes.utf8_chunks().map(|chunk| chunk.valid().chars().filter(|letter| !letter.is_ascii()).count()).sum()
}

/// UTF-8 with bytes of windows-1252 in between.
fn mixed(bytes: &[u8]) -> Decoded<'_> {
    let mut text = String::with_capacity(bytes.len());
    let mut is_lossy = false;
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        let (letters, _) = WINDOWS_1252.decode_without_bom_handling(chunk.invalid());
        // What the standard makes of the five bytes that mean nothing are control characters.
        let meant = letters.chars().map(|letter| match letter {
            '\u{80}'..='\u{9f}' => char::REPLACEMENT_CHARACTER,
            letter => letter,
        });
        let start = text.len();
        text.extend(meant);
        is_lossy |= text[start..].contains(char::REPLACEMENT_CHARACTER);
    }
    Decoded { text: Cow::Owned(text), charset: "UTF-8", is_lossy }
}

/// GBK that is no GBK may be GB18030, its superset.
fn named(label: &str) -> Option<&'static Encoding> {
    let encoding = Encoding::for_label_no_replacement(label.trim().as_bytes())?;
    Some(if encoding == encoding_rs::GBK { GB18030 } else { encoding })
}

fn encoding_mark_removed<'a>(bytes: &'a [u8], encoding: &'static Encoding) -> &'a [u8] {
    match Encoding::for_bom(bytes) {
        Some((marked, length)) if marked == encoding => &bytes[length..],
        _ => bytes,
    }
}

/// What bytes look like that are not what was said of them.
fn guess(bytes: &[u8]) -> &'static Encoding {
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Allow);
    detector.feed(bytes, true);
    detector.guess(None, Utf8Detection::Deny)
}

/// The encoding that an XML declaration states, if one starts among the first bytes.
fn declared(bytes: &[u8]) -> Option<&str> {
    let head = &bytes[..bytes.len().min(DECLARATION_BYTES_MAX)];
    let start = memchr::memmem::find(head, b"<?xml")?;
    let declaration = &head[start..];
    let declaration = &declaration[..memchr::memchr(b'>', declaration)?];
    let value = &declaration[memchr::memmem::find(declaration, b"encoding")? + "encoding".len()..];
    let value = value.trim_ascii_start().strip_prefix(b"=")?.trim_ascii_start();
    let (quote, value) = value.split_first()?;
    let end = memchr::memchr(*quote, value)?;
    std::str::from_utf8(&value[..end]).ok()
}

/// UTF-16 without a mark, by the zero bytes of its first two characters.
fn utf_16(bytes: &[u8]) -> Option<&'static Encoding> {
    match bytes.get(..4)? {
        [0, first, 0, second] if *first != 0 && *second != 0 => Some(UTF_16BE),
        [first, 0, second, 0] if *first != 0 && *second != 0 => Some(UTF_16LE),
        _ => None,
    }
}

/// Whether it is UTF-32, and if so whether the high bytes come first: by its mark or its first character.
fn is_utf_32(bytes: &[u8]) -> Option<bool> {
    match bytes.get(..4)? {
        [0, 0, 0xfe, 0xff] | [0, 0, 0, b'<' | b'{'] => Some(true),
        [0xff, 0xfe, 0, 0] | [b'<' | b'{', 0, 0, 0] => Some(false),
        _ => None,
    }
}

fn utf_32(bytes: &[u8], is_big_endian: bool) -> Decoded<'_> {
    let unit = |unit: &[u8; 4]| if is_big_endian { u32::from_be_bytes(*unit) } else { u32::from_le_bytes(*unit) };
    let (units, rest) = bytes.as_chunks::<4>();
    let letters = units.iter().map(|bytes| char::from_u32(unit(bytes)).unwrap_or(char::REPLACEMENT_CHARACTER));
    let text: String = letters.skip_while(|letter| *letter == '\u{feff}').collect();
    let is_lossy = !rest.is_empty() || text.contains(char::REPLACEMENT_CHARACTER);
    Decoded { text: Cow::Owned(text), charset: "UTF-32", is_lossy }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(bytes: &[u8], http: Option<&str>) -> (String, &'static str, bool) {
        let decoded = decode(bytes, http);
        (decoded.text.into_owned(), decoded.charset, decoded.is_lossy)
    }

    fn utf_16_bytes(text: &str) -> Vec<u8> {
        text.encode_utf16().flat_map(u16::to_le_bytes).collect()
    }

    #[test]
    fn marks_and_zero_bytes_come_first() {
        let text = "<?xml version='1.0' encoding='utf-16'?><a>é</a>";
        assert_eq!(found(&utf_16_bytes(text), None), (text.to_owned(), "UTF-16LE", false));
        let marked = utf_16_bytes(&format!("\u{feff}{text}"));
        assert_eq!(found(&marked, Some("utf-8")), (text.to_owned(), "UTF-16LE", false));
        let wide: Vec<u8> = text.chars().flat_map(|letter| u32::from(letter).to_be_bytes()).collect();
        assert_eq!(found(&wide, None), (text.to_owned(), "UTF-32", false));
        assert_eq!(found("\u{feff}<a>é".as_bytes(), None), ("<a>é".to_owned(), "UTF-8", false));
    }

    #[test]
    fn a_declaration_counts_also_after_text_and_the_header_before_it() {
        let koi8 = [&b"\n <?xml version=\"1.0\" encoding = \"KOI8-R\"?><a>"[..], &[0xcd, 0xc9, 0xd2]].concat();
        assert!(found(&koi8, None).0.ends_with("мир"));
        assert_eq!(found(b"<?xml encoding='utf-8'?>\xe9", Some("iso-8859-1")).1, "windows-1252");
        assert!(found(b"<?xml encoding='gb2312'?>\x81\x30\x84\x36", None).0.ends_with("¥"), "GB18030");
    }

    #[test]
    fn who_says_utf_8_and_is_not_is_guessed() {
        let (text, charset, _) = found(b"<?xml encoding='utf-8'?>caf\xe9 \x93quoted\x94 na\xefve", None);
        assert!(text.ends_with("café “quoted” naïve"), "{text}");
        assert_eq!(charset, "windows-1252");
    }

    #[test]
    fn utf_8_is_utf_8_whatever_it_is_declared_and_keeps_its_letters_beside_others() {
        for label in ["iso-8859-1", "us-ascii", "windows-1252"] {
            let text = format!("<?xml version='1.0' encoding='{label}'?><a>It’s “x” café");
            assert_eq!(found(text.as_bytes(), None), (text.clone(), "UTF-8", false));
            assert_eq!(found("naïve €".as_bytes(), Some(label)), ("naïve €".to_owned(), "UTF-8", false));
        }
        assert_eq!(found(b"caf\xe9", Some("us-ascii")).0, "café");
        let mostly = [&"é".repeat(50).into_bytes()[..], b" \x93x\x94 \xe9t\xe9"].concat();
        assert_eq!(found(&mostly, None), (format!("{} “x” été", "é".repeat(50)), "UTF-8", false));
        let few = [&b"\x93caf\xe9\x94 \x96 and "[..], "Gözübüyük".as_bytes()].concat();
        assert_eq!(found(&few, None).0, "“café” – and Gözübüyük");
        let mostly = [&"é".repeat(50).into_bytes()[..], &[0x81]].concat();
        assert_eq!(found(&mostly, None), (format!("{}\u{fffd}", "é".repeat(50)), "UTF-8", true));
        assert_eq!(found(b"<?xml version='1.0' encoding='cp437'?>\x82", None).1, "IBM437");
    }

    #[test]
    fn any_start_is_taken() {
        for bytes in [&b""[..], b"\0", b"<", b"\xff\xfe", b"\0\0\0<", b"<\0\0\0\0"] {
            assert!(decode(bytes, Some("no-such")).text.len() <= 3 * bytes.len(), "{bytes:?}");
        }
    }
}
