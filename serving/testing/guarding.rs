use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{answer, header, loopback, send, start};
use crate::{Settings, serve};

const WAIT: &str = r#"{"query": {"wait": true}}"#;

#[tokio::test]
async fn without_the_token_nothing_but_health_is_answered() {
    let running = start(Settings { token: "opensesame".to_owned().into(), ..loopback() }).await;
    for request in [running.elasticsearch("GET", "/"), running.elasticsearch("POST", "/_bulk")] {
        let response = send(request).await;
        assert_eq!((response.status().as_u16(), header(&response, "x-elastic-product")), (401, "Elasticsearch"));
        assert_eq!(header(&response, "www-authenticate"), "Basic realm=\"databroker\", charset=\"UTF-8\"");
    }
    for path in ["/", "/metrics", "/api/status", "/nothing", "/health"] {
        assert_eq!(send(running.http("GET", path).bearer_auth("opensesam")).await.status().as_u16(), 401, "{path}");
    }
    assert_eq!(send(running.http("GET", "/health/live")).await.status().as_u16(), 200);
    assert_eq!(send(running.elasticsearch("GET", "/health/live")).await.status().as_u16(), 401);
}

#[tokio::test]
async fn the_token_opens_both_ports_under_any_name() {
    let running = start(Settings { token: "opensesame".to_owned().into(), ..loopback() }).await;
    let request = running.http("GET", "/metrics").bearer_auth("opensesame").header("host", "data.example");
    assert_eq!(send(request).await.status().as_u16(), 200);
    let request = running.elasticsearch("GET", "/").basic_auth("elastic", Some("opensesame"));
    assert_eq!(send(request).await.status().as_u16(), 200);
    let request = running.elasticsearch("GET", "/").header("authorization", "ApiKey aWQ6b3BlbnNlc2FtZQ==");
    assert_eq!(send(request).await.status().as_u16(), 200);
}

#[tokio::test]
async fn a_foreign_host_or_origin_is_refused_on_both_ports() {
    let running = start(loopback()).await;
    let (status, body) = answer(running.elasticsearch("GET", "/").header("host", "evil.com:9200")).await;
    assert_eq!((status, &body["error"]["type"]), (403, &json!("security_exception")));
    let (status, body) = answer(running.http("GET", "/api/status").header("host", "evil.com")).await;
    assert_eq!((status, &body["error"]["exit_code"]), (403, &json!(64)));
    let request = running.http("POST", "/api/commands/status").header("origin", "http://evil.com");
    assert_eq!(send(request).await.status().as_u16(), 403);
    let own = format!("http://{}", running.server.http);
    assert_eq!(send(running.http("POST", "/api/commands/status").header("origin", own)).await.status().as_u16(), 200);
    assert_eq!(send(running.http("GET", "/").header("host", "localhost:1")).await.status().as_u16(), 200);
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused() {
    let running = start(Settings { body_bytes_max: 100, ..loopback() }).await;
    let (status, body) = answer(running.elasticsearch("POST", "/_search").body(" ".repeat(101))).await;
    assert_eq!((status, &body["error"]["type"]), (413, &json!("content_too_long_exception")));
    let (status, _) = answer(running.http("POST", "/api/sql").body(" ".repeat(101))).await;
    assert_eq!(status, 413);
    assert_eq!(answer(running.elasticsearch("POST", "/_search").body(" ".repeat(100))).await.0, 200);
    let unannounced = futures::stream::iter((0..101).map(|_| Ok::<_, std::io::Error>(" ")));
    let body = reqwest::Body::wrap_stream(unannounced);
    assert_eq!(answer(running.elasticsearch("POST", "/_search").body(body)).await.0, 413);
}

#[tokio::test]
async fn a_body_announced_beyond_the_limit_is_refused_before_it_is_sent() {
    let running = start(loopback()).await;
    let mut stream = TcpStream::connect(running.server.elasticsearch.expect("it is on")).await.expect("open");
    let head = b"POST /_search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999999\r\n\r\n";
    stream.write_all(head).await.expect("sent");
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 413");
}

#[tokio::test]
async fn one_request_too_many_is_told_to_come_later_but_metrics_are_answered() {
    let running = start(Settings { concurrent_requests_max: 1, ..loopback() }).await;
    let first = tokio::spawn(running.elasticsearch("GET", "/_search").body(WAIT).send());
    running.hot.waiting.notified().await;
    let (status, body) = running.search("/_search").await;
    assert_eq!((status, &body["error"]["type"]), (429, &json!("es_rejected_execution_exception")));
    assert_eq!(send(running.http("POST", "/api/sql").body("SELECT n")).await.status().as_u16(), 429);
    for path in ["/metrics", "/health/live", "/"] {
        assert_eq!(send(running.http("GET", path)).await.status().as_u16(), 200, "{path}");
    }
    running.hot.go_on.notify_one();
    assert_eq!(first.await.unwrap().unwrap().status().as_u16(), 200);
    assert_eq!(running.search("/_search").await.0, 200);
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_given_up() {
    let running = start(Settings { request_seconds_max: 1, ..loopback() }).await;
    let (status, body) = answer(running.elasticsearch("GET", "/_search").body(WAIT)).await;
    assert_eq!((status, &body["error"]["type"]), (408, &json!("timeout_exception")));
    assert_eq!(running.search("/_search").await.0, 200);
}

#[tokio::test]
async fn a_client_that_stops_reading_frees_its_slot_and_its_query_at_the_deadline() {
    let settings = Settings { request_seconds_max: 1, concurrent_requests_max: 1, ..loopback() };
    let running = start(settings).await;
    let unread = send(running.http("POST", "/api/sql").body("endless")).await;
    running.cold.dropped.notified().await;
    while running.search("/_search").await.0 == 429 {
        tokio::task::yield_now().await;
    }
    unread.bytes().await.expect_err("an answer without its end is cut");
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_query() {
    let running = start(loopback()).await;
    let mut response = send(running.http("POST", "/api/sql").body("endless")).await;
    assert!(response.chunk().await.unwrap().is_some());
    drop(response);
    running.cold.dropped.notified().await;
    assert_eq!(running.search("/_search").await.0, 200);
}

#[tokio::test]
async fn a_shutdown_takes_nothing_new_and_completes_what_is_being_answered() {
    let running = start(loopback()).await;
    let last = tokio::spawn(running.elasticsearch("GET", "/_search").body(WAIT).send());
    running.hot.waiting.notified().await;
    let idle = TcpStream::connect(running.server.http).await.expect("open");
    running.stop.send(()).expect("running");
    for address in [running.server.elasticsearch.expect("it is on"), running.server.http] {
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }
    running.hot.go_on.notify_one();
    assert_eq!(last.await.unwrap().unwrap().status().as_u16(), 200);
    let started = Instant::now();
    running.server.ended().await;
    assert!(started.elapsed() < Duration::from_secs(4), "an idle connection holds nothing up");
    drop(idle);
}

#[tokio::test]
async fn a_shutdown_cuts_what_does_not_end_and_tells_the_command() {
    let running = start(loopback()).await;
    let response = send(running.http("POST", "/api/commands/hang")).await;
    running.control.hanging.notified().await;
    running.stop.send(()).expect("running");
    let started = Instant::now();
    running.server.ended().await;
    assert!(started.elapsed() < Duration::from_secs(7), "{:?}", started.elapsed());
    running.control.left.notified().await;
    response.bytes().await.expect_err("an answer without a result is cut");
}

#[tokio::test]
async fn an_address_that_cannot_be_had_is_named_with_its_setting() {
    let running = start(loopback()).await;
    let (hot, cold, control) = (running.hot.clone(), running.cold.clone(), running.control.clone());
    let refused = async |settings: Settings| {
        let services = crate::Services {
            hot: hot.clone(),
            cold: cold.clone(),
            views: cold.clone(),
            clock: std::sync::Arc::new(contract::SystemClock),
            control: control.clone(),
            tail: std::sync::Arc::new(super::fakes::FakeTail),
            webhooks: Vec::new(),
            metrics: std::sync::Arc::new(String::new),
            health: std::sync::Arc::new(|| (true, json!({}))),
        };
        serve(&settings, services, std::future::pending()).await.expect_err("refused").to_string()
    };
    let taken = running.server.http.to_string();
    assert_eq!(
        refused(Settings { http_listen: taken.clone(), ..loopback() }).await,
        format!(
            "failed to listen on `{taken}`: another process has the port; end it, or set `serving.http_listen` to another"
        )
    );
    let open = refused(Settings { elasticsearch_listen: "0.0.0.0:0".into(), ..loopback() }).await;
    assert!(open.contains("`serving.elasticsearch_listen`") && open.contains("set `serving.token`"), "{open}");
    let wrong = refused(Settings { http_listen: "8080".into(), ..loopback() }).await;
    assert!(wrong.starts_with("failed to listen on `8080` (`serving.http_listen`)"), "{wrong}");
    let zero = refused(Settings { body_bytes_max: 0, ..loopback() }).await;
    assert!(zero.contains("`serving.body_bytes_max` = 0"), "{zero}");
}

/// A post to the webhook that sends its head, announces a body and sends nothing of it.
async fn post_without_body(running: &super::Running, said: &str) -> TcpStream {
    let mut stream = TcpStream::connect(running.server.http).await.expect("open");
    let head =
        format!("POST /webhooks/made HTTP/1.1\r\nHost: b.example\r\nX-Said: {said}\r\nContent-Length: 9\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("sent");
    stream
}

async fn status(stream: &mut TcpStream) -> String {
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.expect("an answer");
    String::from_utf8_lossy(&answer[9..]).into_owned()
}

#[tokio::test]
async fn a_request_whose_head_is_no_senders_is_refused_before_its_body() {
    let running = start(loopback()).await;
    assert_eq!(status(&mut post_without_body(&running, "forged").await).await, "401");
}

#[tokio::test]
async fn posts_that_send_no_body_hold_up_neither_searches_nor_the_webhook_for_long() {
    let running = start(Settings { concurrent_requests_max: 1, ..loopback() }).await;
    let mut slow = Vec::new();
    for _ in 0..contract::limits::WEBHOOK_REQUESTS_MAX {
        slow.push(post_without_body(&running, "slowly").await);
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(running.search("/_search").await.0, 200, "searches have slots of their own");
    let started = Instant::now();
    let (code, body) = answer(running.http("POST", "/webhooks/made").body("x")).await;
    assert_eq!(code, 429, "{body}");
    assert!(body["error"]["message"].as_str().is_some_and(|message| message.contains("send it again later")), "{body}");
    assert!((4..8).contains(&started.elapsed().as_secs()), "a slot is waited for: {:?}", started.elapsed());
    for stream in &mut slow {
        assert_eq!(status(stream).await, "408");
    }
    assert_eq!(send(running.http("POST", "/webhooks/made").body("x")).await.status().as_u16(), 202);
}

#[tokio::test]
async fn a_webhook_that_waits_for_the_log_is_not_cut_by_the_deadline_of_searches() {
    let running = start(Settings { request_seconds_max: 1, ..loopback() }).await;
    let waiting = tokio::spawn(running.http("POST", "/webhooks/made").header("x-said", "wait").body("x").send());
    running.webhook.waiting.notified().await;
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    running.webhook.go_on.notify_one();
    assert_eq!(waiting.await.unwrap().unwrap().status().as_u16(), 202);
}
