//! What `up` and the roles have in common: opening, and what they answer over HTTP.

use std::path::Path;
use std::sync::Arc;

use contract::Webhook;
use monitoring::{Health, Metrics, State};
use processing::Troubles;
use serving::Services;
use tokio_util::sync::CancellationToken;

use super::Control;
use crate::broker::{Access, Broker};
use crate::settings::Settings;
use crate::tail::LogTail;

/// Opens the engines. A Kafka or an Elasticsearch that is away is waited for with a warning, until `give_up`: after a power cut
/// all start at the same time. Nothing answers here until then, so that the process is not ready.
pub(crate) async fn open(
    settings: &Settings,
    data: &Path,
    access: Access,
    give_up: &CancellationToken,
) -> contract::Result<Arc<Broker>> {
    let troubles = Troubles::default();
    let opened =
        processing::until_done("engines", &troubles, give_up, || Box::pin(Broker::open(settings, data, access)));
    opened.await.map(Arc::new)
}

/// What is served over HTTP.
pub(crate) fn services(
    broker: &Arc<Broker>,
    control: Arc<Control>,
    webhooks: Vec<Arc<dyn Webhook>>,
    metrics: Metrics,
    health: &Arc<Health>,
    stop: &CancellationToken,
) -> Services {
    let (health, troubles) = (health.clone(), broker.engines.troubles.clone());
    let known = std::sync::Mutex::new(std::collections::BTreeSet::new());
    let ready = move || {
        // What is being tried again degrades; what works again is ready.
        let mut present = troubles.all();
        // Of many feeds some always fail: that is for the log and the metrics.
        present.retain(|part, _| !part.contains("/feed/"));
        let mut known = known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        known.extend(present.keys().cloned());
        for part in known.iter() {
            health.set(part, present.get(part).map_or(State::Ready, |reason| State::Degraded(reason.clone())));
        }
        health.ready()
    };
    Services {
        hot: broker.engines.hot.clone(),
        cold: broker.engines.cold.clone(),
        views: broker.cold.clone(),
        clock: broker.engines.clock.clone(),
        control,
        tail: Arc::new(LogTail { log: broker.engines.log.clone(), stop: stop.clone() }),
        webhooks,
        metrics: Arc::new(move || metrics.render()),
        health: Arc::new(ready),
    }
}
