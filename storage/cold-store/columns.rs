//! The columns of a table: those in its log, and those that this version wants.
//!
//! | the log | this version | what happens when a process that writes opens the table |
//! | --- | --- | --- |
//! | lacks a column | has it, and its values may be missing | the column is added to the log; old files answer nulls |
//! | lacks a column | has it in every row | refused |
//! | has a column | lacks it | refused |
//! | has a column of another type | | refused, for readers too |
//!
//! A process that has the table open already goes on when another one adds a column: its files lack it.

use contract::{Error, Result};
use deltalake::DeltaTable;
use deltalake::kernel::StructType;
use deltalake::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake::kernel::transaction::CommitProperties;
use deltalake::logstore::LogStoreRef;
use deltalake::table::state::DeltaTableState;

use crate::layout::Layout;
use crate::table::failed;

/// The names of the columns that a log lacks.
///
/// # Errors
/// `Change` when a column has another type, or one that it lacks must have values.
pub(crate) fn missing(layout: &Layout, state: &DeltaTableState) -> Result<Vec<String>> {
    if layout.may_differ { Ok(Vec::new()) } else { lacking(layout, state) }
}

/// Whether a table that may differ from its layout does, so that it cannot grow into it.
pub(crate) fn differ(layout: &Layout, state: &DeltaTableState) -> bool {
    layout.may_differ && (lacking(layout, state).is_err() || surplus(layout, state).is_err())
}

fn lacking(layout: &Layout, state: &DeltaTableState) -> Result<Vec<String>> {
    let found = state.snapshot().arrow_schema();
    let mut missing = Vec::new();
    for field in layout.schema.fields() {
        let (name, wanted) = (field.name(), field.data_type());
        match found.field_with_name(name) {
            Ok(other) if other.data_type() == wanted => {}
            Ok(other) => {
                let what =
                    format!("its column `{name}` is of type {}, and this version wants {wanted}", other.data_type());
                return Err(refused(layout, &what));
            }
            Err(_) if field.is_nullable() => missing.push(name.clone()),
            Err(_) => return Err(refused(layout, &format!("it has no column `{name}` of type {wanted}"))),
        }
    }
    Ok(missing)
}

/// Adds the columns that a log lacks as of `state`, for a process that writes; answers whether there were any.
///
/// # Errors
/// `Change` when the table cannot become what this version wants.
pub(crate) async fn grow(layout: &Layout, store: &LogStoreRef, state: &DeltaTableState) -> Result<bool> {
    let doing = || format!("add columns to the table `{}`", layout.name);
    let names = lacking(layout, state)?;
    surplus(layout, state)?;
    if names.is_empty() {
        return Ok(false);
    }
    let all: StructType =
        (layout.schema.as_ref().try_into_kernel()).map_err(|error| Error::stop(doing()).because(error))?;
    let fields: Vec<_> = all.fields().filter(|field| names.contains(&field.name)).cloned().collect();
    let properties = CommitProperties::default().with_create_checkpoint(false).with_cleanup_expired_logs(Some(false));
    let mut table = DeltaTable::new(store.clone());
    table.load().await.map_err(|error| failed(doing(), error))?;
    let grown = table.add_columns().with_fields(fields).with_commit_properties(properties).await;
    match grown {
        Ok(_) => {
            tracing::info!(table = layout.name, "the table `{}` has new columns: {}", layout.name, names.join(", "));
            Ok(true)
        }
        Err(error) => {
            let now = DeltaTableState::try_new(store.as_ref(), None).await.map_err(|error| failed(doing(), error))?;
            // Another process may have done it meanwhile.
            if missing(layout, &now)?.is_empty() { Ok(true) } else { Err(failed(doing(), error)) }
        }
    }
}

fn surplus(layout: &Layout, state: &DeltaTableState) -> Result<()> {
    let found = state.snapshot().arrow_schema();
    match found.fields().iter().find(|field| layout.schema.field_with_name(field.name()).is_err()) {
        Some(field) => Err(refused(layout, &format!("it has a column `{}`, which this version has not", field.name()))),
        None => Ok(()),
    }
}

fn refused(layout: &Layout, what: &str) -> Error {
    let way_out = match layout.name.strip_prefix("silver.") {
        Some(source) => format!("`databroker reprocess {source}` makes it anew from the raw records"),
        None => "it was made by another version, which can read it".to_owned(),
    };
    Error::change(format!("open the table `{}`: {what}; {way_out}", layout.name))
}
