//! Transactions that hold up the readers of a topic: names them, and ends those that Kafka forgot to end.
//!
//! A broker that starts again does not know for a moment who leads which partition. A coordinator that ends a transaction
//! just then takes its partitions for deleted, skips their markers and calls the transaction complete: readers of committed
//! records wait there for ever (seen on Kafka 4.4 about once in eight kills under transactions). The decision stands with
//! the coordinator; what lacks is the marker that says so. The same is done by `kafka-transactions.sh abort`, which knows
//! the other decision only.
//!
//! Source: <https://cwiki.apache.org/confluence/display/KAFKA/KIP-664%3A+Provide+tooling+to+detect+and+abort+hanging+transactions>.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use contract::{Offset, Partition, Positions};
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::describe_transactions_response::TransactionState;
use kafka_protocol::messages::write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic};
use kafka_protocol::messages::{
    DescribeProducersRequest, DescribeTransactionsRequest, DescribeTransactionsResponse, ListTransactionsRequest,
    ProducerId, WriteTxnMarkersRequest,
};

use crate::cluster::{Cluster, Coordinates, name};
use crate::failure::{Outcome, check};
use crate::offsets::{self, Edge, by_leader};

/// How long a place brings nothing before it is looked why.
const IDLE_LOOK: Duration = Duration::from_secs(5);
const SETTLE_PAUSE: Duration = Duration::from_millis(50);

/// A transaction that is open in a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Open {
    partition: Partition,
    leader: i32,
    start: Offset,
    producer_id: i64,
    epoch: i32,
    coordinator_epoch: i32,
}

/// What the coordinator decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    Commit,
    Abort,
}

/// A transaction that is open by right, as far as anybody knows.
pub(crate) struct Held {
    /// For a message.
    pub(crate) said: String,
    /// Whether its coordinator is about to end it.
    is_ending: bool,
}

/// Readers that find nothing for long although there is something are held up by a transaction: by one that Kafka forgot to
/// end, perhaps.
#[derive(Default)]
pub(crate) struct Watch {
    /// Per topic, since when the same place brings nothing.
    idle: Mutex<BTreeMap<String, (Instant, Positions)>>,
}

impl Watch {
    /// To be called whenever reading at `at` brought nothing.
    pub(crate) async fn look(&self, cluster: &Cluster, topic: &str, at: &Positions) {
        if !self.is_due(topic, at) {
            return;
        }
        let looked = async {
            let end = offsets::list(cluster, topic, Edge::End).await?;
            let mut left = at.clone();
            left.0.retain(|partition, next| *next < end.of(*partition));
            if left.0.is_empty() { Ok(Vec::new()) } else { mend(cluster, topic, &left).await }
        };
        if let Err(failure) = looked.await {
            tracing::debug!(topic, "open transactions of `{topic}` are not known: {failure}");
        }
    }

    fn is_due(&self, topic: &str, at: &Positions) -> bool {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, known) = idle.entry(topic.to_owned()).or_insert_with(|| (Instant::now(), at.clone()));
        let is_due = known == at && since.elapsed() > IDLE_LOOK;
        if is_due || known != at {
            (*since, *known) = (Instant::now(), at.clone());
        }
        is_due
    }
}

/// Ends what Kafka forgot to end in some topics, while it can still be told how.
pub(crate) async fn settle_all(cluster: &Cluster, topics: &[String]) {
    for topic in topics {
        let settled = async {
            let end = offsets::list(cluster, topic, Edge::End).await?;
            settle(cluster, topic, &end).await
        };
        // Not told by brokers before Kafka 3.0; and where it matters, whoever reads is told.
        if let Err(failure) = settled.await {
            tracing::info!(topic, "open transactions of `{topic}` are not known: {failure}");
        }
    }
}

/// As [`mend`], and waits until no coordinator is about to end one of them: afterwards nobody can tell any more, if its
/// transactional id is taken over, how a forgotten one was to end.
pub(crate) async fn settle(cluster: &Cluster, topic: &str, places: &Positions) -> Outcome<()> {
    let until = Instant::now() + cluster.settings().request_timeout();
    while mend(cluster, topic, places).await?.iter().any(|held| held.is_ending) && Instant::now() < until {
        tokio::time::sleep(SETTLE_PAUSE).await;
    }
    Ok(())
}

/// Ends transactions in the partitions of `places` whose coordinator says that they have ended. Answers the others.
pub(crate) async fn mend(cluster: &Cluster, topic: &str, places: &Positions) -> Outcome<Vec<Held>> {
    let before = open(cluster, topic, places).await?;
    let states = states(cluster, &before).await?;
    // Only what is open before and after the coordinator called it complete was forgotten.
    let after = open(cluster, topic, places).await?;
    let mut others = Vec::new();
    for at in before.iter().filter(|at| after.contains(at)) {
        let state = states.get(&at.producer_id);
        match state.and_then(|state| decision(at, state)) {
            Some(decision) => write_marker(cluster, topic, at, decision).await?,
            None => others.push(held(at, state)),
        }
    }
    Ok(others)
}

/// A commit counts for the producer's own epoch; an abort also where the coordinator fenced it by a higher one.
fn decision(at: &Open, state: &TransactionState) -> Option<Decision> {
    let epoch = i32::from(state.producer_epoch);
    match state.transaction_state.as_str() {
        "CompleteCommit" if epoch == at.epoch => Some(Decision::Commit),
        "CompleteAbort" if (at.epoch..=at.epoch + 1).contains(&epoch) => Some(Decision::Abort),
        _ => None,
    }
}

fn held(at: &Open, state: Option<&TransactionState>) -> Held {
    let whose = match state {
        Some(state) => format!("`{}` ({})", state.transactional_id.as_str(), state.transaction_state.as_str()),
        None => format!("producer {}, which no coordinator knows", at.producer_id),
    };
    let is_ending = state.is_some_and(|state| state.transaction_state.starts_with("Prepare"));
    Held { said: format!("{whose} in partition {} from offset {}", at.partition, at.start), is_ending }
}

async fn open(cluster: &Cluster, topic: &str, places: &Positions) -> Outcome<Vec<Open>> {
    let request = |mut partitions: Vec<Partition>| {
        partitions.retain(|partition| places.0.contains_key(partition));
        let topic = TopicRequest::default().with_name(name(topic)).with_partition_indexes(partitions);
        DescribeProducersRequest::default().with_topics(vec![topic])
    };
    let mut open = Vec::new();
    for (leader, partitions) in by_leader(cluster, topic).await? {
        let answer = cluster.ask_broker(leader, &request(partitions), Duration::ZERO).await?;
        for part in answer.topics.iter().flat_map(|topic| &topic.partitions) {
            let partition = part.partition_index;
            let producers = part.active_producers.iter().filter(|producer| producer.current_txn_start_offset >= 0);
            open.extend(producers.map(|producer| Open {
                partition,
                leader,
                start: producer.current_txn_start_offset,
                producer_id: producer.producer_id.0,
                epoch: producer.producer_epoch,
                coordinator_epoch: producer.coordinator_epoch,
            }));
        }
    }
    Ok(open)
}

/// What the coordinators say of the producers, by producer id.
async fn states(cluster: &Cluster, open: &[Open]) -> Outcome<BTreeMap<i64, TransactionState>> {
    let mut states = BTreeMap::new();
    if open.is_empty() {
        return Ok(states);
    }
    let ids = open.iter().map(|at| ProducerId(at.producer_id)).collect();
    let request = ListTransactionsRequest::default().with_producer_id_filters(ids);
    let requests = cluster.brokers().into_iter().map(|broker| (broker, request.clone())).collect();
    for answer in cluster.ask_each(requests).await? {
        for listed in answer.transaction_states {
            let id = listed.transactional_id;
            let request = DescribeTransactionsRequest::default().with_transactional_ids(vec![id.clone()]);
            let code = |answer: &DescribeTransactionsResponse| {
                (answer.transaction_states.first().map_or(0, |state| state.error_code), "looking at the transactions")
            };
            let asked = cluster.ask_coordinator(Coordinates::Transaction, id.as_str(), &request, Duration::ZERO, code);
            states.extend(asked.await?.transaction_states.into_iter().map(|state| (state.producer_id.0, state)));
        }
    }
    Ok(states)
}

async fn write_marker(cluster: &Cluster, topic: &str, at: &Open, decision: Decision) -> Outcome<()> {
    let (partition, from) = (at.partition, at.start);
    tracing::warn!(
        topic,
        partition,
        from,
        "Kafka forgot to end a transaction that its coordinator calls complete ({decision:?}); it is ended now"
    );
    let topics = vec![WritableTxnMarkerTopic::default().with_name(name(topic)).with_partition_indexes(vec![partition])];
    let marker = WritableTxnMarker::default()
        .with_producer_id(ProducerId(at.producer_id))
        // Brokers answer their 16 bits as 32.
        .with_producer_epoch(at.epoch as i16)
        .with_transaction_result(decision == Decision::Commit)
        .with_coordinator_epoch(at.coordinator_epoch.max(0))
        .with_topics(topics);
    let request = WriteTxnMarkersRequest::default().with_markers(vec![marker]);
    let answer = cluster.ask_broker(at.leader, &request, Duration::ZERO).await?;
    let topics = answer.markers.iter().flat_map(|marker| &marker.topics);
    topics.flat_map(|topic| &topic.partitions).try_for_each(|part| {
        check(part.error_code, || format!("ending a transaction in `{topic}` partition {partition} at offset {from}"))
    })
}

#[cfg(test)]
mod tests {
    use kafka_protocol::protocol::StrBytes;

    use super::*;

    #[test]
    fn only_what_its_own_coordinator_calls_complete_is_ended_and_as_it_was_decided() {
        let at = Open { partition: 1, leader: 1, start: 7, producer_id: 5, epoch: 3, coordinator_epoch: 2 };
        let decided = |name: &'static str, epoch| {
            let state = TransactionState::default()
                .with_transaction_state(StrBytes::from_static_str(name))
                .with_producer_epoch(epoch);
            decision(&at, &state)
        };
        assert_eq!(decided("CompleteCommit", 3), Some(Decision::Commit));
        assert_eq!(decided("CompleteCommit", 4), None);
        assert_eq!(
            (decided("CompleteAbort", 3), decided("CompleteAbort", 4)),
            (Some(Decision::Abort), Some(Decision::Abort))
        );
        for name in ["Ongoing", "PrepareCommit", "PrepareAbort", "Empty", "Dead"] {
            assert_eq!(decided(name, 3), None, "{name}");
        }
    }
}
