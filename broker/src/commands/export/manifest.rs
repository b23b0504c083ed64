//! What an exported folder holds: `manifest.json`.

use std::fs;
use std::io::Write;
use std::path::Path;

use arrow::datatypes::Field;
use contract::{Error, Offset, Partition, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serving::rows::Format;

/// The name of the file.
pub(crate) const MANIFEST: &str = "manifest.json";

/// The version of its form.
pub(crate) const VERSION: u32 = 1;

/// The parts of an export, and which are done.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) version: u32,
    /// `silver.github`.
    pub(crate) table: String,
    /// The name of the format.
    pub(crate) format: String,
    pub(crate) columns: Vec<Column>,
    /// The column by whose values the table is divided; none where there is one part.
    pub(crate) part_column: Option<String>,
    pub(crate) parts: Vec<Part>,
}

/// A column, for readers of formats that do not say it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// The name of its Arrow type.
    #[serde(rename = "type")]
    pub(crate) kind: String,
}

/// One file.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Part {
    /// The value of the part column.
    pub(crate) value: Option<String>,
    /// The file's name in the folder.
    pub(crate) file: String,
    /// Per partition of the log the first offset that is not in it; none where the table's rows have none.
    pub(crate) until: Vec<(Partition, Offset)>,
    /// Rows when the export began.
    pub(crate) rows: u64,
    /// None until the file is whole.
    pub(crate) done: Option<Done>,
}

/// A whole file.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Done {
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    /// Of its bytes, hexadecimal.
    pub(crate) sha256: String,
}

impl Manifest {
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(MANIFEST);
        let doing = || format!("go on with the export in `{}`", folder.display());
        let text = fs::read(&path).map_err(|cause| match cause.kind() {
            std::io::ErrorKind::NotFound => {
                Error::change(format!("{}: none was begun there; leave --resume out", doing()))
            }
            _ => Error::stop(doing()).because(cause),
        })?;
        let manifest: Self = serde_json::from_slice(&text)
            .map_err(|cause| Error::change(format!("{}: `{MANIFEST}` is none", doing())).because(cause))?;
        if manifest.version != VERSION {
            let other = format!("{}: its form is version {}, this program knows {VERSION}", doing(), manifest.version);
            return Err(Error::change(other));
        }
        Ok(manifest)
    }

    /// The same, if it is of this table and format.
    pub(crate) fn going_on(self, table: &str, format: Format) -> Result<Self> {
        if self.table != table.trim() || self.format != format.name() {
            return Err(Error::change(format!(
                "go on with the export: it is of `{}` as {}, not of `{table}` as {}",
                self.table,
                self.format,
                format.name()
            )));
        }
        Ok(self)
    }

    /// Writes it so that it is either as it was or as it is now, also after a power cut.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(MANIFEST);
        let doing = || format!("write `{}`", path.display());
        let text = serde_json::to_vec_pretty(self).map_err(|cause| Error::stop(doing()).because(cause))?;
        let unfinished = super::unfinished(&path);
        let written = fs::create_dir_all(folder)
            .and_then(|()| fs::File::create(&unfinished))
            .and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&unfinished, &path))
            .and_then(|()| fs::File::open(folder)?.sync_all());
        written.map_err(|cause| Error::change(doing()).because(cause))
    }
}

impl Column {
    pub(crate) fn of(field: &Field) -> Self {
        Self { name: field.name().clone(), kind: field.data_type().to_string() }
    }
}

impl Part {
    /// The parts of rows `{part, partition, until, rows}` in the order of `part`.
    pub(crate) fn gather(rows: &[Value], column: Option<&str>, format: Format, has_offsets: bool) -> Vec<Self> {
        let mut parts: Vec<Self> = Vec::new();
        for row in rows {
            let value = row["part"].as_str().map(str::to_owned);
            if parts.last().is_none_or(|last| last.value != value) {
                let file = file_name(column, value.as_deref(), format);
                parts.push(Self { value, file, until: Vec::new(), rows: 0, done: None });
            }
            let part = parts.last_mut().expect("one was pushed");
            part.rows += row["rows"].as_u64().unwrap_or_default();
            let partition = row["partition"].as_i64().and_then(|partition| Partition::try_from(partition).ok());
            if let (true, Some(partition), Some(until)) = (has_offsets, partition, row["until"].as_i64()) {
                part.until.push((partition, until));
            }
        }
        if parts.is_empty() {
            let file = file_name(None, None, format);
            parts.push(Self { value: None, file, until: Vec::new(), rows: 0, done: None });
        }
        parts
    }

    /// The query for its rows.
    pub(crate) fn query(&self, table: &str, column: Option<&str>) -> String {
        let mut conditions = Vec::new();
        if let (Some(column), Some(value)) = (column, &self.value) {
            conditions.push(format!("{column} = '{}'", value.replace('\'', "''")));
        }
        if !self.until.is_empty() {
            let below =
                self.until.iter().map(|(partition, until)| format!("_partition = {partition} AND _offset < {until}"));
            conditions.push(format!("({})", below.collect::<Vec<_>>().join(" OR ")));
        }
        let filter = if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
        format!("SELECT * FROM {table}{filter}")
    }
}

impl Done {
    /// Whether the file is there as it was written, by its size.
    pub(crate) fn is_there(&self, path: &Path) -> bool {
        path.metadata().is_ok_and(|about| about.is_file() && about.len() == self.bytes)
    }
}

/// `event_day=2026-01-01.parquet`: as Hive names folders, so that readers know the value.
fn file_name(column: Option<&str>, value: Option<&str>, format: Format) -> String {
    let safe = |value: &str| {
        let may_stay = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
        value.chars().map(|letter| if may_stay(letter) { letter } else { '_' }).collect::<String>()
    };
    match (column, value) {
        (Some(column), Some(value)) => format!("{column}={}.{}", safe(value), format.name()),
        _ => format!("rows.{}", format.name()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_part_has_the_rows_of_its_value_below_its_offsets() {
        let rows = [
            json!({"part": "2026-01-01", "partition": 0, "until": 7, "rows": 3}),
            json!({"part": "2026-01-01", "partition": 1, "until": 9, "rows": 4}),
            json!({"part": "2026-01-02", "partition": 0, "until": 12, "rows": 1}),
        ];
        let parts = Part::gather(&rows, Some("event_day"), Format::Csv, true);
        assert_eq!(parts.iter().map(|part| part.rows).collect::<Vec<_>>(), [7, 1]);
        assert_eq!(parts[1].file, "event_day=2026-01-02.csv");
        let query = parts[0].query("silver.github", Some("event_day"));
        let filter = "event_day = '2026-01-01' AND (_partition = 0 AND _offset < 7 OR _partition = 1 AND _offset < 9)";
        assert_eq!(query, format!("SELECT * FROM silver.github WHERE {filter}"));
        let whole =
            Part::gather(&[json!({"part": null, "partition": 0, "until": 0, "rows": 2})], None, Format::Csv, false);
        assert_eq!(whole[0].query("ops.lag", None), "SELECT * FROM ops.lag");
        assert_eq!(Part::gather(&[], None, Format::Parquet, true)[0].file, "rows.parquet");
    }

    #[test]
    fn a_manifest_is_read_as_it_was_written_and_only_for_the_same_export() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let parts =
            Part::gather(&[json!({"part": null, "partition": 0, "until": 5, "rows": 2})], None, Format::Csv, true);
        let written = Manifest {
            version: VERSION,
            table: "silver.github".to_owned(),
            format: "csv".to_owned(),
            columns: Vec::new(),
            part_column: None,
            parts,
        };
        written.write(folder.path()).expect("writable");
        let read = || Manifest::read(folder.path()).expect("it is there");
        assert_eq!(read().parts[0].until, [(0, 5)]);
        read().going_on("silver.github", Format::Csv).expect("the same");
        assert!(read().going_on("silver.news", Format::Csv).is_err());
        assert!(read().going_on("silver.github", Format::Parquet).is_err());
        assert!(Manifest::read(&folder.path().join("other")).expect_err("none").to_string().contains("--resume"));
    }
}
