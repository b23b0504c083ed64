//! A request: its head, and its body once it is known to fit its API; and the answer's frame.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::ApiKey;
use kafka_protocol::protocol::{Decodable, Encodable};

use super::api::Api;
use super::shape::{fits, skip_tagged};

/// A request whose body fits the shape of its API.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) api: &'static Api,
    pub(crate) version: i16,
    pub(crate) client_id: String,
    correlation: i32,
    body: Bytes,
}

/// Why a frame is no request that can be answered; the connection is closed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// Not even a head.
    Head,
    /// An API that is not answered.
    UnknownApi(i16),
    /// A version that is not answered. For ApiVersions the client is told which are.
    Version { api: &'static str, version: i16, correlation: i32 },
    /// A body whose lengths do not add up, or with too many elements.
    Body { api: &'static str, version: i16 },
}

impl Unfit {
    /// For metrics: few and fixed.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Head | Self::Body { .. } => "malformed",
            Self::UnknownApi(_) => "unknown_api",
            Self::Version { .. } => "unknown_version",
        }
    }
}

impl std::fmt::Display for Unfit {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Head => write!(out, "the head of a request is malformed"),
            Self::UnknownApi(key) => write!(out, "API {key} is not answered here"),
            Self::Version { api, version, .. } => write!(out, "version {version} of {api} is not answered here"),
            Self::Body { api, version } => write!(out, "a request {api} of version {version} is malformed"),
        }
    }
}

impl Request {
    /// Takes a frame apart. Nothing is allocated but the client's id.
    pub(crate) fn parse(frame: &Bytes) -> Result<Self, Unfit> {
        let number = |at: usize| frame.get(at..at + 2).map(|two| i16::from_be_bytes([two[0], two[1]]));
        let (Some(key), Some(version), Some(correlation)) = (number(0), number(2), frame.get(4..8)) else {
            return Err(Unfit::Head);
        };
        let correlation = i32::from_be_bytes(correlation.try_into().expect("four bytes"));
        let api = Api::of(key).ok_or(Unfit::UnknownApi(key))?;
        if !(api.first..=api.last).contains(&version) {
            return Err(Unfit::Version { api: api.name, version, correlation });
        }
        let is_flexible = version >= api.flexible;
        let client_id_bytes = usize::try_from(number(8).ok_or(Unfit::Head)?.max(0)).unwrap_or(0);
        let client_id = frame.get(10..10 + client_id_bytes).ok_or(Unfit::Head)?;
        let client_id = String::from_utf8_lossy(client_id).into_owned();
        let mut left = &frame[10 + client_id_bytes..];
        if is_flexible {
            left = skip_tagged(left).ok_or(Unfit::Head)?;
        }
        if !fits(left, api.shape, version, is_flexible) {
            return Err(Unfit::Body { api: api.name, version });
        }
        let body = frame.slice(frame.len() - left.len()..);
        Ok(Self { api, version, client_id, correlation, body })
    }

    /// The body as its API's type.
    pub(crate) fn read<T: Decodable>(&self) -> Result<T, Unfit> {
        let malformed = || Unfit::Body { api: self.api.name, version: self.version };
        T::decode(&mut self.body.clone(), self.version).map_err(|_| malformed())
    }

    /// The whole frame of the answer.
    pub(crate) fn answer<T: Encodable>(&self, answer: &T) -> Result<Bytes, String> {
        // ApiVersions is answered with the oldest head always, since the client does not know ours yet.
        let is_flexible = self.version >= self.api.flexible && self.api.key != ApiKey::ApiVersions;
        frame(self.correlation, is_flexible, answer, self.version)
            .map_err(|error| format!("{} of version {}: {error}", self.api.name, self.version))
    }
}

/// An answer with its length, its head and its body.
pub(crate) fn frame<T: Encodable>(
    correlation: i32,
    is_flexible: bool,
    answer: &T,
    version: i16,
) -> Result<Bytes, String> {
    let mut out = BytesMut::with_capacity(8 + answer.compute_size(version).map_err(|error| error.to_string())?);
    out.put_i32(0);
    out.put_i32(correlation);
    if is_flexible {
        out.put_u8(0);
    }
    answer.encode(&mut out, version).map_err(|error| error.to_string())?;
    let length = i32::try_from(out.len() - 4).map_err(|error| error.to_string())?;
    out[..4].copy_from_slice(&length.to_be_bytes());
    Ok(out.freeze())
}
