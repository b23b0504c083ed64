//! Errors of this port: `{"error":{"message":"failed to …","exit_code":64}}`; of a query also `sqlstate`, `line`, `column`.

use axum::Json;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use contract::{Error, Remedy};
use futures::stream::unfold;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::exit_code;
use crate::guard::Refusal;

/// An error with its status.
pub(crate) struct Failure {
    status: StatusCode,
    retry_after_seconds: Option<u64>,
    body: Value,
}

impl Failure {
    /// A request that is wrong, as the command line would say it: exit code 64.
    pub(crate) fn wrong_use(status: StatusCode, message: &str) -> Self {
        Self { status, retry_after_seconds: None, body: json!({"error": {"message": message, "exit_code": 64}}) }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let (status, retry_after_seconds) = match error.remedy() {
            Remedy::Change => (StatusCode::BAD_REQUEST, None),
            Remedy::Retry => (StatusCode::SERVICE_UNAVAILABLE, None),
            Remedy::RetryAfter(wait) => (StatusCode::SERVICE_UNAVAILABLE, Some(wait.as_secs().max(1))),
            Remedy::Stop => (StatusCode::INTERNAL_SERVER_ERROR, None),
        };
        Self { status, retry_after_seconds, body: error_body(&error) }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::wrong_use(refusal.status, &format!("failed to answer: {}", refusal.reason))
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        if self.status.is_server_error() {
            tracing::warn!(status = self.status.as_u16(), "a request failed: {}", self.body["error"]["message"]);
        }
        let mut response = (self.status, Json(self.body)).into_response();
        if let Some(seconds) = self.retry_after_seconds {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// An error as its last line or only body; of a query with its SQLSTATE, line and column.
pub(crate) fn error_body(error: &Error) -> Value {
    let mut told = json!({"message": error.to_string(), "exit_code": exit_code(error)});
    if let Some(fault) = error.fault() {
        told["sqlstate"] = json!(fault.sqlstate);
        if let Some((line, column)) = fault.place {
            told["line"] = json!(line);
            told["column"] = json!(column);
        }
    }
    json!({"error": told})
}

pub(crate) fn refuse(refusal: Refusal) -> Response {
    Failure::from(refusal).into_response()
}

/// Answers a path or method that no endpoint takes.
pub(crate) async fn no_handler(request: Request) -> Failure {
    let message =
        format!("failed to find `{} {}` (`GET /` lists what is here)", request.method(), request.uri().path());
    Failure::wrong_use(StatusCode::NOT_FOUND, &message)
}

/// Keeps browsers from doing anything with an answer but show it.
pub(crate) async fn protect(request: Request, next: Next) -> Response {
    const HEADERS: &[(header::HeaderName, &str)] = &[
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    let mut response = next.run(request).await;
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// A response whose pieces come through a queue. A piece that is an error cuts the connection, by which the
/// client sees that the answer is not complete.
pub(crate) fn stream(content_type: &'static str, pieces: mpsc::Receiver<std::io::Result<Bytes>>) -> Response {
    let body = unfold(pieces, async |mut pieces| pieces.recv().await.map(|piece| (piece, pieces)));
    ([(header::CONTENT_TYPE, content_type)], Body::from_stream(body)).into_response()
}
