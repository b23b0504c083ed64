//! Produce and InitProducerId. A batch is answered once it is on disk, whatever `acks` asks for.
//! Source: <https://kafka.apache.org/protocol#The_Messages_Produce>.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use contract::{Offset, Partition, Topic};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_request::PartitionProduceData;
use kafka_protocol::messages::produce_response::{LeaderIdAndEpoch, PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{
    InitProducerIdRequest, InitProducerIdResponse, ProduceRequest, ProduceResponse, ProducerId,
};
use tokio::task::JoinSet;

use super::fetch::bounds;
use super::incoming::{Incoming, Refusal, accept};
use super::producers::{Known, Verdict, to_forget};
use super::{Kafka, metadata::NO_TRANSACTIONS, text, topic_of};

/// Where a batch stands.
struct Taken {
    offset: Offset,
    /// Milliseconds since 1970 of its append; -1 for one that came again.
    appended_ms: i64,
}

/// Appends the batches of all partitions at the same time, so that they share one fsync.
pub(crate) async fn produce(kafka: &Arc<Kafka>, request: ProduceRequest, version: i16) -> ProduceResponse {
    let is_transactional = request.transactional_id.is_some();
    let mut tasks = JoinSet::new();
    let mut topics: Vec<TopicProduceResponse> = Vec::with_capacity(request.topic_data.len());
    for (place, asked) in request.topic_data.into_iter().enumerate() {
        let topic = topic_of(&asked.name);
        topics.push(TopicProduceResponse::default().with_name(asked.name));
        for PartitionProduceData { index, records, .. } in asked.partition_data {
            let (kafka, topic) = (Arc::clone(kafka), topic.clone());
            tasks.spawn(async move {
                let taken = take(&kafka, &topic, index, records.unwrap_or_default(), is_transactional).await;
                (place, answer(&kafka, &topic, index, taken, version))
            });
        }
    }
    while let Some(ended) = tasks.join_next().await {
        match ended {
            Ok((place, answer)) => topics[place].partition_responses.push(answer),
            Err(panic) => tracing::error!(%panic, "a Produce ended by a defect"),
        }
    }
    ProduceResponse::default().with_responses(topics)
}

fn answer(
    kafka: &Kafka,
    topic: &Topic,
    index: Partition,
    taken: Result<Taken, Refusal>,
    version: i16,
) -> PartitionProduceResponse {
    let answer = PartitionProduceResponse::default().with_index(index);
    let answer = if version >= 10 { answer.with_current_leader(LeaderIdAndEpoch::default()) } else { answer };
    match taken {
        Ok(Taken { offset, appended_ms }) => {
            let answer = answer.with_base_offset(offset).with_log_append_time_ms(appended_ms);
            let start = bounds(&kafka.log.shared, topic, index).map_or(-1, |(start, _)| start);
            if version >= 5 { answer.with_log_start_offset(start) } else { answer }
        }
        Err((error, reason)) => {
            super::note_error("Produce", error);
            tracing::debug!(%topic, partition = index, %error, "a batch was refused: {reason}");
            let answer = answer.with_error_code(error.code()).with_base_offset(-1).with_log_append_time_ms(-1);
            if version >= 8 { answer.with_error_message(Some(text(&reason))) } else { answer }
        }
    }
}

async fn take(
    kafka: &Arc<Kafka>,
    topic: &Topic,
    partition: Partition,
    records: Bytes,
    is_transactional: bool,
) -> Result<Taken, Refusal> {
    if is_transactional {
        return Err((ResponseError::TransactionalIdAuthorizationFailed, NO_TRANSACTIONS.to_owned()));
    }
    kafka.opened.check(topic)?;
    if bounds(&kafka.log.shared, topic, partition).is_none() {
        return Err((ResponseError::UnknownTopicOrPartition, format!("`{topic}` has no partition {partition}")));
    }
    let appended_at = kafka.log.clock.now();
    let unpacking = kafka.unpacking.acquire().await.expect("never closed");
    let checked = tokio::task::spawn_blocking(move || accept(&records, appended_at)).await;
    drop(unpacking);
    let Incoming { batch, sent } =
        checked.map_err(|panic| (ResponseError::UnknownServerError, panic.to_string()))??;

    let Some(sent) = sent else {
        let encoded = vec![(topic.clone(), partition, batch)];
        let appended = kafka.log.append_encoded(encoded, Box::new(|_| Vec::new()), appended_at).await;
        return taken(appended, appended_at);
    };
    // What it sent before must not change between the look at it and the append.
    let _turn = kafka.turn_of(sent.producer_id, topic, partition).lock().await;
    let (known, mut cursors) = {
        let state = kafka.log.shared.state();
        let known = Known::find(&state, sent.producer_id, topic, partition);
        let forgotten = if known.is_none() { to_forget(&state) } else { Vec::new() };
        (known, forgotten)
    };
    match Known::judge(known.as_ref(), sent) {
        Verdict::Take => {}
        Verdict::Duplicate(offset) => return Ok(Taken { offset, appended_ms: -1 }),
        Verdict::Refuse(error) => return Err((error, error.to_string())),
    }
    let place = topic.clone();
    let noted = Box::new(move |batches: &[crate::frame::Batch]| {
        let offset = batches.first().expect("one was given").base_offset;
        let known = Known::with(known, sent, offset, appended_at);
        cursors.push(known.cursor(sent.producer_id, &place, partition));
        cursors
    });
    let encoded = vec![(topic.clone(), partition, batch)];
    let appended = kafka.log.append_encoded(encoded, noted, appended_at).await;
    taken(appended, appended_at)
}

fn taken(appended: contract::Result<contract::Appended>, appended_at: contract::Timestamp) -> Result<Taken, Refusal> {
    // Clients try again after this error, which is right for a full log too.
    let appended = appended.map_err(|error| (ResponseError::KafkaStorageError, error.to_string()))?;
    let offset = appended.ranges.first().map_or(-1, |range| range.from);
    Ok(Taken { offset, appended_ms: appended_at.0.div_euclid(1_000) })
}

/// Gives ids to idempotent producers: microseconds since 1970, so that none is given again after a restart.
pub(crate) fn init_producer_id(kafka: &Kafka, request: &InitProducerIdRequest) -> InitProducerIdResponse {
    if request.transactional_id.is_some() {
        let error = ResponseError::TransactionalIdAuthorizationFailed;
        super::note_error("InitProducerId", error);
        let none = InitProducerIdResponse::default().with_producer_id(ProducerId(-1)).with_producer_epoch(-1);
        return none.with_error_code(error.code());
    }
    let id = next_producer_id(&kafka.last_producer_id, kafka.log.clock.now().0);
    InitProducerIdResponse::default().with_producer_id(ProducerId(id))
}

fn next_producer_id(last: &AtomicI64, now: i64) -> i64 {
    let next = |last: i64| now.max(last + 1);
    let before = last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last)));
    next(before.unwrap_or_else(|last| last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_producer_id_is_given_twice_even_if_the_clock_stands() {
        let last = AtomicI64::new(0);
        assert_eq!([5, 5, 3, 9].map(|now| next_producer_id(&last, now)), [5, 6, 7, 9]);
    }
}
