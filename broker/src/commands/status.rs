//! `status` and `topics`: what is there and how far each store is.

use contract::{ColdDrafts, Result};
use serde_json::{Value, json};

use crate::broker::Broker;
use crate::output;

/// How far a store is behind a source's topic, over all partitions.
pub(crate) struct StoreLag {
    pub(crate) store: &'static str,
    pub(crate) records: i64,
    pub(crate) seconds: f64,
}

/// How far both stores are behind a source's topic.
pub(crate) async fn lags(broker: &Broker, source: &acquisition::Source) -> Result<[StoreLag; 2]> {
    let lags = broker.ends().lags(source).await?;
    Ok(["hot", "cold"].map(|store| {
        let of_store = || lags.iter().filter(|lag| lag.store == store);
        let seconds = of_store().map(|lag| lag.seconds).fold(0.0, f64::max);
        StoreLag { store, records: of_store().map(|lag| lag.records).sum(), seconds }
    }))
}

/// The whole picture as one document.
pub(crate) async fn run(broker: &Broker) -> Result<Value> {
    let engines = &broker.engines;
    let mut topics = serde_json::Map::new();
    for (topic, extent) in engines.log.extents().await? {
        let partitions: Vec<_> = (0..)
            .zip(&extent.partitions)
            .map(|(partition, part)| json!({"partition": partition, "start": part.start, "end": part.end, "bytes": part.bytes}))
            .collect();
        topics.insert(topic.0, json!(partitions));
    }
    let mut sources = serde_json::Map::new();
    for source in broker.sources {
        sources.insert(source.id.0.to_owned(), source_status(broker, source).await?);
    }
    let tables: Vec<_> = broker.cold.tables().await?.into_iter()
        .map(|table| json!({"name": table.name, "version": table.version, "files": table.files, "rows": table.rows, "bytes": table.bytes}))
        .collect();
    Ok(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "data": broker.data,
        "serving": broker.access == crate::broker::Access::Write,
        "topics": topics,
        "sources": sources,
        "cold": broker.cold.location(),
        "tables": tables,
        "notes": broker.notes,
    }))
}

async fn source_status(broker: &Broker, source: &acquisition::Source) -> Result<Value> {
    let engines = &broker.engines;
    let indices = engines.hot.indices(&format!("{}-*", source.id)).await.unwrap_or_default();
    let indices: Vec<_> =
        indices.iter().map(|index| json!({"name": index.name, "rows": index.rows, "bytes": index.bytes})).collect();
    let lag = lags(broker, source).await?;
    let lag: serde_json::Map<_, _> =
        lag.iter().map(|lag| (lag.store.to_owned(), json!({"records": lag.records, "seconds": lag.seconds}))).collect();
    let cursors = engines.log.cursors(&format!("{}/", source.id)).await?;
    let (files, collectors): (Vec<_>, Vec<_>) = cursors.into_iter().partition(|(id, _)| id.0.contains("/file/"));
    let collectors: serde_json::Map<_, _> =
        collectors.into_iter().map(|(id, cursor)| (id.0, output::short_cursor(&cursor.0))).collect();
    let missed = format!(
        "SELECT coalesce(sum(records), 0) FROM ops.coverage WHERE source = '{}' AND kind = 'missed'",
        source.id
    );
    let dead = format!("SELECT count(*) FROM ops.dead_letters WHERE source = '{}'", source.id);
    let rows = format!("SELECT count(*) FROM silver.{}", source.id);
    let previous = broker.cold.previous(source.id).await?;
    let previous = previous.map(
        |previous| json!({"left_at": previous.left_at.to_string(), "kept_until": previous.kept_until.to_string()}),
    );
    Ok(json!({
        "rows": output::count(&*engines.cold, &rows).await?,
        "dead_letters": output::count(&*engines.cold, &dead).await?,
        "missed_records": output::count(&*engines.cold, &missed).await?,
        "lag": lag,
        "indices": indices,
        "collectors": collectors,
        "files_read": files.len(),
        "previous": previous,
    }))
}

/// The document as text.
pub(crate) fn print(answer: &Value) {
    let state = if answer["serving"] == json!(true) { "running" } else { "not running; as of the last commits" };
    output::line(&format!(
        "databroker {} on {} ({state})",
        answer["version"].as_str().unwrap_or_default(),
        answer["data"].as_str().unwrap_or_default()
    ));
    for (name, source) in answer["sources"].as_object().into_iter().flatten() {
        output::line(&format!(
            "{name}: {} rows, {} dead letters, {} records known to be missed, {} files read",
            source["rows"], source["dead_letters"], source["missed_records"], source["files_read"]
        ));
        if let [Some(left), Some(until)] = ["left_at", "kept_until"].map(|time| source["previous"][time].as_str()) {
            output::line(&format!("  rows made anew at {left}; `reprocess {name} --back` goes back until {until}"));
        }
        for (store, lag) in source["lag"].as_object().into_iter().flatten() {
            output::line(&format!(
                "  {store:<5} behind by {} records, {:.1} s",
                lag["records"],
                lag["seconds"].as_f64().unwrap_or_default()
            ));
        }
        for index in source["indices"].as_array().into_iter().flatten() {
            let bytes = output::bytes_short(index["bytes"].as_u64().unwrap_or_default());
            output::line(&format!(
                "  index {:<28} {:>10} rows {bytes:>10}",
                index["name"].as_str().unwrap_or_default(),
                index["rows"]
            ));
        }
        for (collector, cursor) in source["collectors"].as_object().into_iter().flatten() {
            output::line(&format!("  collector {collector}: {}", cursor.as_str().unwrap_or_default()));
        }
    }
    print_topics(answer);
    output::line(&format!("cold store in {}", answer["cold"].as_str().unwrap_or_default()));
    for table in answer["tables"].as_array().into_iter().flatten() {
        let bytes = output::bytes_short(table["bytes"].as_u64().unwrap_or_default());
        let name = table["name"].as_str().unwrap_or_default();
        output::line(&format!(
            "table {name:<24} {:>10} rows {:>6} files {bytes:>10}, version {}",
            table["rows"], table["files"], table["version"]
        ));
    }
    for note in answer["notes"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        output::line(note);
    }
}

/// A line a partition.
pub(crate) fn print_topics(answer: &Value) {
    for (topic, partitions) in answer["topics"].as_object().into_iter().flatten() {
        for part in partitions.as_array().into_iter().flatten() {
            let bytes = output::bytes_short(part["bytes"].as_u64().unwrap_or_default());
            output::line(&format!(
                "topic {topic:<24} partition {} offsets {}..{} {bytes:>10}",
                part["partition"], part["start"], part["end"]
            ));
        }
    }
}
