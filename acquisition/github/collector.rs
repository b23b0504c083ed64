//! Polls the Events API: one collector a feed.
//!
//! | case | outcome |
//! | --- | --- |
//! | nothing new (304) | an empty harvest, the cursor stays |
//! | new events | all pages back to an event that is known, oldest first; one line of coverage |
//! | the pages end before an event that is known | the same, and a line of what was missed, estimated |
//! | a limit is reached on the first page | an error that says when |
//! | a limit is reached on a later page | what is there, as if the pages ended; the next poll waits |
//! | trouble of the server or the network | an error to retry: the whole poll, so that nothing is skipped |
//! | a token or feed that GitHub refuses | an error with what would be right, tried again each quarter of an hour |

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use contract::metric;
use contract::{
    Collector, CollectorId, Coverage, CoverageKind, Cursor, Error, Harvest, RawRecord, Remedy, Result, Timestamp,
};
use reqwest::header::{ACCEPT, AUTHORIZATION, ETAG, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH};
use reqwest::{Client, Proxy, Response, StatusCode, Url, redirect};
use serde::{Deserialize, Serialize};

use super::answer::{Limits, REFUSED_WAIT, Trouble, judge, next_page};
use super::framing::Framer;
use super::schema::SCHEMA;
use super::settings::Settings;
use super::webhook::GithubWebhook;
use crate::http::{BodyTrouble, explained, read_body, text};
use crate::{Collectors, Context};

/// Ids in a cursor: what the API serves at once, so that the next poll's pages meet one of them if they can.
const IDS_MAX: usize = 300;

/// The version whose form the processor knows. Source: <https://docs.github.com/en/rest/about-the-rest-api/api-versions>.
const API_VERSION: &str = "2022-11-28";

/// Redirects of one request: a renamed repository makes one.
const REDIRECTS_MAX: usize = 5;

/// Pages of one poll; GitHub's own limit.
const PAGES_MAX: u32 = 10;

/// Where a feed's collector stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct State {
    /// Of the first page, for a conditional request.
    etag: Option<String>,
    /// Time of the newest event seen.
    newest: Option<Timestamp>,
    /// The newest events seen, newest first.
    ids: Vec<String>,
}

/// One feed.
struct FeedCollector {
    id: CollectorId,
    is_public: bool,
    url: Url,
    http: Client,
    settings: Settings,
    context: Context,
}

/// One page.
struct Page {
    records: Vec<RawRecord>,
    next: Option<Url>,
    etag: Option<String>,
    limits: Limits,
}

enum Answer {
    NotModified(Limits),
    Page(Page),
}

/// What the pages of one poll brought.
#[derive(Default)]
struct Visit {
    /// Whether the first page is the one that was read last time.
    is_unchanged: bool,
    /// New ones, newest first.
    records: Vec<RawRecord>,
    ids: HashSet<String>,
    pages: u32,
    /// Whether an event was met that is known.
    meets_known: bool,
    etag: Option<String>,
    limits: Limits,
    /// Why the pages end before one that is known.
    end: &'static str,
    /// Whether the feed has no more than was read.
    is_whole: bool,
    wait: Duration,
}

/// The collectors of all feeds that are set.
pub(crate) fn collectors(settings: &crate::Settings, context: &Context) -> Result<Collectors> {
    let settings = &settings.github;
    let twice = settings.feeds.iter().enumerate().find(|(place, feed)| settings.feeds[..*place].contains(feed));
    if let Some((_, feed)) = twice {
        return Err(Error::change(format!("use `github.feeds`: `{feed}` stands in it twice, should once")));
    }
    let http = client(settings)?;
    let feed = |name: &String| -> Result<Box<dyn Collector>> {
        let url = format!("{}/{}?per_page=100", settings.base_url.trim_end_matches('/'), feed_path(name)?);
        let url = Url::parse(&url).map_err(|error| {
            let doing =
                format!("use `github.base_url` = `{}` (should be as `https://api.github.com`)", settings.base_url);
            Error::change(doing).because(error)
        })?;
        Ok(Box::new(FeedCollector {
            id: CollectorId(format!("github/events/{name}")),
            is_public: name == "public",
            url,
            http: http.clone(),
            settings: settings.clone(),
            context: context.clone(),
        }))
    };
    let polled = settings.feeds.iter().map(feed).collect::<Result<_>>()?;
    let mut collectors = Collectors { polled, webhooks: Vec::new() };
    if settings.webhook_secret.reveal().is_some() {
        let (webhook, collector) = GithubWebhook::new(settings.webhook_secret.clone(), context);
        collectors.webhooks.push(Arc::new(webhook));
        collectors.polled.push(Box::new(collector));
    }
    Ok(collectors)
}

fn feed_path(name: &str) -> Result<String> {
    let is_name = |part: &str| {
        let is_plain = part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        !part.is_empty() && is_plain && part.bytes().any(|byte| byte != b'.')
    };
    match name.split_once(':').unwrap_or((name, "")) {
        ("public", "") => Ok("events".to_owned()),
        ("org", org) if is_name(org) => Ok(format!("orgs/{org}/events")),
        ("user", user) if is_name(user) => Ok(format!("users/{user}/events")),
        ("repo", repo) if repo.split('/').count() == 2 && repo.split('/').all(is_name) => {
            Ok(format!("repos/{repo}/events"))
        }
        _ => {
            let right = "`public`, `org:rust-lang`, `repo:rust-lang/rust` or `user:dtolnay`";
            Err(Error::change(format!("use feed `{name}` of `github.feeds` (should be as {right})")))
        }
    }
}

fn client(settings: &Settings) -> Result<Client> {
    let wrong = |name: &str, error: &dyn std::fmt::Display| Error::change(format!("use `github.{name}`: {error}"));
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/vnd.github+json"));
    headers.insert(HeaderName::from_static("x-github-api-version"), HeaderValue::from_static(API_VERSION));
    if let Some(token) = settings.token.reveal() {
        let mut value = HeaderValue::try_from(format!("Bearer {token}"))
            .map_err(|_| wrong("token", &"it holds characters that no token has"))?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    let same_host = redirect::Policy::custom(|attempt| {
        let is_same = attempt.previous().first().is_some_and(|first| first.origin() == attempt.url().origin());
        match (is_same, attempt.previous().len() <= REDIRECTS_MAX) {
            (true, true) => attempt.follow(),
            (true, false) => attempt.error(format!("it redirects more than {REDIRECTS_MAX} times, as in a circle")),
            // The answer is judged as it is: a token goes nowhere else.
            (false, _) => attempt.stop(),
        }
    });
    let mut builder = Client::builder()
        .user_agent(&settings.user_agent)
        .timeout(Duration::from_secs(settings.timeout_seconds.max(1)))
        .redirect(same_host)
        .default_headers(headers);
    if !settings.proxy_url.is_empty() {
        let proxy = Proxy::all(&settings.proxy_url).map_err(|error| wrong("proxy_url", &error))?;
        builder = builder.proxy(proxy);
    }
    builder.build().map_err(|error| wrong("user_agent", &error))
}

#[async_trait]
impl Collector for FeedCollector {
    fn id(&self) -> CollectorId {
        self.id.clone()
    }

    async fn poll(&mut self, cursor: &Cursor) -> Result<Harvest> {
        let state: State = match cursor.0.as_str() {
            "" => State::default(),
            text => serde_json::from_str(text)
                .map_err(|error| Error::stop(format!("read the cursor of `{}`", self.id)).because(error))?,
        };
        let visit = self.visit(&state).await?;
        if visit.is_unchanged {
            let wait = self.interval(&visit.limits, 1);
            return Ok(self.harvest(Vec::new(), Vec::new(), cursor.clone(), wait));
        }
        let wait = visit.wait.max(self.interval(&visit.limits, visit.pages));
        let coverage = self.coverage(&state, &visit);
        let next = next_state(state, &visit);
        let next = serde_json::to_string(&next).map_err(|error| Error::stop("write a cursor").because(error))?;
        // The API answers newest first; the log keeps the order of time.
        let records = visit.records.into_iter().rev().collect();
        Ok(self.harvest(records, coverage, Cursor(next), wait))
    }
}

impl FeedCollector {
    fn harvest(&self, records: Vec<RawRecord>, coverage: Vec<Coverage>, cursor: Cursor, wait: Duration) -> Harvest {
        let least = Duration::from_secs(self.settings.poll_interval_seconds.max(1));
        let poll_again_in = Some(wait.max(least));
        let (source, collector) = (SCHEMA.source, self.id.clone());
        Harvest { source, collector, records, coverage, cursor, poll_again_in, acknowledge: None }
    }

    fn interval(&self, limits: &Limits, pages: u32) -> Duration {
        limits.poll_interval.unwrap_or_default().max(limits.pace(pages))
    }

    /// Reads pages until one holds an event that is known.
    async fn visit(&self, state: &State) -> Result<Visit> {
        let known: HashSet<&str> = state.ids.iter().map(String::as_str).collect();
        let pages_max = self.settings.pages_max.clamp(1, PAGES_MAX);
        let mut visit = Visit::default();
        let mut url = self.url.clone();
        loop {
            let etag = state.etag.as_deref().filter(|_| visit.pages == 0);
            let page = match self.page(&url, etag).await {
                Ok(Answer::Page(page)) => page,
                Ok(Answer::NotModified(limits)) => return Ok(Visit { limits, is_unchanged: true, ..visit }),
                Err(Trouble::Limited(wait)) if visit.pages > 0 => {
                    visit.end = "the rate limit was reached before an event that is known";
                    visit.wait = wait;
                    return Ok(visit);
                }
                Err(Trouble::Limited(wait)) => {
                    let doing = format!("poll `{}`: the rate limit is reached for {} s", self.id, wait.as_secs());
                    return Err(Error::new(Remedy::RetryAfter(wait), doing));
                }
                Err(Trouble::Failed(error)) => return Err(error),
            };
            let next = page.next.clone();
            visit.take(page, &known);
            if visit.meets_known || known.is_empty() && visit.pages == pages_max {
                return Ok(visit);
            }
            match next {
                Some(next) if visit.pages < pages_max => url = next,
                next => {
                    visit.end = "the pages end before an event that is known";
                    visit.is_whole = next.is_none() && !self.is_public;
                    return Ok(visit);
                }
            }
        }
    }

    async fn page(&self, url: &Url, etag: Option<&str>) -> std::result::Result<Answer, Trouble> {
        let failed = |error: reqwest::Error| {
            metric::HTTP_REQUESTS.add(&[SCHEMA.source.0, "error"], 1);
            Trouble::Failed(Error::retry(format!("poll `{}`", self.id)).because(explained(error)))
        };
        let mut request = self.http.get(url.clone());
        if let Some(etag) = etag {
            request = request.header(IF_NONE_MATCH, etag);
        }
        let response = request.send().await.map_err(failed)?;
        let status = response.status();
        let limits = Limits::of(response.headers(), self.context.clock.now());
        if let Some(remaining) = limits.remaining {
            metric::RATE_LIMIT_REMAINING.set(&[SCHEMA.source.0], remaining as f64);
        }
        if status == StatusCode::NOT_MODIFIED && etag.is_some() {
            metric::HTTP_REQUESTS.add(&[SCHEMA.source.0, status.as_str()], 1);
            return Ok(Answer::NotModified(limits));
        }
        let (next, etag) = (next_page(response.headers(), url), text(response.headers(), &ETAG).map(str::to_owned));
        let framer = self.body(response).await?;
        metric::HTTP_REQUESTS.add(&[SCHEMA.source.0, status.as_str()], 1);
        let records = self.read(status, &limits, framer)?;
        Ok(Answer::Page(Page { records, next, etag, limits }))
    }

    /// The body, up to its limit.
    async fn body(&self, mut response: Response) -> std::result::Result<Framer, Trouble> {
        let bytes_max = self.settings.page_bytes_max;
        let mut framer = Framer::default();
        let error = match read_body(&mut response, bytes_max, framer.buffer()).await {
            Ok(()) => return Ok(framer),
            Err(BodyTrouble::Broken(error)) => Error::retry(format!("poll `{}`", self.id)).because(explained(error)),
            Err(BodyTrouble::TooLarge) => {
                let doing = format!("poll `{}`: a page exceeds `github.page_bytes_max` = {bytes_max}", self.id);
                Error::new(Remedy::RetryAfter(REFUSED_WAIT), doing)
            }
        };
        metric::HTTP_REQUESTS.add(&[SCHEMA.source.0, "error"], 1);
        Err(Trouble::Failed(error))
    }

    /// The events of a page, if it is one.
    fn read(
        &self,
        status: StatusCode,
        limits: &Limits,
        mut framer: Framer,
    ) -> std::result::Result<Vec<RawRecord>, Trouble> {
        let doing = format!("poll `{}`", self.id);
        let body = framer.buffer();
        let said = String::from_utf8_lossy(&body[..body.len().min(1024)]).trim().to_owned();
        judge(status, limits, &said, &doing)?;
        let mut pieces = Vec::new();
        framer.pull(true, &mut pieces);
        if !said.starts_with('[') || framer.is_in_list() {
            let start: String = said.chars().take(40).collect();
            let error =
                Error::retry(format!("{doing}: the answer is no whole list of events, it starts with `{start}`"));
            return Err(Trouble::Failed(error));
        }
        let now = self.context.clock.now();
        Ok(pieces.into_iter().map(|piece| piece.into_record(now)).collect())
    }

    fn coverage(&self, state: &State, visit: &Visit) -> Vec<Coverage> {
        let times = || visit.records.iter().map(|record| record.event_time);
        let (Some(oldest), Some(newest)) = (times().min(), times().max()) else { return Vec::new() };
        let line = |kind, from, to, records, reason: String| Coverage {
            source: SCHEMA.source.0.to_owned(),
            collector: self.id.0.clone(),
            kind,
            from,
            to,
            records,
            reason,
        };
        let records = visit.records.len() as u64;
        let pages = visit.pages;
        let end = Timestamp(newest.0.saturating_add(1));
        let covered =
            |from| line(CoverageKind::Covered, from, end, records, format!("{pages} pages of the Events API"));
        let is_gap = !state.ids.is_empty() && !visit.meets_known && !visit.is_whole;
        let Some(seen_to) = state.newest.filter(|_| is_gap) else {
            return vec![covered(state.newest.unwrap_or(oldest).min(oldest))];
        };
        // What was missed lies between the newest event of the poll before and the oldest of this one. Ids do not
        // count it: private events have numbers too. So it is taken to have been as busy as what was seen.
        let gap_seconds = oldest.since(seen_to).as_secs_f64();
        let seen_seconds = newest.since(oldest).as_secs_f64().max(1.0);
        let missed = (records as f64 / seen_seconds * gap_seconds).ceil().max(1.0) as u64;
        let reason = format!("{}; estimated from {records} events in {seen_seconds:.0} s", visit.end);
        vec![line(CoverageKind::Missed, seen_to.min(oldest), oldest, missed, reason), covered(oldest)]
    }
}

impl Visit {
    fn take(&mut self, page: Page, known: &HashSet<&str>) {
        self.pages += 1;
        self.limits = page.limits;
        if self.pages == 1 {
            self.etag = page.etag;
        }
        for record in page.records {
            let id = record.id.as_str();
            if known.contains(id) {
                self.meets_known = true;
            } else if self.ids.insert(id.to_owned()) {
                // Pages move on while they are read, so one event may stand on two of them.
                self.records.push(record);
            }
        }
    }
}

fn next_state(state: State, visit: &Visit) -> State {
    let newest = visit.records.iter().map(|record| record.event_time).max();
    let ids = visit.records.iter().map(|record| record.id.as_str().to_owned()).chain(state.ids);
    State { etag: visit.etag.clone(), newest: newest.max(state.newest), ids: ids.take(IDS_MAX).collect() }
}
