//! From a harvest to the batches of its frame, on as many cores as it pays.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::available_parallelism;

use contract::{Coverage, Error, Harvest, Partition, RawRecord, RecordId, Result, Timestamp, Topic, partition_of};

use crate::codec::{Compression, EncoderPool};
use crate::frame::{CURSOR_BYTES_MAX, FRAME_BYTES_MAX};
use crate::record_batch::{self, EncodedBatch};

/// Below this a harvest is encoded where it is: about 0.1 ms of work, little more than handing it over costs.
const INLINE_BYTES_MAX: usize = 32 << 10;

/// Bytes for which another core is worth its handing over.
const TASK_BYTES_MIN: usize = 128 << 10;

/// Records that go into one batch.
struct Part {
    topic: Topic,
    partition: Partition,
    records: Vec<RawRecord>,
    bytes: usize,
}

/// The batches of a harvest, one per partition it has records for.
pub(crate) async fn encode(
    harvest: &Harvest,
    partitions: Partition,
    appended_at: Timestamp,
    compression: Compression,
    pool: &Arc<EncoderPool>,
) -> Result<Vec<(Topic, Partition, EncodedBatch)>> {
    let parts = split(harvest, partitions, appended_at)?;
    let bytes: usize = parts.iter().map(|part| part.bytes).sum();
    let encode_all = move |parts: Vec<Part>, pool: &EncoderPool| -> Vec<_> {
        pool.with(|encoder| {
            let encode = |part: Part| {
                let batch = record_batch::encode(&part.records, appended_at, compression, encoder);
                (part.topic, part.partition, batch)
            };
            parts.into_iter().map(encode).collect()
        })
    };
    if bytes <= INLINE_BYTES_MAX {
        return Ok(if parts.is_empty() { Vec::new() } else { encode_all(parts, pool) });
    }
    let tasks: Vec<_> = share_out(parts, bytes)
        .into_iter()
        .map(|parts| {
            let pool = Arc::clone(pool);
            tokio::task::spawn_blocking(move || encode_all(parts, &pool))
        })
        .collect();
    let mut batches = Vec::new();
    for task in tasks {
        let encoded = task.await;
        batches.extend(encoded.map_err(|error| Error::stop("encode a harvest for the log").because(error))?);
    }
    Ok(batches)
}

/// Sorts the records by partition, the coverage to its own topic, and refuses what is too large.
fn split(harvest: &Harvest, partitions: Partition, appended_at: Timestamp) -> Result<Vec<Part>> {
    let cursor_bytes = harvest.collector.0.len() + harvest.cursor.0.len();
    if cursor_bytes > CURSOR_BYTES_MAX {
        let collector = &harvest.collector;
        return Err(Error::change(format!(
            "append a cursor of `{collector}` with {cursor_bytes} bytes (at most {CURSOR_BYTES_MAX})"
        )));
    }
    let mut parts = BTreeMap::new();
    let mut add = |topic: &Topic, partition, record: RawRecord| {
        let part: &mut Part = parts.entry((topic.clone(), partition)).or_insert_with(|| Part {
            topic: topic.clone(),
            partition,
            records: Vec::new(),
            bytes: 0,
        });
        // The id stands twice in a record; the rest of its form takes less than 128 bytes.
        part.bytes += record.body.len() + 2 * record.id.as_str().len() + 128;
        part.records.push(record);
    };
    let topic = Topic::raw(harvest.source);
    for record in &harvest.records {
        add(&topic, partition_of(record.id.as_str().as_bytes(), partitions), record.clone());
    }
    for coverage in &harvest.coverage {
        add(&Topic::coverage(), 0, coverage_record(coverage, appended_at)?);
    }
    let parts: Vec<Part> = parts.into_values().collect();
    let bytes: usize = parts.iter().map(|part| part.bytes).sum();
    if bytes > FRAME_BYTES_MAX {
        let collector = &harvest.collector;
        return Err(Error::change(format!(
            "append a harvest of `{collector}` with {bytes} bytes (at most {FRAME_BYTES_MAX})"
        )));
    }
    Ok(parts)
}

/// A line of the ledger as a record: its key is the collector, its value the line as JSON.
fn coverage_record(coverage: &Coverage, appended_at: Timestamp) -> Result<RawRecord> {
    let body = serde_json::to_vec(coverage).map_err(|error| Error::stop("write coverage as JSON").because(error))?;
    Ok(RawRecord {
        id: RecordId::from(coverage.collector.as_str()),
        event_time: coverage.from,
        fetched_at: appended_at,
        body: body.into(),
    })
}

/// Lists of about the same size, as many as there are cores and as pays: the largest part goes first, each to the list
/// that has least.
fn share_out(mut parts: Vec<Part>, bytes: usize) -> Vec<Vec<Part>> {
    let cores = available_parallelism().map_or(1, usize::from);
    let count = (bytes / TASK_BYTES_MIN).clamp(1, cores.min(parts.len()));
    parts.sort_by_key(|part| std::cmp::Reverse(part.bytes));
    let mut lists: Vec<(usize, Vec<Part>)> = (0..count).map(|_| (0, Vec::new())).collect();
    for part in parts {
        let least = lists.iter_mut().min_by_key(|(bytes, _)| *bytes).expect("at least one list");
        least.0 += part.bytes;
        least.1.push(part);
    }
    lists.into_iter().map(|(_, parts)| parts).collect()
}
