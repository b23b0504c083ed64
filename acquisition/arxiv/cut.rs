//! Cuts a page of XML into its records without reading them: what is broken in one costs no other.
//!
//! | element outside of a record | piece |
//! | --- | --- |
//! | `record`, `entry`, `item`; `header` by itself | [`Kind::Record`] |
//! | `error`, `resumptionToken`, `totalResults`; `pubDate` and `date` of a listing | of that kind |
//! | anything else | left out |
//!
//! A record ends with its end tag. Without one it ends, broken, where the next record starts or the list around it ends.

use bytes::{Bytes, BytesMut};
use contract::limits::RECORD_BYTES_MAX;
use memchr::{memchr, memmem};

/// Bytes of a tag, with its attributes, that is waited for.
const TAG_BYTES_MAX: usize = 64 << 10;

/// What a piece is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Record,
    /// What an archive answers in place of records.
    Error,
    ResumptionToken,
    TotalResults,
    /// The time that a listing gives for all its items.
    Date,
}

/// An element with all that is in it, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) kind: Kind,
    pub(super) body: Bytes,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct XmlCutter {
    buffer: BytesMut,
    /// The next byte to look at.
    at: usize,
    /// The piece that the buffer starts with.
    open: Option<Open>,
    /// The name of the first element, with its prefix.
    root: Option<Vec<u8>>,
    is_root_closed: bool,
    searches: [Search; 3],
}

/// Where the end of a comment, a section or an instruction was looked for in vain: what is never closed would else be
/// looked through again from each of its beginnings.
#[derive(Clone, Copy, Debug, Default)]
struct Search {
    from: usize,
    /// None starts before here.
    to: usize,
}

/// What opens something that is no element, and what closes it.
const SECTIONS: [(&[u8], &[u8]); 3] = [(b"<!--", b"-->"), (b"<![CDATA[", b"]]>"), (b"<?", b"?>")];

#[derive(Debug)]
struct Open {
    kind: Kind,
    /// With its prefix.
    name: Vec<u8>,
}

/// What stands at a `<`.
enum Markup {
    /// More bytes are needed to tell.
    Unknown,
    /// So many bytes of a comment, section, instruction or declaration, or of text that is no markup.
    Other(usize),
    Start {
        name_length: usize,
        length: usize,
    },
    End {
        name_length: usize,
        length: usize,
    },
}

impl XmlCutter {
    /// Where the next bytes go.
    pub(super) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The name of the first element, without its prefix.
    pub(super) fn root(&self) -> Option<&str> {
        std::str::from_utf8(local(self.root.as_deref()?)).ok()
    }

    /// Whether the first element was closed: the page is whole.
    pub(super) fn is_whole(&self) -> bool {
        self.is_root_closed
    }

    /// Takes all pieces that are whole, and at the end also the one that is not.
    pub(super) fn pull(&mut self, is_end: bool, pieces: &mut Vec<Piece>) {
        while let Some(at) = self.next_bracket(pieces) {
            self.at = at;
            match markup(&self.buffer, at, is_end, &mut self.searches) {
                Markup::Unknown => break,
                Markup::Other(length) => self.at += length,
                Markup::Start { name_length, length } => self.start(name_length, length, pieces),
                Markup::End { name_length, length } => self.end(name_length, length, pieces),
            }
        }
        if is_end && self.open.is_some() {
            self.close(self.buffer.len(), pieces);
        }
        if self.open.is_none() {
            self.split_to(self.at);
            self.at = 0;
        }
    }

    /// Takes the first bytes out of the buffer.
    fn split_to(&mut self, length: usize) -> Bytes {
        for Search { from, to } in &mut self.searches {
            (*from, *to) = (from.saturating_sub(length), to.saturating_sub(length));
        }
        self.buffer.split_to(length).freeze()
    }

    /// Where the next `<` stands. A record that grows beyond all records ends on the way there; what follows it up to the
    /// next record is left out.
    fn next_bracket(&mut self, pieces: &mut Vec<Piece>) -> Option<usize> {
        loop {
            let found = memchr(b'<', &self.buffer[self.at..]).map(|step| self.at + step);
            let is_over = found.unwrap_or(self.buffer.len()) > RECORD_BYTES_MAX;
            if self.open.is_none() || !is_over {
                self.at = found.unwrap_or(self.buffer.len());
                return found;
            }
            self.close(RECORD_BYTES_MAX + 1, pieces);
        }
    }

    fn start(&mut self, name_length: usize, length: usize, pieces: &mut Vec<Piece>) {
        let name = &self.buffer[self.at + 1..][..name_length];
        let is_empty = self.buffer[self.at..self.at + length].ends_with(b"/>");
        if let Some(open) = &self.open {
            let starts_another = name == open.name || open.kind == Kind::Record && local(name) == b"resumptionToken";
            if !starts_another {
                self.at += length;
                return;
            }
            self.close(self.at, pieces);
        }
        let name = self.buffer[self.at + 1..][..name_length].to_vec();
        let kind = kind(local(&name));
        if self.root.is_none() {
            self.root = Some(name.clone());
            self.is_root_closed = is_empty;
        }
        let Some(kind) = kind else {
            self.at += length;
            return;
        };
        self.split_to(self.at);
        self.open = Some(Open { kind, name });
        self.at = length;
        if is_empty {
            self.close(length, pieces);
        }
    }

    fn end(&mut self, name_length: usize, length: usize, pieces: &mut Vec<Piece>) {
        let name = &self.buffer[self.at + 2..][..name_length];
        let is_root = self.root.as_deref() == Some(name);
        match &self.open {
            Some(open) if name == open.name => self.close(self.at + length, pieces),
            Some(_) if is_list(local(name)) => {
                self.close(self.at, pieces);
                self.at = length;
            }
            _ => self.at += length,
        }
        self.is_root_closed |= is_root;
    }

    /// Hands out the first bytes of the buffer as the piece that is open.
    fn close(&mut self, length: usize, pieces: &mut Vec<Piece>) {
        let body = self.split_to(length);
        self.at = 0;
        if let Some(Open { kind, .. }) = self.open.take() {
            pieces.push(Piece { kind, body });
        }
    }
}

/// The kind of piece that an element makes, by its name without prefix.
fn kind(name: &[u8]) -> Option<Kind> {
    Some(match name {
        b"record" | b"entry" | b"item" | b"header" => Kind::Record,
        b"error" => Kind::Error,
        b"resumptionToken" => Kind::ResumptionToken,
        b"totalResults" => Kind::TotalResults,
        b"pubDate" | b"date" => Kind::Date,
        _ => return None,
    })
}

/// Elements around records: a record does not reach beyond their end.
fn is_list(name: &[u8]) -> bool {
    matches!(
        name,
        b"ListRecords" | b"ListIdentifiers" | b"GetRecord" | b"OAI-PMH" | b"feed" | b"channel" | b"rss" | b"RDF"
    )
}

fn local(name: &[u8]) -> &[u8] {
    memchr(b':', name).map_or(name, |colon| &name[colon + 1..])
}

impl Search {
    /// Where `closing` starts from `at` on.
    fn find(&mut self, buffer: &[u8], at: usize, closing: &[u8]) -> Option<usize> {
        if at < self.from {
            *self = Self::default();
        }
        let start = at.max(self.to).min(buffer.len());
        let found = memmem::find(&buffer[start..], closing).map(|step| start + step);
        if found.is_none() {
            // Its start may be what the buffer ends with.
            *self = Self { from: at, to: buffer.len().saturating_sub(closing.len() - 1).max(self.to) };
        }
        found
    }
}

fn markup(buffer: &[u8], at: usize, is_end: bool, searches: &mut [Search; 3]) -> Markup {
    let (bytes, text) = (&buffer[at..], Markup::Other(1));
    for ((opening, closing), search) in SECTIONS.into_iter().zip(searches) {
        if bytes.starts_with(opening) {
            return match search.find(buffer, at + opening.len(), closing) {
                Some(end) => Markup::Other(end + closing.len() - at),
                // One that is never closed is text: the records after it count.
                None if is_end || bytes.len() > RECORD_BYTES_MAX => text,
                None => Markup::Unknown,
            };
        }
        if opening.starts_with(bytes) && !is_end {
            return Markup::Unknown;
        }
    }
    let is_closing = bytes.get(1) == Some(&b'/');
    let name = &bytes[1 + usize::from(is_closing)..];
    let Some(&first) = name.first() else { return if is_end { text } else { Markup::Unknown } };
    if !(first.is_ascii_alphabetic() || first == b'_' || !first.is_ascii()) {
        return text;
    }
    let length = match tag_length(bytes) {
        Tag::Length(length) => length,
        Tag::Open if !is_end => return Markup::Unknown,
        Tag::Open | Tag::None => return text,
    };
    let is_name = |byte: &u8| !byte.is_ascii_whitespace() && !b"/>".contains(byte);
    let name_length = name.iter().take_while(|byte| is_name(byte)).count();
    if is_closing { Markup::End { name_length, length } } else { Markup::Start { name_length, length } }
}

enum Tag {
    Length(usize),
    /// It does not end in these bytes.
    Open,
    /// It is none.
    None,
}

/// Bytes up to the `>` that stands in no quotes. No tag holds another `<`, and none is endless.
fn tag_length(bytes: &[u8]) -> Tag {
    let mut quote = None;
    for (at, &byte) in bytes.iter().enumerate().skip(1).take(TAG_BYTES_MAX) {
        match (quote, byte) {
            (None, b'>') => return Tag::Length(at + 1),
            (_, b'<') => return Tag::None,
            (None, b'"' | b'\'') => quote = Some(byte),
            (Some(open), byte) if byte == open => quote = None,
            _ => {}
        }
    }
    if bytes.len() > TAG_BYTES_MAX { Tag::None } else { Tag::Open }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(page: &[u8], step: usize) -> (Vec<(Kind, String)>, XmlCutter) {
        let (mut cutter, mut pieces) = (XmlCutter::default(), Vec::new());
        for chunk in page.chunks(step) {
            cutter.buffer().extend_from_slice(chunk);
            cutter.pull(false, &mut pieces);
        }
        cutter.pull(true, &mut pieces);
        let text = |piece: Piece| (piece.kind, String::from_utf8(piece.body.to_vec()).unwrap());
        (pieces.into_iter().map(text).collect(), cutter)
    }

    /// The pieces, which are the same wherever the page is cut on its way.
    fn pieces(page: &str) -> Vec<(Kind, String)> {
        let (whole, _) = cut(page.as_bytes(), page.len().max(1));
        for step in [1, 2, 3, 7, 64] {
            assert_eq!(cut(page.as_bytes(), step).0, whole, "in steps of {step}");
        }
        whole
    }

    fn records(page: &str) -> Vec<String> {
        pieces(page).into_iter().filter(|(kind, _)| *kind == Kind::Record).map(|(_, body)| body).collect()
    }

    #[test]
    fn a_page_gives_its_records_and_its_token() {
        let page = "\u{feff}<?xml version='1.0'?><!-- <record> --><o:OAI-PMH xmlns:o='x>y'><o:request>r</o:request>\
            <o:ListRecords><o:record><header/><m><record2/></m></o:record>\n<o:record a='>'>2</o:record>\
            <o:resumptionToken cursor=\"0\">1|2</o:resumptionToken></o:ListRecords></o:OAI-PMH>\n";
        assert_eq!(
            pieces(page),
            [
                (Kind::Record, "<o:record><header/><m><record2/></m></o:record>".to_owned()),
                (Kind::Record, "<o:record a='>'>2</o:record>".to_owned()),
                (Kind::ResumptionToken, "<o:resumptionToken cursor=\"0\">1|2</o:resumptionToken>".to_owned()),
            ]
        );
        let (_, cutter) = cut(page.as_bytes(), 5);
        assert_eq!((cutter.root(), cutter.is_whole()), (Some("OAI-PMH"), true));
        assert!(!cut(&page.as_bytes()[..page.len() - 12], 5).1.is_whole());
    }

    #[test]
    fn a_feed_gives_its_entries_and_what_it_says_of_itself() {
        let page = "<feed><title>x</title><o:totalResults>7</o:totalResults><o:startIndex/><entry><published>p</published></entry></feed>";
        let kinds: Vec<Kind> = pieces(page).into_iter().map(|(kind, _)| kind).collect();
        assert_eq!(kinds, [Kind::TotalResults, Kind::Record]);
        let page = "<rss><channel><pubDate>d</pubDate><item><pubDate>e</pubDate></item></channel></rss>";
        let kinds: Vec<Kind> = pieces(page).into_iter().map(|(kind, _)| kind).collect();
        assert_eq!(kinds, [Kind::Date, Kind::Record]);
    }

    #[test]
    fn a_broken_record_costs_no_other() {
        let page = "<l><record><a>1</a><record>2</record><record><![CDATA[</record>]]><!--</record>-->3</record>\
            <record>4 < 5 & <b</record><record>5<resumptionToken>t</resumptionToken></l>";
        assert_eq!(
            records(page),
            [
                "<record><a>1</a>",
                "<record>2</record>",
                "<record><![CDATA[</record>]]><!--</record>-->3</record>",
                "<record>4 < 5 & <b</record>",
                "<record>5",
            ]
        );
        assert_eq!(records("<rss><channel><item>1</item><item>2</channel></rss>"), ["<item>1</item>", "<item>2"]);
        assert_eq!(records("<l><record>1</record><record><![CDATA[2"), ["<record>1</record>", "<record><![CDATA[2"]);
        assert_eq!(
            records("<l><record>1<!-- </record><record>2</record>"),
            ["<record>1<!-- </record>", "<record>2</record>"]
        );
    }

    #[test]
    fn single_records_and_headers_are_records() {
        assert_eq!(records("<record>1</record>").len(), 1);
        assert_eq!(records("<ListIdentifiers><header status='deleted'/><header>1</header></ListIdentifiers>").len(), 2);
        let error = "<error code='badVerb'>no</error>";
        assert_eq!(pieces(&format!("<OAI-PMH>{error}</OAI-PMH>")), [(Kind::Error, error.to_owned())]);
        assert_eq!(records("plain text, 1 < 2"), Vec::<String>::new());
        assert_eq!(records(""), Vec::<String>::new());
    }

    #[test]
    fn what_is_never_closed_is_read_in_bounded_time() {
        for piece in ["<!--", "<![CDATA[", "<?", "<a '"] {
            let page = format!("<l><record>{}<record>2</record></l>", piece.repeat((9 << 20) / piece.len()));
            for step in [page.len(), 64 << 10] {
                let (pieces, _) = cut(page.as_bytes(), step);
                assert_eq!(pieces.last().map(|(_, body)| body.as_str()), Some("<record>2</record>"), "{piece}");
            }
        }
    }

    #[test]
    fn a_record_over_the_limit_is_cut_in_bounded_memory() {
        let (mut cutter, mut pieces) = (XmlCutter::default(), Vec::new());
        cutter.buffer().extend_from_slice(b"<l><record>");
        let mut longest = 0;
        for _ in 0..200 {
            cutter.buffer().extend_from_slice(&vec![b'x'; 256 << 10]);
            cutter.pull(false, &mut pieces);
            longest = longest.max(cutter.buffer().len());
        }
        cutter.buffer().extend_from_slice(b"</record><record>2</record></l>");
        cutter.pull(true, &mut pieces);
        assert!(longest <= RECORD_BYTES_MAX + (1 << 20), "{longest}");
        assert!(pieces[0].body.len() > RECORD_BYTES_MAX);
        assert_eq!((pieces.len(), &pieces[1].body[..]), (2, &b"<record>2</record>"[..]));
    }
}
