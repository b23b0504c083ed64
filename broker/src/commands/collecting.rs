//! Collectors at work, in `up` and in `collect`.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use acquisition::{Collectors, OpenFile, Source};
use contract::{Appended, Collector, Error, Harvest, Remedy};
use futures::FutureExt;
use processing::{Collected, Engines};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::broker::Broker;

/// Before a feed is tried again that failed for good, the first time and the longest.
const FEED_RETRY: Duration = Duration::from_secs(5 * 60);
const FEED_RETRY_MAX: Duration = Duration::from_secs(86_400);

/// The collectors of some sources, as set; of the samples if so asked.
pub(crate) fn collectors(broker: &Broker, sources: &[&'static Source], sample: bool) -> contract::Result<Collectors> {
    let context = broker.context();
    let mut all = Collectors::default();
    for source in sources {
        if sample {
            let OpenFile { collector, .. } = (source.sample)(&context);
            all.polled.push(collector);
        } else {
            let Collectors { polled, webhooks } = (source.collectors)(&broker.settings.acquisition, &context)?;
            all.polled.extend(polled);
            all.webhooks.extend(webhooks);
        }
    }
    Ok(all)
}

/// One task a collector; a collector that ends (a sample) is no failure.
pub(crate) fn start_collectors(
    broker: &Arc<Broker>,
    collectors: Vec<Box<dyn Collector>>,
    stop: &CancellationToken,
) -> JoinSet<contract::Result<()>> {
    let mut tasks = JoinSet::new();
    for mut collector in collectors {
        let (broker, stop) = (broker.clone(), stop.clone());
        tasks.spawn(async move {
            let id = collector.id();
            let collected = keep_collecting(&mut *collector, &broker.engines, &stop, FEED_RETRY).await?;
            info!(collector = %id, records = collected.records, bytes = collected.bytes, "`{id}` has ended");
            Ok(())
        });
    }
    tasks
}

/// Runs a collector to its end. A feed is one of many, and what publishers send must not end the process: where it fails
/// for good or panics it is tried again after `retry`, then twice as long each time, up to a day.
async fn keep_collecting(
    collector: &mut dyn Collector,
    engines: &Engines,
    stop: &CancellationToken,
    retry: Duration,
) -> contract::Result<Collected> {
    let id = collector.id();
    let is_feed = id.0.contains("/feed/");
    let mut wait = Duration::ZERO;
    loop {
        let started = Instant::now();
        let works = |_: &Harvest, _: &Appended| engines.troubles.clear(&id.0);
        let collecting = AssertUnwindSafe(processing::collect(collector, engines, stop, works)).catch_unwind();
        let ended = collecting.await.unwrap_or_else(|_| {
            let remedy = if is_feed { Remedy::Change } else { Remedy::Stop };
            Err(Error::new(remedy, format!("run `{id}`: it panicked")))
        });
        let error = match ended {
            Err(error) if is_feed && error.remedy() == Remedy::Change => error,
            ended => return ended,
        };
        engines.troubles.note(&id.0, &error);
        wait = if started.elapsed() > wait { retry } else { (wait * 2).min(FEED_RETRY_MAX) };
        warn!(collector = %id, wait_ms = wait.as_millis() as u64, "`{id}`: {error}; trying again");
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stop.cancelled() => return Ok(Collected::default()),
        }
    }
}

/// Resolves when a collector fails for good; never while all go on or have ended well.
pub(crate) async fn first_failure(collectors: &mut JoinSet<contract::Result<()>>) -> Error {
    while let Some(ended) = collectors.join_next().await {
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return error,
            Err(panic) => return Error::stop("run a collector").because(panic),
        }
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use contract::{CollectorId, Cursor, SourceId};

    use super::*;
    use crate::broker::Access;
    use crate::settings::Settings;

    /// Fails in each way that is for good, then ends.
    struct Failing {
        id: &'static str,
        polls: usize,
    }

    #[async_trait::async_trait]
    impl Collector for Failing {
        fn id(&self) -> CollectorId {
            CollectorId(self.id.to_owned())
        }

        async fn poll(&mut self, cursor: &Cursor) -> contract::Result<Harvest> {
            self.polls += 1;
            match self.polls {
                1 => Err(Error::change("read what a publisher sent")),
                2 => panic!("for the test"),
                _ => Ok(Harvest {
                    source: SourceId("news"),
                    collector: self.id(),
                    records: Vec::new(),
                    coverage: Vec::new(),
                    cursor: cursor.clone(),
                    poll_again_in: None,
                    acknowledge: None,
                }),
            }
        }
    }

    #[tokio::test]
    async fn a_feed_that_fails_for_good_or_panics_is_tried_again_and_other_collectors_end_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let broker = Broker::open(&Settings::default(), folder.path(), Access::Write).await.unwrap();
        let (engines, stop) = (&broker.engines, CancellationToken::new());
        let retry = Duration::from_millis(1);
        let mut feed = Failing { id: "news/feed/https://a.example/", polls: 0 };
        keep_collecting(&mut feed, engines, &stop, retry).await.unwrap();
        assert_eq!((feed.polls, engines.troubles.all().len()), (3, 0));
        for (polls, remedy) in [(0, Remedy::Change), (1, Remedy::Stop)] {
            let mut other = Failing { id: "github/events", polls };
            let error = keep_collecting(&mut other, engines, &stop, retry).await.unwrap_err();
            assert_eq!(error.remedy(), remedy);
        }
    }
}
