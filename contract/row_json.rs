//! A row as JSON: what the hot store keeps as `_source`, what search answers, what proofs compare.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StructArray};
use arrow::datatypes::{DataType, FieldRef, Float64Type, Int64Type, TimestampMicrosecondType};

use crate::Timestamp;

/// Appends row `row` of `batch` to `out` as one JSON object: columns in order, nulls left out, times in
/// RFC 3339 UTC, lists as arrays, structs as objects. `_id` is left out: Elasticsearch keeps it beside the document and refuses
/// it inside.
///
/// # Panics
/// If a column is of a type that no [`crate::Kind`] has.
pub fn write_row(batch: &RecordBatch, row: usize, out: &mut Vec<u8>) {
    let fields = batch.schema_ref().fields();
    write_object(fields.iter().zip(batch.columns()).filter(|(field, _)| field.name() != "_id"), row, out);
}

fn write_object<'a>(columns: impl Iterator<Item = (&'a FieldRef, &'a ArrayRef)>, row: usize, out: &mut Vec<u8>) {
    let mut separator = b'{';
    for (field, column) in columns.filter(|(_, column)| column.is_valid(row)) {
        out.push(separator);
        separator = b',';
        write_value(out, field.name());
        out.push(b':');
        write_cell(field, column, row, out);
    }
    if separator == b'{' {
        out.push(b'{');
    }
    out.push(b'}');
}

fn write_cell(field: &FieldRef, column: &ArrayRef, row: usize, out: &mut Vec<u8>) {
    match field.data_type() {
        DataType::Utf8 => write_value(out, column.as_string::<i32>().value(row)),
        DataType::Int64 => write_value(out, &column.as_primitive::<Int64Type>().value(row)),
        DataType::Float64 => write_value(out, &column.as_primitive::<Float64Type>().value(row)),
        DataType::Boolean => write_value(out, &column.as_boolean().value(row)),
        DataType::Timestamp(..) => {
            let time = Timestamp(column.as_primitive::<TimestampMicrosecondType>().value(row));
            out.push(b'"');
            out.extend_from_slice(time.to_string().as_bytes());
            out.push(b'"');
        }
        DataType::List(item) => {
            let list = column.as_list::<i32>().value(row);
            match list.as_struct_opt() {
                None => write_value(out, &list.as_string::<i32>().iter().collect::<Vec<_>>()),
                Some(structs) => write_structs(item, structs, out),
            }
        }
        other => panic!("column `{}` is of type {other}, which no row has", field.name()),
    }
}

fn write_structs(item: &FieldRef, structs: &StructArray, out: &mut Vec<u8>) {
    let DataType::Struct(members) = item.data_type() else { unreachable!("the list's values are structs") };
    out.push(b'[');
    for place in 0..structs.len() {
        if place > 0 {
            out.push(b',');
        }
        write_object(members.iter().zip(structs.columns()), place, out);
    }
    out.push(b']');
}

fn write_value<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(out, value).expect("a vector takes all, and these types have no failing form");
}
