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
pub(super) const ENTRIES_MAX: usize = 20_000;

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
    /// Bytes that are read of it where it is packed once more.
    pub(crate) bytes_max: usize,
    /// Links that entries of this feed have shared before: [`Split::shared_links`].
    pub(crate) shared_links: &'a [u64],
    /// Entries of this feed that had their link alone: [`Split::owners`].
    pub(crate) owners: &'a [u64],
}

impl Fetched<'_> {
    /// An empty document of a feed of which nothing is known.
    pub(crate) fn at(now: Timestamp) -> Self {
        let (shared_links, owners) = (&[], &[]);
        Self { bytes: &[], charset: None, feed_url: None, fetched_from: None, now, bytes_max: 0, shared_links, owners }
    }
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
    /// Hashes of links that several of its entries have and that identify none of them but their owners.
    pub(crate) shared_links: Vec<u64>,
    /// Hashes of entries that their link identifies: whoever shares it later is another article.
    pub(crate) owners: Vec<u64>,
}

/// A document, cut into its entries.
pub(super) struct Cut<'a> {
    pub(super) feed: Feed,
    /// Each entry, and where it stands.
    pub(super) entries: Vec<(&'a str, Entry)>,
    head: String,
    is_json: bool,
}

impl Cut<'_> {
    /// The document of one entry alone.
    fn document(&self, entry: &str) -> String {
        let head = &self.head;
        if self.is_json { format!("{head}\"items\":[{entry}]}}") } else { format!("{head}{entry}") }
    }
}

/// Cuts a document into records. It never fails: what is no feed is a record too.
pub(crate) fn split(fetched: Fetched<'_>) -> Split {
    let unpacked = unpack(fetched.bytes, fetched.bytes_max);
    let decoded = decode(&unpacked, fetched.charset);
    let mut notes = Vec::new();
    if decoded.is_lossy {
        notes.push(format!("some bytes are no {}", decoded.charset));
    }
    let mut cut = cut(&decoded.text);
    if cut.feed.format.is_none() {
        let records = vec![unreadable(fetched)];
        return Split { feed: cut.feed, records, notes, shared_links: Vec::new(), owners: Vec::new() };
    }
    if cut.entries.len() > ENTRIES_MAX {
        notes.push(format!("it has more than {ENTRIES_MAX} entries; the rest was left out"));
        cut.entries.truncate(ENTRIES_MAX);
    }
    let shared_links = shared_links(&cut.entries);
    let known: HashSet<u64> = fetched.owners.iter().copied().collect();
    let mut owners = Vec::new();
    let mut is_shared = |entry: &Entry| {
        let Some(link) = link_identity(entry) else { return false };
        let id = own_id(entry).or_else(|| own_title(entry).map(str::to_owned));
        let is_its_id = id.as_deref() == Some(link.as_str());
        let own = id.filter(|_| !is_its_id).map(|id| xxh3_64(format!("{link}\n{id}").as_bytes()));
        let hash = xxh3_64(link.as_bytes());
        let is_common = shared_links.contains(&hash) || fetched.shared_links.contains(&hash);
        let is_owner = is_its_id || own.is_some_and(|own| known.contains(&own));
        owners.extend(own.filter(|_| is_owner || !is_common));
        is_common && !is_owner
    };
    let records = cut.entries.iter().map(|(slice, entry)| {
        let envelope = Envelope {
            feed_url: fetched.feed_url.map(Cow::Borrowed),
            fetched_from: fetched.fetched_from.map(Cow::Borrowed),
            link_is_shared: is_shared(entry),
            page_url: None,
            page_text: None,
            document: Cow::Owned(cut.document(slice)),
        };
        record(&envelope, &cut.feed, entry, fetched.now)
    });
    let records = records.collect();
    Split { records, feed: cut.feed, notes, shared_links: shared_links.into_iter().collect(), owners }
}

/// Reads a document of one entry or more. A text that is no feed gives a feed without a format.
pub(super) fn cut(text: &str) -> Cut<'_> {
    if text.trim_start().starts_with('{') {
        let nothing = || Cut { feed: Feed::default(), entries: Vec::new(), head: String::new(), is_json: true };
        let document = json_feed::document(text);
        return document.map_or_else(
            |_| nothing(),
            |document| Cut { feed: document.feed, entries: document.items, head: document.head, is_json: true },
        );
    }
    let document = read::document(text);
    let head = document.head.iter().filter_map(|range| text.get(range.clone())).collect();
    let entries = document.entries.into_iter();
    let entries = entries.map(|(range, entry)| (text.get(range).unwrap_or_default(), entry)).collect();
    Cut { feed: document.feed, entries, head, is_json: false }
}

fn record(envelope: &Envelope<'_>, feed: &Feed, entry: &Entry, now: Timestamp) -> RawRecord {
    let article = article::make(envelope, feed, entry, now);
    RawRecord {
        id: format!("{}.{}.{}", article.article_id, article.content_hash, article.entry_hash).into(),
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

/// The links that identify no entry but the one that had it first or whose id it is, since entries with other ids and other titles have them too: pages of a status, of
/// a comic, of a day. Where only the id differs (publishers count versions in it) or only the title, the entries are
/// forms of one article. What has no title is told by its text.
fn shared_links(entries: &[(&str, Entry)]) -> HashSet<u64> {
    let mut forms: HashMap<u64, (HashSet<String>, HashSet<&str>)> = HashMap::new();
    for (_, entry) in entries {
        let Some(link) = link_identity(entry) else { continue };
        let (ids, titles) = forms.entry(xxh3_64(link.as_bytes())).or_default();
        ids.extend(own_id(entry));
        titles.extend(own_title(entry));
    }
    let is_shared = |(_, (ids, titles)): &(u64, (HashSet<String>, HashSet<&str>))| ids.len() > 1 && titles.len() > 1;
    forms.into_iter().filter(is_shared).map(|(link, _)| link).collect()
}

/// What tells an entry from others with its link; of an id that is an address, what identifies that.
fn own_id(entry: &Entry) -> Option<String> {
    let form = |guid: &str| canonical(guid).as_ref().and_then(identity).unwrap_or_else(|| guid.to_owned());
    entry.guid.as_deref().filter(|guid| !guid.is_empty()).map(form)
}

fn own_title(entry: &Entry) -> Option<&str> {
    let texts = [&entry.title, &entry.content, &entry.summary];
    texts.into_iter().flatten().find(|text| !text.value.is_empty()).map(|title| title.value.as_str())
}

/// What identifies an entry's link.
fn link_identity(entry: &Entry) -> Option<String> {
    let link = entry.original_link.as_deref().or(entry.link.as_deref())?;
    canonical(link).as_ref().and_then(identity)
}

/// Servers send gzip files as they are; what cannot be unpacked whole is read as far as it goes.
fn unpack(bytes: &[u8], bytes_max: usize) -> Cow<'_, [u8]> {
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return Cow::Borrowed(bytes);
    }
    let mut unpacked = Vec::new();
    let outcome = MultiGzDecoder::new(bytes).take(bytes_max as u64).read_to_end(&mut unpacked);
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
        Fetched { bytes, fetched_from: Some(from), bytes_max: 1 << 20, ..Fetched::at(now) }
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
                let stated = format!("{}.{}.", text("article_id"), text("content_hash"));
                assert!(id.starts_with(&stated), "{id} {stated} {}", path.display());
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

    fn item(id: &str, title: &str) -> String {
        format!("<item><guid>{id}</guid><link>http://a.org/s</link><title>{title}</title></item>")
    }

    fn feed(items: &str) -> String {
        format!("<rss><channel><title>S</title>{items}</channel></rss>")
    }

    #[test]
    fn entries_that_share_a_link_are_told_apart_by_their_ids_and_from_then_on_also_alone() {
        let both = feed(&(item("1", "One") + &item("2", "Two")));
        let found = split(fetched(both.as_bytes(), "f"));
        assert_ne!(article_of(&found.records[0]), article_of(&found.records[1]));
        let alone = feed(&item("1", "One"));
        let known = split(Fetched { shared_links: &found.shared_links, ..fetched(alone.as_bytes(), "f") });
        assert_eq!(known.records[0].id, found.records[0].id);
        assert_ne!(split(fetched(alone.as_bytes(), "f")).records[0].id, found.records[0].id);
    }

    #[test]
    fn an_entry_that_had_its_link_alone_or_whose_id_it_is_stays_the_same_article_when_others_share_it() {
        for id in ["1", "http://a.org/s", ""] {
            let alone = feed(&item(id, "One"));
            let first = split(fetched(alone.as_bytes(), "f"));
            let (one, owners) = (article_of(&first.records[0]), &first.owners);
            let mut shared_links = Vec::new();
            for title in ["One", if id.is_empty() { "One" } else { "One, changed" }] {
                let all = feed(&(item("2", "Two") + &item(id, title) + &item("3", "Three")));
                let now = split(Fetched { shared_links: &shared_links, owners, ..fetched(all.as_bytes(), "f") });
                let [two, still, three] = [0, 1, 2].map(|place| article_of(&now.records[place]));
                assert_eq!(still, one, "{id} {title}");
                assert!(two != one && three != one && two != three, "{id} {title}");
                assert_eq!(&now.owners, owners, "they had it never alone");
                shared_links = now.shared_links;
                let other = feed(&item("2", "Two"));
                let other = split(Fetched { shared_links: &shared_links, owners, ..fetched(other.as_bytes(), "f") });
                assert_eq!(article_of(&other.records[0]), two, "also when the first is gone");
            }
        }
    }

    fn article_of(record: &RawRecord) -> &str {
        record.id.as_str().split('.').next().unwrap()
    }

    #[test]
    fn versions_of_an_article_are_one_article_whatever_stands_beside_them() {
        let item = |version: u8, title: &str| {
            let link = "http://a.org/story";
            format!(
                "<item><guid isPermaLink='false'>{link}#{version}</guid><link>{link}</link><title>{title}</title></item>"
            )
        };
        let feed =
            |items: &str| format!("<rss><channel><title>S</title><link>http://a.org/</link>{items}</channel></rss>");
        let versions = [item(0, "Story"), item(1, "Story, updated"), item(2, "Story, updated") + &item(0, "Story")];
        let records = versions.map(|items| split(fetched(feed(&items).as_bytes(), "f")).records).concat();
        let articles: HashSet<&str> = records.iter().map(article_of).collect();
        let rows: HashSet<&str> = records.iter().map(|record| record.id.as_str()).collect();
        assert_eq!((articles.len(), rows.len(), records.len()), (1, 3, 4));
    }

    #[test]
    fn entries_that_state_another_id_address_date_or_feed_are_rows_of_their_own() {
        let row = |feed: &str, id: &str, query: &str, date: &str| {
            let text = format!(
                "<rss><channel><title>{feed}</title><item><guid>{id}</guid><link>http://www.a.org/s{query}</link>\
                 <title>T</title><pubDate>{date}</pubDate></item></channel></rss>"
            );
            split(fetched(text.as_bytes(), "f")).records.remove(0).id.to_string()
        };
        let one = row("S", "1", "", "2026-01-01");
        let others =
            [row("S", "2", "", "2026-01-01"), row("S", "1", "", "2026-01-02"), row("R", "1", "", "2026-01-01")];
        for other in &others {
            assert_eq!(
                one.rsplit_once('.').unwrap().0,
                other.rsplit_once('.').unwrap().0,
                "the same article and content"
            );
            assert_ne!(&one, other);
        }
        assert_eq!(row("S", "1", "?utm_source=x", "2026-01-01"), one);
    }

    #[test]
    fn what_is_packed_once_more_is_read_up_to_the_limit() {
        let item = "<item><guid>a</guid></item>";
        let feed = format!("<rss><channel>{item}{}{item}", " ".repeat(100_000));
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        std::io::Write::write_all(&mut encoder, feed.as_bytes()).unwrap();
        let packed = encoder.finish().unwrap();
        for (bytes_max, entries) in [(1_000, 1), (1 << 20, 2)] {
            let split = split(Fetched { bytes_max, ..fetched(&packed, "f") });
            assert_eq!(split.records.len(), entries, "{bytes_max}");
        }
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
