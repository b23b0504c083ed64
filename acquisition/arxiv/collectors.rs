//! The collectors that are set, and what they share.

use std::collections::HashSet;
use std::sync::Arc;

use contract::{Collector, CollectorId, Coverage, CoverageKind, Cursor, Error, Result, Timestamp};
use reqwest::Url;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::client::Client;
use super::harvest::HarvestCollector;
use super::listing::ListingCollector;
use super::schema::SCHEMA;
use super::search::SearchCollector;
use crate::{Collectors, Context};

/// All of them, with one client: so they wait for each other.
pub(crate) fn collectors(settings: &crate::Settings, context: &Context) -> Result<Collectors> {
    let settings = &settings.arxiv;
    let client = Arc::new(Client::new(settings, context)?);
    let harvests = HarvestCollector::all(settings, &address("oai_url", &settings.oai_url)?, &client, context)?;
    let searches = SearchCollector::all(settings, &address("api_url", &settings.api_url)?, &client, context)?;
    let listings = ListingCollector::all(settings, &address("listing_url", &settings.listing_url)?, &client, context)?;
    let mut collectors = Collectors::default();
    collectors.polled.extend(harvests.into_iter().map(boxed));
    collectors.polled.extend(searches.into_iter().map(boxed));
    collectors.polled.extend(listings.into_iter().map(boxed));
    // Two of one name would move each other's cursor.
    let mut names = HashSet::new();
    match collectors.polled.iter().map(|collector| collector.id()).find(|id| !names.insert(id.clone())) {
        Some(id) => {
            let where_from = "`arxiv.oai_sets`, `arxiv.oai_formats`, `arxiv.searches` and `arxiv.listings`";
            Err(Error::change(format!("collect `{id}` twice (what {where_from} name, each should name once)")))
        }
        None => Ok(collectors),
    }
}

fn boxed(collector: impl Collector + 'static) -> Box<dyn Collector> {
    Box::new(collector)
}

fn address(name: &str, value: &str) -> Result<Url> {
    let wrong = || Error::change(format!("use `arxiv.{name}` = `{value}` (should be as `https://export.arxiv.org/…`)"));
    let url = Url::parse(value).map_err(|error| wrong().because(error))?;
    if matches!(url.scheme(), "http" | "https") { Ok(url) } else { Err(wrong()) }
}

/// The state in a cursor; the default before the first harvest.
pub(super) fn read_cursor<S: DeserializeOwned + Default>(id: &CollectorId, cursor: &Cursor) -> Result<S> {
    if cursor.0.is_empty() {
        return Ok(S::default());
    }
    serde_json::from_str(&cursor.0).map_err(|error| Error::stop(format!("read the cursor of `{id}`")).because(error))
}

pub(super) fn write_cursor(state: &impl Serialize) -> Result<Cursor> {
    serde_json::to_string(state).map(Cursor).map_err(|error| Error::stop("write a cursor").because(error))
}

/// A line of the ledger; `to` is not part of the interval.
pub(super) fn ledger_line(
    id: &CollectorId,
    kind: CoverageKind,
    from: Timestamp,
    to: Timestamp,
    records: u64,
    reason: String,
) -> Coverage {
    Coverage { source: SCHEMA.source.0.to_owned(), collector: id.0.clone(), kind, from, to, records, reason }
}
