//! Answers Elasticsearch's `_search` and `_count` over several tantivy indices as over one.
//! Source: <https://www.elastic.co/guide/en/elasticsearch/reference/8.19/search-search.html>.
//!
//! A request is read whole into typed form ([`request`], [`dsl`], [`query_string`] → [`ast`]), so what is malformed
//! is refused whether or not there is an index. It is then compiled for each index ([`compile`]), collected
//! ([`top`], [`aggs`]) and merged. What is not supported is answered with 400 and named.

mod aggs;
mod aggs_build;
mod aggs_parse;
mod aggs_shape;
mod ast;
mod compile;
mod compile_leaf;
mod date_math;
mod dsl;
mod dsl_leaf;
mod error;
mod execute;
mod highlight;
mod json;
mod pattern;
mod query_string;
mod query_string_tokens;
mod request;
mod sort;
mod source_filter;
mod statistics;
#[cfg(test)]
mod tests;
mod top;

pub(crate) use compile_leaf::type_name;

use std::time::Instant;

use contract::Timestamp;
use serde_json::{Value, json};

use self::error::Result;
use self::execute::Search;
use self::request::Request;
use crate::index::OpenIndex;

/// Clauses of a query: Elasticsearch's `indices.query.bool.max_clause_count` on a small heap.
const CLAUSES_MAX: usize = 1_024;

/// How deep queries nest: Elasticsearch's `indices.query.bool.max_nested_depth`. The readers recurse this far.
const DEPTH_MAX: usize = 30;

/// Hits that `from` and `size` reach: Elasticsearch's `index.max_result_window`.
const RESULT_WINDOW: usize = 10_000;

/// Values of one `terms` query: Elasticsearch's `index.max_terms_count`.
const TERMS_MAX: usize = 65_536;

/// Up to how many hits are counted in the answer unless `track_total_hits` says otherwise: Elasticsearch's default.
const TOTAL_DEFAULT: u64 = 10_000;

/// Answers `_search` at `now` over `indices` as over one; `request` is the body, the answer the response body.
///
/// Blocks for as long as it reads. At `deadline`, or when the request's own time is over, it answers with what was found
/// until then, and says `timed_out`.
///
/// # Errors
/// 400 for what is malformed or not supported, 500 when an index cannot be read.
pub(crate) fn search(indices: &[OpenIndex], request: &Value, now: Timestamp, deadline: Instant) -> Result<Value> {
    let request = Request::parse(request)?;
    Search::new(indices, &request, now, deadline)?.run()
}

/// Answers `_count`; see [`search`].
///
/// # Errors
/// As [`search`]; 504 at `deadline`.
pub(crate) fn count(indices: &[OpenIndex], request: &Value, now: Timestamp, deadline: Instant) -> Result<Value> {
    let query = request::parse_count(request)?;
    Ok(json!({ "count": execute::count(indices, &query, now, deadline)?, "_shards": shards(indices.len()) }))
}

/// Each index is one shard.
fn shards(indices: usize) -> Value {
    json!({ "total": indices, "successful": indices, "skipped": 0, "failed": 0 })
}
