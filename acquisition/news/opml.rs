//! Lists of feeds as OPML, in and out. Source: <https://opml.org/spec2.opml>.
//!
//! | met in real lists | taken as |
//! | --- | --- |
//! | attributes in any case, `url` or `htmlUrl` missing | by their names without regard to case |
//! | an `outline` with an `xmlUrl`, whatever its `type` says | a feed |
//! | an `outline` with `url` and a type of `rss` or `atom` | a feed |
//! | an `outline` with neither | a folder; its name is a category of the feeds in it |
//! | bare ampersands, undeclared entities, `<` in values, tags that are never closed | read as far as that can be understood |
//! | outlines outside the body, no head, no body | read all the same |
//! | `feed:` and `feed://` addresses | the address behind it |
//! | quotes and tags in a value, as in a description, so that the outline seems to end before its `xmlUrl` | the `xmlUrl` before the next outline is its own |
//! | the same feed twice | once, with the categories of both |
//! | UTF-16, ISO-8859-1 and others | by byte order mark or declaration |

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::ops::Range;

use encoding_rs::{Encoding, UTF_8};
use reqwest::Url;

use super::markup::{Token, Tokens, attributes};
use super::references::{Entities, decode};

/// Feeds of one list; the largest lists seen have a few thousand.
const FEEDS_MAX: usize = 100_000;

/// Folders within folders; deeper ones count as the last.
const DEPTH_MAX: usize = 64;

/// How far an outline's attributes are looked for behind its seeming end.
const LOST_BYTES_MAX: usize = 16 << 10;

/// A feed of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListedFeed {
    /// Its address.
    pub url: String,
    /// What the list calls it; empty if nothing.
    pub title: String,
    /// The page it belongs to, if the list says so.
    pub page: Option<String>,
    /// The folders it stands in, `News/World` for nested ones, and the `category` of its outline.
    pub categories: Vec<String>,
}

/// What was read of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opml {
    /// The list's own title.
    pub title: Option<String>,
    /// Its feeds, in its order.
    pub feeds: Vec<ListedFeed>,
    /// Outlines whose address is none, and why.
    pub notes: Vec<String>,
}

/// Reads a list. Any bytes give one; those that are no OPML an empty one with a note.
pub fn read_opml(bytes: &[u8]) -> Opml {
    let text = decoded(bytes);
    let lower = text.to_ascii_lowercase();
    let mut reader = Reader::default();
    let mut is_opml = false;
    for (token, range) in Tokens::new(&text) {
        match token {
            Token::Start { name, attributes, is_empty } => {
                is_opml |= is_named(name, "opml") || is_named(name, "outline");
                let lost = is_named(name, "outline").then(|| lost_attributes(&lower, range.end)).flatten();
                match lost {
                    Some(lost) => reader.start(name, &format!("{attributes} {}", &text[lost]), true),
                    None => reader.start(name, attributes, is_empty),
                }
            }
            Token::End { name } => reader.end(name),
            Token::Text(text) | Token::Cdata(text) => reader.text(text),
            Token::Doctype(doctype) => reader.entities = Entities::read(doctype),
            Token::Other => {}
        }
    }
    let mut opml = reader.opml;
    if !is_opml {
        opml.notes.push("this is no OPML: it has neither `<opml>` nor `<outline>`".to_owned());
    }
    opml
}

/// Writes a list as OPML 2.0; feeds of the same first category stand in one folder.
pub fn write_opml(title: &str, feeds: &[ListedFeed]) -> String {
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<opml version=\"2.0\">\n  <head>\n");
    let mut put = |line: std::fmt::Arguments<'_>| out.write_fmt(line).unwrap_or_default();
    put(format_args!("    <title>{}</title>\n  </head>\n  <body>\n", escaped(title)));
    let mut folders: BTreeMap<Option<&str>, Vec<&ListedFeed>> = BTreeMap::new();
    for feed in feeds {
        folders.entry(feed.categories.first().map(String::as_str)).or_default().push(feed);
    }
    for (folder, feeds) in folders {
        let indent = if folder.is_some() { "      " } else { "    " };
        if let Some(folder) = folder {
            put(format_args!("    <outline text=\"{0}\" title=\"{0}\">\n", escaped(folder)));
        }
        feeds.iter().for_each(|feed| put(format_args!("{indent}{}\n", outline(feed))));
        if folder.is_some() {
            put(format_args!("    </outline>\n"));
        }
    }
    put(format_args!("  </body>\n</opml>\n"));
    out
}

/// The attributes from `xmlUrl` on that stand between an outline that seems to have ended at `from` and the next tag of
/// its kind; `lower` is the text in lower case.
fn lost_attributes(lower: &str, from: usize) -> Option<Range<usize>> {
    let end = lower.floor_char_boundary(from.saturating_add(LOST_BYTES_MAX));
    let rest = &lower[from..end];
    let blank = rest.len() - rest.trim_start().len();
    if rest[blank..].starts_with('<') {
        return None;
    }
    // One pass to the next outline, so that all of them together cost no more than the list is long.
    let is_next =
        |place: &usize| ["<outline", "</outline", "</body", "<!--"].iter().any(|tag| rest[*place..].starts_with(tag));
    let next = memchr::memchr_iter(b'<', rest.as_bytes()).find(is_next);
    let between = &rest[..next.unwrap_or(rest.len())];
    let start = between.find("xmlurl=")?;
    let end = between.rfind('>').filter(|&end| end > start).unwrap_or(between.len());
    Some(from + start..from + end)
}

fn outline(feed: &ListedFeed) -> String {
    let title = escaped(if feed.title.is_empty() { &feed.url } else { &feed.title });
    let page = feed.page.as_deref().map(|page| format!(" htmlUrl=\"{}\"", escaped(page))).unwrap_or_default();
    let more: Vec<String> = feed.categories.iter().skip(1).map(|name| format!("/{name}")).collect();
    let more = if more.is_empty() { String::new() } else { format!(" category=\"{}\"", escaped(&more.join(","))) };
    format!("<outline type=\"rss\" text=\"{title}\" title=\"{title}\" xmlUrl=\"{}\"{page}{more}/>", escaped(&feed.url))
}

/// As the value of an attribute or as text; what XML 1.0 cannot hold is left out.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\r' | '\t' => out.push(' '),
            '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => {}
            letter => out.push(letter),
        }
    }
    out
}

#[derive(Default)]
struct Reader {
    opml: Opml,
    entities: Entities,
    /// Open outlines; none for a feed that is not closed.
    folders: Vec<Option<String>>,
    is_in_title: bool,
    /// Where in the list a feed stands, by its address.
    places: HashMap<String, usize>,
}

impl Reader {
    fn start(&mut self, name: &str, text: &str, is_empty: bool) {
        self.is_in_title = is_named(name, "title") && self.opml.title.is_none() && !is_empty;
        if !is_named(name, "outline") {
            return;
        }
        let mut values: HashMap<String, String> = HashMap::new();
        for (name, value) in attributes(text) {
            let value = decode(value, &self.entities).trim().to_owned();
            values.entry(name.to_ascii_lowercase()).or_insert(value);
        }
        let mut take = |name: &str| values.remove(name).filter(|value| !value.is_empty());
        let (title, label, kind) = (take("title"), take("text"), take("type").unwrap_or_default());
        let is_feed_kind = ["rss", "atom", "feed"].iter().any(|known| kind.eq_ignore_ascii_case(known));
        let address = take("xmlurl").or_else(|| take("url").filter(|_| is_feed_kind));
        let name = title.or(label);
        let folder = if address.is_none() { Some(name.clone().unwrap_or_default()) } else { None };
        if let Some(address) = address {
            let (page, category) = (take("htmlurl"), take("category"));
            self.feed(&address, name.unwrap_or_default(), page, category.as_deref());
        }
        if !is_empty && self.folders.len() < DEPTH_MAX {
            self.folders.push(folder);
        }
    }

    fn end(&mut self, name: &str) {
        self.is_in_title = false;
        if is_named(name, "outline") {
            self.folders.pop();
        } else if is_named(name, "body") || is_named(name, "opml") {
            self.folders.clear();
        }
    }

    fn text(&mut self, text: &str) {
        let text = text.trim();
        if self.is_in_title && !text.is_empty() {
            self.opml.title = Some(decode(text, &self.entities).into_owned());
        }
    }

    fn feed(&mut self, address: &str, title: String, page: Option<String>, category: Option<&str>) {
        let url = match feed_url(address) {
            Ok(url) => url,
            Err(why) => return self.note(format!("`{}` is no address of a feed: {why}", shown(address))),
        };
        let mut categories = Vec::new();
        let folder =
            self.folders.iter().flatten().filter(|name| !name.is_empty()).cloned().collect::<Vec<_>>().join("/");
        let named = category.into_iter().flat_map(|text| text.split(',')).map(|name| name.trim().trim_matches('/'));
        for name in std::iter::once(folder.as_str()).chain(named) {
            if !name.is_empty() && !categories.iter().any(|known| known == name) {
                categories.push(name.to_owned());
            }
        }
        if let Some(&place) = self.places.get(&url) {
            let known = &mut self.opml.feeds[place].categories;
            known.extend(categories.into_iter().filter(|name| !known.contains(name)).collect::<Vec<_>>());
        } else if self.opml.feeds.len() < FEEDS_MAX {
            self.places.insert(url.clone(), self.opml.feeds.len());
            self.opml.feeds.push(ListedFeed { url, title, page, categories });
        }
    }

    fn note(&mut self, note: String) {
        const NOTES_MAX: usize = 100;
        if self.opml.notes.len() < NOTES_MAX {
            self.opml.notes.push(note);
        }
    }
}

/// The address of a feed in one form: `feed:` taken off, `http` or `https`, without a fragment.
///
/// # Errors
/// Why it is none.
pub(super) fn feed_url(address: &str) -> Result<String, String> {
    let address = address.trim();
    let address = match address.get(..5) {
        Some(scheme) if scheme.eq_ignore_ascii_case("feed:") => match &address[5..] {
            bare if bare.starts_with("//") => format!("http:{bare}"),
            bare => bare.to_owned(),
        },
        _ => address.to_owned(),
    };
    let mut url = Url::parse(&address).map_err(|error| error.to_string())?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("`{}:` is no scheme to fetch from (should be https or http)", url.scheme()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it holds a user name or password (should have none; they would stand in the log)".to_owned());
    }
    url.set_fragment(None);
    Ok(url.into())
}

/// An address as it may be shown: without user name and password.
pub(super) fn shown(address: &str) -> String {
    let start = address.find("://").map_or(0, |place| place + "://".len());
    let end = address[start..].find(['/', '?', '#']).map_or(address.len(), |place| start + place);
    match address[start..end].rfind('@') {
        Some(place) => format!("{}…{}", &address[..start], &address[start + place..]),
        None => address.to_owned(),
    }
}

fn is_named(name: &str, expected: &str) -> bool {
    name.rsplit(':').next().unwrap_or(name).eq_ignore_ascii_case(expected)
}

/// The text by its byte order mark or declaration; UTF-8 that is none by windows-1252, as browsers do.
fn decoded(bytes: &[u8]) -> String {
    if let Some((encoding, _)) = Encoding::for_bom(bytes) {
        return encoding.decode(bytes).0.into_owned();
    }
    let head = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
    let declared = head.split_once("encoding=").and_then(|(_, rest)| {
        let quote = rest.chars().next().filter(|letter| matches!(letter, '"' | '\''))?;
        Encoding::for_label(rest[1..].split(quote).next()?.as_bytes())
    });
    let encoding = declared.unwrap_or(UTF_8);
    let (text, _, had_errors) = encoding.decode(bytes);
    match had_errors && encoding == UTF_8 {
        true => encoding_rs::WINDOWS_1252.decode(bytes).0.into_owned(),
        false => text.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Address, title and categories of each feed.
    fn read(text: &str) -> Vec<(String, String, String)> {
        let feeds = read_opml(text.as_bytes()).feeds.into_iter();
        feeds.map(|feed| (feed.url, feed.title, feed.categories.join(","))).collect()
    }

    fn feed(url: &str, title: &str, categories: &str) -> (String, String, String) {
        (url.to_owned(), title.to_owned(), categories.to_owned())
    }

    #[test]
    fn folders_become_categories() {
        let text = r#"<?xml version="1.0"?><opml version="2.0"><head><title>Mine</title></head><body>
            <outline text="News"><outline text="World">
              <outline type="rss" text="A" title="A title" xmlUrl="https://a.example/feed" htmlUrl="https://a.example/"/>
            </outline>
            <outline text="B" xmlUrl="https://b.example/feed" category="/Tech/Rust,loose"></outline></outline>
            <outline type="rss" xmlUrl="https://c.example/feed#top"/></body></opml>"#;
        let expected = [
            feed("https://a.example/feed", "A title", "News/World"),
            feed("https://b.example/feed", "B", "News,Tech/Rust,loose"),
            feed("https://c.example/feed", "", ""),
        ];
        assert_eq!(read(text), expected);
        let opml = read_opml(text.as_bytes());
        assert_eq!((opml.title.as_deref(), opml.feeds[0].page.as_deref()), (Some("Mine"), Some("https://a.example/")));
        assert_eq!(opml.notes, Vec::<String>::new());
    }

    #[test]
    fn broken_lists_are_read_as_readers_do() {
        let a = || vec![feed("http://a.example/?x=1&y=2", "A & <B>", "")];
        for text in [
            r#"<OPML><BODY><OUTLINE TEXT="A & <B>" TYPE="RSS" XMLURL="http://a.example/?x=1&y=2"/></BODY></OPML>"#,
            r#"<body/></opml><outline text='A &amp; &lt;B>' xmlurl='http://a.example/?x=1&amp;y=2'>"#,
            r#"junk before <opml><outline text="A &#38; &lt;B&gt;" type="rss" url="http://a.example/?x=1&amp;y=2">"#,
            r#"<!DOCTYPE opml [<!ENTITY who "A">]><opml><outline text="&who; & <B>" xmlUrl="feed://a.example/?x=1&y=2"/>"#,
            r#"<outline title="A & <B>" xmlUrl=" feed:http://a.example/?x=1&y=2 "/><outline xmlUrl="http://a.example/?x=1&y=2"/>"#,
        ] {
            assert_eq!(read(text), a(), "{text}");
        }
    }

    #[test]
    fn an_address_after_unescaped_quotes_and_tags_is_found() {
        let text = r#"<opml><outline text="Folder"><outline text="A" description="by <a href="https://b.example">B</a>."
            xmlUrl="https://a.example/feed" type="rss"/><outline text="C" xmlUrl="https://c.example/"/></outline></opml>"#;
        assert_eq!(
            read(text),
            [feed("https://a.example/feed", "A", "Folder"), feed("https://c.example/", "C", "Folder")]
        );
    }

    #[test]
    fn a_feed_that_stands_twice_has_the_categories_of_both() {
        let outline = r#"<outline text="A" xmlUrl="https://a.example/"/>"#;
        let text =
            format!(r#"<opml><outline text="x">{outline}</outline><outline text="y">{outline}</outline></opml>"#);
        assert_eq!(read(&text), [feed("https://a.example/", "A", "x,y")]);
    }

    #[test]
    fn what_is_no_feed_is_said() {
        let opml = read_opml(b"<opml><outline xmlUrl='gopher://a.example/'/><outline xmlUrl='/feed'/></opml>");
        assert_eq!(opml.feeds, []);
        assert_eq!(opml.notes.len(), 2);
        assert!(opml.notes[0].starts_with("`gopher://a.example/` is no address of a feed: `gopher:` is no scheme"));
        let secret = read_opml(b"<opml><outline xmlUrl='https://me:word@a.example/feed?x=@'/></opml>");
        let said = "`https://…@a.example/feed?x=@` is no address of a feed: it holds a user name or password";
        assert!(secret.feeds.is_empty() && secret.notes[0].starts_with(said), "{:?}", secret.notes);
        let none = read_opml(b"{\"not\": \"opml\"}");
        assert_eq!(none.notes, ["this is no OPML: it has neither `<opml>` nor `<outline>`"]);
    }

    #[test]
    fn other_character_sets_are_read() {
        let text = "<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?><opml><outline text=\"Zürich\" xmlUrl=\"http://z.example/\"/>";
        let expected = [feed("http://z.example/", "Zürich", "")];
        let utf16: Vec<u8> = std::iter::once(0xfeff).chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect();
        let latin1 = encoding_rs::WINDOWS_1252.encode(text).0.into_owned();
        let undeclared = encoding_rs::WINDOWS_1252.encode(&text[text.find("<opml").unwrap()..]).0.into_owned();
        for bytes in [utf16, latin1, undeclared] {
            let feeds = read_opml(&bytes).feeds;
            assert_eq!((feeds[0].title.as_str(), feeds.len()), ("Zürich", expected.len()));
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let feed = |url: &str, title: &str, page: Option<&str>, categories: &[&str]| ListedFeed {
            url: url.to_owned(),
            title: title.to_owned(),
            page: page.map(str::to_owned),
            categories: categories.iter().map(|&name| name.to_owned()).collect(),
        };
        let feeds = [
            feed("https://b.example/?a=1&b=2", "A \"title\" & <more>", None, &[]),
            feed("https://a.example/", "Ä", Some("https://a.example/page"), &["News/World", "Rust"]),
            feed("https://c.example/", "C", None, &["News/World"]),
        ];
        let text = write_opml("Mine & yours", &feeds);
        let opml = read_opml(text.as_bytes());
        assert_eq!(opml.feeds, feeds);
        assert_eq!(opml.title.as_deref(), Some("Mine & yours"));
        assert!(text.starts_with("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<opml version=\"2.0\">"), "{text}");
    }

    #[test]
    fn a_list_of_outlines_that_end_nowhere_costs_no_more_than_its_length() {
        let text = format!("<opml>{}", "<outline>x".repeat(200_000));
        let started = std::time::Instant::now();
        assert!(read_opml(text.as_bytes()).feeds.is_empty());
        assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_a_list(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
            read_opml(&bytes);
        }
    }
}
