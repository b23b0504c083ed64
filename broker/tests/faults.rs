//! What may come between the whole and a real Kafka and a real Elasticsearch: whatever the network does, each record ends in
//! both stores once.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use contract::conformance::network::{Fault, Network};
use contract::conformance::real_server::{RealServer, free_port};
use contract::conformance::rounds;
use serde_json::json;

use crate::engines::{assert_logged_once, assert_same, backfill, set_peers};
use crate::support::{Place, Random, events, gzip_lines, signal};

/// Faults of the network, unless `DATABROKER_TEST_KILLS` says another number: each kind on both servers.
const ROUNDS: u64 = 2 * KINDS.len() as u64;

/// Until a backfill must have come to its end.
const END_WAIT: Duration = Duration::from_secs(90);

/// What a peer that is away makes a command end with, which was not begun.
const PEER_AWAY: i32 = 69;

#[derive(Clone, Copy, Debug)]
enum Kind {
    Network(Fault),
    /// The server stands still, and its sockets stay open.
    Paused,
}

const KINDS: [Kind; 7] = [
    Kind::Network(Fault::CutAnswers(3)),
    Kind::Network(Fault::CutRequests(3)),
    Kind::Network(Fault::Slow(40)),
    Kind::Network(Fault::Slow(400)),
    Kind::Network(Fault::Unanswered),
    Kind::Network(Fault::HalfOpen),
    Kind::Paused,
];

/// Both servers behind networks of their own, and the place whose engines they are.
struct Distant {
    place: Place,
    sides: [(RealServer, Network); 2],
}

impl Distant {
    fn start() -> Self {
        let mut place = Place::with_small_steps();
        let start = |name: &str| {
            let port = free_port();
            let network = Network::before(port);
            let environment = [("ADVERTISED", network.port.to_string())];
            (RealServer::start_at(name, &place.home.path().join(name), port, &environment), network)
        };
        let sides = [start("kafka"), start("elasticsearch")];
        set_peers(&mut place, [sides[0].1.port, sides[1].1.port]);
        place.environment.extend([
            ("DATABROKER_BACKFILL_RECORDS_MAX", "40".to_owned()),
            ("DATABROKER_KAFKA_CONNECT_TIMEOUT_MS", "1000".to_owned()),
            ("DATABROKER_KAFKA_REQUEST_TIMEOUT_MS", "1500".to_owned()),
            ("DATABROKER_KAFKA_TRANSACTION_TIMEOUT_MS", "2000".to_owned()),
            ("DATABROKER_ELASTICSEARCH_REQUEST_SECONDS_MAX", "2".to_owned()),
        ]);
        Self { place, sides }
    }

    /// Lets a fault happen for a while.
    fn disturb(&self, kind: Kind, side: usize, lasts: Duration) {
        let (server, network) = &self.sides[side];
        match kind {
            Kind::Network(fault) => network.set(fault),
            Kind::Paused => signal(server.pid(), "STOP"),
        }
        std::thread::sleep(lasts);
        match kind {
            Kind::Network(_) => network.set(Fault::None),
            Kind::Paused => signal(server.pid(), "CONT"),
        }
    }
}

/// Waits for a command's end; none if it takes too long.
fn ended(running: &mut Child, within: Duration) -> Option<i32> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(status) = running.try_wait().expect("a child") {
            return status.code();
        }
        if Instant::now() > deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn real_servers_faults_of_a_network_that_cuts_stalls_and_vanishes_end_with_what_an_undisturbed_one_has() {
    let wanted = std::env::var("DATABROKER_TEST_KILLS").map_or(ROUNDS, |rounds| rounds.parse().expect("a number"));
    let mut random = Random::from_environment();
    let distant = Distant::start();
    let place = &distant.place;
    let mut files = Vec::new();
    for round in 0..wanted {
        let kind = KINDS[(round / 2) as usize % KINDS.len()];
        let side = (round % 2) as usize;
        // Events in common with the round before.
        let file = place.write(&format!("{round}.json.gz"), &gzip_lines(&events(round * 500, 800)));
        let started = Instant::now();
        let mut running = place.command(&["backfill", "github", &file]);
        let mut running = running.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("databroker starts");
        std::thread::sleep(Duration::from_millis(random.below(1_500)));
        distant.disturb(kind, side, Duration::from_millis(300 + random.below(2_200)));
        let code = ended(&mut running, END_WAIT);
        println!("round {round}: {kind:?} before {side}: {code:?} after {} ms", started.elapsed().as_millis());
        match code {
            // What was away when it was needed to begin ends a command; nothing is lost by that.
            Some(PEER_AWAY) => drop(place.text(&["backfill", "github", &file])),
            code => assert_eq!(code, Some(0), "round {round}: {kind:?} before {side}"),
        }
        let verified = place.json(&["verify", "github"]);
        assert_eq!(verified["ok"], json!(true), "round {round}: {kind:?} before {side}: {verified:#}");
        files.push(file);
    }
    let embedded = Place::with_small_steps();
    backfill(&embedded, "github", &files);
    assert_same("github", place, &embedded);
    assert_logged_once(place, &embedded);
    rounds::note("the network before Kafka and Elasticsearch cut, slow or gone", wanted);
}
