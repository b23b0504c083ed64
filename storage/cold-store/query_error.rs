//! What is wrong with a query, in words that help.

use contract::Error;
use datafusion::common::Diagnostic;
use datafusion::error::DataFusionError;

/// An error of the query engine as one of ours: `Change` for a query that is wrong, with its place; `Retry`
/// where a limit was reached or an object store did not answer; `Stop` where a file cannot be read.
pub(crate) fn explain(error: &DataFusionError, tables: &[String]) -> Error {
    match error.find_root() {
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
    }
}

fn message(error: &DataFusionError, root: &DataFusionError, tables: &[String]) -> String {
    let mut text = root.strip_backtrace();
    for prefix in ["Error during planning: ", "SQL error: ", "Schema error: ", "Execution error: ", "Arrow error: "] {
        text = text.strip_prefix(prefix).map(str::to_owned).unwrap_or(text);
    }
    let refused = ["DDL not supported", "DML not supported", "Statement not supported"];
    if refused.iter().any(|start| text.starts_with(start)) {
        return format!("it may only read (SELECT, WITH, EXPLAIN, SHOW, DESCRIBE): {text}");
    }
    if text.contains("found: EOF") {
        text = text.replace("found: EOF", "found its end");
    }
    if let Some(place) = error.diagnostic().and_then(place) {
        text = format!("{text} at {place}");
    }
    let unknown_table = text.contains("table '") && text.contains("not found");
    if unknown_table {
        text = format!("{text} (known: {})", tables.join(", "));
    }
    text
}

fn place(diagnostic: &Diagnostic) -> Option<String> {
    let start = diagnostic.span?.start;
    Some(format!("line {}, column {}", start.line, start.column))
}
