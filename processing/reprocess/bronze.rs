//! Bronze as a log: its records in the order of their offsets.

use contract::{LogRecord, Offset, OffsetRange, Positions, Result, SourceId, Timestamp, bronze_schema};

use crate::Engines;
use crate::rebuild::{OFFSETS_FIRST, log_records, read_within};

/// Bytes of records that are read, and processed, at once. A step that exceeds it is halved.
const STEP_BYTES_MAX: usize = 16 << 20;

/// Reads from a position to another one, all partitions side by side in the order in which records were appended: where a topic
/// has grown, an id may stand in two of them, and the first one is the row.
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
            let Some((records, bytes)) = self.read(engines, &ranges).await? else {
                self.step = (self.step / 2).max(1);
                continue;
            };
            let (records, ranges) = in_order(records, ranges, &self.until);
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
        let rows = engines.cold.scan(&query).await?;
        let may_be_fewer = ranges.iter().any(|range| range.to - range.from > 1);
        let read = read_within(rows, &bronze_schema(), STEP_BYTES_MAX, may_be_fewer).await?;
        Ok(read.map(|(batches, bytes)| (batches.iter().flat_map(log_records).collect(), bytes)))
    }
}

/// Records in the order in which they were appended, and of each partition in that of their offsets: up to the last of which
/// it is known that no earlier one of another partition is to come. What lies behind that is left for the next step.
fn in_order(
    mut records: Vec<LogRecord>,
    mut ranges: Vec<OffsetRange>,
    until: &Positions,
) -> (Vec<LogRecord>, Vec<OffsetRange>) {
    records.sort_unstable_by_key(|at| (at.partition, at.offset));
    // Bronze that holds a record twice is a matter of `verify`.
    records.dedup_by_key(|at| (at.partition, at.offset));
    // Clocks may go back; offsets do not.
    let mut times: Vec<Timestamp> = Vec::with_capacity(records.len());
    for (place, at) in records.iter().enumerate() {
        let before = place.checked_sub(1).filter(|&before| records[before].partition == at.partition);
        times.push(before.map_or(at.appended_at, |before| times[before].max(at.appended_at)));
    }
    let last = |range: &&OffsetRange| (range.to < until.of(range.partition)).then_some(range.partition);
    let of = |partition| (0..records.len()).rev().find(|&place| records[place].partition == partition);
    let known_to = ranges.iter().filter_map(|range| last(&range)).filter_map(of).map(|place| times[place]).min();
    if let Some(known_to) = known_to {
        for range in &mut ranges {
            let later =
                records.iter().zip(&times).find(|(at, time)| at.partition == range.partition && **time > known_to);
            range.to = later.map_or(range.to, |(at, _)| at.offset);
        }
        ranges.retain(|range| range.from < range.to);
    }
    let mut kept: Vec<_> =
        records.into_iter().zip(times).filter(|(_, time)| known_to.is_none_or(|to| *time <= to)).collect();
    kept.sort_by_key(|(_, time)| *time);
    (kept.into_iter().map(|(at, _)| at).collect(), ranges)
}

#[cfg(test)]
mod tests {
    use contract::RawRecord;

    use super::*;

    #[test]
    fn records_of_several_partitions_come_in_the_order_of_their_times_as_far_as_that_is_known() {
        let at = |partition, offset, time| LogRecord {
            partition,
            offset,
            appended_at: Timestamp(time),
            record: RawRecord {
                id: "id".into(),
                event_time: Timestamp(0),
                fetched_at: Timestamp(0),
                body: bytes::Bytes::new(),
            },
        };
        let range = |partition, from, to| OffsetRange { partition, from, to };
        let until = Positions([(0, 10), (1, 10), (2, 4)].into());
        let records =
            vec![at(1, 1, 50), at(0, 0, 10), at(0, 1, 30), at(1, 0, 20), at(0, 1, 30), at(0, 2, 25), at(2, 3, 40)];
        // Partition 2 is at its end; of partition 0 more may come at 30, of partition 1 at 50.
        let (kept, ranges) = in_order(records, vec![range(0, 0, 5), range(1, 0, 5), range(2, 0, 4)], &until);
        let places: Vec<_> = kept.iter().map(|at| (at.partition, at.offset)).collect();
        assert_eq!(places, [(0, 0), (1, 0), (0, 1), (0, 2)]);
        assert_eq!(ranges, [range(0, 0, 5), range(1, 0, 1), range(2, 0, 3)]);
        let (kept, ranges) = in_order(vec![at(1, 7, 9)], vec![range(0, 5, 10), range(1, 5, 10)], &until);
        assert_eq!((kept.len(), ranges), (1, vec![range(0, 5, 10), range(1, 5, 10)]), "both end");
    }

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
