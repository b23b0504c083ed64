//! From the bytes of a page or a file to records: what each is called, and when it happened.

use bytes::{Bytes, BytesMut};
use contract::limits::RECORD_BYTES_MAX;
use contract::{RawRecord, RecordId, Timestamp};
use encoding_rs::{Encoding, UTF_8};
use memchr::{memchr, memmem};
use xxhash_rust::xxh3::xxh3_64;

use super::article::Article;
use super::cut::{Kind, XmlCutter};
use super::time::parse_time;
use super::xml::Element;
use crate::file::Cutter;
use crate::unpack::READ_BYTES_MAX;

/// Bytes from which the form of a file is told; the longest head before a first element seen has 2 kB.
const HEAD_BYTES: usize = 64 << 10;

/// Bytes that are allocated at once for what is read; bodies are slices of these.
const CHUNK_BYTES: usize = 1 << 20;

/// Digits of the hash in an id.
const HASH_LENGTH: usize = 16;

/// Elements that a page of ours starts with, or has soon after its start.
const ROOTS: &[&[u8]] = &[b"OAI-PMH", b"feed", b"rss", b"RDF", b"record", b"entry", b"item", b"header"];

/// One record. Its id is that of the paper and its version, where the record names it, and a hash of what it says: seen
/// again unchanged it is a duplicate, also with other markup, and whatever changes in it makes a row. What cannot be read
/// has a hash of its bytes. It happened when the version came to be; where it does not say so, at `listed_at`.
pub(super) fn record(body: Bytes, listed_at: Option<Timestamp>, now: Timestamp) -> RawRecord {
    let (id, event_time) = match Article::parse(&body) {
        Ok(article) => {
            let version = article.identifier.version.map(|version| format!("v{version}")).unwrap_or_default();
            (format!("{}{version}.{:016x}", article.identifier.id, article.fingerprint()), article.event_time())
        }
        Err(_) => (format!("{:016x}", xxh3_64(&body)), None),
    };
    RawRecord { id: RecordId::from(id), event_time: event_time.or(listed_at).unwrap_or(now), fetched_at: now, body }
}

/// The paper and version in the id of a record; all of the id where it names none.
pub(super) fn paper_of(id: &str) -> &str {
    id.rsplit_once('.').filter(|(_, hash)| hash.len() == HASH_LENGTH).map_or(id, |(paper, _)| paper)
}

/// The text of a piece that holds one value.
pub(super) fn value(body: &[u8]) -> Option<String> {
    let element = Element::parse(&String::from_utf8_lossy(body)).ok()?;
    Some(element.text().trim().to_owned()).filter(|text| !text.is_empty())
}

/// Cuts a file: pages of OAI-PMH, Atom, RSS; lines of a snapshot; or anything else as one record, to be rejected.
#[derive(Debug, Default)]
pub(super) struct FileCutter {
    form: Form,
    xml: XmlCutter,
    encoding: Option<&'static Encoding>,
    listed_at: Option<Timestamp>,
    records: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Form {
    /// Not yet told.
    #[default]
    Unknown,
    Xml,
    Json,
    /// None of ours: one record.
    Other,
    /// The rest of what is none of ours.
    Rest,
}

impl FileCutter {
    fn tell_form(&mut self, is_end: bool) {
        let buffer = self.xml.buffer();
        let head = &buffer[..buffer.len().min(HEAD_BYTES)];
        let start = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
        self.form = match start.first() {
            Some(b'{' | b'[') => Form::Json,
            _ if ROOTS.iter().any(|root| has_element(head, root)) => Form::Xml,
            Some(_) if is_end || buffer.len() >= HEAD_BYTES => Form::Other,
            _ => return,
        };
        self.encoding = declared_encoding(head);
    }

    fn push(&mut self, body: Bytes, now: Timestamp, records: &mut Vec<RawRecord>) {
        self.records += 1;
        // A record stands alone, without the declaration of its page: so it is UTF-8.
        let body = match self.encoding {
            Some(encoding) => Bytes::from(encoding.decode_without_bom_handling(&body).0.into_owned()),
            None => body,
        };
        records.push(record(body, self.listed_at, now));
    }

    fn cut_xml(&mut self, is_end: bool, now: Timestamp, records: &mut Vec<RawRecord>) {
        let mut pieces = Vec::new();
        self.xml.pull(is_end, &mut pieces);
        for piece in pieces {
            match piece.kind {
                Kind::Record | Kind::Error => self.push(piece.body, now, records),
                Kind::Date => self.listed_at = value(&piece.body).and_then(|text| parse_time(&text)).or(self.listed_at),
                Kind::ResumptionToken | Kind::TotalResults => {}
            }
        }
    }

    fn cut_json(&mut self, is_end: bool, now: Timestamp, records: &mut Vec<RawRecord>) {
        while let Some(length) = json_length(self.xml.buffer(), is_end) {
            let piece = self.xml.buffer().split_to(length).freeze();
            let piece = trim(&piece, b"[,]\r\n\t \xef\xbb\xbf");
            if !piece.is_empty() {
                self.push(piece, now, records);
            }
        }
    }

    fn cut_other(&mut self, is_end: bool, now: Timestamp, records: &mut Vec<RawRecord>) {
        let length = self.xml.buffer().len();
        if is_end || length > RECORD_BYTES_MAX {
            let piece = self.xml.buffer().split_to(length.min(RECORD_BYTES_MAX + 1)).freeze();
            self.push(piece, now, records);
            self.form = Form::Rest;
        }
    }
}

impl Cutter for FileCutter {
    fn buffer(&mut self) -> &mut BytesMut {
        let buffer = self.xml.buffer();
        if buffer.capacity() - buffer.len() < READ_BYTES_MAX {
            buffer.reserve(CHUNK_BYTES);
        }
        buffer
    }

    fn cut(&mut self, is_end: bool, now: Timestamp, records: &mut Vec<RawRecord>) {
        if self.form == Form::Unknown {
            self.tell_form(is_end);
        }
        match self.form {
            Form::Unknown => {}
            Form::Xml => self.cut_xml(is_end, now, records),
            Form::Json => self.cut_json(is_end, now, records),
            Form::Other => self.cut_other(is_end, now, records),
            Form::Rest => self.xml.buffer().clear(),
        }
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.form == Form::Xml && !self.xml.is_whole() {
            let root = self.xml.root().unwrap_or_default();
            notes.push(format!("it ends before its `{root}` does; {} records were read", self.records));
        } else if self.records == 0 {
            notes.push("there is no record in it".to_owned());
        }
        notes.extend(self.encoding.map(|encoding| format!("it is {}, read as UTF-8", encoding.name())));
        if self.form == Form::Rest {
            notes.push("neither a page of OAI-PMH, Atom or RSS nor lines of JSON".to_owned());
        }
        notes
    }
}

/// Whether an element of a name starts in these bytes, with or without a prefix.
fn has_element(bytes: &[u8], name: &[u8]) -> bool {
    memmem::find_iter(bytes, name).any(|at| {
        let is_end = bytes.get(at + name.len()).is_none_or(|next| b" \t\r\n/>".contains(next));
        let before = &bytes[..at];
        let prefix = before.iter().rev().take(32).position(|&byte| byte == b'<');
        let is_prefix = |length: usize| {
            let prefix = &before[at - length..];
            prefix.is_empty() || prefix.ends_with(b":") && !prefix.iter().any(u8::is_ascii_whitespace)
        };
        is_end && prefix.is_some_and(is_prefix)
    })
}

/// What the declaration says, unless it is UTF-8 or nothing known; UTF-16 has become UTF-8 on the way here.
fn declared_encoding(head: &[u8]) -> Option<&'static Encoding> {
    let declaration = &head[memmem::find(head, b"<?xml")?..];
    let declaration = &declaration[..memchr(b'>', declaration)?];
    let label = &declaration[memmem::find(declaration, b"encoding")? + "encoding".len()..];
    let label = label.trim_ascii_start().strip_prefix(b"=")?.trim_ascii_start();
    let quote = *label.first().filter(|quote| b"\"'".contains(quote))?;
    let label = &label[1..][..memchr(quote, &label[1..])?];
    Encoding::for_label(label).filter(|&encoding| encoding != UTF_8 && encoding.is_ascii_compatible())
}

/// Bytes of the next JSON object with what stands before it on its line; an object may go over lines. None when more
/// bytes are needed.
fn json_length(bytes: &[u8], is_end: bool) -> Option<usize> {
    let (mut depth, mut at, mut starts_line) = (0_usize, 0, false);
    while let Some(&byte) = bytes.get(at) {
        let mut next = at + 1;
        match byte {
            // An object inside which another one starts a line is broken.
            b'{' if starts_line && depth > 0 => return Some(at),
            b'{' => depth += 1,
            b'}' if depth == 1 => return Some(next),
            b'}' => depth = depth.saturating_sub(1),
            b'\n' if depth == 0 => return Some(next),
            b'"' if depth > 0 => match string_end(bytes, next) {
                Some(end) => next = end,
                None => break,
            },
            _ => {}
        }
        starts_line = byte == b'\n';
        at = next;
    }
    let is_last = is_end || bytes.len() > RECORD_BYTES_MAX;
    (is_last && !bytes.is_empty()).then(|| bytes.len().min(RECORD_BYTES_MAX + 1))
}

/// Where a string ends: at its quote, or at the end of its line, since JSON strings hold no line breaks.
fn string_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += memchr::memchr3(b'"', b'\\', b'\n', bytes.get(at..)?)?;
        match bytes[at] {
            b'"' => return Some(at + 1),
            b'\n' => return Some(at),
            _ => at += 2,
        }
    }
}

fn trim(bytes: &Bytes, marks: &[u8]) -> Bytes {
    let is_mark = |byte: &u8| marks.contains(byte);
    let start = bytes.iter().position(|byte| !is_mark(byte)).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|byte| !is_mark(byte)).map_or(start, |last| last + 1);
    bytes.slice(start..end.max(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_700_000_000_000_000);

    fn cut(file: &[u8], step: usize) -> (Vec<RawRecord>, Vec<String>) {
        let (mut cutter, mut records) = (FileCutter::default(), Vec::new());
        for chunk in file.chunks(step) {
            cutter.buffer().extend_from_slice(chunk);
            cutter.cut(false, NOW, &mut records);
        }
        cutter.cut(true, NOW, &mut records);
        (records, cutter.notes())
    }

    /// Bodies and notes, which are the same in whatever steps the file is read.
    fn read(file: impl AsRef<[u8]>) -> (Vec<String>, Vec<String>) {
        let file = file.as_ref();
        let whole = cut(file, file.len().max(1));
        for step in [1, 3, 64] {
            assert_eq!(cut(file, step), whole, "in steps of {step}");
        }
        let text = |record: RawRecord| String::from_utf8_lossy(&record.body).into_owned();
        (whole.0.into_iter().map(text).collect(), whole.1)
    }

    #[test]
    fn an_id_names_paper_version_and_content() {
        let entry = |title: &str| {
            let times = "<published>2026-01-01T00:00:00Z</published><updated>2026-01-02T00:00:00Z</updated>";
            let text =
                format!("<entry><id>http://arxiv.org/abs/2601.00001v2</id>{times}<title>{title}</title></entry>");
            record(text.into(), None, NOW)
        };
        let (one, other) = (entry("One"), entry("Other"));
        assert_eq!(one.event_time.to_string(), "2026-01-02T00:00:00Z");
        assert!(one.id.as_str().starts_with("2601.00001v2.") && one.id.as_str().len() == 13 + HASH_LENGTH);
        assert_eq!(paper_of(one.id.as_str()), "2601.00001v2");
        assert_eq!(entry("One").id, one.id);
        assert_ne!(other.id, one.id);
        let broken = record("<entry>".into(), Some(Timestamp(5)), NOW);
        assert_eq!((broken.id.as_str(), broken.event_time), (&*format!("{:016x}", xxh3_64(b"<entry>")), Timestamp(5)));
        assert_eq!(paper_of(broken.id.as_str()), broken.id.as_str());
        assert_eq!(paper_of("2601.00001v2"), "2601.00001v2");
    }

    /// The id of a record of OAI-PMH with this in its metadata and header.
    fn id(metadata: &str, header: &str) -> RecordId {
        let text = format!(
            "<record><header><identifier>oai:arXiv.org:0705.0001</identifier><datestamp>2026-01-02</datestamp>{header}\
             </header><metadata><arXivRaw><id>0705.0001</id>{metadata}</arXivRaw></metadata></record>"
        );
        record(text.into(), None, NOW).id
    }

    #[test]
    fn the_same_content_in_other_markup_has_the_same_id() {
        let version = "<version version='v1'><date>2026-01-01</date><size>1kb</size></version>";
        let plain = id(&format!("<title>A B</title>{version}<abstract>C &lt; D</abstract>"), "<setSpec>cs</setSpec>");
        let other =
            format!("\n  <title>\n A\n  B</title>\n<abstract><![CDATA[ C < D]]></abstract><proxy/>\n {version}");
        assert_eq!(id(&other, "\n<setSpec>cs:cs:LG</setSpec>"), plain);
        for change in ["<doi>10.1/x</doi>", "<comments>withdrawn</comments>", "<authors>A B</authors>"] {
            assert_ne!(id(&format!("{other}{change}"), ""), plain, "{change}");
        }
        let split = |title: &str, text: &str| id(&format!("<title>{title}</title><abstract>{text}</abstract>"), "");
        assert_ne!(split("A", "B C"), split("A B", "C"));
    }

    #[test]
    fn a_listing_made_again_has_the_ids_it_had() {
        let entry = |updated: &str, day: &str, kind: &str| {
            let text = format!(
                "<entry><id>oai:arXiv.org:2601.00001v1</id><updated>{updated}</updated><title>T</title><published>{day}\
                 </published><announce_type>{kind}</announce_type></entry>"
            );
            record(text.into(), None, NOW)
        };
        let first = entry("2026-01-05T04:00:02.388418+00:00", "2026-01-05T00:00:00-05:00", "new");
        let again = entry("2026-01-05T09:30:00.000001+00:00", "2026-01-05T00:00:00-05:00", "new");
        assert_eq!((&first.id, first.event_time), (&again.id, again.event_time));
        assert_ne!(first.id, entry("2026-01-06T04:00:02+00:00", "2026-01-06T00:00:00-05:00", "cross").id);
    }

    #[test]
    fn lines_are_cut_also_around_broken_ones() {
        let (bodies, notes) =
            read("{\"a\":\"}\\\"\"}\n\n{\"b\":{\"c\":\"x\n{\"d\":1}{\"e\":2} junk\njunk\n{\"f\":[\n {}]}");
        let expected =
            ["{\"a\":\"}\\\"\"}", "{\"b\":{\"c\":\"x", "{\"d\":1}", "{\"e\":2}", "junk", "junk", "{\"f\":[\n {}]}"];
        assert_eq!(bodies, expected);
        assert!(notes.is_empty(), "{notes:?}");
        assert_eq!(read("[{\"a\":1},\n{\"b\":2}]\n").0, ["{\"a\":1}", "{\"b\":2}"]);
    }

    #[test]
    fn a_listing_gives_its_time_to_items_without_one() {
        let (records, _) = cut(
            b"<rdf:RDF><channel><dc:date>2018-05-23T20:30:00-05:00</dc:date></channel><item><link>http://arxiv.org/abs/1805.08875</link></item></rdf:RDF>",
            9,
        );
        assert_eq!(records[0].event_time.to_string(), "2018-05-24T01:30:00Z");
    }

    #[test]
    fn a_page_in_another_encoding_becomes_utf_8() {
        let page = b"<?xml version='1.0' encoding='ISO-8859-1'?><feed><entry>caf\xe9</entry></feed>";
        assert_eq!(
            read(page),
            (vec!["<entry>café</entry>".to_owned()], vec!["it is windows-1252, read as UTF-8".to_owned()])
        );
    }

    #[test]
    fn what_is_no_page_is_one_record_and_told() {
        let (bodies, notes) = read("<!DOCTYPE html><html><body>503 items</body></html>");
        assert_eq!((bodies.len(), notes.len()), (1, 1));
        assert_eq!(notes, ["neither a page of OAI-PMH, Atom or RSS nor lines of JSON"]);
        let (records, _) = cut(&vec![b'x'; 3 * RECORD_BYTES_MAX], 1 << 18);
        assert_eq!((records.len(), records[0].body.len()), (1, RECORD_BYTES_MAX + 1));
    }

    #[test]
    fn an_empty_answer_and_a_cut_page_are_told() {
        assert_eq!(read(""), (Vec::new(), vec!["there is no record in it".to_owned()]));
        assert_eq!(read("<feed></feed>"), (Vec::new(), vec!["there is no record in it".to_owned()]));
        let (bodies, notes) = read("<feed><entry>1</entry><entry>");
        assert_eq!(bodies, ["<entry>1</entry>", "<entry>"]);
        assert_eq!(notes, ["it ends before its `feed` does; 2 records were read"]);
    }
}
