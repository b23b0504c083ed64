//! Tables that are no files: what they hold is asked for when a query reads them.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use contract::Result;
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::TableType;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;

/// A small table whose rows somebody else knows.
#[async_trait]
pub trait LiveTable: Send + Sync {
    /// `ops.lag`.
    fn name(&self) -> &'static str;

    /// Its columns.
    fn schema(&self) -> SchemaRef;

    /// Its rows at this moment, few enough for memory.
    ///
    /// # Errors
    /// When they cannot be known now.
    async fn rows(&self) -> Result<RecordBatch>;
}

/// A live table as the query engine sees it.
pub(crate) struct Live(pub(crate) Arc<dyn LiveTable>);

impl std::fmt::Debug for Live {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_tuple("Live").field(&self.0.name()).finish()
    }
}

#[async_trait]
impl TableProvider for Live {
    fn schema(&self) -> SchemaRef {
        self.0.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        let rows = self.0.rows().await.map_err(|error| DataFusionError::External(error.into()))?;
        Ok(MemorySourceConfig::try_new_exec(&[vec![rows]], self.0.schema(), projection.cloned())?)
    }
}
