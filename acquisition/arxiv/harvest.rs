//! Harvests OAI-PMH: one collector for each set and format.
//!
//! It goes through the archive in windows of days, and through a window in pages. The resumption token is part of the
//! cursor, so a harvest that was killed goes on with the next page; when the token has expired meanwhile, with its
//! window. The days that may still change, yesterday and today, are harvested each time; what is unchanged in them is a
//! duplicate.
//!
//! | answer | outcome |
//! | --- | --- |
//! | a page with a token | its records; the next poll asks for the next page |
//! | a page without a token, or with an empty one | its records, a line of coverage; the next window |
//! | fewer records than `completeListSize` says | also a line of what was missed |
//! | `noRecordsMatch` | a line of coverage; the next window |
//! | `badResumptionToken`, or the same token again | the window from its start, half as long |
//! | another error of the archive | an error, tried again each quarter of an hour |
//! | 429, 503 | an error with the wait that arXiv asks for; the cursor stays |
//! | a page that is cut, or none at all; trouble of the network | an error to retry: nothing of it is taken |
//!
//! Source: <https://www.openarchives.org/OAI/openarchivesprotocol.html>.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use contract::{Collector, CollectorId, Coverage, CoverageKind, Cursor, Day, Error, Harvest, Remedy, Result};
use reqwest::Url;
use serde::{Deserialize, Serialize};

use super::client::{Client, REFUSED_WAIT};
use super::collectors::{ledger_line, read_cursor, write_cursor};
use super::page::Page;
use super::schema::SCHEMA;
use super::settings::Settings;
use crate::Context;

/// Before a window is started again, so that an archive that never keeps its tokens is not asked all day.
const RESTART_WAIT: Duration = Duration::from_secs(60);

/// Where a harvest stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct State {
    /// First day that is not yet harvested for good; none before the first window.
    from: Option<String>,
    /// What is being harvested.
    window: Option<Window>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Window {
    /// Both days are part of it.
    from: String,
    until: String,
    /// Of the next page; none for the first.
    token: Option<String>,
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
                });
            }
        }
        Ok(all)
    }

    /// The window that the state is in, or the next one.
    fn window(&self, state: &State) -> Result<(Window, Day, Day)> {
        let day = |text: &str| {
            Day::parse(text).ok_or_else(|| Error::stop(format!("read the day `{text}` in the cursor of `{}`", self.id)))
        };
        if let Some(window) = &state.window {
            return Ok((window.clone(), day(&window.from)?, day(&window.until)?));
        }
        let today = self.context.clock.now().day();
        let from = match &state.from {
            Some(text) => day(text)?,
            None => self.first_day.unwrap_or(Day(today.0 - 1)),
        };
        let from = from.min(today);
        let until = Day(from.0.saturating_add(self.window_days - 1)).min(today);
        Ok((Window::new(from, until), from, until))
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

    async fn page(&self, window: &Window) -> Result<Page> {
        let doing = format!("harvest `{}`", self.id);
        let answer = self.client.get(self.page_url(window), None, &doing).await?;
        let Some(answer) = answer else { return Err(Error::retry(format!("{doing}: the answer is empty"))) };
        let page = Page::read(answer.body, self.context.clock.now());
        match page.root.as_deref() {
            Some("OAI-PMH") if page.is_whole => Ok(page),
            Some("OAI-PMH") => Err(Error::retry(format!("{doing}: the answer is cut"))),
            _ => Err(Error::retry(format!("{doing}: the answer is no page of OAI-PMH"))),
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
    fn finish(&self, page: Page, window: &Window, from: Day, until: Day) -> Result<Harvest> {
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
        // Today goes on, and what changed late yesterday may show only now.
        let is_last = until >= today;
        let next = if is_last { Day(today.0 - 1).max(from) } else { Day(until.0 + 1) };
        let state = State { from: Some(next.to_string()), window: None };
        self.harvest(page, coverage, &state, if is_last { self.interval } else { Duration::ZERO })
    }

    /// The token has expired: the window again, in smaller steps.
    fn restart(&self, state: &State, from: Day, until: Day) -> Result<Harvest> {
        let window = Window::new(from, Day(from.0 + (until.0 - from.0) / 2));
        let state = State { window: Some(window), ..state.clone() };
        self.harvest(Page::default(), Vec::new(), &state, RESTART_WAIT)
    }
}

#[async_trait]
impl Collector for HarvestCollector {
    fn id(&self) -> CollectorId {
        self.id.clone()
    }

    async fn poll(&mut self, cursor: &Cursor) -> Result<Harvest> {
        let state: State = read_cursor(&self.id, cursor)?;
        let (mut window, from, until) = self.window(&state)?;
        let page = self.page(&window).await?;
        match page.errors.first().map(|(code, _)| code.as_str()) {
            None => {}
            Some("noRecordsMatch") if window.token.is_none() => return self.finish(page, &window, from, until),
            Some("badResumptionToken") if window.token.is_some() => return self.restart(&state, from, until),
            Some(_) => {
                let said = page.error().unwrap_or_default();
                let doing = format!("harvest `{}`: the archive answers {said}; see `arxiv.oai_sets`", self.id);
                return Err(Error::new(Remedy::RetryAfter(REFUSED_WAIT), doing));
            }
        }
        window.records += page.records.len() as u64;
        window.list_size = page.list_size.or(window.list_size);
        match &page.token {
            None => self.finish(page, &window, from, until),
            token if *token == window.token => self.restart(&state, from, until),
            Some(token) => {
                window.token = Some(token.clone());
                let state = State { window: Some(window), ..state };
                self.harvest(page, Vec::new(), &state, Duration::ZERO)
            }
        }
    }
}

impl Window {
    fn new(from: Day, until: Day) -> Self {
        Self { from: from.to_string(), until: until.to_string(), token: None, records: 0, list_size: None }
    }
}

fn first_day(settings: &Settings) -> Result<Option<Day>> {
    let since = settings.since.as_str();
    if since.is_empty() {
        return Ok(None);
    }
    let day = Day::parse(since).filter(|day| (1980..=9999).contains(&day.civil().0));
    let wrong = || Error::change(format!("use `arxiv.since` = `{since}` (should be a day as `2007-05-23`, or empty)"));
    day.map(Some).ok_or_else(wrong)
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
