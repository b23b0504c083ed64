//! Reads all documents that a query finds.
//! Source: <https://www.elastic.co/guide/en/elasticsearch/reference/8.19/paginate-search-results.html#scroll-search-results>.

use std::sync::Arc;

use contract::{Error, Result};
use reqwest::Method;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::client::{Body, Client};

/// Documents of one answer. They are rows of some KB.
const PORTION: usize = 500;

/// How long the server keeps the place between two portions.
const KEEP: &str = "2m";

/// Documents as they stand in their index, in no order.
pub(super) struct Scroll {
    client: Arc<Client>,
    what: String,
    id: Option<String>,
}

/// A document.
#[derive(Debug, Deserialize)]
pub(super) struct Hit {
    #[serde(rename = "_index")]
    pub(super) index: String,
    #[serde(rename = "_id")]
    pub(super) id: String,
    #[serde(rename = "_source")]
    source: Option<Box<RawValue>>,
}

impl Hit {
    /// The document as it was written, byte for byte.
    pub(super) fn source(&self) -> &str {
        self.source.as_deref().map_or("", RawValue::get)
    }
}

#[derive(Deserialize)]
struct Portion {
    #[serde(rename = "_scroll_id")]
    id: String,
    timed_out: bool,
    #[serde(rename = "_shards")]
    shards: Shards,
    hits: Hits,
}

#[derive(Deserialize)]
struct Shards {
    failed: u64,
}

#[derive(Deserialize)]
struct Hits {
    hits: Vec<Hit>,
}

impl Scroll {
    /// Begins, and answers the first documents with what reads the next. `source` is whether the documents are wanted too.
    pub(super) async fn start(
        client: Arc<Client>,
        index: &str,
        query: Value,
        source: bool,
    ) -> Result<(Self, Vec<Hit>)> {
        let mut scroll = Self { client, what: format!("read the documents of `{index}`"), id: None };
        let path = format!("{index}/_search?scroll={KEEP}&ignore_unavailable=true");
        let body = json!({"size": PORTION, "sort": ["_doc"], "query": query, "_source": source});
        let hits = scroll.ask(&path, body).await?;
        Ok((scroll, hits))
    }

    /// The next documents; none at the end.
    pub(super) async fn next(&mut self) -> Result<Vec<Hit>> {
        let Some(id) = self.id.clone() else { return Ok(Vec::new()) };
        let hits = self.ask("_search/scroll", json!({"scroll": KEEP, "scroll_id": id})).await?;
        if hits.is_empty() {
            self.end().await;
        }
        Ok(hits)
    }

    /// All that is left to read, for what is known to be little.
    pub(super) async fn all(client: Arc<Client>, index: &str, query: Value, source: bool) -> Result<Vec<Hit>> {
        let (mut scroll, mut all) = Self::start(client, index, query, source).await?;
        loop {
            let hits = scroll.next().await?;
            if hits.is_empty() {
                return Ok(all);
            }
            all.extend(hits);
        }
    }

    async fn ask(&mut self, path: &str, body: Value) -> Result<Vec<Hit>> {
        let answer = self.client.send(Method::POST, path, Body::Json(body)).await?;
        if !answer.status.is_success() {
            answer.json(&self.what)?;
        }
        let portion: Portion = serde_json::from_slice(&answer.body)
            .map_err(|cause| Error::retry(format!("{}: understand the answer", self.what)).because(cause))?;
        if portion.timed_out || portion.shards.failed > 0 {
            return Err(Error::retry(self.what.clone()).because("not all shards answered"));
        }
        self.id = Some(portion.id);
        Ok(portion.hits.hits)
    }

    async fn end(&mut self) {
        let Some(id) = self.id.take() else { return };
        // One that stays ends by itself after a while.
        let ended = self.client.send(Method::DELETE, "_search/scroll", Body::Json(json!({"scroll_id": id}))).await;
        ended.map(drop).unwrap_or_default();
    }
}
