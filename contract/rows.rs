//! Rows, columnar from the processor on.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, BooleanArray, BooleanBuilder, Float64Builder, Int64Array, Int64Builder,
    ListBuilder, RecordBatch, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::schema::{COMMON, utc_micros};
use crate::structs::{Structs, Value};
use crate::{Kind, LogRecord, Partition, Positions, Processor, Reject, RowSchema, SourceId, Span, Timestamp};

/// What became of a span: the same for both stores.
#[derive(Clone, Debug)]
pub struct Rows {
    /// The offsets it covers.
    pub span: Span,
    /// Every record of the span as logged: [`bronze_schema`].
    pub bronze: RecordBatch,
    /// The rows: [`RowSchema::arrow`].
    pub silver: RecordBatch,
    /// The records that are none: [`dead_letter_schema`].
    pub dead_letters: RecordBatch,
    /// How many records were duplicates.
    pub duplicates: u64,
}

impl Rows {
    /// Bytes held in memory, about.
    pub fn memory_bytes(&self) -> usize {
        [&self.bronze, &self.silver, &self.dead_letters].iter().map(|batch| batch.get_array_memory_size()).sum()
    }
}

/// `bronze.SOURCE`: `_partition`, `_offset`, `id`, `event_time`, `fetched_at`, `appended_at`, `body`.
pub fn bronze_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("_partition", DataType::Int64, false),
        Field::new("_offset", DataType::Int64, false),
        Field::new("id", DataType::Utf8, false),
        Field::new("event_time", utc_micros(), false),
        Field::new("fetched_at", utc_micros(), false),
        Field::new("appended_at", utc_micros(), false),
        Field::new("body", DataType::Binary, false),
    ]))
}

/// `ops.dead_letters`: the columns of bronze with `source`, `kind` and `reason` before the body.
pub fn dead_letter_schema() -> SchemaRef {
    let mut fields = bronze_schema().fields().to_vec();
    let text = |name| Arc::new(Field::new(name, DataType::Utf8, false));
    fields.splice(6..6, [text("source"), text("kind"), text("reason")]);
    Arc::new(Schema::new(fields))
}

/// The rows of `batch` that stand at or after `next`; both first columns are `_partition` and `_offset`.
/// The same batch, not a copy, where all do.
///
/// # Panics
/// If the first two columns are not those.
pub fn drop_below(batch: &RecordBatch, next: &Positions) -> RecordBatch {
    let column = |place: usize| -> &Int64Array {
        batch.column(place).as_any().downcast_ref().expect("_partition and _offset come first")
    };
    let (partitions, offsets) = (column(0), column(1));
    let keep: BooleanArray = (0..batch.num_rows())
        .map(|row| Some(offsets.value(row) >= next.of(partitions.value(row) as Partition)))
        .collect();
    if keep.true_count() == batch.num_rows() {
        return batch.clone();
    }
    filter_record_batch(batch, &keep).expect("the mask has the batch's length")
}

/// Bytes of texts of one row at the most; what would make more becomes a dead letter. Four times what is looked at of a
/// record ([`crate::limits::RECORD_BYTES_MAX`]), since a row may say some of it more than once.
const ROW_BYTES_MAX: usize = 32 << 20;

/// The same of all rows of a batch: half of what Arrow's offsets of 32 bits can tell. Batches stay far below it, even of
/// hostile records; a row that met it would be rejected.
const BATCH_BYTES_MAX: usize = 1 << 30;

/// Bytes that a struct takes beside its texts.
const STRUCT_BYTES: usize = 16;

/// Builds [`Rows`] record by record.
pub struct RowsBuilder {
    source: SourceId,
    silver: RowBuilder,
    bronze: RawColumns,
    dead: RawColumns,
    dead_texts: [StringBuilder; 3],
    duplicates: u64,
}

impl RowsBuilder {
    /// An empty one for a source.
    pub fn new(schema: &RowSchema) -> Self {
        Self {
            source: schema.source,
            silver: RowBuilder::new(schema),
            bronze: RawColumns::default(),
            dead: RawColumns::default(),
            dead_texts: Default::default(),
            duplicates: 0,
        }
    }

    /// Adds a record to bronze only: its id stands at a lower offset.
    pub fn duplicate(&mut self, record: &LogRecord) {
        self.bronze.push(record);
        self.duplicates += 1;
    }

    /// Adds a record to bronze, and its row to silver, or it to the dead letters. A panic of the processor
    /// is a reject too.
    ///
    /// # Errors
    /// The reject, for counting; it is already noted.
    pub fn record(&mut self, record: &LogRecord, processor: &dyn Processor) -> Result<(), Reject> {
        self.bronze.push(record);
        let process = std::panic::AssertUnwindSafe(|| processor.process(&record.record, &mut self.silver));
        let outcome = std::panic::catch_unwind(process);
        let outcome = outcome.unwrap_or_else(|panic| {
            let said = panic.downcast_ref::<&str>().copied().map(str::to_owned);
            let said = said.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            Err(Reject::new("panic", format!("the processor panicked, a defect: {said}")))
        });
        let outcome = outcome.and_then(|()| self.silver.room.check());
        match &outcome {
            Ok(()) => self.silver.end_row(record),
            Err(reject) => {
                self.silver.abort_row();
                self.dead.push(record);
                for (builder, text) in self.dead_texts.iter_mut().zip([self.source.0, reject.kind, &reject.reason]) {
                    builder.append_value(text);
                }
            }
        }
        outcome
    }

    /// How many records were added.
    pub fn len(&self) -> usize {
        self.bronze.partition.len()
    }

    /// Whether none was added.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The rows of the span that the records came from. The builder is empty afterwards.
    #[expect(clippy::missing_panics_doc, reason = "the builders follow the schema")]
    pub fn finish(&mut self, span: Span) -> Rows {
        use arrow::array::ArrayBuilder;
        debug_assert_eq!(self.dead.partition.len(), ArrayBuilder::len(&self.dead_texts[0]));
        let mut dead = self.dead.finish();
        dead.splice(6..6, self.dead_texts.iter_mut().map(|builder| Arc::new(builder.finish()) as ArrayRef));
        let batch = |schema, columns| RecordBatch::try_new(schema, columns).expect("the builders follow the schema");
        Rows {
            span,
            bronze: batch(bronze_schema(), self.bronze.finish()),
            silver: self.silver.finish(),
            dead_letters: batch(dead_letter_schema(), dead),
            duplicates: std::mem::take(&mut self.duplicates),
        }
    }
}

#[derive(Default)]
struct RawColumns {
    partition: Vec<i64>,
    offset: Vec<i64>,
    id: StringBuilder,
    times: [Vec<i64>; 3],
    body: BinaryBuilder,
}

impl RawColumns {
    fn push(&mut self, at: &LogRecord) {
        self.partition.push(i64::from(at.partition));
        self.offset.push(at.offset);
        self.id.append_value(at.record.id.as_str());
        let times = [at.record.event_time, at.record.fetched_at, at.appended_at];
        for (column, time) in self.times.iter_mut().zip(times) {
            column.push(time.0);
        }
        self.body.append_value(&at.record.body);
    }

    fn finish(&mut self) -> Vec<ArrayRef> {
        let integers = |values: &mut Vec<i64>| Int64Array::from(std::mem::take(values));
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(integers(&mut self.partition)),
            Arc::new(integers(&mut self.offset)),
            Arc::new(self.id.finish()),
        ];
        columns.extend(self.times.iter_mut().map(|values| {
            Arc::new(
                integers(values).reinterpret_cast::<arrow::datatypes::TimestampMicrosecondType>().with_timezone("UTC"),
            ) as ArrayRef
        }));
        columns.push(Arc::new(self.body.finish()));
        columns
    }
}

/// One row of a source's own columns at a time. A column is named by its place
/// ([`RowSchema::place`]); each is written once a row at the most.
pub struct RowBuilder {
    schema: SchemaRef,
    columns: Vec<ColumnBuilder>,
    rows: usize,
    room: Room,
}

pub(crate) enum ColumnBuilder {
    Text(StringBuilder),
    TextList(ListBuilder<StringBuilder>),
    Integer(Int64Builder),
    Boolean(BooleanBuilder),
    Timestamp(TimestampMicrosecondBuilder),
    Float(Float64Builder),
    Structs(Structs),
}

impl RowBuilder {
    /// An empty one.
    pub fn new(schema: &RowSchema) -> Self {
        let columns = schema.all().map(|column| ColumnBuilder::new(column.kind)).collect();
        let room = Room { bytes: 0, before: 0, row_max: ROW_BYTES_MAX, batch_max: BATCH_BYTES_MAX };
        Self { schema: schema.arrow(), columns, rows: 0, room }
    }

    /// Writes a text.
    ///
    /// # Panics
    /// Here and below: if the column is of another kind, or was written in this row already.
    pub fn text(&mut self, place: usize, value: &str) {
        match self.open(place) {
            (ColumnBuilder::Text(builder), room) => {
                if room.take(value.len()) {
                    builder.append_value(value);
                }
            }
            _ => panic!("column {place} is not a text"),
        }
    }

    /// Writes texts in order.
    ///
    /// # Panics
    /// As `text`.
    pub fn texts<'a>(&mut self, place: usize, values: impl IntoIterator<Item = &'a str>) {
        match self.open(place) {
            (ColumnBuilder::TextList(builder), room) => {
                values
                    .into_iter()
                    .filter(|value| room.take(value.len()))
                    .for_each(|value| builder.values().append_value(value));
                builder.append(true);
            }
            _ => panic!("column {place} is not a list of texts"),
        }
    }

    /// Writes an integer.
    ///
    /// # Panics
    /// As `text`.
    pub fn integer(&mut self, place: usize, value: i64) {
        match self.open(place) {
            (ColumnBuilder::Integer(builder), _) => builder.append_value(value),
            _ => panic!("column {place} is not an integer"),
        }
    }

    /// Writes true or false.
    ///
    /// # Panics
    /// As `text`.
    pub fn boolean(&mut self, place: usize, value: bool) {
        match self.open(place) {
            (ColumnBuilder::Boolean(builder), _) => builder.append_value(value),
            _ => panic!("column {place} is not a boolean"),
        }
    }

    /// Writes a time.
    ///
    /// # Panics
    /// As `text`.
    pub fn timestamp(&mut self, place: usize, value: Timestamp) {
        match self.open(place) {
            (ColumnBuilder::Timestamp(builder), _) => builder.append_value(value.0),
            _ => panic!("column {place} is not a time"),
        }
    }

    /// Writes a number; one that is infinite or not a number is left out.
    ///
    /// # Panics
    /// As `text`.
    pub fn float(&mut self, place: usize, value: f64) {
        match self.open(place) {
            (ColumnBuilder::Float(builder), _) => builder.append_option(value.is_finite().then_some(value)),
            _ => panic!("column {place} is not a floating-point number"),
        }
    }

    /// Writes structs in order, each with the values of all its members.
    ///
    /// # Panics
    /// As `text`; and if a value is not of its member's kind.
    pub fn structs<'a, const MEMBERS: usize>(
        &mut self,
        place: usize,
        values: impl IntoIterator<Item = [Value<'a>; MEMBERS]>,
    ) {
        match self.open(place) {
            (ColumnBuilder::Structs(builder), room) => {
                values.into_iter().filter(|value| room.take(struct_bytes(value))).for_each(|value| builder.push(value));
                builder.end_list(true);
            }
            _ => panic!("column {place} is not a list of structs"),
        }
    }

    fn open(&mut self, place: usize) -> (&mut ColumnBuilder, &mut Room) {
        let column = &mut self.columns[place];
        assert_eq!(column.len(), self.rows, "column {place} was written twice in a row");
        (column, &mut self.room)
    }

    fn end_row(&mut self, at: &LogRecord) {
        self.integer(0, i64::from(at.partition));
        self.integer(1, at.offset);
        // The row is whole already, so its id has room.
        if let (ColumnBuilder::Text(builder), _) = self.open(2) {
            builder.append_value(at.record.id.as_str());
        }
        self.timestamp(3, at.record.event_time);
        self.timestamp(4, at.record.fetched_at);
        debug_assert_eq!(COMMON.len(), 5);
        self.rows += 1;
        self.room.before = self.room.bytes;
        for column in &mut self.columns {
            if column.len() < self.rows {
                column.append_null();
            }
        }
    }

    /// Takes back what a processor wrote before it panicked or wrote too much, so that one bad record costs no other.
    fn abort_row(&mut self) {
        self.room.bytes = self.room.before;
        if self.columns.iter().all(|column| column.len() == self.rows) {
            return;
        }
        for (column, field) in self.columns.iter_mut().zip(self.schema.fields()) {
            let kept = column.finish().slice(0, self.rows);
            column.refill(&kept, field.name());
        }
    }

    /// All rows since the last `finish`.
    fn finish(&mut self) -> RecordBatch {
        (self.rows, self.room.bytes, self.room.before) = (0, 0, 0);
        let columns = self.columns.iter_mut().map(ColumnBuilder::finish).collect();
        RecordBatch::try_new(self.schema.clone(), columns).expect("the builders follow the schema")
    }
}

/// Bytes of texts: of all rows, and of those before the one that is being written. Once there are too many, nothing
/// more is written, and the row is none.
struct Room {
    bytes: usize,
    before: usize,
    row_max: usize,
    batch_max: usize,
}

impl Room {
    fn take(&mut self, bytes: usize) -> bool {
        self.bytes = self.bytes.saturating_add(bytes);
        self.check().is_ok()
    }

    fn check(&self) -> Result<(), Reject> {
        if self.bytes - self.before > self.row_max {
            return Err(Reject::new("size", format!("the row would have more than {} bytes of texts", self.row_max)));
        }
        if self.bytes > self.batch_max {
            return Err(Reject::new("size", "the rows before it leave no room for its texts"));
        }
        Ok(())
    }
}

fn struct_bytes(values: &[Value<'_>]) -> usize {
    let text_bytes = values.iter().map(|value| if let Value::Text(text) = value { text.len() } else { 0 });
    STRUCT_BYTES + text_bytes.sum::<usize>()
}

impl ColumnBuilder {
    pub(crate) fn new(kind: Kind) -> Self {
        match kind {
            Kind::Text => Self::Text(StringBuilder::new()),
            Kind::TextList => Self::TextList(ListBuilder::new(StringBuilder::new()).with_field(Field::new(
                "element",
                DataType::Utf8,
                true,
            ))),
            Kind::Integer => Self::Integer(Int64Builder::new()),
            Kind::Boolean => Self::Boolean(BooleanBuilder::new()),
            Kind::Timestamp => Self::Timestamp(TimestampMicrosecondBuilder::new().with_timezone("UTC")),
            Kind::Float => Self::Float(Float64Builder::new()),
            Kind::StructList(members) => Self::Structs(Structs::new(members)),
        }
    }

    pub(crate) fn len(&self) -> usize {
        use arrow::array::ArrayBuilder as _;
        match self {
            Self::Text(builder) => builder.len(),
            Self::TextList(builder) => builder.len(),
            Self::Integer(builder) => builder.len(),
            Self::Boolean(builder) => builder.len(),
            Self::Timestamp(builder) => builder.len(),
            Self::Float(builder) => builder.len(),
            Self::Structs(builder) => builder.len(),
        }
    }

    pub(crate) fn append_null(&mut self) {
        match self {
            Self::Text(builder) => builder.append_null(),
            Self::TextList(builder) => builder.append_null(),
            Self::Integer(builder) => builder.append_null(),
            Self::Boolean(builder) => builder.append_null(),
            Self::Timestamp(builder) => builder.append_null(),
            Self::Float(builder) => builder.append_null(),
            Self::Structs(builder) => builder.end_list(false),
        }
    }

    pub(crate) fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Text(builder) => Arc::new(builder.finish()),
            Self::TextList(builder) => Arc::new(builder.finish()),
            Self::Integer(builder) => Arc::new(builder.finish()),
            Self::Boolean(builder) => Arc::new(builder.finish()),
            Self::Timestamp(builder) => Arc::new(builder.finish()),
            Self::Float(builder) => Arc::new(builder.finish()),
            Self::Structs(builder) => Arc::new(builder.finish()),
        }
    }

    pub(crate) fn refill(&mut self, kept: &ArrayRef, name: &str) {
        use arrow::datatypes::{Float64Type, Int64Type, TimestampMicrosecondType};
        match self {
            Self::Text(builder) => kept.as_string::<i32>().iter().for_each(|value| builder.append_option(value)),
            Self::TextList(builder) => {
                for list in kept.as_list::<i32>().iter() {
                    let list = list.as_ref().map(|list| list.as_string::<i32>());
                    list.into_iter().flatten().for_each(|value| builder.values().append_option(value));
                    builder.append(list.is_some());
                }
            }
            Self::Integer(builder) => {
                kept.as_primitive::<Int64Type>().iter().for_each(|value| builder.append_option(value))
            }
            Self::Boolean(builder) => kept.as_boolean().iter().for_each(|value| builder.append_option(value)),
            Self::Timestamp(builder) => {
                kept.as_primitive::<TimestampMicrosecondType>().iter().for_each(|value| builder.append_option(value));
            }
            Self::Float(builder) => {
                kept.as_primitive::<Float64Type>().iter().for_each(|value| builder.append_option(value));
            }
            Self::Structs(builder) => builder.refill(kept.as_list::<i32>(), name),
        }
        assert_eq!(self.len(), kept.len(), "column `{name}` keeps its rows");
    }
}

/// Records as rows of bronze.
#[expect(clippy::missing_panics_doc, reason = "the builders follow the schema")]
pub fn bronze_batch(records: &[LogRecord]) -> RecordBatch {
    let mut columns = RawColumns::default();
    records.iter().for_each(|record| columns.push(record));
    RecordBatch::try_new(bronze_schema(), columns.finish()).expect("the builders follow the schema")
}

#[cfg(test)]
#[path = "rows_test.rs"]
mod tests;
