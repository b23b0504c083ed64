//! Files that are on stable storage before they can be seen under their name.
//!
//! delta-rs writes its log and checkpoints through an [`ObjectStore`]; the one of the `object_store` crate
//! for local disks writes no file through to the disk. After a loss of power a commit, or a checkpoint that every later
//! reader trusts, could be there by name and empty by content. [`DurableStore`] writes each file beside its
//! place, syncs it, gives it its name and syncs the directory; reading and listing it leaves to the crate's.

use std::fmt;
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use deltalake::Path;
use deltalake::logstore::object_store::local::LocalFileSystem;
use deltalake::logstore::object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};
use futures::stream::{BoxStream, StreamExt};

/// The ending of a file that is being written: a vacuum removes what a crash left of them.
pub(crate) const STAGING_SUFFIX: &str = ".tmp";

/// An object store over this machine's file system, from its root; what a `put` answered `Ok` for is on
/// stable storage.
#[derive(Debug, Default)]
pub(crate) struct DurableStore {
    inner: LocalFileSystem,
}

/// Makes a directory and its missing parents, each entry on stable storage.
pub(crate) fn create_directory(path: &FilePath) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        create_directory(parent)?;
    }
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    path.parent().map_or(Ok(()), sync_directory)
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(path: &FilePath) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Whether an error came of a full disk, which the user may mend while we wait; any other failure of a disk stops us.
pub(crate) fn is_full(error: &(dyn std::error::Error + 'static)) -> bool {
    let full = |error: &io::Error| matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    causes.any(|cause| cause.downcast_ref::<io::Error>().is_some_and(full))
}

/// A name that no other file has: 32 hexadecimal digits from the system's randomness, which seeds
/// every [`RandomState`].
pub(crate) fn unique_name() -> String {
    let half = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", half(), half())
}

/// A file that is written beside its place: `.NAME.RANDOM.tmp`.
#[derive(Debug)]
struct Staged {
    file: File,
    staging: PathBuf,
    target: PathBuf,
}

impl Staged {
    fn create(target: PathBuf) -> io::Result<Self> {
        let (Some(directory), Some(name)) = (target.parent(), target.file_name()) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a file needs a directory and a name"));
        };
        create_directory(directory)?;
        let staging = directory.join(format!(".{}.{}{STAGING_SUFFIX}", name.to_string_lossy(), unique_name()));
        let file = File::create_new(&staging)?;
        Ok(Self { file, staging, target })
    }

    /// Syncs the file and gives it its name; an error `AlreadyExists` if it must be new and is not. That the disk is full
    /// is said only as long as the file has not got its name, and nothing has become true.
    fn publish(&self, must_be_new: bool) -> io::Result<()> {
        self.file.sync_all()?;
        if must_be_new {
            fs::hard_link(&self.staging, &self.target)?;
            self.discard();
        } else {
            fs::rename(&self.staging, &self.target)?;
        }
        self.target.parent().map_or(Ok(()), sync_directory).map_err(io::Error::other)
    }

    fn discard(&self) {
        if let Err(error) = fs::remove_file(&self.staging)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.staging.display(), %error, "an unfinished file stays until the next vacuum");
        }
    }
}

fn write_whole(target: PathBuf, payload: &PutPayload, must_be_new: bool) -> io::Result<()> {
    let mut staged = Staged::create(target)?;
    let written = payload.iter().try_for_each(|part| staged.file.write_all(part));
    let published = written.and_then(|()| staged.publish(must_be_new));
    if published.is_err() {
        staged.discard();
    }
    published
}

/// A large file in parts.
#[derive(Debug)]
struct DurableUpload {
    staged: Arc<Mutex<Staged>>,
    end: u64,
}

#[async_trait]
impl MultipartUpload for DurableUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (staged, start) = (self.staged.clone(), self.end);
        self.end += data.content_length() as u64;
        Box::pin(blocking(move || {
            let mut staged = staged.lock().unwrap_or_else(PoisonError::into_inner);
            staged.file.seek(SeekFrom::Start(start))?;
            data.iter().try_for_each(|part| staged.file.write_all(part))
        }))
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let staged = self.staged.clone();
        blocking(move || staged.lock().unwrap_or_else(PoisonError::into_inner).publish(false)).await?;
        Ok(written())
    }

    async fn abort(&mut self) -> Result<()> {
        self.staged.lock().unwrap_or_else(PoisonError::into_inner).discard();
        Ok(())
    }
}

#[async_trait]
impl ObjectStore for DurableStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let must_be_new = match options.mode {
            PutMode::Overwrite => false,
            PutMode::Create => true,
            PutMode::Update(_) => {
                let operation = "`put_opts` with `PutMode::Update`".to_owned();
                return Err(Error::NotImplemented { operation, implementer: self.to_string() });
            }
        };
        let target = self.inner.path_to_filesystem(location)?;
        blocking(move || write_whole(target, &payload, must_be_new)).await?;
        Ok(written())
    }

    async fn put_multipart_opts(&self, location: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let target = self.inner.path_to_filesystem(location)?;
        let staged = blocking(move || Staged::create(target)).await?;
        Ok(Box::new(DurableUpload { staged: Arc::new(Mutex::new(staged)), end: 0 }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<bytes::Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        // What is gone is gone: another process may clean at the same time.
        let removed = self.inner.delete_stream(locations);
        removed.filter(|removed| std::future::ready(!matches!(removed, Err(Error::NotFound { .. })))).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await?;
        self.sync(to.clone()).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.inner.rename_opts(from, to, options).await?;
        self.sync(to.clone()).await
    }
}

impl DurableStore {
    async fn sync(&self, location: Path) -> Result<()> {
        let path = self.inner.path_to_filesystem(&location)?;
        blocking(move || {
            File::open(&path)?.sync_all()?;
            path.parent().map_or(Ok(()), sync_directory)
        })
        .await
    }
}

impl fmt::Display for DurableStore {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "durable {}", self.inner)
    }
}

fn written() -> PutResult {
    PutResult { e_tag: None, version: None }
}

/// Runs file operations off the threads of the runtime.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(Error::AlreadyExists { path: "the target".to_owned(), source: error.into() })
        }
        Ok(Err(error)) => Err(Error::Generic { store: "disk", source: error.into() }),
        Err(panic) => Err(Error::Generic { store: "disk", source: panic.into() }),
    }
}

#[cfg(test)]
mod tests {
    use deltalake::logstore::object_store::ObjectStoreExt;

    use super::*;

    fn location(directory: &tempfile::TempDir, name: &str) -> Path {
        Path::from_absolute_path(directory.path().join(name)).unwrap()
    }

    #[tokio::test]
    async fn a_put_that_must_be_new_refuses_an_existing_file_and_leaves_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let (store, place) = (DurableStore::default(), location(&directory, "log/0.json"));
        let new = || PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        store.put_opts(&place, "one".into(), new()).await.unwrap();
        let error = store.put_opts(&place, "two".into(), new()).await.expect_err("it exists");
        assert!(matches!(error, Error::AlreadyExists { .. }), "{error}");
        assert_eq!(store.get(&place).await.unwrap().bytes().await.unwrap().as_ref(), b"one");
        assert_eq!(fs::read_dir(directory.path().join("log")).unwrap().count(), 1);
    }

    #[test]
    fn a_full_disk_is_seen_through_all_who_hand_the_error_on() {
        let error = |kind: io::ErrorKind| {
            let error = Error::Generic { store: "disk", source: io::Error::from(kind).into() };
            crate::table::failed("commit".to_owned(), deltalake::DeltaTableError::ObjectStore { source: error })
        };
        assert_eq!(error(io::ErrorKind::StorageFull).remedy(), contract::Remedy::Retry);
        assert_eq!(error(io::ErrorKind::QuotaExceeded).remedy(), contract::Remedy::Retry);
        assert_eq!(error(io::ErrorKind::PermissionDenied).remedy(), contract::Remedy::Stop);
        let published = io::Error::other(io::Error::from(io::ErrorKind::StorageFull));
        assert!(!is_full(&published), "after a file got its name a full disk is no excuse");
    }

    #[tokio::test]
    async fn a_file_in_parts_appears_only_when_complete() {
        let directory = tempfile::tempdir().unwrap();
        let (store, place) = (DurableStore::default(), location(&directory, "checkpoint.parquet"));
        let mut upload = store.put_multipart(&place).await.unwrap();
        let (second, first) = {
            let first = upload.put_part("hello ".into());
            (upload.put_part("world".into()), first)
        };
        second.await.unwrap();
        first.await.unwrap();
        assert!(store.head(&place).await.is_err());
        upload.complete().await.unwrap();
        assert_eq!(store.get(&place).await.unwrap().bytes().await.unwrap().as_ref(), b"hello world");
    }
}
