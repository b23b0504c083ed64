//! How far topics reach, and what is said of it to the brokers.

use std::collections::BTreeMap;

use contract::{Extent, Offset, Partition, PartitionExtent, Positions};
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::{
    BrokerId, DeleteRecordsRequest, DescribeLogDirsRequest, GroupId, ListOffsetsRequest, OffsetCommitRequest,
};
use kafka_protocol::protocol::StrBytes;

use crate::cluster::{Cluster, Coordinates, name};
use crate::failure::{Failure, Outcome, check};

/// Which end of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Edge {
    /// The first offset still there.
    Start = -2,
    /// The next offset to be given, also behind transactions that are still open.
    End = -1,
}

/// The partitions of a topic by the broker that leads them.
pub(crate) async fn by_leader(cluster: &Cluster, topic: &str) -> Outcome<BTreeMap<i32, Vec<Partition>>> {
    let mut led: BTreeMap<i32, Vec<Partition>> = BTreeMap::new();
    for (partition, leader) in (0..).zip(cluster.leaders(topic).await?.unwrap_or_default()) {
        led.entry(leader).or_default().push(partition);
    }
    Ok(led)
}

/// One edge of each partition; of no partition where there is no such topic.
pub(crate) async fn list(cluster: &Cluster, topic: &str, edge: Edge) -> Outcome<Positions> {
    let listed = list_once(cluster, topic, edge).await;
    match listed {
        Err(failure) if failure.may_pass() => {
            cluster.forget(topic);
            list_once(cluster, topic, edge).await
        }
        listed => listed,
    }
}

async fn list_once(cluster: &Cluster, topic: &str, edge: Edge) -> Outcome<Positions> {
    let request = |partitions: Vec<Partition>| {
        let partition = |partition: Partition| {
            ListOffsetsPartition::default().with_partition_index(partition).with_timestamp(edge as i64)
        };
        let partitions = partitions.into_iter().map(partition).collect();
        ListOffsetsRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_topics(vec![ListOffsetsTopic::default().with_name(name(topic)).with_partitions(partitions)])
    };
    let requests = by_leader(cluster, topic).await?.into_iter().map(|(leader, parts)| (leader, request(parts)));
    let mut positions = Positions::default();
    for answer in cluster.ask_each(requests.collect()).await? {
        for part in answer.topics.iter().flat_map(|topic| &topic.partitions) {
            check(part.error_code, || format!("asking how far `{topic}` partition {} reaches", part.partition_index))?;
            positions.0.insert(part.partition_index, part.offset);
        }
    }
    Ok(positions)
}

/// How far each partition reaches; bytes are 0 where the brokers do not tell them to this user.
pub(crate) async fn extent(cluster: &Cluster, topic: &str) -> Outcome<Extent> {
    let start = list(cluster, topic, Edge::Start).await?;
    let end = list(cluster, topic, Edge::End).await?;
    let bytes = sizes(cluster, topic).await.unwrap_or_default();
    let partitions = end.0.iter().map(|(&partition, &end)| PartitionExtent {
        start: start.of(partition),
        end,
        bytes: bytes.get(&partition).copied().unwrap_or(0),
    });
    Ok(Extent { partitions: partitions.collect() })
}

/// Bytes on the leaders' disks.
async fn sizes(cluster: &Cluster, topic: &str) -> Outcome<BTreeMap<Partition, u64>> {
    let request = |partitions: Vec<Partition>| {
        let topic = DescribableLogDirTopic::default().with_topic(name(topic)).with_partitions(partitions);
        DescribeLogDirsRequest::default().with_topics(Some(vec![topic]))
    };
    let requests = by_leader(cluster, topic).await?.into_iter().map(|(leader, parts)| (leader, request(parts)));
    let mut sizes = BTreeMap::new();
    for answer in cluster.ask_each(requests.collect()).await? {
        for part in answer.results.iter().flat_map(|result| &result.topics).flat_map(|topic| &topic.partitions) {
            let size: &mut u64 = sizes.entry(part.partition_index).or_default();
            *size = (*size).max(part.partition_size.unsigned_abs());
        }
    }
    Ok(sizes)
}

/// Who says how far a group is.
pub(crate) struct Committer {
    /// Empty where the group has no members: partitions are chosen by who reads.
    pub(crate) member: StrBytes,
    /// -1 then.
    pub(crate) generation: i32,
}

impl Committer {
    /// Of a process that reads everything alone.
    pub(crate) fn alone() -> Self {
        Self { member: StrBytes::default(), generation: -1 }
    }
}

/// Tells the group's coordinator how far the group is, topic by topic, for tools that show lag.
pub(crate) async fn commit(
    cluster: &Cluster,
    group: &str,
    at: &BTreeMap<String, Positions>,
    committer: Committer,
) -> Outcome<()> {
    let partition = |(&partition, &offset): (&Partition, &Offset)| {
        OffsetCommitRequestPartition::default().with_partition_index(partition).with_committed_offset(offset)
    };
    let topic = |(topic, at): (&String, &Positions)| {
        let partitions = at.0.iter().map(partition).collect();
        OffsetCommitRequestTopic::default().with_name(name(topic)).with_partitions(partitions)
    };
    let request = OffsetCommitRequest::default()
        .with_group_id(GroupId(StrBytes::from_string(group.to_owned())))
        .with_member_id(committer.member)
        .with_generation_id_or_member_epoch(committer.generation)
        .with_topics(at.iter().map(topic).collect());
    let code = |answer: &kafka_protocol::messages::OffsetCommitResponse| {
        let mut codes = answer.topics.iter().flat_map(|topic| &topic.partitions).map(|part| part.error_code);
        (codes.find(|code| *code != 0).unwrap_or(0), "committing offsets")
    };
    cluster.ask_coordinator(Coordinates::Group, group, &request, std::time::Duration::ZERO, code).await.map(drop)
}

/// Lets go of all below an offset, so that the partition starts there.
pub(crate) async fn delete_below(cluster: &Cluster, topic: &str, partition: Partition, offset: Offset) -> Outcome<()> {
    let leaders = cluster.leaders(topic).await?.unwrap_or_default();
    let leader = leaders.get(partition as usize).copied();
    let leader = leader.ok_or_else(|| Failure::unheard(format!("`{topic}` has no partition {partition}")))?;
    let part = DeleteRecordsPartition::default().with_partition_index(partition).with_offset(offset);
    let topics = vec![DeleteRecordsTopic::default().with_name(name(topic)).with_partitions(vec![part])];
    let timeout = i32::try_from(cluster.settings().request_timeout_ms).unwrap_or(i32::MAX);
    let request = DeleteRecordsRequest::default().with_topics(topics).with_timeout_ms(timeout);
    let answer = cluster.ask_broker(leader, &request, std::time::Duration::ZERO).await?;
    let parts = answer.topics.iter().flat_map(|topic| &topic.partitions);
    parts.into_iter().try_for_each(|part| check(part.error_code, || format!("beginning `{topic}` at {offset}")))
}
