//! What the process says of itself.

use acquisition::github::replay::{Replay, Response};
use acquisition::news;
use serde_json::{Value, json};

use crate::support::{Place, eventually, feed, http};

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

#[test]
fn feeds_are_listed_with_how_they_do_and_why_one_fails() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let server = runtime.block_on(news::replay::Replay::start()).expect("a port");
    server.route("/good", [acquisition::replay::Response::body(feed(3))]);
    server.route("/away", [acquisition::replay::Response::status(502)]);
    let mut place = Place::new();
    place.environment.retain(|(name, _)| *name != "DATABROKER_NEWS_FEEDS");
    place.environment.extend([
        ("DATABROKER_NEWS_FEEDS", json!([server.url("/good"), server.url("/away")]).to_string()),
        ("DATABROKER_NEWS_ALLOW_PRIVATE_ADDRESSES", "true".to_owned()),
        ("DATABROKER_NEWS_PORTS", "[]".to_owned()),
        ("DATABROKER_NEWS_START_SPREAD_SECONDS", "0".to_owned()),
        ("DATABROKER_NEWS_HOST_SPACING_MS", "0".to_owned()),
    ]);
    let states = || {
        let listed = place.json(&["feeds", "list"]);
        let health = |number: usize| listed["feeds"][number]["health"].clone();
        ((health(0)["state"].clone(), health(1)["state"].clone()), health(1))
    };
    assert_eq!(states().0, (json!("new"), json!("new")));
    assert!(place.text(&["feeds", "list"]).contains("    not asked yet"));
    let up = place.up(&[]);
    eventually("both were asked", || states().0 == (json!("answers"), json!("fails")));
    let (_, away) = states();
    assert_eq!(away["failure"]["reason"], json!("the server answers 502"), "{away}");
    assert!(away["next_poll_at"].is_string(), "{away}");
    assert!(up.end().success(), "{}", place.up_log());
    let text = place.text(&["feeds", "list"]);
    assert!(text.contains("    answers, answered 2") && text.contains("    fails since 2"), "{text}");
}

#[test]
fn a_peer_that_is_away_at_the_start_is_waited_for_by_up_and_ends_a_command_with_its_address() {
    for (variable, address) in
        [("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1"), ("ELASTICSEARCH_HOSTS", "http://127.0.0.1:1")]
    {
        let mut place = Place::new();
        place.environment.push((variable, address.to_owned()));
        let file = place.write("hour.json.gz", &[]);
        let output = place.run(&["backfill", "github", &file]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), said.contains("failed to reach")), (Some(69), true), "{said}");
        let up = place.starting_up(&[]);
        let tries = || place.up_log().lines().filter(|line| line.contains("trying again")).count();
        eventually("it tries again", || tries() > 1);
        assert!(place.up_log().contains("127.0.0.1:1"), "{}", place.up_log());
        assert!(!place.data().join("running.json").exists(), "nothing answers yet");
        assert!(up.end().success(), "{}", place.up_log());
    }
}
