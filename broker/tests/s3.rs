//! The whole with its cold store in a real S3 server: whoever is killed when, `verify` passes.

use std::time::Duration;

use contract::conformance::real_server::RealServer;
use contract::conformance::rounds;
use serde_json::json;

use crate::crash::is_killed;
use crate::engines::assert_same;
use crate::support::{Place, Random, events, gzip_lines};

/// SIGKILLs of backfills and of the server, unless `DATABROKER_TEST_KILLS` says another number; every third is the server's.
const KILLS: u64 = 9;

#[test]
fn real_servers_faults_of_a_killed_s3_server_and_backfills_end_with_what_an_undisturbed_one_has() {
    let kills = std::env::var("DATABROKER_TEST_KILLS").map_or(KILLS, |kills| kills.parse().expect("a number"));
    let mut random = Random::from_environment();
    let (mut place, undisturbed) = (Place::with_small_steps(), Place::with_small_steps());
    let folder = place.home.path().join("s3");
    let mut server = RealServer::start("s3", &folder);
    let port = server.port;
    place.environment.extend([
        ("DATABROKER_COLD_URL", "s3://lab/tables".to_owned()),
        ("DATABROKER_COLD_ENDPOINT", format!("http://127.0.0.1:{port}")),
        ("DATABROKER_COLD_REQUEST_SECONDS_MAX", "2".to_owned()),
        ("DATABROKER_COLD_REQUEST_RETRIES_MAX", "1".to_owned()),
        ("AWS_ACCESS_KEY_ID", "lab".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "lab-secret".to_owned()),
    ]);
    let files = [(0, 900), (600, 900), (1_200, 2_000)]
        .map(|(from, count)| place.write(&format!("{from}.json.gz"), &gzip_lines(&events(from, count))));
    for kill in 0..kills {
        let file = &files[random.below(3) as usize];
        if kill % 3 < 2 {
            is_killed(&place, &["backfill", "github", file], random.below(2_500));
            continue;
        }
        let mut running = place.command(&["backfill", "github", file]).spawn().expect("databroker starts");
        std::thread::sleep(Duration::from_millis(random.below(2_000)));
        drop(server);
        std::thread::sleep(Duration::from_millis(random.below(1_500)));
        server = RealServer::start_at("s3", &folder, port, &[]);
        let status = running.wait().expect("a child");
        // It waited for the server, or had found none at its start.
        assert!(status.success() || status.code() == Some(69), "{status}");
    }
    for file in &files {
        place.text(&["backfill", "github", file]);
        undisturbed.text(&["backfill", "github", file]);
    }
    assert_same("github", &place, &undisturbed);
    let verified = place.json(&["verify"]);
    assert_eq!(verified["ok"], json!(true), "{verified:#}");
    let status = place.json(&["status"]);
    assert_eq!(status["cold"], json!("s3://lab/tables/"), "{status:#}");
    assert!(place.text(&["doctor"]).contains("s3://lab/tables/ answers"));
    let left: Vec<_> = std::fs::read_dir(place.data().join("cold")).expect("a folder").collect();
    assert!(left.len() <= 2, "the lock and the folder for files on their way: {left:?}");
    drop(server);
    rounds::note("kills of backfills and of a real S3 server", kills);
}
