//! What bounds rows.

use super::*;
use crate::{Column, Period, RawRecord, Search};

const fn column(name: &'static str, kind: Kind) -> Column {
    Column { name, kind, search: Search::Exact, doc: "A column." }
}

static SCHEMA: RowSchema = RowSchema {
    source: SourceId("test"),
    period: Period::Day,
    columns: &[
        column("text", Kind::Text),
        column("texts", Kind::TextList),
        column("structs", Kind::StructList(&[column("structs.text", Kind::Text)])),
    ],
};

/// Writes the body's first byte as a number of kilobytes into the column of its second.
struct Kilobytes;

impl Processor for Kilobytes {
    fn process(&self, record: &RawRecord, row: &mut RowBuilder) -> Result<(), Reject> {
        let (count, place) = (usize::from(record.body[0]), usize::from(record.body[1]));
        let kilobyte = "a".repeat(1 << 10);
        match place {
            0 => row.text(5, &kilobyte.repeat(count)),
            1 => row.texts(6, (0..count).map(|_| &*kilobyte)),
            _ => row.structs(7, (0..count).map(|_| [Value::Text(&kilobyte)])),
        }
        Ok(())
    }
}

fn record(offset: i64, body: [u8; 2]) -> LogRecord {
    let (event_time, fetched_at) = (Timestamp(0), Timestamp(0));
    let record = RawRecord { id: "1".into(), event_time, fetched_at, body: body.to_vec().into() };
    LogRecord { partition: 0, offset, appended_at: Timestamp(0), record }
}

#[test]
fn a_row_that_is_too_large_is_rejected_and_costs_no_other() {
    let mut rows = RowsBuilder::new(&SCHEMA);
    // One that would burst the batch, though not too large itself.
    rows.silver.room.row_max = 32 << 10;
    rows.silver.room.batch_max = 40 << 10;
    let sizes = [[30, 0], [1, 1], [33, 0], [33, 1], [33, 2], [20, 2], [1, 2]];
    let outcomes = (0..).zip(sizes).map(|(at, body)| rows.record(&record(at, body), &Kilobytes));
    let kept: Vec<bool> =
        outcomes.map(|outcome| outcome.map_err(|reject| assert_eq!(reject.kind, "size")).is_ok()).collect();
    assert_eq!(kept, [true, true, false, false, false, false, true]);
    let made = rows.finish(Span { source: SCHEMA.source, ranges: Vec::new() });
    assert_eq!((made.silver.num_rows(), made.dead_letters.num_rows()), (3, 4));
    assert_eq!(made.silver.column(5).as_string::<i32>().value(0).len(), 30 << 10);
    assert!(rows.record(&record(9, [30, 0]), &Kilobytes).is_ok(), "the next batch has room again");
}
