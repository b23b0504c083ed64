//! The ids of committed rows, read from the files of their day and nothing else.

use std::collections::HashSet;
use std::fs::File;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use contract::{Day, Error, IdPlace, Partition, Result, TableStream};
use datafusion::common::ScalarValue;
use futures::stream;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::statistics::Statistics;

use crate::layout::PartitionValue;
use crate::store::{Source, finished};
use crate::table::CommittedFile;

/// Batches of ids that wait for who asked; with the one being read this bounds the memory.
const QUEUED_BATCHES_MAX: usize = 2;

/// Rows of a batch of ids: about 300 KB.
const BATCH_ROWS: usize = 8_192;

/// The id column of silver.
const ID: &str = "_id";

/// All ids of the period that starts at a day: `id`, `_partition`, `_offset`.
pub(crate) fn ids(source: &Source, day: Day) -> TableStream {
    let files = files_of(source, day);
    let (send, receive) = tokio::sync::mpsc::channel(QUEUED_BATCHES_MAX);
    tokio::task::spawn_blocking(move || {
        for file in files {
            let read = read(&file, None, |batch| send.blocking_send(Ok(batch)).is_ok());
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
    TableStream { schema: schema(), batches: Box::pin(batches) }
}

/// Where some ids of the period that starts at a day stand.
pub(crate) async fn find_ids(source: &Source, day: Day, ids: &[&str]) -> Result<Vec<IdPlace>> {
    let (Some(low), Some(high)) = (ids.iter().min(), ids.iter().max()) else { return Ok(Vec::new()) };
    let range = ((*low).to_owned(), (*high).to_owned());
    let wanted: HashSet<String> = ids.iter().map(|&id| id.to_owned()).collect();
    let files = files_of(source, day);
    let find = move || {
        let mut places = Vec::new();
        for file in files.iter().filter(|file| overlaps(file, &range)) {
            read(file, Some(&range), |batch| {
                places.extend(places_in(&batch, &wanted));
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

fn schema() -> SchemaRef {
    let integer = |name| Field::new(name, DataType::Int64, false);
    Arc::new(Schema::new(vec![Field::new("id", DataType::Utf8, false), integer("_partition"), integer("_offset")]))
}

fn places_in(batch: &RecordBatch, wanted: &HashSet<String>) -> Vec<IdPlace> {
    let ids = batch.column(0).as_string::<i32>();
    let integers = |place: usize| batch.column(place).as_primitive::<Int64Type>();
    let (partitions, offsets) = (integers(1), integers(2));
    let found = (0..batch.num_rows()).filter(|&row| wanted.contains(ids.value(row)));
    found
        .map(|row| IdPlace {
            id: ids.value(row).to_owned(),
            partition: partitions.value(row) as Partition,
            offset: offsets.value(row),
        })
        .collect()
}

/// Whether ids between both may stand in the file, by the Delta log.
fn overlaps(file: &CommittedFile, (low, high): &(String, String)) -> bool {
    let Some(bounds) = file.bounds.column_statistics.get(2) else { return true };
    let text = |value: Option<&ScalarValue>| match value {
        Some(ScalarValue::Utf8(Some(text))) => Some(text.clone()),
        _ => None,
    };
    let least = text(bounds.min_value.get_value());
    let greatest = text(bounds.max_value.get_value());
    least.is_none_or(|least| least <= *high) && greatest.is_none_or(|greatest| greatest >= *low)
}

/// Reads the ids of a file, of those row groups only that may hold ids between `range`; stops when `take` says so
/// and answers what it said last.
fn read(
    file: &CommittedFile,
    range: Option<&(String, String)>,
    mut take: impl FnMut(RecordBatch) -> bool,
) -> Result<bool> {
    let doing = || format!("read the ids in `{}`", file.path.display());
    let opened = File::open(&file.path).map_err(|error| Error::stop(doing()).because(error))?;
    let failed = |error: ParquetError| Error::stop(doing()).because(error);
    let builder = ParquetRecordBatchReaderBuilder::try_new(opened).map_err(failed)?;
    let groups = builder.metadata().row_groups().iter().enumerate();
    let groups = groups.filter(|(_, group)| range.is_none_or(|range| group_overlaps(group, range)));
    let groups: Vec<usize> = groups.map(|(place, _)| place).collect();
    let mask = ProjectionMask::columns(builder.parquet_schema(), [ID, "_partition", "_offset"]);
    let reader = builder.with_projection(mask).with_row_groups(groups).with_batch_size(BATCH_ROWS).build();
    for batch in reader.map_err(failed)? {
        let batch = batch.map_err(|error| Error::stop(doing()).because(error))?;
        let columns: Option<Vec<_>> =
            [ID, "_partition", "_offset"].iter().map(|name| batch.column_by_name(name).cloned()).collect();
        let columns = columns.ok_or_else(|| Error::stop(format!("{}: a column is missing", doing())))?;
        let renamed = RecordBatch::try_new(schema(), columns);
        if !take(renamed.map_err(|error| Error::stop(doing()).because(error))?) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn group_overlaps(group: &RowGroupMetaData, (low, high): &(String, String)) -> bool {
    let column = group.columns().iter().find(|column| column.column_path().string() == ID);
    let Some(Statistics::ByteArray(bounds)) = column.and_then(|column| column.statistics()) else { return true };
    bounds.min_opt().is_none_or(|least| least.data() <= high.as_bytes())
        && bounds.max_opt().is_none_or(|greatest| greatest.data() >= low.as_bytes())
}
