//! What every cold store must do of which partitions go from one process to another.

use std::sync::Arc;

use super::cold_store::{Place, SOURCE, at, line, number, rows};
use crate::{ColdStore, Offset, OffsetRange, Partition};

/// Every offset below these stands once, in silver or in the dead letters, and in bronze.
async fn assert_holds(store: &dyn ColdStore, next: &[(Partition, Offset)]) {
    for table in [
        "bronze.github",
        "(SELECT _partition, _offset FROM silver.github UNION ALL SELECT _partition, _offset FROM ops.dead_letters)",
    ] {
        let all: Offset = next.iter().map(|(_, next)| next).sum();
        assert_eq!(number(store, &format!("SELECT count(*) FROM {table}")).await, all, "{table}");
        for (partition, next) in next {
            let query = format!(
                "SELECT count(DISTINCT _offset) FROM {table} WHERE _partition = {partition} AND _offset < {next}"
            );
            assert_eq!(number(store, &query).await, *next, "{query}");
        }
    }
}

pub(super) async fn resume(place: Arc<dyn Place>) {
    let store = place.open().await;
    assert_eq!(store.resume(SOURCE, &[0, 1]).await.expect("resumed"), at(&[(0, 0), (1, 0)]));
    for partition in 0..2 {
        store.write(&rows(partition, 0, 10)).await.expect("taken");
    }
    store.commit(SOURCE).await.expect("commits");
    for partition in 0..2 {
        store.write(&rows(partition, 10, 20)).await.expect("taken");
    }
    assert_eq!(store.resume(SOURCE, &[0, 2]).await.expect("resumed"), at(&[(0, 10), (2, 0)]));
    assert_holds(store.as_ref(), &[(0, 10), (1, 20)]).await;
    store.write(&rows(0, 20, 25)).await.expect_err("10..20 are forgotten");
    store.write(&rows(0, 10, 18)).await.expect("taken");
    store.write(&rows(1, 20, 22)).await.expect("taken");
    assert_eq!(store.commit(SOURCE).await.expect("commits"), at(&[(0, 18), (1, 22)]));
    assert_holds(store.as_ref(), &[(0, 18), (1, 22)]).await;
    drop(store);
    let store = place.open().await;
    assert_eq!(store.resume(SOURCE, &[1]).await.expect("resumed"), at(&[(1, 22)]));
    assert_holds(store.as_ref(), &[(0, 18), (1, 22)]).await;
}

pub(super) async fn handed_over(place: Arc<dyn Place>) {
    let (one, other) = (place.open_shared().await, place.open_shared().await);
    for partition in 0..2 {
        one.write(&rows(partition, 0, 10)).await.expect("taken");
    }
    one.commit(SOURCE).await.expect("commits");
    one.write(&rows(0, 10, 20)).await.expect("taken");
    one.write(&rows(1, 10, 12)).await.expect("taken");
    assert_eq!(other.resume(SOURCE, &[0]).await.expect("resumed"), at(&[(0, 10)]));
    other.write(&rows(0, 10, 30)).await.expect("taken");
    assert_holds(other.as_ref(), &[(0, 30), (1, 10)]).await;
    assert_eq!(other.commit(SOURCE).await.expect("commits"), at(&[(0, 30), (1, 10)]));
    assert_holds(one.as_ref(), &[(0, 30), (1, 12)]).await;
    one.write(&rows(0, 20, 25)).await.expect("what it has no right to is no error");
    assert_holds(one.as_ref(), &[(0, 30), (1, 12)]).await;
    assert_eq!(one.commit(SOURCE).await.expect("nor here"), at(&[(0, 30), (1, 12)]));
    for store in [&one, &other] {
        assert_eq!(store.committed(SOURCE).await.expect("readable"), at(&[(0, 30), (1, 12)]));
        assert_holds(store.as_ref(), &[(0, 30), (1, 12)]).await;
    }
    // The zombie is first: the new owner's rows give way.
    other.write(&rows(0, 30, 50)).await.expect("taken");
    one.write(&rows(0, 25, 40)).await.expect("taken");
    assert_eq!(one.commit(SOURCE).await.expect("commits").of(0), 40);
    assert_eq!(other.commit(SOURCE).await.expect("commits").of(0), 50);
    assert_eq!(one.resume(SOURCE, &[0]).await.expect("resumed"), at(&[(0, 50)]));
    assert_holds(one.as_ref(), &[(0, 50), (1, 12)]).await;
}

pub(super) async fn ledger(place: Arc<dyn Place>) {
    let (one, other) = (place.open_shared().await, place.open_shared().await);
    let range = |from, to| OffsetRange { partition: 0, from, to };
    let lines: Vec<_> = (0..10).map(line).collect();
    one.commit_coverage(range(0, 4), &lines[..4]).await.expect("commits");
    assert_eq!(other.coverage_committed().await.expect("readable"), at(&[(0, 4)]));
    let (first, second) = futures::join!(
        one.commit_coverage(range(4, 10), &lines[4..]),
        other.commit_coverage(range(2, 8), &lines[2..8])
    );
    first.and(second).expect("both commit");
    for store in [&one, &other] {
        assert_eq!(store.coverage_committed().await.expect("readable"), at(&[(0, 10)]));
        for count in ["count(*)", "count(DISTINCT _offset)"] {
            assert_eq!(number(store.as_ref(), &format!("SELECT {count} FROM ops.coverage")).await, 10);
        }
    }
}
