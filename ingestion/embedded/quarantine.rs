//! Copies of what was found damaged, for study: nothing is thrown away.

use std::io;
use std::path::{Path, PathBuf};

use contract::metric;

use crate::disk::{Disk, DiskFile, write_whole};

/// Bytes of one damaged place that are copied; a segment is hardly ever larger.
const COPY_BYTES_MAX: u64 = 1 << 30;

/// A folder beside the journal.
pub(crate) struct Quarantine {
    pub(crate) folder: PathBuf,
}

impl Quarantine {
    /// Copies `bytes` bytes from a place (segment, byte), with a text beside them that says where they stood and
    /// why they were taken, and counts them. A place is copied and counted once. Answers the copy's path; none if
    /// it could not be written, which keeps nobody from going on.
    pub(crate) fn keep(
        &self,
        disk: &dyn Disk,
        file: &dyn DiskFile,
        place: (&str, u64),
        bytes: u64,
        reason: &str,
    ) -> Option<PathBuf> {
        let (segment, byte) = place;
        match self.copy(disk, file, place, bytes, reason) {
            Ok((path, is_new)) => {
                if is_new {
                    metric::LOG_DAMAGED_FRAMES.add(&[], 1);
                    tracing::error!(segment, byte, bytes, reason, "the log is damaged; a copy is in quarantine");
                }
                Some(path)
            }
            Err(error) => {
                tracing::error!(segment, byte, bytes, reason, %error, "the log is damaged; no copy could be made");
                None
            }
        }
    }

    fn copy(
        &self,
        disk: &dyn Disk,
        file: &dyn DiskFile,
        place: (&str, u64),
        bytes: u64,
        reason: &str,
    ) -> io::Result<(PathBuf, bool)> {
        let (segment, byte) = place;
        let name = format!("{}-byte-{byte}", segment.trim_end_matches(".log"));
        let path = self.folder.join(format!("{name}.damaged"));
        if disk.open_to_read(&path).is_ok() {
            return Ok((path, false));
        }
        disk.create_folder(&self.folder)?;
        let length = bytes.min(COPY_BYTES_MAX);
        let mut copy = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        file.read_at(byte, &mut copy)?;
        let text = format!("segment `{segment}`, byte {byte}, {bytes} bytes: {reason}\n");
        write_whole(disk, &self.folder, &format!("{name}.txt"), text.as_bytes())?;
        write_whole(disk, &self.folder, &file_name(&path), &copy)?;
        Ok((path, true))
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().and_then(|name| name.to_str()).expect("named above").to_owned()
}
