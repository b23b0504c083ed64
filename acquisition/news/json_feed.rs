//! JSON Feed 1 and 1.1: <https://www.jsonfeed.org/version/1.1/>. Values of a wrong type are passed over or, where an
//! id is a number, taken as their text.

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::feed::{Enclosure, Entry, Feed, Format, Text};
use super::read::head_bytes_max;
use super::split::ENTRIES_MAX;

/// A feed in JSON, read.
pub(super) struct Document<'a> {
    pub(super) feed: Feed,
    /// Each item as it stands in the document.
    pub(super) items: Vec<(&'a str, Entry)>,
    /// The feed's own fields as far as there is room for them, as JSON without the items and without its last brace.
    pub(super) head: String,
}

/// Bytes of a field of the feed's own that goes with each entry.
const FIELD_BYTES_MAX: usize = 4 << 10;

/// The fields that entries depend on, the most important first.
const READ_FIELDS: &[&str] = &["version", "title", "home_page_url", "feed_url", "language", "authors", "author"];

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
    let items = outline.items.into_iter().take(ENTRIES_MAX + 1).filter_map(|item| {
        let fields = serde_json::from_str::<Map<String, Value>>(item.get()).ok()?;
        Some((item.get(), entry(&fields)))
    });
    let items: Vec<_> = items.collect();
    let feed = feed(&head);
    Ok(Document { feed, head: chosen(&head, head_bytes_max(items.len())), items })
}

fn chosen(fields: &Map<String, Value>, bytes_max: usize) -> String {
    let first = READ_FIELDS.iter().filter_map(|name| fields.get_key_value(*name));
    let others = fields.iter().filter(|(name, _)| !READ_FIELDS.contains(&name.as_str()));
    let mut head = String::from("{");
    for (name, value) in first.chain(others) {
        let field = format!("{}:{value},", Value::from(name.as_str()));
        if field.len() <= FIELD_BYTES_MAX && head.len() + field.len() <= bytes_max {
            head.push_str(&field);
        }
    }
    head
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

#[cfg(test)]
mod tests {
    use super::super::read::HEAD_BYTES_MAX;
    use super::*;

    #[test]
    fn the_fields_that_go_with_each_item_are_bounded_and_the_important_come_first() {
        let fields: String = (0..100).map(|number| format!("\"_{number}\": \"{}\",", "x".repeat(1_000))).collect();
        let text = format!(
            "{{{fields}\"items\": [{{\"id\": 1}}], \"title\": \"T\", \"version\": \"https://jsonfeed.org/version/1.1\"}}"
        );
        let head = document(&text).unwrap().head;
        assert!(head.starts_with("{\"version\":\"https://jsonfeed.org/version/1.1\",\"title\":\"T\","), "{head:.90}");
        assert!((HEAD_BYTES_MAX / 2..=HEAD_BYTES_MAX).contains(&head.len()));
    }

    #[test]
    fn no_more_items_are_read_than_are_taken() {
        let items = "{},".repeat(ENTRIES_MAX + 100);
        let text = format!("{{\"version\": \"https://jsonfeed.org/version/1\", \"items\": [{items}{{}}]}}");
        assert_eq!(document(&text).unwrap().items.len(), ENTRIES_MAX + 1);
    }
}
