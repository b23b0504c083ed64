//! Appends with fsync on every one, beside plain writing with fdatasync of the same bytes in the same run.
//!
//! `cargo bench -p databroker --bench append -- [FOLDER] [MEGABYTES]`: FOLDER decides which disk is measured (a
//! temporary folder unless given), MEGABYTES how much is written per round and candidate (48). It is done with harvests of
//! 0.75 MB, like a poll's, and of 7.5 MB, like a backfill's.
//!
//! "The same bytes" are the bodies of the records, as they come from a source. Rounds go in turn over all candidates, so
//! that a disk that slows down slows all of them; the figure is each candidate's median round.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use contract::{
    CollectorId, Cursor, Harvest, Log, Positions, RawRecord, RecordId, SourceId, SystemClock, Timestamp, Topic,
};
use embedded_log::{Compression, EmbeddedLog, Settings};

const SOURCE: SourceId = SourceId("github");
const RECORDS_PER_APPEND: [usize; 2] = [500, 5_000];
const BODY_BYTES: usize = 1_500;
const ROUNDS: usize = 7;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let folder = arguments.first().map_or_else(|| temporary.path().to_owned(), PathBuf::from);
    let megabytes: usize = arguments.get(1).map_or(48, |text| text.parse().expect("MEGABYTES is a number"));
    for records in RECORDS_PER_APPEND {
        measure(&folder, megabytes, records);
    }
}

fn measure(folder: &Path, megabytes: usize, records: usize) {
    let appends = (megabytes << 20).div_ceil(records * BODY_BYTES);
    let harvests: Vec<Harvest> = (0..appends).map(|number| harvest(number, records)).collect();
    let bytes: usize = harvests.iter().flat_map(|harvest| &harvest.records).map(|record| record.body.len()).sum();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    println!(
        "{appends} appends of {records} records, {:.1} MB of bodies a round, {ROUNDS} rounds in turn",
        bytes as f64 / 1e6
    );

    let candidates: Vec<(String, Option<Compression>, usize)> = [(None, 1)]
        .into_iter()
        .chain([1, 4].into_iter().flat_map(|appenders| {
            [Compression::None, Compression::Lz4, Compression::Zstd].map(|codec| (Some(codec), appenders))
        }))
        .map(|(codec, appenders)| {
            let name = codec.map_or("plain write + fdatasync".to_owned(), |codec| {
                format!("log, {codec:?}, {appenders} appenders").to_lowercase()
            });
            (name, codec, appenders)
        })
        .collect();
    let mut rounds: Vec<Vec<(f64, u64)>> = vec![Vec::new(); candidates.len()];
    for round in 0..ROUNDS {
        for (place, (_, codec, appenders)) in candidates.iter().enumerate() {
            let folder = folder.join(format!("bench-{round}-{place}"));
            std::fs::create_dir_all(&folder).expect("create a folder");
            let (elapsed, written) = match codec {
                None => write_plainly(&folder, &harvests),
                Some(codec) => append(&runtime, &folder, *codec, *appenders, &harvests),
            };
            std::fs::remove_dir_all(&folder).expect("remove what was written");
            rounds[place].push((bytes as f64 / 1e6 / elapsed.as_secs_f64(), written));
        }
    }
    let medians: Vec<f64> = rounds.iter().map(|rounds| median(rounds.iter().map(|round| round.0).collect())).collect();
    println!("{:<28} {:>8} {:>8} {:>8} {:>7} {:>9}", "", "MB/s", "least", "most", "ratio", "on disk");
    for ((name, _, _), (rounds, speed)) in candidates.iter().zip(rounds.iter().zip(&medians)) {
        let least = rounds.iter().map(|round| round.0).fold(f64::MAX, f64::min);
        let most = rounds.iter().map(|round| round.0).fold(0.0, f64::max);
        let on_disk = rounds[0].1 as f64 / bytes as f64;
        println!("{name:<28} {speed:>8.1} {least:>8.1} {most:>8.1} {:>7.2} {on_disk:>9.2}", speed / medians[0]);
    }
    reopen_and_read(&runtime, &folder.join("bench-reopen"), &harvests, bytes);
}

/// The same bodies, appended to one file with one write and one fdatasync per harvest.
fn write_plainly(folder: &Path, harvests: &[Harvest]) -> (Duration, u64) {
    let chunks: Vec<Vec<u8>> = harvests
        .iter()
        .map(|harvest| harvest.records.iter().flat_map(|record| &record.body).copied().collect())
        .collect();
    let mut file = std::fs::File::create(folder.join("plain")).expect("create a file");
    let started = Instant::now();
    for chunk in &chunks {
        file.write_all(chunk).expect("write");
        file.sync_data().expect("sync");
    }
    (started.elapsed(), chunks.iter().map(|chunk| chunk.len() as u64).sum())
}

fn append(
    runtime: &tokio::runtime::Runtime,
    folder: &Path,
    compression: Compression,
    appenders: usize,
    harvests: &[Harvest],
) -> (Duration, u64) {
    let log = open(folder, compression);
    let shares: Vec<Vec<Harvest>> =
        (0..appenders).map(|appender| harvests.iter().skip(appender).step_by(appenders).cloned().collect()).collect();
    let started = Instant::now();
    let tasks: Vec<_> = shares
        .into_iter()
        .map(|share| {
            let log = Arc::clone(&log);
            runtime.spawn(async move {
                let mut written = 0;
                for harvest in &share {
                    written += log.append(harvest).await.expect("append").bytes;
                }
                written
            })
        })
        .collect();
    let written = tasks.into_iter().map(|task| runtime.block_on(task).expect("an appender")).sum();
    (started.elapsed(), written)
}

/// How long opening and reading take.
fn reopen_and_read(runtime: &tokio::runtime::Runtime, folder: &Path, harvests: &[Harvest], bytes: usize) {
    let (_, written) = append(runtime, folder, Compression::default(), 1, harvests);
    let started = Instant::now();
    let log = open(folder, Compression::default());
    let opened = started.elapsed();
    let started = Instant::now();
    let checked = runtime.block_on(log.check()).expect("check");
    let check = started.elapsed();
    assert!(checked.damages.is_empty(), "nothing is damaged");
    let started = Instant::now();
    let topic = Topic::raw(SOURCE);
    let mut next = Positions((0..4).map(|partition| (partition, 0)).collect());
    let mut records = 0;
    loop {
        let batch = runtime.block_on(log.read(&topic, &next, 8 << 20, Duration::ZERO)).expect("read");
        if batch.records.is_empty() {
            break;
        }
        records += batch.records.len();
        next = batch.next;
    }
    let read = started.elapsed();
    let appended: usize = harvests.iter().map(|harvest| harvest.records.len()).sum();
    assert_eq!(records, appended, "every record is read");
    println!(
        "open {:.1} ms (last segment {:.0} MB read through), check {:.1} ms, read {:.0} MB/s of bodies",
        opened.as_secs_f64() * 1e3,
        written.min(64 << 20) as f64 / 1e6,
        check.as_secs_f64() * 1e3,
        bytes as f64 / 1e6 / read.as_secs_f64()
    );
    std::fs::remove_dir_all(folder).expect("remove what was written");
}

fn open(folder: &Path, compression: Compression) -> Arc<EmbeddedLog> {
    let settings = Settings { compression, ..Settings::default() };
    let (log, _) = EmbeddedLog::open(folder, &[SOURCE], settings, Arc::new(SystemClock)).expect("open");
    Arc::new(log)
}

/// Records like GitHub's events: fixed keys, varied names, numbers, hashes and sentences.
fn harvest(number: usize, records: usize) -> Harvest {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(number as u64 + 1);
    let records = (0..records).map(|place| record(number * records + place, &mut random));
    Harvest {
        source: SOURCE,
        collector: CollectorId("github/events".to_owned()),
        records: records.collect(),
        coverage: Vec::new(),
        cursor: Cursor(format!("{{\"last\":{number}}}")),
        poll_again_in: None,
        acknowledge: None,
    }
}

fn record(number: usize, random: &mut u64) -> RawRecord {
    const WORDS: &[&str] = &[
        "fix",
        "panic",
        "parser",
        "when",
        "index",
        "empty",
        "update",
        "dependency",
        "merge",
        "branch",
        "release",
        "test",
        "async",
        "remove",
        "unused",
        "import",
        "document",
        "error",
        "memory",
        "leak",
        "cache",
        "support",
        "windows",
        "build",
        "refactor",
        "config",
        "the",
        "for",
        "with",
        "into",
        "stream",
        "socket",
        "timeout",
        "retry",
        "handle",
        "null",
        "value",
        "feature",
    ];
    let id = 40_000_000_000 + number;
    let mut body = format!(
        r#"{{"id":"{id}","type":"PushEvent","actor":{{"id":{},"login":"{}-{}"}},"repo":{{"id":{},"name":"{}/{}"}},"payload":{{"commits":["#,
        next(random) % 90_000_000,
        WORDS[next(random) % WORDS.len()],
        next(random) % 10_000,
        next(random) % 900_000_000,
        WORDS[next(random) % WORDS.len()],
        WORDS[next(random) % WORDS.len()],
    );
    while body.len() < BODY_BYTES - 60 {
        body.push_str(&format!(r#"{{"sha":"{:016x}{:016x}","message":""#, next(random), next(random)));
        for _ in 0..6 + next(random) % 14 {
            body.push_str(WORDS[next(random) % WORDS.len()]);
            body.push(' ');
        }
        body.push_str("\",\"distinct\":true},");
    }
    body.push_str(r#"null]},"public":true,"created_at":"2026-11-22T10:00:00Z"}"#);
    RawRecord {
        id: RecordId::from(id.to_string()),
        event_time: Timestamp(1_790_000_000_000_000 + number as i64),
        fetched_at: Timestamp(1_790_000_001_000_000),
        body: Bytes::from(body),
    }
}

/// xorshift64*: the same records on every run.
fn next(random: &mut u64) -> usize {
    *random ^= *random >> 12;
    *random ^= *random << 25;
    *random ^= *random >> 27;
    (random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) as usize
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
