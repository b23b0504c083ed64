//! Records that others hand in: from whoever takes them, through a bounded queue, into harvests; and the word back that
//! they are on disk.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use contract::{Acknowledge, Collector, CollectorId, Cursor, Harvest, RawRecord, Result, SourceId};
use tokio::sync::{mpsc, oneshot};

use crate::HarvestSize;

/// Deliveries that wait; whoever brings more waits too.
const WAITING_MAX: usize = 64;

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
    fn harvest(&mut self, first: Delivery, cursor: &Cursor) -> Harvest {
        let (mut records, mut waiting) = (first.records, vec![first.on_disk]);
        let mut bytes: usize = records.iter().map(|record| record.body.len()).sum();
        while records.len() < self.size.records_max && bytes < self.size.bytes_max {
            let Ok(next) = self.queue.try_recv() else { break };
            bytes += next.records.iter().map(|record| record.body.len()).sum::<usize>();
            records.extend(next.records);
            waiting.push(next.on_disk);
        }
        let waiting = Arc::new(Mutex::new(waiting));
        let acknowledge = Acknowledge::new(move || {
            for sender in waiting.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
                // Who handed it in may have gone; what is on disk stays.
                let _gone = sender.send(());
            }
        });
        Harvest {
            source: self.source,
            collector: self.id.clone(),
            records,
            coverage: Vec::new(),
            cursor: cursor.clone(),
            poll_again_in: Some(Duration::ZERO),
            acknowledge: Some(acknowledge),
        }
    }
}

#[async_trait]
impl Collector for PushCollector {
    fn id(&self) -> CollectorId {
        self.id.clone()
    }

    async fn poll(&mut self, cursor: &Cursor) -> Result<Harvest> {
        match self.queue.recv().await {
            Some(first) => Ok(self.harvest(first, cursor)),
            // Nobody is left who could hand anything in.
            None => std::future::pending().await,
        }
    }

    async fn drain(&mut self, cursor: &Cursor) -> Result<Option<Harvest>> {
        self.queue.close();
        Ok(self.queue.try_recv().ok().map(|first| self.harvest(first, cursor)))
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
