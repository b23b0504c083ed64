//! Errors as PostgreSQL's clients are told them.
//! Source: <https://www.postgresql.org/docs/16/protocol-error-fields.html>.

use contract::{Error, Remedy};
use datafusion_postgres::pgwire::error::{ErrorInfo, PgWireError};

/// An error with its SQLSTATE and, where `query` is the text that its place is in, the place.
pub(crate) fn failure(error: &Error, query: &str) -> PgWireError {
    let fault = error.fault();
    let sqlstate = fault.map_or_else(|| without_fault(error.remedy()), |fault| fault.sqlstate);
    let message = error.to_string();
    let message = message.strip_prefix("failed to answer the query: ").unwrap_or(&message);
    let mut info = ErrorInfo::new("ERROR".to_owned(), sqlstate.to_owned(), message.to_owned());
    info.position = fault.and_then(|fault| position(query, fault.place?)).map(|position| position.to_string());
    PgWireError::UserError(Box::new(info))
}

/// An error of a client, with its SQLSTATE.
pub(crate) fn wrong(sqlstate: &str, message: impl Into<String>) -> PgWireError {
    PgWireError::UserError(Box::new(ErrorInfo::new("ERROR".to_owned(), sqlstate.to_owned(), message.into())))
}

/// An error after which the connection is closed.
pub(crate) fn fatal(sqlstate: &str, message: impl Into<String>) -> PgWireError {
    PgWireError::UserError(Box::new(ErrorInfo::new("FATAL".to_owned(), sqlstate.to_owned(), message.into())))
}

fn without_fault(remedy: Remedy) -> &'static str {
    match remedy {
        Remedy::Change => "42000",
        Remedy::Retry | Remedy::RetryAfter(_) => "57P03",
        Remedy::Stop => "XX000",
    }
}

/// The place as PostgreSQL counts: characters of the whole text, from 1.
fn position(query: &str, (line, column): (u64, u64)) -> Option<usize> {
    let (line, column) = (usize::try_from(line).ok()?, usize::try_from(column).ok()?);
    let before: usize = query.split('\n').take(line.checked_sub(1)?).map(|line| line.chars().count() + 1).sum();
    let position = before + column;
    (position <= query.chars().count() + 1).then_some(position)
}

#[cfg(test)]
mod tests {
    use contract::QueryFault;

    use super::*;

    #[test]
    fn a_place_is_counted_in_characters_of_the_whole_text() {
        assert_eq!(position("SELECT é,\n x", (2, 2)), Some(12));
        assert_eq!(position("SELECT", (1, 1)), Some(1));
        assert_eq!(position("SELECT", (7, 1)), None);
        assert_eq!(position("SELECT", (0, 0)), None);
    }

    #[test]
    fn an_error_carries_its_sqlstate_and_place() {
        let fault = QueryFault { sqlstate: "42703", place: Some((1, 8)) };
        let error = Error::change("answer the query: no column `x`").with_fault(fault);
        let PgWireError::UserError(info) = failure(&error, "SELECT x") else { panic!("an error of the user") };
        assert_eq!((info.code.as_str(), info.position.as_deref()), ("42703", Some("8")));
        assert_eq!(info.message, "no column `x`");
    }
}
