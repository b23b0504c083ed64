//! What another version of the program would have stored, for tests.

use acquisition::Source;
use contract::{CollectorId, Cursor, Harvest, Processor, RawRecord, Topic};
use processing::{CommitPolicy, Flush, Pipeline, Recipe};
use tokio_util::sync::CancellationToken;

use crate::broker::Broker;

/// Logs records, and has both stores take them as `processor` makes rows of them.
pub(super) async fn process_as(
    processor: &'static dyn Processor,
    broker: &Broker,
    source: &'static Source,
    records: Vec<RawRecord>,
) {
    let harvest = Harvest {
        source: source.id,
        collector: CollectorId("github/made".to_owned()),
        records,
        coverage: Vec::new(),
        cursor: Cursor("1".to_owned()),
        poll_again_in: None,
        acknowledge: None,
    };
    broker.engines.log.append(&harvest).await.expect("appended");
    let interval = std::time::Duration::from_millis(10);
    let policy = CommitPolicy { interval, backlog_interval: interval, bytes_max: 1 };
    let recipe = Recipe { schema: source.schema, processor };
    let (engines, stop) = (broker.engines.clone(), CancellationToken::new());
    let pipeline = Pipeline { engines, recipe, hot: policy, cold: policy, batch_bytes_max: 10_000 };
    let mut running = pipeline.start(stop.clone()).await.expect("started");
    let until = broker.engines.log.extent(&Topic::raw(source.id)).await.expect("an extent").end();
    let (done, heard) = tokio::sync::oneshot::channel();
    assert!(running.flusher().send(Flush { until, done }).await.is_ok());
    heard.await.expect("committed");
    stop.cancel();
    running.ended().await.expect("ended");
}
