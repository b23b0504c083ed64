//! The log as a whole: on this machine's disk, and on one that fails.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use contract::conformance::log::{Maker, PARTITIONS, suite};
use contract::{Clock, CollectorId, Cursor, Log, Positions, Remedy, Timestamp, Topic};

use crate::sim_disk::SimDisk;
use crate::testing::{SOURCE, all, clock, harvest, open, quarantined, raw, read_all, segments, small};
use crate::{Compression, EmbeddedLog, Settings};

struct Folders {
    root: tempfile::TempDir,
    settings: Settings,
}

#[async_trait]
impl Maker for Folders {
    async fn open(&self, name: &str) -> Arc<dyn Log> {
        let source = contract::conformance::log::SOURCE;
        let settings = Settings { partitions: PARTITIONS, ..self.settings.clone() };
        let (log, recovery) =
            EmbeddedLog::open(&self.root.path().join(name), &[source], settings, clock()).expect("open");
        // The cases that lose the end of a log say so in their name.
        assert!(recovery.is_clean() || name == "begin-after-its-loss" || name == "begin-anew", "{recovery}");
        Arc::new(log)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_does_what_every_log_must_with_every_codec_and_segment_size() {
    for (compression, segment_bytes_max) in
        [(Compression::None, 4_096), (Compression::Lz4, 8_192), (Compression::Zstd, 64 << 20)]
    {
        let settings = Settings { compression, segment_bytes_max, index_interval_bytes: 1_000, ..Settings::default() };
        suite(&Folders { root: tempfile::tempdir().unwrap(), settings }).await;
    }
}

#[tokio::test]
async fn a_second_writer_is_told_which_process_holds_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let held = EmbeddedLog::open(folder.path(), &[SOURCE], small(), clock()).unwrap();
    let error = EmbeddedLog::open(folder.path(), &[SOURCE], small(), clock()).err().unwrap();
    assert_eq!(error.remedy(), Remedy::Change);
    let process = format!("process {} has it open", std::process::id());
    assert!(error.to_string().contains(&process), "{error}");
    drop(held);
    assert!(EmbeddedLog::open(folder.path(), &[SOURCE], small(), clock()).is_ok());
}

#[tokio::test]
async fn a_reader_beside_the_writer_sees_what_is_there_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = EmbeddedLog::open(folder.path(), &[SOURCE], small(), clock()).unwrap();
    for number in 0..20 {
        log.append(&harvest("github/a", number, 10)).await.unwrap();
    }
    let files = |folder: &Path| -> Vec<(String, u64)> {
        let mut files: Vec<_> = std::fs::read_dir(folder.join("journal"))
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().len()))
            .collect();
        files.sort();
        files
    };
    let before = files(folder.path());
    let (reader, recovery) = EmbeddedLog::open_read_only(folder.path(), clock()).unwrap();
    assert!(recovery.is_clean(), "{recovery}");
    assert_eq!(read_all(&reader, all()).await.records.len(), 200);
    assert_eq!(reader.cursor(&CollectorId("github/a".into())).await.unwrap(), Some(Cursor("19".into())));
    assert!(reader.check().await.unwrap().damages.is_empty());
    let error = reader.append(&harvest("github/a", 20, 1)).await.unwrap_err();
    assert_eq!(error.remedy(), Remedy::Change);
    assert_eq!(files(folder.path()), before);
    drop(reader);
    let (nothing, _) = EmbeddedLog::open_read_only(&folder.path().join("none"), clock()).unwrap();
    assert!(!nothing.extents().await.unwrap().contains_key(&raw()));
    assert!(!folder.path().join("none").exists());
}

#[tokio::test]
async fn opening_reads_only_the_last_segment_and_makes_a_lost_index_anew() {
    let disk = SimDisk::default();
    fill(&disk, 30).await;
    let (log, recovery) = open(&disk, small()).unwrap();
    assert!(recovery.segments > 5 && recovery.segments_read == 1, "{recovery:?}");
    let before = read_all(&log, all()).await.records;
    drop(log);
    let indexes: Vec<_> =
        disk.paths().into_iter().filter(|path| path.extension().is_some_and(|e| e == "index")).collect();
    crate::disk::Disk::remove(&disk, &indexes[0]).unwrap();
    disk.damage(&indexes[1], |bytes| bytes[30] ^= 1);
    let (log, recovery) = open(&disk, small()).unwrap();
    assert_eq!(recovery.segments_read, 3, "{recovery:?}");
    let places = |records: &[contract::LogRecord]| -> Vec<_> {
        records.iter().map(|r| (r.partition, r.offset, r.record.id.clone())).collect()
    };
    assert_eq!(places(&read_all(&log, all()).await.records), places(&before));
    drop(log);
    assert_eq!(open(&disk, small()).unwrap().1.segments_read, 1);
}

#[tokio::test]
async fn partitions_may_grow_but_not_shrink() {
    let disk = SimDisk::default();
    fill(&disk, 2).await;
    let error = open(&disk, Settings { partitions: 1, ..small() }).err().unwrap();
    assert_eq!(error.remedy(), Remedy::Change);
    assert!(error.to_string().contains("`github.raw` has 2 already"), "{error}");
    let (log, _) = open(&disk, Settings { partitions: 3, ..small() }).unwrap();
    log.append(&harvest("github/b", 0, 60)).await.unwrap();
    let extent = log.extents().await.unwrap().remove(&raw()).unwrap();
    assert!(extent.partitions.len() == 3 && extent.partitions[2].end > 0);
    let read = read_all(&log, Positions([(0, 0), (1, 0), (2, 0)].into())).await;
    assert_eq!(read.records.len(), 80);
}

#[tokio::test]
async fn a_failed_sync_breaks_the_log_until_it_is_opened_again() {
    let disk = SimDisk::default();
    let (log, _) = open(&disk, small()).unwrap();
    log.append(&harvest("github/a", 0, 3)).await.unwrap();
    disk.fail_syncs_after(0);
    let error = log.append(&harvest("github/a", 1, 3)).await.unwrap_err();
    assert_eq!((error.remedy(), error.to_string().as_str()), (Remedy::Stop, "failed to sync the log: the disk broke"));
    let later = [
        log.append(&harvest("github/a", 1, 3)).await.err(),
        log.cursor(&CollectorId("github/a".into())).await.err(),
        log.cursors("").await.err(),
        log.read(&raw(), &all(), 100, Duration::ZERO).await.err(),
        log.extents().await.err(),
        log.release(&raw(), &all()).await.err(),
    ];
    for error in later {
        assert_eq!(error.expect("a broken log answers nothing").remedy(), Remedy::Stop);
    }
    drop(log);
    disk.crash(3);
    let (log, _) = open(&disk, small()).unwrap();
    let ids = read_all(&log, all()).await.records.len();
    assert!(ids == 3 || ids == 6, "{ids}");
}

#[tokio::test]
async fn a_full_disk_is_a_retry_and_nothing_is_left_of_the_append() {
    let disk = SimDisk::default();
    let (log, _) = open(&disk, small()).unwrap();
    log.append(&harvest("github/a", 0, 3)).await.unwrap();
    disk.set_bytes_max(Some(900));
    let error = log.append(&harvest("github/a", 1, 20)).await.unwrap_err();
    assert_eq!(error.remedy(), Remedy::Retry, "{error}");
    assert_eq!(log.cursor(&CollectorId("github/a".into())).await.unwrap(), Some(Cursor("0".into())));
    disk.set_bytes_max(None);
    log.append(&harvest("github/a", 1, 20)).await.unwrap();
    assert_eq!(read_all(&log, all()).await.records.len(), 23);
    drop(log);
    let (log, recovery) = open(&disk, small()).unwrap();
    assert!(recovery.is_clean(), "{recovery}");
    assert_eq!(read_all(&log, all()).await.records.len(), 23);
}

#[tokio::test]
async fn at_the_disk_cap_appends_wait_until_the_stores_have_caught_up() {
    let disk = SimDisk::default();
    let settings = Settings { disk_bytes_max: 20_000, ..small() };
    let (log, _) = open(&disk, settings).unwrap();
    let mut number = 0;
    let error = loop {
        match log.append(&harvest("github/a", number, 10)).await {
            Ok(_) => number += 1,
            Err(error) => break error,
        }
        assert!(number < 100, "the cap is reached");
    };
    assert_eq!(error.remedy(), Remedy::Retry);
    assert!(error.to_string().contains("of `log.disk_bytes_max = 20000`"), "{error}");
    let end = log.extents().await.unwrap()[&raw()].end();
    log.release(&raw(), &Positions([(0, end.of(0))].into())).await.unwrap();
    assert!(log.append(&harvest("github/a", number, 10)).await.is_err(), "partition 1 is not released");
    log.release(&raw(), &end).await.unwrap();
    log.append(&harvest("github/a", number, 10)).await.unwrap();
    assert_eq!(log.cursor(&CollectorId("github/a".into())).await.unwrap(), Some(Cursor(number.to_string())));
}

#[tokio::test]
async fn retention_removes_old_segments_that_every_store_has_committed() {
    let disk = SimDisk::default();
    let now = Arc::new(std::sync::Mutex::new(Timestamp(0)));
    let clock: Arc<dyn Clock> = {
        let now = Arc::clone(&now);
        Arc::new(move || *now.lock().unwrap())
    };
    let settings = Settings { retention_hours: 1, ..small() };
    let start = || {
        let disk: Arc<dyn crate::disk::Disk> = Arc::new(disk.clone());
        EmbeddedLog::open_on(disk, Path::new("log"), &[SOURCE], settings.clone(), Arc::clone(&clock), None).unwrap().0
    };
    let log = start();
    for number in 0..30 {
        log.append(&harvest("github/a", number, 10)).await.unwrap();
    }
    let full = segments(&disk).len();
    let middle = Positions([(0, 60), (1, 60)].into());
    log.release(&raw(), &middle).await.unwrap();
    assert_eq!(segments(&disk).len(), full, "released, but not old");
    *now.lock().unwrap() = Timestamp(3_601_000_000);
    log.release(&raw(), &middle).await.unwrap();
    let extent = log.extents().await.unwrap().remove(&raw()).unwrap();
    assert!(segments(&disk).len() < full && extent.partitions.iter().all(|p| p.start > 0 && p.start <= 60));
    let error = log.read(&raw(), &all(), 100, Duration::ZERO).await.unwrap_err();
    assert_eq!(error.remedy(), Remedy::Stop);
    let first_left = format!("the first one left is {}", extent.partitions[0].start);
    assert!(error.to_string().contains(&first_left), "{error}");
    let read = read_all(&log, extent.start()).await;
    let left: i64 = extent.partitions.iter().map(|p| p.end - p.start).sum();
    assert_eq!((read.records.len() as i64, read.lost.len()), (left, 0));

    log.release(&raw(), &extent.end()).await.unwrap();
    assert_eq!(segments(&disk).len(), 1, "all is released and old: only an empty segment stays");
    drop(log);
    let log = start();
    let reopened = log.extents().await.unwrap().remove(&raw()).unwrap();
    assert_eq!((reopened.start(), reopened.end()), (extent.end(), extent.end()), "the numbering goes on");
    assert_eq!(log.cursor(&CollectorId("github/a".into())).await.unwrap(), Some(Cursor("29".into())));
    let appended = log.append(&harvest("github/a", 30, 10)).await.unwrap();
    assert!(appended.ranges.iter().all(|range| range.from == extent.end().of(range.partition)));
}

#[tokio::test]
async fn a_log_that_ends_before_what_the_stores_committed_goes_on_behind_it() {
    let disk = SimDisk::default();
    let (log, _) = open(&disk, small()).unwrap();
    log.append(&harvest("github/a", 0, 4)).await.unwrap();
    let committed = Positions([(0, 100), (1, 200)].into());
    log.begin_after(&raw(), &committed).await.unwrap();
    let appended = log.append(&harvest("github/a", 1, 20)).await.unwrap();
    assert!(appended.ranges.iter().all(|range| range.from == committed.of(range.partition)), "{appended:?}");
    drop(log);
    let (log, recovery) = open(&disk, small()).unwrap();
    assert_eq!(recovery.damages.len(), 1, "the jump is told: {recovery}");
    let read = read_all(&log, all()).await;
    assert_eq!((read.records.len(), read.lost.len()), (24, 2), "{:?}", read.lost);
    assert!(log.release(&raw(), &Positions([(7, 1)].into())).await.is_err(), "there is no partition 7");
    assert!(quarantined(&disk).is_empty());
}

#[tokio::test]
async fn a_log_begun_anew_misses_only_what_not_every_store_has() {
    let disk = SimDisk::default();
    let (log, _) = open(&disk, small()).unwrap();
    log.release(&raw(), &Positions([(0, 80), (1, 200)].into())).await.unwrap();
    log.begin_after(&raw(), &Positions([(0, 100), (1, 200)].into())).await.unwrap();
    log.append(&harvest("github/a", 0, 20)).await.unwrap();
    drop(log);
    let (log, _) = open(&disk, small()).unwrap();
    let start = log.extents().await.unwrap()[&raw()].start();
    assert_eq!(start, Positions([(0, 80), (1, 200)].into()));
    let read = read_all(&log, start).await;
    let lost: Vec<_> = read.lost.iter().map(|lost| (lost.range.partition, lost.range.from, lost.range.to)).collect();
    assert_eq!((read.records.len(), lost), (20, vec![(0, 80, 100)]));
}

#[tokio::test]
async fn a_disk_that_is_full_at_the_change_of_segments_loses_nothing_and_released_segments_make_room() {
    let disk = SimDisk::default();
    let (log, _) = open(&disk, small()).unwrap();
    let mut number = 0;
    let used = |disk: &SimDisk| -> usize {
        disk.paths().iter().map(|path| crate::disk::read_whole(disk, path).unwrap().len()).sum()
    };
    while segments(&disk).len() < 4 {
        log.append(&harvest("github/a", number, 10)).await.unwrap();
        number += 1;
    }
    // Byte by byte less room, so that every step of an append and of a new segment meets the end of it.
    for room in (0..1_500).step_by(11) {
        disk.set_bytes_max(Some(used(&disk) + room));
        match log.append(&harvest("github/a", number, 10)).await {
            Ok(_) => number += 1,
            Err(error) => assert_eq!(error.remedy(), Remedy::Retry, "{error}"),
        }
    }
    let end = log.extents().await.unwrap()[&raw()].end();
    assert_eq!(read_all(&log, all()).await.records.len(), number * 10, "nothing was let go before its release");
    disk.set_bytes_max(Some(used(&disk)));
    log.release(&raw(), &end).await.unwrap();
    assert_eq!(log.append(&harvest("github/a", number, 10)).await.unwrap_err().remedy(), Remedy::Retry);
    let mut tries = 0;
    while log.append(&harvest("github/a", number, 10)).await.is_err() {
        tries += 1;
        assert!(tries < 20, "released segments make room");
    }
    drop(log);
    let (log, recovery) = open(&disk, small()).unwrap();
    assert!(recovery.is_clean(), "{recovery}");
    assert_eq!(log.cursor(&CollectorId("github/a".into())).await.unwrap(), Some(Cursor(number.to_string())));
}

#[tokio::test]
async fn what_is_too_large_or_unknown_is_refused_by_name() {
    let disk = SimDisk::default();
    let (log, _) = open(&disk, small()).unwrap();
    let mut long_cursor = harvest("github/a", 0, 1);
    long_cursor.cursor = Cursor("x".repeat(600 << 10));
    let mut other_source = harvest("arxiv/a", 0, 1);
    other_source.source = contract::SourceId("arxiv");
    let errors = [
        log.append(&long_cursor).await.unwrap_err(),
        log.append(&other_source).await.unwrap_err(),
        log.read(&Topic("nothing".into()), &all(), 1, Duration::ZERO).await.unwrap_err(),
        log.read(&raw(), &Positions([(2, 0)].into()), 1, Duration::ZERO).await.unwrap_err(),
    ];
    let texts = errors.map(|error| {
        assert_eq!(error.remedy(), Remedy::Change);
        error.to_string()
    });
    assert_eq!(
        texts,
        [
            "failed to append a cursor of `github/a` with 614408 bytes (at most 524288)",
            "failed to append records of `arxiv`, which this log was not opened for",
            "failed to read topic `nothing` (known: databroker.coverage, github.raw)",
            "failed to read partition 2 of `github.raw` (it has 2)",
        ]
    );
}

/// The files of `fixture/format-1` stay for ever: what a version once wrote, every later one reads. As long as the format is
/// the same, the same appends give the same bytes.
#[tokio::test]
async fn a_log_of_format_1_is_read_and_written_as_it_was() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixture/format-1");
    let disk = SimDisk::default();
    fill(&disk, 5).await;
    let paths = disk.paths();
    let names: Vec<_> = paths.iter().map(|path| path.file_name().unwrap()).collect();
    assert!(names.len() > 2, "segments and an index: {names:?}");
    for (path, name) in paths.iter().zip(&names) {
        let written = crate::disk::read_whole(&disk, path).unwrap();
        let expected = std::fs::read(fixture.join(name)).unwrap();
        assert!(written == expected, "{name:?} is written otherwise than by format 1");
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("journal")).unwrap();
    for name in &names {
        std::fs::copy(fixture.join(name), folder.path().join("journal").join(name)).unwrap();
    }
    let (log, recovery) = EmbeddedLog::open(folder.path(), &[SOURCE], small(), clock()).unwrap();
    assert!(recovery.is_clean() && recovery.segments_read == 1, "{recovery}");
    let read = read_all(&log, all()).await.records;
    let mut records: Vec<_> = read.into_iter().map(|record| record.record).collect();
    let mut expected: Vec<_> = (0..5).flat_map(|number| harvest("github/a", number, 10).records).collect();
    records.sort_by(|a, b| a.id.cmp(&b.id));
    expected.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(records, expected);
    assert_eq!(log.cursor(&CollectorId("github/a".into())).await.unwrap(), Some(Cursor("4".into())));
}

/// Appends harvests 0 to `count` of one collector and closes the log.
async fn fill(disk: &SimDisk, count: usize) {
    let (log, _) = open(disk, small()).unwrap();
    for number in 0..count {
        log.append(&harvest("github/a", number, 10)).await.unwrap();
    }
}
