//! Listens for dnstap: a Unix socket, TCP or TLS, each with many connections.
//!
//! | case | outcome |
//! | --- | --- |
//! | a writer with or without handshake | see [`super::frame_streams`]; both are read at once |
//! | what the protocol does not allow; no whole handshake in 10 s; a frame that stops half way for 60 s | the connection is closed and counted by reason; writers connect again by themselves |
//! | a connection that is cut inside a frame | one record lost: `cut` |
//! | a writer that is quiet | it may be so for ever; a peer that is gone is found by TCP keepalive |
//! | more connections than `dns.connections_max` | the new one is closed and counted: `refused` |
//! | a file of the Unix socket's name | removed if it is a socket that nobody listens on, else an error |
//! | the end | no new connections; what the kernel holds of the open ones is still read, for a second at the most |

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use contract::metric;
use contract::{Error, Result};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;

use super::frame_streams::{Event, StreamReader};
use super::live::{Intake, LAST_READ_WAIT, Tap};

/// For TLS and Frame Streams to agree: both are at once with a living peer.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(10);

/// For the rest of a frame that has begun; writers hand over whole buffers.
const FRAME_WAIT: Duration = Duration::from_secs(60);

/// After which silence at the end means that the kernel holds nothing more.
const LAST_PIECE_WAIT: Duration = Duration::from_millis(50);

/// Bytes that are read at once. A connection's memory is this and a frame of a megabyte at the most.
const READ_BYTES: usize = 64 << 10;

/// Room below which new is made; more would be made for each small read, and pinned by its message.
const LEAST_READ_BYTES: usize = 4 << 10;

/// For the accepting to work again after an error such as too many open files.
const ACCEPT_WAIT: Duration = Duration::from_millis(100);

/// One of `dns.listeners`, checked.
#[derive(Clone)]
pub(super) struct Listener {
    /// As set.
    pub(super) name: String,
    pub(super) place: Place,
    pub(super) connections_max: usize,
}

/// Where a listener is.
#[derive(Clone)]
pub(super) enum Place {
    /// A path, and the permissions that its socket gets.
    Unix(PathBuf, u32),
    /// An address.
    Tcp(SocketAddr),
    /// An address, and whom it shows itself as.
    Tls(SocketAddr, TlsAcceptor),
}

/// How a connection ended; the word for metrics.
type Ending = &'static str;

const PROGRAM_END: Ending = "program_end";

#[async_trait]
impl Tap for Listener {
    fn name(&self) -> String {
        self.name.clone()
    }

    async fn open(&self, intake: &Arc<Intake>, stop: watch::Receiver<bool>) -> Result<JoinSet<Result<()>>> {
        let failed = |error: io::Error| Error::retry(format!("listen at `{}`", self.name)).because(error);
        let doors = match &self.place {
            Place::Unix(path, mode) => Doors::Unix(bind_unix(path, *mode).map_err(failed)?, path.clone()),
            Place::Tcp(address) => Doors::Tcp(TcpListener::bind(address).await.map_err(failed)?),
            Place::Tls(address, acceptor) => {
                Doors::Tls(TcpListener::bind(address).await.map_err(failed)?, acceptor.clone())
            }
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(doors, intake.clone(), self.connections_max, stop));
        Ok(tasks)
    }
}

/// What connections come in by.
enum Doors {
    Unix(UnixListener, PathBuf),
    Tcp(TcpListener),
    Tls(TcpListener, TlsAcceptor),
}

/// A connection that has just come.
enum Arrival {
    Unix(UnixStream),
    Tcp(tokio::net::TcpStream),
    Tls(Box<tokio_rustls::Accept<tokio::net::TcpStream>>),
}

impl Doors {
    async fn arrival(&self) -> io::Result<Arrival> {
        match self {
            Self::Unix(listener, _) => Ok(Arrival::Unix(listener.accept().await?.0)),
            Self::Tcp(listener) => Ok(Arrival::Tcp(tcp(listener).await?)),
            Self::Tls(listener, acceptor) => Ok(Arrival::Tls(Box::new(acceptor.accept(tcp(listener).await?)))),
        }
    }
}

impl Drop for Doors {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self {
            // The next start removes it if this one cannot.
            let _stays = std::fs::remove_file(path);
        }
    }
}

async fn tcp(listener: &TcpListener) -> io::Result<tokio::net::TcpStream> {
    let (stream, _) = listener.accept().await?;
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15));
    SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    Ok(stream)
}

/// The socket at a path. It takes the group of a folder whose setgid bit is set, so a server of that group may write.
fn bind_unix(path: &Path, mode: u32) -> io::Result<UnixListener> {
    let other = |error: ErrorKind, what: &str| io::Error::new(error, what.to_owned());
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(other(ErrorKind::AlreadyExists, "a file that is no socket is there"));
        }
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
            Err(error) => return Err(error),
            Ok(_) => return Err(other(ErrorKind::AddrInUse, "another process listens there")),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    Ok(listener)
}

/// Takes connections until `stop` is said, and ends once they have.
async fn accept(
    doors: Doors,
    intake: Arc<Intake>,
    connections_max: usize,
    mut stop: watch::Receiver<bool>,
) -> Result<()> {
    let mut connections = JoinSet::new();
    let admit = |arrival, stop: &watch::Receiver<bool>, connections: &mut JoinSet<()>| {
        if connections.len() < connections_max {
            connections.spawn(connection(arrival, intake.clone(), stop.clone()));
        } else {
            note_ending(&intake, "refused");
        }
    };
    loop {
        note_open(&intake, connections.len());
        let arrival = tokio::select! {
            biased;
            () = is_stopped(&mut stop) => break,
            // Those that ended are taken off the set.
            Some(_) = connections.join_next() => continue,
            arrival = doors.arrival() => arrival,
        };
        match arrival {
            Ok(arrival) => admit(arrival, &stop, &mut connections),
            Err(_) => sleep(ACCEPT_WAIT).await,
        }
    }
    // Who has connected already may have sent something.
    for _ in 0..connections_max {
        let Ok(Ok(arrival)) = timeout(Duration::ZERO, doors.arrival()).await else { break };
        admit(arrival, &stop, &mut connections);
    }
    drop(doors);
    while connections.join_next().await.is_some() {}
    note_open(&intake, 0);
    Ok(())
}

async fn connection(arrival: Arrival, intake: Arc<Intake>, mut stop: watch::Receiver<bool>) {
    let ending = match arrival {
        Arrival::Unix(stream) => serve(stream, &intake, stop).await,
        Arrival::Tcp(stream) => serve(stream, &intake, stop).await,
        Arrival::Tls(accept) => {
            let greeted = tokio::select! {
                greeted = timeout(HANDSHAKE_WAIT, *accept) => greeted,
                () = is_stopped(&mut stop) => return note_ending(&intake, PROGRAM_END),
            };
            match greeted {
                Ok(Ok(stream)) => serve(stream, &intake, stop).await,
                Ok(Err(_)) => "tls_handshake",
                Err(_late) => "handshake_timeout",
            }
        }
    };
    note_ending(&intake, ending);
}

/// Returns once stop is said, now or before.
async fn is_stopped(stop: &mut watch::Receiver<bool>) {
    // Whoever could say it may be gone, which says as much.
    let _said_or_gone = stop.wait_for(|stop| *stop).await.is_ok();
}

/// Reads one stream to its end and queues its messages.
async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    intake: &Intake,
    mut stop: watch::Receiver<bool>,
) -> Ending {
    let begun = Instant::now();
    let mut connection = Connection { reader: StreamReader::new(), buffer: BytesMut::new(), frames: Vec::new() };
    let mut last_read_until = None;
    let ending = loop {
        let due = match last_read_until {
            Some(_) => Some(Instant::now() + LAST_PIECE_WAIT),
            None => connection.due(begun),
        };
        let read = tokio::select! {
            biased;
            () = is_stopped(&mut stop), if last_read_until.is_none() => {
                last_read_until = Some(Instant::now() + LAST_READ_WAIT);
                continue;
            }
            read = connection.read(&mut stream, due) => read,
        };
        let event = match read {
            Ok(()) => connection.events(&mut stream).await,
            Err(ending) => Err(ending),
        };
        if !connection.frames.is_empty() {
            intake.tapped(&mut connection.frames).await;
        }
        let is_over = last_read_until.is_some_and(|until| Instant::now() >= until);
        match event {
            Ok(()) if !is_over => {}
            Ok(()) | Err(_) if last_read_until.is_some() => break PROGRAM_END,
            Ok(()) => {}
            Err(ending) => break ending,
        }
    };
    connection.count_loss(ending, intake);
    ending
}

/// One stream and what came of it.
struct Connection {
    reader: StreamReader,
    buffer: BytesMut,
    /// Messages that are not queued yet.
    frames: Vec<Bytes>,
}

impl Connection {
    /// Until when something has to come.
    fn due(&self, begun: Instant) -> Option<Instant> {
        if !self.reader.is_started() {
            return Some(begun + HANDSHAKE_WAIT);
        }
        (!self.buffer.is_empty()).then(|| Instant::now() + FRAME_WAIT)
    }

    async fn read(&mut self, stream: &mut (impl AsyncRead + Unpin), due: Option<Instant>) -> Result<(), Ending> {
        if self.buffer.capacity() - self.buffer.len() < LEAST_READ_BYTES {
            self.buffer.reserve(READ_BYTES);
        }
        let read = stream.read_buf(&mut self.buffer);
        let read = match due {
            Some(due) => timeout_at(due, read).await,
            None => Ok(read.await),
        };
        match read {
            Ok(Ok(0)) => Err("closed"),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err("broken"),
            Err(_late) if self.reader.is_started() => Err("frame_timeout"),
            Err(_late) => Err("handshake_timeout"),
        }
    }

    /// Takes all that is whole; answers where the writer waits for it.
    async fn events(&mut self, stream: &mut (impl AsyncWrite + Unpin)) -> Result<(), Ending> {
        loop {
            match self.reader.next(&mut self.buffer) {
                Ok(None) => return Ok(()),
                Ok(Some(Event::Data(frame))) => self.frames.push(frame),
                Ok(Some(Event::Greeted(None))) => {}
                Ok(Some(Event::Greeted(Some(reply)))) => answer(stream, &reply).await?,
                Ok(Some(Event::Stopped(reply))) => {
                    answer(stream, &reply.unwrap_or_default()).await?;
                    return Err("stopped");
                }
                Err(violation) => return Err(violation.reason()),
            }
        }
    }

    /// Counts the one message of which a part was here.
    fn count_loss(&self, ending: Ending, intake: &Intake) {
        if self.reader.is_started() && !self.buffer.is_empty() {
            let reason = if ending == "frame_too_large" { ending } else { "cut" };
            intake.queue.lose(reason, 1, intake.clock.now());
        }
    }
}

async fn answer(stream: &mut (impl AsyncWrite + Unpin), reply: &[u8]) -> Result<(), Ending> {
    let write = async {
        stream.write_all(reply).await?;
        stream.flush().await
    };
    match timeout(HANDSHAKE_WAIT, write).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err("broken"),
        Err(_late) => Err("handshake_timeout"),
    }
}

fn note_ending(intake: &Intake, ending: Ending) {
    metric::CONNECTIONS_CLOSED.add(&["dns", &intake.collector.0, ending], 1);
}

fn note_open(intake: &Intake, count: usize) {
    metric::CONNECTIONS.set(&["dns", &intake.collector.0], count as f64);
}
