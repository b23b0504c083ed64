//! Harvests OAI-PMH: one collector for each set and format.
//!
//! It goes through the archive in windows of days, and through a window in pages. The resumption token is part of the
//! cursor, so a harvest that was killed goes on with the next page; when the token has expired meanwhile, with its
//! window: arXiv's tokens say from which day on and how many records to skip, and so skip the wrong ones on another day.
//! A day counts as harvested once it was asked for two days later: so yesterday and today are harvested each time; what
//! is unchanged in them is a duplicate.
//!
//! | answer | outcome |
//! | --- | --- |
//! | a page with a token | its records; the next poll asks for the next page |
//! | a page without a token, or with an empty one | its records, a line of coverage; the next window |
//! | fewer records than `completeListSize` says | also a line of what was missed |
//! | to the first page of a window: `noRecordsMatch` | a line of coverage; the next window |
//! | another error of the archive, or 4xx | an error, tried again each quarter of an hour |
//! | to a token: any error of the archive, 4xx, or eight failures one after the other | the window again |
//! | a token that came before in the window, or nine pages without a record | the window again |
//! | none: the token has expired | the window again |
//! | 429, 503, `Retry-After` | an error with the wait that arXiv asks for; the cursor stays |
//! | a page that is cut, or none at all; trouble of the network | an error to retry: nothing of it is taken |
//!
//! A window starts again half as long. From the second time on that is an error too, so that it is seen.
//!
//! Sources: <https://www.openarchives.org/OAI/openarchivesprotocol.html>, <https://github.com/arXiv/oaipmh>.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use contract::{
    Collector, CollectorId, Coverage, CoverageKind, Cursor, Day, Error, Harvest, Remedy, Result, Timestamp,
};
use reqwest::Url;
use serde::{Deserialize, Serialize};

use super::client::{Client, Failure, REFUSED_WAIT};
use super::collectors::{ledger_line, read_cursor, write_cursor};
use super::page::Page;
use super::schema::SCHEMA;
use super::settings::Settings;
use crate::Context;

/// Before a window is started again, so that an archive that never keeps its tokens is not asked all day.
const RESTART_WAIT: Duration = Duration::from_secs(60);

/// Failures of one token, one after the other, before its window is started again.
const TOKEN_FAILURES_MAX: u32 = 8;

/// Pages of a window without a record, one after the other; arXiv sends none.
const EMPTY_PAGES_MAX: u32 = 8;

/// The earliest datestamp of arXiv, as its `Identify` says; it refuses a day before.
const EARLIEST_DAY: &str = "2005-09-16";

/// Where a harvest stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct State {
    /// First day that is not yet harvested for good; none before the first window.
    from: Option<String>,
    /// First day of the next window, until one has reached today.
    next: Option<String>,
    /// What is being harvested.
    window: Option<Window>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Window {
    /// Both days are part of it.
    from: String,
    until: String,
    /// Of the next page; none for the first.
    token: Option<String>,
    /// When the token expires.
    expires: Option<Timestamp>,
    /// Day on which the first page was asked for.
    asked_on: Option<String>,
    /// How often it had to be started again.
    restarts: u32,
    /// Pages so far.
    pages: u64,
    /// Pages without a record since the last one with some.
    empty_pages: u32,
    /// The token of page 1, 2, 4, 8…: tokens that go round come back to it.
    mark: Option<String>,
    /// Records so far.
    records: u64,
    /// Records of the whole, as the archive says.
    list_size: Option<u64>,
}

/// See the module.
pub(super) struct HarvestCollector {
    id: CollectorId,
    set: Option<String>,
    format: String,
    url: Url,
    first_day: Option<Day>,
    window_days: i32,
    interval: Duration,
    client: Arc<Client>,
    context: Context,
    /// Failures of the present token.
    token_failures: u32,
    /// A token that leads nowhere, and the window that is asked for in its place.
    restarted: Option<(String, Window)>,
}

impl HarvestCollector {
    /// A collector for each set and format that is set.
    pub(super) fn all(settings: &Settings, url: &Url, client: &Arc<Client>, context: &Context) -> Result<Vec<Self>> {
        let first_day = first_day(settings)?;
        let mut all = Vec::new();
        for set in &settings.oai_sets {
            check_set(set)?;
            for format in &settings.oai_formats {
                check_format(format)?;
                all.push(Self {
                    id: CollectorId(format!("arxiv/oai/{set}/{format}")),
                    set: (set != "all").then(|| set.clone()),
                    format: format.clone(),
                    url: url.clone(),
                    first_day,
                    window_days: i32::try_from(settings.oai_window_days.max(1)).unwrap_or(i32::MAX),
                    interval: Duration::from_secs(settings.oai_interval_seconds.max(60)),
                    client: client.clone(),
                    context: context.clone(),
                    token_failures: 0,
                    restarted: None,
                });
            }
        }
        Ok(all)
    }

    /// The window that the state is in, or the next one.
    fn window(&self, state: &State) -> Result<Window> {
        if let Some(window) = &state.window {
            let restarted = self.restarted.as_ref().filter(|(token, _)| window.token.as_ref() == Some(token));
            return Ok(restarted.map_or(window, |(_, window)| window).clone());
        }
        let today = self.context.clock.now().day();
        let from = match state.next.as_ref().or(state.from.as_ref()) {
            Some(text) => self.day(text)?,
            None => self.first_day.unwrap_or(Day(today.0 - 1)),
        };
        let from = from.min(today);
        let until = Day(from.0.saturating_add(self.window_days - 1)).min(today);
        Ok(Window::new(from, until))
    }

    fn page_url(&self, window: &Window) -> Url {
        let mut url = self.url.clone();
        let mut query = url.query_pairs_mut();
        query.append_pair("verb", "ListRecords");
        if let Some(token) = &window.token {
            // The token stands alone: section 3.5 of the protocol.
            query.append_pair("resumptionToken", token);
        } else {
            query.append_pair("metadataPrefix", &self.format);
            query.append_pair("from", &window.from).append_pair("until", &window.until);
            if let Some(set) = &self.set {
                query.append_pair("set", set);
            }
        }
        drop(query);
        url
    }

    async fn page(&self, window: &Window) -> Result<Page, Failure> {
        let doing = format!("harvest `{}`", self.id);
        let passing = |what: &str| Failure::Passing(Error::retry(format!("{doing}: the answer is {what}")));
        let answer = self.client.get(self.page_url(window), None, &doing).await?;
        let page = Page::read(answer.ok_or_else(|| passing("empty"))?.body, self.context.clock.now());
        match page.root.as_deref() {
            Some("OAI-PMH") if page.is_whole => Ok(page),
            Some("OAI-PMH") => Err(passing("cut")),
            _ => Err(passing("no page of OAI-PMH")),
        }
    }

    fn harvest(&self, page: Page, coverage: Vec<Coverage>, state: &State, wait: Duration) -> Result<Harvest> {
        Ok(Harvest {
            source: SCHEMA.source,
            collector: self.id.clone(),
            records: page.records,
            coverage,
            cursor: write_cursor(state)?,
            poll_again_in: Some(wait),
            acknowledge: None,
        })
    }

    /// The window is at its end.
    fn finish(&self, page: Page, state: &State, window: &Window) -> Result<Harvest> {
        let (from, until) = (self.day(&window.from)?, self.day(&window.until)?);
        let now = self.context.clock.now();
        let today = now.day();
        let end = Day(until.0 + 1).start().min(now);
        let what = format!("OAI-PMH, `{}` from {from} until {until}", self.format);
        let mut coverage =
            vec![ledger_line(&self.id, CoverageKind::Covered, from.start(), end, window.records, what.clone())];
        let missed = window.list_size.unwrap_or(0).saturating_sub(window.records);
        if missed > 0 {
            let reason = format!("{what}: the list ends before its stated size");
            coverage.push(ledger_line(&self.id, CoverageKind::Missed, from.start(), end, missed, reason));
        }
        let is_last = until >= today;
        let state = State {
            from: Some(settled(state, window, from, until).to_string()),
            next: (!is_last).then(|| Day(until.0 + 1).to_string()),
            window: None,
        };
        self.harvest(page, coverage, &state, if is_last { self.interval } else { Duration::ZERO })
    }

    /// The list breaks off: the window again, in smaller steps.
    fn restart(&mut self, state: &State, window: &Window, why: &str) -> Result<Harvest> {
        self.token_failures = 0;
        let (from, until) = (self.day(&window.from)?, self.day(&window.until)?);
        let half = Day(from.0 + (until.0 - from.0) / 2);
        let again = Window { restarts: window.restarts.saturating_add(1), ..Window::new(from, half) };
        if window.restarts == 0 {
            let state = State { window: Some(again), ..state.clone() };
            return self.harvest(Page::default(), Vec::new(), &state, RESTART_WAIT);
        }
        self.restarted = window.token.clone().map(|token| (token, again));
        let times = window.restarts + 1;
        let what = format!("the list from {from} until {until} breaks off, {times} times now ({why})");
        Err(Error::retry(format!("harvest `{}`: {what}; it is asked for again from its start", self.id)))
    }

    /// There is no page.
    fn fail(&mut self, state: &State, window: &Window, failure: Failure) -> Result<Harvest> {
        match failure {
            Failure::Refused { error, .. } if window.token.is_some() => self.restart(state, window, &error.to_string()),
            Failure::Refused { code: Some(code), .. } if code == NO_RECORDS => {
                self.finish(Page::default(), state, window)
            }
            Failure::Passing(error) if window.token.is_some() => {
                self.token_failures += 1;
                if self.token_failures < TOKEN_FAILURES_MAX {
                    return Err(error);
                }
                self.restart(state, window, &error.to_string())
            }
            Failure::Passing(error) | Failure::Limited(error) | Failure::Refused { error, .. } => Err(error),
        }
    }

    /// What a whole page without an error brings.
    fn take(&mut self, page: Page, state: State, mut window: Window) -> Result<Harvest> {
        window.pages += 1;
        window.records += page.records.len() as u64;
        window.empty_pages = if page.records.is_empty() { window.empty_pages + 1 } else { 0 };
        window.list_size = page.list_size.or(window.list_size);
        let Some(token) = page.token.clone() else {
            return self.finish(page, &state, &window);
        };
        if [&window.token, &window.mark].contains(&&page.token) {
            return self.restart(&state, &window, "a token came again");
        }
        if window.empty_pages > EMPTY_PAGES_MAX {
            return self.restart(&state, &window, "its pages are empty");
        }
        // The tortoise of Brent's algorithm: any circle of tokens is found, and one token is kept.
        if window.pages.is_power_of_two() {
            window.mark = Some(token.clone());
        }
        (window.token, window.expires) = (Some(token), page.token_expires);
        let state = State { window: Some(window), ..state };
        self.harvest(page, Vec::new(), &state, Duration::ZERO)
    }

    fn day(&self, text: &str) -> Result<Day> {
        let wrong = || Error::stop(format!("read the day `{text}` in the cursor of `{}`", self.id));
        Day::parse(text).ok_or_else(wrong)
    }
}

/// The code with which an archive says that a window is empty.
const NO_RECORDS: &str = "noRecordsMatch";

/// The first day that is not harvested for good after this window. On the day after a day, what changed late in it may
/// show only then; so a day is done when it was asked for after that.
fn settled(state: &State, window: &Window, from: Day, until: Day) -> Day {
    let done_before = state.from.as_deref().and_then(Day::parse).unwrap_or(from);
    // A cursor of before says no day; the window was not asked for before its own last one.
    let asked_on = window.asked_on.as_deref().and_then(Day::parse).unwrap_or(until);
    let follows = from <= done_before;
    if follows { done_before.max(Day(until.0 + 1).min(Day(asked_on.0 - 1))) } else { done_before }
}

#[async_trait]
impl Collector for HarvestCollector {
    fn id(&self) -> CollectorId {
        self.id.clone()
    }

    async fn poll(&mut self, cursor: &Cursor) -> Result<Harvest> {
        let state: State = read_cursor(&self.id, cursor)?;
        let mut window = self.window(&state)?;
        let now = self.context.clock.now();
        if window.token.is_none() {
            window.asked_on = Some(now.day().to_string());
        } else if window.expires.is_some_and(|expires| now >= expires) {
            return self.restart(&state, &window, "its token has expired");
        }
        let page = match self.page(&window).await {
            Ok(page) => page,
            Err(failure) => return self.fail(&state, &window, failure),
        };
        self.token_failures = 0;
        match page.errors.first() {
            None => self.take(page, state, window),
            Some(_) if window.token.is_some() => self.restart(&state, &window, &page.error().unwrap_or_default()),
            Some((code, _)) if code == NO_RECORDS => self.take(Page::default(), state, window),
            Some(_) => {
                let said = page.error().unwrap_or_default();
                let see = "see `arxiv.oai_sets` and `arxiv.since`";
                let doing = format!("harvest `{}`: the archive answers {said}; {see}", self.id);
                Err(Error::new(Remedy::RetryAfter(REFUSED_WAIT), doing))
            }
        }
    }
}

impl Window {
    fn new(from: Day, until: Day) -> Self {
        Self { from: from.to_string(), until: until.to_string(), ..Self::default() }
    }
}

fn first_day(settings: &Settings) -> Result<Option<Day>> {
    let since = settings.since.as_str();
    if since.is_empty() {
        return Ok(None);
    }
    let day = Day::parse(since).filter(|day| (1980..=9999).contains(&day.civil().0));
    let wrong = || Error::change(format!("use `arxiv.since` = `{since}` (should be a day as `2007-05-23`, or empty)"));
    let day = day.ok_or_else(wrong)?;
    Ok(Some(Day::parse(EARLIEST_DAY).map_or(day, |earliest| day.max(earliest))))
}

fn check_set(set: &str) -> Result<()> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b":-._".contains(&byte);
    if !set.is_empty() && set.bytes().all(is_plain) {
        return Ok(());
    }
    let right = "`cs`, `physics:hep-th`, `cs:cs:DL` or `all`";
    Err(Error::change(format!("use the set `{set}` of `arxiv.oai_sets` (should be as {right})")))
}

fn check_format(format: &str) -> Result<()> {
    if ["arXiv", "arXivRaw", "oai_dc"].contains(&format) {
        return Ok(());
    }
    let right = "`arXiv`, `arXivRaw` or `oai_dc`";
    Err(Error::change(format!("use the format `{format}` of `arxiv.oai_formats` (should be {right})")))
}
