//! A tokenizer for what feeds and their HTML really contain: it takes any text, never fails and never looks outside it.
//!
//! | met | taken as |
//! | --- | --- |
//! | `<` that begins no tag | text |
//! | a tag without its `>` | ends before the next `<` |
//! | a tag that the end of the text cuts, or a last `<` | nothing |
//! | a quote that is never closed | the tag ends at its first `>`; the quote is no part of the value |
//! | a CDATA section without its end | the rest of the text |
//! | `<!` that is no declaration | text |
//! | `<name/>` | a start and an end: [`Token::Start::is_empty`] |

use std::ops::Range;

/// A piece of markup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// `<name attributes>`.
    Start {
        /// The name as written.
        name: &'a str,
        /// What stands after it, for [`attributes`].
        attributes: &'a str,
        /// Whether it ends with `/>`.
        is_empty: bool,
    },
    /// `</name>`.
    End {
        /// The name as written.
        name: &'a str,
    },
    /// Text with references such as `&amp;`.
    Text(&'a str),
    /// What a CDATA section holds; a `&` in it is one.
    Cdata(&'a str),
    /// `<!DOCTYPE …>` with its internal subset.
    Doctype(&'a str),
    /// A comment, a processing instruction, a declaration, a tag that the end cuts.
    Other,
}

/// Reads the tokens of a text and where each stands.
#[derive(Clone, Debug)]
pub(super) struct Tokens<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Tokens<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// Goes on after `</name`, whatever stands before it: what HTML's `script` and `style` hold is no markup.
    pub(super) fn skip_raw(&mut self, name: &str) {
        let rest = &self.text[self.at..];
        let is_end = |place: &usize| {
            let tag = &rest.as_bytes()[place + 2..];
            tag.len() >= name.len() && tag[..name.len()].eq_ignore_ascii_case(name.as_bytes())
        };
        self.at += memchr::memmem::find_iter(rest.as_bytes(), b"</").find(is_end).unwrap_or(rest.len());
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = (Token<'a>, Range<usize>);

    fn next(&mut self) -> Option<Self::Item> {
        let rest = &self.text[self.at..];
        if rest.is_empty() {
            return None;
        }
        let (token, length) = markup(rest).unwrap_or_else(|| text(rest));
        let range = self.at..self.at + length;
        self.at = range.end;
        Some((token, range))
    }
}

/// Text up to where a `<` begins markup.
fn text(rest: &str) -> (Token<'_>, usize) {
    let begins_markup = |&place: &usize| place > 0 && begins_markup(&rest[place..]);
    let end = memchr::memchr_iter(b'<', rest.as_bytes()).find(begins_markup);
    // A `<` at the end is what is left of a tag.
    let text = end.map_or_else(|| rest.trim_end_matches("</").trim_end_matches('<'), |end| &rest[..end]);
    (Token::Text(text), end.unwrap_or(rest.len()))
}

fn begins_markup(rest: &str) -> bool {
    match rest.as_bytes().get(1) {
        Some(b'?') => true,
        Some(b'!') => DECLARATIONS.iter().any(|word| starts_with_word(&rest[2..], word)),
        Some(b'/') => rest[2..].starts_with(is_name_start),
        _ => rest[1..].starts_with(is_name_start),
    }
}

const DECLARATIONS: &[&str] = &["--", "[", "DOCTYPE", "ENTITY", "ELEMENT", "ATTLIST", "NOTATION"];

fn starts_with_word(text: &str, word: &str) -> bool {
    text.as_bytes().get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word.as_bytes()))
}

fn markup(rest: &str) -> Option<(Token<'_>, usize)> {
    if !rest.starts_with('<') || !begins_markup(rest) {
        return None;
    }
    let bytes = rest.as_bytes();
    let after = |needle: &str| memchr::memmem::find(bytes, needle.as_bytes()).map(|place| place + needle.len());
    Some(match bytes.get(1)? {
        b'?' => (Token::Other, instruction_end(rest)),
        b'/' => end_tag(rest),
        b'!' if rest.starts_with("<!--") => (Token::Other, after("-->").unwrap_or(rest.len())),
        b'!' if rest.starts_with("<![CDATA[") => {
            let end = after("]]>");
            let inside = &rest["<![CDATA[".len()..end.map_or(rest.len(), |end| end - "]]>".len())];
            (Token::Cdata(inside), end.unwrap_or(rest.len()))
        }
        b'!' if starts_with_word(&rest[2..], "DOCTYPE") => {
            let end = doctype_end(rest);
            (Token::Doctype(&rest[..end]), end)
        }
        b'!' => (Token::Other, after(">").unwrap_or(rest.len())),
        _ => start_tag(rest),
    })
}

/// Bytes in which the end of an instruction or of a document type's subset is looked for; else its first `>` is it. So
/// a text full of such beginnings costs no more than its length.
const DECLARATION_BYTES_MAX: usize = 64 << 10;

/// Most instructions end at their first `>`; one may hold others.
fn instruction_end(rest: &str) -> usize {
    let first = memchr::memchr(b'>', rest.as_bytes()).map_or(rest.len(), |place| place + 1);
    if rest[..first].ends_with("?>") {
        return first;
    }
    let window = &rest.as_bytes()[..rest.len().min(DECLARATION_BYTES_MAX)];
    let next = memchr::memmem::find(&window[2..], b"<?").map_or(window.len(), |place| place + 2);
    memchr::memmem::find(&window[..next], b"?>").map_or(first, |place| place + 2)
}

/// A document type ends at its `>`; one with an internal subset at the `>` after its `]`.
fn doctype_end(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let close = memchr::memchr(b'>', bytes).map_or(rest.len(), |place| place + 1);
    if memchr::memchr(b'[', &bytes[..close]).is_none() {
        return close;
    }
    let window = &bytes[..rest.len().min(DECLARATION_BYTES_MAX)];
    let Some(subset) = memchr::memchr(b']', window) else { return close };
    memchr::memchr(b'>', &bytes[subset..]).map_or(rest.len(), |place| subset + place + 1)
}

fn end_tag(rest: &str) -> (Token<'_>, usize) {
    let close = memchr::memchr2(b'<', b'>', &rest.as_bytes()[1..]).map_or(rest.len(), |place| place + 1);
    if close == rest.len() {
        return (Token::Other, close);
    }
    let length = close + usize::from(rest.as_bytes()[close] == b'>');
    (Token::End { name: rest[2..close].trim() }, length)
}

fn start_tag(rest: &str) -> (Token<'_>, usize) {
    let close = start_tag_end(rest);
    if close == rest.len() {
        return (Token::Other, close);
    }
    let length = close + usize::from(rest.as_bytes()[close] == b'>');
    let inside = &rest[1..close];
    let name_end = inside.find(|letter| !is_name(letter)).unwrap_or(inside.len());
    let (name, attributes) = inside.split_at(name_end);
    let is_empty = attributes.ends_with('/');
    (Token::Start { name, attributes: attributes.strip_suffix('/').unwrap_or(attributes), is_empty }, length)
}

/// Where the start tag's `>` stands, or the `<` that cuts it, or the end.
fn start_tag_end(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let mut at = 1;
    while let Some(place) = bytes[at..].iter().position(|byte| matches!(byte, b'<' | b'>' | b'"' | b'\'')) {
        at += place;
        let quote = bytes[at];
        if matches!(quote, b'<' | b'>') {
            return at;
        }
        let is_value = bytes[..at].trim_ascii_end().ends_with(b"=");
        at += match memchr::memchr(quote, &bytes[at + 1..]) {
            Some(end) if is_value => end + 2,
            Some(_) => 1,
            None => return bytes[at..].iter().position(|byte| *byte == b'>').map_or(rest.len(), |place| at + place),
        };
    }
    rest.len()
}

/// The attributes of a start tag: names as written, values with their references.
pub(super) fn attributes(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches(|letter| !is_name_start(letter));
        if rest.is_empty() {
            return None;
        }
        let name_end = rest.find(|letter| !is_name(letter)).unwrap_or(rest.len());
        let (name, after) = rest.split_at(name_end);
        let Some(value) = after.trim_start().strip_prefix('=').map(str::trim_start) else {
            rest = after;
            return Some((name, name));
        };
        let quote = value.chars().next().filter(|letter| matches!(letter, '"' | '\''));
        let (value, after) = match quote.and_then(|quote| value[1..].split_once(quote)) {
            Some(quoted) => quoted,
            None => {
                let value = value.trim_start_matches(['"', '\'']);
                value.split_at(value.find(char::is_whitespace).unwrap_or(value.len()))
            }
        };
        rest = after;
        Some((name, value))
    })
}

fn is_name_start(letter: char) -> bool {
    letter.is_ascii_alphabetic() || matches!(letter, '_' | ':') || (!letter.is_ascii() && letter.is_alphabetic())
}

fn is_name(letter: char) -> bool {
    is_name_start(letter) || letter.is_ascii_digit() || matches!(letter, '-' | '.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Vec<Token<'_>> {
        Tokens::new(text).map(|(token, _)| token).collect()
    }

    fn start<'a>(name: &'a str, attributes: &'a str, is_empty: bool) -> Token<'a> {
        Token::Start { name, attributes, is_empty }
    }

    #[test]
    fn markup_is_cut_where_it_is_whole() {
        let text = "<?xml version='1.0'?><!DOCTYPE a [<!ENTITY b \"c\">]><a x='>'>b &amp;<!-- <c> --><d/></a>";
        let found = tokens(text);
        let doctype = Token::Doctype("<!DOCTYPE a [<!ENTITY b \"c\">]>");
        let (open, text) = (start("a", " x='>'", false), Token::Text("b &amp;"));
        let close = Token::End { name: "a" };
        assert_eq!(found, [Token::Other, doctype, open, text, Token::Other, start("d", "", true), close]);
        assert_eq!(tokens("<![CDATA[<a>&]]>b"), [Token::Cdata("<a>&"), Token::Text("b")]);
    }

    #[test]
    fn broken_markup_is_taken_as_far_as_it_goes() {
        assert_eq!(tokens("1 < 2 <3"), [Token::Text("1 < 2 <3")]);
        assert_eq!(tokens("<a b=\"c><d>"), [start("a", " b=\"c", false), start("d", "", false)]);
        assert_eq!(tokens("<a <b>"), [start("a", " ", false), start("b", "", false)]);
        assert_eq!(tokens("</a</b"), [Token::End { name: "a" }, Token::Other]);
        assert_eq!(tokens("<![CDATA[a"), [Token::Cdata("a")]);
        assert_eq!(tokens("<!a>"), [Token::Text("<!a>")]);
        for cut in ["x<", "x</"] {
            assert_eq!(tokens(cut), [Token::Text("x")], "{cut}");
        }
        for cut in ["x<a", "x<a b=\"c", "x<a b='c'", "x</a"] {
            assert_eq!(tokens(cut), [Token::Text("x"), Token::Other], "{cut}");
        }
    }

    #[test]
    fn attributes_are_read_quoted_bare_and_alone() {
        let found: Vec<_> = attributes(" a='1' b = \"2 3\" c=4 d e='5").collect();
        assert_eq!(found, [("a", "1"), ("b", "2 3"), ("c", "4"), ("d", "d"), ("e", "5")]);
    }

    #[test]
    fn a_script_is_skipped_to_its_end() {
        let mut found = Tokens::new("<script>a<b></SCRIPT>c");
        found.next();
        found.skip_raw("script");
        assert_eq!(
            found.map(|(token, _)| token).collect::<Vec<_>>(),
            [Token::End { name: "SCRIPT" }, Token::Text("c")]
        );
    }
}
