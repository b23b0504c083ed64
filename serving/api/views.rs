//! Views: answers that are kept up to date, and how far they reach.

use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::{Extension, Json};
use contract::{Error, Result, Timestamp, ViewAnswer, ViewRequest, ViewSummary, Views, metric};
use futures::StreamExt;
use futures::stream::iter;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout_at;

use super::answer::{Failure, stream};
use super::sql::{Pieces, WAITING_PIECES_MAX, send_error, send_rows};
use crate::guard::Admission;
use crate::routes::App;
use crate::rows::{Format, RowsWriter};

/// What is asked of a view, as its address says it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    from: Option<String>,
    to: Option<String>,
    filter: Option<String>,
    top: Option<u64>,
}

impl Asked {
    fn request(&self, now: Timestamp) -> Result<ViewRequest> {
        let time = |text: &Option<String>| text.as_deref().map(|text| ViewRequest::parse_time(text, now)).transpose();
        let (from, to) = (time(&self.from)?, time(&self.to)?);
        Ok(ViewRequest { from, to, filter: self.filter.clone(), rows_max: self.top })
    }
}

/// `GET /api/views`: an array of [`ViewSummary::to_json`].
pub(crate) async fn list(State(app): State<App>) -> Result<Json<Value>, Failure> {
    let views = app.services.views.views().await?;
    Ok(Json(views.iter().map(ViewSummary::to_json).collect()))
}

/// `GET /api/views/{name}`: `{"view": …, "boundary": …, "rows": […]}`; an error after the first rows cuts the connection.
pub(crate) async fn answer(
    State(app): State<App>,
    Path(name): Path<String>,
    asked: Result<Query<Asked>, QueryRejection>,
    Extension(admission): Extension<Admission>,
) -> Result<Response, Failure> {
    let started = Instant::now();
    let wrong = |cause: QueryRejection| {
        let message = format!("failed to read what is asked of the view `{name}`: {}", cause.body_text());
        Failure::wrong_use(StatusCode::BAD_REQUEST, &message)
    };
    let Query(asked) = asked.map_err(wrong)?;
    let request = asked.request(app.services.clock.now())?;
    let views: Arc<dyn Views> = app.services.views.clone();
    let ViewAnswer { boundary, table } = views.view(&name, &request).await?;
    // As for SQL: with the first batch in hand a status can still say what failed.
    let mut batches = table.batches.fuse();
    let first = batches.next().await.transpose()?;
    let writer = RowsWriter::new(Format::Json, &table.schema)?;
    let (pieces, waiting) = mpsc::channel(WAITING_PIECES_MAX);
    let head = format!("{{\"view\":{},\"boundary\":{},\"rows\":", json!(name), boundary.to_json());
    tokio::spawn(async move {
        let rows = iter(first.map(Ok)).chain(batches);
        let sent = timeout_at(admission.deadline, send(head, pin!(rows), writer, &pieces)).await;
        metric::SEARCH_SECONDS.observe(&["view"], started.elapsed().as_secs_f64());
        drop(admission);
        let sent = sent.unwrap_or_else(|_| Err(Error::retry("send all rows within `serving.request_seconds_max`")));
        if let Err(error) = sent {
            tracing::warn!(%error, view = name, "the answer of a view was cut");
            send_error(&error, Format::Json, &pieces).await;
        }
    });
    Ok(stream("application/json", waiting))
}

async fn send(
    head: String,
    rows: impl futures::Stream<Item = Result<arrow::record_batch::RecordBatch>> + Send,
    writer: RowsWriter,
    pieces: &Pieces,
) -> Result<()> {
    // Nobody is left to tell if one of these fails.
    pieces.send(Ok(head.into())).await.ok();
    send_rows(rows, writer, pieces).await?;
    pieces.send(Ok("}".into())).await.ok();
    Ok(())
}
