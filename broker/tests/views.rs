//! Views as a user has them: shipped and own ones, asked before, during and after their runs.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Place, Random, events, eventually, gzip_lines, http, http_json};

/// More rows than any view of the samples has.
const ALL: &str = "1000000";

const KINDS: &str = "\
-- answers: events by hour and type
-- keys: hour, type
-- sum: events
-- distinct: actors
-- time: hour
-- every: 1 seconds
SELECT date_trunc('hour', event_time) AS hour, type, count(*) AS events, sketch(actor_login) AS actors
FROM silver.github GROUP BY 1, 2;
SELECT hour, type, events, estimate(actors) AS actors FROM merged ORDER BY hour, type";

fn own_view(place: &Place, name: &str, text: &str) {
    let folder = place.data().join("views");
    std::fs::create_dir_all(&folder).expect("writable");
    std::fs::write(folder.join(format!("{name}.sql")), text).expect("writable");
}

fn rows(place: &Place, name: &str) -> Value {
    place.json(&["views", "show", name, "--top", ALL])["rows"].clone()
}

#[test]
fn each_shipped_view_answers_the_same_whether_it_is_stored_or_computed() {
    let mut place = Place::new();
    place.environment.push(("DATABROKER_COLD_COMMIT_INTERVAL_MS", "200".to_owned()));
    let up = place.up(&["--sample"]);
    eventually("the samples are in the cold store", || place.has_samples("cold"));
    let listed = place.json(&["views", "list"]);
    let names: Vec<_> =
        listed.as_array().expect("views").iter().map(|view| view["name"].as_str().expect("a name")).collect();
    assert!(names.len() >= 15, "{names:?}");
    for view in listed.as_array().expect("views") {
        assert_eq!((&view["refused"], &view["stored"]), (&Value::Null, &Value::Null), "{view}");
    }
    let computed: Vec<_> = names.iter().map(|name| rows(&place, name)).collect();
    let ran = place.json(&["views", "run"]);
    assert_eq!((&ran["ok"], ran["views"].as_array().map(Vec::len)), (&json!(true), Some(names.len())), "{ran}");
    let mut with_rows = 0;
    for (name, computed) in names.iter().zip(&computed) {
        assert_eq!(&rows(&place, name), computed, "{name}");
        let answer = http_json("GET", &format!("{}/api/views/{name}", up.http), &json!({}));
        assert_eq!(&answer["rows"], computed, "{name}");
        let boundary = &answer["boundary"];
        assert!(boundary["batch_at"].is_string(), "{name}: {boundary}");
        for source in boundary["sources"].as_array().expect("sources") {
            assert_eq!(source["watermark"], source["rows_to"], "{name}: {source}");
        }
        with_rows += usize::from(computed.as_array().is_some_and(|rows| !rows.is_empty()));
    }
    assert!(with_rows >= 12, "{with_rows} of {} views have something to say of the samples", names.len());
    let again = place.json(&["views", "run"]);
    assert!(again["views"].as_array().expect("runs").iter().all(|run| run["mode"] == "nothing"), "{again}");
    assert!(up.end().success(), "{}", place.up_log());
    for (name, computed) in names.iter().zip(&computed) {
        assert_eq!(&rows(&place, name), computed, "{name}, without a running process");
    }
    let explained = place.text(&["views", "explain", "github_activity"]);
    for part in ["stored: hour (key), type (key)", "FROM silver.github", "watermark: {\"github\":{\"0\":", "whole"] {
        assert!(explained.contains(part), "{explained} lacks {part}");
    }
}

#[test]
fn a_view_in_the_users_folder_is_kept_up_to_date_and_a_bad_one_is_told_of() {
    let mut place = Place::new();
    place.environment.push(("DATABROKER_COLD_VIEWS_SHIPPED", "false".to_owned()));
    place.environment.push(("DATABROKER_COLD_COMMIT_INTERVAL_MS", "100".to_owned()));
    assert!(
        place.text(&["backfill", "github", &place.write("one.json.gz", &gzip_lines(&events(0, 200)))]).contains("200")
    );
    own_view(&place, "kinds", KINDS);
    own_view(&place, "bad", &KINDS.replace("count(*)", "avg(number)"));
    let up = place.up(&[]);
    let stored = || {
        let listed = place.json(&["views", "list"]);
        assert!(listed[0]["refused"].as_str().is_some_and(|reason| reason.contains("bad.sql, line 7")), "{listed}");
        listed[1]["stored"].clone()
    };
    eventually("the view is stored", || stored()["is_current"] == json!(true));
    let first = stored()["at"].clone();
    let more = place.write("two.json.gz", &gzip_lines(&events(200, 300)));
    place.json(&["backfill", "github", &more]);
    let total = |of: &Value| {
        of.as_array().expect("rows").iter().map(|row| row["events"].as_u64().expect("a count")).sum::<u64>()
    };
    assert_eq!(total(&rows(&place, "kinds")), 500, "rows count as soon as they are there");
    eventually("the view is stored anew", || stored()["at"] != first);
    assert_eq!(total(&rows(&place, "kinds")), 500);
    let empty = http("POST", &format!("{}/api/sql?format=csv", up.http), "SELECT 1 AS a WHERE false");
    assert_eq!(empty, (200, "a\n".to_owned()), "an answer without rows is whole");
    let (_, metrics) = http("GET", &format!("{}/metrics", up.http), "");
    assert!(metrics.contains("databroker_view_runs_total{view=\"kinds\",outcome=\"done\"}"), "{metrics}");
    assert!(place.up_log().contains("a view is refused"), "{}", place.up_log());
    assert_eq!(place.count("SELECT sum(events) FROM gold.kinds"), 500);
    assert!(place.count("SELECT count(*) FROM ops.runs WHERE view = 'kinds' AND outcome = 'done'") >= 2);
    assert!(up.end().success(), "{}", place.up_log());
}

#[test]
fn a_run_that_is_killed_anywhere_leaves_the_view_as_it_was_or_as_it_will_be() {
    let mut place = Place::with_small_steps();
    place.environment.push(("DATABROKER_COLD_VIEWS_SHIPPED", "false".to_owned()));
    own_view(&place, "kinds", KINDS);
    let mut random = Random::from_environment();
    let (mut killed, mut events_so_far) = (0, 0);
    for round in 0..8 {
        let file = place.write("more.json.gz", &gzip_lines(&events(events_so_far, 300)));
        place.json(&["backfill", "github", &file]);
        events_so_far += 300;
        let expected = place.json(&[
            "sql",
            "SELECT date_trunc('hour', event_time) AS hour, type, count(*) AS events, count(DISTINCT actor_login) AS actors \
             FROM silver.github GROUP BY 1, 2 ORDER BY hour, type",
        ]);
        let whole: &[&str] =
            if round % 2 == 0 { &["views", "run", "kinds", "--whole"] } else { &["views", "run", "kinds"] };
        let mut run = place.command(whole).stdout(std::process::Stdio::null()).spawn().expect("databroker starts");
        std::thread::sleep(Duration::from_millis(random.below(500)));
        killed += u32::from(run.try_wait().expect("a child").is_none());
        run.kill().expect("ours");
        run.wait().expect("a child");
        assert_eq!(rows(&place, "kinds"), expected, "round {round}");
    }
    assert!(killed >= 3, "only {killed} of 8 runs were killed before their end");
    assert_eq!(place.json(&["views", "run", "kinds"])["ok"], json!(true));
    assert_eq!(place.json(&["verify"])["ok"], json!(true));
}
