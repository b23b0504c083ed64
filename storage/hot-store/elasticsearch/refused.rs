//! Rows that the server refuses for good. They stay with the store, whole and with the reason, so nothing is lost and
//! nothing waits for them.

use contract::{Error, Result, SourceId, StoredRow};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::bulk::{Refused, send, send_all};
use super::client::Client;
use super::items::Item;
use super::pace::Pace;
use super::{REFUSED_INDEX, canonical};

/// A row as it stands in `databroker-refused`.
#[derive(Serialize, Deserialize)]
pub(super) struct RefusedRow {
    source: String,
    /// The index that it was for.
    pub(super) index: String,
    /// The `_id` that it would have had there.
    id: String,
    partition: i32,
    offset: i64,
    reason: String,
    /// The row; none if it is too large for any request.
    row: Option<String>,
}

impl RefusedRow {
    /// The row as a proof sees it; its id is that of the document.
    pub(super) fn stored(self) -> StoredRow {
        StoredRow {
            index: self.index,
            partition: self.partition,
            offset: self.offset,
            id: self.id,
            source_json: self.row.unwrap_or_default(),
        }
    }
}

/// Keeps what was refused.
pub(super) async fn keep(client: &Client, pace: &mut Pace, source: SourceId, refused: Vec<Refused>) -> Result<()> {
    if refused.is_empty() {
        return Ok(());
    }
    let (count, first) = (refused.len(), &refused[0]);
    tracing::warn!(
        source = %source,
        "Elasticsearch refused {count} rows for good, which are in `{REFUSED_INDEX}` now; the first is `{}`: {}",
        first.item.id,
        first.reason
    );
    let items = refused.iter().map(|refused| item(source, refused, true)).collect::<Result<_>>()?;
    let too_large = send(client, pace, source, items).await?;
    let is_again = |one: &&Refused| too_large.iter().any(|again| again.item.id == document_id(source, one));
    let without = refused.iter().filter(is_again).map(|refused| item(source, refused, false)).collect::<Result<_>>()?;
    send_all(client, pace, source, without).await
}

/// The items that remove rows from among the refused, where they stand.
pub(super) fn forget(source: SourceId, rows: impl Iterator<Item = (i32, i64)>) -> Vec<Item> {
    rows.map(|(partition, offset)| Item::delete(REFUSED_INDEX, format!("{source}-{partition}-{offset}"))).collect()
}

/// What makes a row that was refused for a draft one of the index whose place that took.
pub(super) fn adopted(mut row: RefusedRow) -> Result<Item> {
    row.index = canonical(&row.index).to_owned();
    let failed = |cause| Error::stop(format!("keep `{}` among the refused rows", row.id)).because(cause);
    let document = serde_json::to_vec(&row).map_err(failed)?;
    Ok(Item::forced(REFUSED_INDEX, format!("{}-{}-{}", row.source, row.partition, row.offset), &document))
}

/// The mapping of the index.
pub(super) fn mapping() -> Value {
    let keyword = json!({"type": "keyword", "ignore_above": 1024});
    json!({"dynamic": false, "properties": {
        "source": keyword, "index": keyword, "id": keyword, "reason": {"type": "text"},
        "partition": {"type": "integer"}, "offset": {"type": "long"},
    }})
}

fn document_id(source: SourceId, refused: &Refused) -> String {
    let (partition, offset) = refused.item.place.unwrap_or_default();
    // Rows of a draft are others, until it is in use.
    let draft = refused.item.index.strip_suffix(canonical(&refused.item.index)).unwrap_or_default();
    format!("{draft}{source}-{partition}-{offset}")
}

fn item(source: SourceId, refused: &Refused, is_whole: bool) -> Result<Item> {
    let Refused { item, reason } = refused;
    let failed = |what: &str| Error::retry(format!("write `{}` into `{}`: {what}", item.id, item.index));
    let (partition, offset) = item.place.ok_or_else(|| failed(reason))?;
    let row = is_whole.then(|| String::from_utf8_lossy(item.document()).into_owned());
    let (index, id) = (item.index.clone(), item.id.clone());
    let row = RefusedRow { source: source.0.to_owned(), index, id, partition, offset, reason: reason.clone(), row };
    let document = serde_json::to_vec(&row).map_err(|cause| failed("write JSON").because(cause))?;
    Ok(Item::versioned(REFUSED_INDEX, document_id(source, refused), offset + 1, &document))
}
