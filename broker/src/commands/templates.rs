//! `templates`: the index templates on a real Elasticsearch, beside those of this version.

use std::process::ExitCode;
use std::sync::Arc;

use contract::{Error, Result, SystemClock};
use hot_store::{ElasticsearchStore, TemplateState};
use serde_json::{Value, json};

use crate::broker::Access;
use crate::settings::Settings;
use crate::{hot, output};

/// Lists them; with `force` replaces also those that somebody changed.
pub(crate) async fn run(settings: &Settings, force: bool, json: bool) -> anyhow::Result<ExitCode> {
    let store = open(settings).await?;
    if force {
        store.prepare(true).await?;
    }
    let templates: Vec<_> =
        store.templates().await?.into_iter().map(|(name, state)| described(&name, &state)).collect();
    if json {
        output::json(&json!({"server": store.server(), "templates": templates}))?;
        return Ok(ExitCode::SUCCESS);
    }
    output::line(&store.server());
    for template in &templates {
        let text = |name: &str| template[name].as_str().unwrap_or_default().to_owned();
        output::line(&format!("{:<20} {:<8} {}", text("name"), text("state"), text("detail")));
    }
    Ok(ExitCode::SUCCESS)
}

/// What `doctor` says of the server: a check each.
pub(crate) async fn checks(settings: &Settings) -> Vec<(&'static str, &'static str, String)> {
    match find_checks(settings).await {
        Ok(checks) => checks,
        Err(error) => vec![("elasticsearch", "failed", error.to_string())],
    }
}

async fn find_checks(settings: &Settings) -> Result<Vec<(&'static str, &'static str, String)>> {
    let store = open(settings).await?;
    let mut checks = vec![("elasticsearch", "ok", store.server())];
    for (name, state) in store.templates().await? {
        let described = described(&name, &state);
        let detail = format!("`{name}` {}", described["detail"].as_str().unwrap_or_default());
        checks.push(("templates", if state == TemplateState::Current { "ok" } else { "warning" }, detail));
    }
    let refused = store.refused().await?;
    let state = if refused == 0 { "ok" } else { "warning" };
    checks.push((
        "refused",
        state,
        format!("{refused} rows that Elasticsearch refuses for good, in `databroker-refused`"),
    ));
    Ok(checks)
}

async fn open(settings: &Settings) -> Result<ElasticsearchStore> {
    if !settings.elasticsearch.is_set() {
        let doing = "look at index templates: `ELASTICSEARCH_HOSTS` is not set, and the embedded hot store has none";
        return Err(Error::change(doing));
    }
    let schemas: Vec<_> = acquisition::SOURCES.iter().map(|source| source.schema).collect();
    hot::open_elasticsearch(settings, &schemas, Arc::new(SystemClock), Access::Read).await
}

fn described(name: &str, state: &TemplateState) -> Value {
    let (word, detail) = match state {
        TemplateState::Absent => ("absent", "is made at the first `up` or `backfill`".to_owned()),
        TemplateState::Current => ("current", "is that of this version".to_owned()),
        TemplateState::Older => ("older", "is replaced at the next `up` or `backfill`".to_owned()),
        TemplateState::Edited(differences) => (
            "changed",
            format!("was changed and stays so; `databroker templates --force` replaces it: {}", differences.join(", ")),
        ),
    };
    json!({"name": name, "state": word, "detail": detail})
}
