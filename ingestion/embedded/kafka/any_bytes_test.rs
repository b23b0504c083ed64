//! Any bytes as a request and as a batch: they are taken or refused, and nothing panics or takes memory that it must not.

use bytes::{BufMut, Bytes, BytesMut};
use contract::Timestamp;
use kafka_protocol::messages::*;
use kafka_protocol::records::{
    Compression, Record, RecordBatchDecoder, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};
use proptest::prelude::*;

use super::api::APIS;
use super::incoming::accept;
use super::request::Request;

/// Decodes a request as the type of its API; answers whether it could be.
fn is_read(request: &Request) -> bool {
    macro_rules! read {
        ($($key:ident => $type:ty),*) => {
            match request.api.key {
                $(ApiKey::$key => request.read::<$type>().is_ok(),)*
                other => panic!("{other:?} is not listed here"),
            }
        };
    }
    read!(
        Produce => ProduceRequest, Fetch => FetchRequest, ListOffsets => ListOffsetsRequest, Metadata => MetadataRequest,
        OffsetCommit => OffsetCommitRequest, OffsetFetch => OffsetFetchRequest,
        FindCoordinator => FindCoordinatorRequest, JoinGroup => JoinGroupRequest, Heartbeat => HeartbeatRequest,
        LeaveGroup => LeaveGroupRequest, SyncGroup => SyncGroupRequest, DescribeGroups => DescribeGroupsRequest,
        ListGroups => ListGroupsRequest, ApiVersions => ApiVersionsRequest, CreateTopics => CreateTopicsRequest,
        InitProducerId => InitProducerIdRequest, DescribeConfigs => DescribeConfigsRequest,
        DescribeCluster => DescribeClusterRequest, DeleteGroups => DeleteGroupsRequest
    )
}

fn frame(key: i16, version: i16, body: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(key);
    out.put_i16(version);
    out.put_i32(1);
    out.put_i16(-1);
    out.extend_from_slice(body);
    out.freeze()
}

fn batch(compression: Compression) -> Vec<u8> {
    let record = |number: i64| Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: 0,
        producer_id: 9,
        producer_epoch: 0,
        timestamp_type: TimestampType::Creation,
        offset: number,
        sequence: number as i32,
        timestamp: 5_000 + number,
        key: Some(Bytes::from(format!("key {number}"))),
        value: (number != 2).then(|| Bytes::from("value ".repeat(number as usize))),
        headers: [("a".into(), Some("b".into())), ("c".into(), None)].into_iter().collect(),
    };
    let records: Vec<Record> = (0..5).map(record).collect();
    let mut out = BytesMut::new();
    RecordBatchEncoder::encode(&mut out, &records, &RecordEncodeOptions { version: 2, compression }).unwrap();
    out.to_vec()
}

#[test]
fn a_list_is_not_believed_before_its_elements_are_seen() {
    // An element of Metadata takes a byte here and some hundreds when decoded.
    for (count, fits) in [(19_000_i32, true), (30_000, false)] {
        let body = [&count.to_be_bytes()[..], &vec![0xff; 2 * count as usize]].concat();
        assert_eq!(Request::parse(&frame(3, 0, &body)).is_ok(), fits);
    }
}

proptest! {
    #[test]
    fn any_bytes_as_a_request_are_read_or_refused(
        place in 0..APIS.len(),
        version: prop::sample::Index,
        body in prop::collection::vec(prop_oneof![3 => 0_u8..4, 1 => any::<u8>()], 0..160),
    ) {
        let api = &APIS[place];
        let version = api.first + version.index((api.last - api.first + 1) as usize) as i16;
        if let Ok(request) = Request::parse(&frame(api.key as i16, version, &body)) {
            is_read(&request);
        }
    }

    #[test]
    fn any_bytes_as_a_frame_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        if let Ok(request) = Request::parse(&bytes.into()) {
            is_read(&request);
        }
    }

    #[test]
    fn what_is_taken_into_the_log_others_can_read(
        codec in 0..5_usize,
        changes in prop::collection::vec((16..200_usize, any::<u8>()), 0..3),
    ) {
        use Compression::{Gzip, Lz4, None, Snappy, Zstd};
        let mut bytes = batch([None, Gzip, Snappy, Lz4, Zstd][codec]);
        for (place, byte) in changes {
            let place = place % bytes.len();
            bytes[place] = byte;
        }
        let crc = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        if let Ok(taken) = accept(&bytes.into(), Timestamp(7_000_000)) {
            let mut bytes = Bytes::from(taken.batch.bytes);
            let read = RecordBatchDecoder::decode(&mut bytes).unwrap();
            prop_assert_eq!(read.records.len(), taken.batch.records as usize);
        }
    }
}
