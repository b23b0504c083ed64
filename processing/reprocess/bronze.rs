//! Bronze as a log: its records in the order of their offsets.

use contract::{LogRecord, Offset, OffsetRange, Positions, Result, SourceId, Timestamp, bronze_schema};
use futures::StreamExt;

use crate::Engines;
use crate::rebuild::{as_schema, log_records};

/// Offsets that are read first; the step then follows from the size of the records.
const OFFSETS_FIRST: Offset = 20_000;

/// Bytes of records that are read, and processed, at once. A step that exceeds it is halved.
const STEP_BYTES_MAX: usize = 32 << 20;

/// Reads from a position to another one, all partitions side by side: where a topic has grown, an id may stand in two.
pub(super) struct Bronze {
    source: SourceId,
    since: Option<Timestamp>,
    at: Positions,
    until: Positions,
    /// Offsets of the next step, over all partitions.
    step: Offset,
}

impl Bronze {
    pub(super) fn new(source: SourceId, since: Option<Timestamp>, at: Positions, until: Positions) -> Self {
        Self { source, since, at, until, step: OFFSETS_FIRST }
    }

    /// Where it reads on.
    pub(super) fn at(&self) -> &Positions {
        &self.at
    }

    /// The next records, and the offsets that they are of; none at the end.
    pub(super) async fn next(&mut self, engines: &Engines) -> Result<Option<(Vec<LogRecord>, Vec<OffsetRange>)>> {
        loop {
            let ranges = self.ranges();
            if ranges.is_empty() {
                return Ok(None);
            }
            let Some((mut records, bytes)) = self.read(engines, &ranges).await? else {
                self.step = (self.step / 2).max(1);
                continue;
            };
            records.sort_unstable_by_key(|at| (at.partition, at.offset));
            // Bronze that holds a record twice is a matter of `verify`.
            records.dedup_by_key(|at| (at.partition, at.offset));
            ranges.iter().for_each(|range| self.at.advance(range.partition, range.to));
            if bytes < STEP_BYTES_MAX / 4 {
                self.step = self.step.saturating_mul(2);
            }
            return Ok(Some((records, ranges)));
        }
    }

    /// The next step: of each partition as large a part as it has of what is left.
    fn ranges(&self) -> Vec<OffsetRange> {
        let left = |partition, until: Offset| until - self.at.of(partition);
        let all: Offset = self.until.0.iter().map(|(&partition, &until)| left(partition, until).max(0)).sum();
        let range = |(&partition, &until): (&i32, &Offset)| {
            let (from, left) = (self.at.of(partition), left(partition, until));
            let part = i128::from(left) * i128::from(self.step) / i128::from(all.max(1));
            let part = Offset::try_from(part).unwrap_or(Offset::MAX).max(1);
            OffsetRange { partition, from, to: from.saturating_add(part).min(until) }
        };
        self.until.0.iter().map(range).filter(|range| range.from < range.to).collect()
    }

    /// None if there are too many bytes, unless the step cannot be smaller.
    async fn read(&self, engines: &Engines, ranges: &[OffsetRange]) -> Result<Option<(Vec<LogRecord>, usize)>> {
        let within = |range: &OffsetRange| {
            let OffsetRange { partition, from, to } = range;
            format!("(_partition = {partition} AND _offset >= {from} AND _offset < {to})")
        };
        let within = ranges.iter().map(within).collect::<Vec<_>>().join(" OR ");
        let since = self.since.map_or(String::new(), |since| format!(" AND event_time >= TIMESTAMP '{since}'"));
        let query = format!(
            "SELECT _partition, _offset, id, event_time, fetched_at, appended_at, body FROM bronze.{} WHERE ({within}){since}",
            self.source
        );
        let mut batches = engines.cold.scan(&query).await?.batches;
        let (mut records, mut bytes) = (Vec::new(), 0);
        while let Some(batch) = batches.next().await {
            let batch = as_schema(&batch?, &bronze_schema())?;
            bytes += batch.get_array_memory_size();
            if bytes > STEP_BYTES_MAX && ranges.iter().any(|range| range.to - range.from > 1) {
                return Ok(None);
            }
            records.extend(log_records(&batch));
        }
        Ok(Some((records, bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_takes_of_each_partition_its_part_of_what_is_left_and_ends_where_it_should() {
        let until = Positions([(0, 1_000), (1, 100), (2, 0), (3, 7)].into());
        let mut bronze = Bronze::new(SourceId("made"), None, Positions([(3, 7)].into()), until.clone());
        bronze.step = 110;
        let first = bronze.ranges();
        let range = |partition, from, to| OffsetRange { partition, from, to };
        assert_eq!(first, [range(0, 0, 100), range(1, 0, 10)]);
        let mut steps = 0;
        while !bronze.ranges().is_empty() {
            bronze.ranges().iter().for_each(|range| bronze.at.advance(range.partition, range.to));
            steps += 1;
        }
        assert!(bronze.at.reaches(&until) && until.reaches(&bronze.at), "{:?}", bronze.at);
        assert!(steps < 30, "{steps} steps");
    }
}
