//! One store's end of a pipeline: takes rows from its queue, writes them, commits by its own policy.

use std::sync::Arc;
use std::time::Duration;

use contract::{Clock, Partition, Positions, Result, Rows, SourceId, Store, Timestamp, metric};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::Troubles;
use crate::retry::until_done;

/// When a store commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitPolicy {
    /// At the most this long after the oldest row was written, when nothing waits in the queue.
    pub interval: Duration,
    /// The same while more rows wait in the queue; where commits take longer than that, as long as the last one took.
    pub backlog_interval: Duration,
    /// At the latest after this many bytes of rows.
    pub bytes_max: u64,
}

/// What a pipeline says to a store's loop.
pub(crate) enum Message {
    /// Rows to write, in the order of their spans.
    Rows(Arc<Rows>),
    /// Commit now and answer.
    Flush(oneshot::Sender<()>),
    /// Forget what of these is not committed, and answer where they stand, whoever wrote them.
    Resume { partitions: Vec<Partition>, done: oneshot::Sender<Positions> },
}

pub(crate) struct StoreLoop<S: ?Sized> {
    pub(crate) store: Arc<S>,
    pub(crate) source: SourceId,
    pub(crate) policy: CommitPolicy,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) troubles: Arc<Troubles>,
    pub(crate) stop: CancellationToken,
    pub(crate) committed: watch::Sender<Positions>,
}

/// Rows written and not committed.
#[derive(Default)]
struct Pending {
    since: Option<Instant>,
    oldest_append: Option<Timestamp>,
    rows: u64,
    bytes: u64,
    /// How long the last commit took.
    commit: Duration,
}

impl<S: Store + ?Sized> StoreLoop<S> {
    /// Runs until the queue is closed, then commits what is left.
    pub(crate) async fn run(self, mut queue: mpsc::Receiver<Message>) -> Result<()> {
        let mut pending = Pending::default();
        loop {
            let message = match self.due(&pending, queue.is_empty()) {
                None => queue.recv().await,
                Some(due) => match tokio::time::timeout_at(due, queue.recv()).await {
                    Ok(message) => message,
                    Err(_) => {
                        self.commit(&mut pending).await?;
                        continue;
                    }
                },
            };
            match message {
                Some(Message::Rows(rows)) => {
                    self.write(&rows, &mut pending).await?;
                    let overdue = self.due(&pending, queue.is_empty()).is_some_and(|due| due <= Instant::now());
                    if pending.bytes >= self.policy.bytes_max || overdue {
                        self.commit(&mut pending).await?;
                    }
                }
                Some(Message::Flush(done)) => {
                    self.commit(&mut pending).await?;
                    // Whoever asked may have gone meanwhile; the commit stands all the same.
                    done.send(()).unwrap_or_default();
                }
                Some(Message::Resume { partitions, done }) => {
                    let at = self.resume(&partitions).await?;
                    // As above.
                    done.send(at).unwrap_or_default();
                }
                None => return self.commit(&mut pending).await,
            }
        }
    }

    fn what(&self) -> String {
        format!("{} {}", self.source, self.store.name())
    }

    fn due(&self, pending: &Pending, queue_is_empty: bool) -> Option<Instant> {
        let backlog_interval = self.policy.backlog_interval.max(pending.commit);
        let interval = if queue_is_empty { self.policy.interval } else { backlog_interval };
        pending.since.map(|since| since + interval)
    }

    async fn write(&self, rows: &Rows, pending: &mut Pending) -> Result<()> {
        let what = self.what();
        until_done(&what, &self.troubles, &self.stop, || self.store.write(rows)).await?;
        pending.since.get_or_insert_with(Instant::now);
        let first = rows.bronze.column(5).as_any().downcast_ref::<arrow::array::TimestampMicrosecondArray>();
        let first = first.and_then(|times| times.iter().flatten().next()).map(Timestamp);
        pending.oldest_append = pending.oldest_append.or(first);
        pending.rows += rows.silver.num_rows() as u64;
        pending.bytes += rows.memory_bytes() as u64;
        Ok(())
    }

    async fn resume(&self, partitions: &[Partition]) -> Result<Positions> {
        let what = self.what();
        let resumed = || self.store.resume(self.source, partitions);
        let at = until_done(&what, &self.troubles, &self.stop, resumed).await?;
        self.committed.send_modify(|committed| committed.put(&at));
        Ok(at)
    }

    async fn commit(&self, pending: &mut Pending) -> Result<()> {
        if pending.since.is_none() {
            return Ok(());
        }
        let labels = [self.source.0, self.store.name()];
        let started = Instant::now();
        let what = self.what();
        let next = until_done(&what, &self.troubles, &self.stop, || self.store.commit(self.source)).await?;
        metric::COMMIT_SECONDS.observe(&labels, started.elapsed().as_secs_f64());
        metric::COMMITTED_ROWS.add(&labels, pending.rows);
        if let Some(appended) = pending.oldest_append {
            metric::END_TO_END_SECONDS.observe(&labels, self.clock.now().since(appended).as_secs_f64());
        }
        *pending = Pending { commit: started.elapsed(), ..Pending::default() };
        self.committed.send_replace(next);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use contract::{OffsetRange, RowsBuilder, Span, SystemClock};

    use super::*;
    use crate::memory::{MemoryStore, SCHEMA, SOURCE};

    fn span(from: i64) -> Message {
        let ranges = vec![OffsetRange { partition: 0, from, to: from + 1 }];
        Message::Rows(Arc::new(RowsBuilder::new(&SCHEMA).finish(Span { source: SOURCE, ranges })))
    }

    /// A read of the log wakes on an append, and what is committed is searchable: the conformance suites hold both. What is
    /// between is the time until the commit.
    #[tokio::test(start_paused = true)]
    async fn rows_are_searchable_within_a_second_of_the_append_one_alone_or_a_steady_flow() {
        let (committed, mut seen) = watch::channel(Positions::default());
        let store_loop = StoreLoop {
            store: MemoryStore::new("hot"),
            source: SOURCE,
            policy: crate::Settings::default().hot_policy(),
            clock: Arc::new(SystemClock),
            troubles: Arc::default(),
            stop: CancellationToken::new(),
            committed,
        };
        let (queue, receiver) = mpsc::channel(2);
        let running = tokio::spawn(store_loop.run(receiver));
        let second = Duration::from_secs(1);

        queue.send(span(0)).await.unwrap();
        tokio::time::timeout(second, seen.wait_for(|next| next.of(0) == 1)).await.expect("within a second").unwrap();
        let mut sent: Vec<(i64, Instant)> = Vec::new();
        for offset in 1..40 {
            queue.send(span(offset)).await.unwrap();
            sent.push((offset, Instant::now()));
            tokio::time::sleep(Duration::from_millis(90)).await;
            let late = sent.iter().find(|(offset, at)| at.elapsed() > second && seen.borrow().of(0) <= *offset);
            assert_eq!(late, None);
        }
        drop(queue);
        running.await.unwrap().unwrap();
    }
}
