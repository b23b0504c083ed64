//! Partitions that change hands between several processes on the same log and stores, at any moment: what the stores hold in
//! the end is what one undisturbed process makes of the log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use contract::{Assignments, Error, Log, Partition, RawRecord, Share, Store, SystemClock, Topic};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::memory::{MemoryLog, MemoryStore, SCHEMA, SOURCE, TextProcessor, record};
use crate::pipeline::{Pipeline, PipelineHandle};
use crate::{CommitPolicy, Engines, Recipe};

const PARTITIONS: Partition = 4;

/// What one process is told, and what it said.
#[derive(Default)]
struct Told {
    share: Mutex<Share>,
    settled: Mutex<Option<Share>>,
}

impl Assignments for Told {
    fn share(&self, topic: &Topic) -> Share {
        assert_eq!(*topic, Topic::raw(SOURCE));
        self.share.lock().unwrap().clone()
    }
    fn settled(&self, _: &Topic, share: &Share) {
        *self.settled.lock().unwrap() = Some(share.clone());
    }
}

impl Told {
    fn has(&self) -> BTreeSet<Partition> {
        self.share.lock().unwrap().partitions.clone()
    }

    fn give(&self, partition: Partition) {
        self.share.lock().unwrap().partitions.insert(partition);
    }

    /// Takes a partition back, and waits until it was given up.
    async fn take_back(&self, partition: Partition) {
        self.share.lock().unwrap().partitions.remove(&partition);
        let is_settled = || self.settled.lock().unwrap().as_ref() == Some(&*self.share.lock().unwrap());
        let settled = async {
            while !is_settled() {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(Duration::from_secs(20), settled).await.expect("it gives up in time");
    }

    /// It is thrown out.
    fn lose(&self) {
        let mut share = self.share.lock().unwrap();
        *share = Share { life: share.life + 1, partitions: BTreeSet::new() };
    }
}

struct Process {
    told: Arc<Told>,
    stop: CancellationToken,
    running: PipelineHandle,
    stores: [Arc<MemoryStore>; 2],
}

async fn start(
    log: &Arc<MemoryLog>,
    [hot, cold]: [Arc<MemoryStore>; 2],
    group: Option<Arc<dyn Assignments>>,
    stop: &CancellationToken,
) -> PipelineHandle {
    let engines =
        Engines { log: log.clone(), hot, cold, clock: Arc::new(SystemClock), group, troubles: Arc::default() };
    let policy = |milliseconds| CommitPolicy {
        interval: Duration::from_millis(milliseconds),
        backlog_interval: Duration::from_millis(milliseconds),
        bytes_max: u64::MAX,
    };
    let recipe = Recipe { schema: &SCHEMA, processor: &TextProcessor };
    let pipeline = Pipeline { engines, recipe, hot: policy(4), cold: policy(25), batch_bytes_max: 1 };
    pipeline.start(stop.clone()).await.expect("it starts")
}

struct World {
    log: Arc<MemoryLog>,
    stores: [Arc<MemoryStore>; 2],
    processes: BTreeMap<u64, Process>,
    random: u64,
    started: u64,
    appended: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let stores = [MemoryStore::new("hot"), MemoryStore::new("cold")];
        let random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self { log: MemoryLog::of(PARTITIONS), stores, processes: BTreeMap::new(), random, started: 0, appended: 0 }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % bound
    }

    /// Ids come again and again, on few days; some records are bad.
    fn append(&mut self) {
        let made: Vec<RawRecord> = (0..self.below(40))
            .map(|_| {
                self.appended += 1;
                let (id, day) = (self.below(300).to_string(), self.below(3) as i32);
                let text = if self.below(9) == 0 { "bad".to_owned() } else { format!("text {}", self.appended) };
                record(&id, day, &text)
            })
            .collect();
        self.log.add(made);
    }

    async fn start(&mut self) {
        let (told, stop) = (Arc::new(Told::default()), CancellationToken::new());
        let own = [self.stores[0].beside(), self.stores[1].beside()];
        let running = start(&self.log, own.clone(), Some(told.clone()), &stop).await;
        self.started += 1;
        self.processes.insert(self.started, Process { told, stop, running, stores: own });
    }

    fn any(&mut self) -> u64 {
        let place = self.below(self.processes.len() as u64) as usize;
        *self.processes.keys().nth(place).expect("there are some")
    }

    fn owner(&self, partition: Partition) -> Option<u64> {
        self.processes.iter().find(|(_, process)| process.told.has().contains(&partition)).map(|(&number, _)| number)
    }

    async fn step(&mut self) {
        let partition = self.below(PARTITIONS as u64) as Partition;
        match self.below(8) {
            0 if self.processes.len() < 3 => self.start().await,
            // It dies: from now on nothing of it reaches a store.
            1 if self.processes.len() > 1 => {
                let number = self.any();
                let process = self.processes.remove(&number).expect("it is there");
                for store in &process.stores {
                    store.errors.lock().unwrap().extend((0..9).map(|_| Error::stop("for the test")));
                }
                process.stop.cancel();
            }
            // It ends in good order.
            2 if self.processes.len() > 1 => {
                let number = self.any();
                let mut process = self.processes.remove(&number).expect("it is there");
                process.stop.cancel();
                process.running.ended().await.expect("in good order");
            }
            // Others get what it has, and it hears of it later.
            3 if self.processes.len() > 1 => {
                let zombie = self.any();
                let lost = self.processes[&zombie].told.has();
                for partition in lost {
                    let other = loop {
                        let other = self.any();
                        if other != zombie {
                            break other;
                        }
                    };
                    self.processes[&other].told.give(partition);
                }
                self.append();
                let pause = self.below(40);
                sleep(Duration::from_millis(pause)).await;
                self.processes[&zombie].told.lose();
            }
            4..6 => {
                if let Some(owner) = self.owner(partition) {
                    self.processes[&owner].told.take_back(partition).await;
                }
            }
            _ => self.append(),
        }
        if self.owner(partition).is_none() {
            let next = self.any();
            self.processes[&next].told.give(partition);
        }
        let pause = self.below(25);
        sleep(Duration::from_millis(pause)).await;
    }

    async fn until_stored(&mut self) {
        for partition in 0..PARTITIONS {
            if self.owner(partition).is_none() {
                let next = self.any();
                self.processes[&next].told.give(partition);
            }
        }
        let end = self.log.extents().await.expect("in memory")[&Topic::raw(SOURCE)].end();
        let stored = async {
            for store in &self.stores {
                while !store.committed(SOURCE).await.expect("in memory").reaches(&end) {
                    sleep(Duration::from_millis(5)).await;
                }
            }
        };
        timeout(Duration::from_secs(20), stored).await.expect("all is stored in time");
        for (_, mut process) in std::mem::take(&mut self.processes) {
            process.stop.cancel();
            process.running.ended().await.expect("in good order");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_which_partition_when_the_stores_hold_what_one_undisturbed_process_makes() {
    for seed in 1..=6 {
        let mut world = World::new(seed);
        world.start().await;
        for _ in 0..60 {
            world.step().await;
        }
        world.until_stored().await;
        let calm = [MemoryStore::new("hot"), MemoryStore::new("cold")];
        let stop = CancellationToken::new();
        let mut running = start(&world.log, calm.clone(), None, &stop).await;
        let end = world.log.extents().await.unwrap()[&Topic::raw(SOURCE)].end();
        let (done, heard) = tokio::sync::oneshot::channel();
        running.flusher().send(crate::Flush { until: end, done }).await.unwrap();
        heard.await.unwrap();
        stop.cancel();
        running.ended().await.unwrap();
        assert!(calm[1].holds().0.len() > 200 && calm[1].dead() > 10, "seed {seed}: too little happens");
        for (store, calm) in world.stores.iter().zip(&calm) {
            assert_eq!(store.holds().0, calm.holds().0, "seed {seed}");
        }
        assert_eq!(world.stores[1].holds().1, calm[1].holds().1, "seed {seed}");
    }
}
