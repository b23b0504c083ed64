//! What an administrator, a disk and a second installation do to a real Kafka below the whole: it is named, nothing is lost,
//! and it goes on.

use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use acquisition::github;
use contract::Timestamp;
use contract::conformance::network::{Fault, Network};
use contract::conformance::real_server::{RealServer, free_port};
use contract::conformance::rounds;
use serde_json::json;

use crate::engines::{assert_same, backfill};
use crate::kafka_admin;
use crate::support::{Place, events, eventually, gzip_lines, interrupt};

/// What the user must change ends a command so.
const CHANGE: i32 = 64;

/// A place whose log is on a broker, below a prefix.
fn place_on(port: u16, prefix: &str) -> Place {
    let mut place = Place::with_small_steps();
    place.environment.extend([
        ("KAFKA_BOOTSTRAP_SERVERS", format!("127.0.0.1:{port}")),
        ("DATABROKER_KAFKA_TOPIC_PREFIX", prefix.to_owned()),
        ("DATABROKER_KAFKA_GROUP_ID", format!("{prefix}group")),
        ("DATABROKER_KAFKA_REQUEST_TIMEOUT_MS", "3000".to_owned()),
        ("DATABROKER_KAFKA_TRANSACTION_TIMEOUT_MS", "3000".to_owned()),
        ("DATABROKER_BACKFILL_RECORDS_MAX", "40".to_owned()),
    ]);
    place
}

/// Starts to read a file and waits until some of it is a row; what it says goes to `said`.
fn half_read(place: &Place, file: &str) -> Child {
    let said = File::create(place.home.path().join("said")).expect("writable");
    let mut command = place.command(&["backfill", "github", file]);
    let mut running = command.stdout(Stdio::null()).stderr(said).spawn().expect("databroker starts");
    let table = place.data().join("cold/silver/github/_delta_log");
    eventually("some rows are committed", || std::fs::read_dir(&table).is_ok_and(|commits| commits.count() > 2));
    assert_eq!(running.try_wait().expect("a child"), None, "it ended too early to be disturbed: {}", said_of(place));
    running
}

fn said_of(place: &Place) -> String {
    std::fs::read_to_string(place.home.path().join("said")).expect("it speaks")
}

/// Reads files to their end, and holds the place to what an undisturbed one has.
fn assert_whole(place: &Place, files: &[String]) {
    backfill(place, "github", files);
    let embedded = Place::with_small_steps();
    backfill(&embedded, "github", files);
    assert_same("github", place, &embedded);
    let verified = place.json(&["verify", "github"]);
    assert_eq!(verified["ok"], json!(true), "{verified:#}");
}

fn long_file(place: &Place) -> String {
    place.write("long.json.gz", &gzip_lines(&events(0, 5_000)))
}

/// The topic of a source goes away: whoever reads or writes it says so and ends, and the next start brings all.
fn a_source_topic_is_deleted(port: u16) {
    let place = place_on(port, "deleted-");
    let file = long_file(&place);
    let mut running = half_read(&place, &file);
    kafka_admin::delete(port, "deleted-github.raw");
    let status = running.wait().expect("it ends");
    let said = said_of(&place);
    assert_eq!(status.code(), Some(CHANGE), "{said}");
    assert!(said.contains("`deleted-github.raw`") && said.contains("was deleted"), "{said}");
    assert_whole(&place, &[file]);
}

/// The same, and a topic of that name is there again before anybody looked.
fn a_source_topic_is_made_anew(port: u16) {
    let place = place_on(port, "anew-");
    let file = long_file(&place);
    let mut running = half_read(&place, &file);
    kafka_admin::delete(port, "anew-github.raw");
    // Another installation's start creates it.
    let other = place_on(port, "anew-");
    other.run(&["backfill", "github", &other.write("none.json", b"")]);
    let status = running.wait().expect("it ends");
    let said = said_of(&place);
    assert!(!status.success() && said.contains("anew-github.raw") || said.contains("`github.raw`"), "{said}");
    assert_whole(&place, &[file]);
}

/// Without its topic of cursors nothing is appended; whoever starts again creates it, and what is read again is no row.
fn the_cursors_are_deleted(port: u16) {
    let place = place_on(port, "cursors-");
    let file = long_file(&place);
    let mut running = half_read(&place, &file);
    kafka_admin::delete(port, "cursors-databroker.cursors");
    let names = || said_of(&place).contains("`cursors-databroker.cursors` was deleted");
    eventually("it names what is not there", names);
    interrupt(&running);
    running.wait().expect("it ends");
    assert_whole(&place, &[file]);
}

/// New partitions are written to and read while it runs, and an id that falls into another one now is known.
fn a_topic_grows(network: &Network, port: u16) {
    let place = place_on(network.port, "grown-");
    let up = place.up(&[]);
    let files = [(0, 800), (400, 800)]
        .map(|(from, count)| place.write(&format!("{from}.json.gz"), &gzip_lines(&events(from, count))));
    let first = backfill(&place, "github", &files[..1]);
    kafka_admin::grow(port, "grown-github.raw", 7);
    // After a failure it is asked at once who leads what, which else is by the minute.
    network.set(Fault::CutAnswers(1));
    std::thread::sleep(Duration::from_millis(300));
    network.set(Fault::None);
    let second = backfill(&place, "github", &files[1..]);
    let repeated = ["rows", "rejects"].map(|kind| first[kind].as_u64().expect("a number")).iter().sum::<u64>() / 2;
    assert!(second["duplicates"].as_u64() > Some(repeated / 2), "{first} {second}");
    assert!(up.end().success(), "{}", place.up_log());
    let grown = place.count("SELECT count(DISTINCT _partition) FROM bronze.github");
    assert_eq!(grown, 7);
    assert!(place.count("SELECT count(*) FROM silver.github WHERE _partition > 3") > 0);
    assert_whole(&place, &files);
}

/// Two installations run the same collectors: the first ends and says why, and all is there once.
fn a_collector_is_started_twice(port: u16) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let start = Timestamp::parse_rfc3339("2026-01-01T00:00:00Z").expect("a time");
    let stream = github::replay::EventStream { first: 40, growth: 40, last: 1_200, start, poll_interval_seconds: 0 };
    let server = runtime.block_on(github::replay::Replay::stream(stream)).expect("a port");
    let [first, second] = [0, 1].map(|_| {
        let mut place = place_on(port, "twice-");
        place.environment.extend([
            ("DATABROKER_GITHUB_FEEDS", "[\"public\"]".to_owned()),
            ("DATABROKER_GITHUB_BASE_URL", server.base_url()),
            ("DATABROKER_GITHUB_POLL_INTERVAL_SECONDS", "0".to_owned()),
        ]);
        place
    });
    let mut one = first.up(&[]);
    eventually("the first one collects", || first.count("SELECT count(*) FROM silver.github") > 100);
    let other = second.up(&[]);
    eventually("the first one ends", || one.child.try_wait().expect("a child").is_some());
    let says = "another process runs the collector `github/events/public` on the same Kafka and has taken over";
    assert!(first.up_log().contains(says), "{}", first.up_log());
    let rows = || second.count("SELECT count(*) FROM silver.github");
    eventually("all is there", || rows() >= stream.last);
    assert!(other.end().success(), "{}", second.up_log());
    assert_eq!(rows(), stream.last);
    assert_eq!(second.count("SELECT count(DISTINCT _id) FROM silver.github"), stream.last);
    for place in [&first, &second] {
        let verified = place.json(&["verify", "github"]);
        assert_eq!(verified["ok"], json!(true), "{verified:#}");
    }
}

/// The largest segment of a topic below the broker's folder.
fn largest_segment(folder: &std::path::Path, topic: &str) -> u64 {
    let inside = |folder: &std::path::Path| {
        let entries = std::fs::read_dir(folder).expect("readable");
        entries.map(|entry| entry.expect("readable").path()).collect::<Vec<_>>()
    };
    let of_topic = |path: &std::path::PathBuf| path.to_string_lossy().contains(topic);
    let segments = inside(folder).into_iter().filter(of_topic).flat_map(|partition| inside(&partition));
    let segments = segments.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
    segments.map(|path| path.metadata().map_or(0, |about| about.len())).max().unwrap_or(0)
}

/// The broker cannot write any more, and ends as brokers do; with room it is started again, and what waited goes on.
fn the_brokers_disk_is_full(server: RealServer, folder: &std::path::Path) -> RealServer {
    let (port, pid) = (server.port, server.pid());
    let place = place_on(port, "full-");
    let file = long_file(&place);
    let mut running = half_read(&place, &file);
    // No file may grow much beyond what the topic's largest has: for the broker that is a disk without room.
    let limit = format!("--fsize={}", largest_segment(&folder.join("log"), "full-github.raw-") + 2_000);
    let set = Command::new("prlimit").args(["--pid", &pid.to_string(), &limit]).status();
    assert!(set.expect("this test needs `prlimit`").success());
    let says = format!("127.0.0.1:{port}");
    eventually("it says who is away", || said_of(&place).lines().any(|line| line.contains(&says)));
    drop(server);
    let server = RealServer::start_at("kafka", folder, port, &[]);
    assert!(running.wait().expect("it ends").success(), "{}", said_of(&place));
    assert_whole(&place, &[file]);
    server
}

#[test]
fn real_servers_topics_that_are_deleted_or_grow_and_a_full_disk_lose_and_double_nothing() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let port = free_port();
    let network = Network::before(port);
    let server = RealServer::start_at("kafka", folder.path(), port, &[("ADVERTISED", network.port.to_string())]);
    let started = Instant::now();
    let done = |what: &str| println!("{what}: after {} s", started.elapsed().as_secs());
    a_topic_grows(&network, port);
    done("growth");
    drop((server, network));
    let server = RealServer::start_at("kafka", folder.path(), port, &[]);
    a_source_topic_is_deleted(port);
    done("deleted");
    a_source_topic_is_made_anew(port);
    done("made anew");
    the_cursors_are_deleted(port);
    done("cursors deleted");
    a_collector_is_started_twice(port);
    done("started twice");
    let server = the_brokers_disk_is_full(server, folder.path());
    done("full disk");
    drop(server);
    rounds::note("topics deleted, made anew and grown, a collector twice, a full disk", 6);
}
