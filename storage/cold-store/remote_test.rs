//! The tables in an object store whose answers get lost.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use contract::conformance::cold_store::{CASES, Place as Ground, SCHEMA, SOURCE, number, rows};
use contract::{ColdDrafts, ColdStore, Remedy, Result, Store, SystemClock};
use deltalake::Path;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use tempfile::TempDir;
use url::Url;

use crate::access::Access;
use crate::exchange_test::{anew, later};
use crate::place::Place;
use crate::{DeltaStore, Settings};

/// An object store that fails at times, as requests over a network do.
#[derive(Debug, Default)]
struct Failing {
    inner: InMemory,
    requests: AtomicU64,
    /// Every so many requests one fails; 0 for none.
    one_in: AtomicU64,
}

/// What becomes of a request.
#[derive(PartialEq, Eq)]
enum Fate {
    Answered,
    /// It does not arrive.
    Lost,
    /// It is done, and the answer does not arrive.
    Unanswered,
    /// It is done, the answer does not arrive, and the client asks again by itself.
    AskedAgain,
}

impl Failing {
    fn fate(&self) -> Fate {
        let one_in = self.one_in.load(Ordering::Relaxed);
        let asked = self.requests.fetch_add(1, Ordering::Relaxed);
        // SplitMix64: no pattern that the order of requests could hit.
        let mut random = (asked + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        random = (random ^ (random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        random = (random ^ (random >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 33;
        if one_in == 0 || !random.is_multiple_of(one_in) {
            return Fate::Answered;
        }
        match random / one_in % 3 {
            0 => Fate::Lost,
            1 => Fate::Unanswered,
            _ => Fate::AskedAgain,
        }
    }

    fn check(&self) -> object_store::Result<()> {
        if self.fate() == Fate::Lost { Err(timeout()) } else { Ok(()) }
    }
}

fn timeout() -> object_store::Error {
    object_store::Error::Generic { store: "S3", source: "the request timed out".into() }
}

impl std::fmt::Display for Failing {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("failing")
    }
}

#[async_trait]
impl ObjectStore for Failing {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        let fate = self.fate();
        if fate == Fate::Lost {
            return Err(timeout());
        }
        let again = options.clone();
        let done = self.inner.put_opts(location, payload.clone(), options).await;
        match fate {
            Fate::Unanswered => Err(timeout()),
            Fate::AskedAgain if again.mode == PutMode::Create => self.inner.put_opts(location, payload, again).await,
            _ => done,
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.check()?;
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.check()?;
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> object_store::Result<Vec<bytes::Bytes>> {
        self.check()?;
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.check()?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// A prefix of an object store, and a folder for the files on their way.
struct Prefix {
    store: Arc<Failing>,
    directory: TempDir,
}

impl Prefix {
    fn new() -> Self {
        Self { store: Arc::default(), directory: tempfile::tempdir().unwrap() }
    }

    async fn open_with(&self, is_alone: bool, settings: Settings) -> Result<DeltaStore> {
        let directory = self.directory.path().join(crate::durable::unique_name());
        std::fs::create_dir(&directory).unwrap();
        let (access, spill) = if is_alone {
            Access::alone(&directory)?
        } else {
            let (access, spill, _) = Access::shared(&directory)?;
            (access, spill)
        };
        let place = Place::of_store(self.store.clone(), url(), Some(spill.clone()))?;
        DeltaStore::assemble(place, &[&SCHEMA], settings, Arc::new(SystemClock), access, Some(spill)).await
    }
}

fn url() -> Url {
    Url::parse("s3://lab/some/prefix").unwrap()
}

fn settings() -> Settings {
    Settings { checkpoint_interval_commits: 10, compaction_files_min: 4, ..Settings::default() }
}

#[async_trait]
impl Ground for Prefix {
    async fn open(&self) -> Arc<dyn ColdStore> {
        Arc::new(self.open_with(true, settings()).await.unwrap())
    }

    async fn open_read_only(&self) -> Arc<dyn ColdStore> {
        let place = Place::of_store(self.store.clone(), url(), None).unwrap();
        let clock = Arc::new(SystemClock);
        let store = DeltaStore::assemble(place, &[&SCHEMA], settings(), clock, Access::Read, None).await;
        Arc::new(store.unwrap())
    }

    async fn open_shared(&self) -> Arc<dyn ColdStore> {
        Arc::new(self.open_with(false, settings()).await.unwrap())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_an_object_store_it_passes_the_suite_of_the_contract() {
    for (name, case) in CASES {
        assert!(tokio::spawn(case(Arc::new(Prefix::new()))).await.is_ok(), "{name}");
    }
}

/// Tries until it is done; only what may pass may fail.
async fn persist<T>(mut attempt: impl AsyncFnMut() -> Result<T>) -> T {
    for _ in 0..200 {
        match attempt().await {
            Ok(done) => return done,
            Err(error) => assert_eq!(error.remedy(), Remedy::Retry, "{error}"),
        }
    }
    panic!("it failed 200 times")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_and_answers_that_get_lost_cost_no_row_and_double_none() {
    for one_in in [12, 17, 23, 31] {
        let prefix = Prefix::new();
        let store = prefix.open_with(false, settings()).await.unwrap();
        prefix.store.one_in.store(one_in, Ordering::Relaxed);
        let end = 40 * 15;
        for commit in 0..40 {
            persist(async || store.write(&rows(0, commit * 15, commit * 15 + 15)).await).await;
            let next = persist(async || store.commit(SOURCE).await).await;
            assert_eq!(next.of(0), commit * 15 + 15);
            if commit % 10 == 9 {
                persist(async || store.maintain().await).await;
            }
        }
        prefix.store.one_in.store(0, Ordering::Relaxed);
        for store in [store, prefix.open_with(false, settings()).await.unwrap()] {
            assert_eq!(store.committed(SOURCE).await.unwrap().of(0), end);
            let both = "(SELECT _offset FROM silver.github UNION ALL SELECT _offset FROM ops.dead_letters)";
            for table in ["bronze.github", both] {
                for count in ["count(*)", "count(DISTINCT _offset)"] {
                    let found = number(&store, &format!("SELECT {count} FROM {table} WHERE _offset >= 0")).await;
                    assert_eq!(found, end, "{count} of {table}, one in {one_in}");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_does_not_answer_is_worth_trying_again_and_a_refusal_is_not() {
    let prefix = Prefix::new();
    let store = prefix.open_with(true, settings()).await.unwrap();
    store.write(&rows(0, 0, 20)).await.unwrap();
    store.commit(SOURCE).await.unwrap();
    let refused = object_store::Error::PermissionDenied { path: "x".into(), source: "no".into() };
    assert_eq!(crate::place::failed("try".into(), refused).remedy(), Remedy::Change);
    // From now on each request fails, a third of them before they arrive.
    prefix.store.one_in.store(1, Ordering::Relaxed);
    let asked =
        async || -> Result<Vec<_>> { store.sql("SELECT body FROM bronze.github").await?.batches.try_collect().await };
    let (mut lost, before) = (0, prefix.store.requests.load(Ordering::Relaxed));
    for _ in 0..20 {
        if let Err(error) = asked().await {
            assert_eq!(error.remedy(), Remedy::Retry, "{error}");
            lost += 1;
        }
    }
    assert!(lost > 0, "of {} requests some were lost", prefix.store.requests.load(Ordering::Relaxed) - before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_larger_than_one_part_is_put_in_parts_and_read_back() {
    let prefix = Prefix::new();
    let directory = tempfile::tempdir().unwrap();
    let place = Place::of_store(prefix.store.clone(), url(), Some(directory.path().to_owned())).unwrap();
    let draft = place.draft("silver/github/large.parquet").unwrap();
    let content: Vec<u8> = (0..20_000_000_u32).map(|at| (at / 1_000) as u8).collect();
    std::fs::write(&draft, &content).unwrap();
    let putting = place.clone();
    let put = tokio::task::spawn_blocking(move || putting.publish(&draft, "silver/github/large.parquet"));
    put.await.unwrap().unwrap();
    let found = prefix.store.get_opts(&place.location("silver/github/large.parquet"), GetOptions::default()).await;
    assert!(found.unwrap().bytes().await.unwrap() == content);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_and_answers_that_get_lost_in_an_exchange_leave_one_of_both_and_never_a_part() {
    for one_in in [4, 6, 9] {
        let prefix = Prefix::new();
        let store = prefix.open_with(true, settings()).await.unwrap();
        store.write(&rows(0, 0, 60)).await.unwrap();
        store.commit(SOURCE).await.unwrap();
        prefix.store.one_in.store(one_in, Ordering::Relaxed);
        let draft = persist(async || store.begin_draft(SOURCE, &anew(None)).await).await;
        persist(async || draft.store.write(&later(0, 60)).await).await;
        persist(async || draft.store.commit(SOURCE).await).await;
        persist(async || store.exchange(SOURCE, &store.hold().await).await).await;
        persist(async || store.end_draft(SOURCE).await).await;
        let back = persist(async || store.begin_draft_of_previous(SOURCE, "test").await).await;
        persist(async || store.exchange(SOURCE, &store.hold().await).await).await;
        persist(async || store.end_draft(SOURCE).await).await;
        prefix.store.one_in.store(0, Ordering::Relaxed);
        drop(back);
        let count =
            async |filter: &str| number(&store, &format!("SELECT count(*) FROM silver.github WHERE {filter}")).await;
        assert_eq!([count("type = 'LaterEvent'").await, count("true").await], [0, 54], "one in {one_in} is lost");
        assert_eq!(store.previous(SOURCE).await.unwrap().map(|previous| previous.since), Some(None));
        assert_eq!(store.committed(SOURCE).await.unwrap().of(0), 60);
    }
}
