//! New files from the rows of old ones, in memory bounded by one row group.

use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::{cast, filter_record_batch};
use contract::{Error, Result, Timestamp};
use deltalake::kernel::{Action, Add, Remove};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::properties::WriterProperties;

use crate::committed::CommittedFile;
use crate::data_file::{self, DataFile};
use crate::layout::{Layout, PartitionValue};
use crate::reader::{Batches, Selection, batches};
use crate::store::Inner;
use crate::table::Table;

/// Bytes of rows that are read at once, about; the batch's rows follow from the size of a file's rows.
const BATCH_BYTES: i64 = 4 << 20;

/// Rows that are read at once at the most.
const BATCH_ROWS_MAX: i64 = 8_192;

/// What becomes of the files of one partition value.
pub(crate) struct Rewrite {
    /// The table.
    pub(crate) layout: Arc<Layout>,
    /// How to write.
    pub(crate) properties: WriterProperties,
    /// The files, oldest first; all of the same partition value.
    pub(crate) files: Vec<Arc<CommittedFile>>,
    /// A new file is begun when one has reached this size.
    pub(crate) target_bytes: u64,
    /// The time of the new files and of the end of the old ones.
    pub(crate) now: Timestamp,
    /// Whether rows change, or only the files they stand in.
    pub(crate) data_change: bool,
}

impl Inner {
    /// What writes some files of a table anew, now.
    pub(crate) fn rewrite(
        &self,
        table: &Table,
        files: Vec<Arc<CommittedFile>>,
        target_bytes: u64,
        data_change: bool,
    ) -> Rewrite {
        let (layout, properties, now) = (table.layout.clone(), self.properties.clone(), self.clock.now());
        Rewrite { layout, properties, files, target_bytes, now, data_change }
    }
}

impl Rewrite {
    /// Writes the rows for which `keep` is true (all, where it answers none), and answers the actions that
    /// put the new files in the place of the old ones.
    pub(crate) fn run(&self, keep: impl Fn(&RecordBatch) -> Option<BooleanArray>) -> Result<Vec<Action>> {
        let rows = self.files.iter().flat_map(|file| match self.read(file) {
            Ok(batches) => batches,
            Err(error) => Box::new(std::iter::once(Err(error))),
        });
        let kept = rows.map(|batch| {
            let batch = batch?;
            Ok(match keep(&batch) {
                Some(mask) => filter_record_batch(&batch, &mask).expect("the mask has the batch's length"),
                None => batch,
            })
        });
        self.replace(kept)
    }

    /// The same with the rows given: those of the files, in another order.
    pub(crate) fn replace(&self, rows: impl Iterator<Item = Result<RecordBatch>>) -> Result<Vec<Action>> {
        let mut adds: Vec<Add> = Vec::new();
        self.write(&mut adds, rows).inspect_err(|_| data_file::discard(&self.layout, &adds))?;
        let removes =
            self.files.iter().map(|file| Action::Remove(remove_action(&self.layout, file, self.now, self.data_change)));
        Ok(removes.chain(adds.into_iter().map(Action::Add)).collect())
    }

    fn write(&self, adds: &mut Vec<Add>, rows: impl Iterator<Item = Result<RecordBatch>>) -> Result<()> {
        let value = self.files.first().map_or(PartitionValue::Whole, |file| file.value.clone());
        let mut open: Option<DataFile> = None;
        for batch in rows {
            let batch = self
                .conform(&batch?)
                .map_err(|error| Error::stop(format!("write rows of `{}` anew", self.layout.name)).because(error))?;
            if batch.num_rows() == 0 {
                continue;
            }
            let mut target = match open.take() {
                Some(target) => target,
                None => DataFile::create(&self.layout, value.clone(), &self.properties)?,
            };
            target.write(&batch)?;
            if target.bytes() >= self.target_bytes {
                adds.push(target.finish(self.now, self.data_change)?);
            } else {
                open = Some(target);
            }
        }
        if let Some(last) = open {
            adds.push(last.finish(self.now, self.data_change)?);
        }
        Ok(())
    }

    /// Removes the new files, which are not to be committed.
    pub(crate) fn discard(&self, actions: Vec<Action>) {
        let added = actions.into_iter().filter_map(|action| match action {
            Action::Add(add) => Some(add),
            _ => None,
        });
        data_file::discard(&self.layout, &added.collect::<Vec<_>>());
    }

    fn read(&self, file: &CommittedFile) -> Result<Batches> {
        let all = |metadata: &ParquetMetaData| {
            let groups = metadata.row_groups().iter();
            let row_bytes = groups.map(|group| group.total_byte_size() / group.num_rows().max(1)).max().unwrap_or(0);
            let rows = (BATCH_BYTES / row_bytes.max(1)).clamp(1, BATCH_ROWS_MAX);
            Selection { columns: None, groups: None, batch_rows: rows as usize }
        };
        batches(&self.layout.place, file, "read the data file", all)
    }

    /// The columns of the layout: another engine may have written the file with types of its own.
    fn conform(&self, batch: &RecordBatch) -> Result<RecordBatch, arrow::error::ArrowError> {
        let fields = self.layout.files.fields().iter();
        let columns = fields.map(|field| match batch.column_by_name(field.name()) {
            Some(column) if column.data_type() == field.data_type() => Ok(column.clone()),
            Some(column) => cast(column, field.data_type()),
            None => Ok(arrow::array::new_null_array(field.data_type(), batch.num_rows())),
        });
        RecordBatch::try_new(self.layout.files.clone(), columns.collect::<Result<_, _>>()?)
    }
}

/// The action that takes a file out of a table.
pub(crate) fn remove_action(layout: &Layout, file: &CommittedFile, now: Timestamp, data_change: bool) -> Remove {
    let values = layout.partition_field().map(|field| (field.name().clone(), file.value.text()));
    Remove {
        path: file.relative.clone(),
        data_change,
        deletion_timestamp: Some(now.0.div_euclid(1_000)),
        extended_file_metadata: Some(true),
        partition_values: Some(values.into_iter().collect()),
        size: Some(file.bytes as i64),
        ..Remove::default()
    }
}
