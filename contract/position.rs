//! Partitions, offsets and what stands between them.

use std::collections::BTreeMap;

use crate::SourceId;

/// A partition's number, from 0, as in Kafka.
pub type Partition = i32;

/// A record's place in its partition, from 0, as in Kafka. Offsets may have holes.
pub type Offset = i64;

/// The next offset per partition: to read, to expect, or first not committed. A partition that is
/// not named stands at 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Positions(pub BTreeMap<Partition, Offset>);

impl Positions {
    /// The next offset of a partition.
    pub fn of(&self, partition: Partition) -> Offset {
        self.0.get(&partition).copied().unwrap_or(0)
    }

    /// Moves a partition forward to `next`; never back.
    pub fn advance(&mut self, partition: Partition, next: Offset) {
        let place = self.0.entry(partition).or_insert(0);
        *place = (*place).max(next);
    }

    /// Per partition the lower of both; a partition that one does not name stands at 0.
    #[must_use]
    pub fn min(&self, other: &Self) -> Self {
        let partitions = self.0.keys().chain(other.0.keys());
        Self(partitions.map(|&p| (p, self.of(p).min(other.of(p)))).collect())
    }

    /// Per partition the higher of both.
    #[must_use]
    pub fn max(&self, other: &Self) -> Self {
        let mut higher = self.clone();
        other.0.iter().for_each(|(&partition, &next)| higher.advance(partition, next));
        higher
    }

    /// Some partitions alone; one that is not named stands at 0.
    #[must_use]
    pub fn only(&self, partitions: &[Partition]) -> Self {
        Self(partitions.iter().map(|&partition| (partition, self.of(partition))).collect())
    }

    /// Puts the partitions of `other` to where they stand there, also back; one that stands at 0 is not named then.
    pub fn put(&mut self, other: &Self) {
        self.0.extend(&other.0);
        self.0.retain(|partition, &mut next| next > 0 || !other.0.contains_key(partition));
    }

    /// Whether no partition stands below its place in `other`.
    pub fn reaches(&self, other: &Self) -> bool {
        other.0.iter().all(|(&partition, &next)| self.of(partition) >= next)
    }
}

/// Offsets `from..to` of one partition; `to` is not part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetRange {
    /// The partition.
    pub partition: Partition,
    /// The first offset.
    pub from: Offset,
    /// The offset after the last.
    pub to: Offset,
}

/// A run of offsets per partition of a source that becomes rows, and is committed, as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The source.
    pub source: SourceId,
    /// One range per partition at the most, ascending by partition, none empty.
    pub ranges: Vec<OffsetRange>,
}

impl Span {
    /// Where reading goes on after this span.
    pub fn next(&self) -> Positions {
        Positions(self.ranges.iter().map(|range| (range.partition, range.to)).collect())
    }

    /// Names the first partition in which this span starts beyond `next`, and so would leave a gap.
    pub fn gap_after(&self, next: &Positions) -> Option<OffsetRange> {
        let gap = self.ranges.iter().find(|range| range.from > next.of(range.partition))?;
        Some(OffsetRange { partition: gap.partition, from: next.of(gap.partition), to: gap.from })
    }
}

/// The partition of a key among `partitions`: Kafka's default partitioner (murmur2 of the key, sign
/// bit cleared, modulo), so that both logs and foreign producers agree.
/// Source: `org.apache.kafka.common.utils.Utils.murmur2`.
///
/// # Panics
/// If there are no partitions.
pub fn partition_of(key: &[u8], partitions: Partition) -> Partition {
    assert!(partitions > 0, "a topic has at least one partition");
    (murmur2(key) & 0x7fff_ffff) as i32 % partitions
}

fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ data.len() as u32;
    let words = data.chunks_exact(4);
    let rest = words.remainder();
    for word in words {
        let mut k = u32::from_le_bytes(word.try_into().expect("four bytes")).wrapping_mul(M);
        k = (k ^ (k >> 24)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    if !rest.is_empty() {
        for (place, &byte) in rest.iter().enumerate() {
            hash ^= u32::from(byte) << (8 * place);
        }
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur2_answers_kafkas_own_test_values() {
        // UtilsTest.testMurmur2 in apache/kafka.
        for (key, hash) in [("21", -973932308), ("foobar", -790332482), ("a-little-bit-long-string", -985981536)] {
            assert_eq!(murmur2(key.as_bytes()) as i32, hash, "{key}");
        }
    }

    #[test]
    fn the_lower_and_the_higher_of_two_positions_take_a_missing_partition_as_zero() {
        let hot = Positions([(0, 10), (1, 4)].into());
        let cold = Positions([(0, 7)].into());
        assert_eq!(hot.min(&cold), Positions([(0, 7), (1, 0)].into()));
        assert_eq!(cold.max(&hot), hot);
        assert!(hot.reaches(&cold) && !cold.reaches(&hot));
    }
}
