//! A document in XML: what the feed says about itself, and where its entries are.

use std::ops::Range;

use super::content::{self, Default as Kind};
use super::entry::{self, Surroundings};
use super::feed::{Entry, Feed, Format};
use super::html::{one_line, to_text};
use super::links::join;
use super::tree::{Element, read};

/// Bytes of what the feed says about itself that go with each entry. Most say all in 2 KiB; with the number of entries
/// this bounds the memory that one document takes.
const HEAD_BYTES_MAX: usize = 4 << 10;

/// Bytes of one element of it; long descriptions and lists are larger.
const HEAD_ELEMENT_BYTES_MAX: usize = 1 << 10;

/// Bytes of the prolog and of one tag around the entries: they hold entities and namespaces, so they come first.
const HEAD_TAG_BYTES_MAX: usize = 8 << 10;

/// Slices of the head; a feed has a few dozen elements of its own.
const TAGS_MAX: usize = 256;

/// A feed in XML, read.
pub(super) struct Document {
    pub(super) feed: Feed,
    pub(super) entries: Vec<(Range<usize>, Entry)>,
    /// Slices of the document that say what the feed is: its prolog, the tags around the entries, its own elements.
    pub(super) head: Vec<Range<usize>>,
}

/// Reads a document. What holds no feed has no format and no entries.
pub(super) fn document(text: &str) -> Document {
    let root = read(text);
    let mut reader = Reader { feed: Feed::default(), entries: Vec::new(), head: Vec::new(), head_bytes: 0 };
    if let Some(first) = root.elements().next() {
        reader.keep_tag(0..first.range.start);
    }
    reader.container(&root, &Surroundings::default());
    if reader.feed.format.is_none() && !reader.entries.is_empty() {
        reader.feed.format = Some(Format::Rss);
    }
    Document { feed: reader.feed, entries: reader.entries, head: reader.head }
}

struct Reader {
    feed: Feed,
    entries: Vec<(Range<usize>, Entry)>,
    head: Vec<Range<usize>>,
    head_bytes: usize,
}

impl Reader {
    /// Reads what holds entries: the document itself, `rss`, `channel`, `feed`, `rdf:RDF`. Recurses as deep as the tree.
    fn container(&mut self, element: &Element, around: &Surroundings) {
        for child in element.elements() {
            match child.name.as_str() {
                "item" | "entry" => self.entries.push((child.range.clone(), entry::read(child, around))),
                "items" if child.elements().all(|child| child.name.starts_with("rdf:")) => {}
                "rss" | "channel" | "feed" | "rdf:rdf" | "items" | "rdf" => {
                    self.format(child);
                    let mut inside = around.inside(child);
                    inside.is_atom = self.feed.format == Some(Format::Atom);
                    if child.name != "channel" {
                        self.feed.language = inside.language.clone().or(self.feed.language.take());
                    }
                    self.keep_tag(child.range.start..child.inside.start);
                    self.container(child, &inside);
                    if child.name == "channel" && child.elements().all(|child| child.name != "item") {
                        self.keep_tag(child.inside.end..child.range.end);
                    }
                }
                // An element that was never closed swallows the entries after it.
                name if holds_entries(child) && !is_content(name) => self.container(child, &around.inside(child)),
                _ if self.feed.format.is_some() => {
                    self.own(child, &around.inside(child));
                    self.keep(child.range.clone());
                }
                // What stands around a feed: HTML, an envelope.
                _ => self.container(child, &around.inside(child)),
            }
        }
    }

    fn format(&mut self, element: &Element) {
        let is_cdf = || element.attribute("href").is_some() || element.attribute("base").is_some();
        self.feed.format = self.feed.format.or(match element.name.as_str() {
            "feed" => Some(Format::Atom),
            "rdf:rdf" | "rdf" => Some(Format::Rdf),
            "channel" if is_cdf() => Some(Format::Cdf),
            "rss" | "channel" => Some(Format::Rss),
            _ => None,
        });
        if let Some(link) = element.attribute("href").filter(|_| element.name == "channel") {
            self.feed.link = Some(link.to_owned());
        }
    }

    /// Keeps an element of the feed's own while there is room.
    fn keep(&mut self, range: Range<usize>) {
        let is_large = range.len() > HEAD_ELEMENT_BYTES_MAX || self.head_bytes + range.len() > HEAD_BYTES_MAX;
        if !is_large {
            self.head_bytes += range.len();
            self.head.push(range);
        }
    }

    /// Keeps a tag without which the rest means something else.
    fn keep_tag(&mut self, range: Range<usize>) {
        if range.len() <= HEAD_TAG_BYTES_MAX && self.head.len() < TAGS_MAX {
            self.head.push(range);
        }
    }

    /// An element of the feed's own.
    fn own(&mut self, element: &Element, around: &Surroundings) {
        let feed = &mut self.feed;
        match element.name.as_str() {
            "title" => {
                let title = content::read(element, Kind::Plain, !around.is_atom);
                let title = if title.is_html { to_text(&title.value) } else { title.value };
                feed.title = feed.title.take().or(Some(one_line(&title)).filter(|title| !title.is_empty()));
            }
            "link" => link(feed, element, around),
            "language" | "dc:language" => feed.language = Some(content::plain(element)),
            "author" | "itunes:author" => {
                let name = entry::author(element);
                if !name.is_empty() && feed.authors.is_empty() {
                    feed.authors.push(name);
                }
            }
            "ttl" => feed.ttl_minutes = content::plain(element).parse().ok(),
            "sy:updateperiod" => feed.update_seconds = period_seconds(&content::plain(element)),
            "sy:updatefrequency" => {
                let times = content::plain(element).parse().ok().filter(|times: &u64| *times > 0);
                feed.update_seconds = feed.update_seconds.map(|seconds| seconds / times.unwrap_or(1));
            }
            "skiphours" => {
                let hours = element.elements().filter_map(|hour| content::plain(hour).parse::<u8>().ok());
                feed.skip_hours = hours.filter(|hour| *hour <= 24).map(|hour| hour % 24).collect();
            }
            "skipdays" => feed.skip_days = element.elements().take(7).map(content::plain).collect(),
            _ => {}
        }
    }
}

/// Recurses as deep as the tree is, which is bounded.
fn holds_entries(element: &Element) -> bool {
    element.elements().any(|child| matches!(child.name.as_str(), "item" | "entry") || holds_entries(child))
}

fn is_content(name: &str) -> bool {
    matches!(name, "title" | "description" | "subtitle" | "tagline" | "info" | "copyright" | "rights")
}

fn link(feed: &mut Feed, element: &Element, around: &Surroundings) {
    let Some(address) = element.attribute("href") else {
        let text = content::plain(element);
        feed.link = feed.link.take().or(Some(join(&around.base, &text)).filter(|link| !link.is_empty()));
        return;
    };
    let address = join(&around.base, address);
    match element.attribute("rel").unwrap_or("alternate") {
        "alternate" => feed.link = feed.link.take().or(Some(address)),
        "self" => feed.self_link = feed.self_link.take().or(Some(address)),
        "hub" => feed.hubs.push(address),
        _ => {}
    }
}

/// <https://web.resource.org/rss/1.0/modules/syndication/>
fn period_seconds(period: &str) -> Option<u64> {
    match period.to_lowercase().as_str() {
        "hourly" => Some(3_600),
        "daily" => Some(86_400),
        "weekly" => Some(7 * 86_400),
        "monthly" => Some(30 * 86_400),
        "yearly" => Some(365 * 86_400),
        _ => None,
    }
}
