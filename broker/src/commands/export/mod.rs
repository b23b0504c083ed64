//! `export`: rows into files, of a whole table part by part.
//!
//! A *part* is all rows of one value of the table's partition column (a day, a month, a source), below the offsets that the
//! table had when the export began: so a part is a function of the log, and written again after a kill it has the same rows.
//!
//! | case | what a folder holds afterwards |
//! | --- | --- |
//! | killed while a part is written | the parts before it, and a file `.NAME.unfinished` that no reader takes; `--resume` writes the part anew |
//! | killed between a part's rename and the manifest | the part, which the manifest does not name yet; `--resume` writes it again in its place |
//! | rows are collected meanwhile | they are not in it: `until` of each part, in the manifest, says how far it goes |
//! | a part's file is gone or has another size | `--resume` writes it anew |

mod manifest;
mod part_file;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use contract::{ColdStore, Error, TableStream};
use futures::{StreamExt, TryStreamExt};
use serde_json::{Value, json};
use serving::rows::Format;
use serving::table;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::broker::{Access, Broker};
use crate::settings::Settings;
use crate::{output, signals};
use manifest::{Column, Done, MANIFEST, Manifest, Part};
use part_file::PartFile;

/// Progress messages that wait to be shown.
const PROGRESS_MAX: usize = 64;

/// Columns by which tables are partitioned: which has one is exported by its values.
const PART_COLUMNS: &[&str] = &["append_day", "event_day", "event_month", "source"];

/// What is exported to where.
pub(crate) struct Export<'a> {
    pub(crate) what: &'a str,
    pub(crate) to: &'a Path,
    pub(crate) format: &'a str,
    pub(crate) resume: bool,
}

/// How far it came.
#[derive(Default)]
struct Sum {
    parts: u64,
    done_before: u64,
    rows: u64,
    bytes: u64,
    interrupted: bool,
}

/// Exports what is committed, beside a process that writes or alone.
pub(crate) async fn run(settings: &Settings, data: &Path, export: Export<'_>, json: bool) -> Result<ExitCode> {
    let started = Instant::now();
    let asked_to_end = signals::listen();
    let (progress, shown) = mpsc::channel(PROGRESS_MAX);
    let showing = tokio::spawn(output::show_progress(shown));
    let broker = Broker::open(settings, data, Access::Read).await?;
    let run = Run { cold: &*broker.engines.cold, asked_to_end, progress, export };
    let sum = run.export().await;
    drop(run);
    showing.await?;
    let sum = sum?;
    let answer = json!({
        "parts": sum.parts, "parts_done_before": sum.done_before, "rows": sum.rows, "bytes": sum.bytes,
        "seconds": started.elapsed().as_secs_f64(), "interrupted": sum.interrupted,
    });
    if json {
        output::json(&answer)?;
    } else {
        print(&answer);
    }
    Ok(ExitCode::SUCCESS)
}

fn print(answer: &Value) {
    let bytes = output::bytes_short(answer["bytes"].as_u64().unwrap_or_default());
    let seconds = answer["seconds"].as_f64().unwrap_or_default();
    let (rows, parts) = (&answer["rows"], &answer["parts"]);
    output::line(&format!("{rows} rows in {parts} files, {bytes}, {seconds:.1} s; as of the last commits"));
    if answer["parts_done_before"] != json!(0) {
        output::line(&format!("{} files were there already", answer["parts_done_before"]));
    }
    if answer["interrupted"] == json!(true) {
        output::line("it was ended early: the same command with --resume goes on");
    }
}

/// One run of the command.
struct Run<'a> {
    cold: &'a dyn ColdStore,
    asked_to_end: CancellationToken,
    progress: mpsc::Sender<Value>,
    export: Export<'a>,
}

impl Run<'_> {
    async fn export(&self) -> contract::Result<Sum> {
        let format = Format::named(self.export.format)?;
        if is_table(self.export.what) {
            return self.table(format).await;
        }
        if self.export.resume {
            return Err(Error::change(
                "go on with the export of a query: only that of a table (`silver.github`) has parts",
            ));
        }
        self.query(format).await
    }

    /// Exports a query into one file.
    async fn query(&self, format: Format) -> contract::Result<Sum> {
        if self.export.to.exists() {
            return Err(Error::change(format!(
                "export to `{}`: it exists; name another file",
                self.export.to.display()
            )));
        }
        let answer = self.cold.scan(self.export.what).await?;
        let mut sum = Sum { parts: 1, ..Sum::default() };
        match self.write(answer, format, self.export.to, &mut sum, None).await? {
            Some(_) => Ok(sum),
            None => Ok(Sum { interrupted: true, ..Sum::default() }),
        }
    }

    /// Exports a table into a folder, a file a part.
    async fn table(&self, format: Format) -> contract::Result<Sum> {
        let folder = self.export.to;
        let mut manifest = match self.export.resume {
            true => Manifest::read(folder)?.going_on(self.export.what, format)?,
            false => self.begin(format).await?,
        };
        manifest.write(folder)?;
        let mut sum = Sum::default();
        let rows_total: u64 = manifest.parts.iter().map(|part| part.rows).sum();
        for place in 0..manifest.parts.len() {
            if self.asked_to_end.is_cancelled() {
                sum.interrupted = true;
                break;
            }
            let part = &manifest.parts[place];
            if let Some(done) = part.done.as_ref().filter(|done| done.is_there(&folder.join(&part.file))) {
                (sum.done_before, sum.rows, sum.bytes) =
                    (sum.done_before + 1, sum.rows + done.rows, sum.bytes + done.bytes);
                continue;
            }
            let answer = self.cold.scan(&part.query(&manifest.table, manifest.part_column.as_deref())).await?;
            let Some(done) = self.write(answer, format, &folder.join(&part.file), &mut sum, Some(rows_total)).await?
            else {
                sum.interrupted = true;
                break;
            };
            sum.parts += 1;
            manifest.parts[place].done = Some(done);
            manifest.write(folder)?;
        }
        Ok(sum)
    }

    /// Looks which parts a table has, and how far they go at this moment.
    async fn begin(&self, format: Format) -> contract::Result<Manifest> {
        let (table, folder) = (self.export.what, self.export.to);
        if folder.join(MANIFEST).exists() {
            let there = format!("export to `{}`: an export was begun there", folder.display());
            return Err(Error::change(format!("{there}; add --resume to go on with it, or name another folder")));
        }
        if folder.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(Error::change(format!(
                "export to `{}`: the folder is not empty; name another",
                folder.display()
            )));
        }
        let answer = self.cold.scan(&format!("SELECT * FROM {table} LIMIT 0")).await?;
        let columns: Vec<_> = answer.schema.fields().iter().map(|field| Column::of(field)).collect();
        let has = |name: &str| columns.iter().any(|column| column.name == name);
        let has_offsets = has("_partition") && has("_offset");
        let part_column = PART_COLUMNS.iter().find(|name| has_offsets && has(name)).map(|name| (*name).to_owned());
        let part =
            part_column.as_ref().map_or_else(|| "NULL".to_owned(), |column| format!("CAST({column} AS VARCHAR)"));
        let (partition, until) = if has_offsets { ("_partition", "max(_offset) + 1") } else { ("0", "0") };
        let query = format!(
            "SELECT {part} AS part, {partition} AS partition, {until} AS until, count(*) AS rows FROM {table} GROUP BY 1, 2 ORDER BY 1, 2"
        );
        let batches: Vec<_> = self.cold.scan(&query).await?.batches.try_collect().await?;
        let rows = table::to_json_rows(&batches)?;
        let rows: Vec<Value> =
            serde_json::from_slice(&rows).map_err(|cause| Error::stop("list the parts").because(cause))?;
        let parts = Part::gather(&rows, part_column.as_deref(), format, has_offsets);
        let table = table.trim().to_owned();
        Ok(Manifest {
            version: manifest::VERSION,
            table,
            format: format.name().to_owned(),
            columns,
            part_column,
            parts,
        })
    }

    /// Writes an answer into a file; none where it was asked to end early, of which nothing is left then.
    async fn write(
        &self,
        mut answer: TableStream,
        format: Format,
        path: &Path,
        sum: &mut Sum,
        rows_total: Option<u64>,
    ) -> contract::Result<Option<Done>> {
        let mut file = PartFile::begin(path, format, &answer.schema)?;
        while let Some(batch) = answer.batches.next().await {
            let batch = batch?;
            file.write(&batch)?;
            sum.rows += batch.num_rows() as u64;
            let now = json!({"what": "exported", "rows": sum.rows, "rows_total": rows_total, "bytes": sum.bytes + file.bytes()});
            // Progress that nobody shows now is soon another one.
            self.progress.try_send(now).unwrap_or_default();
            if self.asked_to_end.is_cancelled() {
                return Ok(None);
            }
        }
        let done = file.end()?;
        sum.bytes += done.bytes;
        Ok(Some(done))
    }
}

/// `silver.github`, in distinction from a query.
fn is_table(what: &str) -> bool {
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    what.trim().split_once('.').is_some_and(|(schema, name)| is_name(schema) && is_name(name))
}

/// The name of the file that a part is written to before it is whole.
fn unfinished(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.unfinished"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_told_from_a_query() {
        for table in ["silver.github", "ops.dead_letters", " gold.rising_2 "] {
            assert!(is_table(table), "{table}");
        }
        for query in ["SELECT 1.5", "github", "silver.github LIMIT 1", "a.b.c", "."] {
            assert!(!is_table(query), "{query}");
        }
    }
}
