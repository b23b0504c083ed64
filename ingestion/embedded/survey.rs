//! Reads a segment from end to end and says what of it is damaged.

use std::fmt;
use std::io;
use std::path::PathBuf;

use contract::{OffsetRange, Topic};

use crate::frame::{Ends, Head};
use crate::walk::{Fault, Frame, Piece, Walk};

/// A damaged place of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The segment file's name: `00000000000000000000.log`.
    pub segment: String,
    /// The place of the first damaged byte in it.
    pub byte: u64,
    /// How many bytes cannot be used.
    pub bytes: u64,
    /// The offsets that were lost with them.
    pub lost: Vec<(Topic, OffsetRange)>,
    /// What was found.
    pub reason: String,
    /// The copy of the bytes, if one was made.
    pub quarantine: Option<PathBuf>,
}

impl fmt::Display for Damage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "segment `{}`, byte {}, {} bytes: {}", self.segment, self.byte, self.bytes, self.reason)?;
        for (topic, range) in &self.lost {
            write!(out, "; lost `{topic}` partition {} offsets {} to {}", range.partition, range.from, range.to - 1)?;
        }
        match &self.quarantine {
            Some(path) => write!(out, "; copied to `{}`", path.display()),
            None => Ok(()),
        }
    }
}

/// What a survey found.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    pub(crate) damages: Vec<Damage>,
    /// The remains, at the end, of a commit that never ended.
    pub(crate) torn: Option<Torn>,
    pub(crate) frames: u64,
    pub(crate) records: u64,
}

/// Bytes at the end of the last segment that were never acknowledged, or cannot be told from such.
#[derive(Debug)]
pub(crate) struct Torn {
    pub(crate) byte: u64,
    pub(crate) reason: String,
    /// Whether it is plainly a write cut short: then there is nothing in it to be kept.
    pub(crate) is_cut_short: bool,
}

/// How to look at a segment.
#[derive(Clone, Copy)]
pub(crate) struct Manner {
    /// Whether bytes at the end may be the remains of a commit that never ended: only in the last segment.
    pub(crate) may_be_torn: bool,
    /// Whether the checksums of batches are computed too, not only those of heads.
    pub(crate) verify_batches: bool,
}

/// Walks to the end of a segment. `ends` is where partitions stand before the segment, if that is known, and
/// is moved to where they stand after it; `visit` sees every frame that counts.
pub(crate) fn survey(
    walk: &mut Walk<'_>,
    segment: &str,
    manner: Manner,
    ends: &mut Option<Ends>,
    mut visit: impl FnMut(&Frame),
) -> io::Result<Survey> {
    let mut found = Survey::default();
    while let Some(piece) = walk.next_piece()? {
        match piece {
            Piece::Damage { from, to, sequence, fault } => {
                let reason = fault.to_string();
                if manner.may_be_torn && !walk.proves_durable(sequence)? {
                    let is_cut_short = fault == Fault::EndsEarly && walk.is_at_end();
                    found.torn = Some(Torn { byte: from, reason, is_cut_short });
                    return Ok(found);
                }
                found.damages.push(damage(segment, from, to - from, Vec::new(), reason));
            }
            Piece::Frame(frame) => {
                let damages = if manner.verify_batches { verify(walk, segment, &frame)? } else { Vec::new() };
                let sequence = frame.head.sequence;
                if let Some(first) = damages.first()
                    && manner.may_be_torn
                    && !walk.proves_durable(sequence)?
                {
                    let reason = first.reason.clone();
                    found.torn = Some(Torn { byte: frame.position, reason, is_cut_short: false });
                    return Ok(found);
                }
                note_lost(&mut found.damages, segment, ends.as_ref(), &frame);
                found.damages.extend(damages);
                found.frames += 1;
                found.records += frame.head.batches.iter().map(|batch| u64::from(batch.records)).sum::<u64>();
                *ends = Some(frame.head.after());
                visit(&frame);
            }
        }
    }
    Ok(found)
}

/// Adds the offsets between where partitions stood and where `head` says they stand to the last damage.
fn note_lost(damages: &mut Vec<Damage>, segment: &str, ends: Option<&Ends>, frame: &Frame) {
    let Some(ends) = ends else { return };
    let lost = lost_between(ends, &frame.head);
    if lost.is_empty() {
        return;
    }
    match damages.last_mut() {
        Some(damage) if damage.lost.is_empty() => damage.lost = lost,
        _ => {
            let reason = "frames before this place are missing".to_owned();
            damages.push(damage(segment, frame.position, 0, lost, reason));
        }
    }
}

/// The offsets that stood between `ends` and a frame.
pub(crate) fn lost_between(ends: &Ends, head: &Head) -> Vec<(Topic, OffsetRange)> {
    let gap = |(topic, partition, to): (&Topic, _, _)| {
        let from = ends.of(topic, partition);
        (from < to).then(|| (topic.clone(), OffsetRange { partition, from, to }))
    };
    head.before.iter().filter_map(gap).collect()
}

fn verify(walk: &mut Walk<'_>, segment: &str, frame: &Frame) -> io::Result<Vec<Damage>> {
    let mut damages = Vec::new();
    for (position, batch) in frame.batches() {
        if let Err(reason) = walk.batch(position, batch)? {
            let range = OffsetRange { partition: batch.partition, from: batch.base_offset, to: batch.end() };
            let lost = vec![(batch.topic.clone(), range)];
            damages.push(damage(segment, position, batch.bytes.into(), lost, reason));
        }
    }
    Ok(damages)
}

fn damage(segment: &str, byte: u64, bytes: u64, lost: Vec<(Topic, OffsetRange)>, reason: String) -> Damage {
    Damage { segment: segment.to_owned(), byte, bytes, lost, reason, quarantine: None }
}
