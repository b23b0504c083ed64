//! The body of `_search` and `_count`, read and checked before any index is touched.
//! Source: <https://www.elastic.co/guide/en/elasticsearch/reference/8.19/search-search.html>.

use std::time::Duration;

use serde_json::{Map, Value};

use super::aggs::{self, Aggregation};
use super::ast::Node;
use super::dsl;
use super::error::{Result, illegal, parsing};
use super::highlight::Highlight;
use super::json::Object;
use super::sort::{self, SortKey};
use super::source_filter::SourceFilter;
use super::{RESULT_WINDOW, TOTAL_DEFAULT};

/// What a search asks.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) query: Node,
    /// Narrows the hits, not the aggregations.
    pub(super) post_filter: Option<Node>,
    pub(super) from: usize,
    pub(super) size: usize,
    /// None: by score.
    pub(super) sort: Vec<SortKey>,
    pub(super) search_after: Option<Vec<Value>>,
    pub(super) source: SourceFilter,
    pub(super) fields: Vec<String>,
    pub(super) highlight: Option<Highlight>,
    pub(super) aggregations: Vec<(String, Aggregation)>,
    pub(super) total: TrackTotal,
    pub(super) track_scores: bool,
    pub(super) score_min: Option<f32>,
    pub(super) timeout: Option<Duration>,
}

/// How far hits are counted in the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TrackTotal {
    Exactly,
    /// More are answered as `gte` this.
    UpTo(u64),
    Not,
}

const SUPPORTED: &[&str] = &[
    "query",
    "from",
    "size",
    "sort",
    "search_after",
    "_source",
    "fields",
    "highlight",
    "aggs",
    "aggregations",
    "track_total_hits",
    "track_scores",
    "min_score",
    "post_filter",
    "timeout",
];

/// Keys that are taken when they ask for nothing.
const OFF: &[&str] = &["explain", "version", "seq_no_primary_term", "profile"];

/// Keys of Elasticsearch that are not supported.
const REFUSED: &[&str] = &[
    "collapse",
    "docvalue_fields",
    "ext",
    "indices_boost",
    "knn",
    "pit",
    "rank",
    "rescore",
    "retriever",
    "runtime_mappings",
    "script_fields",
    "slice",
    "stats",
    "stored_fields",
    "suggest",
    "terminate_after",
];

impl Request {
    /// Reads the body of `_search`; none is all.
    pub(super) fn parse(body: &Value) -> Result<Self> {
        let empty = Map::new();
        let object = match body {
            Value::Null => Object { name: "search", map: &empty },
            body => Object::open("search", body)?,
        };
        check_keys(object)?;
        let from = object.count("from", u64::MAX)?.unwrap_or(0);
        let size = object.count("size", u64::MAX)?.unwrap_or(10);
        if from.saturating_add(size) > RESULT_WINDOW as u64 {
            return Err(illegal(format!(
                "Result window is too large, from + size must be less than or equal to: [{RESULT_WINDOW}] but was [{}]; \
                 page on with [search_after]",
                from.saturating_add(size)
            )));
        }
        let search_after = match object.get("search_after") {
            None => None,
            Some(Value::Array(values)) if !values.is_empty() => Some(values.clone()),
            Some(other) => return Err(object.wrong("search_after", "an array of sort values", other)),
        };
        let request = Self {
            query: object.get("query").map_or(Ok(Node::All), dsl::parse)?,
            post_filter: object.get("post_filter").map(dsl::parse).transpose()?,
            from: from as usize,
            size: size as usize,
            sort: sort::parse(object.get("sort"))?,
            search_after,
            source: SourceFilter::parse(object.get("_source"))?,
            fields: fields(object)?,
            highlight: object.get("highlight").map(Highlight::parse).transpose()?,
            aggregations: match (object.get("aggs"), object.get("aggregations")) {
                (Some(_), Some(_)) => return Err(parsing("Found both [aggs] and [aggregations]")),
                (Some(aggregations), None) | (None, Some(aggregations)) => aggs::parse(aggregations)?,
                (None, None) => Vec::new(),
            },
            total: total(object)?,
            track_scores: object.boolean("track_scores")?.unwrap_or(false),
            score_min: object.number("min_score")?.map(|score| score as f32),
            timeout: object.text("timeout")?.map(|text| duration(text, object)).transpose()?.flatten(),
        };
        request.check()
    }

    fn check(self) -> Result<Self> {
        if let Some(values) = &self.search_after {
            if self.from > 0 {
                return Err(illegal("`from` parameter must be set to 0 when `search_after` is used"));
            }
            if values.len() != self.sort.len() {
                return Err(illegal(format!(
                    "search_after has {} value(s) but sort has {}",
                    values.len(),
                    self.sort.len()
                )));
            }
        }
        if self.score_min.is_some() && !self.aggregations.is_empty() {
            return Err(illegal("[min_score] with aggregations is not supported"));
        }
        Ok(self)
    }
}

/// Reads the body of `_count`: a query and nothing else.
pub(super) fn parse_count(body: &Value) -> Result<Node> {
    if body.is_null() {
        return Ok(Node::All);
    }
    let object = Object::new("count", body, &["query"])?;
    object.get("query").map_or(Ok(Node::All), dsl::parse)
}

fn check_keys(object: Object<'_>) -> Result<()> {
    for (key, value) in object.map {
        let key = key.as_str();
        let is_off = OFF.contains(&key) && matches!(value, Value::Bool(false) | Value::Null);
        if SUPPORTED.contains(&key) || is_off {
            continue;
        }
        return Err(parsing(if OFF.contains(&key) || REFUSED.contains(&key) {
            format!("[search] [{key}] is not supported")
        } else {
            format!("Unknown key for {} in [{key}]; {}", token(value), super::error::nearest(key, SUPPORTED))
        }));
    }
    Ok(())
}

/// Elasticsearch's name of the token that a value starts with.
fn token(value: &Value) -> &'static str {
    match value {
        Value::Object(_) => "a START_OBJECT",
        Value::Array(_) => "a START_ARRAY",
        Value::String(_) => "a VALUE_STRING",
        Value::Number(_) => "a VALUE_NUMBER",
        Value::Bool(_) => "a VALUE_BOOLEAN",
        Value::Null => "a VALUE_NULL",
    }
}

/// `fields`: names, patterns, or objects with a name.
fn fields(object: Object<'_>) -> Result<Vec<String>> {
    let Some(value) = object.get("fields") else {
        return Ok(Vec::new());
    };
    let Value::Array(items) = value else {
        return Err(object.wrong("fields", "an array", value));
    };
    let name = |item: &Value| match item {
        Value::String(name) => Ok(name.clone()),
        item => Ok(Object::new("fields", item, &["field"])?.need("field")?.as_str().unwrap_or_default().to_owned()),
    };
    items.iter().map(name).collect()
}

fn total(object: Object<'_>) -> Result<TrackTotal> {
    match object.get("track_total_hits") {
        None => Ok(TrackTotal::UpTo(TOTAL_DEFAULT)),
        Some(Value::Bool(true)) => Ok(TrackTotal::Exactly),
        Some(Value::Bool(false)) => Ok(TrackTotal::Not),
        Some(value) => match value.as_i64() {
            Some(-1) => Ok(TrackTotal::Exactly),
            Some(number) if number >= 0 => Ok(TrackTotal::UpTo(number as u64)),
            _ => Err(object.wrong("track_total_hits", "a boolean or a number", value)),
        },
    }
}

/// Reads `10s`, `500ms`, `1m`; `-1` is none.
fn duration(text: &str, object: Object<'_>) -> Result<Option<Duration>> {
    if text == "-1" {
        return Ok(None);
    }
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number = text[..digits].parse::<u32>().ok();
    let millis = match &text[digits..] {
        "nanos" | "micros" => 0,
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(object.wrong("timeout", "a time such as [10s]", &Value::from(text))),
    };
    match number {
        Some(number) => Ok(Some(Duration::from_millis(u64::from(number) * millis))),
        None => Err(object.wrong("timeout", "a time such as [10s]", &Value::from(text))),
    }
}
