//! What every [`HotDrafts`] does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, BooleanArray, Int64Array};
use arrow::compute::filter_record_batch;
use arrow::datatypes::Int64Type;
use arrow::record_batch::RecordBatch;
use serde_json::json;

use super::hot_store::{NOW, RETENTION_DAYS, SCHEMA, SOURCE, Stored, days_before, expected, positions, rows, stored};
use crate::{HotDrafts, HotStore, Offset, Positions, Rows};

/// The rows of offsets `from..to` as an older version made them: without each fifth, and with other values.
fn older(from: Offset, to: Offset) -> Rows {
    let rows = rows(&[(0, from..to)]);
    let place = SCHEMA.arrow().index_of("size").expect("a column of the suite");
    let mut columns = rows.silver.columns().to_vec();
    let sizes = columns[place].as_primitive::<Int64Type>().unary::<_, Int64Type>(|size| size + 1_000);
    columns[place] = Arc::new(sizes);
    let silver = RecordBatch::try_new(rows.silver.schema(), columns).expect("the same columns");
    only(Rows { silver, ..rows }, |offset| offset % 5 != 0)
}

/// The rows as the present version makes them: without each seventh.
fn newer(from: Offset, to: Offset) -> Rows {
    only(rows(&[(0, from..to)]), |offset| offset % 7 != 0)
}

fn only(rows: Rows, keep: impl Fn(Offset) -> bool) -> Rows {
    let offsets: &Int64Array = rows.silver.column(1).as_primitive();
    let mask: BooleanArray = offsets.values().iter().map(|&offset| Some(keep(offset))).collect();
    Rows { silver: filter_record_batch(&rows.silver, &mask).expect("a mask of its length"), ..rows }
}

/// What a search for all rows counts.
async fn counted(store: &dyn HotStore) -> i64 {
    let answer = store.count("made-*", &json!({})).await.expect("counted");
    answer["count"].as_i64().expect("a count")
}

/// Rows are made anew beside those in use, are seen by no search, and take their place at once. Then the store goes on as if it
/// had had no others; also after a process that was killed. `open` opens the store on the same data each time.
///
/// # Panics
/// When the store does not do so.
pub async fn exchange(open: impl AsyncFn() -> Arc<dyn HotDrafts>) {
    let store = open().await;
    store.write(&older(0, 30)).await.expect("written");
    store.commit(SOURCE).await.expect("committed");
    let before = stored(&*store).await;
    assert_eq!(before, expected(&[&older(0, 30)]));

    let draft = store.draft(SOURCE).await.expect("begun");
    draft.write(&newer(0, 20)).await.expect("written");
    draft.commit(SOURCE).await.expect("committed");
    drop((draft, store));

    let store = open().await;
    let draft = store.draft(SOURCE).await.expect("gone on with");
    assert_eq!(draft.committed(SOURCE).await.expect("readable"), positions(&[(0, 20)]));
    draft.write(&newer(20, 30)).await.expect("written");
    draft.commit(SOURCE).await.expect("committed");
    assert_eq!(stored(&*store).await, before, "the draft is none of the store's rows yet");
    assert_eq!(counted(&*store).await, before.len() as i64);

    store.exchange(SOURCE, None).await.expect("exchanged");
    assert_went_on(&*store, &[&newer(0, 30)], 30).await;
    store.exchange(SOURCE, None).await.expect("nothing is left to do");
    drop(store);

    let store = open().await;
    assert_went_on(&*store, &[&newer(0, 30)], 36).await;
    assert_part_is_exchanged(&*store).await;
    drop(store);
    let store = open().await;
    assert_eq!(stored(&*store).await, part());
    assert_is_discarded(&*store).await;
    // Days that were exchanged leave as any others.
    let later = NOW.plus(Duration::from_secs((u64::from(RETENTION_DAYS) + 5) * 86_400));
    let expired = store.expire(SOURCE, later, &positions(&[(0, 42)])).await.expect("removed");
    assert_eq!(expired.removed, ["made-2026.11.20", "made-2026.11.21", "made-2026.11.22"]);
    assert_eq!(stored(&*store).await, Stored::new());
}

/// Takes six further offsets, from `at` on, as the store that holds `all`.
async fn assert_went_on(store: &dyn HotDrafts, all: &[&Rows], at: Offset) {
    let further = newer(at, at + 6);
    store.write(&further).await.expect("written");
    assert_eq!(store.commit(SOURCE).await.expect("committed"), positions(&[(0, at + 6)]));
    let mut all: Vec<Rows> = all.iter().map(|rows| (*rows).clone()).collect();
    all.push(newer(30, at + 6));
    let now = stored(store).await;
    assert_eq!(now, expected(&all.iter().collect::<Vec<_>>()));
    assert_eq!(counted(store).await, now.len() as i64);
}

/// The rows of the last two days as the older version made them, of those before as the present one did.
fn part() -> Stored {
    let boundary = days_before(1).day().start().to_string();
    let is_before = |json: &serde_json::Value| json["event_time"].as_str().is_some_and(|time| time < boundary.as_str());
    let kept = expected(&[&newer(0, 42)]).into_iter().filter(|(_, (_, json))| is_before(json));
    let new = expected(&[&older(0, 42)]).into_iter().filter(|(_, (_, json))| !is_before(json));
    kept.chain(new).collect::<BTreeMap<_, _>>()
}

async fn assert_part_is_exchanged(store: &dyn HotDrafts) {
    let since = store.boundary(SOURCE, days_before(1)).await.expect("readable");
    assert_eq!(since, days_before(1).day().start(), "an index holds a day");
    let draft = store.draft(SOURCE).await.expect("begun anew");
    assert_eq!(draft.committed(SOURCE).await.expect("readable"), Positions::default());
    let since_then = older(0, 42);
    let times = since_then.silver.column(3).as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
    let mask: BooleanArray = times.values().iter().map(|&time| Some(time >= since.0)).collect();
    let silver = filter_record_batch(&since_then.silver, &mask).expect("a mask of its length");
    draft.write(&Rows { silver, ..since_then }).await.expect("written");
    draft.commit(SOURCE).await.expect("committed");
    store.exchange(SOURCE, Some(since)).await.expect("exchanged");
    assert_eq!(stored(store).await, part());
}

async fn assert_is_discarded(store: &dyn HotDrafts) {
    let draft = store.draft(SOURCE).await.expect("begun");
    draft.write(&newer(0, 42)).await.expect("written");
    draft.commit(SOURCE).await.expect("committed");
    drop(draft);
    store.end_draft(SOURCE).await.expect("forgotten");
    store.exchange(SOURCE, None).await.expect("there is nothing to exchange");
    assert_eq!(stored(store).await, part());
    let draft = store.draft(SOURCE).await.expect("begun anew");
    assert_eq!(draft.committed(SOURCE).await.expect("readable"), Positions::default());
    store.end_draft(SOURCE).await.expect("forgotten");
}
