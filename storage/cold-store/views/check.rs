//! What a view's first statement must be, so that results over parts of the rows make that over all of them.
//!
//! One aggregation at the top, whose every column is a key or merges as the header says; below it only what treats each row by
//! itself: columns computed, filters, lists unfolded, parts put under each other. So
//! `result(A ∪ B) = merge(result(A), result(B))` however the rows are cut in two.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use contract::{Period, Result, SourceId};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, TableReference};
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, Projection, Volatility};

use super::file::{Merge, ViewFile};
use super::times::period_of;

/// What a checked view stores.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    /// The columns, as stored.
    pub(crate) columns: SchemaRef,
    /// How each merges; a key does not.
    pub(crate) merges: Vec<Option<Merge>>,
    /// Whose rows it reads.
    pub(crate) sources: BTreeSet<SourceId>,
    /// The place of the time among the columns, and the period by which results are stored and made anew; none where all
    /// is made anew at once.
    pub(crate) time: Option<(usize, Period)>,
}

/// A table that a view may read.
pub(crate) struct Silver {
    pub(crate) source: SourceId,
    pub(crate) period: Period,
}

/// Checks the plan of a view's first statement.
///
/// # Errors
/// `Change`, with the line and what would be right.
pub(crate) fn check(view: &ViewFile, plan: &LogicalPlan, silver: &[Silver]) -> Result<Shape> {
    let wrong = |reason: String| view.wrong(view.stored.line, &reason);
    let (projection, aggregate) = top(plan).map_err(wrong)?;
    let read = rows_alone(&aggregate.input, silver).map_err(wrong)?;
    aggregate.group_expr.iter().chain(&aggregate.aggr_expr).try_for_each(alone).map_err(wrong)?;
    let mut columns: Vec<FieldRef> = Vec::new();
    let mut merges = Vec::new();
    for (expression, field) in projection.expr.iter().zip(projection.schema.fields()) {
        let (name, part) = (field.name(), part(expression, aggregate));
        merges.push(match part {
            Part::Key if view.keys.contains(name) => None,
            Part::Key => return Err(wrong(format!("it groups by `{name}`: add it to `-- keys: …`"))),
            Part::Measure(function) => Some(merge(view, name, &function).map_err(wrong)?),
            Part::Computed => {
                return Err(wrong(format!(
                    "`{name}` is computed from aggregates, and so cannot be merged: store them, and compute it in a second \
                     statement over `merged`"
                )));
            }
        });
        let kind = stored_type(field.data_type()).ok_or_else(|| {
            wrong(format!("`{name}` has the type {}, which a table cannot store: CAST it", field.data_type()))
        })?;
        columns.push(Arc::new(Field::new(name, kind, true)));
    }
    let named = view.keys.iter().chain(view.merges.iter().map(|(column, _)| column));
    if let Some(absent) = named.into_iter().find(|name| !columns.iter().any(|column| column.name() == *name)) {
        return Err(wrong(format!("the header names `{absent}`, which is no column of the first statement")));
    }
    if merges.iter().filter(|merge| merge.is_none()).count() < aggregate.group_expr.len() {
        return Err(wrong("it groups by more than it selects: select every column that it groups by".to_owned()));
    }
    let time = match &view.time {
        None => None,
        Some(time) => {
            let place = columns.iter().position(|column| column.name() == time).expect("a key, and so a column");
            let period = period_of(&projection.expr[place], plan).ok_or_else(|| {
                wrong(format!(
                    "`time: {time}` must be made of `event_time` alone, by date_trunc to a month or less, or as a date: \
                     date_trunc('hour', event_time) AS {time}; without `-- time:` the view is made anew as a whole"
                ))
            })?;
            let has_months = |silver: &&Silver| silver.period == Period::Month && read.contains(&silver.source);
            let period = if silver.iter().any(|table| has_months(&table)) { Period::Month } else { period };
            Some((place, period))
        }
    };
    Ok(Shape { columns: Arc::new(Schema::new(columns)), merges, sources: read, time })
}

fn top(plan: &LogicalPlan) -> std::result::Result<(&Projection, &Aggregate), String> {
    let misplaced = |what: &str| {
        Err(format!("{what} has no place in the first statement: it belongs in the second, over `merged`"))
    };
    match plan {
        LogicalPlan::Projection(projection) => match projection.input.as_ref() {
            LogicalPlan::Aggregate(aggregate) => Ok((projection, aggregate)),
            LogicalPlan::Filter(_) => misplaced("HAVING"),
            LogicalPlan::Window(_) => misplaced("a window function"),
            LogicalPlan::Unnest(_) => Err("unnest stands beside aggregates: unfold the list in a subquery".to_owned()),
            _ => Err("it does not group: the first statement is SELECT … FROM silver.… GROUP BY its keys".to_owned()),
        },
        LogicalPlan::Sort(_) => misplaced("ORDER BY"),
        LogicalPlan::Limit(_) => misplaced("LIMIT"),
        LogicalPlan::Distinct(_) => misplaced("DISTINCT"),
        LogicalPlan::Union(_) => {
            Err("UNION ALL stands outside of the aggregation: put the parts into a subquery, and group that".to_owned())
        }
        _ => Err("it is no SELECT … FROM silver.… GROUP BY its keys".to_owned()),
    }
}

/// What a column of the first statement is.
enum Part {
    Key,
    /// The result of one aggregate function, of this name.
    Measure(String),
    Computed,
}

fn part(expression: &Expr, aggregate: &Aggregate) -> Part {
    match expression {
        Expr::Alias(alias) => part(&alias.expr, aggregate),
        // Casting the sum of two sums is summing two casts, for whole numbers.
        Expr::Cast(cast) => part(&cast.expr, aggregate),
        Expr::Column(column) => match aggregate.schema.maybe_index_of_column(column) {
            Some(place) if place < aggregate.group_expr.len() => Part::Key,
            Some(place) => measure(&aggregate.aggr_expr[place - aggregate.group_expr.len()]),
            None => Part::Computed,
        },
        _ => Part::Computed,
    }
}

fn measure(expression: &Expr) -> Part {
    match expression {
        Expr::Alias(alias) => measure(&alias.expr),
        Expr::AggregateFunction(function) if function.params.distinct => {
            Part::Measure(format!("{}(DISTINCT …)", function.func.name()))
        }
        Expr::AggregateFunction(function) => Part::Measure(function.func.name().to_owned()),
        _ => Part::Computed,
    }
}

/// How a column merges: as the header says, if its function allows that.
fn merge(view: &ViewFile, name: &str, function: &str) -> std::result::Result<Merge, String> {
    let allowed: &[Merge] = match function {
        "count" | "sum" => &[Merge::Sum],
        "min" => &[Merge::Min, Merge::Any],
        "max" => &[Merge::Max, Merge::Any],
        "first_value" | "any_value" => &[Merge::Any],
        "sketch" => &[Merge::Distinct],
        "avg" => {
            return Err(format!(
                "`{name}` is an average, which cannot be merged: store sum and count, and divide them in the second statement"
            ));
        }
        other if other.ends_with("(DISTINCT …)") => {
            return Err(format!(
                "`{name}` is {other}, which cannot be merged: store `sketch(…) AS {name}` with `-- distinct: {name}`, and show `estimate({name})`"
            ));
        }
        other => {
            return Err(format!(
                "`{name}` is {other}(…), which cannot be merged: count, sum, min, max, any_value and sketch can"
            ));
        }
    };
    let declared = view.merges.iter().find(|(column, _)| column == name).map(|(_, merge)| *merge);
    match declared {
        Some(declared) if allowed.contains(&declared) => Ok(declared),
        Some(declared) => Err(format!(
            "`{name}` is {function}(…), which merges by `{}`, not `{}`",
            allowed[0].word(),
            declared.word()
        )),
        None => Err(format!("the header does not say how `{name}` merges: add `-- {}: {name}`", allowed[0].word())),
    }
}

/// Checks that a plan treats each row of `silver` by itself; answers whose rows it reads.
fn rows_alone(plan: &LogicalPlan, silver: &[Silver]) -> std::result::Result<BTreeSet<SourceId>, String> {
    let mut read = BTreeSet::new();
    let mut waiting = vec![plan];
    while let Some(plan) = waiting.pop() {
        match plan {
            LogicalPlan::TableScan(scan) => {
                read.insert(source(&scan.table_name, silver)?);
            }
            LogicalPlan::Projection(_)
            | LogicalPlan::Filter(_)
            | LogicalPlan::SubqueryAlias(_)
            | LogicalPlan::Union(_)
            | LogicalPlan::Unnest(_) => {}
            // SELECT without FROM, as one row of a UNION, would be counted by both layers.
            LogicalPlan::EmptyRelation(_) | LogicalPlan::Values(_) => {
                return Err("it selects rows that come of no table".to_owned());
            }
            other => {
                return Err(format!(
                    "{} has no place below the aggregation of the first statement, where each row stands alone",
                    called(other)
                ));
            }
        }
        for expression in plan.expressions() {
            alone(&expression)?;
        }
        waiting.extend(plan.inputs());
    }
    Ok(read)
}

fn source(table: &TableReference, silver: &[Silver]) -> std::result::Result<SourceId, String> {
    let is_silver = table.schema().is_none_or(|schema| schema == "silver");
    let found = silver.iter().find(|known| is_silver && known.source.0 == table.table());
    found.map(|known| known.source).ok_or_else(|| {
        let known: Vec<_> = silver.iter().map(|known| format!("silver.{}", known.source)).collect();
        format!("it reads `{table}`: a view is made of silver alone ({})", known.join(", "))
    })
}

fn called(plan: &LogicalPlan) -> &'static str {
    match plan {
        LogicalPlan::Join(_) => "a join (put the sides under each other by UNION ALL, and group them)",
        LogicalPlan::Aggregate(_) | LogicalPlan::Distinct(_) => "an aggregation or DISTINCT",
        LogicalPlan::Window(_) => "a window function",
        LogicalPlan::Sort(_) => "ORDER BY",
        LogicalPlan::Limit(_) => "LIMIT",
        _ => "such a clause",
    }
}

/// Checks that an expression says the same of a row whenever it is asked.
fn alone(expression: &Expr) -> std::result::Result<(), String> {
    let mut wrong = None;
    let walked = expression.apply(|part| {
        wrong = match part {
            Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) => {
                Some("a subquery in an expression sees more than one row".to_owned())
            }
            Expr::ScalarFunction(call) if call.func.signature().volatility != Volatility::Immutable => {
                Some(format!("{}() answers otherwise each time: a result that is stored must not", call.func.name()))
            }
            _ => None,
        };
        Ok(if wrong.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    walked.map_err(|error| error.strip_backtrace())?;
    wrong.map_or(Ok(()), Err)
}

/// The type in which a column is stored: those that every reader of Delta knows.
fn stored_type(kind: &DataType) -> Option<DataType> {
    Some(match kind {
        DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::Float32
        | DataType::Float64
        | DataType::Date32
        | DataType::Utf8 => kind.clone(),
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => DataType::Int64,
        DataType::Date64 => DataType::Date32,
        DataType::Timestamp(..) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        DataType::Decimal128(precision, scale) => DataType::Decimal128(*precision, *scale),
        DataType::List(item) | DataType::LargeList(item) => {
            DataType::List(Arc::new(Field::new_list_field(stored_type(item.data_type())?, true)))
        }
        _ => return None,
    })
}

/// The column of a plan's output at a place.
pub(super) fn column(plan: &LogicalPlan, place: usize) -> Column {
    Column::from(plan.schema().qualified_field(place))
}
