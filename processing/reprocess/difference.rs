//! What a draft changes: rows added, gone, and changed, by column.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{DynComparator, make_comparator};
use arrow::compute::{SortOptions, lexsort_to_indices, take_record_batch};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use arrow::util::display::array_value_to_string;
use contract::{COMMON, ColdStore, Draft, Error, Offset, Partition, Positions, Result};
use futures::StreamExt;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::Reprocess;
use crate::rebuild::{OFFSETS_FIRST, join, places, read_within};

/// Bytes of the rows of one side that are compared at once. A step that exceeds it is halved.
const STEP_BYTES_MAX: usize = 8 << 20;

/// Characters of a value in an example.
const VALUE_CHARS_MAX: usize = 200;

/// What a draft changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Rows of silver, in the part that is made anew.
    pub rows_before: u64,
    /// Rows of the draft.
    pub rows_after: u64,
    /// Dead letters before.
    pub dead_letters_before: u64,
    /// Dead letters of the draft.
    pub dead_letters_after: u64,
    /// Rows that only the draft has.
    pub added: u64,
    /// Rows that only silver has.
    pub gone: u64,
    /// Rows that differ in one column at least.
    pub changed: u64,
    /// In how many rows a column differs.
    pub columns: BTreeMap<String, u64>,
    /// Columns that silver lacks, or has of another type: they are new in every row, and not compared.
    pub new_columns: Vec<String>,
    /// The first of each.
    pub examples: Vec<Change>,
    /// How many of each kind are shown.
    #[serde(skip)]
    shown: BTreeMap<&'static str, usize>,
}

/// One row that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// `added`, `gone` or `changed`.
    pub kind: &'static str,
    /// Where its record stands.
    pub partition: Partition,
    /// Where its record stands.
    pub offset: Offset,
    /// Its `_id`.
    pub id: String,
    /// What differs: per column the value before and after, cut after 200 characters; empty for a row that came or went.
    pub columns: BTreeMap<String, [String; 2]>,
}

/// One step's rows of one side, in the order of their places.
struct Side {
    rows: RecordBatch,
    places: Vec<(Partition, Offset)>,
}

/// None when `stop` was said meanwhile.
pub(super) async fn between(
    reprocess: &Reprocess,
    draft: &Draft,
    examples_max: usize,
    stop: &CancellationToken,
) -> Result<Option<Difference>> {
    let source = reprocess.recipe.schema.source;
    let new_columns = reprocess.cold.other_columns(source).await?;
    let all = reprocess.recipe.schema.arrow();
    let compared = all.fields().iter().filter(|field| !new_columns.contains(field.name()));
    let schema: SchemaRef = Arc::new(Schema::new(compared.cloned().collect::<Vec<_>>()));
    let marks = draft.store.committed(source).await?;
    let since = draft.of.since.map_or(String::new(), |since| format!(" AND event_time >= TIMESTAMP '{since}'"));
    let mut found = Difference { new_columns, ..Difference::default() };
    let letters = format!("SELECT _offset FROM ops.dead_letters WHERE source = '{source}'{since}");
    // What was rejected after the draft's end counts for neither.
    found.dead_letters_before = count(&*reprocess.engines.cold, &below(&letters, &marks)).await?;
    found.dead_letters_after = count(&*draft.store, &letters).await?;
    let end = marks.0.values().copied().max().unwrap_or(0);
    let (mut from, mut step) = (0, OFFSETS_FIRST);
    while from < end {
        if stop.is_cancelled() {
            return Ok(None);
        }
        let to = from.saturating_add(step).min(end);
        let names: Vec<_> = schema.fields().iter().map(|field| format!("\"{}\"", field.name())).collect();
        let query = format!(
            "SELECT {} FROM silver.{source} WHERE _offset >= {from} AND _offset < {to}{since}",
            names.join(", ")
        );
        let old = read(&*reprocess.engines.cold, &below(&query, &marks), &schema, to - from).await?;
        let new = read(&*draft.store, &query, &schema, to - from).await?;
        let (Some(old), Some(new)) = (old, new) else {
            step = (step / 2).max(1);
            continue;
        };
        let bytes = old.rows.get_array_memory_size().max(new.rows.get_array_memory_size());
        tokio::task::block_in_place(|| found.add(&old, &new, examples_max))?;
        from = to;
        if bytes < STEP_BYTES_MAX / 4 {
            step = step.saturating_mul(2);
        }
    }
    Ok(Some(found))
}

/// The query for what lies below some marks.
fn below(query: &str, marks: &Positions) -> String {
    let part = |(partition, next): (&Partition, &Offset)| format!("(_partition = {partition} AND _offset < {next})");
    let parts: Vec<_> = marks.0.iter().map(part).collect();
    if parts.is_empty() { format!("{query} AND false") } else { format!("{query} AND ({})", parts.join(" OR ")) }
}

async fn count(cold: &dyn ColdStore, query: &str) -> Result<u64> {
    let mut batches = cold.scan(query).await?.batches;
    let mut rows = 0;
    while let Some(batch) = batches.next().await {
        rows += batch?.num_rows() as u64;
    }
    Ok(rows)
}

/// None if there are too many bytes, unless the step cannot be smaller.
async fn read(cold: &dyn ColdStore, query: &str, schema: &SchemaRef, offsets: Offset) -> Result<Option<Side>> {
    let rows = cold.scan(query).await?;
    let Some((read, _)) = read_within(rows, schema, STEP_BYTES_MAX, offsets > 1).await? else { return Ok(None) };
    Side::new(&join(schema, &read)?).map(Some).map_err(|cause| Error::stop("sort rows by their offsets").because(cause))
}

impl Side {
    fn new(rows: &RecordBatch) -> Result<Self, arrow::error::ArrowError> {
        let column = |place: usize| arrow::compute::SortColumn { values: rows.column(place).clone(), options: None };
        let order = lexsort_to_indices(&[column(0), column(1)], None)?;
        let rows = take_record_batch(rows, &order)?;
        let places = places(&rows).collect();
        Ok(Self { rows, places })
    }

    fn value(&self, column: usize, row: usize) -> String {
        let text = array_value_to_string(self.rows.column(column), row).unwrap_or_else(|error| error.to_string());
        text.chars().take(VALUE_CHARS_MAX).collect()
    }
}

impl Difference {
    fn add(&mut self, old: &Side, new: &Side, examples_max: usize) -> Result<()> {
        self.rows_before += old.places.len() as u64;
        self.rows_after += new.places.len() as u64;
        // The common columns are the record's; they tell rows, and do not differ.
        let own = COMMON.len()..old.rows.num_columns();
        let compare = |column: usize| -> Result<DynComparator, arrow::error::ArrowError> {
            make_comparator(old.rows.column(column), new.rows.column(column), SortOptions::default())
        };
        let compared = own.clone().map(compare).collect::<Result<Vec<_>, _>>();
        let compared = compared.map_err(|cause| Error::stop("compare rows").because(cause))?;
        let (mut left, mut right) = (0, 0);
        while left < old.places.len() || right < new.places.len() {
            let order = match (old.places.get(left), new.places.get(right)) {
                (Some(old), Some(new)) => old.cmp(new),
                (Some(_), None) => Ordering::Less,
                (None, _) => Ordering::Greater,
            };
            match order {
                Ordering::Less => {
                    self.gone += 1;
                    self.show("gone", old, left, examples_max, BTreeMap::new);
                }
                Ordering::Greater => {
                    self.added += 1;
                    self.show("added", new, right, examples_max, BTreeMap::new);
                }
                Ordering::Equal => {
                    let differ = own.clone().zip(&compared).filter(|(_, compare)| compare(left, right).is_ne());
                    let differ: Vec<usize> = differ.map(|(column, _)| column).collect();
                    self.note(&differ, (old, left), (new, right), examples_max);
                }
            }
            left += usize::from(order.is_le());
            right += usize::from(order.is_ge());
        }
        Ok(())
    }

    fn note(&mut self, differ: &[usize], old: (&Side, usize), new: (&Side, usize), examples_max: usize) {
        if differ.is_empty() {
            return;
        }
        self.changed += 1;
        let schema = old.0.rows.schema();
        let name = |column: &usize| schema.field(*column).name().clone();
        for column in differ {
            *self.columns.entry(name(column)).or_default() += 1;
        }
        let values =
            || differ.iter().map(|column| (name(column), [old.0.value(*column, old.1), new.0.value(*column, new.1)]));
        self.show("changed", new.0, new.1, examples_max, || values().collect());
    }

    fn show(
        &mut self,
        kind: &'static str,
        side: &Side,
        row: usize,
        examples_max: usize,
        columns: impl FnOnce() -> BTreeMap<String, [String; 2]>,
    ) {
        let shown = self.shown.entry(kind).or_default();
        if *shown < examples_max {
            *shown += 1;
            let (partition, offset) = side.places[row];
            self.examples.push(Change { kind, partition, offset, id: side.value(2, row), columns: columns() });
        }
    }
}
