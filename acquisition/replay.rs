//! A server on loopback that answers as a test says, with faults: for tests of collectors and of the whole program.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Bytes of a request's head; those of our collectors have 300.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// Bytes of a request's body; our forms have 500.
const BODY_BYTES_MAX: usize = 64 << 10;

/// One request as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// `GET`, `POST`.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The body, as text.
    pub body: String,
}

impl Request {
    /// The value of a header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The value of a parameter of the query, as it stands in the address.
    pub fn query(&self, name: &str) -> Option<&str> {
        let (_, query) = self.target.split_once('?')?;
        query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    }
}

/// One answer.
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

impl Response {
    /// A body with status 200.
    pub fn body(body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), ..Self::default() }
    }

    /// A status without a body.
    pub fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    /// The same with a header.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The same with a fault.
    #[must_use]
    pub fn failing(self, fault: Fault) -> Self {
        Self { fault, ..self }
    }
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
    /// `Content-Length` says so many bytes, and that many of the body are sent at the most.
    Length(usize),
    /// The connection is reset without an answer.
    Reset,
}

/// What answers requests.
type Answer = Box<dyn FnMut(&Request) -> Response + Send>;

/// The server; it ends when dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

struct State {
    requests: Vec<Request>,
    answer: Answer,
    base: String,
}

impl fmt::Debug for State {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("State").field("requests", &self.requests).finish_non_exhaustive()
    }
}

impl Server {
    /// Answers request after request from a script, and 500 after its end.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn script(responses: Vec<Response>) -> io::Result<Self> {
        let mut script = VecDeque::from(responses);
        let end = || Response { status: 500, body: b"the script has ended".to_vec(), ..Response::default() };
        Self::answering(move |_| script.pop_front().unwrap_or_else(end)).await
    }

    /// Answers every request by a function, one after the other.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn answering(answer: impl FnMut(&Request) -> Response + Send + 'static) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let base = format!("http://{address}");
        let state = Arc::new(Mutex::new(State { requests: Vec::new(), answer: Box::new(answer), base }));
        let task = tokio::spawn(accept(listener, state.clone()));
        Ok(Self { address, state, task })
    }

    /// Its address, as `http://127.0.0.1:PORT`.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.state).requests.clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
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
    let (mut response, base) = {
        let mut state = lock(state);
        let response = (state.answer)(&request);
        state.requests.push(request);
        (response, state.base.clone())
    };
    if response.fault == Fault::Reset {
        return socket.set_zero_linger();
    }
    let mut length = response.body.len();
    if let Fault::Length(stated) = response.fault {
        response.body.truncate(stated);
        length = stated;
    }
    let status = if response.status == 0 { 200 } else { response.status };
    let mut head = format!("HTTP/1.1 {status} Replay\r\nContent-Length: {length}\r\nConnection: close\r\n");
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
        Fault::None | Fault::Length(_) | Fault::Reset => socket.write_all(&response.body).await?,
    }
    socket.shutdown().await
}

async fn read_request(socket: &mut TcpStream) -> io::Result<Option<Request>> {
    let mut bytes = Vec::new();
    let head_length = loop {
        if let Some(end) = memchr::memmem::find(&bytes, b"\r\n\r\n") {
            break end + 4;
        }
        if bytes.len() >= HEAD_BYTES_MAX || socket.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&bytes[..head_length]).into_owned();
    let mut lines = head.lines();
    let mut first = lines.next().unwrap_or_default().split(' ').map(str::to_owned);
    let (Some(method), Some(target)) = (first.next(), first.next()) else { return Ok(None) };
    let header = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_ascii_lowercase(), value.trim().to_owned()))
    };
    let mut request = Request { method, target, headers: lines.filter_map(header).collect(), body: String::new() };
    let length = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    while bytes.len() - head_length < usize::min(length, BODY_BYTES_MAX) && socket.read_buf(&mut bytes).await? > 0 {}
    request.body = String::from_utf8_lossy(&bytes[head_length..]).into_owned();
    Ok(Some(request))
}
