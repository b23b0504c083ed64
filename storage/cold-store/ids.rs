//! The ids and places of committed rows, read from those columns of those files, and parts of files, that may hold them.

use std::collections::{BTreeSet, HashSet};
use std::ops::Bound;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use contract::{Day, Error, IdPlace, Offset, OffsetRange, Partition, Result, TableStream};
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, ScalarValue};
use futures::stream;
use parquet::data_type::ByteArray;
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use parquet::file::statistics::Statistics;

use crate::committed::CommittedFile;
use crate::layout::PartitionValue;
use crate::place::Place;
use crate::reader::{Selection, batches, column};
use crate::store::{Source, finished};

/// Batches of ids that wait for who asked; with the one being read this bounds the memory.
const QUEUED_BATCHES_MAX: usize = 2;

/// Rows of a batch of ids: about 300 KB.
const BATCH_ROWS: usize = 8_192;

/// The id column of silver.
const ID: &str = "_id";

/// What is read, in the order in which it is answered.
const COLUMNS: [&str; 3] = [ID, "_partition", "_offset"];

/// All ids of the period that starts at a day: `id`, `_partition`, `_offset`.
pub(crate) fn ids(source: &Source, day: Day) -> TableStream {
    let (files, place) = (files_of(source, day), source.silver.layout.place.clone());
    let (send, receive) = tokio::sync::mpsc::channel(QUEUED_BATCHES_MAX);
    tokio::task::spawn_blocking(move || {
        for file in files {
            let read = read(&place, &file, &COLUMNS, |_| true, |batch| send.blocking_send(Ok(batch)).is_ok());
            let go_on = match read {
                Ok(go_on) => go_on,
                // Who asked may be gone; then nobody needs the error either.
                Err(error) => send.blocking_send(Err(error)).is_ok_and(|()| false),
            };
            if !go_on {
                break;
            }
        }
    });
    let batches = stream::unfold(receive, async |mut receive| receive.recv().await.map(|batch| (batch, receive)));
    TableStream { schema: schema(&COLUMNS), batches: Box::pin(batches) }
}

/// Where some ids of the period that starts at a day stand.
pub(crate) async fn find_ids(source: &Source, day: Day, ids: &[&str]) -> Result<Vec<IdPlace>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let wanted = Wanted::new(ids);
    let (files, place) = (files_of(source, day), source.silver.layout.place.clone());
    let find = move || {
        let mut places = Vec::new();
        for file in files.iter().filter(|file| wanted.may_be_in(file)) {
            read(
                &place,
                file,
                &COLUMNS,
                |group| wanted.may_be_in_group(group),
                |batch| {
                    places.extend(wanted.places_in(&batch));
                    true
                },
            )?;
        }
        Ok(places)
    };
    finished(tokio::task::spawn_blocking(find)).await
}

/// Which offsets of some runs hold rows.
pub(crate) async fn rows_at(source: &Source, ranges: &[OffsetRange]) -> Result<Vec<(Partition, Offset)>> {
    let ranges = ranges.to_vec();
    let (files, place) = (source.silver.view().committed.clone(), source.silver.layout.place.clone());
    let overlaps = |low: i64, high: i64, (least, greatest): (Option<i64>, Option<i64>)| {
        least.is_none_or(|least| least <= high) && greatest.is_none_or(|greatest| greatest >= low)
    };
    let find = move || {
        let may_hold = |bounds: &dyn Fn(usize) -> (Option<i64>, Option<i64>)| {
            ranges.iter().any(|range| {
                let partition = i64::from(range.partition);
                overlaps(partition, partition, bounds(0)) && overlaps(range.from, range.to - 1, bounds(1))
            })
        };
        let mut places = Vec::new();
        for file in files.files.iter().filter(|file| may_hold(&|column| integer_bounds(file, column))) {
            let may_be_in_group = |group: &RowGroupMetaData| may_hold(&|column| integer_bounds_of_group(group, column));
            read(&place, file, &COLUMNS[1..], may_be_in_group, |batch| {
                let asked = places_of(&batch, 0).filter(|&(partition, offset)| {
                    ranges.iter().any(|range| range.partition == partition && (range.from..range.to).contains(&offset))
                });
                places.extend(asked);
                true
            })?;
        }
        Ok(places)
    };
    finished(tokio::task::spawn_blocking(find)).await
}

fn files_of(source: &Source, day: Day) -> Vec<Arc<CommittedFile>> {
    let committed = source.silver.view().committed.clone();
    committed.files.iter().filter(|file| file.value == PartitionValue::Day(day.0)).cloned().collect()
}

/// `id`, `_partition`, `_offset`, or some of them.
fn schema(columns: &[&str]) -> SchemaRef {
    let field = |&name: &&str| match name {
        ID => Field::new("id", DataType::Utf8, false),
        _ => Field::new(name, DataType::Int64, false),
    };
    Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()))
}

/// Ids that are looked for.
struct Wanted {
    ids: HashSet<String>,
    /// In order, for what has bounds.
    sorted: BTreeSet<Vec<u8>>,
}

impl Wanted {
    fn new(ids: &[&str]) -> Self {
        Self {
            ids: ids.iter().map(|&id| id.to_owned()).collect(),
            sorted: ids.iter().map(|id| id.as_bytes().to_vec()).collect(),
        }
    }

    /// Whether one of them lies between both; without a bound all on that side do.
    fn any_between(&self, least: Option<&[u8]>, greatest: Option<&[u8]>) -> bool {
        let first =
            self.sorted.range::<[u8], _>((least.map_or(Bound::Unbounded, Bound::Included), Bound::Unbounded)).next();
        first.is_some_and(|first| greatest.is_none_or(|greatest| first.as_slice() <= greatest))
    }

    /// By the Delta log.
    fn may_be_in(&self, file: &CommittedFile) -> bool {
        let Some(bounds) = file.bounds.column_statistics.get(2) else { return true };
        let text = |value: Option<&ScalarValue>| match value {
            Some(ScalarValue::Utf8(Some(text))) => Some(text.clone().into_bytes()),
            _ => None,
        };
        let (least, greatest) = (text(bounds.min_value.get_value()), text(bounds.max_value.get_value()));
        self.any_between(least.as_deref(), greatest.as_deref())
    }

    fn may_be_in_group(&self, group: &RowGroupMetaData) -> bool {
        match statistics(group, ID) {
            Some(Statistics::ByteArray(bounds)) => {
                self.any_between(bounds.min_opt().map(ByteArray::data), bounds.max_opt().map(ByteArray::data))
            }
            _ => true,
        }
    }

    fn places_in(&self, batch: &RecordBatch) -> Vec<IdPlace> {
        let ids = batch.column(0).as_string::<i32>();
        let rows = ids.iter().flatten().zip(places_of(batch, 1));
        let found = rows.filter(|(id, _)| self.ids.contains(*id));
        found.map(|(id, (partition, offset))| IdPlace { id: id.to_owned(), partition, offset }).collect()
    }
}

/// Partition and offset of each row, which are two columns side by side.
fn places_of(batch: &RecordBatch, first: usize) -> impl Iterator<Item = (Partition, Offset)> {
    let integers = |column: usize| batch.column(column).as_primitive::<Int64Type>().values();
    integers(first).iter().zip(integers(first + 1)).map(|(&partition, &offset)| (partition as Partition, offset))
}

/// What bounds `_partition` (0) or `_offset` (1) in a file, by the Delta log.
fn integer_bounds(file: &CommittedFile, column: usize) -> (Option<i64>, Option<i64>) {
    let integer = |value: Option<&ScalarValue>| match value {
        Some(ScalarValue::Int64(integer)) => *integer,
        _ => None,
    };
    let bounds = file.bounds.column_statistics.get(column);
    let bound = |of: fn(&ColumnStatistics) -> &Precision<ScalarValue>| integer(bounds.and_then(|b| of(b).get_value()));
    (bound(|bounds| &bounds.min_value), bound(|bounds| &bounds.max_value))
}

fn integer_bounds_of_group(group: &RowGroupMetaData, column: usize) -> (Option<i64>, Option<i64>) {
    match statistics(group, COLUMNS[1 + column]) {
        Some(Statistics::Int64(bounds)) => (bounds.min_opt().copied(), bounds.max_opt().copied()),
        _ => (None, None),
    }
}

fn statistics<'a>(group: &'a RowGroupMetaData, name: &str) -> Option<&'a Statistics> {
    group.columns().iter().find(|column| column.column_path().string() == name)?.statistics()
}

/// Reads some of [`COLUMNS`] of those row groups of a file that `may_hold` says; stops when `take` says so and answers
/// what it said last.
fn read(
    place: &Place,
    file: &CommittedFile,
    columns: &[&str],
    may_hold: impl Fn(&RowGroupMetaData) -> bool,
    mut take: impl FnMut(RecordBatch) -> bool,
) -> Result<bool> {
    let doing = || format!("read the ids in `{}`", place.shown(&file.relative));
    let select = |metadata: &ParquetMetaData| {
        let groups = metadata.row_groups().iter().enumerate().filter(|(_, group)| may_hold(group));
        let groups = Some(groups.map(|(place, _)| place).collect());
        let columns = Some(columns.iter().map(|&name| name.to_owned()).collect());
        Selection { columns, groups, batch_rows: BATCH_ROWS }
    };
    let schema = schema(columns);
    for batch in batches(place, file, "read the ids in", select)? {
        let batch = batch?;
        let found = columns.iter().map(|name| column(&batch, name, &doing())).collect::<Result<Vec<_>>>()?;
        let renamed = RecordBatch::try_new(schema.clone(), found);
        if !take(renamed.map_err(|error| Error::stop(doing()).because(error))?) {
            return Ok(false);
        }
    }
    Ok(true)
}
