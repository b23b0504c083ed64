//! Choosing rows that are in memory by a condition in SQL.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, SchemaRef};
use contract::{Error, Result};
use datafusion::common::DFSchema;
use datafusion::error::DataFusionError;
use datafusion::physical_plan::PhysicalExpr;
use datafusion::prelude::SessionContext;

use crate::query_error::explain;

/// Bytes of a condition: a longer one is a program's mistake.
const CONDITION_BYTES_MAX: usize = 64 << 10;

/// A condition over the columns of rows: `type = 'PushEvent' AND repo_name LIKE 'rust%'`.
pub struct RowFilter {
    condition: Arc<dyn PhysicalExpr>,
}

impl RowFilter {
    /// Understands a condition as the `WHERE` of a query.
    ///
    /// # Errors
    /// `Change` for one that is wrong, with its place, or that is no condition.
    pub fn new(columns: &SchemaRef, condition: &str) -> Result<Self> {
        if condition.len() > CONDITION_BYTES_MAX {
            let doing =
                format!("filter by a condition of {} bytes: {CONDITION_BYTES_MAX} is the most", condition.len());
            return Err(Error::change(doing));
        }
        let understood = || -> Result<_, DataFusionError> {
            let columns = DFSchema::try_from(columns.clone())?;
            let context = SessionContext::new();
            let expression = context.parse_sql_expr(condition, &columns)?;
            context.create_physical_expr(expression, &columns)
        };
        let expression = understood().map_err(|error| explain(&error, &[]))?;
        let kind = expression.data_type(columns).map_err(|error| explain(&error, &[]))?;
        if kind != DataType::Boolean {
            return Err(Error::change(format!(
                "filter by `{condition}`: it is of type {kind}, should be true or false"
            )));
        }
        Ok(Self { condition: expression })
    }

    /// The rows for which the condition is true.
    ///
    /// # Errors
    /// `Change` where it cannot be told, as for a division by zero.
    pub fn apply(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let told = self.condition.evaluate(rows).and_then(|told| told.into_array(rows.num_rows()));
        let told = told.map_err(|error| explain(&error, &[]))?;
        filter_record_batch(rows, told.as_boolean()).map_err(|cause| Error::stop("filter rows").because(cause))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, StringArray};

    use super::*;

    fn rows() -> RecordBatch {
        let columns: [(&str, ArrayRef); 2] = [
            ("type", Arc::new(StringArray::from(vec![Some("Push"), Some("Watch"), None]))),
            ("number", Arc::new(Int64Array::from(vec![1, 2, 3]))),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap()
    }

    #[test]
    fn rows_are_chosen_as_by_where() {
        let chosen = |condition: &str| {
            RowFilter::new(&rows().schema(), condition).expect(condition).apply(&rows()).expect(condition).num_rows()
        };
        assert_eq!(chosen("type = 'Push'"), 1);
        assert_eq!(chosen("type IS NULL OR number < 2"), 2);
        assert_eq!(chosen("lower(type) LIKE 'w%' AND number BETWEEN 1 AND 2"), 1);
        assert_eq!(chosen("NOT (type = 'Push')"), 1, "null is not true");
        assert_eq!(chosen("true"), 3);
    }

    #[test]
    fn what_is_no_condition_is_refused() {
        for wrong in ["nmber = 1", "number", "number =", "sum(number) > 1", "SELECT 1", "number IN (SELECT 1)"] {
            assert!(RowFilter::new(&rows().schema(), wrong).is_err(), "{wrong}");
        }
    }
}
