//! The process that owns a data directory, found by a file in it, and asked over HTTP.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use serde_json::Value;
use tokio::sync::mpsc::Sender;
use tokio_util::sync::CancellationToken;

/// What `running.json` says; written when the process serves, removed when it ends. The token is the
/// settings' own, so it is not in the file.
#[derive(serde::Serialize, serde::Deserialize)]
struct Note {
    pid: u32,
    http: String,
    elasticsearch: String,
    /// Host and port of Kafka's protocol, if it is answered.
    kafka: Option<String>,
    /// The same of PostgreSQL's protocol.
    postgres: Option<String>,
    /// The same of Arrow Flight SQL.
    flight: Option<String>,
}

/// Removes the note when the process ends in good order; after a kill the note is stale and answers nobody.
pub(crate) struct Announced(PathBuf);

impl Drop for Announced {
    fn drop(&mut self) {
        // A note that stays is stale, which `find` tells by asking.
        std::fs::remove_file(&self.0).unwrap_or_default();
    }
}

fn note_path(data: &Path) -> PathBuf {
    data.join("running.json")
}

/// Says where this process answers.
pub(crate) fn announce(
    data: &Path,
    server: &serving::Server,
    kafka: Option<SocketAddr>,
    sql: &sql_wire::Server,
) -> Result<Announced> {
    let path = note_path(data);
    let note = Note {
        pid: std::process::id(),
        http: format!("http://{}", server.http),
        elasticsearch: server.elasticsearch.map(|address| format!("http://{address}")).unwrap_or_default(),
        kafka: kafka.map(|address| address.to_string()),
        postgres: sql.postgres.map(|address| address.to_string()),
        flight: sql.flight.map(|address| address.to_string()),
    };
    let unfinished = path.with_extension("tmp");
    std::fs::write(&unfinished, serde_json::to_vec(&note)?)?;
    std::fs::rename(&unfinished, &path).with_context(|| format!("write `{}`", path.display()))?;
    Ok(Announced(path))
}

/// A process that serves a data directory.
pub(crate) struct Running {
    pub(crate) pid: u32,
    pub(crate) http: String,
    client: reqwest::Client,
    token: Option<String>,
}

impl Running {
    /// The process that serves `data`, if one answers.
    pub(crate) async fn find(data: &Path, token: Option<String>) -> Option<Self> {
        let note: Note = serde_json::from_slice(&std::fs::read(note_path(data)).ok()?).ok()?;
        let client = reqwest::Client::builder().no_proxy().build().ok()?;
        let health = format!("{}/health/live", note.http);
        let answer = client.get(health).timeout(std::time::Duration::from_secs(5)).send().await.ok()?;
        let live: Value = answer.error_for_status().ok()?.json().await.ok()?;
        // After a kill the port may be another program's, which gets neither the token nor the command.
        (live["pid"] == note.pid).then_some(Self { pid: note.pid, http: note.http, client, token })
    }

    /// Has it run a command; progress is handed on as it comes. It is asked to end early when the user asks us, and its
    /// answer is waited for.
    pub(crate) async fn run(
        &self,
        command: &str,
        arguments: &Value,
        progress: &Sender<Value>,
        asked_to_end: &CancellationToken,
    ) -> Result<Value> {
        // The name of this run there: no two processes of one host have the same, nor those of two containers.
        let started = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
        let run = serde_json::json!({"run": format!("{}-{started}", std::process::id())});
        let mut arguments = arguments.clone();
        arguments["run"] = run["run"].clone();
        let answer = self.answer(command, &arguments, progress);
        tokio::pin!(answer);
        tokio::select! {
            answer = &mut answer => return answer,
            () = asked_to_end.cancelled() => {}
        }
        // Where this fails the process is ending, and its answer or the cut connection says so.
        self.post("commands/interrupt", &run).await.map(drop).unwrap_or_default();
        answer.await
    }

    async fn answer(&self, command: &str, arguments: &Value, progress: &Sender<Value>) -> Result<Value> {
        let answer = self.post(&format!("commands/{command}"), arguments).await?;
        if !answer.status().is_success() {
            let status = answer.status();
            bail!("the running process {} answered {status}: {}", self.pid, answer.text().await.unwrap_or_default());
        }
        let mut lines = Lines::default();
        let mut body = answer.bytes_stream();
        while let Some(bytes) = body.next().await {
            for line in lines.push(&bytes.context("the running process ended in the middle of its answer")?) {
                let mut line: Value = serde_json::from_slice(&line).context("read the running process's answer")?;
                if line.get("result").is_some() {
                    return Ok(line["result"].take());
                }
                if let Some(error) = line.get("error") {
                    return Err(remote_error(error));
                }
                // Progress that nobody shows any more is not missed.
                progress.send(line["progress"].take()).await.unwrap_or_default();
            }
        }
        bail!("the running process {} ended before it answered", self.pid)
    }

    async fn post(&self, path: &str, body: &Value) -> Result<reqwest::Response> {
        let mut request = self.client.post(format!("{}/api/{path}", self.http)).json(body);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        request.send().await.with_context(|| format!("ask the running process {} at {}", self.pid, self.http))
    }

    /// Follows a source's rows, from after an event.
    pub(crate) async fn tail(
        &self,
        source: &str,
        filter: Option<&str>,
        after: Option<&str>,
    ) -> Result<reqwest::Response> {
        let mut url = reqwest::Url::parse(&self.http).context("the running process has no address")?;
        url.set_path(&format!("/api/tail/{source}"));
        url.query_pairs_mut().extend_pairs(filter.map(|filter| ("filter", filter)));
        url.query_pairs_mut().extend_pairs(after.map(|after| ("after", after)));
        let mut request = self.client.get(url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.with_context(|| format!("ask the running process {}", self.pid))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let error: Value = answer.json().await.unwrap_or_default();
        Err(remote_error(&error["error"]))
    }

    /// Answers a query: a JSON array of row objects.
    pub(crate) async fn sql(&self, query: &str) -> Result<Vec<u8>> {
        let answer = self.post("sql", &serde_json::json!({"query": query})).await?;
        let status = answer.status();
        let body = answer.bytes().await.context("the running process ended in the middle of its answer")?;
        if status.is_success() {
            return Ok(body.to_vec());
        }
        let error: Value = serde_json::from_slice(&body).unwrap_or_default();
        Err(remote_error(&error["error"]))
    }
}

/// The running process's error, with the exit code it would have had here.
fn remote_error(error: &Value) -> anyhow::Error {
    let message = error["message"].as_str().unwrap_or("unknown error");
    let message = message.strip_prefix("failed to ").unwrap_or(message).to_owned();
    let remedy = match error["exit_code"].as_u64().and_then(|code| u8::try_from(code).ok()) {
        Some(crate::failure::WRONG_USE) => contract::Remedy::Change,
        Some(crate::failure::PEER_AWAY) => contract::Remedy::Retry,
        _ => contract::Remedy::Stop,
    };
    contract::Error::new(remedy, message).into()
}

/// Puts lines together again from pieces.
#[derive(Default)]
pub(crate) struct Lines(Vec<u8>);

impl Lines {
    /// The lines that are whole now, without empty ones.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        for &byte in bytes {
            if byte == b'\n' {
                lines.push(std::mem::take(&mut self.0));
            } else {
                self.0.push(byte);
            }
        }
        lines.retain(|line| !line.is_empty());
        lines
    }
}
