use serde_json::{Value, json};

use super::{Running, answer, header, loopback, send, start};

const CLIENT_TYPE: &str = "application/vnd.elasticsearch+json; compatible-with=8";

#[tokio::test]
async fn an_official_client_finds_the_version_and_the_marks_it_insists_on() {
    let running = start(loopback()).await;
    let response = send(running.elasticsearch("GET", "/").header("accept", CLIENT_TYPE)).await;
    assert_eq!(header(&response, "x-elastic-product"), "Elasticsearch");
    assert_eq!(header(&response, "content-type"), "application/vnd.elasticsearch+json;compatible-with=8");
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["version"]["number"], "8.19.0");
    assert_eq!(body["tagline"], "You Know, for Search");
    let head = send(running.elasticsearch("HEAD", "/")).await;
    assert_eq!((head.status().as_u16(), header(&head, "x-elastic-product")), (200, "Elasticsearch"));
    assert_eq!(head.text().await.unwrap(), "");
}

#[tokio::test]
async fn the_query_string_becomes_the_body_of_the_search() {
    let running = start(loopback()).await;
    let path = "/github-*/_search?q=type:PushEvent&default_operator=AND&df=title&from=2&size=3&sort=event_time:desc,id\
                &_source=type,id&track_total_hits=100&pretty";
    let response = send(running.elasticsearch("POST", path).body(r#"{"query": {"match_all": {}}, "aggs": {}}"#)).await;
    assert_eq!(response.status().as_u16(), 200);
    assert!(response.text().await.unwrap().starts_with("{\n  \""), "pretty has a line for each key");
    let query =
        json!({"query_string": {"query": "type:PushEvent", "default_operator": "and", "default_field": "title"}});
    let request = json!({
        "query": query, "aggs": {}, "from": 2, "size": 3, "sort": [{"event_time": {"order": "desc"}}, "id"],
        "_source": ["type", "id"], "track_total_hits": 100,
    });
    assert_eq!(running.hot.last_asked(), ("github-*".to_owned(), request));

    running.search("/_search?_source_includes=a,b&_source_excludes=c&track_total_hits=false").await;
    let request = json!({"_source": {"includes": ["a", "b"], "excludes": ["c"]}, "track_total_hits": false});
    assert_eq!(running.hot.last_asked(), ("*".to_owned(), request));
    running.search("/_all/_count?q=x").await;
    assert_eq!(running.hot.last_asked(), ("*".to_owned(), json!({"query": {"query_string": {"query": "x"}}})));
    assert_eq!(running.search("/a%2Cb/_search?rest_total_hits_as_int=true").await.1["hits"]["total"], 1);
    assert_eq!(running.hot.last_asked().0, "a,b");
}

#[tokio::test]
async fn a_packed_body_is_read() {
    let running = start(loopback()).await;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, br#"{"size": 1}"#).unwrap();
    let request = running.elasticsearch("POST", "/_search").header("content-encoding", "gzip");
    assert_eq!(send(request.body(encoder.finish().unwrap())).await.status().as_u16(), 200);
    assert_eq!(running.hot.last_asked().1, json!({"size": 1}));
    let (status, body) =
        answer(running.elasticsearch("POST", "/_search").header("content-encoding", "br").body("x")).await;
    assert_eq!(
        (status, &body["error"]["reason"]),
        (415, &json!("Content-Encoding [br] is not supported (known: gzip)"))
    );
}

async fn expect_error(running: &Running, method: &str, path: &str, body: &str, status: u16, kind: &str, reason: &str) {
    let response = send(running.elasticsearch(method, path).body(body.to_owned())).await;
    assert_eq!(header(&response, "x-elastic-product"), "Elasticsearch", "{method} {path}");
    assert_eq!(response.status().as_u16(), status, "{method} {path}");
    let found: Value = response.json().await.unwrap();
    assert_eq!(found["status"], status, "{method} {path}");
    assert_eq!(
        found["error"]["root_cause"][0],
        json!({"type": kind, "reason": found["error"]["reason"]}),
        "{method} {path}"
    );
    assert_eq!(found["error"]["type"], kind, "{method} {path}");
    let text = found["error"]["reason"].as_str().unwrap();
    assert!(text.contains(reason), "{method} {path} said {text}");
}

#[tokio::test]
async fn every_refusal_has_elasticsearchs_shape_and_names_the_part() {
    let running = start(loopback()).await;
    let argument = "illegal_argument_exception";
    let write = "action_request_validation_exception";
    let filled = "the store is filled by the pipeline only";
    for (method, path, body, status, kind, reason) in [
        ("GET", "/x/_search?y=1", "", 400, argument, "request [/x/_search] contains unrecognized parameter: [y]"),
        ("GET", "/_search?scroll=1m", "", 400, argument, "parameter [scroll], which is not supported"),
        ("GET", "/_search?size=many", "", 400, argument, "Failed to parse int parameter [size] with value [many]"),
        ("GET", "/_search?df=title", "", 400, argument, "belong to the parameter [q]"),
        ("GET", "/_search?q=x&default_operator=xor", "", 400, argument, "[default_operator] is [xor]"),
        ("GET", "/_search?track_total_hits=x", "", 400, argument, "[track_total_hits] is [x]"),
        ("POST", "/_search", "{\"query\": }", 400, "parse_exception", "[1:11] the body is no JSON"),
        ("POST", "/_search", "[1]", 400, "parse_exception", "must be a JSON object"),
        ("GET", "/missing/_search", "", 404, "index_not_found_exception", "no such index [missing]"),
        ("GET", "/_search", r#"{"query": {"broken": true}}"#, 500, "io_exception", "the disk is gone"),
        (
            "GET",
            "/none-*/_search?allow_no_indices=false",
            "",
            404,
            "index_not_found_exception",
            "no such index [none-*]",
        ),
        ("GET", "/github/_source/nothing", "", 404, "resource_not_found_exception", "[github]/[nothing]"),
        ("PUT", "/github/_doc/1", "{}", 405, write, filled),
        ("POST", "/github/_doc", "{}", 405, write, filled),
        ("POST", "/_bulk", "{}\n", 405, write, filled),
        ("DELETE", "/github", "", 405, write, filled),
        ("GET", "/_nodes", "", 400, argument, "no handler found for uri [/_nodes] and method [GET]"),
        ("GET", "/a/b/c/d", "", 400, argument, "no handler found for uri [/a/b/c/d]"),
        (
            "POST",
            "/_cluster/health",
            "",
            400,
            argument,
            "no handler found for uri [/_cluster/health] and method [POST]",
        ),
        ("GET", "/_cat/indices?h=colour", "", 400, argument, "unknown column [colour]"),
        ("GET", "/_cat/indices?format=yaml", "", 400, argument, "[format] is [yaml]"),
        ("GET", "/_cat/indices?bytes=nibble", "", 400, argument, "[bytes] is [nibble]"),
        ("POST", "/_msearch", "{}\n", 400, argument, "pairs of lines"),
        ("POST", "/_msearch", "{\"x\":1}\n{}\n", 400, argument, "key [x] is not supported"),
    ] {
        expect_error(&running, method, path, body, status, kind, reason).await;
    }
    let many = "{}\n{}\n".repeat(101);
    expect_error(&running, "POST", "/_msearch", &many, 400, argument, "[101] searches in one request").await;
}

#[tokio::test]
async fn indices_that_are_not_there_are_left_out_where_the_client_says_so() {
    let running = start(loopback()).await;
    let (status, _) = running.search("/missing,github/_search?ignore_unavailable=true").await;
    assert_eq!((status, running.hot.last_asked().0.as_str()), (200, "github"));
    let (status, body) = running.search("/missing/_search?ignore_unavailable=true").await;
    assert_eq!((status, &body["hits"]["total"]["value"], &body["hits"]["hits"]), (200, &json!(0), &json!([])));
    assert_eq!(running.search("/missing/_count?ignore_unavailable").await.1["count"], 0);
    assert_eq!(running.search("/missing/_mapping?ignore_unavailable").await, (200, json!({})));
}

#[tokio::test]
async fn many_searches_have_their_answers_and_errors_in_their_places() {
    let running = start(loopback()).await;
    let lines =
        "{\"index\":[\"a\",\"b\"],\"preference\":\"x\"}\n{\"size\":1}\n{\"index\":\"missing\"}\n{}\n{}\n{\"size\":2}";
    let (status, body) = answer(running.elasticsearch("POST", "/github/_msearch").body(lines)).await;
    assert_eq!(status, 200);
    let statuses: Vec<_> = body["responses"].as_array().unwrap().iter().map(|one| one["status"].as_u64()).collect();
    assert_eq!(statuses, [Some(200), Some(404), Some(200)]);
    assert_eq!(body["responses"][1]["error"]["type"], "index_not_found_exception");
    let asked = running.hot.asked.lock().unwrap().clone();
    let names: Vec<_> = asked.iter().map(|(indices, _)| indices.as_str()).collect();
    assert_eq!(names, ["a,b", "missing", "github"]);
}

#[tokio::test]
async fn a_document_is_found_by_its_id() {
    let running = start(loopback()).await;
    let (status, body) = running.search("/github/_doc/1?_source=type").await;
    assert_eq!((status, &body["found"], &body["_source"]), (200, &json!(true), &json!({"type": "PushEvent"})));
    let request = json!({"query": {"ids": {"values": ["1"]}}, "size": 1, "_source": ["type"]});
    assert_eq!(running.hot.last_asked(), ("github".to_owned(), request));
    let (status, body) = running.search("/github/_doc/nothing").await;
    assert_eq!((status, body), (404, json!({"_index": "github", "_id": "nothing", "found": false})));
    assert_eq!(running.search("/github/_source/1").await, (200, json!({"type": "PushEvent"})));
}

#[tokio::test]
async fn indices_are_described_with_fields_and_aliases() {
    let running = start(loopback()).await;
    let (_, body) = running.search("/github").await;
    assert_eq!(body["github-2026.11.22"]["aliases"], json!({"github": {}}));
    assert_eq!(body["github-2026.11.22"]["mappings"]["properties"]["type"]["type"], "keyword");
    let (_, body) = running.search("/_alias").await;
    assert_eq!(body["github-2026.11.21"], json!({"aliases": {"github": {}}}));
    let exists = async |path| send(running.elasticsearch("HEAD", path)).await.status().as_u16();
    assert_eq!((exists("/github").await, exists("/missing").await), (200, 404));
    let (_, body) = running.search("/_cluster/health?wait_for_status=yellow&timeout=1s").await;
    assert_eq!((&body["status"], &body["active_shards"]), (&json!("green"), &json!(2)));
}

#[tokio::test]
async fn the_table_of_indices_follows_its_parameters() {
    let running = start(loopback()).await;
    let table = async |path: &str| send(running.elasticsearch("GET", path)).await.text().await.unwrap();
    assert_eq!(
        table("/_cat/indices?v&h=index,docs.count,store.size&s=index:desc").await,
        "index             docs.count store.size\n\
         github-2026.11.22         18     32.2kb\n\
         github-2026.11.21         19     30.7kb\n"
    );
    assert_eq!(
        table("/_cat/indices/github-*?h=i,ss&bytes=b&s=dc").await,
        "github-2026.11.22 33000\ngithub-2026.11.21 31500\n"
    );
    let rows: Value = serde_json::from_str(&table("/_cat/indices?format=json&h=index,health").await).unwrap();
    assert_eq!(rows[1], json!({"index": "github-2026.11.22", "health": "green"}));
    let (_, rows) = answer(running.elasticsearch("GET", "/_cat/indices?h=pri").header("accept", CLIENT_TYPE)).await;
    assert_eq!(rows, json!([{"pri": "1"}, {"pri": "1"}]));
    assert!(table("/_cat/indices").await.starts_with("green open github-2026.11.21 "));
    assert_eq!(table("/_cat/indices/none-*").await, "");
    assert!(table("/_cat/indices?help").await.contains("docs.count | dc | available docs\n"));
}
