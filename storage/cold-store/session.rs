//! Reading all tables at one moment: what a query is planned and run with.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use contract::{Error, QueryFault, Result, TableStream};
use datafusion::catalog::{
    CatalogProvider, MemoryCatalogProvider, MemoryCatalogProviderList, MemorySchemaProvider, SchemaProvider,
    TableProvider,
};
use datafusion::error::DataFusionError;
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::SendableRecordBatchStream;
use datafusion::prelude::{SQLOptions, SessionContext};
use futures::stream::{self, Stream, StreamExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::query_error::explain;
use crate::query_threads::QueryThreads;

/// Bytes of a query: a longer one is a program's mistake, and its plan would fill the memory.
const QUERY_BYTES_MAX: usize = 1 << 20;

/// Batches that wait to be read: with the one in hand enough that computing and reading overlap.
const WAITING_BATCHES_MAX: usize = 1;

/// The name before the schemas, which no query needs to say.
pub(crate) const CATALOG: &str = "databroker";

/// The schema of the views.
const VIEWS: &str = "gold";

/// Tables at one moment, by `SCHEMA.NAME`.
pub(crate) type Tables = Vec<(String, Arc<dyn TableProvider>)>;

/// How much one query may take beside memory, which all share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueryLimits {
    pub(crate) rows_max: usize,
    pub(crate) seconds_max: u64,
}

/// All tables at one moment, to be read by one query. Its time runs from when it was begun.
pub struct Session {
    context: SessionContext,
    names: Vec<String>,
    limits: Option<QueryLimits>,
    /// None: the query may take as long as it does.
    deadline: Option<Instant>,
    threads: Arc<QueryThreads>,
}

impl Session {
    pub(crate) fn new(
        template: &SessionState,
        tables: Tables,
        limits: Option<QueryLimits>,
        threads: Arc<QueryThreads>,
    ) -> Result<Self> {
        let names = tables.iter().map(|(name, _)| name.clone()).collect();
        let context = SessionContext::new_with_state(template.clone());
        context.register_catalog_list(Arc::new(MemoryCatalogProviderList::new()));
        let catalog = catalog(tables).map_err(|error| explain(&error, &[]))?;
        context.register_catalog(CATALOG, catalog);
        let deadline = limits.map(|limits| Instant::now() + Duration::from_secs(limits.seconds_max));
        Ok(Self { context, names, limits, deadline, threads })
    }

    /// The same with the views, as the schema `gold`.
    pub(crate) fn with_views(mut self, views: Arc<dyn SchemaProvider>) -> Result<Self> {
        self.names.extend(views.table_names().into_iter().map(|name| format!("{VIEWS}.{name}")));
        let catalog = self.context.catalog(CATALOG).expect("registered when it was made");
        catalog.register_schema(VIEWS, views).map_err(|error| explain(&error, &[]))?;
        Ok(self)
    }

    /// The query engine's session: catalog `databroker`, whose schema `silver` needs not be named.
    pub fn context(&self) -> &SessionContext {
        &self.context
    }

    /// An error of the query engine in words that help, with the place and SQLSTATE as its [`Error::fault`].
    pub fn explain(&self, error: &DataFusionError) -> Error {
        explain(error, &self.names)
    }

    /// Answers a query in SQL.
    ///
    /// # Errors
    /// As [`Session::run`]; `Change` also for a query that cannot be understood.
    pub async fn query(&self, query: &str) -> Result<TableStream> {
        if query.len() > QUERY_BYTES_MAX {
            let doing = format!("answer a query of {} bytes: {QUERY_BYTES_MAX} is the most", query.len());
            return Err(Error::change(doing).with_fault(limit_reached("54000")));
        }
        let state = self.context.state();
        let plan = async {
            let dialect = state.config().options().sql_parser.dialect;
            let statement = state.sql_to_statement(query, &dialect)?;
            state.statement_to_plan(statement).await
        };
        let plan = self.in_time(plan).await?;
        self.run(&self.context, plan).await
    }

    /// Runs a plan that only reads, in a context made from this session's. Its answer ends with an error where a limit is
    /// reached; who lets it go ends the query.
    ///
    /// # Errors
    /// `Change` for a plan that is wrong or does more than read; `Retry` when a limit was reached; `Stop` when a table
    /// cannot be read.
    pub async fn run(&self, context: &SessionContext, plan: LogicalPlan) -> Result<TableStream> {
        check_reads(&plan).map_err(|error| self.explain(&error))?;
        let context = context.clone();
        let started =
            self.threads.spawn(async move { context.execute_logical_plan(plan).await?.execute_stream().await });
        let started = async { started.await.map_err(|panic| DataFusionError::ExecutionJoin(Box::new(panic)))? };
        let stream = self.in_time(started).await?;
        let schema = stream.schema();
        let (sender, rows) = mpsc::channel(WAITING_BATCHES_MAX);
        let running = Running {
            driver: self.threads.spawn(drive(stream, sender)),
            rows,
            deadline: self.deadline,
            rows_left: self.limits.map_or(usize::MAX, |limits| limits.rows_max),
            limits: self.limits,
            _threads: self.threads.clone(),
        };
        Ok(TableStream { schema, batches: running.batches(self.names.clone()) })
    }

    async fn in_time<T>(&self, work: impl Future<Output = Result<T, DataFusionError>>) -> Result<T> {
        let done = until(self.deadline, work).await.ok_or_else(|| late(self.limits))?;
        done.map_err(|error| self.explain(&error))
    }
}

/// Checks that a plan only reads.
pub(crate) fn check_reads(plan: &LogicalPlan) -> Result<(), DataFusionError> {
    let read_only = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    read_only.verify_plan(plan)
}

/// What `work` answers; none when the deadline comes first.
async fn until<T>(deadline: Option<Instant>, work: impl Future<Output = T>) -> Option<T> {
    match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline, work).await.ok(),
        None => Some(work.await),
    }
}

fn limit_reached(sqlstate: &'static str) -> QueryFault {
    QueryFault { sqlstate, place: None }
}

fn late(limits: Option<QueryLimits>) -> Error {
    let seconds = limits.map_or(u64::MAX, |limits| limits.seconds_max);
    let doing = format!(
        "answer the query within {seconds} s (setting `cold.query_seconds_max`); ask for less, such as one day"
    );
    Error::retry(doing).with_fault(limit_reached("57014"))
}

fn too_many(limits: Option<QueryLimits>) -> Error {
    let rows_max = limits.map_or(usize::MAX, |limits| limits.rows_max);
    let doing =
        format!("answer more than {rows_max} rows (setting `cold.query_rows_max`); add a LIMIT, or group the rows");
    Error::retry(doing).with_fault(limit_reached("54000"))
}

/// Computes batch after batch, until nobody takes them any more.
async fn drive(mut stream: SendableRecordBatchStream, sender: mpsc::Sender<Result<RecordBatch, DataFusionError>>) {
    loop {
        let next = tokio::select! {
            next = stream.next() => next,
            () = sender.closed() => return,
        };
        let Some(next) = next else { return };
        if sender.send(next).await.is_err() {
            return;
        }
    }
}

struct Running {
    driver: JoinHandle<()>,
    rows: mpsc::Receiver<Result<RecordBatch, DataFusionError>>,
    deadline: Option<Instant>,
    rows_left: usize,
    limits: Option<QueryLimits>,
    /// An answer that is read keeps them.
    _threads: Arc<QueryThreads>,
}

impl Running {
    /// The answer, which ends with an error where a limit is reached.
    fn batches(self, names: Vec<String>) -> Pin<Box<dyn Stream<Item = Result<RecordBatch>> + Send>> {
        let batches = stream::unfold(Some(self), move |running| {
            let names = names.clone();
            async move {
                let mut running = running?;
                match running.next(&names).await {
                    Ok(batch) => batch.map(|batch| (Ok(batch), Some(running))),
                    Err(error) => Some((Err(error), None)),
                }
            }
        });
        Box::pin(batches)
    }

    async fn next(&mut self, names: &[String]) -> Result<Option<RecordBatch>> {
        let next = until(self.deadline, self.rows.recv()).await.ok_or_else(|| late(self.limits))?;
        let Some(next) = next else {
            // It ended; or it panicked, which must not pass for an end.
            let ended = (&mut self.driver).await;
            return ended.map(|()| None).map_err(|panic| Error::stop("answer the query, a defect").because(panic));
        };
        let batch = next.map_err(|error| explain(&error, names))?;
        self.rows_left = self.rows_left.checked_sub(batch.num_rows()).ok_or_else(|| too_many(self.limits))?;
        Ok(Some(batch))
    }
}

fn catalog(tables: Tables) -> Result<Arc<dyn CatalogProvider>, DataFusionError> {
    let mut schemas: BTreeMap<String, Arc<MemorySchemaProvider>> = BTreeMap::new();
    for (name, table) in tables {
        let (schema, name) = name.split_once('.').expect("tables are named `SCHEMA.NAME`");
        let schema = schemas.entry(schema.to_owned()).or_default();
        schema.register_table(name.to_owned(), table)?;
    }
    let catalog = MemoryCatalogProvider::new();
    for (name, schema) in schemas {
        catalog.register_schema(&name, schema)?;
    }
    Ok(Arc::new(catalog))
}
