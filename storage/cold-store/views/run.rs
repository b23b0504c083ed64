//! The batch layer: a view's first statement over what silver has committed, stored in `gold` with its watermark.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use arrow::array::{ArrayRef, AsArray, Date32Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use contract::{Day, Error, Period, Positions, Result, SourceId, Timestamp};
use datafusion::logical_expr::LogicalPlanBuilder;
use datafusion::prelude::{ParquetReadOptions, ident};
use deltalake::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake::kernel::{Action, Add, Metadata, MetadataExt, StructType, new_metadata};
use deltalake::logstore::get_actions;
use deltalake::protocol::{DeltaOperation, SaveMode};
use futures::StreamExt;
use std::sync::Arc;

use super::answer::{as_stored, failed, plan};
use super::check::Shape;
use super::file::ViewFile;
use super::gold::{Gold, RUN_KEY, RUNS, Read, Run};
use super::moment::{Moment, first_day};
use super::spark;
use crate::committed::CommittedFile;
use crate::data_file::write_files;
use crate::layout::PartitionValue;
use crate::marks::Moves;
use crate::rewrite::remove_action;
use crate::store::{Inner, finished};
use crate::table::{Commit, Outcome, Table};

/// Bytes of a result that wait to be written: about a file.
const WAITING_BYTES_MAX: usize = 64 << 20;

/// Commits of silver that a run looks through for the periods that changed; after more of them all is made anew.
const COMMITS_MAX: u64 = 10_000;

/// What a run is to make anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Nothing changed.
    Nothing,
    /// The results of these periods.
    Periods(BTreeSet<Day>, Period),
    /// All.
    Whole,
}

/// What computes a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ViewEngine {
    /// This process.
    #[default]
    Embedded,
    /// The Spark that the settings name; it makes all anew.
    Spark,
}

impl ViewEngine {
    /// `embedded` or `spark`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Spark => "spark",
        }
    }
}

/// What a run did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewRun {
    /// The view.
    pub view: String,
    /// What it made anew: `nothing`, `periods` or `whole`.
    pub mode: &'static str,
    /// Days or months made anew; none where all was, or nothing.
    pub periods: Option<u64>,
    /// Rows stored by it.
    pub rows: u64,
}

/// All that a run works with.
pub(super) struct Task<'a> {
    pub(super) inner: &'a Inner,
    pub(super) view: &'a ViewFile,
    pub(super) shape: &'a Shape,
    pub(super) gold: Arc<Gold>,
    pub(super) moments: BTreeMap<SourceId, Moment>,
    pub(super) engine: ViewEngine,
}

impl Task<'_> {
    /// Runs it; the whole anew if that is `wanted`.
    pub(super) async fn run(&self, whole_is_wanted: bool) -> Result<ViewRun> {
        self.gold.table.make().await?;
        let scope = match self.scope().await? {
            _ if whole_is_wanted => Scope::Whole,
            Scope::Periods(..) if self.engine == ViewEngine::Spark => Scope::Whole,
            scope => scope,
        };
        let (mode, periods) = match &scope {
            Scope::Nothing => {
                return Ok(ViewRun { view: self.view.name.clone(), mode: "nothing", periods: None, rows: 0 });
            }
            Scope::Periods(periods, _) => ("periods", Some(periods.len() as u64)),
            Scope::Whole => ("whole", None),
        };
        let (adds, rows, begun) = self.compute(&scope).await?;
        self.commit(&scope, adds, begun).await?;
        Ok(ViewRun { view: self.view.name.clone(), mode, periods, rows })
    }

    /// What changed in silver since the last run.
    async fn scope(&self) -> Result<Scope> {
        let Some((_, run)) = self.gold.current() else { return Ok(Scope::Whole) };
        let mut changed = BTreeSet::new();
        let mut is_same = true;
        for (&source, moment) in &self.moments {
            let silver = &self.inner.source(source)?.silver;
            let now = moment.files().version.unwrap_or(0);
            let Some(read) = run.read.get(source.0).filter(|read| read.table == moment.files().id) else {
                return Ok(Scope::Whole);
            };
            if read.version == now {
                continue;
            }
            match changes(silver, read.version, now).await? {
                Some(values) => {
                    is_same &= values.is_empty();
                    changed.extend(values);
                }
                None => return Ok(Scope::Whole),
            }
        }
        Ok(match self.shape.time {
            _ if is_same => Scope::Nothing,
            None => Scope::Whole,
            Some((_, period)) => {
                let days = changed.into_iter().filter_map(|value| match value {
                    PartitionValue::Day(day) => Some(first_day(Day(day), period)),
                    PartitionValue::Text(_) | PartitionValue::Whole => None,
                });
                Scope::Periods(days.collect(), period)
            }
        })
    }

    /// Computes the rows of a scope into files that no commit names yet; answers also when these were begun, which may be
    /// long after the run was.
    async fn compute(&self, scope: &Scope) -> Result<(Vec<Add>, u64, Instant)> {
        let periods = match scope {
            Scope::Periods(periods, period) => Some((periods, *period)),
            Scope::Nothing | Scope::Whole => None,
        };
        let tables = self.moments.iter().map(|(source, moment)| (format!("silver.{source}"), moment.stored(periods)));
        let engine = &self.inner.engine;
        let wrong = |error| failed(self.view, &error);
        let session = engine.unlimited(tables.collect())?;
        let (plan, _held) = match self.engine {
            ViewEngine::Embedded => (plan(&session, self.view, &self.view.stored).await?, None),
            ViewEngine::Spark => {
                let written = self.on_spark().await?;
                let output = written.output().display().to_string();
                let rows =
                    session.context().read_parquet(output, ParquetReadOptions::default()).await.map_err(wrong)?;
                (rows.into_unoptimized_plan(), Some(written))
            }
        };
        let plan = as_stored(self.shape, plan).map_err(wrong)?;
        // Rows of one period follow each other, so that few files are open and none is small.
        let plan = match self.shape.time {
            None => plan,
            Some((place, _)) => {
                let time = ident(self.shape.columns.field(place).name()).sort(true, false);
                LogicalPlanBuilder::from(plan).sort([time]).and_then(|plan| plan.build()).map_err(wrong)?
            }
        };
        let mut answer = session.run(session.context(), plan).await?;
        let (mut adds, mut rows, mut waiting, mut bytes) = (Vec::new(), 0, Vec::new(), 0);
        let mut begun = None;
        while let Some(batch) = answer.batches.next().await.transpose()? {
            rows += batch.num_rows() as u64;
            bytes += batch.get_array_memory_size();
            waiting.push(self.arranged(&batch, periods.map(|(periods, _)| periods))?);
            if bytes > WAITING_BYTES_MAX {
                begun.get_or_insert_with(Instant::now);
                adds.extend(self.write(std::mem::take(&mut waiting)).await?);
                bytes = 0;
            }
        }
        let begun = begun.unwrap_or_else(Instant::now);
        adds.extend(self.write(waiting).await?);
        Ok((adds, rows, begun))
    }

    async fn on_spark(&self) -> Result<spark::Written> {
        let settings = &self.inner.settings;
        let own = self.inner.spill.as_ref().filter(|_| settings.spark_folder.as_os_str().is_empty());
        let exchange = own.unwrap_or(&settings.spark_folder);
        spark::answer(self.view, &self.moments, &settings.spark_command, exchange, settings.spark_seconds_max).await
    }

    /// The rows with the columns of the table: the period of each comes last.
    fn arranged(&self, rows: &RecordBatch, periods: Option<&BTreeSet<Day>>) -> Result<RecordBatch> {
        let doing = || format!("store the view `{}`", self.view.name);
        let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
        if let Some((place, period)) = self.shape.time {
            let micros = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
            let times = cast(&columns[place], &micros).map_err(|error| Error::stop(doing()).because(error))?;
            let days: Date32Array =
                times.as_primitive::<TimestampMicrosecondType>().unary(|time| period.first_day(Timestamp(time)).0);
            let strange =
                days.values().iter().find(|day| periods.is_some_and(|periods| !periods.contains(&Day(**day))));
            if let Some(day) = strange {
                let day = Day(*day);
                return Err(Error::stop(format!(
                    "{}: its rows of {day} came of rows of another time, a defect",
                    doing()
                )));
            }
            columns.push(Arc::new(days));
        }
        let arranged = RecordBatch::try_new(self.gold.table.layout.schema.clone(), columns);
        arranged.map_err(|error| Error::stop(doing()).because(error))
    }

    async fn write(&self, rows: Vec<RecordBatch>) -> Result<Vec<Add>> {
        let (layout, properties, now) =
            (self.gold.table.layout.clone(), self.inner.properties.clone(), self.inner.clock.now());
        finished(tokio::task::spawn_blocking(move || write_files(&layout, &properties, &rows, now))).await
    }

    /// Puts the new rows in the place of the old ones of the scope, with the watermark, in one commit.
    async fn commit(&self, scope: &Scope, adds: Vec<Add>, begun: Instant) -> Result<()> {
        let table = &self.gold.table;
        let is_replaced = |file: &CommittedFile| match (scope, &file.value) {
            (Scope::Periods(periods, _), PartitionValue::Day(day)) => periods.contains(&Day(*day)),
            _ => true,
        };
        let (found, now) = (table.view().committed.clone(), self.inner.clock.now());
        let old = found.files.iter().filter(|file| is_replaced(file));
        let removes = old.map(|file| Action::Remove(remove_action(&table.layout, file, now, true)));
        let metadata = Action::Metadata(self.metadata(table, now).await?);
        let actions = std::iter::once(metadata).chain(removes).chain(adds.into_iter().map(Action::Add)).collect();
        let runs = self.gold.prefix(RUNS);
        let count = found.marks.of(&runs);
        let mut moves = Moves::between(&runs, &count, &Positions([(0, count.of(0) + 1)].into()));
        for (source, moment) in &self.moments {
            let prefix = self.gold.prefix(source.0);
            moves = moves.and(Moves::between(&prefix, &found.marks.of(&prefix), &moment.committed));
        }
        let operation = DeltaOperation::Write { mode: SaveMode::Overwrite, partition_by: None, predicate: None };
        let commit = Commit { moves, ..Commit::new(actions, operation, begun, self.inner.now_ms()) };
        match table.commit(commit).await? {
            Outcome::Done => Ok(()),
            Outcome::Overtaken(reason) => {
                Err(Error::retry(format!("store the view `{}`: another run was faster: {reason}", self.view.name)))
            }
        }
    }

    /// The table's columns, and the run that makes it.
    async fn metadata(&self, table: &Table, now: Timestamp) -> Result<Metadata> {
        let doing = || format!("store the view `{}`", self.view.name);
        let read = self.moments.iter().map(|(source, moment)| {
            let files = moment.files();
            let (table, version) = (files.id.clone(), files.version.unwrap_or(0));
            (source.0.to_owned(), Read { table, version, watermark: moment.committed.clone() })
        });
        let run = Run { fingerprint: self.gold.fingerprint.clone(), at: now, read: read.collect() };
        let run = serde_json::to_string(&run).map_err(|error| Error::stop(doing()).because(error))?;
        let Some((_, state)) = table.log().await else {
            return Err(Error::stop(format!("{}: it was not made", doing())));
        };
        let columns: StructType =
            table.layout.schema.as_ref().try_into_kernel().map_err(|error| Error::stop(doing()).because(error))?;
        let partition = table.layout.partition_field().map(|field| field.name().clone());
        let metadata = new_metadata(&columns, partition, [(RUN_KEY, run)])
            .and_then(|metadata| metadata.with_table_id(state.snapshot().metadata().id().to_owned()))
            .and_then(|metadata| metadata.with_name(table.layout.name.clone()))
            .and_then(|metadata| metadata.with_description(self.view.answers.clone()));
        metadata.map_err(|error| Error::stop(doing()).because(error))
    }
}

/// The partition values in which rows of a table changed after version `from` up to `to`; none if its log does not say any
/// more.
async fn changes(table: &Table, from: u64, to: u64) -> Result<Option<BTreeSet<PartitionValue>>> {
    if from > to || to - from > COMMITS_MAX {
        return Ok(None);
    }
    let Some((store, _)) = table.log().await else { return Ok(None) };
    let mut changed = BTreeSet::new();
    for version in from + 1..=to {
        let entry = store.read_commit_entry(version).await;
        let entry =
            entry.map_err(|error| crate::table::failed(format!("read the log of `{}`", table.layout.name), error))?;
        let Some(entry) = entry else { return Ok(None) };
        let actions = get_actions(version, &entry);
        let actions =
            actions.map_err(|error| crate::table::failed(format!("read the log of `{}`", table.layout.name), error))?;
        for action in actions {
            let values = match action {
                Action::Add(add) if add.data_change => Some(add.partition_values),
                Action::Remove(remove) if remove.data_change => remove.partition_values,
                _ => continue,
            };
            let field = table.layout.partition_field();
            let text =
                values.as_ref().zip(field).and_then(|(values, field)| values.get(field.name())).cloned().flatten();
            match table.layout.partition_value(text.as_deref()) {
                Some(value) => changed.insert(value),
                // Another engine wrote it, and did not say.
                None => return Ok(None),
            };
        }
    }
    Ok(Some(changed))
}
