//! The one error between stages: what was being done, why it failed, and the remedy.

use std::fmt;
use std::time::Duration;

/// A result of this crate's traits.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller should do about an error; chosen where the error is understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// The same call may succeed later; the caller chooses the backoff.
    Retry,
    /// The peer said when: not before this long has passed.
    RetryAfter(Duration),
    /// The user must change an input or a setting; trying again cannot help. Exit code 64.
    Change,
    /// A promise is broken or the disk failed; the process must stop. Exit code 70.
    Stop,
}

/// What is wrong with a query, in the terms of databases' clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryFault {
    /// The five letters by which programs tell errors apart.
    /// Source: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
    pub sqlstate: &'static str,
    /// Line and column in the query, in characters, from 1; none where the query as a whole is meant.
    pub place: Option<(u64, u64)>,
}

/// Reads after "failed to": `open log segment `000.log`: permission denied`.
#[derive(Debug)]
pub struct Error {
    doing: String,
    remedy: Remedy,
    cause: Option<Box<dyn std::error::Error + Send + Sync>>,
    fault: Option<QueryFault>,
}

impl Error {
    /// An error while `doing` something ("open source `arxv` (known: github)").
    pub fn new(remedy: Remedy, doing: impl Into<String>) -> Self {
        Self { doing: doing.into(), remedy, cause: None, fault: None }
    }

    /// See [`Remedy::Retry`].
    pub fn retry(doing: impl Into<String>) -> Self {
        Self::new(Remedy::Retry, doing)
    }

    /// See [`Remedy::Change`].
    pub fn change(doing: impl Into<String>) -> Self {
        Self::new(Remedy::Change, doing)
    }

    /// See [`Remedy::Stop`].
    pub fn stop(doing: impl Into<String>) -> Self {
        Self::new(Remedy::Stop, doing)
    }

    /// The same error with what caused it, which is printed after a colon.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// The same error as a client of a database is told it.
    #[must_use]
    pub fn with_fault(mut self, fault: QueryFault) -> Self {
        self.fault = Some(fault);
        self
    }

    /// What is wrong with the query, where a query is what failed.
    pub fn fault(&self) -> Option<QueryFault> {
        self.fault
    }

    /// What the caller should do.
    pub fn remedy(&self) -> Remedy {
        self.remedy
    }
}

/// The text of another library's error with what lies behind it, which its own text leaves out.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "failed to {}", self.doing)?;
        match &self.cause {
            Some(cause) => write!(out, ": {cause}"),
            None => Ok(()),
        }
    }
}

// The cause is part of the message above, so `source` stays empty: nobody prints it twice.
impl std::error::Error for Error {}
