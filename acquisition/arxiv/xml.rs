//! One record of XML as a small tree: names without prefix, texts with their entities resolved.
//!
//! Prefixes are left out because records are cut from their page, and with it from the declarations of some prefixes;
//! what arXiv sends has no two elements that only a prefix tells apart. A bare ampersand and an entity that no one
//! knows stay as they stand; everything else that is not well-formed is a reject.

use contract::Reject;
use quick_xml::errors::{Error, IllFormedError};
use quick_xml::escape::{resolve_html5_entity, unescape_with};
use quick_xml::events::{BytesRef, BytesStart, Event};
use quick_xml::reader::Reader;

/// Elements inside each other; records of all formats nest below 8.
const DEPTH_MAX: usize = 64;

/// An element.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Element {
    /// Without prefix.
    pub(super) name: String,
    attributes: Vec<(String, String)>,
    content: Vec<Content>,
}

#[derive(Debug, PartialEq, Eq)]
enum Content {
    Text(String),
    Element(Element),
}

impl Element {
    /// Reads one element with all that is in it.
    ///
    /// # Errors
    /// A reject of the kind `xml` that says where it is not well-formed.
    pub(super) fn parse(text: &str) -> Result<Self, Reject> {
        let mut reader = Reader::from_str(text);
        reader.config_mut().allow_dangling_amp = true;
        let mut open: Vec<Self> = Vec::new();
        loop {
            let event = reader.read_event().map_err(|error| explain(&error, reader.error_position(), &open))?;
            match event {
                Event::Start(_) if open.len() == DEPTH_MAX => {
                    return Err(Reject::new("xml", format!("the record nests deeper than {DEPTH_MAX} elements")));
                }
                Event::Start(start) if start.local_name().into_inner().is_empty() => {
                    let at = reader.buffer_position();
                    return Err(Reject::new("xml", format!("a bare `<` stands in the text before byte {at}")));
                }
                Event::Start(start) => open.push(Self::new(&start)),
                Event::Empty(start) => {
                    if let Some(root) = close(&mut open, Self::new(&start)) {
                        return Ok(root);
                    }
                }
                Event::End(_) => {
                    let Some(element) = open.pop() else { continue };
                    if let Some(root) = close(&mut open, element) {
                        return Ok(root);
                    }
                }
                Event::Text(text) => push_text(&mut open, &text.xml10_content()),
                Event::CData(text) => push_text(&mut open, &text.xml10_content()),
                Event::GeneralRef(reference) => push_text(&mut open, &resolve(&reference)),
                Event::Eof => return Err(cut(&open)),
                Event::Comment(_) | Event::PI(_) | Event::Decl(_) | Event::DocType(_) => {}
            }
        }
    }

    fn new(start: &BytesStart<'_>) -> Self {
        // An attribute that cannot be read is left out: none that matters is ever odd.
        let mut readable = start.attributes();
        let attributes = readable.with_checks(false).flatten().map(|attribute| {
            let value = unescape_with(&attribute.value, resolve_html5_entity);
            let value = value.map_or_else(|_| attribute.value.to_string(), |value| value.into_owned());
            (attribute.key.local_name().into_inner().to_owned(), value)
        });
        let attributes = attributes.collect();
        Self { name: start.local_name().into_inner().to_owned(), attributes, content: Vec::new() }
    }

    /// The elements directly in this one.
    pub(super) fn children(&self) -> impl Iterator<Item = &Self> {
        self.content.iter().filter_map(|content| match content {
            Content::Element(element) => Some(element),
            Content::Text(_) => None,
        })
    }

    /// Those of a name.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Self> {
        self.children().filter(move |child| child.name == name)
    }

    /// The first of a name.
    pub(super) fn child(&self, name: &str) -> Option<&Self> {
        self.children().find(|child| child.name == name)
    }

    /// The text of the first child of a name, if it is more than white space.
    pub(super) fn text_of(&self, name: &str) -> Option<String> {
        self.child(name).map(Self::text).filter(|text| !text.trim().is_empty())
    }

    /// All text in this element and in those inside it, in order.
    pub(super) fn text(&self) -> String {
        let mut all = String::new();
        self.append_text(&mut all);
        all
    }

    fn append_text(&self, all: &mut String) {
        for content in &self.content {
            match content {
                Content::Text(text) => all.push_str(text),
                Content::Element(element) => element.append_text(all),
            }
        }
    }

    /// The value of an attribute, by its name without prefix.
    pub(super) fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Hands `element` to the one around it, or back if there is none.
fn close(open: &mut [Element], element: Element) -> Option<Element> {
    match open.last_mut() {
        Some(outer) => {
            outer.content.push(Content::Element(element));
            None
        }
        None => Some(element),
    }
}

fn push_text(open: &mut [Element], text: &str) {
    let Some(element) = open.last_mut() else { return };
    match element.content.last_mut() {
        Some(Content::Text(before)) => before.push_str(text),
        _ => element.content.push(Content::Text(text.to_owned())),
    }
}

/// The text that a reference stands for; one that is not known stands for itself.
fn resolve(reference: &BytesRef<'_>) -> String {
    let name: &str = reference;
    match reference.resolve_char_ref() {
        Ok(Some(letter)) => letter.to_string(),
        _ => resolve_html5_entity(name).map_or_else(|| format!("&{name};"), str::to_owned),
    }
}

fn cut(open: &[Element]) -> Reject {
    let place = open.last().map_or("before its first element".to_owned(), |last| format!("inside `{}`", last.name));
    Reject::new("xml", format!("the record is cut: it ends {place}"))
}

fn explain(error: &Error, at: u64, open: &[Element]) -> Reject {
    match error {
        Error::Syntax(_) => cut(open),
        Error::IllFormed(IllFormedError::MismatchedEndTag { expected, found }) => {
            Reject::new("xml", format!("`{expected}` is closed by `</{found}>`, at byte {at}"))
        }
        Error::IllFormed(IllFormedError::UnmatchedEndTag(found)) => {
            Reject::new("xml", format!("`</{found}>` closes nothing, at byte {at}"))
        }
        other => Reject::new("xml", format!("the record is not well-formed at byte {at}: {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_their_prefix_and_texts_their_entities() {
        let xml = "<a:r xmlns:a='x' a:k='1 &lt; 2'><b>x &amp;&#x41;&eacute;<!-- no --> <i>y</i> <![CDATA[<z>&amp;]]></b><b/></a:r>";
        let root = Element::parse(xml).unwrap();
        assert_eq!(root.name, "r");
        assert_eq!(root.attribute("k"), Some("1 < 2"));
        assert_eq!(root.text_of("b").as_deref(), Some("x &Aé y <z>&amp;"));
        assert_eq!(root.all("b").count(), 2);
        assert_eq!(root.child("c"), None);
    }

    #[test]
    fn a_bare_ampersand_and_an_unknown_entity_stay_as_they_are() {
        let root = Element::parse("<t>AT&T &bogus; R & D &#0; &</t>").unwrap();
        assert_eq!(root.text(), "AT&T &bogus; R & D &#0; &");
    }

    #[test]
    fn what_is_not_well_formed_is_told_with_its_place() {
        for (xml, reason) in [
            ("<a><b>x</a>", "`b` is closed by `</a>`, at byte 7"),
            ("<a>1 < 2</a>", "a bare `<` stands in the text before byte 12"),
            ("<a><b>x", "the record is cut: it ends inside `b`"),
            ("<a><b x='", "the record is cut: it ends inside `a`"),
            ("<a><![CDATA[ x", "the record is cut: it ends inside `a`"),
            ("", "the record is cut: it ends before its first element"),
            ("</a>", "`</a>` closes nothing, at byte 0"),
        ] {
            let reject = Element::parse(xml).unwrap_err();
            assert_eq!((reject.kind, reject.reason.as_str()), ("xml", reason), "{xml}");
        }
        let nested = |depth| format!("{}{}", "<a>".repeat(depth), "</a>".repeat(depth));
        assert!(Element::parse(&nested(DEPTH_MAX)).is_ok());
        assert_eq!(Element::parse(&nested(DEPTH_MAX + 1)).unwrap_err().kind, "xml");
    }
}
