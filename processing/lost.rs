//! What damage took from the log enters the ledger of coverage, once, however often it is met.

use contract::{
    CollectorId, Coverage, CoverageKind, Cursor, Error, Harvest, LogRecord, Lost, Offset, OffsetRange, Partition,
    Positions, Remedy, Result, SourceId, Timestamp,
};

use crate::Engines;

/// Lines that are not in the ledger yet: the log may be full when the loss is met, and only what comes after makes
/// room in it.
pub(crate) struct Losses {
    source: SourceId,
    waiting: Vec<(Told, Coverage)>,
}

/// Partition, from, to.
type Told = (Partition, Offset, Offset);

impl Losses {
    pub(crate) fn new(source: SourceId) -> Self {
        Self { source, waiting: Vec::new() }
    }

    /// Makes a line of each range that was not there when a batch was read; what the cold store has is not missed.
    pub(crate) fn note(&mut self, now: Timestamp, lost: &[Lost], read: &[LogRecord], cold: &Positions) {
        let collector = self.collector();
        for lost in lost {
            let OffsetRange { partition, from, to } = lost.range;
            let from = from.max(cold.of(partition));
            if from >= to {
                continue;
            }
            let interval = interval(now, lost.range, read);
            let reason =
                format!("offsets {from}..{to} of partition {partition} cannot be read from the log: {}", lost.reason);
            let line = Coverage {
                source: self.source.0.to_owned(),
                collector: collector.0.clone(),
                kind: CoverageKind::Missed,
                from: interval.0,
                to: interval.1,
                records: (to - from) as u64,
                reason,
            };
            self.waiting.push(((partition, from, to), line));
        }
    }

    /// Logs the lines that wait; the cursor lists the ranges that have their line. Where the log takes nothing now they
    /// wait on, and that is a trouble.
    ///
    /// # Errors
    /// When the log cannot go on.
    pub(crate) async fn tell(&mut self, engines: &Engines) -> Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let collector = self.collector();
        let unreadable = |cause| Error::stop(format!("read the cursor of `{collector}`")).because(cause);
        let mut told: Vec<Told> = match engines.log.cursor(&collector).await? {
            Some(cursor) => serde_json::from_str(&cursor.0).map_err(unreadable)?,
            None => Vec::new(),
        };
        let mut coverage = Vec::new();
        for (range, line) in &self.waiting {
            if !told.contains(range) {
                told.push(*range);
                coverage.push(line.clone());
            }
        }
        if !coverage.is_empty() {
            let harvest = self.harvest(collector.clone(), &told, coverage)?;
            match engines.log.append(&harvest).await {
                Ok(_) => {}
                Err(error) if matches!(error.remedy(), Remedy::Retry | Remedy::RetryAfter(_)) => {
                    engines.troubles.note(&collector.0, &error);
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        self.waiting.clear();
        engines.troubles.clear(&collector.0);
        Ok(())
    }

    fn collector(&self) -> CollectorId {
        CollectorId(format!("{}/damage", self.source))
    }

    fn harvest(&self, collector: CollectorId, told: &[Told], coverage: Vec<Coverage>) -> Result<Harvest> {
        let cursor = serde_json::to_string(told).map_err(|cause| Error::stop("write a cursor").because(cause))?;
        Ok(Harvest {
            source: self.source,
            collector,
            records: Vec::new(),
            coverage,
            cursor: Cursor(cursor),
            poll_again_in: None,
            acknowledge: None,
        })
    }
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
