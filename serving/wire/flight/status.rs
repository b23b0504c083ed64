//! Errors as Flight's clients are told them: gRPC's code and message, SQLSTATE and place as metadata.

use contract::{Error, Remedy};
use tonic::{Code, Status};

use crate::statements::CANCELLED;

/// An error of a statement.
pub(crate) fn status(error: &Error) -> Status {
    let fault = error.fault();
    let code = match (error.remedy(), fault.map(|fault| fault.sqlstate)) {
        (_, Some(CANCELLED)) => Code::Cancelled,
        (Remedy::Change, Some("42P01" | "42703")) => Code::NotFound,
        (Remedy::Change, Some("25006")) => Code::PermissionDenied,
        (Remedy::Change, Some("0A000")) => Code::Unimplemented,
        (Remedy::Change, _) => Code::InvalidArgument,
        (Remedy::Retry | Remedy::RetryAfter(_), _) => Code::ResourceExhausted,
        (Remedy::Stop, _) => Code::Internal,
    };
    let mut status = Status::new(code, error.to_string());
    let Some(fault) = fault else { return status };
    let place = fault.place.into_iter().flat_map(|(line, column)| [("x-sql-line", line), ("x-sql-column", column)]);
    let place = place.map(|(name, number)| (name, number.to_string()));
    for (name, value) in [("x-sqlstate", fault.sqlstate.to_owned())].into_iter().chain(place) {
        status.metadata_mut().insert(name, value.parse().expect("letters and digits are a value"));
    }
    status
}

/// A request that is wrong.
pub(crate) fn wrong(message: impl Into<String>) -> Status {
    Status::invalid_argument(message)
}
