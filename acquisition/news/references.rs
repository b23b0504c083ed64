//! Character references: `&amp;`, `&#8217;`, `&#x2019;`, HTML's names, and the entities that a feed declares itself.

use std::borrow::Cow;
use std::cell::Cell;

use web_atoms::NAMED_ENTITIES;

/// Entities of a document's own; more than this are left alone.
const ENTITIES_MAX: usize = 64;

/// Bytes of what one stands for: names of people and sites, a copyright line. A longer one is not taken.
const VALUE_BYTES_MAX: usize = 256;

/// Bytes that entities of its own may add to a document; beyond it they stay as written. Without this limit 120 kB of
/// `&a;` would become gigabytes.
const EXPANSION_BYTES_MAX: usize = 1 << 20;

/// Bytes of a name between `&` and `;`; HTML's longest has 31.
const NAME_BYTES_MAX: usize = 40;

/// What `<!ENTITY name "value">` declares in a document type: text, with no references but those by number.
/// Anything else, above all an external entity or one made of others, is not taken.
#[derive(Clone, Debug, Default)]
pub(super) struct Entities {
    declared: Vec<(String, String)>,
    /// Bytes that were put in for them.
    expanded: Cell<usize>,
}

impl Entities {
    /// Reads the declarations of a document type.
    pub(super) fn read(doctype: &str) -> Self {
        let declared = doctype.split("<!ENTITY").skip(1).filter_map(|declaration| {
            let (name, rest) = declaration.trim_start().split_once(char::is_whitespace)?;
            let rest = rest.trim_start();
            let quote = rest.chars().next().filter(|letter| matches!(letter, '"' | '\''))?;
            let (value, _) = rest[1..].split_once(quote)?;
            let is_safe = value.len() <= VALUE_BYTES_MAX
                && !value.contains('%')
                && value.split('&').skip(1).all(|rest| rest.starts_with('#'));
            is_safe.then(|| (name.to_owned(), decode(value, &Self::default()).into_owned()))
        });
        Self { declared: declared.take(ENTITIES_MAX).collect(), expanded: Cell::default() }
    }

    /// What a name stands for, while there is room for it.
    fn expand(&self, name: &str) -> Option<&str> {
        let (_, value) = self.declared.iter().find(|(known, _)| known == name)?;
        let expanded = self.expanded.get() + value.len();
        (expanded <= EXPANSION_BYTES_MAX).then(|| {
            self.expanded.set(expanded);
            value.as_str()
        })
    }
}

/// The text with its references replaced; what is none (`&` in `AT&T`, `&unknown;`) stays as it is.
pub(super) fn decode<'a>(text: &'a str, entities: &Entities) -> Cow<'a, str> {
    let Some(first) = memchr::memchr(b'&', text.as_bytes()) else { return Cow::Borrowed(text) };
    let mut decoded = String::with_capacity(text.len());
    decoded.push_str(&text[..first]);
    let mut rest = &text[first..];
    while !rest.is_empty() {
        let length = reference(rest, entities, &mut decoded);
        let plain = memchr::memchr(b'&', &rest.as_bytes()[length..]).map_or(rest.len(), |place| length + place);
        decoded.push_str(&rest[length..plain]);
        rest = &rest[plain..];
    }
    Cow::Owned(decoded)
}

/// Decodes the reference at the start of `rest` and says its length; a `&` that begins none is one byte.
fn reference(rest: &str, entities: &Entities, decoded: &mut String) -> usize {
    let window = &rest.as_bytes()[1..rest.len().min(NAME_BYTES_MAX)];
    let name = memchr::memchr(b';', window).map(|end| &rest[1..=end]);
    let is_known = match name {
        Some(name) => match name.strip_prefix('#') {
            Some(number) => character(number).map(|letter| decoded.push(letter)).is_some(),
            None => named(name, entities, decoded),
        },
        None => false,
    };
    match name {
        Some(name) if is_known => name.len() + 2,
        _ => {
            decoded.push('&');
            1
        }
    }
}

/// The character of a number such as `8217` or `x2019`; numbers of controls that windows-1252 shows are taken as it
/// shows them, as all readers do.
fn character(number: &str) -> Option<char> {
    let code = match number.strip_prefix(['x', 'X']) {
        Some(hex) => u32::from_str_radix(hex, 16).ok()?,
        None => number.parse().ok()?,
    };
    char::from_u32(code).filter(|letter| *letter != '\0').map(windows_1252)
}

/// What a C1 control stands for where someone took windows-1252 for ISO 8859-1.
pub(super) fn windows_1252(letter: char) -> char {
    match u8::try_from(u32::from(letter)) {
        Ok(byte @ 0x80..=0x9f) => encoding_rs::WINDOWS_1252.decode(&[byte]).0.chars().next().unwrap_or(letter),
        _ => letter,
    }
}

fn named(name: &str, entities: &Entities, decoded: &mut String) -> bool {
    if let Some(value) = entities.expand(name) {
        decoded.push_str(value);
        return true;
    }
    let mut key = [0; NAME_BYTES_MAX + 1];
    let Some(slot) = key.get_mut(..=name.len()) else { return false };
    slot[..name.len()].copy_from_slice(name.as_bytes());
    slot[name.len()] = b';';
    if name == "apos" {
        decoded.push('\'');
        return true;
    }
    let known = std::str::from_utf8(slot).ok().and_then(|key| NAMED_ENTITIES.get(key));
    let Some(&(first, second)) = known.filter(|(first, _)| *first != 0) else { return false };
    decoded.extend(char::from_u32(first).into_iter().chain(char::from_u32(second).filter(|letter| *letter != '\0')));
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> String {
        decode(text, &Entities::default()).into_owned()
    }

    #[test]
    fn names_and_numbers_are_decoded_and_the_rest_stays() {
        assert_eq!(plain("&lt;a&gt; &eacute;&#233;&#xE9; &hellip;&apos;"), "<a> ééé …'");
        assert_eq!(plain("AT&T ?a=1&b=2 &unknown; &#0; &#x110000; &"), "AT&T ?a=1&b=2 &unknown; &#0; &#x110000; &");
        assert_eq!(plain("&#147;x&#148;"), "\u{201c}x\u{201d}", "windows-1252 by number");
        assert_eq!(plain("&amp;lt;"), "&lt;", "once");
        assert_eq!(plain("&é;&"), "&é;&");
    }

    #[test]
    fn only_safe_entities_of_the_document_are_taken() {
        let doctype = r#"<!DOCTYPE rss [<!ENTITY pub "Daily &#x26;"> <!ENTITY c "&#169;"> <!ENTITY evil "&pub;&pub;">
            <!ENTITY file SYSTEM "file:///etc/passwd"> <!ENTITY % p "x">]>"#;
        let entities = Entities::read(doctype);
        assert_eq!(decode("&pub; &c; &evil; &file;", &entities), "Daily & © &evil; &file;");
        let long = format!("<!DOCTYPE rss [<!ENTITY long \"{}\">]>", "x".repeat(1_000));
        assert_eq!(decode("&long;", &Entities::read(&long)), "&long;");
    }

    #[test]
    fn entities_of_the_document_add_no_more_than_a_megabyte() {
        let entities = Entities::read(&format!("<!DOCTYPE rss [<!ENTITY a \"{}\">]>", "x".repeat(256)));
        let mut bytes = 0;
        for _ in 0..40 {
            bytes += decode(&"&a;".repeat(1_000), &entities).len();
        }
        assert!(bytes < EXPANSION_BYTES_MAX + 40 * 3_000, "{bytes} bytes");
        assert!(bytes > EXPANSION_BYTES_MAX);
    }
}
