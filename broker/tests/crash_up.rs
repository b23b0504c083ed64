//! SIGKILL of `up` at random moments, while it polls the project's own servers or reads a watched folder.

use std::time::{Duration, Instant};

use acquisition::replay::Response;
use acquisition::{arxiv, github, news};
use contract::{Clock, Day, SystemClock, Timestamp};
use serde_json::Value;

use crate::crash::{Group, picture};
use crate::support::{Place, Random, eventually, feed};

/// Kills of each source's `up`, every other before it is ready; with those of its backfills at least 50.
pub(crate) const KILLS: u64 = 14;

/// How long a ready `up` lives at the most.
const LIFE_MS: u64 = 700;

/// Kills `up` again and again; `meanwhile` is told the number of the kill before each, and once more in the end.
pub(crate) fn kill_again_and_again(place: &Place, mut meanwhile: impl FnMut(u64)) {
    let mut random = Random::from_environment();
    let mut ready_ms = LIFE_MS;
    for number in 0..KILLS {
        meanwhile(number);
        let started = Instant::now();
        let up = match number % 2 {
            0 => {
                let up = place.up(&[]);
                ready_ms = started.elapsed().as_millis() as u64;
                std::thread::sleep(Duration::from_millis(random.below(LIFE_MS)));
                up
            }
            _ => {
                let up = place.starting_up(&[]);
                std::thread::sleep(Duration::from_millis(random.below(ready_ms)));
                up
            }
        };
        up.kill();
    }
    meanwhile(KILLS);
}

/// The same. Lets it come to all `rows` then, and answers the picture.
fn kill_ups(place: &Place, source: &str, groups: &[Group], rows: u64, meanwhile: impl FnMut(u64)) -> Value {
    kill_again_and_again(place, meanwhile);
    let up = place.up(&[]);
    eventually("all that was served is a row", || {
        place.count(&format!("SELECT count(*) FROM silver.{source}")) >= rows
    });
    assert!(up.end().success(), "{}", place.up_log());
    let picture = picture(place, source, groups);
    assert_eq!(picture["hot"][0].as_u64(), Some(rows), "{picture}");
    picture
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

/// How many of `1..=last` have this last digit.
fn with_last_digit(last: u64, digit: u64) -> u64 {
    (1..=last).filter(|number| number % 10 == digit).count() as u64
}

#[test]
fn up_of_github_killed_at_random_moments_loses_and_doubles_nothing() {
    let runtime = runtime();
    let start = Timestamp::parse_rfc3339("2026-01-01T00:00:00Z").expect("a time");
    let stream = github::replay::EventStream { first: 40, growth: 40, last: 720, start, poll_interval_seconds: 0 };
    let server = runtime.block_on(github::replay::Replay::stream(stream)).expect("a port");
    let mut place = Place::with_small_steps();
    place.environment.extend([
        ("DATABROKER_GITHUB_FEEDS", "[\"public\"]".to_owned()),
        ("DATABROKER_GITHUB_BASE_URL", server.base_url()),
        ("DATABROKER_GITHUB_POLL_INTERVAL_SECONDS", "0".to_owned()),
    ]);
    let types: [Group; 3] = [
        ("type = 'WatchEvent'", "type:WatchEvent"),
        ("type = 'CreateEvent'", "type:CreateEvent"),
        ("type = 'PushEvent'", "type:PushEvent"),
    ];
    let picture = kill_ups(&place, "github", &types, stream.last, |_| {});
    for (number, count) in [(1, 240), (2, 240), (3, 240)] {
        assert_eq!(picture["hot"][number].as_u64(), Some(count), "{picture}");
    }
    let (first, last) = (github::replay::EventStream::id(1), github::replay::EventStream::id(stream.last));
    let served = format!("SELECT count(DISTINCT _id) FROM silver.github WHERE _id BETWEEN '{first}' AND '{last}'");
    assert_eq!(place.count(&served), stream.last);
    assert_eq!(place.count("SELECT coalesce(sum(records), 0) FROM ops.coverage WHERE kind = 'missed'"), 0);
}

#[test]
fn up_of_arxiv_killed_at_random_moments_loses_and_doubles_nothing() {
    let runtime = runtime();
    let today = SystemClock.now().day();
    let archive = arxiv::replay::Archive { first_day: Day(today.0 - 9), papers_per_day: 40, papers: 360, page_size: 6 };
    let server = runtime.block_on(arxiv::replay::Replay::start(archive)).expect("a port");
    let mut place = Place::with_small_steps();
    place.environment.retain(|(name, _)| *name != "DATABROKER_ARXIV_OAI_SETS");
    place.environment.extend([
        ("DATABROKER_ARXIV_OAI_SETS", "[\"cs\"]".to_owned()),
        ("DATABROKER_ARXIV_OAI_URL", server.oai_url()),
        ("DATABROKER_ARXIV_SINCE", archive.first_day.to_string()),
        ("DATABROKER_ARXIV_OAI_WINDOW_DAYS", "2".to_owned()),
        ("DATABROKER_ARXIV_REQUEST_INTERVAL_SECONDS", "0.04".to_owned()),
    ]);
    let digits: [Group; 2] = [("arxiv_id LIKE '%3'", "arxiv_id:*3"), ("arxiv_id LIKE '%7'", "arxiv_id:*7")];
    // Today's papers come while it runs; the last of them before the last start.
    let picture = kill_ups(&place, "arxiv", &digits, 360 + KILLS + 1, |_| server.grow(1));
    assert_eq!(picture["hot"][1].as_u64(), Some(with_last_digit(360 + KILLS + 1, 3)), "{picture}");
    assert_eq!(picture["hot"][2].as_u64(), Some(with_last_digit(360 + KILLS + 1, 7)), "{picture}");
    assert_eq!(place.count("SELECT coalesce(sum(records), 0) FROM ops.coverage WHERE kind = 'missed'"), 0);
}

#[test]
fn up_of_arxiv_s_searches_and_listings_killed_at_random_moments_loses_and_doubles_nothing() {
    const MORE: u64 = 30;
    let runtime = runtime();
    let first_day = Day(SystemClock.now().day().0 - 1);
    // One day has them all, so that its listing has.
    let archive = arxiv::replay::Archive { first_day, papers_per_day: 80_000, papers: 60, page_size: 6 };
    let server = runtime.block_on(arxiv::replay::Replay::start(archive)).expect("a port");
    let mut place = Place::with_small_steps();
    place.environment.extend([
        ("DATABROKER_ARXIV_SEARCHES", "[\"cat:cs.AI\"]".to_owned()),
        ("DATABROKER_ARXIV_API_URL", server.api_url()),
        ("DATABROKER_ARXIV_SEARCH_PAGE_SIZE", "60".to_owned()),
        ("DATABROKER_ARXIV_LISTINGS", "[\"cs.AI\"]".to_owned()),
        ("DATABROKER_ARXIV_LISTING_URL", server.listing_url()),
        ("DATABROKER_ARXIV_REQUEST_INTERVAL_SECONDS", "0.04".to_owned()),
    ]);
    let ways: [Group; 2] = [("format = 'atom'", "format:atom"), ("format = 'rss'", "format:rss")];
    // What comes while it is away is found when it starts.
    let all = 60 + MORE * KILLS;
    let picture = kill_ups(&place, "arxiv", &ways, 2 * all, |number| server.grow(if number == 0 { 0 } else { MORE }));
    for number in 1..=2 {
        assert_eq!(picture["hot"][number].as_u64(), Some(all), "{picture}");
    }
    assert_eq!(place.count("SELECT coalesce(sum(records), 0) FROM ops.coverage WHERE kind = 'missed'"), 0);
}

#[test]
fn up_of_news_killed_at_random_moments_loses_and_doubles_nothing() {
    const MORE: u64 = 20;
    let runtime = runtime();
    let server = runtime.block_on(news::replay::Replay::start()).expect("a port");
    let mut place = Place::with_small_steps();
    place.environment.retain(|(name, _)| *name != "DATABROKER_NEWS_FEEDS");
    place.environment.extend([
        ("DATABROKER_NEWS_FEEDS", format!("[\"{}\"]", server.url("/feed"))),
        ("DATABROKER_NEWS_ALLOW_PRIVATE_ADDRESSES", "true".to_owned()),
        ("DATABROKER_NEWS_PORTS", "[]".to_owned()),
        ("DATABROKER_NEWS_INTERVAL_SECONDS_MIN", "1".to_owned()),
        ("DATABROKER_NEWS_INTERVAL_SECONDS_MAX", "1".to_owned()),
        ("DATABROKER_NEWS_START_SPREAD_SECONDS", "0".to_owned()),
        ("DATABROKER_NEWS_HOST_SPACING_MS", "0".to_owned()),
    ]);
    let digits: [Group; 2] = [("guid LIKE '%3'", "guid:*3"), ("guid LIKE '%7'", "guid:*7")];
    let all = MORE * (KILLS + 1);
    let picture = kill_ups(&place, "news", &digits, all, |number| {
        let entries = MORE * (number + 1);
        server.route("/feed", [Response::body(feed(entries)).with("ETag", format!("\"{entries}\""))]);
    });
    assert_eq!(picture["hot"][1].as_u64(), Some(with_last_digit(all, 3)), "{picture}");
    assert_eq!(picture["hot"][2].as_u64(), Some(with_last_digit(all, 7)), "{picture}");
}

/// A capture of queries, as raw IPv4 packets: a name and an id each, types in turn.
fn capture(numbers: std::ops::Range<u16>) -> Vec<u8> {
    const TYPES: [u16; 3] = [1, 28, 16];
    let mut file = [&0xa1b2_c3d4_u32.to_le_bytes()[..], &[2, 0, 4, 0], &[0; 8], &65_535_u32.to_le_bytes()].concat();
    file.extend(101_u32.to_le_bytes());
    for number in numbers {
        let name = format!("host-{number:05}");
        let head = [&number.to_be_bytes()[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0, name.len() as u8]].concat();
        let tail = [&[4][..], b"test", &[0], &TYPES[usize::from(number % 3)].to_be_bytes(), &[0, 1]].concat();
        let message = [&head, name.as_bytes(), &tail].concat();
        let udp_length = (8 + message.len()) as u16;
        let ip = [&[0x45, 0][..], &(20 + udp_length).to_be_bytes(), &[0, 0, 0, 0, 64, 17, 0, 0]].concat();
        let ports = [&[192, 0, 2, 1, 192, 0, 2, 53][..], &40_000_u16.to_be_bytes(), &53_u16.to_be_bytes()].concat();
        let packet = [&ip[..], &ports, &udp_length.to_be_bytes(), &[0, 0], &message].concat();
        let length = (packet.len() as u32).to_le_bytes();
        file.extend((1_767_225_600 + u32::from(number)).to_le_bytes());
        file.extend([&0_u32.to_le_bytes()[..], &length, &length, &packet].concat());
    }
    file
}

#[test]
fn up_of_dns_killed_at_random_moments_loses_and_doubles_nothing() {
    const MORE: u16 = 90;
    let mut place = Place::with_small_steps();
    let folder = place.home.path().join("captures");
    std::fs::create_dir(&folder).expect("writable");
    place.environment.extend([
        ("DATABROKER_DNS_DIRECTORIES", format!("[\"{}\"]", folder.display())),
        ("DATABROKER_DNS_DIRECTORY_SETTLE_SECONDS", "1".to_owned()),
        ("DATABROKER_BACKFILL_RECORDS_MAX", "15".to_owned()),
    ]);
    let types: [Group; 3] =
        [("qtype = 'A'", "qtype:A"), ("qtype = 'AAAA'", "qtype:AAAA"), ("qtype = 'TXT'", "qtype:TXT")];
    let all = u64::from(MORE) * (KILLS + 1);
    let picture = kill_ups(&place, "dns", &types, all, |number| {
        let from = number as u16 * MORE;
        let unfinished = place.home.path().join("unfinished");
        std::fs::write(&unfinished, capture(from..from + MORE)).expect("writable");
        std::fs::rename(unfinished, folder.join(format!("{number:03}.pcap"))).expect("writable");
    });
    for number in 1..=3 {
        assert_eq!(picture["hot"][number].as_u64(), Some(all / 3), "{picture}");
    }
}
