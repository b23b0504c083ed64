//! A small server that answers as Elasticsearch does, as far as the store asks, and lies when it is told to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::IntoResponse;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::elasticsearch::ElasticsearchSettings;

/// How a bulk request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lie {
    /// As it is.
    Truth,
    /// All is written, and the answer is 500.
    WrittenButError,
    /// All is written, and the answer comes too late.
    WrittenButSilent,
    /// All is written, and the answer is no JSON.
    WrittenButGarbled,
    /// Half is written, and the answer names only that.
    HalfWritten,
    /// All is written, and the answer names the items in another order.
    Shuffled,
    /// Nothing is written, and the whole is told to come later.
    Storm,
    /// Every second item is told to come later, and "errors" says that there are none.
    HalfBusy,
    /// Nothing is written: the node is no longer there.
    Gone,
}

pub(super) const LIES: [Lie; 8] = [
    Lie::WrittenButError,
    Lie::WrittenButSilent,
    Lie::WrittenButGarbled,
    Lie::HalfWritten,
    Lie::Shuffled,
    Lie::Storm,
    Lie::HalfBusy,
    Lie::Gone,
];

/// What the server holds and has been asked.
#[derive(Default)]
pub(super) struct Model {
    /// Documents by index and id: version and source.
    pub(super) documents: BTreeMap<(String, String), (i64, Box<RawValue>)>,
    indices: BTreeSet<String>,
    templates: BTreeMap<String, Value>,
    /// Lifecycle policies; none: the server has no such thing.
    pub(super) policies: Option<BTreeMap<String, Value>>,
    /// What the next bulk requests are answered; the truth where there is none.
    pub(super) lies: Vec<Lie>,
    /// Ids that are refused for good.
    pub(super) refused: BTreeSet<String>,
    /// Bytes of a request at the most; 0 is no limit.
    pub(super) bytes_max: usize,
    /// Bytes of the bulk requests, in order.
    pub(super) bulks: Vec<usize>,
    /// What every request must show.
    pub(super) authorization: Option<String>,
    scrolls: usize,
    /// The index of every document that a bulk request brought, in order.
    brought: Vec<String>,
}

/// The server; it ends with the runtime.
pub(super) struct LyingServer {
    pub(super) address: SocketAddr,
    model: Arc<Mutex<Model>>,
}

impl LyingServer {
    pub(super) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let model = Arc::new(Mutex::new(Model::default()));
        let app = Router::new().fallback(answer).with_state(model.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { address, model }
    }

    pub(super) fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap()
    }

    pub(super) fn settings(&self) -> ElasticsearchSettings {
        let hosts = self.address.to_string();
        ElasticsearchSettings { hosts, request_seconds_max: 1, ..ElasticsearchSettings::default() }
    }
}

type Said = (StatusCode, String);

async fn answer(
    State(model): State<Arc<Mutex<Model>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> impl IntoResponse {
    let path = uri.path().trim_start_matches('/').to_owned();
    let is_late = {
        let model = model.lock().unwrap();
        let shown = headers.get("authorization").and_then(|value| value.to_str().ok());
        if model.authorization.is_some() && shown != model.authorization.as_deref() {
            return (StatusCode::UNAUTHORIZED, error("security_exception", "unable to authenticate"));
        }
        path == "_bulk" && model.lies.last() == Some(&Lie::WrittenButSilent)
    };
    let said = model.lock().unwrap().answer(&method, &path, &body);
    if is_late {
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    }
    said
}

fn ok(body: Value) -> Said {
    (StatusCode::OK, body.to_string())
}

fn error(kind: &str, reason: &str) -> String {
    json!({"error": {"type": kind, "reason": reason}}).to_string()
}

impl Model {
    /// A template; null where there is none.
    pub(super) fn template(&self, name: &str) -> Value {
        self.templates.get(name).cloned().unwrap_or_default()
    }

    /// How many documents bulk requests brought for an index.
    pub(super) fn written_to(&self, index: &str) -> usize {
        self.brought.iter().filter(|name| *name == index).count()
    }

    fn answer(&mut self, method: &Method, path: &str, body: &[u8]) -> Said {
        let json: Value = serde_json::from_slice(body).unwrap_or_default();
        let parts: Vec<_> = path.split('/').collect();
        match (method.as_str(), parts.as_slice()) {
            ("GET", [""]) => ok(json!({"version": {"number": "8.19.0"}, "tagline": "You Know, for Search"})),
            ("POST", ["_bulk"]) => self.bulk(body),
            ("POST", ["_search", "scroll"]) => ok(self.hits(Vec::new())),
            ("DELETE", ["_search", "scroll"]) => ok(json!({"succeeded": true})),
            ("GET", ["_index_template", name]) => match self.templates.get(*name) {
                Some(found) => ok(json!({"index_templates": [{"name": name, "index_template": found}]})),
                None => (StatusCode::NOT_FOUND, error("resource_not_found_exception", "no such template")),
            },
            ("PUT", ["_index_template", name]) => {
                self.templates.insert((*name).to_owned(), json);
                ok(json!({"acknowledged": true}))
            }
            (_, ["_ilm", "policy", name]) if self.policies.is_some() => self.policy(method, name, json),
            ("PUT", [index]) => {
                self.indices.insert((*index).to_owned());
                ok(json!({"acknowledged": true}))
            }
            ("PUT", [_, "_mapping"]) => ok(json!({"acknowledged": true})),
            ("GET", [_, "_mapping"]) => ok(json!({})),
            ("GET", [patterns, "_alias"]) => {
                let prefixes: Vec<_> = patterns.split(',').map(|pattern| pattern.trim_end_matches("*.*")).collect();
                let found = self.indices.iter().filter(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)));
                ok(Value::Object(found.map(|name| (name.clone(), json!({"aliases": {}}))).collect()))
            }
            ("POST", [_, "_refresh"]) => ok(json!({"_shards": {"failed": 0}})),
            ("GET", [index, "_count"]) => {
                ok(json!({"count": self.documents.keys().filter(|(name, _)| name == index).count()}))
            }
            ("POST", [index, "_search"]) => {
                let source = json.pointer("/query/term/source").and_then(Value::as_str).map(|name| format!("{name}-"));
                let is_found = |(name, id): &(String, String)| {
                    name == index && source.as_ref().is_none_or(|source| id.starts_with(source.as_str()))
                };
                let should = json.pointer("/query/bool/should").and_then(Value::as_array);
                let is_placed = |source: &str| should.is_none_or(|should| should.iter().any(|one| is_at(one, source)));
                let found = self.documents.iter().filter(|(key, (_, row))| is_found(key) && is_placed(row.get()));
                let hit = |((index, id), (_, source)): (&(String, String), &(i64, Box<RawValue>))| {
                    format!(r#"{{"_index":"{index}","_id":"{id}","_source":{source}}}"#)
                };
                let hits: Vec<_> = found.map(hit).collect();
                // As raw text, since rows are compared byte for byte.
                let none = self.hits(Vec::new()).to_string();
                (StatusCode::OK, none.replace(r#""hits":[]"#, &format!(r#""hits":[{}]"#, hits.join(","))))
            }
            _ => (
                StatusCode::BAD_REQUEST,
                error("illegal_argument_exception", &format!("no handler for {method} {path}")),
            ),
        }
    }

    fn policy(&mut self, method: &Method, name: &str, body: Value) -> Said {
        let policies = self.policies.get_or_insert_default();
        if method == Method::PUT {
            policies.insert(name.to_owned(), body["policy"].clone());
            return ok(json!({"acknowledged": true}));
        }
        match policies.get(name) {
            Some(policy) => {
                ok(json!({name: {"version": 1, "modified_date": "2026-11-22T12:00:00.000Z", "policy": policy}}))
            }
            None => (StatusCode::NOT_FOUND, error("resource_not_found_exception", "Lifecycle policy not found")),
        }
    }

    fn hits(&mut self, hits: Vec<Value>) -> Value {
        self.scrolls += 1;
        json!({"_scroll_id": self.scrolls.to_string(), "timed_out": false, "_shards": {"failed": 0},
            "hits": {"total": {"value": hits.len()}, "hits": hits}})
    }

    fn bulk(&mut self, body: &[u8]) -> Said {
        self.bulks.push(body.len());
        if self.bytes_max > 0 && body.len() > self.bytes_max {
            return (StatusCode::PAYLOAD_TOO_LARGE, "<html>too large</html>".to_owned());
        }
        let lie = self.lies.pop().unwrap_or(Lie::Truth);
        match lie {
            Lie::Storm => return (StatusCode::TOO_MANY_REQUESTS, error("es_rejected_execution_exception", "queue")),
            Lie::Gone => return (StatusCode::SERVICE_UNAVAILABLE, "no node".to_owned()),
            _ => {}
        }
        let actions = actions(body);
        let wanted = if lie == Lie::HalfWritten { actions.len().div_ceil(2) } else { actions.len() };
        let mut items = Vec::new();
        for (place, (action, document)) in actions.into_iter().take(wanted).enumerate() {
            let is_busy = lie == Lie::HalfBusy && place % 2 == 1;
            items.push(if is_busy { busy(&action) } else { self.apply(&action, document) });
        }
        match lie {
            Lie::WrittenButError => return (StatusCode::INTERNAL_SERVER_ERROR, error("exception", "odd")),
            Lie::WrittenButGarbled => return (StatusCode::OK, r#"{"took": 3, "err"#.to_owned()),
            Lie::Shuffled => items.rotate_left(1),
            _ => {}
        }
        ok(json!({"took": 1, "errors": false, "items": items}))
    }

    fn apply(&mut self, action: &Value, document: Option<Box<RawValue>>) -> Value {
        let (name, action) = action.as_object().and_then(|action| action.iter().next()).unwrap();
        let text = |key: &str| action[key].as_str().unwrap().to_owned();
        let (index, id) = (text("_index"), text("_id"));
        let mut item = json!({"_index": index, "_id": id});
        if self.refused.contains(&id) {
            item["status"] = 400.into();
            item["error"] =
                json!({"type": "document_parsing_exception", "reason": "odd", "caused_by": {"reason": "why"}});
            return json!({name: item});
        }
        self.brought.push(index.clone());
        let key = (index, id);
        let present = self.documents.get(&key).map(|(version, _)| *version);
        let version = action["version"].as_i64().unwrap_or(present.unwrap_or(0) + 1);
        item["status"] = match (name.as_str(), document) {
            ("delete", _) => if self.documents.remove(&key).is_some() { 200 } else { 404 }.into(),
            (_, Some(_)) if present.is_some_and(|present| present >= version) => {
                let present = present.unwrap_or_default();
                let reason = format!(
                    "[{}]: version conflict, current version [{present}] is higher or equal to the one provided [{version}]",
                    key.1
                );
                item["error"] = json!({"type": "version_conflict_engine_exception", "reason": reason});
                409.into()
            }
            (_, Some(document)) => {
                self.documents.insert(key, (version, document));
                201.into()
            }
            (_, None) => panic!("an action without its document"),
        };
        json!({name: item})
    }
}

/// Whether a row stands at one of the places that a query of the store names.
fn is_at(query: &Value, row: &str) -> bool {
    let row: Value = serde_json::from_str(row).unwrap();
    let offsets = query.pointer("/bool/filter/1/terms/_offset").and_then(Value::as_array);
    query.pointer("/bool/filter/0/term/_partition") == Some(&row["_partition"])
        && offsets.is_some_and(|offsets| offsets.contains(&row["_offset"]))
}

fn busy(action: &Value) -> Value {
    let (name, action) = action.as_object().and_then(|action| action.iter().next()).unwrap();
    json!({name: {"_index": action["_index"], "_id": action["_id"], "status": 429,
        "error": {"type": "es_rejected_execution_exception", "reason": "queue"}}})
}

fn actions(body: &[u8]) -> Vec<(Value, Option<Box<RawValue>>)> {
    assert!(body.ends_with(b"\n"), "a bulk ends with the end of a line");
    let mut lines = body.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    let mut actions = Vec::new();
    while let Some(line) = lines.next() {
        let action: Value = serde_json::from_slice(line).unwrap();
        let is_delete = action.get("delete").is_some();
        let document = if is_delete { None } else { lines.next().map(|line| serde_json::from_slice(line).unwrap()) };
        actions.push((action, document));
    }
    actions
}
