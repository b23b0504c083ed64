//! Statements in both forms of PostgreSQL's protocol: as text, and prepared with parameters.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::sql::sqlparser::ast::Statement;
use datafusion_postgres::arrow_pg::datatypes::arrow_schema_to_pg_fields;
use datafusion_postgres::pgwire::api::portal::{Format, Portal};
use datafusion_postgres::pgwire::api::query::{ExtendedQueryHandler, SimpleQueryHandler, send_describe_response};
use datafusion_postgres::pgwire::api::results::{DescribePortalResponse, FieldInfo, Response};
use datafusion_postgres::pgwire::api::stmt::{QueryParser, StoredStatement};
use datafusion_postgres::pgwire::api::store::PortalStore;
use datafusion_postgres::pgwire::api::{ClientInfo, ClientPortalStore, DEFAULT_NAME, Type};
use datafusion_postgres::pgwire::error::{PgWireError, PgWireResult};
use datafusion_postgres::pgwire::messages::PgWireBackendMessage;
use datafusion_postgres::pgwire::messages::extendedquery::{
    Close, CloseComplete, Describe, Parse, ParseComplete, TARGET_TYPE_BYTE_PORTAL, TARGET_TYPE_BYTE_STATEMENT,
};
use futures::{Sink, SinkExt};

use super::Shared;
use super::answer::{Answering, declared, is_query};
use super::connection::Memory;
use super::failure::wrong;
use super::parameters::{Parameter, parameters};
use super::parse::parse;
use super::variables::shown;

/// Prepared statements of one connection; drivers keep a hundred by rule.
const PREPARED_MAX: usize = 1_024;

/// Answers the statements of a connection.
pub(crate) struct Queries {
    shared: Arc<Shared>,
}

/// A prepared statement. It keeps no plan: a plan holds the tables as they were.
#[derive(Clone)]
pub(crate) struct Prepared {
    pub(crate) text: Arc<str>,
    pub(crate) statement: Arc<Statement>,
    columns: SchemaRef,
    parameters: Arc<[Parameter]>,
}

impl Queries {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    fn answering(&self, memory: Arc<Memory>, text: &str) -> Answering {
        Answering { shared: self.shared.clone(), memory, text: text.into() }
    }
}

#[async_trait]
impl SimpleQueryHandler for Queries {
    async fn do_query<C>(&self, client: &mut C, query: &str) -> PgWireResult<Vec<Response>>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let answering = self.answering(Memory::of(client)?, query);
        let mut responses = Vec::new();
        for statement in parse(query)? {
            responses.push(answering.answer(client, &statement, &Format::UnifiedText, None).await?);
        }
        if responses.is_empty() { Ok(vec![Response::EmptyQuery]) } else { Ok(responses) }
    }
}

#[async_trait]
impl ExtendedQueryHandler for Queries {
    type Statement = Prepared;
    type QueryParser = Preparing;

    fn query_parser(&self) -> Arc<Preparing> {
        Arc::new(Preparing(self.shared.clone()))
    }

    async fn on_parse<C>(&self, client: &mut C, message: Parse) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let name = message.name.clone().unwrap_or_else(|| DEFAULT_NAME.to_owned());
        let memory = Memory::of(client)?;
        if !memory.prepare(&name, PREPARED_MAX) {
            let most = format!("{PREPARED_MAX} statements are prepared, which are the most; deallocate some");
            return Err(wrong("54000", most));
        }
        match StoredStatement::parse(client, &message, self.query_parser()).await? {
            Some(statement) => client.portal_store().put_statement(Arc::new(statement)),
            None => client.portal_store().put_empty_statement(&name),
        }
        client.send(PgWireBackendMessage::ParseComplete(ParseComplete::new())).await?;
        Ok(())
    }

    async fn on_describe<C>(&self, client: &mut C, message: Describe) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let name = message.name.as_deref().unwrap_or(DEFAULT_NAME);
        let is_cursor =
            message.target_type == TARGET_TYPE_BYTE_PORTAL && client.portal_store().get_portal(name).is_none();
        if !is_cursor {
            return self._on_describe(client, message).await;
        }
        let columns = Memory::of(client)?.cursors.lock().await.columns(name)?;
        let fields = arrow_schema_to_pg_fields(&columns, &Format::UnifiedText, None)?;
        send_describe_response(client, &DescribePortalResponse::new(fields)).await
    }

    async fn on_close<C>(&self, client: &mut C, message: Close) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let name = message.name.as_deref().unwrap_or(DEFAULT_NAME);
        if message.target_type == TARGET_TYPE_BYTE_STATEMENT {
            client.portal_store().rm_statement(name);
            Memory::of(client)?.forget(name);
        } else {
            client.portal_store().rm_portal(name);
        }
        client.send(PgWireBackendMessage::CloseComplete(CloseComplete::new())).await?;
        Ok(())
    }

    async fn do_query<C>(&self, client: &mut C, portal: &Portal<Prepared>, _max_rows: usize) -> PgWireResult<Response>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let prepared = &portal.statement.statement;
        check_formats(&portal.parameter_format, portal.parameter_len())?;
        check_formats(&portal.result_column_format, prepared.columns.fields().len())?;
        let answering = self.answering(Memory::of(client)?, &prepared.text);
        answering.answer(client, &prepared.statement, &portal.result_column_format, Some(portal)).await
    }
}

/// Each column may have a format of its own, or all have one.
fn check_formats(format: &Format, columns: usize) -> PgWireResult<()> {
    match format {
        Format::Individual(formats) if formats.len() != columns => {
            Err(wrong("08P01", format!("{} formats are given for {columns} columns", formats.len())))
        }
        _ => Ok(()),
    }
}

/// Prepares statements.
pub(crate) struct Preparing(Arc<Shared>);

#[async_trait]
impl QueryParser for Preparing {
    type Statement = Prepared;

    async fn parse_sql<C>(&self, client: &C, sql: &str, _types: &[Option<Type>]) -> PgWireResult<Option<Prepared>>
    where
        C: ClientInfo + Unpin + Send + Sync,
    {
        let memory = Memory::of(client)?;
        let mut statements = parse(sql)?;
        let Some(statement) = statements.pop() else { return Ok(None) };
        if !statements.is_empty() {
            return Err(wrong("42601", "cannot insert multiple commands into a prepared statement"));
        }
        let answering = Answering { shared: self.0.clone(), memory, text: sql.into() };
        let (mut columns, mut known) = (Arc::new(Schema::empty()), Vec::new());
        match &statement {
            Statement::Fetch { name, .. } => {
                columns = answering.memory.cursors.lock().await.columns(&name.value)?;
            }
            Statement::ShowVariable { .. } => {
                let name = shown(&statement).unwrap_or_default();
                columns = Arc::new(Schema::new(vec![Field::new(name, DataType::Utf8, false)]));
            }
            Statement::Declare { .. } => {
                if let Some(query) = declared(&statement) {
                    known = parameters(&answering.plan(&query).await?.plan, sql)?;
                }
            }
            statement if is_query(statement) => {
                let planned = answering.plan(statement).await?;
                columns = Arc::new(planned.plan.schema().as_arrow().clone());
                known = parameters(&planned.plan, sql)?;
            }
            _ => {}
        }
        let statement = Arc::new(statement);
        Ok(Some(Prepared { text: answering.text, statement, columns, parameters: known.into() }))
    }

    fn get_parameter_types(&self, prepared: &Prepared) -> PgWireResult<Vec<Type>> {
        Ok(prepared.parameters.iter().map(|parameter| parameter.wire.clone()).collect())
    }

    fn get_result_schema(&self, prepared: &Prepared, format: Option<&Format>) -> PgWireResult<Vec<FieldInfo>> {
        let format = format.unwrap_or(&Format::UnifiedText);
        check_formats(format, prepared.columns.fields().len())?;
        arrow_schema_to_pg_fields(&prepared.columns, format, None)
    }
}
