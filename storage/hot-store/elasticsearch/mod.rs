//! The hot store on a real Elasticsearch: the same indices, ids and searches as the embedded one, elsewhere.
//!
//! | index | holds |
//! | --- | --- |
//! | `SOURCE-YYYY.MM.DD` | rows of an event day; `_id` is the row's, the version is its offset + 1 |
//! | `SOURCE-YYYY.MM` | rows of a month, where all is kept; the `_id` of a row whose id is unique within a day starts with that day |
//! | `databroker-N-SOURCE-YYYY.MM.DD` | the same, made anew (`draft.rs`); once it is in use, the day's name is its alias |
//! | `databroker-checkpoint` | per source and partition the next offset, which is also the version of its document |
//! | `databroker-refused` | rows that Elasticsearch refuses for good, whole, with its reason |
//!
//! Exactly once, whoever dies when and whatever is answered:
//!
//! | case | what holds |
//! | --- | --- |
//! | a bulk request is sent again: no answer came, or a wrong one | a row has one `_id` and one version, so it stands once; `409` says that it is there |
//! | the process dies before the checkpoint | the next one reads the checkpoint and writes the same rows again, as above |
//! | the checkpoint is written | every row below it was acknowledged before, which Elasticsearch does after the sync of its own log |
//! | a process that lost its place wakes up and writes | its rows are there already; its checkpoint is of a lower version and is refused |
//! | Elasticsearch refuses a row for good (400) | the row goes to `databroker-refused` in the stead of its index, before the checkpoint, by an id of its own |
//! | a day goes | only when the cold store has all offsets that are in it |
//!
//! Sources: <https://www.elastic.co/guide/en/elasticsearch/reference/8.19/docs-bulk.html>,
//! <https://www.elastic.co/guide/en/elasticsearch/reference/8.19/docs-index_.html#index-versioning>.

mod answer;
mod bulk;
mod client;
mod draft;
mod expiry;
mod items;
mod lifecycle;
#[cfg(test)]
mod lying_server;
#[cfg(test)]
mod lying_test;
mod pace;
#[cfg(test)]
#[cfg(feature = "real-servers")]
mod real_server_test;
mod refused;
mod repair;
mod rows;
mod scroll;
mod search;
mod server;
mod settings;
mod source;
mod store;
mod template;
mod tls;
#[cfg(test)]
mod tls_test;

pub use settings::ElasticsearchSettings;
pub use store::ElasticsearchStore;
pub use template::TemplateState;

/// Per source and partition the next offset.
const CHECKPOINT_INDEX: &str = "databroker-checkpoint";

/// Rows that were refused for good.
const REFUSED_INDEX: &str = "databroker-refused";

/// Names of indices in one address, whose length is limited.
const NAMES_MAX: usize = 50;

/// What the names of indices begin with that were made anew, before a number.
const DRAFT_PREFIX: &str = "databroker-";

/// The name by which an index is known: without what stands before it where it was made anew.
fn canonical(index: &str) -> &str {
    let number =
        index.strip_prefix(DRAFT_PREFIX).map(|rest| rest.trim_start_matches(|letter: char| letter.is_ascii_digit()));
    number.and_then(|rest| rest.strip_prefix('-')).unwrap_or(index)
}
