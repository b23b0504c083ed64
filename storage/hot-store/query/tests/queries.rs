//! Which rows a query finds, beside a plain loop over them.

use serde_json::{Value, json};

use super::{DAY, Doc, FIRST_DAY, NOW, ask, docs, ids, one, three, wanted};

type Keep = fn(&Doc) -> bool;

fn has_phrase(doc: &Doc, phrase: &str) -> bool {
    doc.title.as_ref().is_some_and(|title| {
        format!(" {} ", super::words(title).collect::<Vec<_>>().join(" ")).contains(&format!(" {phrase} "))
    })
}

fn matching() -> Vec<(Value, Keep)> {
    vec![
        (json!({ "match_all": {} }), |_| true),
        (json!({ "match_none": {} }), |_| false),
        (json!({ "match": { "title": "leak" } }), |doc| doc.has_word("leak")),
        (json!({ "match": { "title": { "query": "LEAK crash" } } }), |doc| {
            doc.has_word("leak") || doc.has_word("crash")
        }),
        (json!({ "match": { "title": { "query": "memory leak", "operator": "and" } } }), |doc| {
            doc.has_word("memory") && doc.has_word("leak")
        }),
        (json!({ "match": { "title": { "query": "fast memory leak", "minimum_should_match": 2 } } }), |doc| {
            ["fast", "memory", "leak"].iter().filter(|word| doc.has_word(word)).count() >= 2
        }),
        (json!({ "match": { "title": { "query": "fast memory leak", "minimum_should_match": "-1" } } }), |doc| {
            ["fast", "memory", "leak"].iter().filter(|word| doc.has_word(word)).count() >= 2
        }),
        (json!({ "match": { "title": { "query": "laek", "fuzziness": "AUTO" } } }), |doc| doc.has_word("leak")),
        (json!({ "match": { "title": { "query": "...", "zero_terms_query": "all" } } }), |_| true),
        (json!({ "match": { "title": "..." } }), |_| false),
        (json!({ "match": { "title": "über" } }), |doc| doc.has_word("über")),
        (json!({ "match": { "type": "PushEvent" } }), |doc| doc.kind == "PushEvent"),
        (json!({ "match": { "number": "20" } }), |doc| doc.number == Some(20)),
        (json!({ "match": { "public": "true" } }), |doc| doc.public == Some(true)),
        (json!({ "match_phrase": { "title": "memory leak" } }), |doc| has_phrase(doc, "memory leak")),
        (json!({ "match_phrase": { "title": { "query": "leak parser", "slop": 1 } } }), |doc| {
            has_phrase(doc, "leak in parser")
        }),
        (json!({ "match_phrase": { "title": "leak parser" } }), |doc| has_phrase(doc, "leak parser")),
        (json!({ "match_phrase_prefix": { "title": "memory lea" } }), |doc| has_phrase(doc, "memory leak")),
        (json!({ "match_phrase_prefix": { "title": "par" } }), |doc| doc.has_word("parser")),
        (json!({ "match_phrase_prefix": { "repo_name": "rust-l" } }), |doc| doc.repo.starts_with("rust-l")),
        (json!({ "multi_match": { "query": "crash", "fields": ["title", "body"] } }), |doc| doc.has_word("crash")),
        (
            json!({ "multi_match": { "query": "PushEvent", "fields": ["ty*^2", "title"], "type": "most_fields" } }),
            |doc| doc.kind == "PushEvent",
        ),
        (json!({ "multi_match": { "query": "memory leak", "fields": ["title"], "type": "phrase" } }), |doc| {
            has_phrase(doc, "memory leak")
        }),
        (json!({ "multi_match": { "query": "forkevent" } }), |doc| doc.kind == "ForkEvent"),
    ]
}

fn terms() -> Vec<(Value, Keep)> {
    vec![
        (json!({ "term": { "type": "PushEvent" } }), |doc| doc.kind == "PushEvent"),
        (json!({ "term": { "type": { "value": "PUSHEVENT", "case_insensitive": true } } }), |doc| {
            doc.kind.eq_ignore_ascii_case("pushevent")
        }),
        (json!({ "term": { "title": "leak" } }), |doc| doc.has_word("leak")),
        (json!({ "term": { "title": "LEAK" } }), |_| false),
        (json!({ "term": { "labels": "label-3" } }), |doc| doc.labels.iter().any(|label| label == "label-3")),
        (json!({ "term": { "_id": "id-17" } }), |doc| doc.id == "id-17"),
        (json!({ "term": { "_index": "made-2015.02.01" } }), |doc| doc.day() == 1),
        (json!({ "term": { "number": 20.0 } }), |doc| doc.number == Some(20)),
        (json!({ "term": { "number": 20.5 } }), |_| false),
        (json!({ "term": { "event_time": "2015-02-01" } }), |doc| doc.day() == 1),
        (json!({ "terms": { "type": ["ForkEvent", "WatchEvent"] } }), |doc| {
            ["ForkEvent", "WatchEvent"].contains(&doc.kind)
        }),
        (json!({ "terms": { "number": [20, "30", 1] } }), |doc| {
            doc.number.is_some_and(|number| [20, 30].contains(&number))
        }),
        (json!({ "terms": { "type": [] } }), |_| false),
        (json!({ "ids": { "values": ["id-1", "id-199", "id-200"] } }), |doc| doc.id == "id-1" || doc.id == "id-199"),
        (json!({ "exists": { "field": "title" } }), |doc| doc.title.is_some()),
        (json!({ "exists": { "field": "number" } }), |doc| doc.number.is_some()),
        (json!({ "exists": { "field": "labels" } }), |doc| !doc.labels.is_empty()),
        (json!({ "exists": { "field": "_id" } }), |_| true),
        (json!({ "exists": { "field": "nowhere" } }), |_| false),
        (json!({ "term": { "nowhere": 1 } }), |_| false),
        (json!({ "prefix": { "repo_name": "rust" } }), |doc| doc.repo.starts_with("rust")),
        (json!({ "prefix": { "title": "LEA" } }), |_| false),
        (json!({ "prefix": { "type": { "value": "push", "case_insensitive": true } } }), |doc| {
            doc.kind.to_lowercase().starts_with("push")
        }),
        (json!({ "wildcard": { "repo_name": "rust*/?" } }), |doc| doc.repo.starts_with("rust")),
        (json!({ "wildcard": { "repo_name": { "value": "a.b\\**" } } }), |doc| doc.repo.starts_with("a.b*")),
        (json!({ "wildcard": { "type": "*sues*" } }), |doc| doc.kind == "IssuesEvent"),
        (json!({ "regexp": { "repo_name": "(rust|tokio)/[0-3]" } }), |doc| {
            let (owner, number) = doc.repo.split_once('/').unwrap();
            ["rust", "tokio"].contains(&owner) && number.parse::<u8>().unwrap() <= 3
        }),
        (json!({ "fuzzy": { "title": "leek" } }), |doc| doc.has_word("leak")),
    ]
}

fn ranges() -> Vec<(Value, Keep)> {
    vec![
        (json!({ "range": { "number": { "gte": 0, "lt": 100 } } }), |doc| {
            doc.number.is_some_and(|number| (0..100).contains(&number))
        }),
        (json!({ "range": { "number": { "gt": "-10.5", "lte": 10.5 } } }), |doc| {
            doc.number.is_some_and(|number| (-10..=10).contains(&number))
        }),
        (json!({ "range": { "number": { "from": 0, "to": 10, "include_upper": false } } }), |doc| {
            doc.number == Some(0)
        }),
        (json!({ "range": { "number": { "gt": 10, "lt": 10 } } }), |_| false),
        (json!({ "range": { "number": {} } }), |doc| doc.number.is_some()),
        (json!({ "range": { "event_time": { "gte": "2015-02-01", "lt": "2015-02-02" } } }), |doc| doc.day() == 1),
        (json!({ "range": { "event_time": { "gt": "2015-01-31", "lte": "2015-02-01" } } }), |doc| doc.day() == 1),
        (json!({ "range": { "event_time": { "gte": "now-1d/d", "lt": "now/d" } } }), |doc| doc.day() == 1),
        (json!({ "range": { "event_time": { "gte": "now" } } }), |doc| doc.event_time >= NOW.0),
        (json!({ "range": { "event_time": { "gte": "2015-01-01||+1M/d" } } }), |doc| doc.day() >= 1),
        (json!({ "range": { "event_time": { "gte": FIRST_DAY / 1_000 + 43_200_000 } } }), |doc| {
            doc.event_time >= FIRST_DAY + DAY / 2
        }),
        (
            json!({ "range": { "event_time": { "lt": FIRST_DAY / 1_000_000 + 43_200, "format": "epoch_second" } } }),
            |doc| doc.event_time < FIRST_DAY + DAY / 2,
        ),
        (json!({ "range": { "event_time": { "gte": "2015-02-01", "time_zone": "-06:00" } } }), |doc| {
            doc.event_time >= FIRST_DAY + DAY + DAY / 4
        }),
        (json!({ "range": { "repo_name": { "gte": "rust", "lt": "rust-" } } }), |doc| {
            doc.repo.as_str() >= "rust" && doc.repo.as_str() < "rust-"
        }),
        (json!({ "range": { "title": { "gte": "parser", "lte": "slow" } } }), |doc| {
            ["parser", "slow"].iter().any(|word| doc.has_word(word))
        }),
        (json!({ "range": { "public": { "gt": false } } }), |doc| doc.public == Some(true)),
    ]
}

fn combined() -> Vec<(Value, Keep)> {
    vec![
        (json!({ "bool": {} }), |_| true),
        (
            json!({ "bool": { "must": { "term": { "public": true } }, "filter": [{ "range": { "number": { "gte": 0 } } }] } }),
            |doc| doc.public == Some(true) && doc.number.is_some_and(|number| number >= 0),
        ),
        (json!({ "bool": { "must_not": [{ "term": { "type": "PushEvent" } }] } }), |doc| doc.kind != "PushEvent"),
        (
            json!({ "bool": { "should": [{ "term": { "type": "PushEvent" } }, { "match": { "title": "crash" } }] } }),
            |doc| doc.kind == "PushEvent" || doc.has_word("crash"),
        ),
        (
            json!({ "bool": { "should": [{ "term": { "type": "PushEvent" } }, { "match": { "title": "leak" } },
            { "term": { "public": true } }], "minimum_should_match": 2 } }),
            |doc| {
                [doc.kind == "PushEvent", doc.has_word("leak"), doc.public == Some(true)]
                    .iter()
                    .filter(|hit| **hit)
                    .count()
                    >= 2
            },
        ),
        (
            json!({ "bool": { "filter": { "term": { "public": false } }, "should": { "term": { "type": "ForkEvent" } } } }),
            |doc| doc.public == Some(false),
        ),
        (
            json!({ "bool": { "filter": { "term": { "public": false } }, "should": { "term": { "type": "ForkEvent" } },
            "minimum_should_match": 1 } }),
            |doc| doc.public == Some(false) && doc.kind == "ForkEvent",
        ),
        (json!({ "bool": { "must_not": { "exists": { "field": "title" } }, "should": { "match_all": {} } } }), |doc| {
            doc.title.is_none()
        }),
        (json!({ "constant_score": { "filter": { "term": { "type": "ForkEvent" } }, "boost": 3 } }), |doc| {
            doc.kind == "ForkEvent"
        }),
        (
            json!({ "dis_max": { "queries": [{ "term": { "type": "ForkEvent" } }, { "term": { "public": true } }] } }),
            |doc| doc.kind == "ForkEvent" || doc.public == Some(true),
        ),
    ]
}

fn query_strings() -> Vec<(Value, Keep)> {
    let cases: Vec<(&str, Keep)> = vec![
        ("type:PushEvent AND repo_name:rust*", |doc| doc.kind == "PushEvent" && doc.repo.starts_with("rust")),
        ("leak", |doc| doc.has_word("leak")),
        ("title:(Memory AND NOT leak)", |doc| doc.has_word("memory") && !doc.has_word("leak")),
        ("\"memory leak\"", |doc| has_phrase(doc, "memory leak")),
        ("title:\"leak parser\"~1", |doc| has_phrase(doc, "leak in parser")),
        ("number:[0 TO 50}", |doc| doc.number.is_some_and(|number| (0..50).contains(&number))),
        ("number:>=1000 || public:true", |doc| {
            doc.number.is_some_and(|number| number >= 1000) || doc.public == Some(true)
        }),
        ("-type:PushEvent", |doc| doc.kind != "PushEvent"),
        ("+title:memory -title:fast", |doc| doc.has_word("memory") && !doc.has_word("fast")),
        ("_exists_:created_at", |doc| doc.created_at.is_some()),
        ("NOT _exists_:title", |doc| doc.title.is_none()),
        ("title:*", |doc| doc.title.is_some()),
        ("*", |_| true),
        ("event_time:[2015-02-01 TO 2015-02-01]", |doc| doc.day() == 1),
        ("event_time:[now-1d/d TO now/d}", |doc| doc.day() == 1),
        ("title:LEA*", |doc| doc.has_word("leak")),
        ("title:laek~", |doc| doc.has_word("leak")),
        ("repo_name:rust\\-lang\\/3", |doc| doc.repo == "rust-lang/3"),
        ("repo_name:\"a.b*c/1\"", |doc| doc.repo == "a.b*c/1"),
        ("repo_name:/tokio.[12]/", |doc| ["tokio/1", "tokio/2"].contains(&doc.repo.as_str())),
        ("20", |doc| doc.body.contains("row 20 ")),
        ("nowhere:x", |_| false),
        ("id\\-17", |doc| doc.id == "id-17"),
        ("type:(PushEvent OR ForkEvent) AND public:true", |doc| {
            ["PushEvent", "ForkEvent"].contains(&doc.kind) && doc.public == Some(true)
        }),
    ];
    let mut cases: Vec<_> =
        cases.into_iter().map(|(text, keep)| (json!({ "query_string": { "query": text } }), keep)).collect();
    cases.push((
        json!({ "query_string": { "query": "memory leak", "default_operator": "AND", "default_field": "title" } }),
        |doc| doc.has_word("memory") && doc.has_word("leak"),
    ));
    cases.push((
        json!({ "query_string": { "query": "crash 20", "fields": ["title", "number"], "lenient": true } }),
        |doc| doc.has_word("crash") || doc.number == Some(20),
    ));
    cases
}

#[test]
fn a_query_finds_the_rows_that_a_loop_finds() {
    let cases: Vec<_> = [matching(), terms(), ranges(), combined(), query_strings()].into_iter().flatten().collect();
    assert!(cases.len() >= 100, "{}", cases.len());
    for (query, keep) in cases {
        let body = json!({ "query": query, "size": 1_000, "sort": ["_doc"] });
        let names_an_index = query.to_string().contains("_index");
        for indices in [three(), one()] {
            if names_an_index && indices.len() == 1 {
                continue;
            }
            let answer = ask(indices, &body);
            let mut found = ids(&answer);
            found.sort();
            let mut expected = wanted(keep);
            expected.sort();
            assert_eq!(found, expected, "{query}");
            assert_eq!(answer["hits"]["total"], json!({ "value": expected.len(), "relation": "eq" }), "{query}");
            let counted = super::super::count(indices, &json!({ "query": query }), NOW, super::late()).unwrap();
            assert_eq!(counted["count"], json!(expected.len()), "{query}");
        }
    }
}

#[test]
fn most_queries_of_the_table_find_some_rows_and_not_all() {
    let cases: Vec<_> = [matching(), terms(), ranges(), combined(), query_strings()].into_iter().flatten().collect();
    let telling = cases.iter().filter(|(_, keep)| (1..docs().len()).contains(&wanted(keep).len())).count();
    assert!(telling * 10 >= cases.len() * 8, "{telling} of {}", cases.len());
}
