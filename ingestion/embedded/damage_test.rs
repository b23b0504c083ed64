//! Crashes and damage: what is acknowledged stays, what is lost is named.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use contract::{CollectorId, Cursor, Log, Offset, Partition};
use futures::future::join_all;
use proptest::prelude::*;

use crate::disk::read_whole;
use crate::sim_disk::{Random, SimDisk};
use crate::testing::{all, harvest, open, quarantined, raw, read_all, segments, small};
use crate::{EmbeddedLog, Settings};

const ONE_SEGMENT: u64 = 1 << 20;

/// A log of `count` harvests in one segment, closed in good order or left as by a killed process.
async fn filled(count: usize, is_closed: bool) -> (SimDisk, std::path::PathBuf) {
    let disk = SimDisk::default();
    let (log, _) = open(&disk, one_segment()).unwrap();
    for number in 0..count {
        log.append(&harvest("github/a", number, 6)).await.unwrap();
    }
    let path = segments(&disk).remove(0);
    let before_close = read_whole(&disk, &path).unwrap();
    drop(log);
    if !is_closed {
        disk.damage(&path, |bytes| *bytes = before_close);
    }
    (disk, path)
}

fn one_segment() -> Settings {
    Settings { segment_bytes_max: ONE_SEGMENT, ..small() }
}

/// Where the frames of a segment begin.
fn frame_starts(bytes: &[u8]) -> Vec<usize> {
    let magic = crate::frame::MAGIC;
    (0..bytes.len() - 4).filter(|&at| bytes[at..at + 4] == magic).collect()
}

#[tokio::test]
async fn an_end_cut_at_any_byte_is_removed_and_the_rest_stays() {
    let (disk, path) = filled(3, false).await;
    let whole = read_whole(&disk, &path).unwrap();
    let last = *frame_starts(&whole).last().unwrap();
    for length in last..whole.len() {
        disk.damage(&path, |bytes| *bytes = whole[..length].to_vec());
        let (log, recovery) = open(&disk, one_segment()).unwrap();
        assert_eq!(recovery.cut.is_some(), length > last, "cut to {length} bytes");
        assert!(recovery.damages.is_empty() && quarantined(&disk).is_empty());
        assert_eq!(read_all(&log, all()).await.records.len(), 12);
        assert_eq!(log.cursor(&CollectorId("github/a".into())).await.unwrap(), Some(Cursor("1".into())));
        log.append(&harvest("github/a", 2, 6)).await.unwrap();
        assert_eq!(read_all(&log, all()).await.records.len(), 18);
    }
}

#[tokio::test]
async fn a_last_frame_that_does_not_match_its_checksum_is_cut_and_kept_in_quarantine() {
    let (disk, path) = filled(3, false).await;
    disk.damage(&path, |bytes| *bytes.last_mut().unwrap() ^= 1);
    let (log, recovery) = open(&disk, one_segment()).unwrap();
    let cut = recovery.cut.expect("the end is cut");
    assert!(cut.quarantine.is_some() && quarantined(&disk).len() == 2, "a copy and its text");
    assert_eq!(read_all(&log, all()).await.records.len(), 12);
}

#[tokio::test]
async fn damage_in_the_last_frame_of_a_closed_log_is_damage_not_an_unfinished_commit() {
    let (disk, path) = filled(3, true).await;
    let starts = frame_starts(&read_whole(&disk, &path).unwrap());
    disk.damage(&path, |bytes| bytes[starts[3] + 5] ^= 1);
    let (log, recovery) = open(&disk, one_segment()).unwrap();
    assert!(recovery.cut.is_none() && recovery.damages.len() == 1, "{recovery}");
    let read = read_all(&log, all()).await;
    let lost: Offset = read.lost.iter().map(|lost| lost.range.to - lost.range.from).sum();
    assert_eq!((read.records.len(), lost), (12, 6));
}

#[tokio::test]
async fn a_damaged_middle_is_named_by_offsets_and_reads_go_on_behind_it() {
    let (disk, path) = filled(5, false).await;
    let starts = frame_starts(&read_whole(&disk, &path).unwrap());
    disk.damage(&path, |bytes| bytes[starts[2] + 20] ^= 0xff);
    for round in 0..2 {
        let (log, recovery) = open(&disk, one_segment()).unwrap();
        assert_eq!(recovery.damages.len(), 1, "{recovery}");
        let damage = &recovery.damages[0];
        assert_eq!((damage.segment.as_str(), damage.byte), ("00000000000000000000.log", starts[2] as u64));
        assert_eq!(damage.bytes, (starts[3] - starts[2]) as u64);
        let copy = damage.quarantine.as_ref().expect("a copy");
        assert_eq!(copy, Path::new(&format!("log/quarantine/00000000000000000000-byte-{}.damaged", starts[2])));
        assert_eq!(quarantined(&disk).len(), 2, "one copy and its text, also in round {round}");

        let read = read_all(&log, all()).await;
        let mut lost: Vec<_> = read.lost.iter().map(|lost| (raw(), lost.range)).collect();
        lost.sort_by_key(|(_, range)| range.partition);
        assert_eq!(lost, damage.lost, "the read and the report agree");
        assert!(read.lost[0].reason.contains("00000000000000000000.log"), "{:?}", read.lost);
        assert_eq!(read.records.len(), 24);
        assert!(read.records.iter().all(|record| !record.record.id.as_str().starts_with("github/a 1 ")));
        let check = log.check().await.unwrap();
        assert_eq!((check.damages.len(), &check.damages[0].lost), (1, &damage.lost));
    }
}

#[tokio::test]
async fn damage_that_appears_while_the_log_is_open_is_found_by_reading() {
    let disk = SimDisk::default();
    let (log, _) = open(&disk, one_segment()).unwrap();
    for number in 0..4 {
        log.append(&harvest("github/a", number, 6)).await.unwrap();
    }
    let path = segments(&disk).remove(0);
    let starts = frame_starts(&read_whole(&disk, &path).unwrap());
    let end = read_whole(&disk, &path).unwrap().len();
    disk.damage(&path, |bytes| {
        bytes[starts[1]] ^= 1; // the head of harvest 0
        bytes[end - 3] ^= 1; // the last batch of harvest 3
    });
    let read = read_all(&log, all()).await;
    let lost: Offset = read.lost.iter().map(|lost| lost.range.to - lost.range.from).sum();
    assert_eq!(read.records.len() as Offset + lost, 24);
    assert!(read.lost.len() >= 2 && read.records.len() >= 12, "{:?}", read.lost);
    assert_eq!(quarantined(&disk).len(), 4);
    assert_eq!(log.check().await.unwrap().damages.len(), 2);
    log.append(&harvest("github/a", 4, 6)).await.unwrap();
    assert_eq!(read_all(&log, all()).await.records.len(), read.records.len() + 6);
}

#[tokio::test]
async fn the_damaged_head_of_a_segment_does_not_lose_the_cursors_before_it() {
    let disk = SimDisk::default();
    let (log, _) = open(&disk, small()).unwrap();
    log.append(&harvest("github/once", 7, 1)).await.unwrap();
    for number in 0..30 {
        log.append(&harvest("github/a", number, 10)).await.unwrap();
    }
    drop(log);
    let last = segments(&disk).pop().unwrap();
    disk.damage(&last, |bytes| bytes[10..80].fill(0xaa));
    let (log, recovery) = open(&disk, small()).unwrap();
    assert_eq!(recovery.damages.len(), 1, "{recovery}");
    let cursors = log.cursors("github/").await.unwrap();
    assert_eq!(cursors.iter().map(|(_, cursor)| cursor.0.as_str()).collect::<Vec<_>>(), ["29", "7"]);
    assert_eq!(read_all(&log, all()).await.records.len(), 301);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_damage_leaves_a_log_that_opens_and_accounts_for_every_offset(seed: u64, is_closed: bool, places in 1_usize..6) {
        on_runtime(async {
            let (disk, path) = filled(8, is_closed).await;
            let mut random = Random(seed);
            disk.damage(&path, |bytes| {
                for _ in 0..places {
                    let from = random.below(bytes.len() as u64) as usize;
                    let to = (from + 1 + random.below(40) as usize).min(bytes.len());
                    bytes[from..to].iter_mut().for_each(|byte| *byte ^= 1 + random.below(255) as u8);
                }
            });
            let (log, _) = open(&disk, one_segment()).unwrap();
            account(&log).await;
            log.append(&harvest("github/b", 0, 5)).await.unwrap();
            drop(log);
            let (log, recovery) = open(&disk, one_segment()).unwrap();
            assert!(recovery.cut.is_none(), "what was mended once stays mended: {recovery}");
            account(&log).await;
        });
    }

    #[test]
    fn after_any_crashes_all_that_was_acknowledged_is_there_and_nothing_in_part(seed: u64) {
        on_runtime(crash_again_and_again(seed));
    }
}

fn on_runtime(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(test);
}

/// Each offset below the end is read or lost, once.
async fn account(log: &EmbeddedLog) {
    let end = log.extents().await.unwrap()[&raw()].end();
    let read = read_all(log, all()).await;
    let mut seen: BTreeSet<(Partition, Offset)> = BTreeSet::new();
    let lost = read.lost.iter().flat_map(|lost| (lost.range.from..lost.range.to).map(|o| (lost.range.partition, o)));
    for place in read.records.iter().map(|r| (r.partition, r.offset)).chain(lost) {
        assert!(seen.insert(place), "{place:?} twice");
    }
    let expected = end.0.iter().flat_map(|(&partition, &end)| (0..end).map(move |offset| (partition, offset)));
    assert!(expected.eq(seen), "every offset is accounted for");
}

/// What the test knows of the log.
#[derive(Default)]
struct Model {
    /// Per collector, how many harvests were acknowledged.
    acknowledged: BTreeMap<String, usize>,
    /// Per collector, how many may be there.
    sent: BTreeMap<String, usize>,
    /// How many records each harvest (`collector number`) had when it was sent last.
    sizes: BTreeMap<String, usize>,
    /// Where acknowledged records stand.
    places: BTreeMap<String, (Partition, Offset)>,
}

async fn crash_again_and_again(seed: u64) {
    let mut random = Random(seed);
    let disk = SimDisk::default();
    let mut model = Model::default();
    for _ in 0..6 {
        let (log, recovery) = open(&disk, small()).unwrap();
        assert!(recovery.damages.is_empty(), "a crash alone damages nothing that was acknowledged: {recovery}");
        model.compare(&log).await;
        let syncs = random.below(14) as usize;
        let is_closed = random.below(4) == 0;
        if !is_closed {
            disk.fail_syncs_after(syncs);
        }
        for _ in 0..4 {
            model.append_some(&log, &mut random).await;
        }
        drop(log);
        if !is_closed || random.below(2) == 0 {
            disk.crash(random.below(u64::MAX));
        }
    }
    let (log, _) = open(&disk, small()).unwrap();
    model.compare(&log).await;
}

impl Model {
    /// Appends of three collectors at the same time, one of which does not wait for its answers.
    async fn append_some(&mut self, log: &EmbeddedLog, random: &mut Random) {
        let mut harvests = Vec::new();
        for collector in ["github/a", "github/b", "github/hasty", "github/hasty"] {
            let sent = self.sent.entry(collector.to_owned()).or_default();
            let records = random.below(9) as usize;
            self.sizes.insert(format!("{collector} {sent}"), records);
            harvests.push((collector, *sent, harvest(collector, *sent, records)));
            *sent += 1;
        }
        let appends = harvests.iter().map(|(_, _, harvest)| log.append(harvest));
        for ((collector, number, harvest), answer) in harvests.iter().zip(join_all(appends).await) {
            let Ok(appended) = answer else { continue };
            let acknowledged = self.acknowledged.entry((*collector).to_owned()).or_default();
            assert_eq!(*acknowledged, *number, "what is acknowledged has no gap");
            *acknowledged = number + 1;
            let mut next: BTreeMap<Partition, Offset> =
                appended.ranges.iter().map(|range| (range.partition, range.from)).collect();
            for record in &harvest.records {
                let partition = contract::partition_of(record.id.as_str().as_bytes(), 2);
                let offset = next.get_mut(&partition).expect("a range for it");
                self.places.insert(record.id.to_string(), (partition, *offset));
                *offset += 1;
            }
        }
    }

    /// The log holds all that was acknowledged, where it was; beyond that whole harvests only, in their order.
    async fn compare(&mut self, log: &EmbeddedLog) {
        let read = read_all(log, all()).await;
        assert!(read.lost.is_empty(), "{:?}", read.lost);
        let mut found: BTreeMap<String, (Partition, Offset)> = BTreeMap::new();
        for record in &read.records {
            let twice = found.insert(record.record.id.to_string(), (record.partition, record.offset));
            assert!(twice.is_none(), "{} twice", record.record.id);
        }
        for (id, place) in &self.places {
            assert_eq!(found.get(id), Some(place), "{id}");
        }
        for (collector, sent) in &mut self.sent {
            let cursor = log.cursor(&CollectorId(collector.clone())).await.unwrap();
            let stored = cursor.map_or(0, |cursor| cursor.0.parse::<usize>().unwrap() + 1);
            let acknowledged = self.acknowledged.entry(collector.clone()).or_default();
            assert!(
                (*acknowledged..=*sent).contains(&stored),
                "{collector}: {acknowledged} to {sent}, stored {stored}"
            );
            let numbers = found.keys().filter_map(|id| id.strip_prefix(collector.as_str())?.split(' ').nth(1));
            assert!(numbers.clone().all(|number| number.parse::<usize>().unwrap() < stored), "{collector}");
            *acknowledged = stored;
            *sent = stored;
        }
        self.complete(&found);
        self.places.extend(found);
    }

    /// No harvest is there in part: of those whose cursor is stored all records, of others none.
    fn complete(&self, found: &BTreeMap<String, (Partition, Offset)>) {
        let stored = |harvest: &str| {
            let (collector, number) = harvest.rsplit_once(' ').expect("made so");
            number.parse::<usize>().expect("a number") < self.acknowledged[collector]
        };
        for (harvest, &records) in &self.sizes {
            let expected = if stored(harvest) { records } else { 0 };
            let places = (0..9).filter(|place| found.contains_key(&format!("{harvest} {place}")));
            assert!(places.eq(0..expected), "{harvest}: not its {expected} records");
        }
    }
}
