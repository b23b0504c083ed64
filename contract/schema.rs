//! The typed columns of a source's rows: one list from which the Delta table, the search index,
//! the mapping and the docs are made.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};

use crate::{Day, SourceId, Timestamp};

/// The columns of `silver.SOURCE`, in order.
#[derive(Debug)]
pub struct RowSchema {
    /// The source.
    pub source: SourceId,
    /// How far apart in time rows lie: one partition of the cold table, and the reach of an id.
    pub period: Period,
    /// The source's own columns, without the common ones.
    pub columns: &'static [Column],
}

/// The span of event time that one partition of a silver table holds. An id is unique within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// For sources with many rows a day.
    Day,
    /// For sources with few.
    Month,
}

/// The first and last day that a folder of a table can be named for: years 0001 to 9999.
const DAYS_NAMED: (i32, i32) = (-719_162, 2_932_896);

impl Period {
    /// The first day of the period that `time` lies in. What lies before the year 1 or after 9999 belongs to the first or
    /// the last period that can be named.
    pub fn first_day(self, time: Timestamp) -> Day {
        let day = Day(time.day().0.clamp(DAYS_NAMED.0, DAYS_NAMED.1));
        match self {
            Self::Day => day,
            Self::Month => day.first_of_month(),
        }
    }

    /// The column that names the period in the cold table: its first day.
    pub fn column(self) -> &'static str {
        match self {
            Self::Day => "event_day",
            Self::Month => "event_month",
        }
    }
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
    /// A 64-bit floating-point number; never infinite or not a number.
    Float,
    /// Structs in order. The members are columns of [`Kind::Text`] or [`Kind::Integer`], named `LIST.MEMBER`, as search
    /// finds them: a row fits if any of its structs does.
    StructList(&'static [Column]),
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
        doc: "Id of the record, unique within its period of event time (a day or a month).",
    },
    Column {
        name: "event_time",
        kind: Kind::Timestamp,
        search: Search::Exact,
        doc: "When it happened, as the source says.",
    },
    Column { name: "fetched_at", kind: Kind::Timestamp, search: Search::Exact, doc: "When it was collected." },
];

/// A column that search looks into.
#[derive(Clone, Copy, Debug)]
pub struct Leaf {
    /// The column, or a member of a list of structs.
    pub column: &'static Column,
    /// The place among the columns of a row.
    pub place: usize,
    /// Which member of the list of structs at that place.
    pub member: Option<usize>,
}

impl Column {
    /// The name within its struct: `ttl` of `answers.ttl`; the whole name of a column that is no member.
    pub fn member_name(&self) -> &'static str {
        self.name.rsplit_once('.').map_or(self.name, |(_, name)| name)
    }
}

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

    /// What search looks into, in order: the columns, with its members in the stead of each list of structs.
    pub fn leaves(&self) -> impl Iterator<Item = Leaf> + use<> {
        self.all().enumerate().flat_map(|(place, column)| {
            let members = match column.kind {
                Kind::StructList(members) => members,
                _ => std::slice::from_ref(column),
            };
            let is_member = matches!(column.kind, Kind::StructList(_));
            let leaf = move |(member, column)| Leaf { column, place, member: is_member.then_some(member) };
            members.iter().enumerate().map(leaf)
        })
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
            Self::TextList => list_of(DataType::Utf8),
            Self::StructList(members) => list_of(DataType::Struct(member_fields(members))),
            Self::Float => DataType::Float64,
            Self::Integer => DataType::Int64,
            Self::Boolean => DataType::Boolean,
            Self::Timestamp => utc_micros(),
        }
    }
}

/// The Arrow type of a list: its items have Delta's and Parquet's name.
fn list_of(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("element", item, true)))
}

/// The members of a struct in Arrow.
pub(crate) fn member_fields(members: &[Column]) -> Fields {
    members.iter().map(|member| Field::new(member.member_name(), member.kind.data_type(), true)).collect()
}

/// The Arrow type of all times.
pub(crate) fn utc_micros() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}
