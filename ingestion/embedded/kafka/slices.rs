//! What Fetch and ListOffsets read: batches as they stand in the segment files, and the times of appends.

use std::io;

use bytes::{Bytes, BytesMut};
use contract::{Error, Offset, Partition, Positions, Result, Topic};

use crate::frame;
use crate::segment;
use crate::shared::{Place, Shared};
use crate::walk::{Frame, Piece, Walk};

/// A batch and the milliseconds since 1970 of its append, which count for all of its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Appended {
    pub(crate) offset: Offset,
    pub(crate) milliseconds: i64,
}

/// Whole batches of a partition from the one that holds `from` on: one if there is one, then as many as fit into
/// `bytes_max`. Readers skip what stands before `from` in the first. Damaged batches are passed over; the pipeline's
/// reader puts them aside and says so.
pub(crate) fn batches(
    shared: &Shared,
    (topic, partition): (&Topic, Partition),
    from: Offset,
    bytes_max: usize,
) -> Result<Bytes> {
    let mut out = BytesMut::new();
    let mut next = from;
    walk_batches(shared, (topic, partition), from, |walk, position, _, batch| {
        if batch.end() <= next {
            return Ok(true);
        }
        if !out.is_empty() && out.len() + batch.bytes as usize > bytes_max {
            return Ok(false);
        }
        if let Ok(bytes) = walk.batch(position, batch)? {
            out.extend_from_slice(&bytes);
        }
        next = batch.end();
        Ok(out.len() < bytes_max)
    })?;
    Ok(out.freeze())
}

/// The first record that was appended at or after a point in time; none if there is none.
pub(crate) fn first_since(
    shared: &Shared,
    (topic, partition): (&Topic, Partition),
    milliseconds: i64,
) -> Result<Option<Appended>> {
    let from = {
        let state = shared.state();
        // Segments that ended before that time need not be read.
        let earlier = state.sealed.iter().take_while(|s| s.appended_until.0.div_euclid(1_000) < milliseconds).last();
        let start = state.start(topic, partition);
        earlier.and_then(|s| s.partition(topic, partition)).map_or(start, |known| known.end.max(start))
    };
    let mut found = None;
    walk_batches(shared, (topic, partition), from, |_, _, frame, batch| {
        let appended = frame.head.appended_at.0.div_euclid(1_000);
        if appended >= milliseconds && batch.end() > from {
            found = Some(Appended { offset: batch.base_offset, milliseconds: appended });
        }
        Ok(found.is_none())
    })?;
    Ok(found)
}

/// The last record that is still there, and when it was appended.
pub(crate) fn last(shared: &Shared, (topic, partition): (&Topic, Partition), end: Offset) -> Result<Option<Appended>> {
    let mut found = None;
    walk_batches(shared, (topic, partition), end - 1, |_, _, frame, batch| {
        let milliseconds = frame.head.appended_at.0.div_euclid(1_000);
        found = Some(Appended { offset: batch.end() - 1, milliseconds });
        Ok(true)
    })?;
    Ok(found)
}

/// Visits the batches of a partition, from one at or before `from` on, until `visit` answers false.
fn walk_batches(
    shared: &Shared,
    (topic, partition): (&Topic, Partition),
    from: Offset,
    mut visit: impl FnMut(&mut Walk<'_>, u64, &Frame, &frame::Batch) -> io::Result<bool>,
) -> Result<()> {
    let wanted = Positions([(partition, from)].into());
    let mut after = None;
    loop {
        let Some(place) = shared.state().place_of(topic, &wanted, after) else { return Ok(()) };
        match walk_segment(shared, (topic, partition), &place, &mut visit) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            // Retention removed it meanwhile; the client asks again and hears where the partition starts now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => {
                let name = segment::log_name(place.first_sequence);
                return Err(Error::stop(format!("read log segment `{name}`")).because(error));
            }
        }
        after = Some(place.first_sequence);
    }
}

fn walk_segment(
    shared: &Shared,
    (topic, partition): (&Topic, Partition),
    place: &Place,
    visit: &mut impl FnMut(&mut Walk<'_>, u64, &Frame, &frame::Batch) -> io::Result<bool>,
) -> io::Result<bool> {
    let path = shared.folders.journal.join(segment::log_name(place.first_sequence));
    let file = shared.disk.open_to_read(&path)?;
    let mut walk = Walk::new(&*file, place.position, place.length, place.first_sequence);
    while let Some(piece) = walk.next_piece()? {
        let Piece::Frame(frame) = piece else { continue };
        for (position, batch) in frame.batches() {
            let is_wanted = batch.partition == partition && batch.topic == *topic;
            if is_wanted && !visit(&mut walk, position, &frame, batch)? {
                return Ok(false);
            }
        }
    }
    Ok(true)
}
