//! Errors as Elasticsearch words them.

use contract::SearchError;
use tantivy::TantivyError;
use tantivy::aggregation::AggregationError;

/// A result of this module.
pub(super) type Result<T> = std::result::Result<T, SearchError>;

/// The request is not understood: an unknown query, key or shape.
pub(super) fn parsing(reason: impl Into<String>) -> SearchError {
    bad("parsing_exception", reason)
}

/// The request is understood and a value in it is not allowed.
pub(super) fn illegal(reason: impl Into<String>) -> SearchError {
    bad("illegal_argument_exception", reason)
}

/// The query does not fit the types of the columns.
pub(super) fn query_shard(reason: impl Into<String>) -> SearchError {
    bad("query_shard_exception", format!("failed to create query: {}", reason.into()))
}

/// A 400 of any kind.
pub(super) fn bad(kind: &'static str, reason: impl Into<String>) -> SearchError {
    SearchError { status: 400, kind, reason: reason.into() }
}

/// An error of tantivy: what the request asks too much of is a 400, what fails here a 500.
pub(super) fn engine(error: TantivyError) -> SearchError {
    match error {
        TantivyError::AggregationError(
            error @ (AggregationError::MemoryExceeded { .. } | AggregationError::BucketLimitExceeded { .. }),
        ) => bad("too_many_buckets_exception", error.to_string()),
        TantivyError::InvalidArgument(reason) | TantivyError::SchemaError(reason) => illegal(reason),
        error @ TantivyError::AggregationError(_) => illegal(error.to_string()),
        error => SearchError {
            status: 500,
            kind: "search_phase_execution_exception",
            reason: format!("failed to search an index: {error}"),
        },
    }
}

/// ` did you mean [x]?` with the name that is nearest, or what there is.
pub(super) fn nearest(name: &str, known: &[&str]) -> String {
    match contract::meant(name, known.iter().copied()) {
        Some(other) => format!("did you mean [{other}]?"),
        None => format!("supported are [{}]", known.join(", ")),
    }
}
