//! From the text of a client to statements, with the places of their words.

use std::sync::LazyLock;

use contract::{Error, QueryFault};
use datafusion::sql::sqlparser::ast::Statement;
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion_postgres::datafusion_pg_catalog::sql::PostgresCompatibilityParser;
use datafusion_postgres::pgwire::error::PgWireResult;

use super::failure::failure;
use super::rewrite::rewrite;

/// Bytes of one message's text; as over HTTP.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// Statements of one message: scripts are longer, but what reads sends few.
const STATEMENTS_MAX: usize = 64;

/// Rewrites what only PostgreSQL understands.
static COMPATIBILITY: LazyLock<PostgresCompatibilityParser> = LazyLock::new(PostgresCompatibilityParser::new);

/// Whether a text asks PostgreSQL's own tables or functions.
pub(crate) fn asks_catalog(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    ["pg_", "information_schema", "::reg"].iter().any(|word| text.contains(word))
}

/// The statements of a text.
///
/// # Errors
/// For what is no SQL, with the place.
pub(crate) fn parse(text: &str) -> PgWireResult<Vec<Statement>> {
    if text.len() > TEXT_BYTES_MAX {
        let doing = format!("answer the query: it has {} bytes, {TEXT_BYTES_MAX} are the most", text.len());
        return Err(failure(&limit(doing), text));
    }
    let parsed = Parser::parse_sql(&PostgreSqlDialect {}, text);
    let statements = match parsed {
        // Whole queries of well-known clients that cannot be answered as they are have a replacement, which has no places.
        _ if asks_catalog(text) => {
            COMPATIBILITY.parse(text).map(|statements| statements.into_iter().map(rewrite).collect())
        }
        // `ABORT`, another name of `ROLLBACK`.
        Err(_) if text.trim_start().to_ascii_uppercase().starts_with("ABORT") => COMPATIBILITY.parse(text),
        parsed => parsed.map(|statements| statements.into_iter().map(|one| COMPATIBILITY.rewrite(one)).collect()),
    };
    let statements = statements.map_err(|error| failure(&syntax(&error), text))?;
    if statements.len() > STATEMENTS_MAX {
        let doing = format!("answer {} statements at a time: {STATEMENTS_MAX} are the most", statements.len());
        return Err(failure(&limit(doing), text));
    }
    Ok(statements)
}

fn limit(doing: String) -> Error {
    Error::change(doing).with_fault(QueryFault { sqlstate: "54000", place: None })
}

fn syntax(error: &ParserError) -> Error {
    let text = match error {
        ParserError::ParserError(text) | ParserError::TokenizerError(text) => text.clone(),
        ParserError::RecursionLimitExceeded => "it is nested too deeply".to_owned(),
    };
    let place = text.rsplit_once("Line: ").and_then(|(_, place)| place.split_once(", Column: "));
    let place = place.and_then(|(line, column)| Some((line.parse().ok()?, column.trim().parse().ok()?)));
    Error::change(format!("answer the query: {text}")).with_fault(QueryFault { sqlstate: "42601", place })
}

#[cfg(test)]
mod tests {
    use datafusion_postgres::pgwire::error::PgWireError;

    use super::*;

    fn refused(text: &str) -> (String, Option<String>) {
        match parse(text).expect_err(text) {
            PgWireError::UserError(info) => (info.code, info.position),
            other => panic!("{text}: {other}"),
        }
    }

    #[test]
    fn what_is_no_sql_is_refused_with_its_place() {
        assert_eq!(refused("SELECT 1\nFRM x"), ("42601".to_owned(), Some("14".to_owned())));
        assert_eq!(refused(&"SELECT 1;".repeat(65)).0, "54000");
        assert_eq!(refused(&format!("SELECT '{}'", "x".repeat(TEXT_BYTES_MAX))).0, "54000");
    }

    #[test]
    fn a_text_may_have_several_statements_or_none() {
        assert_eq!(parse("SELECT 1; SELECT 2").expect("two").len(), 2);
        assert_eq!(parse(" ; -- nothing").expect("none").len(), 0);
        assert_eq!(parse("ABORT").expect("one").len(), 1);
    }
}
