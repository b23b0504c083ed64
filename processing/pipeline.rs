//! One source's way from the log to both stores.

use std::sync::Arc;
use std::time::{Duration, Instant};

use contract::{
    Batch, Error, OffsetRange, Partition, Positions, Result, Rows, RowsBuilder, SourceId, Span, Topic, limits, metric,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::known_ids::KnownIds;
use crate::lost::Losses;
use crate::retry::{Retry, until_done, until_stopped};
use crate::store_loop::{Message, StoreLoop};
use crate::{CommitPolicy, Engines, Recipe};

/// How long a read waits for the first record; `stop` is seen at least this often.
const READ_WAIT: Duration = Duration::from_millis(200);

/// How often it is looked whether the topic has new partitions.
const GROWTH_INTERVAL: Duration = Duration::from_secs(30);

/// A source's pipeline, to be started.
pub struct Pipeline {
    /// The engines it joins.
    pub engines: Engines,
    /// What makes its rows.
    pub recipe: Recipe,
    /// When the hot store commits.
    pub hot: CommitPolicy,
    /// When the cold store commits.
    pub cold: CommitPolicy,
    /// Bytes of records that are read from the log at once.
    pub batch_bytes_max: usize,
}

/// Asks for both stores to commit as soon as all below `until` was processed, and to be told.
pub struct Flush {
    /// The next offsets that must have been processed.
    pub until: Positions,
    /// Answered when both stores have committed.
    pub done: oneshot::Sender<()>,
}

/// Requests for a flush that wait at the same time; a further one waits to be taken.
const FLUSHES_MAX: usize = 16;

/// A running pipeline.
pub struct PipelineHandle {
    source: SourceId,
    flush: mpsc::Sender<Flush>,
    hot: watch::Receiver<Positions>,
    cold: watch::Receiver<Positions>,
    running: JoinHandle<Result<()>>,
}

impl PipelineHandle {
    /// The source.
    pub fn source(&self) -> SourceId {
        self.source
    }

    /// What the hot and the cold store have committed, as it changes.
    pub fn committed(&self) -> (watch::Receiver<Positions>, watch::Receiver<Positions>) {
        (self.hot.clone(), self.cold.clone())
    }

    /// A way to ask for a commit of both stores.
    pub fn flusher(&self) -> mpsc::Sender<Flush> {
        self.flush.clone()
    }

    /// Waits until the pipeline has ended: after `stop`, or by an error.
    ///
    /// # Errors
    /// The one that ended it.
    pub async fn ended(&mut self) -> Result<()> {
        (&mut self.running).await.unwrap_or_else(|panic| Err(Error::stop("run a pipeline").because(panic)))
    }
}

impl Pipeline {
    /// Starts to read where the store that is behind stands, and makes sure that the log gives no offset again that a
    /// store holds: so it is to be called before anything is appended. After `stop` the pipeline processes what it has read,
    /// commits both stores and ends.
    ///
    /// # Errors
    /// When a store's position cannot be read, or neither the log nor the cold store has what a store needs.
    pub async fn start(self, stop: CancellationToken) -> Result<PipelineHandle> {
        let (source, topic) = (self.recipe.schema.source, Topic::raw(self.recipe.schema.source));
        let extent = self.engines.log.extent(&topic).await?;
        let mut hot_at = self.engines.hot.committed(source).await?;
        let cold_at = self.engines.cold.committed(source).await?;
        let (hot_committed, hot) = watch::channel(hot_at.clone());
        let (cold_committed, cold) = watch::channel(cold_at.clone());
        let missing = crate::rebuild::missing_in_hot(self.recipe, &extent, &hot_at, &cold_at)?;
        // What will be filled from silver is not read from the log.
        missing.iter().for_each(|range| hot_at.advance(range.partition, range.to));
        self.engines.log.release(&topic, &hot_at.min(&cold_at)).await?;
        self.engines.log.begin_after(&topic, &hot_at.max(&cold_at)).await?;
        let (flush, flushes) = mpsc::channel(FLUSHES_MAX);
        let filled = hot_committed.clone();
        // A store gives up waiting for its peer only when the whole pipeline is told to stop.
        let loops = Loops {
            hot: self.spawn_store(self.engines.hot.clone(), self.hot, hot_committed, &stop),
            cold: self.spawn_store(self.engines.cold.clone(), self.cold, cold_committed, &stop),
        };
        let reader = Reader {
            topic,
            known: KnownIds::new(self.recipe.schema, limits::KNOWN_IDS_BYTES_MAX),
            builder: RowsBuilder::new(self.recipe.schema),
            losses: Losses::new(source),
            hot: hot.clone(),
            cold: cold.clone(),
            filled,
            released: None,
            pipeline: self,
            stop,
        };
        let running = tokio::spawn(reader.run(missing, hot_at.min(&cold_at), loops, flushes));
        Ok(PipelineHandle { source, flush, hot, cold, running })
    }

    fn spawn_store<S: contract::Store + ?Sized + 'static>(
        &self,
        store: Arc<S>,
        policy: CommitPolicy,
        committed: watch::Sender<Positions>,
        stop: &CancellationToken,
    ) -> StoreEnd {
        let (sender, receiver) = mpsc::channel(limits::QUEUED_BATCHES_MAX);
        let source = self.recipe.schema.source;
        let clock = self.engines.clock.clone();
        let troubles = self.engines.troubles.clone();
        let store_loop = StoreLoop { store, source, policy, clock, troubles, stop: stop.clone(), committed };
        StoreEnd { queue: sender, running: tokio::spawn(store_loop.run(receiver)) }
    }
}

struct StoreEnd {
    queue: mpsc::Sender<Message>,
    running: JoinHandle<Result<()>>,
}

struct Loops {
    hot: StoreEnd,
    cold: StoreEnd,
}

impl Loops {
    /// False if a store's loop has ended, which only an error makes it do.
    async fn send(&self, rows: &Arc<Rows>) -> bool {
        let (hot, cold) = tokio::join!(
            self.hot.queue.send(Message::Rows(rows.clone())),
            self.cold.queue.send(Message::Rows(rows.clone()))
        );
        hot.is_ok() && cold.is_ok()
    }

    async fn flush(&self) -> bool {
        let ask = async |end: &StoreEnd| {
            let (done, heard) = oneshot::channel();
            end.queue.send(Message::Flush(done)).await.is_ok() && heard.await.is_ok()
        };
        let (hot, cold) = tokio::join!(ask(&self.hot), ask(&self.cold));
        hot && cold
    }

    /// Lets both stores commit what they have, and answers the first error.
    async fn end(self) -> Result<()> {
        drop((self.hot.queue, self.cold.queue));
        let panicked = |panic| Err(Error::stop("run a store's loop").because(panic));
        let (hot, cold) = tokio::join!(self.hot.running, self.cold.running);
        hot.unwrap_or_else(panicked).and(cold.unwrap_or_else(panicked))
    }
}

struct Reader {
    pipeline: Pipeline,
    topic: Topic,
    known: KnownIds,
    builder: RowsBuilder,
    hot: watch::Receiver<Positions>,
    cold: watch::Receiver<Positions>,
    losses: Losses,
    /// Told what the hot store has committed while it is filled from silver.
    filled: watch::Sender<Positions>,
    released: Option<Positions>,
    stop: CancellationToken,
}

impl Reader {
    async fn run(
        mut self,
        missing: Vec<OffsetRange>,
        from: Positions,
        loops: Loops,
        flushes: mpsc::Receiver<Flush>,
    ) -> Result<()> {
        let Pipeline { engines, recipe, .. } = &self.pipeline;
        let read = match crate::rebuild::fill_hot(engines, *recipe, &missing, &self.filled, &self.stop).await {
            Ok(()) => self.read_until_stopped(from, &loops, flushes).await,
            Err(error) => Err(error),
        };
        let ended = loops.end().await;
        self.release().await;
        ended.and(read)
    }

    async fn read_until_stopped(
        &mut self,
        from: Positions,
        loops: &Loops,
        mut flushes: mpsc::Receiver<Flush>,
    ) -> Result<()> {
        let (log, troubles) = (self.pipeline.engines.log.clone(), self.pipeline.engines.troubles.clone());
        let extent = until_done("log", &troubles, &self.stop, || log.extent(&self.topic)).await?;
        let mut at = Positions(extent.end().0.keys().map(|&partition| (partition, from.of(partition))).collect());
        let mut looked = Instant::now();
        let mut asked: Vec<Flush> = Vec::new();
        while !self.stop.is_cancelled() {
            asked.extend(std::iter::from_fn(|| flushes.try_recv().ok()).take(FLUSHES_MAX));
            if asked.iter().any(|flush| at.reaches(&flush.until)) {
                if !loops.flush().await {
                    return Ok(());
                }
                for flush in asked.extract_if(.., |flush| at.reaches(&flush.until)) {
                    // Whoever asked may have gone meanwhile; the commit stands all the same.
                    flush.done.send(()).unwrap_or_default();
                }
            }
            if looked.elapsed() > GROWTH_INTERVAL {
                looked = Instant::now();
                self.see_new_partitions(&mut at).await;
            }
            let batch = until_stopped("log", &troubles, &self.stop, || {
                log.read(&self.topic, &at, self.pipeline.batch_bytes_max, READ_WAIT)
            });
            let Some(batch) = batch.await? else { break };
            self.release().await;
            self.losses.tell(&self.pipeline.engines).await?;
            if batch.next == at {
                continue;
            }
            let next = batch.next.clone();
            let rows = self.process(&at, batch).await?;
            if !loops.send(&Arc::new(rows)).await {
                return Ok(());
            }
            at = next;
        }
        self.losses.tell(&self.pipeline.engines).await
    }

    /// A topic's partitions may grow while it is read. What cannot be asked now is asked the next time.
    async fn see_new_partitions(&self, at: &mut Positions) {
        let extent = self.pipeline.engines.log.extent(&self.topic).await.unwrap_or_default();
        for partition in extent.end().0.into_keys().filter(|partition| !at.0.contains_key(partition)) {
            info!(topic = %self.topic, partition, "`{}` has a new partition", self.topic);
        }
        extent.end().0.keys().for_each(|&partition| at.advance(partition, 0));
    }

    async fn process(&mut self, from: &Positions, batch: Batch) -> Result<Rows> {
        for lost in &batch.lost {
            error!(topic = %self.topic, partition = lost.range.partition, from = lost.range.from, to = lost.range.to,
                "records of `{}` are lost: {}", self.topic, lost.reason);
        }
        let now = self.pipeline.engines.clock.now();
        self.losses.note(now, &batch.lost, &batch.records, &self.cold.borrow());
        self.losses.tell(&self.pipeline.engines).await?;
        self.known.committed(&self.cold.borrow());
        let cold = self.pipeline.engines.cold.clone();
        let (what, troubles) = (format!("{} ids", self.topic), self.pipeline.engines.troubles.clone());
        let mut retry = Retry::new(&what, &troubles, &self.stop);
        while let Err(error) = self.known.prepare(&*cold, &batch.records).await {
            retry.pause(error).await?;
        }
        retry.succeeded();
        let span = span_between(self.pipeline.recipe.schema.source, from, &batch.next);
        // Parsing is CPU work of some tens of milliseconds; other tasks go on on other threads.
        Ok(tokio::task::block_in_place(|| self.make_rows(&batch, span)))
    }

    fn make_rows(&mut self, batch: &Batch, span: Span) -> Rows {
        let source = span.source.0;
        let mut made = 0;
        for at in &batch.records {
            if self.known.is_duplicate(at) {
                self.builder.duplicate(at);
                continue;
            }
            match self.builder.record(at, self.pipeline.recipe.processor) {
                Ok(()) => {
                    self.known.insert(at);
                    made += 1;
                }
                Err(reject) => metric::REJECTS.add(&[source, reject.kind], 1),
            }
        }
        let rows = self.builder.finish(span);
        metric::PROCESSED_RECORDS.add(&[source], batch.records.len() as u64);
        metric::PROCESSED_ROWS.add(&[source], made);
        metric::DUPLICATES.add(&[source], rows.duplicates);
        rows
    }

    /// Tells the log what both stores have.
    async fn release(&mut self) {
        let both = self.hot.borrow().min(&self.cold.borrow());
        if self.released.as_ref() == Some(&both) {
            return;
        }
        let log = &self.pipeline.engines.log;
        if let Err(error) = log.release(&self.topic, &both).await {
            info!(topic = %self.topic, "`{}` keeps records longer than needed: {error}", self.topic);
        }
        self.released = Some(both);
    }
}

/// The span that a read from `from` to `next` covers.
fn span_between(source: SourceId, from: &Positions, next: &Positions) -> Span {
    let range = |(&partition, &to): (&Partition, &i64)| OffsetRange { partition, from: from.of(partition), to };
    Span { source, ranges: next.0.iter().map(range).filter(|range| range.from < range.to).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{MemoryLog, MemoryStore, SCHEMA, SOURCE, TextProcessor, record};
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
}
