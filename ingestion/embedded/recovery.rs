//! Opening: what the journal holds, and what of it a crash or the disk has damaged.
//!
//! | found | done |
//! | --- | --- |
//! | the last segment ends in a frame that is cut short or does not match its checksum, and no frame behind it proves that it was once on stable storage | cut off and reported: it was never acknowledged. Unless it is plainly a write cut short, a copy goes into quarantine |
//! | a damaged frame that a later one proves | its bytes go into quarantine, the frames around it stay; reads answer the lost offsets |
//! | a segment without a good index | the segment is read through and its index written anew |
//! | the last segment holds no frame at all | removed: it was being created |
//!
//! A cursor that stood in a damaged frame counts as lost only if no later frame sets it: then the collector goes
//! on from the one before, and what it brings again is dropped by id.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use contract::{CollectorId, Cursor, Error, Result};

use crate::disk::{Disk, DiskFile, read_whole, write_whole};
use crate::frame::Ends;
use crate::quarantine::Quarantine;
use crate::segment::{self, HEADER_BYTES, Header, Segment};
use crate::survey::{Damage, Manner, Torn, survey};
use crate::walk::{Piece, Walk};

/// What opening found and did, for the user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The end that was cut off, if any.
    pub cut: Option<Cut>,
    /// Damage in the middle.
    pub damages: Vec<Damage>,
    /// Segments there are.
    pub segments: usize,
    /// Segments that had to be read through, the last one among them.
    pub segments_read: usize,
}

/// An end that was cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The segment file's name.
    pub segment: String,
    /// The first byte cut off, and the length of the file now.
    pub byte: u64,
    /// How many bytes were cut off.
    pub bytes: u64,
    /// Why it was taken for a commit that never ended.
    pub reason: String,
    /// The copy of the bytes, if they were not plainly a write cut short.
    pub quarantine: Option<PathBuf>,
}

impl Recovery {
    /// Whether there is nothing to tell: the log was closed in good order.
    pub fn is_clean(&self) -> bool {
        self.cut.is_none() && self.damages.is_empty()
    }
}

impl fmt::Display for Recovery {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "log opened: {} segments, {} read through", self.segments, self.segments_read)?;
        if let Some(cut) = &self.cut {
            write!(
                out,
                "\ncut the end off segment `{}` at byte {}, {} bytes that were never acknowledged: {}",
                cut.segment, cut.byte, cut.bytes, cut.reason
            )?;
            if let Some(path) = &cut.quarantine {
                write!(out, "; copied to `{}`", path.display())?;
            }
        }
        self.damages.iter().try_for_each(|damage| write!(out, "\ndamaged {damage}"))
    }
}

/// The folders of a log.
#[derive(Clone, Debug)]
pub(crate) struct Folders {
    pub(crate) journal: PathBuf,
    pub(crate) quarantine: PathBuf,
}

/// What is known after opening.
#[derive(Default)]
pub(crate) struct Opened {
    /// Ascending; the last may be appended to.
    pub(crate) segments: Vec<Arc<Segment>>,
    /// Where partitions stand at the end; topics that were never logged are not named.
    pub(crate) ends: Ends,
    pub(crate) cursors: BTreeMap<CollectorId, Cursor>,
    pub(crate) recovery: Recovery,
}

/// Reads what there is; with `may_write` also mends it.
pub(crate) fn recover(
    disk: &dyn Disk,
    folders: &Folders,
    index_interval_bytes: u64,
    may_write: bool,
) -> Result<Opened> {
    let opening = Opening { disk, folders, index_interval_bytes, may_write, opened: Opened::default() };
    opening.run().map_err(|error| match error {
        Failure::Io(path, error) => Error::stop(format!("open log file `{}`", path.display())).because(error),
        Failure::Newer(path, version) => Error::change(format!(
            "open log file `{}` (its format {version} is newer than this program knows)",
            path.display()
        )),
    })
}

enum Failure {
    Io(PathBuf, io::Error),
    Newer(PathBuf, u32),
}

struct Opening<'a> {
    disk: &'a dyn Disk,
    folders: &'a Folders,
    index_interval_bytes: u64,
    may_write: bool,
    opened: Opened,
}

impl Opening<'_> {
    fn run(mut self) -> Result<Opened, Failure> {
        let journal = &self.folders.journal;
        let at = |error| Failure::Io(journal.clone(), error);
        let names = match self.disk.list(journal) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.may_write => Vec::new(),
            names => names.map_err(at)?,
        };
        let mut sequences: Vec<u64> = names.iter().filter_map(|name| segment::sequence_of(name, ".log")).collect();
        sequences.sort_unstable();
        if self.may_write {
            self.remove_leftovers(&names, &sequences).map_err(at)?;
        }
        let last = sequences.pop();
        for &sequence in &sequences {
            let before = self.ends_so_far(sequence);
            let known = self.read_sealed(sequence, before)?;
            self.opened.segments.push(Arc::new(known));
        }
        let mut last = last;
        while let Some(sequence) = last {
            let before = self.ends_so_far(sequence);
            if self.read_last(sequence, before)? {
                break;
            }
            // It was only being created: the one before it is the last, and is read as such.
            last = self.opened.segments.pop().map(|known| known.first_sequence);
        }
        self.opened.recovery.segments = self.opened.segments.len();
        Ok(self.opened)
    }

    /// Where partitions stand after the segments read so far; none if segments before them were removed.
    fn ends_so_far(&self, next_sequence: u64) -> Option<Ends> {
        match self.opened.segments.last() {
            Some(before) => Some(before.ends()),
            None => (next_sequence == 0).then(Ends::default),
        }
    }

    /// Unfinished files, and indexes whose segment was removed.
    fn remove_leftovers(&self, names: &[String], sequences: &[u64]) -> io::Result<()> {
        for name in names {
            let is_orphan = segment::sequence_of(name, ".index").is_some_and(|sequence| !sequences.contains(&sequence));
            if is_orphan || name.ends_with(".tmp") {
                self.disk.remove(&self.folders.journal.join(name))?;
            }
        }
        Ok(())
    }

    /// Reads the last segment through. Answers whether it counts: one without a single frame does not.
    fn read_last(&mut self, sequence: u64, before: Option<Ends>) -> Result<bool, Failure> {
        let path = self.folders.journal.join(segment::log_name(sequence));
        let at = |error| Failure::Io(path.clone(), error);
        let file = self.disk.open_to_read(&path).map_err(at)?;
        let length = file.length().map_err(at)?;
        check_header(&*file, sequence, length, &path)?;
        let mut known = Segment::new(sequence);
        let mut cursors = BTreeMap::new();
        let mut has_snapshot = false;
        let mut ends = before.clone();
        let mut walk = Walk::new(&*file, HEADER_BYTES.min(length), length, sequence);
        let manner = Manner { may_be_torn: true, verify_batches: true };
        let name = segment::log_name(sequence);
        let found = survey(&mut walk, &name, manner, &mut ends, |frame| {
            known.take(frame.position, frame.end - frame.position, &frame.head, self.index_interval_bytes);
            has_snapshot |= frame.head.is_snapshot;
            if frame.head.is_snapshot {
                cursors.clear();
            }
            cursors.extend(frame.head.cursors.iter().cloned());
        })
        .map_err(at)?;
        self.opened.recovery.segments_read += 1;
        if let Some(torn) = found.torn {
            self.cut(&path, &*file, length, torn).map_err(at)?;
        }
        if found.frames == 0 {
            if self.may_write {
                self.disk.remove(&path).map_err(at)?;
                self.disk.sync_folder(&self.folders.journal).map_err(at)?;
            }
            return Ok(false);
        }
        self.keep_damages(&*file, found.damages);
        known.begin_at(before);
        if !has_snapshot {
            let later = std::mem::replace(&mut cursors, self.cursors_before(sequence)?);
            cursors.extend(later);
        }
        self.opened.ends = ends.expect("a frame says where partitions stand");
        // An empty cursor says that it was removed.
        cursors.retain(|_, cursor| !cursor.0.is_empty());
        self.opened.cursors = cursors;
        self.opened.segments.push(Arc::new(known));
        Ok(true)
    }

    fn cut(&mut self, path: &std::path::Path, file: &dyn DiskFile, length: u64, torn: Torn) -> io::Result<()> {
        let segment = path.file_name().and_then(|name| name.to_str()).expect("named by us").to_owned();
        let bytes = length - torn.byte;
        let mut quarantine = None;
        if self.may_write {
            if !torn.is_cut_short {
                let place = (segment.as_str(), torn.byte);
                quarantine = self.quarantine().keep(self.disk, file, place, bytes, &torn.reason);
            }
            let mut file = self.disk.open_to_append(path)?;
            file.truncate(torn.byte)?;
            file.sync()?;
        }
        self.opened.recovery.cut = Some(Cut { segment, byte: torn.byte, bytes, reason: torn.reason, quarantine });
        Ok(())
    }

    /// The index of a segment that is not the last; made from the segment where it cannot be used.
    fn read_sealed(&mut self, sequence: u64, before: Option<Ends>) -> Result<Segment, Failure> {
        let path = self.folders.journal.join(segment::log_name(sequence));
        let at = |error| Failure::Io(path.clone(), error);
        let file = self.disk.open_to_read(&path).map_err(at)?;
        let length = file.length().map_err(at)?;
        let index_name = segment::index_name(sequence);
        let index = read_whole(self.disk, &self.folders.journal.join(&index_name)).unwrap_or_default();
        if let Some(known) = Segment::from_bytes(&index)
            && known.first_sequence == sequence
            && known.length == length
        {
            return Ok(known);
        }
        check_header(&*file, sequence, length, &path)?;
        let mut known = Segment::new(sequence);
        let mut ends = before.clone();
        let mut walk = Walk::new(&*file, HEADER_BYTES.min(length), length, sequence);
        let manner = Manner { may_be_torn: false, verify_batches: true };
        let name = segment::log_name(sequence);
        let found = survey(&mut walk, &name, manner, &mut ends, |frame| {
            known.take(frame.position, frame.end - frame.position, &frame.head, self.index_interval_bytes);
        })
        .map_err(at)?;
        known.begin_at(before);
        known.length = length; // what is damaged at the end belongs to it too
        self.opened.recovery.segments_read += 1;
        self.keep_damages(&*file, found.damages);
        if self.may_write {
            write_whole(self.disk, &self.folders.journal, &index_name, &known.to_bytes()).map_err(at)?;
        }
        Ok(known)
    }

    /// The cursors as of the end of the segments before `sequence`, from the newest snapshot that can be read.
    fn cursors_before(&self, sequence: u64) -> Result<BTreeMap<CollectorId, Cursor>, Failure> {
        let journal = &self.folders.journal;
        let names = self.disk.list(journal).map_err(|error| Failure::Io(journal.clone(), error))?;
        let mut sequences: Vec<u64> = names
            .iter()
            .filter_map(|name| segment::sequence_of(name, ".log"))
            .filter(|&before| before < sequence)
            .collect();
        sequences.sort_unstable();
        let mut newest_first = Vec::new();
        for &before in sequences.iter().rev() {
            let (cursors, is_complete) = self.cursors_of(before)?;
            newest_first.push(cursors);
            if is_complete {
                break;
            }
        }
        Ok(newest_first.into_iter().rev().flatten().collect())
    }

    /// The cursors that a segment sets, and whether they are all there were.
    fn cursors_of(&self, sequence: u64) -> Result<(BTreeMap<CollectorId, Cursor>, bool), Failure> {
        let path = self.folders.journal.join(segment::log_name(sequence));
        let at = |error| Failure::Io(path.clone(), error);
        let file = self.disk.open_to_read(&path).map_err(at)?;
        let length = file.length().map_err(at)?;
        let mut walk = Walk::new(&*file, HEADER_BYTES.min(length), length, sequence);
        let (mut cursors, mut is_complete) = (BTreeMap::new(), false);
        while let Some(piece) = walk.next_piece().map_err(at)? {
            if let Piece::Frame(frame) = piece {
                is_complete |= frame.head.is_snapshot;
                cursors.extend(frame.head.cursors);
            }
        }
        Ok((cursors, is_complete))
    }

    fn keep_damages(&mut self, file: &dyn DiskFile, damages: Vec<Damage>) {
        for mut damage in damages {
            if self.opened.recovery.damages.contains(&damage) {
                continue; // the segment was read before, when it was not taken for the last
            }
            if self.may_write && damage.bytes > 0 {
                let place = (damage.segment.as_str(), damage.byte);
                damage.quarantine = self.quarantine().keep(self.disk, file, place, damage.bytes, &damage.reason);
            }
            self.opened.recovery.damages.push(damage);
        }
    }

    fn quarantine(&self) -> Quarantine {
        Quarantine { folder: self.folders.quarantine.clone() }
    }
}

/// Only a newer format stops the opening: a damaged header takes nothing from the frames behind it.
fn check_header(file: &dyn DiskFile, sequence: u64, length: u64, path: &std::path::Path) -> Result<(), Failure> {
    let mut bytes = vec![0; HEADER_BYTES.min(length) as usize];
    file.read_at(0, &mut bytes).map_err(|error| Failure::Io(path.to_owned(), error))?;
    match segment::read_header(&bytes, sequence) {
        Header::Newer(version) => Err(Failure::Newer(path.to_owned(), version)),
        Header::Good | Header::Damaged => Ok(()),
    }
}
