//! The whole on a real Kafka and a real Elasticsearch: it holds the same as on the embedded engines, whoever is killed when.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use contract::conformance::real_server::{RealServer, free_port};
use contract::conformance::rounds;
use serde_json::{Value, json};

use crate::crash::is_killed;
use crate::support::{Place, Random, events, eventually, feed, gzip_lines};

/// What differs by nature: Kafka's offsets count the ends of transactions too, and the clock goes on between two runs. Where
/// the same id is given twice, both engines keep the first of its partition, which the id alone decides.
const OF_THE_RUN: [&str; 4] = ["_partition", "_offset", "fetched_at", "appended_at"];

/// SIGKILLs of backfills, unless `DATABROKER_TEST_KILLS` says another number; a server is killed with every eighth.
const KILLS: u64 = 16;

/// Of these with one pair of files, before a server is killed.
const KILLS_OF_ROUND: u64 = 7;

/// Until a backfill that the servers were killed under must have come to its end.
const END_WAIT: Duration = Duration::from_secs(120);

/// Both servers, and the place whose engines they are.
pub(crate) struct Real {
    pub(crate) place: Place,
    pub(crate) servers: Vec<(&'static str, RealServer)>,
}

impl Real {
    pub(crate) fn start() -> Self {
        let mut place = Place::with_small_steps();
        let start = |name: &'static str| (name, RealServer::start(name, &place.home.path().join(name)));
        let servers = vec![start("kafka"), start("elasticsearch")];
        set_peers(&mut place, [servers[0].1.port, servers[1].1.port]);
        Self { place, servers }
    }

    /// SIGKILL, and the same server again.
    fn kill_and_start(&mut self, number: usize) {
        let (name, server) = self.servers.remove(number);
        let port = server.port;
        drop(server);
        let again = RealServer::start_at(name, &self.place.home.path().join(name), port, &[]);
        self.servers.insert(number, (name, again));
    }
}

pub(crate) fn set_peers(place: &mut Place, [kafka, elasticsearch]: [u16; 2]) {
    place.environment.extend([
        ("KAFKA_BOOTSTRAP_SERVERS", format!("127.0.0.1:{kafka}")),
        ("ELASTICSEARCH_HOSTS", format!("127.0.0.1:{elasticsearch}")),
        ("DATABROKER_ELASTICSEARCH_REPLICAS", "0".to_owned()),
    ]);
}

fn below_acquisition(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../acquisition").join(path)
}

/// Files of a source: its sample or a made one, and its fixtures, broken ones too.
fn files(place: &Place, source: &str) -> Vec<String> {
    let own = match source {
        "github" => place.write("hour.json.gz", &gzip_lines(&events(0, 900))),
        "news" => place.write("feed.xml", feed(900).as_bytes()),
        "arxiv" => below_acquisition("arxiv/sample/papers.xml.gz").display().to_string(),
        _ => below_acquisition("dns/sample/messages.fstrm.gz").display().to_string(),
    };
    let fixtures = std::fs::read_dir(below_acquisition(source).join("fixture")).expect("fixtures");
    let fixtures = fixtures.map(|entry| entry.expect("readable").path().display().to_string());
    let mut files: Vec<String> = fixtures.filter(|path| !path.ends_with(".expected.jsonl")).collect();
    files.sort();
    files.insert(0, own);
    files
}

/// Reads files, and answers what was said of them that is not of the run.
pub(crate) fn backfill(place: &Place, source: &str, files: &[String]) -> Value {
    let files = files.iter().map(String::as_str);
    let mut said = place.json(&["backfill", source].into_iter().chain(files).collect::<Vec<_>>());
    said["seconds"] = Value::Null;
    said
}

/// A row without what is of the run. What the source gives no time for happened when it was fetched, and a reason may say
/// how long after that something would lie.
fn row(row: &Value) -> Value {
    let mut row = row.as_object().expect("a row").clone();
    let fetched_at = row["fetched_at"].clone();
    row.retain(|name, value| !OF_THE_RUN.contains(&name.as_str()) && *value != fetched_at);
    if let Some(Value::String(reason)) = row.get_mut("reason")
        && reason.contains("after the fetch")
    {
        reason.retain(|letter| !letter.is_ascii_digit());
    }
    Value::Object(row)
}

/// All rows, documents and dead letters of a source without what is of the run, each in order.
fn holdings(place: &Place, source: &str) -> [Vec<Value>; 3] {
    let rows = |query: String| -> Vec<Value> {
        place.json(&["sql", &query]).as_array().expect("rows").iter().map(row).collect()
    };
    let found = place.json(&["search", source, "*", "--size", "10000"]);
    let document = |hit: &Value| json!([hit["_index"], hit["_id"], row(&hit["_source"])]);
    let mut all = [
        rows(format!("SELECT * FROM silver.{source}")),
        found["hits"]["hits"].as_array().expect("hits").iter().map(document).collect(),
        rows(format!("SELECT * FROM ops.dead_letters WHERE source = '{source}'")),
    ];
    all.iter_mut().for_each(|list| list.sort_by_cached_key(Value::to_string));
    assert_eq!(all[0].len(), all[1].len(), "rows and documents of `{source}`");
    all
}

pub(crate) fn assert_same(source: &str, real: &Place, embedded: &Place) {
    let names = ["rows", "documents", "dead letters"];
    for (name, (real, embedded)) in names.iter().zip(holdings(real, source).iter().zip(&holdings(embedded, source))) {
        let differing = real.iter().zip(embedded).find(|(real, embedded)| real != embedded);
        assert_eq!((real.len(), differing), (embedded.len(), None), "{name} of `{source}`");
    }
}

/// The log has each record once, not only the stores, which would tell it as repeated.
pub(crate) fn assert_logged_once(real: &Place, embedded: &Place) {
    let [real, embedded] = [real, embedded].map(|place| place.count("SELECT count(*) FROM bronze.github"));
    assert_eq!(real, embedded, "records in the log");
}

/// What `status` says that is the same on all engines.
fn status(place: &Place) -> Value {
    let mut status = place.json(&["status"]);
    for topic in status["topics"].as_object_mut().expect("topics").values_mut() {
        *topic = json!(topic.as_array().expect("partitions").len());
    }
    for source in status["sources"].as_object_mut().expect("sources").values_mut() {
        // How many bytes an index takes is the engine's.
        for index in source["indices"].as_array_mut().expect("indices") {
            index["bytes"] = Value::Null;
        }
    }
    json!([status["topics"], status["sources"]])
}

#[test]
fn real_servers_kafka_and_elasticsearch_hold_what_the_embedded_engines_hold() {
    let (real, embedded) = (Real::start(), Place::with_small_steps());
    for source in acquisition::SOURCES.iter().map(|source| source.id.0) {
        let files = files(&embedded, source);
        let [said, expected] = [&real.place, &embedded].map(|place| backfill(place, source, &files));
        assert_eq!(said, expected);
        assert!(said["rows"].as_u64() > Some(900) && said["waiting"] == json!(0), "{said}");
        let again = backfill(&real.place, source, &files);
        assert_eq!((&again["records"], &again["files_done_before"]), (&json!(0), &json!(files.len())), "{again}");
        assert_same(source, &real.place, &embedded);
    }
    assert_eq!(status(&real.place), status(&embedded));
    for place in [&real.place, &embedded] {
        let verified = place.json(&["verify"]);
        assert_eq!(verified["ok"], json!(true), "{verified:#}");
    }
}

/// Files of a round, with events in common and with those of the round after; the last is long enough to be in the middle of.
fn write_round(place: &Place, round: u64) -> [String; 3] {
    [(0, 700), (1, 700), (2, 2_500)].map(|(number, count)| {
        let lines = events((3 * round + number) * 500, count);
        place.write(&format!("{round}-{number}.json.gz"), &gzip_lines(&lines))
    })
}

/// Kills a server under a backfill, at times the backfill too.
fn kill_server_under(real: &mut Real, file: &str, random: &mut Random, life_ms: u64) {
    let mut running = real.place.command(&["backfill", "github", file]).spawn().expect("databroker starts");
    std::thread::sleep(Duration::from_millis(random.below(life_ms)));
    real.kill_and_start(random.below(2) as usize);
    if random.below(3) == 0 {
        // It may have ended before.
        running.kill().unwrap_or_default();
    }
    let deadline = Instant::now() + END_WAIT;
    while running.try_wait().expect("a child").is_none() {
        assert!(Instant::now() < deadline, "a backfill does not end, long after its server is back");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn real_servers_faults_of_killed_servers_and_backfills_end_with_what_an_undisturbed_one_has() {
    let kills = std::env::var("DATABROKER_TEST_KILLS").map_or(KILLS, |kills| kills.parse().expect("a number"));
    let mut random = Random::from_environment();
    let mut real = Real::start();
    real.place.environment.extend([
        ("DATABROKER_BACKFILL_RECORDS_MAX", "40".to_owned()),
        // Whoever is killed in the middle of a transaction holds up the readers for so long.
        ("DATABROKER_KAFKA_TRANSACTION_TIMEOUT_MS", "2000".to_owned()),
    ]);
    let (mut files, mut life_ms, mut killed) = (Vec::new(), 1_500, 0);
    for round in 0.. {
        let [one, other, long] = write_round(&real.place, round);
        for _ in 0..KILLS_OF_ROUND {
            // Either goes on where it was killed, with the other one left in the middle.
            let file = [&one, &other][random.below(2) as usize];
            killed += u64::from(is_killed(&real.place, &["backfill", "github", file], random.below(life_ms)));
        }
        kill_server_under(&mut real, &long, &mut random, life_ms);
        killed += 1;
        let started = Instant::now();
        for file in [&one, &other] {
            real.place.text(&["backfill", "github", file]);
        }
        life_ms = (started.elapsed().as_millis() as u64 / 2).clamp(500, 3_000);
        real.place.text(&["backfill", "github", &long]);
        println!("round {round}: {killed} kills");
        files.extend([one, other, long]);
        if killed >= kills {
            break;
        }
    }
    let embedded = Place::with_small_steps();
    backfill(&embedded, "github", &files);
    assert_same("github", &real.place, &embedded);
    assert_logged_once(&real.place, &embedded);
    let verified = real.place.json(&["verify", "github"]);
    assert_eq!(verified["ok"], json!(true), "{verified:#}");
    rounds::note("backfills, Kafka and Elasticsearch killed", killed);
}

#[test]
fn real_servers_up_waits_for_servers_that_are_away_and_uses_them_when_they_come() {
    let mut place = Place::with_small_steps();
    let ports = [free_port(), free_port()];
    set_peers(&mut place, ports);
    let up = place.starting_up(&["--sample"]);
    let mut servers = Vec::new();
    for (name, port) in ["kafka", "elasticsearch"].into_iter().zip(ports) {
        let says = format!("127.0.0.1:{port}");
        eventually(&says, || place.up_log().lines().any(|line| line.contains("trying again") && line.contains(&says)));
        servers.push(RealServer::start_at(name, &place.home.path().join(name), port, &[]));
    }
    eventually("it collects", || place.run(&["search", "github", "*", "--size", "0"]).status.success());
    assert!(up.end().success(), "{}", place.up_log());
}
