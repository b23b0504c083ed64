//! GitHub's webhooks as a sender meets them.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::support::{Place, Up, eventually, http, request};

const SECRET: &str = "It's a Secret to Everybody";

const PUSH: &str = r#"{"ref":"refs/heads/main","head_commit":{"id":"1","timestamp":"2026-01-02T03:04:05Z"}}"#;

/// Says nothing of when it happened.
const MEMBERSHIP: &str = r#"{"action":"added","scope":"team","member":{"login":"octocat","id":1}}"#;

fn place() -> Place {
    let mut place = Place::with_small_steps();
    place.environment.push(("DATABROKER_GITHUB_WEBHOOK_SECRET", SECRET.to_owned()));
    place
}

fn signature(body: &str) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("any length").chain_update(body);
    let digits: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256={digits}")
}

/// Delivers as GitHub does, under a name of its own for this host.
fn deliver(up: &Up, event: &str, delivery: &str, body: &str) -> u16 {
    let headers = [
        ("host", "broker.example.org"),
        ("content-type", "application/json"),
        ("x-github-event", event),
        ("x-github-delivery", delivery),
        ("x-hub-signature-256", &signature(body)),
    ];
    request("POST", &format!("{}/webhooks/github", up.http), &headers, body).0
}

#[test]
fn what_was_answered_with_success_is_a_row_though_the_process_dies_at_once() {
    let place = place();
    let ids = |number: u32| (format!("push-{number}"), format!("membership-{number}"));
    for number in 0..4 {
        let up = place.up(&[]);
        let (push, membership) = ids(number);
        assert_eq!(deliver(&up, "push", &push, PUSH), 202);
        assert_eq!(deliver(&up, "membership", &membership, MEMBERSHIP), 202);
        up.kill();
    }
    let up = place.up(&[]);
    for number in 0..4 {
        let (push, membership) = ids(number);
        // The sender may not have heard of it, and sends it again.
        assert_eq!(deliver(&up, "push", &push, PUSH), 202);
        assert_eq!(deliver(&up, "membership", &membership, MEMBERSHIP), 202);
    }
    eventually("all deliveries are logged", || place.count("SELECT count(*) FROM bronze.github") == 16);
    assert!(up.end().success(), "{}", place.up_log());
    let rows = |kind: &str| place.count(&format!("SELECT count(*) FROM silver.github WHERE type = '{kind}'"));
    assert_eq!((rows("PushEvent"), rows("MembershipEvent")), (4, 4));
    let times = "SELECT count(*) FROM silver.github WHERE event_time = TIMESTAMP '2026-01-02T03:04:05Z'";
    assert_eq!(place.count(times), 4, "it happened when its payload says");
    let times = "SELECT count(DISTINCT event_time) FROM bronze.github WHERE id LIKE 'membership-%'";
    assert_eq!(place.count(times), 4, "sent again it keeps the time at which it came first");
    assert_eq!(place.json(&["verify"])["ok"], serde_json::json!(true));
}

#[test]
fn what_is_no_delivery_is_refused_and_what_is_lost_is_counted() {
    let mut place = place();
    place.environment.push(("DATABROKER_SERVING_TOKEN", "opensesame".to_owned()));
    let up = place.up(&[]);
    let url = format!("{}/webhooks/github", up.http);
    let signed = signature(PUSH);
    let good = [("x-github-event", "push"), ("x-github-delivery", "1"), ("x-hub-signature-256", signed.as_str())];
    let without = |name: &str| good.into_iter().filter(|(known, _)| *known != name).collect::<Vec<_>>();
    let forged = [good[0], good[1], ("x-hub-signature-256", &*signature("{}"))];
    assert_eq!(request("POST", &url, &without("x-hub-signature-256"), PUSH).0, 401);
    assert_eq!(request("POST", &url, &forged, PUSH).0, 401);
    assert_eq!(request("POST", &url, &without("x-github-event"), PUSH).0, 400);
    assert_eq!(request("POST", &url, &without("x-github-delivery"), PUSH).0, 400);
    assert_eq!(deliver(&up, "push", "1", "[]"), 400);
    assert_eq!(request("GET", &url, &good, "").0, 405);
    assert_eq!(request("POST", &format!("{}/webhooks/gitlab", up.http), &good, PUSH).0, 404);
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(contract::limits::RECORD_BYTES_MAX));
    assert_eq!(deliver(&up, "push", "large", &large), 413);
    assert_eq!(http("GET", &format!("{}/api/status", up.http), "").0, 401, "all else needs the token");
    assert_eq!(deliver(&up, "push", "1", PUSH), 202);

    let token = [("authorization", "Bearer opensesame")];
    let (_, metrics) = request("GET", &format!("{}/metrics", up.http), &token, "");
    let lost = r#"databroker_lost_records_total{source="github",collector="github/webhook",reason="too large"} 1"#;
    let received = r#"databroker_received_records_total{source="github",collector="github/webhook"} 2"#;
    // Told at once, though no further delivery comes.
    let collected = r#"databroker_collected_records_total{source="github",collector="github/webhook"} 1"#;
    for line in [lost, received, collected] {
        assert!(metrics.lines().any(|known| known == line), "{line} in\n{metrics}");
    }
    assert!(up.end().success(), "{}", place.up_log());
    assert_eq!(place.count("SELECT count(*) FROM bronze.github"), 1, "nothing else was logged");
}
