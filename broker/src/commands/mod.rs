//! The commands. Each answers a JSON document, which is printed as it is with `--json` and as text without.
//! A command runs in the process that owns the data directory if there is one, else in this one.

mod backfill;
mod collecting;
mod dead_letters;
mod doctor;
mod export;
mod feeds;
#[cfg(test)]
mod other_version;
mod reprocess;
mod role;
mod roles;
mod search;
mod sql;
mod status;
mod tail;
mod templates;
mod up;
mod verify;
mod views;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use contract::{Error, Positions, Remedy, SourceId};
use processing::{Flush, Pause};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::arguments::{Arguments, Command, DeadLetterAction, ViewAction};
use crate::broker::{Access, Broker, Work};
use crate::running::Running;
use crate::settings::{REFERENCE, Settings};
use crate::{output, signals};

pub(crate) use status::lags;

/// Progress messages that wait to be shown; more are waited for.
const PROGRESS_MAX: usize = 64;

/// What one process runs for another.
const COMMANDS: [&str; 12] = [
    "backfill",
    "dead-letters",
    "dead-letters-replay",
    "interrupt",
    "reprocess",
    "search",
    "status",
    "verify",
    "views-explain",
    "views-list",
    "views-run",
    "views-show",
];

/// Commands that append to the log, and wait until the stores have what they appended.
const APPENDING: [&str; 2] = ["backfill", "dead-letters-replay"];

/// Between two looks whether the stores of other processes have what was appended.
const STORED_INTERVAL: Duration = Duration::from_millis(200);

/// Runs what the command line says.
pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode> {
    let settings = Settings::load(arguments.config.as_deref(), std::env::vars())?;
    if let Command::Config { reference } = arguments.command {
        return config(&settings, reference, arguments.json);
    }
    let _logs = monitoring::install_logs(&settings.monitoring, arguments.command.is_service())?;
    match &arguments.command {
        Command::Up { sample } => up::run(&settings, &arguments.data, *sample).await,
        Command::Collect { sources, sample } => roles::collect(&settings, &arguments.data, sources, *sample).await,
        Command::Process => roles::process(&settings, &arguments.data).await,
        Command::Serve => roles::serve(&settings, &arguments.data).await,
        Command::Doctor => doctor::run(&settings, &arguments.data, arguments.json).await,
        Command::Templates { force } => templates::run(&settings, *force, arguments.json).await,
        Command::Feeds { action } => feeds::run(&settings, &arguments.data, action.clone(), arguments.json).await,
        Command::Sql { query } => sql::run(&settings, &arguments.data, query, arguments.json).await,
        Command::Tail { source, filter } => tail::run(&settings, &arguments.data, source, filter.as_deref()).await,
        Command::Export { what, to, format, resume } => {
            let export = export::Export { what, to, format, resume: *resume };
            export::run(&settings, &arguments.data, export, arguments.json).await
        }
        command => {
            let asked = Asked::from(command);
            let answer = asked.answer(&settings, &arguments.data).await?;
            if arguments.json {
                output::json(&answer)?;
            } else {
                asked.print(&answer);
            }
            Ok(asked.exit_code(&answer))
        }
    }
}

fn config(settings: &Settings, reference: bool, json: bool) -> Result<ExitCode> {
    match (reference, json) {
        (true, _) => output::text(REFERENCE),
        (false, true) => output::json(&serde_json::to_value(settings)?)?,
        (false, false) => output::text(&settings.to_toml()?),
    }
    Ok(ExitCode::SUCCESS)
}

/// A command as it is asked of whichever process runs it.
struct Asked {
    name: &'static str,
    arguments: Value,
    access: Access,
    print: fn(&Value),
}

impl From<&Command> for Asked {
    fn from(command: &Command) -> Self {
        let read = |name, arguments, print| Self { name, arguments, access: Access::Read, print };
        let write = |name, arguments, print| Self { name, arguments, access: Access::Write, print };
        match command {
            Command::Backfill { source, files } => {
                write("backfill", backfill::arguments(source, files), backfill::print)
            }
            Command::Search { source, query, from, to, size, by_score } => {
                let body = search::body(query, from.as_deref(), to.as_deref(), *size, *by_score);
                read("search", json!({"source": source, "body": body}), search::print)
            }
            Command::Topics => read("status", json!({}), status::print_topics),
            Command::Verify { source, repair: false } => read("verify", json!({"source": source}), verify::print),
            Command::Verify { source, repair: true } => {
                write("verify", json!({"source": source, "repair": true}), verify::print)
            }
            Command::DeadLetters { source, limit, action: None } => {
                read("dead-letters", json!({"source": source, "limit": limit}), dead_letters::print)
            }
            Command::DeadLetters { source, action: Some(DeadLetterAction::Replay), .. } => {
                write("dead-letters-replay", json!({"source": source}), dead_letters::print_replay)
            }
            Command::Reprocess(asked) => write("reprocess", json!(asked), reprocess::print),
            Command::Views { action } => {
                let (name, arguments) = views::asked(action);
                match action {
                    ViewAction::List => read(name, arguments, views::print_list),
                    ViewAction::Show { .. } => read(name, arguments, views::print_answer),
                    ViewAction::Run { .. } => write(name, arguments, views::print_runs),
                    ViewAction::Explain { .. } => read(name, arguments, views::print_explained),
                }
            }
            Command::Status
            | Command::Up { .. }
            | Command::Collect { .. }
            | Command::Process
            | Command::Serve
            | Command::Doctor
            | Command::Feeds { .. }
            | Command::Templates { .. }
            | Command::Sql { .. }
            | Command::Export { .. }
            | Command::Tail { .. }
            | Command::Config { .. } => read("status", json!({}), status::print),
        }
    }
}

impl Asked {
    async fn answer(&self, settings: &Settings, data: &std::path::Path) -> Result<Value> {
        let (progress, shown) = mpsc::channel(PROGRESS_MAX);
        let showing = tokio::spawn(output::show_progress(shown));
        // What only reads ends at a signal, as any program does.
        let asked_to_end = if self.access.is_alone() { signals::listen() } else { CancellationToken::new() };
        let answer = match Running::find(data, settings.serving.token()).await {
            Some(running) => running.run(self.name, &self.arguments, &progress, &asked_to_end).await,
            None => self.answer_here(settings, data, &progress, asked_to_end).await,
        };
        drop(progress);
        showing.await?;
        answer
    }

    async fn answer_here(
        &self,
        settings: &Settings,
        data: &std::path::Path,
        progress: &mpsc::Sender<Value>,
        asked_to_end: CancellationToken,
    ) -> Result<Value> {
        let broker = self.open(settings, data).await?;
        if !broker.access.is_alone() {
            let control = Control::reading(broker, asked_to_end);
            return Ok(control.dispatch(self.name, &self.arguments, progress).await?);
        }
        let stop = CancellationToken::new();
        let mut work = broker.start(&stop, &asked_to_end).await?;
        let control = Control::new(broker, &work, asked_to_end);
        let answer = tokio::select! {
            answer = control.dispatch(self.name, &self.arguments, progress) => answer,
            error = work.failed() => return Err(error.into()),
        };
        stop.cancel();
        let drained = work.drained().await;
        let answer = answer?;
        match drained {
            // A store that is away may not keep the summary from a user who asked to end.
            Err(error) if answer["interrupted"] == json!(true) && error.remedy() != Remedy::Stop => {
                tracing::warn!("not all is in the stores yet: {error}");
            }
            drained => drained?,
        }
        Ok(answer)
    }

    /// The engines as the command needs them. What appends to the log alone needs no stores of its own where `process`es write
    /// them.
    async fn open(&self, settings: &Settings, data: &std::path::Path) -> Result<Arc<Broker>> {
        let is_shared = || embedded_log::is_held_together(&data.join("log")).unwrap_or(false);
        let access = match (self.name, self.arguments["source"].as_str()) {
            ("reprocess", Some(source)) => Access::Remake(acquisition::source(source)?.id),
            _ => self.access,
        };
        let error = match Broker::open(settings, data, access).await {
            Ok(broker) => return Ok(Arc::new(broker)),
            Err(error) => error,
        };
        if self.access != Access::Write || !settings.kafka.is_set() || !is_shared() {
            return Err(error.into());
        }
        if !APPENDING.contains(&self.name) {
            return Err(error).context("this cannot be done beside running `process`es; end them first");
        }
        Ok(Arc::new(Broker::open(settings, data, Access::Collect).await?))
    }

    fn print(&self, answer: &Value) {
        (self.print)(answer);
    }

    fn exit_code(&self, answer: &Value) -> ExitCode {
        if answer["ok"] == json!(false) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}

/// What a command needs of a running pipeline.
#[derive(Clone)]
pub(crate) struct PipelineView {
    source: SourceId,
    flush: mpsc::Sender<Flush>,
    pause: mpsc::Sender<Pause>,
    hot: watch::Receiver<Positions>,
    cold: watch::Receiver<Positions>,
}

impl PipelineView {
    /// Waits until both stores have committed all below `until`.
    async fn bring(&self, until: Positions) -> contract::Result<()> {
        let (done, heard) = oneshot::channel();
        let ended = || Error::stop(format!("process `{}`: its pipeline ended", self.source));
        self.flush.send(Flush { until, done }).await.map_err(|_| ended())?;
        heard.await.map_err(|_| ended())
    }
}

/// A pipeline that stands still until it is told what to do.
pub(crate) struct Standstill(oneshot::Sender<contract::Result<()>>);

impl Standstill {
    /// Lets it go on, or end with an error.
    pub(crate) fn end(self, told: contract::Result<()>) {
        // It may have been stopped meanwhile.
        self.0.send(told).unwrap_or_default();
    }
}

impl PipelineView {
    /// Waits until the pipeline stands still, with all that it read in both stores.
    async fn pause(&self) -> contract::Result<Standstill> {
        let (paused, heard) = oneshot::channel();
        let (resume, resumed) = oneshot::channel();
        let ended = || Error::stop(format!("pause `{}`: its pipeline ended", self.source));
        self.pause.send(Pause { paused, resumed }).await.map_err(|_| ended())?;
        heard.await.map_err(|_| ended())?;
        Ok(Standstill(resume))
    }
}

/// The commands that run for others, by the names that those gave them: so a command can be asked to end early while its
/// answer is still listened to.
type Runs = Arc<Mutex<BTreeMap<String, CancellationToken>>>;

/// Runs commands in this process; also for those that ask over HTTP.
#[derive(Clone)]
pub(crate) struct Control {
    broker: Arc<Broker>,
    pipelines: Vec<PipelineView>,
    runs: Runs,
    stop: CancellationToken,
}

impl Control {
    /// For a process whose pipelines run; `stop` ends long commands early.
    pub(crate) fn new(broker: Arc<Broker>, work: &Work, stop: CancellationToken) -> Self {
        let view = |handle: &processing::PipelineHandle| {
            let (hot, cold) = handle.committed();
            PipelineView { source: handle.source(), flush: handle.flusher(), pause: handle.pauser(), hot, cold }
        };
        Self { broker, pipelines: work.pipelines.iter().map(view).collect(), runs: Runs::default(), stop }
    }

    /// For a process that has no pipelines, or only parts of them: what is in the stores is what others wrote.
    pub(crate) fn reading(broker: Arc<Broker>, stop: CancellationToken) -> Self {
        Self { broker, pipelines: Vec::new(), runs: Runs::default(), stop }
    }

    fn pipeline(&self, source: SourceId) -> Option<&PipelineView> {
        self.pipelines.iter().find(|pipeline| pipeline.source == source)
    }

    /// What both stores have of a source: hot, then cold.
    async fn stored(&self, source: SourceId) -> contract::Result<(Positions, Positions)> {
        if let Some(pipeline) = self.pipeline(source) {
            return Ok((pipeline.hot.borrow().clone(), pipeline.cold.borrow().clone()));
        }
        let engines = &self.broker.engines;
        Ok((engines.hot.committed(source).await?, engines.cold.committed(source).await?))
    }

    /// Waits until both stores have committed all below `until`, by this process's pipelines or by others'.
    async fn bring(&self, source: SourceId, until: Positions) -> contract::Result<()> {
        if let Some(pipeline) = self.pipeline(source) {
            return pipeline.bring(until).await;
        }
        loop {
            let stored = processing::until_done("stores", &self.broker.engines.troubles, &self.stop, || {
                Box::pin(self.stored(source))
            });
            let (hot, cold) = stored.await?;
            if hot.reaches(&until) && cold.reaches(&until) {
                return Ok(());
            }
            tokio::time::sleep(STORED_INTERVAL).await;
        }
    }

    async fn dispatch(
        &self,
        command: &str,
        arguments: &Value,
        progress: &mpsc::Sender<Value>,
    ) -> contract::Result<Value> {
        let access = self.broker.access;
        if APPENDING.contains(&command) && !access.is_alone() && access != Access::Collect {
            return Err(Error::change(format!(
                "run `{command}` in a process that does something else; `databroker {command}` does it beside"
            )));
        }
        match command {
            "backfill" => backfill::run(self, arguments, progress).await,
            "dead-letters" => dead_letters::list(&self.broker, arguments).await,
            "dead-letters-replay" => dead_letters::replay(self, arguments).await,
            "reprocess" => reprocess::run(self, arguments, progress).await,
            "search" => search::run(&self.broker, arguments).await,
            "status" => status::run(&self.broker).await,
            "verify" => verify::run(self, arguments).await,
            "views-explain" => views::explain(&self.broker, arguments).await,
            "views-list" => views::list(&self.broker).await,
            "views-run" => views::run(self, arguments, progress).await,
            "views-show" => views::show(&self.broker, arguments).await,
            other => {
                let near = contract::nearest(other, COMMANDS.into_iter());
                Err(Error::change(format!("run command `{other}` (known: {}){near}", COMMANDS.join(", "))))
            }
        }
    }

    /// Asks the command that was run with the same `"run"` to end early: `{"interrupted": whether there is one}`.
    fn interrupt(&self, arguments: &Value) -> Value {
        let runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        let run = arguments["run"].as_str().and_then(|run| runs.get(run));
        run.into_iter().for_each(CancellationToken::cancel);
        json!({"interrupted": run.is_some()})
    }
}

#[async_trait::async_trait]
impl serving::Control for Control {
    async fn run(&self, command: &str, arguments: Value, progress: mpsc::Sender<Value>) -> contract::Result<Value> {
        if command == "interrupt" {
            return Ok(self.interrupt(&arguments));
        }
        let stop = self.stop.child_token();
        let run = arguments["run"].as_str().map(str::to_owned);
        let runs = || self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        run.iter().for_each(|run| drop(runs().insert(run.clone(), stop.clone())));
        let control = Self { stop: stop.clone(), ..self.clone() };
        let command = control.dispatch(command, &arguments, &progress);
        tokio::pin!(command);
        let answer = tokio::select! {
            answer = &mut command => answer,
            // Nobody listens any more: it ends at the next good place.
            () = progress.closed() => {
                stop.cancel();
                command.await
            }
        };
        run.iter().for_each(|run| drop(runs().remove(run)));
        answer
    }
}

/// The sources that a command is about: the one named, or all.
fn sources_of(arguments: &Value) -> contract::Result<Vec<&'static acquisition::Source>> {
    match arguments["source"].as_str() {
        Some(name) => Ok(vec![acquisition::source(name)?]),
        None => Ok(acquisition::SOURCES.iter().collect()),
    }
}
