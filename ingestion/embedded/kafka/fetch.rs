//! Fetch: batches as they lie in the files, waited for as long as the client says.
//! Source: <https://kafka.apache.org/protocol#The_Messages_Fetch>.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use contract::{Offset, Partition, Topic};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::FetchPartition;
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::{FetchRequest, FetchResponse};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

use super::{Kafka, slices, topic_of};
use crate::shared::Shared;

/// Bytes of batches in one answer, whatever the client asks for; a larger batch comes alone. Consumers ask for a megabyte
/// of each partition and 50 of all by default: with less they ask more often.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// How long a client may wait for records; by default they ask for half a second.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Answers at once when there is enough, or an error; else when there is, or the time is over.
/// One of the `places` is held while something is read, and until the answer is written.
pub(crate) async fn fetch(
    kafka: &Kafka,
    places: &Arc<Semaphore>,
    request: FetchRequest,
) -> (FetchResponse, Option<OwnedSemaphorePermit>) {
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)).min(WAIT_MAX);
    let until = Instant::now() + wait;
    let wanted = usize::try_from(request.min_bytes).unwrap_or(0).min(ANSWER_BYTES_MAX);
    let request = Arc::new(request);
    let mut changed = kafka.log.shared.changed.subscribe();
    loop {
        changed.borrow_and_update();
        let is_over = wanted == 0 || Instant::now() >= until;
        if !is_over && !has_something(&kafka.log.shared, &request) {
            // Most commits are of other partitions: to see that takes no thread.
            tokio::select! {
                () = sleep_until(until) => {}
                changed = changed.changed() => changed.expect("the sender lives in the log"),
            }
            continue;
        }
        let place = Arc::clone(places).acquire_owned().await.expect("never closed");
        let (shared, asked) = (Arc::clone(&kafka.log.shared), Arc::clone(&request));
        let read = tokio::task::spawn_blocking(move || read(&shared, &asked)).await;
        let (answer, bytes, is_failed) = read.unwrap_or_else(|panic| {
            tracing::error!(%panic, "a Fetch ended by a defect");
            (FetchResponse::default().with_error_code(ResponseError::UnknownServerError.code()), 0, true)
        });
        if is_failed || bytes >= wanted || is_over {
            return (answer, Some(place));
        }
        drop((answer, place));
        tokio::select! {
            () = sleep_until(until) => {}
            changed = changed.changed() => changed.expect("the sender lives in the log"),
        }
    }
}

/// Whether a partition has records or an error to tell.
fn has_something(shared: &Shared, request: &FetchRequest) -> bool {
    let partitions = request.topics.iter().flat_map(|asked| {
        let topic = topic_of(&asked.topic);
        asked.partitions.iter().map(move |partition| (topic.clone(), partition))
    });
    partitions
        .into_iter()
        .any(|(topic, asked)| bounds(shared, &topic, asked.partition).is_none_or(|(_, end)| asked.fetch_offset != end))
}

/// What there is now, its bytes, and whether a partition failed.
fn read(shared: &Shared, request: &FetchRequest) -> (FetchResponse, usize, bool) {
    let mut room = usize::try_from(request.max_bytes).unwrap_or(0).clamp(1, ANSWER_BYTES_MAX);
    let (mut bytes, mut is_failed) = (0, false);
    let mut responses = Vec::with_capacity(request.topics.len());
    for asked in &request.topics {
        let topic = topic_of(&asked.topic);
        let mut partitions = Vec::with_capacity(asked.partitions.len());
        for partition in &asked.partitions {
            let data = read_partition(shared, &topic, partition, room);
            let read = data.records.as_ref().map_or(0, Bytes::len);
            bytes += read;
            room = room.saturating_sub(read);
            is_failed |= data.error_code != 0;
            partitions.push(data);
        }
        responses.push(FetchableTopicResponse::default().with_topic(asked.topic.clone()).with_partitions(partitions));
    }
    (FetchResponse::default().with_responses(responses), bytes, is_failed)
}

fn read_partition(shared: &Shared, topic: &Topic, asked: &FetchPartition, room: usize) -> PartitionData {
    let answer = PartitionData::default()
        .with_partition_index(asked.partition)
        .with_high_watermark(-1)
        .with_last_stable_offset(-1)
        .with_log_start_offset(-1)
        .with_aborted_transactions(None);
    let failed = |error: ResponseError| {
        super::note_error("Fetch", error);
        answer.clone().with_error_code(error.code()).with_records(Some(Bytes::new()))
    };
    let Some((start, end)) = bounds(shared, topic, asked.partition) else {
        return failed(ResponseError::UnknownTopicOrPartition);
    };
    if !(start..=end).contains(&asked.fetch_offset) {
        return failed(ResponseError::OffsetOutOfRange).with_high_watermark(end).with_log_start_offset(start);
    }
    let bytes_max = usize::try_from(asked.partition_max_bytes).unwrap_or(0).min(room);
    let records = if room == 0 || asked.fetch_offset == end {
        Ok(Bytes::new())
    } else {
        slices::batches(shared, (topic, asked.partition), asked.fetch_offset, bytes_max)
    };
    match records {
        Ok(records) => answer
            .with_high_watermark(end)
            .with_last_stable_offset(end)
            .with_log_start_offset(start)
            .with_records(Some(records)),
        Err(error) => {
            tracing::error!("a Fetch was not answered: {error}");
            failed(ResponseError::KafkaStorageError)
        }
    }
}

/// The first offset that is still there and the next one to be given; none if there is no such partition.
pub(crate) fn bounds(shared: &Shared, topic: &Topic, partition: Partition) -> Option<(Offset, Offset)> {
    let state = shared.state();
    let end = *state.ends.0.get(topic)?.get(usize::try_from(partition).ok()?)?;
    Some((state.start(topic, partition), end))
}
