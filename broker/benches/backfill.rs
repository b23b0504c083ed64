//! A backfill as a user runs it. For GitHub also how much of it is the work of its libraries: the CPU-seconds of each
//! stage alone, summed, divided by those of the whole, in one run on the same records.
//!
//!     cargo bench -p databroker --bench backfill -- [--events N] FILE…
//!     cargo bench -p databroker --bench backfill -- --source SOURCE [--copies N] FILE…
//!
//! GitHub's events are repeated with changed ids until there are N (default 500,000); without files the shipped sample
//! is. Files of another source are read as they are, and copies under other hashes, which makes other records of DNS
//! messages, until there are N of each (default 1).

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
    let Arguments { source, events, copies, files } = arguments();
    let home = tempfile::tempdir()?;
    match source.as_str() {
        "github" => github_and_its_stages(home.path(), events, &files),
        other => {
            let copies = files.iter().flat_map(|file| (0..copies).map(move |number| (file, number)));
            let inputs = copies.map(|(file, number)| match number {
                0 => Ok(file.clone()),
                number => write_copy(home.path(), file, number),
            });
            let inputs = inputs.collect::<anyhow::Result<Vec<_>>>()?;
            run_whole(home.path(), other, &inputs).map(drop)
        }
    }
}

fn github_and_its_stages(home: &Path, events: usize, files: &[PathBuf]) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let records = runtime.block_on(read(files))?;
    let repeats = events.div_ceil(records.len());
    let input = home.join("input.json.gz");
    write_repeated(&input, &records, repeats)?;
    let whole = run_whole(home, "github", std::slice::from_ref(&input))?;
    let batches: Vec<Rows> = records.chunks(RECORDS_AT_ONCE).map(rows_of).collect();
    let stages = [
        ("gunzip", cpu(|| gunzip(&input))?),
        (
            "parse to columns",
            cpu(|| repeat(repeats, || records.chunks(RECORDS_AT_ONCE).for_each(|some| drop(rows_of(some)))))?,
        ),
        ("log append", cpu(|| runtime.block_on(append(home, &records, repeats)))?),
        ("tantivy", cpu(|| index(home, &batches, repeats))?),
        ("Parquet silver", cpu(|| parquet(home, &batches, repeats, |rows| &rows.silver))?),
        ("Parquet bronze", cpu(|| parquet(home, &batches, repeats, |rows| &rows.bronze))?),
    ];
    let sum: f64 = stages.iter().map(|(_, seconds)| seconds).sum();
    println!("\n| stage alone | CPU-s |\n| --- | --- |");
    for (name, seconds) in stages {
        println!("| {name} | {seconds:.2} |");
    }
    println!("| sum | {sum:.2} |\n| whole | {whole:.2} |\n| efficiency | {:.2} |", sum / whole);
    Ok(())
}

struct Arguments {
    source: String,
    events: usize,
    copies: usize,
    files: Vec<PathBuf>,
}

fn arguments() -> Arguments {
    let mut arguments = Arguments { source: "github".to_owned(), events: 500_000, copies: 1, files: Vec::new() };
    let mut given = std::env::args().skip(1).filter(|word| word != "--bench");
    while let Some(word) = given.next() {
        let mut number = || given.next().and_then(|count| count.parse().ok()).expect("a number follows");
        match word.as_str() {
            "--events" => arguments.events = number(),
            "--copies" => arguments.copies = number(),
            "--source" => arguments.source = given.next().expect("a source follows"),
            file => arguments.files.push(PathBuf::from(file)),
        }
    }
    arguments
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

/// All records as many times as asked, each time with other ids, one to a line.
fn write_repeated(path: &Path, records: &[RawRecord], repeats: usize) -> anyhow::Result<()> {
    let mut out = GzEncoder::new(BufWriter::new(File::create(path)?), Compression::new(6));
    for turn in 0..repeats {
        for record in records {
            let old = format!("\"id\":\"{}\"", record.id);
            let new = format!("\"id\":\"{}{turn:04}\"", record.id);
            let body = String::from_utf8_lossy(&record.body).replacen(&old, &new, 1);
            let line: String = body.lines().collect();
            writeln!(out, "{line}")?;
        }
    }
    out.finish()?.flush()?;
    Ok(())
}

/// The bytes of a file, or of what is in it if it is packed by xz, in zstd frames; one that readers skip has the number,
/// so that each copy has another hash.
fn write_copy(home: &Path, file: &Path, number: usize) -> anyhow::Result<PathBuf> {
    let name = file.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    let mut bytes = std::fs::read(file)?;
    if name.ends_with(".xz") {
        let mut unpacked = Vec::new();
        liblzma::read::XzDecoder::new_multi_decoder(&bytes[..]).read_to_end(&mut unpacked)?;
        bytes = unpacked;
    }
    let path = home.join(format!("{number}-{name}.zst"));
    let mut packed = zstd::encode_all(&bytes[..], 1)?;
    let number = (number as u64).to_le_bytes();
    // The magic number of skippable frames, and the length. Source: RFC 8878, section 3.1.2.
    packed.extend([&0x184d_2a50_u32.to_le_bytes()[..], &8_u32.to_le_bytes(), &number].concat());
    std::fs::write(&path, packed)?;
    Ok(path)
}

/// Runs the program; says its speed and memory, answers its CPU-seconds.
fn run_whole(home: &Path, source: &str, inputs: &[PathBuf]) -> anyhow::Result<f64> {
    use wait4::Wait4;
    let mut command = Command::new(env!("CARGO_BIN_EXE_databroker"));
    command.env("DATABROKER_HOT_RETENTION_DAYS", "0").stdout(Stdio::piped());
    command.arg("--json").arg("--data").arg(home.join("data")).args(["backfill", source]).args(inputs);
    let started = Instant::now();
    let mut child = command.spawn()?;
    let mut summary = String::new();
    child.stdout.take().expect("it is piped").read_to_string(&mut summary)?;
    let ended = child.wait4()?;
    let seconds = started.elapsed().as_secs_f64();
    anyhow::ensure!(ended.status.success(), "the backfill failed: {}", ended.status);
    let summary: serde_json::Value = serde_json::from_str(&summary)?;
    let count = |name: &str| summary[name].as_f64().unwrap_or_default();
    let cpu = (ended.rusage.utime + ended.rusage.stime).as_secs_f64();
    let (records, bytes) = (count("records"), count("bytes"));
    println!(
        "{records} records, {:.0} MB raw, {} rows, {} duplicates, {} rejects",
        bytes / 1e6,
        summary["rows"],
        summary["duplicates"],
        summary["rejects"]
    );
    println!(
        "| records/s | MB/s | seconds | CPU-s | peak MB |\n| --- | --- | --- | --- | --- |\n| {:.0} | {:.1} | {seconds:.1} | {cpu:.1} | {:.0} |",
        records / seconds,
        bytes / seconds / 1e6,
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
            (contract::Kind::Integer, _) => schema.add_i64_field(column.name, FAST),
            (contract::Kind::Boolean, _) => schema.add_bool_field(column.name, tantivy::schema::INDEXED | FAST),
            (contract::Kind::Timestamp, _) => schema.add_date_field(column.name, FAST),
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
