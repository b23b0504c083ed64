//! Several writers on the same tables. Each is a store of its own with a runtime of its own, which stand for a process:
//! they have nothing in common but the directory.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::util::pretty::pretty_format_batches;
use contract::conformance::cold_store::{SCHEMA, SOURCE, answer, line, number, rows};
use contract::{
    Clock, ColdStore, Offset, OffsetRange, Partition, Positions, Remedy, Result, Store, SystemClock, Timestamp,
};
use deltalake::kernel::Action;
use deltalake::protocol::{DeltaOperation, OutputMode};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::data_file::write_files;
use crate::marks::Moves;
use crate::table::{Commit, Outcome};
use crate::{DeltaStore, Settings};

const PARTITIONS: Partition = 4;

/// Offsets of each partition.
const END: Offset = 120;

fn settings() -> Settings {
    Settings { checkpoint_interval_commits: 10, compaction_files_min: 3, ..Settings::default() }
}

async fn open_shared(directory: &Path) -> Result<DeltaStore> {
    DeltaStore::open_shared(directory, &[&SCHEMA], settings(), Arc::new(SystemClock)).await
}

async fn open_alone(directory: &Path) -> Result<DeltaStore> {
    DeltaStore::open(directory, &[&SCHEMA], settings(), Arc::new(SystemClock)).await
}

/// Where writers meet: a folder, or a prefix of an object store, where each has a folder of its own.
#[derive(Clone)]
pub(crate) struct Ground {
    directory: Arc<TempDir>,
    settings: Settings,
}

impl Ground {
    /// With what says where the tables lie.
    pub(crate) fn new(place: Settings) -> Self {
        let Settings { checkpoint_interval_commits, compaction_files_min, .. } = settings();
        let settings = Settings { checkpoint_interval_commits, compaction_files_min, ..place };
        Self { directory: Arc::new(tempfile::tempdir().unwrap()), settings }
    }

    async fn open_shared(&self) -> DeltaStore {
        let directory = if self.settings.url.is_empty() {
            self.directory.path().to_owned()
        } else {
            self.directory.path().join(crate::durable::unique_name())
        };
        let opened =
            DeltaStore::open_shared(&directory, &[&SCHEMA], self.settings.clone(), Arc::new(SystemClock)).await;
        opened.unwrap()
    }

    async fn open_alone(&self) -> DeltaStore {
        let (directory, settings) = (self.directory.path(), self.settings.clone());
        DeltaStore::open(directory, &[&SCHEMA], settings, Arc::new(SystemClock)).await.unwrap()
    }
}

/// Numbers from a seed.
pub(crate) struct Random {
    pub(crate) seed: u64,
    pub(crate) drawn: u64,
}

impl Random {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.drawn += 1;
        let mut hasher = DefaultHasher::new();
        (self.seed, self.drawn).hash(&mut hasher);
        hasher.finish() % end
    }
}

struct Writer {
    runtime: Runtime,
    store: DeltaStore,
    /// Partitions that it believes to be its own, and where it goes on in them.
    believes: BTreeMap<Partition, Offset>,
}

impl Writer {
    fn open(ground: &Ground) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let store = runtime.block_on(ground.open_shared());
        Self { runtime, store, believes: BTreeMap::new() }
    }

    fn resume(&mut self, partitions: &[Partition]) -> Positions {
        let next = self.runtime.block_on(self.store.resume(SOURCE, partitions)).unwrap();
        assert_eq!(next.0.keys().copied().collect::<Vec<_>>(), partitions);
        self.believes.extend(&next.0);
        next
    }

    fn write(&mut self, partition: Partition, count: Offset) {
        let from = self.believes[&partition];
        let to = (from + count).min(END);
        self.runtime.block_on(self.store.write(&rows(partition, from, to))).unwrap();
        self.believes.insert(partition, to);
    }

    /// Begins a commit.
    fn commit(&self) -> tokio::task::JoinHandle<Positions> {
        let store = self.store.clone();
        self.runtime.spawn(async move { store.commit(SOURCE).await.unwrap() })
    }

    fn number(&self, query: &str) -> i64 {
        self.runtime.block_on(number(&self.store, query))
    }
}

struct World {
    ground: Ground,
    random: Random,
    writers: Vec<Writer>,
    owners: Vec<usize>,
    /// What some commit has answered: nobody may fall behind it.
    committed: Positions,
}

impl World {
    fn new(seed: u64, ground: Ground) -> Self {
        let mut random = Random { seed, drawn: 0 };
        let count = 2 + random.below(2) as usize;
        let mut world =
            Self { writers: Vec::new(), owners: Vec::new(), committed: Positions::default(), random, ground };
        world.writers.extend((0..count).map(|_| Writer::open(&world.ground)));
        for partition in 0..PARTITIONS {
            let owner = world.random.below(count as u64) as usize;
            world.owners.push(owner);
            world.writers[owner].resume(&[partition]);
        }
        world
    }

    fn any(&mut self) -> usize {
        self.random.below(self.writers.len() as u64) as usize
    }

    fn step(&mut self) {
        match self.random.below(20) {
            0..=7 => self.write(),
            8..=10 => {
                let one = self.any();
                self.commit(&[one]);
            }
            11 | 12 => self.commit(&(0..self.writers.len()).collect::<Vec<_>>()),
            13..=15 => self.hand_over(),
            16 => self.crash(),
            17 => self.maintain(),
            18 => self.cover(),
            _ => self.check(),
        }
    }

    fn write(&mut self) {
        let writer = self.any();
        let believes: Vec<_> = self.writers[writer].believes.keys().copied().collect();
        if !believes.is_empty() {
            let partition = believes[self.random.below(believes.len() as u64) as usize];
            let count = 1 + self.random.below(14) as Offset;
            self.writers[writer].write(partition, count);
        }
    }

    /// Some commit at the same time.
    fn commit(&mut self, some: &[usize]) {
        let running: Vec<_> = some.iter().map(|&writer| (writer, self.writers[writer].commit())).collect();
        for (writer, running) in running {
            let next = self.writers[writer].runtime.block_on(running).unwrap();
            for (partition, held) in &self.writers[writer].believes {
                assert!(next.of(*partition) >= *held, "all that was written is committed");
            }
            self.committed = self.committed.max(&next);
        }
    }

    /// The one who had the partition hears of it, or does not.
    fn hand_over(&mut self) {
        let (partition, to) = (self.random.below(PARTITIONS as u64) as Partition, self.any());
        let from = std::mem::replace(&mut self.owners[partition as usize], to);
        if from != to && self.random.below(2) == 0 {
            self.writers[from].believes.remove(&partition);
        }
        let next = self.writers[to].resume(&[partition]);
        assert!(next.reaches(&self.committed.only(&[partition])), "positions never go back");
    }

    /// Ends a writer, also in the middle of a commit, and begins another in its place.
    fn crash(&mut self) {
        let killed = self.any();
        let after = Duration::from_micros(self.random.below(60_000));
        let writer = self.writers.remove(killed);
        drop(writer.commit());
        std::thread::sleep(after);
        writer.runtime.shutdown_background();
        drop(writer.store);
        let mut next = Writer::open(&self.ground);
        let own: Vec<_> = (0..PARTITIONS).filter(|&partition| self.owners[partition as usize] == killed).collect();
        assert!(next.resume(&own).reaches(&self.committed.only(&own)), "positions never go back");
        self.writers.insert(killed, next);
    }

    /// Two believe that it is their duty, and another one commits.
    fn maintain(&mut self) {
        let committing = self.any();
        let running: Vec<_> = (0..2)
            .map(|writer| {
                let store = self.writers[writer].store.clone();
                self.writers[writer].runtime.spawn(async move { store.maintain().await.unwrap() })
            })
            .collect();
        self.commit(&[committing]);
        for (writer, running) in running.into_iter().enumerate() {
            self.writers[writer].runtime.block_on(running).unwrap();
        }
    }

    /// Two commit the same lines of the ledger.
    fn cover(&mut self) {
        let running: Vec<_> = (0..2)
            .map(|writer| {
                let store = self.writers[writer].store.clone();
                self.writers[writer].runtime.spawn(async move {
                    let from = store.coverage_committed().await.unwrap().of(0);
                    let range = OffsetRange { partition: 0, from: (from - 2).max(0), to: from + 3 };
                    let lines: Vec<_> = (range.from..range.to).map(line).collect();
                    store.commit_coverage(range, &lines).await.unwrap();
                })
            })
            .collect();
        for (writer, running) in running.into_iter().enumerate() {
            self.writers[writer].runtime.block_on(running).unwrap();
        }
        self.check_ledger();
    }

    fn check_ledger(&self) {
        let writer = &self.writers[0];
        let next = writer.runtime.block_on(writer.store.coverage_committed()).unwrap().of(0);
        for count in ["count(*)", "count(DISTINCT _offset)"] {
            assert_eq!(writer.number(&format!("SELECT {count} FROM ops.coverage")), next, "{count}");
        }
    }

    /// What a writer sees: each row once, and all that was committed.
    fn check(&mut self) {
        let writer = self.any();
        let writer = &self.writers[writer];
        let below: Vec<_> = (self.committed.0.iter())
            .map(|(partition, next)| format!("(_partition = {partition} AND _offset < {next})"))
            .collect();
        let below = if below.is_empty() { "false".to_owned() } else { below.join(" OR ") };
        let committed: i64 = self.committed.0.values().sum();
        for table in [BRONZE, ROWS] {
            let count =
                |of: &str, filter: &str| writer.number(&format!("SELECT count({of}) FROM {table} WHERE {filter}"));
            assert_eq!(count("DISTINCT _partition * 1000 + _offset", "true"), count("*", "true"), "{table}");
            assert_eq!(count("*", &below), committed, "{table}");
        }
    }

    /// Each owner writes what is left, and all end.
    fn finish(mut self) -> Ground {
        for partition in 0..PARTITIONS {
            let owner = &mut self.writers[self.owners[partition as usize]];
            owner.resume(&[partition]);
            owner.write(partition, END);
        }
        self.commit(&(0..self.writers.len()).collect::<Vec<_>>());
        self.check();
        self.check_ledger();
        self.ground
    }
}

const BRONZE: &str = "bronze.github";
const ROWS: &str =
    "(SELECT _partition, _offset FROM silver.github UNION ALL SELECT _partition, _offset FROM ops.dead_letters)";

/// All rows of the three tables, as text.
async fn everything(ground: &Ground) -> Vec<String> {
    let store = ground.open_alone().await;
    let mut tables = Vec::new();
    for table in ["bronze.github", "silver.github", "ops.dead_letters"] {
        let all = answer(&store, &format!("SELECT * FROM {table} ORDER BY _partition, _offset")).await;
        tables.push(pretty_format_batches(&all).unwrap().to_string());
    }
    let next = store.committed(SOURCE).await.unwrap();
    assert_eq!(next, Positions((0..PARTITIONS).map(|partition| (partition, END)).collect()));
    tables
}

#[expect(clippy::disallowed_methods, reason = "who runs the test again gives it its seed")]
fn given(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect(name))
}

/// Other seeds each time; each is told before its round, so that a failure can be had again.
pub(crate) fn seeds(count: u64) -> impl Iterator<Item = u64> {
    let first = given("DATABROKER_TEST_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let seeds = first..first + given("DATABROKER_TEST_SEEDS").unwrap_or(count);
    seeds.inspect(|seed| println!("DATABROKER_TEST_SEED={seed}"))
}

#[test]
fn writers_that_take_over_crash_and_wake_as_zombies_leave_the_rows_of_an_undisturbed_one() {
    assert_eq!(compare_with_undisturbed(|_| Ground::new(Settings::default()), 4), 4);
}

/// Lets writers share tables `rounds` times, each on ground of its own, and compares with the rows of an undisturbed one.
/// Answers the rounds.
pub(crate) fn compare_with_undisturbed(ground: impl Fn(u64) -> Ground, rounds: u64) -> u64 {
    let runtime = Runtime::new().unwrap();
    let undisturbed = Ground::new(Settings::default());
    let expected = runtime.block_on(async {
        let store = undisturbed.open_alone().await;
        for partition in 0..PARTITIONS {
            store.write(&rows(partition, 0, END)).await.unwrap();
        }
        store.commit(SOURCE).await.unwrap();
        drop(store);
        everything(&undisturbed).await
    });
    for seed in seeds(rounds) {
        let mut world = World::new(seed, ground(seed));
        (0..60).for_each(|_| world.step());
        let ground = world.finish();
        assert!(runtime.block_on(everything(&ground)) == expected, "the tables differ, seed {seed}");
    }
    rounds
}

#[tokio::test]
async fn who_writes_alone_and_who_shares_keep_each_other_out_and_say_who_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let refused = |opened: Result<DeltaStore>| {
        let error = opened.err().expect("the lock is held");
        assert_eq!(error.remedy(), Remedy::Change, "{error}");
        error.to_string()
    };
    let alone = open_alone(directory.path()).await.unwrap();
    let said = refused(open_shared(directory.path()).await);
    assert!(said.contains("a process that writes alone (`databroker up` or `backfill`) has it"), "{said}");
    let said = refused(open_alone(directory.path()).await);
    assert!(said.contains("another process writes to it"), "{said}");
    drop(alone);
    let (one, other) = (open_shared(directory.path()).await.unwrap(), open_shared(directory.path()).await.unwrap());
    let said = refused(open_alone(directory.path()).await);
    assert!(said.contains("processes that share it (`databroker process`) write to it"), "{said}");
    drop(one);
    refused(open_alone(directory.path()).await);
    drop(other);
    open_alone(directory.path()).await.unwrap();
}

#[tokio::test]
async fn what_the_queries_of_a_killed_writer_spilled_goes_and_that_of_the_living_stays() {
    let directory = tempfile::tempdir().unwrap();
    let spills = || fs::read_dir(directory.path().join("tmp")).unwrap().count();
    let living = open_shared(directory.path()).await.unwrap();
    fs::create_dir_all(directory.path().join("tmp/killed/deeper")).unwrap();
    let second = open_shared(directory.path()).await.unwrap();
    assert_eq!(spills(), 2);
    drop((living, second));
    drop(open_shared(directory.path()).await.unwrap());
    assert_eq!(spills(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ids_that_another_process_committed_are_known_after_a_resume() {
    let directory = tempfile::tempdir().unwrap();
    let (one, other) = (open_shared(directory.path()).await.unwrap(), open_shared(directory.path()).await.unwrap());
    one.write(&rows(0, 0, 20)).await.unwrap();
    one.commit(SOURCE).await.unwrap();
    assert_eq!(other.resume(SOURCE, &[0, 1]).await.unwrap(), Positions([(0, 20), (1, 0)].into()));
    let day = Timestamp::parse_rfc3339("2015-01-01T00:00:00Z").unwrap().day();
    assert_eq!(other.find_ids(SOURCE, day, &["0-5"]).await.unwrap().len(), 1);
    assert_eq!(number(&other, "SELECT count(*) FROM bronze.github").await, 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vacuum_leaves_the_files_that_another_process_will_commit_and_old_ones_are_not_committed() {
    let directory = tempfile::tempdir().unwrap();
    let (one, other) = (open_shared(directory.path()).await.unwrap(), open_shared(directory.path()).await.unwrap());
    let table = one.inner.source(SOURCE).unwrap().silver.clone();
    let commit = |begun: Instant| {
        let arranged = table.layout.arrange(&rows(0, 0, 20).silver).unwrap();
        let adds = write_files(&table.layout, &one.inner.properties, &[arranged], Timestamp(0)).unwrap();
        let operation =
            DeltaOperation::StreamingUpdate { output_mode: OutputMode::Append, query_id: "test".into(), epoch_id: 0 };
        let moves = Moves::between("databroker/silver.github", &Positions::default(), &Positions([(0, 20)].into()));
        Commit { moves, ..Commit::new(adds.into_iter().map(Action::Add).collect(), operation, begun, 0) }
    };
    let old = Instant::now().checked_sub(Duration::from_secs(31 * 60)).expect("this machine runs for longer");
    let Outcome::Overtaken(reason) = table.commit(commit(old)).await.unwrap() else { panic!("it was committed") };
    assert!(reason.contains("a vacuum may have taken them"), "{reason}");
    let waiting = commit(Instant::now());
    other.maintain().await.unwrap();
    assert!(matches!(table.commit(waiting).await.unwrap(), Outcome::Done));
    assert_eq!(number(&other, "SELECT count(*) FROM silver.github").await, 18);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vacuum_leaves_what_another_process_committed_since_it_last_looked() {
    let directory = tempfile::tempdir().unwrap();
    let one = open_shared(directory.path()).await.unwrap();
    // To this one the files of the other are old enough.
    let later = || SystemClock.now().plus(Duration::from_secs(2 * 3_600));
    let settings = Settings { vacuum_retention_hours: 1, ..settings() };
    let other = DeltaStore::open_shared(directory.path(), &[&SCHEMA], settings, Arc::new(later)).await.unwrap();
    one.write(&rows(0, 0, 20)).await.unwrap();
    one.commit(SOURCE).await.unwrap();
    for table in other.inner.tables() {
        assert_eq!(other.inner.vacuum(&table).await.unwrap(), 0, "{}", table.layout.name);
    }
    assert_eq!(number(&other, "SELECT count(*) FROM silver.github WHERE number >= 0").await, 18);
}
