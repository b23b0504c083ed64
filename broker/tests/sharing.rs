//! Several `process` on one data directory: whoever joins, leaves, dies or wakes when, each record ends in both stores once.

use std::fs::File;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use contract::conformance::rounds;
use serde_json::json;

use crate::engines::{Real, assert_logged_once, assert_same};
use crate::support::{Place, Random, events, eventually, gzip_lines, interrupt, signal};

/// Changes among the processors, unless `DATABROKER_TEST_KILLS` says another number.
const ROUNDS: u64 = 20;

/// Processors at the most, and at the least for longer than a moment.
const MEMBERS_MAX: usize = 3;
const MEMBERS_MIN: usize = 2;

const SESSION_MS: u64 = 1_500;

/// A file is read into the log with every so many changes.
const CHANGES_OF_FILE: u64 = 4;

/// The processors of one data directory.
struct Members<'a> {
    place: &'a Place,
    living: Vec<Child>,
    /// Stands still since then: when it wakes, others have long had what it has.
    paused: Option<(Child, Instant)>,
    started: usize,
}

impl Members<'_> {
    fn join(&mut self) {
        let said =
            File::create(self.place.home.path().join(format!("process-{}.log", self.started))).expect("writable");
        self.started += 1;
        let mut command = self.place.command(&["process"]);
        let child = command.stdout(Stdio::null()).stderr(said).spawn().expect("databroker starts");
        self.living.push(child);
    }

    /// One change, and what it was.
    fn change(&mut self, random: &mut Random) -> &'static str {
        let is_overdue =
            self.paused.as_ref().is_some_and(|(_, since)| since.elapsed().as_millis() as u64 > 2 * SESSION_MS);
        if is_overdue {
            self.wake();
            return "a zombie wakes";
        }
        if self.living.len() < MEMBERS_MIN {
            self.join();
            return "one joins";
        }
        let member = random.below(self.living.len() as u64) as usize;
        match random.below(4) {
            0 if self.living.len() < MEMBERS_MAX => {
                self.join();
                "one joins"
            }
            1 if self.paused.is_none() => {
                let member = self.living.remove(member);
                signal(member.id(), "STOP");
                self.paused = Some((member, Instant::now()));
                "one stands still"
            }
            2 => {
                let mut member = self.living.remove(member);
                member.kill().expect("it runs");
                member.wait().expect("it ends");
                "one is killed"
            }
            _ => {
                let mut member = self.living.remove(member);
                interrupt(&member);
                assert!(member.wait().expect("it ends").success(), "{}", self.said());
                "one leaves"
            }
        }
    }

    fn wake(&mut self) {
        if let Some((member, _)) = self.paused.take() {
            signal(member.id(), "CONT");
            self.living.push(member);
        }
    }

    /// None of them may have ended by itself.
    fn assert_living(&mut self) {
        for member in &mut self.living {
            let ended = member.try_wait().expect("a child");
            assert_eq!(ended, None, "{}", self.place.home.path().display());
        }
    }

    fn said(&self) -> String {
        let read = |number| std::fs::read_to_string(self.place.home.path().join(format!("process-{number}.log")));
        (0..self.started).map(|number| format!("-- {number}\n{}\n", read(number).unwrap_or_default())).collect()
    }
}

impl Drop for Members<'_> {
    fn drop(&mut self) {
        let paused = self.paused.take().map(|(member, _)| member);
        for mut member in self.living.drain(..).chain(paused) {
            // It may have ended before.
            member.kill().unwrap_or_default();
            member.wait().map(drop).unwrap_or_default();
        }
    }
}

/// Writes a file and lets the loader read it: into the log, and into stores of its own that nobody disturbs.
fn load(loader: &Place, number: u64) -> Child {
    let file = loader.write(&format!("{number}.json.gz"), &gzip_lines(&events(number * 600, 900)));
    let said = File::create(loader.home.path().join("said")).expect("writable");
    let mut command = loader.command(&["backfill", "github", &file]);
    command.stdout(Stdio::null()).stderr(said).spawn().expect("databroker starts")
}

fn assert_loaded(loader: &Place, mut loading: Child) {
    let status = loading.wait().expect("it ends");
    let said = std::fs::read_to_string(loader.home.path().join("said")).unwrap_or_default();
    assert!(status.success(), "{said}");
}

#[test]
fn real_servers_faults_of_processors_that_join_leave_die_and_wake_end_with_what_an_undisturbed_one_has() {
    let wanted = std::env::var("DATABROKER_TEST_KILLS").map_or(ROUNDS, |rounds| rounds.parse().expect("a number"));
    let mut random = Random::from_environment();
    let mut real = Real::start();
    let small = [
        ("DATABROKER_BACKFILL_RECORDS_MAX", "40".to_owned()),
        ("DATABROKER_KAFKA_SESSION_TIMEOUT_MS", SESSION_MS.to_string()),
        ("DATABROKER_KAFKA_HEARTBEAT_INTERVAL_MS", "200".to_owned()),
        ("DATABROKER_KAFKA_REBALANCE_TIMEOUT_MS", "6000".to_owned()),
    ];
    real.place.environment.extend(small.clone());
    let mut loader = Place::with_small_steps();
    loader.environment.extend(small);
    loader.environment.extend([
        ("KAFKA_BOOTSTRAP_SERVERS", format!("127.0.0.1:{}", real.servers[0].1.port)),
        ("DATABROKER_KAFKA_GROUP_ID", "loader".to_owned()),
    ]);
    let mut members = Members { place: &real.place, living: Vec::new(), paused: None, started: 0 };
    (0..MEMBERS_MIN).for_each(|_| members.join());
    let mut loading: Option<Child> = None;
    for round in 0..wanted {
        if round % CHANGES_OF_FILE == 0 {
            loading.take().into_iter().for_each(|before| assert_loaded(&loader, before));
            loading = Some(load(&loader, round / CHANGES_OF_FILE));
        }
        std::thread::sleep(Duration::from_millis(600 + random.below(800)));
        members.assert_living();
        let change = members.change(&mut random);
        println!("round {round}: {change}, {} left", members.living.len());
    }
    members.wake();
    loading.into_iter().for_each(|last| assert_loaded(&loader, last));
    while members.living.len() < MEMBERS_MIN {
        members.join();
    }
    let rows = loader.count("SELECT count(*) FROM bronze.github");
    eventually("all is in the cold store", || real.place.count("SELECT count(*) FROM bronze.github") >= rows);
    members.assert_living();
    for mut member in members.living.split_off(0) {
        interrupt(&member);
        assert!(member.wait().expect("it ends").success(), "{}", members.said());
    }
    assert_same("github", &real.place, &loader);
    assert_logged_once(&real.place, &loader);
    for place in [&real.place, &loader] {
        let verified = place.json(&["verify", "github"]);
        assert_eq!(verified["ok"], json!(true), "{verified:#}\n{}", members.said());
    }
    rounds::note("processors that join, leave, die, stand still and wake", wanted);
}
