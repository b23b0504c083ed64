//! What every source must do, whatever it reads: the tests that walk [`crate::SOURCES`].

use std::path::{Path, PathBuf};
use std::sync::Arc;

use contract::limits::JSON_DEPTH_MAX;
use contract::{COMMON, Cursor, LogRecord, RawRecord, Reject, RowsBuilder, Span, Timestamp, row_json};
use proptest::prelude::*;

use crate::{Context, HarvestSize, OpenFile, SOURCES, Source};

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
            let records = read((source.open_file)(&input, &context(8192)).unwrap()).await;
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
            let whole = read((source.open_file)(&input, &context(8192)).unwrap()).await;
            let (mut cursor, mut records) = (Cursor::default(), Vec::new());
            loop {
                // Each harvest comes from a collector of its own, as after a crash.
                let mut open = (source.open_file)(&input, &context(3)).unwrap();
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
            let time = record.event_time;
            let row = process(source, record).unwrap();
            assert!(row.contains(&format!(r#""created_at":"{time}""#)), "{row}");
        }
    }
}

#[test]
fn the_columns_are_flat_lower_case_and_told_apart() {
    for source in SOURCES {
        let mut names: Vec<&str> = source.schema.all().map(|column| column.name).collect();
        let is_plain = |name: &&str| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        assert!(names.iter().all(is_plain), "{names:?}");
        assert!(source.schema.columns.iter().all(|column| column.doc.ends_with('.')));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), COMMON.len() + source.schema.columns.len());
    }
}

#[test]
fn the_deepest_nesting_is_read_and_one_level_more_is_rejected() {
    for source in SOURCES {
        let with_depth = |depth: usize| {
            let nested = format!("{}{}", "[".repeat(depth - 1), "]".repeat(depth - 1));
            let body = format!(r#"{{"type":"X","created_at":"2015-01-01T00:00:00Z","deep":{nested}}}"#);
            process(source, record(body.into_bytes()))
        };
        assert!(with_depth(JSON_DEPTH_MAX).is_ok());
        assert_eq!(with_depth(JSON_DEPTH_MAX + 1).unwrap_err().kind, "json");
        assert_eq!(with_depth(1_000_000).unwrap_err().kind, "json");
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

proptest! {
    #[test]
    fn any_bytes_give_a_row_or_a_reject(body in prop::collection::vec(any::<u8>(), 0..200)) {
        for source in SOURCES {
            assert_row_or_reject(source, body.clone());
        }
    }

    #[test]
    fn a_damaged_event_gives_a_row_or_a_reject(
        pick in any::<prop::sample::Index>(),
        damages in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..8_usize), 1..4),
    ) {
        for source in SOURCES {
            let inputs = fixtures(source);
            let lines = std::fs::read(pick.get(&inputs)).unwrap();
            let lines: Vec<&[u8]> = lines.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).collect();
            let mut body = pick.get(&lines).to_vec();
            for (place, byte, cut) in &damages {
                let place = place.index(body.len());
                let end = body.len().min(place + cut);
                body.splice(place..end, [*byte]);
            }
            assert_row_or_reject(source, body);
        }
    }
}
