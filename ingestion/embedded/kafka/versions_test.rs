//! Every version of every API is answered, with what belongs to it.

use bytes::{Buf, Bytes};
use contract::{Log, Topic};
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::produce_request::TopicProduceData;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;

use super::api::APIS;
use super::testing::{Client, Served, TOPIC, plain, produce, versions};

#[tokio::test]
async fn every_version_of_what_reads_and_writes_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path()).await;
    let mut client = served.client().await;
    for version in versions(ApiKey::ApiVersions) {
        let answer = client.ask(&ApiVersionsRequest::default(), version).await;
        assert_eq!((answer.error_code, answer.api_keys.len()), (0, APIS.len()));
    }
    for (place, version) in versions(ApiKey::Produce).enumerate() {
        let answer = client.ask(&produce(plain(3)), version).await;
        let partition = &answer.responses[0].partition_responses[0];
        assert_eq!((partition.error_code, partition.base_offset), (0, 3 * place as i64), "version {version}");
        let closed = produce(plain(1));
        let topic = TopicProduceData::default().with_name(TopicName("github.raw".into()));
        let closed = closed
            .clone()
            .with_topic_data(vec![topic.with_partition_data(closed.topic_data[0].partition_data.clone())]);
        assert_eq!(client.ask(&closed, version).await.responses[0].partition_responses[0].error_code, 29);
    }
    for version in versions(ApiKey::Fetch) {
        let partition = FetchPartition::default().with_fetch_offset(4).with_partition_max_bytes(1 << 20);
        let topic = FetchTopic::default().with_topic(TOPIC).with_partitions(vec![partition]);
        let answer =
            client.ask(&FetchRequest::default().with_max_bytes(1 << 20).with_topics(vec![topic]), version).await;
        let mut records = answer.responses[0].partitions[0].records.clone().unwrap();
        assert_eq!(records.get_i64(), 3, "whole batches from the one that holds the offset");
    }
    for version in versions(ApiKey::ListOffsets) {
        for (timestamp, offset) in [(-2, 0), (-1, 27), (-3, 26), (0, 0), (1_700_000_000_001, -1)] {
            let partition = ListOffsetsPartition::default().with_timestamp(timestamp);
            let topic = ListOffsetsTopic::default().with_name(TOPIC).with_partitions(vec![partition]);
            let answer = client.ask(&ListOffsetsRequest::default().with_topics(vec![topic]), version).await;
            assert_eq!(answer.topics[0].partitions[0].offset, offset, "time {timestamp}");
        }
    }
}

#[tokio::test]
async fn every_version_of_what_describes_and_creates_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path()).await;
    let mut client = served.client().await;
    for version in versions(ApiKey::Metadata) {
        let answer = client.ask(&MetadataRequest::default().with_topics(Some(Vec::new())), version).await;
        assert_eq!(answer.topics.len(), if version == 0 { 3 } else { 0 });
        let names = [TOPIC, TopicName("none".into())].map(|name| MetadataRequestTopic::default().with_name(Some(name)));
        let answer = client.ask(&MetadataRequest::default().with_topics(Some(names.into())), version).await;
        assert_eq!(answer.topics.iter().map(|topic| topic.error_code).collect::<Vec<_>>(), [0, 3]);
        assert_eq!(answer.brokers[0].port, i32::from(served.server.address.port()));
    }
    for version in versions(ApiKey::InitProducerId) {
        assert!(
            client.ask(&InitProducerIdRequest::default().with_transactional_id(None), version).await.producer_id.0 > 0
        );
        let transactional = InitProducerIdRequest::default().with_transactional_id(Some(TransactionalId("t".into())));
        assert_eq!(client.ask(&transactional, version).await.error_code, 53);
    }
    for version in versions(ApiKey::DescribeCluster) {
        assert_eq!(client.ask(&DescribeClusterRequest::default(), version).await.brokers.len(), 1);
    }
    for version in versions(ApiKey::DescribeConfigs) {
        let resource = DescribeConfigsResource::default().with_resource_type(2).with_resource_name("app".into());
        let request = DescribeConfigsRequest::default().with_resources(vec![resource.with_configuration_keys(None)]);
        assert!(client.ask(&request, version).await.results[0].configs.len() > 5);
    }
    for version in versions(ApiKey::CreateTopics) {
        let topic = |name: String| CreatableTopic::default().with_name(TopicName(StrBytes::from_string(name)));
        let topics = [format!("new.{version}"), "app".to_owned(), "other".to_owned(), "new./".to_owned()].map(topic);
        let topics = topics.map(|topic| topic.with_num_partitions(2).with_replication_factor(1));
        let answer = client.ask(&CreateTopicsRequest::default().with_topics(topics.into()), version).await;
        assert_eq!(answer.topics.iter().map(|topic| topic.error_code).collect::<Vec<_>>(), [0, 36, 44, 17]);
    }
    drop(client);
    served.end().await;
    let again = Served::start(folder.path()).await;
    assert_eq!(again.log.extents().await.unwrap()[&Topic("new.7".to_owned())].partitions.len(), 2, "topics stay");
}

#[tokio::test]
async fn every_version_of_what_groups_ask_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path()).await;
    let mut client = served.client().await;
    let group = GroupId("g".into());
    let (member, generation) = join_and_share(&mut client, &group).await;
    commit_and_fetch(&mut client, &group, &member, generation).await;
    describe_and_leave(&mut client, group, member).await;
}

async fn join_and_share(client: &mut Client, group: &GroupId) -> (StrBytes, i32) {
    for version in versions(ApiKey::FindCoordinator) {
        let request = FindCoordinatorRequest::default();
        let request =
            if version < 4 { request.with_key("g".into()) } else { request.with_coordinator_keys(vec!["g".into()]) };
        let answer = client.ask(&request, version).await;
        assert_eq!(answer.error_code + answer.coordinators.first().map_or(0, |found| found.error_code), 0);
    }
    let protocol =
        JoinGroupRequestProtocol::default().with_name("range".into()).with_metadata(Bytes::from_static(b"m"));
    let join = JoinGroupRequest::default().with_group_id(group.clone()).with_session_timeout_ms(10_000);
    let join = join.with_protocol_type("consumer".into()).with_protocols(vec![protocol]);
    let (mut member, mut generation) = (StrBytes::default(), 0);
    for version in versions(ApiKey::JoinGroup) {
        let asked = join.clone().with_member_id(member.clone());
        let asked = if version >= 1 { asked.with_rebalance_timeout_ms(10_000) } else { asked };
        let answer = client.ask(&asked, version).await;
        assert_eq!((answer.error_code, answer.members.len()), (0, 1), "version {version}");
        (member, generation) = (answer.member_id, answer.generation_id);
    }
    for version in versions(ApiKey::SyncGroup) {
        let assigned = SyncGroupRequestAssignment::default().with_member_id(member.clone()).with_assignment("a".into());
        let asked = SyncGroupRequest::default().with_group_id(group.clone()).with_generation_id(generation);
        let asked = asked.with_member_id(member.clone()).with_assignments(vec![assigned]);
        let answer = client.ask(&asked, version).await;
        assert_eq!((answer.error_code, &answer.assignment[..]), (0, &b"a"[..]));
    }
    for version in versions(ApiKey::Heartbeat) {
        let asked = HeartbeatRequest::default().with_group_id(group.clone()).with_generation_id(generation);
        assert_eq!(client.ask(&asked.clone().with_member_id(member.clone()), version).await.error_code, 0);
        assert_eq!(client.ask(&asked.with_member_id("other".into()), version).await.error_code, 25);
    }
    (member, generation)
}

async fn commit_and_fetch(client: &mut Client, group: &GroupId, member: &StrBytes, generation: i32) {
    for version in versions(ApiKey::OffsetCommit) {
        let place = OffsetCommitRequestPartition::default().with_committed_offset(version.into());
        let unknown = place.clone().with_partition_index(9);
        let topic = OffsetCommitRequestTopic::default().with_name(TOPIC).with_partitions(vec![place, unknown]);
        let asked = OffsetCommitRequest::default().with_group_id(group.clone()).with_topics(vec![topic]);
        let asked = asked.with_generation_id_or_member_epoch(generation).with_member_id(member.clone());
        let answer = client.ask(&asked, version).await;
        assert_eq!(answer.topics[0].partitions.iter().map(|one| one.error_code).collect::<Vec<_>>(), [0, 3]);
        let stale = asked.with_generation_id_or_member_epoch(generation - 1);
        assert_eq!(client.ask(&stale, version).await.topics[0].partitions[0].error_code, 22);
    }
    for version in versions(ApiKey::OffsetFetch) {
        let found = if version < 8 {
            let topic = OffsetFetchRequestTopic::default().with_name(TOPIC).with_partition_indexes(vec![0, 1]);
            let asked = OffsetFetchRequest::default().with_group_id(group.clone()).with_topics(Some(vec![topic]));
            let answer = client.ask(&asked, version).await;
            answer.topics[0].partitions.iter().map(|one| one.committed_offset).collect::<Vec<_>>()
        } else {
            let topic = OffsetFetchRequestTopics::default().with_name(TOPIC).with_partition_indexes(vec![0, 1]);
            let asked = OffsetFetchRequestGroup::default().with_group_id(group.clone()).with_topics(Some(vec![topic]));
            let answer = client.ask(&OffsetFetchRequest::default().with_groups(vec![asked]), version).await;
            answer.groups[0].topics[0].partitions.iter().map(|one| one.committed_offset).collect()
        };
        assert_eq!(found, [8, -1]);
    }
}

async fn describe_and_leave(client: &mut Client, group: GroupId, member: StrBytes) {
    for version in versions(ApiKey::DescribeGroups) {
        let answer = client.ask(&DescribeGroupsRequest::default().with_groups(vec![group.clone()]), version).await;
        assert_eq!((answer.groups[0].group_state.as_str(), answer.groups[0].members.len()), ("Stable", 1));
    }
    for version in versions(ApiKey::ListGroups) {
        assert_eq!(client.ask(&ListGroupsRequest::default(), version).await.groups[0].group_id, group);
    }
    for version in versions(ApiKey::DeleteGroups) {
        let asked = DeleteGroupsRequest::default().with_groups_names(vec![group.clone()]);
        assert_eq!(client.ask(&asked, version).await.results[0].error_code, 68);
    }
    for version in versions(ApiKey::LeaveGroup) {
        let asked = LeaveGroupRequest::default().with_group_id(group.clone());
        let identity = MemberIdentity::default().with_member_id(member.clone());
        let asked = if version < 3 { asked.with_member_id(member.clone()) } else { asked.with_members(vec![identity]) };
        let answer = client.ask(&asked, version).await;
        let error = answer.members.first().map_or(answer.error_code, |member| member.error_code);
        assert_eq!(error, if version == 0 { 0 } else { 25 });
    }
    let asked = DeleteGroupsRequest::default().with_groups_names(vec![group]);
    assert_eq!(client.ask(&asked.clone(), 2).await.results[0].error_code, 0);
    assert_eq!(client.ask(&asked, 2).await.results[0].error_code, 69);
}
