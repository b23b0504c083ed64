//! Asks the export API: one collector for each query, newest first, back to an entry that is known.
//!
//! | answer | outcome |
//! | --- | --- |
//! | entries back to one that is known | those that are new, oldest first; a line of coverage |
//! | all pages that may be read, and none is known | the same, and a line of what was missed; a harvest of OAI-PMH has it |
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
use super::page::Page;
use super::schema::SCHEMA;
use super::settings::Settings;
use crate::Context;

/// Entries of one page: arXiv's own limit.
const PAGE_SIZE_MAX: u32 = 2_000;

/// Start of the last page: arXiv's own limit.
const START_MAX: u64 = 30_000;

/// Ids in a cursor, so that the next poll meets one of them even where some papers have changed again.
const IDS_MAX: usize = 300;

/// How often an empty page is asked for again in one poll.
const EMPTY_PAGES_MAX: u32 = 3;

/// Where a query stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct State {
    /// Time of the newest entry seen.
    newest: Option<Timestamp>,
    /// The newest entries seen, newest first.
    ids: Vec<String>,
    /// Entries that the query had.
    total: u64,
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
}

/// What the pages of one poll brought.
#[derive(Default)]
struct Visit {
    /// New ones, newest first.
    records: Vec<RawRecord>,
    ids: HashSet<String>,
    pages: u32,
    total: u64,
    meets_known: bool,
    /// Whether the query has no more than was read.
    is_whole: bool,
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
            })
        };
        settings.searches.iter().map(collector).collect()
    }

    /// Reads pages until one holds an entry that is known; the first time only one.
    async fn visit(&self, state: &State) -> Result<Visit> {
        let known: HashSet<&str> = state.ids.iter().map(String::as_str).collect();
        let pages_max = if known.is_empty() { 1 } else { self.pages_max };
        let (mut visit, mut start) = (Visit::default(), 0);
        while visit.pages < pages_max && start < START_MAX {
            let page = self.page(start, state).await?;
            let entries = page.records.len() as u64;
            visit.take(page, &known);
            start += entries;
            visit.is_whole = start >= visit.total;
            if visit.meets_known || visit.is_whole {
                break;
            }
        }
        Ok(visit)
    }

    /// A page, asked for again where it is empty and should not be: the API is known to answer so when it is busy.
    async fn page(&self, start: u64, state: &State) -> Result<Page> {
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
            let total = page.total.unwrap_or(0).max(if page.total == Some(0) { state.total } else { 0 });
            if !page.records.is_empty() || total <= start {
                return Ok(page);
            }
            self.client.slow_down().await;
        }
        Err(Error::retry(format!("{doing}: the page from {start} on is empty, and should not be")))
    }

    fn coverage(&self, state: &State, visit: &Visit) -> Vec<Coverage> {
        let times = || visit.records.iter().map(|record| record.event_time);
        let (Some(oldest), Some(newest)) = (times().min(), times().max()) else { return Vec::new() };
        let records = visit.records.len() as u64;
        let end = Timestamp(newest.0.saturating_add(1));
        let covered = |from| {
            let reason = format!("{} pages of the export API", visit.pages);
            ledger_line(&self.id, CoverageKind::Covered, from, end, records, reason)
        };
        let is_gap = !state.ids.is_empty() && !visit.meets_known && !visit.is_whole;
        let Some(seen_to) = state.newest.filter(|_| is_gap) else {
            return vec![covered(state.newest.unwrap_or(oldest).min(oldest))];
        };
        // Taken to have been as busy as what was seen.
        let seen_seconds = newest.since(oldest).as_secs_f64().max(1.0);
        let missed = (records as f64 / seen_seconds * oldest.since(seen_to).as_secs_f64()).ceil().max(1.0) as u64;
        let reason = format!("{} pages of the export API end before an entry that is known; estimated", visit.pages);
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
        let coverage = self.coverage(&state, &visit);
        let newest = visit.records.iter().map(|record| record.event_time).max().max(state.newest);
        let ids = visit.records.iter().map(|record| record.id.to_string()).chain(state.ids).take(IDS_MAX).collect();
        let next = State { newest, ids, total: visit.total };
        Ok(Harvest {
            source: SCHEMA.source,
            collector: self.id.clone(),
            records: visit.records.into_iter().rev().collect(),
            coverage,
            cursor: write_cursor(&next)?,
            poll_again_in: Some(self.interval),
            acknowledge: None,
        })
    }
}

impl Visit {
    fn take(&mut self, page: Page, known: &HashSet<&str>) {
        self.pages += 1;
        self.total = page.total.unwrap_or(page.records.len() as u64);
        for record in page.records {
            if known.contains(record.id.as_str()) {
                self.meets_known = true;
            } else if self.ids.insert(record.id.to_string()) {
                // Pages move on while they are read, so one entry may stand on two of them.
                self.records.push(record);
            }
        }
    }
}
