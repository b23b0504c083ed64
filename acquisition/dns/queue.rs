//! Between those who push and the one who harvests: a bounded queue, and what happens when it is full.
//!
//! | `dns.overload` | a full queue |
//! | --- | --- |
//! | `block` | the pusher waits, so its socket fills and the sender waits or drops; nothing is lost here |
//! | `spill` | the same, but a harvest takes all that is queued: larger appends, so that the log is what buffers |
//! | `sample` | from half full on one record in `dns.sample_one_in` is kept; when full none |
//! | `drop` | what does not fit is lost |
//!
//! Every record is counted when it comes, and again when it is harvested or lost:
//! `received = harvested + queued + lost`, the lost by reason; a test holds it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use contract::metric;
use contract::{CollectorId, RawRecord, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::HarvestSize;

/// How long the first record of a harvest waits for others.
const HARVEST_INTERVAL: Duration = Duration::from_millis(200);

/// How long a harvest waits for its first record; an empty one then tells the runtime that all is well.
const IDLE_INTERVAL: Duration = Duration::from_secs(1);

/// Bytes that a record takes beside its body, about.
const RECORD_BYTES: usize = 160;

/// What is done with a record for which there is no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Overload {
    /// Its sender waits.
    #[default]
    Block,
    /// Its sender waits, and harvests are as large as the queue.
    Spill,
    /// One in some is kept.
    Sample,
    /// It is lost.
    Drop,
}

/// As set, and checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueueSettings {
    pub(super) overload: Overload,
    pub(super) sample_one_in: u64,
    pub(super) records_max: usize,
    pub(super) bytes_max: usize,
    pub(super) harvest: HarvestSize,
}

/// Records lost for one reason since the last harvest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Loss {
    pub(super) reason: &'static str,
    pub(super) from: Timestamp,
    /// The last one's time.
    pub(super) to: Timestamp,
    pub(super) records: u64,
}

/// What a harvest takes.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) records: Vec<RawRecord>,
    pub(super) lost: Vec<Loss>,
}

/// See the module. Many push, one harvests.
pub(super) struct Queue {
    collector: CollectorId,
    settings: QueueSettings,
    state: Mutex<State>,
    /// For the one who harvests: a first record or loss, or enough for a harvest.
    filled: Notify,
    /// For those who push.
    emptied: Notify,
}

#[derive(Default)]
struct State {
    records: VecDeque<RawRecord>,
    bytes: usize,
    /// Records that came since the sampling began.
    sampled_of: u64,
    lost: BTreeMap<&'static str, Loss>,
}

impl Queue {
    /// An empty one.
    pub(super) fn new(collector: CollectorId, settings: QueueSettings) -> Self {
        let (filled, emptied) = (Notify::new(), Notify::new());
        Self { collector, settings, state: Mutex::default(), filled, emptied }
    }

    /// Takes all of `records`, or loses them by name; waits where the policy says so. Where the future is dropped
    /// meanwhile, what did not fit is lost without a name, so pushers are let end by themselves.
    pub(super) async fn push(&self, records: Vec<RawRecord>) {
        metric::RECEIVED_RECORDS.add(&self.labels(), records.len() as u64);
        let mut rest = VecDeque::from(records);
        loop {
            // Made before the look at the queue, so that no wake is missed between the two.
            let emptied = self.emptied.notified();
            self.offer(&mut rest);
            if rest.is_empty() {
                return;
            }
            emptied.await;
        }
    }

    /// Counts records that were lost before they could be pushed.
    pub(super) fn lose(&self, reason: &'static str, count: u64, time: Timestamp) {
        if count == 0 {
            return;
        }
        metric::RECEIVED_RECORDS.add(&self.labels(), count);
        self.lock().note_lost(reason, count, time);
        self.filled.notify_one();
    }

    /// Waits until there is enough for a harvest, or the first record waited long enough, or nothing came for a while.
    /// Nothing is taken, so the future may be dropped.
    pub(super) async fn fill(&self) {
        let idle = Instant::now() + IDLE_INTERVAL;
        while self.is_empty() {
            if timeout_at(idle, self.filled.notified()).await.is_err() {
                return;
            }
        }
        let due = Instant::now() + HARVEST_INTERVAL;
        while !self.has_harvest(&self.lock()) {
            if timeout_at(due, self.filled.notified()).await.is_err() {
                return;
            }
        }
    }

    /// Takes a harvest: one of the usual size, or with `spill` all there is.
    pub(super) fn take(&self) -> Taken {
        let HarvestSize { records_max, bytes_max } = self.settings.harvest;
        let is_whole = self.settings.overload == Overload::Spill;
        let mut state = self.lock();
        let mut records = Vec::with_capacity(state.records.len().min(records_max));
        let mut bytes = 0;
        while let Some(record) = state.records.pop_front() {
            bytes += record.body.len();
            state.bytes -= weight(&record);
            records.push(record);
            if !is_whole && (records.len() >= records_max || bytes >= bytes_max) {
                break;
            }
        }
        let lost: Vec<Loss> = std::mem::take(&mut state.lost).into_values().collect();
        if self.is_below_half(&state) {
            state.sampled_of = 0;
        }
        metric::QUEUED_RECORDS.set(&self.labels(), state.records.len() as f64);
        drop(state);
        self.emptied.notify_waiters();
        for loss in &lost {
            metric::LOST_RECORDS.add(&["dns", &self.collector.0, loss.reason], loss.records);
        }
        Taken { records, lost }
    }

    /// Whether there is nothing to harvest.
    pub(super) fn is_empty(&self) -> bool {
        let state = self.lock();
        state.records.is_empty() && state.lost.is_empty()
    }

    /// Moves what may be moved from the front of `rest`; what is left then has to wait.
    fn offer(&self, rest: &mut VecDeque<RawRecord>) {
        let mut state = self.lock();
        let was_empty = state.records.is_empty();
        while let Some(record) = rest.pop_front() {
            if self.is_full(&state) {
                match self.settings.overload {
                    Overload::Block | Overload::Spill => {
                        rest.push_front(record);
                        break;
                    }
                    Overload::Sample | Overload::Drop => {
                        state.note_lost("queue_full", 1, record.event_time);
                        continue;
                    }
                }
            }
            if self.settings.overload != Overload::Sample || self.is_below_half(&state) {
                state.keep(record);
                continue;
            }
            state.sampled_of += 1;
            if state.sampled_of % self.settings.sample_one_in == 1 % self.settings.sample_one_in {
                // Its body may be a slice of much that is not kept.
                let body = Bytes::copy_from_slice(&record.body);
                state.keep(RawRecord { body, ..record });
            } else {
                state.note_lost("sampled", 1, record.event_time);
            }
        }
        metric::QUEUED_RECORDS.set(&self.labels(), state.records.len() as f64);
        if was_empty || self.has_harvest(&state) {
            self.filled.notify_one();
        }
    }

    fn has_harvest(&self, state: &State) -> bool {
        let HarvestSize { records_max, bytes_max } = self.settings.harvest;
        state.records.len() >= records_max || state.bytes >= bytes_max || self.is_full(state)
    }

    fn is_full(&self, state: &State) -> bool {
        state.records.len() >= self.settings.records_max || state.bytes >= self.settings.bytes_max
    }

    fn is_below_half(&self, state: &State) -> bool {
        state.records.len() < self.settings.records_max / 2 && state.bytes < self.settings.bytes_max / 2
    }

    fn labels(&self) -> [&str; 2] {
        ["dns", &self.collector.0]
    }

    /// No code that holds the lock can leave the state half changed.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn keep(&mut self, record: RawRecord) {
        self.bytes += weight(&record);
        self.records.push_back(record);
    }

    fn note_lost(&mut self, reason: &'static str, count: u64, time: Timestamp) {
        let loss = self.lost.entry(reason).or_insert(Loss { reason, from: time, to: time, records: 0 });
        (loss.from, loss.to) = (loss.from.min(time), loss.to.max(time));
        loss.records += count;
    }
}

/// What a record counts in a queue's bytes.
fn weight(record: &RawRecord) -> usize {
    record.body.len() + RECORD_BYTES
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use contract::RecordId;

    use super::*;

    const SETTINGS: QueueSettings = QueueSettings {
        overload: Overload::Block,
        sample_one_in: 10,
        records_max: 100,
        bytes_max: 1 << 20,
        harvest: HarvestSize { records_max: 40, bytes_max: 1 << 20 },
    };

    fn queue(overload: Overload) -> Queue {
        Queue::new(CollectorId("dns/test".to_owned()), QueueSettings { overload, ..SETTINGS })
    }

    fn records(numbers: std::ops::Range<i64>) -> Vec<RawRecord> {
        let record = |number: i64| RawRecord {
            id: RecordId::from(number.to_string()),
            event_time: Timestamp(number),
            fetched_at: Timestamp(0),
            body: Bytes::from(vec![0; 10]),
        };
        numbers.map(record).collect()
    }

    fn losses(lost: &[Loss]) -> Vec<(&'static str, u64)> {
        lost.iter().map(|loss| (loss.reason, loss.records)).collect()
    }

    /// Harvests until `pushed` has ended and nothing is left.
    async fn harvest_all(queue: &Queue, pushed: tokio::task::JoinHandle<()>) -> Vec<Taken> {
        let mut all = Vec::new();
        while !pushed.is_finished() || !queue.is_empty() {
            queue.fill().await;
            all.push(queue.take());
        }
        all
    }

    #[tokio::test]
    async fn block_and_spill_make_the_pusher_wait_and_lose_nothing() {
        for (overload, largest) in [(Overload::Block, 40), (Overload::Spill, 100)] {
            let queue = Arc::new(queue(overload));
            let pusher = queue.clone();
            let pushed = tokio::spawn(async move { pusher.push(records(0..1_000)).await });
            let all = harvest_all(&queue, pushed).await;
            let numbers: Vec<i64> =
                all.iter().flat_map(|taken| &taken.records).map(|record| record.event_time.0).collect();
            assert_eq!(numbers, (0..1_000).collect::<Vec<_>>(), "in their order");
            assert_eq!(all.iter().map(|taken| taken.records.len()).max(), Some(largest), "{overload:?}");
            assert!(all.iter().all(|taken| taken.lost.is_empty()));
        }
    }

    #[tokio::test]
    async fn drop_keeps_what_fits_and_counts_the_rest() {
        let queue = queue(Overload::Drop);
        queue.push(records(0..250)).await;
        let first = queue.take();
        assert_eq!(first.records.len(), 40);
        let loss = Loss { reason: "queue_full", from: Timestamp(100), to: Timestamp(249), records: 150 };
        assert_eq!(first.lost, [loss]);
        queue.push(records(250..260)).await;
        let rest = [queue.take(), queue.take()];
        assert_eq!(rest.iter().map(|taken| taken.records.len()).sum::<usize>(), 70);
        assert!(queue.is_empty() && rest.iter().all(|taken| taken.lost.is_empty()));
    }

    #[tokio::test]
    async fn sample_keeps_one_in_some_from_half_full_on() {
        let queue = queue(Overload::Sample);
        queue.push(records(0..150)).await;
        let taken = queue.take();
        assert_eq!(losses(&taken.lost), [("sampled", 90)]);
        let kept = taken.records.iter().chain(&queue.take().records).map(|record| record.event_time.0).max();
        assert_eq!(kept, Some(140), "0 to 49, then 50, 60, … 140");
        queue.push(records(0..1_000)).await;
        let lost: u64 = queue.take().lost.iter().map(|loss| loss.records).sum();
        let kept: usize = std::iter::repeat_with(|| queue.take().records.len()).take_while(|&count| count > 0).sum();
        assert_eq!(lost as usize + kept + 40, 1_000, "what came is kept or lost by name");
    }

    #[tokio::test]
    async fn bytes_bound_the_queue_as_records_do() {
        let settings = QueueSettings { overload: Overload::Drop, bytes_max: 10 * (10 + RECORD_BYTES), ..SETTINGS };
        let queue = Queue::new(CollectorId("dns/test".to_owned()), settings);
        queue.push(records(0..100)).await;
        let taken = queue.take();
        assert_eq!((taken.records.len(), losses(&taken.lost)), (10, vec![("queue_full", 90)]));
    }

    #[tokio::test]
    async fn losses_elsewhere_are_harvested_by_reason_without_a_record() {
        let queue = queue(Overload::Block);
        queue.lose("cut", 1, Timestamp(7));
        queue.lose("kernel", 5, Timestamp(8));
        queue.lose("cut", 2, Timestamp(3));
        queue.lose("cut", 0, Timestamp(1));
        queue.fill().await;
        let lost = queue.take().lost;
        assert_eq!(losses(&lost), [("cut", 3), ("kernel", 5)]);
        assert_eq!((lost[0].from, lost[0].to), (Timestamp(3), Timestamp(7)));
    }
}
