//! What readers and the writer share: the state of the journal as it stands on stable storage.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, RwLock, RwLockReadGuard, RwLockWriteGuard};

use contract::{CollectorId, Cursor, Error, Extent, Offset, Partition, PartitionExtent, Positions, Result, Topic};
use tokio::sync::watch;

use crate::disk::Disk;
use crate::frame::Ends;
use crate::recovery::Folders;
use crate::segment::{HEADER_BYTES, Segment};

pub(crate) struct Shared {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) folders: Folders,
    /// Whether this process may change the folders.
    pub(crate) may_write: bool,
    /// Changes with every commit, and when the log breaks.
    pub(crate) changed: watch::Sender<u64>,
    state: RwLock<State>,
    broken: OnceLock<String>,
}

/// Only what is on stable storage.
pub(crate) struct State {
    /// Ascending and without a hole, the active one excluded.
    pub(crate) sealed: Vec<Arc<Segment>>,
    pub(crate) active: Segment,
    pub(crate) ends: Ends,
    pub(crate) cursors: BTreeMap<CollectorId, Cursor>,
}

/// Where a read goes on.
pub(crate) struct Place {
    pub(crate) first_sequence: u64,
    /// The first frame to look at.
    pub(crate) position: u64,
    /// The end of what is on stable storage of the segment.
    pub(crate) length: u64,
    /// Where the partitions asked for stand after the segment.
    pub(crate) segment_ends: Positions,
    pub(crate) is_active: bool,
}

impl Shared {
    pub(crate) fn new(disk: Arc<dyn Disk>, folders: Folders, may_write: bool, state: State) -> Self {
        Self {
            disk,
            folders,
            may_write,
            changed: watch::Sender::new(0),
            state: RwLock::new(state),
            broken: OnceLock::new(),
        }
    }

    pub(crate) fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().expect("nothing panics under this lock")
    }

    pub(crate) fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().expect("nothing panics under this lock")
    }

    /// After a failed write or fsync nobody knows what the disk holds: nothing is answered any more.
    pub(crate) fn break_down(&self, reason: &str) {
        if self.broken.set(reason.to_owned()).is_ok() {
            tracing::error!(reason, "the log is broken and takes and answers nothing until it is opened again");
        }
        self.changed.send_modify(|version| *version += 1);
    }

    /// Why nothing can be done any more, if so.
    pub(crate) fn broken(&self) -> Option<String> {
        self.broken.get().map(|reason| format!("the log broke earlier: {reason}"))
    }

    pub(crate) fn check_healthy(&self, doing: &str) -> Result<()> {
        self.broken().map_or(Ok(()), |reason| Err(Error::stop(format!("{doing}: {reason}"))))
    }
}

impl State {
    /// Takes note of cursors; an empty one, where its collector has not begun, takes no place.
    pub(crate) fn take_cursors(&mut self, cursors: Vec<(CollectorId, Cursor)>) {
        for (collector, cursor) in cursors {
            if cursor.0.is_empty() {
                self.cursors.remove(&collector);
            } else {
                self.cursors.insert(collector, cursor);
            }
        }
    }

    /// All segments, ascending.
    pub(crate) fn segments(&self) -> impl Iterator<Item = &Segment> {
        self.sealed.iter().map(Arc::as_ref).chain([&self.active])
    }

    /// Bytes of all segments.
    pub(crate) fn bytes(&self) -> u64 {
        self.segments().map(|segment| segment.length).sum()
    }

    /// The first offset of a partition that is still there.
    pub(crate) fn start(&self, topic: &Topic, partition: Partition) -> Offset {
        let first = self.segments().next().expect("there is always an active segment");
        first.partition(topic, partition).map_or(0, |known| known.start)
    }

    /// The first segment after `after` that holds something at or after `next` of the partitions it names.
    pub(crate) fn place_of(&self, topic: &Topic, next: &Positions, after: Option<u64>) -> Option<Place> {
        let first = after.map_or(0, |after| self.sealed.partition_point(|s| s.first_sequence <= after));
        let later = self.sealed[first..].iter().map(Arc::as_ref).chain([&self.active]);
        for segment in later.filter(|segment| after.is_none_or(|after| segment.first_sequence > after)) {
            let mut segment_ends = Positions::default();
            let mut position = None;
            for (&partition, &offset) in &next.0 {
                let end = segment.partition(topic, partition).map_or(0, |known| known.end);
                segment_ends.0.insert(partition, end);
                if offset < end {
                    let found = segment.locate(topic, partition, offset);
                    position = Some(position.map_or(found, |known: u64| known.min(found)));
                }
            }
            if let Some(position) = position {
                return Some(Place {
                    first_sequence: segment.first_sequence,
                    position: position.max(HEADER_BYTES),
                    length: segment.length,
                    segment_ends,
                    is_active: segment.first_sequence == self.active.first_sequence,
                });
            }
        }
        None
    }

    /// How far each partition reaches.
    pub(crate) fn extents(&self) -> BTreeMap<Topic, Extent> {
        let mut extents: BTreeMap<Topic, Extent> = BTreeMap::new();
        for (topic, partition, end) in self.ends.iter() {
            let extent = PartitionExtent { start: self.start(topic, partition), end, bytes: 0 };
            extents.entry(topic.clone()).or_default().partitions.push(extent);
        }
        for segment in self.segments() {
            for (topic, partitions) in &segment.partitions {
                let Some(extent) = extents.get_mut(topic) else { continue };
                for (extent, known) in extent.partitions.iter_mut().zip(partitions) {
                    extent.bytes += known.bytes;
                }
            }
        }
        extents
    }
}
