//! What an answer's headers say about when to come again. Source: RFC 9111, sections 4.2 and 5.2.

use std::time::Duration;

use contract::Timestamp;
use reqwest::header::{AGE, CACHE_CONTROL, DATE, EXPIRES, HeaderMap};

use crate::http::text;

/// For how long the answer stays fresh; none if it does not say.
pub(super) fn fresh_for(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let directives = text(headers, &CACHE_CONTROL).unwrap_or_default().to_ascii_lowercase();
    let is_uncacheable = directives.split(',').any(|part| matches!(part.trim(), "no-store" | "no-cache"));
    if is_uncacheable {
        return None;
    }
    let max_age =
        directives.split(',').find_map(|part| part.trim().strip_prefix("max-age=")?.trim_matches('"').parse().ok());
    if let Some(seconds) = max_age {
        let age = text(headers, &AGE).and_then(|age| age.trim().parse().ok()).unwrap_or(0);
        return Some(Duration::from_secs(u64::saturating_sub(seconds, age)));
    }
    let expires = http_date(text(headers, &EXPIRES)?)?;
    let said_at = text(headers, &DATE).and_then(http_date).unwrap_or(now);
    Some(expires.since(said_at))
}

fn http_date(value: &str) -> Option<Timestamp> {
    let date = jiff::fmt::rfc2822::parse(value.trim()).ok()?;
    Some(Timestamp(date.timestamp().as_microsecond()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::headers;

    const NOW: Timestamp = Timestamp(1_700_000_000_000_000);

    #[test]
    fn freshness_is_what_the_headers_say() {
        let fresh = |pairs: &[(&'static str, &str)]| fresh_for(&headers(pairs), NOW).map(|fresh| fresh.as_secs());
        assert_eq!(fresh(&[("cache-control", "public, Max-Age=600")]), Some(600));
        assert_eq!(fresh(&[("cache-control", "max-age=600"), ("age", "250")]), Some(350));
        assert_eq!(fresh(&[("cache-control", "max-age=5"), ("age", "250")]), Some(0));
        assert_eq!(fresh(&[("cache-control", "no-cache, max-age=600")]), None);
        assert_eq!(fresh(&[("expires", "Tue, 14 Nov 2023 22:23:20 GMT")]), Some(600));
        let dated = [("expires", "Tue, 14 Nov 2023 22:23:20 GMT"), ("date", "Tue, 14 Nov 2023 22:22:20 GMT")];
        assert_eq!(fresh(&dated), Some(60));
        assert_eq!(fresh(&[("expires", "-1")]), None);
        assert_eq!(fresh(&[("cache-control", "max-age=600"), ("expires", "0")]), Some(600));
        assert_eq!(fresh(&[]), None);
    }
}
