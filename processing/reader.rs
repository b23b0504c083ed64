//! The part of a pipeline that reads: records in, rows out, to the partitions that this process has at the moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use contract::{
    Batch, Error, OffsetRange, Partition, Positions, Reject, Result, Rows, RowsBuilder, Share, SourceId, Span, Topic,
    limits, metric,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::known_ids::KnownIds;
use crate::loops::Loops;
use crate::lost::Losses;
use crate::pipeline::{Asked, FLUSHES_MAX, Flush, Pause, Pipeline, Start};
use crate::retry::{Retry, until_stopped};

/// How long a read waits for the first record; `stop`, and what this process has, are seen at least this often.
pub(crate) const READ_WAIT: Duration = Duration::from_millis(200);

/// How often it is looked whether the topic has new partitions.
const GROWTH_INTERVAL: Duration = Duration::from_secs(30);

/// What both stores have committed, as it changes: hot, then cold.
type Committed = (watch::Receiver<Positions>, watch::Receiver<Positions>);

pub(crate) struct Reader {
    pipeline: Pipeline,
    topic: Topic,
    /// Where it reads on, of every partition that it reads.
    at: Positions,
    /// What this process had of the topic when last asked, where several share it.
    share: Share,
    /// Where a topic has grown: its new partitions, and how far the cold store must be in others before they are read. An id
    /// that falls into a new one now may stand in another, and must be a row by then, to be told as repeated.
    held: BTreeMap<Partition, Positions>,
    known: KnownIds,
    builder: RowsBuilder,
    committed: Committed,
    losses: Losses,
    /// Told what the hot store has committed while it is filled from silver.
    filled: watch::Sender<Positions>,
    released: Option<Positions>,
    stop: CancellationToken,
}

impl Reader {
    pub(crate) fn new(
        pipeline: Pipeline,
        committed: Committed,
        filled: watch::Sender<Positions>,
        stop: CancellationToken,
    ) -> Self {
        let schema = pipeline.recipe.schema;
        Self {
            topic: Topic::raw(schema.source),
            at: Positions::default(),
            share: Share::default(),
            held: BTreeMap::new(),
            known: KnownIds::new(schema, limits::KNOWN_IDS_BYTES_MAX),
            builder: RowsBuilder::new(schema),
            committed,
            losses: Losses::new(schema.source),
            filled,
            released: None,
            pipeline,
            stop,
        }
    }

    pub(crate) async fn run(mut self, start: Start, loops: Loops, asked: Asked) -> Result<()> {
        let read = match self.begin(start).await {
            Ok(()) => self.read_until_stopped(&loops, asked).await,
            Err(error) => Err(error),
        };
        let ended = loops.end().await;
        self.release().await;
        ended.and(read)
    }

    async fn read_until_stopped(&mut self, loops: &Loops, mut from: Asked) -> Result<()> {
        let (log, troubles) = (self.pipeline.engines.log.clone(), self.pipeline.engines.troubles.clone());
        let mut looked = Instant::now();
        let mut asked: Vec<Flush> = Vec::new();
        while !self.stop.is_cancelled() {
            if let Ok(pause) = from.pauses.try_recv()
                && !self.pause(pause, loops).await?
            {
                return Ok(());
            }
            asked.extend(std::iter::from_fn(|| from.flushes.try_recv().ok()).take(FLUSHES_MAX));
            if !self.follow(loops).await? || !self.answer(&mut asked, loops).await {
                return Ok(());
            }
            let is_new = |flush: &Flush| flush.until.0.keys().any(|partition| !self.at.0.contains_key(partition));
            let is_due = looked.elapsed() > GROWTH_INTERVAL || asked.iter().any(is_new);
            if self.pipeline.engines.group.is_none() && is_due {
                looked = Instant::now();
                self.see_new_partitions().await?;
            }
            if !self.let_go(loops).await? {
                return Ok(());
            }
            let batch = until_stopped("log", &troubles, &self.stop, || {
                log.read(&self.topic, &self.at, self.pipeline.batch_bytes_max, READ_WAIT)
            });
            let Some(batch) = batch.await? else { break };
            self.release().await;
            self.losses.tell(&self.pipeline.engines).await?;
            if batch.next == self.at {
                continue;
            }
            let next = batch.next.clone();
            let rows = self.process(batch).await?;
            if !loops.send(&Arc::new(rows)).await {
                return Ok(());
            }
            self.at = next;
        }
        self.losses.tell(&self.pipeline.engines).await
    }

    /// Has both stores commit where somebody asked for what is processed by now. False if a store's loop has ended.
    async fn answer(&mut self, asked: &mut Vec<Flush>, loops: &Loops) -> bool {
        if !asked.iter().any(|flush| self.at.reaches(&flush.until)) {
            return true;
        }
        if !loops.flush().await {
            return false;
        }
        for flush in asked.extract_if(.., |flush| self.at.reaches(&flush.until)) {
            // Whoever asked may have gone meanwhile; the commit stands all the same.
            flush.done.send(()).unwrap_or_default();
        }
        true
    }

    /// Has both stores commit what was read, and reads nothing until it is told to. False as above.
    async fn pause(&mut self, Pause { paused, resumed }: Pause, loops: &Loops) -> Result<bool> {
        if !loops.flush().await {
            return Ok(false);
        }
        if paused.send(()).is_err() {
            // Nobody waits for it any more.
            return Ok(true);
        }
        let source = self.pipeline.recipe.schema.source;
        tokio::select! {
            () = self.stop.cancelled() => {}
            told = resumed => told.unwrap_or_else(|_| {
                Err(Error::stop(format!("go on with `{source}`: who had it stand still ended without a word")))
            })?,
        }
        // Silver may be another one now: what stands where is read from it anew.
        self.known = KnownIds::new(self.pipeline.recipe.schema, limits::KNOWN_IDS_BYTES_MAX);
        Ok(true)
    }

    /// A topic's partitions may grow while it is read. What cannot be asked now is asked the next time.
    async fn see_new_partitions(&mut self) -> Result<()> {
        let extent = self.pipeline.engines.log.extent(&self.topic).await.unwrap_or_default();
        let new = extent.end().0.into_keys().filter(|partition| !self.is_begun(*partition));
        let new: Vec<Partition> = new.collect();
        for partition in &new {
            info!(topic = %self.topic, partition, "`{}` has a new partition", self.topic);
        }
        self.read_from(Positions(new.into_iter().map(|partition| (partition, 0)).collect())).await
    }

    fn is_begun(&self, partition: Partition) -> bool {
        self.at.0.contains_key(&partition) || self.held.contains_key(&partition)
    }

    /// Reads partitions from now on. One of which nothing was ever committed, while lower ones have rows, is new in a topic
    /// that has grown: it is read when the cold store has of those what the log has now. Only lower ones are waited for, so
    /// that no two wait for each other.
    async fn read_from(&mut self, from: Positions) -> Result<()> {
        let (engines, source) = (self.pipeline.engines.clone(), self.pipeline.recipe.schema.source);
        if from.0.values().all(|offset| *offset > 0) {
            self.at.0.extend(from.0);
            return Ok(());
        }
        let asked = until_stopped("log", &engines.troubles, &self.stop, || {
            Box::pin(async {
                Ok((engines.log.extent(&self.topic).await?.end(), engines.cold.committed(source).await?))
            })
        });
        let Some((end, cold)) = asked.await? else { return Ok(()) };
        for (partition, offset) in from.0 {
            let mut before = end.clone();
            before.0.retain(|lower, _| *lower < partition && cold.of(*lower) > 0);
            if cold.of(partition) > 0 || cold.reaches(&before) {
                self.at.0.insert(partition, offset);
            } else {
                self.held.insert(partition, before);
            }
        }
        Ok(())
    }

    /// Begins with held partitions as soon as the cold store is so far. False if a store's loop has ended.
    async fn let_go(&mut self, loops: &Loops) -> Result<bool> {
        if self.held.is_empty() {
            return Ok(true);
        }
        let (engines, source) = (self.pipeline.engines.clone(), self.pipeline.recipe.schema.source);
        let committed = || engines.cold.committed(source);
        let asked = until_stopped("cold", &engines.troubles, &self.stop, committed).await?;
        let Some(mut cold) = asked else { return Ok(true) };
        // What this process reads of the others is read: then nobody needs to wait for the next commit.
        let is_read = |before: &Positions| {
            let mut own = before.clone();
            own.0.retain(|partition, next| self.at.0.contains_key(partition) && cold.of(*partition) < *next);
            !own.0.is_empty() && self.at.reaches(&own)
        };
        if self.held.values().any(is_read) {
            if !loops.flush().await {
                return Ok(false);
            }
            cold = cold.max(&self.committed.1.borrow());
        }
        let free: Vec<_> = self.held.extract_if(.., |_, before| cold.reaches(before)).collect();
        if !free.is_empty() {
            // Others wrote meanwhile: what stands where is read anew from silver.
            self.known = KnownIds::new(self.pipeline.recipe.schema, limits::KNOWN_IDS_BYTES_MAX);
            self.at.0.extend(free.into_iter().map(|(partition, _)| (partition, 0)));
        }
        Ok(true)
    }

    /// Brings what is read in line with what this process has; see [`contract::Assignments`]. False if a store's loop has
    /// ended.
    async fn follow(&mut self, loops: &Loops) -> Result<bool> {
        let Some(group) = self.pipeline.engines.group.clone() else { return Ok(true) };
        let share = group.share(&self.topic);
        if share != self.share {
            if !self.give_up(&share, loops).await {
                return Ok(false);
            }
            self.share = share;
            group.settled(&self.topic, &self.share);
        }
        let new = self.share.partitions.iter().filter(|partition| !self.is_begun(**partition));
        let new: BTreeSet<Partition> = new.copied().collect();
        // Asked again: what was taken back before it was begun is not begun.
        if new.is_empty() || group.share(&self.topic) != self.share {
            return Ok(true);
        }
        self.take(new, loops).await
    }

    /// Reads nothing any more but what is in `share`. What was read is committed; forgotten, where it was lost before.
    async fn give_up(&mut self, share: &Share, loops: &Loops) -> bool {
        let reads: Vec<Partition> = self.at.0.keys().copied().collect();
        let is_done = if reads.is_empty() {
            true
        } else if share.life == self.share.life {
            loops.flush().await
        } else {
            self.at = Positions::default();
            loops.resume(&reads).await.is_some()
        };
        self.at.0.retain(|partition, _| share.partitions.contains(partition));
        // What was never begun is asked anew.
        self.held.clear();
        // Others wrote meanwhile: what stands where is read anew from silver.
        self.known = KnownIds::new(self.pipeline.recipe.schema, limits::KNOWN_IDS_BYTES_MAX);
        self.released = None;
        is_done
    }

    /// Begins with partitions that others may have had until now, where the stores stand. False as above.
    async fn take(&mut self, new: BTreeSet<Partition>, loops: &Loops) -> Result<bool> {
        let (log, troubles) = (self.pipeline.engines.log.clone(), self.pipeline.engines.troubles.clone());
        let extent = until_stopped("log", &troubles, &self.stop, || log.extent(&self.topic)).await?;
        let there = extent.unwrap_or_default().end();
        // One that is so new that the log does not tell of it yet is begun later.
        let new: Vec<Partition> = new.into_iter().filter(|partition| there.0.contains_key(partition)).collect();
        if new.is_empty() {
            return Ok(true);
        }
        let Some((hot_at, cold_at)) = loops.resume(&new).await else { return Ok(false) };
        let (hot_at, cold_at) = (hot_at.only(&new), cold_at.only(&new));
        let start = until_stopped("log", &troubles, &self.stop, || Box::pin(self.pipeline.prepare(&hot_at, &cold_at)));
        if let Some(start) = start.await? {
            self.begin(start).await?;
        }
        Ok(true)
    }

    /// Fills the hot store with what it can have from silver only; then the partitions are read. Where this process's share
    /// changes meanwhile, they are not, and whoever has them goes on filling.
    async fn begin(&mut self, start: Start) -> Result<()> {
        let Pipeline { engines, recipe, .. } = &self.pipeline;
        let stop = self.stop.child_token();
        let mut filling = Box::pin(crate::rebuild::fill_hot(engines, *recipe, &start.missing, &self.filled, &stop));
        let has_changed = || engines.group.as_ref().is_some_and(|group| group.share(&self.topic) != self.share);
        let filled = loop {
            tokio::select! {
                filled = &mut filling => break filled,
                () = tokio::time::sleep(READ_WAIT) => if has_changed() { stop.cancel() },
            }
        };
        drop(filling);
        if stop.is_cancelled() && !self.stop.is_cancelled() {
            info!(topic = %self.topic, "filling the hot store is left to whoever has the partitions next");
            return Ok(());
        }
        filled?;
        self.read_from(start.from).await
    }

    async fn process(&mut self, batch: Batch) -> Result<Rows> {
        for lost in &batch.lost {
            error!(topic = %self.topic, partition = lost.range.partition, from = lost.range.from, to = lost.range.to,
                "records of `{}` are lost: {}", self.topic, lost.reason);
        }
        let now = self.pipeline.engines.clock.now();
        self.losses.note(now, &batch.lost, &batch.records, &self.committed.1.borrow());
        self.losses.tell(&self.pipeline.engines).await?;
        self.known.committed(&self.committed.1.borrow());
        let cold = self.pipeline.engines.cold.clone();
        let (what, troubles) = (format!("{} ids", self.topic), self.pipeline.engines.troubles.clone());
        let mut retry = Retry::new(&what, &troubles, &self.stop);
        while let Err(error) = self.known.prepare(&*cold, &batch.records).await {
            retry.pause(error).await?;
        }
        retry.succeeded();
        let span = span_between(self.pipeline.recipe.schema.source, &self.at, &batch.next);
        // Parsing is CPU work of some tens of milliseconds; other tasks go on on other threads.
        Ok(tokio::task::block_in_place(|| self.make_rows(&batch, span)))
    }

    fn make_rows(&mut self, batch: &Batch, span: Span) -> Rows {
        let (source, processor) = (span.source.0, self.pipeline.recipe.processor);
        let rejected = |reject: &Reject| metric::REJECTS.add(&[source, reject.kind], 1);
        let made = self.known.add_rows(&mut self.builder, processor, &batch.records, rejected);
        let rows = self.builder.finish(span);
        metric::PROCESSED_RECORDS.add(&[source], batch.records.len() as u64);
        metric::PROCESSED_ROWS.add(&[source], made);
        metric::DUPLICATES.add(&[source], rows.duplicates);
        rows
    }

    /// Tells the log what both stores have.
    async fn release(&mut self) {
        let mut both = self.committed.0.borrow().min(&self.committed.1.borrow());
        both.0.retain(|partition, _| self.at.0.contains_key(partition));
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
