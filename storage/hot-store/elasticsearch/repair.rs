//! Single rows that are put right, outside the order of offsets.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::RecordBatch;
use contract::{Offset, Partition, Result};
use serde_json::{Value, json};

use super::bulk::send_all;
use super::items::Item;
use super::refused;
use super::rows::NO_PLACE;
use super::scroll::Scroll;
use super::source::ElasticSource;
use super::store::Inner;
use crate::source::Places;

/// Places that are looked for at once.
const PLACES_MAX: usize = 1_000;

impl ElasticSource {
    /// Writes rows anew. What stands at their places goes in the same request, unless it is overwritten. Rows that are too old,
    /// or that the store has yet to be given in their turn, are left out.
    pub(super) async fn replace(&self, inner: &Inner, rows: &RecordBatch) -> Result<()> {
        let mut progress = self.progress().await;
        self.commit_all(inner, &mut progress).await?;
        Self::forget_indices(&mut progress);
        let written = self.written_now(inner, &mut progress).await?;
        let mut groups = self.groups(inner, &mut progress, rows).await?;
        let places = Places::of(rows);
        let at = |row: usize| (places.partition(row), places.offset(row));
        for group in groups.values_mut() {
            group.retain(|&row| at(row).1 < written.of(at(row).0));
        }
        let wanted: Vec<_> = groups.values().flatten().map(|&row| at(row)).collect();
        // Whatever version stands there, it is wrong.
        let forced = |index: &str, id, _, document: &[u8]| Item::forced(index, id, document);
        let rows = self.items(rows.clone(), groups, forced).await?;
        let kept: BTreeSet<_> = rows.iter().map(|item| (item.index.clone(), item.id.clone())).collect();
        let mut items = self.deletions(inner, &wanted).await?;
        items.retain(|item| !kept.contains(&(item.index.clone(), item.id.clone())));
        items.extend(refused::forget(self.id(), wanted.iter().copied()));
        items.extend(rows);
        self.send(inner, &mut progress, items).await
    }

    /// Removes rows.
    pub(super) async fn remove(&self, inner: &Inner, places: &[(Partition, Offset)]) -> Result<()> {
        let mut progress = self.progress().await;
        self.commit_all(inner, &mut progress).await?;
        let mut items = self.deletions(inner, places).await?;
        items.extend(refused::forget(self.id(), places.iter().copied()));
        inner.changed();
        send_all(&inner.client, &mut progress.pace, self.id(), items).await
    }

    /// What removes all documents at some places, wherever they stand.
    async fn deletions(&self, inner: &Inner, places: &[(Partition, Offset)]) -> Result<Vec<Item>> {
        let names = inner.names_of(&[self.schema]).await?;
        inner.refresh(&format!("{}-*.*", self.id())).await?;
        let mut items = Vec::new();
        for some in places.chunks(PLACES_MAX) {
            for name in &names {
                let found = Scroll::all(inner.client.clone(), name, at_places(some), false).await?;
                items.extend(found.into_iter().map(|hit| Item::delete(name, hit.id)));
            }
        }
        Ok(items)
    }
}

/// The query that finds documents by their places; those without any where that is asked.
fn at_places(places: &[(Partition, Offset)]) -> Value {
    let mut offsets: BTreeMap<Partition, Vec<Offset>> = BTreeMap::new();
    for &(partition, offset) in places.iter().filter(|&&place| place != NO_PLACE) {
        offsets.entry(partition).or_default().push(offset);
    }
    let mut any: Vec<_> = offsets
        .into_iter()
        .map(|(partition, offsets)| {
            json!({"bool": {"filter": [{"term": {"_partition": partition}}, {"terms": {"_offset": offsets}}]}})
        })
        .collect();
    if places.contains(&NO_PLACE) {
        any.extend(["_partition", "_offset"].map(|field| json!({"bool": {"must_not": {"exists": {"field": field}}}})));
    }
    json!({"bool": {"should": any, "minimum_should_match": 1}})
}
