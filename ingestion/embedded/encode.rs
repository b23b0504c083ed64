//! From a harvest to the batches of its frame, on as many cores as it pays.

use std::cell::RefCell;
use std::collections::BTreeMap;

use contract::{Coverage, Error, Harvest, Partition, RawRecord, RecordId, Result, Timestamp, Topic, partition_of};
use rayon::prelude::*;

use crate::codec::{Compression, Encoder};
use crate::frame::{CURSOR_BYTES_MAX, FRAME_BYTES_MAX};
use crate::record_batch::{self, EncodedBatch};

/// Below this a harvest is encoded where it is: about 0.1 ms of work, little more than handing it over costs.
pub(crate) const INLINE_BYTES_MAX: usize = 32 << 10;

thread_local! {
    static ENCODER: RefCell<Encoder> = RefCell::new(Encoder::new());
}

/// The threads that encode: as many as there are cores. The runtime's own, woken one by the other, took turns on one core.
pub(crate) fn encoding_threads() -> Result<rayon::ThreadPool> {
    let threads = rayon::ThreadPoolBuilder::new().thread_name(|number| format!("log-encoder-{number}"));
    // A panic has said what it was; the appender is told that there is no answer.
    let threads = threads.panic_handler(drop);
    threads.build().map_err(|error| Error::stop("start the threads that encode for the log").because(error))
}

/// Records that go into one batch.
pub(crate) struct Part {
    topic: Topic,
    partition: Partition,
    records: Vec<RawRecord>,
    bytes: usize,
}

impl Part {
    /// About what it takes in its frame, before compression.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// The batches of a harvest's parts: made by all of [`encoding_threads`] when it is called by one of them, else where it
/// is called.
pub(crate) fn encode(
    parts: Vec<Part>,
    appended_at: Timestamp,
    compression: Compression,
) -> Vec<(Topic, Partition, EncodedBatch)> {
    let encode = |part: Part| {
        let encode = |encoder: &mut Encoder| record_batch::encode(&part.records, appended_at, compression, encoder);
        let batch = ENCODER.with_borrow_mut(encode);
        (part.topic, part.partition, batch)
    };
    match rayon::current_thread_index() {
        Some(_) => parts.into_par_iter().with_max_len(1).map(encode).collect(),
        None => parts.into_iter().map(encode).collect(),
    }
}

/// Sorts the records by partition, the coverage to its own topic, and refuses what is too large.
pub(crate) fn split(harvest: &Harvest, partitions: Partition, appended_at: Timestamp) -> Result<Vec<Part>> {
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
