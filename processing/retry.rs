//! Trying again what may succeed later.

use std::time::Duration;

use contract::{Error, Remedy, Result};
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::Troubles;

/// The longest wait between two tries of a store; a peer that comes back is used within this time.
const BACKOFF_MAX: Duration = Duration::from_secs(30);
const BACKOFF_FIRST: Duration = Duration::from_millis(100);

/// Calls `attempt` until it answers `Ok`, an error that trying again cannot mend, or `stop` is said.
///
/// # Errors
/// The last of `attempt`.
pub async fn until_done<'a, T>(
    what: &str,
    troubles: &Troubles,
    stop: &CancellationToken,
    mut attempt: impl FnMut() -> BoxFuture<'a, Result<T>>,
) -> Result<T> {
    let mut retry = Retry::new(what, troubles, stop);
    loop {
        match attempt().await {
            Ok(value) => {
                retry.succeeded();
                return Ok(value);
            }
            Err(error) => retry.pause(error).await?,
        }
    }
}

/// The same, and none where `stop` ended the tries: a peer that is away then is no failure of what was done before.
///
/// # Errors
/// Those that trying again cannot mend.
pub(crate) async fn until_stopped<'a, T>(
    what: &str,
    troubles: &Troubles,
    stop: &CancellationToken,
    attempt: impl FnMut() -> BoxFuture<'a, Result<T>>,
) -> Result<Option<T>> {
    match until_done(what, troubles, stop, attempt).await {
        Ok(value) => Ok(Some(value)),
        Err(error) if stop.is_cancelled() && error.remedy() == Remedy::Retry => Ok(None),
        Err(error) => Err(error),
    }
}

/// The pauses between tries: 0.1 s and then twice as long each time, up to 30 s, or as long as an error asks.
pub(crate) struct Retry<'a> {
    what: &'a str,
    troubles: &'a Troubles,
    stop: &'a CancellationToken,
    backoff: Duration,
    failures: u64,
    /// The last error. Another one is said at once: where one peer is back, the next may be away.
    last: String,
}

impl<'a> Retry<'a> {
    /// Before the first try of `what`.
    pub(crate) fn new(what: &'a str, troubles: &'a Troubles, stop: &'a CancellationToken) -> Self {
        Self { what, troubles, stop, backoff: BACKOFF_FIRST, failures: 0, last: String::new() }
    }

    /// Says so, and notes it, if there were failures before.
    pub(crate) fn succeeded(&self) {
        if self.failures > 0 {
            self.troubles.clear(self.what);
            info!(failures = self.failures, "`{}` works again", self.what);
        }
    }

    /// Waits until it is time to try again; gives the error back if that cannot help or `stop` is said.
    pub(crate) async fn pause(&mut self, error: Error) -> Result<()> {
        let Some(wait) = wait_for(&error, self.backoff) else { return Err(error) };
        self.failures += 1;
        self.troubles.note(self.what, &error);
        let is_other = std::mem::replace(&mut self.last, error.to_string()) != self.last;
        if is_other || self.failures.is_power_of_two() {
            warn!(
                failures = self.failures,
                wait_ms = wait.as_millis() as u64,
                "`{}`: {error}; trying again",
                self.what
            );
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => self.backoff = (self.backoff * 2).min(BACKOFF_MAX),
            () = self.stop.cancelled() => return Err(error),
        }
        Ok(())
    }
}

fn wait_for(error: &Error, backoff: Duration) -> Option<Duration> {
    match error.remedy() {
        Remedy::Retry => Some(backoff),
        Remedy::RetryAfter(wait) => Some(wait),
        Remedy::Change | Remedy::Stop => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_is_away_is_asked_again_and_a_broken_promise_is_not() {
        let mut calls = 0;
        let stop = CancellationToken::new();
        let troubles = Troubles::default();
        let answer = until_done("hot", &troubles, &stop, || {
            calls += 1;
            assert_eq!(troubles.all().len(), usize::from(calls > 1), "a failure is a trouble until it is over");
            let answer = if calls < 5 { Err(Error::retry("reach the store")) } else { Ok(calls) };
            Box::pin(std::future::ready(answer))
        });
        assert_eq!(answer.await.expect("the fifth call succeeds"), 5);
        assert!(troubles.all().is_empty());

        let error =
            until_done("hot", &Troubles::default(), &stop, || Box::pin(async { Err::<(), _>(Error::stop("fsync")) }))
                .await;
        let error = error.expect_err("final");
        assert_eq!(error.remedy(), Remedy::Stop);
    }

    #[tokio::test]
    async fn a_peer_that_is_away_when_all_ends_is_no_failure_and_a_broken_promise_is_one() {
        let (stop, troubles) = (CancellationToken::new(), Troubles::default());
        stop.cancel();
        let away = || -> BoxFuture<'_, Result<()>> { Box::pin(async { Err(Error::retry("read the log")) }) };
        assert_eq!(until_stopped("log", &troubles, &stop, away).await.expect("no failure"), None);
        let broken = || -> BoxFuture<'_, Result<()>> { Box::pin(async { Err(Error::stop("fsync")) }) };
        assert!(until_stopped("log", &troubles, &stop, broken).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn stopping_ends_the_wait() {
        let stop = CancellationToken::new();
        stop.cancel();
        let error = until_done("hot", &Troubles::default(), &stop, || {
            Box::pin(async { Err::<(), _>(Error::retry("reach the store")) })
        })
        .await;
        assert!(error.is_err_and(|error| error.remedy() == Remedy::Retry));
    }
}
