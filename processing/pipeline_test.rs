//! One process's pipeline from a log to both stores.

use std::sync::Arc;
use std::time::Duration;

use contract::{Error, OffsetRange, Positions, Result, Topic};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::memory::{MemoryLog, MemoryStore, SCHEMA, SOURCE, TextProcessor, record};
use crate::pipeline::{Flush, Pause, Pipeline, PipelineHandle};
use crate::{CommitPolicy, Engines, Recipe};
use contract::{CoverageKind, RawRecord, Remedy, SystemClock};

struct World {
    log: Arc<MemoryLog>,
    hot: Arc<MemoryStore>,
    cold: Arc<MemoryStore>,
}

impl World {
    fn with(records: impl IntoIterator<Item = RawRecord>) -> Self {
        Self { log: MemoryLog::with(records), hot: MemoryStore::new("hot"), cold: MemoryStore::new("cold") }
    }

    async fn start(&self, stop: &CancellationToken) -> PipelineHandle {
        let policy = CommitPolicy {
            interval: Duration::from_secs(3600),
            backlog_interval: Duration::from_secs(3600),
            bytes_max: u64::MAX,
        };
        let engines = Engines {
            log: self.log.clone(),
            hot: self.hot.clone(),
            cold: self.cold.clone(),
            clock: Arc::new(SystemClock),
            group: None,
            troubles: Arc::default(),
        };
        let recipe = Recipe { schema: &SCHEMA, processor: &TextProcessor };
        let pipeline = Pipeline { engines, recipe, hot: policy, cold: policy, batch_bytes_max: 1 };
        pipeline.start(stop.clone()).await.unwrap()
    }

    /// Runs until all records are in both stores.
    async fn run(&self) -> Result<()> {
        let stop = CancellationToken::new();
        let mut running = self.start(&stop).await;
        let end = self.engines_end().await;
        let (done, heard) = oneshot::channel();
        if running.flusher().send(Flush { until: end, done }).await.is_err() {
            return running.ended().await;
        }
        tokio::select! {
            ended = running.ended() => return ended,
            heard = heard => {
                // Not answered: the pipeline has ended by an error.
                if heard.is_ok() {
                    stop.cancel();
                }
            }
        }
        running.ended().await
    }

    async fn engines_end(&self) -> Positions {
        use contract::Log;
        self.log.extents().await.unwrap()[&Topic::raw(SOURCE)].end()
    }
}

fn texts(rows: &[(i64, &str)]) -> Vec<(i64, String)> {
    rows.iter().map(|(offset, text)| (*offset, (*text).to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn both_stores_get_each_id_once_and_bad_records_cost_no_good_one() {
    let world = World::with([
        record("a", 1, "first"),
        record("b", 1, "bad"),
        record("a", 1, "again"),
        record("c", 1, "panic"),
        record("a", 2, "another day"),
        record("b", 1, "good now"),
        record("d", 1, "last"),
    ]);
    world.run().await.unwrap();
    let expected = texts(&[(0, "first"), (4, "another day"), (5, "good now"), (6, "last")]);
    assert_eq!((world.hot.rows(), world.cold.rows()), (expected.clone(), expected));
    assert_eq!(world.cold.dead(), 2);
    assert_eq!(world.log.released(), Positions([(0, 7)].into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_damage_took_from_the_log_stands_in_the_ledger_once() {
    let texts = ["a", "b", "c", "d", "e"];
    let world = World::with((1..).zip(texts).map(|(day, text)| record(text, day, text)));
    let range = OffsetRange { partition: 0, from: 1, to: 2 };
    world.log.lost.lock().unwrap().push(contract::Lost { range, reason: "byte 7 is damaged".to_owned() });
    world.run().await.unwrap();
    assert_eq!(world.cold.rows().len(), 4);
    // The hot store is lost and reads all of it again.
    let world = World { hot: MemoryStore::new("hot"), ..world };
    world.run().await.unwrap();
    let coverage = world.log.coverage.lock().unwrap().clone();
    let [line] = &coverage[..] else { panic!("one line, not {coverage:?}") };
    assert_eq!((line.kind, line.records, line.collector.as_str()), (CoverageKind::Missed, 1, "made/damage"));
    assert_eq!((line.from, line.to), (contract::Day(1).start(), contract::Day(3).start()));
    assert!(line.reason.ends_with("offsets 1..2 of partition 0 cannot be read from the log: byte 7 is damaged"));
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_met_while_the_log_is_full_holds_nobody_up_and_enters_the_ledger_later() {
    let world = World::with((1..6).map(|day| record(&day.to_string(), day, "row")));
    let range = OffsetRange { partition: 0, from: 1, to: 2 };
    world.log.lost.lock().unwrap().push(contract::Lost { range, reason: "byte 7 is damaged".to_owned() });
    world.log.errors.lock().unwrap().extend((0..2).map(|_| Error::retry("append: the log is full")));
    world.run().await.unwrap();
    assert_eq!(world.cold.rows().len(), 4);
    assert_eq!(world.log.coverage.lock().unwrap().len(), 1);
    assert_eq!(world.log.released(), Positions([(0, 5)].into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_was_committed_in_another_life_is_known() {
    let world = World::with([record("a", 1, "first"), record("b", 1, "second")]);
    world.run().await.unwrap();
    world.log.add([record("b", 1, "again"), record("c", 1, "third")]);
    world.run().await.unwrap();
    let expected = texts(&[(0, "first"), (1, "second"), (3, "third")]);
    assert_eq!((world.hot.rows(), world.cold.rows()), (expected.clone(), expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_that_is_behind_gets_the_same_rows_and_the_other_nothing_twice() {
    let world = World::with((0..5).map(|n| record(&n.to_string(), 1, "row")));
    world.log.add([record("3", 1, "again")]);
    // The hot store broke while the cold one went on.
    world.hot.errors.lock().unwrap().extend([Error::stop("sync"), Error::stop("sync")]);
    assert_eq!(world.run().await.unwrap_err().remedy(), Remedy::Stop);
    world.hot.errors.lock().unwrap().clear();
    world.hot.crash();
    world.run().await.unwrap();
    let expected = texts(&[(0, "row"), (1, "row"), (2, "row"), (3, "row"), (4, "row")]);
    assert_eq!((world.hot.rows(), world.cold.rows()), (expected.clone(), expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_for_a_moment_loses_nothing() {
    let world = World::with((0..5).map(|n| record(&n.to_string(), 1, "row")));
    world.cold.errors.lock().unwrap().extend([Error::retry("reach it"), Error::retry("reach it")]);
    world.run().await.unwrap();
    assert_eq!((world.hot.rows().len(), world.cold.rows().len()), (5, 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_commits_what_was_read() {
    let world = World::with((0..3).map(|n| record(&n.to_string(), 1, "row")));
    let stop = CancellationToken::new();
    let mut running = world.start(&stop).await;
    world.log.add([record("late", 1, "row")]);
    let (done, heard) = oneshot::channel();
    running.flusher().send(Flush { until: Positions([(0, 4)].into()), done }).await.unwrap();
    heard.await.unwrap();
    stop.cancel();
    running.ended().await.unwrap();
    assert_eq!((world.hot.rows().len(), world.cold.rows().len()), (4, 4));
}

/// Asks a pipeline to stand still: when it does, and how to have it go on.
async fn pause(running: &PipelineHandle) -> (oneshot::Receiver<()>, oneshot::Sender<Result<()>>) {
    let ((paused, heard), (resume, resumed)) = (oneshot::channel(), oneshot::channel());
    assert!(running.pauser().send(Pause { paused, resumed }).await.is_ok());
    (heard, resume)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_stands_still_with_all_that_it_read_in_both_stores_and_goes_on_when_it_is_told_to() {
    let world = World::with((0..3).map(|n| record(&n.to_string(), 1, "row")));
    let stop = CancellationToken::new();
    let mut running = world.start(&stop).await;
    let flushed = async |until| {
        let (done, heard) = oneshot::channel();
        assert!(running.flusher().send(Flush { until: Positions([(0, until)].into()), done }).await.is_ok());
        heard.await
    };
    flushed(3).await.unwrap();
    let (heard, resume) = pause(&running).await;
    heard.await.unwrap();
    world.log.add([record("late", 1, "row"), record("2", 1, "again")]);
    assert_eq!((world.hot.rows().len(), world.cold.rows().len()), (3, 3));
    resume.send(Ok(())).unwrap();
    flushed(5).await.unwrap();
    assert_eq!((world.hot.rows().len(), world.cold.rows().len()), (4, 4));
    // Who asked went before it stood still: then it does not.
    let (heard, resume) = pause(&running).await;
    drop((heard, resume));
    flushed(5).await.unwrap();
    stop.cancel();
    running.ended().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_that_stood_still_ends_where_the_exchange_failed_or_nobody_says_what_became_of_it() {
    for told in [Some(Err(Error::stop("finish the exchange"))), None] {
        let world = World::with([record("a", 1, "row")]);
        let mut running = world.start(&CancellationToken::new()).await;
        let (heard, resume) = pause(&running).await;
        heard.await.unwrap();
        let what = if told.is_some() { "finish the exchange" } else { "ended without a word" };
        match told {
            Some(told) => resume.send(told).unwrap(),
            None => drop(resume),
        }
        let error = running.ended().await.expect_err("it must not go on");
        assert!(error.remedy() == Remedy::Stop && error.to_string().contains(what), "{error}");
    }
}
