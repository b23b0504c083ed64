//! The parameters of a prepared statement: `$1`, `$2`.

use std::collections::BTreeMap;

use contract::Error;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion_postgres::arrow_pg::datatypes::df::deserialize_parameters_with_server_types;
use datafusion_postgres::arrow_pg::datatypes::{field_into_pg_type, into_pg_type};
use datafusion_postgres::pgwire::api::Type;
use datafusion_postgres::pgwire::api::portal::Portal;
use datafusion_postgres::pgwire::error::PgWireResult;

use super::failure::failure;
use super::query::Prepared;

/// A parameter as far as the statement says what it must be.
#[derive(Clone)]
pub(crate) struct Parameter {
    /// The type that the plan needs.
    inferred: Option<DataType>,
    /// The type that clients are asked to send.
    pub(crate) wire: Type,
}

/// The parameters of a plan, from `$1` on.
pub(crate) fn parameters(plan: &LogicalPlan, text: &str) -> PgWireResult<Vec<Parameter>> {
    let failed = |error: DataFusionError| failure(&Error::change("answer the query").because(error), text);
    let cast = cast_types(plan).map_err(failed)?;
    let mut found = BTreeMap::new();
    for (name, field) in plan.get_parameter_fields().map_err(failed)? {
        let Ok(number) = name.trim_start_matches('$').parse::<usize>() else { continue };
        let wire = match &field {
            // Numbers of PostgreSQL's catalog are sent as such.
            Some(field) if *field.data_type() == DataType::Int32 => field_into_pg_type(field)?,
            Some(field) => into_pg_type(field.data_type())?,
            None => cast.get(&name).map_or(Ok(Type::UNKNOWN), into_pg_type)?,
        };
        let inferred = field.map(|field| field.data_type().clone()).or_else(|| cast.get(&name).cloned());
        found.insert(number, Parameter { inferred, wire });
    }
    let last = found.keys().next_back().copied().unwrap_or(0);
    let unknown = || Parameter { inferred: None, wire: Type::UNKNOWN };
    Ok((1..=last).map(|number| found.remove(&number).unwrap_or_else(unknown)).collect())
}

/// The types of those that stand in a cast, as in `$1::int`.
fn cast_types(plan: &LogicalPlan) -> Result<BTreeMap<String, DataType>, DataFusionError> {
    let mut types = BTreeMap::new();
    plan.apply_with_subqueries(|node| {
        for expression in node.expressions() {
            expression.apply(|expression| {
                if let Expr::Cast(cast) = expression
                    && let Expr::Placeholder(placeholder) = cast.expr.as_ref()
                {
                    types.insert(placeholder.id.clone(), cast.field.data_type().clone());
                }
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(types)
}

/// The plan with the values that a client sent for its parameters.
pub(crate) fn bind(plan: LogicalPlan, portal: &Portal<Prepared>, text: &str) -> PgWireResult<LogicalPlan> {
    if portal.parameter_len() == 0 {
        return Ok(plan);
    }
    let known = parameters(&plan, text)?;
    let inferred: Vec<_> = known.iter().map(|parameter| parameter.inferred.as_ref()).collect();
    let wire: Vec<_> = known.iter().map(|parameter| Some(&parameter.wire)).collect();
    let values = deserialize_parameters_with_server_types(portal, &inferred, &wire)?;
    plan.replace_params_with_values(&values)
        .map_err(|error| failure(&Error::change("answer the query").because(error), text))
}
