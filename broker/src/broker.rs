//! The wiring: opens the engines below the data directory and starts what joins them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use acquisition::Source;
use cold_store::DeltaStore;
use contract::{
    Assignments, ColdDrafts, Error, HotDrafts, HotStore, Log, Remedy, Result, SourceId, SystemClock, Topic, metric,
};
use embedded_log::EmbeddedLog;
use kafka_log::{KafkaLog, Member};
use processing::{CommitPolicy, Engines, Pipeline, PipelineHandle, Recipe, Reprocess};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::lag::{Ends, LagTable};
use crate::settings::Settings;

/// How long the end waits for a compaction: what it has not committed is done again, and loses nothing.
const JANITOR_WAIT: std::time::Duration = std::time::Duration::from_secs(2);

/// Held while an exchange is finished.
const REPROCESS_LOCK: &str = "reprocess.lock";

/// How often it is measured how far behind the stores are.
const LAG_INTERVAL: std::time::Duration = std::time::Duration::from_secs(5);

/// What this process does with the engines of a data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Reads what is committed; others may write at the same time.
    Read,
    /// The same for long: what is not there yet, and a Kafka that is away, does not matter.
    Serve,
    /// Appends to Kafka, and reads the stores.
    Collect,
    /// Writes the stores, beside others that do.
    Process,
    /// Owns the data directory.
    Write,
    /// The same, to make silver of a source anew: it may have other columns until then, and takes no rows.
    Remake(SourceId),
}

impl Access {
    /// Whether it has the data directory for itself.
    pub(crate) fn is_alone(self) -> bool {
        matches!(self, Self::Write | Self::Remake(_))
    }
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
        if settings.kafka.is_set() {
            return Ok((Self::open_kafka(settings, folder, sources, access, clock).await?, Vec::new()));
        }
        match access {
            Access::Write | Access::Remake(_) => {
                let (log, recovery) = EmbeddedLog::open(folder, sources, settings.log.clone(), clock)?;
                let damage = (!recovery.is_clean()).then(|| recovery.to_string());
                Ok((Self::Embedded(Arc::new(log)), damage.into_iter().collect()))
            }
            // A reader meets the end of a log that is being written, which is no damage.
            Access::Read | Access::Serve => {
                let (log, _) = EmbeddedLog::open_read_only(folder, clock)?;
                Ok((Self::Embedded(Arc::new(log)), Vec::new()))
            }
            Access::Collect | Access::Process => Err(Error::change(
                "share the work between processes without a Kafka: set KAFKA_BOOTSTRAP_SERVERS to HOST:PORT of one, or run \
                 `up`, which does all in one process",
            )),
        }
    }

    async fn open_kafka(
        settings: &Settings,
        folder: &Path,
        sources: &[SourceId],
        access: Access,
        clock: Arc<SystemClock>,
    ) -> Result<Self> {
        let kafka = settings.kafka.clone();
        let held = match access {
            Access::Read | Access::Serve | Access::Collect => None,
            Access::Process => Some(embedded_log::hold_together(folder)?),
            Access::Write | Access::Remake(_) => Some(embedded_log::hold(folder)?),
        };
        let log = match access {
            Access::Read => KafkaLog::open_read_only(kafka, sources, clock).await?,
            Access::Serve => KafkaLog::open_later(kafka, sources, clock)?,
            Access::Collect | Access::Process | Access::Write | Access::Remake(_) => {
                KafkaLog::open(kafka, sources, clock).await?
            }
        };
        log.created().iter().for_each(|topic| info!("topic `{topic}` was created"));
        Ok(Self::Kafka { log: Arc::new(log), _held: held })
    }

    /// As every engine behind the same trait.
    pub(crate) fn log(&self) -> Arc<dyn Log> {
        match self {
            Self::Embedded(log) => log.clone(),
            Self::Kafka { log, .. } => log.clone(),
        }
    }

    /// Kafka, if it is that.
    pub(crate) fn kafka(&self) -> Option<&Arc<KafkaLog>> {
        match self {
            Self::Embedded(_) => None,
            Self::Kafka { log, .. } => Some(log),
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
    /// This process in the group of those that share the partitions, if it does.
    member: Option<Arc<Member>>,
    pub(crate) hot: Arc<dyn HotDrafts>,
    pub(crate) cold: Arc<DeltaStore>,
    /// Held while a source's silver is made anew, which takes memory and disk.
    pub(crate) remaking: tokio::sync::Mutex<()>,
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
        settings.cold.check_clustering(&schemas)?;
        let [log_dir, hot_dir, cold_dir] = ["log", "hot", "cold"].map(|name| data.join(name));
        if access == Access::Read && !log_dir.exists() {
            let doing = format!(
                "open data directory `{}`: there is nothing in it yet; `up` or `backfill` fill it",
                data.display()
            );
            return Err(Error::change(doing));
        }
        if access.is_alone() || access == Access::Collect {
            acquisition::prepare(&settings.acquisition)?;
        }
        if access != Access::Read {
            // Whoever serves or collects may be the first.
            for folder in [data, &log_dir, &hot_dir, &cold_dir] {
                let doing = || format!("create data directory `{}`", folder.display());
                std::fs::create_dir_all(folder).map_err(|cause| Error::change(doing()).because(cause))?;
            }
        }
        let (log, mut notes) = OpenLog::open(settings, &log_dir, &ids, access).await?;
        let (hot, hot_notes) = crate::hot::open(settings, &hot_dir, &schemas, clock.clone(), access).await?;
        let (schemas, cold_settings) = (&schemas[..], settings.cold.clone());
        let cold = match access {
            Access::Read | Access::Serve | Access::Collect => {
                DeltaStore::open_read_only(&cold_dir, schemas, cold_settings, clock.clone()).await?
            }
            Access::Process => DeltaStore::open_shared(&cold_dir, schemas, cold_settings, clock.clone()).await?,
            Access::Write => DeltaStore::open(&cold_dir, schemas, cold_settings, clock.clone()).await?,
            Access::Remake(source) => {
                DeltaStore::open_to_remake(&cold_dir, schemas, cold_settings, clock.clone(), source).await?
            }
        };
        notes.extend(hot_notes);
        notes.iter().for_each(|note| warn!("{note}"));
        let cold = Arc::new(cold);
        let member = log.kafka().filter(|_| access == Access::Process).map(|log| log.member());
        let group = member.clone().map(|member| -> Arc<dyn Assignments> { member });
        let (behind, hot_too) = (Arc::downgrade(&cold), hot.clone() as Arc<dyn HotStore>);
        cold.show(Arc::new(LagTable { log: log.log(), hot: hot_too, cold: behind, clock: clock.clone(), sources }));
        let engines =
            Engines { log: log.log(), hot: hot.clone(), cold: cold.clone(), clock, group, troubles: Arc::default() };
        Ok(Self {
            settings: settings.clone(),
            data: data.to_owned(),
            access,
            engines,
            log,
            member,
            hot,
            cold,
            remaking: tokio::sync::Mutex::default(),
            sources,
            notes,
        })
    }

    /// A source by name.
    pub(crate) fn source(&self, name: &str) -> Result<&'static Source> {
        acquisition::source(name)
    }

    /// What lag is measured between.
    pub(crate) fn ends(&self) -> Ends<'_> {
        let engines = &self.engines;
        Ends { log: &*engines.log, hot: &*engines.hot, cold: &self.cold, clock: &*engines.clock }
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
        // One that is made anew because its columns are others takes no rows before.
        for source in self.sources.iter().filter(|source| !self.cold.is_of_other_columns(source.id)) {
            let started =
                processing::until_done(source.id.0, troubles, give_up, || Box::pin(self.start_pipeline(source, stop)));
            pipelines.push(started.await?);
        }
        let janitor = tokio::spawn(self.clone().janitor(stop.clone()));
        let leave = CancellationToken::new();
        let member = self.member.clone().map(|member| {
            let leave = leave.clone();
            tokio::spawn(async move { member.run(leave.cancelled_owned()).await })
        });
        Ok(Work { pipelines, coverage, janitor, views: None, member, leave })
    }

    /// What makes silver of a source anew.
    pub(crate) fn reprocess(&self, source: &'static Source) -> Reprocess {
        Reprocess {
            engines: self.engines.clone(),
            hot: self.hot.clone(),
            cold: self.cold.clone(),
            recipe: recipe(source),
            commit_bytes_max: self.settings.cold.commit_bytes_max,
        }
    }

    /// Does the rest of an exchange that a crash cut short. Several processes that start at once do it one after another.
    async fn finish_reprocess(&self, source: &'static Source) -> Result<()> {
        let failed = |cause| Error::stop(format!("lock `{REPROCESS_LOCK}` of the data directory")).because(cause);
        let path = self.data.join(REPROCESS_LOCK);
        let lock = move || std::fs::File::create(path).and_then(|file| file.lock().map(|()| file));
        let locked = tokio::task::spawn_blocking(lock).await;
        let _turn = locked.map_err(|panic| Error::stop("wait for a lock").because(panic))?.map_err(failed)?;
        if self.reprocess(source).finish().await? {
            info!(source = source.id.0, "`silver.{}` was made anew, and the hot store follows it now", source.id);
        }
        Ok(())
    }

    async fn start_pipeline(&self, source: &'static Source, stop: &CancellationToken) -> Result<PipelineHandle> {
        self.finish_reprocess(source).await?;
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
        let mut lag = tokio::time::interval(LAG_INTERVAL);
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

    /// Whether this process has the first partition of a topic: of several, one keeps what belongs to it tidy.
    fn has_first(&self, topic: &Topic) -> bool {
        self.engines.group.as_ref().is_none_or(|group| group.share(topic).partitions.contains(&0))
    }

    /// Whether this process keeps the results of views up to date: of several, one does.
    pub(crate) fn keeps_views(&self) -> bool {
        self.has_first(&Topic::coverage())
    }

    async fn tidy(&self) {
        for source in self.sources.iter().filter(|source| self.has_first(&Topic::raw(source.id))) {
            if let Err(error) = self.expire(source).await {
                warn!(source = source.id.0, "days past the retention stay longer: {error}");
            }
        }
        if !self.has_first(&Topic::coverage()) {
            return;
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

    /// Says every few seconds how far behind the stores are, until `stop`: for a process that does nothing to them.
    pub(crate) async fn measure_until(self: Arc<Self>, stop: CancellationToken) {
        let mut lag = tokio::time::interval(LAG_INTERVAL);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = lag.tick() => self.measure().await,
            }
        }
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
    /// The schedule of views, in a process that lasts.
    views: Option<tokio::task::JoinHandle<()>>,
    /// Belongs to the group until it is told to leave.
    member: Option<tokio::task::JoinHandle<Result<()>>>,
    leave: CancellationToken,
}

impl Work {
    /// Runs views by their schedule until `stop`, too.
    pub(crate) fn keep_views(&mut self, broker: &Arc<Broker>, stop: &CancellationToken) {
        self.views = Some(tokio::spawn(crate::views::run_scheduled(broker.clone(), stop.clone())));
    }

    /// Waits until a pipeline or the ledger ends: only an error makes them, before `stop`.
    pub(crate) async fn failed(&mut self) -> Error {
        let coverage = &mut self.coverage;
        let member = async {
            match &mut self.member {
                Some(member) => member.await,
                None => std::future::pending().await,
            }
        };
        let pipelines = self.pipelines.iter_mut().map(|pipeline| Box::pin(pipeline.ended()));
        let ended = tokio::select! {
            (ended, ..) = futures::future::select_all(pipelines) => ended,
            ended = coverage => ended.unwrap_or_else(|panic| Err(Error::stop("run the ledger").because(panic))),
            ended = member => ended.unwrap_or_else(|panic| Err(Error::stop("belong to a group").because(panic))),
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
        // All is in the stores: whoever takes over begins there, at once.
        self.leave.cancel();
        if let Some(member) = self.member {
            member.await.map_err(panicked)??;
        }
        if let Some(views) = self.views {
            views.await.map_err(panicked)?;
        }
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
