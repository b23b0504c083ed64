//! How much of a backfill is the work of its libraries: the CPU-seconds of each stage alone, summed, divided by
//! those of the whole, in one run on the same records.
//!
//!     cargo bench -p databroker --bench backfill -- [--events N] FILE…
//!
//! Without files the shipped sample is repeated. Records are repeated with changed ids until there are N
//! (default 500,000).

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use acquisition::{Context, Source};
use arrow::array::AsArray;
use contract::{CollectorId, Cursor, Harvest, Log, LogRecord, RawRecord, RecordId, Rows, RowsBuilder, Span, row_json};
use flate2::{Compression, read::MultiGzDecoder, write::GzEncoder};
use rustix::time::{ClockId, clock_gettime};

const RECORDS_AT_ONCE: usize = 8_192;

fn main() -> anyhow::Result<()> {
    let (events, files) = arguments();
    let home = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let records = runtime.block_on(read(&files))?;
    let repeats = events.div_ceil(records.len());
    let (input, raw_bytes) = write_repeated(home.path(), &records, repeats)?;
    let total = records.len() * repeats;
    println!(
        "{total} events, {:.0} MB raw, {:.0} MB gzip",
        raw_bytes as f64 / 1e6,
        input.metadata()?.len() as f64 / 1e6
    );

    let whole = run_whole(home.path(), &home.path().join("input.json.gz"), raw_bytes, total)?;
    let batches: Vec<Rows> = records.chunks(RECORDS_AT_ONCE).map(rows_of).collect();
    let stages = [
        ("gunzip", cpu(|| gunzip(&home.path().join("input.json.gz")))?),
        (
            "parse to columns",
            cpu(|| repeat(repeats, || records.chunks(RECORDS_AT_ONCE).for_each(|some| drop(rows_of(some)))))?,
        ),
        ("log append", cpu(|| runtime.block_on(append(home.path(), &records, repeats)))?),
        ("tantivy", cpu(|| index(home.path(), &batches, repeats))?),
        ("Parquet silver", cpu(|| parquet(home.path(), &batches, repeats, |rows| &rows.silver))?),
        ("Parquet bronze", cpu(|| parquet(home.path(), &batches, repeats, |rows| &rows.bronze))?),
    ];
    let sum: f64 = stages.iter().map(|(_, seconds)| seconds).sum();
    println!("\n| stage alone | CPU-s |\n| --- | --- |");
    for (name, seconds) in stages {
        println!("| {name} | {seconds:.2} |");
    }
    println!("| sum | {sum:.2} |\n| whole | {whole:.2} |\n| efficiency | {:.2} |", sum / whole);
    Ok(())
}

fn arguments() -> (usize, Vec<PathBuf>) {
    let mut events = 500_000;
    let mut files = Vec::new();
    let mut given = std::env::args().skip(1).filter(|word| word != "--bench");
    while let Some(word) = given.next() {
        match word.as_str() {
            "--events" => events = given.next().and_then(|count| count.parse().ok()).expect("--events N"),
            file => files.push(PathBuf::from(file)),
        }
    }
    (events, files)
}

fn github() -> &'static Source {
    acquisition::source("github").expect("it is in the list")
}

/// CPU-seconds of this process, all threads, that `work` takes.
fn cpu<T>(work: impl FnOnce() -> T) -> anyhow::Result<f64>
where
    T: Outcome,
{
    let now = || {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
    };
    let started = now();
    work().outcome()?;
    Ok(now() - started)
}

trait Outcome {
    fn outcome(self) -> anyhow::Result<()>;
}

impl Outcome for () {
    fn outcome(self) -> anyhow::Result<()> {
        Ok(())
    }
}

impl Outcome for anyhow::Result<()> {
    fn outcome(self) -> anyhow::Result<()> {
        self
    }
}

fn repeat(times: usize, mut work: impl FnMut()) {
    (0..times).for_each(|_| work());
}

/// The records of the files that have an id of their own, or of the sample.
async fn read(files: &[PathBuf]) -> anyhow::Result<Vec<RawRecord>> {
    let source = github();
    let context = Context::default();
    let mut opened = match files {
        [] => vec![(source.sample)(&context)],
        files => files
            .iter()
            .map(|file| (source.open_file)(file, &acquisition::Settings::default(), &context))
            .collect::<Result<_, _>>()?,
    };
    let mut records: Vec<RawRecord> = Vec::new();
    for file in &mut opened {
        let mut cursor = Cursor::default();
        loop {
            let harvest = file.collector.poll(&cursor).await?;
            records.extend(harvest.records.into_iter().filter(|record| !record.id.as_str().starts_with("sha256:")));
            cursor = harvest.cursor;
            if harvest.poll_again_in.is_none() {
                break;
            }
        }
    }
    let mut known = std::collections::HashSet::new();
    records.retain(|record| known.insert(record.id.clone()));
    Ok(records)
}

/// All records as many times as asked, each time with other ids, one to a line; their bytes.
fn write_repeated(home: &Path, records: &[RawRecord], repeats: usize) -> anyhow::Result<(File, u64)> {
    let path = home.join("input.json.gz");
    let mut out = GzEncoder::new(BufWriter::new(File::create(&path)?), Compression::new(6));
    let mut raw_bytes = 0;
    for turn in 0..repeats {
        for record in records {
            let old = format!("\"id\":\"{}\"", record.id);
            let new = format!("\"id\":\"{}{turn:04}\"", record.id);
            let body = String::from_utf8_lossy(&record.body).replacen(&old, &new, 1);
            let line: String = body.lines().collect();
            raw_bytes += line.len() as u64 + 1;
            writeln!(out, "{line}")?;
        }
    }
    out.finish()?.flush()?;
    Ok((File::open(path)?, raw_bytes))
}

/// Runs the program; says its speed and memory, answers its CPU-seconds.
fn run_whole(home: &Path, input: &Path, raw_bytes: u64, events: usize) -> anyhow::Result<f64> {
    use wait4::Wait4;
    let mut command = Command::new(env!("CARGO_BIN_EXE_databroker"));
    command.env("DATABROKER_HOT_RETENTION_DAYS", "0").stdout(Stdio::inherit());
    command.arg("--data").arg(home.join("data")).args(["backfill", "github"]).arg(input);
    let started = Instant::now();
    let ended = command.spawn()?.wait4()?;
    let seconds = started.elapsed().as_secs_f64();
    anyhow::ensure!(ended.status.success(), "the backfill failed: {}", ended.status);
    let cpu = (ended.rusage.utime + ended.rusage.stime).as_secs_f64();
    println!(
        "| events/s | MB/s | seconds | CPU-s | peak MB |\n| --- | --- | --- | --- | --- |\n| {:.0} | {:.1} | {seconds:.1} | {cpu:.1} | {:.0} |",
        events as f64 / seconds,
        raw_bytes as f64 / seconds / 1e6,
        ended.rusage.maxrss as f64 / 1e6,
    );
    Ok(cpu)
}

fn gunzip(input: &Path) -> anyhow::Result<()> {
    let mut unpacked = MultiGzDecoder::new(File::open(input)?);
    let mut buffer = vec![0; 1 << 20];
    while unpacked.read(&mut buffer)? > 0 {}
    Ok(())
}

fn rows_of(records: &[RawRecord]) -> Rows {
    let source = github();
    let mut builder = RowsBuilder::new(source.schema);
    for (offset, record) in (0..).zip(records) {
        let at = LogRecord { partition: 0, offset, appended_at: record.fetched_at, record: record.clone() };
        // Rejects are part of the work.
        builder.record(&at, source.processor).unwrap_or_default();
    }
    builder.finish(Span { source: source.id, ranges: Vec::new() })
}

async fn append(home: &Path, records: &[RawRecord], repeats: usize) -> anyhow::Result<()> {
    let source = github().id;
    let clock = Arc::new(contract::SystemClock);
    let (log, _) = embedded_log::EmbeddedLog::open(&home.join("log"), &[source], Default::default(), clock)?;
    for turn in 0..repeats {
        for (part, some) in records.chunks(RECORDS_AT_ONCE).enumerate() {
            let harvest = Harvest {
                source,
                collector: CollectorId("github/bench".to_owned()),
                records: some
                    .iter()
                    .map(|record| RawRecord { id: RecordId::from(format!("{}{turn:04}", record.id)), ..record.clone() })
                    .collect(),
                coverage: Vec::new(),
                cursor: Cursor(format!("{turn}/{part}")),
                poll_again_in: None,
                acknowledge: None,
            };
            log.append(&harvest).await?;
        }
    }
    Ok(())
}

/// Tantivy as it comes: the same fields, one writer thread, a stored document.
fn index(home: &Path, batches: &[Rows], repeats: usize) -> anyhow::Result<()> {
    use tantivy::schema::{FAST, STORED, STRING, Schema, TEXT};
    let columns: Vec<_> = github().schema.all().collect();
    let mut schema = Schema::builder();
    let fields: Vec<_> = columns
        .iter()
        .map(|column| match (column.kind, column.search) {
            (contract::Kind::Text | contract::Kind::TextList, contract::Search::Words) => {
                schema.add_text_field(column.name, TEXT)
            }
            (contract::Kind::Text | contract::Kind::TextList, contract::Search::Exact) => {
                schema.add_text_field(column.name, STRING | FAST)
            }
            (contract::Kind::Integer, _) => schema.add_i64_field(column.name, tantivy::schema::INDEXED | FAST),
            (contract::Kind::Boolean, _) => schema.add_bool_field(column.name, tantivy::schema::INDEXED | FAST),
            (contract::Kind::Timestamp, _) => schema.add_date_field(column.name, tantivy::schema::INDEXED | FAST),
            (kind, _) => unreachable!("GitHub has no column of kind {kind:?}"),
        })
        .collect();
    let source = schema.add_bytes_field("_source", STORED);
    let path = home.join("tantivy");
    std::fs::create_dir(&path)?;
    let index = tantivy::Index::create_in_dir(&path, schema.build())?;
    let mut writer: tantivy::IndexWriter = index.writer_with_num_threads(1, 64_000_000)?;
    for _ in 0..repeats {
        for rows in batches {
            for row in 0..rows.silver.num_rows() {
                writer.add_document(document(&rows.silver, row, &columns, &fields, source))?;
            }
        }
    }
    writer.commit()?;
    writer.wait_merging_threads()?;
    Ok(())
}

fn document(
    batch: &arrow::array::RecordBatch,
    row: usize,
    columns: &[&contract::Column],
    fields: &[tantivy::schema::Field],
    source: tantivy::schema::Field,
) -> tantivy::TantivyDocument {
    use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
    let mut document = tantivy::TantivyDocument::default();
    for ((column, &field), values) in columns.iter().zip(fields).zip(batch.columns()) {
        if values.is_null(row) {
            continue;
        }
        match column.kind {
            contract::Kind::Text => document.add_text(field, values.as_string::<i32>().value(row)),
            contract::Kind::TextList => {
                let list = values.as_list::<i32>().value(row);
                list.as_string::<i32>().iter().flatten().for_each(|text| document.add_text(field, text));
            }
            contract::Kind::Integer => document.add_i64(field, values.as_primitive::<Int64Type>().value(row)),
            contract::Kind::Boolean => document.add_bool(field, values.as_boolean().value(row)),
            contract::Kind::Timestamp => {
                let micros = values.as_primitive::<TimestampMicrosecondType>().value(row);
                document.add_date(field, tantivy::DateTime::from_timestamp_micros(micros));
            }
            kind => unreachable!("GitHub has no column of kind {kind:?}"),
        }
    }
    let mut json = Vec::new();
    row_json::write_row(batch, row, &mut json);
    document.add_bytes(source, &json);
    document
}

fn parquet(
    home: &Path,
    batches: &[Rows],
    repeats: usize,
    part: fn(&Rows) -> &arrow::array::RecordBatch,
) -> anyhow::Result<()> {
    use parquet::basic::{Compression, ZstdLevel};
    let properties = parquet::file::properties::WriterProperties::builder();
    let properties = properties.set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?)).build();
    let Some(first) = batches.first() else { return Ok(()) };
    let file = File::create(home.join("rows.parquet"))?;
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, part(first).schema(), Some(properties))?;
    for _ in 0..repeats {
        for rows in batches {
            writer.write(part(rows))?;
        }
    }
    writer.close()?;
    Ok(())
}
