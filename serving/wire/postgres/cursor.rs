//! Cursors: answers that a client reads in pieces, by `DECLARE`, `FETCH` and `CLOSE`.

use std::collections::BTreeMap;

use contract::TableStream;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::sql::sqlparser::ast::{FetchDirection, Value, ValueWithSpan};
use datafusion_postgres::pgwire::error::PgWireResult;
use futures::StreamExt;

use super::connection::Cancellable;
use super::failure::{failure, wrong};

/// Cursors of one connection: each may hold rows and a statement's turn.
const CURSORS_MAX: usize = 16;

/// Rows of one `FETCH`, which are put together before they are sent.
const FETCHED_ROWS_MAX: usize = 100_000;

/// The cursors of a connection, by name.
#[derive(Default)]
pub(crate) struct Cursors(BTreeMap<String, Cursor>);

/// An answer, as far as it was not read.
pub(crate) struct Cursor {
    pub(crate) table: TableStream,
    pub(crate) cancellable: Cancellable,
    /// Rows that were computed and not read.
    pub(crate) rest: Option<RecordBatch>,
}

impl Cursors {
    pub(crate) fn open(&mut self, name: &str, mut cursor: Cursor) -> PgWireResult<()> {
        if self.0.contains_key(name) {
            return Err(wrong("42P03", format!("cursor \"{name}\" already exists")));
        }
        if self.0.len() >= CURSORS_MAX {
            return Err(wrong("54000", format!("{CURSORS_MAX} cursors are open, which are the most; close one")));
        }
        // It may be asked again after its last row.
        cursor.table.batches = Box::pin(cursor.table.batches.fuse());
        self.0.insert(name.to_owned(), cursor);
        Ok(())
    }

    pub(crate) fn columns(&self, name: &str) -> PgWireResult<SchemaRef> {
        self.0.get(name).map(|cursor| cursor.table.schema.clone()).ok_or_else(|| unknown(name))
    }

    /// The next rows of a cursor, up to `rows_max`.
    pub(crate) async fn fetch(&mut self, name: &str, rows_max: usize) -> PgWireResult<Vec<RecordBatch>> {
        let cursor = self.0.get_mut(name).ok_or_else(|| unknown(name))?;
        let (mut fetched, mut left) = (Vec::new(), rows_max.min(FETCHED_ROWS_MAX));
        while left > 0 {
            let batch = match cursor.rest.take() {
                Some(batch) => batch,
                None => match cursor.table.batches.next().await {
                    Some(batch) => batch.map_err(|error| failure(&error, ""))?,
                    None => break,
                },
            };
            let taken = batch.num_rows().min(left);
            if taken < batch.num_rows() {
                cursor.rest = Some(batch.slice(taken, batch.num_rows() - taken));
            }
            fetched.push(batch.slice(0, taken));
            left -= taken;
        }
        Ok(fetched)
    }

    pub(crate) fn close(&mut self, name: &str) -> PgWireResult<()> {
        let closed = self.0.remove(name).ok_or_else(|| unknown(name))?;
        closed.cancellable.token.cancel();
        Ok(())
    }

    pub(crate) fn close_all(&mut self) {
        self.0.clear();
    }
}

fn unknown(name: &str) -> datafusion_postgres::pgwire::error::PgWireError {
    wrong("34000", format!("cursor \"{name}\" does not exist"))
}

/// How many rows a `FETCH` asks for; all where it does not say.
pub(crate) fn rows_asked(direction: &FetchDirection) -> PgWireResult<usize> {
    let number = |limit: &ValueWithSpan| match &limit.value {
        Value::Number(digits, _) => digits.to_string().parse().map_err(|_| backwards()),
        _ => Err(backwards()),
    };
    match direction {
        FetchDirection::Next | FetchDirection::Forward { limit: None } => Ok(1),
        FetchDirection::Count { limit } | FetchDirection::Forward { limit: Some(limit) } => number(limit),
        FetchDirection::All | FetchDirection::ForwardAll => Ok(usize::MAX),
        _ => Err(backwards()),
    }
}

fn backwards() -> datafusion_postgres::pgwire::error::PgWireError {
    wrong("55000", "cursors can only be read forward (FETCH NEXT, FETCH n, FETCH ALL)")
}
