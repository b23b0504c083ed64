//! The calls of Flight SQL. What is not answered here is answered as not implemented.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::metadata::SqlInfoData;
use arrow_flight::sql::server::{FlightSqlService, PeekableFlightDataStream};
use arrow_flight::sql::{
    ActionCancelQueryRequest, ActionCancelQueryResult, ActionClosePreparedStatementRequest,
    ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult, Any, CommandGetCatalogs,
    CommandGetDbSchemas, CommandGetSqlInfo, CommandGetTableTypes, CommandGetTables, CommandPreparedStatementQuery,
    CommandStatementQuery, CommandStatementUpdate, DoPutPreparedStatementResult, ProstMessageExt, SqlInfo,
    TicketStatementQuery,
};
use arrow_flight::{
    Action, ActionType, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightData, FlightDescriptor,
    FlightEndpoint, FlightInfo, HandshakeRequest, HandshakeResponse, IpcMessage, SchemaAsIpc, Ticket,
};
use bytes::Bytes;
use contract::TableStream;
use datafusion::arrow::datatypes::Schema;
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::ipc::writer::IpcWriteOptions;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::logical_expr::LogicalPlan;
use futures::{Stream, StreamExt, stream};
use prost::Message;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::guard::Guard;
use super::handle::{AnswerId, Handle};
use super::metadata::{TABLE_TYPES, catalog_name, server, tables};
use super::status::{status, wrong};
use super::{PROTOCOL, parameters};
use crate::Session;
use crate::statements::Statements;

/// The action by which newer clients cancel.
const CANCEL_FLIGHT_INFO: &str = "CancelFlightInfo";

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Answers Flight SQL. Nothing is kept between calls but which answers are being read.
pub(crate) struct FlightSql {
    statements: Statements,
    guard: Guard,
    about: SqlInfoData,
    reading: Arc<Reading>,
}

/// The answers that are being read.
#[derive(Default)]
struct Reading(Mutex<BTreeMap<AnswerId, CancellationToken>>);

/// An answer that is being read, until this is dropped.
struct BeingRead {
    reading: Arc<Reading>,
    id: AnswerId,
    token: CancellationToken,
}

impl Reading {
    fn all(&self) -> MutexGuard<'_, BTreeMap<AnswerId, CancellationToken>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(self: &Arc<Self>, id: AnswerId) -> BeingRead {
        let token = CancellationToken::new();
        self.all().insert(id, token.clone());
        BeingRead { reading: self.clone(), id, token }
    }
}

impl Drop for BeingRead {
    fn drop(&mut self) {
        self.reading.all().remove(&self.id);
        self.token.cancel();
    }
}

impl FlightSql {
    pub(crate) fn new(statements: Statements, guard: Guard) -> contract::Result<Self> {
        Ok(Self { statements, guard, about: server()?, reading: Arc::default() })
    }

    async fn session(&self) -> Result<Arc<dyn Session>, Status> {
        self.statements.session().await.map_err(|error| status(&error))
    }

    /// Plans a statement over the tables as they are now.
    async fn plan(&self, handle: &Handle) -> Result<(Arc<dyn Session>, LogicalPlan), Status> {
        let session = self.session().await?;
        let plan = session.context().state().create_logical_plan(&handle.text).await;
        let plan = plan.and_then(|plan| parameters::bind(plan, &handle.parameters));
        let plan = plan.map_err(|error| status(&session.explain(&error)))?;
        Ok((session, plan))
    }

    /// Where the rows of a statement are got.
    async fn announce(&self, handle: Handle, descriptor: FlightDescriptor) -> Result<Response<FlightInfo>, Status> {
        let (_, plan) = self.plan(&handle).await?;
        let ticket = TicketStatementQuery { statement_handle: handle.encode() };
        announce(plan.schema().as_arrow(), &ticket, descriptor)
    }

    /// Cancels the answers of an announced statement.
    fn cancel(&self, info: &FlightInfo) -> CancelStatus {
        let tickets = info.endpoint.iter().filter_map(|endpoint| endpoint.ticket.as_ref());
        let ids: Vec<_> = tickets.filter_map(|ticket| id_of(&ticket.ticket)).collect();
        let reading = self.reading.all();
        let tokens: Vec<_> = ids.iter().filter_map(|id| reading.get(id)).collect();
        tokens.iter().for_each(|token| token.cancel());
        if tokens.is_empty() { CancelStatus::NotCancellable } else { CancelStatus::Cancelled }
    }
}

/// The name of the answer that a ticket of ours is for.
fn id_of(ticket: &Bytes) -> Option<AnswerId> {
    let ticket = Any::decode(ticket.as_ref()).ok()?.unpack::<TicketStatementQuery>().ok()??;
    Some(Handle::decode(ticket.statement_handle).ok()?.id)
}

fn no_columns(cause: ArrowError) -> Status {
    Status::internal(format!("failed to describe columns: {cause}"))
}

fn announce(
    columns: &Schema,
    ticket: &impl ProstMessageExt,
    descriptor: FlightDescriptor,
) -> Result<Response<FlightInfo>, Status> {
    let endpoint = FlightEndpoint::new().with_ticket(Ticket::new(ticket.as_any().encode_to_vec()));
    let info = FlightInfo::new().try_with_schema(columns).map_err(no_columns)?;
    Ok(Response::new(info.with_endpoint(endpoint).with_descriptor(descriptor)))
}

/// Columns in Arrow's IPC form.
fn ipc(columns: &Schema) -> Result<Bytes, Status> {
    let IpcMessage(bytes) = SchemaAsIpc::new(columns, &IpcWriteOptions::default()).try_into().map_err(no_columns)?;
    Ok(bytes)
}

fn encode(table: TableStream, being_read: Option<BeingRead>) -> Response<Answers<FlightData>> {
    let batches = table.batches.map(move |batch| {
        // It can be cancelled until its last row.
        let _held = &being_read;
        batch.map_err(|error| FlightError::from(status(&error)))
    });
    let data = FlightDataEncoderBuilder::new().with_schema(table.schema).build(batches);
    Response::new(Box::pin(data.map(|data| data.map_err(Into::into))))
}

/// Rows that are there already.
fn encode_rows(rows: Result<RecordBatch, FlightError>) -> Result<Response<Answers<FlightData>>, Status> {
    let rows = rows.map_err(Status::from)?;
    let schema = rows.schema();
    Ok(encode(TableStream { schema, batches: Box::pin(stream::iter([Ok(rows)])) }, None))
}

#[tonic::async_trait]
impl FlightSqlService for FlightSql {
    type FlightService = Self;

    async fn do_handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Answers<HandshakeResponse>>, Status> {
        let authorization = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let bearer = self.guard.bearer(authorization);
        let answer = HandshakeResponse { protocol_version: 0, payload: bearer.clone().into() };
        let mut response: Response<Answers<HandshakeResponse>> = Response::new(Box::pin(stream::iter([Ok(answer)])));
        let bearer =
            bearer.parse().map_err(|_| Status::unauthenticated("the token has letters that no header may have"))?;
        response.metadata_mut().insert("authorization", bearer);
        Ok(response)
    }

    async fn get_flight_info_statement(
        &self,
        query: CommandStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.announce(Handle::new(query.query, Bytes::new())?, request.into_inner()).await
    }

    async fn get_flight_info_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let prepared = Handle::decode(query.prepared_statement_handle)?;
        // Each execution is an answer of its own.
        self.announce(Handle::new(prepared.text, prepared.parameters)?, request.into_inner()).await
    }

    async fn get_flight_info_catalogs(
        &self,
        query: CommandGetCatalogs,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        announce(&query.into_builder().schema(), &query, request.into_inner())
    }

    async fn get_flight_info_schemas(
        &self,
        query: CommandGetDbSchemas,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        announce(&query.clone().into_builder().schema(), &query, request.into_inner())
    }

    async fn get_flight_info_tables(
        &self,
        query: CommandGetTables,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        announce(&query.clone().into_builder().schema(), &query, request.into_inner())
    }

    async fn get_flight_info_table_types(
        &self,
        query: CommandGetTableTypes,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        announce(&query.into_builder().schema(), &query, request.into_inner())
    }

    async fn get_flight_info_sql_info(
        &self,
        query: CommandGetSqlInfo,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        announce(&query.clone().into_builder(&self.about).schema(), &query, request.into_inner())
    }

    async fn do_get_statement(
        &self,
        ticket: TicketStatementQuery,
        _request: Request<Ticket>,
    ) -> Result<Response<Answers<FlightData>>, Status> {
        let handle = Handle::decode(ticket.statement_handle)?;
        let being_read = self.reading.begin(handle.id);
        let (session, plan) = self.plan(&handle).await?;
        let (context, token) = (session.context().clone(), being_read.token.clone());
        let table = self.statements.run(PROTOCOL, session, &context, plan, token).await;
        Ok(encode(table.map_err(|error| status(&error))?, Some(being_read)))
    }

    async fn do_get_catalogs(
        &self,
        query: CommandGetCatalogs,
        _request: Request<Ticket>,
    ) -> Result<Response<Answers<FlightData>>, Status> {
        let mut builder = query.into_builder();
        builder.append(catalog_name(self.session().await?.context()));
        encode_rows(builder.build())
    }

    async fn do_get_schemas(
        &self,
        query: CommandGetDbSchemas,
        _request: Request<Ticket>,
    ) -> Result<Response<Answers<FlightData>>, Status> {
        let session = self.session().await?;
        let (context, mut builder) = (session.context(), query.into_builder());
        let name = catalog_name(context);
        let schemas = context.catalog(&name).map(|catalog| catalog.schema_names()).unwrap_or_default();
        schemas.iter().for_each(|schema| builder.append(&name, schema));
        encode_rows(builder.build())
    }

    async fn do_get_tables(
        &self,
        query: CommandGetTables,
        _request: Request<Ticket>,
    ) -> Result<Response<Answers<FlightData>>, Status> {
        let session = self.session().await?;
        let (context, mut builder) = (session.context(), query.into_builder());
        let catalog = catalog_name(context);
        for table in tables(context).await.map_err(|error| status(&session.explain(&error)))? {
            let appended = builder.append(&catalog, &table.schema, &table.name, table.kind, &table.columns);
            appended.map_err(Status::from)?;
        }
        encode_rows(builder.build())
    }

    async fn do_get_table_types(
        &self,
        query: CommandGetTableTypes,
        _request: Request<Ticket>,
    ) -> Result<Response<Answers<FlightData>>, Status> {
        let mut builder = query.into_builder();
        TABLE_TYPES.iter().for_each(|kind| builder.append(kind));
        encode_rows(builder.build())
    }

    async fn do_get_sql_info(
        &self,
        query: CommandGetSqlInfo,
        _request: Request<Ticket>,
    ) -> Result<Response<Answers<FlightData>>, Status> {
        encode_rows(query.into_builder(&self.about).build())
    }

    async fn do_put_statement_update(
        &self,
        _command: CommandStatementUpdate,
        _request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        Err(Status::permission_denied("tables can only be read"))
    }

    async fn do_put_prepared_statement_query(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<DoPutPreparedStatementResult, Status> {
        let prepared = Handle::decode(query.prepared_statement_handle)?;
        let parameters = parameters::receive(request.into_inner()).await?;
        let bound = Handle::new(prepared.text, parameters)?;
        Ok(DoPutPreparedStatementResult { prepared_statement_handle: Some(bound.encode()) })
    }

    async fn do_action_create_prepared_statement(
        &self,
        query: ActionCreatePreparedStatementRequest,
        _request: Request<Action>,
    ) -> Result<ActionCreatePreparedStatementResult, Status> {
        let handle = Handle::new(query.query, Bytes::new())?;
        let (_, plan) = self.plan(&handle).await?;
        let parameters = parameters::schema(&plan).map_err(|error| status(&error))?;
        Ok(ActionCreatePreparedStatementResult {
            prepared_statement_handle: handle.encode(),
            dataset_schema: ipc(plan.schema().as_arrow())?,
            parameter_schema: ipc(&parameters)?,
        })
    }

    async fn do_action_close_prepared_statement(
        &self,
        _query: ActionClosePreparedStatementRequest,
        _request: Request<Action>,
    ) -> Result<(), Status> {
        Ok(())
    }

    async fn do_action_cancel_query(
        &self,
        query: ActionCancelQueryRequest,
        _request: Request<Action>,
    ) -> Result<ActionCancelQueryResult, Status> {
        let info = FlightInfo::decode(query.info).map_err(|cause| wrong(format!("no FlightInfo: {cause}")))?;
        // The older action counts as the newer one does.
        Ok(ActionCancelQueryResult { result: self.cancel(&info) as i32 })
    }

    async fn do_action_fallback(
        &self,
        request: Request<Action>,
    ) -> Result<Response<<Self as FlightService>::DoActionStream>, Status> {
        let action = request.into_inner();
        if action.r#type != CANCEL_FLIGHT_INFO {
            return Err(Status::unimplemented(format!("action `{}` is not known here", action.r#type)));
        }
        let asked = CancelFlightInfoRequest::decode(action.body);
        let asked = asked.map_err(|cause| wrong(format!("no CancelFlightInfoRequest: {cause}")))?;
        let info = asked.info.ok_or_else(|| wrong("CancelFlightInfoRequest has no `info`"))?;
        let result = CancelFlightInfoResult::new(self.cancel(&info)).encode_to_vec();
        Ok(Response::new(Box::pin(stream::iter([Ok(arrow_flight::Result { body: result.into() })]))))
    }

    async fn list_custom_actions(&self) -> Option<Vec<Result<ActionType, Status>>> {
        let description = "Cancels an announced statement.".to_owned();
        Some(vec![Ok(ActionType { r#type: CANCEL_FLIGHT_INFO.to_owned(), description })])
    }

    async fn register_sql_info(&self, _id: i32, _result: &SqlInfo) {}
}
