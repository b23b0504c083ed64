//! What is wrong with a query, in words that help.

use arrow::error::ArrowError;
use contract::{Error, QueryFault};
use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::parser::ParserError;

/// An error of the query engine as one of ours: `Change` for a query that is wrong, with its place; `Retry`
/// where a limit was reached or an object store did not answer; `Stop` where a file cannot be read.
pub(crate) fn explain(error: &DataFusionError, tables: &[String]) -> Error {
    let root = error.find_root();
    let fault = QueryFault { sqlstate: sqlstate(root), place: place(error, root) };
    let error = match root {
        DataFusionError::ResourcesExhausted(cause) => Error::retry(format!(
            "answer the query within its memory and spill space (settings `cold.query_memory_bytes_max`, \
             `cold.query_spill_bytes_max`): {cause}"
        )),
        root @ (DataFusionError::IoError(_) | DataFusionError::ObjectStore(_) | DataFusionError::ParquetError(_)) => {
            let doing = format!("read the files of a table: {}", error.strip_backtrace());
            Error::new(crate::place::remedy(root), doing)
        }
        DataFusionError::External(cause) if cause.is::<Error>() => {
            let own = cause.downcast_ref::<Error>().expect("just asked");
            let text = own.to_string();
            Error::new(own.remedy(), text.strip_prefix("failed to ").unwrap_or(&text))
        }
        DataFusionError::Internal(_) | DataFusionError::ExecutionJoin(_) => {
            Error::stop(format!("answer the query, a defect: {}", error.strip_backtrace()))
        }
        root => Error::change(format!("answer the query: {}", message(error, root, tables))),
    };
    error.with_fault(fault)
}

/// The query engine tells kinds of errors apart by their texts only.
fn sqlstate(root: &DataFusionError) -> &'static str {
    match root {
        DataFusionError::SQL(..) => "42601",
        DataFusionError::NotImplemented(_) => "0A000",
        DataFusionError::ResourcesExhausted(_) => "53200",
        DataFusionError::SchemaError(cause, _) => match cause.as_ref() {
            SchemaError::FieldNotFound { .. } => "42703",
            SchemaError::AmbiguousReference { .. } => "42702",
            _ => "42701",
        },
        DataFusionError::ArrowError(cause, _) => match cause.as_ref() {
            ArrowError::DivideByZero => "22012",
            ArrowError::CastError(_) | ArrowError::ParseError(_) => "22P02",
            ArrowError::ArithmeticOverflow(_) => "22003",
            _ => "22000",
        },
        DataFusionError::Plan(text) if is_refused(text) => "25006",
        DataFusionError::Plan(text) if is_unknown_table(text) => "42P01",
        DataFusionError::Plan(text) if text.contains("column '") && text.contains("not found") => "42703",
        DataFusionError::Plan(text) if text.contains("Invalid function") || text.contains("No function matches") => {
            "42883"
        }
        DataFusionError::Plan(_) => "42000",
        DataFusionError::Execution(_) => "22000",
        DataFusionError::IoError(_) | DataFusionError::ObjectStore(_) | DataFusionError::ParquetError(_) => "58030",
        _ => "XX000",
    }
}

fn is_refused(text: &str) -> bool {
    ["DDL not supported", "DML not supported", "Statement not supported"].iter().any(|start| text.starts_with(start))
}

fn is_unknown_table(text: &str) -> bool {
    text.contains("table '") && text.contains("not found")
}

fn message(error: &DataFusionError, root: &DataFusionError, tables: &[String]) -> String {
    let mut text = match root {
        DataFusionError::SQL(cause, _) => match cause.as_ref() {
            ParserError::ParserError(text) | ParserError::TokenizerError(text) => text.clone(),
            ParserError::RecursionLimitExceeded => "it is nested too deeply".to_owned(),
        },
        root => root.strip_backtrace(),
    };
    for prefix in ["Error during planning: ", "Schema error: ", "Execution error: ", "Arrow error: "] {
        text = text.strip_prefix(prefix).map(str::to_owned).unwrap_or(text);
    }
    if is_refused(&text) {
        return format!("it may only read (SELECT, WITH, EXPLAIN, SHOW, DESCRIBE): {text}");
    }
    if text.contains("found: EOF") {
        text = text.replace("found: EOF", "found its end");
    }
    // The parser's own texts end with the place.
    if let (Some((line, column)), false) = (place(error, root), matches!(root, DataFusionError::SQL(..))) {
        text = format!("{text} at line {line}, column {column}");
    }
    if is_unknown_table(&text) {
        text = format!("{text} (known: {})", tables.join(", "));
    }
    text
}

fn place(error: &DataFusionError, root: &DataFusionError) -> Option<(u64, u64)> {
    if let DataFusionError::SQL(cause, _) = root {
        // `… at Line: 1, Column: 8`.
        let text = cause.to_string();
        let (line, column) = text.rsplit_once("Line: ")?.1.split_once(", Column: ")?;
        return Some((line.parse().ok()?, column.parse().ok()?));
    }
    let start = error.diagnostic()?.span?.start;
    Some((start.line, start.column))
}
