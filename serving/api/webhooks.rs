//! `/webhooks/SOURCE/…`: what a source's servers send. Anybody may ask here, so a webhook has limits of its own and
//! takes no slot of searches and queries:
//!
//! | request | answer | its body |
//! | --- | --- | --- |
//! | its head is no sender's | the webhook's | not read |
//! | others fill the webhook's slots for 5 s | 429 | not read |
//! | longer than the webhook takes | 413 | read up to there; let go where it is announced |
//! | not whole within 10 s | 408 | dropped |
//! | whole | the webhook's | the webhook's |
//!
//! 408, 413 and 429 may have been deliveries: `databroker_lost_records_total` counts them, by reason.

use std::time::Duration;

use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use contract::limits::WEBHOOK_REQUESTS_MAX;
use contract::{WebhookAnswer, WebhookRequest, metric};
use tokio::time::timeout;

use super::answer::Failure;
use crate::guard::{BodyLimit, Refusal, read_body};
use crate::routes::App;

/// Where webhooks are: below it no token is asked for, since each checks its senders itself.
pub(crate) const PREFIX: &str = "/webhooks/";

/// How long a request waits for a slot. GitHub gives up after 10 s.
const SLOT_WAIT: Duration = Duration::from_secs(5);

/// How long a body may take from its first byte to its last, for the same reason.
const BODY_WAIT: Duration = Duration::from_secs(10);

/// Hands a request to the webhook of its path.
pub(crate) async fn webhook(
    State(app): State<App>,
    Path(path): Path<String>,
    Query(query): Query<Vec<(String, String)>>,
    request: Request,
) -> Result<Response, Failure> {
    let (name, rest) = path.split_once('/').unwrap_or((&path, ""));
    let place = app.services.webhooks.iter().position(|webhook| webhook.path() == name).ok_or_else(|| {
        let message = format!("failed to find the webhook `{name}`: none is set up");
        Failure::wrong_use(StatusCode::NOT_FOUND, &message)
    })?;
    let (webhook, slots) = (&app.services.webhooks[place], &app.webhook_slots[place]);
    let (parts, body) = request.into_parts();
    let mut request = head(&parts, rest, query);
    let bytes_max = match webhook.admit(&request) {
        Ok(bytes_max) => bytes_max,
        Err(answer) => return Ok(respond(answer)),
    };
    let Ok(_slot) = timeout(SLOT_WAIT, slots.acquire()).await else {
        let reason = format!("{WEBHOOK_REQUESTS_MAX} requests of this webhook are being taken; send it again later");
        return Err(lost(name, "no room", StatusCode::TOO_MANY_REQUESTS, reason));
    };
    let limit = BodyLimit { bytes: bytes_max, name: "what this webhook takes" };
    request.body = match timeout(BODY_WAIT, read_body(&parts.headers, body, limit)).await {
        Ok(Ok(body)) => body,
        Ok(Err(Refusal { status: StatusCode::PAYLOAD_TOO_LARGE, reason, .. })) => {
            return Err(lost(name, "too large", StatusCode::PAYLOAD_TOO_LARGE, reason));
        }
        Ok(Err(refusal)) => return Err(refusal.into()),
        Err(_) => {
            let reason = format!("the body was not whole within {} s", BODY_WAIT.as_secs());
            return Err(lost(name, "too slow", StatusCode::REQUEST_TIMEOUT, reason));
        }
    };
    Ok(respond(webhook.receive(request).await))
}

/// The request without its body.
fn head(parts: &Parts, rest: &str, query: Vec<(String, String)>) -> WebhookRequest {
    let text = |(name, value): (&axum::http::HeaderName, &axum::http::HeaderValue)| {
        Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
    };
    WebhookRequest {
        method: parts.method.to_string(),
        path: rest.to_owned(),
        query,
        headers: parts.headers.iter().filter_map(text).collect(),
        body: bytes::Bytes::new(),
    }
}

/// Counts what may have been a delivery: whether it was signed, only the body would have told.
fn lost(name: &str, counted: &str, status: StatusCode, reason: String) -> Failure {
    let collector = format!("{name}/webhook");
    metric::RECEIVED_RECORDS.add(&[name, &collector], 1);
    metric::LOST_RECORDS.add(&[name, &collector, counted], 1);
    Failure::wrong_use(status, &format!("failed to take this: {reason}"))
}

fn respond(answer: WebhookAnswer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, answer.body).into_response()
}
