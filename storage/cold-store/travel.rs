//! Tables as they were: functions that stand where a table's name does.
//!
//! | function | answers | how far back |
//! | --- | --- | --- |
//! | `at_version('silver.github', 12)` | the rows of that Delta version | `cold.log_retention_hours`, and `cold.vacuum_retention_hours` for what was compacted since |
//! | `at_time('silver.github', '2026-11-01T00:00:00Z')` | those of the last version committed until then | the same |
//! | `at_offset('silver.github', 0, 4711, 1, 4650)` | the rows below offset 4,711 of partition 0 and 4,650 of partition 1, and of no other partition | all: it is the table of now, of which later offsets are left out |
//!
//! A column that the table has got since is null.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use contract::{Error, Result, Timestamp};
use datafusion::catalog::{Session, TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::{DataFusionError, Result as QueryResult, ScalarValue};
use datafusion::datasource::{TableType, ViewTable, provider_as_source};
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, TableProviderFilterPushDown, col, lit};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionContext;
use deltalake::kernel::Action;
use deltalake::logstore::get_actions;
use deltalake::table::state::DeltaTableState;
use futures::TryStreamExt;
use object_store::ObjectStoreExt;

use crate::committed::Committed;
use crate::layout::Layout;
use crate::marks::Marks;
use crate::place;
use crate::scan::Scan;
use crate::table::{View, failed};

type Tables = Arc<[(Arc<Layout>, View)]>;

/// Adds the functions to a session that has some tables.
pub(crate) fn register(context: &SessionContext, tables: &[(Arc<Layout>, View)]) {
    let tables: Tables = tables.to_vec().into();
    for kind in [Kind::Version, Kind::Time, Kind::Offset] {
        context.register_udtf(kind.name(), Arc::new(Function { kind, tables: tables.clone() }));
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Version,
    Time,
    Offset,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Version => "at_version",
            Self::Time => "at_time",
            Self::Offset => "at_offset",
        }
    }

    fn example(self) -> &'static str {
        match self {
            Self::Version => "at_version('silver.github', 12)",
            Self::Time => "at_time('silver.github', '2026-11-01T00:00:00Z')",
            Self::Offset => "at_offset('silver.github', 0, 4711), a partition and an offset once or more often",
        }
    }
}

struct Function {
    kind: Kind,
    tables: Tables,
}

impl fmt::Debug for Function {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.kind.name())
    }
}

impl TableFunctionImpl for Function {
    fn call_with_args(&self, arguments: TableFunctionArgs) -> QueryResult<Arc<dyn TableProvider>> {
        let wrong = || DataFusionError::Plan(format!("`{}` is used as {}", self.kind.name(), self.kind.example()));
        let (first, rest) = arguments.exprs().split_first().ok_or_else(wrong)?;
        let (layout, view) = self.table(text(first).ok_or_else(wrong)?)?;
        let past = |point| -> Arc<dyn TableProvider> {
            Arc::new(Past { layout: layout.clone(), now: view.committed.clone(), point })
        };
        match (self.kind, rest) {
            (Kind::Version, [version]) => {
                let version = integer(version).and_then(|version| u64::try_from(version).ok());
                Ok(past(Point::Version(version.ok_or_else(wrong)?)))
            }
            (Kind::Time, [time]) => {
                let time = text(time).and_then(Timestamp::parse_rfc3339);
                Ok(past(Point::Time(time.ok_or_else(wrong)?)))
            }
            (Kind::Offset, pairs) if !pairs.is_empty() && pairs.len().is_multiple_of(2) => {
                let pairs = pairs.chunks(2).map(|pair| Some((integer(&pair[0])?, integer(&pair[1])?)));
                below(layout, view, &pairs.collect::<Option<Vec<_>>>().ok_or_else(wrong)?)
            }
            _ => Err(wrong()),
        }
    }
}

impl Function {
    fn table(&self, name: &str) -> QueryResult<&(Arc<Layout>, View)> {
        let full = if name.contains('.') { name.to_owned() } else { format!("silver.{name}") };
        self.tables.iter().find(|(layout, _)| layout.name == full).ok_or_else(|| {
            let known: Vec<_> = self.tables.iter().map(|(layout, _)| layout.name.as_str()).collect();
            DataFusionError::Plan(format!("there is no table `{name}` (known: {})", known.join(", ")))
        })
    }
}

fn text(argument: &Expr) -> Option<&str> {
    match argument {
        Expr::Literal(value, _) => value.try_as_str().flatten(),
        _ => None,
    }
}

fn integer(argument: &Expr) -> Option<i64> {
    match argument {
        Expr::Literal(ScalarValue::Int64(value), _) => *value,
        Expr::Literal(ScalarValue::UInt64(value), _) => value.and_then(|value| i64::try_from(value).ok()),
        _ => None,
    }
}

/// The rows of now below an offset of each partition that is named.
fn below(layout: &Arc<Layout>, view: &View, pairs: &[(i64, i64)]) -> QueryResult<Arc<dyn TableProvider>> {
    let of =
        |&(partition, offset): &(i64, i64)| col("_partition").eq(lit(partition)).and(col("_offset").lt(lit(offset)));
    let filter = pairs.iter().map(of).reduce(Expr::or).unwrap_or_else(|| lit(false));
    let now = provider_as_source(Arc::new(Scan::new(layout.clone(), view.clone())));
    let plan = LogicalPlanBuilder::scan(layout.name.clone(), now, None)?.filter(filter)?.build()?;
    Ok(Arc::new(ViewTable::new(plan, None)))
}

#[derive(Clone, Copy, Debug)]
enum Point {
    Version(u64),
    Time(Timestamp),
}

/// A table at a point of its log, which is read when the query begins.
struct Past {
    layout: Arc<Layout>,
    now: Arc<Committed>,
    point: Point,
}

impl fmt::Debug for Past {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "`{}` at {:?}", self.layout.name, self.point)
    }
}

#[async_trait]
impl TableProvider for Past {
    fn schema(&self) -> SchemaRef {
        self.layout.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> QueryResult<Arc<dyn ExecutionPlan>> {
        let committed = self.committed().await.map_err(|error| DataFusionError::External(error.into()))?;
        let view = View { committed: Arc::new(committed), pending: Vec::new() };
        Scan::new(self.layout.clone(), view).scan(state, projection, filters, limit).await
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> QueryResult<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }
}

impl Past {
    async fn committed(&self) -> Result<Committed> {
        let log = Log::list(&self.layout).await?;
        let version = match self.point {
            Point::Version(version) if log.versions.contains(&version) => version,
            Point::Version(version) => {
                let (oldest, newest) = (log.versions.start(), log.versions.end());
                return Err(Error::change(format!(
                    "read `{}` at version {version}: its log has the versions {oldest} to {newest}",
                    self.layout.name
                )));
            }
            Point::Time(time) => self.version_at(time, &log).await?,
        };
        let committed = self.at(version).await?;
        if !self.is_whole(&committed).await? {
            let oldest = self.oldest_whole(version + 1, *log.versions.end()).await?;
            return Err(Error::change(format!(
                "read `{}` at version {version}: files of it were removed, {} is the oldest version that is whole (setting \
                 `cold.vacuum_retention_hours`)",
                self.layout.name, oldest
            )));
        }
        Ok(committed)
    }

    async fn at(&self, version: u64) -> Result<Committed> {
        let store = self.layout.log.log_store();
        let state = DeltaTableState::try_new(store.as_ref(), Some(version)).await;
        let state =
            state.map_err(|error| failed(format!("read `{}` at version {version}", self.layout.name), error))?;
        Ok(Committed::read(&self.layout, &state, Marks::default(), &self.now))
    }

    /// Whether all its files are still there: a vacuum takes those that later versions have no more.
    async fn is_whole(&self, committed: &Committed) -> Result<bool> {
        let now: BTreeSet<&str> = self.now.files.iter().map(|file| file.relative.as_str()).collect();
        for file in committed.files.iter().filter(|file| !now.contains(file.relative.as_str())) {
            match self.layout.place.store().head(&self.layout.place.location(&file.relative)).await {
                Ok(_) => {}
                Err(object_store::Error::NotFound { .. }) => return Ok(false),
                Err(error) => return Err(place::failed(format!("find a file of `{}`", self.layout.name), error)),
            }
        }
        Ok(true)
    }

    /// The oldest version between both that is whole; each after it is too.
    async fn oldest_whole(&self, mut low: u64, mut high: u64) -> Result<u64> {
        while low < high {
            let middle = low + (high - low) / 2;
            if self.is_whole(&self.at(middle).await?).await? { high = middle } else { low = middle + 1 }
        }
        Ok(low)
    }

    /// The last version that was committed until a time, by what each commit says of itself.
    async fn version_at(&self, time: Timestamp, log: &Log) -> Result<u64> {
        let store = self.layout.log.log_store();
        let committed_ms = async |version: u64| -> Result<i64> {
            let doing = || format!("read commit {version} of `{}`", self.layout.name);
            let entry = store.read_commit_entry(version).await.map_err(|error| failed(doing(), error))?;
            let entry = entry.ok_or_else(|| Error::retry(format!("{}: it was cleaned meanwhile", doing())))?;
            let actions = get_actions(version, &entry).map_err(|error| failed(doing(), error))?;
            let said = actions.iter().find_map(|action| match action {
                Action::CommitInfo(info) => info.timestamp,
                _ => None,
            });
            said.ok_or_else(|| Error::change(format!("{}: it does not say when it was made", doing())))
        };
        let (mut low, mut high) = (log.first_commit.max(*log.versions.start()), *log.versions.end());
        let (asked_ms, oldest_ms) = (time.0.div_euclid(1_000), committed_ms(low).await?);
        if oldest_ms > asked_ms {
            let oldest = Timestamp(oldest_ms.saturating_mul(1_000));
            return Err(Error::change(format!(
                "read `{}` at {time}: the oldest version in its log is {low}, committed at {oldest}",
                self.layout.name
            )));
        }
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            if committed_ms(middle).await? <= asked_ms { low = middle } else { high = middle - 1 }
        }
        Ok(low)
    }
}

/// What a table's log has.
struct Log {
    /// Those that can be read: from the first commit, or the oldest checkpoint that commits follow.
    versions: RangeInclusive<u64>,
    first_commit: u64,
}

impl Log {
    async fn list(layout: &Layout) -> Result<Self> {
        let doing = || format!("list the log of `{}`", layout.name);
        let (mut commits, mut checkpoints) = (BTreeSet::new(), BTreeSet::new());
        let mut names = layout.log.store().list(Some(&layout.log.location("_delta_log")));
        while let Some(entry) = names.try_next().await.map_err(|error| place::failed(doing(), error))? {
            let Some((version, kind)) = entry.location.filename().and_then(|name| name.split_once('.')) else {
                continue;
            };
            let Ok(version) = version.parse::<u64>() else { continue };
            if kind == "json" {
                commits.insert(version);
            } else if kind.starts_with("checkpoint") {
                checkpoints.insert(version);
            }
        }
        let (Some(&first), Some(&last)) = (commits.first(), commits.last()) else {
            return Err(Error::change(format!("{}: nothing was committed yet", doing())));
        };
        let oldest = match first {
            0 => Some(0),
            _ => checkpoints.into_iter().find(|&version| version + 1 >= first),
        };
        Ok(Self { versions: oldest.unwrap_or(last)..=last, first_commit: first })
    }
}
