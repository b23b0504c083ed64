//! The wiring: opens the engines below the data directory and starts what joins them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use acquisition::Source;
use contract::{Error, Log, Remedy, Result, SourceId, SystemClock, metric};
use embedded_log::EmbeddedLog;
use kafka_log::KafkaLog;
use processing::{CommitPolicy, Engines, Pipeline, PipelineHandle, Recipe};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::settings::Settings;

/// How long the end waits for a compaction: what it has not committed is done again, and loses nothing.
const JANITOR_WAIT: std::time::Duration = std::time::Duration::from_secs(2);

/// Whether this process may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Reads what is committed; another process may write at the same time.
    Read,
    /// Owns the data directory.
    Write,
}

/// The log, opened: which one, for what only one of them can do.
pub(crate) enum OpenLog {
    /// On this disk.
    Embedded(Arc<EmbeddedLog>),
    /// On a cluster; the file holds the data directory for this process.
    Kafka { log: Arc<KafkaLog>, _held: Option<std::fs::File> },
}

impl OpenLog {
    /// Opens Kafka if it is set, else the folder. Answers what the user should know of it, too.
    pub(crate) async fn open(
        settings: &Settings,
        folder: &Path,
        sources: &[SourceId],
        access: Access,
    ) -> Result<(Self, Vec<String>)> {
        let clock = Arc::new(SystemClock);
        let kafka = settings.kafka.clone();
        match access {
            Access::Read if kafka.is_set() => {
                let log = KafkaLog::open_read_only(kafka, sources, clock).await?;
                Ok((Self::Kafka { log: Arc::new(log), _held: None }, Vec::new()))
            }
            Access::Write if kafka.is_set() => {
                let held = embedded_log::hold(folder)?;
                let log = KafkaLog::open(kafka, sources, clock).await?;
                log.created().iter().for_each(|topic| info!("topic `{topic}` was created"));
                Ok((Self::Kafka { log: Arc::new(log), _held: Some(held) }, Vec::new()))
            }
            // A reader meets the end of a log that is being written, which is no damage.
            Access::Read => {
                let (log, _) = EmbeddedLog::open_read_only(folder, clock)?;
                Ok((Self::Embedded(Arc::new(log)), Vec::new()))
            }
            Access::Write => {
                let (log, recovery) = EmbeddedLog::open(folder, sources, settings.log.clone(), clock)?;
                let damage = (!recovery.is_clean()).then(|| recovery.to_string());
                Ok((Self::Embedded(Arc::new(log)), damage.into_iter().collect()))
            }
        }
    }

    /// As every engine behind the same trait.
    pub(crate) fn log(&self) -> Arc<dyn Log> {
        match self {
            Self::Embedded(log) => log.clone(),
            Self::Kafka { log, .. } => log.clone(),
        }
    }
}

/// The engines of one data directory, opened.
pub(crate) struct Broker {
    pub(crate) settings: Settings,
    pub(crate) data: PathBuf,
    pub(crate) access: Access,
    pub(crate) engines: Engines,
    pub(crate) log: OpenLog,
    pub(crate) cold: Arc<cold_store::DeltaStore>,
    pub(crate) sources: &'static [Source],
    /// Damage found and mended at the start, for the user.
    pub(crate) notes: Vec<String>,
}

impl Broker {
    /// Opens the engines below `data`.
    pub(crate) async fn open(settings: &Settings, data: &Path, access: Access) -> Result<Self> {
        let clock = Arc::new(SystemClock);
        let sources = acquisition::SOURCES;
        let ids: Vec<_> = sources.iter().map(|source| source.id).collect();
        let schemas: Vec<_> = sources.iter().map(|source| source.schema).collect();
        let [log_dir, hot_dir, cold_dir] = ["log", "hot", "cold"].map(|name| data.join(name));
        if access == Access::Read && !log_dir.exists() {
            let doing = format!(
                "open data directory `{}`: there is nothing in it yet; `up` or `backfill` fill it",
                data.display()
            );
            return Err(Error::change(doing));
        }
        if access == Access::Write {
            acquisition::prepare(&settings.acquisition)?;
            std::fs::create_dir_all(data)
                .map_err(|cause| Error::change(format!("create data directory `{}`", data.display())).because(cause))?;
        }
        let (log, mut notes) = OpenLog::open(settings, &log_dir, &ids, access).await?;
        let (hot, hot_notes) = crate::hot::open(settings, &hot_dir, &schemas, clock.clone(), access).await?;
        let cold = match access {
            Access::Read => {
                cold_store::DeltaStore::open_read_only(&cold_dir, &schemas, settings.cold.clone(), clock.clone())
                    .await?
            }
            Access::Write => {
                cold_store::DeltaStore::open(&cold_dir, &schemas, settings.cold.clone(), clock.clone()).await?
            }
        };
        notes.extend(hot_notes);
        notes.iter().for_each(|note| warn!("{note}"));
        let cold = Arc::new(cold);
        let engines = Engines { log: log.log(), hot, cold: cold.clone(), clock, troubles: Arc::default() };
        Ok(Self { settings: settings.clone(), data: data.to_owned(), access, engines, log, cold, sources, notes })
    }

    /// A source by name.
    pub(crate) fn source(&self, name: &str) -> Result<&'static Source> {
        acquisition::source(name)
    }

    /// What collectors are given.
    pub(crate) fn context(&self) -> acquisition::Context {
        let harvest = acquisition::HarvestSize {
            records_max: self.settings.backfill.records_max,
            bytes_max: self.settings.backfill.bytes_max,
        };
        acquisition::Context { clock: self.engines.clock.clone(), harvest }
    }

    /// Starts every source's pipeline, the coverage ledger and the janitor; all end after `stop`. A peer that goes away
    /// meanwhile is waited for, until `give_up`.
    pub(crate) async fn start(self: &Arc<Self>, stop: &CancellationToken, give_up: &CancellationToken) -> Result<Work> {
        let troubles = &self.engines.troubles;
        let coverage = processing::until_done("coverage", troubles, give_up, || {
            Box::pin(processing::start_coverage(self.engines.clone(), stop.clone()))
        });
        let coverage = coverage.await?;
        let mut pipelines = Vec::new();
        for source in self.sources {
            let started =
                processing::until_done(source.id.0, troubles, give_up, || Box::pin(self.start_pipeline(source, stop)));
            pipelines.push(started.await?);
        }
        let janitor = tokio::spawn(self.clone().janitor(stop.clone()));
        Ok(Work { pipelines, coverage, janitor })
    }

    async fn start_pipeline(&self, source: &'static Source, stop: &CancellationToken) -> Result<PipelineHandle> {
        let cold = CommitPolicy {
            interval: std::time::Duration::from_millis(self.settings.cold.commit_interval_ms),
            backlog_interval: std::time::Duration::from_millis(self.settings.cold.commit_interval_ms),
            bytes_max: self.settings.cold.commit_bytes_max as u64,
        };
        let pipeline = Pipeline {
            engines: self.engines.clone(),
            recipe: recipe(source),
            hot: self.settings.processing.hot_policy(),
            cold,
            batch_bytes_max: self.settings.processing.batch_bytes_max,
        };
        pipeline.start(stop.clone()).await
    }

    /// Lets hot days go, keeps the cold tables tidy, and says how far behind the stores are.
    async fn janitor(self: Arc<Self>, stop: CancellationToken) {
        let interval = std::time::Duration::from_millis(self.settings.processing.janitor_interval_ms);
        let mut lag = tokio::time::interval(std::time::Duration::from_secs(5));
        let mut tidy = tokio::time::interval(interval);
        tidy.tick().await;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = lag.tick() => self.measure().await,
                _ = tidy.tick() => self.tidy().await,
            }
        }
    }

    async fn tidy(&self) {
        for source in self.sources {
            if let Err(error) = self.expire(source).await {
                warn!(source = source.id.0, "days past the retention stay longer: {error}");
            }
        }
        let started = std::time::Instant::now();
        match self.engines.cold.maintain().await {
            Ok(done) => done.iter().for_each(|line| info!("{line}")),
            Err(error) => warn!("the cold store was not maintained: {error}"),
        }
        metric::MAINTENANCE_SECONDS.observe(&[], started.elapsed().as_secs_f64());
    }

    async fn expire(&self, source: &Source) -> Result<()> {
        let cold = self.engines.cold.committed(source.id).await?;
        let expired = self.engines.hot.expire(source.id, self.engines.clock.now(), &cold).await?;
        for index in &expired.removed {
            info!(source = source.id.0, "`{index}` left the hot store");
        }
        metric::HOT_EXPIRED.add(&[source.id.0], expired.removed.len() as u64);
        metric::HOT_WAITING.set(&[source.id.0], expired.waiting.len() as f64);
        Ok(())
    }

    async fn measure(&self) {
        for source in self.sources {
            // What cannot be read now is measured five seconds later.
            self.measure_source(source).await.unwrap_or_default();
        }
    }

    async fn measure_source(&self, source: &Source) -> Result<()> {
        for lag in crate::commands::lags(self, source).await? {
            metric::LAG_RECORDS.set(&[source.id.0, lag.store], lag.records as f64);
            metric::LAG_SECONDS.set(&[source.id.0, lag.store], lag.seconds);
        }
        let indices = self.engines.hot.indices(&format!("{}-*", source.id)).await;
        metric::HOT_INDICES.set(&[source.id.0], indices.map_or(0, |indices| indices.len()) as f64);
        Ok(())
    }
}

/// What runs beside the collectors.
pub(crate) struct Work {
    pub(crate) pipelines: Vec<PipelineHandle>,
    coverage: tokio::task::JoinHandle<Result<()>>,
    janitor: tokio::task::JoinHandle<()>,
}

impl Work {
    /// Waits until a pipeline or the ledger ends: only an error makes them, before `stop`.
    pub(crate) async fn failed(&mut self) -> Error {
        let coverage = &mut self.coverage;
        let pipelines = self.pipelines.iter_mut().map(|pipeline| Box::pin(pipeline.ended()));
        let ended = tokio::select! {
            (ended, ..) = futures::future::select_all(pipelines) => ended,
            ended = coverage => ended.unwrap_or_else(|panic| Err(Error::stop("run the ledger").because(panic))),
        };
        ended.err().unwrap_or_else(|| Error::new(Remedy::Stop, "keep the pipelines running: one ended"))
    }

    /// Waits until all that was read is in both stores; `stop` was said before.
    pub(crate) async fn drained(mut self) -> Result<()> {
        for pipeline in &mut self.pipelines {
            pipeline.ended().await?;
        }
        let panicked = |panic: tokio::task::JoinError| Error::stop("end").because(panic);
        self.coverage.await.map_err(panicked)??;
        match tokio::time::timeout(JANITOR_WAIT, &mut self.janitor).await {
            Ok(ended) => ended.map_err(panicked),
            Err(_) => {
                self.janitor.abort();
                info!("a compaction was left for the next start");
                Ok(())
            }
        }
    }
}

/// What makes rows of a source.
pub(crate) fn recipe(source: &'static Source) -> Recipe {
    Recipe { schema: source.schema, processor: source.processor }
}
