//! The collectors against a server that behaves, and misbehaves, as arXiv does.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use contract::{Collector, CoverageKind, Cursor, Day, Error, Harvest, Remedy, Timestamp};

use super::replay::{Archive, Fault, Replay, Response};
use super::settings::Settings;
use crate::Context;

/// 2026-01-10T12:00:00Z.
pub(super) const NOW: Timestamp = Timestamp(1_768_046_400_000_000);

/// Ten days of seven papers, the last of them today.
pub(super) fn archive() -> Archive {
    Archive { first_day: Day(NOW.day().0 - 9), papers_per_day: 7, papers: 70, page_size: 5 }
}

/// Nothing is asked unless a test says so, and nothing is waited for.
pub(super) fn settings(replay: &Replay) -> Settings {
    Settings {
        oai_sets: Vec::new(),
        oai_url: replay.oai_url(),
        api_url: replay.api_url(),
        listing_url: replay.listing_url(),
        request_interval_seconds: 0.0,
        timeout_seconds: 2,
        ..Settings::default()
    }
}

pub(super) fn harvesting(replay: &Replay, since: &str) -> Settings {
    Settings { oai_sets: vec!["cs".to_owned()], since: since.to_owned(), oai_window_days: 4, ..settings(replay) }
}

pub(super) fn searching(replay: &Replay) -> Settings {
    Settings { searches: vec!["cat:cs.AI".to_owned()], search_page_size: 10, search_pages_max: 3, ..settings(replay) }
}

fn collectors(settings: Settings) -> Vec<Box<dyn Collector>> {
    collectors_in(&Context { clock: Arc::new(|| NOW), ..Context::default() }, settings)
}

pub(super) fn collectors_in(context: &Context, settings: Settings) -> Vec<Box<dyn Collector>> {
    let settings = crate::Settings { arxiv: settings, ..crate::Settings::default() };
    super::collectors::collectors(&settings, context).unwrap().polled
}

pub(super) fn collector(settings: Settings) -> Box<dyn Collector> {
    let mut all = collectors(settings);
    assert_eq!(all.len(), 1);
    all.remove(0)
}

/// Polls to the first harvest that is not followed at once by another, each time with a new collector, as after a crash.
pub(super) async fn harvest_all(
    settings: &Settings,
    mut cursor: Cursor,
    mut meanwhile: impl FnMut(usize),
) -> Vec<Harvest> {
    let mut harvests: Vec<Harvest> = Vec::new();
    loop {
        let harvest = collector(settings.clone()).poll(&cursor).await.unwrap();
        cursor = harvest.cursor.clone();
        let is_last = harvest.poll_again_in > Some(Duration::from_secs(60));
        harvests.push(harvest);
        if is_last {
            return harvests;
        }
        meanwhile(harvests.len());
    }
}

pub(super) fn papers(harvests: &[Harvest]) -> Vec<String> {
    let records = harvests.iter().flat_map(|harvest| &harvest.records);
    records.map(|record| record.id.as_str().split('v').next().unwrap_or_default().to_owned()).collect()
}

pub(super) fn numbered(range: std::ops::RangeInclusive<u64>) -> Vec<String> {
    range.map(Archive::id).collect()
}

pub(super) fn status(status: u16, headers: &[(&'static str, &str)]) -> Response {
    let headers = headers.iter().map(|&(name, value)| (name, value.to_owned())).collect();
    Response { status, headers, ..Response::default() }
}

pub(super) fn page(body: impl Into<Vec<u8>>) -> Response {
    Response { body: body.into(), ..Response::default() }
}

/// The error of a harvest whose first page is this.
async fn failure(response: Response) -> Error {
    let replay = Replay::start(archive()).await.unwrap();
    replay.answer_next(response);
    collector(harvesting(&replay, "")).poll(&Cursor::default()).await.unwrap_err()
}

#[tokio::test]
async fn a_harvest_goes_through_windows_and_pages_and_resumes_at_each() {
    let replay = Replay::start(archive()).await.unwrap();
    let harvests = harvest_all(&harvesting(&replay, "2026-01-01"), Cursor::default(), |_| {}).await;
    assert_eq!(papers(&harvests), numbered(1..=70));
    assert_eq!(harvests[0].collector.0, "arxiv/oai/cs/arXivRaw");
    assert_eq!(harvests[0].records[3].body, archive().record(4), "the exact bytes of the record");
    let lines: Vec<_> = harvests.iter().flat_map(|harvest| &harvest.coverage).collect();
    let covered: Vec<_> = lines.iter().map(|line| (line.from.to_string(), line.to.to_string(), line.records)).collect();
    let covered: Vec<_> = covered.iter().map(|(from, to, records)| (&from[..10], &to[..], *records)).collect();
    assert_eq!(
        covered,
        [
            ("2026-01-01", "2026-01-05T00:00:00Z", 28),
            ("2026-01-05", "2026-01-09T00:00:00Z", 28),
            ("2026-01-09", "2026-01-10T12:00:00Z", 14),
        ]
    );
    let targets: Vec<String> = replay.requests().into_iter().map(|request| request.target).collect();
    assert_eq!(targets[0], "/oai?verb=ListRecords&metadataPrefix=arXivRaw&from=2026-01-01&until=2026-01-04&set=cs");
    assert_eq!(targets[1], "/oai?verb=ListRecords&resumptionToken=0_2026-01-01_2026-01-04_5");
    assert_eq!(targets.len(), 6 + 6 + 3);
}

#[tokio::test]
async fn the_days_that_may_change_are_harvested_again() {
    let replay = Replay::start(archive()).await.unwrap();
    let settings = harvesting(&replay, "");
    let first = harvest_all(&settings, Cursor::default(), |_| {}).await;
    assert_eq!(papers(&first), numbered(57..=70), "from yesterday on");
    replay.grow(1);
    let again = harvest_all(&settings, first.last().unwrap().cursor.clone(), |_| {}).await;
    assert_eq!(papers(&again), numbered(57..=70));
    let ids = |harvests: &[Harvest]| -> BTreeSet<String> {
        harvests.iter().flat_map(|harvest| &harvest.records).map(|record| record.id.to_string()).collect()
    };
    assert_eq!(ids(&first), ids(&again), "what is unchanged has the id it had");
    assert_eq!(again.last().unwrap().poll_again_in, Some(Duration::from_secs(6 * 3600)));
}

#[tokio::test]
async fn an_expired_token_starts_its_window_again_and_never_from_zero() {
    let replay = Replay::start(archive()).await.unwrap();
    let expire = |harvests: usize| {
        if [3, 9].contains(&harvests) {
            replay.expire_tokens();
        }
    };
    let harvests = harvest_all(&harvesting(&replay, "2026-01-01"), Cursor::default(), expire).await;
    let unique: BTreeSet<String> = papers(&harvests).into_iter().collect();
    assert_eq!(unique.into_iter().collect::<Vec<_>>(), numbered(1..=70));
    let from: Vec<String> =
        replay.requests().iter().filter_map(|request| request.query("from").map(str::to_owned)).collect();
    assert!(from.is_sorted(), "{from:?}");
    let until: Vec<String> =
        replay.requests().iter().filter_map(|request| request.query("until").map(str::to_owned)).collect();
    assert_eq!(until[..2], ["2026-01-04", "2026-01-02"], "in smaller steps");
    let missed = harvests.iter().flat_map(|harvest| &harvest.coverage).any(|line| line.kind == CoverageKind::Missed);
    assert!(!missed);
}

#[tokio::test]
async fn a_token_that_comes_again_starts_the_window_again() {
    let replay = Replay::start(archive()).await.unwrap();
    let settings = harvesting(&replay, "2026-01-01");
    let first = collector(settings.clone()).poll(&Cursor::default()).await.unwrap();
    let again = "<OAI-PMH><resumptionToken>0_2026-01-01_2026-01-04_5</resumptionToken></OAI-PMH>";
    replay.answer_next(page(again));
    let second = collector(settings.clone()).poll(&first.cursor).await.unwrap();
    assert_eq!((second.records.len(), second.poll_again_in), (0, Some(Duration::from_secs(60))));
    let rest = harvest_all(&settings, second.cursor, |_| {}).await;
    assert_eq!(papers(&rest), numbered(1..=70));
}

#[tokio::test]
async fn days_without_records_are_covered_too() {
    let replay = Replay::start(Archive { papers: 0, ..archive() }).await.unwrap();
    let harvests = harvest_all(&harvesting(&replay, ""), Cursor::default(), |_| {}).await;
    let [covered] = &harvests[0].coverage[..] else { panic!("{harvests:?}") };
    assert_eq!((covered.kind, covered.records), (CoverageKind::Covered, 0));
}

#[tokio::test]
async fn a_list_that_ends_before_its_stated_size_is_told() {
    let replay = Replay::start(archive()).await.unwrap();
    let list = format!(
        "<OAI-PMH><ListRecords>{}<resumptionToken completeListSize='9'/></ListRecords></OAI-PMH>",
        archive().record(1)
    );
    replay.answer_next(page(list));
    let harvest = collector(harvesting(&replay, "")).poll(&Cursor::default()).await.unwrap();
    let [covered, missed] = &harvest.coverage[..] else { panic!("{:?}", harvest.coverage) };
    assert_eq!((covered.kind, missed.kind), (CoverageKind::Covered, CoverageKind::Missed));
    assert_eq!((covered.records, missed.records), (1, 8));
    assert!(missed.reason.ends_with(": the list ends before its stated size"), "{}", missed.reason);
}

#[tokio::test]
async fn deleted_and_broken_records_of_a_whole_page_are_taken() {
    let replay = Replay::start(archive()).await.unwrap();
    let deleted = "<record><header status='deleted'><identifier>oai:arXiv.org:2501.00009</identifier><datestamp>2026-01-10</datestamp></header></record>";
    replay.answer_next(page(format!("<OAI-PMH><ListRecords>{deleted}<record>broken</ListRecords></OAI-PMH>")));
    let harvest = collector(harvesting(&replay, "")).poll(&Cursor::default()).await.unwrap();
    let bodies: Vec<&[u8]> = harvest.records.iter().map(|record| &record.body[..]).collect();
    assert_eq!(bodies, [deleted.as_bytes(), b"<record>broken"]);
    assert_eq!(harvest.records[0].event_time.to_string(), "2026-01-10T00:00:00Z");
}

#[tokio::test]
async fn trouble_that_passes_is_retried_and_nothing_is_taken() {
    let whole = format!("<OAI-PMH><ListRecords>{}</ListRecords></OAI-PMH>", archive().record(1));
    let faulty = |fault| Response { fault, ..page(whole.clone()) };
    for trouble in [
        status(500, &[]),
        faulty(Fault::Reset),
        faulty(Fault::CutAfter(40)),
        faulty(Fault::Length(whole.len() + 10)),
        faulty(Fault::Length(whole.len() - 10)),
        faulty(Fault::Slow(Duration::from_secs(20))),
        page("<html>Rate exceeded.</html>"),
        page(""),
        Response { headers: vec![("Content-Encoding", "gzip".to_owned())], ..page("no gzip") },
    ] {
        let error = failure(trouble.clone()).await;
        assert_eq!(error.remedy(), Remedy::Retry, "{trouble:?}: {error}");
        assert!(error.to_string().starts_with("failed to harvest `arxiv/oai/cs/arXivRaw`"), "{error}");
    }
}

#[tokio::test]
async fn arxiv_says_when_to_come_back() {
    let after = |seconds| Remedy::RetryAfter(Duration::from_secs(seconds));
    let error = failure(status(503, &[("Retry-After", "17")])).await;
    assert_eq!(error.remedy(), after(17));
    assert_eq!(error.to_string(), "failed to harvest `arxiv/oai/cs/arXivRaw`: arXiv asks to wait 17 s");
    assert_eq!(failure(status(429, &[("Retry-After", "Sat, 10 Jan 2026 12:01:00 GMT")])).await.remedy(), after(60));
    assert_eq!(failure(status(429, &[])).await.remedy(), after(1));
}

#[tokio::test]
async fn what_arxiv_refuses_is_said_and_tried_again_later() {
    let bad = "<OAI-PMH><error code='badArgument'>no such set</error></OAI-PMH>";
    let loops = status(301, &[("Location", "BASE/oai")]);
    let replay = Replay::start(archive()).await.unwrap();
    (0..10).for_each(|_| replay.answer_next(loops.clone()));
    let endless = collector(harvesting(&replay, "")).poll(&Cursor::default()).await.unwrap_err();
    for (error, said) in [
        (failure(page(bad)).await, "the archive answers `badArgument` no such set; see `arxiv.oai_sets`"),
        (failure(status(403, &[])).await, "arXiv answers 403"),
        (failure(status(304, &[])).await, "arXiv answers 304"),
        (failure(Response { status: 400, ..page(bad) }).await, "arXiv answers 400 (`badArgument` no such set)"),
        (endless, "redirect"),
    ] {
        assert_eq!(error.remedy(), Remedy::RetryAfter(Duration::from_secs(900)), "{error}");
        assert!(error.to_string().contains(said), "{error}");
    }
}

#[tokio::test]
async fn a_wait_that_arxiv_asks_for_holds_for_all_collectors() {
    let replay = Replay::start(archive()).await.unwrap();
    let mut all = collectors(Settings { listings: vec!["cs.AI".to_owned()], ..harvesting(&replay, "") });
    replay.answer_next(status(503, &[("Retry-After", "600")]));
    for collector in &mut all {
        let error = collector.poll(&Cursor::default()).await.unwrap_err();
        let Remedy::RetryAfter(wait) = error.remedy() else { panic!("{error}") };
        assert!(wait > Duration::from_secs(590), "{error}");
    }
    assert_eq!(replay.requests().len(), 1);
}

#[tokio::test]
async fn a_query_is_read_back_to_a_page_that_is_known_and_comes_oldest_first() {
    let replay = Replay::start(archive()).await.unwrap();
    let first = collector(searching(&replay)).poll(&Cursor::default()).await.unwrap();
    assert_eq!(papers(std::slice::from_ref(&first)), numbered(61..=70), "one page, the first time");
    let query =
        "/api/query?search_query=cat%3Acs.AI&sortBy=lastUpdatedDate&sortOrder=descending&start=0&max_results=10";
    assert_eq!(replay.requests()[0].target, query);
    replay.grow(15);
    let second = collector(searching(&replay)).poll(&first.cursor).await.unwrap();
    let expected: Vec<String> = [numbered(56..=60), numbered(71..=85)].concat();
    assert_eq!(papers(std::slice::from_ref(&second)), expected, "three pages, since the first poll read no further");
    assert_eq!(replay.requests().len(), 1 + 3);
    let third = collector(searching(&replay)).poll(&second.cursor).await.unwrap();
    assert_eq!((third.records.len(), third.coverage.len()), (0, 0));
    replay.grow(100);
    let fourth = collector(searching(&replay)).poll(&third.cursor).await.unwrap();
    assert_eq!(papers(std::slice::from_ref(&fourth)), numbered(156..=185));
    let [missed, covered] = &fourth.coverage[..] else { panic!("{:?}", fourth.coverage) };
    assert_eq!((missed.kind, covered.kind), (CoverageKind::Missed, CoverageKind::Covered));
    assert_eq!(missed.to, covered.from);
}

#[tokio::test]
async fn an_empty_page_that_should_not_be_is_asked_for_again() {
    let replay = Replay::start(archive()).await.unwrap();
    let empty = "<feed><o:totalResults>70</o:totalResults></feed>";
    replay.answer_next(page(empty));
    let first = collector(searching(&replay)).poll(&Cursor::default()).await.unwrap();
    assert_eq!(first.records.len(), 10);
    assert_eq!(replay.requests().len(), 2);
    // One that denies all there was before is no better.
    (0..3).for_each(|_| replay.answer_next(page("<feed><o:totalResults>0</o:totalResults></feed>")));
    let error = collector(searching(&replay)).poll(&first.cursor).await.unwrap_err();
    assert_eq!(error.remedy(), Remedy::Retry);
    assert!(error.to_string().ends_with("the page from 0 on is empty, and should not be"), "{error}");
}

#[tokio::test]
async fn a_query_without_results_and_a_wrong_one_are_told_apart() {
    let replay = Replay::start(Archive { papers: 0, ..archive() }).await.unwrap();
    let none = collector(searching(&replay)).poll(&Cursor::default()).await.unwrap();
    assert_eq!((none.records.len(), replay.requests().len()), (0, 1));
    let error = "<feed><entry><id>http://arxiv.org/api/errors#x</id><title>Error</title><summary>bad id</summary></entry></feed>";
    for response in [page(error), Response { status: 400, ..page(error) }] {
        replay.answer_next(response);
        let error = collector(searching(&replay)).poll(&Cursor::default()).await.unwrap_err();
        assert_eq!(error.remedy(), Remedy::RetryAfter(Duration::from_secs(900)));
        assert!(error.to_string().contains("arXiv answers an error: bad id"), "{error}");
    }
}

#[tokio::test]
async fn a_listing_is_read_once_and_then_answers_304() {
    let replay = Replay::start(archive()).await.unwrap();
    let settings = Settings { listings: vec!["cs.AI".to_owned()], ..settings(&replay) };
    let first = collector(settings.clone()).poll(&Cursor::default()).await.unwrap();
    assert_eq!(
        (first.collector.0.as_str(), papers(std::slice::from_ref(&first))),
        ("arxiv/listing/cs.AI", numbered(64..=70))
    );
    assert_eq!((first.coverage[0].kind, first.coverage[0].records), (CoverageKind::Covered, 7));
    let second = collector(settings.clone()).poll(&first.cursor).await.unwrap();
    assert_eq!((second.records.len(), &second.cursor), (0, &first.cursor));
    assert_eq!(replay.requests()[1].header("if-none-match"), Some("\"70\""));
    replay.answer_next(page("<rss><channel>"));
    let error = collector(settings).poll(&second.cursor).await.unwrap_err();
    assert!(error.to_string().ends_with("the answer is no whole listing"), "{error}");
}

#[test]
fn a_wrong_setting_is_answered_with_what_would_be_right() {
    let error = |settings| {
        let settings = crate::Settings { arxiv: settings, ..crate::Settings::default() };
        super::collectors::collectors(&settings, &Context::default()).expect_err("refused").to_string()
    };
    let settings = Settings::default;
    let one = |value: &str| vec![value.to_owned()];
    for (settings, right) in [
        (Settings { oai_sets: one("c s"), ..settings() }, "`cs`, `physics:hep-th`, `cs:cs:DL` or `all`"),
        (Settings { oai_formats: one("marc"), ..settings() }, "`arXiv`, `arXivRaw` or `oai_dc`"),
        (Settings { since: "2007".to_owned(), ..settings() }, "a day as `2007-05-23`"),
        (Settings { searches: one(" "), ..settings() }, "`cat:cs.LG`"),
        (Settings { search_sort: "newest".to_owned(), ..settings() }, "`lastUpdatedDate` or `submittedDate`"),
        (Settings { listings: one("../x"), ..settings() }, "`cs.AI`"),
        (Settings { oai_url: "ftp://x".to_owned(), ..settings() }, "https://export.arxiv.org/"),
        (Settings { request_interval_seconds: -1.0, ..settings() }, "from 0 to 60"),
        (Settings { request_interval_seconds: 61.0, ..settings() }, "from 0 to 60"),
        (Settings { oai_sets: [one("cs"), one("cs")].concat(), ..settings() }, "`arxiv/oai/cs/arXivRaw` twice"),
        (Settings { searches: [one("cat:x"), one("cat:x")].concat(), ..settings() }, "`arxiv/search/cat:x` twice"),
        (Settings { listings: [one("math"), one("math")].concat(), ..settings() }, "`arxiv/listing/math` twice"),
    ] {
        let message = error(settings);
        assert!(message.contains(right), "{message}");
    }
}
