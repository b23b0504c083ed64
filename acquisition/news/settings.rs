//! What the user sets of news.

use serde::{Deserialize, Serialize};

/// The section `[news]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Feeds to poll, by address. Default: eight of public bodies and free software, so that `up` shows news at once:
    /// stable for years, published for readers like this, and asked a few times an hour at the most. Empty polls none.
    pub feeds: Vec<String>,
    /// OPML files whose feeds are polled too; they are read at the start. Default: none.
    pub opml: Vec<String>,
    /// How publishers know the program; a contact in it is polite (`databroker/0.1.0 (+https://example.org/bot)`).
    /// Default: `databroker/VERSION`.
    pub user_agent: String,
    /// An HTTP proxy; empty goes straight. A proxy resolves names, so it must refuse inner addresses itself.
    /// Default: empty.
    pub proxy_url: String,
    /// For one request, from start to end. Default: 30.
    pub timeout_seconds: u64,
    /// Bytes of one feed, unpacked. Default: 16 MiB; the largest feeds seen have 9.
    pub feed_bytes_max: usize,
    /// Redirects of one request. Default: 5.
    pub redirects_max: usize,
    /// A feed is not asked more often, however busy it is. Default: 300.
    pub interval_seconds_min: u64,
    /// A feed is asked at least this often, however quiet it is, unless its publisher asks for less. Default: 21,600.
    pub interval_seconds_max: u64,
    /// The longest wait after failures, and the longest that a publisher's wish is followed. Default: 86,400.
    pub backoff_seconds_max: u64,
    /// Requests at a time, over all hosts: each may hold a feed in memory. Default: 16.
    pub requests_max: usize,
    /// Requests at a time to one host. Default: 2.
    pub requests_per_host_max: usize,
    /// Between the starts of two requests to one host. Default: 1,000.
    pub host_spacing_ms: u64,
    /// The first requests are spread over this long, or a quarter of a second a feed if that is shorter. Default: 300.
    pub start_spread_seconds: u64,
    /// Polls in a row that must see the same permanent redirect before it is followed for good. Default: 3.
    pub redirect_confirmations: u32,
    /// Whether private, loopback and link-local addresses may be asked: for feeds of the own network. Default: false.
    pub allow_private_addresses: bool,
    /// Ports that may be asked; empty allows all. Default: `[80, 443, 8080, 8443]`.
    pub ports: Vec<u16>,
    /// Where hubs reach this program's port 8080 from outside (`https://news.example.org`); empty uses no WebSub.
    /// Default: empty.
    pub websub_callback_url: String,
    /// Whether the page of each new article is fetched for its text. Its robots.txt is obeyed. Default: false.
    pub full_text: bool,
    /// Pages that one poll fetches at the most; the newest articles come first. Default: 20.
    pub pages_max: usize,
    /// Bytes of one page, unpacked. Default: 4 MiB.
    pub page_bytes_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        let feeds = [
            "https://news.un.org/feed/subscribe/en/news/all/rss.xml",
            "https://www.federalreserve.gov/feeds/press_all.xml",
            "https://www.ecb.europa.eu/rss/press.html",
            "https://www.nasa.gov/feed/",
            "https://www.w3.org/news/feed/",
            "https://www.debian.org/News/news",
            "https://blog.rust-lang.org/feed.xml",
            "https://www.postgresql.org/news.rss",
        ];
        Self {
            feeds: feeds.map(str::to_owned).to_vec(),
            opml: Vec::new(),
            user_agent: concat!("databroker/", env!("CARGO_PKG_VERSION")).to_owned(),
            proxy_url: String::new(),
            timeout_seconds: 30,
            feed_bytes_max: 16 << 20,
            redirects_max: 5,
            interval_seconds_min: 300,
            interval_seconds_max: 6 * 3_600,
            backoff_seconds_max: 24 * 3_600,
            requests_max: 16,
            requests_per_host_max: 2,
            host_spacing_ms: 1_000,
            start_spread_seconds: 300,
            redirect_confirmations: 3,
            allow_private_addresses: false,
            ports: vec![80, 443, 8080, 8443],
            websub_callback_url: String::new(),
            full_text: false,
            pages_max: 20,
            page_bytes_max: 4 << 20,
        }
    }
}
