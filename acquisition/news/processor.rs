//! From a record to a row.

use std::borrow::Cow;

use contract::limits::RECORD_BYTES_MAX;
use contract::{Processor, RawRecord, Reject, RowBuilder, Value};
use url::Url;

use super::article::{self, Article};
use super::envelope::Envelope;
use super::feed::{Entry, Feed};
use super::html::to_safe_html;
use super::links::join;
use super::reject::what_it_is;
use super::split::{Cut, cut};
use super::{charset, language, schema, text};

/// Characters of a summary.
const SUMMARY_CHARACTERS_MAX: usize = 1_000;

/// Understands an entry of every feed format.
///
/// | record | outcome |
/// | --- | --- |
/// | an entry, however little it says | a row; what it does not say is null |
/// | a date that cannot be read, or is more than a day after the fetch | a row whose `published_source` says so |
/// | a document that is no feed | reject `format`, saying what it is instead |
/// | larger than the limit | reject `size` |
#[derive(Clone, Copy, Debug, Default)]
pub struct NewsProcessor;

impl Processor for NewsProcessor {
    fn process(&self, record: &RawRecord, row: &mut RowBuilder) -> Result<(), Reject> {
        if record.body.len() > RECORD_BYTES_MAX {
            let reason = format!("the entry is {} bytes long, {RECORD_BYTES_MAX} are allowed", record.body.len());
            return Err(Reject::new("size", reason));
        }
        let Ok(envelope) = serde_json::from_slice::<Envelope<'_>>(&record.body) else {
            let text = charset::decode(&record.body, None).text;
            return Err(Reject::new("format", what_it_is(&text)));
        };
        let Cut { feed, entries, .. } = cut(&envelope.document);
        let Some((_, entry)) = entries.into_iter().next().filter(|_| feed.format.is_some()) else {
            return Err(Reject::new("format", what_it_is(&envelope.document)));
        };
        let article = article::make(&envelope, &feed, &entry, record.fetched_at);
        write_identity(&envelope, &feed, &entry, &article, row);
        let base = base(&feed, &entry, &article);
        write_texts(&feed, &entry, &article, base.as_ref(), row);
        write_times(&entry, &article, row);
        write_addresses(&entry, base.as_ref(), row);
        write_extras(&feed, &entry, &article, row);
        Ok(())
    }
}

fn write_text(row: &mut RowBuilder, place: usize, value: Option<&str>) {
    if let Some(value) = value.filter(|value| !value.is_empty()) {
        row.text(place, value);
    }
}

fn write_list(row: &mut RowBuilder, place: usize, values: &[String]) {
    if !values.is_empty() {
        row.texts(place, values.iter().map(String::as_str));
    }
}

fn write_identity(envelope: &Envelope<'_>, feed: &Feed, entry: &Entry, article: &Article, row: &mut RowBuilder) {
    row.text(schema::ARTICLE_ID, &article.article_id);
    row.text(schema::CONTENT_HASH, &article.content_hash);
    write_text(row, schema::FEED_URL, article.feed_url.as_deref());
    write_text(row, schema::FEED_TITLE, feed.title.as_deref());
    write_text(row, schema::FETCHED_FROM, envelope.fetched_from.as_deref());
    write_text(row, schema::GUID, entry.guid.as_deref());
    write_text(row, schema::LINK, article.link.as_deref());
    write_text(row, schema::CANONICAL_URL, article.canonical.as_ref().map(Url::as_str));
    write_text(row, schema::SOURCE_TITLE, entry.source_title.as_deref());
}

fn write_texts(feed: &Feed, entry: &Entry, article: &Article, base: Option<&Url>, row: &mut RowBuilder) {
    write_text(row, schema::TITLE, Some(&article.title));
    write_text(row, schema::SUMMARY, Some(&shortened(&article.summary)));
    write_text(row, schema::CONTENT_TEXT, Some(&article.text));
    let content = entry.content.as_ref().or(entry.summary.as_ref()).filter(|content| content.is_html);
    let html = content.and_then(|content| to_safe_html(&content.value, base));
    write_text(row, schema::CONTENT_HTML, html.as_deref());
    let authors = if entry.authors.is_empty() { &feed.authors } else { &entry.authors };
    write_list(row, schema::AUTHORS, authors);
    write_list(row, schema::CATEGORIES, &entry.categories);
}

/// What relative addresses in an entry are relative to.
fn base(feed: &Feed, entry: &Entry, article: &Article) -> Option<Url> {
    let nearest = article.link.as_deref().or(feed.link.as_deref()).or(article.feed_url.as_deref()).unwrap_or_default();
    let stated = entry.base.as_deref().map(|base| join(nearest, base));
    stated.as_deref().into_iter().chain([nearest]).find_map(|base| Url::parse(base).ok())
}

fn write_times(entry: &Entry, article: &Article, row: &mut RowBuilder) {
    row.timestamp(schema::PUBLISHED_AT, article.published_at);
    row.text(schema::PUBLISHED_SOURCE, article.published_source.name());
    let stated = [&entry.published, &entry.updated].into_iter().flatten().find(|date| !date.is_empty());
    write_text(row, schema::PUBLISHED_RAW, stated.map(String::as_str));
    if let Some(updated_at) = article.updated_at {
        row.timestamp(schema::UPDATED_AT, updated_at);
    }
}

fn write_addresses(entry: &Entry, base: Option<&Url>, row: &mut RowBuilder) {
    let absolute = |address: &str| join(base.map(Url::as_str).unwrap_or_default(), address);
    if !entry.enclosures.is_empty() {
        let addresses: Vec<String> = entry.enclosures.iter().map(|file| absolute(&file.url)).collect();
        let files = entry.enclosures.iter().zip(&addresses);
        let structs =
            files.map(|(file, url)| [Value::Text(url), Value::from(file.kind.as_deref()), Value::from(file.length)]);
        row.structs(schema::ENCLOSURES, structs);
    }
    write_text(row, schema::IMAGE, entry.image.as_deref().map(absolute).as_deref());
    write_text(row, schema::COMMENTS_URL, entry.comments_url.as_deref().map(absolute).as_deref());
}

fn write_extras(feed: &Feed, entry: &Entry, article: &Article, row: &mut RowBuilder) {
    let whole = format!("{}\n{}", article.title, article.text);
    let declared = entry.language.as_deref().or(feed.language.as_deref()).and_then(language::tag);
    let source = if declared.is_some() { "declared" } else { "detected" };
    let language = declared.map(Cow::Owned).or_else(|| language::detect(&whole).map(Cow::Borrowed));
    if let Some(language) = &language {
        row.text(schema::LANGUAGE, language);
        row.text(schema::LANGUAGE_SOURCE, source);
    }
    let keywords = text::keywords(&article.title, &article.text, language.as_deref());
    write_list(row, schema::KEYWORDS, &keywords);
    let (words, seconds) = text::length(&article.text);
    row.integer(schema::WORD_COUNT, words as i64);
    row.integer(schema::READING_TIME_SECONDS, seconds as i64);
    write_text(row, schema::SIMHASH, text::simhash(&whole).as_deref());
    if let Some(count) = entry.comment_count {
        row.integer(schema::COMMENT_COUNT, count);
    }
    write_text(row, schema::LOCATION, entry.place.as_deref());
}

/// A summary of reasonable length; one that is cut ends with `…`.
fn shortened(summary: &str) -> Cow<'_, str> {
    let Some((end, _)) = summary.char_indices().nth(SUMMARY_CHARACTERS_MAX) else { return Cow::Borrowed(summary) };
    let head = &summary[..end];
    let head = head.rfind(char::is_whitespace).map_or(head, |blank| &head[..blank]);
    Cow::Owned(format!("{head}…"))
}
