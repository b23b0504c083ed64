//! Which views there are, and what is asked of them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use async_trait::async_trait;
use contract::{
    Boundary, Error, Positions, Result, SourceBoundary, StoredResult, Timestamp, ViewAnswer, ViewRequest, ViewSummary,
    Views, nearest,
};
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::datasource::empty::EmptyTable;
use datafusion::datasource::{TableType, ViewTable};
use datafusion::error::DataFusionError;
use futures::TryStreamExt;
use xxhash_rust::xxh3::xxh3_128;

use super::answer::{Layers, as_stored, failed, keep, plan, shown};
use super::check::{Shape, Silver, check};
use super::dialect::{for_spark, shown_for_spark};
use super::file::{Place, ViewFile};
use super::run::{Task, ViewEngine, ViewRun};
use super::runs::Line;
use super::shipped::SHIPPED;
use crate::layout::Partitioning;
use crate::scan::Scan;
use crate::store::{DeltaStore, Inner, finished};

/// Views of the user's at the most.
const FILES_MAX: usize = 1_000;

/// How old a result may get of a view that is refused: not at all.
const NEVER: Duration = Duration::ZERO;

/// A view's file, and what it makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// The line of `views list`.
    pub summary: ViewSummary,
    /// What is stored: SQL over silver.
    pub stored_sql: String,
    /// What is shown: SQL over `merged`; none if all of that is.
    pub shown_sql: Option<String>,
    /// Both statements as Spark takes them, over the views that it makes of silver's tables: what is stored, what is shown.
    pub spark_sql: [String; 2],
    /// The stored columns: name, type, and `key` or how it merges.
    pub columns: Vec<(String, String, &'static str)>,
    /// The columns of an answer: name and type.
    pub answer: Vec<(String, String)>,
    /// The period by which it is made anew: `event_day` or `event_month`; none if it is as a whole.
    pub period: Option<&'static str>,
    /// The next offset of each partition that the stored result does not hold, by source.
    pub watermark: Vec<(String, Positions)>,
}

/// A name, and the text if it can be read.
struct Listed {
    name: String,
    place: Place,
    text: Result<String>,
}

/// A view that was checked.
pub(crate) struct Sound {
    view: ViewFile,
    shape: Shape,
}

/// What became of the check of a text, by its hash: planning a view takes longer than most queries.
pub(crate) type Checked = HashMap<String, (u128, Result<Arc<Sound>, String>)>;

impl Inner {
    /// The views, by name: those of the program, and those of the user's folder, which go first where both have the name.
    fn listed(&self) -> Result<Vec<Listed>> {
        let mut listed: Vec<Listed> = self.user_views()?;
        let shipped = SHIPPED.iter().filter(|_| self.settings.views_shipped);
        for (name, text) in shipped {
            if !listed.iter().any(|other| other.name == *name) {
                let (name, text) = ((*name).to_owned(), Ok((*text).to_owned()));
                listed.push(Listed { name, place: Place::Shipped, text });
            }
        }
        listed.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(listed)
    }

    fn user_views(&self) -> Result<Vec<Listed>> {
        let folder = &self.settings.views_folder;
        let doing = || format!("list the views in `{}` (setting `cold.views_folder`)", folder.display());
        let entries = match std::fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::change(doing()).because(error)),
        };
        let mut listed = Vec::new();
        for entry in entries {
            let path = entry.map_err(|error| Error::change(doing()).because(error))?.path();
            if path.extension().is_some_and(|ending| ending == "sql") {
                let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                listed.push(Listed { name, text: ViewFile::read(&path), place: Place::File(path) });
            }
            if listed.len() > FILES_MAX {
                return Err(Error::change(format!("{}: there are more than {FILES_MAX}", doing())));
            }
        }
        Ok(listed)
    }

    /// A view by its name, checked.
    async fn open_view(&self, name: &str) -> Result<Arc<Sound>> {
        let mut listed = self.listed()?;
        let Some(place) = listed.iter().position(|other| other.name == name) else {
            let names: Vec<_> = listed.iter().map(|other| other.name.as_str()).collect();
            let near = nearest(name, names.iter().copied());
            return Err(Error::change(format!("open the view `{name}`{near} (known: {})", names.join(", "))));
        };
        self.sound(listed.swap_remove(place)).await
    }

    /// The names of the views that can be asked.
    pub(crate) async fn sound_views(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for listed in self.listed()? {
            let name = listed.name.clone();
            // Why one is refused `views list` says.
            if self.sound(listed).await.is_ok() {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// Checks a view, unless its text was checked before.
    async fn sound(&self, listed: Listed) -> Result<Arc<Sound>> {
        let text = listed.text?;
        let hash = xxh3_128(text.as_bytes());
        let mut checked = self.checked.lock().await;
        let outcome = match checked.get(&listed.name).filter(|(known, _)| *known == hash) {
            Some((_, outcome)) => outcome.clone(),
            None => {
                let outcome = match ViewFile::parse(&listed.name, listed.place, &text) {
                    Ok(view) => self.check(&view).await.map(|shape| Arc::new(Sound { view, shape })),
                    Err(error) => Err(error),
                };
                let outcome = outcome.map_err(|error| error.to_string().trim_start_matches("failed to ").to_owned());
                checked.insert(listed.name, (hash, outcome.clone()));
                outcome
            }
        };
        outcome.map_err(Error::change)
    }

    /// Checks both statements of a view.
    async fn check(&self, view: &ViewFile) -> Result<Shape> {
        let silver = self.sources.iter().filter_map(|(&source, tables)| match tables.silver.layout.partitioning {
            Partitioning::Period { period, .. } => Some(Silver { source, period }),
            Partitioning::Column(_) | Partitioning::None => None,
        });
        let empty = self.sources.values().map(|tables| {
            let layout = &tables.silver.layout;
            let table: Arc<dyn TableProvider> = Arc::new(EmptyTable::new(layout.schema.clone()));
            (layout.name.clone(), table)
        });
        let session = self.engine.session(empty.collect())?;
        let stored = plan(&session, view, &view.stored).await?;
        let shape = check(view, &stored, &silver.collect::<Vec<_>>())?;
        let merged = as_stored(&shape, stored).map_err(|error| failed(view, &error))?;
        shown(&self.engine, view, merged).await?;
        Ok(shape)
    }

    /// Both layers of a view.
    async fn layers<'a>(&self, view: &'a ViewFile, shape: &'a Shape) -> Result<Layers<'a>> {
        // What is stored is read first: silver is at least as far then.
        let gold = self.gold(view, shape).await?;
        let stored = gold.current();
        Ok(Layers { view, shape, gold, stored, moments: self.moments(shape).await? })
    }

    async fn view(&self, name: &str, request: &ViewRequest) -> Result<ViewAnswer> {
        let sound = self.open_view(name).await?;
        let Sound { view, shape } = sound.as_ref();
        if shape.time.is_none() && (request.from.is_some() || request.to.is_some()) {
            return Err(Error::change(format!(
                "answer the view `{name}` from and to a time: its header names no `time`, it is about all rows"
            )));
        }
        let layers = self.layers(view, shape).await?;
        let merged = layers.merged(&self.engine, request).await?;
        let (session, plan) = shown(&self.engine, view, merged).await?;
        let table = session.run(session.context(), plan).await?;
        let table = keep(&session, shape, table, request)?;
        Ok(ViewAnswer { boundary: self.boundary(&layers, request).await?, table })
    }

    async fn boundary(&self, layers: &Layers<'_>, request: &ViewRequest) -> Result<Boundary> {
        let mut sources = Vec::new();
        for (&source, moment) in &layers.moments {
            let fresh_to = if self.has_others() { moment.written_at } else { Some(self.clock.now()) };
            let mut boundary = SourceBoundary {
                source,
                watermark: layers.watermark(source),
                rows_to: moment.rows_to.clone(),
                fresh_to,
                missed_records: 0,
                missed_intervals: 0,
                covered: None,
            };
            self.cover(&mut boundary, request).await?;
            sources.push(boundary);
        }
        Ok(Boundary { batch_at: layers.stored.as_ref().map(|(_, run)| run.at), sources })
    }

    /// What the ledger says of the interval asked.
    async fn cover(&self, boundary: &mut SourceBoundary, request: &ViewRequest) -> Result<()> {
        let time = |time: Timestamp| format!("to_timestamp_micros({})", time.0);
        let from = request.from.map_or_else(String::new, |from| format!(" AND to_time > {}", time(from)));
        let to = request.to.map_or_else(String::new, |to| format!(" AND from_time < {}", time(to)));
        let query = format!(
            "SELECT kind, count(*), sum(records), min(from_time), max(to_time) FROM ops.coverage \
             WHERE source = '{}'{from}{to} GROUP BY kind",
            boundary.source
        );
        if self.has_others() {
            self.coverage.refresh().await?;
        }
        let view = self.coverage.view().clone();
        let tables = vec![Scan::named(self.coverage.layout.clone(), view)];
        let batches: Vec<RecordBatch> = self.engine.scan(&query, tables).await?.batches.try_collect().await?;
        for batch in &batches {
            let kinds = batch.column(0).as_string::<i32>();
            let number =
                |column: usize, row| batch.column(column).as_primitive::<Int64Type>().value(row).cast_unsigned();
            let time = |column: usize, row| {
                Timestamp(batch.column(column).as_primitive::<TimestampMicrosecondType>().value(row))
            };
            for row in 0..kinds.len() {
                if kinds.value(row) == "missed" {
                    (boundary.missed_intervals, boundary.missed_records) = (number(1, row), number(2, row));
                } else {
                    let (first, last) = (time(3, row), time(4, row));
                    let from = request.from.map_or(first, |from| from.max(first));
                    boundary.covered = Some((from, request.to.map_or(last, |to| to.min(last))));
                }
            }
        }
        Ok(())
    }

    async fn summary(&self, listed: Listed) -> Result<ViewSummary> {
        let (name, place) = (listed.name.clone(), listed.place.text());
        let sound = match self.sound(listed).await {
            Ok(sound) => sound,
            Err(error) => {
                let answers = Err(error.to_string());
                return Ok(ViewSummary { name, place, answers, every: NEVER, stored: None });
            }
        };
        self.sound_summary(&sound).await
    }

    async fn sound_summary(&self, sound: &Sound) -> Result<ViewSummary> {
        let Sound { view, shape } = sound;
        let gold = self.gold(view, shape).await?;
        let committed = gold.table.view().committed.clone();
        let stored = committed.run().map(|run| StoredResult {
            at: run.at,
            rows: committed.files.iter().filter_map(|file| file.rows).sum::<usize>() as u64,
            is_current: run.fingerprint == gold.fingerprint,
        });
        let (name, place) = (view.name.clone(), view.place.text());
        Ok(ViewSummary { name, place, answers: Ok(view.answers.clone()), every: view.every, stored })
    }

    async fn explain(&self, name: &str) -> Result<Explained> {
        let sound = self.open_view(name).await?;
        let Sound { view, shape } = sound.as_ref();
        let layers = self.layers(view, shape).await?;
        let merged = layers.merged(&self.engine, &ViewRequest::default()).await?;
        let (_, plan) = shown(&self.engine, view, merged).await?;
        let columns = shape.columns.fields().iter().zip(&shape.merges).map(|(field, merge)| {
            (field.name().clone(), field.data_type().to_string(), merge.map_or("key", |merge| merge.word()))
        });
        let answer = plan.schema().fields().iter().map(|field| (field.name().clone(), field.data_type().to_string()));
        let watermark = layers.moments.keys().map(|&source| (source.0.to_owned(), layers.watermark(source)));
        Ok(Explained {
            stored_sql: view.stored.sql.clone(),
            spark_sql: [
                for_spark(&view.stored.sql)?,
                shown_for_spark(&view.stored.sql, view.shown.as_ref().map(|statement| statement.sql.as_str()))?,
            ],
            shown_sql: view.shown.as_ref().map(|statement| statement.sql.clone()),
            columns: columns.collect(),
            answer: answer.collect(),
            period: shape.time.map(|(_, period)| period.column()),
            watermark: watermark.collect(),
            summary: self.sound_summary(&sound).await?,
        })
    }

    /// Runs a view, and writes down how that went.
    async fn run_view(&self, name: &str, whole: bool, engine: ViewEngine, attempt: u32) -> Result<ViewRun> {
        self.check_writable()?;
        let started_at = self.clock.now();
        let sound = self.open_view(name).await?;
        let Sound { view, shape } = sound.as_ref();
        let ran = async {
            let gold = self.gold(view, shape).await?;
            let task = Task { inner: self, view, shape, gold, moments: self.moments(shape).await?, engine };
            task.run(whole).await
        };
        let ran = ran.await;
        if !matches!(&ran, Ok(run) if run.mode == "nothing") {
            self.write_down(&Line {
                view: name,
                started_at,
                finished_at: self.clock.now(),
                engine,
                attempt,
                ran: &ran,
            })
            .await?;
        }
        ran
    }
}

impl DeltaStore {
    /// Brings the stored result of a view up to date, as a whole if that is wanted; `attempt`, from 1, is written down with
    /// how it went.
    ///
    /// # Errors
    /// `Change` for an unknown or refused view, `Retry` when another run was faster or a limit was reached.
    pub async fn run_view(&self, name: &str, whole: bool, engine: ViewEngine, attempt: u32) -> Result<ViewRun> {
        let (inner, name) = (self.inner.clone(), name.to_owned());
        // As a task of its own: a caller that is cancelled must not leave a commit of which we do not know.
        finished(tokio::spawn(async move { inner.run_view(&name, whole, engine, attempt).await })).await
    }

    /// What a view is made of.
    ///
    /// # Errors
    /// As [`Views::view`].
    pub async fn explain_view(&self, name: &str) -> Result<Explained> {
        self.inner.explain(name).await
    }
}

#[async_trait]
impl Views for DeltaStore {
    async fn views(&self) -> Result<Vec<ViewSummary>> {
        let mut summaries = Vec::new();
        for listed in self.inner.listed()? {
            summaries.push(self.inner.summary(listed).await?);
        }
        Ok(summaries)
    }

    async fn view(&self, name: &str, request: &ViewRequest) -> Result<ViewAnswer> {
        self.inner.view(name, request).await
    }
}

/// The views as tables of SQL: their merged rows, both layers.
pub(crate) struct GoldSchema {
    pub(crate) inner: Arc<Inner>,
    /// Those that can be asked: one that is refused must not spoil a list of all tables.
    pub(crate) names: Vec<String>,
}

impl std::fmt::Debug for GoldSchema {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "the views {:?}", self.names)
    }
}

#[async_trait]
impl SchemaProvider for GoldSchema {
    fn table_names(&self) -> Vec<String> {
        self.names.clone()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        if !self.table_exist(name) {
            return Ok(None);
        }
        let merged = async {
            let sound = self.inner.open_view(name).await?;
            let layers = self.inner.layers(&sound.view, &sound.shape).await?;
            layers.merged(&self.inner.engine, &ViewRequest::default()).await
        };
        let merged = merged.await.map_err(|error| DataFusionError::External(error.into()))?;
        Ok(Some(Arc::new(ViewTable::new(merged, None))))
    }

    async fn table_type(&self, name: &str) -> Result<Option<TableType>, DataFusionError> {
        Ok(self.table_exist(name).then_some(TableType::View))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.names.iter().any(|known| known == name)
    }
}
