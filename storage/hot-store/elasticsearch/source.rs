//! One source's part: what was written, its indices, its checkpoint.

use std::collections::BTreeSet;

use arrow::array::RecordBatch;
use contract::{Error, Offset, Partition, Positions, Result, RowSchema, Rows, SourceId, drop_below};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};

use super::bulk::{send, send_all};
use super::client::Body;
use super::items::{Item, of_rows};
use super::pace::Pace;
use super::store::Inner;
use super::{CHECKPOINT_INDEX, refused, template};
use crate::error::refuse_gap;
use crate::names::{Groups, by_index, choose_name, period};

/// Partitions of a source that a checkpoint is read for.
const PARTITIONS_MAX: usize = 10_000;

pub(super) struct ElasticSource {
    pub(super) schema: &'static RowSchema,
    progress: Mutex<Progress>,
}

/// What changes when rows are written; one call at a time.
pub(super) struct Progress {
    /// The next offsets to write; none before the checkpoint was read.
    written: Option<Positions>,
    /// The next offsets of the checkpoint, as far as this process knows.
    committed: Positions,
    /// The source's indices, as far as this process knows; none before they were asked for.
    indices: Option<BTreeSet<String>>,
    pub(super) pace: Pace,
}

/// A document of the checkpoint.
#[derive(Serialize, Deserialize)]
struct Mark {
    source: String,
    partition: i32,
    next: i64,
}

impl ElasticSource {
    pub(super) fn new(schema: &'static RowSchema, bulk_bytes_max: usize) -> Self {
        let pace = Pace::new(bulk_bytes_max);
        let progress = Progress { written: None, committed: Positions::default(), indices: None, pace };
        Self { schema, progress: Mutex::new(progress) }
    }

    pub(super) fn id(&self) -> SourceId {
        self.schema.source
    }

    pub(super) async fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().await
    }

    /// Takes the rows of a span: they are on the server when it answers.
    pub(super) async fn write(&self, inner: &Inner, rows: &Rows) -> Result<()> {
        let mut progress = self.progress().await;
        let mut written = self.written(inner, &mut progress).await?;
        if rows.span.gap_after(&written).is_some() {
            // Another process may have written what lies between, and lost its place.
            written = written.max(&self.committed(inner).await?);
        }
        refuse_gap(self.id(), &rows.span, &written)?;
        let batch = drop_below(&rows.silver, &written);
        let groups = self.groups(inner, &mut progress, &batch).await?;
        let prefix = inner.prefix.clone();
        let versioned = move |index: &str, id, version, document: &[u8]| {
            Item::versioned(&format!("{prefix}{index}"), id, version, document)
        };
        let items = self.items(batch, groups, versioned).await?;
        let outcome = self.send(inner, &mut progress, items).await;
        if outcome.is_err() {
            // An index may have gone meanwhile.
            progress.indices = None;
        }
        outcome?;
        rows.span.next().0.iter().for_each(|(&partition, &next)| written.advance(partition, next));
        progress.written = Some(written);
        Ok(())
    }

    /// Writes the checkpoint; all rows below it are on the server already.
    pub(super) async fn commit(&self, inner: &Inner) -> Result<Positions> {
        let mut progress = self.progress().await;
        self.commit_all(inner, &mut progress).await
    }

    pub(super) async fn commit_all(&self, inner: &Inner, progress: &mut Progress) -> Result<Positions> {
        let written = self.written(inner, progress).await?;
        let committed = &progress.committed;
        let moved = written.0.iter().filter(|&(&partition, &next)| next > committed.of(partition));
        // A version below the present one is refused: a process that lost its place changes nothing.
        let mark = |(&partition, &next): (&i32, &i64)| {
            let (id, document) = self.mark(inner, partition, next);
            Item::versioned(CHECKPOINT_INDEX, id, next, &document)
        };
        let items: Vec<_> = moved.map(mark).collect();
        send_all(&inner.client, &mut progress.pace, self.id(), items).await?;
        progress.committed = progress.committed.max(&written);
        Ok(written)
    }

    /// The id and the document of a partition's position.
    fn mark(&self, inner: &Inner, partition: Partition, next: Offset) -> (String, Vec<u8>) {
        let source = inner.marked(self.id());
        let id = format!("{source}-{partition}");
        let document = serde_json::to_vec(&Mark { source, partition, next }).expect("numbers and a text are JSON");
        (id, document)
    }

    /// Reads the checkpoint anew and goes on from there in some partitions. What was written beyond it is on the server, where it
    /// stands once when it is written again.
    pub(super) async fn resume(&self, inner: &Inner, partitions: &[Partition]) -> Result<Positions> {
        let mut progress = self.progress().await;
        let committed = self.committed(inner).await?;
        let resumed = committed.only(partitions);
        progress.written.get_or_insert_with(|| committed.clone()).put(&resumed);
        progress.committed = committed;
        // Another process may have made some, or removed them.
        Self::forget_indices(&mut progress);
        Ok(resumed)
    }

    /// The next offsets of the checkpoint.
    pub(super) async fn committed(&self, inner: &Inner) -> Result<Positions> {
        let doing = format!("read the position of `{}` in Elasticsearch", self.id());
        // The index is a few documents, so this costs next to nothing, and a search sees only what was refreshed.
        let refreshed = inner.client.send(Method::POST, &format!("{CHECKPOINT_INDEX}/_refresh"), Body::None).await?;
        if refreshed.status.as_u16() == 404 {
            return Ok(Positions::default());
        }
        refreshed.json(&doing)?;
        let query = json!({"size": PARTITIONS_MAX, "query": {"term": {"source": inner.marked(self.id())}}});
        let path = format!("{CHECKPOINT_INDEX}/_search");
        let found = inner.client.ask_json(Method::POST, &path, Body::Json(query), &doing).await?;
        if found.pointer("/_shards/failed").and_then(Value::as_u64) != Some(0) {
            return Err(Error::retry(doing).because("not all shards answered"));
        }
        let mut committed = Positions::default();
        for hit in found.pointer("/hits/hits").and_then(Value::as_array).into_iter().flatten() {
            let mark = serde_json::from_value::<Mark>(hit["_source"].clone());
            let mark = mark.map_err(|cause| Error::stop(format!("{doing}: its form is not ours")).because(cause))?;
            committed.advance(mark.partition, mark.next);
        }
        Ok(committed)
    }

    async fn written(&self, inner: &Inner, progress: &mut Progress) -> Result<Positions> {
        if let Some(written) = &progress.written {
            return Ok(written.clone());
        }
        progress.committed = self.committed(inner).await?;
        progress.written = Some(progress.committed.clone());
        Ok(progress.committed.clone())
    }

    /// The rows by their indices, which are there afterwards; without those that are too old for any.
    pub(super) async fn groups(&self, inner: &Inner, progress: &mut Progress, batch: &RecordBatch) -> Result<Groups> {
        let mut known = match progress.indices.take() {
            Some(known) => known,
            None => inner.names_of(&[self.schema]).await?.into_iter().collect(),
        };
        let name = |day| choose_name(self.id(), day, inner.retention_days == 0, |name| known.contains(name));
        let groups = by_index(batch, inner.first_day_now(), name);
        for name in groups.keys() {
            if !known.contains(name) {
                self.create(inner, name).await?;
                known.insert(name.clone());
            }
        }
        progress.indices = Some(known);
        Ok(groups)
    }

    /// Makes an index. Its mapping is given here too, lest an index be without it where somebody removed the template.
    async fn create(&self, inner: &Inner, name: &str) -> Result<()> {
        debug_assert!(period(self.id(), name).is_some(), "`{name}` is an index of `{}`", self.id());
        if inner.prefix.is_empty() {
            return inner.create(name, template::index_body(self.schema)).await;
        }
        let body = template::draft_body(&inner.client, self.schema, name).await?;
        inner.create(&format!("{}{name}", inner.prefix), body).await
    }

    /// The items of rows, made where work may take long.
    pub(super) async fn items(
        &self,
        batch: RecordBatch,
        groups: Groups,
        make: impl Fn(&str, String, i64, &[u8]) -> Item + Send + 'static,
    ) -> Result<Vec<Item>> {
        let schema = self.schema;
        let made = tokio::task::spawn_blocking(move || of_rows(schema, &batch, &groups, make)).await;
        made.map_err(|panic| Error::stop(format!("write rows of `{}` as JSON", self.id())).because(panic))
    }

    /// Sends items; what is refused for good is kept beside.
    pub(super) async fn send(&self, inner: &Inner, progress: &mut Progress, items: Vec<Item>) -> Result<()> {
        if items.is_empty() {
            return Ok(());
        }
        let outcome = send(&inner.client, &mut progress.pace, self.id(), items).await;
        inner.changed();
        refused::keep(&inner.client, &mut progress.pace, self.id(), outcome?).await
    }

    /// What this process knows of the indices is old.
    pub(super) fn forget_indices(progress: &mut Progress) {
        progress.indices = None;
    }

    /// What this process knows of the indices and of the position is old.
    pub(super) fn forget_all(progress: &mut Progress) {
        (progress.indices, progress.written) = (None, None);
    }

    /// Puts the position to where it says, also back.
    pub(super) async fn put_back(&self, inner: &Inner, progress: &mut Progress, to: &Positions) -> Result<()> {
        let mark = |(&partition, &next): (&i32, &i64)| {
            let (id, document) = self.mark(inner, partition, next);
            Item::forced(CHECKPOINT_INDEX, id, &document)
        };
        send_all(&inner.client, &mut progress.pace, self.id(), to.0.iter().map(mark).collect()).await
    }

    /// The next offsets to write, as far as this process knows.
    pub(super) async fn written_now(&self, inner: &Inner, progress: &mut Progress) -> Result<Positions> {
        self.written(inner, progress).await
    }
}
