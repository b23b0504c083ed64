//! temp
use contract::{Cursor, LogRecord, RowsBuilder, Span, row_json};
use std::collections::{BTreeMap, BTreeSet};
#[tokio::main(flavor = "current_thread")]
async fn main() {
    let source = acquisition::source("github").expect("s");
    for path in std::env::args().skip(1) {
        let mut open = (source.open_file)(std::path::Path::new(&path), &Default::default()).expect("open");
        let mut cursor = Cursor::default();
        let (mut types, mut ids, mut repos, mut rejects, mut n) =
            (BTreeMap::<String, u64>::new(), BTreeSet::new(), BTreeSet::new(), Vec::new(), 0);
        loop {
            let h = open.collector.poll(&cursor).await.expect("h");
            cursor = h.cursor;
            let mut rows = RowsBuilder::new(source.schema);
            for record in h.records {
                n += 1;
                let l = LogRecord { partition: 0, offset: n, appended_at: record.fetched_at, record };
                if let Err(r) = rows.record(&l, source.processor) {
                    rejects.push(format!(
                        "{}: {} | {}",
                        r.kind,
                        r.reason,
                        String::from_utf8_lossy(&l.record.body[..l.record.body.len().min(80)])
                    ));
                }
            }
            let rows = rows.finish(Span { source: source.id, ranges: vec![] });
            for i in 0..rows.silver.num_rows() {
                let mut out = vec![];
                row_json::write_row(&rows.silver, i, &mut out);
                let v: serde_json::Value = serde_json::from_slice(&out).expect("json");
                *types.entry(v["type"].as_str().unwrap_or("").to_owned()).or_default() += 1;
                ids.insert(v["id"].as_str().unwrap_or("").to_owned());
                if let Some(r) = v["repo_name"].as_str() {
                    repos.insert(r.to_owned());
                }
            }
            if h.poll_again_in.is_none() {
                break;
            }
        }
        let notes = open.notes.lock().expect("n").clone();
        println!(
            "{}",
            serde_json::json!({"file": path, "records": n, "events": types.values().sum::<u64>(), "types": types, "distinct_ids": ids.len(), "distinct_repos": repos.len(), "rejects": rejects, "notes": notes, "skipped": open.skipped_lines.load(std::sync::atomic::Ordering::Relaxed)})
        );
    }
}
