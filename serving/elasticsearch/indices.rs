//! What there is to search: indices, their fields and aliases, and the state of the "cluster".

use axum::extract::State;
use axum::http::StatusCode;
use contract::{HotStore, IndexSummary};
use serde_json::{Map, Value, json};

use super::answer::{Answer, Answered, Failure, no_handler_for};
use super::parameters::{Asked, Parameters, split_list};
use crate::routes::App;

/// The version of Elasticsearch whose REST is answered; clients choose their dialect by it.
const VERSION: &str = "8.19.0";

/// Which indices a request means, with what it says about those that are not there.
pub(crate) struct Choice {
    names: String,
    ignore_unavailable: bool,
    allow_no_indices: bool,
}

impl Choice {
    /// Takes `ignore_unavailable` and `allow_no_indices`. No index means all.
    pub(crate) fn take(index: Option<String>, parameters: &mut Parameters) -> Result<Self, Failure> {
        Ok(Self {
            ignore_unavailable: parameters.take_boolean("ignore_unavailable")?.unwrap_or(false),
            allow_no_indices: parameters.take_boolean("allow_no_indices")?.unwrap_or(true),
            ..Self::of(index)
        })
    }

    /// With Elasticsearch's defaults for those that are not there.
    pub(crate) fn of(index: Option<String>) -> Self {
        let names = match index {
            Some(names) if names != "_all" => names,
            _ => "*".to_owned(),
        };
        Self { names, ignore_unavailable: false, allow_no_indices: true }
    }

    /// The same indices with another word about those that are not there.
    pub(crate) fn with_ignore_unavailable(self, ignore_unavailable: bool) -> Self {
        Self { ignore_unavailable, ..self }
    }

    /// The names to give to the store; none if nothing is left of them.
    pub(crate) async fn resolve(self, hot: &dyn HotStore) -> Result<Option<String>, Failure> {
        let mut kept = Vec::new();
        for name in split_list(&self.names) {
            let is_pattern = name.contains('*');
            let must_look = if is_pattern { !self.allow_no_indices } else { self.ignore_unavailable };
            if !must_look || exists(hot, &name).await? {
                kept.push(name);
            } else if is_pattern {
                return Err(not_found(&name));
            }
        }
        if kept.is_empty() && !self.allow_no_indices {
            return Err(not_found(&self.names));
        }
        Ok((!kept.is_empty()).then(|| kept.join(",")))
    }
}

async fn exists(hot: &dyn HotStore, name: &str) -> Result<bool, Failure> {
    match hot.indices(name).await {
        Ok(found) => Ok(!found.is_empty()),
        Err(error) if error.status == 404 => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn not_found(name: &str) -> Failure {
    Failure::new(404, "index_not_found_exception", format!("no such index [{name}]"))
}

/// `GET /`.
pub(crate) async fn info(asked: Asked) -> Answered {
    asked.parameters.finish()?;
    Answer::ok(json!({
        "name": "databroker",
        "cluster_name": "databroker",
        "cluster_uuid": "databroker",
        "version": {
            "number": VERSION,
            "build_flavor": "default",
            "build_type": "databroker",
            "build_hash": env!("CARGO_PKG_VERSION"),
            "build_snapshot": false,
            "lucene_version": "9.12.0",
            "minimum_wire_compatibility_version": "7.17.0",
            "minimum_index_compatibility_version": "7.0.0"
        },
        "tagline": "You Know, for Search"
    }))
}

/// `GET /{index}/_mapping`.
pub(crate) async fn mapping(State(app): State<App>, asked: Asked) -> Answered {
    Answer::ok(Value::Object(mappings(&app, asked).await?))
}

/// `GET /{index}`, whose `HEAD` says whether there is such an index.
pub(crate) async fn index(State(app): State<App>, asked: Asked) -> Answered {
    // Names of indices never start with `_`: this is an endpoint that is not served.
    if let Some(name) = asked.index.as_deref().filter(|name| name.starts_with('_') && *name != "_all") {
        return Err(no_handler_for(&asked.method, &format!("/{name}")));
    }
    let mut found = mappings(&app, asked).await?;
    for (name, described) in &mut found {
        if let Value::Object(described) = described {
            described.insert("aliases".to_owned(), aliases_of(name));
            described.insert("settings".to_owned(), json!({"index": {"provided_name": name, "number_of_shards": "1"}}));
        }
    }
    Answer::ok(Value::Object(found))
}

/// `GET /{index}/_alias`.
pub(crate) async fn aliases(State(app): State<App>, asked: Asked) -> Answered {
    let found = summaries(&app, asked.index, asked.parameters).await?;
    let described = |index: IndexSummary| {
        let aliases = json!({"aliases": aliases_of(&index.name)});
        (index.name, aliases)
    };
    Answer::ok(Value::Object(found.into_iter().map(described).collect()))
}

/// `GET /_cluster/health`: one node that is always well, or it would not answer.
pub(crate) async fn cluster_health(State(app): State<App>, mut asked: Asked) -> Answered {
    let wished = asked.parameters.take("wait_for_status");
    if let Some(wished) = wished.filter(|wished| !["green", "yellow", "red"].contains(&wished.as_str())) {
        return Err(Failure::argument(format!("unknown cluster health status [{wished}]")));
    }
    let shards = summaries(&app, asked.index, asked.parameters).await?.len();
    Answer::ok(json!({
        "cluster_name": "databroker",
        "status": "green",
        "timed_out": false,
        "number_of_nodes": 1,
        "number_of_data_nodes": 1,
        "active_primary_shards": shards,
        "active_shards": shards,
        "relocating_shards": 0,
        "initializing_shards": 0,
        "unassigned_shards": 0,
        "delayed_unassigned_shards": 0,
        "number_of_pending_tasks": 0,
        "number_of_in_flight_fetch": 0,
        "task_max_waiting_in_queue_millis": 0,
        "active_shards_percent_as_number": 100.0
    }))
}

/// The indices that a request means.
pub(crate) async fn summaries(
    app: &App,
    index: Option<String>,
    mut parameters: Parameters,
) -> Result<Vec<IndexSummary>, Failure> {
    let choice = Choice::take(index, &mut parameters)?;
    parameters.finish()?;
    let Some(names) = choice.resolve(app.services.hot.as_ref()).await? else { return Ok(Vec::new()) };
    let mut found: Vec<IndexSummary> = Vec::new();
    for name in split_list(&names) {
        let matching = app.services.hot.indices(&name).await?;
        if matching.is_empty() && !name.contains('*') {
            return Err(not_found(&name));
        }
        found.extend(matching);
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found.dedup_by(|a, b| a.name == b.name);
    Ok(found)
}

async fn mappings(app: &App, mut asked: Asked) -> Result<Map<String, Value>, Failure> {
    let choice = Choice::take(asked.index.take(), &mut asked.parameters)?;
    asked.parameters.finish()?;
    let Some(names) = choice.resolve(app.services.hot.as_ref()).await? else { return Ok(Map::new()) };
    match app.services.hot.mapping(&names).await? {
        Value::Object(found) => Ok(found),
        other => Err(Failure::new(
            StatusCode::INTERNAL_SERVER_ERROR.as_u16(),
            "illegal_state_exception",
            format!("the store answered a mapping that is no object: {other}"),
        )),
    }
}

/// The alias of an index is its source: that of `github-2026.11.22` is `github`.
fn aliases_of(index: &str) -> Value {
    match index.split_once('-') {
        Some((source, _)) => json!({source: {}}),
        None => json!({}),
    }
}
