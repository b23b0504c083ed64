//! Filling the hot store from the cold one, where the log no longer has what the hot store lacks: it was
//! deleted, damaged, or away for longer than the log keeps records.

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::{Int64Type, SchemaRef};
use arrow::record_batch::RecordBatch;
use contract::{Error, Offset, OffsetRange, Partition, Result, Rows, RowsBuilder, Span, Topic};
use futures::TryStreamExt;
use tracing::info;

use crate::{Engines, Recipe};

/// Offsets that are copied at once: about as many rows as a batch from the log.
const OFFSETS_AT_ONCE: Offset = 20_000;

/// Copies from `silver` into the hot store what lies below the start of the log.
pub(crate) async fn catch_up_hot(engines: &Engines, recipe: Recipe) -> Result<()> {
    let source = recipe.schema.source;
    let extent = engines.log.extent(&Topic::raw(source)).await?;
    let (hot, cold) = (engines.hot.committed(source).await?, engines.cold.committed(source).await?);
    for (&partition, &start) in &extent.start().0 {
        let from = hot.of(partition);
        if from >= start {
            continue;
        }
        if cold.of(partition) < start {
            let doing = format!(
                "start `{source}`: offsets {}..{start} of partition {partition} are neither in the log nor in the cold store",
                cold.of(partition)
            );
            return Err(Error::stop(doing));
        }
        info!(source = source.0, partition, from, to = start, "filling the hot store from `silver.{source}`");
        copy(engines, recipe, OffsetRange { partition, from, to: start }).await?;
    }
    Ok(())
}

async fn copy(engines: &Engines, recipe: Recipe, range: OffsetRange) -> Result<()> {
    let source = recipe.schema.source;
    let mut from = range.from;
    while from < range.to {
        let to = (from + OFFSETS_AT_ONCE).min(range.to);
        let part = OffsetRange { from, to, ..range };
        let silver = silver_rows(engines, recipe, part).await?;
        let span = Span { source, ranges: vec![part] };
        let empty = RowsBuilder::new(recipe.schema).finish(span);
        engines.hot.write(&Rows { silver, ..empty }).await?;
        from = to;
    }
    engines.hot.commit(source).await.map(drop)
}

async fn silver_rows(engines: &Engines, recipe: Recipe, range: OffsetRange) -> Result<RecordBatch> {
    let OffsetRange { partition, from, to } = range;
    let filter = format!("_partition = {partition} AND _offset >= {from} AND _offset < {to}");
    read_silver(engines, recipe, &filter).await
}

/// Rows of `silver.SOURCE` in the form that a processor makes them.
pub(crate) async fn read_silver(engines: &Engines, recipe: Recipe, filter: &str) -> Result<RecordBatch> {
    let schema = recipe.schema.arrow();
    let names: Vec<_> = schema.fields().iter().map(|field| format!("\"{}\"", field.name())).collect();
    let query =
        format!("SELECT {} FROM silver.{} WHERE {filter} ORDER BY _offset", names.join(", "), recipe.schema.source);
    let batches: Vec<RecordBatch> = engines.cold.sql(&query).await?.batches.try_collect().await?;
    let batches = batches.iter().map(|batch| as_schema(batch, &schema)).collect::<Result<Vec<_>>>()?;
    arrow::compute::concat_batches(&schema, &batches).map_err(|cause| Error::stop("join rows").because(cause))
}

/// The batch with the types of `schema`, by place: engines may answer with views or other field names.
pub(crate) fn as_schema(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let wrong = |cause| Error::stop("read rows of `silver` in their own types").because(cause);
    let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| cast(column, field.data_type()));
    let columns = columns.collect::<Result<Vec<_>, _>>().map_err(wrong)?;
    RecordBatch::try_new(schema.clone(), columns).map_err(wrong)
}

/// Partition and offset of each row; they are the first two columns.
pub(crate) fn places(batch: &RecordBatch) -> impl Iterator<Item = (Partition, Offset)> + '_ {
    let column = |place: usize| batch.column(place).as_primitive::<Int64Type>().values();
    column(0).iter().zip(column(1)).map(|(&partition, &offset)| (partition as Partition, offset))
}
