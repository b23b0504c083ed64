//! Where collectors stand: the compacted topic, read to its end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use contract::{CollectorId, Cursor, Positions};
use tokio::sync::Mutex;

use crate::cluster::Cluster;
use crate::failure::{Failure, Outcome};
use crate::fetch::Reader;
use crate::offsets::{self, Edge};
use crate::open_transactions::{self, Held};
use crate::record::Outgoing;

/// The header that tells one transaction from every other.
const MARK: &str = "transaction";
/// The header that names the topic which the cursor speaks of: one that is made anew holds nothing of what is behind it.
const OF_TOPIC: &str = "topic";
/// Bytes read at once.
const BYTES_MAX: usize = 4 << 20;
const READ_WAIT: Duration = Duration::from_millis(50);
/// How long a transaction holds us up before it is looked whether Kafka forgot to end it, and how often then.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The cursors as last read.
pub(crate) struct Cursors {
    topic: String,
    reader: Reader,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: Positions,
    stand: BTreeMap<String, Stand>,
}

#[derive(Clone)]
pub(crate) struct Stand {
    pub(crate) cursor: Cursor,
    /// The number of the topic that its records went to; empty where it has none.
    pub(crate) topic_id: String,
    mark: String,
}

impl Cursors {
    pub(crate) fn new(topic: String) -> Self {
        Self { topic, reader: Reader::default(), state: Mutex::default() }
    }

    /// Where a collector stands; none if it never began.
    pub(crate) async fn of(&self, cluster: &Cluster, collector: &CollectorId) -> Outcome<Option<Stand>> {
        let state = self.read_to_end(cluster).await?;
        Ok(state.stand.get(&collector.0).cloned())
    }

    /// Whether the last transaction of a collector is the one with this mark.
    pub(crate) async fn has(&self, cluster: &Cluster, collector: &CollectorId, mark: &str) -> Outcome<bool> {
        let state = self.read_to_end(cluster).await?;
        Ok(state.stand.get(&collector.0).is_some_and(|stand| stand.mark == mark))
    }

    /// All whose names begin so.
    pub(crate) async fn starting_with(&self, cluster: &Cluster, prefix: &str) -> Outcome<Vec<(CollectorId, Stand)>> {
        let state = self.read_to_end(cluster).await?;
        let matching = state.stand.range(prefix.to_owned()..).take_while(|(name, _)| name.starts_with(prefix));
        Ok(matching.map(|(name, stand)| (CollectorId(name.clone()), stand.clone())).collect())
    }

    /// Reads to where the topic ends now. A transaction that is open there is waited for: what lies behind it counts.
    async fn read_to_end(&self, cluster: &Cluster) -> Outcome<tokio::sync::MutexGuard<'_, State>> {
        let mut state = self.state.lock().await;
        let end = offsets::list(cluster, &self.topic, Edge::End).await?;
        let start = offsets::list(cluster, &self.topic, Edge::Start).await?;
        // A topic that was begun anew ends before where we stand.
        let is_other = state.next.0.iter().any(|(partition, next)| *next > end.of(*partition));
        if is_other {
            *state = State::default();
        }
        state.next = state.next.max(&start);
        let settings = cluster.settings();
        let until =
            Instant::now() + Duration::from_millis(settings.transaction_timeout_ms) + settings.request_timeout();
        let mut look_at = Instant::now() + LOOK_INTERVAL;
        loop {
            let mut left = state.next.clone();
            left.0.retain(|partition, next| *next < end.of(*partition));
            if left.0.is_empty() {
                return Ok(state);
            }
            let fetched = self.reader.fetch(cluster, &self.topic, &left, BYTES_MAX, READ_WAIT).await?;
            fetched.next.0.iter().for_each(|(&partition, &next)| state.next.advance(partition, next));
            for (_, record) in fetched.records {
                let text = |bytes: Option<&Bytes>| bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
                let Some(collector) = text(record.key.as_ref()) else { continue };
                let header = |name: &str| record.headers.get(name.as_bytes()).and_then(|value| text(value.as_ref()));
                let (mark, topic_id) = (header(MARK).unwrap_or_default(), header(OF_TOPIC).unwrap_or_default());
                match text(record.value.as_ref()) {
                    Some(cursor) => {
                        let stand = Stand { cursor: Cursor(cursor), topic_id, mark };
                        drop(state.stand.insert(collector, stand));
                    }
                    None => drop(state.stand.remove(&collector)),
                }
            }
            if Instant::now() > look_at {
                look_at = Instant::now() + LOOK_INTERVAL;
                let held = open_transactions::mend(cluster, &self.topic, &left).await?;
                if Instant::now() > until {
                    return Err(self.held_up(&held));
                }
            }
        }
    }

    fn held_up(&self, held: &[Held]) -> Failure {
        let held: Vec<_> = held.iter().map(|held| held.said.as_str()).collect();
        Failure::unheard(format!(
            "`{}` cannot be read to its end for open transactions: {}",
            self.topic,
            held.join(", ")
        ))
    }
}

/// The record that says where a collector stands in the topic with this number.
pub(crate) fn record(collector: &CollectorId, cursor: &Cursor, mark: &str, topic_id: Option<String>) -> Outgoing {
    let mark = (MARK, Bytes::from(mark.to_owned()));
    let topic_id = topic_id.map(|id| (OF_TOPIC, Bytes::from(id)));
    Outgoing {
        key: Bytes::from(collector.0.clone()),
        value: Some(Bytes::from(cursor.0.clone())),
        headers: [mark].into_iter().chain(topic_id).collect(),
    }
}
