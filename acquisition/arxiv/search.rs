//! Asks the export API: one collector for each query, newest first, back to an entry that is known.
//!
//! | answer | outcome |
//! | --- | --- |
//! | a page with an entry that is not known by paper and version | the next page is read too: entries that are cross-listed late stand further down |
//! | a page of known ones, or one that is older by a week than the newest known | the last page; those that are new or changed, oldest first; a line of coverage |
//! | all pages that may be read, and none is known | the same, and a line of what was missed; a harvest of OAI-PMH has it |
//! | more than one harvest may hold | the next poll goes on with the next page |
//! | none, where there were some before | an error to retry; taken for true after eight polls |
//! | fewer entries than the answer itself counts, where there should be some | asked again, slower, then an error to retry |
//! | an entry titled `Error` | an error with what it says, tried again each quarter of an hour |
//! | 429, 503 | an error with the wait that arXiv asks for |
//!
//! Source: <https://info.arxiv.org/help/api/user-manual.html>.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use contract::{
    Collector, CollectorId, Coverage, CoverageKind, Cursor, Error, Harvest, RawRecord, Remedy, Result, Timestamp,
};
use reqwest::Url;
use serde::{Deserialize, Serialize};

use super::client::{Client, REFUSED_WAIT};
use super::collectors::{ledger_line, read_cursor, write_cursor};
use super::framing::paper_of;
use super::page::Page;
use super::schema::SCHEMA;
use super::settings::Settings;
use crate::Context;

/// Entries of one page: arXiv's own limit.
const PAGE_SIZE_MAX: u32 = 2_000;

/// Start of the last page: arXiv's own limit.
const START_MAX: u64 = 30_000;

/// Ids in a cursor at least; more where two pages have more, so that the next poll meets all of a page even where some
/// papers have changed again.
const IDS_MIN: usize = 300;

/// How far back pages are read that hold new entries among known ones. Cross-lists come within days.
const LATE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// How often an empty page is asked for again in one poll.
const EMPTY_PAGES_MAX: u32 = 3;

/// Polls, one after the other, that find a query empty which was not, before that is taken for true.
const EMPTY_POLLS_MAX: u32 = 8;

/// Where a query stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct State {
    /// Time of the newest entry seen.
    newest: Option<Timestamp>,
    /// The newest entries seen, in the order of the pages.
    ids: Vec<String>,
    /// Entries that the query had.
    total: u64,
    /// The pages that are being read, if one harvest does not hold all.
    unfinished: Option<Unfinished>,
}

/// A visit that goes on with the next poll.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Unfinished {
    /// Entries and pages read so far.
    start: u64,
    pages: u32,
    /// How many of the ids are of this visit.
    ids: usize,
    /// Time of the newest entry seen before it.
    seen_to: Option<Timestamp>,
    meets_known: bool,
}

/// See the module.
pub(super) struct SearchCollector {
    id: CollectorId,
    url: Url,
    page_size: u32,
    pages_max: u32,
    interval: Duration,
    client: Arc<Client>,
    context: Context,
    /// Polls that found the query empty, one after the other.
    empty_polls: u32,
}

/// What the pages of one poll brought, beside what was read of them before.
#[derive(Default)]
struct Visit {
    so_far: Unfinished,
    /// New ones, newest first.
    records: Vec<RawRecord>,
    bytes: usize,
    /// All of the pages in their order, each once.
    ids: Vec<String>,
    seen: HashSet<String>,
    total: u64,
    /// Whether the query has no more than was read.
    is_whole: bool,
    is_finished: bool,
}

impl SearchCollector {
    /// A collector for each query that is set.
    pub(super) fn all(settings: &Settings, url: &Url, client: &Arc<Client>, context: &Context) -> Result<Vec<Self>> {
        let sort = settings.search_sort.as_str();
        if !["lastUpdatedDate", "submittedDate"].contains(&sort) {
            let right = "`lastUpdatedDate` or `submittedDate`";
            return Err(Error::change(format!("use `arxiv.search_sort` = `{sort}` (should be {right})")));
        }
        let collector = |query: &String| {
            if query.trim().is_empty() {
                let right = "`cat:cs.LG` or `all:electron AND ti:spin`";
                return Err(Error::change(format!(
                    "use the query `{query}` of `arxiv.searches` (should be as {right})"
                )));
            }
            let mut url = url.clone();
            let mut pairs = url.query_pairs_mut();
            pairs.append_pair("search_query", query).append_pair("sortBy", sort).append_pair("sortOrder", "descending");
            drop(pairs);
            Ok(Self {
                id: CollectorId(format!("arxiv/search/{query}")),
                url,
                page_size: settings.search_page_size.clamp(1, PAGE_SIZE_MAX),
                pages_max: settings.search_pages_max.max(1),
                interval: Duration::from_secs(settings.search_interval_seconds.max(60)),
                client: client.clone(),
                context: context.clone(),
                empty_polls: 0,
            })
        };
        settings.searches.iter().map(collector).collect()
    }

    /// Reads pages as the module says; the first time only one.
    async fn visit(&mut self, state: &State) -> Result<Visit> {
        let so_far = state.unfinished.clone().unwrap_or(Unfinished { seen_to: state.newest, ..Unfinished::default() });
        let known = Known::new(&state.ids, so_far.ids);
        let pages_max = if known.papers.is_empty() { 1 } else { self.pages_max };
        let late_from = so_far.seen_to.map(|seen_to| seen_to.minus(LATE_MAX));
        let mut visit = Visit { so_far, ..Visit::default() };
        loop {
            let page = self.page(visit.so_far.start, state).await?;
            let ends_late = page.records.iter().map(|record| record.event_time).max() < late_from;
            let has_new = visit.take(page, &known) && !ends_late;
            visit.so_far.meets_known |= ends_late;
            visit.is_whole = visit.so_far.start >= visit.total;
            let is_last = visit.so_far.pages >= pages_max || visit.so_far.start >= START_MAX;
            visit.is_finished = !has_new || is_last || visit.is_whole;
            if visit.is_finished || visit.bytes >= self.context.harvest.bytes_max {
                return Ok(visit);
            }
        }
    }

    /// A page, asked for again where it is empty and should not be: the API is known to answer so when it is busy.
    async fn page(&mut self, start: u64, state: &State) -> Result<Page> {
        let doing = format!("search `{}`", self.id);
        let mut url = self.url.clone();
        url.query_pairs_mut()
            .append_pair("start", &start.to_string())
            .append_pair("max_results", &self.page_size.to_string());
        for _ in 0..EMPTY_PAGES_MAX {
            let Some(answer) = self.client.get(url.clone(), None, &doing).await? else { continue };
            let page = Page::read(answer.body, self.context.clock.now());
            if page.root.as_deref() != Some("feed") || !page.is_whole {
                return Err(Error::retry(format!("{doing}: the answer is no whole feed")));
            }
            if let Some(said) = page.error() {
                let doing = format!("{doing}: {said}; see `arxiv.searches`");
                return Err(Error::new(Remedy::RetryAfter(REFUSED_WAIT), doing));
            }
            let is_denied = page.total == Some(0) && state.total > 0 && self.empty_polls < EMPTY_POLLS_MAX;
            if !page.records.is_empty() || page.total.unwrap_or(0) <= start && !is_denied {
                return Ok(page);
            }
            self.client.slow_down().await;
        }
        self.empty_polls += 1;
        Err(Error::retry(format!("{doing}: the page from {start} on is empty, and should not be")))
    }

    fn coverage(&self, visit: &Visit) -> Vec<Coverage> {
        let times = || visit.records.iter().map(|record| record.event_time);
        let (Some(oldest), Some(newest)) = (times().min(), times().max()) else { return Vec::new() };
        let records = visit.records.len() as u64;
        let end = Timestamp(newest.0.saturating_add(1));
        let (pages, seen_to) = (visit.so_far.pages, visit.so_far.seen_to);
        let covered = |from| {
            let reason = format!("{pages} pages of the export API");
            ledger_line(&self.id, CoverageKind::Covered, from, end, records, reason)
        };
        if !visit.is_finished {
            return vec![covered(oldest)];
        }
        let is_gap = !visit.so_far.meets_known && !visit.is_whole;
        let Some(seen_to) = seen_to.filter(|_| is_gap) else {
            return vec![covered(seen_to.unwrap_or(oldest).min(oldest))];
        };
        // Taken to have been as busy as what was seen.
        let seen_seconds = newest.since(oldest).as_secs_f64().max(1.0);
        let missed = (records as f64 / seen_seconds * oldest.since(seen_to).as_secs_f64()).ceil().max(1.0) as u64;
        let reason = format!("{pages} pages of the export API end before an entry that is known; estimated");
        let missed = ledger_line(&self.id, CoverageKind::Missed, seen_to.min(oldest), oldest, missed, reason);
        vec![missed, covered(oldest)]
    }
}

#[async_trait]
impl Collector for SearchCollector {
    fn id(&self) -> CollectorId {
        self.id.clone()
    }

    async fn poll(&mut self, cursor: &Cursor) -> Result<Harvest> {
        let state: State = read_cursor(&self.id, cursor)?;
        let visit = self.visit(&state).await?;
        self.empty_polls = 0;
        let coverage = self.coverage(&visit);
        let (ids_max, wait) = ((2 * self.page_size as usize).max(IDS_MIN), self.interval);
        let next = visit.state_after(&state, ids_max);
        Ok(Harvest {
            source: SCHEMA.source,
            collector: self.id.clone(),
            records: visit.records.into_iter().rev().collect(),
            coverage,
            cursor: write_cursor(&next)?,
            poll_again_in: Some(if visit.is_finished { wait } else { Duration::ZERO }),
            acknowledge: None,
        })
    }
}

/// What was seen before a visit.
struct Known<'a> {
    /// Papers with their versions.
    papers: HashSet<&'a str>,
    /// Ids, also those of the visit's pages before.
    ids: HashSet<&'a str>,
}

impl<'a> Known<'a> {
    fn new(ids: &'a [String], of_visit: usize) -> Self {
        let papers = ids.iter().skip(of_visit).map(|id| paper_of(id)).collect();
        Self { papers, ids: ids.iter().map(String::as_str).collect() }
    }
}

impl Visit {
    /// Takes the entries of the next page. Answers whether one of them is not known.
    fn take(&mut self, page: Page, known: &Known<'_>) -> bool {
        self.so_far.pages += 1;
        self.so_far.start += page.records.len() as u64;
        self.total = page.total.unwrap_or(self.so_far.start);
        let mut has_new = false;
        for record in page.records {
            let id = record.id.to_string();
            let is_known = known.papers.contains(paper_of(&id));
            self.so_far.meets_known |= is_known;
            has_new |= !is_known;
            // Pages move on while they are read, so one entry may stand on two of them.
            if !self.seen.insert(id.clone()) {
                continue;
            }
            if !known.ids.contains(id.as_str()) {
                self.bytes += record.body.len();
                self.records.push(record);
            }
            self.ids.push(id);
        }
        has_new
    }

    fn state_after(&self, before: &State, ids_max: usize) -> State {
        let newest = self.records.iter().map(|record| record.event_time).max().max(before.newest);
        let (of_visit, known) = before.ids.split_at(self.so_far.ids.min(before.ids.len()));
        let mut seen = HashSet::new();
        let of_visit: Vec<&String> = of_visit.iter().chain(&self.ids).filter(|id| seen.insert(*id)).collect();
        let unfinished = (!self.is_finished).then(|| Unfinished { ids: of_visit.len(), ..self.so_far.clone() });
        let ids_max = if self.is_finished { ids_max } else { usize::MAX };
        let known = known.iter().filter(|id| !seen.contains(id));
        let ids = of_visit.iter().copied().chain(known).take(ids_max).cloned().collect();
        State { newest, ids, total: self.total, unfinished }
    }
}

#[cfg(test)]
mod tests {
    use super::super::collector_test::{archive, searching};
    use super::super::replay::{Archive, Replay};
    use super::*;

    #[tokio::test]
    async fn a_query_that_stays_empty_is_taken_for_empty() {
        let replay = Replay::start(Archive { papers: 0, ..archive() }).await.unwrap();
        let (settings, context) = (searching(&replay), Context::default());
        let client = Arc::new(Client::new(&settings, &context).unwrap());
        let url = Url::parse(&settings.api_url).unwrap();
        let mut collector = SearchCollector::all(&settings, &url, &client, &context).unwrap().remove(0);
        let known = State { total: 70, ids: vec!["2501.00001v1".to_owned()], ..State::default() };
        let cursor = write_cursor(&known).unwrap();
        collector.empty_polls = EMPTY_POLLS_MAX - 1;
        assert_eq!(collector.poll(&cursor).await.unwrap_err().remedy(), Remedy::Retry);
        let empty = collector.poll(&cursor).await.unwrap();
        let state: State = read_cursor(&collector.id, &empty.cursor).unwrap();
        assert_eq!((empty.records.len(), state.total, state.ids), (0, 0, known.ids));
    }
}
