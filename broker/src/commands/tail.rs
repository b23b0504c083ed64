//! `tail`: rows as the running process makes them, a line each.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use contract::Error;
use futures::StreamExt;

use crate::output;
use crate::running::{Lines, Running};
use crate::settings::Settings;
use crate::signals;

/// The pause before a connection that broke is made again.
const AGAIN: Duration = Duration::from_secs(1);

/// Prints rows until Ctrl-C, or until the process that makes them has ended.
pub(crate) async fn run(settings: &Settings, data: &Path, source: &str, filter: Option<&str>) -> Result<ExitCode> {
    // Listened to, since a shell may have told what it started in the background not to mind Ctrl-C.
    let asked_to_end = signals::listen();
    tokio::select! {
        () = asked_to_end.cancelled() => Ok(ExitCode::SUCCESS),
        ended = follow(settings, data, source, filter) => ended,
    }
}

async fn follow(settings: &Settings, data: &Path, source: &str, filter: Option<&str>) -> Result<ExitCode> {
    let find = || Running::find(data, settings.serving.token());
    let Some(mut running) = find().await else {
        let nobody = format!("tail `{source}`: nothing runs on `{}`; start `databroker up`", data.display());
        return Err(Error::change(nobody).into());
    };
    let mut last: Option<String> = None;
    loop {
        let answer = running.tail(source, filter, last.as_deref()).await?;
        let (mut pieces, mut lines) = (answer.bytes_stream(), Lines::default());
        while let Some(Ok(piece)) = pieces.next().await {
            for line in lines.push(&piece) {
                let line = String::from_utf8(line).context("an event is no text")?;
                match line.split_once(": ") {
                    Some(("id", id)) => last = Some(id.to_owned()),
                    Some(("data", row)) => output::line(row),
                    _ => {}
                }
            }
        }
        tokio::time::sleep(AGAIN).await;
        match find().await {
            Some(again) => running = again,
            None => return Ok(ExitCode::SUCCESS),
        }
    }
}
