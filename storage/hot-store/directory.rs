//! The files of one index on disk, with the promise of a commit made whole.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use tantivy::Directory;
use tantivy::directory::error::{DeleteError, LockError, OpenDirectoryError, OpenReadError, OpenWriteError};
use tantivy::directory::{DirectoryLock, FileHandle, Lock, MmapDirectory, WatchCallback, WatchHandle, WritePtr};

/// Where tantivy notes which files it made.
const MANAGED: &str = ".managed.json";

/// tantivy's directory of memory-mapped files, with two differences.
///
/// | file | tantivy alone | here |
/// | --- | --- | --- |
/// | a segment's | written and fsynced; the folder is fsynced before the commit names it | the same |
/// | `meta.json`, the commit itself | written beside, fsynced, renamed | and then the folder is fsynced, so that the rename is on stable storage before anything is built on it, and before the files it replaces are deleted |
/// | `.managed.json`, the files it made | rewritten and fsynced for every file of every segment | not kept: the folder is the list. Half the fsyncs of a commit, and one file less that can be damaged |
#[derive(Clone, Debug)]
pub(crate) struct DurableDirectory {
    files: MmapDirectory,
    path: PathBuf,
}

impl DurableDirectory {
    /// Opens a folder that exists.
    pub(crate) fn open(path: &Path) -> Result<Self, OpenDirectoryError> {
        Ok(Self { files: MmapDirectory::open(path)?, path: path.to_owned() })
    }

    /// In tests a file `.full` beside the index is a full disk.
    fn check_room(&self) -> io::Result<()> {
        let is_full = cfg!(test) && self.path.with_file_name(".full").exists();
        if is_full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl Directory for DurableDirectory {
    fn get_file_handle(&self, path: &Path) -> Result<Arc<dyn FileHandle>, OpenReadError> {
        self.files.get_file_handle(path)
    }

    fn delete(&self, path: &Path) -> Result<(), DeleteError> {
        self.files.delete(path)
    }

    fn exists(&self, path: &Path) -> Result<bool, OpenReadError> {
        self.files.exists(path)
    }

    fn open_write(&self, path: &Path) -> Result<WritePtr, OpenWriteError> {
        self.check_room().map_err(|error| OpenWriteError::wrap_io_error(error, path.to_owned()))?;
        self.files.open_write(path)
    }

    fn atomic_read(&self, path: &Path) -> Result<Vec<u8>, OpenReadError> {
        if path != Path::new(MANAGED) {
            return self.files.atomic_read(path);
        }
        let names = file_names(&self.path).map_err(|error| OpenReadError::wrap_io_error(error, path.to_owned()))?;
        Ok(serde_json::to_vec(&names).expect("a list of texts has no failing form"))
    }

    fn atomic_write(&self, path: &Path, data: &[u8]) -> io::Result<()> {
        if path == Path::new(MANAGED) {
            return Ok(());
        }
        self.check_room()?;
        self.files.atomic_write(path, data)?;
        // It has its name now: whatever the cause, this is no error after which the old file stands.
        self.files.sync_directory().map_err(io::Error::other)
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.files.sync_directory()
    }

    fn acquire_lock(&self, lock: &Lock) -> Result<DirectoryLock, LockError> {
        self.files.acquire_lock(lock)
    }

    fn watch(&self, callback: WatchCallback) -> tantivy::Result<WatchHandle> {
        self.files.watch(callback)
    }
}

/// The names of the files of a folder, without those that start with a dot (locks and half-written ones).
pub(crate) fn file_names(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        names.extend(name.to_str().filter(|name| !name.starts_with('.')).map(str::to_owned));
    }
    Ok(names)
}

/// Makes what was created, renamed or removed in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_itself_is_the_list_of_files() {
        let folder = tempfile::tempdir().unwrap();
        let directory = DurableDirectory::open(folder.path()).unwrap();
        fs::write(folder.path().join("a.store"), b"x").unwrap();
        fs::write(folder.path().join(".lock"), b"").unwrap();
        directory.atomic_write(Path::new(MANAGED), b"not JSON").unwrap();
        let listed = directory.atomic_read(Path::new(MANAGED)).unwrap();
        assert_eq!(serde_json::from_slice::<Vec<String>>(&listed).unwrap(), ["a.store"]);
    }
}
