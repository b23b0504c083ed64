//! What every source must do, whatever it reads: the tests that walk [`crate::SOURCES`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use contract::{COMMON, Cursor, Kind, LogRecord, RawRecord, Reject, RowsBuilder, Span, Timestamp, row_json};
use proptest::prelude::*;

use crate::{Context, HarvestSize, OpenFile, SOURCES, Settings, Source};

/// All fixtures are fetched at this time.
fn context(records_max: usize) -> Context {
    let now = Timestamp::parse_rfc3339("2026-01-02T03:04:05Z").unwrap();
    Context { clock: Arc::new(move || now), harvest: HarvestSize { records_max, bytes_max: 1 << 20 } }
}

fn fixtures(source: &Source) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(source.id.0).join("fixture");
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut inputs: Vec<PathBuf> = paths.filter(|path| !path.to_string_lossy().ends_with(".expected.jsonl")).collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "`{}` has fixtures", source.id);
    inputs
}

/// Polls to the end, each time with the cursor of the harvest before.
async fn read(open: OpenFile) -> Vec<RawRecord> {
    let (mut collector, mut cursor, mut records) = (open.collector, Cursor::default(), Vec::new());
    loop {
        let harvest = collector.poll(&cursor).await.unwrap();
        records.extend(harvest.records);
        cursor = harvest.cursor;
        if harvest.poll_again_in.is_none() {
            return records;
        }
    }
}

/// The row as JSON, or the reject; checks that a row fits the schema and a reject leaves nothing behind.
fn process(source: &Source, record: RawRecord) -> Result<String, Reject> {
    let mut builder = RowsBuilder::new(source.schema);
    let logged = LogRecord { partition: 0, offset: 0, appended_at: record.fetched_at, record };
    let outcome = builder.record(&logged, source.processor);
    let rows = builder.finish(Span { source: source.id, ranges: Vec::new() });
    assert_eq!(rows.silver.schema(), source.schema.arrow());
    assert_eq!(rows.silver.num_rows() + rows.dead_letters.num_rows(), 1);
    outcome.map(|()| {
        let mut row = Vec::new();
        row_json::write_row(&rows.silver, 0, &mut row);
        String::from_utf8(row).unwrap()
    })
}

fn line(source: &Source, record: RawRecord) -> String {
    let id = record.id.to_string();
    match process(source, record) {
        Ok(row) => row,
        Err(Reject { kind, reason }) => {
            serde_json::json!({ "id": id, "reject": { "kind": kind, "reason": reason } }).to_string()
        }
    }
}

#[tokio::test]
async fn every_fixture_gives_its_expected_rows() {
    for source in SOURCES {
        for input in fixtures(source) {
            let records = read((source.open_file)(&input, &Settings::default(), &context(8192)).unwrap()).await;
            let found: String = records.into_iter().map(|record| line(source, record) + "\n").collect();
            let expected = PathBuf::from(format!("{}.expected.jsonl", input.display()));
            if std::env::var_os("UPDATE_EXPECT").is_some() {
                std::fs::write(&expected, &found).unwrap();
            }
            let expected_text = std::fs::read_to_string(&expected).unwrap_or_default();
            for (number, (found, expected)) in found.lines().zip(expected_text.lines()).enumerate() {
                assert_eq!(found, expected, "{}, line {}", input.display(), number + 1);
            }
            assert_eq!(found.lines().count(), expected_text.lines().count(), "{}", input.display());
        }
    }
}

#[tokio::test]
async fn a_file_resumed_after_any_harvest_gives_every_record_once_and_in_order() {
    for source in SOURCES {
        for input in fixtures(source) {
            let whole = read((source.open_file)(&input, &Settings::default(), &context(8192)).unwrap()).await;
            let (mut cursor, mut records) = (Cursor::default(), Vec::new());
            loop {
                // Each harvest comes from a collector of its own, as after a crash.
                let mut open = (source.open_file)(&input, &Settings::default(), &context(3)).unwrap();
                let harvest = open.collector.poll(&cursor).await.unwrap();
                assert!(harvest.records.len() <= 3);
                records.extend(harvest.records);
                cursor = harvest.cursor;
                if harvest.poll_again_in.is_none() {
                    let again = open.collector.poll(&cursor).await.unwrap();
                    assert_eq!((again.records.len(), again.poll_again_in), (0, None), "a done file is done");
                    break;
                }
            }
            assert_eq!(records, whole, "{}", input.display());
        }
    }
}

#[tokio::test]
async fn the_sample_is_whole_and_its_newest_event_is_now() {
    for source in SOURCES {
        let context = context(500);
        let now = context.clock.now();
        let records = read((source.sample)(&context)).await;
        assert!(records.len() >= 1_000, "`{}` has a sample of {} records", source.id, records.len());
        assert_eq!(records.iter().map(|record| record.event_time).max(), Some(now));
        for record in records {
            process(source, record).unwrap();
        }
    }
}

#[test]
fn the_columns_are_flat_lower_case_and_told_apart() {
    for source in SOURCES {
        let mut names: Vec<&str> = source.schema.all().map(|column| column.name).collect();
        let is_plain = |name: &&str| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        assert!(names.iter().all(is_plain), "{names:?}");
        assert!(source.schema.leaves().all(|leaf| leaf.column.doc.ends_with('.')));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), COMMON.len() + source.schema.columns.len());
        for leaf in source.schema.leaves().filter(|leaf| leaf.member.is_some()) {
            let list = source.schema.all().nth(leaf.place).unwrap();
            assert_eq!(leaf.column.name, format!("{}.{}", list.name, leaf.column.member_name()));
            assert!(matches!(leaf.column.kind, Kind::Text | Kind::Integer) && is_plain(&leaf.column.member_name()));
        }
    }
}

fn record(body: Vec<u8>) -> RawRecord {
    let now = context(1).clock.now();
    RawRecord { id: "1".into(), event_time: now, fetched_at: now, body: body.into() }
}

fn assert_row_or_reject(source: &Source, body: Vec<u8>) {
    if let Err(reject) = process(source, record(body)) {
        assert_ne!(reject.kind, "panic", "{reject}");
        assert!(!reject.reason.is_empty());
    }
}

/// The bodies of all records in the fixtures of a source.
fn bodies(source: &'static Source) -> &'static [Vec<u8>] {
    static BODIES: Mutex<BTreeMap<&str, &'static [Vec<u8>]>> = Mutex::new(BTreeMap::new());
    BODIES.lock().unwrap().entry(source.id.0).or_insert_with(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let open = |input: PathBuf| (source.open_file)(&input, &Settings::default(), &context(8192)).unwrap();
        let records = fixtures(source).into_iter().flat_map(|input| runtime.block_on(read(open(input))));
        let bodies = records.map(|record| record.body.to_vec()).filter(|body| !body.is_empty());
        bodies.collect::<Vec<_>>().leak()
    })
}

proptest! {
    #[test]
    fn any_bytes_give_a_row_or_a_reject(body in prop::collection::vec(any::<u8>(), 0..200)) {
        for source in SOURCES {
            assert_row_or_reject(source, body.clone());
        }
    }

    #[test]
    fn a_damaged_record_gives_a_row_or_a_reject(
        pick in any::<prop::sample::Index>(),
        damages in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..8_usize), 1..4),
    ) {
        for source in SOURCES {
            let mut body = pick.get(bodies(source)).clone();
            for (place, byte, cut) in &damages {
                let place = place.index(body.len());
                let end = body.len().min(place + cut);
                body.splice(place..end, [*byte]);
            }
            assert_row_or_reject(source, body);
        }
    }
}
