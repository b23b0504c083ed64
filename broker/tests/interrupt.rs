//! Ctrl-C: what is in hand is brought to a good end, and the user is told how far it came.

use std::io::Read;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Place, events, eventually, gzip_lines, interrupt};

const EVENTS: u64 = 20_000;

/// Steps so small that a backfill takes a while.
fn place() -> (Place, String) {
    let mut place = Place::new();
    place.environment.push(("DATABROKER_BACKFILL_RECORDS_MAX", "5".to_owned()));
    let file = place.write("long.json.gz", &gzip_lines(&events(0, EVENTS)));
    (place, file)
}

fn start(place: &Place, file: &str) -> Child {
    let mut command = place.command(&["--json", "backfill", "github", file]);
    command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("databroker starts")
}

fn logged_bytes(place: &Place) -> u64 {
    let entries = std::fs::read_dir(place.data().join("log/journal")).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len())).sum()
}

/// Interrupts a backfill that has begun, and answers its summary.
fn summary_of_interrupted(place: &Place, mut child: Child) -> Value {
    let before = logged_bytes(place);
    eventually("it has begun", || logged_bytes(place) > before + 20_000);
    interrupt(&child);
    let mut said = String::new();
    child.stdout.take().expect("it is piped").read_to_string(&mut said).expect("text");
    assert!(child.wait().expect("it ends").success(), "{said}");
    let summary: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
    assert_eq!((&summary["interrupted"], &summary["files"]), (&json!(true), &json!(0)), "{summary}");
    assert!((1..EVENTS).contains(&summary["records"].as_u64().expect("a number")), "{summary}");
    assert_eq!((&summary["rows"], &summary["waiting"]), (&summary["records"], &json!(0)), "{summary}");
    summary
}

#[test]
fn an_interrupted_backfill_says_so_and_how_far_it_came() {
    let (place, file) = place();
    let summary = summary_of_interrupted(&place, start(&place, &file));
    let rows = place.count("SELECT count(*) FROM silver.github");
    assert_eq!(Some(rows), summary["rows"].as_u64());
}

#[test]
fn a_backfill_through_the_running_process_is_interrupted_there() {
    let (place, file) = place();
    let up = place.up(&[]);
    summary_of_interrupted(&place, start(&place, &file));

    // Whoever is killed says nothing, and is not worked for any longer.
    let mut child = start(&place, &file);
    let before = logged_bytes(&place);
    eventually("it goes on", || logged_bytes(&place) > before + 20_000);
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    let mut last = logged_bytes(&place);
    eventually("the log grows no more", || {
        std::thread::sleep(Duration::from_millis(500));
        std::mem::replace(&mut last, logged_bytes(&place)) == last
    });
    assert!(place.count("SELECT count(*) FROM silver.github") < EVENTS, "it was left in the middle");
    assert!(up.end().success(), "{}", place.up_log());
    assert_eq!(place.json(&["verify"])["ok"], json!(true));
}

#[test]
fn a_second_interrupt_ends_at_once() {
    let (place, file) = place();
    let mut child = start(&place, &file);
    eventually("it has begun", || logged_bytes(&place) > 20_000);
    // The kernel makes one of two that come at the same time.
    for _ in 0..20 {
        if child.try_wait().expect("a child").is_some() {
            break;
        }
        interrupt(&child);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    assert_eq!(place.json(&["verify", "github"])["ok"], json!(true));
}

#[test]
fn up_that_is_asked_to_end_before_it_serves_ends_in_good_order() {
    let (place, _) = place();
    for _ in 0..3 {
        let up = place.starting_up(&[]);
        eventually("it opens its engines", || place.data().join("log").exists());
        assert!(up.end().success(), "{}", place.up_log());
        std::fs::remove_dir_all(place.data()).expect("it is there");
    }
}
