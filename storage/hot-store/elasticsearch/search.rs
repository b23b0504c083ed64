//! Searches, handed on to the server; which indices are meant is decided here, so that it is the same for both stores.

use contract::{IndexSummary, RowSchema, SearchError, SourceId, limits};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::answer::{away, search_error};
use super::client::Body;
use super::items::row_id;
use super::store::Inner;
use super::{NAMES_MAX, canonical};
use crate::names::{period, resolve};

/// A pattern that no index has: a search in nothing is answered by the server too.
const NOTHING: &str = "databroker-nothing-*";

type Answered<T = Value> = Result<T, SearchError>;

impl Inner {
    /// `_search`, as `_msearch` of one: there the indices stand in the body, where they may be many.
    /// Source: <https://www.elastic.co/guide/en/elasticsearch/reference/8.19/search-multi-search.html>.
    pub(super) async fn search(&self, expression: &str, request: &Value) -> Answered {
        let names = self.chosen(expression).await?;
        let mut request = request.clone();
        if let Some(request) = request.as_object_mut() {
            let limit = format!("{}s", limits::SEARCH_SECONDS_MAX);
            request.entry("timeout").or_insert_with(|| limit.into());
        }
        // Scores then count the whole of the indices, as in the embedded store.
        let search_type = if is_scored(&request) { "dfs_query_then_fetch" } else { "query_then_fetch" };
        let header = json!({"index": or_nothing(names), "search_type": search_type});
        let mut answer = self.ask_one(&header, &request).await?;
        if let Some(answer) = answer.as_object_mut() {
            answer.remove("status");
        }
        for hit in answer.pointer_mut("/hits/hits").and_then(Value::as_array_mut).into_iter().flatten() {
            self.restore_id(hit);
        }
        Ok(answer)
    }

    /// `_count`, as a search without hits, for the same reason.
    pub(super) async fn count(&self, expression: &str, request: &Value) -> Answered {
        if let Some(other) = request.as_object().and_then(|request| request.keys().find(|key| *key != "query")) {
            let reason = format!("request does not support [{other}]");
            return Err(SearchError { status: 400, kind: "parsing_exception", reason });
        }
        let names = self.chosen(expression).await?;
        let query = request.get("query").cloned().unwrap_or_else(|| json!({"match_all": {}}));
        let header = json!({"index": or_nothing(names)});
        let body = json!({"query": query, "size": 0, "track_total_hits": true});
        let answer = self.ask_one(&header, &body).await?;
        Ok(json!({"count": answer["hits"]["total"]["value"], "_shards": answer["_shards"]}))
    }

    /// `_mapping`.
    pub(super) async fn mapping(&self, expression: &str) -> Answered {
        let names = self.chosen(expression).await?;
        let mut mappings = Map::new();
        for some in names.chunks(NAMES_MAX) {
            let found = self.get(&format!("{}/_mapping", some.join(","))).await?;
            let found = found.as_object().cloned().unwrap_or_default();
            mappings.extend(found.into_iter().map(|(name, mapping)| (canonical(&name).to_owned(), mapping)));
        }
        Ok(Value::Object(mappings))
    }

    /// Names, rows and bytes.
    pub(super) async fn summaries(&self, expression: &str) -> Answered<Vec<IndexSummary>> {
        let names = self.chosen(expression).await?;
        let mut summaries = Vec::with_capacity(names.len());
        for some in names.chunks(NAMES_MAX) {
            let found = self.get(&format!("{}/_stats/docs,store", some.join(","))).await?;
            let found = found["indices"].as_object().cloned().unwrap_or_default();
            let found: Map<_, _> = found.into_iter().map(|(name, of)| (canonical(&name).to_owned(), of)).collect();
            for name in some {
                let of = found.get(name).unwrap_or(&Value::Null);
                let number = |path: &str| of.pointer(path).and_then(Value::as_u64).unwrap_or(0);
                let (rows, bytes) = (number("/primaries/docs/count"), number("/total/store/size_in_bytes"));
                summaries.push(IndexSummary { name: name.clone(), rows, bytes });
            }
        }
        Ok(summaries)
    }

    /// The names that an expression means, as of now: all that was written is seen by searches afterwards.
    async fn chosen(&self, expression: &str) -> Answered<Vec<String>> {
        self.show().await.map_err(|error| away(&error))?;
        let schemas: Vec<&RowSchema> = self.sources.values().map(|source| source.schema).collect();
        let names = self.names_of(&schemas).await.map_err(|error| away(&error))?;
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let aliases: Vec<SourceId> = schemas.iter().map(|schema| schema.source).collect();
        Ok(resolve(expression, &names, &aliases)?.into_iter().map(str::to_owned).collect())
    }

    async fn get(&self, path: &str) -> Answered {
        let answer = self.client.send(Method::GET, path, Body::None).await.map_err(|error| away(&error))?;
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        if answer.status.is_success() { Ok(body) } else { Err(search_error(answer.status.as_u16(), &body)) }
    }

    async fn ask_one(&self, header: &Value, request: &Value) -> Answered {
        let lines = format!("{header}\n{request}\n");
        let sent = self.client.send(Method::POST, "_msearch", Body::Lines(lines.into())).await;
        let answer = sent.map_err(|error| away(&error))?;
        let mut body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let one = body.pointer_mut("/responses/0").map(Value::take).unwrap_or(body);
        let status = one["status"].as_u64().and_then(|status| u16::try_from(status).ok());
        match status.unwrap_or(answer.status.as_u16()) {
            200 if one["hits"].is_object() => Ok(one),
            200 => Err(search_error(502, &json!({"error": "the answer to a search has no hits"}))),
            status => Err(search_error(status, &one)),
        }
    }

    /// Where the day is part of the document's id, it is taken off; and the index has the name by which it is known.
    fn restore_id(&self, hit: &mut Value) {
        let index = canonical(hit["_index"].as_str().unwrap_or_default()).to_owned();
        hit["_index"] = index.as_str().into();
        let source = self.sources.values().find(|source| period(source.id(), &index).is_some());
        if let Some((source, id)) = source.and_then(|source| Some((source, hit["_id"].as_str()?))) {
            hit["_id"] = row_id(source.schema, &index, id).into();
        }
    }
}

fn or_nothing(names: Vec<String>) -> Vec<String> {
    if names.is_empty() { vec![NOTHING.to_owned()] } else { names }
}

/// Whether the order or the answer depends on scores.
fn is_scored(request: &Value) -> bool {
    match request.get("sort") {
        None => true,
        Some(sort) => sort.to_string().contains("_score"),
    }
}
