//! What the user sees: lines on standard output, progress on a terminal.

use std::io::{IsTerminal, Write};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use contract::{ColdStore, Error, Result};
use futures::TryStreamExt;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use serde_json::Value;
use tokio::sync::mpsc::Receiver;

/// Writes a line to standard output; ends the process quietly where nobody reads any more (`| head`).
pub(crate) fn line(text: &str) {
    bytes(text.as_bytes());
}

/// Writes text that may have many lines.
pub(crate) fn text(text: &str) {
    bytes(text.trim_end().as_bytes());
}

/// Writes bytes and a line end.
pub(crate) fn bytes(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    if out.write_all(bytes).and_then(|()| out.write_all(b"\n")).is_err() {
        std::process::exit(0);
    }
}

/// Writes a document, in one line unless a person looks.
pub(crate) fn json(value: &Value) -> anyhow::Result<()> {
    let pretty = std::io::stdout().is_terminal();
    bytes(&if pretty { serde_json::to_vec_pretty(value)? } else { serde_json::to_vec(value)? });
    Ok(())
}

/// The start of a text on one line, without control characters: it may come from anybody.
pub(crate) fn first_words(text: &str, characters: usize) -> String {
    let plain = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter });
    plain.collect::<String>().split_whitespace().collect::<Vec<_>>().join(" ").chars().take(characters).collect()
}

/// A cursor in as many characters as fit a line.
pub(crate) fn short_cursor(cursor: &str) -> Value {
    Value::String(first_words(cursor, 100))
}

/// `1.5 MiB`.
pub(crate) fn bytes_short(bytes: u64) -> String {
    HumanBytes(bytes).to_string()
}

/// The first value of a query that counts.
pub(crate) async fn count(cold: &dyn ColdStore, query: &str) -> Result<u64> {
    let batches: Vec<_> = cold.sql(query).await?.batches.try_collect().await?;
    let first = batches.iter().find(|batch| batch.num_rows() > 0);
    let counted =
        first.map(|batch| arrow::compute::cast(batch.column(0), &arrow::datatypes::DataType::Int64)).transpose();
    let counted = counted.map_err(|cause| Error::stop("read a count").because(cause))?;
    Ok(counted.map_or(0, |column| column.as_primitive::<Int64Type>().value(0).max(0) as u64))
}

/// Shows progress until its sender is gone; nothing where standard error is no terminal.
pub(crate) async fn show_progress(mut messages: Receiver<Value>) {
    let bar = if std::io::stderr().is_terminal() { ProgressBar::no_length() } else { ProgressBar::hidden() };
    let style = |template| ProgressStyle::with_template(template).expect("the template is a constant");
    let mut reading = false;
    while let Some(message) = messages.recv().await {
        let number = |name: &str| message[name].as_u64().unwrap_or_default();
        if message["what"] == "read" {
            if !reading {
                bar.set_style(style("reading {bar:30} {bytes}/{total_bytes} ({bytes_per_sec}, {eta} left) {msg}"));
                reading = true;
            }
            bar.set_length(number("bytes_total"));
            bar.set_position(number("bytes"));
            let rate = number("records") as f64 / bar.elapsed().as_secs_f64().max(0.1);
            bar.set_message(format!("{} records, {rate:.0}/s", number("records")));
        } else if message["what"] == "records" {
            bar.set_style(style("making rows anew {bar:30} {pos}/{len} records ({per_sec}, {eta} left)"));
            bar.set_length(number("all"));
            bar.set_position(number("done"));
        } else if message["what"] == "views" {
            bar.set_style(style("{bar:30} {pos}/{len} views {msg}"));
            bar.set_length(number("all"));
            bar.set_position(number("done"));
            bar.set_message(message["view"].as_str().unwrap_or_default().to_owned());
        } else if message["what"] == "exported" {
            let bytes = HumanBytes(number("bytes"));
            if message["rows_total"].is_null() {
                bar.set_style(style("exporting {spinner} {pos} rows, {msg}"));
            } else {
                bar.set_style(style("exporting {bar:30} {pos}/{len} rows ({per_sec}, {eta} left) {msg}"));
                bar.set_length(number("rows_total"));
            }
            bar.set_position(number("rows"));
            bar.set_message(bytes.to_string());
        } else if message["what"] == "stored" {
            bar.set_style(style("storing {spinner} {msg}"));
            bar.set_message(format!(
                "{} records to the hot store, {} to the cold store",
                number("hot_left"),
                number("cold_left")
            ));
            bar.tick();
        }
    }
    bar.finish_and_clear();
}

/// A row of an answer, its columns in order.
pub(crate) struct Row(Vec<(String, Value)>);

impl Row {
    /// The rows of a document, which has the columns of each in the order of their names, in the order that is asked.
    pub(crate) fn ordered(rows: &Value, columns: &[&str]) -> Vec<Self> {
        let row = |row: &Value| Self(columns.iter().map(|&name| (name.to_owned(), row[name].clone())).collect());
        rows.as_array().into_iter().flatten().map(row).collect()
    }
}

impl<'de> serde::Deserialize<'de> for Row {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Columns;
        impl<'de> serde::de::Visitor<'de> for Columns {
            type Value = Row;
            fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                out.write_str("a row object")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> std::result::Result<Row, A::Error> {
                let mut columns = Vec::new();
                while let Some(column) = map.next_entry()? {
                    columns.push(column);
                }
                Ok(Row(columns))
            }
        }
        deserializer.deserialize_map(Columns)
    }
}

/// Characters of a cell at the most.
const CELL_CHARACTERS: usize = 100;

/// Rows as a table with a head, and their number below.
pub(crate) fn table(rows: &[Row]) {
    let mut names: Vec<&str> = Vec::new();
    for Row(columns) in rows {
        for (name, _) in columns {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
    }
    let cell = |Row(columns): &Row, name: &str| match columns.iter().find(|(column, _)| column == name) {
        Some((_, Value::String(text))) => first_words(text, CELL_CHARACTERS),
        Some((_, Value::Null)) | None => String::new(),
        Some((_, value)) => first_words(&value.to_string(), CELL_CHARACTERS),
    };
    let cells: Vec<Vec<String>> = rows.iter().map(|row| names.iter().map(|name| cell(row, name)).collect()).collect();
    let width = |place: usize| {
        cells.iter().map(|row| row[place].chars().count()).chain([names[place].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..names.len()).map(width).collect();
    let show = |row: &[String]| {
        let padded: Vec<_> = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
        line(padded.join("  ").trim_end());
    };
    if !names.is_empty() {
        show(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        show(&widths.iter().map(|&width| "-".repeat(width)).collect::<Vec<_>>());
    }
    cells.iter().for_each(|row| show(row));
    line(&format!("({} rows)", rows.len()));
}
