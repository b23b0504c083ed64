//! One store's end of a pipeline: takes rows from its queue, writes them, commits by its own policy.

use std::sync::Arc;
use std::time::Duration;

use contract::{Clock, Positions, Result, Rows, SourceId, Store, Timestamp, metric};
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
    /// The same while more rows wait in the queue.
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
                None => return self.commit(&mut pending).await,
            }
        }
    }

    fn what(&self) -> String {
        format!("{} {}", self.source, self.store.name())
    }

    fn due(&self, pending: &Pending, queue_is_empty: bool) -> Option<Instant> {
        let interval = if queue_is_empty { self.policy.interval } else { self.policy.backlog_interval };
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
        *pending = Pending::default();
        self.committed.send_replace(next);
        Ok(())
    }
}
