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
use super::scroll::{Hit, Scroll};
use super::source::ElasticSource;
use super::store::ElasticsearchStore;
use super::{CHECKPOINT_INDEX, DRAFT_PREFIX, REFUSED_INDEX, canonical};
use crate::names::{boundary, period};

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

    /// Has the draft's indices in the place of the others, by one request.
    async fn swap(&self, source: &ElasticSource, found: &Found, since: Option<Timestamp>) -> Result<()> {
        let in_use = self.inner.indices_of(&[source.schema]).await?;
        let is_done = found.indices.is_empty() && in_use.values().any(|index| index.starts_with(&found.prefix));
        if !is_done {
            // What was refused before is not refused now. What is refused of the draft is adopted later.
            self.forget_refused(source, since).await?;
            let old =
                in_use.iter().filter(|(name, _)| is_after(source, name, since) || found.indices.contains_key(*name));
            let removes = old.map(|(_, index)| json!({"remove_index": {"index": index}}));
            let adds = found.indices.iter().flat_map(|(name, index)| {
                [name.as_str(), source.id().0].map(|alias| json!({"add": {"index": index, "alias": alias}}))
            });
            let actions: Vec<Value> = removes.chain(adds).collect();
            if !actions.is_empty() {
                let doing = format!("exchange the indices of `{}`", source.id());
                let body = Body::Json(json!({"actions": actions}));
                self.inner.client.ask_json(Method::POST, "_aliases", body, &doing).await?;
            }
        }
        let in_use = self.inner.indices_of(&[source.schema]).await?;
        for index in in_use.values().filter(|index| index.starts_with(&found.prefix)) {
            let shown = Body::Json(json!({"index": {"hidden": false}}));
            let doing = format!("show the index `{index}`");
            self.inner.client.ask_json(Method::PUT, &format!("{index}/_settings"), shown, &doing).await?;
        }
        Ok(())
    }

    /// The rows that were refused for indices of a source, with the ids of their documents.
    async fn refused_rows(&self, source: &ElasticSource) -> Result<Vec<(String, RefusedRow)>> {
        self.inner.refresh(REFUSED_INDEX).await?;
        let query = json!({"term": {"source": source.id().0}});
        let hits = Scroll::all(self.inner.client.clone(), REFUSED_INDEX, query, true).await?;
        let row = |hit: &Hit| {
            let failed = |cause| Error::stop(format!("read `{}` of `{REFUSED_INDEX}`", hit.id)).because(cause);
            Ok((hit.id.clone(), serde_json::from_str(hit.source()).map_err(failed)?))
        };
        hits.iter().map(row).collect()
    }

    async fn forget_refused(&self, source: &ElasticSource, since: Option<Timestamp>) -> Result<()> {
        let rows = self.refused_rows(source).await?.into_iter();
        let old = rows.filter(|(_, row)| canonical(&row.index) == row.index && is_after(source, &row.index, since));
        let items = old.map(|(id, _)| Item::delete(REFUSED_INDEX, id)).collect();
        let mut progress = source.progress().await;
        send_all(&self.inner.client, &mut progress.pace, source.id(), items).await
    }

    /// What was refused for the draft is refused for the indices that it is now.
    async fn adopt_refused(&self, source: &ElasticSource, prefix: &str) -> Result<()> {
        let mut items = Vec::new();
        for (id, row) in self.refused_rows(source).await?.into_iter().filter(|(_, row)| row.index.starts_with(prefix)) {
            items.push(adopted(row)?);
            items.push(Item::delete(REFUSED_INDEX, id));
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

/// Whether an index, by its name, holds a moment or what comes after it.
fn is_after(source: &ElasticSource, name: &str, since: Option<Timestamp>) -> bool {
    period(source.id(), name).is_some_and(|days| days.reaches(since))
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
        let periods = names.iter().filter_map(|name| period(source, name));
        Ok(boundary(periods, self.inner.retention_days == 0, since))
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
        self.adopt_refused(of, &found.prefix).await?;
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
