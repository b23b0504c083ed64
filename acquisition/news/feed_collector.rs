//! Polls a feed: one collector, so one cursor, a feed.
//!
//! One for all feeds would write the state of all of them with every append: 4 MB for 2,000 feeds, where a feed's own is
//! 1 to 3 kB. A collector costs a task that sleeps and no connection; turns, spacing and memory are shared by all of them
//! in [`Shared`].
//!
//! | case | outcome |
//! | --- | --- |
//! | nothing new (304, or the same bytes) | an empty harvest, the cursor stays |
//! | new entries | those not seen before; a line of coverage |
//! | more of them than one harvest may hold | the rest with the next ones, without asking again: `portions.rs` |
//! | no entry is known | the same, and a line of what was missed, estimated |
//! | 301 or 308, the same in three polls | from then on the new address is asked; the cursor says so |
//! | the new address fails | the old one again |
//! | 410 | noted in the cursor; asked again each week |
//! | 429, 503 | `Retry-After`, for all feeds of the host |
//! | any other failure, no feed, or one that cannot be read | asked again after twice as long each time, up to a day; never given up; the cursor says why |
//! | a hub sends content | as a poll, but what it leaves out is not gone; acknowledged when it is on disk |

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use contract::{
    Acknowledge, Clock, Collector, CollectorId, Coverage, Cursor, Error, Harvest, RawRecord, Remedy, Result, SourceId,
    Timestamp,
};
use reqwest::header::{CONTENT_TYPE, ETAG, LAST_MODIFIED};
use reqwest::{StatusCode, Url};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use super::article_page::ArticlePages;
use super::cache::fresh_for;
use super::feed::Feed;
use super::feed_state::{ADDRESS_BYTES_MAX, State};
use super::fetch::{Answer, Ask, Fetcher, Trouble};
use super::gap::coverage;
use super::link_header::add_links;
use super::portions::Portions;
use super::schedule::{DAYS, GONE_INTERVAL, Hints, Limits};
use super::settings::Settings;
use super::split::{Fetched, Split, split};
use super::websub::{Content, EVENTS_MAX, Event, Subscription, WebSub};
use crate::http::{retry_after, text};
use crate::{Context, HarvestSize};

const SOURCE: SourceId = SourceId("news");

const ACCEPT: &str = "application/atom+xml, application/rss+xml, application/feed+json, application/rdf+xml;q=0.9, \
                      application/xml;q=0.8, text/xml;q=0.8, application/json;q=0.7, */*;q=0.1";

/// Before a collector that listens to a hub is polled again: the harvest is appended first.
const LISTEN: Duration = Duration::from_millis(1);

/// Failures in a row after which an address that a feed moved to is given up for the old one.
const MOVED_FAILURES_MAX: u32 = 3;

/// Documents that are read at a time: each takes a core, and up to twenty times its size.
const READERS_MAX: usize = 2;

/// What all feeds share.
pub(super) struct Shared {
    pub(super) fetcher: Fetcher,
    pub(super) clock: Arc<dyn Clock>,
    limits: Limits,
    harvest: HarvestSize,
    readers: Arc<Semaphore>,
    bytes_max: usize,
    redirect_confirmations: u32,
    websub: Option<Arc<WebSub>>,
    pages: Option<ArticlePages>,
}

/// See the module.
pub(super) struct FeedCollector {
    id: CollectorId,
    url: Url,
    seed: u64,
    shared: Arc<Shared>,
    /// Before the first request.
    start_after: Duration,
    /// When a feed that listens to a hub is to be asked itself.
    due: Option<Instant>,
    failures: u32,
    /// Where it stands after a poll that failed.
    learned: Option<State>,
    /// What did not fit into the last harvest.
    portions: Option<Portions>,
    events: (mpsc::Sender<Event>, mpsc::Receiver<Event>),
}

impl Shared {
    /// What takes the calls of hubs, if there is WebSub.
    pub(super) fn websub(&self) -> Option<&Arc<WebSub>> {
        self.websub.as_ref()
    }

    pub(super) fn new(settings: &Settings, context: &Context) -> Result<Self> {
        let clock = &context.clock;
        let base = settings.websub_callback_url.as_str();
        let websub = match base {
            "" => None,
            base => Some(Arc::new(WebSub::new(base, settings.feed_bytes_max)?)),
        };
        Ok(Self {
            fetcher: Fetcher::new(settings, clock.clone())?,
            clock: clock.clone(),
            limits: Limits::new(settings),
            harvest: context.harvest,
            readers: Arc::new(Semaphore::new(READERS_MAX)),
            bytes_max: settings.feed_bytes_max,
            redirect_confirmations: settings.redirect_confirmations.max(1),
            websub,
            pages: settings.full_text.then(|| ArticlePages::new(settings, clock.clone())),
        })
    }
}

#[async_trait]
impl Collector for FeedCollector {
    fn id(&self) -> CollectorId {
        self.id.clone()
    }

    async fn poll(&mut self, cursor: &Cursor) -> Result<Harvest> {
        if let Some(portions) = self.portions.take().filter(|portions| portions.after == *cursor) {
            return self.hand_over(portions);
        }
        let mut state = State::read(cursor)?;
        if self.shared.websub.is_none() {
            // It was switched off: no hub can reach us.
            state.subscription = None;
        }
        let start_after = std::mem::take(&mut self.start_after);
        if !start_after.is_zero() {
            let wait = self.listening(&state, start_after);
            return Ok(self.idle(cursor.clone(), wait));
        }
        if let Some(event) = self.heard(&state).await {
            return self.take_event(event, state).await;
        }
        let url = state.address.as_ref().unwrap_or(&self.url);
        let (etag, last_modified) = (state.etag.as_deref(), state.last_modified.as_deref());
        let ask = Ask { url, accept: ACCEPT, etag, last_modified, bytes_max: self.shared.bytes_max };
        match self.shared.fetcher.get(&ask).await {
            Ok(answer) => self.take_answer(answer, state).await,
            Err(Trouble::Later(wait)) => {
                let wait = self.listening(&state, wait);
                Ok(self.idle(cursor.clone(), wait))
            }
            Err(Trouble::Failed(reason)) => self.fail(&reason, None, state),
        }
    }

    fn learned(&mut self) -> Option<Harvest> {
        // Reported already, so without a cursor nothing more is.
        let cursor = self.learned.as_ref()?.write().ok()?;
        Some(self.idle(cursor, LISTEN))
    }
}

impl FeedCollector {
    /// The collector of the feed at `url`, which asks first after `start_after`.
    pub(super) fn new(url: Url, start_after: Duration, shared: Arc<Shared>) -> Self {
        Self {
            id: CollectorId(format!("news/feed/{url}")),
            seed: xxh3_64(url.as_str().as_bytes()),
            url,
            shared,
            start_after,
            due: None,
            failures: 0,
            learned: None,
            portions: None,
            events: mpsc::channel(EVENTS_MAX),
        }
    }

    async fn take_answer(&mut self, answer: Answer, mut state: State) -> Result<Harvest> {
        let now = self.shared.clock.now();
        let status = answer.status;
        let is_unchanged = status == StatusCode::NOT_MODIFIED;
        if !is_unchanged && !status.is_success() {
            return self.refused(&answer, state, now);
        }
        let before = state.clone();
        state.note_move(answer.moved_to.clone(), self.shared.redirect_confirmations);
        state.gone_since = None;
        if is_unchanged || !state.note_body(&answer.body) {
            return self.answered(Portions::new(Vec::new(), Vec::new(), state, before), now).await;
        }
        let content_type = text(&answer.headers, &CONTENT_TYPE).map(str::to_owned);
        let read = self.read(answer.body, content_type, answer.url.clone(), &state, now).await;
        let mut split = match read {
            Ok(split) => split,
            Err(reason) => return self.fail(&reason, None, before),
        };
        if split.feed.format.is_none() {
            return self.fail(
                "what stands there is no feed (`databroker feeds discover` finds those of a page)",
                None,
                before,
            );
        }
        state.note_validators(text(&answer.headers, &ETAG), text(&answer.headers, &LAST_MODIFIED));
        state.note_title(split.feed.title.as_deref());
        state.note_links(split.shared_links, split.owners, false);
        state.hints = hints(&split.feed, fresh_for(&answer.headers, now));
        add_links(&answer.headers, &answer.url, &mut split.feed);
        self.offer_subscription(&split.feed, &mut state)?;
        let (records, coverage) = self.news(split.records, false, &mut state, now).await;
        self.answered(Portions::new(records, coverage, state, before), now).await
    }

    /// Reads a document beside the tasks that wait for others. What brings the reader down costs this answer.
    async fn read(
        &self,
        body: Bytes,
        content_type: Option<String>,
        from: Url,
        state: &State,
        now: Timestamp,
    ) -> Result<Split, String> {
        let turn = self.shared.readers.clone().acquire_owned().await.expect("never closed");
        let (feed_url, bytes_max) = (self.url.clone(), self.shared.bytes_max);
        let [shared_links, owners] = state.links();
        let read = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            split(Fetched {
                bytes: &body,
                charset: content_type.as_deref().and_then(charset_of),
                feed_url: Some(feed_url.as_str()),
                fetched_from: Some(from.as_str()),
                now,
                bytes_max,
                shared_links: &shared_links,
                owners: &owners,
            })
        });
        read.await.map_err(|panic| format!("reading it failed: {panic}"))
    }

    /// The harvest of a feed that answered.
    async fn answered(&mut self, mut portions: Portions, now: Timestamp) -> Result<Harvest> {
        self.failures = 0;
        let is_news = portions.is_news();
        let state = &mut portions.state;
        if let Some(failing) = self.learned.take() {
            state.noted.failure = failing.noted.failure;
        }
        let mut wait = self.shared.limits.wait(&state.changes, &state.hints, self.seed, now);
        if let (Some(websub), Some(subscription)) = (self.shared.websub.clone(), &mut state.subscription) {
            if now >= subscription.renew_at() {
                subscription.note_asked(now);
                // Whether the hub takes it is told by its call, or by none.
                drop(self.shared.fetcher.post_form(&subscription.hub, websub.form(subscription)).await);
            }
            if subscription.is_active(now) {
                wait = wait.max(self.shared.limits.quiet());
            }
            let renewal = subscription.renew_at().since(now).max(Duration::from_secs(1));
            wait = wait.min(renewal);
        }
        state.noted.answered(now, wait, is_news);
        portions.wait = Some(wait);
        self.hand_over(portions)
    }

    /// The next harvest of what an answer or a hub brought.
    fn hand_over(&mut self, mut portions: Portions) -> Result<Harvest> {
        let (records, coverage) = portions.next(self.shared.harvest);
        if !portions.is_done() {
            let cursor = portions.state_so_far().write()?;
            portions.after = cursor.clone();
            self.portions = Some(portions);
            return Ok(Harvest { records, coverage, ..self.idle(cursor, LISTEN) });
        }
        let Portions { state, wait, acknowledge, .. } = portions;
        match wait {
            Some(wait) => Ok(Harvest { acknowledge, ..self.harvest(&state, records, coverage, wait)? }),
            None => Ok(Harvest { records, coverage, acknowledge, ..self.idle(state.write()?, LISTEN) }),
        }
    }

    /// The entries that are new, and what is known to be missed.
    async fn news(
        &self,
        records: Vec<RawRecord>,
        is_part: bool,
        state: &mut State,
        now: Timestamp,
    ) -> (Vec<RawRecord>, Vec<Coverage>) {
        let newest_before = state.newest;
        let mut news = state.take_news(records, is_part, now);
        // A hub sends what is new; that it names nothing known says nothing.
        news.meets_known |= is_part;
        let coverage = coverage(&self.id, &news, newest_before, now);
        // Feeds show the newest first; the log keeps the order of time where there is one.
        news.records.reverse();
        news.records.sort_by_key(|record| record.event_time);
        if let Some(pages) = &self.shared.pages {
            pages.add_to(&mut news.records, &self.shared.fetcher).await;
        }
        (news.records, coverage)
    }

    fn refused(&mut self, answer: &Answer, mut state: State, now: Timestamp) -> Result<Harvest> {
        let status = answer.status;
        if status == StatusCode::GONE && state.address.is_none() {
            state.gone_since.get_or_insert(now);
            state.noted.failure = None;
            (self.failures, self.learned) = (0, None);
            return self.harvest(&state, Vec::new(), Vec::new(), GONE_INTERVAL);
        }
        let wait = retry_after(&answer.headers, now);
        self.fail(&format!("the server answers {}", status.as_u16()), wait, state)
    }

    /// Asks again after a while, longer each time, from the state before the answer. An address that the feed moved to is given up for the one before.
    fn fail(&mut self, reason: &str, asked: Option<Duration>, mut state: State) -> Result<Harvest> {
        self.failures = self.failures.saturating_add(1);
        let limits = &self.shared.limits;
        let wait = limits.backoff(self.failures).max(asked.unwrap_or_default()).min(limits.backoff_max);
        if let Some(failing) = self.learned.take() {
            state.noted = failing.noted;
        }
        state.noted.failed(self.shared.clock.now(), wait, reason);
        if state.address.is_some() && self.failures >= MOVED_FAILURES_MAX {
            state.address = None;
            return self.harvest(&state, Vec::new(), Vec::new(), wait);
        }
        let remedy = Remedy::RetryAfter(self.listening(&state, wait));
        let failures = self.failures;
        self.learned = Some(state);
        Err(Error::new(remedy, format!("poll `{}` ({failures} times in a row): {reason}", self.id)))
    }

    fn idle(&self, cursor: Cursor, wait: Duration) -> Harvest {
        Harvest {
            source: SOURCE,
            collector: self.id.clone(),
            records: Vec::new(),
            coverage: Vec::new(),
            cursor,
            poll_again_in: Some(wait.max(LISTEN)),
            acknowledge: None,
        }
    }

    fn harvest(
        &mut self,
        state: &State,
        records: Vec<RawRecord>,
        coverage: Vec<Coverage>,
        wait: Duration,
    ) -> Result<Harvest> {
        let wait = self.listening(state, wait);
        Ok(Harvest { records, coverage, ..self.idle(state.write()?, wait) })
    }

    /// Before the next poll of a feed that is to be asked after `wait`: one with a hub listens to it meanwhile.
    fn listening(&mut self, state: &State, wait: Duration) -> Duration {
        self.due = Some(Instant::now() + wait);
        match (&self.shared.websub, &state.subscription) {
            (Some(websub), Some(subscription)) => {
                websub.listen(subscription, &self.events.0);
                LISTEN
            }
            _ => wait,
        }
    }

    /// Subscribes where the feed names a hub and itself, and lets go of what it no longer names.
    fn offer_subscription(&self, feed: &Feed, state: &mut State) -> Result<()> {
        let Some(websub) = &self.shared.websub else { return Ok(()) };
        let address = |text: &String| Url::parse(text).ok().filter(|url| url.as_str().len() <= ADDRESS_BYTES_MAX);
        let hub = feed.hubs.iter().find_map(address);
        let is_topic = |topic: &String| topic.len() <= ADDRESS_BYTES_MAX && address(topic).is_some();
        let offer = hub.zip(feed.self_link.clone().filter(is_topic));
        let is_known = |known: &Subscription| {
            offer.as_ref().is_some_and(|(hub, topic)| (hub, topic) == (&known.hub, &known.topic))
        };
        if state.subscription.as_ref().is_some_and(is_known) {
            return Ok(());
        }
        if let Some(old) = state.subscription.take() {
            websub.forget(&old);
        }
        if let Some((hub, topic)) = offer {
            state.subscription = Some(Subscription::new(hub, topic)?);
        }
        Ok(())
    }

    /// What a hub says before the feed is to be asked itself.
    async fn heard(&mut self, state: &State) -> Option<Event> {
        let (websub, subscription) = (self.shared.websub.as_ref()?, state.subscription.as_ref()?);
        websub.listen(subscription, &self.events.0);
        let due = self.due.filter(|&due| due > Instant::now())?;
        tokio::time::timeout_at(due, self.events.1.recv()).await.ok()?
    }

    async fn take_event(&mut self, event: Event, mut state: State) -> Result<Harvest> {
        let now = self.shared.clock.now();
        let content = match event {
            Event::Granted(lease) => {
                state.subscription.iter_mut().for_each(|subscription| subscription.note_granted(lease, now));
                return Ok(self.idle(state.write()?, LISTEN));
            }
            Event::Denied => {
                state.subscription.iter_mut().for_each(|subscription| subscription.note_denied(now));
                return Ok(self.idle(state.write()?, LISTEN));
            }
            Event::Content(content) => content,
        };
        let Content { body, content_type, logged } = content;
        let address = state.address.clone().unwrap_or_else(|| self.url.clone());
        let before = state.clone();
        // What cannot be read is not acknowledged, so that the hub comes again or gives up.
        let split = self.read(body, content_type, address, &state, now).await;
        let split = split.map_err(|reason| {
            Error::new(Remedy::RetryAfter(LISTEN), format!("hear the hub of `{}`: {reason}", self.id))
        })?;
        let records = if split.feed.format.is_some() { split.records } else { Vec::new() };
        state.note_links(split.shared_links, split.owners, true);
        let (records, coverage) = self.news(records, true, &mut state, now).await;
        let logged = Mutex::new(Some(logged));
        let acknowledge = Acknowledge::new(move || {
            if let Some(logged) = logged.lock().unwrap_or_else(PoisonError::into_inner).take() {
                // The hub may have gone meanwhile; it comes again, and nothing is new then.
                logged.send(()).unwrap_or_default();
            }
        });
        let mut portions = Portions::new(records, coverage, state, before);
        portions.acknowledge = Some(acknowledge);
        self.hand_over(portions)
    }
}

/// The character set that a `Content-Type` names.
pub(super) fn charset_of(content_type: &str) -> Option<&str> {
    let parameters = content_type.split(';').skip(1);
    let named = parameters
        .filter_map(|part| part.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("charset"));
    named.map(|(_, value)| value.trim().trim_matches(['"', '\''])).filter(|value| !value.is_empty())
}

fn hints(feed: &Feed, fresh: Option<Duration>) -> Hints {
    let ttl = feed.ttl_minutes.unwrap_or(0).saturating_mul(60);
    let seconds = ttl.max(feed.update_seconds.unwrap_or(0)).max(fresh.unwrap_or_default().as_secs());
    let skip_hours = feed.skip_hours.iter().fold(0, |hours, &hour| hours | 1 << (u32::from(hour) % 24));
    let day = |name: &String| DAYS.iter().position(|day| name.trim().eq_ignore_ascii_case(day));
    let skip_days = feed.skip_days.iter().filter_map(day).fold(0, |days, day| days | 1 << day);
    Hints { seconds, skip_hours, skip_days }
}
