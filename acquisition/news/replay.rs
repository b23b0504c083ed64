//! Publishers and hubs on loopback: for tests of the collectors and of the whole program.
//!
//! Each path answers from a script of its own, whose last answer stays. An answer with an `ETag` that the request names
//! becomes a 304. `BASE` in a body that is text stands for the server's address.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::replay::{Request, Response, Server};

type Scripts = HashMap<String, VecDeque<Response>>;

/// The server; it ends when dropped.
#[derive(Debug)]
pub struct Replay {
    server: Server,
    scripts: Arc<Mutex<Scripts>>,
}

impl Replay {
    /// A server that answers 404 for all paths.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start() -> io::Result<Self> {
        let scripts = Arc::new(Mutex::new(Scripts::new()));
        let shared = scripts.clone();
        let server = Server::answering(move |request| answer(&mut lock(&shared), request)).await?;
        Ok(Self { server, scripts })
    }

    /// A server with one script, for `/feed`.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn feed(responses: impl IntoIterator<Item = Response>) -> io::Result<Self> {
        let replay = Self::start().await?;
        replay.route("/feed", responses);
        Ok(replay)
    }

    /// What a path answers from now on.
    pub fn route(&self, path: &str, responses: impl IntoIterator<Item = Response>) {
        let base = self.server.base_url();
        let placed = |response: Response| match String::from_utf8(response.body) {
            Ok(text) => Response { body: text.replace("BASE", &base).into_bytes(), ..response },
            Err(binary) => Response { body: binary.into_bytes(), ..response },
        };
        lock(&self.scripts).insert(path.to_owned(), responses.into_iter().map(placed).collect());
    }

    /// The address of a path.
    pub fn url(&self, path: &str) -> String {
        self.server.base_url() + path
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.server.requests()
    }
}

fn lock(scripts: &Mutex<Scripts>) -> MutexGuard<'_, Scripts> {
    scripts.lock().unwrap_or_else(PoisonError::into_inner)
}

fn answer(scripts: &mut Scripts, request: &Request) -> Response {
    let path = request.target.split('?').next().unwrap_or_default();
    let Some(script) = scripts.get_mut(path) else { return Response::status(404) };
    let response = if script.len() > 1 { script.pop_front() } else { script.front().cloned() };
    let response = response.unwrap_or_else(|| Response::status(500));
    let etag = response.headers.iter().find(|(name, _)| *name == "ETag").map(|(_, value)| value.as_str());
    match etag.is_some() && etag == request.header("if-none-match") {
        true => Response { status: 304, body: Vec::new(), ..response },
        false => response,
    }
}
