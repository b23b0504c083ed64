//! Reads the daily listings, RSS or Atom: what is announced today, hours before OAI-PMH has it.
//!
//! A listed paper is a row of its own (`format` is `rss` or `atom`, `announced_at` is set); the harvest of the next day
//! brings the full record of the same `arxiv_id` and `version`. An unchanged listing answers 304 or the same bytes, and
//! brings nothing; on days without a listing it is empty. There is one on each day from Monday to Friday: where working
//! days lie between two that were read, they were missed, unless they were holidays; the harvest has their papers.
//!
//! Source: <https://info.arxiv.org/help/rss.html>.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use contract::{
    Collector, CollectorId, Coverage, CoverageKind, Cursor, Day, Error, Harvest, RawRecord, Result, Timestamp,
};
use reqwest::Url;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::client::{Client, Validators};
use super::collectors::{ledger_line, read_cursor, write_cursor};
use super::page::Page;
use super::schema::SCHEMA;
use super::settings::Settings;
use crate::Context;

/// Where a listing stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct State {
    validators: Validators,
    /// Hash of the bytes seen last.
    seen: Option<u64>,
    /// Time of the newest listing seen.
    listed_at: Option<Timestamp>,
}

/// See the module.
pub(super) struct ListingCollector {
    id: CollectorId,
    url: Url,
    interval: Duration,
    client: Arc<Client>,
    context: Context,
}

impl ListingCollector {
    /// A collector for each category that is set.
    pub(super) fn all(settings: &Settings, url: &Url, client: &Arc<Client>, context: &Context) -> Result<Vec<Self>> {
        let collector = |category: &String| {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-.+".contains(&byte);
            let wrong = || {
                let right = "`cs.AI`, `math` or `cs.AI+cs.LG`";
                Error::change(format!("use the category `{category}` of `arxiv.listings` (should be as {right})"))
            };
            if category.is_empty() || !category.bytes().all(is_plain) {
                return Err(wrong());
            }
            let base = url.as_str().trim_end_matches('/');
            Ok(Self {
                id: CollectorId(format!("arxiv/listing/{category}")),
                url: Url::parse(&format!("{base}/{category}")).map_err(|error| wrong().because(error))?,
                interval: Duration::from_secs(settings.listing_interval_seconds.max(60)),
                client: client.clone(),
                context: context.clone(),
            })
        };
        settings.listings.iter().map(collector).collect()
    }

    /// What a listing has, and what those had that lie between it and the one read before.
    fn coverage(&self, records: &[RawRecord], listed_at: Timestamp, before: Option<Timestamp>) -> Vec<Coverage> {
        let (count, end) = (records.len() as u64, Timestamp(listed_at.0.saturating_add(1)));
        let before = before.filter(|before| *before < listed_at);
        let days = before.map_or(0, |before| working_days_between(before.day(), listed_at.day()));
        let covered = |from| ledger_line(&self.id, CoverageKind::Covered, from, end, count, "one listing".to_owned());
        match before {
            Some(before) if days == 0 => vec![covered(before)],
            Some(before) => {
                let from = listed_at.minus(LISTING_SPAN).max(before);
                let reason =
                    format!("no listing of {days} working days was read, unless they were holidays; estimated");
                let missed = ledger_line(&self.id, CoverageKind::Missed, before, from, days * count, reason);
                vec![missed, covered(from)]
            }
            None => vec![covered(listed_at.minus(LISTING_SPAN))],
        }
    }

    fn nothing_new(&self, state: &State) -> Result<Harvest> {
        Ok(Harvest {
            source: SCHEMA.source,
            collector: self.id.clone(),
            records: Vec::new(),
            coverage: Vec::new(),
            cursor: write_cursor(state)?,
            poll_again_in: Some(self.interval),
            acknowledge: None,
        })
    }
}

#[async_trait]
impl Collector for ListingCollector {
    fn id(&self) -> CollectorId {
        self.id.clone()
    }

    async fn poll(&mut self, cursor: &Cursor) -> Result<Harvest> {
        let state: State = read_cursor(&self.id, cursor)?;
        let doing = format!("read `{}`", self.id);
        let Some(answer) = self.client.get(self.url.clone(), Some(&state.validators), &doing).await? else {
            return self.nothing_new(&state);
        };
        let seen = Some(xxh3_64(&answer.body));
        let mut next = State { validators: answer.validators, seen, listed_at: state.listed_at };
        if state.seen == seen {
            return self.nothing_new(&next);
        }
        let page = Page::read(answer.body, self.context.clock.now());
        let is_listing = matches!(page.root.as_deref(), Some("rss" | "RDF" | "feed"));
        if !is_listing || !page.is_whole {
            return Err(Error::retry(format!("{doing}: the answer is no whole listing")));
        }
        let listed_at = page.records.iter().map(|record| record.event_time).max();
        next.listed_at = listed_at.max(state.listed_at);
        let mut harvest = self.nothing_new(&next)?;
        if let Some(listed_at) = listed_at {
            harvest.coverage = self.coverage(&page.records, listed_at, state.listed_at);
        }
        harvest.records = page.records;
        Ok(harvest)
    }
}

/// A listing has what came since the one of the working day before.
const LISTING_SPAN: Duration = Duration::from_secs(24 * 3600);

/// Days without a listing that are told by name; before a longer gap nothing was read at all.
const GAP_DAYS_MAX: i32 = 3_660;

/// Days from Monday to Friday between two days, neither of them counted.
fn working_days_between(before: Day, after: Day) -> u64 {
    // 1970-01-01 was a Thursday.
    let is_working = |day: &i32| (day + 3).rem_euclid(7) < 5;
    let days = before.0.max(after.0.saturating_sub(GAP_DAYS_MAX)).saturating_add(1)..after.0;
    days.filter(is_working).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn working_days_are_counted_over_weekends() {
        let day = |text: &str| Day::parse(text).unwrap();
        for (before, after, count) in [
            ("2026-01-05", "2026-01-06", 0),
            ("2026-01-09", "2026-01-12", 0),
            ("2026-01-05", "2026-01-07", 1),
            ("2026-01-08", "2026-01-13", 2),
            ("2026-01-08", "2026-01-05", 0),
        ] {
            assert_eq!(working_days_between(day(before), day(after)), count, "{before} {after}");
        }
    }
}
