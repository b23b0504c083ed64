//! Rows as they are made, as server-sent events.
//! Source: <https://html.spec.whatwg.org/multipage/server-sent-events.html>.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use contract::limits::TAILS_MAX;
use contract::metric;
use futures::StreamExt;
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;

use super::answer::{Failure, error_body, stream};
use crate::routes::App;
use crate::services::Tailed;

/// Pieces that wait for the client; when they are not taken the log is not read on.
const WAITING_PIECES_MAX: usize = 4;

/// How often a client hears something, so that it and what stands between know that the connection lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How long a client may take nothing, before it is cut off; it goes on by its last id.
const SEND_WAIT: Duration = Duration::from_secs(60);

/// One of so many tails, until it is dropped.
struct Place {
    slots: Arc<Semaphore>,
    slot: Option<OwnedSemaphorePermit>,
}

impl Place {
    fn take(slots: &Arc<Semaphore>) -> Option<Self> {
        Some(Self { slot: Some(Arc::clone(slots).try_acquire_owned().ok()?), slots: Arc::clone(slots) })
    }

    fn measure(&self) {
        metric::TAILS.set(&[], TAILS_MAX.saturating_sub(self.slots.available_permits()) as f64);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.slot.take();
        self.measure();
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    /// A condition in SQL over the row's columns.
    filter: Option<String>,
    /// As the header `Last-Event-ID`, for clients that cannot set one.
    after: Option<String>,
}

/// `GET /api/tail/{source}`: an event a row. Its `id` says where to go on: sent again as `Last-Event-ID`, no row is missed.
pub(crate) async fn tail(
    State(app): State<App>,
    Path(source): Path<String>,
    asked: Result<Query<Asked>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let Query(asked) = asked.map_err(|cause| {
        let message = format!("failed to tail `{source}`: {} (known: filter, after)", cause.body_text());
        Failure::wrong_use(StatusCode::BAD_REQUEST, &message)
    })?;
    let place = Place::take(&app.tail_slots).ok_or_else(|| {
        let message = format!("failed to tail `{source}`: {TAILS_MAX} clients do already; ask again later");
        Failure::wrong_use(StatusCode::TOO_MANY_REQUESTS, &message)
    })?;
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok()).map(str::to_owned).or(asked.after);
    let mut rows = app.services.tail.begin(&source, asked.filter.as_deref(), last.as_deref()).await?;
    // From here on it misses none.
    place.measure();
    let (pieces, waiting) = mpsc::channel(WAITING_PIECES_MAX);
    tokio::spawn(async move {
        let _place = place;
        loop {
            let next = tokio::select! {
                next = timeout(KEEP_ALIVE, rows.next()) => next,
                () = pieces.closed() => return,
            };
            let piece = match next {
                Err(_) => Bytes::from_static(b": nothing new\n\n"),
                Ok(None) => return,
                Ok(Some(Ok(tailed))) => event(&tailed),
                Ok(Some(Err(error))) => format!("event: error\ndata: {}\n\n", error_body(&error)).into(),
            };
            match timeout(SEND_WAIT, pieces.send(Ok(piece))).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return,
            }
        }
    });
    Ok(stream("text/event-stream", waiting))
}

fn event(tailed: &Tailed) -> Bytes {
    match &tailed.row {
        Some(row) => format!("id: {}\ndata: {row}\n\n", tailed.id),
        // Only the place moves on: rows that the filter does not let through.
        None => format!("id: {}\n\n", tailed.id),
    }
    .into()
}
