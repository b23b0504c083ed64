//! What the user sets of arXiv.

use serde::{Deserialize, Serialize};

/// The section `[arxiv]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Sets of OAI-PMH to harvest: `cs`, `math`, `physics:hep-th`, `cs:cs:DL`; `all` for every paper; empty harvests
    /// none. Default: `["cs"]`, some 1,500 records a working day.
    pub oai_sets: Vec<String>,
    /// Formats to harvest each set in: `arXivRaw` (versions), `arXiv` (authors in parts), `oai_dc`. Default:
    /// `["arXivRaw"]`.
    pub oai_formats: Vec<String>,
    /// First day to harvest, as `2007-05-23`, when a set is harvested for the first time. Default: empty, which is
    /// yesterday. The archive's calendar of changes starts at 2005-09-16, also for older papers; all of it are 2.9 million
    /// papers: 2,300 pages of up to 1,300, some four hours.
    pub since: String,
    /// Days of one window of a harvest: what is asked again when a harvest breaks. Default: 7; at least 1.
    pub oai_window_days: u32,
    /// Between two harvests that reach today. Default: 21600, since arXiv changes its records once a day.
    pub oai_interval_seconds: u64,
    /// Queries to the export API, as `cat:cs.LG` or `all:electron AND ti:spin`. Default: none.
    pub searches: Vec<String>,
    /// What the answers are sorted by, newest first: `lastUpdatedDate` or `submittedDate`. Default: `lastUpdatedDate`.
    pub search_sort: String,
    /// Entries of one page. Default: 100; at most 2000.
    pub search_page_size: u32,
    /// Pages that are read of a query at the most, while they hold new entries of the last week. Default: 20.
    pub search_pages_max: u32,
    /// Between two polls of a query. Default: 3600; the API's index changes once a day.
    pub search_interval_seconds: u64,
    /// Categories or archives whose daily listing to read: `cs.AI`, `math`. Default: none.
    pub listings: Vec<String>,
    /// Between two polls of a listing. Default: 3600; they change once a day, about 04:00 UTC.
    pub listing_interval_seconds: u64,
    /// Where OAI-PMH is. Default: `https://oaipmh.arxiv.org/oai`.
    pub oai_url: String,
    /// Where the export API is. Default: `https://export.arxiv.org/api/query`.
    pub api_url: String,
    /// Where the listings are, in RSS or Atom; a category follows. Default: `https://rss.arxiv.org/rss/`.
    pub listing_url: String,
    /// From one request to the next, over all of the above. Default: 3, which is what arXiv asks for; 0 to 60.
    pub request_interval_seconds: f64,
    /// An HTTP proxy; empty takes the system's. Default: empty.
    pub proxy_url: String,
    /// How arXiv knows the program. Default: `databroker/VERSION`.
    pub user_agent: String,
    /// For one request, from start to end. Default: 120; the last pages of a large harvest take a minute.
    pub timeout_seconds: u64,
    /// Bytes of one page, uncompressed. Default: 64 MiB; a page of OAI-PMH with 1,300 records has 4.
    pub page_bytes_max: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            oai_sets: vec!["cs".to_owned()],
            oai_formats: vec!["arXivRaw".to_owned()],
            since: String::new(),
            oai_window_days: 7,
            oai_interval_seconds: 6 * 3600,
            searches: Vec::new(),
            search_sort: "lastUpdatedDate".to_owned(),
            search_page_size: 100,
            search_pages_max: 20,
            search_interval_seconds: 3600,
            listings: Vec::new(),
            listing_interval_seconds: 3600,
            oai_url: "https://oaipmh.arxiv.org/oai".to_owned(),
            api_url: "https://export.arxiv.org/api/query".to_owned(),
            listing_url: "https://rss.arxiv.org/rss/".to_owned(),
            request_interval_seconds: 3.0,
            proxy_url: String::new(),
            user_agent: concat!("databroker/", env!("CARGO_PKG_VERSION")).to_owned(),
            timeout_seconds: 120,
            page_bytes_max: 64 << 20,
        }
    }
}
