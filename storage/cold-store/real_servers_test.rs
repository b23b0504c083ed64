//! The tables in a real S3 server, which `engines/s3/start` runs: killed, slow, cut off.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use contract::conformance::cold_store::{CASES, Place, SCHEMA, SOURCE, number, rows};
use contract::conformance::network::{Fault, Network};
use contract::conformance::real_server::{RealServer, free_port};
use contract::conformance::rounds;
use contract::{ColdStore, Remedy, Result, Store, SystemClock};
use tempfile::TempDir;

use crate::sharing_test::{Ground, compare_with_undisturbed};
use crate::{Credentials, DeltaStore, Settings};

/// Rows of one commit.
const STEP: i64 = 12;

/// Until a commit must be made after the last fault.
const END_WAIT: Duration = Duration::from_secs(60);

fn settings(port: u16, prefix: &str) -> Settings {
    let keys = [("AWS_ACCESS_KEY_ID", "lab"), ("AWS_SECRET_ACCESS_KEY", "lab-secret")];
    let keys = keys.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Settings {
        url: format!("s3://lab/{prefix}"),
        endpoint: format!("http://127.0.0.1:{port}"),
        credentials: Credentials::from_environment(keys.into_iter()),
        checkpoint_interval_commits: 10,
        compaction_files_min: 4,
        ..Settings::default()
    }
}

/// The same with little patience.
fn impatient(port: u16, prefix: &str) -> Settings {
    Settings { request_seconds_max: 1, request_retries_max: 1, ..settings(port, prefix) }
}

struct Prefix {
    settings: Settings,
    directory: TempDir,
}

impl Prefix {
    fn new(settings: Settings) -> Self {
        Self { settings, directory: tempfile::tempdir().unwrap() }
    }

    async fn shared(&self) -> Result<DeltaStore> {
        let directory = self.directory.path().join(crate::durable::unique_name());
        DeltaStore::open_shared(&directory, &[&SCHEMA], self.settings.clone(), Arc::new(SystemClock)).await
    }
}

#[async_trait]
impl Place for Prefix {
    async fn open(&self) -> Arc<dyn ColdStore> {
        let directory = self.directory.path().join("alone");
        let store = DeltaStore::open(&directory, &[&SCHEMA], self.settings.clone(), Arc::new(SystemClock)).await;
        Arc::new(store.unwrap())
    }

    async fn open_read_only(&self) -> Arc<dyn ColdStore> {
        let directory = self.directory.path().join("reader");
        let clock = Arc::new(SystemClock);
        Arc::new(DeltaStore::open_read_only(&directory, &[&SCHEMA], self.settings.clone(), clock).await.unwrap())
    }

    async fn open_shared(&self) -> Arc<dyn ColdStore> {
        Arc::new(self.shared().await.unwrap())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_servers_s3_passes_the_suite_of_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let server = RealServer::start("s3", folder.path());
    for (number, (name, case)) in CASES.iter().enumerate() {
        let place = Arc::new(Prefix::new(settings(server.port, &format!("case/{number}"))));
        assert!(tokio::spawn(case(place)).await.is_ok(), "{name}");
    }
}

#[test]
fn real_servers_s3_shared_by_writers_that_crash_holds_the_rows_of_an_undisturbed_one() {
    let folder = tempfile::tempdir().unwrap();
    let server = RealServer::start("s3", folder.path());
    let ground = |seed: u64| Ground::new(settings(server.port, &format!("shared/{seed}")));
    rounds::note("writers that share tables in a real S3 server", compare_with_undisturbed(ground, 3));
}

/// Writes and commits until it is told to stop, whatever fails on the way; answers how far it came.
async fn commit_until(prefix: &Prefix, stop: &AtomicBool, done: &AtomicU64) -> i64 {
    let mut at = 0;
    let mut store: Option<DeltaStore> = None;
    let mut deadline = None;
    loop {
        if stop.load(Ordering::Relaxed) {
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + END_WAIT);
            assert!(Instant::now() < deadline, "no commit is made long after the last fault");
        }
        let step = async {
            let open = match store.take() {
                Some(open) => open,
                None => {
                    let open = prefix.shared().await?;
                    assert!(open.resume(SOURCE, &[0]).await?.of(0) >= at, "what was committed is there");
                    open
                }
            };
            // Rows that wait already are dropped, as below a zombie.
            open.write(&rows(0, at, at + STEP)).await?;
            let next = open.commit(SOURCE).await;
            let maintained = match done.load(Ordering::Relaxed) % 10 {
                9 => open.maintain().await.map(drop),
                _ => Ok(()),
            };
            store = Some(open);
            let next = next?.of(0);
            maintained.map(|()| next)
        };
        match step.await {
            Ok(next) => {
                assert_eq!(next, at + STEP);
                at = next;
                done.fetch_add(1, Ordering::Relaxed);
                if stop.load(Ordering::Relaxed) {
                    return at;
                }
            }
            Err(error) => {
                assert_eq!(error.remedy(), Remedy::Retry, "{error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn assert_complete(store: &DeltaStore, end: i64) {
    assert_eq!(store.committed(SOURCE).await.unwrap().of(0), end);
    let both = "(SELECT _offset FROM silver.github UNION ALL SELECT _offset FROM ops.dead_letters)";
    for table in ["bronze.github", both] {
        for count in ["count(*)", "count(DISTINCT _offset)"] {
            let found = number(store, &format!("SELECT {count} FROM {table} WHERE _offset >= 0")).await;
            assert_eq!(found, end, "{count} of {table}");
        }
    }
}

/// Lets commits run while `disturb` is called with numbers of faults; what it left is complete.
fn disturbed(settings: Settings, calm: &Settings, faults: u64, mut disturb: impl FnMut(u64)) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let prefix = Arc::new(Prefix::new(settings));
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let running = {
        let (prefix, stop, done) = (prefix.clone(), stop.clone(), done.clone());
        runtime.spawn(async move { commit_until(&prefix, &stop, &done).await })
    };
    for fault in 0..faults {
        let before = done.load(Ordering::Relaxed);
        disturb(fault);
        let deadline = Instant::now() + END_WAIT;
        while done.load(Ordering::Relaxed) < before + 2 {
            assert!(!running.is_finished(), "the writer ended");
            assert!(Instant::now() < deadline, "no commit is made long after fault {fault}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    stop.store(true, Ordering::Relaxed);
    let end = runtime.block_on(running).unwrap();
    let calm = Prefix::new(calm.clone());
    runtime.block_on(async { assert_complete(&calm.shared().await.unwrap(), end).await });
}

#[test]
fn real_servers_s3_killed_and_started_again_under_commits_loses_and_doubles_no_row() {
    const KILLS: u64 = 12;
    let folder = tempfile::tempdir().unwrap();
    let mut server = Some(RealServer::start("s3", folder.path()));
    let port = server.as_ref().unwrap().port;
    disturbed(impatient(port, "killed"), &settings(port, "killed"), KILLS, |kill| {
        std::thread::sleep(Duration::from_millis(kill * 37 % 300));
        drop(server.take());
        std::thread::sleep(Duration::from_millis(kill % 3 * 400));
        server = Some(RealServer::start_at("s3", folder.path(), port, &[]));
    });
    rounds::note("kills of a real S3 server under commits", KILLS);
}

#[test]
fn real_servers_s3_behind_a_network_that_cuts_and_stalls_loses_and_doubles_no_row() {
    const FAULTS: [Fault; 6] = [
        Fault::CutAnswers(3),
        Fault::CutRequests(3),
        Fault::Slow(400),
        Fault::Unanswered,
        Fault::HalfOpen,
        Fault::CutAnswers(2),
    ];
    const ROUNDS: u64 = 12;
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let network = Network::before(port);
    let server = RealServer::start_at("s3", folder.path(), port, &[]);
    let calm = settings(server.port, "disturbed");
    disturbed(impatient(network.port, "disturbed"), &calm, ROUNDS, |round| {
        network.set(FAULTS[(round % 6) as usize]);
        std::thread::sleep(Duration::from_millis(900));
        network.set(Fault::None);
    });
    rounds::note("faults of the network before a real S3 server", ROUNDS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_servers_s3_refuses_who_has_the_wrong_key_and_nobody_tries_again() {
    let folder = tempfile::tempdir().unwrap();
    let server = RealServer::start("s3", folder.path());
    let file = folder.path().join("credentials");
    std::fs::write(&file, "[default]\naws_access_key_id = lab\naws_secret_access_key = not-that-one\n").unwrap();
    let credentials_file = file.to_str().unwrap().to_owned();
    let wrong = Prefix::new(Settings { credentials_file, ..settings(server.port, "refused") });
    let error = wrong.shared().await.err().expect("the key is wrong");
    assert_eq!(error.remedy(), Remedy::Change, "{error}");
    assert!(!error.to_string().contains("not-that-one"), "{error}");
}
