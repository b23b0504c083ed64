//! The feeds that are set, their collectors, and what the command `feeds` does with them.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use contract::{Collector, Error, Result, Webhook, WebhookAnswer, WebhookRequest};
use reqwest::Url;

use super::discover::{Found, discover};
use super::feed_collector::{FeedCollector, Shared};
use super::fetch::Ask;
use super::opml::{ListedFeed, Opml, feed_url, read_opml, shown};
use super::settings::Settings;
use super::websub::WebSub;
use crate::{Collectors, Context};

/// Between the first requests of two feeds, unless so many start that the spread would be longer than is set.
const START_SPACING: Duration = Duration::from_millis(250);

/// Bytes of an OPML file; lists of thousands of feeds have 2 MB.
const OPML_BYTES_MAX: usize = 32 << 20;

/// The collectors of all feeds that are set, and the webhook of their hubs.
pub(crate) fn collectors(settings: &crate::Settings, context: &Context) -> Result<Collectors> {
    let settings = &settings.news;
    let feeds = feeds(settings)?.feeds;
    let shared = Arc::new(Shared::new(settings, context)?);
    let spread = Duration::from_secs(settings.start_spread_seconds.min(86_400));
    let count = u32::try_from(feeds.len()).unwrap_or(u32::MAX).max(1);
    let spacing = START_SPACING.min(spread / count);
    let polled = (0..).zip(feeds).map(|(number, feed): (u32, ListedFeed)| -> Result<Box<dyn Collector>> {
        let url =
            Url::parse(&feed.url).map_err(|error| Error::change(format!("use feed `{}`", feed.url)).because(error))?;
        Ok(Box::new(FeedCollector::new(url, spacing * number, shared.clone())))
    });
    let polled = polled.collect::<Result<_>>()?;
    let webhooks =
        shared.websub().into_iter().map(|websub| Arc::new(Hook(websub.clone())) as Arc<dyn Webhook>).collect();
    Ok(Collectors { polled, webhooks })
}

/// The feeds of the settings `feeds` and `opml`, each once; the notes say what of the lists is left out.
///
/// # Errors
/// `Change` for an address that is none and a file that cannot be read.
pub fn feeds(settings: &Settings) -> Result<Opml> {
    let (mut feeds, mut notes): (Vec<ListedFeed>, Vec<String>) = (Vec::new(), Vec::new());
    for address in &settings.feeds {
        let url = feed_url(address).map_err(|why| {
            let right = "should be as `https://example.org/feed.xml`";
            Error::change(format!("use `{}` of `news.feeds` ({right}): {why}", shown(address)))
        })?;
        feeds.push(ListedFeed { url, ..ListedFeed::default() });
    }
    for path in &settings.opml {
        let wrong = |why: String| Error::change(format!("read `{path}` of `news.opml`")).because(why);
        if path.starts_with("http:") || path.starts_with("https:") {
            return Err(wrong("it should be a file; `databroker feeds import` fetches a list".to_owned()));
        }
        let bytes = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
        let opml = read_opml(&bytes);
        if opml.feeds.is_empty() {
            return Err(wrong(opml.notes.first().cloned().unwrap_or("it names no feed".to_owned())));
        }
        feeds.extend(opml.feeds);
        notes.extend(opml.notes.into_iter().map(|note| format!("`{path}`: {note}")));
    }
    let mut seen = std::collections::HashSet::new();
    feeds.retain(|feed| seen.insert(feed.url.clone()));
    Ok(Opml { title: None, feeds, notes })
}

/// Reads an OPML list from a file or an address, for `feeds import`.
///
/// # Errors
/// `Change` if it cannot be read; a list that is none has notes that say so.
pub async fn import(location: &str, settings: &Settings, context: &Context) -> Result<Opml> {
    let wrong = |why: String| Error::change(format!("import `{location}`")).because(why);
    if !location.starts_with("http:") && !location.starts_with("https:") {
        let bytes = std::fs::read(location).map_err(|error| wrong(error.to_string()))?;
        return Ok(read_opml(&bytes));
    }
    let url = Url::parse(location).map_err(|error| wrong(error.to_string()))?;
    let shared = Shared::new(settings, context)?;
    let accept = "text/x-opml, application/xml, text/xml, */*;q=0.1";
    let ask = Ask { url: &url, accept, etag: None, last_modified: None, bytes_max: OPML_BYTES_MAX };
    let answer = shared.fetcher.get(&ask).await.map_err(|trouble| wrong(trouble.to_string()))?;
    if !answer.status.is_success() {
        return Err(wrong(format!("the server answers {}", answer.status.as_u16())));
    }
    Ok(read_opml(&answer.body))
}

/// The feeds of the page at `address`, for `feeds discover`; empty if there are none.
///
/// # Errors
/// `Change` if the page cannot be read.
pub async fn discover_feeds(address: &str, settings: &Settings, context: &Context) -> Result<Vec<Found>> {
    let wrong = |why: String| Error::change(format!("discover the feeds of `{address}`")).because(why);
    let url = Url::parse(address).map_err(|error| wrong(format!("{error} (should be as `https://example.org/`)")))?;
    let shared = Shared::new(settings, context)?;
    discover(&shared.fetcher, &url).await.map_err(wrong)
}

/// Takes the calls of hubs, at `/webhooks/news/websub/TOKEN`.
struct Hook(Arc<WebSub>);

#[async_trait]
impl Webhook for Hook {
    fn path(&self) -> &'static str {
        "news"
    }

    fn admit(&self, head: &WebhookRequest) -> std::result::Result<usize, WebhookAnswer> {
        self.0.admit(head)
    }

    async fn receive(&self, request: WebhookRequest) -> WebhookAnswer {
        self.0.receive(request).await
    }
}
