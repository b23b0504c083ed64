//! Transactions of one collector, one at a time.
//!
//! | what happens | what is done |
//! | --- | --- |
//! | another instance begins with the same transactional id | the first one's next request is refused: fenced, for good |
//! | a request fails or is not answered | nothing is committed; the producer is made anew, which undoes the transaction |
//! | the end of a transaction is not answered | the producer is made anew, which waits for that end; then the cursor's topic says whether it was committed |
//! | a transaction takes longer than `kafka.transaction_timeout_ms` | brokers undo it; the producer is made anew, with its own number, which only the newest may |
//!
//! Source: <https://cwiki.apache.org/confluence/display/KAFKA/KIP-98+-+Exactly+Once+Delivery+and+Transactional+Messaging>,
//! and KIP-360 for how a producer is made anew.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use contract::{CollectorId, OffsetRange, Partition, Positions, Timestamp};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, DescribeTransactionsRequest, EndTxnRequest, InitProducerIdRequest, ProduceRequest,
    ProduceResponse, ProducerId, TransactionalId,
};
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::Compression;
use tokio::sync::Mutex;

use crate::cluster::{Cluster, Coordinates, name};
use crate::cursors::Cursors;
use crate::failure::{Failure, Outcome, check};
use crate::open_transactions;
use crate::record::{Outgoing, Writer, encode};

/// How long an append waits until readers see what it committed: milliseconds as a rule. It is committed all the same.
const VISIBLE_WAIT: Duration = Duration::from_secs(5);

/// Between two tries to write while leaders move: longer outages undo the transaction.
const PAUSES_MS: [u64; 7] = [20, 50, 100, 250, 500, 1_000, 2_000];

/// Records for one partition.
pub(crate) struct Part {
    pub(crate) topic: String,
    pub(crate) partition: Partition,
    pub(crate) records: Vec<Outgoing>,
    pub(crate) compression: Compression,
}

/// What one transaction is to hold.
pub(crate) struct Work {
    pub(crate) parts: Vec<Part>,
    pub(crate) logged_at: Timestamp,
    /// Stands in the record of the cursor: tells this transaction from every other.
    pub(crate) mark: String,
    /// Tells whether the same is offered again.
    pub(crate) fingerprint: u64,
}

/// Where it stands now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Written {
    pub(crate) ranges: Vec<(String, OffsetRange)>,
    pub(crate) bytes: u64,
}

/// The producer with one transactional id.
pub(crate) struct Producer {
    id: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    session: Option<Session>,
    /// Whether the session's last transaction ended, and ended well.
    is_ready: bool,
    /// Records this session wrote, per topic and partition.
    written: BTreeMap<(String, Partition), i32>,
    /// A transaction whose end was not heard.
    unheard: Option<Unheard>,
}

#[derive(Clone, Copy)]
struct Session {
    producer_id: i64,
    epoch: i16,
}

struct Unheard {
    mark: String,
    fingerprint: u64,
    written: Written,
}

impl Producer {
    pub(crate) fn new(id: String) -> Self {
        Self { id, state: Mutex::default() }
    }

    /// Takes the transactional id over, unless it is ours: after this nothing of an earlier instance is committed.
    pub(crate) async fn take_over(&self, cluster: &Cluster) -> Outcome<()> {
        self.prepare(cluster, &mut *self.state.lock().await).await
    }

    /// Commits all of it or nothing, with the cursor of `collector` in it.
    pub(crate) async fn append(
        &self,
        cluster: &Cluster,
        work: Work,
        (cursors, collector): (&Cursors, &CollectorId),
    ) -> Outcome<Written> {
        let mut state = self.state.lock().await;
        self.prepare(cluster, &mut state).await?;
        if let Some(unheard) = &state.unheard {
            let is_done = cursors.has(cluster, collector, &unheard.mark).await?;
            let unheard = state.unheard.take().filter(|unheard| is_done && unheard.fingerprint == work.fingerprint);
            if let Some(unheard) = unheard {
                return Ok(unheard.written);
            }
        }
        let (mark, fingerprint) = (work.mark.clone(), work.fingerprint);
        let written = match self.write(cluster, &mut state, work).await {
            Ok(written) => written,
            Err(failure) => return Err(self.undo(cluster, &mut state, failure).await),
        };
        state.unheard = Some(Unheard { mark, fingerprint, written: written.clone() });
        if let Err(failure) = self.end(cluster, &mut state, true).await {
            self.prepare(cluster, &mut state).await?;
            let is_done = match &state.unheard {
                Some(unheard) => cursors.has(cluster, collector, &unheard.mark).await?,
                None => false,
            };
            state.unheard = None;
            return if is_done { Ok(written) } else { Err(failure) };
        }
        state.unheard = None;
        drop(state);
        self.until_visible(cluster).await;
        Ok(written)
    }

    /// Writes and undoes it: the offsets are taken and never read.
    pub(crate) async fn waste(&self, cluster: &Cluster, work: Work) -> Outcome<()> {
        let mut state = self.state.lock().await;
        self.prepare(cluster, &mut state).await?;
        self.write(cluster, &mut state, work).await?;
        self.end(cluster, &mut state, false).await?;
        drop(state);
        self.until_visible(cluster).await;
        Ok(())
    }

    /// A session whose transaction has ended; made anew after whatever went wrong.
    async fn prepare(&self, cluster: &Cluster, state: &mut State) -> Outcome<()> {
        const FORGOTTEN: [ResponseError; 2] =
            [ResponseError::InvalidProducerIdMapping, ResponseError::UnknownProducerId];
        if state.is_ready {
            return Ok(());
        }
        for (topic, range) in state.unheard.iter().flat_map(|unheard| &unheard.written.ranges) {
            open_transactions::settle(cluster, topic, &Positions([(range.partition, range.from)].into())).await?;
        }
        let begun = match self.begin(cluster, state.session).await {
            // Not used for so long that the brokers forgot it: then nobody else has it either.
            Err(failure) if state.session.is_some() && failure.is(&FORGOTTEN) => self.begin(cluster, None).await,
            begun => begun,
        };
        state.session = Some(begun?);
        state.written.clear();
        state.is_ready = true;
        Ok(())
    }

    async fn begin(&self, cluster: &Cluster, before: Option<Session>) -> Outcome<Session> {
        let before = before.unwrap_or(Session { producer_id: -1, epoch: -1 });
        let timeout = i32::try_from(cluster.settings().transaction_timeout_ms).unwrap_or(i32::MAX);
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(self.transactional_id()))
            .with_transaction_timeout_ms(timeout)
            .with_producer_id(ProducerId(before.producer_id))
            .with_producer_epoch(before.epoch);
        let code = |answer: &kafka_protocol::messages::InitProducerIdResponse| {
            (answer.error_code, "taking over the transactions")
        };
        let asked = cluster.ask_coordinator(Coordinates::Transaction, &self.id, &request, Duration::ZERO, code);
        let answer = asked.await?;
        Ok(Session { producer_id: answer.producer_id.0, epoch: answer.producer_epoch })
    }

    async fn write(&self, cluster: &Cluster, state: &mut State, work: Work) -> Outcome<Written> {
        let session = state.session.ok_or_else(|| Failure::unheard("no transaction was begun"))?;
        state.is_ready = false;
        self.add_partitions(cluster, session, &work.parts).await?;
        let mut writes = Vec::new();
        for part in work.parts {
            let place = (part.topic.clone(), part.partition);
            let sequence = state.written.get(&place).copied().unwrap_or(0);
            let writer = Writer { producer_id: session.producer_id, epoch: session.epoch, sequence };
            writes.push((writer, part));
        }
        let logged_at = work.logged_at;
        // Compressing megabytes takes tens of milliseconds: off the runtime.
        let encoded = tokio::task::spawn_blocking(move || {
            let encoded = writes.into_iter().map(|(writer, part)| {
                let bytes = encode(&part.records, writer, logged_at, part.compression)?;
                Ok(Encoded { topic: part.topic, partition: part.partition, count: part.records.len() as i32, bytes })
            });
            encoded.collect::<Outcome<Vec<_>>>()
        });
        let encoded = encoded.await.map_err(|panic| Failure::Refused(panic.to_string()))??;
        let written = self.produce_patiently(cluster, &encoded).await?;
        for part in encoded {
            let sequence = state.written.entry((part.topic, part.partition)).or_default();
            *sequence = next_sequence(*sequence, part.count);
        }
        Ok(written)
    }

    async fn add_partitions(&self, cluster: &Cluster, session: Session, parts: &[Part]) -> Outcome<()> {
        let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
        parts.iter().for_each(|part| topics.entry(&part.topic).or_default().push(part.partition));
        let topics = topics
            .into_iter()
            .map(|(topic, partitions)| {
                AddPartitionsToTxnTopic::default().with_name(name(topic)).with_partitions(partitions)
            })
            .collect();
        let request = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(self.transactional_id())
            .with_v3_and_below_producer_id(ProducerId(session.producer_id))
            .with_v3_and_below_producer_epoch(session.epoch)
            .with_v3_and_below_topics(topics);
        let code = |answer: &kafka_protocol::messages::AddPartitionsToTxnResponse| {
            let topics = answer.results_by_topic_v3_and_below.iter();
            let mut codes = topics.flat_map(|topic| &topic.results_by_partition).map(|part| part.partition_error_code);
            // The others were not tried then, which says less.
            let not_tried = ResponseError::OperationNotAttempted.code();
            let code = codes.find(|code| *code != 0 && *code != not_tried).unwrap_or(0);
            (code, "beginning a transaction")
        };
        cluster.ask_coordinator(Coordinates::Transaction, &self.id, &request, Duration::ZERO, code).await.map(drop)
    }

    /// The same bytes with the same numbers may be sent again: brokers answer what they know with its offset.
    async fn produce_patiently(&self, cluster: &Cluster, parts: &[Encoded]) -> Outcome<Written> {
        for pause in PAUSES_MS {
            match self.produce(cluster, parts).await {
                Err(failure) if failure.may_pass() => {
                    parts.iter().for_each(|part| cluster.forget(&part.topic));
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                }
                produced => return produced,
            }
        }
        self.produce(cluster, parts).await
    }

    async fn produce(&self, cluster: &Cluster, parts: &[Encoded]) -> Outcome<Written> {
        let mut by_leader: BTreeMap<i32, BTreeMap<&str, Vec<PartitionProduceData>>> = BTreeMap::new();
        for part in parts {
            let leaders = cluster.leaders(&part.topic).await?.unwrap_or_default();
            let leader = leaders.get(part.partition as usize).copied();
            let leader = leader.ok_or_else(|| Failure::unheard(format!("`{}` is not there", part.topic)))?;
            let data =
                PartitionProduceData::default().with_index(part.partition).with_records(Some(part.bytes.clone()));
            by_leader.entry(leader).or_default().entry(&part.topic).or_default().push(data);
        }
        let timeout = i32::try_from(cluster.settings().request_timeout_ms).unwrap_or(i32::MAX);
        let request = |topics: BTreeMap<&str, Vec<PartitionProduceData>>| {
            let topic = |(topic, partitions)| {
                TopicProduceData::default().with_name(name(topic)).with_partition_data(partitions)
            };
            ProduceRequest::default()
                .with_transactional_id(Some(self.transactional_id()))
                .with_acks(-1)
                .with_timeout_ms(timeout)
                .with_topic_data(topics.into_iter().map(topic).collect())
        };
        let requests = by_leader.into_iter().map(|(leader, topics)| (leader, request(topics))).collect();
        let answers = cluster.ask_each(requests).await?;
        parts.iter().try_fold(Written::default(), |mut written, part| {
            let from = base_offset(&answers, part)?;
            let range = OffsetRange { partition: part.partition, from, to: from + i64::from(part.count) };
            written.ranges.push((part.topic.clone(), range));
            written.bytes += part.bytes.len() as u64;
            Ok(written)
        })
    }

    async fn end(&self, cluster: &Cluster, state: &mut State, is_commit: bool) -> Outcome<()> {
        let session = state.session.ok_or_else(|| Failure::unheard("no transaction was begun"))?;
        let request = EndTxnRequest::default()
            .with_transactional_id(self.transactional_id())
            .with_producer_id(ProducerId(session.producer_id))
            .with_producer_epoch(session.epoch)
            .with_committed(is_commit);
        let code = |answer: &kafka_protocol::messages::EndTxnResponse| (answer.error_code, "ending a transaction");
        cluster.ask_coordinator(Coordinates::Transaction, &self.id, &request, Duration::ZERO, code).await?;
        state.is_ready = true;
        Ok(())
    }

    /// After a failure the transaction is undone now, since readers wait for its end.
    async fn undo(&self, cluster: &Cluster, state: &mut State, failure: Failure) -> Failure {
        let made_anew = self.prepare(cluster, state).await;
        match made_anew {
            // Ours was the newest: the transaction had taken too long.
            Ok(()) if failure.is_fenced() => Failure::unheard(format!("a transaction of `{}` took too long", self.id)),
            Err(fenced) if fenced.is_fenced() => fenced,
            _ => failure,
        }
    }

    /// Waits until the markers of the last transaction are written, before which no reader sees what it holds.
    /// Where a broker does not tell (before Kafka 3.0), readers see it a little later.
    async fn until_visible(&self, cluster: &Cluster) {
        let request = DescribeTransactionsRequest::default().with_transactional_ids(vec![self.transactional_id()]);
        let code = |answer: &kafka_protocol::messages::DescribeTransactionsResponse| {
            (answer.transaction_states.first().map_or(0, |state| state.error_code), "looking at the transactions")
        };
        let until = Instant::now() + VISIBLE_WAIT;
        let mut pause = Duration::from_micros(500);
        while Instant::now() < until {
            let asked = cluster.ask_coordinator(Coordinates::Transaction, &self.id, &request, Duration::ZERO, code);
            let Ok(answer) = asked.await else { return };
            let is_ending = |state: &str| state.starts_with("Prepare");
            if !answer.transaction_states.iter().any(|state| is_ending(&state.transaction_state)) {
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    fn transactional_id(&self) -> TransactionalId {
        TransactionalId(StrBytes::from_string(self.id.clone()))
    }
}

struct Encoded {
    topic: String,
    partition: Partition,
    count: i32,
    bytes: Bytes,
}

fn base_offset(answers: &[ProduceResponse], part: &Encoded) -> Outcome<i64> {
    let topics = answers.iter().flat_map(|answer| &answer.responses).filter(|topic| topic.name.as_str() == part.topic);
    let mut partitions = topics.flat_map(|topic| &topic.partition_responses);
    let answer = partitions.find(|answer| answer.index == part.partition);
    let answer = answer.ok_or_else(|| Failure::unheard(format!("nothing was said of `{}`", part.topic)))?;
    check(answer.error_code, || {
        let reason = answer.error_message.as_ref().map(|reason| format!(" ({})", reason.as_str())).unwrap_or_default();
        format!("writing {} bytes to partition {} of `{}`{reason}", part.bytes.len(), part.partition, part.topic)
    })?;
    Ok(answer.base_offset)
}

/// Sequence numbers go on at 0 behind the highest number.
fn next_sequence(sequence: i32, count: i32) -> i32 {
    ((i64::from(sequence) + i64::from(count)) % (i64::from(i32::MAX) + 1)) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_numbers_begin_again_behind_the_highest() {
        assert_eq!(next_sequence(0, 5), 5);
        assert_eq!(next_sequence(i32::MAX, 1), 0);
        assert_eq!(next_sequence(i32::MAX - 1, 4), 2);
    }
}
