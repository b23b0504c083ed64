//! Whose a data directory is: held by a lock on a file, which the system lets go when the process ends, however that is.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::Path;

use contract::{Error, Result};

use crate::log::create_durably;

/// Takes the data directory of a log in `folder` for this process, as long as the answer lives, though its log stands
/// elsewhere: so no two processes write the stores beside it.
///
/// # Errors
/// `Change` when another process has it, `Stop` when the disk fails.
pub fn hold(folder: &Path) -> Result<File> {
    create_durably(folder).map_err(|error| failed(folder, error))?;
    lock(folder)
}

/// The same for one of several processes that write the stores together.
///
/// # Errors
/// As above, when another one has it alone.
pub fn hold_together(folder: &Path) -> Result<File> {
    create_durably(folder).map_err(|error| failed(folder, error))?;
    let file = open(folder)?;
    match file.try_lock_shared() {
        Ok(()) => note(file, folder),
        Err(TryLockError::WouldBlock) => {
            Err(taken(file, folder, "it writes the stores alone: end it, or wait for its end")?)
        }
        Err(TryLockError::Error(error)) => Err(failed(folder, error)),
    }
}

/// Whether processes hold the folder together at present.
///
/// # Errors
/// `Stop` when the disk fails.
pub fn is_held_together(folder: &Path) -> Result<bool> {
    let file = open(folder)?;
    if file.try_lock().is_ok() {
        return Ok(false);
    }
    Ok(file.try_lock_shared().is_ok())
}

/// Takes the folder for this process, as long as the file lives, and writes the process id into it.
pub(crate) fn lock(folder: &Path) -> Result<File> {
    let file = open(folder)?;
    match file.try_lock() {
        Ok(()) => note(file, folder),
        Err(TryLockError::WouldBlock) => Err(taken(file, folder, "one process at a time writes a log")?),
        Err(TryLockError::Error(error)) => Err(failed(folder, error)),
    }
}

fn open(folder: &Path) -> Result<File> {
    let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(folder.join("lock"));
    options.map_err(|error| failed(folder, error))
}

fn note(mut file: File, folder: &Path) -> Result<File> {
    file.set_len(0).map_err(|error| failed(folder, error))?;
    writeln!(file, "{}", std::process::id()).map_err(|error| failed(folder, error))?;
    Ok(file)
}

fn taken(mut file: File, folder: &Path, why: &str) -> Result<Error> {
    let mut holder = String::new();
    file.read_to_string(&mut holder).map_err(|error| failed(folder, error))?;
    let (folder, holder) = (folder.display(), holder.trim());
    Ok(Error::change(format!("open the log in `{folder}`: process {holder} has it open ({why})")))
}

fn failed(folder: &Path, error: std::io::Error) -> Error {
    Error::stop(format!("lock the log in `{}`", folder.display())).because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holds_a_folder_alone_or_several_hold_it_together() {
        let folder = tempfile::tempdir().unwrap();
        let alone = hold(folder.path()).unwrap();
        let says = |outcome: Result<File>| outcome.unwrap_err().to_string();
        assert!(says(hold_together(folder.path())).contains(&format!("process {}", std::process::id())));
        assert!(!is_held_together(folder.path()).unwrap());
        drop(alone);
        assert!(!is_held_together(folder.path()).unwrap());
        let together = [hold_together(folder.path()).unwrap(), hold_together(folder.path()).unwrap()];
        assert!(is_held_together(folder.path()).unwrap());
        assert!(says(hold(folder.path())).contains("one process at a time"));
        drop(together);
        hold(folder.path()).unwrap();
    }
}
