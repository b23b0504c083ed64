//! Writing Parquet data files.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use contract::{Error, Result, Timestamp};
use deltalake::kernel::Add;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use crate::Settings;
use crate::durable::{create_directory, sync_directory, unique_name};
use crate::file_stats::FileStats;
use crate::layout::{Layout, PartitionValue};
use crate::place;

/// How data files are written.
pub(crate) fn writer_properties(settings: &Settings) -> Result<WriterProperties> {
    let level = ZstdLevel::try_new(settings.zstd_level)
        .map_err(|error| Error::change("use the setting `cold.zstd_level`").because(error))?;
    let column = |name: &str| ColumnPath::from(name);
    Ok(WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_max_row_group_row_count(Some(settings.row_group_rows))
        .set_max_row_group_bytes(Some(settings.row_group_bytes))
        // Values that hardly repeat: a dictionary is work that is thrown away. Offsets rise by about one.
        .set_column_dictionary_enabled(column("_offset"), false)
        .set_column_encoding(column("_offset"), Encoding::DELTA_BINARY_PACKED)
        .set_column_dictionary_enabled(column("_id"), false)
        .set_column_dictionary_enabled(column("id"), false)
        .set_column_dictionary_enabled(column("body"), false)
        // Nobody asks for bodies by their order, and they are long.
        .set_column_statistics_enabled(column("body"), EnabledStatistics::None)
        .build())
}

/// One data file being written. Dropped before [`DataFile::finish`] it is removed.
pub(crate) struct DataFile {
    layout: Arc<Layout>,
    value: PartitionValue,
    relative: String,
    /// Where it is written.
    draft: PathBuf,
    writer: Option<ArrowWriter<File>>,
    stats: FileStats,
}

impl DataFile {
    /// Opens a new file in the folder of a partition value.
    pub(crate) fn create(layout: &Arc<Layout>, value: PartitionValue, properties: &WriterProperties) -> Result<Self> {
        let folder = match (layout.partition_field(), value.text()) {
            (Some(field), Some(text)) => format!("{}={text}/", field.name()),
            _ => String::new(),
        };
        let relative = format!("{folder}part-{}.zstd.parquet", unique_name());
        let draft = layout.place.draft(&relative)?;
        let directory = draft.parent().unwrap_or(&draft);
        let opened = create_directory(directory).and_then(|()| File::create_new(&draft));
        let file = opened.map_err(|error| failed(&draft, error))?;
        let schema: SchemaRef = layout.files.clone();
        let writer = ArrowWriter::try_new(file, schema, Some(properties.clone()));
        let writer = Some(writer.map_err(|error| failed(&draft, error))?);
        Ok(Self { layout: layout.clone(), value, relative, draft, writer, stats: FileStats::default() })
    }

    /// Adds rows with the columns of the layout's files.
    pub(crate) fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        self.stats.add(rows);
        let writer = self.writer.as_mut().expect("there until `finish`, which takes the file");
        writer.write(rows).map_err(|error| failed(&self.draft, error))
    }

    /// Bytes so far, about.
    pub(crate) fn bytes(&self) -> u64 {
        self.writer.as_ref().map_or(0, |writer| (writer.bytes_written() + writer.in_progress_size()) as u64)
    }

    /// Brings the file onto stable storage at its place and answers the action that adds it to the table. For a thread that
    /// may wait.
    pub(crate) fn finish(mut self, now: Timestamp, data_change: bool) -> Result<Add> {
        let writer = self.writer.take().expect("there until `finish`, which takes the file");
        let closed = writer.into_inner().map_err(|error| failed(&self.draft, error));
        let there = closed.and_then(|file| self.publish(&file));
        let is_draft = there.is_err() || !self.layout.place.is_on_disk();
        if is_draft {
            remove(&self.draft);
        }
        let size = there?;
        let field = self.layout.partition_field();
        let values = field.map(|field| (field.name().clone(), self.value.text()));
        Ok(Add {
            path: self.relative.clone(),
            partition_values: values.into_iter().collect(),
            size: size as i64,
            modification_time: now.0.div_euclid(1_000),
            data_change,
            stats: Some(self.stats.json(&self.layout.files)),
            tags: None,
            deletion_vector: None,
            base_row_id: None,
            default_row_commit_version: None,
            clustering_provider: None,
        })
    }

    /// Answers its size.
    fn publish(&self, file: &File) -> Result<u64> {
        let place = &self.layout.place;
        let size = file.metadata().map(|metadata| metadata.len());
        let size = if place.is_on_disk() {
            let synced = file.sync_all().and_then(|()| self.draft.parent().map_or(Ok(()), sync_directory));
            synced.and(size)
        } else {
            size
        };
        let size = size.map_err(|error| failed(&self.draft, error))?;
        place.publish(&self.draft, &self.relative).map(|()| size)
    }
}

impl Drop for DataFile {
    fn drop(&mut self) {
        if self.writer.take().is_some() {
            remove(&self.draft);
        }
    }
}

/// Writes arranged rows ([`Layout::arrange`]), one file per partition value.
pub(crate) fn write_files(
    layout: &Arc<Layout>,
    properties: &WriterProperties,
    batches: &[RecordBatch],
    now: Timestamp,
) -> Result<Vec<Add>> {
    let mut parts: Vec<_> = batches.iter().flat_map(|batch| layout.split(batch)).collect();
    // Stable: within a value the rows keep their order.
    parts.sort_by(|(one, _), (other, _)| one.cmp(other));
    let mut adds = Vec::new();
    let written = parts.chunk_by(|(one, _), (other, _)| one == other).try_for_each(|same| {
        let mut file = DataFile::create(layout, same[0].0.clone(), properties)?;
        same.iter().try_for_each(|(_, rows)| file.write(rows))?;
        adds.push(file.finish(now, true)?);
        Ok(())
    });
    written.inspect_err(|_| discard(layout, &adds))?;
    Ok(adds)
}

/// Removes files that no commit will name. For a thread that may wait.
pub(crate) fn discard(layout: &Layout, adds: &[Add]) {
    adds.iter().for_each(|add| layout.place.remove_and_wait(&add.path));
}

/// Removes a file that no commit names, or that was put from here.
fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::warn!(path = %path.display(), %error, "an unfinished file stays until the next vacuum");
    }
}

/// The file is not part of the table yet, so after a full disk it is written anew.
fn failed(path: &Path, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    place::failed(format!("write the data file `{}`", path.display()), error)
}
