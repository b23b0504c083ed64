//! A frame of the journal: what one append added to all partitions, and its cursor.
//!
//! ```text
//! magic 4 | checksum 4 | head bytes 4 | batches bytes 4 | sequence 8 | durable below 8 | appended at 8 | flags 4
//! | topics: name, next offset per partition before this frame
//! | batches: topic, partition, records, bytes, bytes unpacked, Kafka's checksum
//! | cursors: collector, cursor
//! | the batches, each a Kafka RecordBatch v2
//! ```
//!
//! The checksum is the CRC32C of the head behind it. The head holds the checksum of every batch, so it
//! covers all; and since those were computed while encoding, what is left to do at the commit is small.

use std::collections::BTreeMap;

use contract::{CollectorId, Cursor, Offset, Partition, Timestamp, Topic};

use crate::wire::{Fields, put_count, put_i64, put_text, put_u64};

/// The first bytes of a frame.
pub(crate) const MAGIC: [u8; 4] = [0xdb, 0x46, 0x52, 0x31];

/// Bytes of a frame's head without its lists.
pub(crate) const FIXED_BYTES: usize = 44;

/// Bytes of one harvest, unpacked, that an append takes. A harvest is meant to hold about 8 MiB; one of many
/// records at the limit of a body stays below this, and a frame still fits in memory twice.
pub(crate) const FRAME_BYTES_MAX: usize = 256 << 20;

/// Bytes of a cursor and its collector's name together. Cursors are a few hundred bytes; all of them are written at the
/// start of each segment, so they must stay small.
pub(crate) const CURSOR_BYTES_MAX: usize = 512 << 10;

const FLAG_SNAPSHOT: u32 = 1;

/// The next offset of every partition of every topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ends(pub(crate) BTreeMap<Topic, Vec<Offset>>);

impl Ends {
    /// The next offset; 0 for what is not known yet.
    pub(crate) fn of(&self, topic: &Topic, partition: Partition) -> Offset {
        let partitions = self.0.get(topic).map_or(&[][..], Vec::as_slice);
        usize::try_from(partition).ok().and_then(|place| partitions.get(place)).copied().unwrap_or(0)
    }

    /// Moves a partition to `next`. The topic and partition must be known.
    pub(crate) fn set(&mut self, topic: &Topic, partition: Partition, next: Offset) {
        let partitions = self.0.get_mut(topic).expect("the topic is known");
        partitions[partition as usize] = next;
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Topic, Partition, Offset)> {
        self.0.iter().flat_map(|(topic, nexts)| (0..).zip(nexts).map(move |(p, &next)| (topic, p, next)))
    }
}

/// A frame without the bytes of its batches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// Its number in the journal.
    pub(crate) sequence: u64,
    /// All frames below this number were on stable storage when this one was written. What is not below
    /// any such number may be the remains of a commit that never ended.
    pub(crate) durable_below: u64,
    pub(crate) appended_at: Timestamp,
    /// Whether `cursors` are all there are: so at the start of each segment.
    pub(crate) is_snapshot: bool,
    /// Where each partition stood before this frame, so that a reader who comes from a damaged place knows
    /// exactly which offsets the damage took.
    pub(crate) before: Ends,
    /// One at the most per partition.
    pub(crate) batches: Vec<Batch>,
    pub(crate) cursors: Vec<(CollectorId, Cursor)>,
}

/// Where a batch lies in its frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) topic: Topic,
    pub(crate) partition: Partition,
    pub(crate) base_offset: Offset,
    pub(crate) records: u32,
    pub(crate) bytes: u32,
    pub(crate) section_bytes: u32,
    pub(crate) crc: u32,
}

impl Batch {
    /// The offset after its last record.
    pub(crate) fn end(&self) -> Offset {
        self.base_offset + Offset::from(self.records)
    }
}

/// A head as it was read.
pub(crate) struct ReadHead {
    pub(crate) head: Head,
    /// Bytes from the start of the frame to its batches.
    pub(crate) head_bytes: u64,
    /// Bytes of the whole frame.
    pub(crate) frame_bytes: u64,
}

impl Head {
    /// Where each partition stands after this frame.
    pub(crate) fn after(&self) -> Ends {
        let mut ends = self.before.clone();
        for batch in &self.batches {
            ends.set(&batch.topic, batch.partition, batch.end());
        }
        ends
    }

    /// The head's bytes; the batches follow them in the order of `batches`.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[0; 8]); // checksum and head bytes, known at the end
        put_count(&mut out, self.batches.iter().map(|batch| batch.bytes as usize).sum());
        put_u64(&mut out, self.sequence);
        put_u64(&mut out, self.durable_below);
        put_i64(&mut out, self.appended_at.0);
        out.extend_from_slice(&(if self.is_snapshot { FLAG_SNAPSHOT } else { 0 }).to_le_bytes());
        assert_eq!(out.len(), FIXED_BYTES, "the fixed part of a head has a fixed size");
        put_count(&mut out, self.before.0.len());
        for (topic, nexts) in &self.before.0 {
            put_text(&mut out, &topic.0);
            put_count(&mut out, nexts.len());
            nexts.iter().for_each(|&next| put_i64(&mut out, next));
        }
        put_count(&mut out, self.batches.len());
        for batch in &self.batches {
            let place = self.before.0.keys().position(|topic| *topic == batch.topic).expect("the topic is known");
            put_count(&mut out, place);
            put_count(&mut out, batch.partition as usize);
            for number in [batch.records, batch.bytes, batch.section_bytes, batch.crc] {
                out.extend_from_slice(&number.to_le_bytes());
            }
        }
        put_count(&mut out, self.cursors.len());
        for (collector, cursor) in &self.cursors {
            put_text(&mut out, &collector.0);
            put_text(&mut out, &cursor.0);
        }
        let head_bytes = u32::try_from(out.len()).expect("bounded by the size of a frame");
        out[8..12].copy_from_slice(&head_bytes.to_le_bytes());
        let crc = crc32c::crc32c(&out[8..]);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        out
    }
}

/// The bytes of the head and of the batches, as the fixed part says without a check; none if it is no frame's.
pub(crate) fn sizes(fixed: &[u8]) -> Option<(u64, u64)> {
    if fixed.len() < FIXED_BYTES || fixed[..4] != MAGIC {
        return None;
    }
    let mut fields = Fields(&fixed[8..16]);
    let (head_bytes, batches_bytes) = (fields.u32()?, fields.u32()?);
    (head_bytes as usize >= FIXED_BYTES).then_some((head_bytes.into(), batches_bytes.into()))
}

/// Reads a whole head; none if it is not, byte for byte, one that was written.
pub(crate) fn read_head(bytes: &[u8]) -> Option<ReadHead> {
    let (head_bytes, batches_bytes) = sizes(bytes)?;
    let mut fields = Fields(&bytes[4..]);
    if bytes.len() as u64 != head_bytes || fields.u32()? != crc32c::crc32c(&bytes[8..]) {
        return None;
    }
    fields.bytes(8)?;
    let (sequence, durable_below) = (fields.u64()?, fields.u64()?);
    let appended_at = Timestamp(fields.i64()?);
    let is_snapshot = fields.u32()? & FLAG_SNAPSHOT != 0;
    let before = read_ends(&mut fields)?;
    let batches = read_batches(&mut fields, &before)?;
    let mut cursors = Vec::new();
    for _ in 0..fields.count(8)? {
        cursors.push((CollectorId(fields.text()?.to_owned()), Cursor(fields.text()?.to_owned())));
    }
    let fits = batches.iter().map(|batch| u64::from(batch.bytes)).sum::<u64>() == batches_bytes;
    let head = Head { sequence, durable_below, appended_at, is_snapshot, before, batches, cursors };
    (fits && fields.is_empty()).then_some(ReadHead { head, head_bytes, frame_bytes: head_bytes + batches_bytes })
}

fn read_ends(fields: &mut Fields<'_>) -> Option<Ends> {
    let mut ends = Ends::default();
    for _ in 0..fields.count(8)? {
        let topic = Topic(fields.text()?.to_owned());
        let mut nexts = Vec::new();
        for _ in 0..fields.count(8)? {
            nexts.push(fields.i64()?);
        }
        ends.0.insert(topic, nexts);
    }
    Some(ends)
}

fn read_batches(fields: &mut Fields<'_>, before: &Ends) -> Option<Vec<Batch>> {
    let mut batches = Vec::new();
    for _ in 0..fields.count(24)? {
        let (topic, nexts) = before.0.iter().nth(fields.u32()? as usize)?;
        let partition = fields.u32()?;
        let base_offset = *nexts.get(partition as usize)?;
        batches.push(Batch {
            topic: topic.clone(),
            partition: Partition::try_from(partition).ok()?,
            base_offset,
            records: fields.u32()?,
            bytes: fields.u32()?,
            section_bytes: fields.u32()?,
            crc: fields.u32()?,
        });
    }
    Some(batches)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> Head {
        let before = Ends([(Topic("a.raw".into()), vec![3, 0]), (Topic("b.raw".into()), vec![9])].into());
        let batch = Batch {
            topic: Topic("b.raw".into()),
            partition: 0,
            base_offset: 9,
            records: 4,
            bytes: 100,
            section_bytes: 300,
            crc: 7,
        };
        Head {
            sequence: 12,
            durable_below: 11,
            appended_at: Timestamp(-5),
            is_snapshot: true,
            before,
            batches: vec![batch],
            cursors: vec![(CollectorId("a/x".into()), Cursor("{}".into()))],
        }
    }

    #[test]
    fn a_head_comes_back_and_says_where_partitions_stand_after_it() {
        let bytes = head().to_bytes();
        let read = read_head(&bytes).unwrap();
        assert_eq!(read.head, head());
        assert_eq!((read.head_bytes, read.frame_bytes), (bytes.len() as u64, bytes.len() as u64 + 100));
        assert_eq!(read.head.after().of(&Topic("b.raw".into()), 0), 13);
        assert_eq!(read.head.after().of(&Topic("a.raw".into()), 0), 3);
    }

    #[test]
    fn every_flipped_or_missing_byte_of_a_head_is_noticed() {
        let bytes = head().to_bytes();
        for place in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[place] ^= 1;
            assert!(read_head(&damaged).is_none(), "byte {place}");
            assert!(read_head(&bytes[..place]).is_none(), "cut at {place}");
        }
    }
}
