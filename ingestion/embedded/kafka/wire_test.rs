//! What a client on the wire meets: every version of every API, batches that must not enter the log, and bytes meant to
//! do harm.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use contract::{Log, Positions, SourceId, Timestamp, Topic};
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
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use kafka_protocol::records::{
    Compression, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, Record, RecordBatchEncoder, RecordEncodeOptions,
    TimestampType,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::api::APIS;
use super::{Server, serve};
use crate::{EmbeddedLog, Settings};

const SOURCE: SourceId = SourceId("github");
const TOPIC: TopicName = TopicName(StrBytes::from_static_str("app"));

struct Served {
    server: Server,
    stop: CancellationToken,
    log: Arc<EmbeddedLog>,
}

impl Served {
    async fn start(folder: &Path) -> Self {
        let settings = Settings {
            partitions: 2,
            kafka_listen: "127.0.0.1:0".to_owned(),
            kafka_produce_topics: vec!["app".to_owned(), "new.*".to_owned()],
            ..Settings::default()
        };
        let clock = Arc::new(|| Timestamp(1_700_000_000_000_000));
        let (log, _) = EmbeddedLog::open(folder, &[SOURCE], settings, clock).unwrap();
        let (log, stop) = (Arc::new(log), CancellationToken::new());
        let server = serve(log.clone(), stop.clone()).await.unwrap().unwrap();
        Self { server, stop, log }
    }

    async fn client(&self) -> Client {
        Client { stream: TcpStream::connect(self.server.address).await.unwrap() }
    }

    /// Stops; the log is closed when it returns.
    async fn end(self) {
        self.stop.cancel();
        self.server.ended().await;
        assert_eq!(Arc::strong_count(&self.log), 1, "nothing holds the log any more");
    }

    async fn ends(&self) -> Positions {
        self.log.extents().await.unwrap()[&Topic("app".to_owned())].end()
    }
}

struct Client {
    stream: TcpStream,
}

impl Client {
    async fn ask<R: Request>(&mut self, request: &R, version: i16) -> R::Response {
        self.stream.write_all(&framed(request, version)).await.unwrap();
        let mut answer = self.answer().await.unwrap_or_else(|| panic!("{} of version {version} closed it", R::KEY));
        ResponseHeader::decode(&mut answer, R::Response::header_version(version)).unwrap();
        let read = R::Response::decode(&mut answer, version).unwrap();
        assert!(!answer.has_remaining(), "{} of version {version}", R::KEY);
        read
    }

    /// The next frame; none if the connection is closed.
    async fn answer(&mut self) -> Option<Bytes> {
        let length = self.stream.read_i32().await.ok()?;
        let mut answer = vec![0; length as usize];
        self.stream.read_exact(&mut answer).await.ok()?;
        Some(answer.into())
    }

    /// Sends bytes; answers whether the connection was closed then.
    async fn is_closed_by(mut self, bytes: &[u8]) -> bool {
        // It may be closed before it has taken all.
        self.stream.write_all(bytes).await.unwrap_or_default();
        tokio::time::timeout(Duration::from_secs(20), self.answer()).await.expect("closed or answered").is_none()
    }
}

fn framed<R: Request>(request: &R, version: i16) -> Bytes {
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(7)
        .with_client_id(Some("test".into()));
    let mut out = BytesMut::new();
    out.put_i32(0);
    header.encode(&mut out, R::header_version(version)).unwrap();
    request.encode(&mut out, version).unwrap();
    let length = (out.len() - 4) as i32;
    out[..4].copy_from_slice(&length.to_be_bytes());
    out.freeze()
}

fn versions(key: ApiKey) -> std::ops::RangeInclusive<i16> {
    let api = APIS.iter().find(|api| api.key == key).unwrap();
    api.first..=api.last
}

fn records(producer: (i64, i16, i32), count: usize, compression: Compression) -> Bytes {
    let record = |number: usize| Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: 0,
        producer_id: producer.0,
        producer_epoch: producer.1,
        timestamp_type: TimestampType::Creation,
        offset: number as i64,
        sequence: if producer.2 == NO_SEQUENCE { NO_SEQUENCE } else { producer.2 + number as i32 },
        timestamp: 5_000 + number as i64,
        key: Some(Bytes::from(format!("key {number}"))),
        value: Some(Bytes::from("value ".repeat(number))),
        headers: Default::default(),
    };
    let records: Vec<Record> = (0..count).map(record).collect();
    let mut out = BytesMut::new();
    RecordBatchEncoder::encode(&mut out, &records, &RecordEncodeOptions { version: 2, compression }).unwrap();
    out.freeze()
}

fn plain(count: usize) -> Bytes {
    records((NO_PRODUCER_ID, NO_PRODUCER_EPOCH, NO_SEQUENCE), count, Compression::None)
}

fn produce(records: Bytes) -> ProduceRequest {
    let partition = PartitionProduceData::default().with_index(0).with_records(Some(records));
    let topic = TopicProduceData::default().with_name(TOPIC).with_partition_data(vec![partition]);
    ProduceRequest::default().with_acks(-1).with_topic_data(vec![topic])
}

/// Error and offset of what was produced.
async fn produced(client: &mut Client, records: Bytes) -> (i16, i64) {
    let answer = client.ask(&produce(records), 9).await;
    let partition = &answer.responses[0].partition_responses[0];
    (partition.error_code, partition.base_offset)
}

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

#[tokio::test]
async fn a_batch_that_comes_again_is_taken_once_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let batch = |first| records((77, 0, first), 5, Compression::Zstd);
    let served = Served::start(folder.path()).await;
    let mut client = served.client().await;
    assert_eq!(produced(&mut client, batch(0)).await, (0, 0));
    assert_eq!(produced(&mut client, batch(5)).await, (0, 5));
    assert_eq!(produced(&mut client, batch(15)).await.0, 45, "5 are missing");
    drop(client);
    served.end().await;
    let served = Served::start(folder.path()).await;
    let mut client = served.client().await;
    assert_eq!(produced(&mut client, batch(5)).await, (0, 5));
    assert_eq!(produced(&mut client, batch(0)).await, (0, 0));
    assert_eq!(produced(&mut client, batch(10)).await, (0, 10));
    assert_eq!(served.ends().await.of(0), 15);
}

#[tokio::test]
async fn a_batch_that_others_could_not_read_never_enters_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path()).await;
    let mut client = served.client().await;
    let whole = plain(3);
    // Each change is signed anew, except for the first.
    let mut wrong: Vec<(&str, i16, Bytes)> = Vec::new();
    let mut change = |what: &'static str, error: i16, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = whole.to_vec();
        change(&mut bytes);
        let crc = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        wrong.push((what, error, bytes.into()));
    };
    change("an old version", 43, &|bytes| bytes[16] = 1);
    change("a length beyond the end", 87, &|bytes| bytes[11] += 1);
    change("a second batch behind it", 87, &|bytes| bytes.extend_from_slice(&plain(1)));
    change("a transaction", 53, &|bytes| bytes[22] |= 16);
    change("a control batch", 87, &|bytes| bytes[22] |= 32);
    change("an unknown codec", 87, &|bytes| bytes[22] |= 6);
    change("another codec", 87, &|bytes| bytes[22] |= 4);
    change("more records than there are", 87, &|bytes| (bytes[26], bytes[60]) = (3, 4));
    change("fewer records than there are", 87, &|bytes| (bytes[26], bytes[60]) = (1, 2));
    change("no records", 87, &|bytes| (bytes[60], bytes[26]) = (0, 255));
    change("another last offset", 87, &|bytes| bytes[26] = 7);
    change("a record that is longer", 87, &|bytes| bytes[61] += 2);
    change("another offset of a record", 87, &|bytes| bytes[64] = 4);
    change("a producer without numbers", 87, &|bytes| bytes[43] = 0);
    let mut torn = whole.to_vec();
    torn[70] ^= 1;
    wrong.push(("a checksum that differs", 2, torn.into()));
    wrong.push(("less than a header", 87, whole.slice(..40)));
    let bomb = records((-1, -1, NO_SEQUENCE), 6_000, Compression::Zstd);
    assert!(bomb.len() < 1 << 20, "it is small until it is unpacked");
    wrong.push(("more than the memory for it", 87, bomb));
    for (what, error, bytes) in wrong {
        assert_eq!(produced(&mut client, bytes).await, (error, -1), "{what}");
    }
    assert_eq!(served.ends().await.of(0), 0);
    assert_eq!(produced(&mut client, whole).await, (0, 0));
}

#[tokio::test]
async fn what_is_no_request_closes_its_connection_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path()).await;
    let mut other = served.client().await;
    let head = |key: i16, version: i16| {
        let mut bytes = BytesMut::new();
        bytes.put_i16(key);
        bytes.put_i16(version);
        bytes.put_i32(1);
        bytes.put_i16(-1);
        bytes
    };
    let frame = |body: &[u8]| [&(body.len() as i32).to_be_bytes()[..], body].concat();
    let with = |key, version, body: &[u8]| frame(&[&head(key, version)[..], body].concat());
    let hostile = [
        b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        i32::MAX.to_be_bytes().to_vec(),
        (-1_i32).to_be_bytes().to_vec(),
        0_i32.to_be_bytes().to_vec(),
        frame(b"\0\x03\0"),
        with(999, 0, b""),
        with(-1, 0, b""),
        with(3, 99, b""),
        with(3, -1, b""),
        // A client's id that is longer than the frame.
        frame(b"\0\x03\0\x01\0\0\0\x01\x7f\xffabc"),
        // Two thousand million topics, and as many in the compact form.
        with(3, 1, &i32::MAX.to_be_bytes()),
        with(3, 9, b"\0\xff\xff\xff\xff\x07"),
        // A negative number of topics, and a number that never ends.
        with(3, 1, &(-2_i32).to_be_bytes()),
        with(3, 9, b"\0\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01"),
        // Tagged fields of 4 GB; elements of one byte, more than a request may have.
        with(3, 9, b"\0\x01\0\0\0\x01\x01\xff\xff\xff\xff\x0f"),
        with(23, 0, &[&30_000_i32.to_be_bytes()[..], &[0; 60_000]].concat()),
        with(15, 5, &[&b"\0\xff\xff\x03"[..], &[1; 65_600]].concat()),
        // Text that is none.
        with(3, 1, b"\0\0\0\x01\0\x02\xff\xfe"),
    ];
    for (place, bytes) in hostile.iter().enumerate() {
        assert!(served.client().await.is_closed_by(bytes).await, "the one of number {place} was answered");
    }
    assert_eq!(other.ask(&MetadataRequest::default().with_topics(None), 9).await.topics.len(), 3);
    let whole = framed(&MetadataRequest::default().with_topics(None), 9);
    let longer = frame(&[&whole[4..], b"\0\0\0"].concat());
    assert!(!served.client().await.is_closed_by(&longer).await, "librdkafka sends some bytes too many");
}

#[tokio::test]
async fn a_newer_apiversions_is_answered_with_what_is_spoken() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path()).await;
    let mut client = served.client().await;
    client.stream.write_all(b"\0\0\0\x0a\0\x12\0\x63\0\0\0\x05\xff\xff").await.unwrap();
    let mut answer = client.answer().await.unwrap();
    assert_eq!(answer.get_i32(), 5);
    let versions = ApiVersionsResponse::decode(&mut answer, 0).unwrap();
    assert_eq!(versions.error_code, 35);
    assert_eq!(versions.api_keys[0].min_version, 0, "or old librdkafka takes it that nothing may be compressed");
    assert_eq!(client.ask(&ApiVersionsRequest::default(), 3).await.error_code, 0, "it may go on");
}

#[tokio::test]
async fn a_fetch_waits_for_records_and_no_longer_than_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path()).await;
    let (mut reader, mut writer) = (served.client().await, served.client().await);
    let partition = FetchPartition::default().with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default().with_topic(TOPIC).with_partitions(vec![partition]);
    let fetch = FetchRequest::default().with_max_bytes(1 << 20).with_min_bytes(1).with_topics(vec![topic]);
    let started = std::time::Instant::now();
    let empty = reader.ask(&fetch.clone().with_max_wait_ms(120), 11).await;
    assert!(empty.responses[0].partitions[0].records.as_ref().is_none_or(Bytes::is_empty));
    assert!(started.elapsed() >= Duration::from_millis(120));
    let fetch = fetch.with_max_wait_ms(30_000);
    let (answer, _) = tokio::join!(reader.ask(&fetch, 11), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        produced(&mut writer, plain(2)).await
    });
    assert!(answer.responses[0].partitions[0].records.as_ref().is_some_and(|records| records.len() > 61));
    assert!(started.elapsed() < Duration::from_secs(20));
}
