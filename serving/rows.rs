//! Rows as bytes in each format that answers and exported files have.
//!
//! | format | what it keeps | nested columns |
//! | --- | --- | --- |
//! | JSON, NDJSON | see [`crate::table`] | as arrays and objects |
//! | CSV (RFC 4180) | texts; null and the empty text are both empty | as JSON in one cell |
//! | Arrow IPC stream, Parquet | all | as they are |

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, StringBuilder};
use arrow::csv;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use arrow::json::writer::{EncoderOptions, make_encoder};
use arrow::record_batch::RecordBatch;
use contract::{Error, Result};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use crate::table::{Form, JsonRows};

/// Rows that are encoded before the bytes are handed on. A row of bronze may have megabytes, so this is small; beyond it the
/// cost of a piece is no longer seen.
const ROWS_PER_PIECE: usize = 256;

/// Rows of one row group of Parquet, the unit that readers skip by its statistics.
const ROW_GROUP_ROWS: usize = 131_072;

/// Bytes of a row group while it is written, which bounds the memory of an answer or export.
const ROW_GROUP_BYTES: usize = 32 << 20;

/// A format of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON array of row objects.
    Json,
    /// One row object a line.
    Ndjson,
    /// Comma-separated values with a line of names.
    Csv,
    /// Arrow's streaming format.
    Arrow,
    /// Parquet.
    Parquet,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Json, Self::Ndjson, Self::Csv, Self::Arrow, Self::Parquet];

    /// `ndjson`: what users call it, and the ending of its files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Ndjson => "ndjson",
            Self::Csv => "csv",
            Self::Arrow => "arrow",
            Self::Parquet => "parquet",
        }
    }

    /// Its media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8; header=present",
            Self::Arrow => "application/vnd.apache.arrow.stream",
            Self::Parquet => "application/vnd.apache.parquet",
        }
    }

    /// The format of a name.
    ///
    /// # Errors
    /// `Change` for one that there is not.
    pub fn named(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name).ok_or_else(|| {
            let known = Self::ALL.map(Self::name);
            let near = contract::nearest(name, known.into_iter());
            Error::change(format!("write rows as `{name}` (known: {}){near}", known.join(", ")))
        })
    }

    /// The format that a client accepts; JSON where it names none of them.
    pub fn accepted(accept: &str) -> Self {
        const WORDS: &[(&str, Format)] = &[
            ("ndjson", Format::Ndjson),
            ("jsonl", Format::Ndjson),
            ("text/csv", Format::Csv),
            ("vnd.apache.arrow", Format::Arrow),
            ("vnd.apache.parquet", Format::Parquet),
        ];
        WORDS.iter().find(|(word, _)| accept.contains(word)).map_or(Self::Json, |(_, format)| *format)
    }
}

/// Writes rows piece by piece.
pub struct RowsWriter(Inner);

enum Inner {
    Json(JsonRows),
    Csv { schema: SchemaRef, is_begun: bool },
    Arrow(StreamWriter<Vec<u8>>),
    Parquet(Box<ArrowWriter<Vec<u8>>>),
}

impl RowsWriter {
    /// Starts a document of rows of these columns.
    ///
    /// # Errors
    /// `Change` for a column whose type the format has not; the query can cast it.
    pub fn new(format: Format, schema: &SchemaRef) -> Result<Self> {
        Ok(Self(match format {
            Format::Json => Inner::Json(JsonRows::new(Form::Array)),
            Format::Ndjson => Inner::Json(JsonRows::new(Form::Lines)),
            Format::Csv => Inner::Csv { schema: flat_schema(schema), is_begun: false },
            Format::Arrow => Inner::Arrow(StreamWriter::try_new(Vec::new(), schema).map_err(no_arrow)?),
            Format::Parquet => {
                let level = ZstdLevel::try_new(1).map_err(no_parquet)?;
                let properties = WriterProperties::builder()
                    .set_compression(Compression::ZSTD(level))
                    .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
                    .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
                    .build();
                let writer = ArrowWriter::try_new(Vec::new(), schema.clone(), Some(properties));
                Inner::Parquet(Box::new(writer.map_err(no_parquet)?))
            }
        }))
    }

    /// The bytes that a batch's rows make ready, a piece at a time; some formats gather rows first.
    ///
    /// # Errors
    /// In place of a piece, as [`RowsWriter::new`].
    pub fn batch<'a>(&'a mut self, batch: &'a RecordBatch) -> impl Iterator<Item = Result<Vec<u8>>> + 'a {
        (0..batch.num_rows()).step_by(ROWS_PER_PIECE).flat_map(move |from| {
            let piece = batch.slice(from, ROWS_PER_PIECE.min(batch.num_rows() - from));
            self.piece(&piece)
        })
    }

    fn piece(&mut self, piece: &RecordBatch) -> Vec<Result<Vec<u8>>> {
        let written = match &mut self.0 {
            Inner::Json(rows) => return rows.batch(piece).collect(),
            Inner::Csv { schema, is_begun } => {
                let with_names = !std::mem::replace(is_begun, true);
                flatten(piece, schema).and_then(|flat| lines(&flat, with_names)).map_err(no_csv)
            }
            Inner::Arrow(writer) => writer.write(piece).map_err(no_arrow).map(|()| std::mem::take(writer.get_mut())),
            Inner::Parquet(writer) => {
                writer.write(piece).map_err(no_parquet).map(|()| std::mem::take(writer.inner_mut()))
            }
        };
        match written {
            Ok(bytes) if bytes.is_empty() => Vec::new(),
            written => vec![written],
        }
    }

    /// The bytes that end the document; of one without rows, all of it.
    ///
    /// # Errors
    /// As [`RowsWriter::new`].
    pub fn end(self) -> Result<Vec<u8>> {
        match self.0 {
            Inner::Json(rows) => rows.end(),
            Inner::Csv { is_begun: true, .. } => Ok(Vec::new()),
            Inner::Csv { schema, .. } => lines(&RecordBatch::new_empty(schema), true).map_err(no_csv),
            Inner::Arrow(mut writer) => {
                writer.finish().map_err(no_arrow)?;
                Ok(std::mem::take(writer.get_mut()))
            }
            Inner::Parquet(mut writer) => {
                writer.finish().map_err(no_parquet)?;
                Ok(std::mem::take(writer.inner_mut()))
            }
        }
    }
}

fn no_arrow(cause: ArrowError) -> Error {
    Error::change("write the rows as Arrow").because(cause)
}

fn no_csv(cause: ArrowError) -> Error {
    Error::change("write the rows as CSV (cast the column to text)").because(cause)
}

fn no_parquet(cause: ParquetError) -> Error {
    Error::change("write the rows as Parquet (cast the column to a type that Parquet has)").because(cause)
}

fn lines(batch: &RecordBatch, with_names: bool) -> Result<Vec<u8>, ArrowError> {
    let mut writer = csv::WriterBuilder::new().with_header(with_names).build(Vec::new());
    writer.write(batch)?;
    Ok(writer.into_inner())
}

/// The columns of CSV: nested ones are texts.
fn flat_schema(schema: &SchemaRef) -> SchemaRef {
    let flat = |field: &FieldRef| match field.data_type().is_nested() {
        true => Arc::new(Field::new(field.name(), DataType::Utf8, true)),
        false => field.clone(),
    };
    Arc::new(Schema::new(schema.fields().iter().map(flat).collect::<Vec<_>>()))
}

fn flatten(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns = batch.schema_ref().fields().iter().zip(batch.columns()).map(|(field, column)| {
        if field.data_type().is_nested() { json_texts(field, column) } else { Ok(column.clone()) }
    });
    RecordBatch::try_new(schema.clone(), columns.collect::<Result<_, _>>()?)
}

fn json_texts(field: &FieldRef, column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let options = EncoderOptions::default().with_explicit_nulls(true);
    let mut encoder = make_encoder(field, column.as_ref(), &options)?;
    let (mut texts, mut text) = (StringBuilder::new(), Vec::new());
    for row in 0..column.len() {
        if column.is_null(row) {
            texts.append_null();
            continue;
        }
        text.clear();
        encoder.encode(row, &mut text);
        texts.append_value(std::str::from_utf8(&text).map_err(|cause| ArrowError::JsonError(cause.to_string()))?);
    }
    Ok(Arc::new(texts.finish()))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, ListArray, StringArray, TimestampMicrosecondArray};
    use arrow::datatypes::Int64Type;
    use arrow::ipc::reader::StreamReader;
    use bytes::Bytes;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    use super::*;

    fn rows(count: i64) -> RecordBatch {
        let lists = (0..count).map(|number| (number != 1).then(|| vec![Some(number), None]));
        let times = TimestampMicrosecondArray::from_iter_values((0..count).map(|second| second * 1_000_000));
        let columns: [(&str, ArrayRef); 4] = [
            ("n", Arc::new(Int64Array::from_iter((0..count).map(|number| (number != 1).then_some(number))))),
            ("text", Arc::new(StringArray::from_iter_values((0..count).map(|number| format!("a,\"{number}\"\n"))))),
            ("time", Arc::new(times.with_timezone("UTC"))),
            ("list", Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(lists))),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).expect("columns")
    }

    fn document(format: Format, batches: &[RecordBatch]) -> Vec<u8> {
        let mut writer = RowsWriter::new(format, &rows(0).schema()).expect("all types are known");
        let mut document = Vec::new();
        for batch in batches {
            writer.batch(batch).for_each(|piece| document.extend(piece.expect("written")));
        }
        document.extend(writer.end().expect("ended"));
        document
    }

    #[test]
    fn csv_has_names_once_and_nested_columns_as_json() {
        let lines = String::from_utf8(document(Format::Csv, &[rows(1), rows(2)])).expect("text");
        let first = "0,\"a,\"\"0\"\"\n\",1970-01-01T00:00:00Z,\"[0,null]\"\n";
        let second = ",\"a,\"\"1\"\"\n\",1970-01-01T00:00:01Z,\n";
        assert_eq!(lines, format!("n,text,time,list\n{first}{first}{second}"));
        assert_eq!(document(Format::Csv, &[]), b"n,text,time,list\n");
    }

    #[test]
    fn arrow_and_parquet_are_read_back_as_they_were() {
        let batches = [rows(1_000), rows(0), rows(3)];
        let expected = arrow::compute::concat_batches(&rows(0).schema(), &batches).expect("one schema");
        let one = |batches: Vec<RecordBatch>| arrow::compute::concat_batches(&rows(0).schema(), &batches).expect("one");
        let bytes = document(Format::Arrow, &batches);
        let read: Vec<_> =
            StreamReader::try_new(&bytes[..], None).expect("a stream").map(|batch| batch.unwrap()).collect();
        assert_eq!(one(read), expected);
        let bytes = Bytes::from(document(Format::Parquet, &batches));
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).expect("Parquet").build().expect("a reader");
        assert_eq!(one(reader.map(|batch| batch.unwrap()).collect()), expected);
        let empty = Bytes::from(document(Format::Parquet, &[]));
        assert_eq!(ParquetRecordBatchReaderBuilder::try_new(empty).expect("Parquet").schema(), &rows(0).schema());
    }

    #[test]
    fn a_format_is_found_by_its_name_and_by_what_a_client_accepts() {
        for format in Format::ALL {
            assert_eq!(Format::named(format.name()).expect("known"), format);
            assert_eq!(Format::accepted(format.content_type()), format);
        }
        assert!(Format::named("parket").expect_err("unknown").to_string().ends_with("did you mean `parquet`?"));
        assert_eq!(Format::accepted("*/*"), Format::Json);
    }
}
