//! Statistics of data files, as the Delta log holds them and as the query engine prunes by them.
//! Source: <https://github.com/delta-io/delta/blob/master/PROTOCOL.md#per-file-statistics>.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::{max, max_string, min, min_string};
use arrow::datatypes::{DataType, Int64Type, Schema, TimestampMicrosecondType};
use contract::Timestamp;
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, ScalarValue, Statistics};
use serde_json::{Map, Value, json};

/// Characters of a text that a bound keeps, as Delta's own writers do.
const TEXT_CHARACTERS_MAX: usize = 32;

/// What other writers may have cut off a time: their statistics end at the millisecond.
const CUT_MICROS: i64 = 999;

/// Gathers the statistics of a file while it is written.
#[derive(Default)]
pub(crate) struct FileStats {
    rows: usize,
    columns: Vec<(usize, Option<Bounds>)>,
}

enum Bounds {
    Integer(i64, i64),
    Time(i64, i64),
    Text(String, String),
}

impl FileStats {
    /// Adds rows; all calls with the same columns.
    pub(crate) fn add(&mut self, batch: &RecordBatch) {
        self.rows += batch.num_rows();
        self.columns.resize_with(batch.num_columns(), Default::default);
        for (column, (nulls, bounds)) in batch.columns().iter().zip(&mut self.columns) {
            *nulls += column.null_count();
            if let Some(more) = bounds_of(column) {
                *bounds = Some(match bounds.take() {
                    Some(known) => known.join(more),
                    None => more,
                });
            }
        }
    }

    /// The text for the log.
    pub(crate) fn json(&self, schema: &Schema) -> String {
        let (mut low, mut high, mut nulls) = (Map::new(), Map::new(), Map::new());
        for (field, (null_count, bounds)) in schema.fields().iter().zip(&self.columns) {
            nulls.insert(field.name().clone(), json!(null_count));
            let Some((least, greatest)) = bounds.as_ref().map(Bounds::json) else { continue };
            low.insert(field.name().clone(), least);
            if let Some(greatest) = greatest {
                high.insert(field.name().clone(), greatest);
            }
        }
        json!({ "numRecords": self.rows, "minValues": low, "maxValues": high, "nullCount": nulls }).to_string()
    }
}

impl Bounds {
    fn join(self, other: Self) -> Self {
        match (self, other) {
            (Self::Integer(a, b), Self::Integer(c, d)) => Self::Integer(a.min(c), b.max(d)),
            (Self::Time(a, b), Self::Time(c, d)) => Self::Time(a.min(c), b.max(d)),
            (Self::Text(a, b), Self::Text(c, d)) => Self::Text(a.min(c), b.max(d)),
            _ => unreachable!("a column keeps its type"),
        }
    }

    /// The lower bound, and the upper one if there is a short one.
    fn json(&self) -> (Value, Option<Value>) {
        match self {
            Self::Integer(low, high) => (json!(low), Some(json!(high))),
            Self::Time(low, high) => (json!(Timestamp(*low).to_string()), Some(json!(Timestamp(*high).to_string()))),
            Self::Text(low, high) => {
                let start: String = low.chars().take(TEXT_CHARACTERS_MAX).collect();
                (json!(start), short_upper_bound(high).map(Value::from))
            }
        }
    }
}

fn bounds_of(column: &dyn Array) -> Option<Bounds> {
    match column.data_type() {
        DataType::Int64 => {
            let values = column.as_primitive::<Int64Type>();
            Some(Bounds::Integer(min(values)?, max(values)?))
        }
        DataType::Timestamp(..) => {
            let values = column.as_primitive_opt::<TimestampMicrosecondType>()?;
            Some(Bounds::Time(min(values)?, max(values)?))
        }
        DataType::Utf8 => {
            let values = column.as_string::<i32>();
            Some(Bounds::Text(min_string(values)?.to_owned(), max_string(values)?.to_owned()))
        }
        _ => None,
    }
}

/// The text itself if it is short; otherwise its start with the last character that has a next one raised to it.
fn short_upper_bound(text: &str) -> Option<String> {
    let mut start: Vec<char> = text.chars().take(TEXT_CHARACTERS_MAX + 1).collect();
    if start.len() <= TEXT_CHARACTERS_MAX {
        return Some(text.to_owned());
    }
    start.truncate(TEXT_CHARACTERS_MAX);
    while let Some(last) = start.pop() {
        if let Some(next) = char::from_u32(u32::from(last) + 1) {
            start.push(next);
            return Some(start.into_iter().collect());
        }
    }
    None
}

/// Reads statistics for the columns of `schema`. The bounds are certain, but need not be values that occur.
pub(crate) fn parse(text: Option<&str>, schema: &Schema, rows: Option<usize>) -> Statistics {
    let stats: Value = text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let rows = rows.or_else(|| stats["numRecords"].as_u64().and_then(|rows| usize::try_from(rows).ok()));
    let exact = |value: Option<ScalarValue>| value.map_or(Precision::Absent, Precision::Exact);
    let column = |field: &std::sync::Arc<arrow::datatypes::Field>| {
        let (name, kind) = (field.name().as_str(), field.data_type());
        let nulls = stats["nullCount"][name].as_u64().and_then(|count| usize::try_from(count).ok());
        ColumnStatistics {
            null_count: nulls.map_or(Precision::Absent, Precision::Exact),
            min_value: exact(scalar(&stats["minValues"][name], kind, 0)),
            max_value: exact(scalar(&stats["maxValues"][name], kind, CUT_MICROS)),
            ..ColumnStatistics::new_unknown()
        }
    };
    Statistics {
        num_rows: rows.map_or(Precision::Absent, Precision::Exact),
        total_byte_size: Precision::Absent,
        column_statistics: schema.fields().iter().map(column).collect(),
    }
}

fn scalar(value: &Value, kind: &DataType, cut_micros: i64) -> Option<ScalarValue> {
    match kind {
        DataType::Int64 => Some(ScalarValue::Int64(Some(value.as_i64()?))),
        DataType::Utf8 => Some(ScalarValue::Utf8(Some(value.as_str()?.to_owned()))),
        DataType::Timestamp(_, zone) => {
            let time = Timestamp::parse_rfc3339(value.as_str()?)?;
            Some(ScalarValue::TimestampMicrosecond(Some(time.0.saturating_add(cut_micros)), zone.clone()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_bounded_by_a_short_greater_one() {
        assert_eq!(short_upper_bound("rust"), Some("rust".to_owned()));
        let long = format!("{}y", "x".repeat(40));
        let bound = short_upper_bound(&long).expect("x has a next character");
        assert!(bound > long && bound.chars().count() == TEXT_CHARACTERS_MAX, "{bound}");
        let greatest = char::MAX.to_string().repeat(40);
        assert_eq!(short_upper_bound(&greatest), None);
    }

    #[test]
    fn statistics_are_read_as_they_were_written() {
        let schema = contract::bronze_schema();
        let mut stats = FileStats::default();
        stats.add(&RecordBatch::new_empty(schema.clone()));
        let empty = parse(Some(&stats.json(&schema)), &schema, None);
        assert_eq!(empty.num_rows, Precision::Exact(0));
        assert_eq!(empty.column_statistics[1].min_value, Precision::Absent);
        let text = r#"{"numRecords":2,"minValues":{"_offset":4,"event_time":"2015-01-01T00:00:00.001Z"},
            "maxValues":{"_offset":9,"event_time":"2015-01-01T00:00:00.001Z"},"nullCount":{"_offset":0}}"#;
        let read = parse(Some(text), &schema, None);
        assert_eq!(read.column_statistics[1].max_value, Precision::Exact(ScalarValue::Int64(Some(9))));
        let start = Timestamp::parse_rfc3339("2015-01-01T00:00:00.001Z").expect("valid").0;
        let highest = ScalarValue::TimestampMicrosecond(Some(start + 999), Some("UTC".into()));
        assert_eq!(read.column_statistics[3].max_value, Precision::Exact(highest));
    }
}
