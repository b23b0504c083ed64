//! What damage took from the log enters the ledger of coverage, once, however often it is met.

use contract::{
    CollectorId, Coverage, CoverageKind, Cursor, Error, Harvest, LogRecord, Lost, Offset, OffsetRange, Partition,
    Positions, Result, SourceId, Timestamp,
};

use crate::Engines;

/// Writes a line for each range that was not there when a batch was read; what the cold store has is not missed. The
/// cursor lists the ranges that have their line.
pub(crate) async fn note(
    engines: &Engines,
    source: SourceId,
    lost: &[Lost],
    read: &[LogRecord],
    cold: &Positions,
) -> Result<()> {
    let collector = CollectorId(format!("{source}/damage"));
    let unreadable = |cause| Error::stop(format!("read the cursor of `{collector}`")).because(cause);
    let mut told: Vec<(Partition, Offset, Offset)> = match engines.log.cursor(&collector).await? {
        Some(cursor) => serde_json::from_str(&cursor.0).map_err(unreadable)?,
        None => Vec::new(),
    };
    let mut coverage = Vec::new();
    for lost in lost {
        let OffsetRange { partition, from, to } = lost.range;
        let from = from.max(cold.of(partition));
        if from >= to || told.contains(&(partition, from, to)) {
            continue;
        }
        told.push((partition, from, to));
        let interval = interval(engines.clock.now(), lost.range, read);
        coverage.push(Coverage {
            source: source.0.to_owned(),
            collector: collector.0.clone(),
            kind: CoverageKind::Missed,
            from: interval.0,
            to: interval.1,
            records: (to - from) as u64,
            reason: format!(
                "offsets {from}..{to} of partition {partition} cannot be read from the log: {}",
                lost.reason
            ),
        });
    }
    if coverage.is_empty() {
        return Ok(());
    }
    let cursor = Cursor(serde_json::to_string(&told).map_err(|cause| Error::stop("write a cursor").because(cause))?);
    let harvest =
        Harvest { source, collector, records: Vec::new(), coverage, cursor, poll_again_in: None, acknowledge: None };
    engines.log.append(&harvest).await.map(drop)
}

/// Between the records beside the gap, by the source's clock; else `now`, since nothing tells when they were.
fn interval(now: Timestamp, range: OffsetRange, read: &[LogRecord]) -> (Timestamp, Timestamp) {
    let beside = || read.iter().filter(|at| at.partition == range.partition);
    let before = beside().filter(|at| at.offset < range.from).max_by_key(|at| at.offset);
    let after = beside().filter(|at| at.offset >= range.to).min_by_key(|at| at.offset);
    let time = |at: Option<&LogRecord>| at.map(|at| at.record.event_time);
    let (before, after) = (time(before).or(time(after)).unwrap_or(now), time(after).or(time(before)).unwrap_or(now));
    (before.min(after), before.max(after))
}
