//! A document as a tree, its names brought to one form: `title`, `dc:date`, `media:content`, whatever prefix or case
//! the feed writes.
//!
//! What is not well formed is mended here: an end tag closes the nearest element of its name and those inside it, one
//! without a start is left out, what is still open at the end is closed.

use std::borrow::Cow;
use std::ops::Range;

use super::markup::{Token, Tokens, attributes};
use super::names::Scopes;
use super::references::{Entities, decode};

/// Elements inside each other; what lies deeper is left out with its text. Feeds nest below 20, the HTML in them
/// below 60.
pub(super) const DEPTH_MAX: usize = 128;

/// Attributes of one element; the rest is left out. HTML has a dozen, roots declare 40 namespaces.
const ATTRIBUTES_MAX: usize = 1_000;

/// Elements of one document; the rest of a larger one is left out. The largest feed seen has 30,000, and each takes a
/// quarter of a kilobyte.
pub(super) const ELEMENTS_MAX: usize = 400_000;

/// An element.
#[derive(Debug, Default)]
pub(super) struct Element {
    /// Lower-case; with the customary prefix if it is of a namespace that is not a feed format's own.
    pub(super) name: String,
    /// Names as the element's, values decoded.
    pub(super) attributes: Vec<(String, String)>,
    pub(super) children: Vec<Node>,
    /// Where it stands in the document, tags and all.
    pub(super) range: Range<usize>,
    /// Where its content stands.
    pub(super) inside: Range<usize>,
    /// Whether it is still open where its entry ends without an end tag, as where a document is cut: what it holds may
    /// be half of what was meant.
    pub(super) is_cut: bool,
}

#[derive(Debug)]
pub(super) enum Node {
    Element(Element),
    Text(String),
}

impl Element {
    pub(super) fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn elements(&self) -> impl Iterator<Item = &Element> {
        self.children.iter().filter_map(|node| match node {
            Node::Element(element) => Some(element),
            Node::Text(_) => None,
        })
    }

    /// The text that stands in it directly, without the white space around it.
    pub(super) fn text(&self) -> String {
        let texts = self.children.iter().filter_map(|node| match node {
            Node::Text(text) => Some(text.as_str()),
            Node::Element(_) => None,
        });
        texts.collect::<String>().trim().to_owned()
    }
}

/// Reads a document: an element without a name whose children are the document's.
pub(super) fn read(document: &str) -> Element {
    let mut reader = Reader { open: vec![Element::default()], ..Reader::default() };
    for (token, range) in Tokens::new(document) {
        reader.take(token, range);
    }
    reader.close_inside(0, document.len());
    let mut root = reader.open.pop().unwrap_or_default();
    root.range = 0..document.len();
    root.inside = 0..document.len();
    root
}

#[derive(Default)]
struct Reader {
    open: Vec<Element>,
    /// Raw names of the open elements, to find the one that an end tag closes.
    raw_names: Vec<String>,
    scopes: Scopes,
    entities: Entities,
    elements: usize,
    /// Elements below [`DEPTH_MAX`] that are open.
    too_deep: usize,
}

impl Reader {
    fn take(&mut self, token: Token<'_>, range: Range<usize>) {
        match token {
            Token::Start { name, attributes, is_empty } => self.start(name, attributes, is_empty, range),
            Token::End { name } => self.end(name, range),
            Token::Text(text) if self.too_deep == 0 => {
                let text = with_plain_breaks(text);
                let text = decode(&text, &self.entities).into_owned();
                self.add(Node::Text(text));
            }
            Token::Cdata(text) if self.too_deep == 0 => self.add(Node::Text(with_plain_breaks(text).into_owned())),
            Token::Doctype(doctype) if self.elements == 0 => self.entities = Entities::read(doctype),
            Token::Text(_) | Token::Cdata(_) | Token::Doctype(_) | Token::Other => {}
        }
    }

    fn start(&mut self, raw_name: &str, text: &str, is_empty: bool, range: Range<usize>) {
        self.elements += 1;
        if is_entry(raw_name) {
            self.close_entry(&range);
        }
        if self.open.len() > DEPTH_MAX || self.elements > ELEMENTS_MAX {
            self.too_deep += usize::from(!is_empty);
            return;
        }
        let decoded = attributes(text)
            .take(ATTRIBUTES_MAX)
            .map(|(name, value)| (name, decode(value, &self.entities).into_owned()));
        let decoded: Vec<(&str, String)> = decoded.collect();
        let (name, attributes) = self.scopes.enter(raw_name, decoded);
        let inside = range.end..range.end;
        self.open.push(Element { name, attributes, range: range.clone(), inside, ..Element::default() });
        self.raw_names.push(raw_name.to_owned());
        if is_empty {
            self.close(range.end..range.end);
        }
    }

    fn end(&mut self, raw_name: &str, range: Range<usize>) {
        if self.too_deep > 0 {
            self.too_deep -= 1;
            return;
        }
        let is_same = |open: &String| open.eq_ignore_ascii_case(raw_name);
        let Some(place) = self.raw_names.iter().rposition(is_same) else { return };
        // `</item>` may close what was forgotten inside it, but a stray `</link>` must not close an item.
        let is_stray = self.raw_names[place + 1..].iter().any(|open| is_entry(open));
        if is_stray && !is_one_of(raw_name, CONTAINERS) {
            return;
        }
        self.close_inside(place + 1, range.start);
        self.close(range);
    }

    /// An entry that begins ends the one before, if that was forgotten: entries do not nest, except as content.
    fn close_entry(&mut self, next: &Range<usize>) {
        let Some(place) = self.raw_names.iter().rposition(|open| is_entry(open)) else { return };
        if !self.raw_names[place..].iter().any(|open| is_one_of(open, CONTENT)) {
            self.close_inside(place, next.start);
        }
    }

    /// Closes all elements that are open from `place` on.
    fn close_inside(&mut self, place: usize, at: usize) {
        let entry = self.raw_names.iter().skip(place).position(|open| is_entry(open)).map(|found| place + found);
        while self.raw_names.len() > place {
            let is_cut = entry.is_some_and(|entry| self.raw_names.len() > entry + 1);
            self.open.last_mut().into_iter().for_each(|element| element.is_cut = is_cut);
            self.close(at..at);
        }
    }

    /// Closes the innermost element; `range` is its end tag.
    fn close(&mut self, range: Range<usize>) {
        self.scopes.leave();
        self.raw_names.pop();
        let Some(mut element) = self.open.pop() else { return };
        element.range.end = range.end;
        element.inside.end = range.start.max(element.inside.start);
        self.add(Node::Element(element));
    }

    fn add(&mut self, node: Node) {
        if let Some(element) = self.open.last_mut() {
            element.children.push(node);
        }
    }
}

/// Lines end with a line feed alone: XML 1.0, section 2.11.
fn with_plain_breaks(text: &str) -> Cow<'_, str> {
    match memchr::memchr(b'\r', text.as_bytes()) {
        None => Cow::Borrowed(text),
        Some(_) => Cow::Owned(text.replace("\r\n", "\n").replace('\r', "\n")),
    }
}

const ENTRIES: &[&str] = &["item", "entry"];

/// What holds entries.
const CONTAINERS: &[&str] = &["channel", "feed", "rdf", "rss"];

/// What may hold any markup.
const CONTENT: &[&str] = &["title", "description", "summary", "content", "encoded", "body", "abstract"];

fn is_entry(raw_name: &str) -> bool {
    is_one_of(raw_name, ENTRIES)
}

fn is_one_of(raw_name: &str, known: &[&str]) -> bool {
    let local = raw_name.rsplit(':').next().unwrap_or(raw_name);
    known.iter().any(|name| name.eq_ignore_ascii_case(local))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outline(element: &Element) -> String {
        let children: Vec<String> = element.elements().map(outline).collect();
        format!("{}({})", element.name, children.join(" "))
    }

    #[test]
    fn what_is_not_closed_is_closed() {
        assert_eq!(outline(&read("<rss><item><b>x</item><item><link>y</rss>")), "(rss(item(b()) item(link())))");
        assert_eq!(outline(&read("<a><item>1<item>2</item></a>")), "(a(item() item()))");
        assert_eq!(outline(&read("<a><link><item></link><b/></item></a>")), "(a(link(item(b()))))");
        assert_eq!(outline(&read("<entry><content><entry/></content></entry>")), "(entry(content(entry())))");
    }

    #[test]
    fn names_are_brought_to_one_form_where_they_are_declared() {
        let text = "<x:RDF xmlns:x='http://www.w3.org/1999/02/22-rdf-syntax-ns#' xmlns='http://purl.org/rss/1.0/'>\
            <item x:about='1'><d:date xmlns:d='http://purl.org/dc/elements/1.1/'/><d:date/><dc:date/></item></x:RDF>";
        let root = read(text);
        assert_eq!(outline(&root), "(rdf:rdf(item(dc:date() d:date() dc:date())))");
        let item = root.elements().next().and_then(|rdf| rdf.elements().next()).unwrap();
        assert_eq!(item.attribute("rdf:about"), Some("1"));
    }

    #[test]
    fn what_is_open_where_an_entry_is_cut_is_known() {
        fn cut(element: &Element) -> Vec<&str> {
            let own = element.is_cut.then_some(element.name.as_str());
            own.into_iter().chain(element.elements().flat_map(cut)).collect()
        }
        for text in [
            "<rss><item><title>a</title><link>http://a",
            "<rss><item><link>x<item><title>b</item></rss>",
            "<rss><item><link>x</rss>",
        ] {
            assert_eq!(cut(&read(text)), ["link"], "{text}");
        }
        assert!(cut(&read("<rss><title>a<item><title>b</item><link>c")).is_empty());
    }

    #[test]
    fn ranges_are_slices_of_the_document() {
        let text = "<a><b c='1'>x</b><b>y";
        let root = read(text);
        let a = root.elements().next().unwrap();
        let found: Vec<_> = a.elements().map(|b| (&text[b.range.clone()], &text[b.inside.clone()])).collect();
        assert_eq!(found, [("<b c='1'>x</b>", "x"), ("<b>y", "y")]);
    }

    #[test]
    fn depth_has_an_end() {
        let deep = format!("{}x{}<c/>", "<a>".repeat(100_000), "</a>".repeat(100_000));
        let root = read(&deep);
        assert_eq!(root.elements().map(|element| element.name.as_str()).collect::<Vec<_>>(), ["a", "c"]);
    }
}
