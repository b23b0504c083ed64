//! Aggregations as tantivy's: built for each index, collected, merged.

use contract::{Column, Kind as ColumnKind, Timestamp};
use serde_json::{Value, json};
use tantivy::aggregation::agg_req::{Aggregation as Built, AggregationVariants, Aggregations};
use tantivy::aggregation::bucket::{FilterAggregation, QueryBuilder};
use tantivy::aggregation::intermediate_agg_result::IntermediateAggregationResults;
use tantivy::aggregation::{AggContextParams, AggregationLimitsGuard, DistributedAggregationCollector};
use tantivy::query::{EmptyQuery, Query};
use tantivy::schema::Schema;
use tantivy::tokenizer::TokenizerManager;
use tantivy::{DateTime, TantivyError};

use super::aggs::{Aggregation, DateHistogram, Histogram, Interval, Kind, Ranges, Terms, TopHits};
use super::aggs_shape::Shaper;
use super::ast::{BoolNode, Leaf, Limit, Node, RangeTest, Scalar, Target, Test};
use super::compile::Compiler;
use super::compile_leaf::type_name;
use super::date_math::{self, DateReader};
use super::error::{Result, bad, engine, illegal};
use super::sort::sortable;
use crate::index::OpenIndex;

/// Bytes that the buckets of one request may hold while they are counted.
const MEMORY_BYTES_MAX: u64 = 256 << 20;

/// Buckets that one request answers: Elasticsearch's `search.max_buckets`.
const BUCKETS_MAX: u32 = 65_536;

/// Buckets that are counted by a filter; each holds a bit for every row of a segment.
const FILTERS_MAX: usize = 128;

/// The name under which tantivy finds no column.
const UNMAPPED: &str = "_unmapped_";

const NANOS_PER_MILLI: f64 = 1_000_000.0;

/// A query that was compiled before, as the filter of an aggregation.
#[derive(Debug)]
struct Compiled(Box<dyn Query>);

/// tantivy can send aggregations to other machines and asks for what that needs; here they stay.
impl serde::Serialize for Compiled {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

impl QueryBuilder for Compiled {
    fn build_query(&self, _: &Schema, _: &TokenizerManager) -> std::result::Result<Box<dyn Query>, TantivyError> {
        Ok(self.0.box_clone())
    }

    fn box_clone(&self) -> Box<dyn QueryBuilder> {
        Box::new(Self(self.0.box_clone()))
    }

    fn typetag_name(&self) -> &'static str {
        "compiled"
    }

    fn typetag_deserialize(&self) {}
}

/// The aggregations of one request while its indices are gone through.
pub(super) struct Aggregating<'a> {
    pub(super) indices: &'a [OpenIndex],
    pub(super) aggregations: &'a [(String, Aggregation)],
    pub(super) now: Timestamp,
    limits: AggregationLimitsGuard,
    merged: Option<IntermediateAggregationResults>,
}

impl<'a> Aggregating<'a> {
    /// Checks the aggregations against the columns.
    pub(super) fn new(
        indices: &'a [OpenIndex],
        aggregations: &'a [(String, Aggregation)],
        now: Timestamp,
    ) -> Result<Self> {
        let limits = AggregationLimitsGuard::new(Some(MEMORY_BYTES_MAX), Some(BUCKETS_MAX));
        let this = Self { indices, aggregations, now, limits, merged: None };
        this.build(None)?;
        Ok(this)
    }

    /// The collector for one index.
    pub(super) fn collector(&self, index: &OpenIndex) -> Result<DistributedAggregationCollector> {
        let context = AggContextParams::new(self.limits.clone(), TokenizerManager::default());
        Ok(DistributedAggregationCollector::from_aggs(self.build(Some(index))?, context))
    }

    /// Takes in what an index counted.
    pub(super) fn add(&mut self, counted: IntermediateAggregationResults) -> Result<()> {
        match &mut self.merged {
            None => self.merged = Some(counted),
            Some(merged) => merged.merge_fruits(counted).map_err(engine)?,
        }
        Ok(())
    }

    /// The answer; `total` is how many rows were aggregated.
    pub(super) fn finish(self, total: u64) -> Result<Value> {
        let request = self.build(None)?;
        let merged = self.merged.clone().unwrap_or_default();
        let results = merged.into_final_result(request, self.limits.clone()).map_err(engine)?;
        Shaper::new(&self).level(self.aggregations, &results, total).map(Value::Object)
    }

    /// The requests to tantivy; without an index only their form matters.
    fn build(&self, index: Option<&OpenIndex>) -> Result<Aggregations> {
        Builder { aggregating: self, index, filters: 0 }.level(self.aggregations)
    }

    /// The column in any of the indices, if it has values by row; none if there is no such column.
    pub(super) fn column(&self, name: &str) -> Result<Option<&'static Column>> {
        let found = self.indices.iter().find_map(|index| index.fields.column(name));
        found.map(|(column, _)| sortable(column)).transpose()
    }

    /// The first and last microsecond of a column of dates over all indices.
    fn date_span(&self, name: &str) -> Result<Option<(i64, i64)>> {
        let mut span: Option<(i64, i64)> = None;
        for index in self.indices {
            for segment in index.searcher.segment_readers() {
                let column = segment.fast_fields().column_opt::<DateTime>(name).map_err(engine)?;
                let Some(column) = column.filter(|column| column.values.num_vals() > 0) else {
                    continue;
                };
                let first = column.min_value().into_timestamp_micros();
                let last = column.max_value().into_timestamp_micros();
                span = Some(span.map_or((first, last), |(low, high)| (low.min(first), high.max(last))));
            }
        }
        Ok(span)
    }

    /// The buckets of months, quarters or years that hold all of the column: start and end in microseconds.
    pub(super) fn calendar(&self, histogram: &DateHistogram, unit: u8) -> Result<Vec<(i64, i64)>> {
        let mut span = self.date_span(&histogram.field)?;
        let zone = histogram.zone_seconds * 1_000_000;
        let dates = DateReader::new(self.now, None, None)?.in_zone(histogram.zone_seconds);
        if let Some((min, max)) = &histogram.extended_bounds {
            let (min, max) = (dates.read(min, false)?.0, dates.read(max, true)?.0);
            span = Some(span.map_or((min, max), |(low, high)| (low.min(min), high.max(max))));
        }
        if let (Some((low, high)), Some((min, max))) = (span, &histogram.hard_bounds) {
            span = Some((low.max(dates.read(min, false)?.0), high.min(dates.read(max, true)?.0)));
        }
        let mut buckets = Vec::new();
        let Some((low, high)) = span else {
            return Ok(buckets);
        };
        let mut start = low.checked_add(zone).and_then(date_math::civil).and_then(|time| date_math::floor(time, unit));
        while let Some(this) = start.filter(|_| buckets.len() <= FILTERS_MAX) {
            let next = date_math::add(this, unit, 1);
            let (Some(from), Some(to)) = (date_math::micros(this), next.and_then(date_math::micros)) else {
                break;
            };
            if from - zone > high {
                break;
            }
            buckets.push((from - zone, to - zone));
            start = next;
        }
        Ok(buckets)
    }
}

/// The name of one of several filters that count the buckets of an aggregation.
pub(super) fn bucket_name(name: &str, number: usize) -> String {
    format!("{name}\0{number}")
}

struct Builder<'a, 'b> {
    aggregating: &'b Aggregating<'a>,
    index: Option<&'b OpenIndex>,
    filters: usize,
}

impl Builder<'_, '_> {
    fn level(&mut self, aggregations: &[(String, Aggregation)]) -> Result<Aggregations> {
        let mut built = Aggregations::default();
        for (name, aggregation) in aggregations {
            for (name, variant) in self.variants(name, &aggregation.kind)? {
                let sub_aggregation = self.level(&aggregation.subs)?;
                built.insert(name, Built { agg: variant, sub_aggregation });
            }
        }
        Ok(built)
    }

    /// The tantivy aggregations that count one of ours.
    fn variants(&mut self, name: &str, kind: &Kind) -> Result<Vec<(String, AggregationVariants)>> {
        let one = |request: Value| -> Result<Vec<(String, AggregationVariants)>> {
            let variant = serde_json::from_value(request)
                .map_err(|error| illegal(format!("the aggregation [{name}] is not supported: {error}")))?;
            Ok(vec![(name.to_owned(), variant)])
        };
        match kind {
            Kind::Terms(terms) => one(self.terms(terms)?),
            Kind::Histogram(histogram) => one(self.histogram(histogram)?),
            Kind::DateHistogram(histogram) => match histogram.interval {
                Interval::Fixed { millis, start_millis } => {
                    one(self.date_histogram(histogram, millis, start_millis)?)
                }
                Interval::Calendar(unit) => {
                    self.mapped(&histogram.field, "date_histogram", &[ColumnKind::Timestamp])?;
                    let buckets = self.aggregating.calendar(histogram, unit)?;
                    let nodes = buckets.into_iter().map(|(from, to)| micros_range(&histogram.field, from, to));
                    self.filters(name, nodes.collect())
                }
            },
            Kind::Ranges(ranges) => {
                let allowed: &[ColumnKind] = if ranges.is_date { &[ColumnKind::Timestamp] } else { NUMBERS };
                self.mapped(&ranges.field, if ranges.is_date { "date_range" } else { "range" }, allowed)?;
                self.filters(name, range_nodes(ranges))
            }
            Kind::Filters(filters) => {
                self.filters(name, filters.filters.iter().map(|(_, filter)| filter.clone()).collect())
            }
            Kind::Missing { field } => {
                self.aggregating.column(field)?;
                let must_not = vec![leaf(field, Test::Exists)];
                self.filters(name, vec![Node::Bool(BoolNode { must_not, ..BoolNode::default() })])
            }
            Kind::Metric(metric) => {
                let any = ["value_count", "cardinality"].contains(&metric.name);
                let allowed: &[ColumnKind] = if any { ANY } else { NUMBERS_AND_TIMES };
                let (field, column) = self.mapped(&metric.field, metric.name, allowed)?;
                let mut body = json!({ "field": field });
                if let Some(missing) = metric.missing {
                    if column.is_some_and(|column| column.kind == ColumnKind::Timestamp) {
                        return Err(illegal(format!(
                            "[{}] [missing] for a column of dates is not supported",
                            metric.name
                        )));
                    }
                    body["missing"] = json!(missing);
                }
                if let Some(sigma) = metric.sigma {
                    body["sigma"] = json!(sigma);
                }
                one(json!({ metric.name: body }))
            }
            Kind::Percentiles { field, percents, .. } => {
                let (field, _) = self.mapped(field, "percentiles", NUMBERS_AND_TIMES)?;
                one(json!({ "percentiles": { "field": field, "percents": percents, "keyed": false } }))
            }
            Kind::TopHits(top) => one(self.top_hits(top)?),
        }
    }

    /// The name that tantivy is asked with and the column, whose type must be allowed.
    fn mapped(&self, field: &str, name: &str, allowed: &[ColumnKind]) -> Result<(String, Option<&'static Column>)> {
        match self.aggregating.column(field)? {
            None => Ok((UNMAPPED.to_owned(), None)),
            Some(column) if allowed.contains(&column.kind) => Ok((field.to_owned(), Some(column))),
            Some(column) => Err(illegal(format!(
                "Field [{field}] of type [{}] is not supported for aggregation [{name}]",
                type_name(column)
            ))),
        }
    }

    fn terms(&self, terms: &Terms) -> Result<Value> {
        let (field, column) = self.mapped(&terms.field, "terms", ANY)?;
        let mut body = json!({
            "field": field,
            "size": terms.size,
            "segment_size": terms.segment_size,
            "min_doc_count": terms.min_doc_count,
            "order": { terms.order_by.trim_end_matches(".value"): if terms.descending { "desc" } else { "asc" } },
            "show_term_doc_count_error": true,
        });
        if let Some(missing) = &terms.missing {
            body["missing"] = match column.map(|column| column.kind) {
                Some(ColumnKind::Integer) => match missing.text().parse::<i64>() {
                    Ok(number) => json!(number),
                    Err(_) => return Err(illegal(format!("For input string: \"{}\"", missing.text()))),
                },
                Some(ColumnKind::Float) => match missing.text().parse::<f64>() {
                    Ok(number) => json!(number),
                    Err(_) => return Err(illegal(format!("For input string: \"{}\"", missing.text()))),
                },
                Some(ColumnKind::Boolean | ColumnKind::Timestamp) => {
                    return Err(illegal(format!("[terms] [missing] for [{}] is not supported", terms.field)));
                }
                _ => json!(missing.text()),
            };
        }
        for (key, value) in [("include", &terms.include), ("exclude", &terms.exclude)] {
            if let Some(value) = value {
                body[key] = value.clone();
            }
        }
        Ok(json!({ "terms": body }))
    }

    fn histogram(&self, histogram: &Histogram) -> Result<Value> {
        let (field, _) = self.mapped(&histogram.field, "histogram", NUMBERS)?;
        let extended = histogram.extended_bounds.filter(|_| histogram.min_doc_count == 0);
        Ok(histogram_request(
            &field,
            (histogram.interval, histogram.offset),
            histogram.min_doc_count,
            extended,
            histogram.hard_bounds,
        ))
    }

    /// Asked for in nanoseconds, as dates are stored: tantivy's own conversion forgets a segment without any value.
    fn date_histogram(&self, histogram: &DateHistogram, millis: i64, start_millis: i64) -> Result<Value> {
        let (field, _) = self.mapped(&histogram.field, "date_histogram", &[ColumnKind::Timestamp])?;
        let dates = DateReader::new(self.aggregating.now, None, None)?.in_zone(histogram.zone_seconds);
        let nanos = |(min, max): &(Scalar, Scalar)| -> Result<(f64, f64)> {
            let (min, max) = (dates.read(min, false)?.0, dates.read(max, false)?.0);
            if min > max {
                return Err(illegal("[min] of the bounds of a [date_histogram] lies behind [max]"));
            }
            Ok((min as f64 * 1_000.0, max as f64 * 1_000.0))
        };
        let offset = (start_millis + histogram.offset_millis - histogram.zone_seconds * 1_000).rem_euclid(millis);
        let extended = histogram.extended_bounds.as_ref().filter(|_| histogram.min_doc_count == 0);
        Ok(histogram_request(
            &field,
            (millis as f64 * NANOS_PER_MILLI, offset as f64 * NANOS_PER_MILLI),
            histogram.min_doc_count,
            extended.map(nanos).transpose()?,
            histogram.hard_bounds.as_ref().map(nanos).transpose()?,
        ))
    }

    fn top_hits(&self, top: &TopHits) -> Result<Value> {
        let mut sort = Vec::new();
        for (field, descending) in &top.sort {
            let (field, _) = self.mapped(field, "top_hits", NUMBERS_AND_TIMES)?;
            sort.push(json!({ field: if *descending { "desc" } else { "asc" } }));
        }
        sort.extend([json!({ "_partition": "asc" }), json!({ "_offset": "asc" })]);
        let fields = ["_partition", "_offset"];
        Ok(json!({ "top_hits": { "size": top.from + top.size, "sort": sort, "docvalue_fields": fields } }))
    }

    fn filters(&mut self, name: &str, nodes: Vec<Node>) -> Result<Vec<(String, AggregationVariants)>> {
        self.filters += nodes.len();
        if self.filters > FILTERS_MAX {
            return Err(bad(
                "too_many_buckets_exception",
                format!(
                    "Trying to create too many buckets. Must be less than or equal to: [{FILTERS_MAX}] for ranges, filters, \
                     what is missing, and intervals of months or longer"
                ),
            ));
        }
        let mut built = Vec::new();
        for (number, node) in nodes.iter().enumerate() {
            let query: Box<dyn Query> = match self.index {
                Some(index) => Compiler::new(&index.fields, &index.name, self.aggregating.now).query(node)?,
                None => Box::new(EmptyQuery),
            };
            let filter = FilterAggregation::new_with_builder(Box::new(Compiled(query)));
            built.push((bucket_name(name, number), AggregationVariants::Filter(filter)));
        }
        Ok(built)
    }
}

const NUMBERS: &[ColumnKind] = &[ColumnKind::Integer, ColumnKind::Float];
const NUMBERS_AND_TIMES: &[ColumnKind] = &[ColumnKind::Integer, ColumnKind::Float, ColumnKind::Timestamp];
const ANY: &[ColumnKind] = &[
    ColumnKind::Text,
    ColumnKind::TextList,
    ColumnKind::Integer,
    ColumnKind::Float,
    ColumnKind::Boolean,
    ColumnKind::Timestamp,
];

fn histogram_request(
    field: &str,
    (interval, offset): (f64, f64),
    min_doc_count: u64,
    extended_bounds: Option<(f64, f64)>,
    hard_bounds: Option<(f64, f64)>,
) -> Value {
    let bounds = |bounds: Option<(f64, f64)>| bounds.map(|(min, max)| json!({ "min": min, "max": max }));
    // Elasticsearch lets the extended bounds be cut by the hard ones; tantivy refuses them.
    let extended_bounds = match (extended_bounds, hard_bounds) {
        (Some((min, max)), Some((low, high))) => Some((min.clamp(low, high), max.clamp(low, high))),
        (extended, _) => extended,
    };
    json!({ "histogram": {
        "field": field,
        "interval": interval,
        "offset": offset,
        "min_doc_count": min_doc_count,
        "extended_bounds": bounds(extended_bounds),
        "hard_bounds": bounds(hard_bounds),
        "is_normalized_to_ns": true,
    } })
}

fn leaf(field: &str, test: Test) -> Node {
    Node::Leaf(Leaf { target: Target::One(field.to_owned()), test, lenient: false })
}

/// From inclusive, to exclusive, as the exact text of each.
fn micros_range(field: &str, from: i64, to: i64) -> Node {
    let limit = |micros: i64| Scalar::Text(Timestamp(micros).to_string());
    leaf(
        field,
        Test::Range(RangeTest {
            lower: Some(Limit { value: limit(from), included: true }),
            upper: Some(Limit { value: limit(to), included: false }),
            format: None,
            time_zone: None,
        }),
    )
}

fn range_nodes(ranges: &Ranges) -> Vec<Node> {
    let node = |range: &super::aggs::RangeBucket| {
        let limit = |value: &Option<Scalar>, included| value.clone().map(|value| Limit { value, included });
        leaf(
            &ranges.field,
            Test::Range(RangeTest {
                lower: limit(&range.from, true),
                upper: limit(&range.to, false),
                format: ranges.format.clone(),
                time_zone: ranges.time_zone.clone(),
            }),
        )
    };
    ranges.ranges.iter().map(node).collect()
}
