//! Reading data files, one row group after another.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::Bytes;
use contract::{Error, Result};
use deltalake::Path;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderBuilder, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStreamBuilder};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use tokio::runtime::Handle;

use crate::committed::CommittedFile;
use crate::place::{Place, failed};

/// Bytes at a file's end that are read first: the footer of most files lies in them, so it takes one request.
const FOOTER_BYTES: usize = 64 << 10;

/// What is read of a file.
pub(crate) struct Selection {
    /// Columns by name; none for all.
    pub(crate) columns: Option<Vec<String>>,
    /// Row groups by place; none for all.
    pub(crate) groups: Option<Vec<usize>>,
    /// Rows of one batch.
    pub(crate) batch_rows: usize,
}

/// Batches of one file.
pub(crate) type Batches = Box<dyn Iterator<Item = Result<RecordBatch>>>;

/// Reads what `select` chooses by the file's footer. For a thread that may wait.
pub(crate) fn batches(
    place: &Place,
    file: &CommittedFile,
    doing: &str,
    select: impl FnOnce(&ParquetMetaData) -> Selection,
) -> Result<Batches> {
    let doing = format!("{doing} `{}`", place.shown(&file.relative));
    match place.directory() {
        Some(directory) => {
            let opened = File::open(directory.join(&file.relative)).map_err(|error| failed(doing.clone(), error))?;
            let builder = ParquetRecordBatchReaderBuilder::try_new(opened);
            let builder = builder.map_err(|error| failed(doing.clone(), error))?;
            let reader = narrowed(builder, select).build();
            let reader = reader.map_err(|error| failed(doing.clone(), error))?;
            Ok(Box::new(reader.map(move |batch| batch.map_err(|error| failed(doing.clone(), error)))))
        }
        None => remote(place, file, doing, select),
    }
}

fn remote(
    place: &Place,
    file: &CommittedFile,
    doing: String,
    select: impl FnOnce(&ParquetMetaData) -> Selection,
) -> Result<Batches> {
    let handle = Handle::current();
    let reader =
        RemoteFile { store: place.store().clone(), location: place.location(&file.relative), bytes: file.bytes };
    let builder = handle.block_on(ParquetRecordBatchStreamBuilder::new(reader));
    let builder = builder.map_err(|error| failed(doing.clone(), error))?;
    let stream = narrowed(builder, select).build();
    let mut stream = stream.map_err(|error| failed(doing.clone(), error))?;
    Ok(Box::new(std::iter::from_fn(move || {
        let next = handle.block_on(stream.next())?;
        Some(next.map_err(|error| failed(doing.clone(), error)))
    })))
}

/// A reader, of a file or of an object, of what is chosen by its footer.
fn narrowed<T>(
    mut builder: ArrowReaderBuilder<T>,
    select: impl FnOnce(&ParquetMetaData) -> Selection,
) -> ArrowReaderBuilder<T> {
    let selection = select(builder.metadata());
    if let Some(columns) = &selection.columns {
        let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().map(String::as_str));
        builder = builder.with_projection(mask);
    }
    if let Some(groups) = selection.groups {
        builder = builder.with_row_groups(groups);
    }
    builder.with_batch_size(selection.batch_rows)
}

/// A file in an object store. Its size is known from the log, which saves a request.
struct RemoteFile {
    store: Arc<dyn ObjectStore>,
    location: Path,
    bytes: u64,
}

impl AsyncFileReader for RemoteFile {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ParquetError>> {
        async { Ok(self.store.get_range(&self.location, range).await?) }.boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>, ParquetError>> {
        async move { Ok(self.store.get_ranges(&self.location, &ranges).await?) }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>, ParquetError>> {
        let bytes = self.bytes;
        let reader = ParquetMetaDataReader::new().with_prefetch_hint(Some(FOOTER_BYTES));
        async move { Ok(Arc::new(reader.load_and_finish(self, bytes).await?)) }.boxed()
    }
}

/// A file without the column is refused: what the caller needs is not there.
pub(crate) fn column(batch: &RecordBatch, name: &str, doing: &str) -> Result<arrow::array::ArrayRef> {
    let found = batch.column_by_name(name).cloned();
    found.ok_or_else(|| Error::stop(format!("{doing}: the column `{name}` is missing")))
}
