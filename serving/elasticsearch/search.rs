//! Searches: query strings become bodies, bodies go to the hot store.

use std::time::Instant;

use axum::extract::State;
use axum::http::StatusCode;
use contract::metric;
use serde_json::{Map, Value, json};

use super::answer::{Answer, Answered, Failure};
use super::indices::Choice;
use super::parameters::{Asked, Parameters, parse_object, split_list};
use crate::routes::App;

/// Searches of one `_msearch`. A dashboard sends one per panel; the deadline is for all of them.
const SEARCHES_MAX: usize = 100;

/// `_search`: <https://www.elastic.co/guide/en/elasticsearch/reference/8.19/search-search.html>.
pub(crate) async fn search(State(app): State<App>, mut asked: Asked) -> Answered {
    let parameters = &mut asked.parameters;
    let choice = Choice::take(asked.index, parameters)?;
    let mut request = take_body(parameters, &asked.body)?;
    take_query(parameters, &mut request)?;
    for name in ["from", "size"] {
        if let Some(number) = parameters.take_number(name)? {
            request.insert(name.to_owned(), number.into());
        }
    }
    if let Some(keys) = parameters.take_list("sort") {
        request.insert("sort".to_owned(), keys.iter().map(|key| sort_key(key)).collect());
    }
    if let Some(source) = take_source(parameters) {
        request.insert("_source".to_owned(), source);
    }
    if let Some(limit) = take_track_total_hits(parameters)? {
        request.insert("track_total_hits".to_owned(), limit);
    }
    let total_as_number = parameters.take_boolean("rest_total_hits_as_int")?.unwrap_or(false);
    asked.parameters.finish()?;

    let mut answer = run_search(&app, choice, Value::Object(request)).await?;
    if total_as_number && let Some(total) = answer.pointer("/hits/total/value").cloned() {
        answer["hits"]["total"] = total;
    }
    Answer::ok(answer)
}

/// `_count`: <https://www.elastic.co/guide/en/elasticsearch/reference/8.19/search-count.html>.
pub(crate) async fn count(State(app): State<App>, mut asked: Asked) -> Answered {
    let choice = Choice::take(asked.index, &mut asked.parameters)?;
    let mut request = take_body(&mut asked.parameters, &asked.body)?;
    take_query(&mut asked.parameters, &mut request)?;
    asked.parameters.finish()?;
    let hot = app.services.hot.as_ref();
    let Some(names) = choice.resolve(hot).await? else {
        return Answer::ok(json!({"count": 0, "_shards": no_shards()}));
    };
    let started = Instant::now();
    let answer = hot.count(&names, &Value::Object(request)).await;
    metric::SEARCH_SECONDS.observe(&["search"], started.elapsed().as_secs_f64());
    Answer::ok(answer?)
}

/// `_msearch`: <https://www.elastic.co/guide/en/elasticsearch/reference/8.19/search-multi-search.html>. One search that
/// fails has its error in its place.
pub(crate) async fn search_many(State(app): State<App>, asked: Asked) -> Answered {
    let default = asked.index;
    asked.parameters.finish()?;
    let mut lines: Vec<_> = asked.body.split(|&byte| byte == b'\n').collect();
    if lines.last().is_some_and(|line| line.is_empty()) {
        lines.pop();
    }
    if lines.is_empty() || lines.len() % 2 == 1 {
        return Err(Failure::argument("the body must be pairs of lines: a header and a search, each one JSON object"));
    }
    if lines.len() / 2 > SEARCHES_MAX {
        let found = lines.len() / 2;
        return Err(Failure::argument(format!("[{found}] searches in one request, [{SEARCHES_MAX}] are allowed")));
    }
    let started = Instant::now();
    let mut responses = Vec::with_capacity(lines.len() / 2);
    for pair in lines.chunks_exact(2) {
        let request = parse_object(pair[1])?;
        let choice = choice_of_header(parse_object(pair[0])?, default.clone())?;
        responses.push(match run_search(&app, choice, Value::Object(request)).await {
            Ok(mut answer) => {
                answer["status"] = StatusCode::OK.as_u16().into();
                answer
            }
            Err(failure) => failure.body(),
        });
    }
    let took = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    Answer::ok(json!({"took": took, "responses": responses}))
}

/// `GET /{index}/_doc/{id}`: <https://www.elastic.co/guide/en/elasticsearch/reference/8.19/docs-get.html>.
pub(crate) async fn document(State(app): State<App>, asked: Asked) -> Answered {
    let (index, id) = (asked.index.clone().unwrap_or_default(), asked.id.clone().unwrap_or_default());
    let Some(hit) = find_document(&app, asked).await? else {
        return Ok(Answer(StatusCode::NOT_FOUND, json!({"_index": index, "_id": id, "found": false})));
    };
    let mut answer = json!({"_index": hit["_index"], "_id": hit["_id"], "_version": 1, "found": true});
    if let Some(source) = hit.get("_source") {
        answer["_source"] = source.clone();
    }
    Answer::ok(answer)
}

/// `GET /{index}/_source/{id}`.
pub(crate) async fn document_source(State(app): State<App>, asked: Asked) -> Answered {
    let (index, id) = (asked.index.clone().unwrap_or_default(), asked.id.clone().unwrap_or_default());
    match find_document(&app, asked).await? {
        Some(hit) => Answer::ok(hit["_source"].clone()),
        None => {
            let reason = format!("Document not found [{index}]/[{id}]");
            Err(Failure::new(404, "resource_not_found_exception", reason))
        }
    }
}

async fn find_document(app: &App, mut asked: Asked) -> Result<Option<Value>, Failure> {
    let mut request = json!({"query": {"ids": {"values": [asked.id.unwrap_or_default()]}}, "size": 1});
    if let Some(source) = take_source(&mut asked.parameters) {
        request["_source"] = source;
    }
    asked.parameters.finish()?;
    let mut answer = run_search(app, Choice::of(asked.index), request).await?;
    Ok(answer.pointer_mut("/hits/hits/0").map(Value::take))
}

async fn run_search(app: &App, choice: Choice, request: Value) -> Answered<Value> {
    let hot = app.services.hot.as_ref();
    let Some(names) = choice.resolve(hot).await? else {
        let hits = json!({"total": {"value": 0, "relation": "eq"}, "max_score": null, "hits": []});
        return Ok(json!({"took": 0, "timed_out": false, "_shards": no_shards(), "hits": hits}));
    };
    let started = Instant::now();
    let answer = hot.search(&names, &request).await;
    metric::SEARCH_SECONDS.observe(&["search"], started.elapsed().as_secs_f64());
    Ok(answer?)
}

fn no_shards() -> Value {
    json!({"total": 0, "successful": 0, "skipped": 0, "failed": 0})
}

fn take_body(parameters: &mut Parameters, body: &[u8]) -> Answered<Map<String, Value>> {
    match parameters.take("source") {
        Some(source) if body.is_empty() => parse_object(source.as_bytes()),
        Some(_) => Err(Failure::argument("a body and the parameter [source] are given; one is allowed")),
        None => parse_object(body),
    }
}

/// `q` takes the place of the body's query, as in Elasticsearch.
fn take_query(parameters: &mut Parameters, request: &mut Map<String, Value>) -> Result<(), Failure> {
    let field = parameters.take("df");
    let operator = parameters.take("default_operator");
    let Some(query) = parameters.take("q") else {
        return match (field, operator) {
            (None, None) => Ok(()),
            _ => Err(Failure::argument("[df] and [default_operator] belong to the parameter [q], which is not given")),
        };
    };
    let mut query_string = json!({"query": query});
    if let Some(field) = field {
        query_string["default_field"] = field.into();
    }
    match operator.as_deref().map(str::to_ascii_lowercase).as_deref() {
        None => {}
        Some(known @ ("and" | "or")) => query_string["default_operator"] = known.into(),
        Some(other) => {
            return Err(Failure::argument(format!("[default_operator] is [{other}] but must be one of [and, or]")));
        }
    }
    request.insert("query".to_owned(), json!({"query_string": query_string}));
    Ok(())
}

/// `field:desc` as the body has it.
fn sort_key(key: &str) -> Value {
    match key.rsplit_once(':') {
        Some((field, order)) => json!({field: {"order": order}}),
        None => key.into(),
    }
}

fn take_source(parameters: &mut Parameters) -> Option<Value> {
    let fields = parameters.take("_source");
    let includes = parameters.take_list("_source_includes");
    let excludes = parameters.take_list("_source_excludes");
    match (fields.as_deref(), includes, excludes) {
        (None, None, None) => None,
        (Some("true" | ""), None, None) => Some(true.into()),
        (Some("false"), ..) => Some(false.into()),
        (Some(fields), None, None) => Some(split_list(fields).into()),
        (_, includes, excludes) => {
            Some(json!({"includes": includes.unwrap_or_default(), "excludes": excludes.unwrap_or_default()}))
        }
    }
}

fn take_track_total_hits(parameters: &mut Parameters) -> Answered<Option<Value>> {
    match parameters.take("track_total_hits").as_deref() {
        None => Ok(None),
        Some("" | "true") => Ok(Some(true.into())),
        Some("false") => Ok(Some(false.into())),
        Some(number) => match number.parse::<u32>() {
            Ok(number) => Ok(Some(number.into())),
            Err(_) => {
                let known = "must be true, false or a number from 0";
                Err(Failure::argument(format!("[track_total_hits] is [{number}] but {known}")))
            }
        },
    }
}

/// What an `_msearch` header says of indices; keys without effect here are taken.
fn choice_of_header(header: Map<String, Value>, default: Option<String>) -> Result<Choice, Failure> {
    let mut index = default;
    let mut ignore_unavailable = false;
    for (key, value) in header {
        match (key.as_str(), value) {
            ("index" | "indices", Value::String(name)) => index = Some(name),
            ("index" | "indices", Value::Array(names)) => {
                let names: Option<Vec<_>> = names.iter().map(Value::as_str).collect();
                index = Some(names.ok_or_else(|| wrong_header(&key))?.join(","));
            }
            ("ignore_unavailable", Value::Bool(value)) => ignore_unavailable = value,
            ("search_type", Value::String(kind)) if kind == "query_then_fetch" => {}
            ("allow_no_indices", Value::Bool(true)) => {}
            (
                "allow_partial_search_results"
                | "ccs_minimize_roundtrips"
                | "expand_wildcards"
                | "preference"
                | "request_cache",
                _,
            ) => {}
            _ => return Err(wrong_header(&key)),
        }
    }
    Ok(Choice::of(index).with_ignore_unavailable(ignore_unavailable))
}

fn wrong_header(key: &str) -> Failure {
    Failure::argument(format!("key [{key}] is not supported in the metadata section, or not with this value"))
}
