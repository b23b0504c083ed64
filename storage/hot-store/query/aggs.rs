//! Aggregations as they are asked.
//! Source: <https://www.elastic.co/guide/en/elasticsearch/reference/8.19/search-aggregations.html>.
//!
//! tantivy's own do the counting. Ranges, date ranges, filters, what is missing, and calendar intervals of
//! unequal length are counted as one filter for each bucket: tantivy's ranges add buckets of their own and may not overlap.

use serde_json::Value;

pub(super) use super::aggs_parse::parse;
use super::ast::{Node, Scalar};
use super::source_filter::SourceFilter;

/// One aggregation.
#[derive(Clone, Debug)]
pub(super) struct Aggregation {
    pub(super) kind: Kind,
    pub(super) subs: Vec<(String, Aggregation)>,
    /// Handed back as it came.
    pub(super) meta: Option<Value>,
}

/// What it does.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    Terms(Terms),
    Histogram(Histogram),
    DateHistogram(DateHistogram),
    Ranges(Ranges),
    Filters(Filters),
    Missing { field: String },
    Metric(Metric),
    Percentiles { field: String, percents: Vec<f64>, keyed: bool },
    TopHits(TopHits),
}

#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub(super) field: String,
    pub(super) size: u32,
    /// Terms that each segment hands in.
    pub(super) segment_size: u32,
    pub(super) min_doc_count: u64,
    /// `_count`, `_key` or the path of a metric.
    pub(super) order_by: String,
    pub(super) descending: bool,
    pub(super) missing: Option<Scalar>,
    pub(super) include: Option<Value>,
    pub(super) exclude: Option<Value>,
}

#[derive(Clone, Debug)]
pub(super) struct Histogram {
    pub(super) field: String,
    pub(super) interval: f64,
    pub(super) offset: f64,
    pub(super) min_doc_count: u64,
    pub(super) keyed: bool,
    pub(super) extended_bounds: Option<(f64, f64)>,
    pub(super) hard_bounds: Option<(f64, f64)>,
}

#[derive(Clone, Debug)]
pub(super) struct DateHistogram {
    pub(super) field: String,
    pub(super) interval: Interval,
    pub(super) offset_millis: i64,
    pub(super) zone_seconds: i64,
    pub(super) min_doc_count: u64,
    pub(super) keyed: bool,
    pub(super) extended_bounds: Option<(Scalar, Scalar)>,
    pub(super) hard_bounds: Option<(Scalar, Scalar)>,
    pub(super) format: DateFormat,
}

/// The length of a bucket of dates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interval {
    /// Milliseconds, and where the buckets start from 1970.
    Fixed { millis: i64, start_millis: i64 },
    /// `M`, `q` or `y`: a month, quarter or year.
    Calendar(u8),
}

/// How `key_as_string` is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DateFormat {
    Full,
    Day,
    Millis,
}

impl DateFormat {
    pub(super) fn write(self, micros: i64, zone_seconds: i64) -> String {
        let full = super::date_math::write(micros, zone_seconds);
        match self {
            Self::Full => full,
            Self::Day => full.split('T').next().unwrap_or_default().to_owned(),
            Self::Millis => micros.div_euclid(1_000).to_string(),
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Ranges {
    pub(super) field: String,
    pub(super) ranges: Vec<RangeBucket>,
    pub(super) keyed: bool,
    /// `date_range`.
    pub(super) is_date: bool,
    pub(super) format: Option<String>,
    pub(super) time_zone: Option<String>,
}

/// From inclusive, to exclusive.
#[derive(Clone, Debug)]
pub(super) struct RangeBucket {
    pub(super) key: Option<String>,
    pub(super) from: Option<Scalar>,
    pub(super) to: Option<Scalar>,
}

/// `filter` and `filters`.
#[derive(Clone, Debug)]
pub(super) struct Filters {
    pub(super) filters: Vec<(String, Node)>,
    pub(super) form: FiltersForm,
}

/// How the buckets of filters are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FiltersForm {
    /// `filter`: one bucket, which is the answer.
    Single,
    List,
    Keyed,
}

#[derive(Clone, Debug)]
pub(super) struct Metric {
    /// `avg`, `sum`, `min`, `max`, `value_count`, `stats`, `extended_stats`, `cardinality`.
    pub(super) name: &'static str,
    pub(super) field: String,
    pub(super) missing: Option<f64>,
    pub(super) sigma: Option<f64>,
}

#[derive(Clone, Debug)]
pub(super) struct TopHits {
    pub(super) from: usize,
    pub(super) size: usize,
    /// Columns of numbers or dates, and whether falling.
    pub(super) sort: Vec<(String, bool)>,
    pub(super) source: SourceFilter,
}
