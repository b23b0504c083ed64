//! What a server may do to the store: whatever it answers, each row stands once.

use std::sync::Arc;

use contract::conformance::hot_store::{
    NOW, RETENTION_DAYS, SCHEMA, SOURCE, expected, positions, rows, rows_at, stored,
};
use contract::{HotStore, Positions, Remedy, Result, Rows, Store};

use super::lying_server::{LIES, Lie, LyingServer};
use super::{CHECKPOINT_INDEX, ElasticsearchSettings, ElasticsearchStore, REFUSED_INDEX, TemplateState};

async fn open(settings: &ElasticsearchSettings) -> ElasticsearchStore {
    ElasticsearchStore::open(settings, &[&SCHEMA], RETENTION_DAYS, Arc::new(|| NOW)).await.unwrap()
}

/// Writes as the runtime does: until it is done.
async fn write(store: &ElasticsearchStore, rows: &Rows) {
    while let Err(error) = store.write(rows).await {
        assert_eq!(error.remedy(), Remedy::Retry, "{error}");
    }
}

async fn commit(store: &ElasticsearchStore) -> Positions {
    loop {
        match store.commit(SOURCE).await {
            Ok(next) => return next,
            Err(error) => assert_eq!(error.remedy(), Remedy::Retry, "{error}"),
        }
    }
}

/// Numbers without a pattern, from a seed (xorshift).
fn next(seed: &mut u64) -> usize {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    (*seed >> 16) as usize
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_bulk_is_answered_each_row_stands_once() {
    for lie in LIES {
        let server = LyingServer::start().await;
        let store = open(&server.settings()).await;
        server.model().lies = vec![lie, lie];
        write(&store, &rows(&[(0, 0..20), (1, 0..7)])).await;
        assert_eq!(server.model().lies, [], "{lie:?}");
        server.model().lies = vec![lie];
        assert_eq!(commit(&store).await, positions(&[(0, 20), (1, 7)]), "{lie:?}");
        assert_eq!(store.committed(SOURCE).await.unwrap(), positions(&[(0, 20), (1, 7)]), "{lie:?}");
        assert_eq!(stored(&store).await, expected(&[&rows(&[(0, 0..20), (1, 0..7)])]), "{lie:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_row_of_lies_and_restarts_loses_and_doubles_nothing() {
    for seed in 1..=40_u64 {
        let server = LyingServer::start().await;
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut store = open(&server.settings()).await;
        let mut at = 0;
        while at < 60 {
            // Silence costs seconds, so it is tried on its own.
            let lies: Vec<_> = LIES.into_iter().filter(|lie| *lie != Lie::WrittenButSilent).collect();
            server.model().lies = (0..next(&mut random) % 3).map(|_| lies[next(&mut random) % lies.len()]).collect();
            let to = (at + 1 + next(&mut random) as i64 % 12).min(60);
            write(&store, &rows(&[(0, at..to)])).await;
            at = to;
            if next(&mut random).is_multiple_of(3) {
                commit(&store).await;
            }
            if next(&mut random).is_multiple_of(5) {
                server.model().lies.clear();
                store = open(&server.settings()).await;
                at = store.committed(SOURCE).await.unwrap().of(0);
            }
        }
        commit(&store).await;
        assert_eq!(store.committed(SOURCE).await.unwrap(), positions(&[(0, 60)]), "seed {seed}");
        assert_eq!(stored(&store).await, expected(&[&rows(&[(0, 0..60)])]), "seed {seed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_lost_its_place_changes_nothing_when_it_wakes() {
    let server = LyingServer::start().await;
    let (old, new) = (open(&server.settings()).await, open(&server.settings()).await);
    old.write(&rows(&[(0, 0..10)])).await.unwrap();
    new.write(&rows(&[(0, 0..25)])).await.unwrap();
    assert_eq!(new.commit(SOURCE).await.unwrap(), positions(&[(0, 25)]));
    let before: Vec<_> = server.model().documents.iter().map(|(key, (version, _))| (key.clone(), *version)).collect();
    old.write(&rows(&[(0, 10..15)])).await.unwrap();
    old.commit(SOURCE).await.unwrap();
    let after: Vec<_> = server.model().documents.iter().map(|(key, (version, _))| (key.clone(), *version)).collect();
    assert_eq!(after, before);
    assert_eq!(old.committed(SOURCE).await.unwrap(), positions(&[(0, 25)]));
    // Given the place back, it goes on behind the other.
    old.write(&rows(&[(0, 25..30)])).await.unwrap();
    assert_eq!(old.commit(SOURCE).await.unwrap(), positions(&[(0, 30)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_taken_over_begins_at_the_checkpoint_and_a_commit_writes_only_what_moved() {
    let server = LyingServer::start().await;
    let (one, other) = (open(&server.settings()).await, open(&server.settings()).await);
    one.write(&rows(&[(0, 0..10), (1, 0..10)])).await.unwrap();
    one.commit(SOURCE).await.unwrap();
    one.write(&rows(&[(0, 10..20)])).await.unwrap();
    // The other one knows the checkpoint of long ago.
    assert_eq!(other.resume(SOURCE, &[1, 2]).await.unwrap(), positions(&[(1, 10), (2, 0)]));
    one.commit(SOURCE).await.unwrap();
    assert_eq!(other.resume(SOURCE, &[0]).await.unwrap(), positions(&[(0, 20)]));
    other.write(&rows(&[(0, 20..30)])).await.unwrap();
    let marked = |server: &LyingServer| server.model().written_to(CHECKPOINT_INDEX);
    let before = marked(&server);
    other.commit(SOURCE).await.unwrap();
    assert_eq!(marked(&server) - before, 1, "partition 1 has not moved");
    other.commit(SOURCE).await.unwrap();
    assert_eq!(marked(&server) - before, 1);
    // What the first one wrote beyond, and did not commit, is written again; it stands once.
    one.write(&rows(&[(1, 10..15)])).await.unwrap();
    assert_eq!(other.resume(SOURCE, &[1]).await.unwrap(), positions(&[(1, 10)]));
    other.write(&rows(&[(1, 10..13)])).await.unwrap();
    assert_eq!(other.resume(SOURCE, &[1]).await.unwrap(), positions(&[(1, 10)]));
    other.write(&rows(&[(1, 13..18)])).await.expect_err("what was not committed is forgotten");
    other.write(&rows(&[(1, 10..13)])).await.unwrap();
    other.write(&rows(&[(1, 13..18)])).await.unwrap();
    other.commit(SOURCE).await.unwrap();
    one.commit(SOURCE).await.unwrap();
    assert_eq!(one.committed(SOURCE).await.unwrap(), positions(&[(0, 30), (1, 18)]));
    assert_eq!(stored(&one).await, expected(&[&rows(&[(0, 0..30), (1, 0..18)])]));
}

/// Two processes under lies, partitions going to and fro, each one at times a zombie.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_go_to_and_fro_between_processes_under_lies_lose_and_double_nothing() {
    let lies: Vec<_> = LIES.into_iter().filter(|lie| *lie != Lie::WrittenButSilent).collect();
    for seed in 1..=20_u64 {
        let server = LyingServer::start().await;
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let stores = [open(&server.settings()).await, open(&server.settings()).await];
        // Where each process believes to go on, per partition; the other one may have it by now.
        let mut believes = [[Some(0_i64), None], [None, Some(0)]];
        let mut committed = positions(&[]);
        for _ in 0..60 {
            let (process, partition) = (next(&mut random) % 2, next(&mut random) % 2);
            server.model().lies = (0..next(&mut random) % 2).map(|_| lies[next(&mut random) % lies.len()]).collect();
            let store = &stores[process];
            match (next(&mut random) % 6, believes[process][partition]) {
                (0..=2, Some(from)) => {
                    let to = (from + 1 + next(&mut random) as i64 % 9).min(60);
                    write(store, &rows(&[(partition as i32, from..to)])).await;
                    believes[process][partition] = Some(to);
                }
                (3 | 4, _) => drop(commit(store).await),
                (5, _) => {
                    let next = store.resume(SOURCE, &[partition as i32]).await.unwrap();
                    believes[process][partition] = Some(next.of(partition as i32));
                }
                _ => {}
            }
            let now = store.committed(SOURCE).await.unwrap();
            assert!(now.reaches(&committed), "seed {seed}: a position went back: {now:?} {committed:?}");
            committed = now;
        }
        server.model().lies.clear();
        let from = stores[0].resume(SOURCE, &[0, 1]).await.unwrap();
        write(&stores[0], &rows(&[(0, from.of(0)..60), (1, from.of(1)..60)])).await;
        commit(&stores[0]).await;
        commit(&stores[1]).await;
        assert_eq!(stores[1].committed(SOURCE).await.unwrap(), positions(&[(0, 60), (1, 60)]), "seed {seed}");
        assert_eq!(stored(&stores[1]).await, expected(&[&rows(&[(0, 0..60), (1, 0..60)])]), "seed {seed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_refused_for_good_is_kept_whole_with_the_reason_and_written_when_it_is_taken() {
    let server = LyingServer::start().await;
    let store = open(&server.settings()).await;
    server.model().refused.insert("id-0-3".to_owned());
    store.write(&rows(&[(0, 0..10)])).await.unwrap();
    store.commit(SOURCE).await.unwrap();
    let kept = {
        let model = server.model();
        let (_, kept) = &model.documents[&(REFUSED_INDEX.to_owned(), "made-0-3".to_owned())];
        serde_json::from_str::<serde_json::Value>(kept.get()).unwrap()
    };
    assert_eq!(kept["reason"], "document_parsing_exception: odd: why");
    assert_eq!((&kept["index"], &kept["offset"]), (&"made-2026.11.22".into(), &3.into()));
    assert_eq!(store.refused().await.unwrap(), 1);
    assert_eq!(stored(&store).await, expected(&[&rows(&[(0, 0..10)])]));
    // Written again, it stands there once.
    drop(store);
    let store = open(&server.settings()).await;
    server.model().documents.retain(|(index, _), _| index != CHECKPOINT_INDEX);
    store.write(&rows(&[(0, 0..10)])).await.unwrap();
    assert_eq!(store.refused().await.unwrap(), 1);
    server.model().refused.clear();
    store.replace(SOURCE, &rows(&[(0, 3..4)]).silver).await.unwrap();
    assert_eq!(store.refused().await.unwrap(), 0);
    assert_eq!(stored(&store).await, expected(&[&rows(&[(0, 0..10)])]));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_too_large_are_split_and_a_row_that_is_alone_too_large_is_refused() {
    let server = LyingServer::start().await;
    let store = open(&server.settings()).await;
    server.model().bytes_max = 3_000;
    write(&store, &rows(&[(0, 0..200)])).await;
    commit(&store).await;
    assert_eq!(stored(&store).await, expected(&[&rows(&[(0, 0..200)])]));
    let bulks = server.model().bulks.clone();
    assert!(bulks.iter().filter(|&&bytes| bytes > 3_000).count() < 8, "what was too large is learned: {bulks:?}");
    server.model().bytes_max = 400;
    write(&store, &rows_at(&[(0, 200..201)], |_| NOW)).await;
    assert_eq!(store.refused().await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_that_lasts_is_told_to_the_caller_and_makes_requests_smaller() {
    let server = LyingServer::start().await;
    let store = open(&server.settings()).await;
    server.model().lies = vec![Lie::Storm; 6];
    let error = store.write(&rows(&[(0, 0..20)])).await.unwrap_err();
    assert_eq!(error.remedy(), Remedy::Retry);
    assert!(error.to_string().contains("429 es_rejected_execution_exception: queue"), "{error}");
    store.write(&rows(&[(0, 0..20)])).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_away_costs_nothing_while_another_answers() {
    let server = LyingServer::start().await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let away = axum::Router::new().fallback(|| async { axum::http::StatusCode::SERVICE_UNAVAILABLE });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let unwell = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, away).await });
    let hosts = format!("{closed}, {unwell}, {}", server.address);
    let store = open(&ElasticsearchSettings { hosts, ..server.settings() }).await;
    write(&store, &rows(&[(0, 0..20)])).await;
    commit(&store).await;
    assert_eq!(stored(&store).await, expected(&[&rows(&[(0, 0..20)])]));
    let nobody = ElasticsearchSettings { hosts: format!("{closed},{unwell}"), ..server.settings() };
    let refused = opened(&nobody).await.unwrap_err();
    assert_eq!(refused.remedy(), Remedy::Retry, "{refused}");
}

async fn opened(settings: &ElasticsearchSettings) -> Result<()> {
    ElasticsearchStore::open(settings, &[&SCHEMA], RETENTION_DAYS, Arc::new(|| NOW)).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_is_shown_to_the_server_and_to_nobody_else() {
    let server = LyingServer::start().await;
    server.model().authorization = Some("ApiKey c2VjcmV0".to_owned());
    let with = |key: &str| ElasticsearchSettings { api_key: key.to_owned().into(), ..server.settings() };
    opened(&with("c2VjcmV0")).await.unwrap();
    let error = opened(&with("d3Jvbmc")).await.unwrap_err();
    assert_eq!(error.remedy(), Remedy::Change);
    let said = error.to_string();
    assert!(said.contains("401 security_exception: unable to authenticate") && !said.contains("d3Jvbmc"), "{said}");
    // In an address it is taken out.
    server.model().authorization = Some("Basic ZWxhc3RpYzpzZWNyZXQ=".to_owned());
    let hosts = format!("http://elastic:secret@{}", server.address);
    let settings = ElasticsearchSettings { hosts, ..server.settings() };
    opened(&settings).await.unwrap();
    assert!(!settings.hosts_shown().contains("secret"));
    server.model().authorization = Some("another".to_owned());
    let said = opened(&settings).await.unwrap_err().to_string();
    assert!(!said.contains("secret"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lifecycle_policy_is_installed_where_there_are_such_and_stays_as_somebody_changed_it() {
    let server = LyingServer::start().await;
    let store = open(&server.settings()).await;
    let lifecycle = |server: &LyingServer| {
        let model = server.model();
        model.template("databroker-made").pointer("/template/settings/lifecycle/name").cloned()
    };
    assert_eq!((lifecycle(&server), store.templates().await.unwrap().len()), (None, 1), "it has no policies");
    // The cluster is given them later.
    server.model().policies = Some(Default::default());
    let store = open(&server.settings()).await;
    assert_eq!(lifecycle(&server), Some("databroker".into()));
    let current = |name: &str| (name.to_owned(), TemplateState::Current);
    let all = [current("databroker-made"), current("databroker (policy)")];
    assert_eq!(store.templates().await.unwrap(), all);
    let warm = serde_json::json!({"min_age": "2d", "actions": {"forcemerge": {"max_num_segments": 1}}});
    server.model().policies.as_mut().unwrap().get_mut("databroker").unwrap()["phases"]["warm"] = warm.clone();
    let store = open(&server.settings()).await;
    let [note] = store.notes() else { panic!("{:?}", store.notes()) };
    let said = "the lifecycle policy `databroker` was changed and stays so: \
                `phases.warm.actions.forcemerge.max_num_segments` is `1` (ours: nothing), ";
    assert!(note.starts_with(said), "{note}");
    assert_eq!(server.model().policies.as_ref().unwrap()["databroker"]["phases"]["warm"], warm);
    assert_eq!(store.prepare(true).await.unwrap(), Vec::<String>::new());
    assert_eq!(store.templates().await.unwrap(), all);
}
