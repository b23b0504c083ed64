//! `up`: everything in one process.

use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use acquisition::{Collectors, OpenFile};
use anyhow::{Context, Result};
use contract::{Appended, Collector, Error, Harvest, Remedy, Webhook, metric};
use futures::FutureExt;
use monitoring::{Health, Metrics, State};
use processing::{Collected, Engines, Troubles};
use serving::Services;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::Control;
use crate::broker::{Access, Broker, OpenLog, Work};
use crate::settings::Settings;
use crate::{running, signals};

/// Before a feed is tried again that failed for good, the first time and the longest.
const FEED_RETRY: Duration = Duration::from_secs(5 * 60);
const FEED_RETRY_MAX: Duration = Duration::from_secs(86_400);

/// Runs until Ctrl-C or SIGTERM, then drains and ends.
pub(crate) async fn run(settings: &Settings, data: &Path, sample: bool) -> Result<ExitCode> {
    let asked_to_end = signals::listen();
    let metrics = monitoring::install_metrics()?;
    metric::UP.set(&[env!("CARGO_PKG_VERSION")], 1.0);
    let stop = CancellationToken::new();
    // The engines outlive what feeds them: collectors end first, then the pipelines drain.
    let drain = CancellationToken::new();
    let (broker, mut work) = tokio::select! {
        opened = open(settings, data, &drain) => opened?,
        // A hot store that is filled anew takes long; nothing was collected yet, and what is half done is done again.
        () = asked_to_end.cancelled() => return Ok(ExitCode::SUCCESS),
    };
    let health = Arc::new(Health::new());
    let control = Arc::new(Control::new(broker.clone(), &work, stop.clone()));
    let Collectors { polled, webhooks } = collectors(&broker, sample)?;
    let services = services(&broker, control, webhooks, metrics, &health);
    let server = serving::serve(&settings.serving_in_force(), services, stop.clone().cancelled_owned()).await?;
    let kafka = match &broker.log {
        OpenLog::Embedded(log) => embedded_log::kafka::serve(log.clone(), stop.clone()).await?,
        OpenLog::Kafka { .. } => None,
    };
    let _announced = running::announce(data, &server, kafka.as_ref().map(|kafka| kafka.address))?;
    let mut collectors = start_collectors(&broker, polled, &stop);
    greet(&broker, &server, sample);
    if let Some(kafka) = &kafka {
        info!(kafka = %kafka.address, "the log answers Kafka's protocol: kcat -b {} -L", kafka.address);
    }
    health.set("pipelines", State::Ready);

    let failed = tokio::select! {
        () = asked_to_end.cancelled() => None,
        error = work.failed() => Some(error),
        error = first_failure(&mut collectors) => Some(error),
    };
    if let Some(error) = failed {
        health.set("pipelines", State::Failed(error.to_string()));
        error!("{error}; ending");
        return Err(error.into());
    }
    info!("ending: collecting stops, what was collected goes into both stores");
    stop.cancel();
    while let Some(ended) = collectors.join_next().await {
        ended.context("end a collector")??;
    }
    drain.cancel();
    work.drained().await?;
    server.ended().await;
    if let Some(kafka) = kafka {
        kafka.ended().await;
    }
    info!("ended in good order");
    Ok(ExitCode::SUCCESS)
}

/// Opens the engines and starts what joins them. A Kafka or an Elasticsearch that is away is waited for with a warning:
/// after a power cut all start at the same time. Nothing answers here until then, so that the process is not ready.
async fn open(settings: &Settings, data: &Path, drain: &CancellationToken) -> contract::Result<(Arc<Broker>, Work)> {
    let troubles = Troubles::default();
    let opened =
        processing::until_done("engines", &troubles, drain, || Box::pin(Broker::open(settings, data, Access::Write)));
    let broker = Arc::new(opened.await?);
    let work = broker.start(drain, drain).await?;
    Ok((broker, work))
}

fn services(
    broker: &Arc<Broker>,
    control: Arc<Control>,
    webhooks: Vec<Arc<dyn Webhook>>,
    metrics: Metrics,
    health: &Arc<Health>,
) -> Services {
    let (health, troubles) = (health.clone(), broker.engines.troubles.clone());
    let known = std::sync::Mutex::new(std::collections::BTreeSet::new());
    let ready = move || {
        // What is being tried again degrades; what works again is ready.
        let mut present = troubles.all();
        // Of many feeds some always fail: that is for the log and the metrics.
        present.retain(|part, _| !part.contains("/feed/"));
        let mut known = known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        known.extend(present.keys().cloned());
        for part in known.iter() {
            health.set(part, present.get(part).map_or(State::Ready, |reason| State::Degraded(reason.clone())));
        }
        health.ready()
    };
    Services {
        hot: broker.engines.hot.clone(),
        cold: broker.engines.cold.clone(),
        control,
        webhooks,
        metrics: Arc::new(move || metrics.render()),
        health: Arc::new(ready),
    }
}

/// The collectors of all sources, as set; of the samples if so asked.
fn collectors(broker: &Broker, sample: bool) -> contract::Result<Collectors> {
    let context = broker.context();
    let mut all = Collectors::default();
    for source in broker.sources {
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
fn start_collectors(
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
async fn first_failure(collectors: &mut JoinSet<contract::Result<()>>) -> Error {
    while let Some(ended) = collectors.join_next().await {
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return error,
            Err(panic) => return Error::stop("run a collector").because(panic),
        }
    }
    std::future::pending().await
}

fn greet(broker: &Broker, server: &serving::Server, sample: bool) {
    info!(http = %server.http, "databroker {} serves `{}`", env!("CARGO_PKG_VERSION"), broker.data.display());
    let search = match server.elasticsearch {
        Some(address) => format!("http://{address}/SOURCE/_search"),
        None => format!("Elasticsearch at {}", broker.settings.elasticsearch.hosts_shown()),
    };
    info!("search: {search} · SQL, status, metrics: http://{}/", server.http);
    if sample {
        info!("samples of all sources, with their times moved to end now; nothing is fetched");
    }
}

#[cfg(test)]
mod tests {
    use contract::{CollectorId, Cursor, SourceId};

    use super::*;
    use crate::broker::Access;

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
