//! The store itself: all sources behind the contract's traits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use contract::{
    Clock, Day, Error, Expired, HotStore, IndexSummary, Offset, Partition, Positions, Result, RowSchema, RowStream,
    Rows, SearchError, SourceId, Store, Timestamp,
};
use reqwest::Method;
use serde_json::{Value, json};

use super::client::{Body, Client};
use super::server::Server;
use super::source::ElasticSource;
use super::template::Wanted;
use super::{
    CHECKPOINT_INDEX, ElasticsearchSettings, REFUSED_INDEX, TemplateState, canonical, lifecycle, refused, rows,
    template,
};
use crate::names::period;
use crate::source::first_day;

/// The hot store on a cluster of Elasticsearch or OpenSearch.
pub struct ElasticsearchStore {
    pub(super) inner: Arc<Inner>,
    settings: ElasticsearchSettings,
    server: Server,
    is_read_only: bool,
    notes: Vec<String>,
}

/// What all sources have in common.
pub(super) struct Inner {
    pub(super) client: Arc<Client>,
    pub(super) sources: BTreeMap<&'static str, ElasticSource>,
    pub(super) retention_days: u16,
    clock: Arc<dyn Clock>,
    /// Whether something was written, by this process or before it began, that searches may not see yet.
    is_hidden: AtomicBool,
    /// What the names of indices begin with: nothing, but in a draft.
    pub(super) prefix: String,
}

impl ElasticsearchStore {
    /// Opens the store of some sources, for reading and writing. Index templates that are not there, or are as an older version
    /// made them, are installed; one that somebody changed stays, see [`ElasticsearchStore::notes`].
    ///
    /// # Errors
    /// `Change` when a setting is wrong, or the server is of a kind or version that the store was not made for; `Retry`
    /// when no host answers.
    pub async fn open(
        settings: &ElasticsearchSettings,
        schemas: &[&'static RowSchema],
        retention_days: u16,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let mut store = Self::with(settings, schemas, retention_days, clock, false).await?;
        store.notes = store.prepare(false).await?;
        for note in &store.notes {
            tracing::warn!("{note}");
        }
        Ok(store)
    }

    /// Opens the store as it is, for reading.
    ///
    /// # Errors
    /// As [`ElasticsearchStore::open`].
    pub async fn open_read_only(
        settings: &ElasticsearchSettings,
        schemas: &[&'static RowSchema],
        retention_days: u16,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        Self::with(settings, schemas, retention_days, clock, true).await
    }

    async fn with(
        settings: &ElasticsearchSettings,
        schemas: &[&'static RowSchema],
        retention_days: u16,
        clock: Arc<dyn Clock>,
        is_read_only: bool,
    ) -> Result<Self> {
        let client = Arc::new(Client::new(settings)?);
        let server = Server::detect(&client).await?;
        let source =
            |&schema: &&'static RowSchema| (schema.source.0, ElasticSource::new(schema, settings.bulk_bytes_max));
        let sources = schemas.iter().map(source).collect();
        let is_hidden = AtomicBool::new(true);
        let prefix = String::new();
        let inner = Arc::new(Inner { client, sources, retention_days, clock, is_hidden, prefix });
        Ok(Self { inner, settings: settings.clone(), server, is_read_only, notes: Vec::new() })
    }

    /// A store of one source alone, on indices whose names begin with `prefix`.
    pub(super) fn beside(&self, source: &ElasticSource, prefix: String) -> Self {
        let of = ElasticSource::new(source.schema, self.settings.bulk_bytes_max);
        let inner = Inner {
            client: self.inner.client.clone(),
            sources: [(source.id().0, of)].into(),
            retention_days: self.inner.retention_days,
            clock: self.inner.clock.clone(),
            is_hidden: AtomicBool::new(true),
            prefix,
        };
        let (settings, server) = (self.settings.clone(), self.server.clone());
        Self { inner: Arc::new(inner), settings, server, is_read_only: false, notes: Vec::new() }
    }

    /// What is not as it should be, a sentence each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The server and its addresses: `Elasticsearch 8.19.0 at http://127.0.0.1:9200`.
    pub fn server(&self) -> String {
        format!("{} at {}", self.server, self.inner.client.hosts())
    }

    /// How the templates on the server stand to those of this version, by name, and the lifecycle policy that they name where the
    /// server has such.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub async fn templates(&self) -> Result<Vec<(String, TemplateState)>> {
        let client = &self.inner.client;
        let policy = self.policy().await?;
        let mut states = Vec::new();
        for source in self.inner.sources.values() {
            let state = template::state(client, source.schema, self.wanted(policy.is_some())).await?;
            states.push((template::name(source.schema), state));
        }
        states.extend(policy.map(|state| (format!("{} (policy)", lifecycle::POLICY), state)));
        Ok(states)
    }

    /// Installs templates, the policy that they name, and the store's own indices. What somebody changed is replaced only by
    /// `force`. Answers what stays as it is, a sentence each.
    ///
    /// # Errors
    /// When the server refuses or cannot be asked.
    pub async fn prepare(&self, force: bool) -> Result<Vec<String>> {
        let inner = &self.inner;
        let mut notes = Vec::new();
        let stays = |what: &str, name: &str, differences: &[String]| {
            let differences = differences.join(", ");
            format!(
                "the {what} `{name}` was changed and stays so: {differences}; `databroker templates --force` replaces it"
            )
        };
        let policy = self.policy().await?;
        let wanted = self.wanted(policy.is_some());
        match policy {
            None | Some(TemplateState::Current) => {}
            Some(TemplateState::Edited(differences)) if !force => {
                notes.push(stays("lifecycle policy", lifecycle::POLICY, &differences));
            }
            Some(_) => lifecycle::install(&inner.client).await?,
        }
        for source in inner.sources.values() {
            match template::state(&inner.client, source.schema, wanted).await? {
                TemplateState::Current => {}
                TemplateState::Edited(differences) if !force => {
                    notes.push(stays("index template", &template::name(source.schema), &differences));
                }
                _ => template::install(&inner.client, source.schema, wanted).await?,
            }
            let indices = inner.names_of(&[source.schema]).await?;
            let others = template::grow(&inner.client, source.schema, &indices).await?;
            if !others.is_empty() {
                let (source, others) = (source.id(), others.into_iter().collect::<Vec<_>>().join(", "));
                notes.push(format!(
                    "indices of `{source}` have columns of another type: {others}; `databroker reprocess {source}` makes them anew"
                ));
            }
        }
        let keyword = json!({"type": "keyword"});
        let checkpoint = json!({"dynamic": false, "properties":
            {"source": keyword, "partition": {"type": "integer"}, "next": {"type": "long"}}});
        for (name, mapping) in [(CHECKPOINT_INDEX, checkpoint), (REFUSED_INDEX, refused::mapping())] {
            let settings = json!({"number_of_shards": 1, "number_of_replicas": self.settings.replicas, "hidden": true});
            inner.create(name, json!({"settings": {"index": settings}, "mappings": mapping})).await?;
        }
        Ok(notes)
    }

    /// How many rows the server refused for good.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub async fn refused(&self) -> Result<u64> {
        let inner = &self.inner;
        inner.refresh(REFUSED_INDEX).await?;
        let path = format!("{REFUSED_INDEX}/_count?ignore_unavailable=true");
        let found = inner.client.ask_json(Method::GET, &path, Body::None, "count the refused rows").await?;
        Ok(found["count"].as_u64().unwrap_or_default())
    }

    async fn policy(&self) -> Result<Option<TemplateState>> {
        if self.server.has_policies() { lifecycle::state(&self.inner.client).await } else { Ok(None) }
    }

    fn wanted(&self, has_policies: bool) -> Wanted<'_> {
        Wanted { settings: &self.settings, has_policies }
    }

    pub(super) fn source(&self, source: SourceId) -> Result<&ElasticSource> {
        let known = || self.inner.sources.keys().copied().collect::<Vec<_>>().join(", ");
        let found = self.inner.sources.get(source.0);
        found.ok_or_else(|| Error::change(format!("use the hot store of `{source}` (known: {})", known())))
    }

    pub(super) fn changeable(&self, source: SourceId) -> Result<&ElasticSource> {
        if self.is_read_only {
            return Err(Error::change(format!("change the hot store of `{source}`, which was opened for reading")));
        }
        self.source(source)
    }
}

impl Inner {
    /// The first day that is kept.
    pub(super) fn first_day(&self, now: Timestamp) -> Option<Day> {
        first_day(self.retention_days, now)
    }

    /// The first day that is kept at present.
    pub(super) fn first_day_now(&self) -> Option<Day> {
        self.first_day(self.clock.now())
    }

    /// Something was written.
    pub(super) fn changed(&self) {
        self.is_hidden.store(true, Ordering::SeqCst);
    }

    /// Makes all that was written visible to searches.
    pub(super) async fn show(&self) -> Result<()> {
        if !self.is_hidden.swap(false, Ordering::SeqCst) {
            return Ok(());
        }
        let patterns: Vec<_> = self.sources.keys().map(|source| format!("{}{source}-*.*", self.prefix)).collect();
        let shown = self.refresh(&format!("{},{REFUSED_INDEX}", patterns.join(","))).await;
        if shown.is_err() {
            self.changed();
        }
        shown
    }

    /// Makes what was written to some indices visible to searches.
    pub(super) async fn refresh(&self, indices: &str) -> Result<()> {
        let path = format!("{indices}/_refresh?ignore_unavailable=true&expand_wildcards=all");
        let doing = format!("refresh `{indices}`");
        self.client.ask_json(Method::POST, &path, Body::None, &doing).await.map(drop)
    }

    /// The names of the indices of some sources, in order: read from the state of the cluster, which is cheap.
    pub(super) async fn names_of(&self, schemas: &[&RowSchema]) -> Result<Vec<String>> {
        Ok(self.indices_of(schemas).await?.into_keys().collect())
    }

    /// The same, each with the name of the index whose alias it may be.
    pub(super) async fn indices_of(&self, schemas: &[&RowSchema]) -> Result<BTreeMap<String, String>> {
        let patterns: Vec<_> = schemas.iter().map(|schema| format!("{}{}-*.*", self.prefix, schema.source)).collect();
        let path = format!("{}/_alias?expand_wildcards=all", patterns.join(","));
        let found = self.client.ask_json(Method::GET, &path, Body::None, "list the indices").await?;
        let names = found.as_object().into_iter().flat_map(serde_json::Map::keys);
        let is_ours = |name: &str| schemas.iter().any(|schema| period(schema.source, name).is_some());
        let known = names.map(|index| (canonical(index).to_owned(), index.clone()));
        Ok(known.filter(|(name, _)| is_ours(name)).collect())
    }

    /// By what a source's position is known.
    pub(super) fn marked(&self, source: SourceId) -> String {
        format!("{}{source}", self.prefix)
    }

    /// Removes an index, if it is there.
    pub(super) async fn delete(&self, index: &str) -> Result<()> {
        let answer = self.client.send(Method::DELETE, index, Body::None).await?;
        if answer.status.as_u16() == 404 {
            return Ok(());
        }
        answer.json(&format!("remove the index `{index}`")).map(drop)
    }

    /// Makes an index, if it is not there.
    pub(super) async fn create(&self, name: &str, body: Value) -> Result<()> {
        let answer = self.client.send(Method::PUT, name, Body::Json(body)).await?;
        if answer.status.as_u16() == 400 && answer.reason().contains("resource_already_exists_exception") {
            return Ok(());
        }
        answer.json(&format!("make the index `{name}`")).map(drop)
    }
}

#[async_trait]
impl Store for ElasticsearchStore {
    fn name(&self) -> &'static str {
        "hot"
    }

    async fn write(&self, rows: &Rows) -> Result<()> {
        self.changeable(rows.span.source)?.write(&self.inner, rows).await
    }

    async fn commit(&self, source: SourceId) -> Result<Positions> {
        self.changeable(source)?.commit(&self.inner).await
    }

    async fn committed(&self, source: SourceId) -> Result<Positions> {
        self.source(source)?.committed(&self.inner).await
    }

    async fn resume(&self, source: SourceId, partitions: &[Partition]) -> Result<Positions> {
        self.changeable(source)?.resume(&self.inner, partitions).await
    }
}

#[async_trait]
impl HotStore for ElasticsearchStore {
    async fn search(&self, indices: &str, request: &Value) -> Result<Value, SearchError> {
        self.inner.search(indices, request).await
    }

    async fn count(&self, indices: &str, request: &Value) -> Result<Value, SearchError> {
        self.inner.count(indices, request).await
    }

    async fn mapping(&self, indices: &str) -> Result<Value, SearchError> {
        self.inner.mapping(indices).await
    }

    async fn indices(&self, pattern: &str) -> Result<Vec<IndexSummary>, SearchError> {
        self.inner.summaries(pattern).await
    }

    fn first_day(&self, now: Timestamp) -> Option<Day> {
        self.inner.first_day(now)
    }

    async fn expire(&self, source: SourceId, now: Timestamp, cold: &Positions) -> Result<Expired> {
        self.changeable(source)?.expire(&self.inner, now, cold).await
    }

    async fn rows(&self, source: SourceId) -> Result<RowStream> {
        let found = self.source(source)?;
        // What other processes wrote, of which this one does not know.
        self.inner.changed();
        self.inner.show().await?;
        let indices = self.inner.names_of(&[found.schema]).await?;
        Ok(rows::all(self.inner.client.clone(), found.schema, indices))
    }

    async fn replace(&self, source: SourceId, rows: &RecordBatch) -> Result<()> {
        self.changeable(source)?.replace(&self.inner, rows).await
    }

    async fn remove(&self, source: SourceId, places: &[(Partition, Offset)]) -> Result<()> {
        self.changeable(source)?.remove(&self.inner, places).await
    }
}
