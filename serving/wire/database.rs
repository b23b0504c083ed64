//! What is asked: tables at one moment.

use std::sync::Arc;

use async_trait::async_trait;
use contract::{Error, Result, TableStream};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;

/// The tables that statements read.
#[async_trait]
pub trait Database: Send + Sync {
    /// Begins to read all tables at this moment; for one statement.
    ///
    /// # Errors
    /// When a table cannot be read.
    async fn session(&self) -> Result<Arc<dyn Session>>;
}

/// All tables at one moment. Its time runs from when it was begun.
#[async_trait]
pub trait Session: Send + Sync {
    /// The query engine's session, whose default catalog holds all schemas.
    fn context(&self) -> &SessionContext;

    /// An error of the query engine in words that help, with an [`Error::fault`].
    fn explain(&self, error: &DataFusionError) -> Error;

    /// Runs a plan that only reads, in a context made from [`Session::context`], within the limits of rows, time, memory and
    /// spill. Who lets the answer go ends the query.
    ///
    /// # Errors
    /// `Change` for a plan that is wrong or does more than read; `Retry` when a limit was reached.
    async fn run(&self, context: &SessionContext, plan: LogicalPlan) -> Result<TableStream>;
}
