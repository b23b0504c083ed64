//! Proof 1: bronze against the log.

use std::collections::BTreeMap;
use std::time::Duration;

use arrow::array::AsArray;
use contract::{ColdTable, LogRecord, Offset, OffsetRange, Partition, Positions, Result, SourceId, Topic};
use futures::StreamExt;
use xxhash_rust::xxh3::xxh3_64;

use super::{Proof, bronze_table};
use crate::Engines;
use crate::rebuild::places;

/// Offsets judged at once, over all partitions: 24 bytes of memory each.
const OFFSETS_AT_ONCE: Offset = 500_000;
/// Records mended in one commit.
const MENDED_AT_ONCE: usize = 10_000;
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
    let mut judge = Judge { engines, source, proof: Proof::new("bronze"), remedy: Remedy::default() };
    let log_start = engines.log.extent(&Topic::raw(source)).await?.start();
    let end = marks.0.values().copied().max().unwrap_or(0);
    let step = (OFFSETS_AT_ONCE / marks.0.len().max(1) as Offset).max(1);
    let mut from = 0;
    while from < end {
        let to = (from + step).min(end);
        judge.window(Window::new(from, to, marks), &log_start).await?;
        from = to;
    }
    Ok((judge.proof, judge.remedy))
}

/// What bronze has of a run of offsets, the same of every partition.
struct Window {
    from: Offset,
    to: Offset,
    /// Per partition, as far as it goes.
    partitions: BTreeMap<Partition, Vec<Option<Known>>>,
}

/// Hashes of a record.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Known {
    id: u64,
    body: u64,
    /// Whether the log has it too, as far as the log was read.
    is_logged: bool,
}

impl Known {
    fn of(id: &str, body: &[u8]) -> Self {
        Self { id: xxh3_64(id.as_bytes()), body: xxh3_64(body), is_logged: false }
    }
}

impl Window {
    fn new(from: Offset, to: Offset, marks: &Positions) -> Self {
        let length = |mark: Offset| usize::try_from(mark.min(to) - from).unwrap_or(0);
        let partitions = marks.0.iter().map(|(&partition, &mark)| (partition, vec![None; length(mark)]));
        Self { from, to, partitions: partitions.filter(|(_, places)| !places.is_empty()).collect() }
    }

    fn at(&mut self, partition: Partition, offset: Offset) -> Option<&mut Option<Known>> {
        let place = usize::try_from(offset - self.from).ok()?;
        self.partitions.get_mut(&partition)?.get_mut(place)
    }

    fn end(&self, partition: Partition) -> Offset {
        self.from + self.partitions.get(&partition).map_or(0, |places| places.len() as Offset)
    }
}

struct Judge<'a> {
    engines: &'a Engines,
    source: SourceId,
    proof: Proof,
    remedy: Remedy,
}

impl Judge<'_> {
    async fn window(&mut self, mut window: Window, log_start: &Positions) -> Result<()> {
        self.read_bronze(&mut window).await?;
        // Where offsets have holes, the log's records tell which must be there.
        if self.engines.log.is_dense() {
            for (&partition, known) in &window.partitions {
                for (offset, _) in (window.from..).zip(known).filter(|(_, known)| known.is_none()) {
                    self.is_missing(partition, offset);
                }
            }
        }
        self.read_log(&mut window, log_start).await?;
        if !self.engines.log.is_dense() {
            self.name_unlogged(&window, log_start);
        }
        Ok(())
    }

    fn is_missing(&mut self, partition: Partition, offset: Offset) {
        let table = bronze_table(self.source);
        self.proof.differs(|| format!("offset {offset} of partition {partition} is missing in `{table}`"));
        self.remedy.missing.push((partition, offset));
    }

    /// Names what bronze has at offsets where a reader of the log finds nothing: a transaction that was undone, or the
    /// records of a log that was there before. It is not mended: which of both is right nobody can tell.
    fn name_unlogged(&mut self, window: &Window, log_start: &Positions) {
        let table = bronze_table(self.source);
        for (&partition, known) in &window.partitions {
            let start = log_start.of(partition);
            let unlogged = |(offset, known): &(Offset, &Option<Known>)| {
                *offset >= start && known.is_some_and(|known| !known.is_logged)
            };
            for (offset, _) in (window.from..).zip(known).filter(unlogged) {
                self.proof.differs(|| {
                    format!("offset {offset} of partition {partition} is in `{table}` and no record of the log")
                });
            }
        }
    }

    async fn read_log(&mut self, window: &mut Window, log_start: &Positions) -> Result<()> {
        let starts = window.partitions.keys().map(|&partition| (partition, window.from.max(log_start.of(partition))));
        let mut at = Positions(starts.collect());
        loop {
            at.0.retain(|&partition, next| *next < window.end(partition));
            if at.0.is_empty() {
                return Ok(());
            }
            let batch = self.engines.log.read(&Topic::raw(self.source), &at, READ_BYTES_MAX, Duration::ZERO).await?;
            for lost in &batch.lost {
                let OffsetRange { partition, from, to } = lost.range;
                let to = to.min(window.end(partition));
                let reason = &lost.reason;
                self.proof.differs(|| {
                    format!("offsets {from}..{to} of partition {partition} cannot be read from the log: {reason}")
                });
            }
            batch.records.iter().for_each(|record| self.compare(window, record));
            if batch.next == at {
                let table = bronze_table(self.source);
                for (partition, end) in at.0 {
                    let to = window.end(partition);
                    self.proof.differs(|| {
                        format!("the log of partition {partition} ends at {end}, but `{table}` goes to {to}")
                    });
                }
                return Ok(());
            }
            at = batch.next;
        }
    }

    fn compare(&mut self, window: &mut Window, at: &LogRecord) {
        let (partition, offset) = (at.partition, at.offset);
        let Some(place) = window.at(partition, offset) else { return };
        *self.proof.counts.entry("log_records").or_default() += 1;
        let Some(stored) = place.as_mut() else {
            if !self.engines.log.is_dense() {
                self.is_missing(partition, offset);
            }
            return;
        };
        stored.is_logged = true;
        let stored = *stored;
        let logged = Known::of(at.record.id.as_str(), &at.record.body);
        let table = bronze_table(self.source);
        if stored.id != logged.id {
            // Which of both came first nobody can tell, so neither is given up for the other.
            self.proof.differs(|| {
                format!(
                    "offset {offset} of partition {partition} is `{}` in the log and another record in `{table}`: \
                     the log was begun anew or put back; this is not mended",
                    at.record.id.as_str()
                )
            });
        } else if stored.body != logged.body {
            self.proof.differs(|| {
                format!("offset {offset} of partition {partition} has other bytes in `{table}` than in the log")
            });
            self.remedy.wrong.push((partition, offset));
        }
    }

    async fn read_bronze(&mut self, window: &mut Window) -> Result<()> {
        let table = bronze_table(self.source);
        let query = format!(
            "SELECT _partition, _offset, id, body FROM {table} WHERE _offset >= {} AND _offset < {}",
            window.from, window.to
        );
        let mut batches = self.engines.cold.scan(&query).await?.batches;
        while let Some(batch) = batches.next().await {
            let batch = plain(&batch?)?;
            let (ids, bodies) = (batch.column(2).as_string::<i32>(), batch.column(3).as_binary::<i32>());
            for (row, (partition, offset)) in places(&batch).enumerate() {
                let Some(place) = window.at(partition, offset) else { continue };
                *self.proof.counts.entry("bronze_records").or_default() += 1;
                let known = Known::of(ids.value(row), bodies.value(row));
                if let Some(before) = place.replace(known) {
                    self.proof.differs(|| {
                        format!("offset {offset} of partition {partition} stands more than once in `{table}`")
                    });
                    if before.id == known.id {
                        self.remedy.wrong.push((partition, offset));
                    }
                }
            }
        }
        Ok(())
    }
}

/// The batch in plain types, whatever layout the engine answers with.
fn plain(batch: &arrow::record_batch::RecordBatch) -> Result<arrow::record_batch::RecordBatch> {
    use arrow::datatypes::{DataType, Field, Schema};
    let columns = [
        ("_partition", DataType::Int64),
        ("_offset", DataType::Int64),
        ("id", DataType::Utf8),
        ("body", DataType::Binary),
    ];
    let fields = columns.map(|(name, kind)| Field::new(name, kind, true));
    crate::rebuild::as_schema(batch, &Schema::new(fields.to_vec()).into())
}

/// Puts back from the log what is missing or wrong in bronze; what the log no longer has stays as it is.
pub(super) async fn repair(engines: &Engines, source: SourceId, remedy: &Remedy) -> Result<Vec<String>> {
    let mut places: BTreeMap<Partition, Vec<Offset>> = BTreeMap::new();
    for &(partition, offset) in remedy.wrong.iter().chain(&remedy.missing) {
        places.entry(partition).or_default().push(offset);
    }
    let start = engines.log.extent(&Topic::raw(source)).await?.start();
    let mut put_back = 0;
    for (partition, mut offsets) in places {
        offsets.sort_unstable();
        offsets.dedup();
        offsets.retain(|&offset| offset >= start.of(partition));
        for some in offsets.chunks(MENDED_AT_ONCE) {
            put_back += put_back_some(engines, source, partition, some).await?;
        }
    }
    Ok((put_back > 0)
        .then(|| format!("put {put_back} records from the log into `bronze.{source}`"))
        .into_iter()
        .collect())
}

async fn put_back_some(engines: &Engines, source: SourceId, partition: Partition, offsets: &[Offset]) -> Result<usize> {
    let mut found: Vec<LogRecord> = Vec::new();
    for &offset in offsets {
        let at = Positions([(partition, offset)].into());
        let batch = engines.log.read(&Topic::raw(source), &at, 1, Duration::ZERO).await?;
        found.extend(batch.records.into_iter().filter(|record| record.offset == offset).take(1));
    }
    if found.is_empty() {
        return Ok(0);
    }
    let rows = contract::bronze_batch(&found);
    let replaced: Vec<_> = found.iter().map(|record| (record.partition, record.offset)).collect();
    engines.cold.mend(source, ColdTable::Bronze, &replaced, Some(&rows)).await?;
    Ok(replaced.len())
}
