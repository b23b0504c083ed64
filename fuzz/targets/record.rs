//! Any bytes as the body of one record of the source that `FUZZ_SOURCE` names: a row or a reject, and never a panic.
#![no_main]

mod source;

use contract::{LogRecord, RawRecord, RowsBuilder, Span, Timestamp};
use libfuzzer_sys::fuzz_target;

use source::SOURCE;

fuzz_target!(|bytes: &[u8]| {
    let now = Timestamp(1_767_322_800_000_000);
    let record = RawRecord { id: "1".into(), event_time: now, fetched_at: now, body: bytes.to_vec().into() };
    let mut rows = RowsBuilder::new(SOURCE.schema);
    let logged = LogRecord { partition: 0, offset: 0, appended_at: now, record };
    if let Err(reject) = rows.record(&logged, SOURCE.processor) {
        assert_ne!(reject.kind, "panic", "{reject}");
    }
    rows.finish(Span { source: SOURCE.id, ranges: Vec::new() });
});
