//! Whether the process does what it should, part by part.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

/// How a part of the process is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It works.
    Ready,
    /// It works in part or late, and why: `the log is full`.
    Degraded(String),
    /// It does not work, and why; the process cannot serve.
    Failed(String),
}

/// The state of all parts. Cheap to clone; all clones are one.
///
/// | parts | `status` | ready |
/// | --- | --- | --- |
/// | none was named yet | `starting` | no |
/// | all are ready | `ready` | yes |
/// | one is degraded | `degraded` | yes: to take the process away would make it worse |
/// | one has failed | `failed` | no |
#[derive(Clone, Debug, Default)]
pub struct Health {
    parts: Arc<Mutex<BTreeMap<String, State>>>,
}

impl Health {
    /// Of no parts yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how `part` (`log`, `hot`, `collector github/events`) is from now on.
    pub fn set(&self, part: &str, state: State) {
        let before = self.lock().insert(part.to_owned(), state.clone());
        if before.as_ref() == Some(&state) {
            return;
        }
        match state {
            State::Ready if before.is_none() => tracing::debug!(part, "`{part}` is ready"),
            State::Ready => tracing::info!(part, "`{part}` is ready again"),
            State::Degraded(reason) => tracing::warn!(part, reason, "`{part}` is degraded: {reason}"),
            State::Failed(reason) => tracing::error!(part, reason, "`{part}` has failed: {reason}"),
        }
    }

    /// The answer of `/health/ready`: whether requests should come here, and
    /// `{"status":"degraded","parts":{"log":{"status":"degraded","reason":"…"},"hot":{"status":"ready"}}}`.
    pub fn ready(&self) -> (bool, Value) {
        let parts = self.lock();
        let has_failed = parts.values().any(|state| matches!(state, State::Failed(_)));
        let is_degraded = parts.values().any(|state| matches!(state, State::Degraded(_)));
        let status = match (parts.is_empty(), has_failed, is_degraded) {
            (true, ..) => "starting",
            (_, true, _) => "failed",
            (_, _, true) => "degraded",
            _ => "ready",
        };
        let described: serde_json::Map<_, _> = parts.iter().map(|(part, state)| (part.clone(), state.json())).collect();
        (!parts.is_empty() && !has_failed, json!({"status": status, "parts": described}))
    }

    /// A panic elsewhere leaves the map whole, since each change is one insertion.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, State>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn json(&self) -> Value {
        match self {
            Self::Ready => json!({"status": "ready"}),
            Self::Degraded(reason) => json!({"status": "degraded", "reason": reason}),
            Self::Failed(reason) => json!({"status": "failed", "reason": reason}),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_not_ready_before_its_first_part() {
        assert_eq!(Health::new().ready(), (false, json!({"status": "starting", "parts": {}})));
    }

    #[test]
    fn a_degraded_part_is_named_with_its_reason_and_does_not_stop_the_rest() {
        let health = Health::new();
        health.set("hot", State::Ready);
        health.clone().set("log", State::Degraded("the disk cap is reached".to_owned()));
        let (ready, answer) = health.ready();
        assert!(ready);
        assert_eq!(answer["status"], "degraded");
        assert_eq!(answer["parts"]["log"], json!({"status": "degraded", "reason": "the disk cap is reached"}));
        assert_eq!(answer["parts"]["hot"], json!({"status": "ready"}));
    }

    #[test]
    fn a_failed_part_outweighs_a_degraded_one_until_it_is_well() {
        let health = Health::new();
        health.set("cold", State::Failed("no space".to_owned()));
        health.set("log", State::Degraded("late".to_owned()));
        assert!(!health.ready().0);
        assert_eq!(health.ready().1["status"], "failed");
        health.set("cold", State::Ready);
        assert_eq!(health.ready().1["status"], "degraded");
        health.set("log", State::Ready);
        let ready = json!({"status": "ready"});
        assert_eq!(health.ready(), (true, json!({"status": "ready", "parts": {"cold": ready, "log": ready}})));
    }
}
