//! Where the tables lie: a folder of this disk, or below a prefix of an object store.
//!
//! The log, the data files, the query engine and the maintenance all go through [`Place`]. What differs is told here:
//!
//! | | on this disk | in an object store |
//! | --- | --- | --- |
//! | a data file is written | under its name, then synced | in the folder for what queries spill, then put |
//! | a data file is read | by its row groups from the file | by its row groups, one request for neighbouring columns |
//! | a commit appears | by a hard link to a synced file (`durable.rs`) | by a put with `If-None-Match: *` |
//! | who may write | who holds `writer.lock` | who has the credentials: each commit reads first what others committed |
//! | a commit fails | it is not there | it may be there all the same: see `Table::commit` |

use std::error::Error as StdError;
use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use contract::{Error, Remedy, Result};
use datafusion::execution::object_store::ObjectStoreUrl;
use deltalake::Path;
use deltalake::logstore::{LogStoreRef, StorageConfig, default_logstore};
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload, WriteMultipart};
use tokio::runtime::Handle;
use url::Url;

use crate::Settings;
use crate::durable::{DurableStore, is_full};

/// Bytes of one part of an upload: S3 wants 5 MiB at least, and with [`PARTS_MAX`] it bounds the memory.
const PART_BYTES: usize = 8 << 20;

/// Parts of an upload that are under way at the same time.
const PARTS_MAX: usize = 3;

/// How the `object_store` crate begins the message of an error that may pass: a timeout, a connection that ended, or an
/// answer of the server's (5xx, 429) after all its own attempts. delta-rs keeps the message, not always the error.
const PASSING: [&str; 3] = ["Generic S3 error", "Generic MicrosoftAzure error", "Generic GCS error"];

/// How such a message names an answer that stays the same: the key is wrong, may not do that, or there is no such bucket.
const REFUSALS: [&str; 3] = ["status code: 401", "status code: 403", "status code: 404"];

/// A folder, of this disk or of an object store.
#[derive(Clone)]
pub(crate) struct Place {
    /// Ends with a slash.
    url: Url,
    /// From the disk's root, or that of the bucket.
    store: Arc<dyn ObjectStore>,
    /// The folder in `store`.
    prefix: Path,
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    Disk(PathBuf),
    /// Where files are written before they are put; none for a reader.
    Remote(Option<PathBuf>),
}

impl Place {
    /// A folder of this disk, by its path from the root.
    ///
    /// # Errors
    /// `Change` when its name is none that a URL can hold.
    pub(crate) fn on_disk(directory: &FilePath) -> Result<Self> {
        let doing = || format!("open the cold store `{}`", directory.display());
        let wrong = || Error::change(format!("{}: its path should be UTF-8 and start at the root", doing()));
        if directory.to_str().is_none() {
            return Err(wrong());
        }
        let url = Url::from_directory_path(directory).map_err(|()| wrong())?;
        let prefix = Path::from_absolute_path(directory).map_err(|error| wrong().because(error))?;
        Ok(Self { url, store: Arc::new(DurableStore::default()), prefix, kind: Kind::Disk(directory.to_owned()) })
    }

    /// Below a URL's path in an object store, by what the settings say. `staging` is where this process may write files.
    ///
    /// # Errors
    /// `Change` when the settings do not say enough, or what cannot be.
    pub(crate) fn remote(settings: &Settings, staging: Option<PathBuf>) -> Result<Self> {
        let (store, url) = crate::remote::open(settings)?;
        Self::of_store(store, url, staging)
    }

    /// Below a URL's path in `store`.
    pub(crate) fn of_store(store: Arc<dyn ObjectStore>, mut url: Url, staging: Option<PathBuf>) -> Result<Self> {
        let prefix = Path::from_url_path(url.path())
            .map_err(|error| Error::change(format!("use the setting `cold.url`: `{url}`")).because(error))?;
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        Ok(Self { url, store, prefix, kind: Kind::Remote(staging) })
    }

    /// A folder of it: `silver/github`.
    pub(crate) fn join(&self, below: &str) -> Self {
        let kind = match &self.kind {
            Kind::Disk(directory) => Kind::Disk(directory.join(below)),
            Kind::Remote(staging) => Kind::Remote(staging.clone()),
        };
        let url = self.url.join(&format!("{below}/")).expect("the names of tables are parts of a path");
        Self { url, store: self.store.clone(), prefix: self.location(below), kind }
    }

    /// Whether it is of this disk.
    pub(crate) fn is_on_disk(&self) -> bool {
        matches!(self.kind, Kind::Disk(_))
    }

    /// The folder, if it is of this disk.
    pub(crate) fn directory(&self) -> Option<&FilePath> {
        match &self.kind {
            Kind::Disk(directory) => Some(directory),
            Kind::Remote(_) => None,
        }
    }

    /// The store from its root.
    pub(crate) fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// The folder from the store's root.
    pub(crate) fn prefix(&self) -> &Path {
        &self.prefix
    }

    /// The place of a file of it from the store's root.
    pub(crate) fn location(&self, relative: &str) -> Path {
        let text =
            if self.prefix.as_ref().is_empty() { relative.to_owned() } else { format!("{}/{relative}", self.prefix) };
        Path::parse(&text).unwrap_or_else(|_| Path::from(text))
    }

    /// A file of it, for people: a path, or a URL.
    pub(crate) fn shown(&self, relative: &str) -> String {
        match &self.kind {
            Kind::Disk(directory) => directory.join(relative).display().to_string(),
            Kind::Remote(_) => format!("{}{relative}", self.url),
        }
    }

    /// What the query engine knows the store by.
    pub(crate) fn store_url(&self) -> ObjectStoreUrl {
        match &self.kind {
            Kind::Disk(_) => ObjectStoreUrl::local_filesystem(),
            Kind::Remote(_) => ObjectStoreUrl::parse(&self.url[..url::Position::BeforePath])
                .expect("a scheme and a host, as the settings were checked"),
        }
    }

    /// The Delta log of the table that is this folder.
    pub(crate) fn log_store(&self) -> LogStoreRef {
        let prefixed = Arc::new(PrefixStore::new(self.store.clone(), self.prefix.clone()));
        default_logstore(prefixed, self.store.clone(), &self.url, &StorageConfig::default())
    }

    /// Where a file of the name `relative` is written at first: at its place, or where it is put from.
    ///
    /// # Errors
    /// `Change` when this process has nowhere to write, as it reads only.
    pub(crate) fn draft(&self, relative: &str) -> Result<PathBuf> {
        match &self.kind {
            Kind::Disk(directory) => Ok(directory.join(relative)),
            Kind::Remote(Some(staging)) => Ok(staging.join(relative.rsplit('/').next().unwrap_or(relative))),
            Kind::Remote(None) => Err(Error::change("write to the cold store: it is open for reading only")),
        }
    }

    /// Puts a draft to its place in an object store; on this disk it stands there. For a thread that may wait.
    pub(crate) fn publish(&self, draft: &FilePath, relative: &str) -> Result<()> {
        if self.is_on_disk() {
            return Ok(());
        }
        let doing = || format!("put the data file `{}`", self.shown(relative));
        let mut file = File::open(draft).map_err(|error| Error::stop(doing()).because(error))?;
        let put = Handle::current().block_on(self.put(&mut file, &self.location(relative)));
        put.map_err(|error| failed(doing(), error))
    }

    async fn put(&self, file: &mut File, location: &Path) -> Result<(), Box<dyn StdError + Send + Sync>> {
        let mut part = read_part(file)?;
        if part.len() < PART_BYTES {
            self.store.put(location, PutPayload::from(part)).await?;
            return Ok(());
        }
        let mut upload = WriteMultipart::new_with_chunk_size(self.store.put_multipart(location).await?, PART_BYTES);
        while !part.is_empty() {
            if let Err(error) = upload.wait_for_capacity(PARTS_MAX - 1).await {
                // What was put of it costs space until the store's own rule takes it.
                upload.abort().await?;
                return Err(error.into());
            }
            upload.put(part.into());
            part = read_part(file)?;
        }
        upload.finish().await?;
        Ok(())
    }

    /// Removes a file that no commit names.
    pub(crate) async fn remove(&self, relative: &str) {
        match self.store.delete(&self.location(relative)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => {
                let path = self.shown(relative);
                tracing::warn!(path, %error, "an unfinished file stays until the next vacuum");
            }
        }
    }

    /// The same, for a thread that may wait.
    pub(crate) fn remove_and_wait(&self, relative: &str) {
        let Some(directory) = self.directory() else {
            Handle::current().block_on(self.remove(relative));
            return;
        };
        let path = directory.join(relative);
        if let Err(error) = fs::remove_file(&path) {
            tracing::warn!(path = %path.display(), %error, "an unfinished file stays until the next vacuum");
        }
    }
}

// What logs in stands in the store.
impl fmt::Debug for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.url)
    }
}

fn read_part(file: &mut File) -> std::io::Result<Vec<u8>> {
    let mut part = Vec::new();
    file.take(PART_BYTES as u64).read_to_end(&mut part)?;
    Ok(part)
}

/// What the caller should do about an error of a disk, an object store, or what reads them.
pub(crate) fn remedy(error: &(dyn StdError + 'static)) -> Remedy {
    let mut causes = std::iter::successors(Some(error), |&error| error.source());
    let is_refused = causes.any(|cause| {
        use object_store::Error::{PermissionDenied, Unauthenticated};
        matches!(cause.downcast_ref(), Some(PermissionDenied { .. } | Unauthenticated { .. }))
    });
    let text = contract::with_causes(error);
    let says = |parts: &[&str]| parts.iter().any(|part| text.contains(part));
    if is_refused || says(&PASSING) && says(&REFUSALS) {
        Remedy::Change
    } else if is_full(error) || says(&PASSING) {
        Remedy::Retry
    } else {
        Remedy::Stop
    }
}

/// An error of a disk or an object store, with its remedy.
pub(crate) fn failed(doing: String, error: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
    let error = error.into();
    Error::new(remedy(error.as_ref()), doing).because(error)
}
