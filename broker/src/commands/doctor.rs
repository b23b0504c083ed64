//! `doctor`: what is wrong with the set-up, and what would be right.

use std::net::TcpListener;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use kafka_log::KafkaLog;
use serde_json::{Value, json};

use crate::broker::{Access, Broker, OpenLog};
use crate::output;
use crate::running::Running;
use crate::settings::Settings;

/// Free space below which a warning is given: the log's hard cap is of this order.
const FREE_BYTES_MIN: u64 = 2 << 30;

/// `{"ok", "checks": [{"name", "state": "ok"|"warning"|"failed", "detail"}]}`.
pub(crate) async fn run(settings: &Settings, data: &Path, json: bool) -> Result<ExitCode> {
    let mut checks = vec![check("settings", "ok", "understood")];
    let running = Running::find(data, settings.serving.token()).await;
    checks.push(directory(data));
    checks.push(space(data));
    match &running {
        Some(running) => checks.push(check(
            "process",
            "ok",
            format!("{} serves {} at {}", running.pid, data.display(), running.http),
        )),
        None => checks.extend(ports(settings)),
    }
    if settings.kafka.is_set() {
        checks.extend(kafka(settings).await);
    }
    checks.extend(engines(settings, data).await);
    if settings.elasticsearch.is_set() {
        let found = super::templates::checks(settings).await;
        checks.extend(found.into_iter().map(|(name, state, detail)| check(name, state, detail)));
    }
    checks.push(github(settings));
    let ok = checks.iter().all(|check| check["state"] != "failed");
    if json {
        output::json(&json!({"ok": ok, "checks": checks}))?;
    } else {
        for check in &checks {
            let text = |name: &str| check[name].as_str().unwrap_or_default().to_owned();
            output::line(&format!("{:<8} {:<14} {}", text("state"), text("name"), text("detail")));
        }
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn check(name: &str, state: &str, detail: impl Into<String>) -> Value {
    json!({"name": name, "state": state, "detail": detail.into()})
}

fn directory(data: &Path) -> Value {
    if !data.exists() {
        return check("data", "ok", format!("`{}` is made at the first `up` or `backfill`", data.display()));
    }
    let probe = data.join(".doctor");
    let written = std::fs::write(&probe, b"probe").and_then(|()| std::fs::remove_file(&probe));
    match written {
        Ok(()) => check("data", "ok", format!("`{}` can be written", data.display())),
        Err(error) => check(
            "data",
            "failed",
            format!("`{}` cannot be written: {error}; should belong to this user", data.display()),
        ),
    }
}

fn space(data: &Path) -> Value {
    let existing = data.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."));
    let existing = if existing.as_os_str().is_empty() { Path::new(".") } else { existing };
    let free = rustix::fs::statvfs(existing).map(|space| space.f_bavail.saturating_mul(space.f_frsize));
    match free {
        Ok(free) if free < FREE_BYTES_MIN => check(
            "space",
            "warning",
            format!(
                "{} free; below {} the log may stop taking records",
                output::bytes_short(free),
                output::bytes_short(FREE_BYTES_MIN)
            ),
        ),
        Ok(free) => check("space", "ok", format!("{} free", output::bytes_short(free))),
        Err(error) => check("space", "warning", format!("free space of `{}` is unknown: {error}", existing.display())),
    }
}

fn ports(settings: &Settings) -> Vec<Value> {
    let serving = settings.serving_in_force();
    let listens = [("9200", &serving.elasticsearch_listen), ("8080", &serving.http_listen)];
    let probe = |(name, listen): (&str, &String)| match TcpListener::bind(listen.as_str()) {
        Ok(_) => check(name, "ok", format!("{listen} is free")),
        Err(error) => {
            check(name, "failed", format!("{listen} cannot be listened on: {error}; set `serving` to another address"))
        }
    };
    listens.into_iter().filter(|(_, listen)| !listen.is_empty()).map(probe).collect()
}

/// Whether Kafka answers and the topics are as `topics.toml` has them; what differs is told and left as it is.
async fn kafka(settings: &Settings) -> Vec<Value> {
    let sources: Vec<_> = acquisition::SOURCES.iter().map(|source| source.id).collect();
    let clock = std::sync::Arc::new(contract::SystemClock);
    let drift = match KafkaLog::open_read_only(settings.kafka.clone(), &sources, clock).await {
        Ok(log) => log.drift().await,
        Err(error) => Err(error),
    };
    match drift {
        Ok(drift) if drift.is_empty() => vec![check("kafka", "ok", "every topic is as `topics.toml` has it")],
        Ok(drift) => drift.into_iter().map(|line| check("kafka", "warning", line)).collect(),
        Err(error) => vec![check("kafka", "failed", error.to_string())],
    }
}

async fn engines(settings: &Settings, data: &Path) -> Vec<Value> {
    if !data.join("log").exists() {
        return vec![check("engines", "ok", "no data yet")];
    }
    let broker = match Broker::open(settings, data, Access::Read).await {
        Ok(broker) => broker,
        Err(error) => return vec![check("engines", "failed", error.to_string())],
    };
    let mut checks = vec![
        check("engines", "ok", "log, hot store and cold store open"),
        check("cold", "ok", format!("{} answers", broker.cold.location())),
    ];
    let OpenLog::Embedded(log) = &broker.log else { return checks };
    match log.check().await {
        Ok(found) if found.damages.is_empty() => {
            checks.push(check("log", "ok", format!("{} frames have their checksums", found.frames)));
        }
        Ok(found) => checks.extend(found.damages.iter().map(|damage| check("log", "failed", damage.to_string()))),
        Err(error) => checks.push(check("log", "failed", error.to_string())),
    }
    let quarantined = ["log", "hot"].into_iter().filter(|part| {
        std::fs::read_dir(data.join(part).join("quarantine")).is_ok_and(|mut entries| entries.next().is_some())
    });
    checks.extend(quarantined.map(|part| {
        check(
            "quarantine",
            "warning",
            format!("damage was put aside in `{}`; see `verify`", data.join(part).join("quarantine").display()),
        )
    }));
    checks
}

fn github(settings: &Settings) -> Value {
    match settings.acquisition.github.token.reveal() {
        None => check("github", "warning", "no `github.token`: GitHub answers 60 requests an hour; with one 5,000"),
        Some(_) => check("github", "ok", "a token is set"),
    }
}
