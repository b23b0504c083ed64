//! `backfill`: files to their end, into both stores.

use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use acquisition::{OpenFile, Source};
use contract::{Error, OffsetRange, Positions, Result, SourceId, Topic};
use serde_json::{Value, json};
use tokio::sync::mpsc::Sender;

use super::Control;
use crate::output;

/// How long the stores may take for what was logged once the backfill is asked to end: a store that is away may not hold
/// up the end.
const STORES_WAIT: Duration = Duration::from_secs(8);

/// Files are named by their absolute paths: the process that reads them may stand elsewhere.
pub(crate) fn arguments(source: &str, files: &[PathBuf]) -> Value {
    let files: Vec<_> = files.iter().map(|file| std::path::absolute(file).unwrap_or_else(|_| file.clone())).collect();
    json!({"source": source, "files": files})
}

#[derive(Default)]
struct Sum {
    files: u64,
    done_before: u64,
    records: u64,
    bytes: u64,
    file_bytes: u64,
    skipped: u64,
    ranges: Vec<OffsetRange>,
    notes: Vec<String>,
    interrupted: bool,
}

/// `{"files", "files_done_before", "records", "rows", "rows_cold_only", "duplicates", "rejects", "waiting", "bytes",
/// "file_bytes", "skipped", "seconds", "interrupted", "notes"}`; `bytes` are those of the records. `files` were read to
/// their end; `waiting` are records that are logged and were not in both stores yet when it was asked to end.
pub(crate) async fn run(control: &Control, arguments: &Value, progress: &Sender<Value>) -> Result<Value> {
    let started = Instant::now();
    let source = control.broker.source(arguments["source"].as_str().unwrap_or_default())?;
    let files: Vec<&Path> =
        arguments["files"].as_array().into_iter().flatten().filter_map(Value::as_str).map(Path::new).collect();
    let bytes_total = sizes(&files)?;
    let mut sum = Sum::default();
    for file in files {
        if control.stop.is_cancelled() {
            sum.interrupted = true;
            break;
        }
        read(control, source, file, bytes_total, &mut sum, progress).await?;
    }
    let stored = wait_for_stores(control, source, &sum, progress).await?;
    let (done, waiting) = split(&sum.ranges, &stored);
    let counts = count(control, source.id, &done).await?;
    // A row may be mended or removed by hand while this counts.
    let duplicates = sum.records.saturating_sub(waiting + counts.rows + counts.rejects);
    Ok(json!({
        "files": sum.files, "files_done_before": sum.done_before, "records": sum.records,
        "rows": counts.rows, "rows_cold_only": counts.cold_only, "duplicates": duplicates, "rejects": counts.rejects,
        "waiting": waiting, "bytes": sum.bytes, "file_bytes": sum.file_bytes, "skipped": sum.skipped,
        "seconds": started.elapsed().as_secs_f64(), "interrupted": sum.interrupted, "notes": sum.notes,
        "source": source.id.0,
    }))
}

fn sizes(files: &[&Path]) -> Result<u64> {
    let mut total = 0;
    for file in files {
        let doing = || format!("read `{}`", file.display());
        let about = std::fs::metadata(file).map_err(|cause| Error::change(doing()).because(cause))?;
        if !about.is_file() {
            return Err(Error::change(format!(
                "{}: it is not a file; name files, such as `{}/*.json.gz`",
                doing(),
                file.display()
            )));
        }
        total += about.len();
    }
    Ok(total)
}

async fn read(
    control: &Control,
    source: &'static Source,
    file: &Path,
    bytes_total: u64,
    sum: &mut Sum,
    progress: &Sender<Value>,
) -> Result<()> {
    let engines = &control.broker.engines;
    let context = control.broker.context();
    let (path, settings) = (file.to_owned(), control.broker.settings.acquisition.clone());
    // Opening reads the file once, for its hash.
    let opened = tokio::task::spawn_blocking(move || (source.open_file)(&path, &settings, &context)).await;
    let mut opened: OpenFile =
        opened.map_err(|panic| Error::stop(format!("read `{}`", file.display())).because(panic))??;
    let before = engines.log.cursor(&opened.collector.id()).await?;
    let (bytes_before, records_before) = (sum.file_bytes, sum.records);
    let (ranges, read_bytes) = (&mut sum.ranges, opened.bytes_read.clone());
    let mut records = records_before;
    let heard = |harvest: &contract::Harvest, appended: &contract::Appended| {
        merge(ranges, &appended.ranges);
        records += harvest.records.len() as u64;
        // A display that is slower than the reading misses some of it.
        progress
            .try_send(json!({"what": "read", "bytes": bytes_before + read_bytes.load(Ordering::Relaxed), "bytes_total": bytes_total, "records": records}))
            .unwrap_or_default();
    };
    let collected = processing::collect(&mut *opened.collector, engines, &control.stop, heard).await?;
    let after = engines.log.cursor(&opened.collector.id()).await?;
    sum.records += collected.records;
    sum.bytes += collected.bytes;
    if collected.ended {
        sum.files += 1;
        sum.done_before += u64::from(collected.records == 0 && before.is_some() && before == after);
        sum.file_bytes += opened.bytes_total;
    } else {
        sum.interrupted = true;
        sum.file_bytes += opened.bytes_read.load(Ordering::Relaxed);
    }
    sum.skipped += opened.skipped.load(Ordering::Relaxed);
    sum.notes.append(&mut opened.notes.lock().unwrap_or_else(PoisonError::into_inner).clone());
    Ok(())
}

/// Adds ranges, joining those that meet.
fn merge(ranges: &mut Vec<OffsetRange>, new: &[OffsetRange]) {
    for range in new {
        match ranges.iter_mut().find(|known| known.partition == range.partition && known.to == range.from) {
            Some(known) => known.to = range.to,
            None => ranges.push(*range),
        }
    }
}

/// Waits until both stores have what was logged, saying how far they are; asked to end, only for a while. Answers what
/// both have.
async fn wait_for_stores(control: &Control, source: &Source, sum: &Sum, progress: &Sender<Value>) -> Result<Positions> {
    let extent = control.broker.engines.log.extent(&Topic::raw(source.id)).await?;
    let end = extent.end();
    let bring = control.bring(source.id, end.clone());
    tokio::pin!(bring);
    let mut tick = tokio::time::interval(Duration::from_millis(200));
    let overdue = async {
        control.stop.cancelled().await;
        tokio::time::sleep(STORES_WAIT).await;
    };
    tokio::pin!(overdue);
    let left = |at: &Positions| end.0.iter().map(|(&partition, &end)| end - at.of(partition)).sum::<i64>().max(0);
    loop {
        tokio::select! {
            done = &mut bring => return done.map(|()| end),
            () = &mut overdue => return control.stored(source.id).await.map(|(hot, cold)| hot.min(&cold)),
            _ = tick.tick() => {
                // What cannot be asked now is shown the next time.
                let Ok((hot, cold)) = control.stored(source.id).await else { continue };
                let message = json!({"what": "stored", "hot_left": left(&hot), "cold_left": left(&cold), "records": sum.records});
                // As above: a slow display misses some.
                progress.try_send(message).unwrap_or_default();
            }
        }
    }
}

/// The parts of `ranges` below `stored`, and how many records lie beyond.
fn split(ranges: &[OffsetRange], stored: &Positions) -> (Vec<OffsetRange>, u64) {
    let below = |range: &OffsetRange| range.to.min(stored.of(range.partition)).max(range.from);
    let done = ranges.iter().map(|range| OffsetRange { to: below(range), ..*range });
    let waiting: i64 = ranges.iter().map(|range| range.to - below(range)).sum();
    (done.filter(|range| range.from < range.to).collect(), waiting.unsigned_abs())
}

struct Counts {
    rows: u64,
    cold_only: u64,
    rejects: u64,
}

/// What became of the offsets, as the cold store has it.
async fn count(control: &Control, source: SourceId, ranges: &[OffsetRange]) -> Result<Counts> {
    let mut counts = Counts { rows: 0, cold_only: 0, rejects: 0 };
    let engines = &control.broker.engines;
    let first_day = engines.hot.first_day(engines.clock.now());
    let old = first_day.map_or("false".to_owned(), |day| format!("event_time < TIMESTAMP '{day}T00:00:00Z'"));
    // A long list of ranges, which only many writers at once make, is asked for in parts.
    for some in ranges.chunks(100) {
        let within: Vec<_> = some
            .iter()
            .map(|range| {
                format!("(_partition = {} AND _offset >= {} AND _offset < {})", range.partition, range.from, range.to)
            })
            .collect();
        let within = within.join(" OR ");
        counts.rows +=
            output::count(&*engines.cold, &format!("SELECT count(*) FROM silver.{source} WHERE {within}")).await?;
        counts.cold_only +=
            output::count(&*engines.cold, &format!("SELECT count(*) FROM silver.{source} WHERE ({within}) AND {old}"))
                .await?;
        let dead = format!("SELECT count(*) FROM ops.dead_letters WHERE source = '{source}' AND ({within})");
        counts.rejects += output::count(&*engines.cold, &dead).await?;
    }
    Ok(counts)
}

/// What was done, in a few lines.
pub(crate) fn print(answer: &Value) {
    let number = |name: &str| answer[name].as_u64().unwrap_or_default();
    let seconds = answer["seconds"].as_f64().unwrap_or_default().max(1e-3);
    let source = answer["source"].as_str().unwrap_or_default();
    output::line(&format!(
        "{} records from {} files in {seconds:.1} s ({:.0} records/s, {:.1} MB/s): {} rows, {} duplicates, {} rejects",
        number("records"),
        number("files"),
        number("records") as f64 / seconds,
        number("bytes") as f64 / seconds / 1e6,
        number("rows"),
        number("duplicates"),
        number("rejects"),
    ));
    for note in answer["notes"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        output::line(note);
    }
    if number("files_done_before") > 0 {
        output::line(&format!("{} of the files were read before and add nothing", number("files_done_before")));
    }
    if number("skipped") > 0 {
        output::line(&format!("{} pieces carry no record by design and were skipped", number("skipped")));
    }
    if number("rows_cold_only") > 0 {
        output::line(&format!(
            "{} rows are older than `hot.retention_days` and went to the cold store only: ask them with `sql`",
            number("rows_cold_only")
        ));
    }
    if number("rejects") > 0 {
        output::line(&format!(
            "Rejects are kept with their bytes and reasons: `databroker dead-letters --source {source}`"
        ));
    }
    if number("waiting") > 0 {
        output::line(&format!("{} records are logged and go into the stores at the next start", number("waiting")));
    }
    if answer["interrupted"] == json!(true) {
        output::line("Ended early as asked; the same command goes on where this one stopped.");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_store_does_not_have_yet_waits_and_is_no_duplicate() {
        let range = |partition, from, to| OffsetRange { partition, from, to };
        let stored = Positions([(0, 7), (1, 2)].into());
        let ranges = [range(0, 0, 5), range(0, 6, 9), range(1, 2, 4)];
        assert_eq!(split(&ranges, &stored), (vec![range(0, 0, 5), range(0, 6, 7)], 4));
        assert_eq!(split(&ranges, &Positions::default()).1, 10);
    }
}
