//! The conformance suite against a real Elasticsearch, which `engines/elasticsearch/start` runs: needs Java and Maven, so it
//! is behind the feature `real-servers`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use contract::conformance::hot_drafts;
use contract::conformance::hot_store::{
    CASES, NOW, RETENTION_DAYS, SCHEMA, SOURCE, Subject, expected, positions, rows, rows_at, stored,
};
use contract::conformance::real_server::RealServer;
use contract::conformance::rounds;
use contract::{Column, HotDrafts, HotStore, Kind, Period, RowSchema, Search, Store};
use reqwest::Method;
use serde_json::json;
use tempfile::TempDir;

use super::client::{Body, Client};
use super::{ElasticsearchSettings, ElasticsearchStore};

/// A server, emptied for each case.
struct Elasticsearch {
    settings: ElasticsearchSettings,
    _server: RealServer,
    _folder: TempDir,
}

impl Elasticsearch {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = RealServer::start("elasticsearch", folder.path());
        let hosts = format!("127.0.0.1:{}", server.port);
        let settings = ElasticsearchSettings { hosts, replicas: 0, ..ElasticsearchSettings::default() };
        Self { settings, _server: server, _folder: folder }
    }

    async fn store(settings: &ElasticsearchSettings) -> Arc<dyn HotStore> {
        Arc::new(ElasticsearchStore::open(settings, &[&SCHEMA], RETENTION_DAYS, Arc::new(|| NOW)).await.unwrap())
    }

    async fn clear(&self) {
        let client = Client::new(&self.settings).unwrap();
        for name in ["made-*", super::CHECKPOINT_INDEX, super::REFUSED_INDEX] {
            let path = format!("{name}/_alias?expand_wildcards=all&ignore_unavailable=true");
            let found = client.ask_json(Method::GET, &path, Body::None, "list").await.unwrap();
            for name in found.as_object().unwrap().keys() {
                client.ask_json(Method::DELETE, name, Body::None, "remove").await.unwrap();
            }
        }
    }
}

#[async_trait]
impl Subject for Elasticsearch {
    async fn open(&self) -> Arc<dyn HotStore> {
        Self::store(&self.settings).await
    }

    async fn open_beside(&self) -> Option<Arc<dyn HotStore>> {
        Some(Self::store(&self.settings).await)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn real_servers_the_store_passes_the_conformance_suite_on_elasticsearch() {
    let server = Elasticsearch::start();
    assert!(CASES.len() > 8);
    for (name, case) in CASES {
        println!("{name}");
        server.clear().await;
        case(&server).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn real_servers_drafts_pass_the_conformance_suite_on_elasticsearch() {
    let server = Elasticsearch::start();
    let settings = server.settings.clone();
    let open = async || {
        let clock = Arc::new(|| NOW);
        let store = ElasticsearchStore::open(&settings, &[&SCHEMA], RETENTION_DAYS, clock).await.unwrap();
        let drafts: Arc<dyn HotDrafts> = Arc::new(store);
        drafts
    };
    hot_drafts::exchange(open).await;
    let store = Elasticsearch::store(&settings).await;
    let client = Client::new(&settings).unwrap();
    let draft = open().await;
    let of_day = rows_at(&[(0, 42..50)], |_| NOW);
    store.write(&of_day).await.unwrap();
    store.commit(SOURCE).await.unwrap();
    let made = draft.draft(SOURCE).await.unwrap();
    made.write(&rows_at(&[(0, 0..50)], |_| NOW)).await.unwrap();
    made.commit(SOURCE).await.unwrap();
    // Without ours, as any client asks: by the alias, by a pattern, and by the name of a day.
    let counted = async |rows: u64| {
        for index in ["made", "made-*", "made-2026.11.22"] {
            let path = format!("{index}/_refresh");
            client.ask_json(Method::POST, &path, Body::None, "refresh").await.unwrap();
            let counted = client.ask_json(Method::GET, &format!("{index}/_count"), Body::None, "count").await.unwrap();
            assert_eq!(counted["count"], rows, "{index}");
        }
    };
    counted(8).await;
    draft.exchange(SOURCE, None).await.unwrap();
    counted(50).await;
    let settings = client.ask_json(Method::GET, "made-2026.11.22/_settings", Body::None, "read").await.unwrap();
    let replicas = settings.as_object().unwrap().values().next().unwrap();
    assert_eq!(replicas["settings"]["index"]["number_of_replicas"], "0", "as the template says: {settings}");
}

#[tokio::test(flavor = "multi_thread")]
async fn real_servers_indices_get_new_columns_in_place_and_one_of_another_type_is_named() {
    static OLDER: RowSchema = RowSchema { source: SOURCE, period: Period::Day, columns: SCHEMA.columns.split_at(5).0 };
    static OTHER: RowSchema = RowSchema {
        source: SOURCE,
        period: Period::Day,
        columns: &[Column { name: "kind", kind: Kind::Integer, search: Search::Exact, doc: "Was a text." }],
    };
    let server = Elasticsearch::start();
    let open = async |schema: &'static RowSchema| {
        let clock = Arc::new(|| NOW);
        ElasticsearchStore::open(&server.settings, &[schema], RETENTION_DAYS, clock).await.unwrap()
    };
    let store = open(&OLDER).await;
    store.write(&rows_at(&[(0, 0..4)], |_| NOW)).await.unwrap();
    store.commit(SOURCE).await.unwrap();
    drop(store);
    let store = open(&SCHEMA).await;
    assert_eq!(store.notes(), [""; 0]);
    store.write(&rows_at(&[(0, 4..8)], |_| NOW)).await.unwrap();
    store.commit(SOURCE).await.unwrap();
    let found = store.count("made", &json!({"query": {"exists": {"field": "created_at"}}})).await.unwrap();
    assert_eq!(found["count"], 4, "of the rows since, in the same index");
    assert_eq!(stored(&store).await.len(), 8);
    drop(store);
    let store = open(&OTHER).await;
    let named = store.notes().iter().any(|note| note.contains("`databroker reprocess made`"));
    assert!(named, "{:?}", store.notes());
}

/// One process expires days again and again while the other one writes them, also those that just went.
#[tokio::test(flavor = "multi_thread")]
async fn real_servers_days_that_one_process_expires_while_another_writes_cost_no_row_that_is_kept() {
    let server = Elasticsearch::start();
    let (writer, janitor) =
        (Elasticsearch::store(&server.settings).await, Elasticsearch::store(&server.settings).await);
    // Of the three days of rows only the last one is kept then.
    let later = NOW.plus(Duration::from_secs(u64::from(RETENTION_DAYS) * 86_400));
    let writing = async {
        for from in (0..1_500).step_by(50) {
            writer.write(&rows(&[(0, from..from + 50)])).await.unwrap();
            writer.commit(SOURCE).await.unwrap();
        }
    };
    let expiring = async {
        let mut removed = 0;
        for _ in 0..15 {
            let cold = writer.committed(SOURCE).await.unwrap();
            removed += janitor.expire(SOURCE, later, &cold).await.unwrap().removed.len();
        }
        removed
    };
    let ((), removed) = futures::join!(writing, expiring);
    assert!(removed > 2, "days went, came back and went again: {removed}");
    let expired = janitor.expire(SOURCE, later, &positions(&[(0, 1_500)])).await.unwrap();
    assert_eq!(expired.waiting, Vec::<String>::new());
    let mut kept = expected(&[&rows(&[(0, 0..1_500)])]);
    kept.retain(|(_, offset), _| offset % 3 == 0);
    assert_eq!(stored(&*writer).await, kept);
    assert_eq!(writer.committed(SOURCE).await.unwrap(), positions(&[(0, 1_500)]));
}

/// How often the server is killed; each costs ten seconds.
const KILLS: u64 = 3;

#[tokio::test(flavor = "multi_thread")]
async fn real_servers_elasticsearch_killed_in_mid_bulk_loses_and_doubles_nothing() {
    let Elasticsearch { settings, _server: mut server, _folder: folder } = Elasticsearch::start();
    let store = Elasticsearch::store(&settings).await;
    let mut at = 0;
    for kill in 0..KILLS {
        let writing = tokio::spawn(write_until_it_fails(store.clone(), at));
        // Another moment each time.
        tokio::time::sleep(Duration::from_millis(150 + kill * 137 % 500)).await;
        let port = server.port;
        drop(server);
        at = writing.await.unwrap();
        let again = folder.path().to_owned();
        let starting = tokio::task::spawn_blocking(move || RealServer::start_at("elasticsearch", &again, port, &[]));
        server = starting.await.unwrap();
    }
    let end = at + 50;
    let written = until_done(async || store.write(&rows(&[(0, at..end)])).await);
    written.await;
    until_done(async || store.commit(SOURCE).await.map(drop)).await;
    assert_eq!(store.committed(SOURCE).await.unwrap(), positions(&[(0, end)]));
    assert_eq!(stored(&*store).await, expected(&[&rows(&[(0, 0..end)])]));
    rounds::note("Elasticsearch killed in mid-bulk", KILLS);
}

/// Writes spans from an offset on, a commit after every third, until one fails; answers where that one starts.
async fn write_until_it_fails(store: Arc<dyn HotStore>, from: i64) -> i64 {
    for number in 0.. {
        let at = from + number * 100;
        let failed = store.write(&rows(&[(0, at..at + 100)])).await.is_err();
        if failed {
            return at;
        }
        if number % 3 == 2 && store.commit(SOURCE).await.is_err() {
            return at + 100;
        }
    }
    unreachable!("a server that is killed fails")
}

async fn until_done(mut attempt: impl AsyncFnMut() -> contract::Result<()>) {
    while let Err(error) = attempt().await {
        assert_eq!(error.remedy(), contract::Remedy::Retry, "{error}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
