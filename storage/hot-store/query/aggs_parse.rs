//! Reading aggregations.

use serde_json::Value;

use super::aggs::{
    Aggregation, DateFormat, DateHistogram, Filters, FiltersForm, Histogram, Interval, Kind, Metric, RangeBucket,
    Ranges, Terms, TopHits,
};
use super::ast::{Pattern, Scalar};
use super::error::{Result, illegal, nearest, parsing};
use super::json::Object;
use super::sort::{self, SortBy};
use super::source_filter::SourceFilter;
use super::{date_math, dsl, pattern};

/// Aggregations inside aggregations.
const DEPTH_MAX: usize = 10;

/// Aggregations of one request.
const AGGREGATIONS_MAX: usize = 200;

/// Terms that one aggregation answers: Elasticsearch's `search.max_buckets`.
const TERMS_MAX: u64 = 65_536;

/// Hits of one bucket of `top_hits`: Elasticsearch's `index.max_inner_result_window`.
const TOP_HITS_MAX: u64 = 100;

/// Terms that each segment hands in at least, so that counts are exact for columns of few values.
const SEGMENT_TERMS_MIN: u32 = 1_000;

const METRICS: &[&str] = &["avg", "sum", "min", "max", "value_count", "stats", "extended_stats", "cardinality"];

const KINDS: &[&str] = &[
    "terms",
    "histogram",
    "date_histogram",
    "range",
    "date_range",
    "filter",
    "filters",
    "missing",
    "percentiles",
    "top_hits",
    "avg",
    "sum",
    "min",
    "max",
    "value_count",
    "stats",
    "extended_stats",
    "cardinality",
];

/// Reads `aggs`.
pub(super) fn parse(value: &Value) -> Result<Vec<(String, Aggregation)>> {
    let mut count = 0;
    level(value, 0, &mut count)
}

fn level(value: &Value, depth: usize, count: &mut usize) -> Result<Vec<(String, Aggregation)>> {
    if depth > DEPTH_MAX {
        return Err(illegal(format!("aggregations nested deeper than {DEPTH_MAX} are not supported")));
    }
    let mut found = Vec::new();
    for (name, body) in Object::open("aggs", value)?.map {
        *count += 1;
        if *count > AGGREGATIONS_MAX {
            return Err(illegal(format!("more than {AGGREGATIONS_MAX} aggregations are not supported")));
        }
        if name.is_empty() || name.contains(['[', ']', '>', '\0']) {
            return Err(parsing(format!(
                "Invalid aggregation name [{name}]. Aggregation names can contain any character except '[', ']', and '>'"
            )));
        }
        found.push((name.clone(), one(name, body, depth, count)?));
    }
    Ok(found)
}

fn one(name: &str, body: &Value, depth: usize, count: &mut usize) -> Result<Aggregation> {
    let object = Object::open(name, body)?;
    let mut kind = None;
    let mut subs = Vec::new();
    for (key, value) in object.map {
        match key.as_str() {
            "aggs" | "aggregations" => subs = level(value, depth + 1, count)?,
            "meta" => {}
            key if kind.is_none() => kind = Some((key, value)),
            key => {
                return Err(parsing(format!(
                    "Found two aggregation type definitions in [{name}]: [{}] and [{key}]",
                    kind.map_or("", |(first, _)| first)
                )));
            }
        }
    }
    let Some((key, value)) = kind else {
        return Err(parsing(format!("Missing definition for aggregation [{name}]")));
    };
    let kind = kind_of(key, value)?;
    if !subs.is_empty() && matches!(kind, Kind::Metric(_) | Kind::Percentiles { .. } | Kind::TopHits(_)) {
        return Err(illegal(format!("Aggregator [{name}] of type [{key}] cannot accept sub-aggregations")));
    }
    if let Kind::Terms(terms) = &kind {
        check_order(&terms.order_by, &subs)?;
    }
    Ok(Aggregation { kind, subs, meta: object.get("meta").cloned() })
}

fn kind_of(key: &str, body: &Value) -> Result<Kind> {
    match key {
        "terms" => terms(body).map(Kind::Terms),
        "histogram" => histogram(body).map(Kind::Histogram),
        "date_histogram" => date_histogram(body).map(Kind::DateHistogram),
        "range" | "date_range" => ranges(key, body).map(Kind::Ranges),
        "filter" => {
            let filters = vec![(String::new(), dsl::parse(body)?)];
            Ok(Kind::Filters(Filters { filters, form: FiltersForm::Single }))
        }
        "filters" => filters(body).map(Kind::Filters),
        "missing" => Ok(Kind::Missing { field: field(Object::new("missing", body, &["field"])?)? }),
        "percentiles" => percentiles(body),
        "top_hits" => top_hits(body).map(Kind::TopHits),
        _ => match METRICS.iter().find(|name| **name == key) {
            Some(name) => metric(name, body).map(Kind::Metric),
            None => Err(parsing(format!(
                "Unknown aggregation type [{key}] or it is not supported; {}",
                nearest(key, KINDS)
            ))),
        },
    }
}

fn field(object: Object<'_>) -> Result<String> {
    match object.text("field")? {
        Some(field) => Ok(field.to_owned()),
        None => Err(illegal(format!("Required one of fields [field], but none were specified for [{}]", object.name))),
    }
}

fn terms(body: &Value) -> Result<Terms> {
    let known = [
        "field",
        "size",
        "shard_size",
        "min_doc_count",
        "order",
        "missing",
        "include",
        "exclude",
        "show_term_doc_count_error",
    ];
    let object = Object::new("terms", body, &known)?;
    let size = object.count("size", TERMS_MAX)?.unwrap_or(10) as u32;
    if size == 0 {
        return Err(illegal("[size] must be greater than 0. Found [0] in [terms]"));
    }
    let segment_size = object.count("shard_size", TERMS_MAX)?.unwrap_or(0) as u32;
    let (order_by, descending) = order(object)?;
    let guarded = |key: &str| -> Result<Option<Value>> {
        match object.get(key) {
            // Checked as a query's regular expression is: tantivy builds the same automaton of it.
            Some(Value::String(pattern)) => Ok(Some(pattern::regex(&Pattern::Regexp(pattern.clone()), false)?.into())),
            Some(value) if super::json::texts(value).is_none() => {
                Err(object.wrong(key, "a regular expression or an array of strings", value))
            }
            value => Ok(value.cloned()),
        }
    };
    Ok(Terms {
        field: field(object)?,
        size,
        segment_size: segment_size.max(size.saturating_mul(10)).max(SEGMENT_TERMS_MIN).min(TERMS_MAX as u32),
        min_doc_count: object.count("min_doc_count", u64::MAX)?.unwrap_or(1),
        order_by,
        descending,
        missing: object.get("missing").map(|value| Scalar::from_json(value, "missing")).transpose()?,
        include: guarded("include")?,
        exclude: guarded("exclude")?,
    })
}

/// `{"_count": "desc"}`, or a list whose second is the key, which breaks ties anyway.
fn order(object: Object<'_>) -> Result<(String, bool)> {
    let Some(value) = object.get("order") else {
        return Ok(("_count".to_owned(), true));
    };
    let one = |value: &Value| -> Result<(String, bool)> {
        let (path, direction) = Object::open("order", value)?.single()?;
        let descending = match direction.as_str().map(str::to_ascii_lowercase).as_deref() {
            Some("asc") => false,
            Some("desc") => true,
            _ => return Err(parsing(format!("Unknown order direction [{direction}]"))),
        };
        Ok((if path == "_term" { "_key".to_owned() } else { path.to_owned() }, descending))
    };
    match value {
        Value::Array(items) => match items.as_slice() {
            [single] => one(single),
            [first, second] if one(second)? == ("_key".to_owned(), false) => one(first),
            _ => {
                Err(illegal("[terms] [order] of several keys is not supported but for [_key] ascending as the second"))
            }
        },
        value => one(value),
    }
}

fn check_order(path: &str, subs: &[(String, Aggregation)]) -> Result<()> {
    if path == "_count" || path == "_key" {
        return Ok(());
    }
    let (name, property) = path.split_once('.').unwrap_or((path, ""));
    let known = match subs.iter().find(|(sub, _)| sub == name).map(|(_, sub)| &sub.kind) {
        Some(Kind::Metric(metric)) => match metric.name {
            "stats" => ["count", "sum", "min", "max", "avg"].contains(&property),
            "extended_stats" => {
                let properties = ["count", "sum", "min", "max", "avg", "sum_of_squares", "variance", "std_deviation"];
                properties.contains(&property)
            }
            _ => property.is_empty() || property == "value",
        },
        Some(Kind::Percentiles { percents, .. }) => {
            property.parse().is_ok_and(|wanted: f64| percents.contains(&wanted))
        }
        _ => false,
    };
    if known {
        return Ok(());
    }
    Err(illegal(format!(
        "Invalid aggregator order path [{path}]. The provided aggregation [{name}] either does not exist, or is not a metric \
         with that value"
    )))
}

fn bounds(object: Object<'_>, key: &str) -> Result<Option<(Scalar, Scalar)>> {
    let Some(value) = object.get(key) else {
        return Ok(None);
    };
    let bounds = Object::new(key, value, &["min", "max"])?;
    let end = |key: &str| Scalar::from_json(bounds.need(key)?, key);
    Ok(Some((end("min")?, end("max")?)))
}

fn histogram(body: &Value) -> Result<Histogram> {
    let known = ["field", "interval", "offset", "min_doc_count", "keyed", "extended_bounds", "hard_bounds"];
    let object = Object::new("histogram", body, &known)?;
    let interval = object.number("interval")?.unwrap_or(0.0);
    if interval <= 0.0 {
        return Err(illegal("[interval] must be >0 for histogram aggregation"));
    }
    let number = |(min, max): (Scalar, Scalar)| -> Result<(f64, f64)> {
        let number = |value: Scalar| value.text().parse().ok().filter(|number: &f64| number.is_finite());
        match (number(min), number(max)) {
            (Some(min), Some(max)) if min <= max => Ok((min, max)),
            _ => Err(illegal("bounds of a [histogram] are numbers, [min] not above [max]")),
        }
    };
    Ok(Histogram {
        field: field(object)?,
        interval,
        offset: object.number("offset")?.unwrap_or(0.0).rem_euclid(interval),
        min_doc_count: object.count("min_doc_count", u64::MAX)?.unwrap_or(0),
        keyed: object.boolean("keyed")?.unwrap_or(false),
        extended_bounds: bounds(object, "extended_bounds")?.map(number).transpose()?,
        hard_bounds: bounds(object, "hard_bounds")?.map(number).transpose()?,
    })
}

const MILLIS_PER_DAY: i64 = 86_400_000;

fn date_histogram(body: &Value) -> Result<DateHistogram> {
    let known = [
        "field",
        "fixed_interval",
        "calendar_interval",
        "offset",
        "time_zone",
        "min_doc_count",
        "keyed",
        "extended_bounds",
        "hard_bounds",
        "format",
    ];
    let object = Object::new("date_histogram", body, &known)?;
    let interval = match (object.text("fixed_interval")?, object.text("calendar_interval")?) {
        (Some(fixed), None) => Interval::Fixed { millis: millis(fixed)?, start_millis: 0 },
        (None, Some(calendar)) => calendar_interval(calendar)?,
        (Some(_), Some(_)) => return Err(illegal("Cannot use [fixed_interval] with [calendar_interval]")),
        (None, None) => {
            return Err(illegal(
                "Invalid interval specified, must be non-null: [fixed_interval] or [calendar_interval]",
            ));
        }
    };
    let format = match object.text("format")? {
        None | Some("strict_date_optional_time" | "date_time" | "strict_date_time") => DateFormat::Full,
        Some("yyyy-MM-dd" | "strict_date" | "date") => DateFormat::Day,
        Some("epoch_millis") => DateFormat::Millis,
        Some(other) => {
            return Err(illegal(format!(
                "[date_histogram] [format] [{other}] is not supported; supported are [strict_date_optional_time, yyyy-MM-dd, epoch_millis]"
            )));
        }
    };
    let offset_millis = match object.text("offset")? {
        None => 0,
        Some(offset) => match offset.strip_prefix('-') {
            Some(offset) => -millis(offset)?,
            None => millis(offset.trim_start_matches('+'))?,
        },
    };
    if offset_millis != 0 && matches!(interval, Interval::Calendar(_)) {
        return Err(illegal("[date_histogram] [offset] with intervals of months or longer is not supported"));
    }
    Ok(DateHistogram {
        field: field(object)?,
        interval,
        offset_millis,
        zone_seconds: object.text("time_zone")?.map_or(Ok(0), date_math::zone_seconds)?,
        min_doc_count: object.count("min_doc_count", u64::MAX)?.unwrap_or(0),
        keyed: object.boolean("keyed")?.unwrap_or(false),
        extended_bounds: bounds(object, "extended_bounds")?,
        hard_bounds: bounds(object, "hard_bounds")?,
        format,
    })
}

/// Reads `90m`; at least a millisecond, at most a hundred years.
fn millis(text: &str) -> Result<i64> {
    let wrong =
        || illegal(format!("failed to parse the interval [{text}]: expected a number and one of [ms, s, m, h, d]"));
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: i64 = text[..digits].parse().map_err(|_| wrong())?;
    let unit = match &text[digits..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => MILLIS_PER_DAY,
        _ => return Err(wrong()),
    };
    number.checked_mul(unit).filter(|millis| (1..=36_525 * MILLIS_PER_DAY).contains(millis)).ok_or_else(wrong)
}

fn calendar_interval(text: &str) -> Result<Interval> {
    let fixed = |millis| Interval::Fixed { millis, start_millis: 0 };
    Ok(match text {
        "second" | "1s" => fixed(1_000),
        "minute" | "1m" => fixed(60_000),
        "hour" | "1h" => fixed(3_600_000),
        "day" | "1d" => fixed(MILLIS_PER_DAY),
        // 1970 began on a Thursday, weeks begin on Mondays.
        "week" | "1w" => Interval::Fixed { millis: 7 * MILLIS_PER_DAY, start_millis: 4 * MILLIS_PER_DAY },
        "month" | "1M" => Interval::Calendar(b'M'),
        "quarter" | "1q" => Interval::Calendar(b'q'),
        "year" | "1y" => Interval::Calendar(b'y'),
        other => {
            return Err(illegal(format!(
                "The supplied interval [{other}] could not be parsed as a calendar interval."
            )));
        }
    })
}

fn ranges(name: &str, body: &Value) -> Result<Ranges> {
    let is_date = name == "date_range";
    let mut known = vec!["field", "ranges", "keyed"];
    if is_date {
        known.extend(["format", "time_zone"]);
    }
    let object = Object::new(name, body, &known)?;
    let Some(Value::Array(items)) = object.get("ranges") else {
        return Err(illegal(format!("No [ranges] specified for the [{name}] aggregation")));
    };
    let mut ranges = Vec::new();
    for item in items {
        let range = Object::new("ranges", item, &["key", "from", "to"])?;
        let end = |key: &str| range.get(key).map(|value| Scalar::from_json(value, key)).transpose();
        ranges.push(RangeBucket { key: range.text("key")?.map(str::to_owned), from: end("from")?, to: end("to")? });
    }
    if ranges.is_empty() {
        return Err(illegal(format!("No [ranges] specified for the [{name}] aggregation")));
    }
    Ok(Ranges {
        field: field(object)?,
        ranges,
        keyed: object.boolean("keyed")?.unwrap_or(false),
        is_date,
        format: if is_date { object.text("format")?.map(str::to_owned) } else { None },
        time_zone: if is_date { object.text("time_zone")?.map(str::to_owned) } else { None },
    })
}

fn filters(body: &Value) -> Result<Filters> {
    let object = Object::new("filters", body, &["filters"])?;
    let (filters, form) = match object.need("filters")? {
        Value::Array(items) => {
            let filters = items.iter().map(|item| Ok((String::new(), dsl::parse(item)?))).collect::<Result<_>>()?;
            (filters, FiltersForm::List)
        }
        named => {
            let named = Object::open("filters", named)?.map.iter();
            let filters = named.map(|(name, filter)| Ok((name.clone(), dsl::parse(filter)?))).collect::<Result<_>>()?;
            (filters, FiltersForm::Keyed)
        }
    };
    Ok(Filters { filters, form })
}

fn metric(name: &'static str, body: &Value) -> Result<Metric> {
    let known: &[&str] = match name {
        "extended_stats" => &["field", "missing", "sigma"],
        "cardinality" => &["field", "precision_threshold"],
        "value_count" => &["field"],
        _ => &["field", "missing"],
    };
    let object = Object::new(name, body, known)?;
    Ok(Metric { name, field: field(object)?, missing: object.number("missing")?, sigma: object.number("sigma")? })
}

fn percentiles(body: &Value) -> Result<Kind> {
    let object = Object::new("percentiles", body, &["field", "percents", "keyed"])?;
    let percents = match object.get("percents") {
        None => vec![1.0, 5.0, 25.0, 50.0, 75.0, 95.0, 99.0],
        Some(value) => {
            let wrong = || object.wrong("percents", "up to 100 numbers from 0 to 100", value);
            let items = value.as_array().filter(|items| (1..=100).contains(&items.len())).ok_or_else(wrong)?;
            let percent = |item: &Value| item.as_f64().filter(|percent| (0.0..=100.0).contains(percent));
            items.iter().map(percent).collect::<Option<_>>().ok_or_else(wrong)?
        }
    };
    let keyed = object.boolean("keyed")?.unwrap_or(true);
    Ok(Kind::Percentiles { field: field(object)?, percents, keyed })
}

fn top_hits(body: &Value) -> Result<TopHits> {
    let object = Object::new("top_hits", body, &["from", "size", "sort", "_source"])?;
    let from = object.count("from", TOP_HITS_MAX)?.unwrap_or(0);
    let size = object.count("size", TOP_HITS_MAX)?.unwrap_or(3);
    if size == 0 || from + size > TOP_HITS_MAX {
        return Err(illegal(format!(
            "[top_hits] from + size must be from 1 to {TOP_HITS_MAX} but was [{}]",
            from + size
        )));
    }
    let mut sort = Vec::new();
    for key in sort::parse(object.get("sort"))? {
        match key.by {
            SortBy::Column(name) => sort.push((name, key.descending)),
            SortBy::Score | SortBy::Doc => {
                return Err(illegal(
                    "[top_hits] sorts by columns of numbers and dates only; [_score] is not supported",
                ));
            }
        }
    }
    let source = SourceFilter::parse(object.get("_source"))?;
    Ok(TopHits { from: from as usize, size: size as usize, sort, source })
}
