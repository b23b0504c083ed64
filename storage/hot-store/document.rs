//! Rows as tantivy reads them: straight from the Arrow columns, nothing copied but the JSON of `_source`.

use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use arrow::array::{
    Array, AsArray, BooleanArray, Float64Array, Int64Array, ListArray, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{Float64Type, Int64Type, TimestampMicrosecondType};
use contract::{Column, Kind, Leaf, RowSchema, Search, row_json};
use tantivy::schema::Field;
use tantivy::schema::document::{Document, ReferenceValue, ReferenceValueLeaf, Value};

use crate::fields::{Fields, KEYWORD_BYTES_MAX};

/// The rows of one batch that are to be indexed.
pub(crate) struct RowBatch {
    columns: Vec<Values>,
    /// The JSON of the rows, one after the other.
    sources: Vec<u8>,
    /// Where each row's JSON ends in `sources`.
    ends: Vec<usize>,
    _share: Share,
}

enum Values {
    Text(StringArray),
    /// The lists, and the texts that they are ranges of.
    Texts(ListArray, StringArray),
    Integer(Int64Array),
    /// The lists, and the integers that they are ranges of.
    Integers(ListArray, Int64Array),
    Float(Float64Array),
    Boolean(BooleanArray),
    Timestamp(TimestampMicrosecondArray),
}

impl RowBatch {
    /// Takes the rows of `batch` for which `kept` is true. Waits until there is room for them in `budget`.
    pub(crate) fn new(schema: &RowSchema, batch: &RecordBatch, kept: &[bool], budget: &Arc<Budget>) -> Self {
        let columns = schema.leaves().map(|leaf| Values::new(leaf, batch)).collect();
        let (mut sources, mut ends) = (Vec::new(), Vec::with_capacity(kept.len()));
        for (row, &kept) in kept.iter().enumerate() {
            if kept {
                row_json::write_row(batch, row, &mut sources);
            }
            ends.push(sources.len());
        }
        let share = budget.take(batch.get_array_memory_size() + sources.capacity());
        Self { columns, sources, ends, _share: share }
    }

    fn source(&self, row: usize) -> &[u8] {
        let start = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.sources[start..self.ends[row]]
    }
}

impl Values {
    fn new(leaf: Leaf, batch: &RecordBatch) -> Self {
        let values = batch.column(leaf.place);
        if let Some(member) = leaf.member {
            let lists = values.as_list::<i32>().clone();
            let members = lists.values().as_struct().column(member);
            return match members.as_string_opt::<i32>() {
                Some(texts) => Self::Texts(lists.clone(), texts.clone()),
                None => Self::Integers(lists.clone(), members.as_primitive::<Int64Type>().clone()),
            };
        }
        match leaf.column.kind {
            Kind::Text => Self::Text(values.as_string::<i32>().clone()),
            Kind::TextList => {
                let lists = values.as_list::<i32>();
                Self::Texts(lists.clone(), lists.values().as_string::<i32>().clone())
            }
            Kind::Integer => Self::Integer(values.as_primitive::<Int64Type>().clone()),
            Kind::Boolean => Self::Boolean(values.as_boolean().clone()),
            Kind::Timestamp => Self::Timestamp(values.as_primitive::<TimestampMicrosecondType>().clone()),
            Kind::Float => Self::Float(values.as_primitive::<Float64Type>().clone()),
            Kind::StructList(_) => unreachable!("its members are the leaves"),
        }
    }

    /// Whether any row has a value.
    fn has_any(&self) -> bool {
        let values: &dyn Array = match self {
            Self::Text(values) => values,
            // Members of a list that no row has items in.
            Self::Texts(_, items) => return items.null_count() < items.len(),
            Self::Integers(_, items) => return items.null_count() < items.len(),
            Self::Integer(values) => values,
            Self::Float(values) => values,
            Self::Boolean(values) => values,
            Self::Timestamp(values) => values,
        };
        values.null_count() < values.len()
    }

    fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Text(values) => values.is_null(row),
            // As Elasticsearch has it, a list of nothing is no value.
            Self::Texts(lists, _) | Self::Integers(lists, _) => lists.is_null(row) || lists.value_length(row) == 0,
            Self::Integer(values) => values.is_null(row),
            Self::Float(values) => values.is_null(row),
            Self::Boolean(values) => values.is_null(row),
            Self::Timestamp(values) => values.is_null(row),
        }
    }
}

/// A batch and where its columns stand in the index that its rows go into. Columns without any value are left out: most
/// rows have few of all columns, and looking at each costs as much as indexing one.
pub(crate) struct Indexed {
    fields: Arc<Fields>,
    rows: Arc<RowBatch>,
    /// Column, its field, and its place in `rows`.
    present: Vec<(&'static Column, Field, usize)>,
    /// Those of words.
    words: Vec<(&'static str, usize)>,
}

impl Indexed {
    /// The rows of a batch in an index.
    pub(crate) fn new(fields: Arc<Fields>, rows: Arc<RowBatch>) -> Self {
        let all = fields.columns.iter().zip(&fields.places).map(|(&(column, field), &place)| (column, field, place));
        let present: Vec<_> = all.filter(|&(.., place)| rows.columns[place].has_any()).collect();
        let is_words =
            |column: &Column| column.search == Search::Words && matches!(column.kind, Kind::Text | Kind::TextList);
        let words = present.iter().filter(|(column, ..)| is_words(column));
        let words = words.map(|&(column, _, place)| (column.name, place)).collect();
        Self { fields, rows, present, words }
    }
}

/// One row.
pub(crate) struct RowDocument {
    pub(crate) batch: Arc<Indexed>,
    pub(crate) row: usize,
}

impl Document for RowDocument {
    type Value<'a> = Cell<'a>;
    type FieldsValuesIter<'a> = Cells<'a>;

    fn iter_fields_and_values(&self) -> Cells<'_> {
        Cells { batch: &self.batch, row: self.row, column: 0, list: 0..0, name: None }
    }
}

/// The values of a row: those of the columns, `_source`, and the names of its columns of words.
pub(crate) struct Cells<'a> {
    batch: &'a Indexed,
    row: usize,
    column: usize,
    /// What is left of the list in the column before `column`.
    list: Range<usize>,
    /// Where to look for the next column of words, once all values were given.
    name: Option<usize>,
}

impl<'a> Iterator for Cells<'a> {
    type Item = (Field, Cell<'a>);

    fn next(&mut self) -> Option<(Field, Cell<'a>)> {
        let Indexed { fields, rows, present, .. } = self.batch;
        if let Some(from) = self.name {
            return self.next_name(from);
        }
        loop {
            if let Some(cell) = self.next_of_list() {
                return Some(cell);
            }
            let Some(&(column, field, place)) = present.get(self.column) else {
                self.name = Some(0);
                return Some((fields.source, Cell::Bytes(rows.source(self.row))));
            };
            let values = &rows.columns[place];
            self.column += 1;
            if values.is_null(self.row) {
                continue;
            }
            match values {
                Values::Text(texts) => {
                    let text = texts.value(self.row);
                    // `_id` is stored here, so it is given whatever its length.
                    if is_indexed(column.search, text) || field == fields.id {
                        return Some((field, Cell::Text(text)));
                    }
                }
                Values::Texts(lists, _) | Values::Integers(lists, _) => {
                    let bounds = lists.value_offsets();
                    self.list = bounds[self.row] as usize..bounds[self.row + 1] as usize;
                }
                Values::Integer(values) => return Some((field, Cell::Integer(values.value(self.row)))),
                Values::Float(values) => return Some((field, Cell::Float(values.value(self.row)))),
                Values::Boolean(values) => return Some((field, Cell::Boolean(values.value(self.row)))),
                Values::Timestamp(values) => return Some((field, Cell::Timestamp(values.value(self.row)))),
            }
        }
    }
}

impl<'a> Cells<'a> {
    /// The next item of the list in the column before `column`.
    fn next_of_list(&mut self) -> Option<(Field, Cell<'a>)> {
        let Indexed { rows, present, .. } = self.batch;
        for item in self.list.by_ref() {
            let (column, field, place) = present[self.column - 1];
            match &rows.columns[place] {
                Values::Texts(_, texts) => {
                    if texts.is_valid(item) && is_indexed(column.search, texts.value(item)) {
                        return Some((field, Cell::Text(texts.value(item))));
                    }
                }
                Values::Integers(_, numbers) => {
                    if numbers.is_valid(item) {
                        return Some((field, Cell::Integer(numbers.value(item))));
                    }
                }
                _ => unreachable!("a range is only set for a list"),
            }
        }
        None
    }

    fn next_name(&mut self, from: usize) -> Option<(Field, Cell<'a>)> {
        let Indexed { fields, rows, words, .. } = self.batch;
        let next = (from..words.len()).find(|&number| !rows.columns[words[number].1].is_null(self.row))?;
        self.name = Some(next + 1);
        Some((fields.field_names, Cell::Text(words[next].0)))
    }
}

fn is_indexed(search: Search, text: &str) -> bool {
    search == Search::Words || text.len() <= KEYWORD_BYTES_MAX
}

/// One value of a row.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cell<'a> {
    Text(&'a str),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    /// Microseconds since 1970.
    Timestamp(i64),
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> for Cell<'a> {
    type ArrayIter = std::iter::Empty<Self>;
    type ObjectIter = std::iter::Empty<(&'a str, Self)>;

    fn as_value(&self) -> ReferenceValue<'a, Self> {
        ReferenceValue::Leaf(match *self {
            Self::Text(text) => ReferenceValueLeaf::Str(text),
            Self::Integer(value) => ReferenceValueLeaf::I64(value),
            Self::Float(value) => ReferenceValueLeaf::F64(value),
            Self::Boolean(value) => ReferenceValueLeaf::Bool(value),
            Self::Timestamp(micros) => ReferenceValueLeaf::Date(date(micros)),
            Self::Bytes(bytes) => ReferenceValueLeaf::Bytes(bytes),
        })
    }
}

/// A time as tantivy has it: in nanoseconds, so it stops at the years 1677 and 2262; `_source` has the true one.
pub(crate) fn date(micros: i64) -> tantivy::DateTime {
    tantivy::DateTime::from_timestamp_nanos(micros.saturating_mul(1000))
}

/// How many bytes of rows may wait to be indexed.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes_max: usize,
    used: Mutex<usize>,
    freed: Condvar,
}

impl Budget {
    pub(crate) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes_max, used: Mutex::new(0), freed: Condvar::new() })
    }

    /// Waits until `bytes` fit; what alone exceeds the budget waits for all others.
    fn take(self: &Arc<Self>, bytes: usize) -> Share {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |used: &mut usize| *used > 0 && *used + bytes > self.bytes_max;
        let mut used = self.freed.wait_while(used, full).unwrap_or_else(PoisonError::into_inner);
        *used += bytes;
        Share { budget: self.clone(), bytes }
    }
}

/// A part of the budget, given back when the last row of a batch is indexed.
struct Share {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Drop for Share {
    fn drop(&mut self) {
        *self.budget.used.lock().unwrap_or_else(PoisonError::into_inner) -= self.bytes;
        self.budget.freed.notify_all();
    }
}
