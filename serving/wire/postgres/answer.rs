//! What a statement is answered with.

use std::sync::Arc;

use datafusion::arrow::array::StringArray;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::Statement as EngineStatement;
use datafusion::sql::sqlparser::ast::{CloseCursor, DiscardObject, Statement};
use datafusion_postgres::arrow_pg::datatypes::{arrow_schema_to_pg_fields, encode_recordbatch};
use datafusion_postgres::pgwire::api::portal::{Format, Portal};
use datafusion_postgres::pgwire::api::results::{FieldInfo, QueryResponse, Response, Tag};
use datafusion_postgres::pgwire::api::store::{MemPortalStore, PortalStore};
use datafusion_postgres::pgwire::api::{ClientInfo, ClientPortalStore};
use datafusion_postgres::pgwire::error::{PgWireError, PgWireResult};
use datafusion_postgres::pgwire::messages::data::DataRow;
use datafusion_postgres::pgwire::messages::response::TransactionStatus;
use futures::stream::{self, Stream, StreamExt, TryStreamExt};
use tokio::time::sleep;

use super::connection::{Cancellable, Memory};
use super::cursor::{Cursor, rows_asked};
use super::failure::{failure, wrong};
use super::parameters::bind;
use super::parse::asks_catalog;
use super::query::Prepared;
use super::variables::shown;
use super::{PROTOCOL, Shared};
use crate::Session;

/// Answers statements of one text.
pub(crate) struct Answering {
    pub(crate) shared: Arc<Shared>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) text: Arc<str>,
}

/// A query, planned over the tables as they are.
pub(crate) struct Planned {
    session: Arc<dyn Session>,
    context: SessionContext,
    pub(crate) plan: LogicalPlan,
}

/// Whether a statement is planned and run by the query engine.
pub(crate) fn is_query(statement: &Statement) -> bool {
    matches!(
        statement,
        Statement::Query(_)
            | Statement::Explain { .. }
            | Statement::ExplainTable { .. }
            | Statement::ShowTables { .. }
            | Statement::ShowColumns { .. }
            | Statement::ShowFunctions { .. }
    )
}

/// The query that a `DECLARE` opens a cursor on.
pub(crate) fn declared(statement: &Statement) -> Option<Statement> {
    let Statement::Declare { stmts } = statement else { return None };
    Some(Statement::Query(stmts.first()?.for_query.clone()?))
}

impl Answering {
    /// Answers a statement; `portal` has its parameters, if it is a prepared one. Rows are computed as they are read.
    pub(crate) async fn answer<C>(
        &self,
        client: &C,
        statement: &Statement,
        format: &Format,
        portal: Option<&Portal<Prepared>>,
    ) -> PgWireResult<Response>
    where
        C: ClientInfo + ClientPortalStore + Sync,
        C::PortalStore: PortalStore,
    {
        if let Some(answer) = self.transaction(client, statement).await? {
            return Ok(answer);
        }
        let done = |tag: &str| Ok(Response::Execution(Tag::new(tag)));
        match statement {
            statement if is_query(statement) => self.query(client, statement, format, portal).await,
            Statement::ShowVariable { .. } => self.show(statement, format),
            Statement::Set(_) | Statement::Reset(_) => {
                self.memory.variables().carry_out(statement)?;
                done(if matches!(statement, Statement::Set(_)) { "SET" } else { "RESET" })
            }
            Statement::Declare { .. } => self.declare(client, statement, portal).await,
            Statement::Fetch { name, direction, .. } => {
                let mut cursors = self.memory.cursors.lock().await;
                let columns = cursors.columns(&name.value)?;
                let fetched = cursors.fetch(&name.value, rows_asked(direction)?).await?;
                answer_rows("FETCH", &columns, fetched, format)
            }
            Statement::Close { cursor } => {
                let mut cursors = self.memory.cursors.lock().await;
                match cursor {
                    CloseCursor::All => cursors.close_all(),
                    CloseCursor::Specific { name } => cursors.close(&name.value)?,
                }
                done("CLOSE CURSOR")
            }
            Statement::Deallocate { name, .. } => {
                self.deallocate(client, &name.value);
                done("DEALLOCATE")
            }
            Statement::Discard { object_type } => {
                if *object_type == DiscardObject::ALL {
                    self.memory.cursors.lock().await.close_all();
                    *self.memory.variables() = super::variables::Variables::default();
                }
                done("DISCARD")
            }
            Statement::UNLISTEN { .. } => done("UNLISTEN"),
            other => {
                let word = other.to_string().split_whitespace().next().unwrap_or_default().to_uppercase();
                Err(wrong("25006", format!("cannot execute {word}: tables can only be read")))
            }
        }
    }

    /// The answer to what begins and ends transactions. There are none: each statement sees the newest rows, in a transaction
    /// too.
    async fn transaction<C: ClientInfo>(&self, client: &C, statement: &Statement) -> PgWireResult<Option<Response>> {
        let status = client.transaction_status();
        let tag = |text: &str| Tag::new(text);
        let answer = match (statement, status) {
            (Statement::Rollback { savepoint: None, .. }, _) => {
                self.memory.cursors.lock().await.close_all();
                Response::TransactionEnd(tag("ROLLBACK"))
            }
            (Statement::Commit { .. }, status) => {
                self.memory.cursors.lock().await.close_all();
                Response::TransactionEnd(tag(if status == TransactionStatus::Error { "ROLLBACK" } else { "COMMIT" }))
            }
            // What failed has changed nothing, so going back to a savepoint mends it.
            (Statement::Rollback { .. }, TransactionStatus::Error) => Response::TransactionStart(tag("ROLLBACK")),
            (_, TransactionStatus::Error) => {
                let aborted = "current transaction is aborted, commands ignored until end of transaction block";
                return Err(wrong("25P02", aborted));
            }
            (Statement::StartTransaction { .. }, TransactionStatus::Idle) => Response::TransactionStart(tag("BEGIN")),
            (Statement::StartTransaction { .. }, _) => Response::Execution(tag("BEGIN")),
            (Statement::Rollback { .. }, _) => Response::Execution(tag("ROLLBACK")),
            (Statement::Savepoint { .. }, _) => Response::Execution(tag("SAVEPOINT")),
            (Statement::ReleaseSavepoint { .. }, _) => Response::Execution(tag("RELEASE")),
            _ => return Ok(None),
        };
        Ok(Some(answer))
    }

    /// Plans a query over the tables as they are now.
    pub(crate) async fn plan(&self, statement: &Statement) -> PgWireResult<Planned> {
        let failed = |error: &contract::Error| failure(error, &self.text);
        let session = self.shared.statements.session().await.map_err(|error| failed(&error))?;
        let search_path = self.memory.variables().search_path();
        let explain = |error| failed(&session.explain(&error));
        let with_tables = asks_catalog(&self.text);
        let catalog = self.shared.catalog().await.map_err(|error| failed(&error))?;
        let context = catalog.context(session.context(), &search_path, with_tables).await;
        let context = context.map_err(explain)?;
        let statement = EngineStatement::Statement(Box::new(statement.clone()));
        let plan = context.state().statement_to_plan(statement).await.map_err(explain)?;
        Ok(Planned { session, context, plan })
    }

    async fn query<C: ClientInfo>(
        &self,
        client: &C,
        statement: &Statement,
        format: &Format,
        portal: Option<&Portal<Prepared>>,
    ) -> PgWireResult<Response> {
        let (planned, cancellable) = self.begin(client, statement, portal).await?;
        let fields = Arc::new(arrow_schema_to_pg_fields(planned.plan.schema().as_arrow(), format, None)?);
        let (statements, text, of_rows) = (self.shared.statements.clone(), self.text.clone(), fields.clone());
        let started = async move {
            let Planned { session, context, plan } = planned;
            let token = cancellable.token.clone();
            let table = statements.run(PROTOCOL, session, &context, plan, token).await;
            let table = table.map_err(|error| failure(&error, &text))?;
            let rows = table.batches.map(move |batch| {
                // It can be cancelled until its last row.
                let _held = &cancellable;
                batch.map_err(|error| failure(&error, &text))
            });
            Ok::<_, PgWireError>(encode(rows, of_rows))
        };
        Ok(Response::Query(QueryResponse::new(fields, stream::once(started).try_flatten())))
    }

    /// Plans a statement with its parameters, and lets it be cancelled from now on.
    async fn begin<C: ClientInfo>(
        &self,
        client: &C,
        statement: &Statement,
        portal: Option<&Portal<Prepared>>,
    ) -> PgWireResult<(Planned, Cancellable)> {
        let cancellable = self.shared.cancels.begin(client);
        if let Some(timeout) = self.memory.variables().statement_timeout() {
            let token = cancellable.token.clone();
            tokio::spawn(async move {
                tokio::select! {
                    () = sleep(timeout) => token.cancel(),
                    () = token.cancelled() => {}
                }
            });
        }
        let mut planned = tokio::select! {
            planned = self.plan(statement) => planned?,
            () = cancellable.token.cancelled() => {
                return Err(failure(&crate::statements::cancelled(), &self.text));
            }
        };
        if let Some(portal) = portal {
            planned.plan = bind(planned.plan, portal, &self.text)?;
        }
        Ok((planned, cancellable))
    }

    fn show(&self, statement: &Statement, format: &Format) -> PgWireResult<Response> {
        let name = shown(statement).unwrap_or_default();
        let value = self.memory.variables().get(&name)?.to_owned();
        let columns = Arc::new(Schema::new(vec![Field::new(name, DataType::Utf8, false)]));
        let row = RecordBatch::try_new(columns.clone(), vec![Arc::new(StringArray::from(vec![value]))]);
        let row = row.map_err(|cause| wrong("XX000", cause.to_string()))?;
        answer_rows("SHOW", &columns, vec![row], format)
    }

    async fn declare<C: ClientInfo>(
        &self,
        client: &C,
        statement: &Statement,
        portal: Option<&Portal<Prepared>>,
    ) -> PgWireResult<Response> {
        let name = match statement {
            Statement::Declare { stmts } => stmts.first().and_then(|declared| declared.names.first()),
            _ => None,
        };
        let (Some(name), Some(query)) = (name, declared(statement)) else {
            return Err(wrong("0A000", "only cursors can be declared: DECLARE name CURSOR FOR SELECT …"));
        };
        let (planned, cancellable) = self.begin(client, &query, portal).await?;
        let Planned { session, context, plan } = planned;
        let token = cancellable.token.clone();
        let table = self.shared.statements.run(PROTOCOL, session, &context, plan, token).await;
        let table = table.map_err(|error| failure(&error, &self.text))?;
        self.memory.cursors.lock().await.open(&name.value, Cursor { table, cancellable, rest: None })?;
        Ok(Response::Execution(Tag::new("DECLARE CURSOR")))
    }

    fn deallocate<C>(&self, client: &C, name: &str)
    where
        C: ClientPortalStore,
        C::PortalStore: PortalStore,
    {
        let Some(store) = client.portal_store().as_any().downcast_ref::<MemPortalStore<Prepared>>() else { return };
        let named = match name.to_uppercase().as_str() {
            "ALL" => self.memory.forget_all(),
            _ => vec![name.to_owned()],
        };
        for name in named {
            store.rm_statement(&name);
            self.memory.forget(&name);
        }
    }
}

/// Rows that are there already.
fn answer_rows(tag: &str, columns: &SchemaRef, rows: Vec<RecordBatch>, format: &Format) -> PgWireResult<Response> {
    let fields = Arc::new(arrow_schema_to_pg_fields(columns, format, None)?);
    let rows = encode(stream::iter(rows.into_iter().map(Ok)), fields.clone());
    let mut response = QueryResponse::new(fields, rows);
    response.set_command_tag(tag);
    Ok(Response::Query(response))
}

fn encode(
    batches: impl Stream<Item = PgWireResult<RecordBatch>> + Send + 'static,
    fields: Arc<Vec<FieldInfo>>,
) -> impl Stream<Item = PgWireResult<DataRow>> + Send + 'static {
    batches
        .map(move |batch| -> Box<dyn Iterator<Item = PgWireResult<DataRow>> + Send> {
            match batch {
                Ok(batch) => encode_recordbatch(fields.clone(), batch),
                Err(error) => Box::new(std::iter::once(Err(error))),
            }
        })
        .map(stream::iter)
        .flatten()
}
