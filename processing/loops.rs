//! What a pipeline says to its two stores' loops.

use std::sync::Arc;

use contract::{Error, Partition, Positions, Result, Rows};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::store_loop::Message;

/// One store's loop, and the queue to it.
pub(crate) struct StoreEnd {
    pub(crate) queue: mpsc::Sender<Message>,
    pub(crate) running: JoinHandle<Result<()>>,
}

/// The ends of both stores.
pub(crate) struct Loops {
    pub(crate) hot: StoreEnd,
    pub(crate) cold: StoreEnd,
}

impl Loops {
    /// False if a store's loop has ended, which only an error makes it do.
    pub(crate) async fn send(&self, rows: &Arc<Rows>) -> bool {
        let (hot, cold) = tokio::join!(
            self.hot.queue.send(Message::Rows(rows.clone())),
            self.cold.queue.send(Message::Rows(rows.clone()))
        );
        hot.is_ok() && cold.is_ok()
    }

    /// Has both commit what they have; false as above.
    pub(crate) async fn flush(&self) -> bool {
        let ask = async |end: &StoreEnd| {
            let (done, heard) = oneshot::channel();
            end.queue.send(Message::Flush(done)).await.is_ok() && heard.await.is_ok()
        };
        let (hot, cold) = tokio::join!(ask(&self.hot), ask(&self.cold));
        hot && cold
    }

    /// Has both stores forget what of some partitions is not committed, and answers where these stand: hot, then cold. None if
    /// a loop has ended.
    pub(crate) async fn resume(&self, partitions: &[Partition]) -> Option<(Positions, Positions)> {
        let ask = async |end: &StoreEnd| {
            let (done, heard) = oneshot::channel();
            end.queue.send(Message::Resume { partitions: partitions.to_vec(), done }).await.ok()?;
            heard.await.ok()
        };
        let (hot, cold) = tokio::join!(ask(&self.hot), ask(&self.cold));
        hot.zip(cold)
    }

    /// Lets both stores commit what they have, and answers the first error.
    pub(crate) async fn end(self) -> Result<()> {
        drop((self.hot.queue, self.cold.queue));
        let panicked = |panic| Err(Error::stop("run a store's loop").because(panic));
        let (hot, cold) = tokio::join!(self.hot.running, self.cold.running);
        hot.unwrap_or_else(panicked).and(cold.unwrap_or_else(panicked))
    }
}
