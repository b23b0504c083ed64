//! Both hot stores answer the same requests over the same documents: the embedded one, and Elasticsearch 8.19. Needs a real
//! server, so it is behind the feature `real-servers`.

mod documents;

use std::collections::BTreeSet;
use std::sync::Arc;

use contract::conformance::real_server::RealServer;
use contract::{Clock, HotStore, RowSchema};
use hot_store::{ElasticsearchSettings, ElasticsearchStore, Settings, TantivyStore};
use serde_json::{Map, Value, json};

use documents::NOW;

const QUERIES: &str = include_str!("queries.txt");

/// Where each known difference has its reason.
const DIFFERENCES: &str = include_str!("../../../docs/search-differences.md");

/// How far two floating-point numbers may lie apart, as a part of them: sums are made in another order.
const TOLERANCE: f64 = 1e-9;

/// A line of the queries.
struct Query {
    line: usize,
    known_difference: Option<&'static str>,
    indices: &'static str,
    body: Value,
}

fn queries() -> Vec<Query> {
    let lines = (1..).zip(QUERIES.lines()).filter(|(_, text)| !text.is_empty() && !text.starts_with('#'));
    let query = |(line, text): (usize, &'static str)| {
        let (known_difference, text) = match text.strip_prefix("! ") {
            Some(rest) => rest.split_once(' ').map(|(word, rest)| (Some(word), rest)).unwrap(),
            None => (None, text),
        };
        let (indices, body) = text.split_once(' ').unwrap();
        let body = serde_json::from_str(body).unwrap_or_else(|error| panic!("line {line}: {error}"));
        Query { line, known_difference, indices, body }
    };
    lines.map(query).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn real_servers_both_hot_stores_answer_alike() {
    let folder = tempfile::tempdir().unwrap();
    let server = RealServer::start("elasticsearch", &folder.path().join("server"));
    let schemas: Vec<&'static RowSchema> = acquisition::SOURCES.iter().map(|source| source.schema).collect();
    let clock: Arc<dyn Clock> = Arc::new(|| NOW);
    let embedded = folder.path().join("hot");
    let embedded = TantivyStore::open(&embedded, &schemas, Settings::default(), clock.clone()).unwrap();
    let hosts = format!("127.0.0.1:{}", server.port);
    let settings = ElasticsearchSettings { hosts, replicas: 0, ..ElasticsearchSettings::default() };
    let elastic = ElasticsearchStore::open(&settings, &schemas, 10, clock).await.unwrap();
    let mut rows = 0;
    for source in acquisition::SOURCES {
        let all = documents::of(source).await;
        rows += all.silver.num_rows();
        for store in [&embedded as &dyn HotStore, &elastic] {
            store.write(&all).await.unwrap();
            store.commit(source.id).await.unwrap();
        }
    }
    assert!(rows >= 20_000, "{rows} rows");
    let queries = queries();
    assert!(queries.len() >= 150, "{} queries", queries.len());
    let mut wrong = Vec::new();
    for Query { line, known_difference, indices, body } in queries {
        let (one, other) = (answer(&embedded, indices, &body).await, answer(&elastic, indices, &body).await);
        let differences = differences(&one, &other);
        match known_difference {
            None if !differences.is_empty() => {
                wrong.push(format!("line {line}: {indices} {body}\n  {}", differences.join("\n  ")))
            }
            Some(name) if differences.is_empty() => {
                wrong.push(format!("line {line}: `{name}` is no difference any more"))
            }
            Some(name) => assert!(DIFFERENCES.contains(&format!("| {name} |")), "`{name}` has no reason in the docs"),
            None => {}
        }
    }
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
}

/// An answer without what is of one store or one moment: times, shards, and the order where none is defined.
async fn answer(store: &dyn HotStore, indices: &str, body: &Value) -> Value {
    let answer = match store.search(indices, body).await {
        Ok(answer) => answer,
        // The words of a reason are of one store.
        Err(error) => return json!({"status": error.status}),
    };
    let mut hits = answer["hits"]["hits"].as_array().cloned().unwrap_or_default();
    let is_sorted = body.get("sort").is_some();
    if !is_sorted {
        hits.sort_by_key(|hit| hit["_id"].as_str().map(str::to_owned));
    }
    let total = &answer["hits"]["total"];
    let mut kept = json!({"total": total, "hits": hits.iter().map(|hit| kept(hit, is_sorted)).collect::<Vec<_>>()});
    // More fit than are asked for, and which ones is not defined.
    if !is_sorted && total["value"].as_u64() > Some(hits.len() as u64) {
        kept["hits"] = hits.len().into();
    }
    kept["aggregations"] = answer.get("aggregations").map(plain).unwrap_or_default();
    kept
}

fn kept(hit: &Value, is_sorted: bool) -> Value {
    let mut kept = Map::new();
    for name in ["_index", "_id", "_source", "highlight"] {
        kept.insert(name.to_owned(), hit[name].clone());
    }
    if is_sorted {
        kept.insert("sort".to_owned(), hit["sort"].clone());
    }
    Value::Object(kept)
}

/// Aggregations: hits within them without what is of one store.
fn plain(value: &Value) -> Value {
    match value {
        Value::Object(members) if members.contains_key("_index") => kept(value, members.contains_key("sort")),
        Value::Object(members) => {
            let of_one_store = ["max_score", "doc_count_error_upper_bound"];
            let members = members.iter().filter(|(name, _)| !of_one_store.contains(&name.as_str()));
            Value::Object(members.map(|(name, value)| (name.clone(), plain(value))).collect())
        }
        Value::Array(values) => values.iter().map(plain).collect(),
        other => other.clone(),
    }
}

/// The first places where two answers differ.
fn differences(one: &Value, other: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare("", one, other, &mut found);
    found.truncate(4);
    found
}

fn compare(path: &str, one: &Value, other: &Value, found: &mut Vec<String>) {
    match (one, other) {
        (Value::Object(left), Value::Object(right)) => {
            let names: BTreeSet<_> = left.keys().chain(right.keys()).collect();
            names.into_iter().for_each(|name| compare(&format!("{path}/{name}"), &one[name], &other[name], found));
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            let pairs = left.iter().zip(right).enumerate();
            pairs.for_each(|(place, (left, right))| compare(&format!("{path}/{place}"), left, right, found));
        }
        (Value::Number(left), Value::Number(right)) if is_near(left.as_f64(), right.as_f64()) => {}
        (left, right) if left == right => {}
        (left, right) => found.push(format!("{path}: embedded {}, Elasticsearch {}", short(left), short(right))),
    }
}

fn is_near(one: Option<f64>, other: Option<f64>) -> bool {
    let (Some(one), Some(other)) = (one, other) else { return false };
    (one - other).abs() <= TOLERANCE * one.abs().max(other.abs()).max(1.0)
}

fn short(value: &Value) -> String {
    match value {
        Value::Array(values) => {
            let ids: Vec<_> = values.iter().filter_map(|value| value["_id"].as_str()).collect();
            format!("{} values {:?}", values.len(), ids.iter().take(200).collect::<Vec<_>>())
        }
        other => other.to_string().chars().take(160).collect(),
    }
}
