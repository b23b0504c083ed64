//! The log answers Kafka's protocol: any Kafka client lists, reads, and, where a setting opens a topic, writes.
//!
//! There is no state beside the log. Batches are slices of the segment files; a producer's last numbers and a group's
//! offsets are cursors, in the frame of what they belong to; where partitions start and end, retention decides. Who is in
//! a group is known in memory only: after a restart members join again, as after that of a Kafka coordinator.
//!
//! | case | what holds |
//! | --- | --- |
//! | Produce was answered without an error | the batch is on stable storage, with the producer's numbers |
//! | it was not answered, and the producer is idempotent | sent again it is taken once |
//! | OffsetCommit was answered without an error | the offsets are on stable storage |
//! | Fetch | answers only what is on stable storage |
//! | a batch cannot be read, or not unpacked within its limit | it is refused, and never enters the log |
//! | a record's body is damaged | it enters the log, and the processor makes it a dead letter |
//! | transactions | are refused: `TRANSACTIONAL_ID_AUTHORIZATION_FAILED` |
//!
//! # What a client can cost
//!
//! Connections, bytes of a request, bytes of all requests in memory, elements of a request, bytes unpacked, answers in
//! memory, and the seconds that a client may read or write nothing: each has a limit, here or in the file that it
//! concerns. What is beyond ends the connection with a line in the log.

#[cfg(test)]
mod any_bytes_test;
mod api;
mod connection;
mod coordinator;
mod fetch;
mod group;
#[cfg(test)]
mod group_test;
mod incoming;
mod list_offsets;
mod metadata;
mod offsets;
pub(crate) mod outside;
mod produce;
mod producers;
mod request;
mod server;
mod shape;
mod slices;
#[cfg(test)]
mod testing;
mod topics;
pub(crate) mod unpack;
#[cfg(test)]
mod versions_test;
#[cfg(test)]
mod wire_test;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use contract::{Partition, Topic, metric};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::TopicName;
use kafka_protocol::protocol::StrBytes;
use tokio::sync::{Mutex, Semaphore};

use self::coordinator::Coordinator;
pub(crate) use self::topics::Opened;
use crate::EmbeddedLog;

pub use self::server::{Server, serve};

/// Batches that are unpacked at a time, each to at most 64 MiB.
const UNPACKING_MAX: usize = 2;

/// Idempotent producers and groups that append at the same time; those with the same number here wait for each other.
const TURNS: usize = 64;

/// What all connections share.
pub(crate) struct Kafka {
    pub(crate) log: Arc<EmbeddedLog>,
    pub(crate) opened: Opened,
    pub(crate) unpacking: Semaphore,
    pub(crate) coordinator: Coordinator,
    pub(crate) last_producer_id: AtomicI64,
    turns: Vec<Mutex<()>>,
}

impl Kafka {
    pub(crate) fn new(log: Arc<EmbeddedLog>, opened: Opened) -> Self {
        let coordinator = Coordinator::new(log.clock.now());
        Self {
            log,
            opened,
            coordinator,
            unpacking: Semaphore::new(UNPACKING_MAX),
            last_producer_id: AtomicI64::new(0),
            turns: (0..TURNS).map(|_| Mutex::default()).collect(),
        }
    }

    /// Every topic with the number of its partitions.
    pub(crate) fn topics(&self) -> Vec<(Topic, usize)> {
        let state = self.log.shared.state();
        state.ends.0.iter().map(|(topic, ends)| (topic.clone(), ends.len())).collect()
    }

    /// What is held from the look at a cursor to the append of the next one.
    pub(crate) fn turn_of(&self, producer_id: i64, topic: &Topic, partition: Partition) -> &Mutex<()> {
        let mut hasher = DefaultHasher::new();
        (producer_id, topic, partition).hash(&mut hasher);
        &self.turns[(hasher.finish() % TURNS as u64) as usize]
    }
}

fn topic_of(name: &TopicName) -> Topic {
    Topic(name.to_string())
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// Counts an error that a client is told.
fn note_error(api: &'static str, error: ResponseError) {
    let name: String = format!("{error:?}").chars().take_while(char::is_ascii_alphanumeric).collect();
    metric::KAFKA_ERRORS.add(&[api, &name], 1);
}
