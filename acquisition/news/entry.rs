//! An entry of RSS, Atom, RDF or CDF.

use super::content::{self, Default as Kind};
use super::feed::{Enclosure, Entry, Text};
use super::links::join;
use super::tree::Element;

/// Authors, categories, enclosures of one entry; more are left out.
const LIST_MAX: usize = 256;

/// What an element inherits from those around it.
#[derive(Clone, Debug, Default)]
pub(super) struct Surroundings {
    /// The base of relative addresses; empty if none is known.
    pub(super) base: String,
    pub(super) language: Option<String>,
    /// Whether texts say what they are, as in Atom, or are to be guessed.
    pub(super) is_atom: bool,
}

impl Surroundings {
    /// Those inside `element`.
    pub(super) fn inside(&self, element: &Element) -> Self {
        let base = element.attribute("xml:base").or_else(|| element.attribute("base"));
        let language = element.attribute("xml:lang").or_else(|| element.attribute("lang"));
        Self {
            base: base.map_or_else(|| self.base.clone(), |base| absolute(&self.base, base)),
            language: match language {
                Some("") => None,
                Some(language) => Some(language.to_owned()),
                None => self.language.clone(),
            },
            is_atom: self.is_atom,
        }
    }
}

/// A base may stand in a document whose own address is not known.
fn absolute(base: &str, reference: &str) -> String {
    if base.is_empty() { reference.trim().to_owned() } else { join(base, reference) }
}

/// Reads an entry.
pub(super) fn read(element: &Element, around: &Surroundings) -> Entry {
    let mut reader = Reader::default();
    let around = around.inside(element);
    reader.entry.guid = element.attribute("rdf:about").map(content::mended);
    if let Some(link) = element.attribute("href") {
        reader.entry.link = Some(join(&around.base, link));
    }
    reader.entry.updated = element.attribute("lastmod").map(content::mended);
    reader.children(element, &around, 1);
    let mut entry = reader.finish();
    entry.language = entry.language.or(around.language);
    entry.base = Some(around.base).filter(|base| !base.is_empty());
    entry
}

#[derive(Default)]
struct Reader {
    entry: Entry,
    /// The base of an element before, where none around states one: feedparser has it hold for all that follows in the
    /// entry, and what it makes of ids and links is what readers know them by.
    leaked_base: String,
    /// How deep the title, the id and the dates stood that were taken: one that stands deeper does not replace them.
    title_depth: Option<usize>,
    /// The same for a title that no other of its depth replaces.
    final_title_depth: Option<usize>,
    guid_depth: Option<usize>,
    published_depth: Option<usize>,
    updated_depth: Option<usize>,
    summaries: Vec<(SummaryRank, Text)>,
    contents: Vec<Text>,
    point: [Option<String>; 2],
}

/// Which of several summaries is the entry's; a smaller one goes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum SummaryRank {
    Own,
    DublinCore,
    Media,
    Itunes,
}

impl Reader {
    /// Recurses as deep as the tree is, which is bounded.
    fn children(&mut self, element: &Element, around: &Surroundings, depth: usize) {
        for child in element.elements() {
            let around = self.inside(around, child);
            if !self.is_taken(child, &around, depth) {
                self.children(child, &around, depth + 1);
            }
        }
    }

    fn inside(&mut self, around: &Surroundings, child: &Element) -> Surroundings {
        if !around.base.is_empty() {
            return around.inside(child);
        }
        let inside = Surroundings { base: self.leaked_base.clone(), ..around.clone() }.inside(child);
        self.leaked_base.clone_from(&inside.base);
        inside
    }

    /// Takes an element that means something with all it holds; says whether it did.
    fn is_taken(&mut self, element: &Element, around: &Surroundings, depth: usize) -> bool {
        let guess = !around.is_atom;
        let text = |kind| content::read(element, kind, guess);
        match element.name.as_str() {
            // Half a title or address is none; a text is kept as far as it goes.
            "title" | "dc:title" | "media:title" | "link" | "guid" | "id" if element.is_cut => return false,
            name if element.is_cut && is_date(name) => return false,
            "title" | "dc:title" | "media:title" => self.title(element, text(Kind::Plain), depth),
            "link" => self.link(element, around),
            "guid" | "id" => self.guid(element, around, depth),
            "published" | "issued" | "pubdate" | "dcterms:issued" => {
                replace(&mut self.entry.published, &mut self.published_depth, content::plain(element), depth);
            }
            "updated" | "modified" | "lastbuilddate" | "dc:date" | "dcterms:modified" => {
                replace(&mut self.entry.updated, &mut self.updated_depth, content::plain(element), depth);
            }
            "description" => self.summaries.push((SummaryRank::Own, text(Kind::Html))),
            "summary" | "abstract" => self.summaries.push((SummaryRank::Own, text(Kind::Plain))),
            "dc:description" => self.summaries.push((SummaryRank::DublinCore, text(Kind::Html))),
            "media:description" => self.summaries.push((SummaryRank::Media, text(Kind::Html))),
            "itunes:summary" | "itunes:subtitle" => self.summaries.push((SummaryRank::Itunes, text(Kind::Plain))),
            "content" => self.contents.push(text(Kind::Plain)),
            "content:encoded" | "fullitem" | "body" | "xhtml:body" => self.contents.push(text(Kind::Html)),
            "author" | "dc:creator" | "dc:author" | "itunes:author" | "managingeditor" => {
                push(&mut self.entry.authors, author(element));
            }
            "category" | "dc:subject" | "keywords" | "media:category" => self.category(element),
            "tags" | "itunes:keywords" | "media:keywords" => {
                let words = content::plain(element);
                words.split(',').for_each(|word| push(&mut self.entry.categories, word.trim().to_owned()));
            }
            "itunes:category" => {
                self.category(element);
                return false;
            }
            "source" => {
                let title = element.elements().find(|child| child.name == "title").unwrap_or(element);
                self.entry.source_title = Some(content::plain(title)).filter(|title| !title.is_empty());
            }
            "dc:language" | "language" => {
                self.entry.language = Some(content::plain(element)).filter(|language| !language.is_empty());
            }
            "image" | "textinput" | "contributor" => {}
            _ => return self.is_extension_taken(element, around),
        }
        true
    }

    /// What stands in no feed format but is widely used.
    fn is_extension_taken(&mut self, element: &Element, around: &Surroundings) -> bool {
        let address = |name: &str| element.attribute(name).map(|address| join(&around.base, address));
        match element.name.as_str() {
            "enclosure" => {
                self.enclosure(element, around, "length");
                return false;
            }
            "media:content" => {
                let kind = element.attribute("medium").or_else(|| element.attribute("type")).unwrap_or_default();
                if kind.starts_with("image") {
                    self.entry.image = self.entry.image.take().or_else(|| address("url"));
                }
                self.enclosure(element, around, "filesize");
                return false;
            }
            "media:thumbnail" => self.entry.image = self.entry.image.take().or_else(|| address("url")),
            "itunes:image" => self.entry.image = address("href").or_else(|| address("url")).or(self.entry.image.take()),
            "comments" => self.entry.comments_url = Some(join(&around.base, &content::plain(element))),
            "slash:comments" | "thr:total" => self.entry.comment_count = content::plain(element).parse().ok(),
            "feedburner:origlink" | "pheedo:origlink" => self.entry.original_link = Some(content::plain(element)),
            "georss:point" | "gml:pos" => self.entry.place = place(&content::plain(element)),
            "geo:lat" => self.point[0] = Some(content::plain(element)),
            "geo:long" => self.point[1] = Some(content::plain(element)),
            _ => return false,
        }
        true
    }

    fn title(&mut self, element: &Element, text: Text, depth: usize) {
        let is_final = self.final_title_depth.is_some_and(|taken| taken <= depth);
        if is_final || self.title_depth.is_some_and(|taken| taken < depth) {
            return;
        }
        if element.name != "media:title" && !text.value.is_empty() {
            self.final_title_depth = Some(depth);
        }
        self.title_depth = Some(depth);
        self.entry.title = Some(text);
    }

    /// A link with `href` counts if it leads to the page; one with text always does.
    fn link(&mut self, element: &Element, around: &Surroundings) {
        let address = ["url", "uri", "href"].into_iter().find_map(|name| element.attribute(name));
        let Some(address) = address else {
            self.entry.link = Some(resolved(content::plain(element), around));
            return;
        };
        if address.is_empty() {
            return;
        }
        let address = join(&around.base, address);
        let kind = element.attribute("type").unwrap_or("text/html");
        match element.attribute("rel").unwrap_or("alternate") {
            "alternate" if matches!(kind, "text/html" | "html" | "xhtml" | "application/xhtml+xml") => {
                self.entry.link = Some(content::mended(&address));
            }
            "enclosure" => self.enclosure(element, around, "length"),
            "replies" if kind.ends_with("html") => self.entry.comments_url = Some(address),
            _ => {}
        }
    }

    /// An id is a link too unless it says that it is none.
    fn guid(&mut self, element: &Element, around: &Surroundings, depth: usize) {
        let is_link = element.attribute("ispermalink").unwrap_or("true") == "true";
        let text = content::plain(element);
        let text = if is_link { resolved(text, around) } else { text };
        if is_link && self.entry.link.is_none() {
            self.entry.link = Some(text.clone());
        }
        replace(&mut self.entry.guid, &mut self.guid_depth, text, depth);
    }

    fn category(&mut self, element: &Element) {
        let stated = ["label", "term", "text"].into_iter().find_map(|name| element.attribute(name));
        let name = stated.map_or_else(|| content::plain(element), content::mended);
        push(&mut self.entry.categories, name);
    }

    fn enclosure(&mut self, element: &Element, around: &Surroundings, length: &str) {
        let Some(url) = element.attribute("url").or_else(|| element.attribute("href")) else { return };
        if self.entry.enclosures.len() < LIST_MAX {
            self.entry.enclosures.push(Enclosure {
                url: join(&around.base, url),
                kind: element.attribute("type").map(str::to_owned),
                length: element.attribute(length).and_then(|length| length.trim().parse().ok()),
            });
        }
    }

    fn finish(mut self) -> Entry {
        self.summaries.retain(|(_, text)| !text.value.is_empty());
        self.summaries.sort_by_key(|(rank, _)| *rank);
        self.entry.content = self.contents.into_iter().find(|text| !text.value.is_empty());
        let mut summaries = self.summaries.into_iter().map(|(_, text)| text);
        self.entry.summary = summaries.next();
        if let [Some(latitude), Some(longitude)] = &self.point {
            self.entry.place = place(&format!("{latitude} {longitude}"));
        }
        self.entry
    }
}

fn is_date(name: &str) -> bool {
    matches!(
        name,
        "published" | "issued" | "pubdate" | "dcterms:issued" | "updated" | "modified" | "dc:date" | "dcterms:modified"
    )
}

/// A text that is an address, relative or not.
fn resolved(text: String, around: &Surroundings) -> String {
    if text.is_empty() || around.base.is_empty() { text } else { join(&around.base, &text) }
}

/// Takes a text unless one stands higher.
fn replace(place: &mut Option<String>, taken: &mut Option<usize>, text: String, depth: usize) {
    if taken.is_none_or(|taken| depth <= taken) {
        *taken = Some(depth);
        *place = Some(text);
    }
}

fn push(list: &mut Vec<String>, text: String) {
    if !text.is_empty() && list.len() < LIST_MAX && !list.contains(&text) {
        list.push(text);
    }
}

/// Latitude and longitude, both numbers.
fn place(text: &str) -> Option<String> {
    let numbers: Vec<f64> = text.split([' ', ',']).filter_map(|word| word.parse().ok()).collect();
    match numbers.as_slice() {
        [latitude, longitude, ..] if latitude.abs() <= 90.0 && longitude.abs() <= 180.0 => {
            Some(format!("{latitude} {longitude}"))
        }
        _ => None,
    }
}

/// An author's name: of `<name>`, of `mail@host (Name)` and `Name <mail@host>`; the address where there is no name.
pub(super) fn author(element: &Element) -> String {
    let part = |name: &str| element.elements().find(|child| child.name == name).map(content::plain);
    let named = part("name").filter(|name| !name.is_empty()).or_else(|| part("email"));
    let text = named.filter(|name| !name.is_empty()).unwrap_or_else(|| content::plain(element));
    author_name(&text)
}

fn author_name(text: &str) -> String {
    let is_address = |word: &&str| word.contains('@') && word.contains('.');
    let name: Vec<&str> = text.split_whitespace().filter(|word| !is_address(word)).collect();
    let name = name.join(" ");
    let name = name.trim_matches(['(', ')', '<', '>', ',', ' ']);
    if name.is_empty() { text.to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::super::tree;
    use super::*;

    fn entry(text: &str) -> Entry {
        let root = tree::read(text);
        read(root.elements().next().unwrap(), &Surroundings::default())
    }

    #[test]
    fn what_the_end_of_a_document_cuts_is_no_title_address_or_date() {
        let whole = "<item><guid>http://a.org/2</guid>";
        for cut in ["<title>Tw", "<title>Two <", "<title>Two</ti", "<link>http://a", "<pubDate>Thu, 01 Jan", "<link hr"]
        {
            let found = entry(&format!("{whole}{cut}"));
            assert_eq!(
                (found.title, found.published, found.link.as_deref()),
                (None, None, Some("http://a.org/2")),
                "{cut}"
            );
        }
        let text = entry(&format!("{whole}<description>As far as it g")).summary.unwrap();
        assert_eq!(text.value, "As far as it g");
    }

    #[test]
    fn a_base_holds_for_what_follows_in_its_entry_where_none_stands_around_it() {
        let reddit = "<entry><content xml:base='/.rss'>x</content><id>t3_1</id><link href='http://a.org/1'/></entry>";
        assert_eq!(entry(reddit).guid.as_deref(), Some("/t3_1"));
        let around = "<entry xml:base='http://b.org/'><content xml:base='/c/'>x</content><id>d</id></entry>";
        assert_eq!(entry(around).guid.as_deref(), Some("http://b.org/d"));
    }
}
