//! Idempotent producers: what they sent last stands as a cursor in the same frame as the batch, so the two cannot
//! disagree. Source: <https://kafka.apache.org/41/design/#semantics>.
//!
//! | a batch of a producer comes | what happens |
//! | --- | --- |
//! | for the first time, or after it was forgotten | it is taken, whatever its numbers |
//! | with the next number | it is taken |
//! | again, one of the last five | it is answered with the offset it has, and not taken |
//! | again, from before these | it is answered as a duplicate without an offset |
//! | with a number left out | it is refused: one before it is still to come, or was lost |
//! | of an older epoch | it is refused: the producer has begun anew |

use std::collections::VecDeque;

use contract::{CollectorId, Cursor, Offset, Partition, Timestamp, Topic};
use kafka_protocol::ResponseError;
use serde::{Deserialize, Serialize};

use super::incoming::{Sent, add_sequence};
use crate::shared::State;

/// Under which the cursors stand: `kafka/producer/ID/TOPIC/PARTITION`.
const PREFIX: &str = "kafka/producer/";

/// Batches of a producer that are told again when they come again: as many as clients send without an answer.
const BATCHES_KEPT: usize = 5;

/// Producers and partitions that are remembered. All are written at the start of each segment: 200 KB. The one that was
/// silent for longest goes first; a client resends within minutes.
const PRODUCERS_MAX: usize = 1_024;

/// What a producer sent to a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Known {
    epoch: i16,
    /// First and last number and base offset, oldest first.
    batches: VecDeque<(i32, i32, Offset)>,
    /// Microseconds since 1970 of the last one.
    at: i64,
}

/// What is to be done with a batch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Take,
    /// It stands at this offset already.
    Duplicate(Offset),
    Refuse(ResponseError),
}

impl Known {
    /// What is known of a producer.
    pub(crate) fn find(state: &State, producer_id: i64, topic: &Topic, partition: Partition) -> Option<Self> {
        let cursor = state.cursors.get(&name(producer_id, topic, partition))?;
        serde_json::from_str(&cursor.0).ok()
    }

    pub(crate) fn judge(known: Option<&Self>, sent: Sent) -> Verdict {
        let Some(known) = known else { return Verdict::Take };
        if sent.epoch < known.epoch {
            return Verdict::Refuse(ResponseError::InvalidProducerEpoch);
        }
        if sent.epoch > known.epoch {
            let begins = sent.first == 0;
            return if begins { Verdict::Take } else { Verdict::Refuse(ResponseError::OutOfOrderSequenceNumber) };
        }
        let again = known.batches.iter().find(|(first, last, _)| (*first, *last) == (sent.first, sent.last));
        if let Some((_, _, offset)) = again {
            return Verdict::Duplicate(*offset);
        }
        match (known.batches.front(), known.batches.back()) {
            (_, Some((_, last, _))) if sent.first == add_sequence(*last, 1) => Verdict::Take,
            (Some((oldest, ..)), _) if sent.last < *oldest => Verdict::Refuse(ResponseError::DuplicateSequenceNumber),
            _ => Verdict::Refuse(ResponseError::OutOfOrderSequenceNumber),
        }
    }

    /// The same with one batch more.
    pub(crate) fn with(known: Option<Self>, sent: Sent, offset: Offset, at: Timestamp) -> Self {
        let mut known = known.filter(|known| known.epoch == sent.epoch).unwrap_or_default();
        known.epoch = sent.epoch;
        known.batches.push_back((sent.first, sent.last, offset));
        while known.batches.len() > BATCHES_KEPT {
            known.batches.pop_front();
        }
        known.at = at.0;
        known
    }

    pub(crate) fn cursor(&self, producer_id: i64, topic: &Topic, partition: Partition) -> (CollectorId, Cursor) {
        let text = serde_json::to_string(self).expect("numbers are JSON");
        (name(producer_id, topic, partition), Cursor(text))
    }
}

/// The cursors to remove so that one more has room: those silent for longest.
pub(crate) fn to_forget(state: &State) -> Vec<(CollectorId, Cursor)> {
    let from = state.cursors.range(CollectorId(PREFIX.to_owned())..);
    let all = from.take_while(|(name, _)| name.0.starts_with(PREFIX));
    let mut ages: Vec<(i64, &CollectorId)> = all
        .map(|(name, cursor)| (serde_json::from_str::<Known>(&cursor.0).map_or(i64::MIN, |known| known.at), name))
        .collect();
    let excess = (ages.len() + 1).saturating_sub(PRODUCERS_MAX);
    if excess == 0 {
        return Vec::new();
    }
    ages.sort();
    ages.into_iter().take(excess).map(|(_, name)| (name.clone(), Cursor::default())).collect()
}

fn name(producer_id: i64, topic: &Topic, partition: Partition) -> CollectorId {
    CollectorId(format!("{PREFIX}{producer_id}/{topic}/{partition}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(epoch: i16, first: i32, last: i32) -> Sent {
        Sent { producer_id: 7, epoch, first, last }
    }

    #[test]
    fn a_producer_is_judged_as_the_table_says() {
        let mut known = None;
        for number in 0..7 {
            let batch = sent(3, 10 * number, 10 * number + 9);
            assert_eq!(Known::judge(known.as_ref(), batch), Verdict::Take);
            known = Some(Known::with(known, batch, 100 + Offset::from(number), Timestamp(0)));
        }
        let judge = |batch| Known::judge(known.as_ref(), batch);
        assert_eq!(judge(sent(3, 60, 69)), Verdict::Duplicate(106));
        assert_eq!(judge(sent(3, 20, 29)), Verdict::Duplicate(102));
        assert_eq!(judge(sent(3, 10, 19)), Verdict::Refuse(ResponseError::DuplicateSequenceNumber));
        assert_eq!(judge(sent(3, 71, 71)), Verdict::Refuse(ResponseError::OutOfOrderSequenceNumber));
        assert_eq!(judge(sent(3, 70, 70)), Verdict::Take);
        assert_eq!(judge(sent(2, 70, 70)), Verdict::Refuse(ResponseError::InvalidProducerEpoch));
        assert_eq!(judge(sent(4, 1, 1)), Verdict::Refuse(ResponseError::OutOfOrderSequenceNumber));
        assert_eq!(judge(sent(4, 0, 1)), Verdict::Take);
        assert_eq!(Known::judge(None, sent(4, 55, 60)), Verdict::Take);
    }

    #[test]
    fn numbers_go_on_at_zero_after_the_highest() {
        let known = Known::with(None, sent(0, i32::MAX - 1, i32::MAX), 5, Timestamp(0));
        assert_eq!(Known::judge(Some(&known), sent(0, 0, 3)), Verdict::Take);
        assert_eq!(add_sequence(i32::MAX, 2), 1);
    }
}
