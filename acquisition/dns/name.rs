//! Domain names: from the wire to text.
//!
//! A name is written as its labels with `.` between them, no dot at the end, and `.` for the root. In a label `\.` and
//! `\\` stand for a dot and a backslash and `\DDD` for a control character or a byte that is not UTF-8 (RFC 4343,
//! section 2.1); spaces and UTF-8, which names of mDNS are made of (RFC 6763, section 4.3), stand as they are.
//! [`Form::Exact`] can be read back into the very bytes; [`Form::Lower`] is for reading, grouping and searching.

/// Bytes of a name on the wire: RFC 1035, section 3.1.
const NAME_BYTES_MAX: usize = 255;

/// Pointers of one name: as many as the labels that fit into it.
const POINTERS_MAX: usize = 128;

/// How a name is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// As it was sent.
    Exact,
    /// ASCII letters in lower case, control characters as in C, and U+FFFD for bytes that are not UTF-8.
    Lower,
}

/// What is wrong with a message; reads after the place: "answer 2: a name points forward".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Malformed {
    /// Something ends after the end of the message.
    Cut,
    /// More bytes than [`NAME_BYTES_MAX`].
    LongName,
    /// A compression pointer that does not point to before the name it ends; so there are no loops.
    ForwardPointer,
    /// More than [`POINTERS_MAX`] compression pointers in a name.
    ManyPointers,
    /// A label that is neither text nor a pointer: RFC 6891, section 5 took the others back.
    LabelType,
    /// Data that is not what the type of its record asks for.
    Data,
    /// Data that is none of an EDNS option's.
    Option,
    /// Written out it would fill the memory.
    TooLarge,
}

impl Malformed {
    /// The words for a reader.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Cut => "the message ends early",
            Self::LongName => "a name has more than 255 bytes",
            Self::ForwardPointer => "a name points forward or to itself",
            Self::ManyPointers => "a name has more than 128 pointers",
            Self::LabelType => "a label is neither text nor a pointer",
            Self::Data => "the data does not fit the type",
            Self::Option => "an EDNS option does not fit its type",
            Self::TooLarge => "the names and data are too large when written out",
        }
    }
}

/// Appends the name that starts at `start`, and answers where what follows it starts. After an error `out` holds a
/// part of it.
pub(super) fn write_name(message: &[u8], start: usize, form: Form, out: &mut Vec<u8>) -> Result<usize, Malformed> {
    let (mut at, mut end, mut segment) = (start, None, start);
    let (mut length, mut pointers, first) = (0, 0, out.len());
    loop {
        let head = *message.get(at).ok_or(Malformed::Cut)?;
        match head {
            0 => {
                if out.len() == first {
                    out.push(b'.');
                }
                if form == Form::Lower {
                    out[first..].make_ascii_lowercase();
                }
                return Ok(end.unwrap_or(at + 1));
            }
            1..=63 => {
                let label = message.get(at + 1..at + 1 + usize::from(head)).ok_or(Malformed::Cut)?;
                length += 1 + label.len();
                if length >= NAME_BYTES_MAX {
                    return Err(Malformed::LongName);
                }
                if out.len() > first {
                    out.push(b'.');
                }
                write_label(label, form, out);
                at += 1 + label.len();
            }
            0xc0.. => {
                let low = *message.get(at + 1).ok_or(Malformed::Cut)?;
                let target = usize::from(head & 0x3f) << 8 | usize::from(low);
                if target >= segment {
                    return Err(Malformed::ForwardPointer);
                }
                pointers += 1;
                if pointers > POINTERS_MAX {
                    return Err(Malformed::ManyPointers);
                }
                end.get_or_insert(at + 2);
                (at, segment) = (target, target);
            }
            64.. => return Err(Malformed::LabelType),
        }
    }
}

/// Where what follows the name at `start` starts; pointers are not followed.
pub(super) fn skip_name(message: &[u8], start: usize) -> Result<usize, Malformed> {
    let mut at = start;
    loop {
        match *message.get(at).ok_or(Malformed::Cut)? {
            0 => return Ok(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            0xc0.. => return Ok(at + 2),
            64.. => return Err(Malformed::LabelType),
        }
    }
}

/// Whether the name at `start` is compressed.
pub(super) fn is_compressed(message: &[u8], start: usize) -> bool {
    let mut at = start;
    while let Some(&length @ 1..=63) = message.get(at) {
        at += 1 + usize::from(length);
    }
    message.get(at).is_some_and(|&head| head >= 0xc0)
}

fn write_label(label: &[u8], form: Form, out: &mut Vec<u8>) {
    if label.iter().all(|&byte| is_plain(byte)) {
        return out.extend_from_slice(label);
    }
    for chunk in label.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '.' | '\\' => out.extend_from_slice(&[b'\\', letter as u8]),
                _ if letter.is_control() => {
                    let escape = if form == Form::Exact { push_decimal_escape } else { push_c_escape };
                    letter.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| escape(byte, out));
                }
                _ => out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        match (form, chunk.invalid()) {
            (_, []) => {}
            (Form::Exact, invalid) => invalid.iter().for_each(|&byte| push_decimal_escape(byte, out)),
            (Form::Lower, _) => out.extend_from_slice("\u{fffd}".as_bytes()),
        }
    }
}

fn is_plain(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~') && byte != b'.' && byte != b'\\'
}

/// `\DDD`.
pub(super) fn push_decimal_escape(byte: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(&[b'\\', b'0' + byte / 100, b'0' + byte / 10 % 10, b'0' + byte % 10]);
}

/// As C and the tools around captures have it: `\n`, and `\ooo` with octal digits.
fn push_c_escape(byte: u8, out: &mut Vec<u8>) {
    let letter = match byte {
        7..=13 => b"abtnvfr"[usize::from(byte - 7)],
        _ => return out.extend_from_slice(&[b'\\', b'0' + (byte >> 6), b'0' + (byte >> 3 & 7), b'0' + (byte & 7)]),
    };
    out.extend_from_slice(&[b'\\', letter]);
}

/// How many labels a written name has; none of the root's.
pub(super) fn labels(name: &str) -> impl DoubleEndedIterator<Item = &str> {
    let name = if name == "." { "" } else { name };
    Labels(Some(name).filter(|name| !name.is_empty()))
}

/// Splits at dots that no backslash stands before.
struct Labels<'a>(Option<&'a str>);

impl<'a> Iterator for Labels<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let name = self.0?;
        let dot = name.bytes().enumerate().position(|(at, byte)| byte == b'.' && !is_escaped(name, at));
        self.0 = dot.map(|dot| &name[dot + 1..]);
        Some(dot.map_or(name, |dot| &name[..dot]))
    }
}

impl DoubleEndedIterator for Labels<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        let name = self.0?;
        let dot = (0..name.len()).rev().find(|&at| name.as_bytes()[at] == b'.' && !is_escaped(name, at));
        self.0 = dot.map(|dot| &name[..dot]);
        Some(dot.map_or(name, |dot| &name[dot + 1..]))
    }
}

/// Whether an odd number of backslashes stands before.
fn is_escaped(name: &str, at: usize) -> bool {
    name.as_bytes()[..at].iter().rev().take_while(|&&byte| byte == b'\\').count() % 2 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(message: &[u8], start: usize) -> Result<(String, usize), Malformed> {
        let mut out = Vec::new();
        let end = write_name(message, start, Form::Exact, &mut out)?;
        Ok((String::from_utf8(out).unwrap(), end))
    }

    #[test]
    fn names_are_written_with_escapes_and_pointers_followed_back() {
        assert_eq!(name(b"\0", 0), Ok((".".to_owned(), 1)));
        assert_eq!(name(b"\x03www\x02eX\0\x01a\xc0\x04", 0), Ok(("www.eX".to_owned(), 8)));
        assert_eq!(name(b"\x03www\x02eX\0\x01a\xc0\x04", 8), Ok(("a.eX".to_owned(), 12)));
        assert_eq!(
            name(b"\x05a.\\ \x01\x03\xffe\xcc\x02\xc3\xa9\0", 0),
            Ok((r"a\.\\ \001.\255e\204.é".to_owned(), 14))
        );
    }

    #[test]
    fn for_reading_a_name_is_lower_case_and_text() {
        let mut out = Vec::new();
        write_name(b"\x06A.\xff\xe1B\n\x03\xc3\x89\x10\0", 0, Form::Lower, &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "a\\.\u{fffd}\u{fffd}b\\n.É\\020");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        assert_eq!(name(b"\x03ab", 0), Err(Malformed::Cut));
        assert_eq!(name(b"\x01a", 0), Err(Malformed::Cut));
        assert_eq!(name(b"\xc0", 0), Err(Malformed::Cut));
        assert_eq!(name(b"\xc0\x00", 0), Err(Malformed::ForwardPointer), "to itself");
        assert_eq!(name(b"\x01a\xc0\x00", 0), Err(Malformed::ForwardPointer), "a loop");
        assert_eq!(name(b"\xc0\x02\x00", 0), Err(Malformed::ForwardPointer));
        assert_eq!(name(b"\x41a\x00", 0), Err(Malformed::LabelType));
        let pointer = |at: u16| (0xc000 | (2 * at).saturating_sub(1)).to_be_bytes();
        let chain = |count| [vec![0], (0..count).flat_map(pointer).collect()].concat();
        assert!(name(&chain(128), 255).is_ok());
        assert_eq!(name(&chain(129), 257), Err(Malformed::ManyPointers));
        assert_eq!(name(&[&[63; 64][..], &[63; 64], &[63; 64], &[63; 64], &[0]].concat(), 0), Err(Malformed::LongName));
        let longest = [&[63; 64][..], &[63; 64], &[63; 64], &[61; 62], &[0]].concat();
        assert_eq!(longest.len(), NAME_BYTES_MAX);
        assert!(name(&longest, 0).is_ok());
    }

    #[test]
    fn labels_are_told_apart_from_dots_in_them() {
        let split = |name| labels(name).collect::<Vec<_>>();
        assert_eq!(split("."), Vec::<&str>::new());
        assert_eq!(split(r"a\.b.c\\.d"), [r"a\.b", r"c\\", "d"]);
        let mut back = labels(r"a\.b.c\\.d").rev().collect::<Vec<_>>();
        back.reverse();
        assert_eq!(back, split(r"a\.b.c\\.d"));
    }
}
