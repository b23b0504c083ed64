//! One source's way from the log to both stores.

use std::sync::Arc;

use contract::{Error, OffsetRange, Positions, Result, SourceId, Topic, limits};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::loops::{Loops, StoreEnd};
use crate::reader::Reader;
use crate::store_loop::StoreLoop;
use crate::{CommitPolicy, Engines, Recipe};

/// What comes before reading, and where that begins.
#[derive(Default)]
pub(crate) struct Start {
    /// What the hot store can have from silver only.
    pub(crate) missing: Vec<OffsetRange>,
    pub(crate) from: Positions,
}

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

/// Asks for the pipeline to stand still: all that was read is committed by both stores, and nothing is read. Only where a
/// process has all partitions for itself.
pub struct Pause {
    /// Answered when it stands still.
    pub paused: oneshot::Sender<()>,
    /// Lets it go on, or end with an error; also where it is dropped, since nobody knows then what was done meanwhile.
    pub resumed: oneshot::Receiver<Result<()>>,
}

/// What a pipeline is asked for.
pub(crate) struct Asked {
    pub(crate) flushes: mpsc::Receiver<Flush>,
    pub(crate) pauses: mpsc::Receiver<Pause>,
}

/// Requests for a flush that wait at the same time; a further one waits to be taken.
pub(crate) const FLUSHES_MAX: usize = 16;

/// A running pipeline.
pub struct PipelineHandle {
    source: SourceId,
    flush: mpsc::Sender<Flush>,
    pause: mpsc::Sender<Pause>,
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

    /// A way to have it stand still.
    pub fn pauser(&self) -> mpsc::Sender<Pause> {
        self.pause.clone()
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
    /// store holds: so it is to be called before anything is appended. Where several processes share the partitions it begins
    /// with none, and reads what is its own as that changes. After `stop` the pipeline processes what it has read,
    /// commits both stores and ends.
    ///
    /// # Errors
    /// When a store's position cannot be read, or neither the log nor the cold store has what a store needs.
    pub async fn start(self, stop: CancellationToken) -> Result<PipelineHandle> {
        let (source, topic) = (self.recipe.schema.source, Topic::raw(self.recipe.schema.source));
        let (hot_at, cold_at, start) = match self.engines.group {
            // Nothing is this process's yet.
            Some(_) => (Positions::default(), Positions::default(), Start::default()),
            None => {
                // Also partitions that the log lacks: it must not begin without them.
                let there =
                    Positions(self.engines.log.extent(&topic).await?.end().0.into_keys().map(|p| (p, 0)).collect());
                let hot_at = self.engines.hot.committed(source).await?.max(&there);
                let cold_at = self.engines.cold.committed(source).await?.max(&there);
                let start = self.prepare(&hot_at, &cold_at).await?;
                (hot_at, cold_at, start)
            }
        };
        let (hot_committed, hot) = watch::channel(hot_at);
        let (cold_committed, cold) = watch::channel(cold_at);
        let (flush, flushes) = mpsc::channel(FLUSHES_MAX);
        let (pause, pauses) = mpsc::channel(1);
        let asked = Asked { flushes, pauses };
        let filled = hot_committed.clone();
        // A store gives up waiting for its peer only when the whole pipeline is told to stop.
        let loops = Loops {
            hot: self.spawn_store(self.engines.hot.clone(), self.hot, hot_committed, &stop),
            cold: self.spawn_store(self.engines.cold.clone(), self.cold, cold_committed, &stop),
        };
        let reader = Reader::new(self, (hot.clone(), cold.clone()), filled, stop);
        let running = tokio::spawn(reader.run(start, loops, asked));
        Ok(PipelineHandle { source, flush, pause, hot, cold, running })
    }

    /// What is to be done before the partitions that both positions name are read from there on.
    ///
    /// # Errors
    /// As `start`.
    pub(crate) async fn prepare(&self, hot_at: &Positions, cold_at: &Positions) -> Result<Start> {
        let topic = Topic::raw(self.recipe.schema.source);
        let extent = self.engines.log.extent(&topic).await?;
        let missing = crate::rebuild::missing_in_hot(self.recipe, &extent, hot_at, cold_at)?;
        let mut hot_at = hot_at.clone();
        // What will be filled from silver is not read from the log.
        missing.iter().for_each(|range| hot_at.advance(range.partition, range.to));
        self.engines.log.release(&topic, &hot_at.min(cold_at)).await?;
        self.engines.log.begin_after(&topic, &hot_at.max(cold_at)).await?;
        let mut from = hot_at.min(cold_at);
        from.0.retain(|&partition, _| usize::try_from(partition).is_ok_and(|place| place < extent.partitions.len()));
        Ok(Start { missing, from })
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

/// Makes sure that the log gives no offset again that a store holds, before anything is appended by a process that does not
/// write the stores.
///
/// # Errors
/// When a store's position cannot be read, or the log cannot go on behind it.
pub async fn begin_after_stores(engines: &Engines, sources: impl IntoIterator<Item = SourceId>) -> Result<()> {
    let Engines { log, hot, cold, .. } = engines;
    for source in sources {
        let committed = hot.committed(source).await?.max(&cold.committed(source).await?);
        log.begin_after(&Topic::raw(source), &committed).await?;
    }
    log.begin_after(&Topic::coverage(), &cold.coverage_committed().await?).await
}
