//! Any bytes as a file of the source that `FUZZ_SOURCE` names: cut into records, and these into rows. Of a file all
//! formats are told by its bytes, so this meets each parser of the source.
#![no_main]

mod source;

use std::io::Write;
use std::sync::LazyLock;

use acquisition::{Context, Settings};
use contract::{Cursor, LogRecord, RowsBuilder, Span};
use libfuzzer_sys::fuzz_target;
use tokio::runtime::Runtime;

use source::SOURCE;

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_current_thread().build().expect("a runtime"));

fuzz_target!(|bytes: &[u8]| {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(bytes).expect("written");
    let mut open =
        (SOURCE.open_file)(file.path(), &Settings::default(), &Context::default()).expect("the file is there");
    let (mut cursor, mut offset) = (Cursor::default(), 0);
    loop {
        let harvest = RUNTIME.block_on(open.collector.poll(&cursor)).expect("damage is no error");
        let mut rows = RowsBuilder::new(SOURCE.schema);
        for record in harvest.records {
            let logged = LogRecord { partition: 0, offset, appended_at: record.fetched_at, record };
            offset += 1;
            if let Err(reject) = rows.record(&logged, SOURCE.processor) {
                assert_ne!(reject.kind, "panic", "{reject}");
            }
        }
        rows.finish(Span { source: SOURCE.id, ranges: Vec::new() });
        cursor = harvest.cursor;
        if harvest.poll_again_in.is_none() {
            return;
        }
    }
});
