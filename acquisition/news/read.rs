//! A document in XML: what the feed says about itself, and where its entries are.

use std::ops::Range;

use super::content::{self, Default as Kind};
use super::entry::{self, Surroundings};
use super::feed::{Entry, Feed, Format};
use super::html::{one_line, to_text};
use super::links::join;
use super::split::ENTRIES_MAX;
use super::tree::{Element, read};

/// Bytes of what the feed says about itself that go with each entry: most say all in 2 KiB.
pub(super) const HEAD_BYTES_MAX: usize = 16 << 10;

/// Bytes that all entries of a document carry of it at the most; where they are many, each carries less.
const HEADS_BYTES_MAX: usize = 32 << 20;

/// Bytes of one element of it; long descriptions and lists are larger.
const HEAD_ELEMENT_BYTES_MAX: usize = 1 << 10;

/// Bytes of the prolog and of one tag around the entries: they hold entities and namespaces, so they come first.
const HEAD_TAG_BYTES_MAX: usize = 8 << 10;

/// Slices of the head, of each kind; a feed has a few dozen elements of its own.
const SLICES_MAX: usize = 256;

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
    let mut reader = Reader::default();
    if let Some(first) = root.elements().next() {
        reader.head.keep(Slice::Tag, 0..first.range.start);
    }
    reader.container(&root, &Surroundings::default());
    if reader.feed.format.is_none() && !reader.entries.is_empty() {
        reader.feed.format = Some(Format::Rss);
    }
    let head = reader.head.chosen(head_bytes_max(reader.entries.len()));
    Document { feed: reader.feed, entries: reader.entries, head }
}

/// Bytes of the head, where so many entries carry it.
pub(super) fn head_bytes_max(entries: usize) -> usize {
    HEAD_BYTES_MAX.min(HEADS_BYTES_MAX / entries.max(1))
}

#[derive(Default)]
struct Reader {
    feed: Feed,
    entries: Vec<(Range<usize>, Entry)>,
    head: Head,
}

/// What goes with each entry: slices of the document, by how much depends on them.
#[derive(Default)]
struct Head {
    slices: [Vec<Range<usize>>; 3],
}

/// A kind of slice; the first are kept first.
#[derive(Clone, Copy)]
enum Slice {
    /// A tag without which the rest means something else.
    Tag,
    /// An element of the feed's own that is read.
    Read,
    /// Any other of its own.
    Other,
}

impl Head {
    fn keep(&mut self, kind: Slice, range: Range<usize>) {
        let bytes_max = if matches!(kind, Slice::Tag) { HEAD_TAG_BYTES_MAX } else { HEAD_ELEMENT_BYTES_MAX };
        let slices = &mut self.slices[kind as usize];
        if !range.is_empty() && range.len() <= bytes_max && slices.len() < SLICES_MAX {
            slices.push(range);
        }
    }

    /// As many as there is room for, in the order of the document.
    fn chosen(self, bytes_max: usize) -> Vec<Range<usize>> {
        let mut bytes = 0;
        let mut chosen: Vec<Range<usize>> = self.slices.into_iter().flatten().collect();
        chosen.retain(|range| {
            let is_room = bytes + range.len() <= bytes_max;
            bytes += if is_room { range.len() } else { 0 };
            is_room
        });
        chosen.sort_by_key(|range| range.start);
        chosen
    }
}

impl Reader {
    /// Reads what holds entries: the document itself, `rss`, `channel`, `feed`, `rdf:RDF`. Recurses as deep as the tree.
    fn container(&mut self, element: &Element, around: &Surroundings) {
        for child in element.elements() {
            match child.name.as_str() {
                // One more than is taken says that there are more.
                "item" | "entry" if self.entries.len() > ENTRIES_MAX => {}
                "item" | "entry" => self.entries.push((child.range.clone(), entry::read(child, around))),
                "items" if child.elements().all(|child| child.name.starts_with("rdf:")) => {}
                "rss" | "channel" | "feed" | "rdf:rdf" | "items" | "rdf" => {
                    self.format(child);
                    let mut inside = around.inside(child);
                    inside.is_atom = self.feed.format == Some(Format::Atom);
                    if child.name != "channel" {
                        self.feed.language = inside.language.clone().or(self.feed.language.take());
                    }
                    self.head.keep(Slice::Tag, child.range.start..child.inside.start);
                    self.container(child, &inside);
                    if child.name == "channel" && child.elements().all(|child| child.name != "item") {
                        self.head.keep(Slice::Tag, child.inside.end..child.range.end);
                    }
                }
                // An element that was never closed swallows the entries after it.
                name if holds_entries(child) && !is_content(name) => self.container(child, &around.inside(child)),
                _ if self.feed.format.is_some() => {
                    let is_read = self.own(child, &around.inside(child));
                    self.head.keep(if is_read { Slice::Read } else { Slice::Other }, child.range.clone());
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

    /// An element of the feed's own; says whether it is one that entries depend on.
    fn own(&mut self, element: &Element, around: &Surroundings) -> bool {
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
            name => return Self::pace(feed, name, element),
        }
        true
    }

    /// How often the feed is to be asked, which no entry depends on.
    fn pace(feed: &mut Feed, name: &str, element: &Element) -> bool {
        match name {
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
        false
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

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> String {
        document(text).head.into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn what_entries_depend_on_is_kept_before_the_rest() {
        let categories: String = (0..2_000).map(|number| format!("<category>c{number:04}</category>")).collect();
        let text = format!("<rss><channel>{categories}<title>T</title><language>de</language><item/></channel></rss>");
        let head = head(&text);
        assert!(head.starts_with("<rss><channel><category>c0000</category>"), "{head:.60}");
        assert!(head.ends_with("<title>T</title><language>de</language>"));
        assert!(head.len() <= HEAD_BYTES_MAX);
    }

    #[test]
    fn the_head_is_bounded_whatever_it_is_made_of() {
        let tag = format!("<rss a=\"{}\"/>", "x".repeat(8_000));
        let text = format!("{}<rss>{}</rss>", tag.repeat(250), "<item/>".repeat(140));
        assert!(head(&text).len() <= HEAD_BYTES_MAX);
        let own: String = (0..100).map(|number| format!("<x>{number:0100}</x>")).collect();
        let many = format!("<rss><channel>{own}{}</channel></rss>", "<item/>".repeat(ENTRIES_MAX + 10));
        let found = document(&many);
        assert_eq!(found.entries.len(), ENTRIES_MAX + 1);
        let bytes: usize = found.head.iter().map(Range::len).sum();
        assert!(bytes * ENTRIES_MAX <= HEADS_BYTES_MAX, "{bytes}");
    }
}
