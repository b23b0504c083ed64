//! GitHub's public events: pushes, issues, comments, pull requests, stars, forks, releases and the rest.
//!
//! | way in | what |
//! | --- | --- |
//! | Events API | `github.feeds`: `public`, `org:NAME`, `repo:OWNER/NAME`, `user:NAME`; the newest 300 events of each |
//! | webhook | deliveries at `POST /webhooks/github`, signed with `github.webhook_secret`; see `webhook.rs` |
//! | files | hours of [GH Archive](https://www.gharchive.org), NDJSON, pages of the API, bulk files |
//!
//! Formats: <https://docs.github.com/en/rest/using-the-rest-api/github-event-types>,
//! <https://docs.github.com/en/rest/activity/events>.
//!
//! **Terms of use.** The API stands under GitHub's terms of service, section H (no excessive use, no resale of
//! personal data): <https://docs.github.com/en/site-policy/github-terms/github-terms-of-service#h-api-terms>.
//! GH Archive's content is CC-BY-4.0: name it.
//!
//! **Rate limits.** 60 requests an hour without a token, 5,000 with one; an answer 304 costs nothing with a token;
//! `X-Poll-Interval` says how often to ask at the most; secondary limits answer 403 or 429 with `Retry-After`:
//! <https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api>,
//! <https://docs.github.com/en/rest/using-the-rest-api/best-practices-for-using-the-rest-api>.
//! Events appear 30 seconds to 6 hours late, and the API keeps 300 of the last 30 days: a busy feed is not seen whole
//! between two polls. What is missed is estimated in the ledger of coverage, and GH Archive hours fill it.
//!
//! From raw to row:
//!
//! ```
//! use contract::{LogRecord, Partition, RawRecord, RowsBuilder, Span, Timestamp, row_json};
//!
//! let body = r#"{"id":"2489651045","type":"WatchEvent","actor":{"id":1,"login":"octocat"},
//!     "repo":{"id":2,"name":"octo-org/octo-repo"},"payload":{"action":"started"},
//!     "public":true,"created_at":"2015-01-01T15:00:00Z"}"#;
//! let time = Timestamp::parse_rfc3339("2015-01-01T15:00:00Z").unwrap();
//! let record = RawRecord { id: "2489651045".into(), event_time: time, fetched_at: time, body: body.into() };
//!
//! let source = acquisition::source("github").unwrap();
//! let mut rows = RowsBuilder::new(source.schema);
//! let logged = LogRecord { partition: 0, offset: 7, appended_at: time, record };
//! rows.record(&logged, source.processor).unwrap();
//! let rows = rows.finish(Span { source: source.id, ranges: Vec::new() });
//!
//! let mut row = Vec::new();
//! row_json::write_row(&rows.silver, 0, &mut row);
//! assert_eq!(String::from_utf8(row).unwrap(), concat!(
//!     r#"{"_partition":0,"_offset":7,"event_time":"2015-01-01T15:00:00Z","fetched_at":"2015-01-01T15:00:00Z","#,
//!     r#""id":"2489651045","type":"WatchEvent","actor_login":"octocat","actor_id":1,"is_bot":false,"#,
//!     r#""repo_name":"octo-org/octo-repo","repo_id":2,"action":"started","public":true,"#,
//!     r#""created_at":"2015-01-01T15:00:00Z"}"#,
//! ));
//! ```

mod answer;
mod collector;
#[cfg(test)]
mod collector_test;
mod event;
mod file;
mod framing;
mod processor;
mod reject;
#[cfg(any(test, feature = "replay"))]
pub mod replay;
mod sample;
mod scanner;
mod schema;
mod settings;
mod time;
mod webhook;

pub use processor::GithubProcessor;
pub use schema::SCHEMA;
pub use settings::Settings;

use crate::Source;

pub(crate) const SOURCE: Source = Source {
    id: SCHEMA.source,
    schema: &SCHEMA,
    processor: &GithubProcessor,
    collectors: collector::collectors,
    open_file: file::open_file,
    sample: sample::sample,
};
