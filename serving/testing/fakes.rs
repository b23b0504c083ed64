//! Stores and commands that do what their input names.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, Int64Array};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use contract::{
    Boundary, ColdStore, ColdTable, Coverage, Day, Error, Expired, HotStore, IdPlace, IndexSummary, Offset,
    OffsetRange, Partition, Positions, Result, RowStream, Rows, SearchError, SourceId, Store, TableStream, Timestamp,
    ViewAnswer, ViewRequest, ViewSummary, Views, Webhook, WebhookAnswer, WebhookRequest,
};
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};

use crate::{Control, Tail, TailStream, Tailed};

/// Remembers what it was asked. `query.wait` in a search waits for `go_on`.
#[derive(Default)]
pub(super) struct FakeHot {
    pub(super) asked: Mutex<Vec<(String, Value)>>,
    pub(super) waiting: Notify,
    pub(super) go_on: Notify,
}

/// Answers rows `n` as the query says: `SELECT n` three, `late error` some and then an error, `endless`.
#[derive(Default)]
pub(super) struct FakeCold {
    pub(super) dropped: Arc<Notify>,
}

/// `status`, `count`, `fail`, `panic` and `hang`, which ends when nobody listens any more.
#[derive(Default)]
pub(super) struct FakeControl {
    pub(super) hanging: Notify,
    pub(super) left: Notify,
    pub(super) has_left: AtomicBool,
}

/// Bytes that the webhook takes.
pub(super) const WEBHOOK_BYTES_MAX: usize = 4 << 20;

const NOT_SERVED: &str = "no endpoint reaches this";

impl FakeHot {
    pub(super) fn last_asked(&self) -> (String, Value) {
        self.asked.lock().unwrap().last().cloned().expect("it was asked")
    }

    fn note(&self, indices: &str, request: &Value) -> Result<(), SearchError> {
        self.asked.lock().unwrap().push((indices.to_owned(), request.clone()));
        match indices.split(',').find(|name| *name == "missing") {
            Some(name) => Err(SearchError {
                status: 404,
                kind: "index_not_found_exception",
                reason: format!("no such index [{name}]"),
            }),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Store for FakeHot {
    fn name(&self) -> &'static str {
        "hot"
    }
    async fn write(&self, _: &Rows) -> Result<()> {
        unreachable!("{NOT_SERVED}")
    }
    async fn commit(&self, _: SourceId) -> Result<Positions> {
        unreachable!("{NOT_SERVED}")
    }
    async fn committed(&self, _: SourceId) -> Result<Positions> {
        unreachable!("{NOT_SERVED}")
    }
    async fn resume(&self, _: SourceId, _: &[Partition]) -> Result<Positions> {
        unreachable!("{NOT_SERVED}")
    }
}

#[async_trait]
impl HotStore for FakeHot {
    async fn search(&self, indices: &str, request: &Value) -> Result<Value, SearchError> {
        self.note(indices, request)?;
        if request["query"]["wait"] == true {
            self.waiting.notify_one();
            self.go_on.notified().await;
        }
        if request["query"]["broken"] == true {
            return Err(SearchError { status: 500, kind: "io_exception", reason: "the disk is gone".to_owned() });
        }
        let hit = json!({"_index": "github-2026.11.22", "_id": "1", "_score": 1.0, "_source": {"type": "PushEvent"}});
        let hits = if request["query"]["ids"]["values"][0] == "nothing" { json!([]) } else { json!([hit]) };
        let total = json!({"value": hits.as_array().map(Vec::len), "relation": "eq"});
        let shards = json!({"total": 1, "successful": 1, "skipped": 0, "failed": 0});
        let hits = json!({"total": total, "max_score": 1.0, "hits": hits});
        Ok(json!({"took": 1, "timed_out": false, "_shards": shards, "hits": hits}))
    }
    async fn count(&self, indices: &str, request: &Value) -> Result<Value, SearchError> {
        self.note(indices, request)?;
        Ok(json!({"count": 7, "_shards": {"total": 1, "successful": 1, "skipped": 0, "failed": 0}}))
    }
    async fn mapping(&self, indices: &str) -> Result<Value, SearchError> {
        self.note(indices, &Value::Null)?;
        Ok(json!({"github-2026.11.22": {"mappings": {"properties": {"type": {"type": "keyword"}}}}}))
    }
    async fn indices(&self, pattern: &str) -> Result<Vec<IndexSummary>, SearchError> {
        let index =
            |day: u64| IndexSummary { name: format!("github-2026.11.{day}"), rows: 40 - day, bytes: 1_500 * day };
        match pattern {
            "missing" | "none-*" => Ok(Vec::new()),
            _ => Ok(vec![index(21), index(22)]),
        }
    }
    fn first_day(&self, _: Timestamp) -> Option<Day> {
        unreachable!("{NOT_SERVED}")
    }
    async fn expire(&self, _: SourceId, _: Timestamp, _: &Positions) -> Result<Expired> {
        unreachable!("{NOT_SERVED}")
    }
    async fn rows(&self, _: SourceId) -> Result<RowStream> {
        unreachable!("{NOT_SERVED}")
    }
    async fn replace(&self, _: SourceId, _: &RecordBatch) -> Result<()> {
        unreachable!("{NOT_SERVED}")
    }
    async fn remove(&self, _: SourceId, _: &[(Partition, Offset)]) -> Result<()> {
        unreachable!("{NOT_SERVED}")
    }
}

#[async_trait]
impl Store for FakeCold {
    fn name(&self) -> &'static str {
        "cold"
    }
    async fn write(&self, _: &Rows) -> Result<()> {
        unreachable!("{NOT_SERVED}")
    }
    async fn commit(&self, _: SourceId) -> Result<Positions> {
        unreachable!("{NOT_SERVED}")
    }
    async fn committed(&self, _: SourceId) -> Result<Positions> {
        unreachable!("{NOT_SERVED}")
    }
    async fn resume(&self, _: SourceId, _: &[Partition]) -> Result<Positions> {
        unreachable!("{NOT_SERVED}")
    }
}

/// Tells when the rows of a query are let go.
struct TellsDrop(Arc<Notify>);

impl Drop for TellsDrop {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

fn numbers(range: std::ops::Range<i64>) -> RecordBatch {
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(range));
    RecordBatch::try_from_iter([("n", column)]).expect("one column")
}

#[async_trait]
impl ColdStore for FakeCold {
    async fn ids(&self, _: SourceId, _: Day) -> Result<TableStream> {
        unreachable!("{NOT_SERVED}")
    }
    async fn find_ids(&self, _: SourceId, _: Day, _: &[&str]) -> Result<Vec<IdPlace>> {
        unreachable!("{NOT_SERVED}")
    }
    async fn rows_at(&self, _: SourceId, _: &[OffsetRange]) -> Result<Vec<(Partition, Offset)>> {
        unreachable!("{NOT_SERVED}")
    }
    async fn sql(&self, query: &str) -> Result<TableStream> {
        let batches: Vec<Result<RecordBatch>> = match query {
            "SELECT n" => vec![Ok(numbers(0..2)), Ok(numbers(2..3))],
            "none" => vec![],
            "early error" => vec![Err(Error::retry("read `silver.github`").because("the memory limit is reached"))],
            "late error" => vec![Ok(numbers(0..2)), Err(Error::stop("read `silver.github`").because("a bad page"))],
            "endless" => vec![],
            other => return Err(Error::change(format!("plan `{other}`"))),
        };
        let schema = numbers(0..0).schema();
        if query == "endless" {
            let told = TellsDrop(Arc::clone(&self.dropped));
            let batches = futures::stream::repeat_with(move || {
                let _held = &told;
                Ok(numbers(0..8_192))
            });
            return Ok(TableStream { schema, batches: batches.boxed() });
        }
        Ok(TableStream { schema, batches: futures::stream::iter(batches).boxed() })
    }
    async fn commit_coverage(&self, _: OffsetRange, _: &[(Offset, Coverage)]) -> Result<()> {
        unreachable!("{NOT_SERVED}")
    }
    async fn coverage_committed(&self) -> Result<Positions> {
        unreachable!("{NOT_SERVED}")
    }
    async fn mend(&self, _: SourceId, _: ColdTable, _: &[(Partition, Offset)], _: Option<&RecordBatch>) -> Result<()> {
        unreachable!("{NOT_SERVED}")
    }
    async fn maintain(&self) -> Result<Vec<String>> {
        unreachable!("{NOT_SERVED}")
    }
}

/// A view's answer is that of the query of its name; its `batch_at` is the `from` that was asked.
#[async_trait]
impl Views for FakeCold {
    async fn views(&self) -> Result<Vec<ViewSummary>> {
        let view = |name: &str, answers| ViewSummary {
            name: name.to_owned(),
            place: "shipped".to_owned(),
            answers,
            every: std::time::Duration::from_secs(600),
            stored: None,
        };
        Ok(vec![view("bad", Err("no statement".to_owned())), view("good", Ok("how many".to_owned()))])
    }
    async fn view(&self, name: &str, request: &ViewRequest) -> Result<ViewAnswer> {
        let boundary = Boundary { batch_at: request.from, sources: Vec::new() };
        Ok(ViewAnswer { boundary, table: self.sql(name).await? })
    }
}

#[async_trait]
impl Control for FakeControl {
    async fn run(&self, command: &str, arguments: Value, progress: mpsc::Sender<Value>) -> Result<Value> {
        match command {
            "status" => Ok(json!({"running": true, "arguments": arguments})),
            "count" => {
                for number in 0..arguments["to"].as_u64().unwrap_or(0) {
                    progress.send(json!(number)).await.expect("the asker listens");
                }
                Ok(json!({"counted": arguments["to"]}))
            }
            "panic" => panic!("a defect"),
            "hang" => {
                progress.send(json!("hanging")).await.expect("the asker listens");
                self.hanging.notify_one();
                progress.closed().await;
                self.has_left.store(true, Ordering::SeqCst);
                self.left.notify_one();
                Ok(Value::Null)
            }
            other => Err(Error::change(format!("run `{other}` (known: status)"))),
        }
    }
}

/// Follows `made`: two rows, and then one that waits; `filter` is said back.
#[derive(Default)]
pub(super) struct FakeTail;

#[async_trait]
impl Tail for FakeTail {
    async fn begin(&self, source: &str, filter: Option<&str>, after: Option<&str>) -> Result<TailStream> {
        if source == "unknown" {
            return Err(Error::change("open source `unknown` (known: made)"));
        }
        let row = json!({"filter": filter, "after": after}).to_string();
        let told =
            [Ok(Tailed { id: "0:1".to_owned(), row: Some(row) }), Ok(Tailed { id: "0:2".to_owned(), row: None })];
        Ok(Box::pin(futures::stream::iter(told)))
    }
}

/// Says what it was sent. `x-said: forged` is refused by its head, `x-said: wait` waits for `go_on`.
#[derive(Default)]
pub(super) struct FakeWebhook {
    pub(super) waiting: Notify,
    pub(super) go_on: Notify,
}

#[async_trait]
impl Webhook for FakeWebhook {
    fn path(&self) -> &'static str {
        "made"
    }

    fn admit(&self, head: &WebhookRequest) -> std::result::Result<usize, WebhookAnswer> {
        assert!(head.body.is_empty());
        match head.header("x-said") {
            Some("forged") => Err(WebhookAnswer { status: 401, body: "no sender".to_owned() }),
            _ => Ok(WEBHOOK_BYTES_MAX),
        }
    }

    async fn receive(&self, request: WebhookRequest) -> WebhookAnswer {
        let said = request.header("x-said").unwrap_or("nothing");
        if said == "wait" {
            self.waiting.notify_one();
            self.go_on.notified().await;
        }
        let asked = request.query("hub.mode").unwrap_or("nothing");
        let body = format!("{} `{}` {said} {asked} {}", request.method, request.path, request.body.len());
        WebhookAnswer { status: 202, body }
    }
}
