//! News: articles of RSS, Atom, RDF, CDF and JSON feeds.
//!
//! | format | read |
//! | --- | --- |
//! | RSS 0.91 to 2.0 | <https://www.rssboard.org/rss-specification>, with Dublin Core, Content, Media, iTunes, Slash, GeoRSS |
//! | RSS 0.90 and 1.0 (RDF) | <https://web.resource.org/rss/1.0/spec> |
//! | Atom 0.3 and 1.0 | <https://www.rfc-editor.org/rfc/rfc4287> |
//! | JSON Feed 1 and 1.1 | <https://www.jsonfeed.org/version/1.1/> |
//! | CDF | <https://www.w3.org/TR/NOTE-CDFsubmit.html> |
//!
//! What real feeds get wrong is read as [feedparser](https://feedparser.readthedocs.io) reads it: text before the
//! declaration, entities that nobody declared, bare ampersands, prefixes without a namespace, cut documents, wrong
//! charsets. Where this source differs stands in `docs/news-differences.md`. External entities are never read.
//!
//! **One record is one entry.** Its body is a small JSON envelope: where it was read, and the feed's document cut down to
//! slices of itself: its prolog, the tags around the entries, what the feed says of itself as far as it is short, the
//! entry. So a record stands alone, an entry that comes again unchanged has the same id whatever stands beside it, and
//! nothing in it is our invention. The record's id is `ARTICLE_ID.CONTENT_HASH.ENTRY_HASH`; the last part is of the feed and
//! of the id, address and date that the entry states.
//!
//! | way in | what |
//! | --- | --- |
//! | polling | `news.feeds` and the feeds of the OPML files in `news.opml`, one collector each |
//! | WebSub | feeds that name a hub, where `news.websub_callback_url` is set: what is new comes as it is published |
//! | files | documents of all formats above |
//!
//! **Manners.** Conditional requests; a feed is asked at half the pace at which it changes, never more often than each five
//! minutes nor than `ttl`, `sy:updatePeriod`, `Cache-Control` or `Expires` ask for, and not in its `skipHours` and `skipDays`; a second
//! between two requests to a host and two at a time; `Retry-After` holds for all feeds of a host; failures back off to a
//! day. Pages of articles are asked only where `news.full_text` is set and robots.txt allows it. `databroker feeds list` says
//! of each feed whether it answers, why not, when it is asked next and where it has moved to.
//!
//! **Terms of use.** A feed's content belongs to its publisher; most allow reading it, not publishing it anew.
//!
//! From raw to row:
//!
//! ```
//! use contract::{LogRecord, RawRecord, RowsBuilder, Span, Timestamp, row_json};
//!
//! let document = r#"<rss version="2.0"><channel><title>Norhaven</title><item><title>AT&amp;T &amp; tides</title>
//!     <link>http://example.org/tides?utm_source=rss</link><pubDate>Thu, 01 Jan 2026 10:00:00 EST</pubDate>"#;
//! let body = serde_json::json!({ "fetched_from": "norhaven.xml", "document": document }).to_string();
//! let time = Timestamp::parse_rfc3339("2026-01-01T15:00:00Z").unwrap();
//! let record = RawRecord { id: "1".into(), event_time: time, fetched_at: time, body: body.into() };
//!
//! let source = acquisition::source("news").unwrap();
//! let mut rows = RowsBuilder::new(source.schema);
//! let logged = LogRecord { partition: 0, offset: 7, appended_at: time, record };
//! rows.record(&logged, source.processor).unwrap();
//! let rows = rows.finish(Span { source: source.id, ranges: Vec::new() });
//!
//! let mut row = Vec::new();
//! row_json::write_row(&rows.silver, 0, &mut row);
//! let row: serde_json::Value = serde_json::from_slice(&row).unwrap();
//! assert_eq!(row["title"], "AT&T & tides");
//! assert_eq!(row["canonical_url"], "http://example.org/tides");
//! assert_eq!(row["published_at"], "2026-01-01T15:00:00Z");
//! assert_eq!(row["feed_title"], "Norhaven");
//! ```

mod article;
mod article_page;
mod cache;
mod charset;
mod charset_rare;
mod content;
mod date;
mod date_iso;
mod date_words;
mod discover;
mod entry;
mod envelope;
mod feed;
mod feed_collector;
#[cfg(test)]
mod feed_collector_test;
mod feed_health;
#[cfg(test)]
mod feed_memory_test;
mod feed_state;
mod feeds;
#[cfg(test)]
mod feeds_test;
mod fetch;
mod file;
mod gap;
mod hosts;
mod html;
mod json_feed;
mod language;
mod link_header;
mod links;
mod markup;
mod names;
mod nesting;
mod opml;
mod portions;
mod processor;
mod read;
mod references;
mod reject;
#[cfg(any(test, feature = "replay"))]
pub mod replay;
mod robots;
mod sample;
mod schedule;
mod schema;
mod settings;
mod split;
mod stopwords;
mod text;
mod tree;
mod websub;

pub use discover::Found;
pub use feed_health::{FeedCondition, FeedFailure, FeedHealth};
pub use feeds::{discover_feeds, feeds, import};
pub use opml::{ListedFeed, Opml, read_opml, write_opml};
pub use processor::NewsProcessor;
pub use schema::SCHEMA;
pub use settings::Settings;

use crate::Source;

pub(crate) const SOURCE: Source = Source {
    id: SCHEMA.source,
    schema: &SCHEMA,
    processor: &NewsProcessor,
    collectors: feeds::collectors,
    open_file: file::open_file,
    sample: sample::sample,
};
