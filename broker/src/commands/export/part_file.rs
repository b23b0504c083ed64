//! Writing one file: whole under its name, or not there.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use contract::{Error, Result};
use serving::rows::{Format, RowsWriter};
use sha2::{Digest, Sha256};

use super::manifest::Done;

/// A file that is being written. Dropped before its end, nothing is left of it.
pub(crate) struct PartFile {
    path: PathBuf,
    unfinished: PathBuf,
    file: BufWriter<File>,
    /// Taken at the end.
    rows: Option<RowsWriter>,
    hash: Sha256,
    done: Done,
    is_whole: bool,
}

impl PartFile {
    pub(crate) fn begin(path: &Path, format: Format, schema: &SchemaRef) -> Result<Self> {
        let rows = Some(RowsWriter::new(format, schema)?);
        let unfinished = super::unfinished(path);
        let file = File::create(&unfinished)
            .map_err(|cause| Error::change(format!("write `{}`", path.display())).because(cause))?;
        let done = Done { rows: 0, bytes: 0, sha256: String::new() };
        let (file, hash) = (BufWriter::new(file), Sha256::new());
        Ok(Self { path: path.to_owned(), unfinished, file, rows, hash, done, is_whole: false })
    }

    /// Bytes that were written.
    pub(crate) fn bytes(&self) -> u64 {
        self.done.bytes
    }

    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let rows = self.rows.as_mut().expect("it has not ended");
        for piece in rows.batch(batch) {
            put(&mut self.file, &mut self.hash, &mut self.done, &self.path, &piece?)?;
        }
        self.done.rows += batch.num_rows() as u64;
        Ok(())
    }

    /// Puts the whole file under its name.
    pub(crate) fn end(mut self) -> Result<Done> {
        let end = self.rows.take().expect("it ends once").end()?;
        put(&mut self.file, &mut self.hash, &mut self.done, &self.path, &end)?;
        let failed = |cause: std::io::Error| Error::change(format!("write `{}`", self.path.display())).because(cause);
        self.file.flush().and_then(|()| self.file.get_ref().sync_all()).map_err(failed)?;
        fs::rename(&self.unfinished, &self.path).map_err(failed)?;
        self.is_whole = true;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        let sha256: String = self.hash.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Done { rows: self.done.rows, bytes: self.done.bytes, sha256 })
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        if !self.is_whole {
            // What cannot be removed now is written over by the next run.
            fs::remove_file(&self.unfinished).unwrap_or_default();
        }
    }
}

fn put(file: &mut BufWriter<File>, hash: &mut Sha256, done: &mut Done, path: &Path, bytes: &[u8]) -> Result<()> {
    file.write_all(bytes).map_err(|cause| Error::change(format!("write `{}`", path.display())).because(cause))?;
    hash.update(bytes);
    done.bytes += bytes.len() as u64;
    Ok(())
}
