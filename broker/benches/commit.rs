//! Writing and committing rows, beside the bare Parquet writer on the same batches:
//! `cargo bench -p databroker --bench commit`.

use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use bytes::Bytes;
use cold_store::{DeltaStore, Settings};
use contract::conformance::cold_store::{SCHEMA, SOURCE};
use contract::{
    ColdStore, LogRecord, OffsetRange, Processor, RawRecord, Reject, RowBuilder, Rows, RowsBuilder, Span, Store,
    Timestamp,
};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

const RECORDS: i64 = 160_000;
const BATCH: i64 = 8_000;
const COMMIT_EVERY: usize = 5;
const BODY_BYTES: usize = 2_000;

struct Events;

impl Processor for Events {
    fn process(&self, record: &RawRecord, row: &mut RowBuilder) -> Result<(), Reject> {
        row.text(SCHEMA.place("type"), if record.body[20].is_multiple_of(2) { "PushEvent" } else { "IssuesEvent" });
        row.integer(SCHEMA.place("number"), record.event_time.0 % 1_000);
        row.texts(SCHEMA.place("labels"), ["bug", "good first issue"]);
        row.boolean(SCHEMA.place("public"), true);
        row.timestamp(SCHEMA.place("created_at"), record.event_time);
        Ok(())
    }
}

/// Text that compresses about as GitHub's events do: words in an order of their own.
fn body(seed: i64) -> Bytes {
    const WORDS: [&str; 16] = [
        "{\"id\":",
        "\"type\":",
        "\"PushEvent\",",
        "\"actor\":",
        "\"login\":",
        "\"repo\":",
        "\"name\":",
        "\"payload\":",
        "\"commits\":",
        "\"sha\":",
        "\"message\":",
        "\"fix\"",
        "\"url\":",
        "\"https://api.example.org/\"",
        "12345,",
        "},",
    ];
    let mut state = seed as u64;
    let mut text = format!("{{\"number\":{seed:>12},");
    while text.len() < BODY_BYTES {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.push_str(WORDS[(state >> 60) as usize]);
        text.push_str(&format!("{:x}", (state >> 40) & 0xffff));
    }
    Bytes::from(text)
}

fn batch(from: i64) -> Rows {
    let mut builder = RowsBuilder::new(&SCHEMA);
    for offset in from..from + BATCH {
        let event_time = Timestamp(1_420_070_400_000_000 + offset * 1_000);
        let id = format!("{}", 2_489_000_000_i64 + offset).as_str().into();
        let record = RawRecord { id, event_time, fetched_at: event_time, body: body(offset) };
        builder.record(&LogRecord { partition: 0, offset, appended_at: event_time, record }, &Events).expect("a row");
    }
    builder.finish(Span { source: SOURCE, ranges: vec![OffsetRange { partition: 0, from, to: from + BATCH }] })
}

fn bare(directory: &std::path::Path, batches: &[Rows]) -> Duration {
    let level = ZstdLevel::try_new(Settings::default().zstd_level).expect("a level");
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(level)).build();
    let started = Instant::now();
    for (count, chunk) in batches.chunks(COMMIT_EVERY).enumerate() {
        for (name, of) in [("bronze", true), ("silver", false)] {
            let pick = |rows: &Rows| if of { rows.bronze.clone() } else { rows.silver.clone() };
            let file = File::create(directory.join(format!("{name}-{count}.parquet"))).expect("creates");
            let mut writer =
                ArrowWriter::try_new(file, pick(&chunk[0]).schema(), Some(properties.clone())).expect("opens");
            chunk.iter().for_each(|rows| writer.write(&pick(rows)).expect("writes"));
            writer.close().expect("closes");
        }
    }
    started.elapsed()
}

async fn store(directory: &std::path::Path, batches: &[Rows]) -> Duration {
    let clock: Arc<dyn contract::Clock> = Arc::new(contract::SystemClock);
    let store = DeltaStore::open(directory, &[&SCHEMA], Settings::default(), clock).await.expect("opens");
    let started = Instant::now();
    for chunk in batches.chunks(COMMIT_EVERY) {
        for rows in chunk {
            store.write(rows).await.expect("takes");
        }
        store.commit(SOURCE).await.expect("commits");
    }
    let written = started.elapsed();
    let day = Timestamp(1_420_070_400_000_000).day();
    let asked = Instant::now();
    for rows in batches {
        let ids: Vec<&str> = rows.bronze.column(2).as_string::<i32>().iter().flatten().collect();
        let found = store.find_ids(SOURCE, day, &ids).await.expect("finds");
        assert_eq!(found.len(), ids.len());
    }
    println!(
        "find_ids       {:>6.2} ms for each {BATCH} ids",
        asked.elapsed().as_secs_f64() * 1e3 / batches.len() as f64
    );
    let maintained = Instant::now();
    store.maintain().await.expect("maintains");
    println!("maintain       {:>6.2} s", maintained.elapsed().as_secs_f64());
    written
}

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let batches: Vec<Rows> = (0..RECORDS / BATCH).map(|number| batch(number * BATCH)).collect();
    let bytes: usize = batches.iter().map(Rows::memory_bytes).sum();
    let directory = tempfile::tempdir().expect("a directory");
    let report = |name: &str, time: Duration| {
        let (rows, megabytes) = (RECORDS as f64 / time.as_secs_f64(), bytes as f64 / 1e6 / time.as_secs_f64());
        println!(
            "{name:<14} {:>6.2} s {rows:>9.0} records/s {megabytes:>6.0} MB/s of rows in memory",
            time.as_secs_f64()
        );
    };
    let bare = bare(directory.path(), &batches);
    report("ArrowWriter", bare);
    let store = runtime.block_on(store(&directory.path().join("cold"), &batches));
    report("write+commit", store);
    println!("ratio          {:>6.2}", bare.as_secs_f64() / store.as_secs_f64());
}
