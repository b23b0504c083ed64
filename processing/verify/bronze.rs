//! Proof 1: bronze against the log.

use std::collections::BTreeMap;
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use contract::{ColdTable, LogRecord, Offset, OffsetRange, Partition, Positions, Result, SourceId, Topic};
use futures::StreamExt;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{Proof, bronze_table};
use crate::Engines;

/// Offsets judged at once: 8 bytes of memory each.
const OFFSETS_AT_ONCE: Offset = 4_000_000;
/// Bytes of records read from the log at once.
const READ_BYTES_MAX: usize = 8 << 20;

/// What can be mended from the log.
#[derive(Default)]
pub(super) struct Remedy {
    /// Stand more than once or with other bytes: to be replaced.
    wrong: Vec<(Partition, Offset)>,
    /// Are not there.
    missing: Vec<(Partition, Offset)>,
}

pub(super) async fn prove(engines: &Engines, source: SourceId, marks: &Positions) -> Result<(Proof, Remedy)> {
    let mut proof = Proof::new("bronze");
    let mut remedy = Remedy::default();
    let extent = engines.log.extent(&Topic::raw(source)).await?;
    for (&partition, &mark) in &marks.0 {
        let log_start = extent.start().of(partition);
        let mut from = 0;
        while from < mark {
            let range = OffsetRange { partition, from, to: (from + OFFSETS_AT_ONCE).min(mark) };
            window(engines, source, range, log_start, (&mut proof, &mut remedy)).await?;
            from = range.to;
        }
    }
    Ok((proof, remedy))
}

/// Judges one run of offsets.
async fn window(
    engines: &Engines,
    source: SourceId,
    range: OffsetRange,
    log_start: Offset,
    (proof, remedy): (&mut Proof, &mut Remedy),
) -> Result<()> {
    let partition = range.partition;
    let mut hashes = vec![0_u64; (range.to - range.from) as usize];
    read_bronze(engines, source, range, &mut hashes, proof, remedy).await?;
    for (offset, _) in (range.from..).zip(&hashes).filter(|(_, hash)| **hash == 0) {
        proof.differs(|| format!("offset {offset} of partition {partition} is missing in `bronze.{source}`"));
        remedy.missing.push((partition, offset));
    }
    let mut at = Positions([(partition, range.from.max(log_start))].into());
    while at.of(partition) < range.to {
        let batch = engines.log.read(&Topic::raw(source), &at, READ_BYTES_MAX, Duration::ZERO).await?;
        for lost in &batch.lost {
            let OffsetRange { from, to, .. } = lost.range;
            proof.differs(|| {
                format!("offsets {from}..{to} of partition {partition} cannot be read from the log: {}", lost.reason)
            });
        }
        for record in batch.records.iter().filter(|record| record.offset < range.to) {
            *proof.counts.entry("log_records").or_default() += 1;
            let stored = hashes[(record.offset - range.from) as usize];
            if stored != 0 && stored != hash(record.record.id.as_str(), &record.record.body) {
                let offset = record.offset;
                proof.differs(|| {
                    format!(
                        "offset {offset} of partition {partition} has other bytes in `bronze.{source}` than in the log"
                    )
                });
                remedy.wrong.push((partition, offset));
            }
        }
        if batch.next == at {
            let end = at.of(partition);
            proof.differs(|| {
                format!("the log of partition {partition} ends at {end}, but `bronze.{source}` goes to {}", range.to)
            });
            break;
        }
        at = batch.next;
    }
    Ok(())
}

async fn read_bronze(
    engines: &Engines,
    source: SourceId,
    range: OffsetRange,
    hashes: &mut [u64],
    proof: &mut Proof,
    remedy: &mut Remedy,
) -> Result<()> {
    let OffsetRange { partition, from, to } = range;
    let table = bronze_table(source);
    let query = format!(
        "SELECT _offset, id, body FROM {table} WHERE _partition = {partition} AND _offset >= {from} AND _offset < {to}"
    );
    let mut batches = engines.cold.sql(&query).await?.batches;
    while let Some(batch) = batches.next().await {
        for (offset, id, body) in plain_columns(&batch?)? {
            *proof.counts.entry("bronze_records").or_default() += 1;
            let place = &mut hashes[(offset - from) as usize];
            if *place != 0 {
                proof
                    .differs(|| format!("offset {offset} of partition {partition} stands more than once in `{table}`"));
                remedy.wrong.push((partition, offset));
            }
            *place = hash(&id, &body);
        }
    }
    Ok(())
}

/// Offset, id and body, whatever layout the engine answers with.
fn plain_columns(batch: &RecordBatch) -> Result<Vec<(Offset, String, Vec<u8>)>> {
    use arrow::datatypes::{DataType, Field, Schema};
    let schema = Schema::new(vec![
        Field::new("_offset", DataType::Int64, true),
        Field::new("id", DataType::Utf8, true),
        Field::new("body", DataType::Binary, true),
    ]);
    let batch = crate::rebuild::as_schema(batch, &schema.into())?;
    let (offsets, ids, bodies) = (
        batch.column(0).as_primitive::<Int64Type>(),
        batch.column(1).as_string::<i32>(),
        batch.column(2).as_binary::<i32>(),
    );
    Ok((0..batch.num_rows())
        .map(|row| (offsets.value(row), ids.value(row).to_owned(), bodies.value(row).to_vec()))
        .collect())
}

/// Never zero, which stands for "not there".
fn hash(id: &str, body: &[u8]) -> u64 {
    xxh3_64_with_seed(body, xxh3_64_with_seed(id.as_bytes(), 0)).max(1)
}

/// Puts back from the log what is missing or wrong in bronze; what the log no longer has stays as it is.
pub(super) async fn repair(engines: &Engines, source: SourceId, remedy: &Remedy) -> Result<Vec<String>> {
    let mut places: BTreeMap<Partition, Vec<Offset>> = BTreeMap::new();
    for &(partition, offset) in remedy.wrong.iter().chain(&remedy.missing) {
        places.entry(partition).or_default().push(offset);
    }
    let extent = engines.log.extent(&Topic::raw(source)).await?;
    let mut found: Vec<LogRecord> = Vec::new();
    for (partition, mut offsets) in places {
        offsets.sort_unstable();
        offsets.dedup();
        for offset in offsets.into_iter().filter(|&offset| offset >= extent.start().of(partition)) {
            let at = Positions([(partition, offset)].into());
            let batch = engines.log.read(&Topic::raw(source), &at, 1, Duration::ZERO).await?;
            found.extend(batch.records.into_iter().filter(|record| record.offset == offset).take(1));
        }
    }
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let rows = contract::bronze_batch(&found);
    let replaced: Vec<_> = found.iter().map(|record| (record.partition, record.offset)).collect();
    engines.cold.mend(source, ColdTable::Bronze, &replaced, Some(&rows)).await?;
    Ok(vec![format!("put {} records from the log into `bronze.{source}`", replaced.len())])
}
