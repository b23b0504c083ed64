//! SQL over the cold store, streamed.

use std::pin::pin;
use std::time::Instant;

use arrow::record_batch::RecordBatch;
use axum::Extension;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use contract::{Error, Result, metric};
use futures::stream::iter;
use futures::{Stream, StreamExt};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::time::timeout_at;

use super::answer::{Failure, error_body, stream};
use crate::guard::{Admission, read_body};
use crate::routes::App;
use crate::rows::{Format, RowsWriter};

/// Pieces that wait for the client, each of up to 256 rows: enough that encoding and sending overlap.
pub(super) const WAITING_PIECES_MAX: usize = 2;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    query: String,
}

/// `POST /api/sql`. Errors before the first rows have a status; later ones are a last line
/// `{"error":…}` in NDJSON, and in all other formats they cut the connection before the end.
pub(crate) async fn sql(
    State(app): State<App>,
    Extension(admission): Extension<Admission>,
    request: Request,
) -> Result<Response, Failure> {
    let started = Instant::now();
    let (parts, body) = request.into_parts();
    let body = read_body(&parts.headers, body, app.body_limit).await?;
    let query = parse_question(&body)?;
    let format = asked_format(parts.uri.query(), &parts.headers)?;

    let table = app.services.cold.sql(&query).await?;
    // The plan may be right and its first step fail: with the first batch in hand a status can still say so. An answer that
    // has ended by then must not be asked again.
    let mut batches = table.batches.fuse();
    let first = batches.next().await.transpose()?;
    let writer = RowsWriter::new(format, &table.schema)?;
    let (pieces, waiting) = mpsc::channel(WAITING_PIECES_MAX);
    // A task of its own, and not the body itself, encodes the rows: a client that stops reading would else hold
    // the slot and the query's memory beyond the deadline.
    tokio::spawn(async move {
        let rows = iter(first.map(Ok)).chain(batches);
        let sent = timeout_at(admission.deadline, send_rows(rows, writer, &pieces)).await;
        metric::SEARCH_SECONDS.observe(&["sql"], started.elapsed().as_secs_f64());
        // What follows may wait for a client that has stopped reading, for as long as its connection lives.
        drop(admission);
        let sent = sent.unwrap_or_else(|_| Err(Error::retry("send all rows within `serving.request_seconds_max`")));
        if let Err(error) = sent {
            tracing::warn!(%error, "a SQL answer was cut");
            send_error(&error, format, &pieces).await;
        }
    });
    Ok(stream(format.content_type(), waiting))
}

/// The format that `?format=` names, else what the client accepts.
fn asked_format(query: Option<&str>, headers: &HeaderMap) -> Result<Format, Failure> {
    let mut named = query.unwrap_or_default().split('&').filter_map(|pair| pair.strip_prefix("format="));
    match named.next() {
        Some(name) => Ok(Format::named(name)?),
        None => {
            let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
            Ok(Format::accepted(accept.unwrap_or_default()))
        }
    }
}

/// A body that starts as JSON does is `{"query":…}`; SQL never starts so.
fn parse_question(body: &[u8]) -> Result<String, Failure> {
    let wrong = |reason: String| {
        let message = format!("failed to read the query: {reason}; send SQL as text, or {{\"query\": \"SELECT …\"}}");
        Failure::wrong_use(StatusCode::BAD_REQUEST, &message)
    };
    let text = std::str::from_utf8(body).map_err(|cause| wrong(cause.to_string()))?.trim();
    let query = match text.starts_with('{') {
        true => serde_json::from_str::<Question>(text).map_err(|cause| wrong(cause.to_string()))?.query,
        false => text.to_owned(),
    };
    if query.trim().is_empty() { Err(wrong("it is empty".to_owned())) } else { Ok(query) }
}

pub(super) type Pieces = mpsc::Sender<std::io::Result<Bytes>>;

/// Sends all rows, or stops early without an error when the client left.
pub(super) async fn send_rows(
    rows: impl Stream<Item = Result<RecordBatch>> + Send,
    mut writer: RowsWriter,
    pieces: &Pieces,
) -> Result<()> {
    let mut rows = pin!(rows);
    while let Some(batch) = rows.next().await {
        for piece in writer.batch(&batch?) {
            if pieces.send(Ok(piece?.into())).await.is_err() {
                return Ok(());
            }
        }
    }
    let end = writer.end()?;
    // Nobody is left to tell if this fails.
    pieces.send(Ok(end.into())).await.ok();
    Ok(())
}

pub(super) async fn send_error(error: &Error, format: Format, pieces: &Pieces) {
    let piece = match format {
        Format::Ndjson => Ok(format!("{}\n", error_body(error)).into()),
        _ => Err(std::io::Error::other(error.to_string())),
    };
    // Nobody is left to tell if this fails.
    pieces.send(piece).await.ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_text_or_an_object_and_nothing_else() {
        let parse = |body: &str| parse_question(body.as_bytes()).ok();
        assert_eq!(parse(" SELECT 1 \n"), Some("SELECT 1".to_owned()));
        assert_eq!(parse(r#"{"query": "SELECT '{'"}"#), Some("SELECT '{'".to_owned()));
        for wrong in ["", " ", "{", r#"{"query": ""}"#, r#"{"sql": "SELECT 1"}"#, r#"{"query": 1}"#] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
        assert!(parse_question(b"SELECT '\xff'").is_err());
    }
}
