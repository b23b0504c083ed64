//! What a table's columns are, and into which folder a row goes.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Date32Array, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Date32Type, Field, FieldRef, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType};
use contract::{Day, Error, Period, Result, RowSchema, SourceId, Timestamp};

use crate::place::Place;

/// How rows are spread over folders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Partitioning {
    /// A column of their own, the first day of the period of a time column.
    Period { column: &'static str, of: &'static str, period: Period },
    /// One of the columns.
    Column(&'static str),
    /// One folder.
    None,
}

/// A value of the partition column.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum PartitionValue {
    /// Days since 1970-01-01.
    Day(i32),
    /// A text.
    Text(String),
    /// The table is not partitioned.
    Whole,
}

/// The shape of one table.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// `silver.github`.
    pub(crate) name: String,
    /// Where its data files lie.
    pub(crate) place: Place,
    /// The folder of its log: the same, but for a draft, whose files will be those of the table.
    pub(crate) log: Place,
    /// The columns of its data files.
    pub(crate) files: SchemaRef,
    /// All columns: those of the files, then the partition column.
    pub(crate) schema: SchemaRef,
    /// How rows are spread.
    pub(crate) partitioning: Partitioning,
    /// Whether it may have other columns: it is made anew then, from other tables.
    pub(crate) may_differ: bool,
}

impl Layout {
    /// `bronze.SOURCE`.
    pub(crate) fn bronze(source: SourceId, place: &Place) -> Self {
        let partitioning = Partitioning::Period { column: "append_day", of: "appended_at", period: Period::Day };
        Self::new(format!("bronze.{source}"), place, &contract::bronze_schema(), partitioning)
    }

    /// `silver.SOURCE`.
    pub(crate) fn silver(schema: &RowSchema, place: &Place) -> Self {
        let documented: Vec<_> = (schema.all().zip(schema.arrow().fields()))
            .map(|(column, field)| field.as_ref().clone().with_metadata([("comment".into(), column.doc.into())].into()))
            .collect();
        let columns = Arc::new(Schema::new(documented));
        let (column, period) = (schema.period.column(), schema.period);
        let partitioning = Partitioning::Period { column, of: "event_time", period };
        Self::new(format!("silver.{}", schema.source), place, &columns, partitioning)
    }

    /// `ops.dead_letters`.
    pub(crate) fn dead_letters(place: &Place) -> Self {
        let columns = contract::dead_letter_schema();
        Self::new("ops.dead_letters".to_owned(), place, &columns, Partitioning::Column("source"))
    }

    /// `ops.runs`.
    pub(crate) fn runs(place: &Place) -> Self {
        Self::new("ops.runs".to_owned(), place, &runs_schema(), Partitioning::None)
    }

    /// `gold.VIEW`, of some columns; with the period of one of them it is partitioned by that, and rows are arranged already.
    pub(crate) fn gold(view: &str, place: &Place, columns: &SchemaRef, period: Option<Period>) -> Self {
        let partitioning = period.map_or(Partitioning::None, |period| Partitioning::Period {
            column: period.column(),
            of: "event_time",
            period,
        });
        Self { may_differ: true, ..Self::new(format!("gold.{view}"), place, columns, partitioning) }
    }

    /// `ops.coverage`.
    pub(crate) fn coverage(place: &Place) -> Self {
        Self::new("ops.coverage".to_owned(), place, &coverage_schema(), Partitioning::None)
    }

    fn new(name: String, place: &Place, columns: &SchemaRef, partitioning: Partitioning) -> Self {
        let kept = |field: &&FieldRef| !matches!(partitioning, Partitioning::Column(column) if column == field.name());
        let files: Vec<FieldRef> = columns.fields().iter().filter(kept).cloned().collect();
        let mut all = files.clone();
        match partitioning {
            Partitioning::Period { column, .. } => all.push(Arc::new(Field::new(column, DataType::Date32, false))),
            Partitioning::Column(column) => all.push(Arc::new(Field::new(column, DataType::Utf8, false))),
            Partitioning::None => {}
        }
        let place = place.join(&name.replace('.', "/"));
        let (files, schema) = (Arc::new(Schema::new(files)), Arc::new(Schema::new(all)));
        let log = place.clone();
        Self { name, place, log, files, schema, partitioning, may_differ: false }
    }

    /// The same with its log in the table's folder below another place.
    pub(crate) fn with_log_below(self, place: &Place) -> Self {
        Self { log: place.join(&self.name.replace('.', "/")), ..self }
    }

    /// The partition column; it comes last in [`Layout::schema`].
    pub(crate) fn partition_field(&self) -> Option<&FieldRef> {
        self.schema.fields().get(self.files.fields().len())
    }

    /// The rows with this table's columns in its order: columns are found by name, and the period is computed.
    pub(crate) fn arrange(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let mut columns = Vec::with_capacity(self.schema.fields().len());
        for field in self.schema.fields() {
            columns.push(match (rows.column_by_name(field.name()), self.partitioning) {
                (_, Partitioning::Period { column, of, period }) if column == field.name() => {
                    first_days(rows, of, period, &self.name)?
                }
                (Some(column), _) => column.clone(),
                (None, _) => {
                    return Err(Error::stop(format!("add rows to `{}`: no column `{}`", self.name, field.name())));
                }
            });
        }
        let arranged = RecordBatch::try_new(self.schema.clone(), columns);
        arranged.map_err(|error| Error::stop(format!("add rows to `{}`", self.name)).because(error))
    }

    /// Arranged rows by partition value, with the files' columns only. Rows of one value are not copied.
    pub(crate) fn split(&self, rows: &RecordBatch) -> Vec<(PartitionValue, RecordBatch)> {
        let last = self.files.fields().len();
        let columns = rows.columns()[..last].to_vec();
        let files = RecordBatch::try_new(self.files.clone(), columns).expect("arranged rows start with these columns");
        if rows.num_rows() == 0 {
            return Vec::new();
        }
        let values: Vec<PartitionValue> = match self.partitioning {
            Partitioning::None => return vec![(PartitionValue::Whole, files)],
            Partitioning::Period { .. } => {
                let days = rows.column(last).as_primitive::<Date32Type>();
                days.values().iter().map(|&day| PartitionValue::Day(day)).collect()
            }
            Partitioning::Column(_) => {
                let texts = rows.column(last).as_string::<i32>();
                texts.iter().map(|text| PartitionValue::Text(text.unwrap_or_default().to_owned())).collect()
            }
        };
        let mut parts: BTreeMap<&PartitionValue, Vec<bool>> = BTreeMap::new();
        for (row, value) in values.iter().enumerate() {
            parts.entry(value).or_insert_with(|| vec![false; values.len()])[row] = true;
        }
        if parts.len() == 1 {
            return vec![(values[0].clone(), files)];
        }
        let part = |(value, mask): (&PartitionValue, Vec<bool>)| {
            let rows = filter_record_batch(&files, &BooleanArray::from(mask)).expect("the mask has the batch's length");
            (value.clone(), rows)
        };
        parts.into_iter().map(part).collect()
    }

    /// Reads a partition value as the Delta log writes it.
    pub(crate) fn partition_value(&self, text: Option<&str>) -> Option<PartitionValue> {
        match self.partitioning {
            Partitioning::None => Some(PartitionValue::Whole),
            Partitioning::Period { .. } => Some(PartitionValue::Day(Day::parse(text?)?.0)),
            Partitioning::Column(_) => Some(PartitionValue::Text(text?.to_owned())),
        }
    }
}

impl PartitionValue {
    /// As the Delta log writes it; none when the table is not partitioned.
    pub(crate) fn text(&self) -> Option<String> {
        match self {
            Self::Day(day) => Some(Day(*day).to_string()),
            Self::Text(text) => Some(text.clone()),
            Self::Whole => None,
        }
    }
}

/// `ops.coverage`: `_partition` and `_offset` of the line in `databroker.coverage`, then the line
/// ([`contract::Coverage`]): `source`, `collector`, `kind` (`covered` or `missed`), `from_time`, `to_time`,
/// `records` (a count) and `reason`.
pub fn coverage_schema() -> SchemaRef {
    let text = |name| Field::new(name, DataType::Utf8, false);
    let time = |name| Field::new(name, DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), false);
    let integer = |name| Field::new(name, DataType::Int64, false);
    Arc::new(Schema::new(vec![
        integer("_partition"),
        integer("_offset"),
        text("source"),
        text("collector"),
        text("kind"),
        time("from_time"),
        time("to_time"),
        integer("records"),
        text("reason"),
    ]))
}

/// `ops.runs`: one line per run of a view that was begun: `view`, `started_at`, `finished_at`, `mode` (`whole`: of all rows;
/// `periods`: of the days or months that changed), `engine` (`embedded` or `spark`), `attempt` (from 1), `outcome` (`done` or
/// `failed`), `rows` (stored by this run), `periods` (made anew; null where all was) and `reason` (of a failure, else null).
pub fn runs_schema() -> SchemaRef {
    let field = |name, kind| Field::new(name, kind, true);
    let time = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        field("view", DataType::Utf8),
        field("started_at", time()),
        field("finished_at", time()),
        field("mode", DataType::Utf8),
        field("engine", DataType::Utf8),
        field("attempt", DataType::Int64),
        field("outcome", DataType::Utf8),
        field("rows", DataType::Int64),
        field("periods", DataType::Int64),
        field("reason", DataType::Utf8),
    ]))
}

fn first_days(rows: &RecordBatch, of: &str, period: Period, table: &str) -> Result<ArrayRef> {
    let times = rows.column_by_name(of).and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
    let times = times.ok_or_else(|| Error::stop(format!("add rows to `{table}`: no time column `{of}`")))?;
    let days: Date32Array = times.unary(|time| period.first_day(Timestamp(time)).0);
    Ok(Arc::new(days))
}
