//! What the tests of the log share.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use contract::{
    Batch, Clock, CollectorId, Cursor, Harvest, Log, Positions, RawRecord, RecordId, Result, SourceId, Timestamp, Topic,
};

use crate::disk::Disk;
use crate::sim_disk::SimDisk;
use crate::{Compression, EmbeddedLog, Recovery, Settings};

pub(crate) const SOURCE: SourceId = SourceId("github");
pub(crate) const FOLDER: &str = "log";

/// Small segments and two partitions, so that every test crosses many boundaries.
pub(crate) fn small() -> Settings {
    Settings {
        partitions: 2,
        segment_bytes_max: 4_096,
        index_interval_bytes: 600,
        compression: Compression::None,
        ..Settings::default()
    }
}

pub(crate) fn clock() -> Arc<dyn Clock> {
    Arc::new(|| Timestamp(1_700_000_000_000_000))
}

pub(crate) fn open(disk: &SimDisk, settings: Settings) -> Result<(EmbeddedLog, Recovery)> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    EmbeddedLog::open_on(disk, Path::new(FOLDER), &[SOURCE], settings, clock(), None)
}

/// The segment files, in order.
pub(crate) fn segments(disk: &SimDisk) -> Vec<PathBuf> {
    disk.paths().into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "log")).collect()
}

pub(crate) fn quarantined(disk: &SimDisk) -> Vec<PathBuf> {
    disk.paths().into_iter().filter(|path| path.starts_with("log/quarantine")).collect()
}

/// Harvest `number` of a collector: its records say so, its cursor too.
pub(crate) fn harvest(collector: &str, number: usize, records: usize) -> Harvest {
    let record = |place: usize| RawRecord {
        id: RecordId::from(format!("{collector} {number} {place}")),
        event_time: Timestamp(5),
        fetched_at: Timestamp(6),
        body: Bytes::from(format!("{{\"text\":\"{}\"}}", "abcdefgh ".repeat(1 + (number + place) % 9))),
    };
    Harvest {
        source: SOURCE,
        collector: CollectorId(collector.to_owned()),
        records: (0..records).map(record).collect(),
        coverage: Vec::new(),
        cursor: Cursor(number.to_string()),
        poll_again_in: None,
        acknowledge: None,
    }
}

pub(crate) fn raw() -> Topic {
    Topic::raw(SOURCE)
}

/// Both partitions from the start.
pub(crate) fn all() -> Positions {
    Positions([(0, 0), (1, 0)].into())
}

/// All there is from `from` on, in small reads.
pub(crate) async fn read_all(log: &EmbeddedLog, from: Positions) -> Batch {
    let end = log.extents().await.expect("extents")[&raw()].end();
    let mut whole = Batch { next: from, ..Batch::default() };
    while !whole.next.reaches(&end) {
        let batch = log.read(&raw(), &whole.next, 700, Duration::ZERO).await.expect("read");
        assert!(batch.next != whole.next, "a read below the end goes on");
        whole.records.extend(batch.records);
        whole.lost.extend(batch.lost);
        whole.next = batch.next;
    }
    whole
}
