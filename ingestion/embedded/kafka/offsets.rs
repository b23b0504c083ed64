//! How far groups have read: a cursor each, `kafka/group/GROUP`, so that offsets stand in the log and nowhere else.
//! Source: <https://kafka.apache.org/protocol#The_Messages_OffsetCommit>.

use std::collections::BTreeMap;

use contract::{CollectorId, Cursor, Offset, Partition, Timestamp, Topic};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::offset_commit_request::OffsetCommitRequestPartition;
use kafka_protocol::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest,
    OffsetFetchResponse, TopicName,
};
use serde::{Deserialize, Serialize};

use super::coordinator::GROUP_BYTES_MAX;
use super::group::State as GroupState;
use super::{Kafka, fetch::bounds, note_error, text, topic_of};
use crate::frame::CURSOR_BYTES_MAX;
use crate::shared::State;

const PREFIX: &str = "kafka/group/";

/// What a consumer may note beside an offset, as in Kafka.
const METADATA_BYTES_MAX: usize = 4_096;

/// Bytes of all groups' offsets: they are written at the start of each segment. A group with ten partitions takes 400.
const BYTES_MAX: usize = 4 << 20;

/// The offsets of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Offsets {
    topics: BTreeMap<String, BTreeMap<Partition, Stored>>,
    /// Microseconds since 1970 of the last commit.
    at: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stored {
    offset: Offset,
    epoch: i32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    metadata: String,
}

impl Offsets {
    fn find(state: &State, group: &str) -> Option<Self> {
        serde_json::from_str(&state.cursors.get(&name(group))?.0).ok()
    }
}

/// Whether a group has offsets.
pub(crate) fn is_known(kafka: &Kafka, group: &str) -> bool {
    kafka.log.shared.state().cursors.contains_key(&name(group))
}

/// The groups that have offsets.
pub(crate) fn names(kafka: &Kafka) -> Vec<String> {
    let state = kafka.log.shared.state();
    all(&state).map(|(name, _)| name.0[PREFIX.len()..].to_owned()).collect()
}

pub(crate) async fn commit(kafka: &Kafka, request: OffsetCommitRequest, version: i16) -> OffsetCommitResponse {
    let group = request.group_id.to_string();
    let mut errors = BTreeMap::new();
    let outcome = match may_commit(kafka, &request) {
        Ok(()) => store(kafka, &group, &request, version, &mut errors).await,
        Err(error) => Err(error),
    };
    if let Err(error) = outcome {
        note_error("OffsetCommit", error);
    }
    let answer = |topic: &TopicName, asked: &OffsetCommitRequestPartition| {
        let own = errors.get(&(topic_of(topic), asked.partition_index));
        let error = outcome.err().or_else(|| own.copied()).map_or(0, |error| error.code());
        OffsetCommitResponsePartition::default().with_partition_index(asked.partition_index).with_error_code(error)
    };
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|asked| answer(&topic.name, asked)).collect();
        OffsetCommitResponseTopic::default().with_name(topic.name.clone()).with_partitions(partitions)
    });
    OffsetCommitResponse::default().with_topics(topics.collect())
}

/// Members of the present generation may, and anybody while a group has no members.
fn may_commit(kafka: &Kafka, request: &OffsetCommitRequest) -> Result<(), ResponseError> {
    let group_id = request.group_id.as_str();
    if group_id.is_empty() || group_id.len() > GROUP_BYTES_MAX {
        return Err(ResponseError::InvalidGroupId);
    }
    let groups = kafka.coordinator.groups();
    let group = groups.get(group_id).filter(|group| !group.members.is_empty());
    let generation = request.generation_id_or_member_epoch;
    match group {
        None if generation < 0 => Ok(()),
        None => Err(ResponseError::UnknownMemberId),
        Some(group) => {
            group.check(request.member_id.as_str(), request.group_instance_id.as_deref(), generation)?;
            match group.state {
                GroupState::Syncing { .. } => Err(ResponseError::RebalanceInProgress),
                _ => Ok(()),
            }
        }
    }
}

async fn store(
    kafka: &Kafka,
    group: &str,
    request: &OffsetCommitRequest,
    version: i16,
    errors: &mut BTreeMap<(Topic, Partition), ResponseError>,
) -> Result<(), ResponseError> {
    let _turn = kafka.turn_of(0, &Topic(group.to_owned()), 0).lock().await;
    let now = kafka.log.clock.now();
    let mut offsets = Offsets::find(&kafka.log.shared.state(), group).unwrap_or_default();
    let before = offsets.clone();
    for topic in &request.topics {
        let name = topic_of(&topic.name);
        for asked in &topic.partitions {
            let metadata = asked.committed_metadata.as_deref().unwrap_or_default();
            let error = if bounds(&kafka.log.shared, &name, asked.partition_index).is_none() {
                ResponseError::UnknownTopicOrPartition
            } else if metadata.len() > METADATA_BYTES_MAX {
                ResponseError::OffsetMetadataTooLarge
            } else {
                let epoch = if version >= 6 { asked.committed_leader_epoch } else { -1 };
                let stored = Stored { offset: asked.committed_offset, epoch, metadata: metadata.to_owned() };
                offsets.topics.entry(name.0.clone()).or_default().insert(asked.partition_index, stored);
                continue;
            };
            note_error("OffsetCommit", error);
            errors.insert((name.clone(), asked.partition_index), error);
        }
    }
    // A group that only says again where it stands costs no fsync, as long as its age is still about right.
    let is_recent = now.since(Timestamp(before.at)).as_secs() < 3_600;
    if offsets.topics == before.topics && is_recent {
        return Ok(());
    }
    offsets.at = now.0;
    let text = serde_json::to_string(&offsets).expect("texts and numbers are JSON");
    let mut cursors = make_room(kafka, group, text.len(), now)?;
    cursors.push((name(group), Cursor(text)));
    let appended = kafka.log.append_encoded(Vec::new(), Box::new(|_| cursors), now).await;
    appended.map(|_| ()).map_err(|error| {
        tracing::warn!("the offsets of a group were not stored: {error}");
        ResponseError::CoordinatorNotAvailable
    })
}

/// The cursors to remove so that one of `bytes` fits: of groups without members whose last commit is older than what
/// retention keeps, so that what they point at is gone too.
fn make_room(
    kafka: &Kafka,
    group: &str,
    bytes: usize,
    now: Timestamp,
) -> Result<Vec<(CollectorId, Cursor)>, ResponseError> {
    if group.len() + PREFIX.len() + bytes > CURSOR_BYTES_MAX {
        return Err(ResponseError::InvalidCommitOffsetSize);
    }
    let groups = kafka.coordinator.groups();
    let state = kafka.log.shared.state();
    let own = name(group);
    let size = |(name, cursor): (&CollectorId, &Cursor)| name.0.len() + cursor.0.len();
    let mut total: usize = all(&state).filter(|(name, _)| **name != own).map(size).sum::<usize>() + bytes;
    if total <= BYTES_MAX {
        return Ok(Vec::new());
    }
    let retention = std::time::Duration::from_secs(kafka.log.settings.retention_hours.saturating_mul(3_600));
    let is_over = |cursor: &Cursor| {
        serde_json::from_str::<Offsets>(&cursor.0).is_ok_and(|known| now.since(Timestamp(known.at)) > retention)
    };
    let mut removed = Vec::new();
    for (name, cursor) in all(&state).filter(|(name, _)| **name != own) {
        if total > BYTES_MAX && is_over(cursor) && !groups.contains_key(&name.0[PREFIX.len()..]) {
            total -= size((name, cursor));
            removed.push((name.clone(), Cursor::default()));
        }
    }
    if total > BYTES_MAX { Err(ResponseError::InvalidCommitOffsetSize) } else { Ok(removed) }
}

pub(crate) fn fetch(kafka: &Kafka, request: &OffsetFetchRequest, version: i16) -> OffsetFetchResponse {
    if version >= 8 {
        let group = |asked: &kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup| {
            let topics = asked.topics.as_ref();
            let topics =
                topics.map(|topics| topics.iter().map(|t| (t.name.clone(), t.partition_indexes.clone())).collect());
            let found = look_up(kafka, asked.group_id.as_str(), topics).into_iter().map(|(name, partitions)| {
                let partition = |(index, stored): (Partition, Option<Stored>)| {
                    let (offset, epoch, metadata) = parts(stored);
                    OffsetFetchResponsePartitions::default()
                        .with_partition_index(index)
                        .with_committed_offset(offset)
                        .with_committed_leader_epoch(epoch)
                        .with_metadata(Some(text(&metadata)))
                };
                let partitions = partitions.into_iter().map(partition).collect();
                OffsetFetchResponseTopics::default().with_name(name).with_partitions(partitions)
            });
            OffsetFetchResponseGroup::default().with_group_id(asked.group_id.clone()).with_topics(found.collect())
        };
        return OffsetFetchResponse::default().with_groups(request.groups.iter().map(group).collect());
    }
    let topics = request.topics.as_ref();
    let topics = topics.map(|topics| topics.iter().map(|t| (t.name.clone(), t.partition_indexes.clone())).collect());
    let found = look_up(kafka, request.group_id.as_str(), topics).into_iter().map(|(name, partitions)| {
        let partition = |(index, stored): (Partition, Option<Stored>)| {
            let (offset, epoch, metadata) = parts(stored);
            let answer = OffsetFetchResponsePartition::default()
                .with_partition_index(index)
                .with_committed_offset(offset)
                .with_metadata(Some(text(&metadata)));
            if version >= 5 { answer.with_committed_leader_epoch(epoch) } else { answer }
        };
        let partitions = partitions.into_iter().map(partition).collect();
        OffsetFetchResponseTopic::default().with_name(name).with_partitions(partitions)
    });
    OffsetFetchResponse::default().with_topics(found.collect())
}

type Found = Vec<(TopicName, Vec<(Partition, Option<Stored>)>)>;

/// What is stored for the partitions asked for, or for all that have something.
fn look_up(kafka: &Kafka, group: &str, asked: Option<Vec<(TopicName, Vec<Partition>)>>) -> Found {
    let offsets = Offsets::find(&kafka.log.shared.state(), group).unwrap_or_default();
    let Some(asked) = asked else {
        let all = offsets.topics.into_iter().map(|(topic, partitions)| {
            (TopicName(text(&topic)), partitions.into_iter().map(|(p, stored)| (p, Some(stored))).collect())
        });
        return all.collect();
    };
    let stored = |topic: &TopicName, partition| offsets.topics.get(topic.as_str())?.get(&partition).cloned();
    let found = asked.into_iter().map(|(topic, partitions)| {
        let partitions = partitions.into_iter().map(|partition| (partition, stored(&topic, partition))).collect();
        (topic, partitions)
    });
    found.collect()
}

/// Nothing stored is -1.
fn parts(stored: Option<Stored>) -> (Offset, i32, String) {
    stored.map_or((-1, -1, String::new()), |stored| (stored.offset, stored.epoch, stored.metadata))
}

/// Forgets the offsets of groups without members.
pub(crate) async fn delete_groups(kafka: &Kafka, request: &DeleteGroupsRequest) -> DeleteGroupsResponse {
    let mut results = Vec::with_capacity(request.groups_names.len());
    for group_id in &request.groups_names {
        let group = group_id.as_str();
        let has_members = kafka.coordinator.groups().get(group).is_some_and(|group| !group.is_gone());
        let deleted = if has_members {
            Err(ResponseError::NonEmptyGroup)
        } else if is_known(kafka, group) {
            let cursors = vec![(name(group), Cursor::default())];
            let appended = kafka.log.append_encoded(Vec::new(), Box::new(|_| cursors), kafka.log.clock.now()).await;
            appended.map(|_| ()).map_err(|_| ResponseError::CoordinatorNotAvailable)
        } else {
            Err(ResponseError::GroupIdNotFound)
        };
        let error = deleted.map_or_else(|error| error.code(), |()| 0);
        results.push(DeletableGroupResult::default().with_group_id(group_id.clone()).with_error_code(error));
    }
    DeleteGroupsResponse::default().with_results(results)
}

fn all(state: &State) -> impl Iterator<Item = (&CollectorId, &Cursor)> {
    let from = state.cursors.range(CollectorId(PREFIX.to_owned())..);
    from.take_while(|(name, _)| name.0.starts_with(PREFIX))
}

fn name(group: &str) -> CollectorId {
    CollectorId(format!("{PREFIX}{group}"))
}
