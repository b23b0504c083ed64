//! `_cat/indices`: the indices as a table for people, or as JSON.
//! Source: <https://www.elastic.co/guide/en/elasticsearch/reference/8.19/cat-indices.html>.

use std::cmp::Ordering;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use contract::IndexSummary;
use serde_json::{Map, Value};

use super::answer::{Answer, Failure};
use super::indices::summaries;
use super::parameters::Asked;
use crate::routes::App;

/// Bytes in a unit: `kb` is 1024.
type Unit = (&'static str, u64);

const UNITS: &[Unit] = &[("b", 1), ("kb", 1 << 10), ("mb", 1 << 20), ("gb", 1 << 30), ("tb", 1 << 40), ("pb", 1 << 50)];

struct Column {
    name: &'static str,
    short: &'static str,
    doc: &'static str,
    value: fn(&IndexSummary) -> Cell,
}

enum Cell {
    Text(String),
    Number(u64),
    Bytes(u64),
}

const COLUMNS: &[Column] = &[
    Column { name: "health", short: "h", doc: "current health status", value: |_| Cell::Text("green".to_owned()) },
    Column { name: "status", short: "s", doc: "open/close status", value: |_| Cell::Text("open".to_owned()) },
    Column { name: "index", short: "i", doc: "index name", value: |index| Cell::Text(index.name.clone()) },
    Column { name: "uuid", short: "id", doc: "index uuid: its name", value: |index| Cell::Text(index.name.clone()) },
    Column { name: "pri", short: "p", doc: "number of primary shards", value: |_| Cell::Number(1) },
    Column { name: "rep", short: "r", doc: "number of replica shards", value: |_| Cell::Number(0) },
    Column { name: "docs.count", short: "dc", doc: "available docs", value: |index| Cell::Number(index.rows) },
    Column { name: "docs.deleted", short: "dd", doc: "deleted docs", value: |_| Cell::Number(0) },
    Column { name: "store.size", short: "ss", doc: "store size", value: |index| Cell::Bytes(index.bytes) },
    Column {
        name: "pri.store.size",
        short: "pss",
        doc: "store size of primaries",
        value: |index| Cell::Bytes(index.bytes),
    },
    Column {
        name: "dataset.size",
        short: "dss",
        doc: "total size of dataset",
        value: |index| Cell::Bytes(index.bytes),
    },
];

/// `GET /_cat/indices/{index}` with `v`, `h`, `s`, `bytes`, `format` and `help`.
/// Without `format` it is JSON for a client that accepts nothing else.
pub(crate) async fn list_indices(
    State(app): State<App>,
    headers: HeaderMap,
    mut asked: Asked,
) -> Result<Response, Failure> {
    let parameters = &mut asked.parameters;
    let with_names = parameters.take_boolean("v")?.unwrap_or(false);
    let is_help = parameters.take_boolean("help")?.unwrap_or(false);
    let columns = match parameters.take_list("h") {
        Some(names) => find_columns(&names)?,
        None => COLUMNS.iter().collect(),
    };
    let order = parameters.take_list("s").unwrap_or_default();
    let order = order.iter().map(|key| find_order(key)).collect::<Result<Vec<_>, _>>()?;
    let unit = parameters.take("bytes").map(|name| find_unit(&name)).transpose()?;
    let is_json = match parameters.take("format").as_deref() {
        None => accepts_json_alone(&headers),
        Some("text") => false,
        Some("json") => true,
        Some(other) => return Err(Failure::argument(format!("[format] is [{other}] but must be one of [text, json]"))),
    };
    if is_help {
        asked.parameters.finish()?;
        return Ok(text(COLUMNS.iter().map(|column| [column.name, column.short, column.doc].join(" | ")).collect()));
    }

    let mut indices = summaries(&app, asked.index, asked.parameters).await?;
    indices
        .sort_by(|a, b| order.iter().fold(Ordering::Equal, |so_far, order| so_far.then_with(|| order.compare(a, b))));
    let row = |index: &IndexSummary| columns.iter().map(|column| (column.value)(index).print(unit)).collect::<Vec<_>>();
    let rows: Vec<_> = indices.iter().map(row).collect();
    if is_json {
        let object = |row: Vec<String>| {
            let pairs = columns.iter().zip(row).map(|(column, value)| (column.name.to_owned(), Value::String(value)));
            Value::Object(pairs.collect::<Map<_, _>>())
        };
        return Ok(Answer::ok(rows.into_iter().map(object).collect())?.into_response());
    }
    Ok(text(align(&columns, rows, with_names)))
}

fn accepts_json_alone(headers: &HeaderMap) -> bool {
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accepted.contains("json") && !accepted.contains("text/") && !accepted.contains("*/*")
}

struct Order {
    column: &'static Column,
    descends: bool,
}

impl Order {
    fn compare(&self, a: &IndexSummary, b: &IndexSummary) -> Ordering {
        let order = (self.column.value)(a).compare(&(self.column.value)(b));
        if self.descends { order.reverse() } else { order }
    }
}

impl Cell {
    fn print(self, unit: Option<Unit>) -> String {
        match (self, unit) {
            (Self::Text(text), _) => text,
            (Self::Number(number), _) => number.to_string(),
            (Self::Bytes(bytes), Some((_, size))) => (bytes / size).to_string(),
            (Self::Bytes(bytes), None) => print_bytes(bytes),
        }
    }

    fn compare(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            (Self::Number(a) | Self::Bytes(a), Self::Number(b) | Self::Bytes(b)) => a.cmp(b),
            // One column has cells of one kind.
            _ => Ordering::Equal,
        }
    }
}

/// The largest unit that leaves a number of 1 or more, with one decimal if there is one: `3.4kb`.
fn print_bytes(bytes: u64) -> String {
    let (name, size) = UNITS.iter().rev().find(|(_, size)| bytes >= *size).unwrap_or(&UNITS[0]);
    match (bytes / size, bytes % size * 10 / size) {
        (whole, 0) => format!("{whole}{name}"),
        (whole, tenths) => format!("{whole}.{tenths}{name}"),
    }
}

fn find_column(name: &str) -> Option<&'static Column> {
    COLUMNS.iter().find(|column| column.name == name || column.short == name)
}

fn unknown_column(name: &str) -> Failure {
    let known: Vec<_> = COLUMNS.iter().map(|column| column.name).collect();
    Failure::argument(format!("unknown column [{name}] (known: {})", known.join(", ")))
}

fn find_columns(names: &[String]) -> Result<Vec<&'static Column>, Failure> {
    let mut found = Vec::new();
    for name in names {
        match name.strip_suffix('*') {
            Some(prefix) => found.extend(COLUMNS.iter().filter(|column| column.name.starts_with(prefix))),
            None => found.push(find_column(name).ok_or_else(|| unknown_column(name))?),
        }
    }
    Ok(found)
}

fn find_order(key: &str) -> Result<Order, Failure> {
    let (name, descends) = match key.rsplit_once(':') {
        Some((name, "desc")) => (name, true),
        Some((name, "asc")) => (name, false),
        _ => (key, false),
    };
    Ok(Order { column: find_column(name).ok_or_else(|| unknown_column(name))?, descends })
}

fn find_unit(name: &str) -> Result<Unit, Failure> {
    let known: Vec<_> = UNITS.iter().map(|unit| unit.0).collect();
    let found = UNITS.iter().find(|unit| unit.0 == name).copied();
    found.ok_or_else(|| Failure::argument(format!("[bytes] is [{name}] but must be one of [{}]", known.join(", "))))
}

/// Lines with columns below each other, numbers to the right.
fn align(columns: &[&'static Column], mut rows: Vec<Vec<String>>, with_names: bool) -> Vec<String> {
    if with_names {
        rows.insert(0, columns.iter().map(|column| column.name.to_owned()).collect());
    }
    let width = |place: usize| rows.iter().map(|row| row[place].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..columns.len()).map(width).collect();
    let is_text = |column: &Column| ["health", "status", "index", "uuid"].contains(&column.name);
    let cell = |(place, value): (usize, &String)| {
        let width = widths[place];
        if is_text(columns[place]) { format!("{value:<width$}") } else { format!("{value:>width$}") }
    };
    rows.iter().map(|row| row.iter().enumerate().map(cell).collect::<Vec<_>>().join(" ")).collect()
}

fn text(lines: Vec<String>) -> Response {
    let text: String = lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
    ([(header::CONTENT_TYPE, "text/plain; charset=UTF-8")], text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_printed_in_the_largest_unit_that_fits() {
        for (bytes, text) in
            [(0, "0b"), (208, "208b"), (1 << 10, "1kb"), (3_500, "3.4kb"), (5 << 30, "5gb"), (u64::MAX, "16383.9pb")]
        {
            assert_eq!(print_bytes(bytes), text);
        }
    }

    #[test]
    fn columns_are_found_by_name_short_name_and_pattern() {
        let names = |wanted: &[&str]| {
            let wanted: Vec<_> = wanted.iter().map(|name| (*name).to_owned()).collect();
            find_columns(&wanted).map(|found| found.iter().map(|column| column.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&["i", "docs.*"]), Ok(vec!["index", "docs.count", "docs.deleted"]));
        assert!(
            names(&["colour"])
                .is_err_and(|failure| failure.0.reason.starts_with("unknown column [colour] (known: health"))
        );
    }
}
