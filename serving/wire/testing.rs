//! A database of a few rows, asked by real clients over real sockets.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use contract::{Error, QueryFault, Result, Secret, TableStream};
use datafusion::arrow::array::{ArrayRef, Int64Array, ListArray, StringArray, TimestampMicrosecondArray};
use datafusion::arrow::datatypes::Int64Type;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::catalog::{MemTable, MemoryCatalogProvider, MemorySchemaProvider, SchemaProvider};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::{SQLOptions, SessionConfig, SessionContext};
use futures::TryStreamExt;
use tokio_util::sync::CancellationToken;

use crate::{Database, Server, Session, Settings, serve};

/// A query that computes for much longer than a test may wait. It yields often: it runs on the test's own threads.
pub(crate) const ENDLESS: &str = "SELECT count(*) FROM generate_series(1, 100000000000) a WHERE a.value % 7 = 8";

/// Tables `silver.events` of five rows and `ops.empty` of none. Each session sees one row of `ops.sessions` more.
#[derive(Default)]
pub(crate) struct Made {
    sessions: std::sync::atomic::AtomicI64,
}

struct MadeSession(SessionContext);

pub(crate) fn events() -> RecordBatch {
    let times =
        TimestampMicrosecondArray::from_iter_values((0..5).map(|hour| 1_420_124_400_000_000 + hour * 3_600_000_000));
    let numbers = (0..5).map(|number| (number != 3).then_some(number));
    let lists = (0..5).map(|number| Some(vec![Some(number), None]));
    let columns: [(&str, ArrayRef); 4] = [
        ("number", Arc::new(Int64Array::from_iter(numbers))),
        ("type", Arc::new(StringArray::from_iter_values(["Push", "Watch", "Push", "Issues", "é"]))),
        ("event_time", Arc::new(times.with_timezone("UTC"))),
        ("list", Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(lists))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).expect("columns")
}

fn table(rows: RecordBatch) -> Arc<MemTable> {
    Arc::new(MemTable::try_new(rows.schema(), vec![vec![rows]]).expect("a table"))
}

#[async_trait]
impl Database for Made {
    async fn session(&self) -> Result<Arc<dyn Session>> {
        let mut config = SessionConfig::new()
            .with_information_schema(true)
            .with_default_catalog_and_schema("databroker", "silver")
            .with_create_default_catalog_and_schema(false);
        config.options_mut().sql_parser.collect_spans = true;
        let context = SessionContext::new_with_config(config);
        let catalog = Arc::new(MemoryCatalogProvider::new());
        let (silver, ops) = (MemorySchemaProvider::new(), MemorySchemaProvider::new());
        silver.register_table("events".to_owned(), table(events())).expect("new");
        ops.register_table("empty".to_owned(), table(events().slice(0, 0))).expect("new");
        let number = self.sessions.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let number: ArrayRef = Arc::new(Int64Array::from_iter_values(0..number));
        let sessions = RecordBatch::try_from_iter([("number", number)]).expect("a column");
        ops.register_table("sessions".to_owned(), table(sessions)).expect("new");
        use datafusion::catalog::CatalogProvider;
        catalog.register_schema("silver", Arc::new(silver)).expect("new");
        catalog.register_schema("ops", Arc::new(ops)).expect("new");
        context.register_catalog("databroker", catalog);
        Ok(Arc::new(MadeSession(context)))
    }
}

#[async_trait]
impl Session for MadeSession {
    fn context(&self) -> &SessionContext {
        &self.0
    }

    fn explain(&self, error: &DataFusionError) -> Error {
        let place =
            error.diagnostic().and_then(|diagnostic| diagnostic.span).map(|span| (span.start.line, span.start.column));
        let sqlstate = if error.to_string().contains("not supported") { "25006" } else { "42703" };
        Error::change(format!("answer the query: {error}")).with_fault(QueryFault { sqlstate, place })
    }

    async fn run(&self, context: &SessionContext, plan: LogicalPlan) -> Result<TableStream> {
        let read_only = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        read_only.verify_plan(&plan).map_err(|error| self.explain(&error))?;
        let stream = async { context.execute_logical_plan(plan).await?.execute_stream().await }.await;
        let stream = stream.map_err(|error| self.explain(&error))?;
        let schema = stream.schema();
        let batches = stream.map_err(|error| Error::change("answer the query").because(error));
        Ok(TableStream { schema, batches: Box::pin(batches) })
    }
}

/// A server on free ports.
pub(crate) struct Running {
    pub(crate) server: Server,
    pub(crate) stop: CancellationToken,
}

pub(crate) fn settings() -> Settings {
    Settings {
        postgres_listen: "127.0.0.1:0".to_owned(),
        flight_listen: "127.0.0.1:0".to_owned(),
        statements_max: 2,
        ..Settings::default()
    }
}

pub(crate) async fn start(settings: Settings, token: &str) -> Running {
    let stop = CancellationToken::new();
    let token = Secret::from(token.to_owned());
    let server = serve(&settings, &token, Arc::new(Made::default()), stop.clone()).await.expect("free ports");
    Running { server, stop }
}

/// What must happen in much less time than [`ENDLESS`] takes.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("it ends soon")
}

#[tokio::test]
async fn an_address_that_others_reach_and_a_port_that_is_taken_are_refused() {
    let running = start(settings(), "").await;
    let taken = Settings { postgres_listen: running.server.postgres.expect("on").to_string(), ..settings() };
    let open = Settings { flight_listen: "0.0.0.0:0".to_owned(), ..settings() };
    for (settings, says) in [(taken, "another process has the port"), (open, "`serving.token`")] {
        let database = Arc::new(Made::default());
        let refused = serve(&settings, &Secret::default(), database, CancellationToken::new()).await;
        let refused = refused.expect_err("refused").to_string();
        assert!(refused.contains(says), "{refused}");
    }
    let off = Settings { postgres_listen: String::new(), flight_listen: String::new(), ..settings() };
    let running = start(off, "").await;
    assert_eq!((running.server.postgres, running.server.flight), (None, None));
    running.stop.cancel();
    soon(running.server.ended()).await;
}
