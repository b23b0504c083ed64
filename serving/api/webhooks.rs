//! `/webhooks/SOURCE/…`: what a source's servers send.

use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use contract::WebhookRequest;
use contract::limits::WEBHOOK_BYTES_MAX;

use super::answer::Failure;
use crate::guard::read_body;
use crate::routes::App;

/// Where webhooks are: below it no token is asked for, since each checks its senders itself.
pub(crate) const PREFIX: &str = "/webhooks/";

/// Hands a request to the webhook of its path.
pub(crate) async fn webhook(
    State(app): State<App>,
    Path(path): Path<String>,
    Query(query): Query<Vec<(String, String)>>,
    request: Request,
) -> Result<Response, Failure> {
    let (name, rest) = path.split_once('/').unwrap_or((&path, ""));
    let webhook = app.services.webhooks.iter().find(|webhook| webhook.path() == name).ok_or_else(|| {
        let message = format!("failed to find the webhook `{name}`: none is set up");
        Failure::wrong_use(StatusCode::NOT_FOUND, &message)
    })?;
    let (parts, body) = request.into_parts();
    let body = read_body(&parts.headers, body, WEBHOOK_BYTES_MAX).await?;
    let text = |(name, value): (&axum::http::HeaderName, &axum::http::HeaderValue)| {
        Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
    };
    let request = WebhookRequest {
        method: parts.method.to_string(),
        path: rest.to_owned(),
        query,
        headers: parts.headers.iter().filter_map(text).collect(),
        body,
    };
    let answer = webhook.receive(request).await;
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    Ok((status, answer.body).into_response())
}
