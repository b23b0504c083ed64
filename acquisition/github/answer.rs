//! What an answer of the API says beside its events: success or trouble, the next page, how long to wait.
//!
//! Source: <https://docs.github.com/en/rest/using-the-rest-api/best-practices-for-using-the-rest-api>.

use std::time::Duration;

use contract::{Error, Remedy, Timestamp};
use reqwest::header::{HeaderMap, HeaderName};
use reqwest::{StatusCode, Url};

use crate::http::{retry_after, text};

/// Before a setting is tried again that GitHub refused: the user may have changed it there (renewed the token, made
/// the repository public), and four requests an hour cost nothing.
pub(super) const REFUSED_WAIT: Duration = Duration::from_secs(15 * 60);

/// What GitHub asks for when a secondary limit says nothing itself.
const SECONDARY_LIMIT_WAIT: Duration = Duration::from_secs(60);

/// No answer makes a collector sleep longer; GitHub's window is an hour.
const WAIT_MAX: Duration = Duration::from_secs(2 * 3600);

/// Why an answer brings no events.
#[derive(Debug)]
pub(super) enum Trouble {
    /// A limit is reached; wait this long.
    Limited(Duration),
    /// Anything else.
    Failed(Error),
}

/// The limits that an answer states.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Limits {
    /// Requests left in the window.
    pub(super) remaining: Option<u64>,
    /// Until the window ends.
    pub(super) reset_in: Option<Duration>,
    /// How often to poll at the most.
    pub(super) poll_interval: Option<Duration>,
    retry_after: Option<Duration>,
}

impl Limits {
    /// Reads them from the headers of an answer that came at `now`.
    pub(super) fn of(headers: &HeaderMap, now: Timestamp) -> Self {
        let number = |name: &'static str| text(headers, &HeaderName::from_static(name))?.trim().parse::<u64>().ok();
        let reset_in = number("x-ratelimit-reset").map(|second| {
            let reset = Timestamp(i64::try_from(second).unwrap_or(i64::MAX).saturating_mul(1_000_000));
            reset.since(now)
        });
        Self {
            remaining: number("x-ratelimit-remaining"),
            reset_in,
            poll_interval: number("x-poll-interval").map(|seconds| Duration::from_secs(seconds).min(WAIT_MAX)),
            retry_after: retry_after(headers, now),
        }
    }

    /// How long to wait so that the requests left last to the end of the window, at `requests` a poll.
    pub(super) fn pace(&self, requests: u32) -> Duration {
        match (self.remaining, self.reset_in) {
            (Some(remaining), Some(reset_in)) => {
                let polls = remaining / u64::from(requests.max(1));
                reset_in.checked_div(u32::try_from(polls).unwrap_or(u32::MAX)).unwrap_or(reset_in).min(WAIT_MAX)
            }
            _ => Duration::ZERO,
        }
    }
}

/// Judges a status; `said` is the start of the body.
pub(super) fn judge(status: StatusCode, limits: &Limits, said: &str, doing: &str) -> Result<(), Trouble> {
    let wait = |wait: Duration| Err(Trouble::Limited(wait.clamp(Duration::from_secs(1), WAIT_MAX)));
    let fail = |remedy, what: &str| {
        Err(Trouble::Failed(Error::new(remedy, format!("{doing}: GitHub answers {} ({what})", status.as_u16()))))
    };
    let refused = |what| fail(Remedy::RetryAfter(REFUSED_WAIT), what);
    let said = said.to_ascii_lowercase();
    let is_limit = said.contains("rate limit") || said.contains("abuse");
    match status {
        StatusCode::OK => Ok(()),
        StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS => match (limits.retry_after, limits.remaining) {
            (Some(after), _) => wait(after),
            (None, Some(0)) => wait(limits.reset_in.unwrap_or(SECONDARY_LIMIT_WAIT) + Duration::from_secs(1)),
            _ if is_limit || status == StatusCode::TOO_MANY_REQUESTS => wait(SECONDARY_LIMIT_WAIT),
            _ => refused("the token may not read this; set `github.token` to one that may"),
        },
        StatusCode::UNAUTHORIZED => refused("the token is not valid; set `github.token` to a valid one or to none"),
        StatusCode::NOT_FOUND => refused("there is no such feed, or the token may not see it; see `github.feeds`"),
        _ if status.is_redirection() => refused("it points to another host; see `github.base_url`"),
        _ if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT => match limits.retry_after {
            Some(after) => fail(Remedy::RetryAfter(after.min(WAIT_MAX)), "it asks to come back later"),
            None => fail(Remedy::Retry, "a fault of its own, for the moment"),
        },
        _ => refused("unexpected; see `github.base_url`"),
    }
}

/// The next page, if there is one on the host of `this`: a token goes nowhere else.
/// Source: <https://docs.github.com/en/rest/using-the-rest-api/using-pagination-in-the-rest-api>.
pub(super) fn next_page(headers: &HeaderMap, this: &Url) -> Option<Url> {
    let links = text(headers, &reqwest::header::LINK)?;
    let link = links.split(',').find(|link| link.split(';').skip(1).any(|part| part.trim() == "rel=\"next\""))?;
    let target = link.split(';').next()?.trim().strip_prefix('<')?.strip_suffix('>')?;
    this.join(target).ok().filter(|next| next.origin() == this.origin())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::headers;

    const NOW: Timestamp = Timestamp(1_700_000_000_000_000);

    #[test]
    fn the_wait_is_what_github_says() {
        let wait = |status, pairs: &[(&'static str, &str)], said| {
            let limits = Limits::of(&headers(pairs), NOW);
            match judge(StatusCode::from_u16(status).unwrap(), &limits, said, "poll") {
                Err(Trouble::Limited(wait)) => Some(wait.as_secs()),
                _ => None,
            }
        };
        assert_eq!(wait(429, &[("retry-after", "17")], ""), Some(17));
        assert_eq!(wait(403, &[("retry-after", "Tue, 14 Nov 2023 22:14:20 GMT")], ""), Some(60));
        let reset = [("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1700000099")];
        assert_eq!(wait(403, &reset, ""), Some(100));
        assert_eq!(wait(403, &[], "You have exceeded a secondary rate limit."), Some(60));
        assert_eq!(wait(403, &[], "Resource not accessible"), None);
        assert_eq!(wait(429, &[("retry-after", "99999999")], ""), Some(7200));
    }

    #[test]
    fn requests_are_spread_over_the_window() {
        let limits = |remaining: &str| {
            Limits::of(&headers(&[("x-ratelimit-remaining", remaining), ("x-ratelimit-reset", "1700003600")]), NOW)
        };
        assert_eq!(limits("60").pace(3), Duration::from_secs(180));
        assert_eq!(limits("2").pace(3), Duration::from_secs(3600));
        assert_eq!(Limits::default().pace(3), Duration::ZERO);
        let endless = Limits::of(&headers(&[("x-poll-interval", "18446744073709551615")]), NOW);
        assert_eq!(endless.poll_interval, Some(WAIT_MAX));
    }

    #[test]
    fn the_next_page_is_taken_from_the_same_host_only() {
        let this = Url::parse("https://api.github.com/events?per_page=100").unwrap();
        let next = |link: &str| next_page(&headers(&[("link", link)]), &this).map(String::from);
        let link =
            r#"<https://api.github.com/events?page=1>; rel="prev", <https://api.github.com/events?page=3>; rel="next""#;
        assert_eq!(next(link).as_deref(), Some("https://api.github.com/events?page=3"));
        assert_eq!(next(r#"<https://evil.example/events?page=3>; rel="next""#), None);
        assert_eq!(next(r#"<https://api.github.com/events?page=1>; rel="first""#), None);
    }
}
