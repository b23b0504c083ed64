//! Rows as they are made: `tail`, and `/api/tail` with its ids.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use futures::StreamExt;
use serde_json::Value;

use crate::support::{Place, events, eventually, gzip_lines, http, interrupt};

#[test]
fn a_tail_shows_each_new_row_that_its_filter_lets_through() {
    let place = Place::with_small_steps();
    let up = place.up(&[]);
    let first = place.write("first.json.gz", &gzip_lines(&events(0, 50)));
    place.json(&["backfill", "github", &first]);
    let mut tail = place.command(&["tail", "github", "type = 'PushEvent' AND NOT is_bot"]);
    let mut tail = tail.stdout(Stdio::piped()).spawn().expect("databroker starts");
    let tails = || http("GET", &format!("{}/metrics", up.http), "").1;
    eventually("the tail begins", || tails().contains("databroker_tails 1"));
    let second = place.write("second.json.gz", &gzip_lines(&events(50, 300)));
    place.json(&["backfill", "github", &second]);
    let rows = BufReader::new(tail.stdout.take().expect("piped")).lines().take(60);
    let rows: Vec<Value> = rows.map(|line| serde_json::from_str(&line.expect("text")).expect("a row")).collect();
    assert!(rows.iter().all(|row| row["type"] == "PushEvent"), "{rows:?}");
    let mut ids: Vec<_> = rows.iter().map(|row| row["_id"].as_str().expect("an id").to_owned()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 60, "each once, and none of those that were there before");
    interrupt(&tail);
    tail.wait().expect("it ends");
    eventually("the tail's place is free", || tails().contains("databroker_tails 0"));
    let (status, error) = http("GET", &format!("{}/api/tail/github?filter=typ%20%3D%201", up.http), "");
    assert!(status == 400 && error.contains("\"sqlstate\":\"42703\""), "{error}");
    assert!(up.end().success(), "a tail does not hold up the end");
}

#[test]
fn a_tail_goes_on_after_the_event_that_was_read_last() {
    let place = Place::with_small_steps();
    let up = place.up(&[]);
    let file = place.write("hour.json.gz", &gzip_lines(&events(0, 200)));
    place.json(&["backfill", "github", &file]);
    let read = |after: &str, count: usize| {
        let url = format!("{}/api/tail/github?after={after}", up.http);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(events_of(&url, count))
    };
    let start = "0:0,1:0,2:0,3:0";
    let all = read(start, 200);
    let (first, then) = (read(start, 70), read(&all[69].0, 130));
    assert_eq!([first, then].concat(), all);
    assert!(up.end().success());
}

/// Id and `_id` of the first events of a tail.
async fn events_of(url: &str, count: usize) -> Vec<(String, String)> {
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let mut pieces = client.get(url).send().await.expect("an answer").bytes_stream();
    let (mut text, mut events, mut id) = (String::new(), Vec::new(), String::new());
    while events.len() < count {
        let piece = pieces.next().await.expect("it does not end").expect("a piece");
        text.push_str(std::str::from_utf8(&piece).expect("text"));
        while let Some((line, rest)) = text.split_once('\n') {
            if let Some(said) = line.strip_prefix("id: ") {
                id = said.to_owned();
            }
            if let Some(row) = line.strip_prefix("data: ") {
                let row: Value = serde_json::from_str(row).expect("a row");
                events.push((id.clone(), row["_id"].as_str().expect("an id").to_owned()));
            }
            text = rest.to_owned();
        }
    }
    events.truncate(count);
    events
}
