//! ListOffsets: where a partition starts and ends, and where it stood at a point in time.
//! Source: <https://kafka.apache.org/protocol#The_Messages_ListOffsets>.

use std::sync::Arc;

use contract::Topic;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use kafka_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};

use super::slices::{Appended, first_since, last};
use super::{Kafka, fetch::bounds, topic_of};
use crate::shared::Shared;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
/// The record with the highest time, which here is the last one.
const HIGHEST_TIME: i64 = -3;
/// Where a partition has nothing to answer.
const NONE: Appended = Appended { offset: -1, milliseconds: -1 };

pub(crate) async fn list_offsets(kafka: &Kafka, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let shared = Arc::clone(&kafka.log.shared);
    let topics = tokio::task::spawn_blocking(move || {
        let answer = |asked: &kafka_protocol::messages::list_offsets_request::ListOffsetsTopic| {
            let topic = topic_of(&asked.name);
            let partitions = asked.partitions.iter().map(|partition| look_up(&shared, &topic, partition)).collect();
            ListOffsetsTopicResponse::default().with_name(asked.name.clone()).with_partitions(partitions)
        };
        request.topics.iter().map(answer).collect()
    });
    ListOffsetsResponse::default().with_topics(topics.await.unwrap_or_default())
}

fn look_up(shared: &Shared, topic: &Topic, asked: &ListOffsetsPartition) -> ListOffsetsPartitionResponse {
    let answer = ListOffsetsPartitionResponse::default().with_partition_index(asked.partition_index);
    match find(shared, topic, asked) {
        Ok(found) => answer.with_offset(found.offset).with_timestamp(found.milliseconds),
        Err(error) => {
            super::note_error("ListOffsets", error);
            answer.with_error_code(error.code()).with_offset(-1).with_timestamp(-1)
        }
    }
}

fn find(shared: &Shared, topic: &Topic, asked: &ListOffsetsPartition) -> Result<Appended, ResponseError> {
    let place = (topic, asked.partition_index);
    let (start, end) = bounds(shared, place.0, place.1).ok_or(ResponseError::UnknownTopicOrPartition)?;
    let found = match asked.timestamp {
        LATEST => return Ok(Appended { offset: end, ..NONE }),
        EARLIEST => return Ok(Appended { offset: start, ..NONE }),
        HIGHEST_TIME if end == start => Ok(None),
        HIGHEST_TIME => last(shared, place, end),
        before if before < HIGHEST_TIME => return Err(ResponseError::InvalidRequest),
        milliseconds => first_since(shared, place, milliseconds),
    };
    let found = found.map_err(|error| {
        tracing::error!("ListOffsets was not answered: {error}");
        ResponseError::KafkaStorageError
    })?;
    Ok(found.unwrap_or(NONE))
}
