//! The names of all metrics, listed once; `monitoring` describes them to Prometheus from here.

/// What a metric counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution, with the upper bounds of its buckets.
    Histogram(&'static [f64]),
}

/// One metric. The only way to write one: names in the code are these constants.
#[derive(Debug)]
pub struct Metric {
    /// Its name for Prometheus, unit last.
    pub name: &'static str,
    /// What it counts.
    pub kind: MetricKind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// One line for readers.
    pub help: &'static str,
}

const SECONDS: &[f64] = &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

macro_rules! metrics {
    ($($konst:ident = $name:literal, $kind:expr, [$($label:literal),*], $help:literal;)*) => {
        $(#[doc = $help] pub const $konst: Metric =
            Metric { name: $name, kind: $kind, labels: &[$($label),*], help: $help };)*
        /// All of them.
        pub const METRICS: &[Metric] = &[$($konst),*];
    };
}

use MetricKind::{Counter, Gauge, Histogram};
metrics! {
    COLLECTED_RECORDS = "databroker_collected_records_total", Counter, ["source", "collector"], "Records appended to the log.";
    COLLECTED_BYTES = "databroker_collected_bytes_total", Counter, ["source", "collector"], "Bytes of bodies appended to the log.";
    COLLECTOR_ERRORS = "databroker_collector_errors_total", Counter, ["source", "collector"], "Polls that failed.";
    COLLECTOR_LAST_SUCCESS = "databroker_collector_last_success_timestamp_seconds", Gauge, ["source", "collector"], "Unix time of the last poll that succeeded.";
    COLLECTOR_INTERVAL = "databroker_collector_interval_seconds", Gauge, ["source", "collector"], "Time until the next poll is due; 0 where others decide, by pushing, or where there is no more.";
    COVERAGE_MISSED_RECORDS = "databroker_coverage_missed_records_total", Counter, ["source", "collector"], "Records known to be missed, estimated.";
    RECEIVED_RECORDS = "databroker_received_records_total", Counter, ["source", "collector"], "Records that were pushed to a collector, kept or not: those collected, queued and lost together.";
    LOST_RECORDS = "databroker_lost_records_total", Counter, ["source", "collector", "reason"], "Records that were pushed to a collector and not kept, by reason.";
    QUEUED_RECORDS = "databroker_queued_records", Gauge, ["source", "collector"], "Records that were pushed to a collector and wait for its next harvest.";
    CONNECTIONS = "databroker_source_connections", Gauge, ["source", "collector"], "Connections that push to a collector.";
    CONNECTIONS_CLOSED = "databroker_source_connections_closed_total", Counter, ["source", "collector", "reason"], "Connections to a collector that ended, by reason; `stopped` is as it should be.";
    HTTP_REQUESTS = "databroker_source_http_requests_total", Counter, ["source", "status"], "Requests to the source, by status.";
    RATE_LIMIT_REMAINING = "databroker_source_rate_limit_remaining", Gauge, ["source"], "Requests the source still grants in its window.";
    ADDRESSES_REFUSED = "databroker_source_addresses_refused_total", Counter, ["source", "why"], "Requests not made because of where they would have gone: an address inside, a scheme, a port.";
    LOG_APPEND_SECONDS = "databroker_log_append_seconds", Histogram(SECONDS), [], "Time of one append with its fsync.";
    LOG_BYTES = "databroker_log_bytes", Gauge, [], "Bytes of the log on disk.";
    LOG_FULL = "databroker_log_full", Gauge, [], "1 while the log takes nothing because its disk cap is reached.";
    LOG_DAMAGED_FRAMES = "databroker_log_damaged_frames_total", Counter, [], "Frames of the log found damaged and put into quarantine.";
    KAFKA_CONNECTIONS = "databroker_kafka_connections", Gauge, [], "Connections of Kafka's clients to the embedded log.";
    KAFKA_CLOSED = "databroker_kafka_connections_closed_total", Counter, ["reason"], "Connections of Kafka's clients that ended otherwise than by the client, by reason.";
    KAFKA_REQUESTS = "databroker_kafka_requests_total", Counter, ["api"], "Requests of Kafka's clients, by API.";
    KAFKA_ERRORS = "databroker_kafka_errors_total", Counter, ["api", "error"], "Errors that Kafka's clients were told, by API and Kafka's name of the error.";
    PROCESSED_RECORDS = "databroker_processed_records_total", Counter, ["source"], "Records read from the log.";
    PROCESSED_ROWS = "databroker_processed_rows_total", Counter, ["source"], "Records that became rows.";
    DUPLICATES = "databroker_duplicate_records_total", Counter, ["source"], "Records whose id stands at a lower offset.";
    REJECTS = "databroker_rejected_records_total", Counter, ["source", "kind"], "Records that became dead letters, by kind of reason.";
    LAG_RECORDS = "databroker_consumer_lag_records", Gauge, ["source", "store"], "Offsets in the log that the store has not committed.";
    LAG_SECONDS = "databroker_consumer_lag_seconds", Gauge, ["source", "store"], "Age of the oldest record that the store has not committed.";
    COMMIT_SECONDS = "databroker_store_commit_seconds", Histogram(SECONDS), ["source", "store"], "Time of one commit of a store.";
    COMMITTED_ROWS = "databroker_store_committed_rows_total", Counter, ["source", "store"], "Rows committed to a store.";
    END_TO_END_SECONDS = "databroker_end_to_end_seconds", Histogram(SECONDS), ["source", "store"], "From the append to the commit of a store, per batch.";
    HOT_INDICES = "databroker_hot_indices", Gauge, ["source"], "Indices of the hot store.";
    HOT_EXPIRED = "databroker_hot_expired_indices_total", Counter, ["source"], "Indices removed by retention.";
    HOT_WAITING = "databroker_hot_expiry_waiting_indices", Gauge, ["source"], "Indices past the retention that wait for the cold store.";
    HOT_BULK_ITEMS = "databroker_hot_bulk_items_total", Counter, ["source", "outcome"], "Items of bulk requests to Elasticsearch, by what became of them: written; there already in the same or a newer version; retried; refused for good.";
    MAINTENANCE_SECONDS = "databroker_cold_maintenance_seconds", Histogram(SECONDS), [], "Time of one maintenance of the cold store.";
    VIEW_RUNS = "databroker_view_runs_total", Counter, ["view", "outcome"], "Runs of a view's batch layer: `done`, `nothing` where no row came since, or `failed`.";
    VIEW_RUN_SECONDS = "databroker_view_run_seconds", Histogram(SECONDS), ["view"], "Time of one run of a view's batch layer.";
    VIEW_LAST_SUCCESS = "databroker_view_last_success_timestamp_seconds", Gauge, ["view"], "Unix time of the last run of a view that did not fail.";
    SEARCH_SECONDS = "databroker_query_seconds", Histogram(SECONDS), ["kind"], "Time of one query, by kind: search, view, sql over HTTP, or SQL's other protocols, postgres and flight.";
    TAILS = "databroker_tails", Gauge, [], "Clients that follow a source's rows.";
    SQL_CONNECTIONS = "databroker_sql_connections", Gauge, ["protocol"], "Connections of SQL clients, by protocol: postgres or flight.";
    SQL_STATEMENTS = "databroker_sql_statements_total", Counter, ["protocol", "outcome"], "Statements of SQL clients, by protocol and outcome: answered, failed, cancelled, or left by their client.";
    UP = "databroker_up", Gauge, ["version"], "1 while the process runs.";
}

impl Metric {
    /// Adds to a counter; `labels` are the values in the order of [`Metric::labels`].
    ///
    /// # Panics
    /// Here and below: if the number of labels differs.
    pub fn add(&self, labels: &[&str], count: u64) {
        metrics::counter!(self.name, self.pairs(labels)).increment(count);
    }

    /// Sets a gauge.
    pub fn set(&self, labels: &[&str], value: f64) {
        metrics::gauge!(self.name, self.pairs(labels)).set(value);
    }

    /// Notes a value of a histogram.
    pub fn observe(&self, labels: &[&str], value: f64) {
        metrics::histogram!(self.name, self.pairs(labels)).record(value);
    }

    fn pairs(&self, values: &[&str]) -> Vec<metrics::Label> {
        assert_eq!(self.labels.len(), values.len(), "labels of `{}`", self.name);
        self.labels.iter().zip(values).map(|(&name, &value)| metrics::Label::new(name, value.to_owned())).collect()
    }
}
