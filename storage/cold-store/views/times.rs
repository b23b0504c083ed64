//! Whether a column is the time of a row's event, cut down to something that lies in one period.

use arrow::datatypes::DataType;
use contract::Period;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr, LogicalPlan};

/// The period that holds all rows of one value of an expression over the input of `plan`; none if it is made of anything but
/// `event_time`, or spans more than a month.
pub(super) fn period_of(expression: &Expr, plan: &LogicalPlan) -> Option<Period> {
    match expression {
        Expr::Alias(alias) => period_of(&alias.expr, plan),
        Expr::Cast(cast) if matches!(cast.field.data_type(), DataType::Date32 | DataType::Timestamp(..)) => {
            period_of(&cast.expr, plan)
        }
        Expr::ScalarFunction(call) if call.func.name() == "date_trunc" && call.args.len() == 2 => {
            let unit = match &call.args[0] {
                Expr::Literal(ScalarValue::Utf8(Some(unit)) | ScalarValue::Utf8View(Some(unit)), _) => {
                    unit.to_lowercase()
                }
                _ => return None,
            };
            let own = match unit.as_str() {
                "second" | "minute" | "hour" | "day" => Period::Day,
                "month" => Period::Month,
                _ => return None,
            };
            let inner = period_of(&call.args[1], plan)?;
            Some(if inner == Period::Month { Period::Month } else { own })
        }
        Expr::ScalarFunction(call) if call.func.name() == "to_date" && call.args.len() == 1 => {
            period_of(&call.args[0], plan)
        }
        Expr::Column(column) => plan.inputs().into_iter().map(|input| in_input(&column.name, input)).reduce(wider)?,
        _ => None,
    }
}

/// That of a column of a plan's output.
fn in_input(name: &str, plan: &LogicalPlan) -> Option<Period> {
    match plan {
        LogicalPlan::TableScan(_) => (name == "event_time").then_some(Period::Day),
        LogicalPlan::Projection(projection) => {
            let place = projection.schema.fields().iter().position(|field| field.name() == name)?;
            period_of(&projection.expr[place], plan)
        }
        LogicalPlan::Aggregate(aggregate) => {
            let place = aggregate.schema.fields().iter().position(|field| field.name() == name)?;
            period_of(aggregate.group_expr.get(place)?, plan)
        }
        LogicalPlan::Union(union) => {
            let place = union.schema.fields().iter().position(|field| field.name() == name)?;
            // The parts of a union have names of their own.
            let of_part = |part: &LogicalPlan| in_input(part.schema().field(place).name(), part);
            union.inputs.iter().map(|part| of_part(part)).reduce(wider)?
        }
        LogicalPlan::Filter(_) | LogicalPlan::SubqueryAlias(_) | LogicalPlan::Unnest(_) => {
            plan.inputs().into_iter().map(|input| in_input(name, input)).reduce(wider)?
        }
        _ => None,
    }
}

/// The period that holds both.
fn wider(one: Option<Period>, other: Option<Period>) -> Option<Period> {
    match (one?, other?) {
        (Period::Day, Period::Day) => Some(Period::Day),
        (Period::Month, _) | (_, Period::Month) => Some(Period::Month),
    }
}
