//! Drafts on a real Elasticsearch: indices made anew beside those in use. See [`contract::HotDrafts`].
//!
//! A draft's indices have other names, `databroker-N-SOURCE-YYYY.MM.DD`, are hidden and have no alias, so no search of
//! `SOURCE` or `SOURCE-*` meets them. The exchange is one request, which Elasticsearch carries out whole or not at all:
//! old indices go, and the names of their days become aliases of the new ones. Its position, `databroker-N-SOURCE` in the
//! checkpoint, goes last: as long as it is there, the exchange is not at its end.
//! Source: <https://www.elastic.co/guide/en/elasticsearch/reference/8.19/indices-aliases.html>.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use contract::{Error, HotDrafts, HotStore, Result, SourceId, Store, Timestamp};
use reqwest::Method;
use serde_json::{Value, json};

use super::bulk::send_all;
use super::client::Body;
use super::items::Item;
use super::refused::{RefusedRow, adopted};
use super::scroll::Scroll;
use super::source::ElasticSource;
use super::store::ElasticsearchStore;
use super::{CHECKPOINT_INDEX, DRAFT_PREFIX, REFUSED_INDEX, canonical};
use crate::names::period;

/// A draft as it is on the server.
struct Found {
    /// What the names of its indices begin with.
    prefix: String,
    /// Whether it has a position.
    is_begun: bool,
    /// Those of its indices that are not in use, by the names of their days.
    indices: BTreeMap<String, String>,
}

impl ElasticsearchStore {
    async fn found(&self, source: &ElasticSource) -> Result<Found> {
        let id = source.id();
        let numbered = format!("{DRAFT_PREFIX}*-{id}-*.*/_alias?expand_wildcards=all");
        let listed =
            self.inner.client.ask_json(Method::GET, &numbered, Body::None, "list the indices of drafts").await?;
        let (mut used, mut indices) = (0, BTreeMap::new());
        let mut number = self.begun(id).await?;
        let is_begun = number.is_some();
        for (index, of) in listed.as_object().into_iter().flatten() {
            let name = canonical(index);
            let (Some(of_index), Some(_)) = (number_of(index), period(id, name)) else { continue };
            if of["aliases"].get(name).is_some() {
                used = used.max(of_index);
            } else {
                number.get_or_insert(of_index);
                indices.insert(name.to_owned(), index.clone());
            }
        }
        let prefix = format!("{DRAFT_PREFIX}{}-", number.unwrap_or(used + 1));
        Ok(Found { prefix, is_begun, indices })
    }

    /// The number of the draft that has a position.
    async fn begun(&self, id: SourceId) -> Result<Option<u64>> {
        self.inner.refresh(CHECKPOINT_INDEX).await?;
        let query = json!({"wildcard": {"source": format!("{DRAFT_PREFIX}*-{id}")}});
        let marks = Scroll::all(self.inner.client.clone(), CHECKPOINT_INDEX, query, false).await?;
        Ok(marks.iter().find_map(|mark| number_of(&mark.id)))
    }

    /// The request that has the draft's indices in the place of the others.
    async fn swap(&self, source: &ElasticSource, found: &Found, since: Option<Timestamp>) -> Result<()> {
        let in_use = self.inner.indices_of(&[source.schema]).await?;
        if found.indices.is_empty() && in_use.values().any(|index| index.starts_with(&found.prefix)) {
            // It was carried out before.
            return Ok(());
        }
        let is_after = |name: &str| {
            let days = period(source.id(), name);
            since.is_none_or(|since| days.is_some_and(|days| days.last >= since.day()))
        };
        let old = in_use.iter().filter(|(name, _)| is_after(name) || found.indices.contains_key(*name));
        let removes = old.map(|(_, index)| json!({"remove_index": {"index": index}}));
        let adds = found.indices.iter().flat_map(|(name, index)| {
            [name.as_str(), source.id().0].map(|alias| json!({"add": {"index": index, "alias": alias}}))
        });
        let actions: Vec<Value> = removes.chain(adds).collect();
        if actions.is_empty() {
            return Ok(());
        }
        let doing = format!("exchange the indices of `{}`", source.id());
        let body = Body::Json(json!({"actions": actions}));
        self.inner.client.ask_json(Method::POST, "_aliases", body, &doing).await?;
        for index in found.indices.values() {
            let shown = Body::Json(json!({"index": {"hidden": false}}));
            let doing = format!("show the index `{index}`");
            self.inner.client.ask_json(Method::PUT, &format!("{index}/_settings"), shown, &doing).await?;
        }
        Ok(())
    }

    /// What was refused for the draft is what is refused now; what was refused before is not.
    async fn exchange_refused(&self, source: &ElasticSource, prefix: &str, since: Option<Timestamp>) -> Result<()> {
        self.inner.refresh(REFUSED_INDEX).await?;
        let query = json!({"term": {"source": source.id().0}});
        let mut items = Vec::new();
        for hit in Scroll::all(self.inner.client.clone(), REFUSED_INDEX, query, true).await? {
            let failed = |cause| Error::stop(format!("read `{}` of `{REFUSED_INDEX}`", hit.id)).because(cause);
            let row: RefusedRow = serde_json::from_str(hit.source()).map_err(failed)?;
            let days = period(source.id(), canonical(&row.index));
            let is_after = since.is_none_or(|since| days.is_some_and(|days| days.last >= since.day()));
            if row.index.starts_with(prefix) {
                items.push(Item::delete(REFUSED_INDEX, hit.id.clone()));
                items.push(adopted(row)?);
            } else if is_after && canonical(&row.index) == row.index {
                // Before those of the draft, which may be of the same places.
                items.insert(0, Item::delete(REFUSED_INDEX, hit.id.clone()));
            }
        }
        let mut progress = source.progress().await;
        send_all(&self.inner.client, &mut progress.pace, source.id(), items).await
    }

    /// Removes what is left of a draft: its position last, without which there is none.
    async fn remove_draft(&self, source: &ElasticSource, found: &Found) -> Result<()> {
        for index in found.indices.values() {
            self.inner.delete(index).await?;
        }
        let mut items = Vec::new();
        for (index, query) in [
            (REFUSED_INDEX, json!({"prefix": {"index": format!("{}{}-", found.prefix, source.id())}})),
            (CHECKPOINT_INDEX, json!({"term": {"source": format!("{}{}", found.prefix, source.id())}})),
        ] {
            self.inner.refresh(index).await?;
            let hits = Scroll::all(self.inner.client.clone(), index, query, false).await?;
            items.extend(hits.into_iter().map(|hit| Item::delete(index, hit.id)));
        }
        let mut progress = source.progress().await;
        send_all(&self.inner.client, &mut progress.pace, source.id(), items).await
    }
}

/// The number in the name of an index, or of a position, of a draft.
fn number_of(name: &str) -> Option<u64> {
    name.strip_prefix(DRAFT_PREFIX)?.split('-').next()?.parse().ok()
}

#[async_trait]
impl HotDrafts for ElasticsearchStore {
    async fn boundary(&self, source: SourceId, since: Timestamp) -> Result<Timestamp> {
        let found = self.source(source)?;
        let names = self.inner.names_of(&[found.schema]).await?;
        let days = names.iter().filter_map(|name| period(source, name));
        let first = days.filter(|days| (days.first..=days.last).contains(&since.day())).map(|days| days.first).min();
        let first = first.unwrap_or(since.day());
        Ok(if self.inner.retention_days == 0 { first.first_of_month().start() } else { first.start() })
    }

    async fn draft(&self, source: SourceId) -> Result<Arc<dyn HotStore>> {
        let of = self.changeable(source)?;
        let found = self.found(of).await?;
        Ok(Arc::new(self.beside(of, found.prefix)))
    }

    async fn exchange(&self, source: SourceId, since: Option<Timestamp>) -> Result<()> {
        let of = self.changeable(source)?;
        let found = self.found(of).await?;
        if !found.is_begun {
            return Ok(());
        }
        self.commit(source).await?;
        let draft = self.beside(of, found.prefix.clone());
        let at = draft.committed(source).await?;
        self.swap(of, &found, since).await?;
        self.exchange_refused(of, &found.prefix, since).await?;
        let mut progress = of.progress().await;
        if !at.reaches(&of.committed(&self.inner).await?) {
            of.put_back(&self.inner, &mut progress, &at).await?;
        }
        ElasticSource::forget_all(&mut progress);
        drop(progress);
        self.inner.changed();
        let indices = BTreeMap::new();
        self.remove_draft(of, &Found { indices, ..found }).await
    }

    async fn end_draft(&self, source: SourceId) -> Result<()> {
        let of = self.changeable(source)?;
        let found = self.found(of).await?;
        self.remove_draft(of, &found).await
    }
}
