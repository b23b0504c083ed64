//! Reads the daily listings, RSS or Atom: what is announced today, hours before OAI-PMH has it.
//!
//! A listed paper is a row of its own (`format` is `rss` or `atom`, `announced_at` is set); the harvest of the next day
//! brings the full record of the same `arxiv_id` and `version`. An unchanged listing answers 304 or the same bytes, and
//! brings nothing; on days without a listing it is empty.
//!
//! Source: <https://info.arxiv.org/help/rss.html>.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use contract::{Collector, CollectorId, CoverageKind, Cursor, Error, Harvest, Result, Timestamp};
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
        let next = State { validators: answer.validators, seen };
        if state.seen == seen {
            return self.nothing_new(&next);
        }
        let page = Page::read(answer.body, self.context.clock.now());
        let is_listing = matches!(page.root.as_deref(), Some("rss" | "RDF" | "feed"));
        if !is_listing || !page.is_whole {
            return Err(Error::retry(format!("{doing}: the answer is no whole listing")));
        }
        let mut harvest = self.nothing_new(&next)?;
        let times = || page.records.iter().map(|record| record.event_time);
        if let (Some(from), Some(to)) = (times().min(), times().max()) {
            let (end, records) = (Timestamp(to.0.saturating_add(1)), page.records.len() as u64);
            let reason = "one listing".to_owned();
            harvest.coverage.push(ledger_line(&self.id, CoverageKind::Covered, from, end, records, reason));
        }
        harvest.records = page.records;
        Ok(harvest)
    }
}
