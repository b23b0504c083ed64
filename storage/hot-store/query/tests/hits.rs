//! How hits are sorted, paged, scored and written.

use serde_json::{Value, json};

use super::{Doc, ask, docs, ids, one, three, wanted};

/// The ids by a key, what lacks it at the end, ties by partition and offset.
fn sorted<K: Ord>(descending: bool, key: impl Fn(&Doc) -> Option<K>) -> Vec<String> {
    let mut docs: Vec<_> = docs().iter().collect();
    docs.sort_by(|left, right| {
        let order = match (key(left), key(right)) {
            (Some(left), Some(right)) if descending => right.cmp(&left),
            (Some(left), Some(right)) => left.cmp(&right),
            (left, right) => right.is_some().cmp(&left.is_some()),
        };
        order.then((left.partition, left.offset).cmp(&(right.partition, right.offset)))
    });
    docs.iter().map(|doc| doc.id.clone()).collect()
}

fn sorts() -> Vec<(Value, Vec<String>)> {
    vec![
        (json!(["number"]), sorted(false, |doc| doc.number)),
        (json!([{ "number": "desc" }]), sorted(true, |doc| doc.number)),
        (json!({ "repo_name": { "order": "asc" } }), sorted(false, |doc| Some(doc.repo.clone()))),
        (json!([{ "repo_name": "desc" }, { "event_time": "asc" }]), {
            let mut docs: Vec<_> = docs().iter().collect();
            docs.sort_by(|left, right| right.repo.cmp(&left.repo).then(left.event_time.cmp(&right.event_time)));
            docs.iter().map(|doc| doc.id.clone()).collect()
        }),
        (json!(["event_time"]), sorted(false, |doc| Some(doc.event_time))),
        (json!([{ "public": "asc" }]), sorted(false, |doc| doc.public)),
        (json!([{ "labels": { "order": "asc" } }]), sorted(false, |doc| doc.labels.iter().min().cloned())),
        (
            json!([{ "labels": { "order": "desc", "mode": "max" } }]),
            sorted(true, |doc| doc.labels.iter().max().cloned()),
        ),
        (json!([{ "created_at": "desc" }]), sorted(true, |doc| doc.created_at)),
        (json!(["_doc"]), sorted(false, |_| Some(0))),
        (json!([{ "nowhere": { "unmapped_type": "long" } }]), sorted(false, |_| Some(0))),
    ]
}

#[test]
fn a_sort_orders_as_a_loop_does_over_three_indices_and_over_one() {
    for (sort, expected) in sorts() {
        for indices in [three(), one()] {
            let answer = ask(indices, &json!({ "sort": sort, "size": 200, "_source": false }));
            assert_eq!(ids(&answer), expected, "{sort}");
            let page = ask(indices, &json!({ "sort": sort, "from": 30, "size": 20 }));
            assert_eq!(ids(&page), expected[30..50], "{sort}");
        }
    }
}

#[test]
fn missing_values_come_first_where_asked() {
    let answer = ask(three(), &json!({ "sort": [{ "number": { "missing": "_first" } }], "size": 200 }));
    let missing = wanted(|doc| doc.number.is_none());
    let mut first = ids(&answer)[..missing.len()].to_vec();
    first.sort();
    let mut expected = missing.clone();
    expected.sort();
    assert_eq!(first, expected);
    assert_eq!(answer["hits"]["hits"][0]["sort"], json!([i64::MIN]));
}

#[test]
fn search_after_walks_through_all_rows_once() {
    let sorts = [
        json!([{ "repo_name": "desc" }, { "_offset": "asc" }, { "_partition": "asc" }]),
        json!([{ "number": "asc" }, { "_offset": "desc" }, { "_partition": "asc" }]),
        json!([{ "created_at": "desc" }, { "_offset": "asc" }, { "_partition": "asc" }]),
        json!([{ "event_time": "asc" }, { "_offset": "asc" }, { "_partition": "asc" }]),
        json!([{ "labels": "asc" }, { "public": "desc" }, { "_offset": "asc" }, { "_partition": "asc" }]),
    ];
    for sort in &sorts {
        let whole = ids(&ask(three(), &json!({ "sort": sort, "size": 200 })));
        let mut walked = Vec::new();
        let mut body = json!({ "sort": sort, "size": 17 });
        loop {
            let answer = ask(three(), &body);
            let page = ids(&answer);
            let Some(last) = answer["hits"]["hits"].as_array().unwrap().last() else {
                break;
            };
            body["search_after"] = last["sort"].clone();
            walked.extend(page);
            assert!(walked.len() <= 200, "{sort}");
        }
        assert_eq!(walked, whole, "{sort}");
        assert_eq!(whole.len(), 200);
    }
}

#[test]
fn search_after_a_text_that_no_row_has_goes_on_behind_it() {
    let sort = json!([{ "repo_name": "asc" }]);
    let answer = ask(three(), &json!({ "sort": sort, "size": 200, "search_after": ["rust.."] }));
    let mut expected = wanted(|doc| doc.repo.as_str() > "rust..");
    let mut found = ids(&answer);
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
    assert_eq!(answer["hits"]["total"]["value"], json!(200));
}

#[test]
fn scores_over_three_indices_equal_those_over_one() {
    let queries = [
        json!({ "match": { "title": "fast memory parser" } }),
        json!({ "match_phrase": { "title": "memory leak" } }),
        json!({ "bool": { "must": { "match": { "title": "leak" } }, "should": { "term": { "type": "ForkEvent" } } } }),
        json!({ "query_string": { "query": "parser^3 OR crash" } }),
    ];
    for query in queries {
        let scores = |answer: &Value| -> Vec<(String, Value)> {
            let hits = answer["hits"]["hits"].as_array().unwrap();
            hits.iter().map(|hit| (hit["_id"].as_str().unwrap().to_owned(), hit["_score"].clone())).collect()
        };
        let body = json!({ "query": query, "size": 200 });
        let (split, whole) = (ask(three(), &body), ask(one(), &body));
        assert_eq!(scores(&split), scores(&whole), "{query}");
        assert_eq!(split["hits"]["max_score"], whole["hits"]["max_score"], "{query}");
        assert_eq!(split["hits"]["max_score"], split["hits"]["hits"][0]["_score"], "{query}");
        assert!(split["hits"]["max_score"].as_f64().unwrap() > 0.0, "{query}");
    }
}

#[test]
fn a_filter_does_not_score_and_a_constant_scores_its_boost() {
    let score = |query: Value| ask(three(), &json!({ "query": query, "size": 1 }))["hits"]["max_score"].clone();
    assert_eq!(score(json!({ "match_all": {} })), json!(1.0));
    assert_eq!(score(json!({ "bool": { "filter": { "term": { "type": "ForkEvent" } } } })), json!(0.0));
    assert_eq!(
        score(json!({ "constant_score": { "filter": { "match": { "title": "leak" } }, "boost": 2 } })),
        json!(2.0)
    );
    assert_eq!(score(json!({ "match_all": { "boost": 1.5 } })), json!(1.5));
    assert_eq!(score(json!({ "terms": { "type": ["ForkEvent"] } })), json!(1.0));
}

#[test]
fn a_hit_has_elasticsearchs_shape() {
    let body =
        json!({ "query": { "ids": { "values": ["id-4"] } }, "sort": ["event_time"], "fields": ["type", "lab*"] });
    let answer = ask(three(), &body);
    let doc = &docs()[4];
    assert_eq!(answer["timed_out"], json!(false));
    assert_eq!(answer["_shards"], json!({ "total": 3, "successful": 3, "skipped": 0, "failed": 0 }));
    assert_eq!(answer["hits"]["max_score"], Value::Null);
    let hit = &answer["hits"]["hits"][0];
    assert_eq!(hit["_index"], json!("made-2015.02.01"));
    assert_eq!(hit["_score"], Value::Null);
    assert_eq!(hit["_source"], super::source(doc));
    assert_eq!(hit["sort"], json!([doc.event_time / 1_000]));
    assert_eq!(hit["fields"], json!({ "type": [doc.kind] }), "an empty list is no value");
}

#[test]
fn the_source_shows_what_was_asked_for() {
    let shown = |source: Value| {
        let body = json!({ "query": { "ids": { "values": ["id-5"] } }, "_source": source });
        let hit = ask(three(), &body)["hits"]["hits"][0].clone();
        hit.get("_source").map(|row| row.as_object().unwrap().keys().cloned().collect::<Vec<_>>())
    };
    let names = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
    assert_eq!(shown(json!(false)), None);
    assert_eq!(shown(json!("type")), names(&["type"]));
    assert_eq!(shown(json!(["ti*", "number"])), names(&["number", "title"]));
    let both = json!({ "includes": ["*e*"], "excludes": ["*_*", "type"] });
    assert_eq!(shown(both), names(&["labels", "number", "title"]));
}

#[test]
fn hits_are_counted_as_far_as_asked() {
    let total =
        |value: Value| ask(three(), &json!({ "size": 0, "track_total_hits": value }))["hits"].get("total").cloned();
    assert_eq!(total(json!(true)), Some(json!({ "value": 200, "relation": "eq" })));
    assert_eq!(total(json!(50)), Some(json!({ "value": 50, "relation": "gte" })));
    assert_eq!(total(json!(false)), None);
}

#[test]
fn a_least_score_and_a_post_filter_narrow_the_hits() {
    let body = json!({ "query": { "match": { "title": "fast memory leak" } }, "size": 200 });
    let all = ask(three(), &body);
    let scores: Vec<f64> =
        all["hits"]["hits"].as_array().unwrap().iter().map(|hit| hit["_score"].as_f64().unwrap()).collect();
    let middle = (scores[0] + scores[scores.len() - 1]) / 2.0;
    let mut narrowed = body.clone();
    narrowed["min_score"] = json!(middle);
    let expected = scores.iter().filter(|score| **score >= middle).count();
    assert!(expected < scores.len());
    assert_eq!(ask(three(), &narrowed)["hits"]["total"]["value"], json!(expected));

    let filtered = json!({
        "post_filter": { "term": { "type": "ForkEvent" } },
        "aggs": { "kinds": { "terms": { "field": "type" } } },
        "size": 0,
    });
    let answer = ask(three(), &filtered);
    assert_eq!(answer["hits"]["total"]["value"], json!(wanted(|doc| doc.kind == "ForkEvent").len()));
    assert_eq!(answer["aggregations"]["kinds"]["buckets"].as_array().unwrap().len(), 5);
}

#[test]
fn highlights_mark_the_words_of_the_query() {
    let marked = |query: Value, highlight: Value| {
        let query = json!({ "bool": { "must": query, "filter": { "ids": { "values": ["id-6", "id-5"] } } } });
        let body = json!({ "query": query, "highlight": highlight, "sort": ["event_time"] });
        ask(three(), &body)["hits"]["hits"]
            .as_array()
            .unwrap()
            .iter()
            .map(|hit| hit["highlight"].clone())
            .collect::<Vec<_>>()
    };
    // Row 5: `Disk leak in parser`; row 6: `Fast memory leak in parser`.
    assert_eq!(docs()[5].title.as_deref(), Some("Disk leak in parser"));
    let title = json!({ "fields": { "title": {} } });
    assert!(docs()[6].event_time < docs()[5].event_time);
    let leak = marked(json!({ "match": { "title": "LEAK" } }), title.clone());
    assert_eq!(leak[0], json!({ "title": ["Fast memory <em>leak</em> in parser"] }));
    let prefix = marked(json!({ "query_string": { "query": "title:PARS*" } }), title.clone());
    assert_eq!(prefix[1], json!({ "title": ["Disk leak in <em>parser</em>"] }));
    let tags = json!({ "fields": { "ti*": { "pre_tags": ["<"], "post_tags": [">"], "number_of_fragments": 0 } } });
    assert_eq!(
        marked(json!({ "match_phrase": { "title": "leak in" } }), tags)[1],
        json!({ "title": ["Disk <leak> <in> parser"] })
    );
    let small = json!({ "fields": { "title": { "fragment_size": 5, "number_of_fragments": 1 } } });
    assert_eq!(marked(json!({ "match": { "title": "parser" } }), small)[1], json!({ "title": ["in <em>parser</em>"] }));
    let other = json!({ "fields": { "body": { "no_match_size": 5 } } });
    assert_eq!(marked(json!({ "match": { "title": "leak" } }), other)[1], json!({ "body": ["row 5"] }));
    let any = json!({ "fields": { "type": { "require_field_match": false } } });
    assert_eq!(
        marked(json!({ "multi_match": { "query": "PushEvent" } }), any)[0],
        json!({ "type": ["<em>PushEvent</em>"] })
    );
}

#[test]
fn a_search_whose_time_is_over_says_so() {
    let answer = ask(three(), &json!({ "timeout": "0ms", "aggs": { "n": { "max": { "field": "number" } } } }));
    assert_eq!(answer["timed_out"], json!(true));
    assert_eq!(answer["hits"]["hits"], json!([]));
    assert_eq!(answer["aggregations"]["n"]["value"], Value::Null);
}

#[test]
fn no_index_is_an_empty_answer_and_still_reads_the_request() {
    let answer = ask(&[], &json!({ "aggs": { "kinds": { "terms": { "field": "type" } } } }));
    assert_eq!(answer["hits"]["total"]["value"], json!(0));
    assert_eq!(answer["aggregations"]["kinds"]["buckets"], json!([]));
    assert!(super::super::search(&[], &json!({ "query": { "mach": {} } }), super::NOW, super::late()).is_err());
}

#[test]
fn a_search_whose_time_is_over_says_so_and_a_count_is_an_error() {
    let everything = json!({ "query": { "match_all": {} } });
    let over = std::time::Instant::now();
    let answer = super::super::search(three(), &everything, super::NOW, over).unwrap();
    assert_eq!((&answer["timed_out"], &answer["hits"]["total"]["value"]), (&json!(true), &json!(0)));
    let error = super::super::count(three(), &everything, super::NOW, over).unwrap_err();
    assert_eq!((error.status, error.kind), (504, "search_timeout_exception"));
    assert_eq!(super::super::count(three(), &everything, super::NOW, super::late()).unwrap()["count"], docs().len());
}

#[test]
fn a_search_ends_at_its_time_within_a_large_segment_too() {
    const ROWS: usize = 30_000;
    let one = [super::index_of_segments("made-large", docs().iter().cycle().take(ROWS), ROWS)];
    let counts = json!({ "kinds": { "terms": { "field": "type" } }, "n": { "cardinality": { "field": "number" } } });
    let by_number = json!({ "sort": ["number"], "track_total_hits": true, "aggs": counts });
    let by_score = json!({ "query": { "match": { "body": "row" } }, "track_total_hits": true });
    for body in [by_number, by_score] {
        let all = ask(&one, &body);
        assert_eq!((&all["timed_out"], &all["hits"]["total"]["value"]), (&json!(false), &json!(ROWS)));
        let deadline = std::time::Instant::now() + std::time::Duration::from_millis(1);
        let some = super::super::search(&one, &body, super::NOW, deadline).unwrap();
        let total = some["hits"]["total"]["value"].as_u64().unwrap();
        assert!(some["timed_out"] == json!(true) && total < ROWS as u64, "{total} hits");
    }
}
