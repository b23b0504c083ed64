//! Feeds from a server that behaves, and misbehaves, as publishers do.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use contract::{Collector, CoverageKind, Cursor, Error, Harvest, Remedy, Timestamp};

use super::replay::Replay;
use super::settings::Settings;
use crate::replay::{Fault, Response};
use crate::{Context, HarvestSize};

const NOW: Timestamp = Timestamp(1_700_000_000_000_000);

/// Entries of an hour each, the newest first, the last of them an hour before the clock starts.
fn feed(numbers: std::ops::Range<i64>) -> String {
    feed_with("", numbers)
}

fn feed_with(head: &str, numbers: std::ops::Range<i64>) -> String {
    let item = |number: i64| {
        let time = jiff::Timestamp::from_microsecond(NOW.0 + (number - 100) * 3_600_000_000).unwrap();
        let date = jiff::fmt::rfc2822::to_string(&time.to_zoned(jiff::tz::TimeZone::UTC)).unwrap();
        format!("<item><guid>entry-{number}</guid><title>Entry {number}</title><pubDate>{date}</pubDate></item>")
    };
    let items: String = numbers.rev().map(item).collect();
    format!("<rss version=\"2.0\"><channel><title>A feed</title>{head}{items}</channel></rss>")
}

pub(super) fn page(body: impl Into<Vec<u8>>) -> Response {
    Response::body(body)
}

fn settings(replay: &Replay) -> Settings {
    Settings {
        feeds: vec![replay.url("/feed")],
        timeout_seconds: 2,
        allow_private_addresses: true,
        ports: Vec::new(),
        host_spacing_ms: 0,
        feed_bytes_max: 1 << 20,
        ..Settings::default()
    }
}

fn context(clock: &Arc<AtomicI64>) -> Context {
    let clock = clock.clone();
    Context { clock: Arc::new(move || Timestamp(clock.load(Ordering::SeqCst))), ..Context::default() }
}

/// A collector, with a new one for each poll: all it needs is in the cursor.
pub(super) struct Polled {
    settings: Settings,
    pub(super) clock: Arc<AtomicI64>,
    pub(super) cursor: Cursor,
}

impl Polled {
    fn new(settings: Settings) -> Self {
        Self { settings, clock: Arc::new(AtomicI64::new(NOW.0)), cursor: Cursor::default() }
    }

    pub(super) fn collector(&self) -> Box<dyn Collector> {
        let settings = crate::Settings { news: self.settings.clone(), ..crate::Settings::default() };
        super::feeds::collectors(&settings, &context(&self.clock)).unwrap().polled.remove(0)
    }

    pub(super) async fn poll(&mut self) -> Result<Harvest, Error> {
        let harvest = self.collector().poll(&self.cursor).await?;
        self.cursor = harvest.cursor.clone();
        Ok(harvest)
    }

    pub(super) fn minutes_pass(&self, minutes: i64) {
        self.clock.fetch_add(minutes * 60_000_000, Ordering::SeqCst);
    }
}

pub(super) async fn polled(responses: impl IntoIterator<Item = Response>) -> (Replay, Polled) {
    let replay = Replay::feed(responses).await.unwrap();
    let polled = Polled::new(settings(&replay));
    (replay, polled)
}

/// The error of a poll that meets one answer.
async fn failure(response: Response) -> Error {
    polled([response]).await.1.poll().await.unwrap_err()
}

fn titles(harvest: &Harvest) -> Vec<String> {
    let title = |body: &[u8]| {
        let body = String::from_utf8_lossy(body);
        body.rsplit_once("<title>").unwrap().1.split_once('<').unwrap().0.replace("Entry ", "")
    };
    harvest.records.iter().map(|record| title(&record.body)).collect()
}

#[tokio::test]
async fn entries_come_once_and_oldest_first() {
    let (replay, mut polled) = polled([page(feed(0..3)), page(feed(1..5))]).await;
    let first = polled.poll().await.unwrap();
    assert_eq!(first.collector.0, format!("news/feed/{}", replay.url("/feed")));
    assert_eq!(titles(&first), ["0", "1", "2"]);
    let [covered] = &first.coverage[..] else { panic!("{:?}", first.coverage) };
    assert_eq!((covered.kind, covered.records), (CoverageKind::Covered, 3));
    assert_eq!(titles(&polled.poll().await.unwrap()), ["3", "4"]);
    let request = replay.requests().remove(0);
    assert!(request.header("user-agent").unwrap().starts_with("databroker/"));
    assert!(request.header("accept").unwrap().contains("application/atom+xml"));
}

#[tokio::test]
async fn an_unchanged_feed_changes_no_cursor() {
    let modified = "Tue, 14 Nov 2023 22:00:00 GMT";
    let answer = page(feed(0..3)).with("ETag", "\"7\"").with("Last-Modified", modified);
    let (replay, mut polled) = polled([answer]).await;
    let first = polled.poll().await.unwrap();
    let second = polled.poll().await.unwrap();
    assert_eq!((second.records.len(), second.coverage.len(), &second.cursor), (0, 0, &first.cursor));
    let request = replay.requests().pop().unwrap();
    assert_eq!(request.header("if-none-match"), Some("\"7\""));
    assert_eq!(request.header("if-modified-since"), Some(modified));
}

#[tokio::test]
async fn the_same_bytes_without_validators_change_no_cursor() {
    let (_replay, mut polled) = polled([page(feed(0..3))]).await;
    let first = polled.poll().await.unwrap();
    let second = polled.poll().await.unwrap();
    assert_eq!((second.records.len(), second.cursor), (0, first.cursor));
}

#[tokio::test]
async fn a_feed_that_moved_on_leaves_a_gap_with_an_estimate() {
    let (_replay, mut polled) = polled([page(feed(0..10)), page(feed(40..50))]).await;
    polled.poll().await.unwrap();
    let second = polled.poll().await.unwrap();
    let [missed, covered] = &second.coverage[..] else { panic!("{:?}", second.coverage) };
    assert_eq!((missed.kind, covered.kind), (CoverageKind::Missed, CoverageKind::Covered));
    assert_eq!(missed.records, 30, "entries 10 to 39 were never seen");
    assert!(missed.reason.contains("estimated from 10 entries"), "{}", missed.reason);
}

#[tokio::test]
async fn the_interval_follows_the_feed_and_its_publisher() {
    let busy = (0..4).map(|number| page(feed(number..number + 5)));
    let (_replay, mut polled) = polled(busy).await;
    let mut waits = Vec::new();
    for _ in 0..4 {
        waits.push(polled.poll().await.unwrap().poll_again_in.unwrap().as_secs() / 60);
        polled.minutes_pass(12);
    }
    // A twentieth at the most is added, by the address, so that feeds drift apart.
    assert!((30..32).contains(&waits[0]) && waits[3] == 6, "{waits:?}");
    polled.minutes_pass(3 * 24 * 60);
    assert_eq!(polled.poll().await.unwrap().poll_again_in.unwrap().as_secs() / 3_600, 6, "it fell silent");
    for answer in [
        page(feed_with("<ttl>180</ttl>", 0..3)),
        page(feed(0..3)).with("Cache-Control", "max-age=10800"),
        page(feed(0..3)).with("Expires", "Wed, 15 Nov 2023 01:13:20 GMT").with("Date", "Tue, 14 Nov 2023 22:13:20 GMT"),
    ] {
        let (_replay, mut polled) = self::polled([answer]).await;
        let wait = polled.poll().await.unwrap().poll_again_in.unwrap();
        assert_eq!(wait.as_secs() / 600, 18, "three hours");
    }
    let head = "<skipHours><hour>22</hour><hour>23</hour></skipHours>";
    let (_replay, mut skipping) = self::polled([page(feed_with(head, 0..3))]).await;
    let wait = skipping.poll().await.unwrap().poll_again_in.unwrap();
    assert_eq!(NOW.0 / 1_000_000 + wait.as_secs() as i64, 1_700_006_400, "at midnight");
}

#[tokio::test]
async fn a_permanent_redirect_is_followed_for_good_after_three_polls() {
    for status in [301, 308] {
        let (replay, mut polled) = polled([Response::status(status).with("Location", "BASE/new")]).await;
        replay.route("/new", [page(feed(0..3))]);
        for _ in 0..5 {
            polled.poll().await.unwrap();
        }
        let targets: Vec<String> = replay.requests().into_iter().map(|request| request.target).collect();
        assert_eq!(targets, ["/feed", "/new", "/feed", "/new", "/feed", "/new", "/new", "/new"]);
        assert!(polled.cursor.0.contains("/new\""), "{}", polled.cursor.0);
    }
}

#[tokio::test]
async fn a_redirect_that_is_not_permanent_is_followed_each_time() {
    let (replay, mut polled) = polled([Response::status(302).with("Location", "/new")]).await;
    replay.route("/new", [Response::status(301).with("Location", "/newer")]);
    replay.route("/newer", [page(feed(0..3))]);
    for _ in 0..4 {
        polled.poll().await.unwrap();
    }
    assert_eq!(replay.requests().len(), 12);
    assert!(!polled.cursor.0.contains("/newer"), "what follows a temporary one is not permanent: {}", polled.cursor.0);
}

#[tokio::test]
async fn a_new_address_that_fails_is_given_up_for_the_old_one() {
    let (replay, polled) = polled([Response::status(301).with("Location", "/new")]).await;
    replay.route("/new", [page(feed(0..3)), page(feed(0..3)), page(feed(0..3)), Response::status(404)]);
    let (mut collector, mut cursor) = (polled.collector(), Cursor::default());
    for _ in 0..3 {
        cursor = collector.poll(&cursor).await.unwrap().cursor;
    }
    for _ in 0..2 {
        assert!(collector.poll(&cursor).await.is_err());
    }
    cursor = collector.poll(&cursor).await.unwrap().cursor;
    replay.route("/feed", [page(feed(0..4))]);
    assert_eq!(titles(&collector.poll(&cursor).await.unwrap()), ["3"]);
}

#[tokio::test]
async fn a_feed_that_is_gone_is_asked_each_week_and_welcomed_back() {
    let (_replay, mut polled) =
        polled([page(feed(0..3)), Response::status(410), Response::status(410), page(feed(0..4))]).await;
    polled.poll().await.unwrap();
    let gone = polled.poll().await.unwrap();
    assert_eq!(gone.poll_again_in, Some(Duration::from_secs(7 * 86_400)));
    assert!(
        gone.cursor.0.contains("\"gone_since\":1700000000000000")
            || gone.cursor.0.contains("gone_since\":\"2023-11-14"),
        "{}",
        gone.cursor.0
    );
    polled.minutes_pass(7 * 1_440);
    let still = polled.poll().await.unwrap();
    assert_eq!(still.cursor, gone.cursor, "since when it is gone");
    assert_eq!(titles(&polled.poll().await.unwrap()), ["3"]);
    assert!(polled.cursor.0.contains("\"gone_since\":null"), "{}", polled.cursor.0);
}

#[tokio::test]
async fn a_failing_feed_backs_off_to_a_day_and_comes_back() {
    let (replay, polled) = polled([Response::status(500)]).await;
    let mut collector = polled.collector();
    let mut minutes = Vec::new();
    for _ in 0..11 {
        let Remedy::RetryAfter(wait) = collector.poll(&Cursor::default()).await.unwrap_err().remedy() else { panic!() };
        minutes.push(wait.as_secs() / 60);
    }
    assert_eq!(minutes, [5, 10, 20, 40, 80, 160, 320, 640, 1_280, 1_440, 1_440]);
    replay.route("/feed", [page(feed(0..3)), Response::status(500)]);
    let harvest = collector.poll(&Cursor::default()).await.unwrap();
    assert_eq!(titles(&harvest).len(), 3);
    let error = collector.poll(&harvest.cursor).await.unwrap_err();
    assert_eq!(error.remedy(), Remedy::RetryAfter(Duration::from_secs(300)), "counted anew");
}

#[tokio::test]
async fn trouble_is_named_and_asked_again() {
    let whole = || page(feed(0..3));
    let length = feed(0..3).len();
    for (response, said) in [
        (Response::status(403), "the server answers 403"),
        (Response::status(404), "the server answers 404"),
        (Response::status(502), "the server answers 502"),
        (whole().failing(Fault::Reset), ""),
        (whole().failing(Fault::CutAfter(100)), "end of file before message length reached"),
        (whole().failing(Fault::Length(length + 10)), "end of file before message length reached"),
        (whole().failing(Fault::Slow(Duration::from_secs(60))), "operation timed out"),
        (page("<html>a login page</html>"), "what stands there is no feed (`databroker feeds discover`"),
        (page(""), "what stands there is no feed"),
        (Response::status(204), "what stands there is no feed"),
        (whole().with("Content-Encoding", "gzip"), "Invalid gzip header"),
        (whole().with("Content-Encoding", "br"), "it is packed as `br`, which was not asked for"),
        (page([0x1f, 0x8b, 8, 0]), "its gzip is damaged"),
        (Response::status(302), "it is redirected (302) to nowhere"),
        (Response::status(302).with("Location", "/feed"), "it is redirected more than 5 times (`news.redirects_max`)"),
        (Response::status(302).with("Location", "file:///etc/passwd"), "`file:` is no scheme to fetch from"),
        (Response::status(301).with("Location", "http://a:b@localhost/"), "the URL holds a user name or password"),
    ] {
        let error = failure(response.clone()).await;
        assert_eq!(error.remedy(), Remedy::RetryAfter(Duration::from_secs(300)), "{response:?}: {error}");
        let text = error.to_string();
        assert!(text.starts_with("failed to poll `news/feed/http://127.0.0.1:") && text.contains(said), "{text}");
    }
}

#[tokio::test]
async fn a_body_longer_than_its_length_is_cut_there() {
    let shorter = feed(0..3).len() - 20;
    let (_replay, mut polled) = polled([page(feed(0..3)).failing(Fault::Length(shorter))]).await;
    assert_eq!(polled.poll().await.unwrap().records.len(), 3, "a cut feed is read as far as it goes");
}

#[tokio::test]
async fn a_body_is_limited_after_it_is_unpacked() {
    let pack = |text: String| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let bomb = pack(feed(0..3) + &" ".repeat(20 << 20));
    assert!(bomb.len() < 40_000);
    for response in
        [page(bomb.clone()), page(bomb).with("Content-Encoding", "gzip"), page(feed(0..3) + &" ".repeat(2 << 20))]
    {
        let error = failure(response).await.to_string();
        assert!(error.contains("it has more than 1048576 bytes unpacked"), "{error}");
    }
    for response in [page(pack(feed(0..3))), page(pack(feed(0..3))).with("Content-Encoding", "gzip")] {
        assert_eq!(
            polled([response]).await.1.poll().await.unwrap().records.len(),
            3,
            "gzip is read where it is not too large"
        );
    }
}

#[tokio::test]
async fn a_host_that_asks_for_peace_gets_it_from_all_its_feeds() {
    for (status, value, seconds) in [
        (429, "7200", 7_200),
        (503, "3600", 3_600),
        (429, "Wed, 15 Nov 2023 00:13:20 GMT", 7_200),
        (429, "99999999", 86_400),
    ] {
        let (replay, polled) = polled([Response::status(status).with("Retry-After", value)]).await;
        replay.route("/other", [page(feed(0..3))]);
        let settings = Settings {
            feeds: vec![replay.url("/feed"), replay.url("/other")],
            start_spread_seconds: 0,
            ..polled.settings
        };
        let settings = crate::Settings { news: settings, ..crate::Settings::default() };
        let mut all = super::feeds::collectors(&settings, &context(&polled.clock)).unwrap().polled;
        let error = all[0].poll(&Cursor::default()).await.unwrap_err();
        assert_eq!(error.remedy(), Remedy::RetryAfter(Duration::from_secs(seconds)));
        let other = all[1].poll(&Cursor::default()).await.unwrap();
        let wait = other.poll_again_in.unwrap().as_secs();
        assert!(wait.abs_diff(seconds) < 10, "{wait}");
        assert_eq!((replay.requests().len(), other.cursor), (1, Cursor::default()), "it was not asked");
    }
}

#[tokio::test]
async fn addresses_inside_are_refused_in_a_feed_and_after_a_redirect() {
    let replay = Replay::feed([page(feed(0..3))]).await.unwrap();
    for address in [replay.url("/feed"), replay.url("/feed").replace("127.0.0.1", "localhost")] {
        let guarded = Settings { feeds: vec![address], allow_private_addresses: false, ..settings(&replay) };
        let error = Polled::new(guarded).poll().await.unwrap_err().to_string();
        assert!(
            error.contains("is no public address but loopback (`news.allow_private_addresses` would allow it)"),
            "{error}"
        );
    }
    assert_eq!(replay.requests().len(), 0);
    // Where private addresses are allowed for the test's own server, a port that is not tells the same of the target.
    let port = replay.url("").rsplit(':').next().unwrap().parse().unwrap();
    replay.route("/feed", [Response::status(302).with("Location", "http://127.0.0.1:22/")]);
    let error = Polled::new(Settings { ports: vec![port], ..settings(&replay) }).poll().await.unwrap_err().to_string();
    assert!(error.contains("port 22 may not be asked (see `news.ports`)"), "{error}");
}

#[tokio::test]
async fn feeds_start_one_after_the_other() {
    let many = |count: usize| {
        let feeds = (0..count).map(|number| format!("https://a.example/{number}")).collect();
        let settings =
            crate::Settings { news: Settings { feeds, ..Settings::default() }, ..crate::Settings::default() };
        super::feeds::collectors(&settings, &context(&Arc::new(AtomicI64::new(NOW.0)))).unwrap().polled
    };
    for (count, last_ms) in [(4, 750), (2_000, 299_850)] {
        let mut all = many(count);
        let idle = all[count - 1].poll(&Cursor::default()).await.unwrap();
        assert_eq!((idle.records.len(), idle.cursor), (0, Cursor::default()));
        assert_eq!(idle.poll_again_in, Some(Duration::from_millis(last_ms)));
    }
}

#[tokio::test]
async fn a_collector_killed_at_any_harvest_brings_every_entry_once() {
    let growing = (1..30).map(|number| page(feed((number - 10).max(0)..number)).with("ETag", format!("\"{number}\"")));
    let (_replay, polled) = polled(growing).await;
    let (mut collector, mut cursor, mut seen) = (polled.collector(), Cursor::default(), Vec::new());
    for number in 1..30 {
        let harvest = collector.poll(&cursor).await.unwrap();
        if number % 3 == 0 {
            // Killed before the append: the harvest is lost with its cursor, and the next poll brings it again.
            collector = polled.collector();
            continue;
        }
        seen.extend(titles(&harvest));
        cursor = harvest.cursor;
    }
    let expected: Vec<String> = (0..29).map(|number| number.to_string()).collect();
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn a_large_answer_comes_in_portions_and_a_kill_between_them_loses_and_repeats_nothing() {
    let (replay, polled) = polled([page(feed(0..25)).with("ETag", "\"1\"")]).await;
    let small = |records_max| {
        let settings = crate::Settings { news: polled.settings.clone(), ..crate::Settings::default() };
        let harvest = HarvestSize { records_max, bytes_max: 1 << 20 };
        let context = Context { harvest, ..context(&polled.clock) };
        super::feeds::collectors(&settings, &context).unwrap().polled.remove(0)
    };
    let (mut collector, mut cursor, mut seen, mut covered) = (small(4), Cursor::default(), Vec::new(), 0);
    for number in 1..100 {
        let harvest = collector.poll(&cursor).await.unwrap();
        assert!(harvest.records.len() <= 4);
        if number % 3 == 0 {
            // Killed before this harvest was on disk.
            collector = small(4);
            continue;
        }
        seen.extend(titles(&harvest));
        covered += harvest.coverage.len();
        cursor = harvest.cursor;
        if harvest.records.is_empty() {
            break;
        }
    }
    let expected: Vec<String> = (0..25).map(|number| number.to_string()).collect();
    assert_eq!((seen, covered), (expected, 1));
    assert!(cursor.0.contains("\"etag\":\"\\\"1\\\"\""), "the answer counts once all of it is there: {}", cursor.0);
    assert!(replay.requests().len() < 8, "portions are not asked for");
    let bytes = HarvestSize { records_max: 100, bytes_max: 1 };
    let context = Context { harvest: bytes, ..context(&polled.clock) };
    let settings = crate::Settings { news: polled.settings.clone(), ..crate::Settings::default() };
    let mut collector = super::feeds::collectors(&settings, &context).unwrap().polled.remove(0);
    assert_eq!(titles(&collector.poll(&Cursor::default()).await.unwrap()), ["0"], "one at least");
}

#[tokio::test]
async fn what_a_publisher_puts_into_a_cursor_is_bounded() {
    let long = "y".repeat(600_000);
    let head = format!(
        "<atom:link rel='self' href='http://x.example/{long}'/><atom:link rel='hub' href='http://hub.example/{long}'/>\
         <title>{long}</title>"
    );
    let moved = Response::status(301).with("Location", format!("/to?{}", "\"".repeat(1_000)));
    let replay = Replay::feed([moved.clone(), moved.clone(), moved]).await.unwrap();
    let namespace = "<rss xmlns:atom=\"http://www.w3.org/2005/Atom\"";
    replay.route(
        "/to",
        [
            page(feed_with(&head, 0..3).replace("<rss", namespace)),
            page(feed_with(&head, 0..4).replace("<rss", namespace)),
        ],
    );
    let websub_callback_url = "https://me.example".to_owned();
    let mut polled = Polled::new(Settings { websub_callback_url, feed_bytes_max: 4 << 20, ..settings(&replay) });
    for _ in 0..3 {
        polled.poll().await.unwrap();
        assert!(polled.cursor.0.len() < 8 << 10, "{} bytes", polled.cursor.0.len());
    }
}

#[tokio::test]
async fn a_feed_whose_hub_was_switched_off_backs_off_as_any_other() {
    let head = r#"<atom:link rel="self" href="https://a.example/"/><atom:link rel="hub" href="BASE/hub"/>"#;
    let with_hub = feed_with(head, 0..3).replace("<rss", "<rss xmlns:atom=\"http://www.w3.org/2005/Atom\"");
    let (_replay, mut polled) = polled([page(with_hub), Response::status(404)]).await;
    polled.settings.websub_callback_url = "https://me.example".to_owned();
    let harvest = polled.poll().await.unwrap();
    assert!(harvest.cursor.0.contains("\"topic\":\"https://a.example/\""), "{}", harvest.cursor.0);
    polled.settings.websub_callback_url = String::new();
    let error = polled.poll().await.unwrap_err();
    assert_eq!(error.remedy(), Remedy::RetryAfter(Duration::from_secs(300)));
}

#[test]
fn a_wrong_setting_is_answered_with_what_would_be_right() {
    let refused = |news: Settings| {
        let settings = crate::Settings { news, ..crate::Settings::default() };
        super::feeds::collectors(&settings, &Context::default()).unwrap_err().to_string()
    };
    let feeds = |address: &str| Settings { feeds: vec![address.to_owned()], ..Settings::default() };
    let message = refused(feeds("example.org/feed"));
    assert!(
        message.starts_with("failed to use `example.org/feed` of `news.feeds` (should be as `https://"),
        "{message}"
    );
    let secret = refused(feeds("https://me:word@example.org/feed"));
    assert!(secret.contains("`https://…@example.org/feed`") && !secret.contains("word@"), "{secret}");
    assert!(refused(feeds("file:///etc/passwd")).contains("`file:` is no scheme"));
    let opml = |path: &str| refused(Settings { opml: vec![path.to_owned()], ..Settings::default() });
    assert!(opml("/nowhere.opml").contains("failed to read `/nowhere.opml` of `news.opml`: No such file"));
    assert!(opml("https://a.example/x.opml").contains("`databroker feeds import` fetches a list"));
    let callback = refused(Settings { websub_callback_url: "here".to_owned(), ..Settings::default() });
    assert!(callback.contains("should be as `https://news.example.org`"), "{callback}");
    let proxy = refused(Settings { proxy_url: "::".to_owned(), ..Settings::default() });
    assert!(proxy.starts_with("failed to use `news.proxy_url` (should be as `http://"), "{proxy}");
    let socks = refused(Settings { proxy_url: "socks5://127.0.0.1:1080".to_owned(), ..Settings::default() });
    assert_eq!(socks, proxy);
    let wild = Settings { backoff_seconds_max: u64::MAX, timeout_seconds: u64::MAX, ..Settings::default() };
    let settings = crate::Settings { news: wild, ..crate::Settings::default() };
    super::feeds::collectors(&settings, &Context::default()).unwrap();
}
