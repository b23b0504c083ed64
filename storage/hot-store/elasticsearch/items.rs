//! What a bulk request carries.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use contract::{Day, Offset, Partition, Period, RowSchema, Timestamp, row_json};
use serde_json::json;

use super::canonical;
use crate::names::{Groups, period};
use crate::source::{EVENT_TIME, ID, Places};

/// Letters before the id where the day is part of it: `2015.01.31:`.
const DAY_LETTERS: usize = 11;

/// One action.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) index: String,
    /// The document's `_id`.
    pub(super) id: String,
    /// The version that is given; none for what is done whatever stands there.
    pub(super) version: Option<i64>,
    /// Where the row stands in the log; none for what is no row.
    pub(super) place: Option<(Partition, Offset)>,
    /// The action and the document, a line each.
    pub(super) lines: Vec<u8>,
    document_from: usize,
}

impl Item {
    /// Writes a document of a version: one of a higher or the same version is left as it is.
    pub(super) fn versioned(index: &str, id: String, version: i64, document: &[u8]) -> Self {
        let action = json!({"index": {"_index": index, "_id": id, "version": version, "version_type": "external"}});
        Self::with(index, id, Some(version), &action, document)
    }

    /// Writes a document whatever stands there.
    pub(super) fn forced(index: &str, id: String, document: &[u8]) -> Self {
        let action = json!({"index": {"_index": index, "_id": id}});
        Self::with(index, id, None, &action, document)
    }

    /// Removes a document.
    pub(super) fn delete(index: &str, id: String) -> Self {
        let action = json!({"delete": {"_index": index, "_id": id}});
        Self::with(index, id, None, &action, b"")
    }

    /// The document as it was given.
    pub(super) fn document(&self) -> &[u8] {
        self.lines[self.document_from..].trim_ascii_end()
    }

    fn with(index: &str, id: String, version: Option<i64>, action: &serde_json::Value, document: &[u8]) -> Self {
        let mut lines = action.to_string().into_bytes();
        lines.push(b'\n');
        let document_from = lines.len();
        if !document.is_empty() {
            lines.extend_from_slice(document);
            lines.push(b'\n');
        }
        Self { index: index.to_owned(), id, version, place: None, lines, document_from }
    }
}

/// The rows of a batch, each for its index; `make` is given index, id, version and document.
pub(super) fn of_rows(
    schema: &RowSchema,
    batch: &RecordBatch,
    groups: &Groups,
    make: impl Fn(&str, String, i64, &[u8]) -> Item,
) -> Vec<Item> {
    let places = Places::of(batch);
    let ids = batch.column(ID).as_string::<i32>();
    let times = batch.column(EVENT_TIME).as_primitive::<TimestampMicrosecondType>();
    let mut items = Vec::with_capacity(batch.num_rows());
    let mut document = Vec::new();
    for (index, rows) in groups {
        for &row in rows {
            document.clear();
            row_json::write_row(batch, row, &mut document);
            let id = document_id(schema, index, ids.value(row), Timestamp(times.value(row)).day());
            let offset = places.offset(row);
            let mut item = make(index, id, offset + 1, &document);
            item.place = Some((places.partition(row), offset));
            items.push(item);
        }
    }
    items
}

/// The `_id` of a row's document: the row's own, which is unique in its index. Only where an index of a month holds rows
/// whose ids are unique within a day, the day stands before it.
pub(super) fn document_id(schema: &RowSchema, index: &str, id: &str, day: Day) -> String {
    if !has_days(schema, index) {
        return id.to_owned();
    }
    let (year, month, day) = day.civil();
    format!("{year:04}.{month:02}.{day:02}:{id}")
}

/// The row's id of a document.
pub(super) fn row_id<'a>(schema: &RowSchema, index: &str, document_id: &'a str) -> &'a str {
    if has_days(schema, index) { document_id.get(DAY_LETTERS..).unwrap_or(document_id) } else { document_id }
}

fn has_days(schema: &RowSchema, index: &str) -> bool {
    schema.period == Period::Day && period(schema.source, canonical(index)).is_some_and(|days| days.first != days.last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use contract::SourceId;

    #[test]
    fn the_day_is_part_of_an_id_only_where_an_index_holds_several() {
        let by_day = RowSchema { source: SourceId("made"), period: Period::Day, columns: &[] };
        let by_month = RowSchema { source: SourceId("made"), period: Period::Month, columns: &[] };
        let day = Day::parse("2015-01-31").unwrap();
        for (schema, index, expected) in [
            (&by_day, "made-2015.01.31", "a:b"),
            (&by_day, "made-2015.01", "2015.01.31:a:b"),
            (&by_month, "made-2015.01.31", "a:b"),
            (&by_month, "made-2015.01", "a:b"),
        ] {
            let id = document_id(schema, index, "a:b", day);
            assert_eq!(id, expected, "{index}");
            assert_eq!(row_id(schema, index, &id), "a:b", "{index}");
        }
    }

    #[test]
    fn an_item_keeps_its_document() {
        let item = Item::versioned("made-2015.01", "a\"b".to_owned(), 7, br#"{"x":1}"#);
        assert_eq!(item.document(), br#"{"x":1}"#);
        let lines = String::from_utf8(item.lines.clone()).unwrap();
        assert!(lines.ends_with("\n{\"x\":1}\n") && lines.contains(r#""_id":"a\"b""#), "{lines}");
        assert_eq!(Item::delete("i", "x".to_owned()).document(), b"");
    }
}
