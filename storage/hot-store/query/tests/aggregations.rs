//! What aggregations count, beside a plain loop over the rows.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{DAY, Doc, FIRST_DAY, ask, docs, one, three, wanted};

/// The one aggregation over all rows, asked over three indices and over one, which must agree.
fn aggregate(body: &Value) -> Value {
    let request = json!({ "size": 0, "aggs": { "it": body } });
    let split = ask(three(), &request)["aggregations"]["it"].clone();
    let whole = ask(one(), &request)["aggregations"]["it"].clone();
    // Hits name their index.
    if !body.to_string().contains("top_hits") {
        assert!(alike(&split, &whole), "{body}: {split} {whole}");
    }
    split
}

/// The same but for the order in which floats were added.
fn alike(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| alike(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.keys().eq(right.keys())
                && left.iter().all(|(key, value)| key.ends_with("_as_string") || alike(value, &right[key]))
        }
        (Value::Number(left), Value::Number(right)) => {
            let (left, right) = (left.as_f64().unwrap(), right.as_f64().unwrap());
            (left - right).abs() <= 1e-9 * left.abs().max(right.abs())
        }
        (left, right) => left == right,
    }
}

fn counted<K: Ord>(key: impl Fn(&Doc) -> Vec<K>) -> BTreeMap<K, u64> {
    let mut counts = BTreeMap::new();
    for key in docs().iter().flat_map(key) {
        *counts.entry(key).or_insert(0) += 1;
    }
    counts
}

fn pairs(answer: &Value) -> Vec<(Value, u64)> {
    let buckets = answer["buckets"].as_array().unwrap();
    buckets.iter().map(|bucket| (bucket["key"].clone(), bucket["doc_count"].as_u64().unwrap())).collect()
}

/// By falling count, then by key.
fn by_count(counts: BTreeMap<String, u64>) -> Vec<(Value, u64)> {
    let mut pairs: Vec<_> = counts.into_iter().collect();
    pairs.sort_by(|left, right| right.1.cmp(&left.1).then(left.0.cmp(&right.0)));
    pairs.into_iter().map(|(key, count)| (json!(key), count)).collect()
}

#[test]
fn terms_count_texts() {
    let kinds = counted(|doc| vec![doc.kind.to_owned()]);
    assert_eq!(pairs(&aggregate(&json!({ "terms": { "field": "type" } }))), by_count(kinds.clone()));
    let labels = counted(|doc| doc.labels.clone());
    assert_eq!(pairs(&aggregate(&json!({ "terms": { "field": "labels" } }))), by_count(labels));
    let keys: Vec<_> = kinds.iter().rev().map(|(key, count)| (json!(key), *count)).collect();
    assert_eq!(pairs(&aggregate(&json!({ "terms": { "field": "type", "order": { "_key": "desc" } } }))), keys);
    let repos = by_count(counted(|doc| vec![doc.repo.clone()]));
    let some = aggregate(&json!({ "terms": { "field": "repo_name", "size": 3 } }));
    assert_eq!(pairs(&some), repos[..3]);
    let others: u64 = repos[3..].iter().map(|(_, count)| count).sum();
    assert_eq!(some["sum_other_doc_count"], json!(others));
    assert_eq!(some["doc_count_error_upper_bound"], json!(0));
    let included = json!({ "terms": { "field": "type", "include": "F.*|W.*", "exclude": ["WatchEvent"] } });
    assert_eq!(pairs(&aggregate(&included)), [(json!("ForkEvent"), 40)]);
    let least = json!({ "terms": { "field": "type", "min_doc_count": 41 } });
    assert_eq!(pairs(&aggregate(&least)), []);
}

#[test]
fn terms_count_numbers_booleans_and_what_is_missing() {
    let answer = aggregate(&json!({ "terms": { "field": "public" } }));
    let public = |value: bool| wanted(|doc| doc.public == Some(value)).len();
    assert_eq!(
        answer["buckets"],
        json!([
            { "key": 0, "key_as_string": "false", "doc_count": public(false) },
            { "key": 1, "key_as_string": "true", "doc_count": public(true) },
        ])
    );
    let numbers =
        aggregate(&json!({ "terms": { "field": "number", "size": 300, "order": { "_key": "asc" }, "missing": -7 } }));
    let expected = counted(|doc| vec![doc.number.unwrap_or(-7)]);
    let expected: Vec<_> = expected.into_iter().map(|(key, count)| (json!(key), count)).collect();
    assert_eq!(pairs(&numbers), expected);
    let made = aggregate(&json!({ "terms": { "field": "nowhere" } }));
    assert_eq!(made["buckets"], json!([]));
    let missing = aggregate(&json!({ "missing": { "field": "number" } }));
    assert_eq!(missing["doc_count"], json!(wanted(|doc| doc.number.is_none()).len()));
    let times = aggregate(&json!({ "terms": { "field": "created_at", "size": 1, "order": { "_key": "asc" } } }));
    let first = docs().iter().filter_map(|doc| doc.created_at).min().unwrap();
    assert_eq!(times["buckets"][0]["key"], json!(first / 1_000));
}

#[test]
fn metrics_are_those_of_a_loop() {
    let numbers: Vec<f64> = docs().iter().filter_map(|doc| doc.number).map(|number| number as f64).collect();
    let sum: f64 = numbers.iter().sum();
    let count = numbers.len() as f64;
    let (min, max) =
        (numbers.iter().copied().fold(f64::MAX, f64::min), numbers.iter().copied().fold(f64::MIN, f64::max));
    let value = |name: &str| aggregate(&json!({ name: { "field": "number" } }))["value"].as_f64().unwrap();
    let close = |left: f64, right: f64| assert!((left - right).abs() < 1e-6 * right.abs().max(1.0), "{left} {right}");
    close(value("sum"), sum);
    close(value("avg"), sum / count);
    close(value("min"), min);
    close(value("max"), max);
    close(value("value_count"), count);
    let stats = aggregate(&json!({ "stats": { "field": "number" } }));
    assert_eq!(stats["count"], json!(numbers.len()));
    close(stats["avg"].as_f64().unwrap(), sum / count);
    let extended = aggregate(&json!({ "extended_stats": { "field": "number", "sigma": 3 } }));
    let variance = numbers.iter().map(|number| (number - sum / count).powi(2)).sum::<f64>() / count;
    close(extended["variance"].as_f64().unwrap(), variance);
    let with_missing = aggregate(&json!({ "avg": { "field": "number", "missing": 0 } }));
    close(with_missing["value"].as_f64().unwrap(), sum / 200.0);
    let repos = counted(|doc| vec![doc.repo.clone()]).len() as f64;
    let estimated = aggregate(&json!({ "cardinality": { "field": "repo_name" } }))["value"].as_f64().unwrap();
    assert!((estimated - repos).abs() <= repos * 0.05, "{estimated} {repos}");
    let median = aggregate(&json!({ "percentiles": { "field": "number", "percents": [50] } }));
    let mut sorted = numbers.clone();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted[sorted.len() / 2];
    assert!(
        (median["values"]["50.0"].as_f64().unwrap() - middle).abs() <= 20.0 + middle.abs() * 0.03,
        "{median} {middle}"
    );
    let listed = aggregate(&json!({ "percentiles": { "field": "number", "percents": [99.9], "keyed": false } }));
    assert_eq!(listed["values"][0]["key"], json!(99.9));
}

#[test]
fn metrics_of_dates_are_milliseconds_with_their_text() {
    let last = docs().iter().map(|doc| doc.event_time).max().unwrap();
    let answer = aggregate(&json!({ "max": { "field": "event_time" } }));
    assert!((answer["value"].as_f64().unwrap() - last as f64 / 1_000.0).abs() < 1.0);
    assert!(answer["value_as_string"].as_str().unwrap().starts_with("2015-02-02T"), "{answer}");
    let stats = aggregate(&json!({ "stats": { "field": "event_time" } }));
    assert!(stats["min_as_string"].as_str().unwrap().starts_with("2015-01-31T"), "{stats}");
    let nothing = aggregate(&json!({ "min": { "field": "nowhere" } }));
    assert_eq!(nothing["value"], Value::Null);
    let none = json!({ "size": 0, "query": { "match_none": {} }, "aggs": { "it": { "sum": { "field": "number" } } } });
    assert_eq!(ask(three(), &none)["aggregations"]["it"]["value"], json!(0.0));
}

fn days() -> Vec<u64> {
    (0..3).map(|day| wanted(|doc| doc.day() == day).len() as u64).collect()
}

#[test]
fn date_histograms_count_by_fixed_and_calendar_intervals() {
    let days = days();
    for interval in [json!({ "fixed_interval": "1d" }), json!({ "calendar_interval": "day" })] {
        let mut body = json!({ "field": "event_time" });
        body.as_object_mut().unwrap().extend(interval.as_object().unwrap().clone());
        let answer = aggregate(&json!({ "date_histogram": body }));
        let expected: Vec<_> = days
            .iter()
            .zip(0..)
            .map(|(count, day)| {
                let text = ["2015-01-31", "2015-02-01", "2015-02-02"][day as usize];
                let key = (FIRST_DAY + day * DAY) / 1_000;
                json!({ "key": key, "key_as_string": format!("{text}T00:00:00.000Z"), "doc_count": count })
            })
            .collect();
        assert_eq!(answer["buckets"], json!(expected), "{interval}");
    }
    let months = aggregate(
        &json!({ "date_histogram": { "field": "event_time", "calendar_interval": "month", "format": "yyyy-MM-dd" } }),
    );
    let expected = json!([
        { "key": 1_420_070_400_000_i64, "key_as_string": "2015-01-01", "doc_count": days[0] },
        { "key": 1_422_748_800_000_i64, "key_as_string": "2015-02-01", "doc_count": days[1] + days[2] },
    ]);
    assert_eq!(months["buckets"], expected);
    // 2015-01-31 was a Saturday.
    let weeks = aggregate(&json!({ "date_histogram": { "field": "event_time", "calendar_interval": "week" } }));
    assert_eq!(weeks["buckets"][0]["key_as_string"], json!("2015-01-26T00:00:00.000Z"));
    assert_eq!(pairs(&weeks).iter().map(|(_, count)| *count).collect::<Vec<_>>(), [days[0] + days[1], days[2]]);
    let year =
        aggregate(&json!({ "date_histogram": { "field": "event_time", "calendar_interval": "1y", "keyed": true } }));
    assert_eq!(year["buckets"]["2015-01-01T00:00:00.000Z"]["doc_count"], json!(200));
    let zoned = aggregate(
        &json!({ "date_histogram": { "field": "event_time", "fixed_interval": "1d", "time_zone": "+06:00" } }),
    );
    assert_eq!(zoned["buckets"][0]["key_as_string"], json!("2015-01-31T00:00:00.000+06:00"));
    let early = wanted(|doc| doc.event_time < FIRST_DAY + DAY - DAY / 4).len();
    assert_eq!(zoned["buckets"][0]["doc_count"], json!(early));
}

#[test]
fn date_histograms_fill_gaps_and_keep_to_bounds() {
    // `created_at` has no value in two of the three indices.
    let answer = aggregate(&json!({ "date_histogram": { "field": "created_at", "fixed_interval": "10d" } }));
    let total: u64 = pairs(&answer).iter().map(|(_, count)| count).sum();
    assert_eq!(total, wanted(|doc| doc.created_at.is_some()).len() as u64);
    assert!(pairs(&answer).len() >= 19, "{answer}");
    let monthly = aggregate(&json!({ "date_histogram": { "field": "created_at", "calendar_interval": "month" } }));
    assert_eq!(pairs(&monthly).iter().map(|(_, count)| count).sum::<u64>(), total);
    let wide = json!({ "date_histogram": { "field": "event_time", "fixed_interval": "1d",
        "extended_bounds": { "min": "2015-01-29", "max": "2015-02-04" } } });
    let counts: Vec<_> = pairs(&aggregate(&wide)).iter().map(|(_, count)| *count).collect();
    assert_eq!(counts, [vec![0, 0], days(), vec![0, 0]].concat());
    let narrow = json!({ "date_histogram": { "field": "event_time", "fixed_interval": "1d",
        "hard_bounds": { "min": "2015-02-01", "max": "2015-02-01T23:59:59" } } });
    assert_eq!(pairs(&aggregate(&narrow)).len(), 1);
    let busy = json!({ "date_histogram": { "field": "created_at", "fixed_interval": "1d", "min_doc_count": 1 } });
    assert!(pairs(&aggregate(&busy)).iter().all(|(_, count)| *count > 0));
    let wide_months = json!({ "date_histogram": { "field": "event_time", "calendar_interval": "month",
        "extended_bounds": { "min": "2014-12-01", "max": "2015-03-05" } } });
    assert_eq!(pairs(&aggregate(&wide_months)).len(), 4);
}

#[test]
fn histograms_and_ranges_count_numbers() {
    let answer = aggregate(&json!({ "histogram": { "field": "number", "interval": 250 } }));
    let expected = counted(|doc| doc.number.map(|number| number.div_euclid(250) * 250).into_iter().collect());
    let expected: Vec<_> = expected.into_iter().map(|(key, count)| (json!(key as f64), count)).collect();
    assert_eq!(pairs(&answer), expected);
    let keyed =
        aggregate(&json!({ "histogram": { "field": "number", "interval": 1000, "offset": 500, "keyed": true } }));
    let count = wanted(|doc| doc.number.is_some_and(|number| (-500..500).contains(&number))).len();
    assert_eq!(keyed["buckets"]["-500.0"]["doc_count"], json!(count), "{keyed}");
    let within =
        |low: i64, high: i64| wanted(|doc| doc.number.is_some_and(|number| (low..high).contains(&number))).len();
    let ranges = aggregate(&json!({ "range": { "field": "number",
        "ranges": [{ "from": 0, "to": 100 }, { "to": 50 }, { "key": "rest", "from": 100 }] } }));
    let expected = json!([
        { "key": "*-50.0", "to": 50.0, "doc_count": within(i64::MIN, 50) },
        { "key": "0.0-100.0", "from": 0.0, "to": 100.0, "doc_count": within(0, 100) },
        { "key": "rest", "from": 100.0, "doc_count": within(100, i64::MAX) },
    ]);
    assert_eq!(ranges["buckets"], expected);
    let dates = aggregate(&json!({ "date_range": { "field": "event_time", "keyed": true,
        "ranges": [{ "key": "today", "from": "now/d", "to": "now/d+1d" }, { "to": "2015-02-01" }] } }));
    assert_eq!(dates["buckets"]["today"]["doc_count"], json!(days()[2]));
    assert_eq!(dates["buckets"]["*-2015-02-01T00:00:00.000Z"]["doc_count"], json!(days()[0]));
}

#[test]
fn aggregations_nest() {
    let body = json!({
        "terms": { "field": "type", "order": { "numbers.max": "desc" } },
        "aggs": {
            "numbers": { "stats": { "field": "number" } },
            "days": { "date_histogram": { "field": "event_time", "fixed_interval": "1d" },
                "aggs": { "public": { "filter": { "term": { "public": true } },
                    "aggs": { "sum": { "sum": { "field": "number" } } } } } },
            "parts": { "filters": { "filters": { "leaks": { "match": { "title": "leak" } }, "rust": { "prefix": { "repo_name": "rust" } } } } },
            "months": { "date_histogram": { "field": "created_at", "calendar_interval": "month" } },
        },
    });
    let answer = aggregate(&body);
    let buckets = answer["buckets"].as_array().unwrap();
    let largest: Vec<_> = buckets.iter().map(|bucket| bucket["numbers"]["max"].as_f64().unwrap()).collect();
    assert!(largest.is_sorted_by(|left, right| left >= right), "{largest:?}");
    for bucket in buckets {
        let kind = bucket["key"].as_str().unwrap();
        let leaks = wanted(|doc| doc.kind == kind && doc.has_word("leak")).len();
        assert_eq!(bucket["parts"]["buckets"]["leaks"]["doc_count"], json!(leaks));
        let day = &bucket["days"]["buckets"][1];
        let rows: Vec<_> =
            docs().iter().filter(|doc| doc.kind == kind && doc.day() == 1 && doc.public == Some(true)).collect();
        assert_eq!(day["public"]["doc_count"], json!(rows.len()));
        let sum: i64 = rows.iter().filter_map(|doc| doc.number).sum();
        assert_eq!(day["public"]["sum"]["value"].as_f64().unwrap(), sum as f64);
        let months: u64 = pairs(&bucket["months"]).iter().map(|(_, count)| count).sum();
        assert_eq!(months, wanted(|doc| doc.kind == kind && doc.created_at.is_some()).len() as u64);
    }
}

#[test]
fn filters_may_be_a_list_and_meta_comes_back() {
    let body = json!({ "filters": { "filters": [{ "match_all": {} }, { "term": { "type": "ForkEvent" } }] }, "meta": { "a": 1 } });
    let answer = aggregate(&body);
    assert_eq!(answer["buckets"], json!([{ "doc_count": 200 }, { "doc_count": 40 }]));
    assert_eq!(answer["meta"], json!({ "a": 1 }));
}

#[test]
fn top_hits_are_the_first_rows_of_each_bucket() {
    let top = json!({ "size": 2, "from": 1, "sort": [{ "event_time": "desc" }], "_source": ["number"] });
    let answer = aggregate(&json!({ "terms": { "field": "type" }, "aggs": { "newest": { "top_hits": top } } }));
    for bucket in answer["buckets"].as_array().unwrap() {
        let kind = bucket["key"].as_str().unwrap();
        let mut rows: Vec<_> = docs().iter().filter(|doc| doc.kind == kind).collect();
        rows.sort_by_key(|doc| std::cmp::Reverse(doc.event_time));
        let hits = bucket["newest"]["hits"]["hits"].as_array().unwrap();
        let found: Vec<_> = hits.iter().map(|hit| hit["_id"].as_str().unwrap()).collect();
        assert_eq!(found, [rows[1].id.as_str(), rows[2].id.as_str()]);
        assert_eq!(hits[0]["sort"], json!([rows[1].event_time / 1_000]));
        assert_eq!(hits[0]["_source"].as_object().unwrap().len(), usize::from(rows[1].number.is_some()));
        assert_eq!(bucket["newest"]["hits"]["total"]["value"], json!(40));
    }
}

#[test]
fn aggregations_see_only_the_rows_of_the_query() {
    let request = json!({ "size": 0, "query": { "term": { "public": true } }, "aggs": { "it": { "terms": { "field": "type" } } } });
    let answer = ask(three(), &request);
    let rows: u64 = pairs(&answer["aggregations"]["it"]).iter().map(|(_, count)| count).sum();
    assert_eq!(rows, wanted(|doc| doc.public == Some(true)).len() as u64);
}
