//! The serving layer: what is stored, merged with what came since.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::DataType;
use contract::{Error, Positions, Result, SourceId, TableStream, Timestamp, ViewRequest};
use datafusion::catalog::TableProvider;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::datasource::empty::EmptyTable;
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::error::DataFusionError;
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, cast, ident, lit};
use datafusion::physical_plan::PhysicalExpr;
use datafusion::prelude::SessionContext;
use futures::stream::{Stream, StreamExt};

use super::check::{Shape, column};
use super::file::{Statement, ViewFile};
use super::gold::{Gold, Run};
use super::moment::Moment;
use crate::committed::Committed;
use crate::query::Engine;
use crate::query_error::explain;
use crate::scan::Scan;
use crate::session::{Session, check_reads};
use crate::table::View;

/// The relation of all merged rows, which the second statement reads.
const MERGED: &str = "merged";

/// A view over both layers.
pub(super) struct Layers<'a> {
    pub(super) view: &'a ViewFile,
    pub(super) shape: &'a Shape,
    /// The batch layer.
    pub(super) gold: Arc<Gold>,
    /// What it holds; none if it must not be used.
    pub(super) stored: Option<(Arc<Committed>, Run)>,
    /// Silver.
    pub(super) moments: BTreeMap<SourceId, Moment>,
}

impl Layers<'_> {
    /// The next offsets of what is stored of a source.
    pub(super) fn watermark(&self, source: SourceId) -> Positions {
        let run = self.stored.as_ref().map(|(_, run)| run);
        run.and_then(|run| run.read.get(source.0)).map(|read| read.watermark.clone()).unwrap_or_default()
    }

    /// The relation `merged`.
    pub(super) async fn merged(&self, engine: &Engine, request: &ViewRequest) -> Result<LogicalPlan> {
        let past = |(&source, moment): (&SourceId, &Moment)| {
            Ok((format!("silver.{source}"), moment.past(&self.watermark(source))?))
        };
        let tables = self.moments.iter().map(past).collect::<Result<Vec<_>, DataFusionError>>();
        let session = engine.session(tables.map_err(|error| failed(self.view, &error))?)?;
        let speed = plan(&session, self.view, &self.view.stored).await?;
        let from = request.from.map(|from| from.minus(self.view.past));
        let range = range(self.shape, from, request.to);
        merge(self.shape, session.context(), self.batch(), speed, range).map_err(|error| failed(self.view, &error))
    }

    /// The stored rows, or none.
    fn batch(&self) -> Arc<dyn TableProvider> {
        match &self.stored {
            None => Arc::new(EmptyTable::new(self.shape.columns.clone())),
            Some((committed, _)) => {
                let view = View { committed: committed.clone(), pending: Vec::new() };
                Arc::new(Scan::new(self.gold.table.layout.clone(), view))
            }
        }
    }
}

/// Plans a statement of a view.
pub(super) async fn plan(session: &Session, view: &ViewFile, statement: &Statement) -> Result<LogicalPlan> {
    let wrong = |error| view.wrong(statement.line, &reason(&session.explain(&error)));
    let plan = session.context().state().create_logical_plan(&statement.in_place()).await.map_err(wrong)?;
    check_reads(&plan).map_err(wrong)?;
    Ok(plan)
}

fn reason(error: &Error) -> String {
    let text = error.to_string();
    text.strip_prefix("failed to answer the query: ").map_or(text.clone(), str::to_owned)
}

/// Casts the columns of a view's first statement to the types in which they are stored.
pub(super) fn as_stored(shape: &Shape, plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
    let columns = (0..)
        .zip(shape.columns.fields())
        .map(|(place, field)| cast(Expr::Column(column(&plan, place)), field.data_type().clone()).alias(field.name()));
    let columns: Vec<Expr> = columns.collect();
    LogicalPlanBuilder::from(plan).project(columns)?.build()
}

fn merge(
    shape: &Shape,
    context: &SessionContext,
    batch: Arc<dyn TableProvider>,
    speed: LogicalPlan,
    range: Option<Expr>,
) -> Result<LogicalPlan, DataFusionError> {
    let names: Vec<Expr> = shape.columns.fields().iter().map(|field| ident(field.name())).collect();
    let batch = LogicalPlanBuilder::scan("stored", provider_as_source(batch), None)?.project(names)?;
    let mut both = batch.union(as_stored(shape, speed)?)?;
    if let Some(range) = range {
        both = both.filter(range)?;
    }
    let (mut keys, mut measures, mut columns) = (Vec::new(), Vec::new(), Vec::new());
    for (field, merge) in shape.columns.fields().iter().zip(&shape.merges) {
        let value = ident(field.name());
        match merge {
            None => {
                keys.push(value.clone());
                columns.push(value);
            }
            Some(merge) => {
                let merged = format!("merged {}", field.name());
                measures.push(context.udaf(merge.function())?.call(vec![value]).alias(&merged));
                columns.push(cast(ident(&merged), field.data_type().clone()).alias(field.name()));
            }
        }
    }
    both.aggregate(keys, measures)?.project(columns)?.build()
}

/// An interval of time, as a condition on the column of the time.
fn range(shape: &Shape, from: Option<Timestamp>, to: Option<Timestamp>) -> Option<Expr> {
    let (place, _) = shape.time?;
    let field = shape.columns.field(place);
    let time = |at: Timestamp| {
        let literal = lit(ScalarValue::TimestampMicrosecond(Some(at.0), Some("UTC".into())));
        // A date stands for its first moment.
        cast(literal, field.data_type().clone())
    };
    let from = from.map(|from| ident(field.name()).gt_eq(time(from)));
    let to = to.map(|to| ident(field.name()).lt(time(to)));
    from.into_iter().chain(to).reduce(Expr::and)
}

/// What is shown of the merged rows.
pub(super) async fn shown(engine: &Engine, view: &ViewFile, merged: LogicalPlan) -> Result<(Session, LogicalPlan)> {
    let table: Arc<dyn TableProvider> = Arc::new(ViewTable::new(merged.clone(), None));
    let session = engine.session(vec![(format!("silver.{MERGED}"), table)])?;
    let plan = match &view.shown {
        Some(statement) => plan(&session, view, statement).await?,
        None => {
            let keys = view.keys.iter().map(|key| ident(key).sort(true, false));
            let sorted = LogicalPlanBuilder::from(merged).sort(keys.collect::<Vec<_>>()).and_then(|plan| plan.build());
            sorted.map_err(|error| failed(view, &error))?
        }
    };
    Ok((session, plan))
}

/// Keeps the rows that the request asks for, in their order.
pub(super) fn keep(session: &Session, shape: &Shape, table: TableStream, request: &ViewRequest) -> Result<TableStream> {
    let mut filters = Vec::new();
    if let Some(filter) = &request.filter {
        filters.push(condition(session, &table, filter)?);
    }
    // What the second statement saw of the past before the interval is not asked.
    let time = shape.time.map(|(place, _)| shape.columns.field(place));
    let is_shown = time.is_some_and(|time| {
        table.schema.field_with_name(time.name()).is_ok_and(|shown| shown.data_type() == time.data_type())
    });
    if let Some(range) = range(shape, request.from, request.to).filter(|_| is_shown) {
        let physical = DFSchema::try_from(table.schema.clone())
            .and_then(|schema| session.context().state().create_physical_expr(range, &schema));
        filters.push(physical.map_err(|error| Error::stop("cut the time of a view").because(error))?);
    }
    let left = request.rows_max.map_or(usize::MAX, |rows| usize::try_from(rows).unwrap_or(usize::MAX));
    let schema = table.schema.clone();
    let batches = futures::stream::unfold((table.batches, left), move |(mut batches, left)| {
        let filters = filters.clone();
        async move {
            if left == 0 {
                return None;
            }
            let batch = batches.next().await?;
            let kept = filters.iter().fold(batch, |kept, filter| kept.and_then(|batch| matching(&batch, filter)));
            let kept = kept.map(|batch| batch.slice(0, batch.num_rows().min(left)));
            let left = kept.as_ref().map_or(0, |batch| left - batch.num_rows());
            Some((kept, (batches, left)))
        }
    });
    let batches: Pin<Box<dyn Stream<Item = Result<RecordBatch>> + Send>> = Box::pin(batches);
    Ok(TableStream { schema, batches })
}

fn condition(session: &Session, table: &TableStream, filter: &str) -> Result<Arc<dyn PhysicalExpr>> {
    let schema = DFSchema::try_from(table.schema.clone());
    let read = schema.and_then(|schema| {
        let state = session.context().state();
        let expression = state.create_logical_expr(filter, &schema)?;
        state.create_physical_expr(expression, &schema)
    });
    let condition = read.map_err(|error| wrong_filter(filter, &reason(&explain(&error, &[]))))?;
    match condition.data_type(&table.schema) {
        Ok(DataType::Boolean) => Ok(condition),
        _ => Err(wrong_filter(filter, "it is neither true nor false of a row; say `type = 'PushEvent'`")),
    }
}

fn matching(batch: &RecordBatch, filter: &Arc<dyn PhysicalExpr>) -> Result<RecordBatch> {
    let kept = filter.evaluate(batch).and_then(|value| value.into_array(batch.num_rows()));
    let kept = kept.map_err(|error| wrong_filter(&filter.to_string(), &reason(&explain(&error, &[]))))?;
    filter_record_batch(batch, kept.as_boolean())
        .map_err(|error| Error::stop("filter the rows of a view").because(error))
}

fn wrong_filter(filter: &str, reason: &str) -> Error {
    Error::change(format!("use the filter `{filter}`: {reason}"))
}

pub(super) fn failed(view: &ViewFile, error: &DataFusionError) -> Error {
    view.wrong(view.stored.line, &reason(&explain(error, &[])))
}
