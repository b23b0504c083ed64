use serde_json::{Value, json};

use super::{answer, header, loopback, send, start};

#[tokio::test]
async fn sql_answers_an_array_or_lines_from_text_or_an_object() {
    let running = start(loopback()).await;
    let rows = json!([{"n": 0}, {"n": 1}, {"n": 2}]);
    assert_eq!(answer(running.http("POST", "/api/sql").body("SELECT n")).await, (200, rows.clone()));
    assert_eq!(answer(running.http("POST", "/api/sql").json(&json!({"query": "SELECT n"}))).await, (200, rows));
    assert_eq!(answer(running.http("POST", "/api/sql").body("none")).await, (200, json!([])));
    let lines = send(running.http("POST", "/api/sql").header("accept", "application/x-ndjson").body("SELECT n")).await;
    assert_eq!(header(&lines, "content-type"), "application/x-ndjson");
    assert_eq!(lines.text().await.unwrap(), "{\"n\":0}\n{\"n\":1}\n{\"n\":2}\n");
}

#[tokio::test]
async fn sql_answers_in_the_format_that_is_asked_for() {
    let running = start(loopback()).await;
    let csv = send(running.http("POST", "/api/sql?format=csv").body("SELECT n")).await;
    assert_eq!(header(&csv, "content-type"), "text/csv; charset=utf-8; header=present");
    assert_eq!(csv.text().await.unwrap(), "n\n0\n1\n2\n");
    let accept = "application/vnd.apache.arrow.stream";
    let arrow = send(running.http("POST", "/api/sql").header("accept", accept).body("SELECT n")).await;
    assert_eq!(header(&arrow, "content-type"), accept);
    let bytes = arrow.bytes().await.unwrap();
    let reader = arrow::ipc::reader::StreamReader::try_new(&bytes[..], None).expect("a stream");
    assert_eq!(reader.map(|batch| batch.expect("rows").num_rows()).sum::<usize>(), 3);
    let parquet = send(running.http("POST", "/api/sql?format=parquet").body("SELECT n")).await.bytes().await.unwrap();
    assert!(parquet.starts_with(b"PAR1") && parquet.ends_with(b"PAR1"));
    for format in ["csv", "arrow", "parquet"] {
        let cut = send(running.http("POST", &format!("/api/sql?format={format}")).body("late error")).await;
        cut.bytes().await.expect_err("the answer is cut, so that nobody takes it for complete");
    }
    let (status, body) = answer(running.http("POST", "/api/sql?format=xml").body("SELECT n")).await;
    assert_eq!((status, &body["error"]["exit_code"]), (400, &json!(64)));
}

#[tokio::test]
async fn a_tail_is_events_whose_ids_say_where_to_go_on() {
    let running = start(loopback()).await;
    let request = running.http("GET", "/api/tail/made?filter=n%20%3E%201").header("last-event-id", "0:0");
    let tail = send(request).await;
    assert_eq!(header(&tail, "content-type"), "text/event-stream");
    let row = "data: {\"after\":\"0:0\",\"filter\":\"n > 1\"}";
    assert_eq!(tail.text().await.unwrap(), format!("id: 0:1\n{row}\n\nid: 0:2\n\n"));
    let (status, body) = answer(running.http("GET", "/api/tail/unknown")).await;
    assert_eq!((status, &body["error"]["exit_code"]), (400, &json!(64)));
}

#[tokio::test]
async fn an_error_before_the_first_row_has_a_status_and_the_exit_code_of_the_command_line() {
    let running = start(loopback()).await;
    let (status, body) = answer(running.http("POST", "/api/sql").body("SELEC")).await;
    assert_eq!((status, body), (400, json!({"error": {"message": "failed to plan `SELEC`", "exit_code": 64}})));
    let (status, body) = answer(running.http("POST", "/api/sql").body("early error")).await;
    let message = "failed to read `silver.github`: the memory limit is reached";
    assert_eq!((status, body), (503, json!({"error": {"message": message, "exit_code": 69}})));
    let (status, body) = answer(running.http("POST", "/api/sql").body(r#"{"sql": 1}"#)).await;
    assert_eq!((status, &body["error"]["exit_code"]), (400, &json!(64)));
    let (status, body) = answer(running.http("GET", "/api/sqll")).await;
    let message = "failed to find `GET /api/sqll` (`GET /` lists what is here)";
    assert_eq!((status, body), (404, json!({"error": {"message": message, "exit_code": 64}})));
}

#[tokio::test]
async fn an_error_after_the_first_row_cuts_an_array_and_ends_lines() {
    let running = start(loopback()).await;
    let array = send(running.http("POST", "/api/sql").body("late error")).await;
    assert_eq!(array.status().as_u16(), 200);
    array.bytes().await.expect_err("the answer is cut, so that nobody takes it for complete");
    let lines =
        send(running.http("POST", "/api/sql").header("accept", "application/x-ndjson").body("late error")).await;
    let text = lines.text().await.expect("all lines");
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    let message = "failed to read `silver.github`: a bad page";
    assert_eq!((text.lines().count(), last), (3, json!({"error": {"message": message, "exit_code": 70}})));
}

#[tokio::test]
async fn a_view_answers_its_boundary_and_its_rows_and_what_is_wrong_has_a_status() {
    let running = start(loopback()).await;
    let (status, views) = answer(running.http("GET", "/api/views")).await;
    assert_eq!((status, &views[0]["refused"], &views[1]["answers"]), (200, &json!("no statement"), &json!("how many")));
    let rows = json!([{"n": 0}, {"n": 1}, {"n": 2}]);
    let asked = running.http("GET", "/api/views/SELECT%20n?from=2026-11-22&top=5&filter=n%3E1");
    let boundary = json!({"batch_at": "2026-11-22T00:00:00Z", "sources": []});
    assert_eq!(answer(asked).await, (200, json!({"view": "SELECT n", "boundary": boundary, "rows": rows})));
    let (status, none) = answer(running.http("GET", "/api/views/none")).await;
    assert_eq!((status, &none["rows"]), (200, &json!([])));
    let (status, body) = answer(running.http("GET", "/api/views/none?from=then")).await;
    let message =
        "failed to read the time `then`: write `2026-11-22T15:00:00Z`, `2026-11-22`, `now` or `now-6h` (s, m, h, d)";
    assert_eq!((status, body), (400, json!({"error": {"message": message, "exit_code": 64}})));
    let (status, body) = answer(running.http("GET", "/api/views/none?form=now")).await;
    assert_eq!((status, &body["error"]["exit_code"]), (400, &json!(64)));
    assert_eq!(answer(running.http("GET", "/api/views/unknown")).await.0, 400);
    let cut = send(running.http("GET", "/api/views/late%20error")).await;
    cut.bytes().await.expect_err("the answer is cut, so that nobody takes it for complete");
}

#[tokio::test]
async fn a_command_tells_its_progress_and_then_its_result() {
    let running = start(loopback()).await;
    let run = async |name: &str, body: &str| {
        let response = send(running.http("POST", &format!("/api/commands/{name}")).body(body.to_owned())).await;
        assert_eq!((response.status().as_u16(), header(&response, "content-type")), (200, "application/x-ndjson"));
        let text = response.text().await.unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>()
    };
    let counted = run("count", r#"{"to": 200}"#).await;
    let expected = (0..200).map(|number| json!({"progress": number})).chain([json!({"result": {"counted": 200}})]);
    assert_eq!(counted, expected.collect::<Vec<_>>());
    assert_eq!(run("status", "").await, [json!({"result": {"running": true, "arguments": {}}})]);
    let unknown = json!({"error": {"message": "failed to run `stats` (known: status)", "exit_code": 64}});
    assert_eq!(run("stats", "{}").await, [unknown]);
    let panicked = run("panic", "{}").await;
    assert_eq!(panicked[0]["error"]["exit_code"], 70);
    let (status, body) = answer(running.http("POST", "/api/commands/count").body("{to: 1}")).await;
    assert_eq!((status, &body["error"]["exit_code"]), (400, &json!(64)));
    assert_eq!(answer(running.http("GET", "/api/status")).await, (200, json!({"running": true, "arguments": {}})));
}

#[tokio::test]
async fn a_command_is_told_when_its_asker_leaves() {
    let running = start(loopback()).await;
    let mut response = send(running.http("POST", "/api/commands/hang")).await;
    assert_eq!(response.chunk().await.unwrap().unwrap(), "{\"progress\":\"hanging\"}\n");
    drop(response);
    running.control.left.notified().await;
    assert!(running.control.has_left.load(std::sync::atomic::Ordering::SeqCst));
}

#[tokio::test]
async fn metrics_and_health_are_answered_in_their_forms() {
    let running = start(loopback()).await;
    let metrics = send(running.http("GET", "/metrics")).await;
    assert_eq!(header(&metrics, "content-type"), "text/plain; version=0.0.4; charset=utf-8");
    assert_eq!(metrics.text().await.unwrap(), "databroker_up 1\n");
    let (status, body) = answer(running.http("GET", "/health/ready")).await;
    assert_eq!((status, &body["parts"]["cold"]["reason"]), (503, &json!("no <space>")));
    assert_eq!(
        answer(running.http("GET", "/health/live")).await,
        (200, json!({"status": "live", "pid": std::process::id()}))
    );
}

#[tokio::test]
async fn the_page_loads_nothing_from_elsewhere_and_runs_nothing() {
    let running = start(loopback()).await;
    let page = send(running.http("GET", "/")).await;
    let policy = header(&page, "content-security-policy").to_owned();
    assert!(policy.starts_with("default-src 'none'; style-src 'self';") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(header(&page, "x-content-type-options"), "nosniff");
    let text = page.text().await.unwrap();
    assert!(text.contains("<a href=\"/health/ready\">failed</a>"), "{text}");
    assert!(!text.contains("http") && !text.contains("<script") && !text.contains("style=\""), "{text}");
    let style = send(running.http("GET", "/style.css")).await;
    assert_eq!(header(&style, "content-type"), "text/css; charset=utf-8");
    assert!(style.text().await.unwrap().contains("body {"));
}

#[tokio::test]
async fn a_webhook_is_handed_the_whole_request_whatever_the_host_and_without_a_token() {
    let settings = crate::Settings { token: "secret".to_owned().into(), ..loopback() };
    let running = start(settings).await;
    let sent = running.http("POST", "/webhooks/made/a/b?hub.mode=denied&x=%20").header("host", "broker.example.org");
    let response = send(sent.header("x-said", "hello").body(vec![0; 3 << 20])).await;
    assert_eq!(response.status().as_u16(), 202);
    assert_eq!(response.text().await.unwrap(), "POST `a/b` hello denied 3145728");
    let bare = send(running.http("GET", "/webhooks/made")).await;
    assert_eq!(bare.text().await.unwrap(), "GET `` nothing nothing 0");
    let (status, body) = answer(running.http("POST", "/webhooks/unknown")).await;
    let message = "failed to find the webhook `unknown`: none is set up";
    assert_eq!((status, body), (404, json!({"error": {"message": message, "exit_code": 64}})));
    let large = running.http("POST", "/webhooks/made").body(vec![0; super::fakes::WEBHOOK_BYTES_MAX + 1]);
    let (status, body) = answer(large).await;
    let message = "failed to take this: the body has more than 4194304 bytes (what this webhook takes)";
    assert_eq!((status, &body["error"]["message"]), (413, &json!(message)));
}
