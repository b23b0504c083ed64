//! What is refused, how, and that the message names it.

use serde_json::{Value, json};

use super::{NOW, three};

fn nested(depth: usize) -> Value {
    (0..depth).fold(json!({ "match_all": {} }), |inner, _| json!({ "bool": { "must": inner } }))
}

fn queries() -> Vec<(Value, &'static str, &'static str)> {
    vec![
        (json!({ "mach": { "title": "x" } }), "parsing_exception", "unknown query [mach]; did you mean [match]?"),
        (json!({ "nested": { "path": "x" } }), "parsing_exception", "unknown query [nested]"),
        (json!({ "simple_query_string": { "query": "x" } }), "parsing_exception", "[simple_query_string]"),
        (json!({}), "illegal_argument_exception", "empty clause"),
        (json!({ "match_all": {}, "match_none": {} }), "parsing_exception", "[match_none]"),
        (json!([]), "parsing_exception", "[query]"),
        (
            json!({ "match": { "title": { "query": "x", "operatr": "and" } } }),
            "parsing_exception",
            "did you mean [operator]?",
        ),
        (json!({ "match": { "title": "x", "body": "y" } }), "parsing_exception", "multiple fields"),
        (json!({ "match": { "title": { "query": "x", "operator": "xor" } } }), "illegal_argument_exception", "[xor]"),
        (json!({ "match": { "title": { "query": "x", "fuzziness": 3 } } }), "parsing_exception", "[fuzziness]"),
        (
            json!({ "match": { "title": { "query": "x", "minimum_should_match": "2<75%" } } }),
            "parsing_exception",
            "[2<75%]",
        ),
        (json!({ "match": { "number": "many" } }), "query_shard_exception", "For input string: \"many\""),
        (json!({ "match": { "public": "maybe" } }), "query_shard_exception", "[maybe]"),
        (json!({ "multi_match": { "query": "x", "type": "cross_fields" } }), "parsing_exception", "[cross_fields]"),
        (json!({ "term": { "title": ["a"] } }), "parsing_exception", "[term]"),
        (json!({ "term": { "number": true } }), "query_shard_exception", "\"true\""),
        (json!({ "terms": { "type": "x" } }), "parsing_exception", "[terms]"),
        (json!({ "terms": { "type": [], "title": [] } }), "parsing_exception", "[terms]"),
        (json!({ "range": { "event_time": { "gte": "soon" } } }), "parse_exception", "[soon]"),
        (
            json!({ "range": { "event_time": { "gte": "01.02.2015", "format": "dd.MM.yyyy" } } }),
            "illegal_argument_exception",
            "[dd.MM.yyyy]",
        ),
        (
            json!({ "range": { "event_time": { "gte": "2015", "time_zone": "Europe/Berlin" } } }),
            "illegal_argument_exception",
            "[Europe/Berlin]",
        ),
        (json!({ "range": { "number": { "over": 1 } } }), "parsing_exception", "[over]"),
        (json!({ "range": { "number": { "gte": [1] } } }), "parsing_exception", "[range]"),
        (json!({ "wildcard": { "number": "1*" } }), "query_shard_exception", "[number] which is of type [long]"),
        (json!({ "prefix": { "event_time": "2015" } }), "query_shard_exception", "[date]"),
        (json!({ "regexp": { "type": "a{100000}" } }), "illegal_argument_exception", "[a{100000}]"),
        (json!({ "regexp": { "type": "(a" } }), "illegal_argument_exception", "(a"),
        (json!({ "wildcard": { "type": "*?".repeat(60) } }), "illegal_argument_exception", "wildcards"),
        (json!({ "exists": {} }), "parsing_exception", "[exists]"),
        (json!({ "bool": { "most": [] } }), "parsing_exception", "did you mean [must]?"),
        (json!({ "bool": { "must": "x" } }), "parsing_exception", "[must]"),
        (json!({ "bool": { "boost": -1 } }), "illegal_argument_exception", "[boost]"),
        (json!({ "query_string": {} }), "parsing_exception", "[query]"),
        (json!({ "query_string": { "query": "(a" } }), "query_shard_exception", "Failed to parse query [(a]"),
        (json!({ "query_string": { "query": "number:many", "lenient": false } }), "query_shard_exception", "\"many\""),
        (json!({ "query_string": { "query": "title:leak~5" } }), "parsing_exception", "[fuzziness]"),
        (json!({ "query_string": { "query": "a", "analyser": "x" } }), "parsing_exception", "[analyser]"),
        (nested(40), "illegal_argument_exception", "nested depth"),
        (json!({ "bool": { "should": vec![json!({ "match_all": {} }); 1_100] } }), "too_many_nested_clauses", "1024"),
        (json!({ "terms": { "number": vec![1; 70_000] } }), "illegal_argument_exception", "[70000]"),
    ]
}

fn bodies() -> Vec<(Value, &'static str, &'static str)> {
    vec![
        (json!({ "qery": {} }), "parsing_exception", "did you mean [query]?"),
        (json!({ "collapse": { "field": "type" } }), "parsing_exception", "[collapse]"),
        (json!({ "explain": true }), "parsing_exception", "[explain]"),
        (json!({ "from": 9_999, "size": 2 }), "illegal_argument_exception", "10001"),
        (json!({ "from": -1 }), "parsing_exception", "[from]"),
        (json!({ "size": "many" }), "parsing_exception", "[size]"),
        (json!({ "sort": [{ "title": "asc" }] }), "illegal_argument_exception", "[title]"),
        (json!({ "sort": ["_id"] }), "illegal_argument_exception", "_id"),
        (json!({ "sort": ["nowhere"] }), "query_shard_exception", "[nowhere]"),
        (json!({ "sort": [{ "number": "up" }] }), "illegal_argument_exception", "UP"),
        (json!({ "sort": [{ "number": { "mode": "median" } }] }), "illegal_argument_exception", "[median]"),
        (json!({ "sort": ["number"], "search_after": [1, 2] }), "illegal_argument_exception", "search_after"),
        (json!({ "sort": ["number"], "search_after": ["x"] }), "illegal_argument_exception", "search_after"),
        (json!({ "sort": ["number"], "search_after": [1], "from": 5 }), "illegal_argument_exception", "from"),
        (json!({ "highlight": { "fields": { "title": { "fragmenter": "x" } } } }), "parsing_exception", "[fragmenter]"),
        (json!({ "highlight": {} }), "parsing_exception", "[fields]"),
        (json!({ "_source": 5 }), "parsing_exception", "[_source]"),
        (json!({ "timeout": "soon" }), "parsing_exception", "[timeout]"),
    ]
}

fn aggregation(body: Value) -> Value {
    json!({ "size": 0, "aggs": { "it": body } })
}

fn aggregations() -> Vec<(Value, &'static str, &'static str)> {
    vec![
        (json!({ "aggs": {}, "aggregations": {} }), "parsing_exception", "[aggregations]"),
        (aggregation(json!({ "significant_terms": {} })), "parsing_exception", "[significant_terms]"),
        (aggregation(json!({})), "parsing_exception", "[it]"),
        (
            aggregation(json!({ "terms": { "field": "title" } })),
            "illegal_argument_exception",
            "Fielddata is disabled on [title]",
        ),
        (aggregation(json!({ "terms": { "field": "_id" } })), "illegal_argument_exception", "_id"),
        (aggregation(json!({ "terms": {} })), "illegal_argument_exception", "[field]"),
        (aggregation(json!({ "terms": { "field": "type", "size": 0 } })), "illegal_argument_exception", "[size]"),
        (
            aggregation(json!({ "terms": { "field": "type", "order": { "x": "asc" } } })),
            "illegal_argument_exception",
            "[x]",
        ),
        (aggregation(json!({ "terms": { "field": "type", "script": "x" } })), "parsing_exception", "[script]"),
        (
            aggregation(json!({ "avg": { "field": "type" } })),
            "illegal_argument_exception",
            "Field [type] of type [keyword]",
        ),
        (
            aggregation(json!({ "avg": { "field": "number" }, "aggs": { "x": { "max": { "field": "number" } } } })),
            "illegal_argument_exception",
            "sub-aggregations",
        ),
    ]
}

fn histograms() -> Vec<(Value, &'static str, &'static str)> {
    vec![
        (
            aggregation(json!({ "histogram": { "field": "number", "interval": 0 } })),
            "illegal_argument_exception",
            "[interval]",
        ),
        (
            aggregation(json!({ "histogram": { "field": "number", "interval": 0.0001 } })),
            "too_many_buckets_exception",
            "",
        ),
        (
            aggregation(json!({ "date_histogram": { "field": "event_time", "fixed_interval": "1M" } })),
            "illegal_argument_exception",
            "[1M]",
        ),
        (
            aggregation(json!({ "date_histogram": { "field": "event_time", "calendar_interval": "2d" } })),
            "illegal_argument_exception",
            "[2d]",
        ),
        (
            aggregation(json!({ "date_histogram": { "field": "event_time", "interval": "day" } })),
            "parsing_exception",
            "[interval]",
        ),
        (
            aggregation(json!({ "date_histogram": { "field": "event_time", "fixed_interval": "1ms" } })),
            "too_many_buckets_exception",
            "",
        ),
        (
            aggregation(json!({ "date_histogram": { "field": "number", "fixed_interval": "1d" } })),
            "illegal_argument_exception",
            "[number]",
        ),
        (
            aggregation(json!({ "date_histogram": { "field": "event_time", "calendar_interval": "month",
            "extended_bounds": { "min": "1915", "max": "2015" } } })),
            "too_many_buckets_exception",
            "",
        ),
        (
            aggregation(json!({ "range": { "field": "number", "ranges": [] } })),
            "illegal_argument_exception",
            "[ranges]",
        ),
        (
            aggregation(json!({ "percentiles": { "field": "number", "percents": [101] } })),
            "parsing_exception",
            "[percents]",
        ),
        (aggregation(json!({ "top_hits": { "sort": ["_score"] } })), "illegal_argument_exception", "[_score]"),
        (aggregation(json!({ "top_hits": { "size": 1_000 } })), "parsing_exception", "[size]"),
        (json!({ "aggs": { "a[b]": { "max": { "field": "number" } } } }), "parsing_exception", "[a[b]]"),
    ]
}

#[test]
fn what_is_not_supported_is_refused_by_its_name() {
    let of_queries = queries().into_iter().map(|(query, kind, named)| (json!({ "query": query }), kind, named));
    for (body, kind, named) in of_queries.chain(bodies()).chain(aggregations()).chain(histograms()) {
        let shown: String = body.to_string().chars().take(200).collect();
        let error = match super::super::search(three(), &body, NOW, super::late()) {
            Ok(answer) => panic!("{shown} answered {answer}"),
            Err(error) => error,
        };
        assert_eq!((error.status, error.kind), (400, kind), "{shown}: {}", error.reason);
        assert!(error.reason.contains(named), "{shown}: {}", error.reason);
    }
}

#[test]
fn a_count_takes_a_query_and_nothing_else() {
    let error = super::super::count(three(), &json!({ "size": 1 }), NOW, super::late()).unwrap_err();
    assert_eq!((error.status, error.kind), (400, "parsing_exception"));
    assert!(error.reason.contains("[size]"), "{}", error.reason);
    assert_eq!(super::super::count(three(), &Value::Null, NOW, super::late()).unwrap()["count"], json!(200));
}
