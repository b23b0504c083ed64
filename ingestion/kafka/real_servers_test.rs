//! The log on a real Kafka, which `engines/kafka/start` runs: `cargo test -p kafka-log --features real-servers`. Needs Java
//! and Maven.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use contract::conformance::log::{Maker, PARTITIONS, SOURCE, suite};
use contract::conformance::network::{Fault, Network};
use contract::conformance::real_server::{RealServer, free_port};
use contract::conformance::rounds;
use contract::{
    CollectorId, Cursor, Harvest, Log, Positions, RawRecord, RecordId, Remedy, Secret, SystemClock, Timestamp, Topic,
};

use crate::{KafkaLog, Settings};

fn settings(server: &RealServer, prefix: &str) -> Settings {
    Settings {
        bootstrap_servers: format!("127.0.0.1:{}", server.port),
        topic_prefix: prefix.to_owned(),
        ..Settings::default()
    }
}

struct OnKafka(RealServer);

#[async_trait]
impl Maker for OnKafka {
    async fn open(&self, name: &str) -> Arc<dyn Log> {
        assert_eq!(PARTITIONS, 4, "as in topics.toml");
        let settings = settings(&self.0, &format!("{name}-"));
        Arc::new(KafkaLog::open(settings, &[SOURCE], Arc::new(SystemClock)).await.unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_kafka_keeps_what_the_suite_of_logs_asks() {
    let folder = tempfile::tempdir().unwrap();
    suite(&OnKafka(RealServer::start("kafka", folder.path()))).await;
}

fn harvest(number: usize, records: usize) -> Harvest {
    let record = |place: usize| RawRecord {
        id: RecordId::from(format!("{number}-{place}")),
        event_time: Timestamp(1_700_000_000_000_000),
        fetched_at: Timestamp(1_700_000_001_000_000),
        body: Bytes::from(format!("{{\"number\":{number}}}")),
    };
    Harvest {
        source: SOURCE,
        collector: CollectorId("conformance/events".to_owned()),
        records: (0..records).map(record).collect(),
        coverage: Vec::new(),
        cursor: Cursor(number.to_string()),
        poll_again_in: None,
        acknowledge: None,
    }
}

async fn open(settings: Settings) -> KafkaLog {
    KafkaLog::open(settings, &[SOURCE], Arc::new(SystemClock)).await.unwrap()
}

/// How often each id is read.
async fn read_ids(log: &KafkaLog) -> BTreeMap<String, usize> {
    let end = log.extent(&Topic::raw(SOURCE)).await.unwrap().end();
    let mut next = Positions(end.0.keys().map(|&partition| (partition, 0)).collect());
    let mut ids = BTreeMap::new();
    while !next.reaches(&end) {
        let read = log.read(&Topic::raw(SOURCE), &next, 1 << 20, Duration::from_secs(1)).await;
        let batch = match read {
            Err(error) if error.remedy() == Remedy::Retry => continue,
            read => read.unwrap(),
        };
        batch.records.iter().for_each(|at| *ids.entry(at.record.id.to_string()).or_default() += 1);
        next = batch.next;
    }
    ids
}

/// Appends harvests in order for as long as told, each until it is taken; answers how many.
async fn append_until(log: &KafkaLog, until: Instant, first: usize) -> usize {
    let mut number = first;
    while Instant::now() < until {
        match log.append(&harvest(number, 20)).await {
            Ok(_) => number += 1,
            Err(error) => {
                assert_eq!(error.remedy(), Remedy::Retry, "{error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    number
}

/// Every harvest is there once, and the cursor says the last.
async fn assert_whole(log: &KafkaLog, harvests: usize) {
    let ids = read_ids(log).await;
    let wrong: Vec<_> = ids.iter().filter(|(_, count)| **count != 1).collect();
    assert!(wrong.is_empty(), "doubled: {wrong:?}");
    assert_eq!(ids.len(), harvests * 20);
    let cursor = log.cursor(&harvest(0, 0).collector).await.unwrap();
    assert_eq!(cursor, Some(harvest(harvests - 1, 0).cursor));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_started_twice_ends_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let server = RealServer::start("kafka", folder.path());
    let (first, second) = (open(settings(&server, "")).await, open(settings(&server, "")).await);
    let collector = harvest(0, 0).collector;
    assert_eq!(first.cursor(&collector).await.unwrap(), None);
    first.append(&harvest(0, 20)).await.unwrap();
    assert_eq!(second.cursor(&collector).await.unwrap(), Some(Cursor("0".to_owned())));
    let error = first.append(&harvest(1, 20)).await.unwrap_err();
    assert_eq!(error.remedy(), Remedy::Stop);
    assert!(error.to_string().contains("another process runs the collector `conformance/events`"), "{error}");
    second.append(&harvest(1, 20)).await.unwrap();
    assert_whole(&second, 2).await;
}

/// How often the broker is killed; each costs ten seconds.
const KILLS: u64 = 5;

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_killed_again_and_again_loses_nothing_and_doubles_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = RealServer::start("kafka", folder.path());
    let (port, log) = (server.port, open(settings(&server, "")).await);
    let mut done = 0;
    for round in 0..KILLS {
        let until = Instant::now() + Duration::from_secs(12);
        let killing = tokio::task::spawn_blocking({
            let folder = folder.path().to_owned();
            move || {
                std::thread::sleep(Duration::from_millis(300 + 217 * round));
                drop(server);
                RealServer::start_at("kafka", &folder, port, &[])
            }
        });
        done = append_until(&log, until, done).await;
        server = killing.await.unwrap();
    }
    assert!(done > 20, "{done} harvests");
    assert_whole(&log, done).await;
    drop(server);
    rounds::note("Kafka killed under appends", KILLS);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_cut_off_lose_nothing_and_double_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let network = Network::before(port);
    let server = RealServer::start_at("kafka", folder.path(), port, &[("ADVERTISED", network.port.to_string())]);
    network.set(Fault::CutAnswers(12));
    let log = open(settings(&server, "")).await;
    let done = append_until(&log, Instant::now() + Duration::from_secs(15), 0).await;
    assert!(done > 20, "{done} harvests");
    assert_whole(&log, done).await;
    rounds::note("answers of Kafka cut off (each some dozen times)", 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_logs_in_over_tls_by_each_mechanism_and_never_says_the_password() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let (authority, both) = (folder.path().join("ca.pem"), folder.path().join("server.pem"));
    std::fs::write(&authority, made.cert.pem()).unwrap();
    std::fs::write(&both, format!("{}{}", made.signing_key.serialize_pem(), made.cert.pem())).unwrap();
    let environment = [("SECURE", both.display().to_string())];
    let server = RealServer::start_at("kafka", folder.path(), free_port(), &environment);
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let settings = Settings {
            bootstrap_servers: format!("127.0.0.1:{}", server.port + 200),
            topic_prefix: format!("{mechanism}-"),
            tls: true,
            tls_ca_file: authority.display().to_string(),
            sasl_mechanism: mechanism.to_owned(),
            sasl_username: "lab".to_owned(),
            sasl_password: Secret::from("lab-secret".to_owned()),
            ..Settings::default()
        };
        let log = open(settings.clone()).await;
        log.append(&harvest(0, 20)).await.unwrap();
        assert_whole(&log, 1).await;
        let wrong = Settings { sasl_password: Secret::from("not-that-one".to_owned()), ..settings.clone() };
        let error = KafkaLog::open(wrong, &[SOURCE], Arc::new(SystemClock)).await.err().unwrap();
        assert_eq!(error.remedy(), Remedy::Change, "{error}");
        assert!(!error.to_string().contains("not-that-one"), "{error}");
        let unknown = Settings { tls_ca_file: String::new(), ..settings };
        let error = KafkaLog::open(unknown, &[SOURCE], Arc::new(SystemClock)).await.err().unwrap();
        assert_eq!(error.remedy(), Remedy::Change, "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kcat_reads_keys_headers_and_bodies_of_what_is_committed() {
    let folder = tempfile::tempdir().unwrap();
    let server = RealServer::start("kafka", folder.path());
    let log = open(settings(&server, "")).await;
    log.append(&harvest(0, 3)).await.unwrap();
    let settings = settings(&server, "");
    let asked = ["-b", &settings.bootstrap_servers, "-C", "-e", "-q", "-t", "conformance.raw", "-f", "%k|%s|%h\n"];
    let output = Command::new("kcat").args(asked).output().expect("this test needs `kcat`");
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines.len(), 3, "{text}");
    let expected = "0-0|{\"number\":0}|id=0-0,event_time=1700000000000000,fetched_at=1700000001000000,\
                    content_type=application/json";
    assert_eq!(lines[0], expected);
    assert_eq!(log.drift().await.unwrap(), Vec::<String>::new());
}
