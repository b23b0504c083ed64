//! JSON Feed 1 and 1.1: <https://www.jsonfeed.org/version/1.1/>. Values of a wrong type are passed over or, where an
//! id is a number, taken as their text.

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::feed::{Enclosure, Entry, Feed, Format, Text};

/// A feed in JSON, read.
pub(super) struct Document<'a> {
    pub(super) feed: Feed,
    /// Each item as it stands in the document.
    pub(super) items: Vec<(&'a str, Entry)>,
    /// The feed's own fields, as JSON without the items.
    pub(super) head: Map<String, Value>,
}

/// Bytes of a field of the feed's own that goes with each entry.
const FIELD_BYTES_MAX: usize = 4 << 10;

#[derive(serde::Deserialize)]
struct Outline<'a> {
    #[serde(borrow, default)]
    items: Vec<&'a RawValue>,
    #[serde(flatten)]
    head: Map<String, Value>,
}

/// Reads a document. The error says what it is instead of a feed.
pub(super) fn document(text: &str) -> Result<Document<'_>, String> {
    let outline: Outline<'_> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let head = outline.head;
    let version = head.get("version").and_then(Value::as_str).unwrap_or_default();
    if !version.contains("jsonfeed.org/version/1") {
        return Err(format!(
            "its `version` is `{version:.60}`, that of a JSON Feed is `https://jsonfeed.org/version/1.1`"
        ));
    }
    let items = outline.items.into_iter().filter_map(|item| {
        let fields = serde_json::from_str::<Map<String, Value>>(item.get()).ok()?;
        Some((item.get(), entry(&fields)))
    });
    let items = items.collect();
    let feed = feed(&head);
    let head = head.into_iter().filter(|(_, value)| value.to_string().len() <= FIELD_BYTES_MAX).collect();
    Ok(Document { feed, items, head })
}

fn feed(fields: &Map<String, Value>) -> Feed {
    let hubs = list(fields, "hubs").filter_map(|hub| text(hub.as_object()?, "url"));
    Feed {
        format: Some(Format::Json),
        title: text(fields, "title"),
        link: text(fields, "home_page_url"),
        self_link: text(fields, "feed_url"),
        hubs: hubs.collect(),
        language: text(fields, "language"),
        authors: authors(fields),
        ..Feed::default()
    }
}

fn entry(fields: &Map<String, Value>) -> Entry {
    let html = text(fields, "content_html").map(|value| Text { value, is_html: true });
    let plain = |name| text(fields, name).map(|value| Text { value, is_html: false });
    let tags = list(fields, "tags").filter_map(|tag| tag.as_str().map(str::to_owned));
    let enclosures = list(fields, "attachments").filter_map(|file| {
        let file = file.as_object()?;
        let length = file.get("size_in_bytes").and_then(Value::as_f64).map(|bytes| bytes as i64);
        Some(Enclosure { url: text(file, "url")?, kind: text(file, "mime_type"), length })
    });
    Entry {
        guid: text(fields, "id"),
        link: text(fields, "url").or_else(|| text(fields, "external_url")),
        title: plain("title"),
        summary: plain("summary"),
        content: html.or_else(|| plain("content_text")),
        authors: authors(fields),
        categories: tags.collect(),
        published: text(fields, "date_published"),
        updated: text(fields, "date_modified"),
        language: text(fields, "language"),
        enclosures: enclosures.collect(),
        image: text(fields, "image").or_else(|| text(fields, "banner_image")),
        ..Entry::default()
    }
}

/// A text that is not empty; numbers as they are written.
fn text(fields: &Map<String, Value>, name: &str) -> Option<String> {
    match fields.get(name)? {
        Value::String(text) => Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn list<'a>(fields: &'a Map<String, Value>, name: &str) -> impl Iterator<Item = &'a Value> {
    fields.get(name).and_then(Value::as_array).into_iter().flatten()
}

/// `authors` of 1.1 and `author` of 1: their names, else their addresses.
fn authors(fields: &Map<String, Value>) -> Vec<String> {
    let name = |author: &Value| text(author.as_object()?, "name").or_else(|| text(author.as_object()?, "url"));
    let names: Vec<String> = list(fields, "authors").filter_map(name).collect();
    if names.is_empty() { fields.get("author").and_then(name).into_iter().collect() } else { names }
}
