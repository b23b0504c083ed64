//! `export`: whole tables in parts, resumed after kills; queries into one file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Place, Random, events, eventually, gzip_lines};

fn filled(count: u64) -> Place {
    let place = Place::with_small_steps();
    let file = place.write("hour.json.gz", &gzip_lines(&events(0, count)));
    place.json(&["backfill", "github", &file]);
    place
}

fn manifest(folder: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join("manifest.json")).expect("a manifest")).expect("JSON")
}

/// Every id in the files that a manifest names, with how often it stands there.
fn ids(folder: &Path) -> BTreeMap<String, u64> {
    let mut ids = BTreeMap::new();
    for part in manifest(folder)["parts"].as_array().expect("parts") {
        let text = std::fs::read_to_string(folder.join(part["file"].as_str().expect("a name"))).expect("the part");
        for line in text.lines() {
            let row: Value = serde_json::from_str(line).expect("a row");
            *ids.entry(row["_id"].as_str().expect("an id").to_owned()).or_insert(0) += 1;
        }
        assert_eq!(part["done"]["rows"], json!(text.lines().count()));
        assert_eq!(part["done"]["bytes"], json!(text.len()));
    }
    ids
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

#[test]
fn a_table_is_a_file_a_day_and_not_what_came_later() {
    let place = filled(600);
    let folder = place.home.path().join("out");
    let answer = place.json(&["export", "silver.github", "--to", text(&folder), "--format", "ndjson"]);
    assert_eq!((&answer["parts"], &answer["rows"], &answer["interrupted"]), (&json!(3), &json!(600), &json!(false)));
    let ids = ids(&folder);
    assert!(ids.len() == 600 && ids.values().all(|count| *count == 1));
    assert!(folder.join("event_day=2026-01-02.ndjson").exists());
    let again = place.run(&["export", "silver.github", "--to", text(&folder), "--format", "ndjson"]);
    assert!(String::from_utf8_lossy(&again.stderr).contains("--resume"), "an export that is there is not written over");
    // What is collected after an export began is not in its parts, also when one is written again.
    let file = place.write("later.json.gz", &gzip_lines(&events(600, 300)));
    place.json(&["backfill", "github", &file]);
    std::fs::remove_file(folder.join("event_day=2026-01-02.ndjson")).expect("it was there");
    let resume = ["export", "silver.github", "--to", text(&folder), "--format", "ndjson", "--resume"];
    let answer = place.json(&resume);
    assert_eq!((&answer["parts"], &answer["parts_done_before"], &answer["rows"]), (&json!(1), &json!(2), &json!(600)));
    assert_eq!(self::ids(&folder), ids);
}

#[test]
fn an_export_that_is_killed_at_any_moment_goes_on_and_doubles_nothing() {
    let place = filled(3_000);
    let mut random = Random::from_environment();
    let folder = place.home.path().join("out");
    let (mut resume, mut kills) = (false, 0);
    loop {
        let mut arguments = vec!["export", "silver.github", "--to", text(&folder), "--format", "ndjson"];
        arguments.extend(resume.then_some("--resume"));
        let mut child = place.command(&arguments).spawn().expect("databroker starts");
        let begun = || folder.join("manifest.json").exists();
        if !resume {
            eventually("the export begins", || begun() || child.try_wait().expect("a child").is_some());
        }
        std::thread::sleep(Duration::from_millis(random.below(120)));
        let ended = child.try_wait().expect("a child");
        resume = begun();
        if ended.is_some_and(|status| status.success()) {
            break;
        }
        child.kill().expect("it runs");
        child.wait().expect("it ends");
        kills += 1;
        if kills == 8 {
            place.json(&["export", "silver.github", "--to", text(&folder), "--format", "ndjson", "--resume"]);
            break;
        }
    }
    let parts = manifest(&folder);
    let ids = ids(&folder);
    assert!(ids.len() == 3_000 && ids.values().all(|count| *count == 1), "{parts}");
    let left: Vec<PathBuf> =
        std::fs::read_dir(&folder).expect("readable").map(|entry| entry.expect("an entry").path()).collect();
    let names: Vec<_> = left.iter().filter(|path| path.extension().is_some_and(|ending| ending == "ndjson")).collect();
    assert_eq!(names.len(), parts["parts"].as_array().map_or(0, Vec::len));
}

#[test]
fn a_query_is_one_file_in_any_format() {
    let place = filled(300);
    let query = "SELECT type, count(*) AS n, array_agg(DISTINCT repo_id ORDER BY repo_id) AS repos FROM silver.github GROUP BY 1 ORDER BY 1";
    let file = place.home.path().join("types.csv");
    let answer = place.json(&["export", query, "--to", text(&file), "--format", "csv"]);
    assert_eq!((&answer["parts"], &answer["rows"]), (&json!(1), &json!(5)));
    let csv = std::fs::read_to_string(&file).expect("the file");
    assert!(csv.starts_with("type,n,repos\nCreateEvent,60,\"[") && csv.lines().count() == 6, "{csv}");
    let parquet = place.home.path().join("types.parquet");
    place.json(&["export", query, "--to", text(&parquet)]);
    let reader =
        parquet::file::serialized_reader::SerializedFileReader::new(std::fs::File::open(&parquet).expect("the file"));
    use parquet::file::reader::FileReader;
    assert_eq!(reader.expect("Parquet").metadata().file_metadata().num_rows(), 5);
    let refused = place.run(&["export", query, "--to", text(&file), "--format", "csv"]);
    assert_eq!(refused.status.code(), Some(64), "a file that is there is not written over");
    let unknown = place.run(&["export", "silver.githb", "--to", text(&place.home.path().join("x"))]);
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("silver.github"));
}
