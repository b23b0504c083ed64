//! The typed columns of a source's rows: one list from which the Delta table, the search index,
//! the mapping and the docs are made.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use crate::SourceId;

/// The columns of `silver.SOURCE`, in order.
#[derive(Debug)]
pub struct RowSchema {
    /// The source.
    pub source: SourceId,
    /// The source's own columns, without the common ones.
    pub columns: &'static [Column],
}

/// One column.
#[derive(Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name in search, SQL and Delta: flat snake_case.
    pub name: &'static str,
    /// The type of its values; every column may be null.
    pub kind: Kind,
    /// How search finds it.
    pub search: Search,
    /// What it says, with unit, for readers of the docs.
    pub doc: &'static str,
}

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8 text.
    Text,
    /// UTF-8 texts in order.
    TextList,
    /// A signed 64-bit integer.
    Integer,
    /// True or false.
    Boolean,
    /// A point in time, UTC, microseconds.
    Timestamp,
}

/// How the hot store indexes a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Search {
    /// As a whole: Elasticsearch's `keyword`, or the number, boolean or date it is. Sorts and aggregates.
    Exact,
    /// By its words: Elasticsearch's `text`. A query without a field name looks here.
    Words,
}

/// Columns that every silver table starts with.
pub const COMMON: &[Column] = &[
    Column { name: "_partition", kind: Kind::Integer, search: Search::Exact, doc: "Partition of the log record." },
    Column { name: "_offset", kind: Kind::Integer, search: Search::Exact, doc: "Offset of the log record." },
    Column {
        name: "_id",
        kind: Kind::Text,
        search: Search::Exact,
        doc: "Id of the record, unique within its event day.",
    },
    Column {
        name: "event_time",
        kind: Kind::Timestamp,
        search: Search::Exact,
        doc: "When it happened, as the source says.",
    },
    Column { name: "fetched_at", kind: Kind::Timestamp, search: Search::Exact, doc: "When it was collected." },
];

impl RowSchema {
    /// The common columns and then the source's own: the order of the columns of every row batch.
    pub fn all(&self) -> impl Iterator<Item = &'static Column> + use<> {
        COMMON.iter().chain(self.columns)
    }

    /// The Arrow schema of the rows. The common columns are never null, `_partition` and `_offset` 64-bit, times are
    /// microseconds with the time zone `UTC`, lists have the item name `element` (as Delta and Parquet do).
    pub fn arrow(&self) -> SchemaRef {
        let fields = self
            .all()
            .enumerate()
            .map(|(place, column)| Field::new(column.name, column.kind.data_type(), place >= COMMON.len()));
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    /// The place of a column of the source's own among all columns.
    ///
    /// # Panics
    /// If there is no such column: the names in the code are constants.
    pub fn place(&self, name: &str) -> usize {
        self.all().position(|column| column.name == name).expect("a column of this schema")
    }
}

impl Kind {
    /// The Arrow type.
    pub fn data_type(self) -> DataType {
        match self {
            Self::Text => DataType::Utf8,
            Self::TextList => DataType::List(Arc::new(Field::new("element", DataType::Utf8, true))),
            Self::Integer => DataType::Int64,
            Self::Boolean => DataType::Boolean,
            Self::Timestamp => utc_micros(),
        }
    }
}

/// The Arrow type of all times.
pub(crate) fn utc_micros() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}
