//! A served log and a client for the tests on the wire.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use contract::{Log, Positions, SourceId, Timestamp, Topic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use kafka_protocol::records::{Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType};
use kafka_protocol::records::{NO_PRODUCER_EPOCH, NO_PRODUCER_ID};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::api::APIS;
use super::{Server, serve};
use crate::{EmbeddedLog, Settings};

const SOURCE: SourceId = SourceId("github");
pub(crate) const TOPIC: TopicName = TopicName(StrBytes::from_static_str("app"));

pub(crate) struct Served {
    pub(crate) server: Server,
    stop: CancellationToken,
    pub(crate) log: Arc<EmbeddedLog>,
}

impl Served {
    pub(crate) async fn start(folder: &Path) -> Self {
        Self::start_with(folder, Settings::default()).await
    }

    pub(crate) async fn start_with(folder: &Path, settings: Settings) -> Self {
        let settings = Settings {
            partitions: 2,
            kafka_listen: "127.0.0.1:0".to_owned(),
            kafka_produce_topics: vec!["app".to_owned(), "new.*".to_owned()],
            ..settings
        };
        let clock = Arc::new(|| Timestamp(1_700_000_000_000_000));
        let (log, _) = EmbeddedLog::open(folder, &[SOURCE], settings, clock).unwrap();
        let (log, stop) = (Arc::new(log), CancellationToken::new());
        let server = serve(log.clone(), stop.clone()).await.unwrap().unwrap();
        Self { server, stop, log }
    }

    pub(crate) async fn client(&self) -> Client {
        Client { stream: TcpStream::connect(self.server.address).await.unwrap() }
    }

    /// Stops; the log is closed when it returns.
    pub(crate) async fn end(self) {
        self.stop.cancel();
        self.server.ended().await;
        assert_eq!(Arc::strong_count(&self.log), 1, "nothing holds the log any more");
    }

    pub(crate) async fn ends(&self) -> Positions {
        self.log.extents().await.unwrap()[&Topic("app".to_owned())].end()
    }
}

pub(crate) struct Client {
    pub(crate) stream: TcpStream,
}

impl Client {
    pub(crate) async fn ask<R: Request>(&mut self, request: &R, version: i16) -> R::Response {
        self.stream.write_all(&framed(request, version)).await.unwrap();
        let mut answer = self.answer().await.unwrap_or_else(|| panic!("{} of version {version} closed it", R::KEY));
        ResponseHeader::decode(&mut answer, R::Response::header_version(version)).unwrap();
        let read = R::Response::decode(&mut answer, version).unwrap();
        assert!(!answer.has_remaining(), "{} of version {version}", R::KEY);
        read
    }

    /// The next frame; none if the connection is closed.
    pub(crate) async fn answer(&mut self) -> Option<Bytes> {
        let length = self.stream.read_i32().await.ok()?;
        let mut answer = vec![0; length as usize];
        self.stream.read_exact(&mut answer).await.ok()?;
        Some(answer.into())
    }

    /// Sends bytes; answers whether the connection was closed then.
    pub(crate) async fn closes_on(mut self, bytes: &[u8]) -> bool {
        // It may be closed before it has taken all.
        self.stream.write_all(bytes).await.unwrap_or_default();
        tokio::time::timeout(Duration::from_secs(20), self.answer()).await.expect("closed or answered").is_none()
    }
}

pub(crate) fn framed<R: Request>(request: &R, version: i16) -> Bytes {
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

pub(crate) fn versions(key: ApiKey) -> std::ops::RangeInclusive<i16> {
    let api = APIS.iter().find(|api| api.key == key).unwrap();
    api.first..=api.last
}

pub(crate) fn records(producer: (i64, i16, i32), count: usize, compression: Compression) -> Bytes {
    let record = |number: usize| Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: 0,
        producer_id: producer.0,
        producer_epoch: producer.1,
        timestamp_type: TimestampType::Creation,
        offset: number as i64,
        // The encoder begins a new batch where these do not go on.
        sequence: producer.2 + number as i32,
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

pub(crate) fn plain(count: usize) -> Bytes {
    records((NO_PRODUCER_ID, NO_PRODUCER_EPOCH, 0), count, Compression::None)
}

pub(crate) fn produce(records: Bytes) -> ProduceRequest {
    let partition = PartitionProduceData::default().with_index(0).with_records(Some(records));
    let topic = TopicProduceData::default().with_name(TOPIC).with_partition_data(vec![partition]);
    ProduceRequest::default().with_acks(-1).with_topic_data(vec![topic])
}

/// Error and offset of what was produced.
pub(crate) async fn produced(client: &mut Client, records: Bytes) -> (i16, i64) {
    let answer = client.ask(&produce(records), 9).await;
    let partition = &answer.responses[0].partition_responses[0];
    (partition.error_code, partition.base_offset)
}
