//! 200 made rows over three days, asked over three indices and over one.

mod aggregations;
mod errors;
mod hits;
mod queries;
mod random;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use contract::{Column, Kind, RowSchema, Search, SourceId, Timestamp};
use serde_json::{Value, json};
use tantivy::schema::Schema;
use tantivy::{DateTime, Index, TantivyDocument};

use crate::fields::{Fields, tokenizers};
use crate::index::OpenIndex;

const fn column(name: &'static str, kind: Kind, search: Search) -> Column {
    Column { name, kind, search, doc: "made" }
}

static ROWS: RowSchema = RowSchema {
    source: SourceId("made"),
    period: contract::Period::Day,
    columns: &[
        column("type", Kind::Text, Search::Exact),
        column("repo_name", Kind::Text, Search::Exact),
        column("title", Kind::Text, Search::Words),
        column("body", Kind::Text, Search::Words),
        column("labels", Kind::TextList, Search::Exact),
        column("number", Kind::Integer, Search::Exact),
        column("public", Kind::Boolean, Search::Exact),
        column("created_at", Kind::Timestamp, Search::Exact),
    ],
};

/// 2015-01-31, so that the three days lie in two months.
const FIRST_DAY: i64 = 1_422_662_400_000_000;
const DAY: i64 = 86_400_000_000;

/// 2015-02-02T12:00:00Z, in the last day.
const NOW: Timestamp = Timestamp(FIRST_DAY + 2 * DAY + DAY / 2);

#[derive(Clone, Debug)]
struct Doc {
    partition: i64,
    offset: i64,
    id: String,
    event_time: i64,
    kind: &'static str,
    repo: String,
    title: Option<String>,
    body: String,
    labels: Vec<String>,
    number: Option<i64>,
    public: Option<bool>,
    created_at: Option<i64>,
}

impl Doc {
    fn day(&self) -> i64 {
        (self.event_time - FIRST_DAY) / DAY
    }

    fn has_word(&self, word: &str) -> bool {
        self.title.as_ref().is_some_and(|title| words(title).any(|other| other == word))
    }
}

fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase)
}

const KINDS: [&str; 5] = ["PushEvent", "IssuesEvent", "WatchEvent", "ForkEvent", "pushevent"];
const FIRST: [&str; 4] = ["Memory", "Disk", "Fast memory", "Slow"];
const SECOND: [&str; 5] = ["leak", "leak in parser", "usage", "LEAK!", "über-parser crash"];

fn docs() -> &'static [Doc] {
    static DOCS: OnceLock<Vec<Doc>> = OnceLock::new();
    DOCS.get_or_init(|| (0..200).map(doc).collect())
}

fn doc(number: i64) -> Doc {
    // A multiplier without a common factor spreads the values over the rows.
    let spread = (number * 37) % 200;
    let place = number as usize;
    Doc {
        partition: number % 2,
        offset: number / 2,
        id: format!("id-{number}"),
        event_time: FIRST_DAY + (number % 3) * DAY + spread * 431_000_000 + number,
        kind: KINDS[place % 5],
        repo: format!("{}/{}", ["rust-lang", "rust", "tokio", "a.b*c"][place % 4], place % 7),
        title: (number % 9 != 0).then(|| format!("{} {}", FIRST[place % 4], SECOND[place / 4 % 5])),
        body: format!("row {number} of the {} kind, {}", KINDS[place % 5], "padding ".repeat(place % 4)),
        labels: (0..number % 4).map(|label| format!("label-{}", (label + number) % 5)).collect(),
        number: (number % 11 != 0).then_some(spread * 10 - 500),
        public: (number % 13 != 0).then_some(number % 3 == 0),
        created_at: (number % 3 == 1 && number % 2 == 0).then_some(FIRST_DAY - spread * DAY),
    }
}

fn source(doc: &Doc) -> Value {
    let mut row = json!({
        "_partition": doc.partition,
        "_offset": doc.offset,
        "event_time": Timestamp(doc.event_time).to_string(),
        "fetched_at": Timestamp(doc.event_time).to_string(),
        "type": doc.kind,
        "repo_name": doc.repo,
        "body": doc.body,
        "labels": doc.labels,
    });
    let optional = [
        ("title", doc.title.clone().map(Value::from)),
        ("number", doc.number.map(Value::from)),
        ("public", doc.public.map(Value::from)),
        ("created_at", doc.created_at.map(|time| Timestamp(time).to_string().into())),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            row[name] = value;
        }
    }
    row
}

/// With several segments, so that merging within an index is tried too.
fn index<'a>(name: &str, docs: impl Iterator<Item = &'a Doc>) -> OpenIndex {
    index_of_segments(name, docs, 40)
}

fn index_of_segments<'a>(name: &str, docs: impl Iterator<Item = &'a Doc>, rows: usize) -> OpenIndex {
    let fields = Fields::new(&ROWS);
    let index = Index::builder().schema(fields.schema.clone()).tokenizers(tokenizers()).create_in_ram().unwrap();
    let mut writer = index.writer_with_num_threads::<TantivyDocument>(1, 15_000_000).unwrap();
    for (number, doc) in docs.enumerate() {
        writer.add_document(document(&fields.schema, doc)).unwrap();
        if number % rows == rows - 1 {
            writer.commit().unwrap();
        }
    }
    writer.commit().unwrap();
    let searcher = index.reader().unwrap().searcher();
    OpenIndex { name: name.to_owned(), searcher, fields: Arc::new(fields) }
}

fn document(schema: &Schema, doc: &Doc) -> TantivyDocument {
    let field = |name: &str| schema.get_field(name).unwrap();
    let date = DateTime::from_timestamp_micros;
    let mut row = TantivyDocument::new();
    row.add_i64(field("_partition"), doc.partition);
    row.add_i64(field("_offset"), doc.offset);
    row.add_text(field("_id"), &doc.id);
    row.add_date(field("event_time"), date(doc.event_time));
    row.add_date(field("fetched_at"), date(doc.event_time));
    row.add_text(field("type"), doc.kind);
    row.add_text(field("repo_name"), &doc.repo);
    row.add_text(field("body"), &doc.body);
    row.add_text(field("_field_names"), "body");
    if let Some(title) = &doc.title {
        row.add_text(field("title"), title);
        row.add_text(field("_field_names"), "title");
    }
    doc.labels.iter().for_each(|label| row.add_text(field("labels"), label));
    doc.number.into_iter().for_each(|number| row.add_i64(field("number"), number));
    doc.public.into_iter().for_each(|public| row.add_bool(field("public"), public));
    doc.created_at.into_iter().for_each(|time| row.add_date(field("created_at"), date(time)));
    row.add_bytes(field("_source"), source(doc).to_string().as_bytes());
    row
}

/// One index for each day.
fn three() -> &'static [OpenIndex] {
    static INDICES: OnceLock<Vec<OpenIndex>> = OnceLock::new();
    INDICES.get_or_init(|| {
        let names = ["made-2015.01.31", "made-2015.02.01", "made-2015.02.02"];
        names.iter().zip(0..).map(|(name, day)| index(name, docs().iter().filter(|doc| doc.day() == day))).collect()
    })
}

/// All rows in one index.
fn one() -> &'static [OpenIndex] {
    static INDEX: OnceLock<Vec<OpenIndex>> = OnceLock::new();
    INDEX.get_or_init(|| vec![index("made-all", docs().iter())])
}

/// A deadline that no test reaches.
fn late() -> Instant {
    Instant::now() + Duration::from_secs(3_600)
}

fn ask(indices: &[OpenIndex], body: &Value) -> Value {
    super::search(indices, body, NOW, late()).unwrap_or_else(|error| panic!("{body}: {error}"))
}

fn ids(answer: &Value) -> Vec<String> {
    let hits = answer["hits"]["hits"].as_array().unwrap();
    hits.iter().map(|hit| hit["_id"].as_str().unwrap().to_owned()).collect()
}

fn wanted(keep: impl Fn(&Doc) -> bool) -> Vec<String> {
    docs().iter().filter(|doc| keep(doc)).map(|doc| doc.id.clone()).collect()
}
