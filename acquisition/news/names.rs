//! Namespaces: from the prefixes that a feed writes to the customary ones.
//!
//! An element of a namespace that belongs to a feed format has no prefix; one of a known namespace has the customary
//! prefix; any other keeps its own, and so does one whose prefix is declared nowhere: `dc:date` is meant by all who
//! write it.

/// Namespaces that are open at a time; of more the prefix is taken as it is. Feeds declare below 40, and every name is
/// looked up among them.
const NAMESPACES_MAX: usize = 256;

/// The namespaces that are open, innermost last.
#[derive(Debug, Default)]
pub(super) struct Scopes {
    /// Prefix as written, and what it stands for.
    declared: Vec<(String, String)>,
    /// How many of `declared` each open element found.
    marks: Vec<usize>,
}

impl Scopes {
    /// Opens an element; answers its name and those of its attributes in their one form, without namespace declarations.
    pub(super) fn enter(&mut self, raw_name: &str, attributes: Vec<(&str, String)>) -> (String, Vec<(String, String)>) {
        self.marks.push(self.declared.len());
        let room = NAMESPACES_MAX.saturating_sub(self.declared.len());
        for (name, uri) in attributes.iter().filter(|(name, _)| is_declaration(name)).take(room) {
            if *name == "xmlns" {
                self.declared.push((String::new(), customary(uri).unwrap_or_default().to_owned()));
            } else if let Some(prefix) = name.strip_prefix("xmlns:") {
                self.declared.push((prefix.to_owned(), customary(uri).unwrap_or(prefix).to_owned()));
            }
        }
        let plain = attributes.into_iter().filter(|(name, _)| !is_declaration(name));
        let named = plain.map(|(name, value)| {
            let name = if name.contains(':') { self.resolve(name) } else { name.to_lowercase() };
            let value = if matches!(name.as_str(), "rel" | "type") { value.to_lowercase() } else { value };
            (name, value)
        });
        let attributes = named.collect();
        (self.resolve(raw_name), attributes)
    }

    /// Closes the innermost element.
    pub(super) fn leave(&mut self) {
        self.declared.truncate(self.marks.pop().unwrap_or_default());
    }

    fn resolve(&self, raw_name: &str) -> String {
        let (prefix, local) = raw_name.split_once(':').unwrap_or(("", raw_name));
        let declared = self.declared.iter().rev().find(|(known, _)| known == prefix);
        match declared.map_or(prefix, |(_, customary)| customary) {
            "" => local.to_lowercase(),
            prefix => format!("{prefix}:{local}").to_lowercase(),
        }
    }
}

fn is_declaration(name: &str) -> bool {
    name == "xmlns" || name.starts_with("xmlns:")
}

/// The prefix by which a namespace is known here; empty for those of the feed formats.
fn customary(uri: &str) -> Option<&'static str> {
    let uri = uri.to_ascii_lowercase();
    if uri.contains("backend.userland.com/rss") {
        return Some("");
    }
    KNOWN.iter().find(|(known, _)| *known == uri).map(|(_, prefix)| *prefix)
}

/// Lower-case, as publishers vary the case.
const KNOWN: &[(&str, &str)] = &[
    ("http://www.w3.org/2005/atom", ""),
    ("http://purl.org/atom/ns#", ""),
    ("http://purl.org/rss/1.0/", ""),
    ("http://my.netscape.com/rdf/simple/0.9/", ""),
    ("http://blogs.law.harvard.edu/tech/rss", ""),
    ("http://purl.org/rss/1.0/modules/rss091#", ""),
    ("http://purl.org/net/rss1.1#", ""),
    ("http://example.com/newformat#", ""),
    ("http://example.com/necho", ""),
    ("http://purl.org/echo/", ""),
    ("uri/of/echo/namespace#", ""),
    ("http://purl.org/pie/", ""),
    ("http://www.w3.org/1999/02/22-rdf-syntax-ns#", "rdf"),
    ("http://www.w3.org/xml/1998/namespace", "xml"),
    ("http://www.w3.org/1999/xhtml", "xhtml"),
    ("http://purl.org/dc/elements/1.1/", "dc"),
    ("http://purl.org/dc/terms/", "dcterms"),
    ("http://purl.org/rss/1.0/modules/content/", "content"),
    ("http://purl.org/rss/1.0/modules/syndication/", "sy"),
    ("http://purl.org/rss/1.0/modules/slash/", "slash"),
    ("http://purl.org/rss/1.0/modules/image/", "image"),
    ("http://purl.org/rss/1.0/modules/threading/", "thr"),
    ("http://purl.org/syndication/thread/1.0", "thr"),
    ("http://search.yahoo.com/mrss", "media"),
    ("http://search.yahoo.com/mrss/", "media"),
    ("http://www.itunes.com/dtds/podcast-1.0.dtd", "itunes"),
    ("http://example.com/dtds/podcast-1.0.dtd", "itunes"),
    ("http://rssnamespace.org/feedburner/ext/1.0", "feedburner"),
    ("http://www.pheedo.com/namespace/pheedo", "pheedo"),
    ("http://www.georss.org/georss", "georss"),
    ("http://www.w3.org/2003/01/geo/wgs84_pos#", "geo"),
    ("http://www.opengis.net/gml", "gml"),
    ("http://wellformedweb.org/commentapi/", "wfw"),
];
