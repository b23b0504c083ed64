//! The one file per source that says how far the store is: `github.checkpoint`.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::{fs, io};

use contract::{Positions, SourceId};
use serde::{Deserialize, Serialize};

use crate::directory::sync_folder;

/// The version of the file's form.
const VERSION: u32 = 1;

/// What the file holds: a line of JSON and a line with its CRC-32C in hexadecimal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Checkpoint {
    version: u32,
    /// The next offsets: all below is in the indices, on stable storage.
    pub(crate) next: Positions,
    /// Per index the lowest offsets of its rows: from where it can be built anew.
    pub(crate) first: BTreeMap<String, Positions>,
}

/// Why a checkpoint cannot be read.
#[derive(Debug)]
pub(crate) enum Unreadable {
    /// Its bytes are not what was written.
    Damaged(String),
    /// The system refused.
    Disk(io::Error),
}

impl Checkpoint {
    /// Reads a source's checkpoint; none when there is no file.
    pub(crate) fn load(folder: &Path, source: SourceId) -> Result<Option<Self>, Unreadable> {
        match fs::read(path(folder, source)) {
            Ok(bytes) => decode(&bytes).map(Some).map_err(Unreadable::Damaged),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Unreadable::Disk(error)),
        }
    }

    /// Replaces a source's checkpoint; on stable storage when it returns.
    pub(crate) fn save(&self, folder: &Path, source: SourceId) -> io::Result<()> {
        let beside = folder.join(format!("{source}.checkpoint.new"));
        let mut file = fs::File::create(&beside)?;
        file.write_all(&self.encode())?;
        file.sync_all()?;
        fs::rename(&beside, path(folder, source))?;
        // It has its name now: whatever the cause, this is no error after which the old file stands.
        sync_folder(folder).map_err(io::Error::other)
    }

    /// Notes that an index holds, or held, a row at an offset.
    pub(crate) fn note_first(&mut self, index: &str, first: &Positions) {
        let known = self.first.entry(index.to_owned()).or_default();
        for (&partition, &offset) in &first.0 {
            let place = known.0.entry(partition).or_insert(offset);
            *place = (*place).min(offset);
        }
    }

    /// Falls back to before the rows of an index, so that they are written again. An index whose first offsets are not known has
    /// only rows that were not committed.
    pub(crate) fn fall_back(&mut self, index: &str) {
        for (partition, &first) in self.first.get(index).iter().flat_map(|first| &first.0) {
            if let Some(next) = self.next.0.get_mut(partition) {
                *next = (*next).min(first);
            }
        }
    }

    fn encode(&self) -> Vec<u8> {
        let current = Self { version: VERSION, ..self.clone() };
        let mut bytes = serde_json::to_vec(&current).expect("maps of numbers have no failing form");
        let checksum = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(format!("\n{checksum:08x}\n").as_bytes());
        bytes
    }
}

/// Where a source's checkpoint stands.
pub(crate) fn path(folder: &Path, source: SourceId) -> PathBuf {
    folder.join(format!("{source}.checkpoint"))
}

fn decode(bytes: &[u8]) -> Result<Checkpoint, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
    let (json, checksum) = text.trim_end().split_once('\n').ok_or("it has no checksum")?;
    if format!("{:08x}", crc32c::crc32c(json.as_bytes())) != checksum {
        return Err("its checksum does not fit".to_owned());
    }
    let checkpoint: Checkpoint = serde_json::from_str(json).map_err(|error| error.to_string())?;
    if checkpoint.version != VERSION {
        return Err(format!("it has version {} (known: {VERSION})", checkpoint.version));
    }
    Ok(checkpoint)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: SourceId = SourceId("made");

    fn positions(partition: i32, offset: i64) -> Positions {
        Positions([(partition, offset)].into())
    }

    #[test]
    fn a_checkpoint_is_read_as_it_was_saved_and_any_changed_byte_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Checkpoint::load(folder.path(), SOURCE).unwrap().is_none());
        let mut checkpoint = Checkpoint { version: VERSION, next: positions(3, 12), ..Checkpoint::default() };
        checkpoint.note_first("made-2026.11.22", &positions(3, 7));
        checkpoint.save(folder.path(), SOURCE).unwrap();
        assert_eq!(Checkpoint::load(folder.path(), SOURCE).unwrap(), Some(checkpoint));

        let good = fs::read(path(folder.path(), SOURCE)).unwrap();
        for place in 0..good.len() - 1 {
            let mut bad = good.clone();
            bad[place] ^= 1;
            assert!(decode(&bad).is_err(), "byte {place}");
        }
    }

    #[test]
    fn a_fall_back_goes_to_the_first_row_of_the_index_and_never_forward() {
        let mut checkpoint = Checkpoint { next: Positions([(0, 50), (1, 3)].into()), ..Checkpoint::default() };
        checkpoint.note_first("a", &Positions([(0, 20), (2, 9)].into()));
        checkpoint.note_first("a", &Positions([(0, 10), (1, 5)].into()));
        checkpoint.fall_back("unknown");
        assert_eq!(checkpoint.next, Positions([(0, 50), (1, 3)].into()));
        checkpoint.fall_back("a");
        assert_eq!(checkpoint.next, Positions([(0, 10), (1, 3)].into()));
    }
}
