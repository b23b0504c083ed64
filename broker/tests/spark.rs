//! Views on a real Spark: the same answers as here, and runs that are handed over to it.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Place, eventually};

fn spark() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../engines/spark/python")
}

/// The samples of all sources in the cold store.
fn with_samples() -> Place {
    let mut place = Place::new();
    place.environment.push(("DATABROKER_COLD_COMMIT_INTERVAL_MS", "200".to_owned()));
    let up = place.up(&["--sample"]);
    eventually("the samples are in the cold store", || place.has_samples("cold"));
    assert!(up.end().success(), "{}", place.up_log());
    place
}

#[test]
fn real_servers_spark_answers_every_shipped_view_alike_and_takes_runs() {
    let mut place = with_samples();
    let judge = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/spark/judge.py");
    let mut command = Command::new(spark());
    command.arg(judge).arg(env!("CARGO_BIN_EXE_databroker")).arg(place.data());
    place.surround(&mut command);
    let judged = command.output().expect("Spark's Python starts");
    let said = String::from_utf8_lossy(&judged.stdout);
    assert!(judged.status.success(), "{said}\n{}", String::from_utf8_lossy(&judged.stderr));
    let views: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    let with_rows = views.iter().filter(|view| view["shown"].as_u64() > Some(0)).count();
    assert!(views.len() >= 15 && with_rows >= 12, "{said}");

    let command = json!([spark()]).to_string();
    place.environment.push(("DATABROKER_COLD_SPARK_COMMAND", command));
    let rows = |place: &Place, name: &str| place.json(&["views", "show", name, "--top", "1000000"])["rows"].clone();
    for name in ["github_activity", "arxiv_papers"] {
        let computed = rows(&place, name);
        let ran = place.json(&["views", "run", name, "--engine", "spark"]);
        assert_eq!((&ran["ok"], &ran["views"][0]["mode"]), (&json!(true), &json!("whole")), "{ran}");
        let explained = place.json(&["views", "explain", name]);
        assert_eq!(
            (&explained["stored"]["is_current"], &explained["runs"][0]["engine"]),
            (&json!(true), &json!("spark"))
        );
        assert_eq!(rows(&place, name), computed, "{name}");
        assert_eq!(
            place.json(&["views", "run", name])["views"][0]["mode"],
            json!("nothing"),
            "what Spark stored is all there is"
        );
    }
    place.environment.push(("DATABROKER_COLD_SPARK_COMMAND", json!(["/no/such/spark"]).to_string()));
    let refused = place.run(&["views", "run", "github_bots", "--engine", "spark"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        refused.status.code() == Some(64) && said.contains("start `/no/such/spark` (setting `cold.spark_command`)"),
        "{said}"
    );
}
