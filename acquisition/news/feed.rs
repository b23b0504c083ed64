//! What a feed and an entry say, whatever format they say it in.

/// The format of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// RSS 0.91 to 2.0 and what calls itself so.
    Rss,
    /// RSS 0.90 and 1.0: <https://web.resource.org/rss/1.0/spec>.
    Rdf,
    /// Atom 0.3 and 1.0: <https://www.rfc-editor.org/rfc/rfc4287>.
    Atom,
    /// Channel Definition Format: <https://www.w3.org/TR/NOTE-CDFsubmit.html>.
    Cdf,
    /// JSON Feed: <https://www.jsonfeed.org/version/1.1/>.
    Json,
}

/// What a feed says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Feed {
    /// None if the document is no feed.
    pub(crate) format: Option<Format>,
    /// Its name, as clean text.
    pub(crate) title: Option<String>,
    /// The page it belongs to.
    pub(crate) link: Option<String>,
    /// Where it says it is itself: `atom:link rel="self"`, `feed_url`.
    pub(crate) self_link: Option<String>,
    /// Its WebSub hubs.
    pub(crate) hubs: Vec<String>,
    /// Its language as it states it: `en-us`.
    pub(crate) language: Option<String>,
    /// Its authors; they count where an entry names none.
    pub(crate) authors: Vec<String>,
    /// Minutes for which it may be kept: RSS `ttl`.
    pub(crate) ttl_minutes: Option<u64>,
    /// Seconds between two updates: `sy:updatePeriod` divided by `sy:updateFrequency`.
    pub(crate) update_seconds: Option<u64>,
    /// Hours of the day (UTC, 0 to 23) at which it need not be asked: RSS `skipHours`.
    pub(crate) skip_hours: Vec<u8>,
    /// Days at which it need not be asked, in English: RSS `skipDays`.
    pub(crate) skip_days: Vec<String>,
}

/// What an entry says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) guid: Option<String>,
    pub(crate) link: Option<String>,
    /// The article's own address where the feed's link goes through a counter: `feedburner:origLink`.
    pub(crate) original_link: Option<String>,
    pub(crate) title: Option<Text>,
    pub(crate) summary: Option<Text>,
    pub(crate) content: Option<Text>,
    pub(crate) authors: Vec<String>,
    pub(crate) categories: Vec<String>,
    /// Dates as written.
    pub(crate) published: Option<String>,
    pub(crate) updated: Option<String>,
    pub(crate) language: Option<String>,
    pub(crate) enclosures: Vec<Enclosure>,
    pub(crate) image: Option<String>,
    pub(crate) comments_url: Option<String>,
    /// Comments on it: `slash:comments`, `thr:total`.
    pub(crate) comment_count: Option<i64>,
    /// Where it is about: `georss:point`, `geo:lat` and `geo:long`, as `latitude longitude`.
    pub(crate) place: Option<String>,
    /// The feed that it was taken over from: `source`.
    pub(crate) source_title: Option<String>,
    /// The base of relative links in its HTML: `xml:base`.
    pub(crate) base: Option<String>,
}

/// A text, plain or HTML.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Text {
    pub(crate) value: String,
    pub(crate) is_html: bool,
}

/// A file that belongs to an entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Enclosure {
    pub(crate) url: String,
    /// Its media type.
    pub(crate) kind: Option<String>,
    /// Bytes.
    pub(crate) length: Option<i64>,
}
