//! `dead-letters`: records that could not become rows, and trying them again.

use acquisition::Source;
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int64Type, TimestampMicrosecondType};
use bytes::Bytes;
use contract::limits::{HARVEST_BYTES_MAX, HARVEST_RECORDS_MAX};
use contract::{
    CollectorId, Cursor, Error, Harvest, LogRecord, Period, RawRecord, RecordId, Result, RowsBuilder, Timestamp, Topic,
};
use futures::{StreamExt, TryStreamExt};
use serde_json::{Value, json};

use super::{Control, sources_of};
use crate::broker::Broker;
use crate::output;

/// Bytes of a body that the list shows.
const SHOWN_BYTES: usize = 200;
/// The open dead letters: those whose id is no row by now, the latest of each id. An id counts within its period of event
/// time, here as everywhere.
fn open_letters(source: &Source) -> String {
    let (id, period) = (
        source.id,
        match source.schema.period {
            Period::Day => "day",
            Period::Month => "month",
        },
    );
    // Bodies are large: which letters are open is found without them.
    format!(
        "WITH latest AS (SELECT _partition, id, date_trunc('{period}', event_time) AS period, max(_offset) AS _offset \
         FROM ops.dead_letters WHERE source = '{id}' GROUP BY 1, 2, 3), \
         open AS (SELECT _partition, _offset FROM latest WHERE NOT EXISTS (SELECT 1 FROM silver.{id} s \
         WHERE s._id = latest.id AND date_trunc('{period}', s.event_time) = latest.period)) \
         SELECT d._partition, d._offset, d.id, d.event_time, d.fetched_at, d.appended_at, d.kind, d.reason, d.body \
         FROM ops.dead_letters d JOIN open o ON d._partition = o._partition AND d._offset = o._offset \
         WHERE d.source = '{id}'"
    )
}

/// `{"total", "dead_letters": [{"source", "partition", "offset", "id", "appended_at", "kind", "reason", "body_bytes", "body"}]}`;
/// `body` is the start of it, as text.
pub(crate) async fn list(broker: &Broker, arguments: &Value) -> Result<Value> {
    let limit = arguments["limit"].as_u64().unwrap_or(20);
    let mut letters = Vec::new();
    let mut total = 0;
    for source in sources_of(arguments)? {
        let open = open_letters(source);
        total += output::count(&*broker.engines.cold, &format!("SELECT count(*) FROM ({open})")).await?;
        let latest = format!("{open} ORDER BY d.appended_at DESC, d._offset DESC LIMIT {limit}");
        for letter in letters_of(broker, &latest).await? {
            let start = &letter.body[..letter.body.len().min(SHOWN_BYTES)];
            letters.push(json!({
                "source": source.id.0, "partition": letter.partition, "offset": letter.offset, "id": letter.id,
                "appended_at": letter.appended_at.to_string(), "kind": letter.kind, "reason": letter.reason,
                "body_bytes": letter.body.len(), "body": String::from_utf8_lossy(start),
            }));
        }
    }
    Ok(json!({"total": total, "dead_letters": letters}))
}

/// Logs those of the open dead letters again, with their own ids and bytes, that are understood now; they become rows. The
/// others would only be dead letters twice.
pub(crate) async fn replay(control: &Control, arguments: &Value) -> Result<Value> {
    let (mut replayed, mut open) = (0, 0);
    let engines = &control.broker.engines;
    for source in sources_of(arguments)? {
        let mut letters = control.broker.engines.cold.sql(&open_letters(source)).await?.batches;
        let mut ready = Ready::default();
        while let Some(batch) = letters.next().await {
            for letter in read_letters(&batch?)? {
                if ready.is_full(&letter) {
                    replayed += ready.log(control, source).await?;
                }
                if is_understood(source, &letter) {
                    ready.push(&letter);
                }
            }
        }
        replayed += ready.log(control, source).await?;
        let extent = engines.log.extent(&Topic::raw(source.id)).await?;
        control.bring(source.id, extent.end()).await?;
        open += output::count(&*engines.cold, &format!("SELECT count(*) FROM ({})", open_letters(source))).await?;
    }
    Ok(json!({"replayed": replayed, "rows": replayed, "open": open}))
}

fn is_understood(source: &Source, letter: &Letter) -> bool {
    let mut rows = RowsBuilder::new(source.schema);
    let appended_at = letter.appended_at;
    let record = LogRecord { partition: 0, offset: 0, appended_at, record: letter.record() };
    rows.record(&record, source.processor).is_ok()
}

/// Records for the next append.
#[derive(Default)]
struct Ready {
    records: Vec<RawRecord>,
    bytes: usize,
}

impl Ready {
    fn is_full(&self, next: &Letter) -> bool {
        let has_room = self.records.len() < HARVEST_RECORDS_MAX && self.bytes + next.body.len() <= HARVEST_BYTES_MAX;
        !self.records.is_empty() && !has_room
    }

    fn push(&mut self, letter: &Letter) {
        self.bytes += letter.body.len();
        self.records.push(letter.record());
    }

    /// Waits while the log takes nothing; answers how many were logged.
    async fn log(&mut self, control: &Control, source: &Source) -> Result<u64> {
        let Self { records, .. } = std::mem::take(self);
        if records.is_empty() {
            return Ok(0);
        }
        let engines = &control.broker.engines;
        let count = records.len() as u64;
        let harvest = Harvest {
            source: source.id,
            collector: CollectorId(format!("{}/replay", source.id)),
            records,
            coverage: Vec::new(),
            cursor: Cursor(json!({"at": engines.clock.now().to_string()}).to_string()),
            poll_again_in: None,
            acknowledge: None,
        };
        match processing::append(engines, &harvest, &Cursor::default(), &control.stop).await? {
            Some(_) => Ok(count),
            None => Err(Error::retry("log dead letters again: it was asked to end while the log is full")),
        }
    }
}

struct Letter {
    partition: i64,
    offset: i64,
    id: String,
    event_time: Timestamp,
    fetched_at: Timestamp,
    appended_at: Timestamp,
    kind: String,
    reason: String,
    body: Bytes,
}

impl Letter {
    fn record(&self) -> RawRecord {
        RawRecord {
            id: RecordId::from(self.id.as_str()),
            event_time: self.event_time,
            fetched_at: self.fetched_at,
            body: self.body.clone(),
        }
    }
}

async fn letters_of(broker: &Broker, query: &str) -> Result<Vec<Letter>> {
    let batches: Vec<_> = broker.engines.cold.sql(query).await?.batches.try_collect().await?;
    let letters: Vec<_> = batches.iter().map(read_letters).collect::<Result<_>>()?;
    Ok(letters.into_iter().flatten().collect())
}

fn read_letters(batch: &RecordBatch) -> Result<Vec<Letter>> {
    let plain = |place: usize, kind: &DataType| {
        arrow::compute::cast(batch.column(place), kind).map_err(|cause| Error::stop("read dead letters").because(cause))
    };
    let integers = [plain(0, &DataType::Int64)?, plain(1, &DataType::Int64)?];
    let texts = [plain(2, &DataType::Utf8)?, plain(6, &DataType::Utf8)?, plain(7, &DataType::Utf8)?];
    let bodies = plain(8, &DataType::Binary)?;
    let time =
        |place: usize, row: usize| Timestamp(batch.column(place).as_primitive::<TimestampMicrosecondType>().value(row));
    let text = |place: usize, row: usize| texts[place].as_string::<i32>().value(row).to_owned();
    let letter = |row: usize| Letter {
        partition: integers[0].as_primitive::<Int64Type>().value(row),
        offset: integers[1].as_primitive::<Int64Type>().value(row),
        id: text(0, row),
        event_time: time(3, row),
        fetched_at: time(4, row),
        appended_at: time(5, row),
        kind: text(1, row),
        reason: text(2, row),
        body: Bytes::copy_from_slice(bodies.as_binary::<i32>().value(row)),
    };
    Ok((0..batch.num_rows()).map(letter).collect())
}

/// Two lines a letter.
pub(crate) fn print(answer: &Value) {
    let letters = answer["dead_letters"].as_array().cloned().unwrap_or_default();
    for letter in &letters {
        let text = |name: &str| letter[name].as_str().unwrap_or_default().to_owned();
        output::line(&format!(
            "{} {}/{} {} {}",
            text("appended_at"),
            letter["partition"],
            letter["offset"],
            text("id"),
            text("reason")
        ));
        output::line(&format!("    {} bytes: {}", letter["body_bytes"], output::first_words(&text("body"), 120)));
    }
    let total = answer["total"].as_u64().unwrap_or_default();
    match total {
        0 => output::line("No dead letters."),
        _ => {
            output::line(&format!("{} of {total} dead letters; `dead-letters replay` tries them again", letters.len()))
        }
    }
}

/// What a replay did.
pub(crate) fn print_replay(answer: &Value) {
    output::line(&format!("{} dead letters became rows, {} stay", answer["rows"], answer["open"]));
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use contract::{Processor, Reject, RowBuilder};
    use tokio_util::sync::CancellationToken;

    use super::super::other_version::process_as;
    use super::*;
    use crate::broker::Access;
    use crate::settings::Settings;

    /// An older version, which understands nothing.
    struct Refuses;

    impl Processor for Refuses {
        fn process(&self, _: &RawRecord, _: &mut RowBuilder) -> Result<(), Reject> {
            Err(Reject::new("made", "it is not understood yet"))
        }
    }

    fn record(id: &str, body: String) -> RawRecord {
        let time = Timestamp::parse_rfc3339("2026-01-01T00:00:00Z").unwrap();
        RawRecord { id: id.into(), event_time: time, fetched_at: time, body: body.into() }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_understood_now_becomes_rows_and_the_rest_is_not_logged_again() {
        let home = tempfile::tempdir().unwrap();
        let broker = Arc::new(Broker::open(&Settings::default(), home.path(), Access::Write).await.unwrap());
        let source = acquisition::source("github").unwrap();
        let event = |id: &str| format!(r#"{{"id":"{id}","type":"X","created_at":"2026-01-01T00:00:00Z"}}"#);
        let mut records: Vec<_> = ["1", "2", "3"].map(|id| record(id, event(id))).to_vec();
        records.push(record("4", "no event".to_owned()));
        process_as(&Refuses, &broker, source, records).await;

        let stop = CancellationToken::new();
        let work = broker.start(&stop, &stop).await.unwrap();
        let control = Control::new(broker.clone(), &work, stop.clone());
        let asked = json!({"source": "github"});
        assert_eq!(list(&broker, &asked).await.unwrap()["total"], json!(4));
        let replayed = replay(&control, &asked).await.unwrap();
        assert_eq!(replayed, json!({"replayed": 3, "rows": 3, "open": 1}));
        let again = replay(&control, &asked).await.unwrap();
        assert_eq!(again, json!({"replayed": 0, "rows": 0, "open": 1}));
        let cold = &*broker.engines.cold;
        assert_eq!(output::count(cold, "SELECT count(*) FROM silver.github").await.unwrap(), 3);
        assert_eq!(output::count(cold, "SELECT count(*) FROM bronze.github").await.unwrap(), 7);
        stop.cancel();
        work.drained().await.unwrap();
    }

    #[test]
    fn an_append_is_full_before_a_letter_would_make_it_too_large() {
        let body = Bytes::from(vec![0; HARVEST_BYTES_MAX / 2]);
        let time = Timestamp::default();
        let letter = Letter {
            partition: 0,
            offset: 0,
            id: "1".to_owned(),
            event_time: time,
            fetched_at: time,
            appended_at: time,
            kind: String::new(),
            reason: String::new(),
            body,
        };
        let mut ready = Ready::default();
        for is_full in [false, false, true] {
            assert_eq!(ready.is_full(&letter), is_full);
            ready.push(&letter);
        }
    }
}
