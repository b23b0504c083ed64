//! Who may ask, and how much at a time.
//!
//! | danger | held by |
//! | --- | --- |
//! | a page of another site posts to this port | a request with an `Origin` that is not its own `Host` is refused |
//! | a page's name is pointed at this machine (DNS rebinding) | without a token only local names are taken as `Host` |
//! | somebody on the network | an address that others reach needs a token |
//! | somebody posts to a webhook | it takes signed requests only, which it checks itself, and no slot of others |
//! | more work than there is memory | a fixed number of requests at a time, a deadline for each, a limit for bodies |

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::StreamExt;
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use crate::{Door, Settings, api, elasticsearch};

/// Paths that are answered also when all slots are taken: what tells that they are, and what costs nothing.
const ALWAYS_ANSWERED: &[&str] = &["/", "/style.css", "/metrics", "/health/live", "/health/ready"];

/// Bytes of a body that is too long which are read all the same, and let go: more than any webhook sends.
const DISCARDED_BYTES_MAX: u64 = 32 << 20;

/// How long they are read. A sender on a usual line is through by then.
const DISCARD_WAIT: Duration = Duration::from_secs(2);

/// The checks of one port.
pub(crate) struct Guard {
    door: Door,
    token_hash: Option<[u8; 32]>,
    slots: Arc<Semaphore>,
    request_time_max: Duration,
}

/// A request that was let in: its slot, which is free again when the last clone is gone, and its end.
#[derive(Clone)]
pub(crate) struct Admission {
    _slot: Option<Arc<OwnedSemaphorePermit>>,
    /// When its answer is to be complete.
    pub(crate) deadline: Instant,
}

/// Why a request is not served; each port writes it in its own form.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The HTTP status.
    pub(crate) status: StatusCode,
    /// Elasticsearch's name of the error.
    pub(crate) kind: &'static str,
    /// What is wrong, and what would be right.
    pub(crate) reason: String,
}

/// How long a body may be.
#[derive(Clone, Copy)]
pub(crate) struct BodyLimit {
    /// Bytes, also after it was unpacked.
    pub(crate) bytes: usize,
    /// Whose limit it is, for whoever exceeds it.
    pub(crate) name: &'static str,
}

impl Guard {
    pub(crate) fn new(door: Door, settings: &Settings, slots: Arc<Semaphore>) -> Self {
        Self {
            door,
            token_hash: settings.token().map(|token| Sha256::digest(token).into()),
            slots,
            request_time_max: Duration::from_secs(settings.request_seconds_max),
        }
    }

    fn check(&self, path: &str, headers: &HeaderMap) -> Result<(), Refusal> {
        let host = text(headers, header::HOST).unwrap_or_default();
        if let Some(origin) = text(headers, header::ORIGIN) {
            check_origin(origin, host)?;
        }
        if self.is_webhook(path) {
            // The sender knows another name of this host, and no token: the webhook checks its signature.
            return Ok(());
        }
        let Some(token_hash) = &self.token_hash else {
            return check_host(host);
        };
        let needs_token = self.door == Door::Elasticsearch || !path.starts_with("/health/");
        if needs_token { check_token(headers, token_hash) } else { Ok(()) }
    }

    fn is_webhook(&self, path: &str) -> bool {
        self.door == Door::Http && path.starts_with(api::WEBHOOKS)
    }

    fn admit(&self, path: &str) -> Result<Admission, Refusal> {
        let deadline = Instant::now() + self.request_time_max;
        let takes_none = self.door == Door::Http && ALWAYS_ANSWERED.contains(&path) || self.is_webhook(path);
        if takes_none {
            return Ok(Admission { _slot: None, deadline });
        }
        match Arc::clone(&self.slots).try_acquire_owned() {
            Ok(slot) => Ok(Admission { _slot: Some(Arc::new(slot)), deadline }),
            Err(_) => Err(Refusal {
                status: StatusCode::TOO_MANY_REQUESTS,
                kind: "es_rejected_execution_exception",
                reason:
                    "as many requests as `serving.concurrent_requests_max` allows are being served; ask again later"
                        .to_owned(),
            }),
        }
    }

    fn refuse(&self, refusal: Refusal) -> Response {
        let status = refusal.status;
        let mut response = match self.door {
            Door::Elasticsearch => elasticsearch::refuse(refusal),
            Door::Http => api::refuse(refusal),
        };
        if status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static(r#"Basic realm="databroker", charset="UTF-8""#);
            response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}

/// Lets a request in, or answers why not.
pub(crate) async fn watch(State(guard): State<Arc<Guard>>, mut request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let is_webhook = guard.is_webhook(path);
    let admitted = guard.check(path, request.headers()).and_then(|()| guard.admit(path));
    let admission = match admitted {
        Ok(admission) => admission,
        Err(refusal) => return guard.refuse(refusal),
    };
    if is_webhook {
        // It has deadlines of its own, and counts what does not keep them.
        return next.run(request).await;
    }
    request.extensions_mut().insert(admission.clone());
    match timeout_at(admission.deadline, next.run(request)).await {
        Ok(response) => response,
        Err(_) => guard.refuse(Refusal {
            // Not 503 or 504: clients repeat those by themselves, and what was too slow once is too slow again.
            status: StatusCode::REQUEST_TIMEOUT,
            kind: "timeout_exception",
            reason: format!(
                "no answer within {} s (`serving.request_seconds_max`); ask for less",
                guard.request_time_max.as_secs()
            ),
        }),
    }
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    // What is not text is not a host or origin of ours, and must not pass for a header that is missing.
    headers.get(name).map(|value| value.to_str().unwrap_or("?"))
}

fn forbidden(reason: String) -> Refusal {
    Refusal { status: StatusCode::FORBIDDEN, kind: "security_exception", reason }
}

fn check_origin(origin: &str, host: &str) -> Result<(), Refusal> {
    let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    if authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host)) {
        return Ok(());
    }
    Err(forbidden(format!("origin `{origin}` is another site than host `{host}`")))
}

fn check_host(host: &str) -> Result<(), Refusal> {
    if is_local(host) {
        return Ok(());
    }
    Err(forbidden(format!(
        "host `{host}` is not served without a token (known: localhost, 127.0.0.1, [::1]); set `serving.token` to take any name"
    )))
}

/// Whether a `Host` names this machine in a way that no DNS server can claim.
fn is_local(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, port),
        _ => (host, ""),
    };
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    let is_loopback = address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    port.bytes().all(|byte| byte.is_ascii_digit()) && (is_loopback || name.eq_ignore_ascii_case("localhost"))
}

fn check_token(headers: &HeaderMap, token_hash: &[u8; 32]) -> Result<(), Refusal> {
    let unauthorized = |reason: &str| Refusal {
        status: StatusCode::UNAUTHORIZED,
        kind: "security_exception",
        reason: format!("{reason} (known: `Bearer TOKEN`, `ApiKey TOKEN`, Basic with the token as password)"),
    };
    let Some(authorization) = text(headers, header::AUTHORIZATION) else {
        return Err(unauthorized("the header `Authorization` is missing"));
    };
    let (scheme, credentials) = authorization.split_once(' ').unwrap_or((authorization, ""));
    if offered_tokens(scheme, credentials.trim()).iter().any(|token| is_same(token, token_hash)) {
        return Ok(());
    }
    Err(unauthorized("the header `Authorization` has another token"))
}

/// The tokens that credentials may mean: an API key is sent as `base64(ID:KEY)`, or as it was given.
fn offered_tokens(scheme: &str, credentials: &str) -> Vec<Vec<u8>> {
    let is_scheme = |name: &str| scheme.eq_ignore_ascii_case(name);
    let mut tokens = Vec::new();
    if is_scheme("Bearer") || is_scheme("ApiKey") {
        tokens.push(credentials.as_bytes().to_vec());
    }
    if (is_scheme("Basic") || is_scheme("ApiKey"))
        && let Ok(pair) = STANDARD.decode(credentials)
        && let Some(colon) = pair.iter().position(|&byte| byte == b':')
    {
        tokens.push(pair[colon + 1..].to_vec());
    }
    tokens
}

/// Compares hashes without stopping at the first difference, so that time tells nothing about the token or its length.
fn is_same(token: &[u8], token_hash: &[u8; 32]) -> bool {
    let offered: [u8; 32] = Sha256::digest(token).into();
    std::hint::black_box(offered.iter().zip(token_hash).fold(0, |differing, (a, b)| differing | (a ^ b))) == 0
}

/// The whole body, unpacked if it is gzip.
///
/// # Errors
/// 413 for more than the limit, 415 for another encoding, 400 for a body that is cut or damaged.
pub(crate) async fn read_body(headers: &HeaderMap, body: Body, limit: BodyLimit) -> Result<Bytes, Refusal> {
    let BodyLimit { bytes: bytes_max, name } = limit;
    let refuse = |status, kind, reason| Err(Refusal { status, kind, reason });
    let too_long = || {
        let reason = format!("the body has more than {bytes_max} bytes ({name})");
        refuse(StatusCode::PAYLOAD_TOO_LARGE, "content_too_long_exception", reason)
    };
    if body.size_hint().lower() > bytes_max as u64 {
        discard(body).await;
        return too_long();
    }
    let sent = match axum::body::to_bytes(body, bytes_max).await {
        Ok(sent) => sent,
        Err(cause) if is_length_limit(&cause) => return too_long(),
        Err(cause) => return refuse(StatusCode::BAD_REQUEST, "parse_exception", format!("the body is cut: {cause}")),
    };
    let unpacked = match text(headers, header::CONTENT_ENCODING) {
        None | Some("identity") => sent,
        Some("gzip") => match gunzip(&sent, bytes_max) {
            Ok(unpacked) => unpacked,
            Err(cause) => {
                return refuse(StatusCode::BAD_REQUEST, "parse_exception", format!("the body is no gzip: {cause}"));
            }
        },
        Some(other) => {
            let reason = format!("Content-Encoding [{other}] is not supported (known: gzip)");
            return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "illegal_argument_exception", reason);
        }
    };
    if unpacked.len() > bytes_max { too_long() } else { Ok(unpacked) }
}

/// Lets go of what is sent, for a while: a connection that is closed on a sender takes the answer with it.
async fn discard(body: Body) {
    if body.size_hint().lower() > DISCARDED_BYTES_MAX {
        return;
    }
    let mut pieces = body.into_data_stream();
    let all = async { while let Some(Ok(_)) = pieces.next().await {} };
    // Whoever sends no more in time hears the answer all the same.
    timeout(DISCARD_WAIT, all).await.unwrap_or_default();
}

fn is_length_limit(error: &axum::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if error.to_string() == "length limit exceeded" {
            return true;
        }
        cause = error.source();
    }
    false
}

/// At the most one byte more than `bytes_max`, which tells that there was more.
fn gunzip(packed: &[u8], bytes_max: usize) -> std::io::Result<Bytes> {
    let mut unpacked = Vec::new();
    let limited = std::io::Read::take(flate2::read::MultiGzDecoder::new(packed), bytes_max as u64 + 1);
    std::io::copy(&mut { limited }, &mut unpacked)?;
    Ok(unpacked.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_no_dns_server_can_claim_are_local() {
        for host in ["localhost", "LOCALHOST:8080", "127.0.0.1", "127.0.0.1:9200", "[::1]", "[::1]:80", "127.1.2.3:1"] {
            assert!(is_local(host), "{host}");
        }
        for host in [
            "",
            "evil.com",
            "localhost.evil.com",
            "127.0.0.1.evil.com",
            "localhost:8080.evil.com",
            "10.0.0.1:80",
            "[::2]",
            "?",
        ] {
            assert!(!is_local(host), "{host}");
        }
    }

    #[test]
    fn an_origin_is_taken_only_if_it_is_the_host_itself() {
        check_origin("http://localhost:8080", "localhost:8080").expect("the same");
        check_origin("https://Data.Example", "data.example").expect("the same behind a proxy");
        for origin in ["null", "http://evil.com", "http://localhost:3000", "http://localhost:8080.evil.com", ""] {
            assert_eq!(
                check_origin(origin, "localhost:8080").map_err(|r| r.status),
                Err(StatusCode::FORBIDDEN),
                "{origin}"
            );
        }
    }

    #[test]
    fn a_token_is_taken_in_each_of_its_forms_and_nothing_else_is() {
        let hash: [u8; 32] = Sha256::digest("se:same").into();
        let check = |authorization: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, authorization.parse().unwrap());
            check_token(&headers, &hash).map_err(|refusal| refusal.status)
        };
        let packed = |pair: &str| STANDARD.encode(pair);
        for right in ["Bearer se:same", "bearer se:same", "ApiKey se:same"] {
            assert_eq!(check(right), Ok(()), "{right}");
        }
        assert_eq!(check(&format!("Basic {}", packed("anyone:se:same"))), Ok(()));
        assert_eq!(check(&format!("ApiKey {}", packed("id:se:same"))), Ok(()));
        for wrong in ["Bearer", "Bearer ", "Bearer se", "Bearer se:same2", "se:same", "Basic se:same", "Digest se:same"]
        {
            assert_eq!(check(wrong), Err(StatusCode::UNAUTHORIZED), "{wrong}");
        }
        assert_eq!(check(&format!("Basic {}", packed("se:same"))), Err(StatusCode::UNAUTHORIZED));
        assert_eq!(check_token(&HeaderMap::new(), &hash).map_err(|r| r.status), Err(StatusCode::UNAUTHORIZED));
    }

    #[test]
    fn a_packed_body_is_never_unpacked_beyond_the_limit() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        std::io::Write::write_all(&mut encoder, &vec![b' '; 1 << 20]).unwrap();
        let packed = encoder.finish().unwrap();
        assert_eq!(gunzip(&packed, 1_000).unwrap().len(), 1_001);
        assert_eq!(gunzip(&packed, 1 << 20).unwrap().len(), 1 << 20);
        assert!(gunzip(&packed[..20], 1_000).is_err());
    }
}
