//! How long searches take on two hot stores that hold the same rows: those of the parity suite, ten hits each.
//!
//!     cargo bench -p databroker --bench search -- SOURCE URL URL
//!
//! Each URL answers Elasticsearch's REST: `http://127.0.0.1:9200` of an `up`, that of a real Elasticsearch. Every query is asked
//! three times to warm, then thirty times, one at a time, in turns with the other store; the ratio is the second to the first.

use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::{Value, json};

const QUERIES: &str = include_str!("../tests/parity/queries.txt");
const WARMING: usize = 3;
const ROUNDS: usize = 30;
const QUERIES_MIN: usize = 20;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let given: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let [source, one, other] = &given[..] else {
        // As `cargo bench` runs all of them.
        println!("search: give SOURCE URL URL to compare two stores");
        return Ok(());
    };
    let queries = queries(source)?;
    anyhow::ensure!(queries.len() >= QUERIES_MIN, "{} queries for `{source}`", queries.len());
    let client = reqwest::Client::new();
    let mut times = [Vec::new(), Vec::new()];
    let mut asked = 0;
    for query in &queries {
        if is_refused(&client, one, source, query).await? && is_refused(&client, other, source, query).await? {
            continue;
        }
        asked += 1;
        for round in 0..WARMING + ROUNDS {
            for (url, times) in [one, other].into_iter().zip(&mut times) {
                let took = ask(&client, url, source, query).await?;
                if round >= WARMING {
                    times.push(took);
                }
            }
        }
    }
    println!("{asked} queries, {ROUNDS} times each\n\n| store | p50 ms | p99 ms |\n| --- | --- | --- |");
    let [first, second] = times.map(|mut times| {
        times.sort();
        [times[times.len() / 2], times[times.len() * 99 / 100]].map(|time| time.as_secs_f64() * 1e3)
    });
    for (url, [half, most]) in [(one, first), (other, second)] {
        println!("| {url} | {half:.2} | {most:.2} |");
    }
    println!("| ratio | {:.2} | {:.2} |", second[0] / first[0], second[1] / first[1]);
    Ok(())
}

/// Whether a store refuses a query: the parity suite has some that both do.
async fn is_refused(client: &reqwest::Client, url: &str, source: &str, query: &Value) -> anyhow::Result<bool> {
    let answer = client.post(format!("{url}/{source}/_search")).json(query).send().await?;
    Ok(answer.status() == reqwest::StatusCode::BAD_REQUEST)
}

/// The queries of a source that both stores answer alike.
fn queries(source: &str) -> anyhow::Result<Vec<Value>> {
    let lines = QUERIES.lines().filter_map(|line| line.strip_prefix(source)?.strip_prefix(' '));
    let parsed = lines.map(|body| {
        let mut body: Value = serde_json::from_str(body).with_context(|| format!("read the query {body}"))?;
        // What asks for no hit asks for aggregations alone.
        if body["size"] != json!(0) {
            body["size"] = json!(10);
        }
        Ok(body)
    });
    parsed.collect()
}

async fn ask(client: &reqwest::Client, url: &str, source: &str, query: &Value) -> anyhow::Result<Duration> {
    let started = Instant::now();
    let answer = client.post(format!("{url}/{source}/_search")).json(query).send().await?;
    let status = answer.status();
    let body = answer.bytes().await?;
    anyhow::ensure!(status.is_success(), "{url}: {status}: {query}: {}", String::from_utf8_lossy(&body));
    Ok(started.elapsed())
}
