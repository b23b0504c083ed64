//! Any input gives an answer or an error, and never a panic.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{NOW, three};

/// Words that the grammar knows, so that random text reaches its corners.
const PIECES: &[&str] = &[
    "leak",
    "title:",
    "number:",
    "event_time:",
    "public:",
    "nowhere:",
    "AND ",
    "OR ",
    "NOT ",
    "&& ",
    "|| ",
    "!",
    "+",
    "-",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    " TO ",
    "*",
    "?",
    "\"",
    "/",
    "\\",
    "~",
    "~2",
    "^",
    "^3",
    ":",
    ">",
    ">=",
    "<",
    "=",
    " ",
    "é",
    "2015-01-31",
    "now-1d/d",
    "||",
    "_exists_:",
    "10",
    "1.5",
    "_index:",
    "*:*",
    ".",
    "{2,3}",
    "|",
    "0",
];

/// Keys and values of requests, so that random bodies reach what reads them.
const NAMES: &[&str] = &[
    "query",
    "aggs",
    "sort",
    "size",
    "from",
    "_source",
    "highlight",
    "fields",
    "search_after",
    "bool",
    "must",
    "should",
    "must_not",
    "filter",
    "match",
    "match_phrase",
    "term",
    "terms",
    "range",
    "exists",
    "prefix",
    "wildcard",
    "regexp",
    "query_string",
    "field",
    "title",
    "type",
    "number",
    "event_time",
    "public",
    "labels",
    "created_at",
    "gte",
    "lt",
    "value",
    "boost",
    "order",
    "desc",
    "histogram",
    "date_histogram",
    "interval",
    "fixed_interval",
    "calendar_interval",
    "1d",
    "month",
    "it",
    "stats",
    "percentiles",
    "min_doc_count",
    "extended_bounds",
    "hard_bounds",
    "min",
    "max",
    "keyed",
    "top_hits",
    "filters",
    "date_range",
    "ranges",
    "to",
    "now/d",
    "missing",
    "cardinality",
    "dis_max",
    "queries",
    "constant_score",
    "fuzziness",
    "AUTO",
    "minimum_should_match",
    "-50%",
    "format",
    "time_zone",
    "+01:00",
];

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-5_i64..50).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(NAMES).prop_map(Value::from),
        query_text().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(prop::sample::select(NAMES), inner, 0..4)
                .prop_map(|map| map.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        ]
    })
}

fn query_text() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::collection::vec(prop::sample::select(PIECES), 0..12).prop_map(|pieces| pieces.concat()),
        any::<String>(),
    ]
}

/// A query of one column with a random body: nearly valid ones are where readers break.
fn leaf_query() -> impl Strategy<Value = Value> {
    let kinds = &[
        "match",
        "match_phrase",
        "match_phrase_prefix",
        "term",
        "prefix",
        "wildcard",
        "regexp",
        "fuzzy",
        "range",
        "terms",
    ];
    let fields = &[
        "title",
        "type",
        "labels",
        "number",
        "public",
        "event_time",
        "created_at",
        "_id",
        "_index",
        "_offset",
        "nowhere",
    ];
    (prop::sample::select(&kinds[..]), prop::sample::select(&fields[..]), json_value(), query_text(), any::<bool>())
        .prop_map(|(kind, field, value, text, as_text)| {
            let value = if as_text { json!(text) } else { value };
            match kind {
                "range" => json!({ kind: { field: { "gte": value, "lt": text } } }),
                "terms" => json!({ kind: { field: [value, text] } }),
                _ => json!({ kind: { field: value } }),
            }
        })
}

fn aggregation() -> impl Strategy<Value = Value> {
    let kinds = &[
        "terms",
        "histogram",
        "date_histogram",
        "range",
        "date_range",
        "missing",
        "avg",
        "stats",
        "extended_stats",
        "cardinality",
        "percentiles",
        "value_count",
        "top_hits",
        "max",
    ];
    let fields = &[
        "type",
        "labels",
        "number",
        "public",
        "event_time",
        "created_at",
        "nowhere",
        "_source",
        "_field_names",
        "title",
    ];
    let extras = prop::collection::btree_map(prop::sample::select(NAMES), json_value(), 0..2);
    (prop::sample::select(&kinds[..]), prop::sample::select(&fields[..]), extras).prop_map(|(kind, field, extras)| {
        let mut body = match kind {
            "histogram" => json!({ "field": field, "interval": 100 }),
            "date_histogram" => json!({ "field": field, "fixed_interval": "1d" }),
            "range" | "date_range" => json!({ "field": field, "ranges": [{ "from": "2015" }] }),
            "top_hits" => json!({ "sort": [field] }),
            _ => json!({ "field": field }),
        };
        let extras = extras.into_iter().map(|(key, value)| (key.to_owned(), value));
        body.as_object_mut().unwrap().extend(extras);
        json!({ kind: body })
    })
}

/// Answers or refuses; what fails within is neither.
fn survives(body: &Value) -> Result<(), TestCaseError> {
    if let Err(error) = super::super::search(three(), body, NOW, super::late()) {
        prop_assert_eq!(error.status, 400, "{}: {}", body, error.reason);
        prop_assert!(!error.reason.is_empty());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_query_string_is_answered_or_refused(text in query_text()) {
        survives(&json!({ "query": { "query_string": { "query": text } }, "highlight": { "fields": { "*": {} } } }))?;
    }

    #[test]
    fn any_body_is_answered_or_refused(body in json_value()) {
        survives(&body)?;
        survives(&json!({ "query": body }))?;
        survives(&json!({ "aggs": body }))?;
        survives(&json!({ "sort": body }))?;
    }

    #[test]
    fn any_query_of_a_column_is_answered_or_refused(query in leaf_query()) {
        survives(&json!({ "query": query, "highlight": { "fields": { "*": {} } } }))?;
    }

    #[test]
    fn any_aggregation_is_answered_or_refused(first in aggregation(), second in aggregation()) {
        let mut nested = first.clone();
        nested["aggs"] = json!({ "inner": second });
        survives(&json!({ "size": 0, "aggs": { "it": nested } }))?;
        survives(&json!({ "size": 0, "aggs": { "it": first } }))?;
    }
}
