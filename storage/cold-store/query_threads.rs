//! Threads for what computes.
//!
//! A query may compute for seconds between two places where it yields. On the threads that also answer, some such queries would
//! keep everybody waiting, and nobody could cancel them.

use std::future::Future;

use contract::{Error, Result};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

/// Threads for each part in which a query runs at a time: while some compute without a pause, others have their turn by the
/// system's scheduler.
const THREADS_PER_PART: usize = 4;

/// Runs queries; what still runs when it is dropped is given up.
pub(crate) struct QueryThreads(Option<Runtime>);

impl QueryThreads {
    /// Starts threads for queries that run in so many parts.
    pub(crate) fn new(parts: usize) -> Result<Self> {
        let threads = parts.saturating_mul(THREADS_PER_PART).max(THREADS_PER_PART);
        let runtime = Builder::new_multi_thread().worker_threads(threads).thread_name("query").enable_all().build();
        let runtime = runtime.map_err(|cause| Error::stop("start threads for queries").because(cause))?;
        Ok(Self(Some(runtime)))
    }

    pub(crate) fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.0.as_ref().expect("they run until they are dropped").spawn(work)
    }
}

impl Drop for QueryThreads {
    fn drop(&mut self) {
        // Waiting for them is not allowed where futures run.
        self.0.take().into_iter().for_each(Runtime::shutdown_background);
    }
}
