//! Filling the hot store from the cold one, where the log no longer has what the hot store lacks: it was
//! deleted, damaged, or away for longer than the log keeps records; or the log itself was lost.

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::{Int64Type, SchemaRef, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use contract::{
    Error, Extent, LogRecord, Offset, OffsetRange, Partition, Positions, RawRecord, RecordId, Result, Rows,
    RowsBuilder, Span, TableStream, Timestamp,
};
use futures::StreamExt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::retry::until_done;
use crate::{Engines, Recipe};

/// Offsets of a first step; further steps follow from the size of the rows.
pub(crate) const OFFSETS_FIRST: Offset = 20_000;
/// Bytes of rows that are copied, and committed, at once. Rows are written whole steps at a time, so a step that
/// exceeds it is halved.
const STEP_BYTES_MAX: usize = 64 << 20;

/// The runs of offsets that the hot store can have from `silver` only: below the start of the log, or, where the log
/// ends before what the cold store has, all that the cold store has; of the partitions that `hot` names.
///
/// # Errors
/// `Change` when the cold store lacks what the log has let go of.
pub(crate) fn missing_in_hot(
    recipe: Recipe,
    extent: &Extent,
    hot: &Positions,
    cold: &Positions,
) -> Result<Vec<OffsetRange>> {
    let mut missing = Vec::new();
    for (partition, of_log) in (0..).zip(&extent.partitions) {
        let Some(&from) = hot.0.get(&partition) else { continue };
        let in_cold = cold.of(partition);
        if in_cold < of_log.start {
            return Err(Error::change(format!(
                "start `{}`: offsets {in_cold}..{} of partition {partition} are neither in the log nor in the cold \
                 store; bring back the folder `cold` of the data directory, or begin with an empty data directory",
                recipe.schema.source, of_log.start
            )));
        }
        let to = if of_log.end < in_cold { in_cold } else { of_log.start };
        if from < to {
            missing.push(OffsetRange { partition, from, to });
        }
    }
    Ok(missing)
}

/// Copies runs of offsets from `silver` into the hot store; ends early when `stop` is said.
pub(crate) async fn fill_hot(
    engines: &Engines,
    recipe: Recipe,
    missing: &[OffsetRange],
    committed: &watch::Sender<Positions>,
    stop: &CancellationToken,
) -> Result<()> {
    let source = recipe.schema.source;
    let what = format!("{source} hot");
    for range in missing {
        let OffsetRange { partition, mut from, to } = *range;
        info!(source = source.0, partition, from, to, "filling the hot store from `silver.{source}`");
        let mut step = OFFSETS_FIRST;
        while from < to && !stop.is_cancelled() {
            let part = OffsetRange { partition, from, to: to.min(from.saturating_add(step)) };
            let Some((silver, bytes)) = read_step(engines, recipe, part).await? else {
                step = (step / 2).max(1);
                continue;
            };
            let empty = RowsBuilder::new(recipe.schema).finish(Span { source, ranges: vec![part] });
            let rows = Rows { silver, ..empty };
            until_done(&what, &engines.troubles, stop, || engines.hot.write(&rows)).await?;
            let next = until_done(&what, &engines.troubles, stop, || engines.hot.commit(source)).await?;
            committed.send_replace(next);
            from = part.to;
            if bytes < STEP_BYTES_MAX / 4 {
                step = step.saturating_mul(2);
            }
        }
    }
    Ok(())
}

/// The rows of some offsets that the hot store keeps at present, and their bytes; none if they are more than a step may
/// have, unless they are of one offset.
async fn read_step(engines: &Engines, recipe: Recipe, range: OffsetRange) -> Result<Option<(RecordBatch, usize)>> {
    let OffsetRange { partition, from, to } = range;
    let first_day = engines.hot.first_day(engines.clock.now());
    let kept = first_day.map_or(String::new(), |day| format!(" AND event_time >= TIMESTAMP '{day}T00:00:00Z'"));
    let filter = format!("_partition = {partition} AND _offset >= {from} AND _offset < {to}{kept}");
    let schema = recipe.schema.arrow();
    let rows = silver(engines, recipe, &filter).await?;
    let Some((read, bytes)) = read_within(rows, &schema, STEP_BYTES_MAX, to - from > 1).await? else { return Ok(None) };
    Ok(Some((join(&schema, &read)?, bytes)))
}

/// Batches in types of their own, and their bytes; none if they are more than `bytes_max` where there may be fewer.
pub(crate) async fn read_within(
    mut rows: TableStream,
    schema: &SchemaRef,
    bytes_max: usize,
    may_be_fewer: bool,
) -> Result<Option<(Vec<RecordBatch>, usize)>> {
    let (mut read, mut bytes) = (Vec::new(), 0);
    while let Some(batch) = rows.batches.next().await {
        let batch = as_schema(&batch?, schema)?;
        bytes += batch.get_array_memory_size();
        if bytes > bytes_max && may_be_fewer {
            return Ok(None);
        }
        read.push(batch);
    }
    Ok(Some((read, bytes)))
}

/// Rows of `silver.SOURCE`, in no order.
pub(crate) async fn silver(engines: &Engines, recipe: Recipe, filter: &str) -> Result<TableStream> {
    let schema = recipe.schema.arrow();
    let names: Vec<_> = schema.fields().iter().map(|field| format!("\"{}\"", field.name())).collect();
    let query = format!("SELECT {} FROM silver.{} WHERE {filter}", names.join(", "), recipe.schema.source);
    engines.cold.scan(&query).await
}

/// Batches as one.
pub(crate) fn join(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<RecordBatch> {
    arrow::compute::concat_batches(schema, batches).map_err(|cause| Error::stop("join rows").because(cause))
}

/// The batch with the types of `schema`, by place: engines may answer with views or other field names.
pub(crate) fn as_schema(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let wrong = |cause| Error::stop("read rows of a table in their own types").because(cause);
    let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| cast(column, field.data_type()));
    let columns = columns.collect::<Result<Vec<_>, _>>().map_err(wrong)?;
    RecordBatch::try_new(schema.clone(), columns).map_err(wrong)
}

/// Partition and offset of each row; they are the first two columns.
pub(crate) fn places(batch: &RecordBatch) -> impl Iterator<Item = (Partition, Offset)> + '_ {
    let column = |place: usize| batch.column(place).as_primitive::<Int64Type>().values();
    column(0).iter().zip(column(1)).map(|(&partition, &offset)| (partition as Partition, offset))
}

/// Records of bronze, of batches in its own types.
pub(crate) fn log_records(batch: &RecordBatch) -> Vec<LogRecord> {
    let time = |column: usize, row: usize| {
        Timestamp(batch.column(column).as_primitive::<TimestampMicrosecondType>().value(row))
    };
    let at = |(row, (partition, offset)): (usize, (Partition, Offset))| LogRecord {
        partition,
        offset,
        appended_at: time(5, row),
        record: RawRecord {
            id: RecordId::from(batch.column(2).as_string::<i32>().value(row)),
            event_time: time(3, row),
            fetched_at: time(4, row),
            body: Bytes::copy_from_slice(batch.column(6).as_binary::<i32>().value(row)),
        },
    };
    places(batch).enumerate().map(at).collect()
}
