//! `search`: the query string against the hot store.

use contract::{Error, Result};
use serde_json::{Value, json};

use crate::broker::Broker;
use crate::output;

/// Elasticsearch's request for what the user asks.
pub(crate) fn body(query: &str, from: Option<&str>, to: Option<&str>, size: u64, by_score: bool) -> Value {
    let mut filter = Vec::new();
    if from.is_some() || to.is_some() {
        let mut range = serde_json::Map::new();
        range.extend(from.map(|from| ("gte".to_owned(), json!(from))));
        range.extend(to.map(|to| ("lt".to_owned(), json!(to))));
        filter.push(json!({"range": {"event_time": range}}));
    }
    let query = json!({"query_string": {"query": query}});
    let sort = if by_score { json!(["_score"]) } else { json!([{"event_time": "desc"}]) };
    json!({
        "query": {"bool": {"must": [query], "filter": filter}},
        "sort": sort,
        "size": size,
        "track_total_hits": true,
    })
}

/// Elasticsearch's response body.
pub(crate) async fn run(broker: &Broker, arguments: &Value) -> Result<Value> {
    let source = broker.source(arguments["source"].as_str().unwrap_or_default())?;
    let answer = broker.engines.hot.search(source.id.0, &arguments["body"]).await;
    answer.map_err(|error| Error::change(format!("search `{}`", source.id)).because(error))
}

/// What a line shows of a hit, whatever its source: of each list the first column that the row has, and its width.
const SHOWN: &[(&[&str], usize)] = &[
    (&["type", "qtype", "primary_category", "feed_title"], 22),
    (&["repo_name", "qname", "arxiv_id", "link"], 40),
    (&["actor_login", "rcode", "author_names", "authors"], 20),
    (&["title", "ref", "description", "body", "client_ip", "summary"], 80),
];

/// One line a hit: time, what it is, what it is about, by whom, and its first words.
pub(crate) fn print(answer: &Value) {
    let none = Vec::new();
    let hits = answer["hits"]["hits"].as_array().unwrap_or(&none);
    for hit in hits {
        let row = &hit["_source"];
        let mut line = row["event_time"].as_str().unwrap_or_default().to_owned();
        for (columns, width) in SHOWN {
            let words =
                columns.iter().map(|name| row[name].as_str().or_else(|| row[name][0].as_str()).unwrap_or_default());
            let words = words.into_iter().find(|words| !words.is_empty()).unwrap_or_default();
            line.push_str(&format!("  {:<width$}", output::first_words(words, *width)));
        }
        output::line(line.trim_end());
    }
    let total = answer["hits"]["total"]["value"].as_u64().unwrap_or_default();
    output::line(&format!("{} of {total} hits in {} ms", hits.len(), answer["took"]));
    if total == 0 {
        output::line(
            "The hot store keeps the last days (`hot.retention_days`); older rows are in the cold store: try `sql`.",
        );
    }
}
