//! `collect`, `process` and `serve`: what `up` does in one process, in several, with Kafka between them.
//!
//! ```text
//! collect ──► Kafka ──► process, process, … ──► both stores ──► serve
//! ```
//!
//! Each collector runs once: a second instance takes over, and the first one ends. Of `process` there are as many as one likes, up
//! to the number of partitions; they share these as a consumer group. `serve` reads the stores and needs no Kafka.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use acquisition::{Collectors, Source};
use anyhow::{Context, Result};
use contract::{Error, Webhook, metric};
use monitoring::{Health, Metrics, State};
use serving::Server;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::Control;
use super::collecting::{collectors, first_failure, start_collectors};
use super::role::{open, services};
use crate::broker::{Access, Broker, Work};
use crate::settings::Settings;
use crate::{signals, sql_clients};

/// One process of several.
struct Role {
    name: &'static str,
    broker: Arc<Broker>,
    metrics: Metrics,
    health: Arc<Health>,
    asked_to_end: CancellationToken,
    /// Ends what is served and measured.
    stop: CancellationToken,
}

impl Role {
    /// Opens the engines; none if the user ends it before.
    async fn open(name: &'static str, settings: &Settings, data: &Path, access: Access) -> Result<Option<Self>> {
        let asked_to_end = signals::listen();
        let metrics = monitoring::install_metrics()?;
        metric::UP.set(&[env!("CARGO_PKG_VERSION")], 1.0);
        let give_up = CancellationToken::new();
        let broker = tokio::select! {
            opened = open(settings, data, access, &give_up) => opened?,
            () = asked_to_end.cancelled() => return Ok(None),
        };
        let (health, stop) = (Arc::new(Health::new()), CancellationToken::new());
        Ok(Some(Self { name, broker, metrics, health, asked_to_end, stop }))
    }

    /// Answers over HTTP; Elasticsearch's REST only where searches are this process's work.
    async fn serve(&self, webhooks: Vec<Arc<dyn Webhook>>) -> contract::Result<Server> {
        let mut settings = self.broker.settings.serving_in_force();
        if self.broker.access != Access::Serve {
            settings.elasticsearch_listen = String::new();
        }
        let control = Arc::new(Control::reading(self.broker.clone(), self.stop.clone()));
        let services = services(&self.broker, control, webhooks, self.metrics.clone(), &self.health, &self.stop);
        let server = serving::serve(&settings, services, self.stop.clone().cancelled_owned()).await?;
        let (version, data) = (env!("CARGO_PKG_VERSION"), self.broker.data.display());
        info!(http = %server.http, "databroker {version} {}s: status and metrics of `{data}` at http://{}/", self.name, server.http);
        if let Some(address) = server.elasticsearch {
            info!("search: http://{address}/SOURCE/_search");
        }
        self.health.set(self.name, State::Ready);
        Ok(server)
    }

    /// Waits until the user asks to end.
    ///
    /// # Errors
    /// What makes the process fail before.
    async fn until_asked(&self, failed: impl Future<Output = Error>) -> Result<()> {
        tokio::select! {
            () = self.asked_to_end.cancelled() => Ok(()),
            error = failed => {
                self.health.set(self.name, State::Failed(error.to_string()));
                error!("{error}; ending");
                Err(error.into())
            }
        }
    }

    async fn end(&self, server: Server) -> ExitCode {
        self.stop.cancel();
        server.ended().await;
        info!("ended in good order");
        ExitCode::SUCCESS
    }
}

/// Runs collectors of some sources (all where none is named) until Ctrl-C or SIGTERM; what they hold then goes to Kafka.
pub(crate) async fn collect(settings: &Settings, data: &Path, sources: &[String], sample: bool) -> Result<ExitCode> {
    let named =
        sources.iter().map(|name| acquisition::source(name)).collect::<contract::Result<Vec<&'static Source>>>()?;
    let Some(role) = Role::open("collect", settings, data, Access::Collect).await? else {
        return Ok(ExitCode::SUCCESS);
    };
    let sources: Vec<_> = if named.is_empty() { role.broker.sources.iter().collect() } else { named };
    let (engines, ids) = (&role.broker.engines, role.broker.sources.iter().map(|source| source.id));
    let begun = processing::until_done("engines", &engines.troubles, &role.asked_to_end, || {
        Box::pin(processing::begin_after_stores(engines, ids.clone()))
    });
    begun.await?;
    let Collectors { polled, webhooks } = collectors(&role.broker, &sources, sample)?;
    let server = role.serve(webhooks).await?;
    let stop = CancellationToken::new();
    let mut running: JoinSet<_> = start_collectors(&role.broker, polled, &stop);
    role.until_asked(first_failure(&mut running)).await?;
    info!("ending: what was collected goes to Kafka");
    stop.cancel();
    while let Some(ended) = running.join_next().await {
        ended.context("end a collector")??;
    }
    Ok(role.end(server).await)
}

/// Brings records from Kafka into both stores until Ctrl-C or SIGTERM: those of the partitions that the group gives it.
pub(crate) async fn process(settings: &Settings, data: &Path) -> Result<ExitCode> {
    let Some(role) = Role::open("process", settings, data, Access::Process).await? else {
        return Ok(ExitCode::SUCCESS);
    };
    let server = role.serve(Vec::new()).await?;
    let drain = CancellationToken::new();
    let mut work: Work = role.broker.start(&drain, &role.asked_to_end).await?;
    work.keep_views(&role.broker, &drain);
    role.until_asked(work.failed()).await?;
    info!("ending: what was read goes into both stores, and others get this process's partitions");
    drain.cancel();
    work.drained().await?;
    Ok(role.end(server).await)
}

/// Answers searches, SQL and commands that read, until Ctrl-C or SIGTERM.
pub(crate) async fn serve(settings: &Settings, data: &Path) -> Result<ExitCode> {
    let Some(role) = Role::open("serve", settings, data, Access::Serve).await? else { return Ok(ExitCode::SUCCESS) };
    let server = role.serve(Vec::new()).await?;
    let sql = sql_clients::serve(&role.broker, role.stop.clone()).await?;
    let measuring = tokio::spawn(role.broker.clone().measure_until(role.stop.clone()));
    role.until_asked(std::future::pending()).await?;
    let code = role.end(server).await;
    sql.ended().await;
    measuring.await.context("measure how far behind the stores are")?;
    Ok(code)
}
