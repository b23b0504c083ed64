//! What an entry and its feed say, as one article: clean texts, absolute addresses, times, identity.

use std::borrow::Cow;

use contract::Timestamp;
use contract::limits::FUTURE_SECONDS_MAX;
use url::Url;
use xxhash_rust::xxh3::xxh3_64;

use super::date;
use super::envelope::Envelope;
use super::feed::{Entry, Feed, Text};
use super::html::{clean_lines, one_line, to_text};
use super::links::{canonical, identity, join};

/// Which of an entry's dates the published time is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PublishedSource {
    Published,
    Updated,
    Fetched,
}

impl PublishedSource {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::Updated => "updated",
            Self::Fetched => "fetched",
        }
    }
}

/// An article, ready to be a row.
#[derive(Debug)]
pub(super) struct Article {
    pub(super) title: String,
    pub(super) summary: String,
    pub(super) text: String,
    pub(super) link: Option<String>,
    pub(super) canonical: Option<Url>,
    pub(super) feed_url: Option<String>,
    /// 16 hexadecimal digits: the same for every form of the article.
    pub(super) article_id: String,
    /// 16 hexadecimal digits: of the title and the text.
    pub(super) content_hash: String,
    /// 16 hexadecimal digits: of the feed and of the id, the canonical address and the date that the entry states.
    pub(super) entry_hash: String,
    pub(super) published_at: Timestamp,
    pub(super) published_source: PublishedSource,
    pub(super) updated_at: Option<Timestamp>,
}

/// Makes an article of an entry.
///
/// **Identity.** The canonical address, as far as all its forms share it; where there is none, or several entries of the
/// feed share one and this was not the first, the entry's id within its feed; else its title within its feed, its text,
/// its bytes. An article that was identified by its address stays so when others come to share it; a feed's collector
/// remembers that for what the feed shows, and a file knows its own entries alone.
///
/// **Rows.** An entry that states something else is another row of the same article: other content, id, canonical address
/// or time, or the same in another feed.
///
/// **Time.** The published date; where it is missing, cannot be read or lies more than a day after the fetch, the
/// updated date; where that is no better, the fetch.
pub(super) fn make(envelope: &Envelope<'_>, feed: &Feed, entry: &Entry, fetched_at: Timestamp) -> Article {
    let title = entry.title.as_ref().map(|title| one_line(&clean(title))).unwrap_or_default();
    let text = entry.content.as_ref().or(entry.summary.as_ref()).map(clean).unwrap_or_default().into_owned();
    let summary = entry.summary.as_ref().map(clean).unwrap_or_default().into_owned();
    let feed_url = envelope.feed_url.as_deref().or(feed.self_link.as_deref()).map(str::to_owned);
    let web_base = envelope.fetched_from.as_deref().filter(|from| from.starts_with("http")).unwrap_or_default();
    let link = entry.link.as_deref().filter(|link| !link.is_empty()).map(|link| join(web_base, link));
    let canonical = entry.original_link.as_deref().and_then(canonical).or_else(|| {
        let site = feed.link.as_deref().unwrap_or_default();
        canonical(&join(site, link.as_deref()?))
    });
    let (published_at, published_source) = published(entry, fetched_at);
    let key = feed_url.as_deref().or(feed.link.as_deref()).or(feed.title.as_deref());
    let key = key.or(envelope.fetched_from.as_deref()).unwrap_or_default();
    let own = canonical.as_ref().filter(|_| !envelope.link_is_shared).and_then(identity);
    let identity = match (own, entry.guid.as_deref().filter(|guid| !guid.is_empty())) {
        (Some(address), _) => format!("address\n{address}"),
        (None, Some(guid)) => format!("id\n{key}\n{guid}"),
        (None, None) if !title.is_empty() => format!("title\n{key}\n{title}"),
        (None, None) if !text.is_empty() => format!("text\n{key}\n{text}"),
        (None, None) => format!("document\n{key}\n{}", envelope.document),
    };
    let stated_at = [&entry.published, &entry.updated].into_iter().flatten().find(|date| !date.is_empty());
    let (guid, stated_at) = (entry.guid.as_deref().unwrap_or_default(), stated_at.map_or("", String::as_str));
    let address = canonical.as_ref().map(Url::as_str).or(link.as_deref()).unwrap_or_default();
    let stated = format!("{key}\n{guid}\n{address}\n{stated_at}");
    Article {
        entry_hash: format!("{:016x}", xxh3_64(stated.as_bytes())),
        article_id: format!("{:016x}", xxh3_64(identity.as_bytes())),
        content_hash: format!("{:016x}", xxh3_64(format!("{title}\n{text}").as_bytes())),
        updated_at: entry.updated.as_deref().and_then(|text| date::parse(text, fetched_at)),
        title,
        summary,
        // The hash is of what the feed says, so that a page fetched later makes no new version.
        text: envelope.page_text.as_deref().map_or(text, str::to_owned),
        link,
        canonical,
        feed_url,
        published_at,
        published_source,
    }
}

fn clean(text: &Text) -> Cow<'_, str> {
    Cow::Owned(if text.is_html { to_text(&text.value) } else { clean_lines(&text.value) })
}

fn published(entry: &Entry, fetched_at: Timestamp) -> (Timestamp, PublishedSource) {
    let read = |text: &Option<String>| {
        let time = date::parse(text.as_deref()?, fetched_at)?;
        (time.since(fetched_at).as_secs() <= FUTURE_SECONDS_MAX).then_some(time)
    };
    let published = read(&entry.published).map(|time| (time, PublishedSource::Published));
    let updated = || read(&entry.updated).map(|time| (time, PublishedSource::Updated));
    published.or_else(updated).unwrap_or((fetched_at, PublishedSource::Fetched))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn article(entry: &Entry, feed_url: &str, link_is_shared: bool) -> Article {
        let now = Timestamp::parse_rfc3339("2026-05-06T07:08:09Z").unwrap();
        let feed_url = Some(Cow::Borrowed(feed_url));
        let envelope = Envelope {
            feed_url,
            fetched_from: None,
            link_is_shared,
            page_url: None,
            page_text: None,
            document: Cow::Borrowed("x"),
        };
        make(&envelope, &Feed::default(), entry, now)
    }

    fn entry(guid: &str, link: &str, title: &str) -> Entry {
        let title = Text { value: title.to_owned(), is_html: false };
        Entry { guid: Some(guid.to_owned()), link: Some(link.to_owned()), title: Some(title), ..Entry::default() }
    }

    #[test]
    fn an_article_survives_a_changed_title_id_feed_or_tracking_parameter() {
        let first = article(&entry("1", "http://example.org/a", "A"), "http://example.org/feed", false);
        let again = article(&entry("2", "https://www.example.org/a?utm_source=x", "B"), "http://other.org/feed", false);
        assert_eq!(first.article_id, again.article_id);
        assert_ne!(first.content_hash, again.content_hash);
    }

    #[test]
    fn an_address_that_is_not_the_entry_s_own_does_not_identify_it() {
        let feed = "http://example.org/feed";
        for (link, is_shared) in [("http://example.org/", false), ("http://example.org/status", true)] {
            let one = article(&entry("1", link, "A"), feed, is_shared);
            let two = article(&entry("2", link, "A"), feed, is_shared);
            assert_ne!(one.article_id, two.article_id, "{link}");
            assert_eq!(one.article_id, article(&entry("1", link, "B"), feed, is_shared).article_id, "{link}");
        }
    }

    #[test]
    fn a_missing_or_future_date_falls_to_the_next() {
        let mut dated = entry("1", "http://example.org/a", "A");
        let source = |entry: &Entry| {
            let article = article(entry, "http://example.org/feed", false);
            (article.published_source.name(), article.published_at.to_string())
        };
        assert_eq!(source(&dated), ("fetched", "2026-05-06T07:08:09Z".to_owned()));
        dated.updated = Some("2026-05-01".to_owned());
        assert_eq!(source(&dated), ("updated", "2026-05-01T00:00:00Z".to_owned()));
        dated.published = Some("2026-05-08T00:00:00Z".to_owned());
        assert_eq!(source(&dated).0, "updated");
        dated.published = Some("2026-05-07T00:00:00Z".to_owned());
        assert_eq!(source(&dated), ("published", "2026-05-07T00:00:00Z".to_owned()));
    }
}
