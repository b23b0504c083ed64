//! The columns of `silver.news`.

use contract::{Column, Kind, Search};

use crate::columns::columns;

/// A file that belongs to an article.
const ENCLOSURE: &[Column] = &[
    Column { name: "enclosures.url", kind: Kind::Text, search: Search::Exact, doc: "Its address." },
    Column { name: "enclosures.type", kind: Kind::Text, search: Search::Exact, doc: "Its media type: `audio/mpeg`." },
    Column { name: "enclosures.length", kind: Kind::Integer, search: Search::Exact, doc: "Its bytes, as stated." },
];

columns! {
    "news" by Month
    ARTICLE_ID = "article_id", Text, Exact, "The article, in 16 hexadecimal digits; the same under a changed title, GUID or tracking parameter. It has a row for each feed that carries it, and for each content, GUID, canonical address and date that a feed states of it.";
    CONTENT_HASH = "content_hash", Text, Exact, "Its title and text, in 16 hexadecimal digits: another one is another version.";
    FEED_URL = "feed_url", Text, Exact, "The feed as subscribed to; of a file, as the feed states it.";
    FEED_TITLE = "feed_title", Text, Words, "The feed's name.";
    FETCHED_FROM = "fetched_from", Text, Exact, "Where it was read: the address after redirects, or the file's name.";
    GUID = "guid", Text, Exact, "The entry's id as the feed states it.";
    LINK = "link", Text, Exact, "The article's address as the feed states it, made absolute where the base is known.";
    CANONICAL_URL = "canonical_url", Text, Exact, "The same without redirects of aggregators, tracking parameters and fragment.";
    TITLE = "title", Text, Words, "The title, as clean text on one line.";
    SUMMARY = "summary", Text, Words, "The summary or description, as clean text; cut at a word after 1,000 characters.";
    CONTENT_TEXT = "content_text", Text, Words, "The content as clean text; the summary where the feed gives no content; the article's page where `news.full_text` has it fetched.";
    CONTENT_HTML = "content_html", Text, Exact, "The same as safe HTML; absent where the feed gives plain text.";
    AUTHORS = "authors", TextList, Exact, "Names of the authors, in order; the feed's where the entry names none.";
    CATEGORIES = "categories", TextList, Exact, "Categories, tags and keywords that the feed states.";
    PUBLISHED_AT = "published_at", Timestamp, Exact, "When it was published; the same as `event_time`.";
    PUBLISHED_SOURCE = "published_source", Text, Exact, "What that is: `published`, `updated`, or `fetched` where the feed states no usable date.";
    PUBLISHED_RAW = "published_raw", Text, Exact, "The published date as the feed writes it, else the updated date.";
    UPDATED_AT = "updated_at", Timestamp, Exact, "When it was updated, as the feed states it.";
    LANGUAGE = "language", Text, Exact, "The language: `en`, `pt-BR`.";
    LANGUAGE_SOURCE = "language_source", Text, Exact, "Who says so: `declared` by the feed, or `detected` in the text.";
    KEYWORDS = "keywords", TextList, Exact, "The ten words at the most that tell best what it is about.";
    WORD_COUNT = "word_count", Integer, Exact, "Words of the content.";
    READING_TIME_SECONDS = "reading_time_seconds", Integer, Exact, "How long an adult reads it, at 238 words a minute.";
    SIMHASH = "simhash", Text, Exact, "Signature of title and content, in 16 hexadecimal digits: near-duplicates differ in few bits.";
    ENCLOSURES = "enclosures", StructList(ENCLOSURE), Exact, "Files that belong to it.";
    IMAGE = "image", Text, Exact, "Address of its picture.";
    COMMENTS_URL = "comments_url", Text, Exact, "Page of the comments on it.";
    COMMENT_COUNT = "comment_count", Integer, Exact, "Comments on it, as stated.";
    SOURCE_TITLE = "source_title", Text, Exact, "The feed that it was taken over from.";
    LOCATION = "location", Text, Exact, "The place that it is about: latitude and longitude in degrees.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_constant_is_the_place_of_its_column() {
        assert_eq!(SCHEMA.place("article_id"), ARTICLE_ID);
        assert_eq!(SCHEMA.place("location"), LOCATION);
        assert_eq!(LOCATION, SCHEMA.all().count() - 1);
    }
}
