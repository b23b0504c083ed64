//! Reading records from any offset.
//!
//! The journal is walked in its own order, so partitions are served as they were filled, the one that lags
//! behind first. Heads are looked at, and only batches that hold wanted offsets are read, each with one
//! `pread`, and unpacked, each once.

use std::io;

use bytes::Bytes;
use contract::{Batch, Error, LogRecord, Lost, Offset, OffsetRange, Partition, Positions, Result, Topic};

use crate::disk::DiskFile;
use crate::frame;
use crate::quarantine::Quarantine;
use crate::record_batch;
use crate::segment;
use crate::shared::{Place, Shared};
use crate::walk::{Frame, Piece, Walk};

/// What a record counts beside its body and id, so that very small ones are bounded too.
const RECORD_BYTES: usize = 64;

/// Refuses what is not there: topics, partitions, and offsets that retention removed.
pub(crate) fn check_asked(shared: &Shared, topic: &Topic, from: &Positions) -> Result<()> {
    let state = shared.state();
    let Some(ends) = state.ends.0.get(topic) else {
        let known: Vec<&str> = state.ends.0.keys().map(|topic| topic.0.as_str()).collect();
        return Err(Error::change(format!("read topic `{topic}` (known: {})", known.join(", "))));
    };
    for (&partition, &offset) in &from.0 {
        if !(0..ends.len() as Partition).contains(&partition) {
            return Err(Error::change(format!("read partition {partition} of `{topic}` (it has {})", ends.len())));
        }
        let start = state.start(topic, partition);
        if offset < start {
            return Err(Error::stop(format!(
                "read `{topic}` partition {partition} at offset {offset}: retention removed it, the first one left is {start}"
            )));
        }
    }
    Ok(())
}

/// Whether there is anything, or was before damage, at or after `from`.
pub(crate) fn has_more(shared: &Shared, topic: &Topic, from: &Positions) -> bool {
    let state = shared.state();
    from.0.iter().any(|(&partition, &offset)| offset < state.ends.of(topic, partition))
}

/// Reads at least one record if there is one, else what was lost.
pub(crate) fn read(shared: &Shared, topic: &Topic, from: &Positions, body_bytes_max: usize) -> Result<Batch> {
    let batch = Batch { next: from.clone(), ..Batch::default() };
    let mut reading = Reading { shared, topic, batch, room: body_bytes_max, gap_reason: None };
    let mut after = None;
    loop {
        let place = {
            let state = shared.state();
            let place = state.place_of(topic, &reading.batch.next, after);
            let is_last = place.as_ref().is_none_or(|place| place.is_active);
            let ends: Positions = Positions(from.0.keys().map(|&p| (p, state.ends.of(topic, p))).collect());
            place.map(|place| (place, is_last.then(|| ends.clone()))).ok_or(ends)
        };
        let (place, ends_if_last) = match place {
            Ok(found) => found,
            Err(ends) => {
                reading.pass_to(&ends);
                return Ok(reading.batch);
            }
        };
        let is_filled = match reading.read_segment(&place) {
            Ok(is_filled) => is_filled,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Retention removed the segment since it was looked up: the start has moved, and says so.
                check_asked(shared, topic, from)?;
                return Err(segment_error(&place, error));
            }
            Err(error) => return Err(segment_error(&place, error)),
        };
        if is_filled {
            return Ok(reading.batch);
        }
        if let Some(ends) = ends_if_last {
            reading.pass_to(&ends);
            return Ok(reading.batch);
        }
        after = Some(place.first_sequence);
    }
}

fn segment_error(place: &Place, error: io::Error) -> Error {
    Error::stop(format!("read log segment `{}`", segment::log_name(place.first_sequence))).because(error)
}

struct Reading<'a> {
    shared: &'a Shared,
    topic: &'a Topic,
    batch: Batch,
    room: usize,
    /// What is to be said about offsets that are missing.
    gap_reason: Option<String>,
}

impl Reading<'_> {
    /// Reads to the end of a segment, or until there is no more room: then it answers true.
    fn read_segment(&mut self, place: &Place) -> io::Result<bool> {
        let path = self.shared.folders.journal.join(segment::log_name(place.first_sequence));
        let file = self.shared.disk.open_to_read(&path)?;
        let mut walk = Walk::new(&*file, place.position, place.length, place.first_sequence);
        while !self.batch.next.reaches(&place.segment_ends) {
            match walk.next_piece()? {
                None => break,
                Some(Piece::Damage { from, to, fault, .. }) => {
                    self.keep(&*file, place, (from, to - from), &fault.to_string());
                }
                Some(Piece::Frame(frame)) => {
                    self.pass_to_frame(&frame);
                    if self.read_frame(&*file, place, &mut walk, &frame)? {
                        return Ok(true);
                    }
                }
            }
        }
        Ok(false)
    }

    fn read_frame(
        &mut self,
        file: &dyn DiskFile,
        place: &Place,
        walk: &mut Walk<'_>,
        frame: &Frame,
    ) -> io::Result<bool> {
        for (position, batch) in frame.batches() {
            let is_wanted = batch.topic == *self.topic
                && self.batch.next.0.get(&batch.partition).is_some_and(|&next| next < batch.end());
            if !is_wanted {
                continue;
            }
            let read = walk.batch(position, batch)?;
            match read.and_then(|bytes| self.take_records(&bytes, batch)) {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(reason) => {
                    self.keep(file, place, (position, batch.bytes.into()), &reason);
                    self.pass(batch.partition, batch.end());
                }
            }
        }
        Ok(false)
    }

    /// Takes the records that are wanted; answers true when there is no more room.
    fn take_records(&mut self, bytes: &Bytes, batch: &frame::Batch) -> Result<bool, String> {
        for record in record_batch::decode(bytes, batch.section_bytes as usize, batch.partition)? {
            let record: LogRecord = record?;
            if record.offset < self.batch.next.of(batch.partition) {
                continue;
            }
            let size = record.record.body.len() + record.record.id.as_str().len() + RECORD_BYTES;
            if size > self.room && !self.batch.records.is_empty() {
                return Ok(true);
            }
            self.room = self.room.saturating_sub(size);
            self.batch.next.advance(batch.partition, record.offset + 1);
            self.batch.records.push(record);
        }
        self.batch.next.advance(batch.partition, batch.end());
        Ok(self.room == 0)
    }

    fn pass_to_frame(&mut self, frame: &Frame) {
        let partitions: Vec<Partition> = self.batch.next.0.keys().copied().collect();
        for partition in partitions {
            self.pass(partition, frame.head.before.of(self.topic, partition));
        }
    }

    fn pass_to(&mut self, ends: &Positions) {
        ends.0.iter().for_each(|(&partition, &end)| self.pass(partition, end));
    }

    /// Goes on at `to`; what lies before it can no longer be read.
    fn pass(&mut self, partition: Partition, to: Offset) {
        let from = self.batch.next.of(partition);
        if from < to {
            let unknown = || "the frames that held it are missing".to_owned();
            let reason = self.gap_reason.clone().unwrap_or_else(unknown);
            self.batch.lost.push(Lost { range: OffsetRange { partition, from, to }, reason });
            self.batch.next.advance(partition, to);
        }
    }

    fn keep(&mut self, file: &dyn DiskFile, place: &Place, (byte, bytes): (u64, u64), reason: &str) {
        let segment = segment::log_name(place.first_sequence);
        let quarantine = Quarantine { folder: self.shared.folders.quarantine.clone() };
        let what = format!("segment `{segment}`, byte {byte}: {reason}");
        if !self.shared.may_write {
            self.gap_reason = Some(what);
            return;
        }
        let copy = quarantine.keep(&*self.shared.disk, file, (&segment, byte), bytes, reason);
        self.gap_reason = Some(copy.map_or(what.clone(), |copy| format!("{what}; copied to `{}`", copy.display())));
    }
}
