//! What all collectors that speak HTTP share.

use std::time::Duration;

use bytes::BytesMut;
use contract::Timestamp;
use reqwest::Response;
use reqwest::header::{HeaderMap, HeaderName, RETRY_AFTER};

/// Why a body was not read to its end.
#[derive(Debug)]
pub(crate) enum BodyTrouble {
    /// The connection or the compression broke.
    Broken(reqwest::Error),
    /// It is larger, unpacked, than it may be.
    TooLarge,
}

/// Appends the body as it comes, unpacked; `out` may then hold `bytes_max`.
pub(crate) async fn read_body(response: &mut Response, bytes_max: u64, out: &mut BytesMut) -> Result<(), BodyTrouble> {
    while let Some(chunk) = response.chunk().await.map_err(BodyTrouble::Broken)? {
        if (out.len() + chunk.len()) as u64 > bytes_max {
            return Err(BodyTrouble::TooLarge);
        }
        out.extend_from_slice(&chunk);
    }
    Ok(())
}

/// The value of a header, if it is text.
pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Seconds or a date. Source: RFC 9110, section 10.2.3.
pub(crate) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let value = text(headers, &RETRY_AFTER)?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(value).ok()?;
    Some(Timestamp(date.timestamp().as_microsecond()).since(now))
}

/// The error with what lies behind it; the address is in the collector's name.
pub(crate) fn explained(error: reqwest::Error) -> String {
    contract::with_causes(&error.without_url())
}

/// Headers for a test.
#[cfg(test)]
pub(crate) fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
}
