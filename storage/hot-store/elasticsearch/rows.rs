//! All rows that a source has, one by one, for proofs.

use std::sync::Arc;

use contract::{Error, Result, RowSchema, RowStream, StoredRow};
use futures::stream::{self, StreamExt, TryStreamExt};
use serde::Deserialize;
use serde_json::json;

use super::client::Client;
use super::items::row_id;
use super::refused::RefusedRow;
use super::scroll::{Hit, Scroll};
use super::{DRAFT_PREFIX, REFUSED_INDEX, canonical};

/// What stands where no row of ours does: a document that someone else put there.
pub(super) const NO_PLACE: (i32, i64) = (-1, -1);

#[derive(Deserialize)]
struct Place {
    #[serde(rename = "_partition")]
    partition: i32,
    #[serde(rename = "_offset")]
    offset: i64,
}

/// Streams the rows of indices, and then those that were refused.
pub(super) fn all(client: Arc<Client>, schema: &'static RowSchema, indices: Vec<String>) -> RowStream {
    let of_drafts = json!({"prefix": {"index": DRAFT_PREFIX}});
    let refused = json!({"bool": {"filter": {"term": {"source": schema.source.0}}, "must_not": of_drafts}});
    let parts = indices.into_iter().map(|index| (index, json!({"match_all": {}})));
    let parts: Vec<_> = parts.chain([(REFUSED_INDEX.to_owned(), refused)]).collect();
    let rows = stream::iter(parts).then(move |(index, query)| {
        let client = client.clone();
        async move {
            let (scroll, hits) = Scroll::start(client, &index, query, true).await?;
            Ok::<_, Error>(portions(scroll, hits).map_ok(move |hits| of_hits(schema, hits)))
        }
    });
    Box::pin(rows.try_flatten().map_ok(stream::iter).try_flatten())
}

fn portions(scroll: Scroll, first: Vec<Hit>) -> impl futures::Stream<Item = Result<Vec<Hit>>> {
    stream::try_unfold((scroll, first), |(mut scroll, hits)| async move {
        if hits.is_empty() {
            return Ok(None);
        }
        let next = scroll.next().await?;
        Ok(Some((hits, (scroll, next))))
    })
}

fn of_hits(schema: &RowSchema, hits: Vec<Hit>) -> Vec<Result<StoredRow>> {
    hits.into_iter().map(|hit| of_hit(schema, &hit)).collect()
}

fn of_hit(schema: &RowSchema, hit: &Hit) -> Result<StoredRow> {
    let mut row = if hit.index == REFUSED_INDEX {
        let refused: Result<RefusedRow, _> = serde_json::from_str(hit.source());
        let failed = |cause| Error::stop(format!("read `{}` of `{REFUSED_INDEX}`", hit.id)).because(cause);
        refused.map_err(failed)?.stored()
    } else {
        let place: Option<Place> = serde_json::from_str(hit.source()).ok();
        let (partition, offset) = place.map_or(NO_PLACE, |place| (place.partition, place.offset));
        let source_json = hit.source().to_owned();
        StoredRow { index: canonical(&hit.index).to_owned(), partition, offset, id: hit.id.clone(), source_json }
    };
    row.id = row_id(schema, &row.index, &row.id).to_owned();
    Ok(row)
}
