//! What an answer brought, handed over in portions: a harvest is one append, and its size is set.
//!
//! | case | outcome |
//! | --- | --- |
//! | all fits | one harvest, with the state after the answer |
//! | it does not | each harvest's cursor says what was handed over so far and forgets that the feed has answered |
//! | killed between two | the feed is asked again, and what is not in the log is new |

use std::time::Duration;

use contract::{Acknowledge, Coverage, CoverageKind, Cursor, RawRecord};

use super::feed_state::State;
use crate::HarvestSize;

/// What is still to be handed over.
pub(super) struct Portions {
    /// The last first.
    records: Vec<RawRecord>,
    coverage: Vec<Coverage>,
    /// Where the collector stands once all is handed over, and where it stood before the answer.
    pub(super) state: State,
    before: State,
    /// Until the feed is asked again; none for what a hub sent, which changes nothing about that.
    pub(super) wait: Option<Duration>,
    /// Told once all of it is on disk.
    pub(super) acknowledge: Option<Acknowledge>,
    /// The cursor of the portion that was handed over last.
    pub(super) after: Cursor,
}

impl Portions {
    /// Of `records` and `coverage`, after which the collector stands at `state`.
    pub(super) fn new(mut records: Vec<RawRecord>, coverage: Vec<Coverage>, state: State, before: State) -> Self {
        records.reverse();
        let after = Cursor::default();
        Self { records, coverage, state, before, wait: None, acknowledge: None, after }
    }

    /// The next portion: at least one record, if there is one, and as many more as a harvest may hold; and its lines of
    /// coverage. What was missed is said with the first, since after it the feed's entries meet known ones; what was
    /// covered with the last.
    pub(super) fn next(&mut self, size: HarvestSize) -> (Vec<RawRecord>, Vec<Coverage>) {
        let (mut portion, mut bytes) = (Vec::new(), 0);
        while let Some(record) = self.records.last() {
            bytes += record.body.len();
            let is_full = portion.len() >= size.records_max || bytes > size.bytes_max;
            if is_full && !portion.is_empty() {
                break;
            }
            portion.extend(self.records.pop());
        }
        let is_last = self.is_done();
        let is_due = |line: &mut Coverage| is_last || line.kind == CoverageKind::Missed;
        let coverage = self.coverage.extract_if(.., is_due).collect();
        (portion, coverage)
    }

    /// Whether all is handed over.
    pub(super) fn is_done(&self) -> bool {
        self.records.is_empty()
    }

    /// Whether the answer moved the collector on.
    pub(super) fn is_news(&self) -> bool {
        self.state != self.before
    }

    /// Where the collector stands meanwhile.
    pub(super) fn state_so_far(&self) -> State {
        self.state.without(self.records.iter(), &self.before)
    }
}
