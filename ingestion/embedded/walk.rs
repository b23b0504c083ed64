//! Walks over the frames of a segment file and finds its way past damage.

use std::fmt;
use std::io;

use bytes::Bytes;

use crate::disk::DiskFile;
use crate::frame::{self, Batch, FIXED_BYTES, Head, MAGIC, ReadHead};
use crate::record_batch;

/// Read at once where heads are looked at: several small frames, or the head of a large one.
const WINDOW_BYTES: u64 = 16 << 10;

/// Read at once where a head is searched behind damage.
const SEARCH_BYTES: u64 = 1 << 20;

/// Bytes of a head that the search behind damage believes in. Heads of appends stay far below (see
/// [`frame::CURSOR_BYTES_MAX`]); without a bound, bodies made to look like heads could make the search take days.
const FOUND_HEAD_BYTES_MAX: u64 = 1 << 20;

/// What stands at a place of a segment.
pub(crate) enum Piece {
    /// A frame whose head is good; its batches are not looked at yet.
    Frame(Frame),
    /// Bytes that belong to no frame with a good head.
    Damage {
        from: u64,
        to: u64,
        /// The number that the first frame lost here had.
        sequence: u64,
        fault: Fault,
    },
}

/// Why no frame can be read at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The file ends before the frame does, as after a write that was cut short.
    EndsEarly,
    Foreign,
    Checksum,
    Older,
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::EndsEarly => "the file ends within a frame",
            Self::Foreign => "no frame begins here",
            Self::Checksum => "the checksum of the frame's head differs",
            Self::Older => "a frame older than the one before stands here",
        })
    }
}

/// A frame at its place.
pub(crate) struct Frame {
    /// Of its first byte in the file.
    pub(crate) position: u64,
    /// Of its batches.
    pub(crate) batches_position: u64,
    /// Of the byte after it.
    pub(crate) end: u64,
    pub(crate) head: Head,
}

impl Frame {
    /// The batches with the place of each in the file.
    pub(crate) fn batches(&self) -> impl Iterator<Item = (u64, &Batch)> {
        self.head.batches.iter().scan(self.batches_position, |next, batch| {
            let position = *next;
            *next += u64::from(batch.bytes);
            Some((position, batch))
        })
    }
}

/// A walk from one place of a segment to its end.
pub(crate) struct Walk<'a> {
    file: &'a dyn DiskFile,
    length: u64,
    position: u64,
    /// The least number that the next frame can have.
    sequence: u64,
    window: (u64, Bytes),
}

impl<'a> Walk<'a> {
    /// Starts at `position`, where a frame begins with number `sequence` or above.
    pub(crate) fn new(file: &'a dyn DiskFile, position: u64, length: u64, sequence: u64) -> Self {
        Self { file, length, position, sequence, window: (0, Bytes::new()) }
    }

    /// The next frame or damage; none at the end of the file.
    pub(crate) fn next_piece(&mut self) -> io::Result<Option<Piece>> {
        if self.position >= self.length {
            return Ok(None);
        }
        let from = self.position;
        let fault = match self.head_at(from, u64::MAX)? {
            Ok(read) => return Ok(Some(Piece::Frame(self.step(from, read)))),
            Err(fault) => fault,
        };
        let sequence = self.sequence;
        self.position = self.search(from + 1)?;
        Ok(Some(Piece::Damage { from, to: self.position, sequence, fault }))
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.position >= self.length
    }

    /// The bytes of a batch; the inner error says how they are damaged.
    pub(crate) fn batch(&mut self, position: u64, batch: &Batch) -> io::Result<Result<Bytes, String>> {
        let bytes = self.bytes(position, u64::from(batch.bytes))?;
        Ok(record_batch::check(&bytes, batch.base_offset, batch.crc).map(|()| bytes))
    }

    /// Whether a frame behind this place proves that frame `sequence` was once on stable storage.
    pub(crate) fn proves_durable(&self, sequence: u64) -> io::Result<bool> {
        let mut ahead = Walk::new(self.file, self.position, self.length, self.sequence);
        while let Some(piece) = ahead.next_piece()? {
            if matches!(&piece, Piece::Frame(frame) if frame.head.durable_below > sequence) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn step(&mut self, position: u64, read: ReadHead) -> Frame {
        let end = position + read.frame_bytes;
        self.position = end;
        self.sequence = read.head.sequence + 1;
        Frame { position, batches_position: position + read.head_bytes, end, head: read.head }
    }

    fn head_at(&mut self, position: u64, head_bytes_max: u64) -> io::Result<Result<ReadHead, Fault>> {
        let left = self.length - position;
        if left < FIXED_BYTES as u64 {
            return Ok(Err(Fault::EndsEarly));
        }
        let fixed = self.bytes(position, FIXED_BYTES as u64)?;
        let Some((head_bytes, batches_bytes)) = frame::sizes(&fixed) else {
            return Ok(Err(Fault::Foreign));
        };
        if head_bytes > left.min(head_bytes_max) {
            return Ok(Err(Fault::EndsEarly));
        }
        let head = self.bytes(position, head_bytes)?;
        Ok(match frame::read_head(&head) {
            Some(read) if read.head.sequence < self.sequence => Err(Fault::Older),
            Some(_) if head_bytes + batches_bytes > left => Err(Fault::EndsEarly),
            Some(read) => Ok(read),
            None => Err(Fault::Checksum),
        })
    }

    /// The place of the next good head at or after `from`, or the end of the file.
    fn search(&mut self, from: u64) -> io::Result<u64> {
        let overlap = MAGIC.len() as u64 - 1;
        let mut start = from;
        while start + overlap < self.length {
            let chunk = self.read(start, SEARCH_BYTES.min(self.length - start))?;
            let mut at = 0;
            while let Some(found) = chunk[at..].windows(MAGIC.len()).position(|bytes| bytes == MAGIC) {
                let position = start + (at + found) as u64;
                if self.head_at(position, FOUND_HEAD_BYTES_MAX)?.is_ok() {
                    return Ok(position);
                }
                at += found + 1;
            }
            start += chunk.len() as u64 - overlap;
        }
        Ok(self.length)
    }

    fn bytes(&mut self, position: u64, count: u64) -> io::Result<Bytes> {
        let (start, window) = &self.window;
        let is_inside = position >= *start && position + count <= *start + window.len() as u64;
        if !is_inside {
            let window_bytes = count.max(WINDOW_BYTES).min(self.length - position);
            self.window = (position, self.read(position, window_bytes)?);
        }
        let skipped = (position - self.window.0) as usize;
        Ok(self.window.1.slice(skipped..skipped + count as usize))
    }

    fn read(&self, position: u64, count: u64) -> io::Result<Bytes> {
        let mut buffer = vec![0; usize::try_from(count).map_err(io::Error::other)?];
        self.file.read_at(position, &mut buffer)?;
        Ok(buffer.into())
    }
}
