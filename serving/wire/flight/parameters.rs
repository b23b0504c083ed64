//! Parameters of prepared statements: one row of Arrow.

use arrow_flight::FlightData;
use arrow_flight::decode::FlightRecordBatchStream;
use bytes::Bytes;
use contract::{Error, QueryFault};
use datafusion::arrow::datatypes::{Field, Schema};
use datafusion::arrow::ipc::reader::StreamReader;
use datafusion::arrow::ipc::writer::StreamWriter;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::ParamValues;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::LogicalPlan;
use datafusion::scalar::ScalarValue;
use futures::{Stream, TryStreamExt};
use tonic::Status;

use super::status::wrong;

/// The row that a client sends, as an IPC stream.
pub(crate) async fn receive(
    data: impl Stream<Item = Result<FlightData, Status>> + Send + 'static,
) -> Result<Bytes, Status> {
    let mut batches = FlightRecordBatchStream::new_from_flight_data(data.map_err(Into::into));
    let mut row: Option<RecordBatch> = None;
    while let Some(batch) = batches.try_next().await.map_err(|cause| wrong(format!("no parameters: {cause}")))? {
        let rows = batch.num_rows() + row.as_ref().map_or(0, RecordBatch::num_rows);
        if rows > 1 {
            return Err(wrong("parameters of one row can be bound at a time; run the statement once for each"));
        }
        if rows == 1 && row.is_none() {
            row = Some(batch);
        }
    }
    let Some(row) = row else { return Ok(Bytes::new()) };
    let mut bytes = Vec::new();
    let written = StreamWriter::try_new(&mut bytes, row.schema_ref()).and_then(|mut writer| {
        writer.write(&row)?;
        writer.finish()
    });
    written.map_err(|cause| wrong(format!("no parameters: {cause}")))?;
    Ok(bytes.into())
}

/// The plan with its parameters.
pub(crate) fn bind(plan: LogicalPlan, parameters: &[u8]) -> Result<LogicalPlan, DataFusionError> {
    if parameters.is_empty() {
        return Ok(plan);
    }
    let mut rows = StreamReader::try_new(parameters, None)?;
    let row = rows.next().transpose()?;
    let row = row.filter(|row| row.num_rows() == 1);
    let row = row.ok_or_else(|| DataFusionError::Plan("the parameters are no row".to_owned()))?;
    let values = row.columns().iter().map(|column| ScalarValue::try_from_array(column, 0));
    let values: Vec<_> = values.collect::<Result<_, _>>()?;
    plan.replace_params_with_values(&ParamValues::from(values))
}

/// The parameters that a plan has, `$1` first, with the types that it needs as far as they are known.
pub(crate) fn schema(plan: &LogicalPlan) -> contract::Result<Schema> {
    let known = plan.get_parameter_types().map_err(|cause| {
        let fault = QueryFault { sqlstate: "42P18", place: None };
        Error::change("answer the query: type its parameters").because(cause).with_fault(fault)
    })?;
    let mut known: Vec<_> = known.into_iter().collect();
    known.sort_by_key(|(name, _)| name.trim_start_matches('$').parse::<usize>().unwrap_or(usize::MAX));
    let field = |(name, kind): (String, Option<_>)| {
        Field::new(name, kind.unwrap_or(datafusion::arrow::datatypes::DataType::Null), true)
    };
    Ok(Schema::new(known.into_iter().map(field).collect::<Vec<_>>()))
}
