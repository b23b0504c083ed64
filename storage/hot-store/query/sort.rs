//! What rows are sorted by, and the values that hits are sorted, merged and paged with.
//! Source: <https://www.elastic.co/guide/en/elasticsearch/reference/8.19/sort-search-results.html>.

use std::cmp::Ordering;

use contract::{Column, Kind, Search};
use serde_json::{Value, json};

use super::ast::Scalar;
use super::compile_leaf::type_name;
use super::error::{Result, illegal, parsing};
use super::json::Object;
use crate::index::OpenIndex;

/// Keys of one sort. Each is a column read per row.
const KEYS_MAX: usize = 8;

/// One key of a sort.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SortKey {
    pub(super) by: SortBy,
    pub(super) descending: bool,
    pub(super) missing_first: bool,
    /// Of several values of a row the largest; else the smallest.
    pub(super) largest: bool,
    /// Whether a column that no index has is passed over.
    pub(super) may_be_unmapped: bool,
}

/// What a key reads.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum SortBy {
    Score,
    /// The order of the store, which here is that of partition and offset.
    Doc,
    Column(String),
}

/// A value that a hit is sorted by. Dates are milliseconds, as in the answer, so that a page starts where
/// the last one ended.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum SortValue {
    Missing,
    Integer(i64),
    Float(f64),
    Boolean(bool),
    Text(String),
    Score(f32),
    Doc,
}

/// Reads `sort`; no sort is by score.
pub(super) fn parse(sort: Option<&Value>) -> Result<Vec<SortKey>> {
    let keys = match sort {
        None => Vec::new(),
        Some(Value::Array(items)) => items.iter().map(key).collect::<Result<_>>()?,
        Some(item) => vec![key(item)?],
    };
    if keys.len() > KEYS_MAX {
        return Err(illegal(format!("[sort] of more than {KEYS_MAX} keys is not supported")));
    }
    Ok(keys)
}

fn key(item: &Value) -> Result<SortKey> {
    let (name, body) = match item {
        Value::String(name) => match name.split_once(':') {
            Some((name, order)) => (name.to_owned(), json!(order)),
            None => (name.clone(), Value::Null),
        },
        other => {
            let (name, body) = Object::open("sort", other)?.single()?;
            (name.to_owned(), body.clone())
        }
    };
    let by = match name.as_str() {
        "_score" => SortBy::Score,
        "_doc" | "_shard_doc" => SortBy::Doc,
        "_geo_distance" | "_script" => return Err(parsing(format!("[sort] by [{name}] is not supported"))),
        _ => SortBy::Column(name),
    };
    let body = match body {
        Value::Null => json!({}),
        Value::String(order) => json!({ "order": order }),
        other => other,
    };
    let known = ["order", "missing", "unmapped_type", "mode", "format", "numeric_type"];
    let object = Object::new("sort", &body, &known)?;
    let descending = match object.text("order")? {
        None => by == SortBy::Score,
        Some("asc") => false,
        Some("desc") => true,
        Some(other) => return Err(illegal(format!("No enum constant SortOrder.{}", other.to_uppercase()))),
    };
    let missing_first = match object.text("missing")? {
        None | Some("_last") => false,
        Some("_first") => true,
        Some(other) => {
            return Err(illegal(format!(
                "[sort] [missing] takes [_first] or [_last], a value as [{other}] is not supported"
            )));
        }
    };
    let largest = match object.text("mode")? {
        None => descending,
        Some("min") => false,
        Some("max") => true,
        Some(other) => {
            return Err(illegal(format!("[sort] [mode] takes [min] or [max], [{other}] is not supported")));
        }
    };
    if let Some(format) = object.text("format")?.filter(|format| *format != "epoch_millis") {
        return Err(illegal(format!("[sort] [format] takes [epoch_millis], [{format}] is not supported")));
    }
    let may_be_unmapped = object.get("unmapped_type").is_some();
    Ok(SortKey { by, descending, missing_first, largest, may_be_unmapped })
}

impl SortKey {
    /// By falling score: what rows are sorted by when nothing is said.
    pub(super) fn by_score() -> Self {
        Self { by: SortBy::Score, descending: true, missing_first: false, largest: true, may_be_unmapped: false }
    }

    /// The column in any of the indices; refused when it cannot be sorted by, or is nowhere.
    pub(super) fn column(&self, indices: &[OpenIndex]) -> Result<Option<&'static Column>> {
        let SortBy::Column(name) = &self.by else {
            return Ok(None);
        };
        let column = indices.iter().find_map(|index| index.fields.column(name)).map(|(column, _)| column);
        match column {
            None if self.may_be_unmapped || indices.is_empty() => Ok(None),
            None => Err(super::error::bad(
                "query_shard_exception",
                format!("No mapping found for [{name}] in order to sort on"),
            )),
            Some(column) => sortable(column).map(Some),
        }
    }

    /// Reads a value of `search_after`.
    pub(super) fn after(&self, value: &Value, column: Option<&Column>) -> Result<SortValue> {
        let wrong = || illegal(format!("[search_after] failed to parse [{value}] for the sort [{:?}]", self.by));
        if value.is_null() {
            return Ok(SortValue::Missing);
        }
        match (&self.by, column.map(|column| column.kind)) {
            (SortBy::Score, _) => value.as_f64().map(|score| SortValue::Score(score as f32)).ok_or_else(wrong),
            (SortBy::Doc, _) => {
                Err(illegal("[search_after] with a sort by [_doc] is not supported; sort by [_offset]"))
            }
            (SortBy::Column(_), None) => Ok(SortValue::Missing),
            (SortBy::Column(_), Some(Kind::Text | Kind::TextList)) => {
                Ok(SortValue::Text(Scalar::from_json(value, "search_after")?.text()))
            }
            (SortBy::Column(_), Some(Kind::Boolean)) => match value {
                Value::Bool(boolean) => Ok(SortValue::Boolean(*boolean)),
                Value::Number(number) => match number.as_i64().ok_or_else(wrong)? {
                    i64::MAX | i64::MIN => Ok(SortValue::Missing),
                    number => Ok(SortValue::Boolean(number != 0)),
                },
                _ => Err(wrong()),
            },
            (SortBy::Column(_), Some(Kind::Float)) => match value {
                Value::Number(number) => number.as_f64().map(SortValue::Float).ok_or_else(wrong),
                // How `json` writes the ends of the range, which stand for a missing value.
                Value::String(text) if ["Infinity", "-Infinity"].contains(&text.as_str()) => Ok(SortValue::Missing),
                _ => Err(wrong()),
            },
            (SortBy::Column(_), Some(Kind::StructList(_))) => Err(wrong()),
            (SortBy::Column(_), Some(Kind::Integer | Kind::Timestamp)) => {
                let number = match value {
                    Value::Number(number) => number.as_i64(),
                    Value::String(text) => {
                        let date = || contract::Timestamp::parse_rfc3339(text).map(|time| time.0.div_euclid(1_000));
                        text.parse().ok().or_else(date)
                    }
                    _ => None,
                };
                match number.ok_or_else(wrong)? {
                    i64::MAX | i64::MIN => Ok(SortValue::Missing),
                    number => Ok(SortValue::Integer(number)),
                }
            }
        }
    }

    /// The order of two values of this key.
    pub(super) fn compare(&self, left: &SortValue, right: &SortValue) -> Ordering {
        let order = match (left, right) {
            (SortValue::Missing, SortValue::Missing) => return Ordering::Equal,
            (SortValue::Missing, _) if self.missing_first => return Ordering::Less,
            (SortValue::Missing, _) => return Ordering::Greater,
            (_, SortValue::Missing) => return self.compare(right, left).reverse(),
            (SortValue::Integer(left), SortValue::Integer(right)) => left.cmp(right),
            (SortValue::Float(left), SortValue::Float(right)) => left.total_cmp(right),
            (SortValue::Boolean(left), SortValue::Boolean(right)) => left.cmp(right),
            (SortValue::Text(left), SortValue::Text(right)) => left.cmp(right),
            (SortValue::Score(left), SortValue::Score(right)) => left.total_cmp(right),
            _ => Ordering::Equal,
        };
        if self.descending { order.reverse() } else { order }
    }

    /// As the answer gives it: a missing number as the end of the range, as in Elasticsearch.
    pub(super) fn json(&self, value: &SortValue, column: Option<&Column>) -> Value {
        match value {
            SortValue::Missing => match column.map(|column| column.kind) {
                Some(Kind::Integer | Kind::Timestamp | Kind::Boolean) if self.missing_first == self.descending => {
                    json!(i64::MAX)
                }
                Some(Kind::Integer | Kind::Timestamp | Kind::Boolean) => json!(i64::MIN),
                Some(Kind::Float) if self.missing_first == self.descending => json!("Infinity"),
                Some(Kind::Float) => json!("-Infinity"),
                _ => Value::Null,
            },
            SortValue::Integer(number) => json!(number),
            SortValue::Float(number) => json!(number),
            // Elasticsearch sorts booleans as the numbers that it keeps them as.
            SortValue::Boolean(boolean) => json!(i64::from(*boolean)),
            SortValue::Text(text) => json!(text),
            SortValue::Score(score) => json!(score),
            SortValue::Doc => json!(0),
        }
    }
}

/// A column that has its values by row; words have none.
pub(super) fn sortable(column: &'static Column) -> Result<&'static Column> {
    if column.name == "_id" {
        return Err(illegal(
            "Fielddata access on the _id field is disallowed; sort and aggregate by [_partition] and [_offset]",
        ));
    }
    if column.search == Search::Words && matches!(column.kind, Kind::Text | Kind::TextList) {
        return Err(illegal(format!(
            "Fielddata is disabled on [{}]: columns of type [{}] are not optimised for operations that require per-document \
             field data like aggregations and sorting; use a keyword column instead",
            column.name,
            type_name(column)
        )));
    }
    Ok(column)
}
