//! Records that others hand in: from whoever takes them, through a bounded queue, into harvests; and the word back that
//! they are on disk.
//!
//! What is handed in twice must count once, also when nothing in it says when it happened. An id counts within its period
//! of event time, so such a record keeps the time at which it came first: the cursor remembers the last of them.

use std::collections::VecDeque;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use contract::{Acknowledge, Collector, CollectorId, Cursor, Error, Harvest, RawRecord, Result, SourceId, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::HarvestSize;

/// Deliveries that wait; whoever brings more waits too.
const WAITING_MAX: usize = 64;

/// Records without a time of their own that are remembered: 15 KB of cursor. They are rare (memberships, permissions), so
/// this reaches back over the days in which a sender may send again.
const REMEMBERED_MAX: usize = 256;

/// Where deliveries are handed in. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Inbox {
    queue: mpsc::Sender<Delivery>,
}

/// The program ends, or the log took nothing: the sender is to try again.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotTaken;

struct Delivery {
    records: Vec<RawRecord>,
    on_disk: oneshot::Sender<()>,
}

impl Inbox {
    /// Hands in records and waits until they are on disk.
    pub(crate) async fn deliver(&self, records: Vec<RawRecord>) -> std::result::Result<(), NotTaken> {
        let (on_disk, told) = oneshot::channel();
        self.queue.send(Delivery { records, on_disk }).await.map_err(|_| NotTaken)?;
        told.await.map_err(|_| NotTaken)
    }
}

/// When records came first that state no time, oldest first; the cursor.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Memory {
    first_seen: VecDeque<(String, Timestamp)>,
}

impl Memory {
    fn read(cursor: &Cursor, collector: &CollectorId) -> Result<Self> {
        if cursor.0.is_empty() {
            return Ok(Self::default());
        }
        serde_json::from_str(&cursor.0)
            .map_err(|error| Error::stop(format!("read the cursor of `{collector}`")).because(error))
    }

    fn cursor(&self) -> Result<Cursor> {
        if self.first_seen.is_empty() {
            return Ok(Cursor::default());
        }
        let text = serde_json::to_string(self).map_err(|error| Error::stop("write a cursor").because(error))?;
        Ok(Cursor(text))
    }

    /// Gives a record that states no time the one at which its id came first.
    fn date(&mut self, record: &mut RawRecord) {
        if record.event_time != record.fetched_at {
            return;
        }
        if let Some((_, time)) = self.first_seen.iter().find(|(id, _)| id == record.id.as_str()) {
            record.event_time = *time;
            return;
        }
        if self.first_seen.len() == REMEMBERED_MAX {
            self.first_seen.pop_front();
        }
        self.first_seen.push_back((record.id.to_string(), record.fetched_at));
    }
}

/// Harvests what is handed in. There is nothing to resume: what was not acknowledged is sent again.
pub(crate) struct PushCollector {
    source: SourceId,
    id: CollectorId,
    size: HarvestSize,
    queue: mpsc::Receiver<Delivery>,
}

/// A collector and where its records are handed in.
pub(crate) fn channel(source: SourceId, id: &str, size: HarvestSize) -> (Inbox, PushCollector) {
    let (sender, queue) = mpsc::channel(WAITING_MAX);
    (Inbox { queue: sender }, PushCollector { source, id: CollectorId(id.to_owned()), size, queue })
}

impl PushCollector {
    /// The first delivery and all that wait behind it, as far as a harvest goes.
    fn harvest(&mut self, first: Delivery, cursor: &Cursor) -> Result<Harvest> {
        let mut memory = Memory::read(cursor, &self.id)?;
        let (mut records, mut waiting) = (first.records, vec![first.on_disk]);
        let mut bytes: usize = records.iter().map(|record| record.body.len()).sum();
        while records.len() < self.size.records_max && bytes < self.size.bytes_max {
            let Ok(next) = self.queue.try_recv() else { break };
            bytes += next.records.iter().map(|record| record.body.len()).sum::<usize>();
            records.extend(next.records);
            waiting.push(next.on_disk);
        }
        records.iter_mut().for_each(|record| memory.date(record));
        let waiting = Arc::new(Mutex::new(waiting));
        let acknowledge = Acknowledge::new(move || {
            for sender in waiting.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
                // Who handed it in may have gone; what is on disk stays.
                let _gone = sender.send(());
            }
        });
        Ok(Harvest {
            source: self.source,
            collector: self.id.clone(),
            records,
            coverage: Vec::new(),
            cursor: memory.cursor()?,
            poll_again_in: Some(Duration::ZERO),
            acknowledge: Some(acknowledge),
        })
    }
}

#[async_trait]
impl Collector for PushCollector {
    fn id(&self) -> CollectorId {
        self.id.clone()
    }

    async fn poll(&mut self, cursor: &Cursor) -> Result<Harvest> {
        match self.queue.recv().await {
            Some(first) => self.harvest(first, cursor),
            // Nobody is left who could hand anything in.
            None => std::future::pending().await,
        }
    }

    async fn drain(&mut self, cursor: &Cursor) -> Result<Option<Harvest>> {
        self.queue.close();
        self.queue.try_recv().ok().map(|first| self.harvest(first, cursor)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use contract::Timestamp;

    use super::*;

    fn record(id: &str) -> RawRecord {
        let now = Timestamp(1);
        RawRecord { id: id.into(), event_time: now, fetched_at: now, body: id.to_owned().into() }
    }

    fn ids(harvest: &Harvest) -> Vec<&str> {
        harvest.records.iter().map(|record| record.id.as_str()).collect()
    }

    #[tokio::test]
    async fn a_delivery_is_acknowledged_when_its_harvest_is_on_disk_and_not_before() {
        let (inbox, mut collector) = channel(SourceId("made"), "made/pushed", HarvestSize::default());
        let delivery = tokio::spawn(async move { inbox.deliver(vec![record("a"), record("b")]).await });
        let harvest = collector.poll(&Cursor::default()).await.unwrap();
        assert_eq!(ids(&harvest), ["a", "b"]);
        tokio::task::yield_now().await;
        assert!(!delivery.is_finished(), "it is not on disk yet");
        harvest.acknowledge.as_ref().unwrap().on_disk();
        assert_eq!(delivery.await.unwrap(), Ok(()));
    }

    #[tokio::test]
    async fn a_record_without_a_time_keeps_the_one_at_which_it_came_first() {
        let (inbox, mut collector) = channel(SourceId("made"), "made/pushed", HarvestSize::default());
        let deliver = |records: Vec<RawRecord>| {
            let inbox = inbox.clone();
            tokio::spawn(async move { inbox.deliver(records).await })
        };
        let at = |id: &str, event_time, fetched_at| RawRecord {
            event_time: Timestamp(event_time),
            fetched_at: Timestamp(fetched_at),
            ..record(id)
        };
        deliver(vec![at("none", 10, 10), at("stated", 5, 10)]);
        let first = collector.poll(&Cursor::default()).await.unwrap();
        assert!(!first.cursor.0.contains("stated"), "{:?}", first.cursor);
        // Another process, days later; and many that come between.
        let (again, mut collector) = channel(SourceId("made"), "made/pushed", HarvestSize::default());
        let mut records = vec![at("none", 99, 99), at("stated", 5, 99)];
        records.extend((0..REMEMBERED_MAX as i64).map(|number| at(&format!("other {number}"), 100, 100)));
        records.push(at("none", 101, 101));
        let delivery = tokio::spawn(async move { again.deliver(records).await });
        let second = collector.poll(&first.cursor).await.unwrap();
        let times: Vec<i64> = second.records.iter().map(|record| record.event_time.0).collect();
        assert_eq!((times[0], times[1]), (10, 5));
        assert_eq!(times.last(), Some(&101), "what came too long ago is forgotten");
        assert!(second.cursor.0.len() < 16 << 10);
        second.acknowledge.unwrap().on_disk();
        assert_eq!(delivery.await.unwrap(), Ok(()));
    }

    #[tokio::test]
    async fn a_harvest_that_is_lost_is_told_to_whoever_handed_it_in() {
        let (inbox, mut collector) = channel(SourceId("made"), "made/pushed", HarvestSize::default());
        let delivery = tokio::spawn(async move { inbox.deliver(vec![record("a")]).await });
        drop(collector.poll(&Cursor::default()).await.unwrap());
        assert_eq!(delivery.await.unwrap(), Err(NotTaken));
    }

    #[tokio::test]
    async fn what_waits_at_the_end_is_drained_and_nothing_more_is_taken() {
        let size = HarvestSize { records_max: 1, ..HarvestSize::default() };
        let (inbox, mut collector) = channel(SourceId("made"), "made/pushed", size);
        let deliver = |id: &'static str| {
            let inbox = inbox.clone();
            tokio::spawn(async move { inbox.deliver(vec![record(id)]).await })
        };
        let waiting = [deliver("a"), deliver("b")];
        tokio::task::yield_now().await;
        for id in ["a", "b"] {
            let harvest = collector.drain(&Cursor::default()).await.unwrap().unwrap();
            assert_eq!(ids(&harvest), [id]);
            harvest.acknowledge.unwrap().on_disk();
        }
        assert!(collector.drain(&Cursor::default()).await.unwrap().is_none());
        assert_eq!(inbox.deliver(vec![record("late")]).await, Err(NotTaken));
        for delivery in waiting {
            assert_eq!(delivery.await.unwrap(), Ok(()));
        }
    }
}
