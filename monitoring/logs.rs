//! The logs of this process: text for people at a terminal, JSON for machines, files that are rotated.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use contract::{Error, Result};
use serde::{Deserialize, Serialize};
use tracing::Subscriber;
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_appender::rolling::{RollingFileAppender, Rotation};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

/// Lines that wait for the disk. A line is below 1 KB, so a stalled disk costs 8 MB at the most; what comes on
/// top is dropped, since the log must never hold up the work.
const WAITING_LINES_MAX: usize = 8_192;

/// What these libraries log below `info` includes the headers of requests, and so tokens.
const NEVER_BELOW_INFO: &[&str] = &["h2", "hyper", "hyper_util", "reqwest", "rustls"];

/// The section `[monitoring]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// What is logged: a level (`error`, `warn`, `info`, `debug`, `trace`), or one per part
    /// (`info,hot_store=debug,tantivy=warn`). HTTP libraries stay at `info` at the least, for their details hold tokens.
    /// The default is quiet in normal work and leaves the engines' own reports of it out.
    pub log_level: String,
    /// The form of lines on standard error; `auto` is text on a terminal and JSON elsewhere.
    pub log_format: Format,
    /// Where log files are written, as JSON, besides standard error; empty writes no files. Empty is the default, for
    /// a service manager or container keeps standard error already.
    pub log_directory: PathBuf,
    /// How many log files are kept, the present one included. A file holds a day (UTC), so the default is a fortnight.
    pub log_files_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            log_level: "info,tantivy=warn,datafusion=warn,deltalake=warn,deltalake_core::kernel::transaction=off,buoyant_kernel=warn,datafusion_common=error"
                .to_owned(),
            log_format: Format::Auto,
            log_directory: PathBuf::new(),
            log_files_max: 14,
        }
    }
}

impl Settings {
    fn of_command(&self) -> Self {
        let default = Self::default();
        let log_level = if self.log_level == default.log_level {
            "warn,datafusion_common=error".to_owned()
        } else {
            self.log_level.clone()
        };
        Self { log_level, log_directory: PathBuf::new(), ..self.clone() }
    }
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Text if standard error is a terminal, JSON if not.
    #[default]
    Auto,
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Writes the last lines to the log file when it is dropped: `main` holds it to its end.
#[derive(Debug, Default)]
#[must_use = "lines that wait for the file are lost without it"]
pub struct Guard {
    /// Held, not used.
    _file: Option<WorkerGuard>,
}

/// Sends all that is logged through `tracing` to standard error and, if the settings say so, to files. Once per process.
///
/// A service logs as the settings say. A command that ends by itself (`is_service` false) writes no files, for
/// they belong to the service, and with the default level it logs from `warn` on, for it says the rest itself.
///
/// # Errors
/// `Change` for a level that is none and for a directory that cannot be written; `Stop` when logs were installed before.
pub fn install_logs(settings: &Settings, is_service: bool) -> Result<Guard> {
    let is_terminal = std::io::stderr().is_terminal();
    let settings = if is_service { settings.clone() } else { settings.of_command() };
    let (subscriber, guard) = build_subscriber(&settings, is_terminal, std::io::stderr)?;
    subscriber.try_init().map_err(|cause| Error::stop("install logs").because(cause))?;
    Ok(guard)
}

fn build_subscriber<W, O>(
    settings: &Settings,
    is_terminal: bool,
    output: O,
) -> Result<(impl Subscriber + Send + Sync, Guard)>
where
    W: Write,
    O: Fn() -> W + Send + Sync + 'static,
{
    let (file, guard) = if settings.log_directory.as_os_str().is_empty() {
        (None, Guard::default())
    } else {
        let (writer, worker) = open_files(&settings.log_directory, settings.log_files_max)?;
        (Some(json_layer(writer)), Guard { _file: Some(worker) })
    };
    let as_text = match settings.log_format {
        Format::Auto => is_terminal,
        Format::Text => true,
        Format::Json => false,
    };
    let screen = if as_text {
        fmt::layer().with_ansi(is_terminal).with_target(false).with_writer(output).boxed()
    } else {
        json_layer(output)
    };
    Ok((tracing_subscriber::registry().with(level_filter(&settings.log_level)?).with(screen).with(file), guard))
}

fn level_filter(level: &str) -> Result<EnvFilter> {
    let wrong = || {
        let known = "`error`, `warn`, `info`, `debug`, `trace`, or one per part as in `info,hot_store=debug`";
        Error::change(format!("read `monitoring.log_level` = `{level}` (known: {known})"))
    };
    // `EnvFilter` takes a lone word that is no level for the name of a part, and then logs nothing else.
    let is_lone_word = !level.contains(['=', '[', ',']);
    if is_lone_word && level.parse::<tracing::level_filters::LevelFilter>().is_err() {
        return Err(wrong());
    }
    let mut filter = EnvFilter::builder().parse(level).map_err(|cause| wrong().because(cause))?;
    for library in NEVER_BELOW_INFO {
        if !level.contains(&format!("{library}=warn")) && !level.contains(&format!("{library}=error")) {
            let directive = format!("{library}=info").parse().expect("a name and a level are a directive");
            filter = filter.add_directive(directive);
        }
    }
    Ok(filter)
}

fn json_layer<S, O>(output: O) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    O: for<'a> fmt::MakeWriter<'a> + Send + Sync + 'static,
{
    fmt::layer().json().flatten_event(true).with_ansi(false).with_writer(output).boxed()
}

fn open_files(directory: &Path, files_max: usize) -> Result<(NonBlocking, WorkerGuard)> {
    let files = RollingFileAppender::builder()
        .rotation(Rotation::DAILY)
        .filename_prefix("databroker")
        .filename_suffix("log")
        .max_log_files(files_max.max(1))
        .build(directory)
        .map_err(|cause| {
            let place = directory.display();
            Error::change(format!("write logs to `monitoring.log_directory` = `{place}`")).because(cause)
        })?;
    Ok(NonBlockingBuilder::default().buffered_lines_limit(WAITING_LINES_MAX).lossy(true).finish(files))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Screen(Arc<Mutex<Vec<u8>>>);

    impl Write for Screen {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(settings: &Settings, is_terminal: bool, log: impl FnOnce()) -> String {
        let screen = Screen::default();
        let output = screen.clone();
        let (subscriber, guard) = build_subscriber(settings, is_terminal, move || output.clone()).expect("valid");
        tracing::subscriber::with_default(subscriber, log);
        drop(guard);
        String::from_utf8(screen.0.lock().unwrap().clone()).expect("text")
    }

    #[test]
    fn a_line_is_text_on_a_terminal_and_json_elsewhere() {
        let log = || tracing::info!(lag_ms = 4, "`github` is late");
        let text = logged(&Settings::default(), true, log);
        assert!(text.contains("`github` is late") && !text.starts_with('{'), "{text}");
        let json = logged(&Settings::default(), false, log);
        let line: serde_json::Value = serde_json::from_str(&json).expect("one object");
        assert_eq!(
            (&line["message"], &line["lag_ms"], &line["level"]),
            (&"`github` is late".into(), &4.into(), &"INFO".into())
        );
        let forced = logged(&Settings { log_format: Format::Json, ..Settings::default() }, true, log);
        assert!(forced.starts_with('{'), "{forced}");
    }

    #[test]
    fn levels_follow_the_settings_part_by_part() {
        let settings = Settings { log_level: "warn,hot_store=debug".to_owned(), ..Settings::default() };
        let text = logged(&settings, true, || {
            tracing::info!(target: "cold_store", "left out");
            tracing::debug!(target: "hot_store", "taken");
        });
        assert!(text.contains("taken") && !text.contains("left out"), "{text}");
    }

    #[test]
    fn a_command_leaves_the_files_to_the_service_and_says_less_unless_told() {
        let service = Settings { log_directory: "logs".into(), ..Settings::default() };
        let command = service.of_command();
        assert_eq!(
            (command.log_level.as_str(), command.log_directory),
            ("warn,datafusion_common=error", PathBuf::new())
        );
        let told = Settings { log_level: "debug".to_owned(), ..service };
        assert_eq!(told.of_command().log_level, "debug");
    }

    #[test]
    fn headers_of_requests_stay_out_of_the_log_at_any_level() {
        for level in ["trace", "trace,hyper=trace", "trace,reqwest=debug"] {
            let settings = Settings { log_level: level.to_owned(), ..Settings::default() };
            let text = logged(&settings, true, || {
                tracing::trace!(target: "hyper::proto", "authorization: secret");
                tracing::debug!(target: "reqwest::connect", "authorization: secret");
                tracing::trace!(target: "serving", "seen");
            });
            assert!(text.contains("seen") && !text.contains("secret"), "{level}: {text}");
        }
    }

    #[test]
    fn terminal_commands_in_a_message_do_not_reach_the_terminal() {
        let hostile = "\u{1b}]0;owned\u{7}";
        let text = logged(&Settings { log_format: Format::Text, ..Settings::default() }, false, || {
            tracing::info!("title {hostile}");
        });
        assert!(text.contains("title") && !text.contains('\u{1b}'), "{text:?}");
    }

    #[test]
    fn files_hold_all_lines_once_the_guard_is_gone_and_are_named_by_day() {
        let directory = tempfile::tempdir().unwrap();
        let settings = Settings { log_directory: directory.path().join("logs"), ..Settings::default() };
        logged(&settings, true, || (0..1_000).for_each(|number| tracing::info!(number, "a line")));
        let files: Vec<_> =
            std::fs::read_dir(directory.path().join("logs")).unwrap().map(|f| f.unwrap().path()).collect();
        assert_eq!(files.len(), 1);
        let name = files[0].file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with("databroker.20") && name.ends_with(".log"), "{name}");
        let lines = std::fs::read_to_string(&files[0]).unwrap();
        assert_eq!(lines.lines().filter(|line| line.contains(r#""message":"a line""#)).count(), 1_000);
    }

    #[test]
    fn a_wrong_level_or_directory_is_named_with_what_would_be_right() {
        for level in ["loud", "hot_store=loud", "info,,=x="] {
            let wrong = level_filter(level).err().unwrap_or_else(|| panic!("`{level}` is no level")).to_string();
            assert!(wrong.starts_with("failed to read `monitoring.log_level` = `"), "{wrong}");
            assert!(wrong.contains("`error`, `warn`, `info`"), "{wrong}");
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        let wrong = open_files(&file.path().join("logs"), 1).expect_err("a file is no directory").to_string();
        assert!(wrong.starts_with("failed to write logs to `monitoring.log_directory` = `"), "{wrong}");
    }

    #[test]
    fn settings_are_read_from_toml_and_an_unknown_key_is_refused() {
        let settings: Settings = toml::from_str("log_level = 'debug'\nlog_format = 'json'").expect("valid");
        assert_eq!((settings.log_level.as_str(), settings.log_format), ("debug", Format::Json));
        assert_eq!(toml::from_str::<Settings>(&toml::to_string(&settings).unwrap()).unwrap(), settings);
        assert!(toml::from_str::<Settings>("level = 'debug'").is_err());
    }
}
