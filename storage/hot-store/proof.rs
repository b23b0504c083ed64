//! All rows that an index holds, one by one, for proofs.

use std::sync::Arc;

use contract::{Error, Result, RowStream, StoredRow};
use futures::stream::{self, StreamExt};
use tantivy::TantivyDocument;
use tantivy::schema::Value;
use tokio::sync::mpsc;

use crate::index::{HotIndex, OpenIndex};
use crate::repair::PlaceColumns;

/// Rows and bytes that are read ahead at once; the reader waits for its consumer after two of these.
const ROWS_READ: usize = 512;
const BYTES_READ: usize = 1 << 20;
const PORTIONS_AHEAD: usize = 2;

type Portion = Result<Vec<StoredRow>>;

/// Streams the rows of indices as of their last commits.
pub(crate) fn rows(indices: Vec<Arc<HotIndex>>) -> RowStream {
    let (sender, receiver) = mpsc::channel::<Portion>(PORTIONS_AHEAD);
    tokio::task::spawn_blocking(move || {
        for index in indices {
            if !read(&index.opened(), &sender) {
                return;
            }
        }
    });
    let portions = stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) });
    let rows = portions.flat_map(|portion| match portion {
        Ok(rows) => stream::iter(rows.into_iter().map(Ok).collect::<Vec<_>>()),
        Err(error) => stream::iter(vec![Err(error)]),
    });
    Box::pin(rows)
}

/// Sends the rows of one index; false when nobody listens any more, or reading failed.
fn read(index: &OpenIndex, sender: &mpsc::Sender<Portion>) -> bool {
    let mut portion = Vec::new();
    let mut bytes = 0;
    let outcome = for_each(index, |row| {
        bytes += row.source_json.len();
        portion.push(row);
        if portion.len() < ROWS_READ && bytes < BYTES_READ {
            return true;
        }
        bytes = 0;
        sender.blocking_send(Ok(std::mem::take(&mut portion))).is_ok()
    });
    match outcome {
        Ok(true) => sender.blocking_send(Ok(portion)).is_ok(),
        Ok(false) => false,
        Err(error) => {
            let error = Error::stop(format!("read the rows of the index `{}`", index.name)).because(error);
            // Nobody listening is no concern: the rows are not wanted then.
            sender.blocking_send(Err(error)).is_ok_and(|()| false)
        }
    }
}

/// Calls `take` with every row until it answers false, which is then the answer.
fn for_each(index: &OpenIndex, mut take: impl FnMut(StoredRow) -> bool) -> tantivy::Result<bool> {
    let columns = PlaceColumns::of(&index.searcher)?;
    for (segment, columns) in index.searcher.segment_readers().iter().zip(columns) {
        let store = segment.get_store_reader(1)?;
        let documents = store.iter::<TantivyDocument>(segment.alive_bitset());
        for (row, document) in segment.doc_ids_alive().zip(documents) {
            let document = document?;
            let value = |field| document.get_first(field);
            let id = value(index.fields.id).and_then(|id| id.as_str().map(str::to_owned));
            let source = value(index.fields.source).and_then(|json| json.as_bytes().map(<[u8]>::to_vec));
            let (partition, offset) = columns.place(row);
            let source_json = String::from_utf8_lossy(&source.unwrap_or_default()).into_owned();
            let row =
                StoredRow { index: index.name.clone(), partition, offset, id: id.unwrap_or_default(), source_json };
            if !take(row) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}
