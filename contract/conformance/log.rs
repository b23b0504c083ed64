//! What every [`Log`] must do, embedded or Kafka. Offsets may have holes, so they are compared by order alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::{join, join_all};

use crate::{
    Batch, CollectorId, Coverage, CoverageKind, Cursor, Harvest, Log, LogRecord, Offset, OffsetRange, Partition,
    Positions, RawRecord, RecordId, SourceId, Timestamp, Topic, partition_of,
};

/// The source that the suite logs records of.
pub const SOURCE: SourceId = SourceId("conformance");

/// The partitions that [`Maker::open`] gives its topic.
pub const PARTITIONS: Partition = 4;

/// How long the suite waits for records that must come.
const WAIT: Duration = Duration::from_secs(30);

/// Opens logs for the suite.
#[async_trait]
pub trait Maker: Send + Sync {
    /// Opens the log called `name` for [`SOURCE`] with [`PARTITIONS`] partitions. The first time it is empty; when an
    /// earlier one of that name was dropped, this one holds what that one held.
    async fn open(&self, name: &str) -> Arc<dyn Log>;
}

/// Runs every case on a log of its own.
///
/// # Panics
/// When the log does not do what the case says.
pub async fn suite(maker: &dyn Maker) {
    append_gives_ascending_offsets_that_read_answers(maker).await;
    the_same_id_falls_into_the_partition_of_its_hash(maker).await;
    reading_starts_at_any_offset(maker).await;
    a_read_is_bounded_and_answers_at_least_one_record(maker).await;
    a_read_of_some_partitions_answers_only_those(maker).await;
    the_cursor_is_stored_with_the_records(maker).await;
    a_harvest_of_a_cursor_alone_is_stored(maker).await;
    cursors_are_listed_by_prefix(maker).await;
    coverage_is_read_from_its_topic(maker).await;
    a_waiting_read_wakes_on_an_append(maker).await;
    a_read_without_data_answers_after_its_wait(maker).await;
    appends_side_by_side_keep_the_order_of_each_appender(maker).await;
    extents_reach_from_the_first_to_behind_the_last_record(maker).await;
    large_and_empty_bodies_come_back(maker).await;
    ids_and_times_come_back_whatever_they_are(maker).await;
    reopening_keeps_everything(maker).await;
    after_begin_after_no_offset_that_a_store_holds_is_given_again(maker).await;
}

async fn append_gives_ascending_offsets_that_read_answers(maker: &dyn Maker) {
    let log = maker.open("offsets").await;
    let mut ends = Positions::default();
    let mut sent = BTreeMap::new();
    for number in 0..5 {
        let harvest = harvest(number, 20);
        let appended = log.append(&harvest).await.expect("append");
        assert!(appended.bytes > 0, "an append says how much it wrote");
        for range in &appended.ranges {
            assert!(range.from < range.to, "a range of an append is not empty");
            assert!(range.from >= ends.of(range.partition), "offsets ascend from append to append");
            ends.advance(range.partition, range.to);
        }
        let partitions: BTreeSet<Partition> = appended.ranges.iter().map(|range| range.partition).collect();
        assert_eq!(partitions.len(), appended.ranges.len(), "one range per partition");
        for record in harvest.records {
            let partition = partition_of(record.id.as_str().as_bytes(), PARTITIONS);
            let range = range_of(&appended.ranges, partition);
            sent.insert(record.id.clone(), (record, range));
        }
    }
    let read = read_all(&*log, &raw(), &all()).await;
    assert_ascending(&read);
    assert_eq!(read.len(), sent.len(), "each record is read once");
    for LogRecord { partition, offset, record, appended_at } in read {
        let (expected, range) = &sent[&record.id];
        assert_eq!(&record, expected);
        assert!(partition == range.partition && (range.from..range.to).contains(&offset), "it stands in its range");
        assert!(appended_at > Timestamp(0), "the time of the append is known");
    }
}

async fn the_same_id_falls_into_the_partition_of_its_hash(maker: &dyn Maker) {
    let log = maker.open("partitions").await;
    for number in 0..3 {
        let mut same_ids = harvest(0, 30);
        same_ids.cursor = Cursor(number.to_string());
        log.append(&same_ids).await.expect("append");
    }
    let read = read_all(&*log, &raw(), &all()).await;
    assert_eq!(read.len(), 90, "the log keeps repeated records; dropping them is not its task");
    for record in read {
        assert_eq!(record.partition, partition_of(record.record.id.as_str().as_bytes(), PARTITIONS));
    }
}

async fn reading_starts_at_any_offset(maker: &dyn Maker) {
    let log = maker.open("any-offset").await;
    for number in 0..4 {
        log.append(&harvest(number, 12)).await.expect("append");
    }
    let records = read_all(&*log, &raw(), &all()).await;
    for partition in 0..PARTITIONS {
        let offsets: Vec<Offset> = records.iter().filter(|r| r.partition == partition).map(|r| r.offset).collect();
        for (skipped, &offset) in offsets.iter().enumerate() {
            let read = read_all(&*log, &raw(), &Positions([(partition, offset)].into())).await;
            let found: Vec<Offset> = read.iter().map(|record| record.offset).collect();
            assert_eq!(found, offsets[skipped..], "partition {partition} from offset {offset}");
        }
    }
}

async fn a_read_is_bounded_and_answers_at_least_one_record(maker: &dyn Maker) {
    let log = maker.open("bounded").await;
    let mut large = harvest(0, 200);
    for record in &mut large.records {
        record.body = Bytes::from(vec![b'x'; 10_000]);
    }
    log.append(&large).await.expect("append");
    let one = log.read(&raw(), &all(), 1, WAIT).await.expect("read");
    assert!(!one.records.is_empty(), "a record larger than the bound is answered alone");
    let some = log.read(&raw(), &all(), 500_000, WAIT).await.expect("read");
    let bytes: usize = some.records.iter().map(|record| record.record.body.len()).sum();
    assert!((1..=1_000_000).contains(&bytes), "{bytes} bytes are about 500,000");
    let mut next = all();
    let mut read = Vec::new();
    while read.len() < 200 {
        let batch = log.read(&raw(), &next, 50_000, WAIT).await.expect("read");
        assert!(!batch.records.is_empty(), "every read goes on");
        next = batch.next;
        read.extend(batch.records);
    }
    assert_ascending(&read);
    assert_eq!(read.len(), 200, "in small steps each record comes once");
}

async fn a_read_of_some_partitions_answers_only_those(maker: &dyn Maker) {
    let log = maker.open("some-partitions").await;
    log.append(&harvest(0, 100)).await.expect("append");
    let all_records = read_all(&*log, &raw(), &all()).await;
    let some = Positions([(1, 0), (3, 0)].into());
    let read = read_all(&*log, &raw(), &some).await;
    assert!(read.iter().all(|record| record.partition == 1 || record.partition == 3));
    let expected = all_records.iter().filter(|record| some.0.contains_key(&record.partition)).count();
    assert!(expected > 0, "100 ids fall into every partition");
    assert_eq!(read.len(), expected);
    let next = log.read(&raw(), &some, 1, WAIT).await.expect("read").next;
    assert_eq!(next.0.keys().copied().collect::<Vec<_>>(), [1, 3], "`next` names the partitions asked");
}

async fn the_cursor_is_stored_with_the_records(maker: &dyn Maker) {
    let log = maker.open("cursor").await;
    let harvest = harvest(7, 3);
    assert_eq!(log.cursor(&harvest.collector).await.expect("cursor"), None, "none before the first append");
    log.append(&harvest).await.expect("append");
    assert_eq!(log.cursor(&harvest.collector).await.expect("cursor"), Some(harvest.cursor.clone()));
    let mut next = harvest.clone();
    next.cursor = Cursor("{\"page\":\"zwölf\"}".to_owned());
    log.append(&next).await.expect("append");
    assert_eq!(log.cursor(&harvest.collector).await.expect("cursor"), Some(next.cursor));
}

async fn a_harvest_of_a_cursor_alone_is_stored(maker: &dyn Maker) {
    let log = maker.open("cursor-alone").await;
    let empty = harvest(1, 0);
    let appended = log.append(&empty).await.expect("append");
    assert!(appended.ranges.is_empty());
    assert_eq!(log.cursor(&empty.collector).await.expect("cursor"), Some(empty.cursor));
    let read = log.read(&raw(), &all(), 1_000, Duration::ZERO).await.expect("read");
    assert!(read.records.is_empty());
}

async fn cursors_are_listed_by_prefix(maker: &dyn Maker) {
    let log = maker.open("cursors").await;
    for name in ["conformance/file/b", "conformance/file/a", "conformance/filed", "conformance/events"] {
        let mut harvest = harvest(0, 0);
        harvest.collector = CollectorId(name.to_owned());
        harvest.cursor = Cursor(format!("at {name}"));
        log.append(&harvest).await.expect("append");
    }
    let listed = log.cursors("conformance/file/").await.expect("cursors");
    let names: Vec<&str> = listed.iter().map(|(collector, _)| collector.0.as_str()).collect();
    assert_eq!(names, ["conformance/file/a", "conformance/file/b"]);
    assert_eq!(listed[0].1, Cursor("at conformance/file/a".to_owned()));
    assert_eq!(log.cursors("").await.expect("cursors").len(), 4);
    assert_eq!(log.cursors("other").await.expect("cursors").len(), 0);
}

async fn coverage_is_read_from_its_topic(maker: &dyn Maker) {
    let log = maker.open("coverage").await;
    let mut sent = Vec::new();
    for number in 0..3 {
        let mut harvest = harvest(number, 2);
        harvest.coverage = vec![coverage(number, CoverageKind::Covered), coverage(number, CoverageKind::Missed)];
        sent.extend(harvest.coverage.clone());
        let appended = log.append(&harvest).await.expect("append");
        let records: Offset = appended.ranges.iter().map(|range| range.to - range.from).sum();
        assert_eq!(records, 2, "the ranges are those of the source's topic");
    }
    let read = read_all(&*log, &Topic::coverage(), &Positions([(0, 0)].into())).await;
    assert_ascending(&read);
    let parse = |record: &LogRecord| serde_json::from_slice(&record.record.body).expect("coverage as JSON");
    assert_eq!(read.iter().map(parse).collect::<Vec<Coverage>>(), sent);
}

async fn a_waiting_read_wakes_on_an_append(maker: &dyn Maker) {
    let log = maker.open("wake").await;
    let from = all();
    let topic = raw();
    let harvest = harvest(0, 4);
    let waiting = log.read(&topic, &from, 1_000_000, WAIT);
    let (read, appended) = join(waiting, log.append(&harvest)).await;
    appended.expect("append");
    assert!(!read.expect("read").records.is_empty(), "the read answered the records that came while it waited");
}

async fn a_read_without_data_answers_after_its_wait(maker: &dyn Maker) {
    let log = maker.open("no-data").await;
    log.append(&harvest(0, 10)).await.expect("append");
    let end = log.extents().await.expect("extents")[&raw()].end();
    let read = log.read(&raw(), &end, 1_000, Duration::from_millis(20)).await.expect("read");
    assert!(read.records.is_empty() && read.lost.is_empty());
    assert_eq!(read.next, end, "`next` stays where the read began");
}

async fn appends_side_by_side_keep_the_order_of_each_appender(maker: &dyn Maker) {
    let log = maker.open("side-by-side").await;
    join_all((0..6).map(|appender| {
        let log = Arc::clone(&log);
        async move {
            for number in 0..10 {
                let mut harvest = harvest(number, 5);
                harvest.collector = CollectorId(format!("conformance/{appender}"));
                for (place, record) in harvest.records.iter_mut().enumerate() {
                    record.id = RecordId::from(format!("{appender} {:03}", number * 5 + place as i64));
                }
                log.append(&harvest).await.expect("append");
            }
        }
    }))
    .await;
    let read = read_all(&*log, &raw(), &all()).await;
    assert_ascending(&read);
    assert_eq!(read.len(), 300);
    let mut last: BTreeMap<(Partition, String), String> = BTreeMap::new();
    for record in read {
        let (appender, place) = record.record.id.as_str().split_once(' ').expect("made so");
        let before = last.insert((record.partition, appender.to_owned()), place.to_owned());
        assert!(before.is_none_or(|before| before.as_str() < place), "records of an appender keep their order");
    }
}

async fn extents_reach_from_the_first_to_behind_the_last_record(maker: &dyn Maker) {
    let log = maker.open("extents").await;
    let empty = log.extents().await.expect("extents");
    assert_eq!(empty[&raw()].partitions.len(), PARTITIONS as usize, "the topic is there before its first record");
    assert!(empty.contains_key(&Topic::coverage()));
    let appended = log.append(&harvest(0, 50)).await.expect("append");
    let extent = log.extents().await.expect("extents").remove(&raw()).expect("the topic");
    for range in appended.ranges {
        let reached = extent.partitions[range.partition as usize];
        assert!(reached.start <= range.from && reached.end >= range.to && reached.bytes > 0);
    }
    let read = read_all(&*log, &raw(), &extent.start()).await;
    assert_eq!(read.len(), 50);
}

async fn large_and_empty_bodies_come_back(maker: &dyn Maker) {
    let log = maker.open("bodies").await;
    let mut harvest = harvest(0, 3);
    let noise = (0..8_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8);
    harvest.records[0].body = noise.collect();
    harvest.records[1].body = Bytes::new();
    harvest.records[2].body = Bytes::from_static(&[0, 0xff, 0xfe, b'\n']);
    log.append(&harvest).await.expect("append");
    let read = read_all(&*log, &raw(), &all()).await;
    assert_same_records(read, &harvest.records);
}

async fn ids_and_times_come_back_whatever_they_are(maker: &dyn Maker) {
    let log = maker.open("ids").await;
    let mut harvest = harvest(0, 6);
    let ids = ["ключ", "日本語 🦀", "\u{0}\n\t\"", "a/b?c=d&e", "e\u{301}", "0"];
    let times = [i64::MIN / 4, -1, 0, 1, 1_700_000_000_123_457, i64::MAX / 4];
    for ((record, id), time) in harvest.records.iter_mut().zip(ids).zip(times) {
        record.id = RecordId::from(id);
        record.event_time = Timestamp(time);
        record.fetched_at = Timestamp(time / 2);
    }
    log.append(&harvest).await.expect("append");
    let read = read_all(&*log, &raw(), &all()).await;
    assert_same_records(read, &harvest.records);
}

async fn after_begin_after_no_offset_that_a_store_holds_is_given_again(maker: &dyn Maker) {
    let committed = Positions([(0, 1_000), (1, 2_000)].into());
    for name in ["begin-after-its-loss", "begin-anew"] {
        let log = maker.open(name).await;
        let mut records = 0;
        if name == "begin-after-its-loss" {
            log.append(&harvest(0, 40)).await.expect("append");
            records += 40;
        }
        let before = log.extents().await.expect("extents")[&raw()].end();
        log.begin_after(&raw(), &committed).await.expect("begin");
        log.begin_after(&raw(), &Positions([(0, 3)].into())).await.expect("what is reached already changes nothing");
        let unknown = Positions([(PARTITIONS, 1)].into());
        log.begin_after(&raw(), &unknown).await.expect_err("there is no such partition");
        let appended = log.append(&harvest(1, 40)).await.expect("append");
        records += 40;
        for range in &appended.ranges {
            let (least, end) = (committed.of(range.partition), before.of(range.partition));
            assert!(range.from >= least.max(end), "{name}: {range:?} begins behind {least} and {end}");
        }
        let read = read_from_start(&*log).await;
        assert_ascending(&read);
        assert_eq!(read.len(), records, "{name}: what the log has is read all the same");
        drop(log);
        let log = maker.open(name).await;
        let again = read_from_start(&*log).await;
        assert_eq!(again.iter().map(place).collect::<Vec<_>>(), read.iter().map(place).collect::<Vec<_>>());
    }
}

async fn reopening_keeps_everything(maker: &dyn Maker) {
    let mut expected = Vec::new();
    for round in 0..3 {
        let log = maker.open("reopen").await;
        let before: Vec<(Partition, Offset)> = read_all(&*log, &raw(), &all()).await.iter().map(place).collect();
        let before: BTreeSet<_> = before.into_iter().collect();
        assert_eq!(before, expected.iter().copied().collect(), "offsets stay what they were");
        let collector = harvest(0, 0).collector;
        let cursor = log.cursor(&collector).await.expect("cursor");
        assert_eq!(cursor, (round > 0).then(|| harvest(round - 1, 0).cursor));
        log.append(&harvest(round, 40)).await.expect("append");
        expected = read_all(&*log, &raw(), &all()).await.iter().map(place).collect();
        assert_eq!(expected.len(), 40 * (round as usize + 1));
    }
}

fn place(record: &LogRecord) -> (Partition, Offset) {
    (record.partition, record.offset)
}

fn raw() -> Topic {
    Topic::raw(SOURCE)
}

/// The start of every partition.
fn all() -> Positions {
    Positions((0..PARTITIONS).map(|partition| (partition, 0)).collect())
}

/// Harvest `number` of one collector, with records of its own.
fn harvest(number: i64, records: usize) -> Harvest {
    let record = |place: usize| RawRecord {
        id: RecordId::from(format!("{number}-{place}")),
        event_time: Timestamp(1_700_000_000_000_000 + number),
        fetched_at: Timestamp(1_700_000_001_000_000 + number),
        body: Bytes::from(format!("{{\"harvest\":{number},\"place\":{place},\"text\":\"größer\"}}")),
    };
    Harvest {
        source: SOURCE,
        collector: CollectorId("conformance/events".to_owned()),
        records: (0..records).map(record).collect(),
        coverage: Vec::new(),
        cursor: Cursor(format!("after {number}")),
        poll_again_in: None,
        acknowledge: None,
    }
}

fn coverage(number: i64, kind: CoverageKind) -> Coverage {
    Coverage {
        source: SOURCE.0.to_owned(),
        collector: "conformance/events".to_owned(),
        kind,
        from: Timestamp(number * 60_000_000),
        to: Timestamp((number + 1) * 60_000_000),
        records: number as u64,
        reason: "page 3 ends after the last event seen".to_owned(),
    }
}

/// All records at and after `from`; the suite appends before it reads, so the end is known.
async fn read_all(log: &dyn Log, topic: &Topic, from: &Positions) -> Vec<LogRecord> {
    let batch = read_to_end(log, topic, from).await;
    assert_eq!(batch.lost, [], "nothing is damaged");
    batch.records
}

/// What can be read of the source's topic.
async fn read_from_start(log: &dyn Log) -> Vec<LogRecord> {
    let start = log.extents().await.expect("extents")[&raw()].start();
    read_to_end(log, &raw(), &start).await.records
}

async fn read_to_end(log: &dyn Log, topic: &Topic, from: &Positions) -> Batch {
    let end = log.extents().await.expect("extents")[topic].end();
    let end = Positions(from.0.keys().map(|&partition| (partition, end.of(partition))).collect());
    let mut whole = Batch { next: from.clone(), ..Batch::default() };
    while !whole.next.reaches(&end) {
        let batch = log.read(topic, &whole.next, 100_000, WAIT).await.expect("read");
        assert!(batch.next.reaches(&whole.next) && batch.next != whole.next, "every read goes on");
        whole.records.extend(batch.records);
        whole.lost.extend(batch.lost);
        whole.next = batch.next;
    }
    whole
}

fn range_of(ranges: &[OffsetRange], partition: Partition) -> OffsetRange {
    *ranges.iter().find(|range| range.partition == partition).expect("a range for every partition with records")
}

fn assert_ascending(records: &[LogRecord]) {
    let mut next = Positions::default();
    for record in records {
        assert!(record.offset >= next.of(record.partition), "offsets ascend within a partition");
        next.advance(record.partition, record.offset + 1);
    }
}

fn assert_same_records(read: Vec<LogRecord>, expected: &[RawRecord]) {
    let mut read: Vec<RawRecord> = read.into_iter().map(|record| record.record).collect();
    let mut expected = expected.to_vec();
    read.sort_by(|a, b| a.id.cmp(&b.id));
    expected.sort_by(|a, b| a.id.cmp(&b.id));
    assert!(read == expected, "every record comes back byte for byte");
}
