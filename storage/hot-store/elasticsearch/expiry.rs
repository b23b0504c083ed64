//! Days that leave the store.

use std::collections::BTreeSet;

use contract::{Day, Expired, Positions, Result, Timestamp};
use reqwest::Method;
use serde_json::{Value, json};

use super::REFUSED_INDEX;
use super::bulk::send_all;
use super::client::Body;
use super::items::Item;
use super::scroll::Scroll;
use super::source::ElasticSource;
use super::store::Inner;
use crate::names::period;

/// Partitions whose last offsets are asked for.
const PARTITIONS_MAX: usize = 10_000;

impl ElasticSource {
    /// Removes the indices that lie before the first day kept and whose every row `cold` has.
    pub(super) async fn expire(&self, inner: &Inner, now: Timestamp, cold: &Positions) -> Result<Expired> {
        let mut progress = self.progress().await;
        self.commit_all(inner, &mut progress).await?;
        let mut expired = Expired::default();
        let Some(first_day) = inner.first_day(now) else { return Ok(expired) };
        for name in self.due(inner, first_day).await? {
            let is_safe = cold.reaches(&self.next_after(inner, &name).await?);
            if is_safe {
                self.delete(inner, &name).await?;
                let query = json!({"term": {"index": name}});
                let refused = Scroll::all(inner.client.clone(), REFUSED_INDEX, query, false).await?;
                let items = refused.into_iter().map(|hit| Item::delete(REFUSED_INDEX, hit.id)).collect();
                send_all(&inner.client, &mut progress.pace, self.id(), items).await?;
            }
            let list = if is_safe { &mut expired.removed } else { &mut expired.waiting };
            list.push(name);
        }
        Self::forget_indices(&mut progress);
        Ok(expired)
    }

    /// The indices before a day, those among them of which only refused rows are there.
    async fn due(&self, inner: &Inner, first_day: Day) -> Result<BTreeSet<String>> {
        let is_due = |name: &String| period(self.id(), name).is_some_and(|days| days.last < first_day);
        let mut due: BTreeSet<_> = inner.names_of(&[self.schema]).await?.into_iter().filter(is_due).collect();
        inner.refresh(&format!("{REFUSED_INDEX},{}-*.*", self.id())).await?;
        let body = json!({"size": 0, "query": {"term": {"source": self.id().0}},
            "aggs": {"names": {"terms": {"field": "index", "size": PARTITIONS_MAX}}}});
        let doing = format!("list the refused rows of `{}`", self.id());
        let path = format!("{REFUSED_INDEX}/_search");
        let found = inner.client.ask_json(Method::POST, &path, Body::Json(body), &doing).await?;
        let buckets = found.pointer("/aggregations/names/buckets").and_then(Value::as_array).into_iter().flatten();
        due.extend(buckets.filter_map(|bucket| bucket["key"].as_str().map(str::to_owned)).filter(is_due));
        Ok(due)
    }

    /// The offsets after the last that an index has, or that were refused there.
    async fn next_after(&self, inner: &Inner, name: &str) -> Result<Positions> {
        let mut next = Positions::default();
        let parts = [
            (name, json!({"match_all": {}}), "_partition", "_offset"),
            (REFUSED_INDEX, json!({"term": {"index": name}}), "partition", "offset"),
        ];
        for (index, query, partition, offset) in parts {
            let body = json!({"size": 0, "query": query, "aggs": {"partitions": {
                "terms": {"field": partition, "size": PARTITIONS_MAX},
                "aggs": {"last": {"max": {"field": offset}}}}}});
            let doing = format!("ask for the last offsets of `{name}`");
            let path = format!("{index}/_search?ignore_unavailable=true");
            let found = inner.client.ask_json(Method::POST, &path, Body::Json(body), &doing).await?;
            if found.pointer("/_shards/failed").and_then(Value::as_u64) != Some(0) {
                return Err(contract::Error::retry(doing).because("not all shards answered"));
            }
            let buckets = found.pointer("/aggregations/partitions/buckets").and_then(Value::as_array);
            for bucket in buckets.into_iter().flatten() {
                let last = bucket["last"]["value"].as_f64().unwrap_or_default();
                let partition = bucket["key"].as_i64().and_then(|key| i32::try_from(key).ok()).unwrap_or_default();
                next.advance(partition, last as i64 + 1);
            }
        }
        Ok(next)
    }

    /// Removes an index by its name, which may be an alias: those cannot be removed so.
    async fn delete(&self, inner: &Inner, name: &str) -> Result<()> {
        for (_, index) in inner.indices_of(&[self.schema]).await?.into_iter().filter(|(known, _)| known == name) {
            inner.delete(&index).await?;
        }
        Ok(())
    }
}
