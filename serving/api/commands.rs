//! Commands of the binary, run inside this process.

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::{Extension, Json};
use bytes::Bytes;
use contract::{Error, Result};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::answer::{Failure, error_body, stream};
use crate::guard::{Admission, read_body};
use crate::routes::App;

/// Values of progress that wait for the client before the command does.
const WAITING_PROGRESS_MAX: usize = 64;

/// `GET /api/status`: the answer of the command `status`.
pub(crate) async fn status(State(app): State<App>) -> Result<Json<Value>, Failure> {
    // Progress is taken and forgotten: a queue that is full or closed would stop the command.
    let (progress, mut unheard) = mpsc::channel(WAITING_PROGRESS_MAX);
    let forget = async { while unheard.recv().await.is_some() {} };
    let (answer, ()) = tokio::join!(app.services.control.run("status", json!({}), progress), forget);
    Ok(Json(answer?))
}

/// `POST /api/commands/{name}`: lines `{"progress":…}`, and at last `{"result":…}` or `{"error":…}`.
/// An answer without one of the last two was cut.
pub(crate) async fn command(
    State(app): State<App>,
    Path(name): Path<String>,
    Extension(admission): Extension<Admission>,
    request: Request,
) -> Result<Response, Failure> {
    let (parts, body) = request.into_parts();
    let body = read_body(&parts.headers, body, app.body_limit).await?;
    let arguments = match body.iter().all(u8::is_ascii_whitespace) {
        true => json!({}),
        false => serde_json::from_slice(&body).map_err(|cause| {
            let message = format!("failed to read the arguments of `{name}` as JSON: {cause}");
            Failure::wrong_use(StatusCode::BAD_REQUEST, &message)
        })?,
    };
    let (lines, waiting) = mpsc::channel(1);
    tokio::spawn(async move {
        run(&app, name, arguments, &lines).await;
        drop(admission);
    });
    Ok(stream("application/x-ndjson", waiting))
}

/// Runs a command to its end, also when the client leaves: it is told by the closed queue, and stops where it can.
async fn run(app: &App, name: String, arguments: Value, lines: &mpsc::Sender<std::io::Result<Bytes>>) {
    let (progress, mut reported) = mpsc::channel(WAITING_PROGRESS_MAX);
    let control = app.services.control.clone();
    let running = tokio::spawn({
        let name = name.clone();
        async move { control.run(&name, arguments, progress).await }
    });
    loop {
        let value = tokio::select! {
            value = reported.recv() => value,
            () = lines.closed() => break,
        };
        let Some(value) = value else { break };
        if lines.send(Ok(line(&json!({"progress": value})))).await.is_err() {
            break;
        }
    }
    drop(reported);
    let ended = match running.await {
        Ok(ended) => ended,
        Err(panic) => Err(Error::stop(format!("run `{name}`")).because(panic)),
    };
    let last = match ended {
        Ok(result) => json!({"result": result}),
        Err(error) => {
            tracing::warn!(%error, command = name, "a command failed");
            error_body(&error)
        }
    };
    // Nobody is left to tell if this fails.
    lines.send(Ok(line(&last))).await.ok();
}

fn line(value: &Value) -> Bytes {
    format!("{value}\n").into()
}
