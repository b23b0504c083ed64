//! The collector against a server that behaves, and misbehaves, as the Events API does.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use contract::{Collector, CoverageKind, Cursor, Error, Harvest, Remedy, Timestamp};

use super::replay::{EventStream, Fault, Replay, Response};
use super::settings::Settings;
use crate::{Context, Secret};

const NOW: Timestamp = Timestamp(1_700_000_000_000_000);

const STREAM: EventStream = EventStream { first: 250, growth: 0, last: 0, start: NOW, poll_interval_seconds: 60 };

fn settings(replay: &Replay) -> Settings {
    Settings { base_url: replay.base_url(), timeout_seconds: 2, ..Settings::default() }
}

fn collector(settings: Settings) -> Box<dyn Collector> {
    let context = Context { clock: Arc::new(|| NOW), ..Context::default() };
    let mut all =
        super::collector::collectors(&crate::Settings { github: settings, ..crate::Settings::default() }, &context)
            .unwrap();
    assert_eq!(all.polled.len(), 1);
    all.polled.remove(0)
}

fn ids(harvest: &Harvest) -> Vec<String> {
    harvest.records.iter().map(|record| record.id.to_string()).collect()
}

fn numbered(range: std::ops::RangeInclusive<u64>) -> Vec<String> {
    range.map(EventStream::id).collect()
}

fn page(body: impl Into<Vec<u8>>) -> Response {
    Response { body: body.into(), ..Response::default() }
}

/// The error of a poll that meets one answer.
async fn failure(response: Response) -> Error {
    let replay = Replay::script(vec![response]).await.unwrap();
    collector(settings(&replay)).poll(&Cursor::default()).await.unwrap_err()
}

#[tokio::test]
async fn all_pages_are_read_once_and_come_oldest_first() {
    let replay = Replay::stream(STREAM).await.unwrap();
    let mut collector = collector(settings(&replay));
    let harvest = collector.poll(&Cursor::default()).await.unwrap();
    assert_eq!(harvest.collector.0, "github/events/public");
    assert_eq!(ids(&harvest), numbered(1..=250));
    assert_eq!(harvest.records[7].body, STREAM.body(8), "the exact bytes of the event");
    assert_eq!(harvest.poll_again_in, Some(Duration::from_secs(60)));
    let targets: Vec<String> = replay.requests().into_iter().map(|request| request.target).collect();
    assert_eq!(targets, ["/events?per_page=100", "/events?per_page=100&page=2", "/events?per_page=100&page=3"]);
    let [covered] = &harvest.coverage[..] else { panic!("{:?}", harvest.coverage) };
    assert_eq!((covered.kind, covered.records), (CoverageKind::Covered, 250));
}

#[tokio::test]
async fn an_unchanged_feed_answers_304_and_the_cursor_stays() {
    let replay = Replay::stream(STREAM).await.unwrap();
    let first = collector(settings(&replay)).poll(&Cursor::default()).await.unwrap();
    // A new collector: all it needs is in the cursor.
    let second = collector(settings(&replay)).poll(&first.cursor).await.unwrap();
    assert_eq!((second.records.len(), second.coverage.len()), (0, 0));
    assert_eq!(second.cursor, first.cursor);
    let request = replay.requests().pop().unwrap();
    assert_eq!(request.header("if-none-match"), Some("\"250\""));
    assert_eq!(request.header("x-github-api-version"), Some("2022-11-28"));
}

#[tokio::test]
async fn paging_ends_at_an_event_that_is_known() {
    let replay = Replay::stream(STREAM).await.unwrap();
    let first = collector(settings(&replay)).poll(&Cursor::default()).await.unwrap();
    replay.grow(130);
    let second = collector(settings(&replay)).poll(&first.cursor).await.unwrap();
    assert_eq!(ids(&second), numbered(251..=380));
    assert_eq!(replay.requests().len(), 3 + 2);
    let [covered] = &second.coverage[..] else { panic!("{:?}", second.coverage) };
    assert_eq!((covered.kind, covered.from), (CoverageKind::Covered, first.records[249].event_time));
}

#[tokio::test]
async fn pages_that_meet_no_known_event_leave_a_gap_with_an_estimate() {
    let replay = Replay::stream(STREAM).await.unwrap();
    let first = collector(settings(&replay)).poll(&Cursor::default()).await.unwrap();
    replay.grow(1_000);
    let second = collector(settings(&replay)).poll(&first.cursor).await.unwrap();
    assert_eq!(ids(&second), numbered(951..=1250));
    let [missed, covered] = &second.coverage[..] else { panic!("{:?}", second.coverage) };
    assert_eq!((missed.kind, covered.kind), (CoverageKind::Missed, CoverageKind::Covered));
    assert_eq!((missed.from, missed.to), (first.records[249].event_time, second.records[0].event_time));
    assert!((650..=750).contains(&missed.records), "700 were missed, {} are estimated", missed.records);
    assert!(missed.reason.starts_with("the pages end before an event that is known; estimated"), "{}", missed.reason);
}

#[tokio::test]
async fn events_that_move_to_the_next_page_meanwhile_come_once() {
    let body = |numbers: &[u64]| {
        format!("[{}]", numbers.iter().map(|&number| STREAM.body(number)).collect::<Vec<_>>().join(","))
    };
    let link = ("Link", "<BASE/events?page=2>; rel=\"next\"".to_owned());
    let first = Response { headers: vec![link], ..page(body(&[4, 3])) };
    let replay = Replay::script(vec![first, page(body(&[3, 2, 1]))]).await.unwrap();
    let harvest = collector(settings(&replay)).poll(&Cursor::default()).await.unwrap();
    assert_eq!(ids(&harvest), numbered(1..=4));
}

#[tokio::test]
async fn limits_answer_when_to_come_back() {
    let limited = |status, headers: &[(&'static str, &str)]| Response {
        status,
        headers: headers.iter().map(|&(name, value)| (name, value.to_owned())).collect(),
        ..Response::default()
    };
    let after = |seconds| Remedy::RetryAfter(Duration::from_secs(seconds));
    let primary = limited(403, &[("X-RateLimit-Remaining", "0"), ("X-RateLimit-Reset", "1700000300")]);
    assert_eq!(failure(primary).await.remedy(), after(301));
    let error = failure(limited(429, &[("Retry-After", "17")])).await;
    assert_eq!(error.remedy(), after(17));
    assert_eq!(error.to_string(), "failed to poll `github/events/public`: the rate limit is reached for 17 s");
    assert_eq!(failure(limited(503, &[("Retry-After", "5")])).await.remedy(), after(5));
}

#[tokio::test]
async fn a_limit_on_a_later_page_keeps_the_pages_before_it() {
    let link = ("Link", "<BASE/events?page=2>; rel=\"next\"".to_owned());
    let known = page(format!("[{}]", STREAM.body(1)));
    let first = Response { headers: vec![link], ..page(format!("[{}]", STREAM.body(50))) };
    let limited = Response { status: 429, headers: vec![("Retry-After", "90".to_owned())], ..Response::default() };
    let replay = Replay::script(vec![known, first, limited]).await.unwrap();
    let mut collector = collector(settings(&replay));
    let before = collector.poll(&Cursor::default()).await.unwrap();
    let harvest = collector.poll(&before.cursor).await.unwrap();
    assert_eq!(ids(&harvest), numbered(50..=50));
    assert_eq!(harvest.poll_again_in, Some(Duration::from_secs(90)));
    assert_eq!(harvest.coverage[0].kind, CoverageKind::Missed);
}

#[tokio::test]
async fn trouble_that_passes_is_retried() {
    let whole = format!("[{}]", STREAM.body(1));
    let faulty = |fault| Response { fault, ..page(whole.clone()) };
    let troubles = [
        Response { status: 502, ..page("<html>") },
        faulty(Fault::Reset),
        faulty(Fault::CutAfter(40)),
        faulty(Fault::Slow(Duration::from_secs(20))),
        faulty(Fault::Length(10)),
        faulty(Fault::Length(10_000)),
        page("<html>a proxy's greeting</html>"),
        page(&whole[..whole.len() - 1]),
        Response { headers: vec![("Content-Encoding", "gzip".to_owned())], ..page("no gzip") },
    ];
    for trouble in troubles {
        let error = failure(trouble.clone()).await;
        assert_eq!(error.remedy(), Remedy::Retry, "{trouble:?}: {error}");
        assert!(error.to_string().starts_with("failed to poll `github/events/public`: "), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_is_away_is_named_with_the_cause() {
    let settings = settings(&Replay::script(Vec::new()).await.unwrap());
    let error = collector(settings).poll(&Cursor::default()).await.unwrap_err();
    assert_eq!(error.remedy(), Remedy::Retry);
    assert!(error.to_string().contains("tcp connect error: "), "{error}");
}

#[tokio::test]
async fn what_github_refuses_is_said_and_tried_again_later() {
    let elsewhere = vec![("Location", "http://localhost:1/events".to_owned())];
    for (response, right) in [
        (Response { status: 401, ..Response::default() }, "set `github.token` to a valid one"),
        (Response { status: 403, ..page("Resource not accessible") }, "set `github.token` to one that may"),
        (Response { status: 404, ..Response::default() }, "see `github.feeds`"),
        (Response { status: 301, headers: elsewhere, ..Response::default() }, "see `github.base_url`"),
    ] {
        let error = failure(response).await;
        assert_eq!(error.remedy(), Remedy::RetryAfter(Duration::from_secs(900)), "{error}");
        assert!(error.to_string().contains(right), "{error}");
    }
}

#[tokio::test]
async fn a_redirect_on_the_same_host_is_followed() {
    let moved = Response {
        status: 301,
        headers: vec![("Location", "/repositories/1/events".to_owned())],
        ..Response::default()
    };
    let replay = Replay::script(vec![moved, page(format!("[{}]", STREAM.body(1)))]).await.unwrap();
    let harvest = collector(settings(&replay)).poll(&Cursor::default()).await.unwrap();
    assert_eq!(ids(&harvest), numbered(1..=1));
}

#[tokio::test]
async fn redirects_in_a_circle_are_given_up_and_tried_again_later() {
    let circle = || Response { status: 302, ..Response::default().with("Location", "/events?per_page=100") };
    let replay = Replay::script(std::iter::repeat_with(circle).take(20).collect()).await.unwrap();
    let error = collector(settings(&replay)).poll(&Cursor::default()).await.unwrap_err();
    assert_eq!(error.remedy(), Remedy::Retry);
    assert!(error.to_string().contains("it redirects more than 5 times, as in a circle"), "{error}");
    assert_eq!(replay.requests().len(), 6);
}

#[tokio::test]
async fn all_requests_go_through_the_proxy_that_is_set() {
    let proxy = Replay::script(vec![page(format!("[{}]", STREAM.body(1)))]).await.unwrap();
    let base_url = "http://api.github.example".to_owned();
    let through = Settings { base_url, proxy_url: proxy.base_url(), timeout_seconds: 2, ..Settings::default() };
    let harvest = collector(through).poll(&Cursor::default()).await.unwrap();
    assert_eq!(ids(&harvest), numbered(1..=1));
    assert_eq!(proxy.requests()[0].target, "http://api.github.example/events?per_page=100");
}

#[tokio::test]
async fn a_page_is_limited_after_it_is_unpacked() {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(format!("[{}{}]", " ".repeat(10 << 20), STREAM.body(1)).as_bytes()).unwrap();
    let headers = vec![("Content-Encoding", "gzip".to_owned())];
    let bomb = Response { headers, ..page(encoder.finish().unwrap()) };
    assert!(bomb.body.len() < 20_000);
    let replay = Replay::script(vec![bomb.clone(), bomb]).await.unwrap();
    let limited = Settings { page_bytes_max: 1 << 20, ..settings(&replay) };
    let error = collector(limited).poll(&Cursor::default()).await.unwrap_err();
    assert!(error.to_string().contains("a page exceeds `github.page_bytes_max` = 1048576"), "{error}");
    let harvest = collector(settings(&replay)).poll(&Cursor::default()).await.unwrap();
    assert_eq!(ids(&harvest), numbered(1..=1), "gzip is read where it is not too large");
}

#[tokio::test]
async fn feeds_have_addresses_of_their_own_and_the_token_goes_with_them() {
    for (feed, path) in [
        ("org:rust-lang", "/orgs/rust-lang/events"),
        ("repo:rust-lang/rust", "/repos/rust-lang/rust/events"),
        ("user:dtolnay", "/users/dtolnay/events"),
    ] {
        let replay = Replay::stream(EventStream { first: 2, ..STREAM }).await.unwrap();
        let settings =
            Settings { feeds: vec![feed.to_owned()], token: Secret::from("t0ken".to_owned()), ..settings(&replay) };
        assert!(!format!("{settings:?}").contains("t0ken"));
        let harvest = collector(settings).poll(&Cursor::default()).await.unwrap();
        assert_eq!((harvest.collector.0, harvest.records.len()), (format!("github/events/{feed}"), 2));
        let request = replay.requests().pop().unwrap();
        assert_eq!(request.target.split('?').next(), Some(path));
        assert_eq!(request.header("authorization"), Some("Bearer t0ken"));
    }
}

#[test]
fn a_wrong_setting_is_answered_with_what_would_be_right() {
    let error = |settings| {
        let all = super::collector::collectors(
            &crate::Settings { github: settings, ..crate::Settings::default() },
            &Context::default(),
        );
        all.map(drop).expect_err("refused").to_string()
    };
    for feed in ["", "pubic", "org:", "repo:rust", "repo:../..", "user:a/b", "public:x"] {
        let message = error(Settings { feeds: vec![feed.to_owned()], ..Settings::default() });
        let right = "`public`, `org:rust-lang`, `repo:rust-lang/rust` or `user:dtolnay`";
        assert_eq!(message, format!("failed to use feed `{feed}` of `github.feeds` (should be as {right})"));
    }
    let twice = Settings { feeds: ["org:a", "public", "org:a"].map(str::to_owned).to_vec(), ..Settings::default() };
    assert_eq!(error(twice), "failed to use `github.feeds`: `org:a` stands in it twice, should once");
    let message = error(Settings { base_url: "api.github.com".to_owned(), ..Settings::default() });
    assert!(message.contains("should be as `https://api.github.com`"), "{message}");
    let unknown = serde_json::from_str::<crate::Settings>(r#"{"github":{"feed":[]}}"#).unwrap_err();
    assert!(unknown.to_string().contains("unknown field `feed`"), "{unknown}");
}
