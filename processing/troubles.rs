//! What does not work at the moment and is being tried again.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use contract::Error;

/// The present troubles by name: `github hot`, `github/events/public`. Shared by all that try again.
#[derive(Debug, Default)]
pub struct Troubles(Mutex<BTreeMap<String, String>>);

impl Troubles {
    /// Notes that `what` fails; the latest reason stays.
    pub fn note(&self, what: &str, error: &Error) {
        self.lock().insert(what.to_owned(), error.to_string());
    }

    /// Notes that `what` works.
    pub fn clear(&self, what: &str) {
        self.lock().remove(what);
    }

    /// All of them, with their reasons.
    pub fn all(&self) -> BTreeMap<String, String> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, String>> {
        // A map of texts is whole after a panic elsewhere.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
