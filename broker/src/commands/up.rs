//! `up`: everything in one process.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use acquisition::{Collectors, OpenFile};
use anyhow::{Context, Result};
use contract::{Collector, Error, Webhook, metric};
use monitoring::{Health, Metrics, State};
use serving::Services;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::Control;
use crate::broker::{Access, Broker};
use crate::settings::Settings;
use crate::{running, signals};

/// Runs until Ctrl-C or SIGTERM, then drains and ends.
pub(crate) async fn run(settings: &Settings, data: &Path, sample: bool) -> Result<ExitCode> {
    let asked_to_end = signals::listen();
    let metrics = monitoring::install_metrics()?;
    metric::UP.set(&[env!("CARGO_PKG_VERSION")], 1.0);
    let stop = CancellationToken::new();
    // The engines outlive what feeds them: collectors end first, then the pipelines drain.
    let drain = CancellationToken::new();
    let opened = async {
        let broker = Arc::new(Broker::open(settings, data, Access::Write).await?);
        let work = broker.start(&drain).await?;
        Ok::<_, Error>((broker, work))
    };
    let (broker, mut work) = tokio::select! {
        opened = opened => opened?,
        // A hot store that is filled anew takes long; nothing was collected yet, and what is half done is done again.
        () = asked_to_end.cancelled() => return Ok(ExitCode::SUCCESS),
    };
    let health = Arc::new(Health::new());
    let control = Arc::new(Control::new(broker.clone(), &work, stop.clone()));
    let Collectors { polled, webhooks } = collectors(&broker, sample)?;
    let services = services(&broker, control, webhooks, metrics, &health);
    let server = serving::serve(&settings.serving, services, stop.clone().cancelled_owned()).await?;
    let _announced = running::announce(data, &server)?;
    let mut collectors = start_collectors(&broker, polled, &stop);
    greet(&broker, &server, sample);
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
    info!("ended in good order");
    Ok(ExitCode::SUCCESS)
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
            let collected = processing::collect(&mut *collector, &broker.engines, &stop, |_, _| {}).await?;
            info!(collector = %id, records = collected.records, bytes = collected.bytes, "`{id}` has ended");
            Ok(())
        });
    }
    tasks
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
    info!(http = %server.http, elasticsearch = %server.elasticsearch, "databroker {} serves `{}`", env!("CARGO_PKG_VERSION"), broker.data.display());
    info!("search: http://{}/SOURCE/_search · SQL, status, metrics: http://{}/", server.elasticsearch, server.http);
    if sample {
        info!("samples of all sources, with their times moved to end now; nothing is fetched");
    }
}
