//! arXiv: the metadata of its papers, each version, replacement, withdrawal and cross-list.
//!
//! | way in | setting | what |
//! | --- | --- | --- |
//! | OAI-PMH | `arxiv.oai_sets`, `arxiv.oai_formats`, `arxiv.since` | all records of a set that changed, day by day; the reference |
//! | export API | `arxiv.searches` | what a query finds, newest first |
//! | daily listings | `arxiv.listings` | what is announced today, in RSS or Atom, hours before OAI-PMH has it |
//! | files | `backfill arxiv` | pages of OAI-PMH (`arXiv`, `arXivRaw`, `oai_dc`), Atom, RSS, lines of the metadata snapshot |
//!
//! **Terms of use.** arXiv's metadata is CC0; it asks to be named, and that papers be linked to it and not copied from
//! it. The API's terms: "no more than one request every three seconds, and limit requests to a single connection at a
//! time", over all machines under one's control: <https://info.arxiv.org/help/api/tou.html>. Metadata in bulk comes by
//! OAI-PMH: <https://info.arxiv.org/help/oa/index.html>, <https://info.arxiv.org/help/bulk_data.html>. So all
//! collectors of a process share one gate, which lets one request through every `arxiv.request_interval_seconds`, widens
//! on 429, 503 and pages that are none, and waits as long as `Retry-After` says. Redirects go through it too, and no
//! connection stays open. Without settings the program harvests the set `cs` from yesterday on: a few requests every six
//! hours. A page of OAI-PMH has 1,300 records.
//!
//! **Rows.** A record makes a row; one of `arXivRaw` or the snapshot lists all versions and describes the newest. The id
//! is the paper's with the version, where the record names it, and a hash of what the record says. So the same record
//! seen again is a duplicate, also where its markup has changed, and every change (a new version, a journal reference, a
//! cross-list, a withdrawal) is a row.
//!
//! **Times.** `event_time` is when the version was submitted (of a listing: announced; of a deleted record: deleted). An
//! old paper that gets a DOI today is a new row with the `event_time` of its old version: it stands in an old month and
//! below the retention of the hot store, and is told by `datestamp`, the day on which the archive changed the record, and
//! by `fetched_at`. So the history of a paper is its rows by `datestamp` and `version`.
//!
//! **One row of each paper.** The same version by different ways in makes a row each, told apart by `format`; the harvest
//! of the next day has the full record of what a listing announced. This query takes the one that counts:
//!
//! ```sql
#![doc = include_str!("current.sql")]
//! ```
//!
//! From raw to row:
//!
//! ```
//! use contract::{LogRecord, RawRecord, RowsBuilder, Span, Timestamp, row_json};
//!
//! let body = r#"<entry>
//!     <id>http://arxiv.org/abs/1605.08386v1</id><title>Heat-bath random walks with Markov
//!     bases</title><published>2016-05-26T17:59:46Z</published><updated>2016-05-26T17:59:46Z</updated>
//!     <author><name>Caprice Stanley</name></author><arxiv:comment>20 pages, 3 figures</arxiv:comment>
//!     <category term="math.CO"/><category term="math.ST"/></entry>"#;
//! let time = Timestamp::parse_rfc3339("2016-05-26T17:59:46Z").unwrap();
//! let record = RawRecord { id: "1605.08386v1.0".into(), event_time: time, fetched_at: time, body: body.into() };
//!
//! let source = acquisition::source("arxiv").unwrap();
//! let mut rows = RowsBuilder::new(source.schema);
//! let logged = LogRecord { partition: 0, offset: 7, appended_at: time, record };
//! rows.record(&logged, source.processor).unwrap();
//! let rows = rows.finish(Span { source: source.id, ranges: Vec::new() });
//!
//! let mut row = Vec::new();
//! row_json::write_row(&rows.silver, 0, &mut row);
//! assert_eq!(String::from_utf8(row).unwrap(), concat!(
//!     r#"{"_partition":0,"_offset":7,"event_time":"2016-05-26T17:59:46Z","fetched_at":"2016-05-26T17:59:46Z","#,
//!     r#""arxiv_id":"1605.08386","version":1,"format":"atom","url":"https://arxiv.org/abs/1605.08386v1","#,
//!     r#""title":"Heat-bath random walks with Markov bases","#,
//!     r#""authors":[{"keyname":"Stanley","forenames":"Caprice"}],"author_names":["Caprice Stanley"],"author_count":1,"#,
//!     r#""categories":["math.CO","math.ST"],"primary_category":"math.CO","cross_lists":["math.ST"],"#,
//!     r#""category_names":["Combinatorics","Statistics Theory"],"comments":"20 pages, 3 figures","page_count":20,"#,
//!     r#""figure_count":3,"submitted_at":"2016-05-26T17:59:46Z","updated_at":"2016-05-26T17:59:46Z","#,
//!     r#""withdrawn":false,"deleted":false}"#,
//! ));
//! ```

mod article;
mod atom;
mod authors;
mod client;
#[cfg(test)]
mod collector_test;
mod collectors;
mod comments;
mod cut;
#[cfg(test)]
mod fault_test;
mod file;
mod framing;
mod gate;
mod harvest;
mod identifier;
mod links;
mod listing;
mod oai;
mod page;
mod processor;
#[cfg(any(test, feature = "replay"))]
pub mod replay;
mod rss;
mod sample;
mod schema;
mod search;
mod settings;
mod snapshot;
mod taxonomy;
mod text;
mod time;
mod xml;

pub use processor::ArxivProcessor;
pub use schema::SCHEMA;
pub use settings::Settings;

use crate::Source;

pub(crate) const SOURCE: Source = Source {
    id: SCHEMA.source,
    schema: &SCHEMA,
    processor: &ArxivProcessor,
    collectors: collectors::collectors,
    open_file: file::open_file,
    sample: sample::sample,
};
