//! What the user sets of GitHub.

use serde::{Deserialize, Serialize};

use crate::Secret;

/// The section `[github]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// What to poll: `public`, `org:NAME`, `repo:OWNER/NAME`, `user:NAME`. Default: `["public"]`; empty polls nothing.
    pub feeds: Vec<String>,
    /// Where the API is; GitHub Enterprise has it at `https://HOST/api/v3`. Default: `https://api.github.com`.
    pub base_url: String,
    /// A token without any scope is enough: it raises 60 requests an hour to 5,000. Default: none.
    pub token: Secret,
    /// What GitHub signs the deliveries of webhooks with; `POST /webhooks/github` takes them once it is set. Default: none.
    pub webhook_secret: Secret,
    /// An HTTP proxy; empty takes the system's. Default: empty.
    pub proxy_url: String,
    /// How GitHub knows the program; it refuses requests without a name. Default: `databroker/VERSION`.
    pub user_agent: String,
    /// For one request, from start to end. Default: 30, since GitHub itself gives up after 10.
    pub timeout_seconds: u64,
    /// At least this between two polls; GitHub's `X-Poll-Interval` counts if longer. Default: 60, what GitHub asks for.
    pub poll_interval_seconds: u64,
    /// Pages of 100 events that one poll reads at the most. Default: 3, since GitHub keeps 300 events; at most 10.
    pub pages_max: u32,
    /// Bytes of one page, uncompressed. Default: 32 MiB; pages seen have 0.5.
    pub page_bytes_max: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            feeds: vec!["public".to_owned()],
            base_url: "https://api.github.com".to_owned(),
            token: Secret::default(),
            webhook_secret: Secret::default(),
            proxy_url: String::new(),
            user_agent: concat!("databroker/", env!("CARGO_PKG_VERSION")).to_owned(),
            timeout_seconds: 30,
            poll_interval_seconds: 60,
            pages_max: 3,
            page_bytes_max: 32 << 20,
        }
    }
}
