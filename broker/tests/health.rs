//! What the process says of itself.

use acquisition::github::replay::{Replay, Response};
use serde_json::{Value, json};

use crate::support::{Place, eventually, http};

#[test]
fn a_source_that_is_away_degrades_the_process_with_the_reason_until_it_is_back() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let away = Response { status: 502, ..Response::default() };
    let back = Response { body: b"[]".to_vec(), ..Response::default() };
    let responses = [vec![away; 3], vec![back; 100]].concat();
    let server = runtime.block_on(Replay::script(responses)).expect("a port");
    let mut place = Place::new();
    place.environment.retain(|(name, _)| *name != "DATABROKER_GITHUB_FEEDS");
    place.environment.extend([
        ("DATABROKER_GITHUB_FEEDS", "[\"public\"]".to_owned()),
        ("DATABROKER_GITHUB_BASE_URL", server.base_url()),
    ]);
    let up = place.up(&[]);
    let ready = || {
        let (status, body) = http("GET", &format!("{}/health/ready", up.http), "");
        (status, serde_json::from_str::<Value>(&body).expect("a document"))
    };
    eventually("it is degraded", || ready().1["status"] == json!("degraded"));
    let (status, health) = ready();
    assert_eq!(status, 200, "to take the process away would make it worse: {health}");
    let part = &health["parts"]["github/events/public"];
    assert_eq!(part["status"], json!("degraded"), "{health}");
    assert!(part["reason"].as_str().is_some_and(|reason| reason.contains("502")), "{health}");
    eventually("it is ready again", || ready().1["status"] == json!("ready"));

    let version = env!("CARGO_PKG_VERSION");
    let interval =
        r#"databroker_collector_interval_seconds{source="github",collector="github/events/public"} 60"#.to_owned();
    for line in [format!("databroker_up{{version=\"{version}\"}} 1"), interval] {
        eventually(&line, || http("GET", &format!("{}/metrics", up.http), "").1.lines().any(|known| known == line));
    }
    assert!(up.end().success(), "{}", place.up_log());
}
