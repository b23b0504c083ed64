//! A server that behaves as the Events API does, on loopback: for tests of the collector and of the whole program.
//!
//! It answers from a script (any status, header, fault), or from a stream of numbered events that grows as it is asked,
//! so that a test knows which events there were.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use contract::Timestamp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Bytes of a request's head; the collector's have 300.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// Events that the stream shows at once, as GitHub does.
pub const WINDOW: u64 = 300;

/// One request as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Path and query.
    pub target: String,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
}

impl Request {
    /// The value of a header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn query(&self, name: &str) -> Option<&str> {
        let (_, query) = self.target.split_once('?')?;
        query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    }
}

/// One answer of a script.
#[derive(Clone, Debug, Default)]
pub struct Response {
    /// The status; 0 counts as 200.
    pub status: u16,
    /// Beside `Content-Length`. `BASE` in a value stands for the server's address.
    pub headers: Vec<(&'static str, String)>,
    /// The body, as it goes over the wire.
    pub body: Vec<u8>,
    /// What goes wrong.
    pub fault: Fault,
}

/// What goes wrong with an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// The body comes only after this long.
    Slow(Duration),
    /// The connection ends after so many bytes of the body.
    CutAfter(usize),
    /// The connection is reset without an answer.
    Reset,
}

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
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    requests: Vec<Request>,
    script: VecDeque<Response>,
    stream: Option<EventStream>,
    /// The newest event of the stream.
    newest: u64,
    base: String,
}

impl Replay {
    /// Answers request after request from a script, and 500 after its end.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn script(responses: Vec<Response>) -> io::Result<Self> {
        Self::start(responses.into(), None).await
    }

    /// Answers every feed with the same stream.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn stream(stream: EventStream) -> io::Result<Self> {
        Self::start(VecDeque::new(), Some(stream)).await
    }

    async fn start(script: VecDeque<Response>, stream: Option<EventStream>) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let newest = stream.map_or(0, |stream| stream.first);
        let base = format!("http://{address}");
        let state = Arc::new(Mutex::new(State { requests: Vec::new(), script, stream, newest, base }));
        let task = tokio::spawn(accept(listener, state.clone()));
        Ok(Self { address, state, task })
    }

    /// For the setting `github.base_url`.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.state).requests.clone()
    }

    /// The newest event of the stream; all from 1 on were there, and were served if growth is below [`WINDOW`].
    pub fn newest(&self) -> u64 {
        lock(&self.state).newest
    }

    /// Lets the stream grow by itself.
    pub fn grow(&self, count: u64) {
        lock(&self.state).newest += count;
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, state: Arc<Mutex<State>>) {
    while let Ok((socket, _)) = listener.accept().await {
        let state = state.clone();
        // A connection that fails concerns its client alone.
        tokio::spawn(async move { drop(serve(socket, &state).await) });
    }
}

/// Serves one request; the connection is closed after it, so that a fault stays with its answer.
async fn serve(mut socket: TcpStream, state: &Mutex<State>) -> io::Result<()> {
    let Some(request) = read_request(&mut socket).await? else { return Ok(()) };
    let (response, base) = {
        let mut state = lock(state);
        let response = state.answer(&request);
        state.requests.push(request);
        (response, state.base.clone())
    };
    if response.fault == Fault::Reset {
        return socket.set_zero_linger();
    }
    let status = if response.status == 0 { 200 } else { response.status };
    let mut head =
        format!("HTTP/1.1 {status} Replay\r\nContent-Length: {}\r\nConnection: close\r\n", response.body.len());
    for (name, value) in &response.headers {
        write!(head, "{name}: {}\r\n", value.replace("BASE", &base)).map_err(io::Error::other)?;
    }
    head.push_str("\r\n");
    socket.write_all(head.as_bytes()).await?;
    match response.fault {
        Fault::Slow(wait) => {
            tokio::time::sleep(wait).await;
            socket.write_all(&response.body).await?;
        }
        Fault::CutAfter(bytes) => socket.write_all(&response.body[..bytes.min(response.body.len())]).await?,
        Fault::None | Fault::Reset => socket.write_all(&response.body).await?,
    }
    socket.shutdown().await
}

async fn read_request(socket: &mut TcpStream) -> io::Result<Option<Request>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == HEAD_BYTES_MAX || socket.read_buf(&mut head).await? == 0 {
            return Ok(None);
        }
    }
    let head = String::from_utf8_lossy(&head);
    let mut lines = head.lines();
    let Some(target) = lines.next().and_then(|line| line.split(' ').nth(1)) else { return Ok(None) };
    let header = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim().to_owned()))
    };
    Ok(Some(Request { target: target.to_owned(), headers: lines.filter_map(header).collect() }))
}

impl State {
    fn answer(&mut self, request: &Request) -> Response {
        match self.stream {
            Some(stream) => self.page(&stream, request),
            None => {
                let end = || Response { status: 500, body: b"the script has ended".to_vec(), ..Response::default() };
                self.script.pop_front().unwrap_or_else(end)
            }
        }
    }

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
