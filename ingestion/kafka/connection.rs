//! One connection to one broker: one request at a time.
//! Source: <https://kafka.apache.org/protocol>.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use contract::{Error, Result};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, RequestHeader, ResponseHeader, SaslAuthenticateRequest, SaslHandshakeRequest,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::failure::{Failure, Outcome, check};
use crate::sasl::{Mechanism, Scram, plain};
use crate::settings::Settings;
use crate::tls;

/// Bytes of one answer: a fetch asks for fewer, and one batch may exceed what it asks for.
const ANSWER_BYTES_MAX: usize = 160 << 20;

/// The requests we make, with the highest version we speak. Higher ones name topics by numbers (produce 13, fetch 13),
/// leave out a request on which older brokers rely (produce 12), or count a transaction's end as a new epoch (end 5).
const SPOKEN: &[(ApiKey, i16)] = &[
    (ApiKey::Produce, 11),
    (ApiKey::Fetch, 12),
    (ApiKey::ListOffsets, 7),
    (ApiKey::Metadata, 12),
    (ApiKey::OffsetCommit, 8),
    (ApiKey::FindCoordinator, 3),
    (ApiKey::JoinGroup, 7),
    (ApiKey::Heartbeat, 4),
    (ApiKey::LeaveGroup, 4),
    (ApiKey::SyncGroup, 5),
    (ApiKey::DescribeGroups, 5),
    (ApiKey::SaslHandshake, 1),
    (ApiKey::ApiVersions, 3),
    (ApiKey::CreateTopics, 7),
    (ApiKey::DeleteRecords, 2),
    (ApiKey::InitProducerId, 4),
    (ApiKey::AddPartitionsToTxn, 3),
    (ApiKey::EndTxn, 3),
    (ApiKey::DescribeConfigs, 4),
    (ApiKey::DescribeLogDirs, 4),
    (ApiKey::WriteTxnMarkers, 1),
    (ApiKey::SaslAuthenticate, 2),
    (ApiKey::DescribeProducers, 0),
    (ApiKey::DescribeTransactions, 0),
    (ApiKey::ListTransactions, 1),
];

/// What every connection needs to know.
pub(crate) struct Dialer {
    pub(crate) settings: Settings,
    tls: Option<TlsConnector>,
    mechanism: Option<Mechanism>,
}

impl Dialer {
    /// # Errors
    /// `Change` when a setting is wrong.
    pub(crate) fn new(settings: Settings) -> Result<Self> {
        settings.checked()?;
        let named = Some(settings.sasl_mechanism.as_str()).filter(|name| !name.is_empty());
        let unknown = |name: &str| {
            let known = Mechanism::ALL.map(Mechanism::name).join(", ");
            Error::change(format!("log in to Kafka by `kafka.sasl_mechanism = \"{name}\"` (known: {known})"))
        };
        let mechanism = named.map(|name| Mechanism::of_name(name).ok_or_else(|| unknown(name))).transpose()?;
        Ok(Self { tls: tls::connector(&settings)?, mechanism, settings })
    }

    fn password(&self) -> Outcome<String> {
        let file = &self.settings.sasl_password_file;
        if file.is_empty() {
            return Ok(self.settings.sasl_password.reveal().unwrap_or_default().to_owned());
        }
        let read = std::fs::read_to_string(file);
        let refused = |cause| Failure::Refused(format!("the password file `{file}` cannot be read: {cause}"));
        read.map(|text| text.trim_end_matches(['\r', '\n']).to_owned()).map_err(refused)
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for S {}

/// One connection. Dropped in the middle of a request, it is closed: nothing else is ever read from it.
pub(crate) struct Connection {
    stream: Box<dyn Stream>,
    /// The highest version that the broker takes of each request.
    versions: Arc<HashMap<i16, (i16, i16)>>,
    client_id: StrBytes,
    next: i32,
    pub(crate) used_at: Instant,
}

impl Connection {
    pub(crate) async fn open(dialer: &Dialer, host: &str, port: u16) -> Outcome<Self> {
        let limit = dialer.settings.connect_timeout();
        let opened = tokio::time::timeout(limit, Self::open_unlimited(dialer, host, port)).await;
        opened.unwrap_or_else(|_| {
            Err(Failure::unheard(format!("`{host}:{port}` took no connection within {} ms", limit.as_millis())))
        })
    }

    async fn open_unlimited(dialer: &Dialer, host: &str, port: u16) -> Outcome<Self> {
        let away = |cause: std::io::Error| Failure::unheard(format!("`{host}:{port}` takes no connection: {cause}"));
        let stream = TcpStream::connect((host, port)).await.map_err(away)?;
        stream.set_nodelay(true).map_err(away)?;
        let stream: Box<dyn Stream> = match &dialer.tls {
            None => Box::new(stream),
            Some(tls) => {
                let name = ServerName::try_from(host.to_owned());
                let name = name.map_err(|_| Failure::Refused(format!("`{host}` is no name for TLS")))?;
                let refused = |cause| Failure::Refused(format!("TLS with `{host}:{port}` failed: {cause}"));
                Box::new(tls.connect(name, stream).await.map_err(refused)?)
            }
        };
        let client_id = StrBytes::from_string(dialer.settings.client_id.clone());
        let mut connection = Self { stream, versions: Arc::default(), client_id, next: 0, used_at: Instant::now() };
        connection.learn_versions(host, port).await?;
        if let Some(mechanism) = dialer.mechanism {
            connection.log_in(dialer, mechanism).await?;
        }
        Ok(connection)
    }

    async fn learn_versions(&mut self, host: &str, port: u16) -> Outcome<()> {
        let request = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str("databroker"))
            .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")));
        let answer = self.ask_version(&request, 3).await.map_err(|failure| match failure {
            Failure::Unheard(text) => Failure::unheard(format!(
                "`{host}:{port}` does not speak Kafka as set (is it a TLS or SASL listener? is it Kafka 2.4 or newer?): {text}"
            )),
            other => other,
        })?;
        check(answer.error_code, || "asking for versions".to_owned())?;
        let versions = answer.api_keys.iter().map(|api| (api.api_key, (api.min_version, api.max_version)));
        self.versions = Arc::new(versions.collect());
        Ok(())
    }

    async fn log_in(&mut self, dialer: &Dialer, mechanism: Mechanism) -> Outcome<()> {
        let username = dialer.settings.sasl_username.as_str();
        let password = dialer.password()?;
        let request = SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str(mechanism.name()));
        let answer = self.ask_once(&request).await?;
        if answer.error_code != 0 {
            let offered: Vec<_> = answer.mechanisms.iter().map(|name| name.to_string()).collect();
            let (wanted, offered) = (mechanism.name(), offered.join(", "));
            return Err(Failure::Refused(format!("the broker does not take `{wanted}` (it takes: {offered})")));
        }
        if mechanism == Mechanism::Plain {
            return self.say(plain(username, &password)).await.map(drop);
        }
        let mut random = [0_u8; 18];
        getrandom::fill(&mut random).map_err(|cause| Failure::Refused(format!("no random bytes: {cause}")))?;
        let nonce = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, random);
        let mut scram = Scram::new(mechanism, username, &password, nonce);
        let challenge = self.say(scram.first()).await?;
        let answer = scram.answer(&challenge).map_err(Failure::Refused)?;
        let last = self.say(answer).await?;
        scram.check(&last).map_err(Failure::Refused)
    }

    async fn say(&mut self, message: Vec<u8>) -> Outcome<Bytes> {
        let answer = self.ask_once(&SaslAuthenticateRequest::default().with_auth_bytes(message.into())).await?;
        let reason = answer.error_message.as_ref().map(ToString::to_string).unwrap_or_default();
        check(answer.error_code, || format!("logging in ({reason})"))?;
        Ok(answer.auth_bytes)
    }

    /// Sends a request and waits for its answer, `limit` at the longest.
    pub(crate) async fn ask<R: Request>(&mut self, request: &R, limit: Duration) -> Outcome<R::Response> {
        let answered = tokio::time::timeout(limit, self.ask_once(request)).await;
        answered.unwrap_or_else(|_| Err(Failure::unheard(format!("no answer within {} ms", limit.as_millis()))))
    }

    async fn ask_once<R: Request>(&mut self, request: &R) -> Outcome<R::Response> {
        let spoken = SPOKEN.iter().find(|(key, _)| *key as i16 == R::KEY).map_or(0, |(_, version)| *version);
        let Some(&(least, most)) = self.versions.get(&R::KEY) else {
            return Err(Failure::Refused(format!("the broker does not know requests of the kind {}", R::KEY)));
        };
        let version = most.min(spoken);
        if version < least.max(R::VERSIONS.min) {
            return Err(Failure::Refused(format!(
                "the broker takes requests of the kind {} in versions {least} to {most} only, and we speak {} to {spoken}",
                R::KEY,
                R::VERSIONS.min
            )));
        }
        self.ask_version(request, version).await
    }

    async fn ask_version<R: Request>(&mut self, request: &R, version: i16) -> Outcome<R::Response> {
        self.next = self.next.wrapping_add(1);
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.next)
            .with_client_id(Some(self.client_id.clone()));
        let unsayable = |cause| Failure::Refused(format!("request {} version {version}: {cause}", R::KEY));
        let mut out = BytesMut::new();
        out.put_i32(0);
        header.encode(&mut out, R::header_version(version)).map_err(unsayable)?;
        request.encode(&mut out, version).map_err(unsayable)?;
        let length = i32::try_from(out.len() - 4).map_err(|_| Failure::Refused("a request above 2 GiB".to_owned()))?;
        out[..4].copy_from_slice(&length.to_be_bytes());
        let mut body = self.exchange(out.freeze()).await.map_err(|cause| Failure::unheard(cause.to_string()))?;
        self.used_at = Instant::now();
        let malformed = |cause| Failure::unheard(format!("the answer to request {} is malformed: {cause}", R::KEY));
        let header = ResponseHeader::decode(&mut body, R::Response::header_version(version)).map_err(malformed)?;
        if header.correlation_id != self.next {
            return Err(Failure::unheard("the answer is one to another request"));
        }
        R::Response::decode(&mut body, version).map_err(malformed)
    }

    async fn exchange(&mut self, request: Bytes) -> std::io::Result<Bytes> {
        self.stream.write_all(&request).await?;
        self.stream.flush().await?;
        let length = self.stream.read_i32().await?;
        let length = usize::try_from(length).ok().filter(|length| *length <= ANSWER_BYTES_MAX);
        let length = length.ok_or_else(|| std::io::Error::other("an answer of an impossible length"))?;
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await?;
        Ok(body.into())
    }
}
