//! From a fetched document to records, one per entry. What files and the live collector both use.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::io::Read;

use contract::{RawRecord, Timestamp};
use flate2::read::MultiGzDecoder;
use xxhash_rust::xxh3::xxh3_64;

use super::article;
use super::charset::decode;
use super::envelope::Envelope;
use super::feed::{Entry, Feed};
use super::links::{canonical, identity};
use super::{json_feed, read};

/// Entries of one document that become records; feeds seen have at most 1,000, archives of blogs ten times that.
const ENTRIES_MAX: usize = 20_000;

/// Bytes of a document that came compressed though its header did not say so.
const UNPACKED_BYTES_MAX: u64 = 64 << 20;

/// A document as it came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fetched<'a> {
    /// Its bytes, transfer and content encodings undone.
    pub(crate) bytes: &'a [u8],
    /// The charset parameter of its `Content-Type`, if it has one.
    pub(crate) charset: Option<&'a str>,
    /// The feed's address as subscribed to; none for a file.
    pub(crate) feed_url: Option<&'a str>,
    /// The address after redirects, or the file's name.
    pub(crate) fetched_from: Option<&'a str>,
    /// When it came.
    pub(crate) now: Timestamp,
}

/// What a document holds.
#[derive(Debug)]
pub(crate) struct Split {
    /// What the feed says of itself; without a format if the document is no feed.
    pub(crate) feed: Feed,
    /// A record per entry, in the document's order. Of what is no feed one, which the processor rejects with the reason.
    pub(crate) records: Vec<RawRecord>,
    /// What is odd about it, for the user.
    pub(crate) notes: Vec<String>,
}

/// Cuts a document into records. It never fails: what is no feed is a record too.
pub(crate) fn split(fetched: Fetched<'_>) -> Split {
    let unpacked = unpack(fetched.bytes);
    let decoded = decode(&unpacked, fetched.charset);
    let mut notes = Vec::new();
    if decoded.is_lossy {
        notes.push(format!("some bytes are no {}", decoded.charset));
    }
    let (feed, mut entries) = cut(&decoded.text);
    if feed.format.is_none() {
        return Split { feed, records: vec![unreadable(fetched)], notes };
    }
    if entries.len() > ENTRIES_MAX {
        notes.push(format!("it has more than {ENTRIES_MAX} entries; the rest was left out"));
        entries.truncate(ENTRIES_MAX);
    }
    let is_shared = shared_links(&entries);
    let records = entries.into_iter().zip(is_shared).map(|((document, entry), link_is_shared)| {
        let envelope = Envelope {
            feed_url: fetched.feed_url.map(Cow::Borrowed),
            fetched_from: fetched.fetched_from.map(Cow::Borrowed),
            link_is_shared,
            page_url: None,
            page_text: None,
            document: Cow::Owned(document),
        };
        record(&envelope, &feed, &entry, fetched.now)
    });
    let records = records.collect();
    Split { records, feed, notes }
}

/// Reads a document of one entry or more: the feed, and each entry with its own document. A text that is no feed gives
/// a feed without a format.
pub(super) fn cut(text: &str) -> (Feed, Vec<(String, Entry)>) {
    if text.trim_start().starts_with('{') {
        let Ok(document) = json_feed::document(text) else { return (Feed::default(), Vec::new()) };
        let mut head = serde_json::Value::Object(document.head).to_string();
        head.truncate(head.len() - 1);
        let own = |item: &str| format!("{head},\"items\":[{item}]}}");
        let entries = document.items.into_iter().take(ENTRIES_MAX + 1).map(|(item, entry)| (own(item), entry));
        return (document.feed, entries.collect());
    }
    let document = read::document(text);
    let slices = document.head.iter().filter_map(|range| text.get(range.clone()));
    let head: String = slices.collect();
    let own = |range| format!("{head}{}", text.get(range).unwrap_or_default());
    let entries = document.entries.into_iter().take(ENTRIES_MAX + 1).map(|(range, entry)| (own(range), entry));
    (document.feed, entries.collect())
}

fn record(envelope: &Envelope<'_>, feed: &Feed, entry: &Entry, now: Timestamp) -> RawRecord {
    let article = article::make(envelope, feed, entry, now);
    RawRecord {
        id: format!("{}.{}", article.article_id, article.content_hash).into(),
        event_time: article.published_at,
        fetched_at: now,
        body: serde_json::to_vec(envelope).unwrap_or_default().into(),
    }
}

fn unreadable(fetched: Fetched<'_>) -> RawRecord {
    RawRecord {
        id: format!("document.{:016x}", xxh3_64(fetched.bytes)).into(),
        event_time: fetched.now,
        fetched_at: fetched.now,
        body: bytes::Bytes::copy_from_slice(fetched.bytes),
    }
}

/// Of each entry, whether one with another id has the same link.
fn shared_links(entries: &[(String, Entry)]) -> Vec<bool> {
    let keys: Vec<Option<(String, &str)>> = entries.iter().map(|(_, entry)| link_key(entry)).collect();
    let mut guids: HashMap<&str, HashSet<&str>> = HashMap::new();
    for (link, guid) in keys.iter().flatten() {
        guids.entry(link).or_default().insert(guid);
    }
    let is_shared = |(link, _): &(String, &str)| guids.get(link.as_str()).is_some_and(|guids| guids.len() > 1);
    keys.iter().map(|key| key.as_ref().is_some_and(is_shared)).collect()
}

/// What identifies an entry's link, and its id.
fn link_key(entry: &Entry) -> Option<(String, &str)> {
    let link = entry.original_link.as_deref().or(entry.link.as_deref())?;
    Some((canonical(link).as_ref().and_then(identity)?, entry.guid.as_deref()?))
}

/// Servers send gzip files as they are; what cannot be unpacked whole is read as far as it goes.
fn unpack(bytes: &[u8]) -> Cow<'_, [u8]> {
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return Cow::Borrowed(bytes);
    }
    let mut unpacked = Vec::new();
    let outcome = MultiGzDecoder::new(bytes).take(UNPACKED_BYTES_MAX).read_to_end(&mut unpacked);
    if unpacked.is_empty() && outcome.is_err() { Cow::Borrowed(bytes) } else { Cow::Owned(unpacked) }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use contract::{LogRecord, RowsBuilder, Span, row_json};

    use super::super::{NewsProcessor, SCHEMA};
    use super::*;

    fn fetched<'a>(bytes: &'a [u8], from: &'a str) -> Fetched<'a> {
        let now = Timestamp::parse_rfc3339("2026-05-06T07:08:09Z").unwrap();
        Fetched { bytes, charset: None, feed_url: None, fetched_from: Some(from), now }
    }

    fn row(record: RawRecord) -> Option<serde_json::Value> {
        let mut builder = RowsBuilder::new(&SCHEMA);
        let logged = LogRecord { partition: 0, offset: 0, appended_at: record.fetched_at, record };
        builder.record(&logged, &NewsProcessor).ok()?;
        let rows = builder.finish(Span { source: SCHEMA.source, ranges: Vec::new() });
        let mut row = Vec::new();
        row_json::write_row(&rows.silver, 0, &mut row);
        Some(serde_json::from_slice(&row).unwrap())
    }

    #[test]
    fn a_record_alone_says_what_it_said_in_its_feed() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("news/fixture");
        let mut rows = 0;
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            let bytes = std::fs::read(&path).unwrap();
            let records = split(fetched(&bytes, "file")).records;
            for (id, row) in records.into_iter().filter_map(|record| Some((record.id.to_string(), row(record)?))) {
                let text = |name: &str| row[name].as_str().unwrap().to_owned();
                assert_eq!(format!("{}.{}", text("article_id"), text("content_hash")), id, "{}", path.display());
                rows += 1;
            }
        }
        assert!(rows > 30, "{rows}");
    }

    #[test]
    fn what_stands_beside_an_entry_does_not_change_it() {
        let feed =
            |items: &str| format!("<rss><channel><title>T</title><link>http://a.org/</link>{items}</channel></rss>");
        let one = "<item><guid>http://a.org/1</guid><title>One</title></item>";
        let alone = split(fetched(feed(one).as_bytes(), "f")).records;
        let more = feed(&format!("<item><title>Two</title></item>{one}<ttl>5</ttl>"));
        let beside = split(fetched(more.as_bytes(), "f"));
        assert_eq!(beside.feed.ttl_minutes, Some(5), "also after the entries");
        assert_eq!(beside.records[1].id, alone[0].id);
        let body = std::str::from_utf8(&alone[0].body).unwrap();
        let document = "<rss><channel><title>T</title><link>http://a.org/</link><item><guid>http://a.org/1</guid><title>One</title></item>";
        assert_eq!(body, format!(r#"{{"fetched_from":"f","document":"{document}"}}"#));
    }

    #[test]
    fn entries_that_share_a_link_are_told_apart_by_their_ids() {
        let feed = "<rss><channel><item><guid isPermaLink='false'>1</guid><link>http://a.org/s</link></item>\
            <item><guid isPermaLink='false'>2</guid><link>http://a.org/s</link></item></channel></rss>";
        let records = split(fetched(feed.as_bytes(), "f")).records;
        assert_ne!(records[0].id, records[1].id);
    }

    #[test]
    fn what_is_no_feed_is_one_record_with_its_bytes() {
        for bytes in [&b""[..], b"<html><body>", b"\xff\xfe\0", b"{}", b"\x1f\x8bno gzip"] {
            let split = split(fetched(bytes, "f"));
            assert_eq!((split.feed.format, split.records.len()), (None, 1));
            assert_eq!(split.records[0].body, bytes);
            assert_eq!(row(split.records[0].clone()), None);
        }
    }
}
