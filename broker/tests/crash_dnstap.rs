//! SIGKILL of `up` at random moments, while a server sends it dnstap. dnstap acknowledges nothing, so what is in flight at a
//! kill is lost; it is the last that was sent, and the ledger says when nobody listened.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::crash::{Group, picture};
use crate::crash_up::{KILLS, kill_again_and_again};
use crate::support::{Place, eventually};

/// START of a writer that waits for no answer.
const START: &[u8] = &[0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 2];
const STOP: &[u8] = &[0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 3];

/// A data frame with a client's query for `nNUMBER.cCONNECTION.test`.
fn frame(connection: u64, number: u64) -> Vec<u8> {
    let mut query = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in [format!("n{number}"), format!("c{connection}"), "test".to_owned()] {
        query.push(label.len() as u8);
        query.extend(label.into_bytes());
    }
    query.extend([0, 0, if number.is_multiple_of(2) { 1 } else { 28 }, 0, 1]);
    // CLIENT_QUERY, INET, UDP, 192.0.2.1, a time in 2025, the query.
    let head = [8, 5, 16, 1, 24, 1, 0x22, 4, 192, 0, 2, 1, 0x40, 0x80, 0x8b, 0xd2, 0xbb, 6, 0x52, query.len() as u8];
    let message = [&head[..], &query].concat();
    let dnstap = [&[0x72, message.len() as u8][..], &message, &[0x78, 1]].concat();
    [&(dnstap.len() as u32).to_be_bytes()[..], &dnstap].concat()
}

/// What a server has sent: of connections that were cut any part arrived, of the last one all.
#[derive(Default)]
struct Sent {
    connections: AtomicU64,
    of_the_last: AtomicU64,
    is_over: AtomicBool,
}

impl Sent {
    /// Connects again and again and sends until it is over.
    fn send(&self, socket: &Path) {
        while !self.is_over.load(Ordering::SeqCst) {
            let Ok(mut stream) = UnixStream::connect(socket) else {
                std::thread::sleep(Duration::from_millis(5));
                continue;
            };
            self.of_the_last.store(0, Ordering::SeqCst);
            let connection = self.connections.fetch_add(1, Ordering::SeqCst) + 1;
            let mut is_open = stream.write_all(START).is_ok();
            while is_open && !self.is_over.load(Ordering::SeqCst) {
                let number = self.of_the_last.load(Ordering::SeqCst);
                is_open = stream.write_all(&frame(connection, number)).is_ok();
                self.of_the_last.fetch_add(u64::from(is_open), Ordering::SeqCst);
                std::thread::sleep(Duration::from_micros(300));
            }
            // Whoever was killed takes no more.
            stream.write_all(STOP).unwrap_or_default();
        }
    }
}

#[test]
fn up_that_is_sent_dnstap_killed_at_random_moments_loses_what_is_in_flight_alone_and_doubles_nothing() {
    let mut place = Place::with_small_steps();
    let socket: PathBuf = place.home.path().join("dnstap.sock");
    place.environment.push(("DATABROKER_DNS_LISTENERS", json!([format!("unix:{}", socket.display())]).to_string()));
    let sent = Arc::new(Sent::default());
    let sender = std::thread::spawn({
        let (sent, socket) = (sent.clone(), socket.clone());
        move || sent.send(&socket)
    });
    kill_again_and_again(&place, |_| {});
    let before = sent.connections.load(Ordering::SeqCst);
    let up = place.up(&[]);
    eventually("the server is back", || {
        sent.connections.load(Ordering::SeqCst) > before && sent.of_the_last.load(Ordering::SeqCst) > 500
    });
    sent.is_over.store(true, Ordering::SeqCst);
    sender.join().expect("it ends");
    assert!(up.end().success(), "{}", place.up_log());
    let types: [Group; 2] = [("qtype = 'A'", "qtype:A"), ("qtype = 'AAAA'", "qtype:AAAA")];
    picture(&place, "dns", &types);

    // Of each connection the first so many are rows, each once.
    let number = "CAST(substr(split_part(qname, '.', 1), 2) AS BIGINT)";
    let connections = place.json(&[
        "sql",
        &format!(
            "SELECT CAST(substr(split_part(qname, '.', 2), 2) AS BIGINT) AS connection, count(*) AS rows, \
             count(DISTINCT qname) AS names, max({number}) AS last FROM silver.dns GROUP BY 1 ORDER BY 1"
        ),
    ]);
    let connections = connections.as_array().expect("rows");
    for found in connections {
        let [rows, names, last] = ["rows", "names", "last"].map(|name| found[name].as_u64().expect("a number"));
        assert_eq!((rows, names), (last + 1, last + 1), "a hole, or one twice: {found}");
    }
    let last = connections.last().expect("a connection");
    let all = (sent.connections.load(Ordering::SeqCst), sent.of_the_last.load(Ordering::SeqCst));
    assert_eq!((last["connection"].as_u64(), last["rows"].as_u64()), (Some(all.0), Some(all.1)), "nobody was killed");
    let away = "SELECT count(*) FROM ops.coverage WHERE kind = 'missed' AND reason = 'nobody listened'";
    let told = place.count(away);
    assert!((1..=KILLS).contains(&told), "{told} times away");
    assert!(connections.len() > 3, "{connections:?}");
}
