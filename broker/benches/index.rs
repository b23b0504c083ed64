//! What indexing costs: the store as the runtime uses it, beside tantivy alone with the same documents, in the same run.
//!
//! `cargo bench -p databroker --bench index [-- ROWS]`, 100,000 rows if not told. Rows are made, not read: texts of a
//! fixed vocabulary with the repetition of real events. CPU is that of all threads, from `/proc/self/stat`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use contract::{
    Column, Kind, LogRecord, Offset, OffsetRange, Period, Processor, RawRecord, RecordId, Reject, RowBuilder,
    RowSchema, Rows, RowsBuilder, Search, SourceId, Span, Store, Timestamp, row_json,
};
use hot_store::{Settings, TantivyStore};
use tantivy::tokenizer::{LowerCaser, SimpleTokenizer, TextAnalyzer};
use tantivy::{DateTime, Index, IndexSettings, IndexWriter, TantivyDocument};

const NOW: Timestamp = Timestamp(1_795_348_800_000_000);
const SOURCE: SourceId = SourceId("made");

/// Rows of one span: about those of one read from the log.
const ROWS_PER_SPAN: usize = 4_096;

static SCHEMA: RowSchema = RowSchema {
    source: SOURCE,
    period: Period::Day,
    columns: &[
        column("type", Kind::Text, Search::Exact),
        column("actor_login", Kind::Text, Search::Exact),
        column("actor_id", Kind::Integer, Search::Exact),
        column("repo_name", Kind::Text, Search::Exact),
        column("repo_id", Kind::Integer, Search::Exact),
        column("action", Kind::Text, Search::Exact),
        column("number", Kind::Integer, Search::Exact),
        column("title", Kind::Text, Search::Words),
        column("body", Kind::Text, Search::Words),
        column("labels", Kind::TextList, Search::Exact),
        column("commit_messages", Kind::TextList, Search::Words),
        column("url", Kind::Text, Search::Exact),
        column("public", Kind::Boolean, Search::Exact),
        column("created_at", Kind::Timestamp, Search::Exact),
    ],
};

fn main() {
    let count = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(100_000);
    let spans = spans(count);
    let mut bytes = 0;
    let documents_of = |rows: &Rows| (0..rows.silver.num_rows()).map(|row| json(rows, row).len()).sum::<usize>();
    spans.iter().for_each(|rows| bytes += documents_of(rows));
    println!("{count} rows, {:.1} MB of JSON", bytes as f64 / 1e6);

    let folder = tempfile::tempdir().expect("a folder");
    let store = measure("store", count, bytes, || run_store(folder.path(), &spans));
    let index = Index::open_in_dir(folder.path().join("made-2026.11.22")).expect("the store made it");
    let documents: Vec<TantivyDocument> = spans.iter().flat_map(|rows| documents(&index, rows)).collect();
    let bare = measure("tantivy alone", count, bytes, || run_bare(&index, documents));
    println!("tantivy alone / store: {:.2} of the CPU time, {:.2} of the time", bare.0 / store.0, bare.1 / store.1);
}

/// Runs `work` and prints what it took; answers seconds of CPU and of the clock.
fn measure(name: &str, rows: usize, bytes: usize, work: impl FnOnce()) -> (f64, f64) {
    let (cpu, start) = (cpu_seconds(), Instant::now());
    work();
    let (cpu, seconds) = (cpu_seconds() - cpu, start.elapsed().as_secs_f64());
    let (rows, megabytes) = (rows as f64 / seconds, bytes as f64 / 1e6 / seconds);
    println!("{name:>14}: {seconds:6.2} s, {cpu:6.2} CPU-s, {rows:8.0} rows/s, {megabytes:6.1} MB/s of JSON");
    (cpu, seconds)
}

/// Writes all spans with a commit a second, as the runtime does.
fn run_store(folder: &std::path::Path, spans: &[Rows]) {
    let runtime = tokio::runtime::Builder::new_multi_thread().build().expect("a runtime");
    let store = TantivyStore::open(folder, &[&SCHEMA], Settings::default(), Arc::new(|| NOW)).expect("opened");
    runtime.block_on(async {
        let mut committed = Instant::now();
        for rows in spans {
            store.write(rows).await.expect("written");
            if committed.elapsed() >= Duration::from_secs(1) {
                store.commit(SOURCE).await.expect("committed");
                committed = Instant::now();
            }
        }
        store.commit(SOURCE).await.expect("committed");
    });
}

/// Adds all documents to an index of the same schema and commits once.
fn run_bare(like: &Index, documents: Vec<TantivyDocument>) {
    let folder = tempfile::tempdir().expect("a folder");
    let directory = tantivy::directory::MmapDirectory::open(folder.path()).expect("opened");
    let index = Index::create(directory, like.schema(), IndexSettings::default()).expect("made");
    let standard = TextAnalyzer::builder(SimpleTokenizer::default()).filter(LowerCaser).build();
    index.tokenizers().register("standard", standard);
    let mut writer: IndexWriter =
        index.writer_with_num_threads(1, Settings::default().writer_memory_bytes).expect("opened");
    for document in documents {
        writer.add_document(document).expect("added");
    }
    writer.commit().expect("committed");
}

fn documents(index: &Index, rows: &Rows) -> Vec<TantivyDocument> {
    let schema = index.schema();
    let field = |name: &str| schema.get_field(name).expect("a column");
    let document = |row: usize| {
        let mut document = TantivyDocument::new();
        for (column, values) in SCHEMA.all().zip(rows.silver.columns()).filter(|(_, values)| values.is_valid(row)) {
            let place = field(column.name);
            match column.kind {
                Kind::Text => document.add_text(place, values.as_string::<i32>().value(row)),
                Kind::TextList => {
                    let texts = values.as_list::<i32>().value(row);
                    texts.as_string::<i32>().iter().flatten().for_each(|text| document.add_text(place, text));
                }
                Kind::Integer => document.add_i64(place, values.as_primitive::<Int64Type>().value(row)),
                Kind::Boolean => document.add_bool(place, values.as_boolean().value(row)),
                Kind::Timestamp => {
                    let micros = values.as_primitive::<TimestampMicrosecondType>().value(row);
                    document.add_date(place, DateTime::from_timestamp_micros(micros));
                }
                kind => unreachable!("the made rows have no column of kind {kind:?}"),
            }
            if column.search == Search::Words {
                document.add_text(field("_field_names"), column.name);
            }
        }
        document.add_bytes(field("_source"), &json(rows, row));
        document
    };
    (0..rows.silver.num_rows()).map(document).collect()
}

fn json(rows: &Rows, row: usize) -> Vec<u8> {
    let mut json = Vec::new();
    row_json::write_row(&rows.silver, row, &mut json);
    json
}

fn spans(count: usize) -> Vec<Rows> {
    let offsets: Vec<Offset> = (0..count as Offset).collect();
    offsets.chunks(ROWS_PER_SPAN).map(rows).collect()
}

fn rows(offsets: &[Offset]) -> Rows {
    let mut builder = RowsBuilder::new(&SCHEMA);
    for &offset in offsets {
        let record = RawRecord {
            id: RecordId::from((40_000_000_000 + offset * 7).to_string()),
            event_time: Timestamp(NOW.0 + offset * 3_333),
            fetched_at: NOW,
            body: offset.to_string().into(),
        };
        builder.record(&LogRecord { partition: 0, offset, appended_at: NOW, record }, &Made).expect("a row");
    }
    let (from, to) = (offsets[0], offsets[offsets.len() - 1] + 1);
    builder.finish(Span { source: SOURCE, ranges: vec![OffsetRange { partition: 0, from, to }] })
}

/// Makes rows of the sizes and the repetition of GitHub's events.
struct Made;

impl Processor for Made {
    fn process(&self, record: &RawRecord, row: &mut RowBuilder) -> Result<(), Reject> {
        let number: u64 = std::str::from_utf8(&record.body).expect("digits").parse().expect("a number");
        let mut random = Random(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let (actor, repository) = (random.below(200_000), random.below(100_000));
        let kind = ["PushEvent", "CreateEvent", "IssuesEvent", "WatchEvent", "PullRequestEvent"][random.below(5)];
        let place = |name| SCHEMA.place(name);
        row.text(place("type"), kind);
        row.text(place("actor_login"), &format!("actor-{actor}"));
        row.integer(place("actor_id"), actor as i64 * 17);
        row.text(place("repo_name"), &format!("owner-{}/repository-{repository}", repository % 30_000));
        row.integer(place("repo_id"), repository as i64 * 31);
        row.text(place("url"), &format!("https://api.example.com/events/{}", record.id));
        row.boolean(place("public"), true);
        row.timestamp(place("created_at"), record.event_time);
        match kind {
            "PushEvent" => {
                let messages: Vec<String> = (0..1 + random.below(3)).map(|_| random.words(9)).collect();
                row.texts(place("commit_messages"), messages.iter().map(String::as_str));
            }
            "IssuesEvent" | "PullRequestEvent" => {
                row.text(place("action"), ["opened", "closed", "reopened"][random.below(3)]);
                row.integer(place("number"), random.below(9_000) as i64);
                row.text(place("title"), &random.words(8));
                row.text(place("body"), &random.words(120));
                row.texts(place("labels"), ["bug", "help wanted"].into_iter().take(random.below(3)));
            }
            _ => {}
        }
        Ok(())
    }
}

/// xorshift64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }

    /// Words of which few are frequent and many rare, as in language.
    fn words(&mut self, count: usize) -> String {
        let word = |random: &mut Self| {
            let rank = random.below(30_000) * random.below(1_000) / 1_000;
            format!("w{rank:x}")
        };
        (0..count).map(|_| word(self)).collect::<Vec<_>>().join(" ")
    }
}

const fn column(name: &'static str, kind: Kind, search: Search) -> Column {
    Column { name, kind, search, doc: "Made for the bench." }
}

/// Seconds of CPU that this process used, in steps of 10 ms. Source: proc(5), fields 14 and 15.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let after_name = stat.rsplit(')').next().expect("a name in brackets");
    let ticks = after_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok());
    ticks.sum::<f64>() / 100.0
}
