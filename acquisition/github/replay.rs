//! A server that behaves as the Events API does, on loopback: for tests of the collector and of the whole program.
//!
//! It answers from a script (any status, header, fault), or from a stream of numbered events that grows as it is asked,
//! so that a test knows which events there were.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use contract::Timestamp;

use crate::replay::Server;
pub use crate::replay::{Fault, Request, Response};

/// Events that the stream shows at once, as GitHub does.
pub const WINDOW: u64 = 300;

/// A stream of events `1, 2, 3…` that grows with each request for its first page.
#[derive(Clone, Copy, Debug)]
pub struct EventStream {
    /// Events that are there before the first request.
    pub first: u64,
    /// Events by which each request for the first page lets it grow; above [`WINDOW`] some are never seen.
    pub growth: u64,
    /// Where growth ends; from then on the first page stays the same and answers 304.
    pub last: u64,
    /// Time of event 0; each later one is a tenth of a second younger.
    pub start: Timestamp,
    /// What `X-Poll-Interval` says, in seconds.
    pub poll_interval_seconds: u64,
}

impl EventStream {
    /// The id of event `number`, as it stands in its body.
    pub fn id(number: u64) -> String {
        format!("{}", 40_000_000_000 + number)
    }

    /// The body of event `number`.
    pub fn body(&self, number: u64) -> String {
        // GitHub writes whole seconds.
        let micros = self.start.0 + i64::try_from(number).unwrap_or(i64::MAX / 200_000) * 100_000;
        let time = Timestamp(micros.div_euclid(1_000_000) * 1_000_000);
        let (kind, payload) = match number % 3 {
            0 => ("WatchEvent", r#"{"action":"started"}"#.to_owned()),
            1 => ("CreateEvent", r#"{"ref":"main","ref_type":"branch","master_branch":"main"}"#.to_owned()),
            _ => {
                let commit = format!(r#"{{"sha":"{number:040x}","message":"Change number {number}"}}"#);
                let refs = r#""ref":"refs/heads/main","size":1,"distinct_size":1"#;
                ("PushEvent", format!(r#"{{"push_id":{number},{refs},"commits":[{commit}]}}"#))
            }
        };
        let (id, actor, repo) = (Self::id(number), number % 97, number % 41);
        format!(
            r#"{{"id":"{id}","type":"{kind}","actor":{{"id":{actor},"login":"user-{actor}"}},"repo":{{"id":{repo},"name":"owner/repo-{repo}"}},"payload":{payload},"public":true,"created_at":"{time}"}}"#
        )
    }
}

/// The server; it ends when dropped.
#[derive(Debug)]
pub struct Replay {
    server: Server,
    growth: Arc<Mutex<Growth>>,
}

/// How far a stream has grown.
#[derive(Debug, Default)]
struct Growth {
    newest: u64,
}

impl Replay {
    /// Answers request after request from a script, and 500 after its end.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn script(responses: Vec<Response>) -> io::Result<Self> {
        Ok(Self { server: Server::script(responses).await?, growth: Arc::default() })
    }

    /// Answers every feed with the same stream.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn stream(stream: EventStream) -> io::Result<Self> {
        let growth = Arc::new(Mutex::new(Growth { newest: stream.first }));
        let state = growth.clone();
        let server = Server::answering(move |request| lock(&state).page(&stream, request)).await?;
        Ok(Self { server, growth })
    }

    /// For the setting `github.base_url`.
    pub fn base_url(&self) -> String {
        self.server.base_url()
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.server.requests()
    }

    /// The newest event of the stream; all from 1 on were there, and were served if growth is below [`WINDOW`].
    pub fn newest(&self) -> u64 {
        lock(&self.growth).newest
    }

    /// Lets the stream grow by itself.
    pub fn grow(&self, count: u64) {
        lock(&self.growth).newest += count;
    }
}

fn lock(growth: &Mutex<Growth>) -> MutexGuard<'_, Growth> {
    growth.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Growth {
    fn page(&mut self, stream: &EventStream, request: &Request) -> Response {
        let number = |name, default| request.query(name).and_then(|text| text.parse().ok()).unwrap_or(default);
        let (page, per_page): (u64, u64) = (number("page", 1_u64).max(1), number("per_page", 30_u64).clamp(1, 100));
        if page == 1 && self.newest < stream.last {
            self.newest = stream.last.min(self.newest + stream.growth);
        }
        let etag = format!("\"{}\"", self.newest);
        let mut headers = vec![
            ("Content-Type", "application/json; charset=utf-8".to_owned()),
            ("X-Poll-Interval", stream.poll_interval_seconds.to_string()),
            ("ETag", etag.clone()),
        ];
        if page == 1 && request.header("if-none-match") == Some(&etag) {
            return Response { status: 304, headers, ..Response::default() };
        }
        let shown = self.newest.min(WINDOW);
        let (from, to) = (((page - 1) * per_page).min(shown), (page * per_page).min(shown));
        let bodies: Vec<String> = (from..to).map(|place| stream.body(self.newest - place)).collect();
        if to < shown {
            let path = request.target.split('?').next().unwrap_or_default();
            let next = page + 1;
            headers.push(("Link", format!("<BASE{path}?per_page={per_page}&page={next}>; rel=\"next\"")));
        }
        Response { headers, body: format!("[{}]", bodies.join(",")).into_bytes(), ..Response::default() }
    }
}
