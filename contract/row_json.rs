//! A row as JSON: what the hot store keeps as `_source`, what search answers, what proofs compare.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int64Type, TimestampMicrosecondType};

use crate::Timestamp;

/// Appends row `row` of `batch` to `out` as one JSON object: columns in order, nulls left out, times in
/// RFC 3339 UTC, lists as arrays. `_id` is left out: Elasticsearch keeps it beside the document and refuses
/// it inside.
///
/// # Panics
/// If a column is of a type that no [`crate::Kind`] has.
pub fn write_row(batch: &RecordBatch, row: usize, out: &mut Vec<u8>) {
    let mut separator = b'{';
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        if column.is_null(row) || field.name() == "_id" {
            continue;
        }
        out.push(separator);
        separator = b',';
        write_value(out, field.name());
        out.push(b':');
        match field.data_type() {
            DataType::Utf8 => write_value(out, column.as_string::<i32>().value(row)),
            DataType::Int64 => write_value(out, &column.as_primitive::<Int64Type>().value(row)),
            DataType::Boolean => write_value(out, &column.as_boolean().value(row)),
            DataType::Timestamp(..) => {
                let time = Timestamp(column.as_primitive::<TimestampMicrosecondType>().value(row));
                out.push(b'"');
                out.extend_from_slice(time.to_string().as_bytes());
                out.push(b'"');
            }
            DataType::List(_) => {
                let list = column.as_list::<i32>().value(row);
                write_value(out, &list.as_string::<i32>().iter().collect::<Vec<_>>());
            }
            other => panic!("column `{}` is of type {other}, which no row has", field.name()),
        }
    }
    if separator == b'{' {
        out.push(b'{');
    }
    out.push(b'}');
}

fn write_value<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(out, value).expect("a vector takes all, and these types have no failing form");
}
