//! `up`: everything in one process.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use acquisition::Collectors;
use anyhow::{Context, Result};
use contract::metric;
use monitoring::{Health, State};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::Control;
use super::collecting::{collectors, first_failure, start_collectors};
use super::role::{open, services};
use crate::broker::{Access, Broker, OpenLog, Work};
use crate::settings::Settings;
use crate::{running, signals, sql_clients};

/// Runs until Ctrl-C or SIGTERM, then drains and ends.
pub(crate) async fn run(settings: &Settings, data: &Path, sample: bool) -> Result<ExitCode> {
    let asked_to_end = signals::listen();
    let metrics = monitoring::install_metrics()?;
    metric::UP.set(&[env!("CARGO_PKG_VERSION")], 1.0);
    let stop = CancellationToken::new();
    // The engines outlive what feeds them: collectors end first, then the pipelines drain.
    let drain = CancellationToken::new();
    let (broker, mut work) = tokio::select! {
        begun = begin(settings, data, &drain) => begun?,
        // A hot store that is filled anew takes long; nothing was collected yet, and what is half done is done again.
        () = asked_to_end.cancelled() => return Ok(ExitCode::SUCCESS),
    };
    let health = Arc::new(Health::new());
    let control = Arc::new(Control::new(broker.clone(), &work, stop.clone()));
    let all: Vec<_> = broker.sources.iter().collect();
    let Collectors { polled, webhooks } = collectors(&broker, &all, sample)?;
    let services = services(&broker, control, webhooks, metrics, &health, &stop);
    let server = serving::serve(&settings.serving_in_force(), services, stop.clone().cancelled_owned()).await?;
    let kafka = match &broker.log {
        OpenLog::Embedded(log) => embedded_log::kafka::serve(log.clone(), stop.clone()).await?,
        OpenLog::Kafka { .. } => None,
    };
    let sql = sql_clients::serve(&broker, stop.clone()).await?;
    let _announced = running::announce(data, &server, kafka.as_ref().map(|kafka| kafka.address), &sql)?;
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
    sql.ended().await;
    if let Some(kafka) = kafka {
        kafka.ended().await;
    }
    info!("ended in good order");
    Ok(ExitCode::SUCCESS)
}

/// Opens the engines and starts what joins them.
async fn begin(settings: &Settings, data: &Path, drain: &CancellationToken) -> contract::Result<(Arc<Broker>, Work)> {
    let broker = open(settings, data, Access::Write, drain).await?;
    let mut work = broker.start(drain, drain).await?;
    work.keep_views(&broker, drain);
    Ok((broker, work))
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
