//! The store itself: all sources behind the contract's traits.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use contract::{
    Clock, Day, Error, Expired, HotStore, IndexSummary, Offset, Partition, Positions, Result, RowSchema, RowStream,
    Rows, SearchError, SourceId, Store, Timestamp, limits, metric,
};
use serde_json::{Map, Value, json};
use tokio::task::spawn_blocking;

use crate::document::Budget;
use crate::draft::Drafts;
use crate::fields::Fields;
use crate::index::{HotIndex, OpenIndex};
use crate::names::resolve;
use crate::source::{Common, HotSource, first_day};
use crate::writers::WriterMemory;
use crate::{Settings, proof, query};

/// The file that the process which writes holds locked.
const LOCK: &str = ".lock";

/// The hot store in tantivy: one index per source and event day, or per month where all is kept.
///
/// A folder holds `SOURCE-YYYY.MM.DD/` (an index), `SOURCE.checkpoint` (how far the store is) and `quarantine/`
/// (what was found damaged). Work on files runs on tokio's blocking threads, so a runtime must be there.
#[derive(Clone)]
pub struct TantivyStore {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Settings,
    clock: Arc<dyn Clock>,
    sources: BTreeMap<&'static str, Arc<HotSource>>,
    is_read_only: bool,
    notes: Vec<String>,
    drafts: Drafts,
    /// Held, not used: the lock ends with it.
    _lock: Option<fs::File>,
}

impl TantivyStore {
    /// Opens the store of some sources in `folder`, which is made if it is not there, for reading and writing. What a
    /// killed process left is cleaned; what is damaged is moved to `quarantine/` and the source's position falls
    /// back so that it is built anew, see [`TantivyStore::notes`].
    ///
    /// # Errors
    /// `Change` when a setting is out of its range or another process writes there, `Stop` when the disk refuses.
    pub fn open(
        folder: &Path,
        schemas: &[&'static RowSchema],
        settings: Settings,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        settings.check()?;
        let failed = || Error::stop(format!("open the hot store `{}`", folder.display()));
        fs::create_dir_all(folder).map_err(|error| failed().because(error))?;
        let lock = lock(folder)?;
        Self::with(folder, schemas, settings, clock, Some(lock))
    }

    /// Opens the store as it is, for reading; another process may write meanwhile, and its commits are seen.
    ///
    /// # Errors
    /// `Change` when a setting is out of its range or there is no such folder, `Stop` when the disk refuses.
    pub fn open_read_only(
        folder: &Path,
        schemas: &[&'static RowSchema],
        settings: Settings,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        settings.check()?;
        if !folder.is_dir() {
            return Err(Error::change(format!("open the hot store `{}`: there is no such folder", folder.display())));
        }
        Self::with(folder, schemas, settings, clock, None)
    }

    fn with(
        folder: &Path,
        schemas: &[&'static RowSchema],
        settings: Settings,
        clock: Arc<dyn Clock>,
        lock: Option<fs::File>,
    ) -> Result<Self> {
        let common = Common {
            folder: folder.to_owned(),
            budget: Budget::new(settings.queued_bytes_max),
            memory: WriterMemory::new(&settings),
            settings: settings.clone(),
        };
        let (mut sources, mut notes) = (BTreeMap::new(), Vec::new());
        for &schema in schemas {
            let open = if lock.is_some() { HotSource::open } else { HotSource::open_read_only };
            let (source, said) = open(common.clone(), schema)?;
            for note in &said {
                tracing::warn!(source = %schema.source, "{note}");
            }
            notes.extend(said);
            metric::HOT_INDICES.set(&[schema.source.0], source.all().len() as f64);
            sources.insert(schema.source.0, Arc::new(source));
        }
        let is_read_only = lock.is_none();
        let drafts = Drafts::default();
        Ok(Self { inner: Arc::new(Inner { settings, clock, sources, is_read_only, notes, drafts, _lock: lock }) })
    }

    /// A store of one source alone, which lies within this one.
    pub(crate) fn beside(&self, source: HotSource) -> Self {
        let Inner { settings, clock, .. } = &*self.inner;
        let inner = Inner {
            settings: settings.clone(),
            clock: clock.clone(),
            sources: [(source.id().0, Arc::new(source))].into(),
            is_read_only: false,
            notes: Vec::new(),
            drafts: Drafts::default(),
            _lock: None,
        };
        Self { inner: Arc::new(inner) }
    }

    pub(crate) fn drafts(&self) -> Drafts {
        self.inner.drafts.clone()
    }

    /// What was found damaged or missing when the store was opened, a sentence each.
    pub fn notes(&self) -> &[String] {
        &self.inner.notes
    }

    #[cfg(test)]
    pub(crate) fn open_writers(&self, source: SourceId) -> usize {
        self.inner.sources[source.0].progress().expect("it works").writers.len()
    }

    pub(crate) fn source(&self, source: SourceId) -> Result<Arc<HotSource>> {
        let known = || self.inner.sources.keys().copied().collect::<Vec<_>>().join(", ");
        let found = self.inner.sources.get(source.0).cloned();
        found.ok_or_else(|| Error::change(format!("use the hot store of `{source}` (known: {})", known())))
    }

    /// Runs work that changes a source where it may block.
    pub(crate) async fn change<T: Send + 'static>(
        &self,
        source: SourceId,
        work: impl FnOnce(&HotSource) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let found = self.source(source)?;
        if self.inner.is_read_only {
            return Err(Error::change(format!("change the hot store of `{source}`, which was opened for reading")));
        }
        let done = spawn_blocking(move || work(&found)).await;
        done.map_err(|error| Error::stop(format!("change the hot store of `{source}`")).because(error))?
    }

    /// Runs work on the indices that an expression means where it may block.
    async fn read<T: Send + 'static>(
        &self,
        expression: &str,
        work: impl FnOnce(Vec<Arc<HotIndex>>, Timestamp) -> Result<T, SearchError> + Send + 'static,
    ) -> Result<T, SearchError> {
        let (inner, expression) = (self.inner.clone(), expression.to_owned());
        let done = spawn_blocking(move || work(inner.chosen(&expression)?, inner.clock.now())).await;
        done.unwrap_or_else(|error| Err(internal(format!("the search ended without an answer: {error}"))))
    }
}

impl Inner {
    fn chosen(&self, expression: &str) -> Result<Vec<Arc<HotIndex>>, SearchError> {
        let mut all = Vec::new();
        for source in self.sources.values() {
            if self.is_read_only {
                source.refresh().map_err(|error| internal(error.to_string()))?;
            }
            all.extend(source.all());
        }
        all.sort_by(|one, other| one.name.cmp(&other.name));
        let names: Vec<&str> = all.iter().map(|index| index.name.as_str()).collect();
        let aliases: Vec<SourceId> = self.sources.values().map(|source| source.id()).collect();
        let chosen = resolve(expression, &names, &aliases)?;
        Ok(all.iter().filter(|index| chosen.contains(&index.name.as_str())).cloned().collect())
    }
}

#[async_trait]
impl Store for TantivyStore {
    fn name(&self) -> &'static str {
        "hot"
    }

    async fn write(&self, rows: &Rows) -> Result<()> {
        let (rows, now) = (rows.clone(), self.inner.clock.now());
        self.change(rows.span.source, move |source| source.write(&rows, now)).await
    }

    async fn commit(&self, source: SourceId) -> Result<Positions> {
        self.change(source, |source| source.commit()).await
    }

    async fn committed(&self, source: SourceId) -> Result<Positions> {
        let (found, is_read_only) = (self.source(source)?, self.inner.is_read_only);
        let read = move || {
            if is_read_only {
                found.refresh()?;
            }
            Ok(found.committed())
        };
        let done = spawn_blocking(read).await;
        done.map_err(|error| Error::stop(format!("read the position of `{source}`")).because(error))?
    }

    async fn resume(&self, source: SourceId, partitions: &[Partition]) -> Result<Positions> {
        let partitions = partitions.to_vec();
        self.change(source, move |source| source.resume(&partitions)).await
    }
}

#[async_trait]
impl HotStore for TantivyStore {
    async fn search(&self, indices: &str, request: &Value) -> Result<Value, SearchError> {
        let (request, deadline) = (request.clone(), deadline());
        self.read(indices, move |indices, now| query::search(&opened(&indices), &request, now, deadline)).await
    }

    async fn count(&self, indices: &str, request: &Value) -> Result<Value, SearchError> {
        let (request, deadline) = (request.clone(), deadline());
        self.read(indices, move |indices, now| query::count(&opened(&indices), &request, now, deadline)).await
    }

    async fn mapping(&self, indices: &str) -> Result<Value, SearchError> {
        let mapping = |index: &Arc<HotIndex>| (index.name.clone(), json!({"mappings": mapping(&index.fields)}));
        self.read(indices, move |indices, _| Ok(Value::Object(indices.iter().map(mapping).collect()))).await
    }

    async fn indices(&self, pattern: &str) -> Result<Vec<IndexSummary>, SearchError> {
        let summary = |index: &Arc<HotIndex>| IndexSummary {
            name: index.name.clone(),
            rows: index.opened().searcher.num_docs(),
            bytes: index.bytes(),
        };
        self.read(pattern, move |indices, _| Ok(indices.iter().map(summary).collect())).await
    }

    fn first_day(&self, now: Timestamp) -> Option<Day> {
        first_day(self.inner.settings.retention_days, now)
    }

    async fn expire(&self, source: SourceId, now: Timestamp, cold: &Positions) -> Result<Expired> {
        let cold = cold.clone();
        self.change(source, move |source| source.expire(now, &cold)).await
    }

    async fn rows(&self, source: SourceId) -> Result<RowStream> {
        let found = self.source(source)?;
        if self.inner.is_read_only {
            let source = found.clone();
            let done = spawn_blocking(move || source.refresh()).await;
            done.map_err(|error| Error::stop(format!("read the rows of `{}`", found.id())).because(error))??;
        }
        Ok(proof::rows(found.all()))
    }

    async fn replace(&self, source: SourceId, rows: &RecordBatch) -> Result<()> {
        let (rows, now) = (rows.clone(), self.inner.clock.now());
        self.change(source, move |source| source.replace(&rows, now)).await
    }

    async fn remove(&self, source: SourceId, places: &[(Partition, Offset)]) -> Result<()> {
        let places = places.to_vec();
        self.change(source, move |source| source.remove(&places)).await
    }
}

/// When a search that begins now has to end, the time that it waits for a thread included.
fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(limits::SEARCH_SECONDS_MAX)
}

fn opened(indices: &[Arc<HotIndex>]) -> Vec<OpenIndex> {
    indices.iter().map(|index| index.opened()).collect()
}

/// Elasticsearch's mapping of an index: `{"properties": {"title": {"type": "text"}, …}}`.
fn mapping(fields: &Fields) -> Value {
    let mut properties = Map::new();
    for (column, _) in fields.columns.iter().filter(|(column, _)| column.name != "_id") {
        let kind = json!({"type": query::type_name(column)});
        match column.name.split_once('.') {
            None => {
                properties.insert(column.name.to_owned(), kind);
            }
            Some((list, member)) => {
                let object = properties.entry(list).or_insert_with(|| json!({"properties": {}}));
                object["properties"][member] = kind;
            }
        }
    }
    json!({"properties": properties})
}

fn internal(reason: String) -> SearchError {
    SearchError { status: 500, kind: "search_phase_execution_exception", reason }
}

fn lock(folder: &Path) -> Result<fs::File> {
    let failed = || Error::stop(format!("lock the hot store `{}`", folder.display()));
    let file = fs::File::create(folder.join(LOCK)).map_err(|error| failed().because(error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(Error::change(format!(
            "open the hot store `{}` for writing: another process has it open, and the embedded engine takes one; set \
             ELASTICSEARCH_HOSTS (setting `elasticsearch.hosts`) for several",
            folder.display()
        ))),
        Err(fs::TryLockError::Error(error)) => Err(failed().because(error)),
    }
}
