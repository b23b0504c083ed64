//! What is known in memory about a segment file, and the index file that keeps it.

use std::collections::BTreeMap;

use contract::{Offset, Partition, Timestamp, Topic};

use crate::frame::{Ends, Head};
use crate::wire::{Fields, put_count, put_i64, put_text, put_u64};

/// Bytes of a segment file before its first frame.
pub(crate) const HEADER_BYTES: u64 = 24;
const MAGIC: &[u8; 8] = b"DBJRNL\r\n";
const INDEX_MAGIC: &[u8; 8] = b"DBINDX\r\n";
/// The version of both files. An older one is read for ever; a newer one is refused.
const VERSION: u32 = 1;

/// The name of a segment's file without its extension: the number of its first frame.
pub(crate) fn name(first_sequence: u64) -> String {
    format!("{first_sequence:020}")
}

/// The name of a segment's journal file.
pub(crate) fn log_name(first_sequence: u64) -> String {
    format!("{}.log", name(first_sequence))
}

/// The name of a segment's index file.
pub(crate) fn index_name(first_sequence: u64) -> String {
    format!("{}.index", name(first_sequence))
}

/// The segment that a file of the journal belongs to, if it has that extension.
pub(crate) fn sequence_of(file_name: &str, extension: &str) -> Option<u64> {
    let digits = file_name.strip_suffix(extension)?;
    (digits.len() == 20).then(|| digits.parse().ok())?
}

/// The first bytes of a segment file.
pub(crate) fn header(first_sequence: u64) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    put_u64(&mut bytes, first_sequence);
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

/// What the first bytes of a segment file say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Header {
    Good,
    /// Written by a newer Data Broker.
    Newer(u32),
    Damaged,
}

/// Reads the first bytes of a segment file.
pub(crate) fn read_header(bytes: &[u8], first_sequence: u64) -> Header {
    if bytes == header(first_sequence) {
        return Header::Good;
    }
    let is_whole = bytes.len() == HEADER_BYTES as usize
        && bytes[..8] == MAGIC[..]
        && bytes[20..] == crc32c::crc32c(&bytes[..20]).to_le_bytes();
    let version = Fields(bytes.get(8..).unwrap_or_default()).u32().unwrap_or(0);
    if is_whole && version > VERSION { Header::Newer(version) } else { Header::Damaged }
}

/// A segment: which frames, which offsets, and where to start reading for an offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) first_sequence: u64,
    /// The number of the frame after the last.
    pub(crate) next_sequence: u64,
    /// Bytes up to the end of the last frame.
    pub(crate) length: u64,
    /// Bytes of the header and the first frame, which every segment has, however empty.
    pub(crate) base_length: u64,
    /// Whether its first frame was seen, which says where every partition stood before.
    pub(crate) is_start_known: bool,
    /// When its last frame was appended.
    pub(crate) appended_until: Timestamp,
    pub(crate) partitions: BTreeMap<Topic, Vec<PartitionIndex>>,
}

/// What a segment holds of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PartitionIndex {
    /// The partition's next offset before the segment.
    pub(crate) start: Offset,
    /// The partition's next offset after the segment.
    pub(crate) end: Offset,
    /// Bytes of batches.
    pub(crate) bytes: u64,
    /// First offsets of some batches, and the place of their frames in the file; both ascend.
    pub(crate) entries: Vec<(Offset, u64)>,
}

impl Segment {
    pub(crate) fn new(first_sequence: u64) -> Self {
        Self {
            first_sequence,
            next_sequence: first_sequence,
            length: HEADER_BYTES,
            base_length: HEADER_BYTES,
            is_start_known: false,
            appended_until: Timestamp(i64::MIN),
            partitions: BTreeMap::new(),
        }
    }

    /// Takes note of a frame that stands at `position`.
    pub(crate) fn take(&mut self, position: u64, frame_bytes: u64, head: &Head, index_interval_bytes: u64) {
        for (topic, partition, next) in head.before.iter() {
            let partitions = self.partitions.entry(topic.clone()).or_default();
            if partitions.len() <= partition as usize {
                partitions.push(PartitionIndex { start: next, end: next, ..PartitionIndex::default() });
            }
            let known = &mut partitions[partition as usize];
            known.end = known.end.max(next);
        }
        for batch in &head.batches {
            let known =
                &mut self.partitions.get_mut(&batch.topic).expect("named by the head")[batch.partition as usize];
            let is_due = known.entries.last().is_none_or(|&(_, last)| position - last >= index_interval_bytes);
            if is_due {
                known.entries.push((batch.base_offset, position));
            }
            known.end = batch.end();
            known.bytes += u64::from(batch.bytes);
        }
        if self.next_sequence == self.first_sequence {
            self.base_length = position + frame_bytes;
            self.is_start_known = head.sequence == self.first_sequence;
        }
        self.next_sequence = head.sequence + 1;
        self.length = position + frame_bytes;
        self.appended_until = self.appended_until.max(head.appended_at);
    }

    /// Sets where partitions stood before a segment whose first frame is damaged. If nothing is known (`before` is
    /// none) they stood at 0, so that all below the first good frame counts as lost rather than as removed.
    pub(crate) fn begin_at(&mut self, before: Option<Ends>) {
        if self.is_start_known {
            return;
        }
        let before = before.unwrap_or_default();
        for (topic, partitions) in &mut self.partitions {
            (0..).zip(partitions).for_each(|(partition, known)| known.start = before.of(topic, partition));
        }
        self.is_start_known = true;
    }

    /// Where partitions stand after it.
    pub(crate) fn ends(&self) -> Ends {
        let ends = |partitions: &Vec<PartitionIndex>| partitions.iter().map(|known| known.end).collect();
        Ends(self.partitions.iter().map(|(topic, partitions)| (topic.clone(), ends(partitions))).collect())
    }

    pub(crate) fn partition(&self, topic: &Topic, partition: Partition) -> Option<&PartitionIndex> {
        self.partitions.get(topic)?.get(usize::try_from(partition).ok()?)
    }

    /// Where to start reading for an offset: no frame before this place holds it.
    pub(crate) fn locate(&self, topic: &Topic, partition: Partition, offset: Offset) -> u64 {
        let entries = self.partition(topic, partition).map_or(&[][..], |known| &known.entries);
        let after = entries.partition_point(|&(base, _)| base <= offset);
        after.checked_sub(1).map_or(HEADER_BYTES, |place| entries[place].1)
    }

    /// Whether all it holds stands below the `released` offsets.
    pub(crate) fn is_below(&self, released: &Ends) -> bool {
        self.partitions.iter().all(|(topic, partitions)| {
            (0..).zip(partitions).all(|(p, known)| known.start == known.end || known.end <= released.of(topic, p))
        })
    }

    /// Whether anything was appended behind the first frame.
    pub(crate) fn has_appends(&self) -> bool {
        self.length > self.base_length
    }

    /// The index file.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = INDEX_MAGIC.to_vec();
        out.extend_from_slice(&VERSION.to_le_bytes());
        for number in [self.first_sequence, self.next_sequence, self.length, self.base_length] {
            put_u64(&mut out, number);
        }
        put_i64(&mut out, self.appended_until.0);
        put_count(&mut out, self.partitions.len());
        for (topic, partitions) in &self.partitions {
            put_text(&mut out, &topic.0);
            put_count(&mut out, partitions.len());
            for known in partitions {
                put_i64(&mut out, known.start);
                put_i64(&mut out, known.end);
                put_u64(&mut out, known.bytes);
                put_count(&mut out, known.entries.len());
                for &(offset, position) in &known.entries {
                    put_i64(&mut out, offset);
                    put_u64(&mut out, position);
                }
            }
        }
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads an index file; none if it is damaged or of another version: then the segment is read instead.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (content, crc) = bytes.split_last_chunk::<4>()?;
        let mut fields = Fields(content);
        let is_whole = crc32c::crc32c(content) == u32::from_le_bytes(*crc);
        if !is_whole || fields.bytes(8)? != INDEX_MAGIC || fields.u32()? != VERSION {
            return None;
        }
        let mut segment = Self::new(fields.u64()?);
        segment.next_sequence = fields.u64()?;
        segment.length = fields.u64()?;
        segment.base_length = fields.u64()?;
        segment.is_start_known = true;
        segment.appended_until = Timestamp(fields.i64()?);
        for _ in 0..fields.count(8)? {
            let topic = Topic(fields.text()?.to_owned());
            let mut partitions = Vec::new();
            for _ in 0..fields.count(28)? {
                let (start, end, bytes) = (fields.i64()?, fields.i64()?, fields.u64()?);
                let mut entries = Vec::new();
                for _ in 0..fields.count(16)? {
                    entries.push((fields.i64()?, fields.u64()?));
                }
                partitions.push(PartitionIndex { start, end, bytes, entries });
            }
            segment.partitions.insert(topic, partitions);
        }
        fields.is_empty().then_some(segment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Batch;

    fn topic() -> Topic {
        Topic("a.raw".into())
    }

    fn frame(sequence: u64, next: Offset, records: u32) -> Head {
        let batch =
            Batch { topic: topic(), partition: 1, base_offset: next, records, bytes: 60, section_bytes: 60, crc: 0 };
        Head {
            sequence,
            durable_below: sequence,
            appended_at: Timestamp(sequence as i64),
            is_snapshot: false,
            before: Ends([(topic(), vec![0, next])].into()),
            batches: vec![batch],
            cursors: Vec::new(),
        }
    }

    fn segment() -> Segment {
        let mut segment = Segment::new(5);
        for number in 0..10 {
            segment.take(24 + 100 * number, 100, &frame(5 + number, 40 + 3 * number as i64, 3), 250);
        }
        segment
    }

    #[test]
    fn an_index_file_comes_back_and_damage_is_noticed() {
        let bytes = segment().to_bytes();
        assert_eq!(Segment::from_bytes(&bytes), Some(segment()));
        for place in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[place] ^= 4;
            assert_eq!(Segment::from_bytes(&damaged), None, "byte {place}");
        }
        assert_eq!(Segment::from_bytes(&[]), None);
    }

    #[test]
    fn the_sparse_index_points_at_or_before_the_frame_of_an_offset() {
        let segment = segment();
        let known = segment.partition(&topic(), 1).unwrap();
        assert_eq!((known.start, known.end, known.bytes), (40, 70, 600));
        assert_eq!(known.entries, [(40, 24), (49, 324), (58, 624), (67, 924)]);
        assert_eq!(segment.locate(&topic(), 1, 40), 24);
        assert_eq!(segment.locate(&topic(), 1, 57), 324);
        assert_eq!(segment.locate(&topic(), 1, 58), 624);
        assert_eq!(segment.locate(&topic(), 0, 0), HEADER_BYTES, "nothing of partition 0 is here");
    }

    #[test]
    fn a_header_of_a_newer_version_is_told_from_a_damaged_one() {
        assert_eq!(read_header(&header(7), 7), Header::Good);
        assert_eq!(read_header(&header(7), 8), Header::Damaged);
        let mut newer = header(7);
        newer[8] = 9;
        assert_eq!(read_header(&newer, 7), Header::Damaged);
        let crc = crc32c::crc32c(&newer[..20]);
        newer[20..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(read_header(&newer, 7), Header::Newer(9));
    }
}
