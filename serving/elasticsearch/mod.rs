//! The part of Elasticsearch's REST that reads: clients and dashboards made for it work, and what is not
//! served is refused in Elasticsearch's own form, with its name.
//!
//! Source: <https://www.elastic.co/guide/en/elasticsearch/reference/8.19/rest-apis.html>.

mod answer;
mod cat;
mod indices;
mod parameters;
mod search;

pub(crate) use answer::{no_handler, print_answer, refuse};
pub(crate) use cat::list_indices;
pub(crate) use indices::{aliases, cluster_health, index, info, mapping};
pub(crate) use search::{count, document, document_source, search, search_many};
