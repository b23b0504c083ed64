//! Feeds of a page: those that it names, or those that stand where most sites have theirs.
//!
//! Source: <https://www.rssboard.org/rss-autodiscovery>, <https://html.spec.whatwg.org/multipage/links.html#rel-alternate>.

use reqwest::Url;

use super::fetch::{Ask, Fetcher};
use super::markup::{Token, Tokens, attributes};
use super::references::{Entities, decode};

/// Feeds of one page that are named at the most.
const FEEDS_MAX: usize = 100;

/// Bytes of a page that are looked through.
const PAGE_BYTES_MAX: usize = 4 << 20;

/// Where sites have their feeds when their pages do not say so: WordPress, static site generators, Ghost, Blogger, forums.
const COMMON_PATHS: &[&str] =
    &["/feed", "/rss", "/feed.xml", "/rss.xml", "/atom.xml", "/index.xml", "/feed.json", "/feeds/posts/default"];

const ACCEPT: &str = "text/html, application/xhtml+xml, application/atom+xml, application/rss+xml, */*;q=0.5";

/// A feed that a page names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its address.
    pub url: Url,
    /// What the page calls it; empty if nothing.
    pub title: String,
}

/// The feeds of the page at `address`: the address itself if a feed stands there, else those that the page names, else
/// those that answer at the usual paths of its host.
pub(super) async fn discover(fetcher: &Fetcher, address: &Url) -> Result<Vec<Found>, String> {
    let (url, body) = fetch(fetcher, address).await?;
    if is_feed(&body) {
        return Ok(vec![Found { url, title: String::new() }]);
    }
    let named = feeds_of_page(&String::from_utf8_lossy(&body), &url);
    if !named.is_empty() {
        return Ok(named);
    }
    let mut found = Vec::new();
    for path in COMMON_PATHS {
        let Ok(candidate) = url.join(path) else { continue };
        if let Ok((url, body)) = fetch(fetcher, &candidate).await
            && is_feed(&body)
            && !found.iter().any(|known: &Found| known.url == url)
        {
            found.push(Found { url, title: String::new() });
        }
    }
    Ok(found)
}

async fn fetch(fetcher: &Fetcher, url: &Url) -> Result<(Url, bytes::Bytes), String> {
    let ask = Ask { url, accept: ACCEPT, etag: None, last_modified: None, bytes_max: PAGE_BYTES_MAX };
    match fetcher.get(&ask).await {
        Ok(answer) if answer.status.is_success() => Ok((answer.url, answer.body)),
        Ok(answer) => Err(format!("the server answers {}", answer.status.as_u16())),
        Err(trouble) => Err(trouble.to_string()),
    }
}

/// The feeds that a page names in its `link` elements, in its order, each once.
pub(super) fn feeds_of_page(html: &str, page: &Url) -> Vec<Found> {
    let mut base = page.clone();
    let mut found: Vec<Found> = Vec::new();
    let mut tokens = Tokens::new(html);
    while let Some((token, _)) = tokens.next() {
        let Token::Start { name, attributes, .. } = token else { continue };
        match name.to_ascii_lowercase().as_str() {
            "base" => base = value(attributes, "href").and_then(|href| page.join(&href).ok()).unwrap_or(base),
            "link" => {
                let feed = feed_of_link(attributes, &base);
                found.extend(feed.filter(|feed| !found.iter().any(|known| known.url == feed.url)));
            }
            raw @ ("script" | "style" | "textarea") => tokens.skip_raw(raw),
            _ => {}
        }
        if found.len() == FEEDS_MAX {
            break;
        }
    }
    found
}

fn feed_of_link(attributes: &str, base: &Url) -> Option<Found> {
    let relations = value(attributes, "rel")?.to_ascii_lowercase();
    let has = |name: &str| relations.split_ascii_whitespace().any(|relation| relation == name);
    let kind = value(attributes, "type").unwrap_or_default().to_ascii_lowercase();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let is_feed_kind = matches!(
        kind,
        "application/rss+xml"
            | "application/atom+xml"
            | "application/rdf+xml"
            | "application/feed+json"
            | "application/json"
            | "application/xml"
            | "text/xml"
            | "application/x.atom+xml"
            | "application/x-atom+xml"
    );
    // WordPress names its API as an alternate of kind JSON, and oEmbed has kinds of its own.
    let href = value(attributes, "href").filter(|href| !href.is_empty())?;
    let is_api = kind == "application/json" && href.contains("/wp-json/");
    let is_feed = has("feed") || has("alternate") && !has("stylesheet") && is_feed_kind && !is_api;
    let url = base.join(super::opml::feed_url(&href).as_deref().unwrap_or(&href)).ok()?;
    let is_web = matches!(url.scheme(), "http" | "https");
    (is_feed && is_web).then(|| Found { url, title: value(attributes, "title").unwrap_or_default() })
}

fn value(text: &str, wanted: &str) -> Option<String> {
    let (_, value) = attributes(text).find(|(name, _)| name.eq_ignore_ascii_case(wanted))?;
    Some(decode(value, &Entities::default()).trim().to_owned())
}

/// Whether a document is a feed, by its root element or, for JSON Feed, by its version.
pub(super) fn is_feed(body: &[u8]) -> bool {
    const HEAD_BYTES: usize = 16 << 10;
    // UTF-16 has a zero beside each ASCII letter.
    let head: Vec<u8> = body.iter().take(HEAD_BYTES).copied().filter(|&byte| byte != 0).collect();
    let head = String::from_utf8_lossy(&head);
    if head.trim_start_matches('\u{fffd}').trim_start_matches('\u{feff}').trim_start().starts_with('{') {
        return head.contains("jsonfeed.org/version");
    }
    let root = Tokens::new(&head).find_map(|(token, _)| match token {
        Token::Start { name, .. } => Some(name.rsplit(':').next().unwrap_or(name).to_ascii_lowercase()),
        _ => None,
    });
    root.is_some_and(|root| matches!(root.as_str(), "rss" | "feed" | "rdf" | "channel"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use contract::SystemClock;

    use super::super::replay::Replay;
    use super::super::settings::Settings;
    use super::*;
    use crate::replay::Response;

    fn found(html: &str) -> Vec<String> {
        let page = Url::parse("https://example.com/blog/post").unwrap();
        feeds_of_page(html, &page).into_iter().map(|found| format!("{} {}", found.url, found.title)).collect()
    }

    #[test]
    fn links_of_a_page_are_its_feeds() {
        let html = r#"<!doctype html><HEAD><script>document.write('<link rel="alternate" type="application/rss+xml" href="/no">')</script>
            <LINK REL="Alternate" TYPE="application/RSS+xml; charset=utf-8" TITLE="All &amp; more" HREF="/feed?a=1&amp;b=2">
            <link rel=alternate type=application/atom+xml href=atom.xml />
            <link href="feed:https://other.example/feed.json" type="application/feed+json" rel="home alternate">
            <link rel="feed" href="//cdn.example/f"><link rel="alternate" type="application/rss+xml" href="/feed?a=1&b=2">
            <link rel="alternate stylesheet" type="text/xml" href="/style"><link rel="alternate" hreflang="de" href="/de">
            <link rel="alternate" type="application/json" href="/wp-json/wp/v2/posts/1">
            <link rel="alternate" type="application/json+oembed" href="/oembed">
            <link rel="alternate" type="application/rss+xml" href="javascript:alert(1)">
            <link rel="alternate" type="application/rss+xml" href=""></head>"#;
        let expected = [
            "https://example.com/feed?a=1&b=2 All & more",
            "https://example.com/blog/atom.xml ",
            "https://other.example/feed.json ",
            "https://cdn.example/f ",
        ];
        assert_eq!(found(html), expected);
    }

    #[test]
    fn the_base_element_counts() {
        let html = r#"<base href="/news/"><link rel="alternate" type="application/rss+xml" href="feed">"#;
        assert_eq!(found(html), ["https://example.com/news/feed "]);
    }

    #[test]
    fn a_feed_is_told_by_its_root() {
        for feed in [
            "<?xml version='1.0'?><!-- x --><rss version='2.0'>",
            "\n\n<feed xmlns='http://www.w3.org/2005/Atom'>",
            "<rdf:RDF>",
            "{\"version\": \"https://jsonfeed.org/version/1.1\"}",
            "\u{feff}<atom:feed>",
        ] {
            assert!(is_feed(feed.as_bytes()), "{feed}");
        }
        let utf16: Vec<u8> = "\u{feff}<rss>".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert!(is_feed(&utf16));
        for other in ["<!doctype html><html>", "{\"a\": 1}", "", "plain", "<opml>"] {
            assert!(!is_feed(other.as_bytes()), "{other}");
        }
    }

    async fn discovered(replay: &Replay, path: &str) -> Result<Vec<String>, String> {
        let settings =
            Settings { allow_private_addresses: true, ports: Vec::new(), host_spacing_ms: 0, ..Settings::default() };
        let fetcher = Fetcher::new(&settings, Arc::new(SystemClock)).unwrap();
        let found = discover(&fetcher, &Url::parse(&replay.url(path)).unwrap()).await?;
        let base = replay.url("");
        Ok(found.into_iter().map(|found| found.url.as_str().replace(&base, "")).collect())
    }

    #[tokio::test]
    async fn a_page_leads_to_its_feeds_or_to_the_usual_paths() {
        let replay = Replay::start().await.unwrap();
        replay.route("/named", [Response::body("<link rel=alternate type=application/rss+xml href=/it>")]);
        replay.route("/bare", [Response::body("<html><p>no feed here</p>")]);
        replay.route("/atom.xml", [Response::body("<feed/>")]);
        replay.route("/rss", [Response::body("<html>not found, but with status 200")]);
        replay.route("/moved", [Response::status(302).with("Location", "/atom.xml")]);
        assert_eq!(discovered(&replay, "/named").await.unwrap(), ["/it"]);
        assert_eq!(discovered(&replay, "/bare").await.unwrap(), ["/atom.xml"]);
        assert_eq!(discovered(&replay, "/moved").await.unwrap(), ["/atom.xml"]);
        assert_eq!(discovered(&replay, "/none").await.unwrap_err(), "the server answers 404");
    }
}
