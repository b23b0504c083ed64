//! `dead-letters`: records that could not become rows, and trying them again.

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Int64Type, TimestampMicrosecondType};
use contract::{CollectorId, Cursor, Error, Harvest, RawRecord, RecordId, Result, SourceId, Timestamp, Topic};
use futures::TryStreamExt;
use serde_json::{Value, json};

use super::{Control, sources_of};
use crate::broker::Broker;
use crate::output;

/// Bytes of a body that the list shows.
const SHOWN_BYTES: usize = 200;
/// Dead letters logged again in one append.
const REPLAYED_AT_ONCE: usize = 1_000;

/// Dead letters whose id is not a row by now, the latest of each id.
fn open_letters(source: SourceId) -> String {
    format!(
        "SELECT d._partition, d._offset, d.id, d.event_time, d.fetched_at, d.appended_at, d.kind, d.reason, d.body \
         FROM (SELECT *, row_number() OVER (PARTITION BY id ORDER BY _offset DESC) AS n FROM ops.dead_letters WHERE source = '{source}') d \
         LEFT JOIN (SELECT DISTINCT _id FROM silver.{source}) s ON s._id = d.id WHERE d.n = 1 AND s._id IS NULL"
    )
}

/// `{"total", "dead_letters": [{"source", "partition", "offset", "id", "appended_at", "kind", "reason", "body_bytes", "body"}]}`;
/// `body` is the start of it, as text.
pub(crate) async fn list(broker: &Broker, arguments: &Value) -> Result<Value> {
    let limit = arguments["limit"].as_u64().unwrap_or(20);
    let mut letters = Vec::new();
    let mut total = 0;
    for source in sources_of(arguments)? {
        let open = open_letters(source.id);
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

/// Logs the open dead letters again with their own ids and bytes; what is understood now becomes rows.
pub(crate) async fn replay(control: &Control, arguments: &Value) -> Result<Value> {
    let (mut replayed, mut open) = (0, 0);
    let engines = &control.broker.engines;
    for source in sources_of(arguments)? {
        let letters = letters_of(&control.broker, &open_letters(source.id)).await?;
        for some in letters.chunks(REPLAYED_AT_ONCE) {
            let records = some.iter().map(Letter::record).collect::<Vec<_>>();
            replayed += records.len();
            let collector = CollectorId(format!("{}/replay", source.id));
            let cursor = Cursor(json!({"at": engines.clock.now().to_string()}).to_string());
            let harvest = Harvest {
                source: source.id,
                collector,
                records,
                coverage: Vec::new(),
                cursor,
                poll_again_in: None,
                acknowledge: None,
            };
            engines.log.append(&harvest).await?;
        }
        let extent = engines.log.extent(&Topic::raw(source.id)).await?;
        control.pipeline(source.id)?.bring(extent.end()).await?;
        open += output::count(&*engines.cold, &format!("SELECT count(*) FROM ({})", open_letters(source.id))).await?;
    }
    Ok(json!({"replayed": replayed, "rows": replayed as u64 - open.min(replayed as u64), "open": open}))
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
    body: Vec<u8>,
}

impl Letter {
    fn record(&self) -> RawRecord {
        RawRecord {
            id: RecordId::from(self.id.as_str()),
            event_time: self.event_time,
            fetched_at: self.fetched_at,
            body: self.body.clone().into(),
        }
    }
}

async fn letters_of(broker: &Broker, query: &str) -> Result<Vec<Letter>> {
    let batches: Vec<_> = broker.engines.cold.sql(query).await?.batches.try_collect().await?;
    let mut letters = Vec::new();
    for batch in batches {
        let plain = |place: usize, kind: &DataType| {
            arrow::compute::cast(batch.column(place), kind)
                .map_err(|cause| Error::stop("read dead letters").because(cause))
        };
        let integers = [plain(0, &DataType::Int64)?, plain(1, &DataType::Int64)?];
        let texts = [plain(2, &DataType::Utf8)?, plain(6, &DataType::Utf8)?, plain(7, &DataType::Utf8)?];
        let bodies = plain(8, &DataType::Binary)?;
        let time = |place: usize, row: usize| {
            Timestamp(batch.column(place).as_primitive::<TimestampMicrosecondType>().value(row))
        };
        let text = |place: usize, row: usize| texts[place].as_string::<i32>().value(row).to_owned();
        letters.extend((0..batch.num_rows()).map(|row| Letter {
            partition: integers[0].as_primitive::<Int64Type>().value(row),
            offset: integers[1].as_primitive::<Int64Type>().value(row),
            id: text(0, row),
            event_time: time(3, row),
            fetched_at: time(4, row),
            appended_at: time(5, row),
            kind: text(1, row),
            reason: text(2, row),
            body: bodies.as_binary::<i32>().value(row).to_vec(),
        }));
    }
    Ok(letters)
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
    output::line(&format!(
        "{} dead letters tried again: {} became rows, {} stay",
        answer["replayed"], answer["rows"], answer["open"]
    ));
}
