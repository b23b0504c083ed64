//! Answers, and what their errors ask of us.

use bytes::Bytes;
use contract::{Error, Remedy, Result, SearchError};
use reqwest::StatusCode;
use serde_json::Value;

/// Letters of an error's body that are shown where it is not Elasticsearch's.
const SHOWN_MAX: usize = 200;

/// Names of errors that are handed on; another one is the last.
const KINDS: &[&str] = &[
    "parsing_exception",
    "parse_exception",
    "x_content_parse_exception",
    "illegal_argument_exception",
    "illegal_state_exception",
    "query_shard_exception",
    "number_format_exception",
    "index_not_found_exception",
    "resource_not_found_exception",
    "action_request_validation_exception",
    "aggregation_execution_exception",
    "too_many_buckets_exception",
    "too_many_clauses",
    "circuit_breaking_exception",
    "security_exception",
    "es_rejected_execution_exception",
    "cluster_block_exception",
    "search_phase_execution_exception",
];

/// A host's answer.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

impl Answer {
    /// The body, if all went well.
    ///
    /// # Errors
    /// `Change` where the user has to do something (credentials, a request that is refused), else `Retry`: a cluster that is
    /// not well now may be so later, and no answer of it is worth ending the process.
    pub(super) fn json(&self, doing: &str) -> Result<Value> {
        if self.status.is_success() {
            let read = serde_json::from_slice(&self.body);
            return read.map_err(|cause| Error::retry(format!("{doing}: understand the answer")).because(cause));
        }
        let remedy = match self.status.as_u16() {
            400 | 401 | 403 | 404 | 405 | 406 => Remedy::Change,
            _ => Remedy::Retry,
        };
        Err(Error::new(remedy, doing).because(self.reason()))
    }

    /// What an error says: Elasticsearch's type and reason, or the start of whatever it is.
    pub(super) fn reason(&self) -> String {
        let body: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        match error_of(&body) {
            Some((kind, reason)) => format!("{} {kind}: {reason}", self.status.as_u16()),
            None => {
                let text = String::from_utf8_lossy(&self.body);
                format!("{} {}", self.status, text.chars().take(SHOWN_MAX).collect::<String>()).trim_end().to_owned()
            }
        }
    }
}

/// Elasticsearch's error in a body: the type and reason of what lies at its root.
pub(super) fn error_of(body: &Value) -> Option<(String, String)> {
    let error = &body["error"];
    let root = error.pointer("/root_cause/0").unwrap_or(error);
    if let Some(text) = error.as_str() {
        return Some(("error".to_owned(), text.to_owned()));
    }
    let text = |name: &str| root[name].as_str().map(str::to_owned);
    Some((text("type")?, text("reason").unwrap_or_default()))
}

/// The error of a search, as its client sees it.
pub(super) fn search_error(status: u16, body: &Value) -> SearchError {
    let (kind, reason) = error_of(body).unwrap_or_default();
    let known = KINDS.iter().find(|known| **known == kind);
    SearchError { status, kind: known.copied().unwrap_or("search_phase_execution_exception"), reason }
}

/// The error of a search that no host answered.
pub(super) fn away(error: &Error) -> SearchError {
    SearchError { status: 503, kind: "no_shard_available_action_exception", reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status: StatusCode::from_u16(status).unwrap(), body: Bytes::copy_from_slice(body.as_bytes()) }
    }

    #[test]
    fn what_the_user_must_change_is_told_from_what_passes() {
        let remedy = |status| answer(status, "{}").json("ask").unwrap_err().remedy();
        for status in [400, 401, 403, 404] {
            assert_eq!(remedy(status), Remedy::Change, "{status}");
        }
        for status in [408, 429, 500, 502, 503, 504] {
            assert_eq!(remedy(status), Remedy::Retry, "{status}");
        }
        assert_eq!(answer(200, "<html>").json("ask").unwrap_err().remedy(), Remedy::Retry);
    }

    #[test]
    fn the_reason_at_the_root_is_said() {
        let body = json!({"error": {"type": "search_phase_execution_exception", "reason": "all shards failed",
            "root_cause": [{"type": "query_shard_exception", "reason": "no such field"}]}, "status": 400});
        let said = answer(400, &body.to_string()).json("search").unwrap_err().to_string();
        assert_eq!(said, "failed to search: 400 query_shard_exception: no such field");
        let error = search_error(400, &body);
        assert_eq!((error.kind, error.reason.as_str()), ("query_shard_exception", "no such field"));
        let odd = search_error(500, &json!({"error": {"type": "odd_exception", "reason": "odd"}}));
        assert_eq!(odd.kind, "search_phase_execution_exception");
        assert_eq!(answer(502, "<html>bad gateway").reason(), "502 Bad Gateway <html>bad gateway");
        assert_eq!(answer(400, r#"{"error":"no handler found"}"#).reason(), "400 error: no handler found");
    }
}
