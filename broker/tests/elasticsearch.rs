//! The whole on a real Elasticsearch: what `up` writes there, what `verify` sees, and what becomes of it when the server is
//! killed.

use contract::conformance::real_server::RealServer;
use contract::conformance::rounds;
use serde_json::{Value, json};

use crate::support::{Place, events, gzip_lines, http_json};

/// A place whose hot store is a server of its own.
fn with_server() -> (Place, RealServer, String) {
    let mut place = Place::with_small_steps();
    let server = RealServer::start("elasticsearch", &place.home.path().join("server"));
    let hosts = format!("http://127.0.0.1:{}", server.port);
    place.environment.push(("ELASTICSEARCH_HOSTS", hosts.clone()));
    place.environment.push(("DATABROKER_ELASTICSEARCH_REPLICAS", "0".to_owned()));
    (place, server, hosts)
}

fn hot_proof(place: &Place) -> Value {
    let output = place.run(&["--json", "verify", "github"]);
    let answer: Value = serde_json::from_slice(&output.stdout).expect("one document");
    answer["sources"][0]["proofs"][2].clone()
}

#[test]
fn real_servers_what_is_changed_on_elasticsearch_by_hand_is_found_and_mended() {
    let (place, _server, hosts) = with_server();
    let file = place.write("hour.json.gz", &gzip_lines(&events(0, 600)));
    let rows = place.json(&["backfill", "github", &file])["rows"].as_u64().expect("a number");
    assert!(hot_proof(&place)["ok"] == json!(true), "{}", hot_proof(&place));
    let found = place.json(&["search", "github", "*", "--size", "2"]);
    assert_eq!(found["hits"]["total"]["value"], rows);
    let document = |hit: usize| {
        let text = |name: &str| found["hits"]["hits"][hit][name].as_str().expect("text").to_owned();
        // Inside an index of a month the day is part of the id.
        let day = found["hits"]["hits"][hit]["_source"]["event_time"].as_str().expect("text")[..10].replace('-', ".");
        format!("{hosts}/{}/_doc/{day}:{}?refresh=true", text("_index"), text("_id"))
    };
    http_json("DELETE", &document(0), &Value::Null);
    http_json("PUT", &document(1), &json!({"title": "another"}));
    let broken = hot_proof(&place);
    assert_eq!((&broken["ok"], broken["differences"].as_u64() > Some(1)), (&json!(false), true), "{broken}");
    place.text(&["verify", "github", "--repair"]);
    assert_eq!(hot_proof(&place)["counts"]["hot_rows"], rows);
    assert!(hot_proof(&place)["ok"] == json!(true), "{}", hot_proof(&place));
}

#[test]
fn real_servers_elasticsearch_killed_during_a_backfill_loses_and_doubles_nothing() {
    let (place, mut server, hosts) = with_server();
    let file = place.write("hour.json.gz", &gzip_lines(&events(0, 6_000)));
    let mut backfill = place.command(&["backfill", "github", &file]).spawn().expect("databroker starts");
    // A peer that is away at the start ends the command; from the first row on it is waited for.
    let indexed = || {
        let stats = http_json("GET", &format!("{hosts}/github-*/_stats/indexing"), &Value::Null);
        stats["_all"]["primaries"]["indexing"]["index_total"].as_u64()
    };
    while indexed().unwrap_or_default() == 0 {
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(backfill.try_wait().expect("a child").is_none(), "it ended before it was killed for");
    }
    let waits_ms = [50, 400, 250];
    for wait_ms in waits_ms {
        std::thread::sleep(std::time::Duration::from_millis(wait_ms));
        let port = server.port;
        drop(server);
        server = RealServer::start_at("elasticsearch", &place.home.path().join("server"), port, &[]);
    }
    assert!(backfill.wait().expect("it ends").success());
    let proof = hot_proof(&place);
    let rows = place.count("SELECT count(*) FROM silver.github");
    assert_eq!(
        (&proof["ok"], &proof["counts"]["hot_rows"], rows > 5_000),
        (&json!(true), &json!(rows), true),
        "{proof}"
    );
    rounds::note("Elasticsearch killed under a backfill", waits_ms.len() as u64);
}
