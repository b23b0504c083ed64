//! One connection: requests are read, answered and written one after the other, as Kafka does it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use contract::metric;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;
use kafka_protocol::protocol::StrBytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::request::{Request, Unfit, frame};
use super::{Kafka, fetch, list_offsets, metadata, offsets, produce, text, topics};

/// Bytes of one request: a batch at its limit, and others beside it. What speaks HTTP or TLS to this port seems to send
/// hundreds of megabytes.
const REQUEST_BYTES_MAX: usize = 32 << 20;

/// Bytes of a request that carries no records: it may wait for minutes, as Fetch and JoinGroup do, and its bytes with it.
/// One with as many elements as a request may have is smaller.
const SMALL_REQUEST_BYTES_MAX: usize = 1 << 20;

/// Bytes of all requests in memory at a time.
const REQUESTS_BYTES_MAX: usize = 96 << 20;

/// The unit in which they are counted. Smaller requests are not: a connection has one at a time.
const UNIT_BYTES: usize = 64 << 10;

/// Answers to Fetch in memory at a time, each of some megabytes.
const ANSWERS_MAX: usize = 16;

/// After so long without a request a connection is closed, as Kafka does by default; clients connect again.
const IDLE_MAX: Duration = Duration::from_secs(600);

/// How long the rest of a request, the memory for it, or the taking of an answer may take.
const TRANSFER_MAX: Duration = Duration::from_secs(30);

/// What all connections may hold together.
pub(crate) struct Limits {
    request_units: Arc<Semaphore>,
    answers: Arc<Semaphore>,
}

impl Limits {
    pub(crate) fn new() -> Self {
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        Self { request_units: semaphore(REQUESTS_BYTES_MAX / UNIT_BYTES), answers: semaphore(ANSWERS_MAX) }
    }
}

/// Who asks, and where it reached us.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    host: StrBytes,
    port: u16,
}

impl Peer {
    pub(crate) fn of(stream: &TcpStream, address: SocketAddr, told: Option<&(String, u16)>) -> std::io::Result<Self> {
        stream.set_nodelay(true)?;
        let local = stream.local_addr()?;
        let (host, port) = told.map_or_else(|| (local.ip().to_string(), local.port()), Clone::clone);
        Ok(Self { address, host: text(&host), port })
    }

    /// The host and port that it is told to come to.
    pub(crate) fn reached(&self) -> (StrBytes, i32) {
        (self.host.clone(), self.port.into())
    }
}

/// Why a connection is closed by us.
enum Closed {
    /// The client went, or is gone.
    Gone(std::io::Error),
    Idle,
    /// It sends or takes too slowly.
    Slow(&'static str),
    Length(i32),
    Unfit(Unfit),
    /// A producer that wants no answer is told so that a batch was refused.
    Refused,
    Defect(String),
}

impl Closed {
    fn reason(&self) -> &'static str {
        match self {
            Self::Gone(_) => "gone",
            Self::Idle => "idle",
            Self::Slow(_) => "slow",
            Self::Length(_) => "length",
            Self::Unfit(unfit) => unfit.reason(),
            Self::Refused => "refused",
            Self::Defect(_) => "defect",
        }
    }
}

type Answer = (Bytes, Option<OwnedSemaphorePermit>);

pub(crate) struct Connection {
    kafka: Arc<Kafka>,
    limits: Arc<Limits>,
    peer: Peer,
    stream: TcpStream,
}

impl Connection {
    pub(crate) fn new(kafka: Arc<Kafka>, limits: Arc<Limits>, peer: Peer, stream: TcpStream) -> Self {
        Self { kafka, limits, peer, stream }
    }

    /// Serves it until the client ends it, or does what is not allowed.
    pub(crate) async fn serve(mut self) {
        let Err(closed) = self.run().await else { return };
        metric::KAFKA_CLOSED.add(&[closed.reason()], 1);
        let client = self.peer.address;
        match closed {
            Closed::Gone(cause) => tracing::debug!(%client, %cause, "a Kafka client is gone"),
            Closed::Idle => tracing::debug!(%client, "a Kafka client was idle and is closed"),
            Closed::Refused => tracing::debug!(%client, "a batch that wanted no answer was refused"),
            Closed::Slow(doing) => tracing::warn!(%client, "closed a Kafka client: {doing} took too long"),
            Closed::Length(length) => {
                tracing::warn!(%client, "closed a Kafka client: a request of {length} bytes (1 to {REQUEST_BYTES_MAX})");
            }
            Closed::Unfit(unfit) => tracing::warn!(%client, "closed a Kafka client: {unfit}"),
            Closed::Defect(defect) => tracing::error!(%client, "closed a Kafka client, by a defect of ours: {defect}"),
        }
    }

    async fn run(&mut self) -> Result<(), Closed> {
        while let Some((request, units)) = self.next_request().await? {
            let answer = self.answer(request, units).await?;
            if let Some((bytes, permit)) = answer {
                let written = timeout(TRANSFER_MAX, self.stream.write_all(&bytes)).await;
                written.map_err(|_| Closed::Slow("taking an answer"))?.map_err(Closed::Gone)?;
                drop(permit);
            }
        }
        Ok(())
    }

    /// The next request, and the units that are held for it; none if the client ended the connection.
    async fn next_request(&mut self) -> Result<Option<(Request, Option<OwnedSemaphorePermit>)>, Closed> {
        loop {
            let mut length = [0; 4];
            match timeout(IDLE_MAX, self.stream.read_exact(&mut length)).await.map_err(|_| Closed::Idle)? {
                Ok(_) => {}
                Err(cause) if cause.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
                Err(cause) => return Err(Closed::Gone(cause)),
            }
            let length = i32::from_be_bytes(length);
            let bytes = usize::try_from(length).unwrap_or(0);
            if !(1..=REQUEST_BYTES_MAX).contains(&bytes) {
                return Err(Closed::Length(length));
            }
            let units = self.units_for(bytes).await?;
            let frame = self.read_frame(bytes).await?;
            match Request::parse(&frame) {
                Ok(request) if request.api.key != ApiKey::Produce && bytes > SMALL_REQUEST_BYTES_MAX => {
                    return Err(Closed::Length(length));
                }
                Ok(request) => return Ok(Some((request, units))),
                Err(Unfit::Version { api: "ApiVersions", correlation, .. }) => self.tell_versions(correlation).await?,
                Err(unfit) => return Err(Closed::Unfit(unfit)),
            }
        }
    }

    async fn units_for(&self, bytes: usize) -> Result<Option<OwnedSemaphorePermit>, Closed> {
        let units = (bytes / UNIT_BYTES) as u32;
        if units == 0 {
            return Ok(None);
        }
        let granted = timeout(TRANSFER_MAX, Arc::clone(&self.limits.request_units).acquire_many_owned(units)).await;
        Ok(Some(granted.map_err(|_| Closed::Slow("the memory for a request"))?.expect("never closed")))
    }

    /// Reserves as the bytes come, not as the client says that they will.
    async fn read_frame(&mut self, bytes: usize) -> Result<Bytes, Closed> {
        let mut frame = BytesMut::with_capacity(bytes.min(UNIT_BYTES));
        let mut rest = (&mut self.stream).take(bytes as u64);
        let reading = async {
            while frame.len() < bytes {
                if rest.read_buf(&mut frame).await? == 0 {
                    return Err(std::io::ErrorKind::UnexpectedEof.into());
                }
            }
            Ok(())
        };
        timeout(TRANSFER_MAX, reading).await.map_err(|_| Closed::Slow("a request"))?.map_err(Closed::Gone)?;
        Ok(frame.freeze())
    }

    /// A client that speaks a newer ApiVersions is told which we speak, in the oldest form.
    async fn tell_versions(&mut self, correlation: i32) -> Result<(), Closed> {
        let versions = metadata::api_versions().with_error_code(ResponseError::UnsupportedVersion.code());
        let bytes = frame(correlation, false, &versions, 0).map_err(Closed::Defect)?;
        self.stream.write_all(&bytes).await.map_err(Closed::Gone)
    }

    async fn answer(&self, request: Request, units: Option<OwnedSemaphorePermit>) -> Result<Option<Answer>, Closed> {
        metric::KAFKA_REQUESTS.add(&[request.api.name], 1);
        let (kafka, version) = (&self.kafka, request.version);
        let answer = match request.api.key {
            ApiKey::Fetch => return self.fetch(&request).await.map(Some),
            ApiKey::Produce => {
                let asked: kafka_protocol::messages::ProduceRequest = request.read().map_err(Closed::Unfit)?;
                let wants_no_answer = asked.acks == 0;
                let answer = produce::produce(kafka, asked, version).await;
                drop(units);
                if wants_no_answer {
                    let mut partitions = answer.responses.iter().flat_map(|topic| &topic.partition_responses);
                    let is_refused = partitions.any(|partition| partition.error_code != 0);
                    return if is_refused { Err(Closed::Refused) } else { Ok(None) };
                }
                request.answer(&answer)
            }
            ApiKey::ApiVersions => request.answer(&metadata::api_versions()),
            ApiKey::ListOffsets => {
                let asked = request.read().map_err(Closed::Unfit)?;
                request.answer(&list_offsets::list_offsets(kafka, asked).await)
            }
            ApiKey::Metadata => {
                let asked = request.read().map_err(Closed::Unfit)?;
                request.answer(&metadata::metadata(kafka, &self.peer, &asked, version))
            }
            ApiKey::DescribeCluster => {
                let asked = request.read().map_err(Closed::Unfit)?;
                request.answer(&metadata::describe_cluster(&self.peer, &asked))
            }
            ApiKey::FindCoordinator => {
                let asked = request.read().map_err(Closed::Unfit)?;
                request.answer(&metadata::find_coordinator(&self.peer, &asked, version))
            }
            ApiKey::InitProducerId => {
                let asked = request.read().map_err(Closed::Unfit)?;
                request.answer(&produce::init_producer_id(kafka, &asked))
            }
            ApiKey::CreateTopics => {
                let asked = request.read().map_err(Closed::Unfit)?;
                request.answer(&topics::create_topics(kafka, asked, version).await)
            }
            ApiKey::DescribeConfigs => {
                let asked = request.read().map_err(Closed::Unfit)?;
                request.answer(&topics::describe_configs(kafka, &asked, version))
            }
            _ => return self.answer_group(&request).await,
        };
        answer.map(|bytes| Some((bytes, None))).map_err(Closed::Defect)
    }

    /// What members of groups ask, and what is asked about groups.
    async fn answer_group(&self, request: &Request) -> Result<Option<Answer>, Closed> {
        let (kafka, version) = (&self.kafka, request.version);
        let coordinator = &kafka.coordinator;
        let answer = match request.api.key {
            ApiKey::JoinGroup => {
                let asked = request.read().map_err(Closed::Unfit)?;
                request.answer(&coordinator.join(&self.peer, &request.client_id, asked, version).await)
            }
            ApiKey::SyncGroup => {
                let asked = request.read().map_err(Closed::Unfit)?;
                request.answer(&coordinator.sync(asked, version).await)
            }
            ApiKey::Heartbeat => {
                let asked = request.read().map_err(Closed::Unfit)?;
                request.answer(&coordinator.heartbeat(&asked))
            }
            ApiKey::LeaveGroup => {
                let asked = request.read().map_err(Closed::Unfit)?;
                request.answer(&coordinator.leave(&asked, version))
            }
            ApiKey::DescribeGroups => {
                let asked = request.read().map_err(Closed::Unfit)?;
                request.answer(&coordinator.describe(kafka, &asked, version))
            }
            ApiKey::ListGroups => {
                let asked = request.read().map_err(Closed::Unfit)?;
                request.answer(&coordinator.list(kafka, &asked, version))
            }
            ApiKey::OffsetCommit => {
                let asked = request.read().map_err(Closed::Unfit)?;
                request.answer(&offsets::commit(kafka, asked, version).await)
            }
            ApiKey::OffsetFetch => {
                let asked = request.read().map_err(Closed::Unfit)?;
                request.answer(&offsets::fetch(kafka, &asked, version))
            }
            ApiKey::DeleteGroups => {
                let asked = request.read().map_err(Closed::Unfit)?;
                request.answer(&offsets::delete_groups(kafka, &asked).await)
            }
            _ => return Err(Closed::Defect(format!("{} has no handler", request.api.name))),
        };
        answer.map(|bytes| Some((bytes, None))).map_err(Closed::Defect)
    }

    /// The answer may take megabytes until the client has taken it, so it holds one of few places.
    async fn fetch(&self, request: &Request) -> Result<Answer, Closed> {
        let asked = request.read().map_err(Closed::Unfit)?;
        let (answer, permit) = fetch::fetch(&self.kafka, &self.limits.answers, asked).await;
        let bytes = request.answer(&answer).map_err(Closed::Defect)?;
        let is_small = bytes.len() < UNIT_BYTES;
        Ok((bytes, permit.filter(|_| !is_small)))
    }
}
