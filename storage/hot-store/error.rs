//! What an error of tantivy or the disk asks of the caller.

use std::io;

use contract::{Error, Positions, Result, SourceId, Span};
use tantivy::TantivyError;
use tantivy::directory::error::{LockError, OpenDirectoryError, OpenReadError, OpenWriteError};

/// Whether there is no room, which may change. What was being written is not committed then, and is written anew into
/// new files: so that also counts where a sync says it.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// An error of the disk: `Retry` where it is full, else `Stop`.
pub(crate) fn disk_failed(doing: String, error: io::Error) -> Error {
    if is_full(&error) { Error::retry(doing).because(error) } else { Error::stop(doing).because(error) }
}

/// An error of tantivy, in the same manner.
pub(crate) fn failed(doing: String, error: TantivyError) -> Error {
    let is_retry = cause(&error).is_some_and(is_full);
    if is_retry { Error::retry(doing).because(error) } else { Error::stop(doing).because(error) }
}

/// What the system said, if it was asked.
pub(crate) fn cause(error: &TantivyError) -> Option<&io::Error> {
    match error {
        TantivyError::IoError(io_error)
        | TantivyError::OpenReadError(OpenReadError::IoError { io_error, .. })
        | TantivyError::OpenWriteError(OpenWriteError::IoError { io_error, .. })
        | TantivyError::OpenDirectoryError(OpenDirectoryError::IoError { io_error, .. })
        | TantivyError::LockFailure(LockError::IoError(io_error), _) => Some(io_error),
        _ => None,
    }
}

/// Refuses rows that leave a gap behind those that were written.
pub(crate) fn refuse_gap(source: SourceId, span: &Span, written: &Positions) -> Result<()> {
    let Some(gap) = span.gap_after(written) else { return Ok(()) };
    Err(Error::stop(format!(
        "write rows of `{source}`: offsets {} to {} of partition {} were not written before them",
        gap.from, gap.to, gap.partition
    )))
}
