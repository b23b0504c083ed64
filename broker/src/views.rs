//! The schedule of views: each stored result is brought up to date as often as its file says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cold_store::{ViewEngine, ViewRun};
use contract::{Clock, Remedy, Result, SystemClock, Views, metric};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::broker::Broker;

/// Between two looks at the folder of views.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// How often a run is tried before the next one that is due.
const ATTEMPTS_MAX: u32 = 5;

/// The wait after a first failure; twice as long after each further one.
const RETRY_WAIT: Duration = Duration::from_secs(10);

/// A view's next run.
#[derive(Clone, Copy)]
struct Due {
    at: Instant,
    /// From 1.
    attempt: u32,
}

/// Runs views when they are due, one after another, until `stop`.
pub(crate) async fn run_scheduled(broker: Arc<Broker>, stop: CancellationToken) {
    let mut due: BTreeMap<String, Due> = BTreeMap::new();
    let mut refused: BTreeMap<String, String> = BTreeMap::new();
    let mut looks = tokio::time::interval(LOOK_INTERVAL);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = looks.tick() => {}
        }
        // Where there are no rows there is nothing to keep, and statements need not be planned, which takes memory.
        if !broker.keeps_views() || !broker.cold.has_rows() {
            continue;
        }
        let views = match broker.cold.views().await {
            Ok(views) => views,
            Err(error) => {
                warn!("no view is run: {error}");
                continue;
            }
        };
        for view in views {
            match view.answers {
                // Told once, until it is another reason.
                Err(reason) if refused.get(&view.name) != Some(&reason) => {
                    warn!(view = view.name, "a view is refused: {reason}");
                    refused.insert(view.name, reason);
                }
                Err(_) => {}
                Ok(_) => {
                    refused.remove(&view.name);
                    let first = || Due {
                        at: first_run(&broker, view.every, view.stored.as_ref().map(|stored| stored.at)),
                        attempt: 1,
                    };
                    let next = *due.entry(view.name.clone()).or_insert_with(first);
                    if next.at > Instant::now() {
                        continue;
                    }
                    let after = tokio::select! {
                        after = run(&broker, &view.name, view.every, next.attempt) => after,
                        () = stop.cancelled() => return,
                    };
                    due.insert(view.name, after);
                }
            }
        }
    }
}

/// A result that was stored before this process began may be due at once; one that never was is due after its time, so that
/// a start is not all about views.
fn first_run(broker: &Broker, every: Duration, stored_at: Option<contract::Timestamp>) -> Instant {
    let age = stored_at.map_or(Duration::ZERO, |at| broker.engines.clock.now().since(at));
    Instant::now() + every.saturating_sub(age)
}

async fn run(broker: &Broker, name: &str, every: Duration, attempt: u32) -> Due {
    let started = Instant::now();
    let ran = broker.cold.run_view(name, false, ViewEngine::Embedded, attempt).await;
    observe(name, &ran, started.elapsed().as_secs_f64());
    match ran {
        Ok(done) => {
            if done.mode == "nothing" {
                debug!(view = name, "nothing changed");
            } else {
                info!(view = name, rows = done.rows, mode = done.mode, "`{name}` was brought up to date");
            }
            Due { at: Instant::now() + every, attempt: 1 }
        }
        Err(error) if attempt < ATTEMPTS_MAX && error.remedy() != Remedy::Change => {
            let wait = RETRY_WAIT * 2_u32.pow(attempt - 1);
            warn!(
                view = name,
                attempt,
                "`{name}` was not brought up to date, next try in {} s: {error}",
                wait.as_secs()
            );
            Due { at: Instant::now() + wait, attempt: attempt + 1 }
        }
        Err(error) => {
            warn!(view = name, attempt, "`{name}` was not brought up to date: {error}");
            Due { at: Instant::now() + every, attempt: 1 }
        }
    }
}

/// Counts a run of a view.
pub(crate) fn observe(name: &str, ran: &Result<ViewRun>, seconds: f64) {
    let outcome = match ran {
        Ok(run) if run.mode == "nothing" => "nothing",
        Ok(_) => "done",
        Err(_) => "failed",
    };
    metric::VIEW_RUNS.add(&[name, outcome], 1);
    metric::VIEW_RUN_SECONDS.observe(&[name], seconds);
    if ran.is_ok() {
        metric::VIEW_LAST_SUCCESS.set(&[name], SystemClock.now().0 as f64 / 1e6);
    }
}
