//! Tables for people and programs: Arrow batches as JSON rows and as text.
//!
//! | Arrow | JSON |
//! | --- | --- |
//! | null, NaN, infinities | `null` |
//! | integers, decimals, floats | numbers, with all digits |
//! | times with a zone | RFC 3339 in UTC: `"2015-01-01T15:00:00Z"` |
//! | times without a zone, dates | ISO 8601 without a zone: `"2015-01-01T15:00:00"`, `"2015-01-01"` |
//! | binary | its bytes in hexadecimal: `"7b7d"` |
//! | lists, structs, maps | arrays, objects, objects |

use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::json::writer::{JsonArray, JsonFormat, LineDelimited};
use arrow::json::{Writer, WriterBuilder};
use arrow::record_batch::RecordBatch;
use arrow::util::pretty::pretty_format_batches_with_schema;
use contract::{Error, Result};

/// Rows that are encoded before the bytes are handed on. A row of bronze may have megabytes, so this is small;
/// beyond it the cost of a piece is no longer seen.
const ROWS_PER_PIECE: usize = 256;

/// How rows stand beside each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One JSON array of row objects.
    Array,
    /// One row object a line (NDJSON).
    Lines,
}

/// Writes row objects piece by piece: every column by its name, also when it is null.
pub struct JsonRows(Inner);

enum Inner {
    Array(Writer<Vec<u8>, JsonArray>),
    Lines(Writer<Vec<u8>, LineDelimited>),
}

impl JsonRows {
    /// Starts a document.
    pub fn new(form: Form) -> Self {
        let builder = WriterBuilder::new().with_explicit_nulls(true);
        Self(match form {
            Form::Array => Inner::Array(builder.build(Vec::new())),
            Form::Lines => Inner::Lines(builder.build(Vec::new())),
        })
    }

    /// The bytes of a batch's rows, a piece at a time.
    ///
    /// # Errors
    /// `Change`, in place of a piece, for a column of a type that has no JSON; the query can cast it.
    pub fn batch<'a>(&'a mut self, batch: &'a RecordBatch) -> impl Iterator<Item = Result<Vec<u8>>> + 'a {
        (0..batch.num_rows()).step_by(ROWS_PER_PIECE).map(move |from| {
            let piece = batch.slice(from, ROWS_PER_PIECE.min(batch.num_rows() - from));
            match &mut self.0 {
                Inner::Array(writer) => write(writer, &piece),
                Inner::Lines(writer) => write(writer, &piece),
            }
        })
    }

    /// The bytes that end the document.
    ///
    /// # Errors
    /// None is known: memory takes all.
    pub fn end(self) -> Result<Vec<u8>> {
        match self.0 {
            Inner::Array(mut writer) => writer.finish().map(|()| writer.into_inner()).map_err(no_json),
            Inner::Lines(mut writer) => writer.finish().map(|()| writer.into_inner()).map_err(no_json),
        }
    }
}

fn write<F: JsonFormat>(writer: &mut Writer<Vec<u8>, F>, piece: &RecordBatch) -> Result<Vec<u8>> {
    writer.write(piece).map_err(no_json)?;
    Ok(std::mem::take(writer.get_mut()))
}

fn no_json(cause: ArrowError) -> Error {
    Error::change("write the rows as JSON (cast the column to a type that JSON has)").because(cause)
}

/// All rows as one JSON array.
///
/// # Errors
/// As [`JsonRows::batch`].
pub fn to_json_rows(batches: &[RecordBatch]) -> Result<Vec<u8>> {
    to_document(Form::Array, batches)
}

fn to_document(form: Form, batches: &[RecordBatch]) -> Result<Vec<u8>> {
    let mut rows = JsonRows::new(form);
    let mut document = Vec::new();
    for batch in batches {
        for piece in rows.batch(batch) {
            document.extend(piece?);
        }
    }
    document.extend(rows.end()?);
    Ok(document)
}

/// All rows as a table with frames for a terminal, the column names on top also when there is no row. Control
/// characters are shown as `�`: a value from outside must not command the terminal.
///
/// # Errors
/// `Change` for a type that has no text.
pub fn to_text_table(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<String> {
    let table = pretty_format_batches_with_schema(schema.clone(), batches)
        .map_err(|cause| Error::change("print the rows as a table").because(cause))?;
    let visible = |c: char| if c.is_control() && c != '\n' { char::REPLACEMENT_CHARACTER } else { c };
    Ok(table.to_string().chars().map(visible).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        ArrayRef, BinaryArray, Decimal128Array, Float64Array, Int64Array, ListArray, StringArray,
        TimestampMicrosecondArray,
    };
    use arrow::datatypes::Int32Type;
    use serde_json::{Value, json};

    use super::*;

    fn batch() -> RecordBatch {
        let time = TimestampMicrosecondArray::from(vec![Some(1_420_124_400_000_010), None]);
        let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None]), None]);
        let decimal = Decimal128Array::from(vec![Some(12_345), None]).with_precision_and_scale(10, 2).unwrap();
        let columns: [(&str, ArrayRef); 7] = [
            ("text", Arc::new(StringArray::from(vec![Some("a\"b\n\u{1b}[31mé"), None]))),
            ("number", Arc::new(Int64Array::from(vec![Some(i64::MAX), None]))),
            ("time", Arc::new(time.clone().with_timezone("UTC"))),
            ("local", Arc::new(time)),
            ("bytes", Arc::new(BinaryArray::from(vec![Some(b"\x00\xff".as_slice()), None]))),
            ("list", Arc::new(list)),
            ("decimal", Arc::new(decimal)),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
            .unwrap()
    }

    #[test]
    fn every_type_has_its_json_and_nulls_keep_their_name() {
        let document = to_json_rows(&[batch()]).expect("all types have JSON");
        assert!(String::from_utf8_lossy(&document).contains("9223372036854775807"));
        let rows: Vec<Value> = serde_json::from_slice(&document).expect("an array");
        let expected = json!({
            "text": "a\"b\n\u{1b}[31mé", "number": i64::MAX, "time": "2015-01-01T15:00:00.000010Z",
            "local": "2015-01-01T15:00:00.000010", "bytes": "00ff", "list": [1, null], "decimal": 123.45,
        });
        assert_eq!(rows[0], expected);
        assert!(
            rows[1].as_object().is_some_and(|row| row.len() == 7 && row.values().all(Value::is_null)),
            "{}",
            rows[1]
        );
    }

    #[test]
    fn many_batches_make_one_array_and_none_an_empty_one() {
        let numbers = |range: std::ops::Range<i64>| {
            let column: ArrayRef = Arc::new(Int64Array::from_iter_values(range));
            RecordBatch::try_from_iter([("n", column)]).unwrap()
        };
        let document = to_json_rows(&[numbers(0..0), numbers(0..1_000), numbers(1_000..1_001)]).unwrap();
        let rows: Vec<Value> = serde_json::from_slice(&document).expect("an array");
        assert!(rows.iter().enumerate().all(|(place, row)| row == &json!({"n": place})) && rows.len() == 1_001);
        assert_eq!(to_json_rows(&[]).unwrap(), b"[]");
        assert_eq!(to_json_rows(&[numbers(0..0)]).unwrap(), b"[]");
        assert_eq!(to_document(Form::Lines, &[numbers(0..1), numbers(1..2)]).unwrap(), b"{\"n\":0}\n{\"n\":1}\n");
        assert_eq!(to_document(Form::Lines, &[]).unwrap(), b"");
    }

    #[test]
    fn numbers_that_json_lacks_are_null() {
        let column: ArrayRef = Arc::new(Float64Array::from(vec![f64::NAN, f64::INFINITY, 0.5]));
        let batch = RecordBatch::try_from_iter([("f", column)]).unwrap();
        let document = to_document(Form::Lines, &[batch]).unwrap();
        assert_eq!(String::from_utf8_lossy(&document), "{\"f\":null}\n{\"f\":null}\n{\"f\":0.5}\n");
    }

    #[test]
    fn a_text_table_names_its_columns_and_cannot_command_the_terminal() {
        let batch = batch();
        let table = to_text_table(&batch.schema(), std::slice::from_ref(&batch)).expect("a table");
        assert!(table.contains("| 9223372036854775807 |") && table.contains("�[31mé"), "{table}");
        assert!(!table.contains('\u{1b}'), "{table:?}");
        let empty = to_text_table(&batch.schema(), &[]).expect("a table");
        assert!(empty.contains("| text |") && empty.contains("decimal"), "{empty}");
    }
}
