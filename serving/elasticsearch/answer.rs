//! Answers and errors in Elasticsearch's form.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use contract::SearchError;
use serde_json::{Value, json};

use crate::guard::Refusal;
use crate::{Door, ROUTES};

/// A JSON answer. [`print_answer`] writes it, for how depends on the request.
pub(crate) struct Answer(pub(crate) StatusCode, pub(crate) Value);

/// An error as an answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure(pub(crate) SearchError);

/// What a handler answers.
pub(crate) type Answered<T = Answer> = Result<T, Failure>;

/// The JSON of a response that has no body yet.
#[derive(Clone)]
struct Unprinted(Value);

impl Answer {
    pub(crate) fn ok(body: Value) -> Answered {
        Ok(Self(StatusCode::OK, body))
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = self.0.into_response();
        response.extensions_mut().insert(Unprinted(self.1));
        response
    }
}

impl Failure {
    pub(crate) fn new(status: u16, kind: &'static str, reason: impl Into<String>) -> Self {
        Self(SearchError { status, kind, reason: reason.into() })
    }

    /// 400 for an argument that is wrong.
    pub(crate) fn argument(reason: impl Into<String>) -> Self {
        Self::new(400, "illegal_argument_exception", reason)
    }

    /// Elasticsearch's body of an error.
    pub(crate) fn body(&self) -> Value {
        let SearchError { status, kind, reason } = &self.0;
        let cause = json!({"type": kind, "reason": reason});
        json!({"error": {"root_cause": [cause], "type": kind, "reason": reason}, "status": status})
    }
}

impl From<SearchError> for Failure {
    fn from(error: SearchError) -> Self {
        Self(error)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.status.as_u16(), refusal.kind, refusal.reason)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if status.is_server_error() {
            tracing::warn!(status = status.as_u16(), kind = self.0.kind, "a search failed: {}", self.0.reason);
        }
        Answer(status, self.body()).into_response()
    }
}

pub(crate) fn refuse(refusal: Refusal) -> Response {
    Failure::from(refusal).into_response()
}

/// Answers a request that no endpoint takes: a write, a wrong method, or a path that is not served.
pub(crate) async fn no_handler(request: Request) -> Failure {
    let (method, path) = (request.method(), request.uri().path());
    if is_write(method, path) {
        let reason = format!(
            "{method} [{path}] is not allowed: the store is filled by the pipeline only (`databroker backfill`, `databroker up`)"
        );
        return Failure::new(405, "action_request_validation_exception", reason);
    }
    no_handler_for(method, path)
}

/// The refusal of a path that is not served.
pub(crate) fn no_handler_for(method: &Method, path: &str) -> Failure {
    let known: Vec<_> = ROUTES.iter().filter(|r| r.door == Door::Elasticsearch).map(|r| r.path).collect();
    Failure::argument(format!("no handler found for uri [{path}] and method [{method}] (known: {})", known.join(", ")))
}

fn is_write(method: &Method, path: &str) -> bool {
    const WRITES: &[&str] = &[
        "_doc",
        "_create",
        "_update",
        "_bulk",
        "_update_by_query",
        "_delete_by_query",
        "_reindex",
        "_aliases",
        "_rollover",
        "_close",
        "_open",
        "_shrink",
        "_split",
        "_clone",
        "_forcemerge",
    ];
    match *method {
        Method::PUT | Method::DELETE | Method::PATCH => true,
        Method::POST => path.split('/').any(|part| WRITES.contains(&part)),
        _ => false,
    }
}

/// Writes answers the way the client asked for them: `?pretty`, and the content type of its version's
/// compatibility mode. Marks all as Elasticsearch's, without which its clients refuse to go on.
/// Source: <https://www.elastic.co/guide/en/elasticsearch/reference/8.19/rest-api-compatibility.html>.
pub(crate) async fn print_answer(request: Request, next: Next) -> Response {
    let query = request.uri().query().unwrap_or_default();
    let is_pretty = query.split('&').any(|pair| pair == "pretty" || pair == "pretty=true" || pair == "pretty=");
    let content_type = content_type(request.headers());
    let mut response = next.run(request).await;
    if let Some(Unprinted(body)) = response.extensions_mut().remove() {
        let text = if is_pretty { format!("{body:#}\n") } else { body.to_string() };
        response.headers_mut().remove(header::CONTENT_LENGTH);
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        *response.body_mut() = Body::from(text);
    }
    response.headers_mut().insert("x-elastic-product", HeaderValue::from_static("Elasticsearch"));
    response
}

fn content_type(headers: &HeaderMap) -> HeaderValue {
    const VENDOR: &str = "application/vnd.elasticsearch+json";
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let asks = accepted.flat_map(|value| value.split(',')).find(|part| part.trim_start().starts_with(VENDOR));
    match asks.and_then(|part| part.split_once("compatible-with=")) {
        Some((_, version)) if version.trim() == "7" => {
            HeaderValue::from_static("application/vnd.elasticsearch+json;compatible-with=7")
        }
        Some((_, version)) if version.trim() == "9" => {
            HeaderValue::from_static("application/vnd.elasticsearch+json;compatible-with=9")
        }
        Some(_) => HeaderValue::from_static("application/vnd.elasticsearch+json;compatible-with=8"),
        None => HeaderValue::from_static("application/json"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_change_the_store_is_a_write_and_what_asks_is_not() {
        for (method, path) in
            [("PUT", "/github"), ("DELETE", "/github-*"), ("POST", "/_bulk"), ("POST", "/github/_doc")]
        {
            assert!(is_write(&method.parse().unwrap(), path), "{method} {path}");
        }
        for (method, path) in [("GET", "/github/_doc"), ("POST", "/github/_searchx"), ("POST", "/_docs")] {
            assert!(!is_write(&method.parse().unwrap(), path), "{method} {path}");
        }
    }

    #[test]
    fn the_content_type_is_the_one_the_client_asks_for() {
        let content_type = |accept: &str| {
            let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]);
            content_type(&headers).to_str().unwrap().to_owned()
        };
        assert_eq!(content_type("*/*"), "application/json");
        assert_eq!(content_type("application/json"), "application/json");
        let vendor = "application/vnd.elasticsearch+json;compatible-with=8";
        assert_eq!(content_type("application/vnd.elasticsearch+json; compatible-with=8"), vendor);
        assert_eq!(content_type("text/plain,application/vnd.elasticsearch+json;compatible-with=8"), vendor);
    }
}
