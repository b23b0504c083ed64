//! Proofs 2 and 4: rows and dead letters against bronze, and the balance.

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use arrow::record_batch::RecordBatch;
use contract::{
    ColdTable, LogRecord, Offset, OffsetRange, Partition, Period, Positions, RawRecord, RecordId, Result, RowSchema,
    RowsBuilder, SourceId, Span, Timestamp,
};
use futures::{StreamExt, TryStreamExt};

use super::{Proof, below, bronze_table, silver_table};
use crate::{Engines, Recipe};

/// Rows mended in one commit.
const MENDED_AT_ONCE: usize = 10_000;

/// What can be mended from bronze.
#[derive(Default)]
pub(super) struct Remedy {
    /// Records of bronze that are nowhere.
    missing: Vec<(Partition, Offset)>,
    /// Rows without a record, or a second row of an id.
    surplus: Vec<(Partition, Offset)>,
    /// Dead letters that stand more than once or without a record.
    surplus_dead: Vec<(Partition, Offset)>,
}

pub(super) async fn prove(engines: &Engines, schema: &RowSchema, marks: &Positions) -> Result<(Proof, Proof, Remedy)> {
    let (source, period) = (schema.source, schema.period.column());
    let mut proof = Proof::new("silver");
    let mut remedy = Remedy::default();
    let (bronze, silver) = (bronze_table(source), silver_table(source));
    let dead = format!("(SELECT * FROM ops.dead_letters WHERE source = '{source}')");
    let (b, s, d) = (below(marks, "b"), below(marks, "s"), below(marks, "d"));

    let same = same_id(schema.period);
    let nowhere = format!(
        "SELECT DISTINCT b._partition, b._offset, b.id FROM {bronze} b \
         LEFT JOIN (SELECT DISTINCT _id, {period} FROM {silver} s WHERE {s}) s ON {same} \
         LEFT JOIN {dead} d ON d._partition = b._partition AND d._offset = b._offset \
         WHERE {b} AND s._id IS NULL AND d._offset IS NULL"
    );
    for (partition, offset, id) in places(engines, &nowhere).await? {
        proof.differs(|| {
            format!("`{id}` (partition {partition}, offset {offset}) is neither in `{silver}` nor in the dead letters")
        });
        remedy.missing.push((partition, offset));
    }
    let twice = format!(
        "SELECT _partition, _offset, _id FROM (SELECT s._partition, s._offset, s._id, \
         row_number() OVER (PARTITION BY s.{period}, s._id ORDER BY s._offset) AS n FROM {silver} s WHERE {s}) WHERE n > 1"
    );
    for (partition, offset, id) in places(engines, &twice).await? {
        proof.differs(|| {
            format!("`{id}` is a row of `{silver}` more than once, again at partition {partition}, offset {offset}")
        });
        remedy.surplus.push((partition, offset));
    }
    let without = format!(
        "SELECT s._partition, s._offset, s._id FROM {silver} s LEFT JOIN {bronze} b \
         ON b._partition = s._partition AND b._offset = s._offset AND b.id = s._id WHERE {s} AND b._offset IS NULL"
    );
    for (partition, offset, id) in places(engines, &without).await? {
        proof.differs(|| {
            format!("`{id}` of `{silver}` (partition {partition}, offset {offset}) has no record in `{bronze}`")
        });
        remedy.surplus.push((partition, offset));
    }
    let dead_wrong = format!(
        "SELECT d._partition, d._offset, max(d.id) FROM {dead} d LEFT JOIN {bronze} b \
         ON b._partition = d._partition AND b._offset = d._offset AND b.id = d.id WHERE {d} \
         GROUP BY 1, 2 HAVING count(*) > 1 OR count(b._offset) = 0"
    );
    for (partition, offset, id) in places(engines, &dead_wrong).await? {
        proof.differs(|| format!("the dead letter `{id}` (partition {partition}, offset {offset}) stands more than once or has no record in `{bronze}`"));
        remedy.surplus_dead.push((partition, offset));
    }
    let balance = balance(engines, schema, marks).await?;
    proof.counts = balance.counts.clone();
    Ok((proof, balance, remedy))
}

/// That `b` of bronze and `s` of silver have the same id in the same period.
fn same_id(period: Period) -> String {
    let of_record = match period {
        Period::Day => "CAST(b.event_time AS DATE)",
        Period::Month => "CAST(date_trunc('month', b.event_time) AS DATE)",
    };
    format!("s._id = b.id AND s.{} = {of_record}", period.column())
}

async fn balance(engines: &Engines, schema: &RowSchema, marks: &Positions) -> Result<Proof> {
    let mut proof = Proof::new("balance");
    let (source, same) = (schema.source, same_id(schema.period));
    let (bronze, silver) = (bronze_table(source), silver_table(source));
    let (b, s, d) = (below(marks, "b"), below(marks, "s"), below(marks, "d"));
    let duplicates = format!(
        "SELECT count(*) FROM (SELECT b._partition, b._offset FROM {bronze} b JOIN {silver} s \
         ON {same} WHERE {b} AND {s} \
         GROUP BY 1, 2 HAVING max(CASE WHEN s._partition = b._partition AND s._offset = b._offset THEN 1 ELSE 0 END) = 0 \
         AND max(CASE WHEN s._offset < b._offset OR s._partition <> b._partition THEN 1 ELSE 0 END) = 1) x \
         LEFT JOIN (SELECT * FROM ops.dead_letters WHERE source = '{source}') d \
         ON d._partition = x._partition AND d._offset = x._offset WHERE d._offset IS NULL"
    );
    let queries = [
        ("records", format!("SELECT count(*) FROM {bronze} b WHERE {b}")),
        ("rows", format!("SELECT count(*) FROM {silver} s WHERE {s}")),
        ("duplicates", duplicates),
        ("rejects", format!("SELECT count(*) FROM ops.dead_letters d WHERE source = '{source}' AND {d}")),
    ];
    for (name, query) in queries {
        proof.counts.insert(name, count(engines, &query).await?);
    }
    let [records, rows, duplicates, rejects] =
        ["records", "rows", "duplicates", "rejects"].map(|name| proof.counts[name]);
    if records != rows + duplicates + rejects {
        proof
            .differs(|| format!("{records} records are not {rows} rows + {duplicates} duplicates + {rejects} rejects"));
    }
    Ok(proof)
}

async fn count(engines: &Engines, query: &str) -> Result<u64> {
    let batches: Vec<RecordBatch> = engines.cold.sql(query).await?.batches.try_collect().await?;
    let first = batches.iter().find(|batch| batch.num_rows() > 0);
    Ok(first.map_or(0, |batch| batch.column(0).as_primitive::<Int64Type>().value(0) as u64))
}

/// Partition, offset and id of each answered row.
async fn places(engines: &Engines, query: &str) -> Result<Vec<(Partition, Offset, String)>> {
    let mut answer = engines.cold.sql(query).await?.batches;
    let mut places = Vec::new();
    while let Some(batch) = answer.next().await {
        let batch = batch?;
        let ids = arrow::compute::cast(batch.column(2), &arrow::datatypes::DataType::Utf8)
            .map_err(|cause| contract::Error::stop("read ids").because(cause))?;
        let ids = ids.as_string::<i32>();
        places.extend(
            crate::rebuild::places(&batch).zip(ids).map(|((p, o), id)| (p, o, id.unwrap_or_default().to_owned())),
        );
    }
    Ok(places)
}

/// Processes anew what is missing, from the bytes in bronze, and removes what is too much.
pub(super) async fn repair(engines: &Engines, recipe: Recipe, remedy: &Remedy) -> Result<Vec<String>> {
    let source = recipe.schema.source;
    let mut done = Vec::new();
    if !remedy.surplus.is_empty() {
        engines.cold.mend(source, ColdTable::Silver, &remedy.surplus, None).await?;
        done.push(format!("removed {} rows from `silver.{source}`", remedy.surplus.len()));
    }
    if !remedy.surplus_dead.is_empty() {
        engines.cold.mend(source, ColdTable::DeadLetters, &remedy.surplus_dead, None).await?;
        done.push(format!(
            "removed dead letters at {} places that stood twice or had no record",
            remedy.surplus_dead.len()
        ));
    }
    let missing: Vec<_> = remedy.missing.iter().chain(&remedy.surplus_dead).copied().collect();
    for places in missing.chunks(MENDED_AT_ONCE) {
        let mut builder = RowsBuilder::new(recipe.schema);
        for at in bronze_records(engines, source, places).await? {
            // A reject is noted by the builder, and goes to the dead letters below.
            builder.record(&at, recipe.processor).unwrap_or_default();
        }
        let rows = builder.finish(Span { source, ranges: Vec::<OffsetRange>::new() });
        engines.cold.mend(source, ColdTable::Silver, &[], Some(&rows.silver)).await?;
        engines.cold.mend(source, ColdTable::DeadLetters, &[], Some(&rows.dead_letters)).await?;
        done.push(format!(
            "made {} rows and {} dead letters from `bronze.{source}`",
            rows.silver.num_rows(),
            rows.dead_letters.num_rows()
        ));
    }
    Ok(done)
}

async fn bronze_records(engines: &Engines, source: SourceId, places: &[(Partition, Offset)]) -> Result<Vec<LogRecord>> {
    let wanted: Vec<_> = places.iter().map(|(p, o)| format!("(_partition = {p} AND _offset = {o})")).collect();
    let schema = contract::bronze_schema();
    let mut records = Vec::new();
    for wanted in wanted.chunks(500) {
        let query = format!(
            "SELECT _partition, _offset, id, event_time, fetched_at, appended_at, body FROM {} WHERE {} ORDER BY 1, 2",
            bronze_table(source),
            wanted.join(" OR ")
        );
        let mut answer = engines.cold.sql(&query).await?.batches;
        while let Some(batch) = answer.next().await {
            records.extend(log_records(&crate::rebuild::as_schema(&batch?, &schema)?));
        }
    }
    Ok(records)
}

fn log_records(batch: &RecordBatch) -> Vec<LogRecord> {
    let time = |column: usize, row: usize| {
        Timestamp(batch.column(column).as_primitive::<arrow::datatypes::TimestampMicrosecondType>().value(row))
    };
    let at = |(row, (partition, offset)): (usize, (Partition, Offset))| LogRecord {
        partition,
        offset,
        appended_at: time(5, row),
        record: RawRecord {
            id: RecordId::from(batch.column(2).as_string::<i32>().value(row)),
            event_time: time(3, row),
            fetched_at: time(4, row),
            body: bytes::Bytes::copy_from_slice(batch.column(6).as_binary::<i32>().value(row)),
        },
    };
    crate::rebuild::places(batch).enumerate().map(at).collect()
}
