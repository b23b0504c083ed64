//! A network between clients and a server, on loopback, that fails as networks do.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Bytes that are taken at once.
const PIECE: usize = 64 << 10;

/// What becomes of the bytes on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// They arrive.
    None,
    /// Of so many pieces of answers one is kept back and its connection closed: what was asked was taken.
    CutAnswers(u64),
    /// Of so many pieces of requests one arrives in half, and its connection is closed.
    CutRequests(u64),
    /// A few arrive at a time, with a pause of two milliseconds after them.
    Slow(usize),
    /// Requests arrive and answers do not, and nobody is told: the peer vanished after it took them.
    Unanswered,
    /// Nothing arrives, and nobody is told: connections are taken and never answered, open ones have lost their peer.
    HalfOpen,
}

/// A network in front of one server. A connection that met `Unanswered` or `HalfOpen` stays so, also when that is over;
/// only its client's patience ends it.
#[derive(Debug)]
pub struct Network {
    /// Where clients connect, on 127.0.0.1.
    pub port: u16,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    server_port: u16,
    fault: Mutex<Fault>,
    random: AtomicU64,
    has_ended: AtomicBool,
}

/// The two ways through a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Asking,
    Answering,
}

impl Network {
    /// In front of a server's port, which need not answer yet.
    ///
    /// # Panics
    /// When there is no free port.
    pub fn before(server_port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let (fault, random, has_ended) = (Mutex::new(Fault::None), AtomicU64::new(1), AtomicBool::new(false));
        let shared = Arc::new(Shared { server_port, fault, random, has_ended });
        let accepting = std::thread::spawn({
            let shared = shared.clone();
            move || accept(&listener, &shared)
        });
        Self { port, shared, accepting: Some(accepting) }
    }

    /// From now on bytes fare so.
    pub fn set(&self, fault: Fault) {
        *self.shared.fault() = fault;
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.shared.has_ended.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts; it may have ended by itself.
        TcpStream::connect(("127.0.0.1", self.port)).map(drop).unwrap_or_default();
        self.accepting.take().map(JoinHandle::join).transpose().map(drop).unwrap_or_default();
    }
}

impl Shared {
    fn fault(&self) -> MutexGuard<'_, Fault> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_hit(&self, one_in: u64) -> bool {
        // The multiplier of Knuth's MMIX.
        let step = |random: u64| random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let random = self.random.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |random| Some(step(random)));
        (random.unwrap_or_default() >> 33).is_multiple_of(one_in)
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while let Ok((client, _)) = listener.accept() {
        if shared.has_ended.load(Ordering::Relaxed) {
            return;
        }
        // Where the server is away, the client is told by the end of its connection.
        let Ok(server) = TcpStream::connect(("127.0.0.1", shared.server_port)) else { continue };
        let is_lost = Arc::new(AtomicBool::new(false));
        for (way, from, to) in [(Way::Asking, &client, &server), (Way::Answering, &server, &client)] {
            let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { continue };
            let (shared, is_lost) = (shared.clone(), is_lost.clone());
            std::thread::spawn(move || {
                // An end of either side is the end of both.
                pass(way, &from, &to, &shared, &is_lost).unwrap_or_default();
                [from, to].iter().for_each(|side| side.shutdown(Shutdown::Both).unwrap_or_default());
            });
        }
    }
}

/// Passes bytes on until either side ends or the connection is cut.
fn pass(
    way: Way,
    mut from: &TcpStream,
    mut to: &TcpStream,
    shared: &Shared,
    is_lost: &AtomicBool,
) -> std::io::Result<()> {
    to.set_nodelay(true)?;
    let mut bytes = vec![0; PIECE];
    loop {
        let read = from.read(&mut bytes)?;
        if read == 0 {
            return Ok(());
        }
        let mut left = &bytes[..read];
        while !left.is_empty() {
            let fault = *shared.fault();
            if fault == Fault::HalfOpen || fault == Fault::Unanswered && way == Way::Answering {
                is_lost.store(true, Ordering::Relaxed);
            }
            if is_lost.load(Ordering::Relaxed) && (fault != Fault::Unanswered || way == Way::Answering) {
                break;
            }
            let now = match (fault, way) {
                (Fault::CutAnswers(one_in), Way::Answering) if shared.is_hit(one_in) => return Ok(()),
                (Fault::CutRequests(one_in), Way::Asking) if shared.is_hit(one_in) => {
                    return to.write_all(&left[..left.len() / 2]);
                }
                (Fault::Slow(bytes), _) => {
                    std::thread::sleep(Duration::from_millis(2));
                    bytes.min(left.len())
                }
                _ => left.len(),
            };
            to.write_all(&left[..now])?;
            left = &left[now..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that answers each byte by the next higher one, and counts what it got.
    fn counting() -> (u16, Arc<AtomicU64>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, got) = (listener.local_addr().unwrap().port(), Arc::<AtomicU64>::default());
        let count = got.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let count = count.clone();
                std::thread::spawn(move || {
                    let mut byte = [0];
                    while (&client).read_exact(&mut byte).is_ok() {
                        count.fetch_add(1, Ordering::Relaxed);
                        if (&client).write_all(&[byte[0] + 1]).is_err() {
                            break;
                        }
                    }
                });
            }
        });
        (port, got)
    }

    fn connect(network: &Network) -> TcpStream {
        let client = TcpStream::connect(("127.0.0.1", network.port)).unwrap();
        client.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        client
    }

    /// The answer to a byte: none by silence, or by an end.
    fn ask(mut client: &TcpStream) -> Result<u8, std::io::ErrorKind> {
        let mut answer = [0];
        client.write_all(&[1]).map_err(|error| error.kind())?;
        client.read_exact(&mut answer).map(|()| answer[0]).map_err(|error| error.kind())
    }

    #[test]
    fn bytes_arrive_slowly_too_and_a_cut_answer_was_asked_for() {
        let (port, got) = counting();
        let network = Network::before(port);
        let client = connect(&network);
        assert_eq!(ask(&client), Ok(2));
        network.set(Fault::Slow(1));
        assert_eq!(ask(&client), Ok(2));
        network.set(Fault::CutAnswers(1));
        assert!(ask(&client).is_err_and(|kind| kind != std::io::ErrorKind::WouldBlock), "closed");
        assert_eq!(got.load(Ordering::Relaxed), 3);
        network.set(Fault::CutRequests(1));
        assert!(ask(&connect(&network)).is_err());
        assert_eq!(got.load(Ordering::Relaxed), 3, "half of one byte is none");
    }

    #[test]
    fn a_lost_peer_stays_lost_and_a_new_connection_works() {
        let (port, got) = counting();
        let network = Network::before(port);
        for (fault, arrived) in [(Fault::HalfOpen, 1), (Fault::Unanswered, 3)] {
            let before = got.load(Ordering::Relaxed);
            let client = connect(&network);
            network.set(Fault::None);
            assert_eq!(ask(&client), Ok(2));
            network.set(fault);
            assert_eq!(ask(&client), Err(std::io::ErrorKind::WouldBlock), "{fault:?}");
            assert_eq!(ask(&client), Err(std::io::ErrorKind::WouldBlock), "{fault:?}");
            network.set(Fault::None);
            assert_eq!(ask(&client), Err(std::io::ErrorKind::WouldBlock), "{fault:?}");
            assert_eq!(got.load(Ordering::Relaxed) - before, arrived, "{fault:?}");
            assert_eq!(ask(&connect(&network)), Ok(2));
        }
    }
}
