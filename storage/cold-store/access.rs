//! Who has the store: readers beside anybody, one that writes alone, or several that write side by side.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use contract::{Error, Result};

use crate::durable::create_directory;

/// The file that is locked for as long as a process writes.
const LOCK: &str = "writer.lock";

/// The folder for what queries spill.
const SPILL: &str = "tmp";

/// How this process has the store.
pub(crate) enum Access {
    /// It reads.
    Read,
    /// It writes, and nobody else does.
    Alone { _lock: File },
    /// It writes beside the tables of a store that this process has, a draft.
    Within,
    /// It writes, and so may others.
    Shared { _lock: File, _spill: File },
}

/// Held while a process opens the store beside others, so that they make what is not there one after another.
pub(crate) struct Turn(#[expect(dead_code, reason = "held, not used: the lock ends with it")] File);

impl Access {
    /// Whether it writes.
    pub(crate) fn writes(&self) -> bool {
        !matches!(self, Self::Read)
    }

    /// Whether others may write meanwhile.
    pub(crate) fn has_others(&self) -> bool {
        !matches!(self, Self::Alone { .. } | Self::Within)
    }

    /// Locks the store for a process that writes alone; answers also where it may spill.
    pub(crate) fn alone(directory: &Path) -> Result<(Self, PathBuf)> {
        let failed = |error| failed(directory, error);
        let lock = lock_file(directory).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let who = match lock.try_lock_shared() {
                    Ok(()) => "processes that share it (`databroker process`) write to it; stop them",
                    Err(_) => "another process writes to it; stop that one",
                };
                let store = directory.display();
                return Err(Error::change(format!(
                    "lock the cold store `{store}`: {who}, or open the store for reading"
                )));
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let spill = directory.join(SPILL);
        if spill.is_dir() {
            // What queries of a killed process spilled; no other process writes here, as we hold the lock.
            fs::remove_dir_all(&spill).map_err(failed)?;
        }
        create_directory(&spill).map_err(failed)?;
        Ok((Self::Alone { _lock: lock }, spill))
    }

    /// Locks the store for a process that writes beside others of its kind. Waits while another one opens the store.
    pub(crate) fn shared(directory: &Path) -> Result<(Self, PathBuf, Turn)> {
        let failed = |error| failed(directory, error);
        let lock = lock_file(directory).map_err(failed)?;
        match lock.try_lock_shared() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::change(format!(
                    "share the cold store `{}`: a process that writes alone (`databroker up` or `backfill`) has it; stop that one",
                    directory.display()
                )));
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let spills = directory.join(SPILL);
        create_directory(&spills).map_err(failed)?;
        let turn = File::open(&spills).and_then(|spills| spills.lock().map(|()| spills)).map_err(failed)?;
        clean(&spills).map_err(failed)?;
        let spill = spills.join(std::process::id().to_string() + "-" + &crate::durable::unique_name());
        create_directory(&spill).map_err(failed)?;
        let held = File::open(&spill).and_then(|spill| spill.lock().map(|()| spill)).map_err(failed)?;
        Ok((Self::Shared { _lock: lock, _spill: held }, spill, Turn(turn)))
    }
}

/// Removes what queries of killed processes spilled: their folders are not locked any more.
fn clean(spills: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(spills)? {
        let path = entry?.path();
        if path.is_dir() && File::open(&path)?.try_lock().is_ok() {
            fs::remove_dir_all(&path)?;
        }
    }
    Ok(())
}

fn lock_file(directory: &Path) -> std::io::Result<File> {
    File::options().create(true).truncate(false).write(true).open(directory.join(LOCK))
}

fn failed(directory: &Path, error: std::io::Error) -> Error {
    Error::stop(format!("lock the cold store `{}`", directory.display())).because(error)
}
