//! One index: the rows of a source of one event day, or of one month where all is kept.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::{fs, io};

use contract::{Error, Positions, RowSchema, SourceId};
use serde::{Deserialize, Serialize};
use tantivy::indexer::{IndexWriterOptions, LogMergePolicy};
use tantivy::store::Compressor;
use tantivy::{Index, IndexReader, IndexSettings, IndexWriter, ReloadPolicy, Searcher, TantivyError};

use crate::Settings;
use crate::directory::{DurableDirectory, file_names, sync_folder};
use crate::document::RowDocument;
use crate::error::{cause, disk_failed, failed};
use crate::fields::{Fields, tokenizers};
use crate::names::{Period, period};
use crate::settings::WRITER_MEMORY_BYTES_MIN;

/// The version of the commit payload's form.
const PAYLOAD_VERSION: u32 = 1;

/// Rows below which all segments count as of the same size, so that the many small ones of live commits are
/// merged together.
const SMALL_SEGMENT_ROWS: u32 = 10_000;

/// How much larger, as a power of two, a segment is before it counts as of another size.
const SIZE_STEP_LOG2: f64 = 3.0;

/// Threads that index rows of one writer. Indexing is half of all work on a row, so with one it is what the rest waits for;
/// more would only make more segments to merge.
const WRITER_THREADS_MAX: usize = 2;

/// Blocks of `_source` that a searcher keeps unpacked, 16 KB each and per segment: a page of hits.
const STORE_BLOCKS_CACHED: usize = 20;

/// An index as a query sees it: its files stay readable for as long as this lives.
pub(crate) struct OpenIndex {
    /// `github-2026.11.22`.
    pub(crate) name: String,
    /// Its rows as of the last commit.
    pub(crate) searcher: Searcher,
    /// Its fields.
    pub(crate) fields: Arc<Fields>,
}

/// An index on disk.
pub(crate) struct HotIndex {
    pub(crate) name: String,
    pub(crate) period: Period,
    pub(crate) path: PathBuf,
    pub(crate) fields: Arc<Fields>,
    index: Index,
    reader: IndexReader,
    mark: Mutex<Positions>,
}

/// What tantivy keeps with a commit.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    version: u32,
    /// The next offsets: of what lies below, the index has all rows that are its own.
    next: Positions,
}

/// Why an index cannot be opened.
#[derive(Debug)]
pub(crate) enum Unusable {
    /// It holds nothing: its creation did not come to its end.
    Unborn,
    /// Its files are not what was written, or are of a version that is not known.
    Damaged(String),
    /// The system refused; the index may be well.
    Disk(Error),
}

impl HotIndex {
    /// Makes an index that is not there yet, durably.
    pub(crate) fn create(folder: &Path, source: SourceId, name: &str, fields: Arc<Fields>) -> Result<Self, Error> {
        let path = folder.join(name);
        let doing = || format!("create the index `{name}`");
        fs::create_dir(&path).and_then(|()| sync_folder(folder)).map_err(|error| disk_failed(doing(), error))?;
        let settings = IndexSettings {
            docstore_compression: Compressor::Lz4,
            // Compressing where the rows are indexed costs the same and saves a thread an index.
            docstore_compress_dedicated_thread: false,
            ..IndexSettings::default()
        };
        let make = || -> tantivy::Result<Self> {
            let index = Index::create(DurableDirectory::open(&path)?, fields.schema.clone(), settings)?;
            Self::with(index, path.clone(), name, source, fields, Positions::default())
        };
        make().map_err(|error| {
            // So that the next try finds nothing; what stays is cleaned at the next start.
            fs::remove_dir_all(&path).unwrap_or_default();
            failed(doing(), error)
        })
    }

    /// Opens an index with all its segments, so that what is missing or damaged is found now.
    pub(crate) fn open(folder: &Path, name: &str, rows: &'static RowSchema) -> Result<Self, Unusable> {
        let path = folder.join(name);
        let doing = format!("open the index `{name}`");
        if !path.join("meta.json").try_exists().map_err(|error| Unusable::Disk(Error::stop(&*doing).because(error)))? {
            let names = file_names(&path).map_err(|error| Unusable::Disk(Error::stop(&*doing).because(error)))?;
            return Err(if names.is_empty() {
                Unusable::Unborn
            } else {
                Unusable::Damaged("`meta.json` is missing".to_owned())
            });
        }
        // tantivy trusts its files; what a damaged one makes it do must not end the process.
        let opened = catch_unwind(AssertUnwindSafe(|| Self::open_files(&path, name, rows)));
        match opened {
            Ok(Ok(Ok(index))) => Ok(index),
            Ok(Ok(Err(other_form))) => Err(Unusable::Damaged(other_form)),
            Ok(Err(error)) if is_refusal(&error) => Err(Unusable::Disk(Error::stop(doing).because(error))),
            Ok(Err(error)) => Err(Unusable::Damaged(error.to_string())),
            Err(_) => Err(Unusable::Damaged("reading it panicked".to_owned())),
        }
    }

    fn open_files(path: &Path, name: &str, rows: &'static RowSchema) -> tantivy::Result<Result<Self, String>> {
        let index = Index::open(DurableDirectory::open(path)?)?;
        let fields = match Fields::of_index(rows, &index.schema()) {
            Ok(fields) => Arc::new(fields),
            Err(reason) => return Ok(Err(reason)),
        };
        let mark = match index.load_metas()?.payload {
            None => Positions::default(),
            Some(text) => match serde_json::from_str::<Payload>(&text) {
                Ok(payload) if payload.version == PAYLOAD_VERSION => payload.next,
                Ok(payload) => return Ok(Err(format!("its commit is of version {}", payload.version))),
                Err(error) => return Ok(Err(format!("its commit has no positions: {error}"))),
            },
        };
        Self::with(index, path.to_owned(), name, rows.source, fields, mark).map(Ok)
    }

    fn with(
        mut index: Index,
        path: PathBuf,
        name: &str,
        source: SourceId,
        fields: Arc<Fields>,
        mark: Positions,
    ) -> tantivy::Result<Self> {
        index.set_tokenizers(tokenizers());
        let reader = index
            .reader_builder()
            .reload_policy(ReloadPolicy::Manual)
            .doc_store_cache_num_blocks(STORE_BLOCKS_CACHED)
            .try_into()?;
        let period = period(source, name).expect("only names of indices are opened or made");
        Ok(Self { name: name.to_owned(), period, path, fields, index, reader, mark: Mutex::new(mark) })
    }

    /// Its present state, for a query.
    pub(crate) fn opened(&self) -> OpenIndex {
        OpenIndex { name: self.name.clone(), searcher: self.reader.searcher(), fields: self.fields.clone() }
    }

    /// Lets queries see the last commit.
    pub(crate) fn reload(&self) -> Result<(), Error> {
        self.reader.reload().map_err(|error| Error::stop(format!("reopen the index `{}`", self.name)).because(error))
    }

    /// The next offsets as of the last commit: of what lies below, the index has all rows that are its own.
    pub(crate) fn mark(&self) -> Positions {
        self.mark.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A writer with so much memory, of two threads where that is enough for both. There is one at a time.
    pub(crate) fn writer(&self, settings: &Settings, bytes: usize) -> Result<IndexWriter<RowDocument>, Error> {
        let threads = (bytes / WRITER_MEMORY_BYTES_MIN).clamp(1, WRITER_THREADS_MAX);
        let options = IndexWriterOptions::builder()
            .num_worker_threads(threads)
            .num_merge_threads(1)
            .memory_budget_per_thread(bytes / threads)
            .build();
        let writer: IndexWriter<RowDocument> = self
            .index
            .writer_with_options(options)
            .map_err(|error| failed(format!("open the index `{}` for writing", self.name), error))?;
        let mut policy = LogMergePolicy::default();
        policy.set_min_num_segments(settings.merge_segments_min);
        policy.set_min_layer_size(SMALL_SEGMENT_ROWS);
        policy.set_level_log_size(SIZE_STEP_LOG2);
        writer.set_merge_policy(Box::new(policy));
        Ok(writer)
    }

    /// Makes what the writer took durable, with `next` as the mark, and visible.
    pub(crate) fn commit(&self, writer: &mut IndexWriter<RowDocument>, next: &Positions) -> Result<(), Error> {
        let payload = Payload { version: PAYLOAD_VERSION, next: next.clone() };
        let payload = serde_json::to_string(&payload).expect("a map of numbers has no failing form");
        let committed = writer.prepare_commit().and_then(|mut prepared| {
            prepared.set_payload(&payload);
            prepared.commit()
        });
        committed.map_err(|error| failed(format!("commit the index `{}`", self.name), error))?;
        *self.mark.lock().unwrap_or_else(PoisonError::into_inner) = next.clone();
        self.reload()
    }

    /// Bytes of its files.
    pub(crate) fn bytes(&self) -> u64 {
        let names = file_names(&self.path).unwrap_or_default();
        // A file may be merged away between both calls; it counts nothing then.
        names.iter().filter_map(|name| fs::metadata(self.path.join(name)).ok()).map(|file| file.len()).sum()
    }

    /// Deletes what a killed process or a closed writer left: files that no commit names. Only while there is no writer.
    pub(crate) fn delete_leftovers(&self) -> Result<(), Error> {
        let failed = || Error::stop(format!("clean the index `{}`", self.name));
        let metas = self.index.load_metas().map_err(|error| failed().because(error))?;
        let mut living = metas.list_segment_files();
        living.insert(PathBuf::from("meta.json"));
        let clean = || -> io::Result<()> {
            for entry in fs::read_dir(&self.path)? {
                let entry = entry?;
                let name = entry.file_name();
                let is_lock = name.to_string_lossy().ends_with(".lock");
                if !is_lock && !living.contains(Path::new(&name)) {
                    fs::remove_file(entry.path())?;
                }
            }
            Ok(())
        };
        clean().map_err(|error| failed().because(error))
    }
}

/// Whether the system refused to read, which says nothing about the files: no permission, no free handle, a bad disk.
fn is_refusal(error: &TantivyError) -> bool {
    matches!(error, TantivyError::LockFailure(..))
        || cause(error).is_some_and(|cause| cause.raw_os_error().is_some() && cause.kind() != io::ErrorKind::NotFound)
}
