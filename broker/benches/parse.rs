//! How fast records are unpacked and cut, and how fast they become rows:
//! `cargo bench -p databroker --bench parse -- [SOURCE [FILE…]]`; GitHub, and the sample, if not told.

use std::path::PathBuf;
use std::time::Instant;

use acquisition::{Context, OpenFile};
use contract::{Cursor, LogRecord, RawRecord, RowsBuilder, Span};

/// Rounds of which the fastest counts: the others met another process.
const ROUNDS: usize = 5;

/// Records of one batch of rows, as in a backfill.
const BATCH: usize = 8_192;

fn main() {
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    let source = acquisition::source(words.next().as_deref().unwrap_or("github")).expect("a source");
    let files: Vec<PathBuf> = words.map(PathBuf::from).collect();
    let context = Context::default();
    let open = || -> Vec<OpenFile> {
        match files.is_empty() {
            true => vec![(source.sample)(&context)],
            false => files
                .iter()
                .map(|path| (source.open_file)(path, &acquisition::Settings::default(), &context).expect("a file"))
                .collect(),
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let (mut records, mut best) = (Vec::new(), f64::INFINITY);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        records = open().into_iter().flat_map(|file| runtime.block_on(read(file))).collect();
        best = best.min(start.elapsed().as_secs_f64());
    }
    let bytes: usize = records.iter().map(|record| record.body.len()).sum();
    let count = records.len() as f64;
    let rate = |seconds: f64| format!("{:.0} MB/s, {:.0} records/s", bytes as f64 / 1e6 / seconds, count / seconds);
    println!("{} records, {:.1} MB", records.len(), bytes as f64 / 1e6);
    println!("hash, unpack and cut: {best:.3} s, {}", rate(best));

    let place = |record: RawRecord| LogRecord { partition: 0, offset: 0, appended_at: record.fetched_at, record };
    let logged: Vec<LogRecord> = records.into_iter().map(place).collect();
    let (mut best, mut rejects) = (f64::INFINITY, 0);
    for _ in 0..ROUNDS {
        let mut process_seconds = 0.0;
        rejects = 0;
        for batch in logged.chunks(BATCH) {
            let mut rows = RowsBuilder::new(source.schema);
            let start = Instant::now();
            for record in batch {
                rejects += usize::from(rows.record(record, source.processor).is_err());
            }
            rows.finish(Span { source: source.id, ranges: Vec::new() });
            process_seconds += start.elapsed().as_secs_f64();
        }
        best = best.min(process_seconds);
    }
    println!("parse into rows and copy to bronze: {best:.3} s, {}; {rejects} rejects", rate(best));
}

async fn read(open: OpenFile) -> Vec<RawRecord> {
    let (mut collector, mut cursor, mut records) = (open.collector, Cursor::default(), Vec::new());
    loop {
        let harvest = collector.poll(&cursor).await.expect("a harvest");
        records.extend(harvest.records);
        cursor = harvest.cursor;
        if harvest.poll_again_in.is_none() {
            return records;
        }
    }
}
