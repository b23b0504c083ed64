//! The collectors where lists break off, days pass, and answers come late, twice or not at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use contract::{Collector, CoverageKind, Cursor, Harvest, Remedy, Timestamp};

use super::collector_test::{
    NOW, archive, collector, collectors_in, harvest_all, harvesting, numbered, page, papers, searching, settings,
    status,
};
use super::replay::{Archive, Fault, Replay, Response};
use super::settings::Settings;
use crate::{Context, HarvestSize};

fn oai_error(code: &str) -> Response {
    page(format!("<OAI-PMH><error code='{code}'>no</error></OAI-PMH>"))
}

/// A whole page with one paper and this token.
fn page_with(paper: u64, token: &str) -> Response {
    page(format!("<OAI-PMH><ListRecords>{}{token}</ListRecords></OAI-PMH>", archive().record(paper)))
}

/// Days that were asked for, as `from`; the pages after a first one are left out.
fn asked(replay: &Replay) -> Vec<String> {
    replay.requests().iter().filter_map(|request| request.query("from").map(str::to_owned)).collect()
}

/// A collector that lives on, and the time, which a test sets.
fn with_clock(settings: Settings) -> (Box<dyn Collector>, Arc<AtomicI64>) {
    let time = Arc::new(AtomicI64::new(NOW.0));
    let shared = time.clone();
    let clock = Arc::new(move || Timestamp(shared.load(Ordering::Relaxed)));
    (collectors_in(&Context { clock, ..Context::default() }, settings).remove(0), time)
}

/// Polls to the first harvest that is not followed at once by another.
async fn pass(collector: &mut dyn Collector, mut cursor: Cursor) -> Harvest {
    loop {
        let harvest = collector.poll(&cursor).await.unwrap();
        if harvest.poll_again_in > Some(Duration::from_secs(60)) {
            return harvest;
        }
        cursor = harvest.cursor;
    }
}

#[tokio::test]
async fn whatever_is_answered_to_a_token_that_leads_nowhere_starts_its_window_again() {
    for answer in [
        oai_error("badResumptionToken"),
        oai_error("noRecordsMatch"),
        oai_error("badArgument"),
        Response { status: 400, ..oai_error("badResumptionToken") },
        status(404, &[]),
    ] {
        let replay = Replay::start(archive()).await.unwrap();
        let settings = harvesting(&replay, "2026-01-01");
        let first = collector(settings.clone()).poll(&Cursor::default()).await.unwrap();
        replay.answer_next(answer.clone());
        let second = collector(settings.clone()).poll(&first.cursor).await.unwrap();
        assert_eq!((second.records.len(), second.poll_again_in), (0, Some(Duration::from_secs(60))), "{answer:?}");
        let rest = harvest_all(&settings, second.cursor, |_| {}).await;
        assert_eq!(papers(&rest), numbered(1..=70), "{answer:?}");
    }
}

#[tokio::test]
async fn a_token_that_fails_again_and_again_starts_its_window_again() {
    let replay = Replay::start(archive()).await.unwrap();
    let mut collector = collector(harvesting(&replay, "2026-01-01"));
    let first = collector.poll(&Cursor::default()).await.unwrap();
    for response in (0..8).map(|number| if number % 2 == 0 { status(500, &[]) } else { page("<OAI-PMH>") }) {
        replay.answer_next(response);
    }
    for _ in 0..7 {
        assert_eq!(collector.poll(&first.cursor).await.unwrap_err().remedy(), Remedy::Retry);
    }
    let again = collector.poll(&first.cursor).await.unwrap();
    assert_eq!(again.records.len(), 0);
    collector.poll(&again.cursor).await.unwrap();
    assert_eq!(asked(&replay), ["2026-01-01", "2026-01-01"]);
}

#[tokio::test]
async fn a_window_that_breaks_off_twice_is_an_error_and_goes_on_all_the_same() {
    let replay = Replay::start(archive()).await.unwrap();
    let mut collector = collector(harvesting(&replay, "2026-01-01"));
    let first = collector.poll(&Cursor::default()).await.unwrap();
    replay.expire_tokens();
    let again = collector.poll(&first.cursor).await.unwrap();
    let half = collector.poll(&again.cursor).await.unwrap();
    replay.expire_tokens();
    let error = collector.poll(&half.cursor).await.unwrap_err();
    assert_eq!(error.remedy(), Remedy::Retry);
    assert!(error.to_string().contains("breaks off, 2 times now (`badResumptionToken` no)"), "{error}");
    let quarter = collector.poll(&half.cursor).await.unwrap();
    assert_eq!((papers(std::slice::from_ref(&quarter)), asked(&replay).len()), (numbered(1..=5), 3));
    let last = pass(&mut *collector, quarter.cursor).await;
    assert_eq!(last.records.last().map(|record| record.body.clone()), Some(archive().record(70).into()));
}

#[tokio::test]
async fn a_token_past_its_time_is_not_asked_for() {
    for (name, expires, is_past) in [
        ("expirationDate", "2026-01-10T12:00:00Z", true),
        ("expires", "2026-01-10T00:00:00Z", true),
        ("expires", "2026-01-11T00:00:00Z", false),
    ] {
        let replay = Replay::start(archive()).await.unwrap();
        let settings = harvesting(&replay, "2026-01-01");
        let token = "0_2026-01-01_2026-01-04_5";
        replay.answer_next(page_with(1, &format!("<resumptionToken {name}='{expires}'>{token}</resumptionToken>")));
        let first = collector(settings.clone()).poll(&Cursor::default()).await.unwrap();
        let second = collector(settings.clone()).poll(&first.cursor).await.unwrap();
        assert_eq!(
            (second.records.is_empty(), replay.requests().len()),
            (is_past, if is_past { 1 } else { 2 }),
            "{name}"
        );
        let rest = harvest_all(&settings, second.cursor, |_| {}).await;
        assert_eq!(papers(&rest).last(), numbered(70..=70).first());
    }
}

#[tokio::test]
async fn tokens_that_go_round_and_pages_without_records_come_to_an_end() {
    let replay = Replay::start(archive()).await.unwrap();
    let settings = harvesting(&replay, "2026-01-01");
    let token = |name: &str| format!("<resumptionToken>{name}</resumptionToken>");
    ["a", "b", "c", "d", "b", "c", "d", "b", "c", "d"]
        .iter()
        .for_each(|name| replay.answer_next(page_with(1, &token(name))));
    let (mut cursor, mut polls) = (Cursor::default(), 0);
    loop {
        let harvest = collector(settings.clone()).poll(&cursor).await.unwrap();
        (cursor, polls) = (harvest.cursor, polls + 1);
        if harvest.poll_again_in == Some(Duration::from_secs(60)) {
            break;
        }
    }
    assert!(polls <= 10, "{polls}");

    let replay = Replay::start(archive()).await.unwrap();
    for number in 0..20 {
        replay.answer_next(page(format!("<OAI-PMH>{}</OAI-PMH>", token(&number.to_string()))));
    }
    let (mut cursor, mut polls) = (Cursor::default(), 0);
    while polls < 9 {
        cursor = collector(harvesting(&replay, "")).poll(&cursor).await.unwrap().cursor;
        polls += 1;
    }
    assert!(cursor.0.contains("\"restarts\":1"), "{}", cursor.0);
}

#[tokio::test]
async fn yesterday_is_harvested_again_whatever_the_window() {
    let replay = Replay::start(archive()).await.unwrap();
    let (mut collector, time) = with_clock(Settings { oai_window_days: 1, ..harvesting(&replay, "2026-01-09") });
    let first = pass(&mut *collector, Cursor::default()).await;
    let again = pass(&mut *collector, first.cursor).await;
    assert_eq!(asked(&replay), ["2026-01-09", "2026-01-10", "2026-01-09", "2026-01-10"]);
    time.store(NOW.0 + 86_400_000_000, Ordering::Relaxed);
    let next = pass(&mut *collector, again.cursor).await;
    assert_eq!(asked(&replay)[4..], ["2026-01-09", "2026-01-10", "2026-01-11"]);
    pass(&mut *collector, next.cursor).await;
    assert_eq!(asked(&replay)[7..], ["2026-01-10", "2026-01-11"], "the 9th was asked for on the 11th");
}

#[tokio::test]
async fn a_window_that_ends_after_midnight_is_harvested_again() {
    let replay = Replay::start(archive()).await.unwrap();
    let settings = harvesting(&replay, "2026-01-07");
    let (mut collector, time) = with_clock(settings.clone());
    let first = collector.poll(&Cursor::default()).await.unwrap();
    time.store(NOW.0 + 43_200_000_000, Ordering::Relaxed);
    let second = pass(&mut *collector, first.cursor).await;
    assert_eq!(asked(&replay), ["2026-01-07", "2026-01-11"]);
    // As after a restart of the program.
    let (mut collector, restarted) = with_clock(settings);
    restarted.store(time.load(Ordering::Relaxed), Ordering::Relaxed);
    pass(&mut *collector, second.cursor).await;
    assert_eq!(asked(&replay)[2..], ["2026-01-09"], "its last day was asked for when it was today");
}

#[tokio::test]
async fn days_before_the_archive_are_not_asked_for_and_an_empty_window_may_be_a_4xx() {
    let replay = Replay::start(archive()).await.unwrap();
    replay.answer_next(Response { status: 422, ..oai_error("noRecordsMatch") });
    let harvest = collector(harvesting(&replay, "1991-08-14")).poll(&Cursor::default()).await.unwrap();
    assert_eq!(asked(&replay), ["2005-09-16"]);
    assert_eq!((harvest.coverage[0].kind, harvest.coverage[0].records), (CoverageKind::Covered, 0));
    replay.answer_next(oai_error("badArgument"));
    let error = collector(harvesting(&replay, "")).poll(&Cursor::default()).await.unwrap_err();
    assert!(error.to_string().contains("`arxiv.since`"), "{error}");
}

#[tokio::test]
async fn the_head_of_a_refusal_counts_also_where_its_body_is_cut() {
    let wait = [("Retry-After", "17")];
    for (code, headers, seconds) in
        [(503, &wait[..], 17), (429, &wait[..], 17), (403, &wait[..], 17), (500, &wait[..], 17), (503, &[], 1)]
    {
        for fault in [Fault::None, Fault::CutAfter(3), Fault::Length(2_000)] {
            let replay = Replay::start(archive()).await.unwrap();
            let body = vec![b'x'; 1_000];
            replay.answer_next(Response { body, fault, ..status(code, headers) });
            let error = collector(harvesting(&replay, "")).poll(&Cursor::default()).await.unwrap_err();
            assert_eq!(error.remedy(), Remedy::RetryAfter(Duration::from_secs(seconds)), "{code} {fault:?}: {error}");
        }
    }
}

#[tokio::test]
async fn redirects_and_what_follows_a_page_for_people_wait_at_the_gate() {
    let replay = Replay::start(archive()).await.unwrap();
    let settings = Settings { request_interval_seconds: 0.2, ..harvesting(&replay, "") };
    replay.answer_next(status(301, &[("Location", "BASE/oai?verb=ListRecords&from=2026-01-09&until=2026-01-10")]));
    let started = Instant::now();
    let harvest = collector(settings).poll(&Cursor::default()).await.unwrap();
    assert_eq!((harvest.records.len(), replay.requests().len()), (5, 2));
    assert!(started.elapsed() >= Duration::from_millis(200));

    let mut collector = collector(harvesting(&replay, ""));
    replay.answer_next(page("Rate exceeded."));
    collector.poll(&Cursor::default()).await.unwrap_err();
    let started = Instant::now();
    collector.poll(&Cursor::default()).await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(80), "requests become rarer");
}

/// A page of the API with these papers.
fn feed(papers: impl IntoIterator<Item = u64>) -> Response {
    let entry = |number: u64| {
        let (id, time) = (Archive::id(number), archive().time(number));
        format!(
            "<entry><id>http://arxiv.org/abs/{id}v1</id><updated>{time}</updated><published>{time}</published></entry>"
        )
    };
    let entries: String = papers.into_iter().map(entry).collect();
    page(format!("<feed><o:totalResults>1000</o:totalResults>{entries}</feed>"))
}

#[tokio::test]
async fn an_entry_that_is_cross_listed_late_is_found_among_known_ones() {
    let replay = Replay::start(archive()).await.unwrap();
    replay.answer_next(feed((61..=70).rev()));
    let first = collector(searching(&replay)).poll(&Cursor::default()).await.unwrap();
    replay.answer_next(feed((62..=71).rev()));
    replay.answer_next(feed([61, 58, 12, 11, 10, 9, 8, 7, 6, 5]));
    replay.answer_next(feed(1..=10));
    let second = collector(searching(&replay)).poll(&first.cursor).await.unwrap();
    assert!(papers(std::slice::from_ref(&second)).contains(&Archive::id(58)));
    assert_eq!(replay.requests().len(), 4, "the third page is older than a week");
    let missed = second.coverage.iter().any(|line| line.kind == CoverageKind::Missed);
    assert!(!missed, "{:?}", second.coverage);
}

#[tokio::test]
async fn a_query_with_large_pages_knows_all_of_a_page() {
    let replay = Replay::start(Archive { papers: 1_000, papers_per_day: 500, ..archive() }).await.unwrap();
    let settings = Settings { search_page_size: 400, ..searching(&replay) };
    let first = collector(settings.clone()).poll(&Cursor::default()).await.unwrap();
    let second = collector(settings).poll(&first.cursor).await.unwrap();
    assert_eq!((first.records.len(), second.records.len(), replay.requests().len()), (400, 0, 2));
}

#[tokio::test]
async fn a_query_with_more_than_a_harvest_holds_goes_on_with_the_next_poll() {
    let replay = Replay::start(archive()).await.unwrap();
    let settings = Settings { search_pages_max: 6, ..searching(&replay) };
    let small = HarvestSize { records_max: 1, bytes_max: 1 };
    let context = Context { clock: Arc::new(|| NOW), harvest: small };
    let one = || collectors_in(&context, settings.clone()).remove(0);
    let first = one().poll(&Cursor::default()).await.unwrap();
    replay.grow(35);
    let (mut cursor, mut found, mut pages) = (first.cursor, Vec::new(), 0);
    loop {
        let harvest = one().poll(&cursor).await.unwrap();
        (cursor, pages) = (harvest.cursor.clone(), pages + 1);
        assert!(harvest.records.len() <= 10);
        assert!(harvest.coverage.iter().all(|line| line.kind == CoverageKind::Covered), "{:?}", harvest.coverage);
        found.extend(papers(std::slice::from_ref(&harvest)));
        if harvest.poll_again_in > Some(Duration::ZERO) {
            break;
        }
    }
    found.sort();
    assert_eq!((pages, found), (6, [numbered(46..=60), numbered(71..=105)].concat()));
    let last = one().poll(&cursor).await.unwrap();
    assert_eq!((last.records.len(), replay.requests().len()), (0, 8));
}

/// A listing of one paper, made on a day.
fn listing(day: &str, paper: u64) -> Response {
    let id = Archive::id(paper);
    let item = format!("<item><title>T</title><link>https://arxiv.org/abs/{id}</link><pubDate>{day}</pubDate></item>");
    page(format!("<rss><channel><pubDate>{day}</pubDate>{item}</channel></rss>"))
}

#[tokio::test]
async fn a_listing_that_was_not_read_is_told() {
    let replay = Replay::start(archive()).await.unwrap();
    let settings = Settings { listings: vec!["cs.AI".to_owned()], ..settings(&replay) };
    let mut cursor = Cursor::default();
    let mut lines = Vec::new();
    for (day, paper) in [("2026-01-02T05:00:00Z", 1), ("2026-01-05T05:00:00Z", 2), ("2026-01-08T05:00:00Z", 3)] {
        replay.answer_next(listing(day, paper));
        let harvest = collector(settings.clone()).poll(&cursor).await.unwrap();
        cursor = harvest.cursor;
        lines.extend(harvest.coverage.into_iter().map(|line| (line.kind, line.from.to_string(), line.records)));
    }
    let expected = [
        (CoverageKind::Covered, "2026-01-01T05:00:00Z", 1),
        (CoverageKind::Covered, "2026-01-02T05:00:00Z", 1),
        (CoverageKind::Missed, "2026-01-05T05:00:00Z", 2),
        (CoverageKind::Covered, "2026-01-07T05:00:00Z", 1),
    ];
    assert_eq!(lines, expected.map(|(kind, from, records)| (kind, from.to_owned(), records)));
}

#[tokio::test]
async fn what_a_listing_says_in_place_of_papers_is_shown() {
    let replay = Replay::start(archive()).await.unwrap();
    let settings = Settings { listings: vec!["cs.XX".to_owned()], ..settings(&replay) };
    let feed = "<?xml version='1.0'?><rss><channel><title>x</title><description>No such category</description></channel></rss>";
    for (response, said) in [(page(feed), "arXiv answers 400 (No such category)"), (page("go away"), "400 (go away)")] {
        replay.answer_next(Response { status: 400, ..response });
        let error = collector(settings.clone()).poll(&Cursor::default()).await.unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
    }
}
