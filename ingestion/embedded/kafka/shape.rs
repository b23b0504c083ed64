//! Walks through a request by its shape before it is decoded.
//!
//! The decoder reserves memory for as many elements as a request declares. So nothing is decoded whose lengths were
//! not followed to their very end, and whose elements were not counted.

/// Elements of all lists of one request, and its tagged fields. A consumer of every partition that a log can have names
/// a few thousand; decoded, an element takes about 200 bytes, so a request takes 4 MB at the most.
const ELEMENTS_MAX: usize = 20_000;

/// A field of a request, as far as its length goes.
#[derive(Debug)]
pub(crate) enum Field {
    /// So many bytes; neighbours of fixed size may stand as one.
    Fixed(usize),
    /// A text or null.
    Text,
    /// Bytes or null.
    Blob,
    /// A list of single values.
    Each(&'static Field),
    /// A list of structs.
    List(&'static [Item]),
}

/// A field with the versions that have it.
#[derive(Debug)]
pub(crate) struct Item {
    first: i16,
    last: i16,
    field: Field,
}

pub(crate) const fn always(field: Field) -> Item {
    between(0, i16::MAX, field)
}

pub(crate) const fn since(first: i16, field: Field) -> Item {
    between(first, i16::MAX, field)
}

pub(crate) const fn between(first: i16, last: i16, field: Field) -> Item {
    Item { first, last, field }
}

/// Answers whether `bytes` begin with a struct of this shape. What follows is not looked at, as in Kafka: librdkafka 2.16
/// sends three bytes too many when it asks for the metadata of all topics.
pub(crate) fn fits(bytes: &[u8], shape: &[Item], version: i16, is_flexible: bool) -> bool {
    let mut walk = Walk { left: bytes, version, is_flexible, elements_left: ELEMENTS_MAX };
    walk.items(shape).is_some()
}

/// Skips tagged fields; answers what follows them.
pub(crate) fn skip_tagged(bytes: &[u8]) -> Option<&[u8]> {
    let mut walk = Walk { left: bytes, version: 0, is_flexible: true, elements_left: ELEMENTS_MAX };
    walk.tagged()?;
    Some(walk.left)
}

struct Walk<'a> {
    left: &'a [u8],
    version: i16,
    is_flexible: bool,
    elements_left: usize,
}

impl Walk<'_> {
    /// The shapes are ours and nest four deep at the most, so this recursion has an end.
    fn items(&mut self, items: &[Item]) -> Option<()> {
        let version = self.version;
        for item in items.iter().filter(|item| (item.first..=item.last).contains(&version)) {
            self.field(&item.field)?;
        }
        if self.is_flexible { self.tagged() } else { Some(()) }
    }

    fn field(&mut self, field: &Field) -> Option<()> {
        match field {
            Field::Fixed(bytes) => self.skip(*bytes),
            Field::Text => {
                let length = if self.is_flexible { self.compact()? } else { length_or_null(self.i16()?.into())? };
                self.skip(length)
            }
            Field::Blob => {
                let length = self.count()?;
                self.skip(length)
            }
            Field::Each(field) => {
                for _ in 0..self.elements()? {
                    self.field(field)?;
                }
                Some(())
            }
            Field::List(items) => {
                for _ in 0..self.elements()? {
                    self.items(items)?;
                }
                Some(())
            }
        }
    }

    fn tagged(&mut self) -> Option<()> {
        let count = self.varint()? as usize;
        self.take_elements(count)?;
        for _ in 0..count {
            self.varint()?;
            let length = self.varint()? as usize;
            self.skip(length)?;
        }
        Some(())
    }

    fn elements(&mut self) -> Option<usize> {
        let count = self.count()?;
        self.take_elements(count)?;
        Some(count)
    }

    fn take_elements(&mut self, count: usize) -> Option<()> {
        self.elements_left = self.elements_left.checked_sub(count)?;
        Some(())
    }

    fn count(&mut self) -> Option<usize> {
        if self.is_flexible { self.compact() } else { length_or_null(self.i32()?) }
    }

    /// A length plus one; null is 0.
    fn compact(&mut self) -> Option<usize> {
        Some((self.varint()? as usize).saturating_sub(1))
    }

    fn i16(&mut self) -> Option<i16> {
        let (bytes, left) = self.left.split_first_chunk()?;
        self.left = left;
        Some(i16::from_be_bytes(*bytes))
    }

    fn i32(&mut self) -> Option<i32> {
        let (bytes, left) = self.left.split_first_chunk()?;
        self.left = left;
        Some(i32::from_be_bytes(*bytes))
    }

    /// Seven bits a byte, lowest first, five bytes at the most.
    fn varint(&mut self) -> Option<u32> {
        let mut value = 0_u64;
        for place in 0..5 {
            let (&byte, left) = self.left.split_first()?;
            self.left = left;
            value |= u64::from(byte & 0x7f) << (7 * place);
            if byte < 0x80 {
                return u32::try_from(value).ok();
            }
        }
        None
    }

    fn skip(&mut self, bytes: usize) -> Option<()> {
        self.left = self.left.get(bytes..)?;
        Some(())
    }
}

/// Null, which is -1, is as long as nothing.
fn length_or_null(length: i32) -> Option<usize> {
    if length == -1 { Some(0) } else { usize::try_from(length).ok() }
}
