//! `reprocess`: silver and the hot store made anew, there and back, killed at any moment, and beside a running pipeline.

use serde_json::{Value, json};

use crate::crash::{Group, is_killed, picture};
use crate::foreign::python;
use crate::support::{Place, Random, events, gzip_lines};

/// Kills of `reprocess`, there and back.
const KILLS: u32 = 16;

/// Kills of one run before it may come to its end.
const KILLS_OF_ONE: u32 = 5;

/// Rows as no version of ours makes them.
const ALTERED: Group = ("actor_login = 'altered'", "actor_login:altered");

const OTHERS: [Group; 2] = [("type = 'PushEvent'", "type:PushEvent"), ("type = 'IssuesEvent'", "type:IssuesEvent")];

/// Silver of 900 events, of which those of one type say something else than bronze. Answers how many.
fn altered(place: &Place) -> u64 {
    let mut all = events(0, 900);
    all.extend(events(300, 100));
    let mut bytes = gzip_lines(&all);
    bytes.extend(gzip_lines(&[json!("not an event")]));
    let file = place.write("events.json.gz", &bytes);
    place.json(&["backfill", "github", &file]);
    let script = r#"
import sys, deltalake
table = deltalake.DeltaTable(sys.argv[1])
print(table.update(updates={"actor_login": "'altered'"}, predicate="type = 'PushEvent'")["num_updated_rows"])
"#;
    let table = place.data().join("cold/silver/github");
    python(script, &[table.to_str().expect("text")]).trim().parse().expect("a number")
}

#[test]
fn a_dry_run_tells_what_would_change_and_changes_nothing() {
    let place = Place::with_small_steps();
    let rows = altered(&place);
    assert!(rows > 100, "{rows}");
    let compared = place.json(&["reprocess", "github", "--dry-run", "--examples", "2"]);
    assert_eq!(compared["outcome"], json!("compared"), "{compared:#}");
    let difference = &compared["difference"];
    let counts = ["rows_before", "rows_after", "added", "gone", "changed"].map(|name| difference[name].as_u64());
    assert_eq!(counts, [900, 900, 0, 0, rows].map(Some), "{difference:#}");
    assert_eq!(difference["columns"], json!({"actor_login": rows}));
    assert_eq!(difference["examples"].as_array().map(Vec::len), Some(2));
    assert_eq!(difference["examples"][0]["columns"]["actor_login"][0], json!("altered"));
    assert_eq!([&difference["dead_letters_before"], &difference["dead_letters_after"]], [&json!(1), &json!(1)]);
    assert_eq!(place.count(&format!("SELECT count(*) FROM silver.github WHERE {}", ALTERED.0)), rows);
    assert!(!place.data().join("cold/draft/github").exists() && !place.data().join("hot/draft/github").exists());

    let text = place.text(&["reprocess", "github", "--dry-run"]);
    for part in ["900 before, 900 after", &format!("actor_login differs in {rows} rows"), "Nothing was changed"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // Only what was asked for is compared.
    let day = "2026-01-02T05:00:00Z";
    let since = place.count(&format!(
        "SELECT count(*) FROM silver.github WHERE {} AND event_time >= '2026-01-01T00:00:00Z'",
        ALTERED.0
    ));
    let part = place.json(&["reprocess", "github", "--dry-run", "--since", day]);
    assert_eq!(part["since"], json!("2026-01-01T00:00:00Z"), "where all is kept the hot store has an index a month");
    assert_eq!(part["difference"]["changed"], json!(since));
}

/// Altered rows and all rows of silver, as delta-rs and DuckDB read them.
fn read_by_others(place: &Place) -> Value {
    let script = r#"
import sys, json, deltalake, duckdb, duckdb_extensions
table = deltalake.DeltaTable(sys.argv[1]).to_pyarrow_table(columns=["actor_login"])
connection = duckdb.connect()
duckdb_extensions.import_extension("delta", con=connection)
counts = "SELECT count(*) FILTER (actor_login = 'altered'), count(*) FROM delta_scan(?)"
altered, rows = connection.execute("LOAD delta").execute(counts, [sys.argv[1]]).fetchone()
print(json.dumps([table["actor_login"].to_pylist().count("altered"), altered, table.num_rows, rows]))
"#;
    let table = place.data().join("cold/silver/github");
    serde_json::from_str(&python(script, &[table.to_str().expect("text")])).expect("one document")
}

#[test]
fn made_anew_and_back_killed_at_random_moments_both_stores_are_the_one_or_the_other() {
    let mut place = Place::with_small_steps();
    // What comes after the exchange is not what is killed here.
    place.environment.push(("DATABROKER_COLD_VIEWS_SHIPPED", "false".to_owned()));
    let rows = altered(&place);
    let mut random = Random::from_environment();
    let before = std::time::Instant::now();
    assert_eq!(place.json(&["reprocess", "github"])["outcome"], json!("exchanged"));
    let whole_ms = before.elapsed().as_millis() as u64;
    let fresh = picture(&place, "github", &OTHERS);
    let counted = |condition: &str| place.count(&format!("SELECT count(*) FROM silver.github WHERE {condition}"));
    assert_eq!(counted(ALTERED.0), 0);
    place.json(&["reprocess", "github", "--back"]);
    let old = picture(&place, "github", &[OTHERS.as_slice(), &[ALTERED]].concat());
    assert_eq!(counted(ALTERED.0), rows);

    let (mut kills, mut rounds) = (0, 0);
    let ways = [(&["reprocess", "github"][..], &fresh, 0), (&["reprocess", "github", "--back"], &old, rows)];
    while kills < KILLS {
        rounds += 1;
        assert!(rounds <= KILLS, "{kills} kills in {rounds} rounds: it ends before it is killed");
        for (command, expected, goal) in ways {
            let mut runs = 0;
            while counted(ALTERED.0) != goal {
                runs += 1;
                if runs > KILLS_OF_ONE {
                    place.text(command);
                } else {
                    kills += u32::from(is_killed(&place, command, random.below(whole_ms)));
                }
                let altered = counted(ALTERED.0);
                assert!(altered == 0 || altered == rows, "{altered} of {rows} rows of silver are altered");
            }
            // Whatever a kill left half done after the exchange is done when the store is opened to be written.
            place.text(&["reprocess", "github", "--discard"]);
            let groups = if goal == 0 { OTHERS.to_vec() } else { [OTHERS.as_slice(), &[ALTERED]].concat() };
            assert_eq!(picture(&place, "github", &groups), *expected, "round {rounds}: {command:?}");
        }
    }
    assert_eq!(read_by_others(&place), json!([rows, rows, 900, 900]));
    println!("{kills} kills of `reprocess` in {rounds} rounds, each of {whole_ms} ms undisturbed");
}

#[test]
fn beside_a_running_pipeline_it_loses_and_doubles_nothing_and_views_follow() {
    let place = Place::with_small_steps();
    let first = place.write("first.json.gz", &gzip_lines(&events(0, 600)));
    let second = place.write("second.json.gz", &gzip_lines(&events(400, 800)));
    let up = place.up(&[]);
    place.json(&["backfill", "github", &first]);
    let mut other = place.command(&["backfill", "github", &second]).spawn().expect("it starts");
    let answers: Vec<Value> = (0..3).map(|_| place.json(&["reprocess", "github"])).collect();
    assert!(other.wait().expect("it ends").success());
    for answer in &answers {
        assert_eq!(answer["outcome"], json!("exchanged"), "{answer:#}");
        let difference = &answer["difference"];
        let differs = ["added", "gone", "changed"].map(|name| difference[name].as_u64());
        assert_eq!(differs, [Some(0); 3], "{difference:#}");
        assert_eq!(answer["views"]["ok"], json!(true), "{answer:#}");
    }
    let expected = picture(&place, "github", &OTHERS);
    assert_eq!(expected["hot"][0], json!(1_200));
    let sources = &place.json(&["status"])["sources"];
    assert_eq!(sources["github"]["previous"]["kept_until"], answers[2]["kept_until"], "{sources:#}");
    assert_eq!(sources["arxiv"]["previous"], json!(null));
    let back = place.json(&["reprocess", "github", "--back"]);
    assert_eq!(back["outcome"], json!("exchanged"), "{back:#}");
    assert_eq!(picture(&place, "github", &OTHERS), expected);
    drop(up);
}

#[test]
fn what_cannot_be_is_refused_and_says_what_would_be_right() {
    let place = Place::with_small_steps();
    let file = place.write("events.json.gz", &gzip_lines(&events(0, 50)));
    place.json(&["backfill", "github", &file]);
    for (arguments, part) in [
        (&["reprocess", "githob"][..], "github"),
        (&["reprocess", "github", "--back"], "nothing is kept of it"),
        (&["reprocess", "github", "--since", "yesterday"], "yesterday"),
        (&["reprocess", "github", "--back", "--since", "2026-01-01"], "cannot be used with"),
    ] {
        let output = place.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(part), "{arguments:?}: {said}");
    }
    assert_eq!(place.json(&["reprocess", "github", "--discard"])["outcome"], json!("discarded"));
    picture(&place, "github", &[]);
}
