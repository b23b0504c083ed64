//! What tantivy counted in the shape of Elasticsearch's answer: dates in milliseconds, whole keys as whole numbers.

use contract::{Column, Kind as ColumnKind, Timestamp};
use serde_json::{Map, Number, Value, json};
use tantivy::aggregation::Key;
use tantivy::aggregation::agg_result::{
    AggregationResult, AggregationResults, BucketEntries, BucketEntry, BucketResult, MetricResult,
};
use tantivy::aggregation::metric::{PercentileValues, SingleMetricResult, TopHitsMetricResult};
use tantivy::collector::TopDocs;
use tantivy::query::{BooleanQuery, Query};
use tantivy::schema::OwnedValue;
use tantivy::{Term, u64_to_i64};

use super::aggs::{Aggregation, DateFormat, DateHistogram, FiltersForm, Interval, Kind, Ranges, TopHits};
use super::aggs_build::{Aggregating, bucket_name};
use super::ast::Scalar;
use super::date_math::{self, DateReader};
use super::error::{Result, bad, engine};
use super::execute::document;
use crate::fields::exactly;

/// Rows that the `top_hits` of one request read.
const ROWS_MAX: usize = 10_000;

/// A bucket with its name, by which keyed answers list it.
type Named = (String, Map<String, Value>);

/// Writes the answers of one request.
pub(super) struct Shaper<'a> {
    aggregating: &'a Aggregating<'a>,
    rows: usize,
}

impl<'a> Shaper<'a> {
    pub(super) fn new(aggregating: &'a Aggregating<'a>) -> Self {
        Self { aggregating, rows: 0 }
    }

    /// The answers of aggregations side by side over `rows` rows.
    pub(super) fn level(
        &mut self,
        aggregations: &[(String, Aggregation)],
        results: &AggregationResults,
        rows: u64,
    ) -> Result<Map<String, Value>> {
        let mut shaped = Map::new();
        for (name, aggregation) in aggregations {
            let mut answer = self.one(name, aggregation, results, rows)?;
            if let (Some(meta), Value::Object(answer)) = (&aggregation.meta, &mut answer) {
                answer.insert("meta".to_owned(), meta.clone());
            }
            shaped.insert(name.clone(), answer);
        }
        Ok(shaped)
    }

    fn one(&mut self, name: &str, asked: &Aggregation, results: &AggregationResults, rows: u64) -> Result<Value> {
        let result = results.0.get(name);
        match (&asked.kind, result) {
            (Kind::Filters(filters), _) => {
                let names = filters.filters.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
                let buckets = self.filter_buckets(name, names.len(), asked, results)?;
                Ok(match filters.form {
                    FiltersForm::Single => Value::Object(buckets.into_iter().next().unwrap_or_default()),
                    FiltersForm::List => json!({ "buckets": buckets }),
                    FiltersForm::Keyed => {
                        let named = names.into_iter().zip(buckets.into_iter().map(Value::Object));
                        json!({ "buckets": named.collect::<Map<_, _>>() })
                    }
                })
            }
            (Kind::Missing { .. }, _) => {
                let buckets = self.filter_buckets(name, 1, asked, results)?;
                Ok(Value::Object(buckets.into_iter().next().unwrap_or_default()))
            }
            (Kind::Ranges(ranges), _) => self.ranges(name, ranges, asked, results),
            (Kind::DateHistogram(histogram @ DateHistogram { interval: Interval::Calendar(unit), .. }), _) => {
                self.calendar(name, histogram, *unit, asked, results)
            }
            (_, Some(AggregationResult::BucketResult(bucket))) => self.buckets(asked, bucket),
            (_, Some(AggregationResult::MetricResult(metric))) => self.metric(&asked.kind, metric, rows),
            (_, None) => Ok(json!({})),
        }
    }

    fn buckets(&mut self, asked: &Aggregation, result: &BucketResult) -> Result<Value> {
        match (result, &asked.kind) {
            (BucketResult::Terms { buckets, sum_other_doc_count, doc_count_error_upper_bound }, Kind::Terms(terms)) => {
                let column = self.aggregating.column(&terms.field)?;
                let mut shaped = Vec::new();
                for bucket in buckets {
                    let entry = term_key(bucket, column);
                    shaped.push(Value::Object(self.bucket(entry, bucket.doc_count, asked, &bucket.sub_aggregation)?));
                }
                Ok(json!({
                    "doc_count_error_upper_bound": doc_count_error_upper_bound.unwrap_or(0),
                    "sum_other_doc_count": sum_other_doc_count,
                    "buckets": shaped,
                }))
            }
            (BucketResult::Histogram { buckets }, Kind::Histogram(histogram)) => {
                let key = |bucket: &BucketEntry| {
                    let key = key_number(&bucket.key);
                    (float_text(key), Map::from_iter([("key".to_owned(), float(key))]))
                };
                self.histogram(buckets, asked, histogram.keyed, &key)
            }
            (BucketResult::Histogram { buckets }, Kind::DateHistogram(histogram)) => {
                let key = |bucket: &BucketEntry| {
                    let value = key_number(&bucket.key);
                    // With a text tantivy answers milliseconds, else the nanoseconds that it counted in.
                    let millis = if bucket.key_as_string.is_some() { value } else { value / 1_000_000.0 };
                    date_key(millis.round() as i64 * 1_000, histogram)
                };
                self.histogram(buckets, asked, histogram.keyed, &key)
            }
            _ => Ok(json!({})),
        }
    }

    fn histogram(
        &mut self,
        buckets: &BucketEntries<BucketEntry>,
        asked: &Aggregation,
        keyed: bool,
        key: &dyn Fn(&BucketEntry) -> Named,
    ) -> Result<Value> {
        let mut shaped = Vec::new();
        for bucket in buckets.iter() {
            let (name, entry) = key(bucket);
            shaped.push((name, self.bucket(entry, bucket.doc_count, asked, &bucket.sub_aggregation)?));
        }
        Ok(listed(shaped, keyed))
    }

    /// A bucket: its key, its count, and what its aggregations say.
    fn bucket(
        &mut self,
        mut entry: Map<String, Value>,
        rows: u64,
        asked: &Aggregation,
        results: &AggregationResults,
    ) -> Result<Map<String, Value>> {
        entry.insert("doc_count".to_owned(), json!(rows));
        entry.extend(self.level(&asked.subs, results, rows)?);
        Ok(entry)
    }

    /// The buckets that were counted by filters.
    fn filter_buckets(
        &mut self,
        name: &str,
        count: usize,
        asked: &Aggregation,
        results: &AggregationResults,
    ) -> Result<Vec<Map<String, Value>>> {
        let mut shaped = Vec::with_capacity(count);
        let empty = AggregationResults::default();
        for number in 0..count {
            let (rows, subs) = match results.0.get(&bucket_name(name, number)) {
                Some(AggregationResult::BucketResult(BucketResult::Filter(filter))) => {
                    (filter.doc_count, &filter.sub_aggregations)
                }
                _ => (0, &empty),
            };
            shaped.push(self.bucket(Map::new(), rows, asked, subs)?);
        }
        Ok(shaped)
    }

    fn ranges(
        &mut self,
        name: &str,
        ranges: &Ranges,
        asked: &Aggregation,
        results: &AggregationResults,
    ) -> Result<Value> {
        let buckets = self.filter_buckets(name, ranges.ranges.len(), asked, results)?;
        let dates = DateReader::new(self.aggregating.now, ranges.format.as_deref(), ranges.time_zone.as_deref())?;
        let mut shaped = Vec::new();
        for (range, counted) in ranges.ranges.iter().zip(buckets) {
            let mut entry = Map::new();
            let mut ends = Vec::new();
            for (key, end) in [("from", &range.from), ("to", &range.to)] {
                let Some(end) = end else {
                    ends.push("*".to_owned());
                    continue;
                };
                let (value, text) = if ranges.is_date {
                    let time = dates.read(end, false)?;
                    let text = date_math::write(time.0, 0);
                    entry.insert(format!("{key}_as_string"), json!(text));
                    (time.0.div_euclid(1_000) as f64, text)
                } else {
                    let value = end.text().parse().unwrap_or(f64::NAN);
                    (value, float_text(value))
                };
                entry.insert(key.to_owned(), json!(value));
                ends.push(text);
            }
            let key = range.key.clone().unwrap_or_else(|| ends.join("-"));
            entry.extend(counted);
            shaped.push((range.from.clone(), range.to.clone(), key, entry));
        }
        // Elasticsearch answers ranges by their start.
        let start = |end: &Option<Scalar>, none: f64| match end {
            None => none,
            Some(end) if ranges.is_date => dates.read(end, false).map_or(none, |time| time.0 as f64),
            Some(end) => end.text().parse().unwrap_or(none),
        };
        shaped.sort_by(|left, right| {
            let order = |range: &(Option<Scalar>, Option<Scalar>, String, Map<String, Value>)| {
                (start(&range.0, f64::NEG_INFINITY), start(&range.1, f64::INFINITY))
            };
            let (left, right) = (order(left), order(right));
            left.0.total_cmp(&right.0).then(left.1.total_cmp(&right.1))
        });
        let mut named = Vec::new();
        for (_, _, key, mut entry) in shaped {
            if !ranges.keyed {
                entry.insert("key".to_owned(), json!(key));
            }
            named.push((key, entry));
        }
        Ok(listed(named, ranges.keyed))
    }

    fn calendar(
        &mut self,
        name: &str,
        histogram: &DateHistogram,
        unit: u8,
        asked: &Aggregation,
        results: &AggregationResults,
    ) -> Result<Value> {
        let starts = self.aggregating.calendar(histogram, unit)?;
        let counted = self.filter_buckets(name, starts.len(), asked, results)?;
        let rows = |bucket: &Map<String, Value>| bucket.get("doc_count").and_then(Value::as_u64).unwrap_or(0);
        // Between the first and last bucket with rows, unless bounds widen it.
        let wide = histogram.extended_bounds.is_some() && histogram.min_doc_count == 0;
        let first = if wide { Some(0) } else { counted.iter().position(|bucket| rows(bucket) > 0) };
        let last =
            if wide { counted.len().checked_sub(1) } else { counted.iter().rposition(|bucket| rows(bucket) > 0) };
        let mut shaped = Vec::new();
        for (place, ((start, _), bucket)) in starts.into_iter().zip(counted).enumerate() {
            let within = first.is_some_and(|first| place >= first) && last.is_some_and(|last| place <= last);
            if within && rows(&bucket) >= histogram.min_doc_count {
                let (key, mut entry) = date_key(start, histogram);
                entry.extend(bucket);
                shaped.push((key, entry));
            }
        }
        Ok(listed(shaped, histogram.keyed))
    }

    fn metric(&mut self, kind: &Kind, result: &MetricResult, rows: u64) -> Result<Value> {
        let field = match kind {
            Kind::Metric(metric) if !["value_count", "cardinality"].contains(&metric.name) => Some(&metric.field),
            Kind::Percentiles { field, .. } => Some(field),
            _ => None,
        };
        let column = field.map(|field| self.aggregating.column(field)).transpose()?.flatten();
        let is_date = column.is_some_and(|column| column.kind == ColumnKind::Timestamp);
        match (result, kind) {
            (MetricResult::TopHits(hits), Kind::TopHits(top)) => self.top_hits(top, hits, rows),
            (MetricResult::Count(single) | MetricResult::Cardinality(single), _) => {
                Ok(json!({ "value": single.value.unwrap_or(0.0).round() as u64 }))
            }
            (
                MetricResult::Average(single)
                | MetricResult::Max(single)
                | MetricResult::Min(single)
                | MetricResult::Sum(single),
                _,
            ) => Ok(single_value(single, is_date)),
            (MetricResult::Stats(stats), _) => Ok(in_millis(serde_json::to_value(stats), is_date)),
            (MetricResult::ExtendedStats(stats), _) => Ok(in_millis(serde_json::to_value(stats), is_date)),
            (MetricResult::Percentiles(found), Kind::Percentiles { keyed, .. }) => {
                Ok(percentiles(&found.values, *keyed, is_date))
            }
            _ => Ok(json!({})),
        }
    }

    fn top_hits(&mut self, top: &TopHits, found: &TopHitsMetricResult, rows: u64) -> Result<Value> {
        let mut hits = Vec::new();
        for entry in found.hits.iter().skip(top.from).take(top.size) {
            self.rows += 1;
            if self.rows > ROWS_MAX {
                return Err(bad(
                    "too_many_buckets_exception",
                    format!("[top_hits] of more than {ROWS_MAX} rows in all"),
                ));
            }
            let place = |name: &str| match entry.doc_value_fields.get(name) {
                Some(OwnedValue::Array(values)) => match values.first() {
                    Some(OwnedValue::I64(number)) => Some(*number),
                    _ => None,
                },
                _ => None,
            };
            let (Some(partition), Some(offset)) = (place("_partition"), place("_offset")) else {
                continue;
            };
            if let Some(mut hit) = self.hit(top, partition, offset)? {
                if !top.sort.is_empty() {
                    let mut sort = Vec::new();
                    for ((field, _), value) in top.sort.iter().zip(&entry.sort) {
                        let column = self.aggregating.column(field)?;
                        let is_date = column.is_some_and(|column| column.kind == ColumnKind::Timestamp);
                        let unit = if is_date { 1_000_000 } else { 1 };
                        sort.push(value.map(|value| u64_to_i64(value).div_euclid(unit)));
                    }
                    hit.insert("sort".to_owned(), json!(sort));
                }
                hits.push(hit);
            }
        }
        Ok(json!({ "hits": { "total": { "value": rows, "relation": "eq" }, "max_score": null, "hits": hits } }))
    }

    /// The row at an offset; none if it was replaced meanwhile.
    fn hit(&self, top: &TopHits, partition: i64, offset: i64) -> Result<Option<Map<String, Value>>> {
        for index in self.aggregating.indices {
            let term = |name: &str, value: i64| -> Option<Box<dyn Query>> {
                let (_, field) = index.fields.column(name)?;
                Some(exactly(Term::from_field_i64(field, value)))
            };
            let (Some(partition), Some(offset)) = (term("_partition", partition), term("_offset", offset)) else {
                continue;
            };
            let query = BooleanQuery::intersection(vec![partition, offset]);
            let found = index.searcher.search(&query, &TopDocs::with_limit(1).order_by_score()).map_err(engine)?;
            if let Some((_, address)) = found.first() {
                let (id, row) = document(index, *address)?;
                let mut hit = Map::new();
                hit.insert("_index".to_owned(), json!(index.name));
                hit.insert("_id".to_owned(), json!(id));
                hit.insert("_score".to_owned(), Value::Null);
                hit.extend(top.source.apply(row).map(|source| ("_source".to_owned(), source)));
                return Ok(Some(hit));
            }
        }
        Ok(None)
    }
}

fn listed(buckets: Vec<Named>, keyed: bool) -> Value {
    if keyed {
        let named = buckets.into_iter().map(|(name, bucket)| (name, Value::Object(bucket)));
        json!({ "buckets": named.collect::<Map<_, _>>() })
    } else {
        json!({ "buckets": buckets.into_iter().map(|(_, bucket)| bucket).collect::<Vec<_>>() })
    }
}

fn date_key(micros: i64, histogram: &DateHistogram) -> Named {
    let text = histogram.format.write(micros, histogram.zone_seconds);
    let mut entry = Map::new();
    entry.insert("key_as_string".to_owned(), json!(text));
    entry.insert("key".to_owned(), json!(micros.div_euclid(1_000)));
    (text, entry)
}

fn term_key(bucket: &BucketEntry, column: Option<&Column>) -> Map<String, Value> {
    let mut entry = Map::new();
    let key = match (&bucket.key, column.map(|column| column.kind)) {
        (Key::Str(text), Some(ColumnKind::Timestamp)) => match Timestamp::parse_rfc3339(text) {
            Some(time) => {
                entry.insert("key_as_string".to_owned(), json!(DateFormat::Full.write(time.0, 0)));
                json!(time.0.div_euclid(1_000))
            }
            None => json!(text),
        },
        (Key::Str(text), _) => json!(text),
        (key, _) => number(key_number(key)),
    };
    if let Some(text) = &bucket.key_as_string {
        entry.insert("key_as_string".to_owned(), json!(text));
    }
    // Beyond 2^53 a float would not be the number.
    let key = match &bucket.key {
        Key::I64(integer) => json!(integer),
        Key::U64(integer) => json!(integer),
        _ => key,
    };
    entry.insert("key".to_owned(), key);
    entry
}

fn key_number(key: &Key) -> f64 {
    match key {
        Key::Str(text) => text.parse().unwrap_or(f64::NAN),
        Key::I64(number) => *number as f64,
        Key::U64(number) => *number as f64,
        Key::F64(number) => *number,
    }
}

/// Whole numbers without a fraction.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 9e15 { json!(value as i64) } else { float(value) }
}

/// What is no number is null.
fn float(value: f64) -> Value {
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}

/// As Elasticsearch writes a float in a key: `10.0`.
fn float_text(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 9e15 { format!("{value:.1}") } else { value.to_string() }
}

fn single_value(single: &SingleMetricResult, is_date: bool) -> Value {
    let value = single.value.map_or(Value::Null, |value| float(if is_date { value / 1_000_000.0 } else { value }));
    match single.value {
        Some(nanos) if is_date => {
            json!({ "value": value, "value_as_string": date_math::write((nanos / 1_000.0) as i64, 0) })
        }
        _ => json!({ "value": value }),
    }
}

/// Statistics of dates in milliseconds; those that are squares are left out.
fn in_millis(stats: serde_json::Result<Value>, is_date: bool) -> Value {
    let Ok(Value::Object(mut stats)) = stats else {
        return json!({});
    };
    if stats.get("std_deviation_bounds").is_some_and(Value::is_null) {
        let names = ["lower", "lower_population", "lower_sampling", "upper", "upper_population", "upper_sampling"];
        let nothing = names.map(|name| (name.to_owned(), Value::Null));
        stats.insert("std_deviation_bounds".to_owned(), Value::Object(nothing.into_iter().collect()));
    }
    if is_date {
        stats.retain(|name, _| ["count", "min", "max", "avg", "sum"].contains(&name.as_str()));
        for name in ["min", "max", "avg", "sum"] {
            if let Some(nanos) = stats.get(name).and_then(Value::as_f64) {
                stats.insert(name.to_owned(), float(nanos / 1_000_000.0));
                stats.insert(format!("{name}_as_string"), json!(date_math::write((nanos / 1_000.0) as i64, 0)));
            }
        }
    }
    Value::Object(stats)
}

fn percentiles(values: &PercentileValues, keyed: bool, is_date: bool) -> Value {
    let entries: Vec<(f64, f64)> = match values {
        PercentileValues::Vec(entries) => entries.iter().map(|entry| (entry.key, entry.value)).collect(),
        PercentileValues::HashMap(entries) => {
            entries.iter().map(|(key, value)| (key.parse().unwrap_or(f64::NAN), *value)).collect()
        }
    };
    let millis = |value: f64| if is_date { value / 1_000_000.0 } else { value };
    if keyed {
        let named = entries.into_iter().map(|(key, value)| (float_text(key), float(millis(value))));
        json!({ "values": named.collect::<Map<_, _>>() })
    } else {
        let listed = entries.into_iter().map(|(key, value)| json!({ "key": key, "value": float(millis(value)) }));
        json!({ "values": listed.collect::<Vec<_>>() })
    }
}
