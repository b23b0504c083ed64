//! SIGKILL at random moments: whatever it hits, every record ends in both stores once.

use std::time::{Duration, Instant};

use acquisition::github::replay::{EventStream, Replay};
use serde_json::{Value, json};

use crate::support::{Place, Random, events, gzip_lines};

/// Kills of a backfill and of `up`, together at least 50.
const BACKFILL_KILLS: u32 = 36;
const UP_KILLS: u32 = 16;

/// Kills of a backfill of each other source.
const SOURCE_KILLS: u32 = 8;

/// What a place holds, as both stores tell it.
fn picture(place: &Place) -> Value {
    let verified = place.json(&["verify"]);
    assert_eq!(verified["ok"], json!(true), "{verified:#}");
    let types = place.json(&[
        "sql",
        "SELECT type, count(*) AS rows, count(DISTINCT _id) AS ids FROM silver.github GROUP BY 1 ORDER BY 1",
    ]);
    let hot: Vec<_> = types
        .as_array()
        .expect("rows")
        .iter()
        .map(|row| {
            let kind = row["type"].as_str().expect("a type");
            let found = place.json(&["search", "github", &format!("type:{kind}"), "--size", "0"]);
            json!([kind, found["hits"]["total"]["value"]])
        })
        .collect();
    let bronze = place.count("SELECT count(*) FROM bronze.github");
    let dead = place.count("SELECT count(DISTINCT id) FROM ops.dead_letters");
    json!({"types": types, "hot": hot, "bronze": bronze, "dead": dead})
}

/// Two files with records in common, repeats within a file, and pieces that are no events.
fn write_files(place: &Place) -> [String; 2] {
    let mut first = events(0, 1_500);
    first.extend(events(200, 100));
    let mut second = events(1_200, 1_500);
    second.insert(700, json!({"id": "1", "type": 5, "created_at": "2026-01-01T00:00:00Z"}));
    let mut cut = gzip_lines(&second);
    cut.extend(gzip_lines(&[json!("not an event")]));
    [place.write("first.json.gz", &gzip_lines(&first)), place.write("second.json.gz", &cut)]
}

#[test]
fn a_backfill_killed_at_random_moments_ends_as_an_undisturbed_one() {
    let mut random = Random::from_environment();
    let calm = Place::with_small_steps();
    let files = write_files(&calm);
    let started = Instant::now();
    let summary = calm.json(&["backfill", "github", &files[0], &files[1]]);
    let whole = started.elapsed();
    assert_eq!(summary["records"], json!(3_102));
    assert_eq!(
        (&summary["rows"], &summary["duplicates"], &summary["rejects"]),
        (&json!(2_700), &json!(400), &json!(2))
    );
    let expected = picture(&calm);
    assert_eq!(expected["bronze"], json!(3_102));

    let mut kills = 0;
    let mut rounds = 0;
    while kills < BACKFILL_KILLS {
        rounds += 1;
        let place = Place::with_small_steps();
        let files = write_files(&place);
        let command = ["backfill", "github", &files[0], &files[1]];
        for _ in 0..6 {
            kills += u32::from(is_killed(&place, &command, random.below(whole.as_millis() as u64)));
        }
        place.text(&command);
        assert_eq!(picture(&place), expected, "round {rounds}");
    }
    println!("{kills} kills in {rounds} rounds");
}

/// Runs a command, kills it after so long, and says whether that was before its end.
fn is_killed(place: &Place, command: &[&str], life_ms: u64) -> bool {
    let mut child = place
        .command(command)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("it starts");
    let deadline = Instant::now() + Duration::from_millis(life_ms);
    while Instant::now() < deadline && child.try_wait().expect("a child").is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let was_running = child.try_wait().expect("a child").is_none();
    // It may have ended in this very moment.
    child.kill().unwrap_or_default();
    child.wait().expect("it ends");
    was_running
}

#[test]
fn backfills_of_the_other_sources_killed_at_random_moments_end_as_undisturbed_ones() {
    let mut random = Random::from_environment();
    let samples = [("arxiv", "papers.xml.gz"), ("dns", "messages.fstrm.gz"), ("news", "feeds.txt.gz")];
    for (source, sample) in samples {
        let file = format!("{}/../acquisition/{source}/sample/{sample}", env!("CARGO_MANIFEST_DIR"));
        let command = ["backfill", source, &file];
        let counts = |place: &Place| {
            let verified = place.json(&["verify"]);
            assert_eq!(verified["ok"], json!(true), "{verified:#}");
            let rows = place
                .json(&["sql", &format!("SELECT count(*) AS rows, count(DISTINCT _id) AS ids FROM silver.{source}")]);
            let hot = place.json(&["search", source, "--size", "0"])["hits"]["total"]["value"].clone();
            let bronze = place.count(&format!("SELECT count(*) FROM bronze.{source}"));
            json!({"rows": rows, "hot": hot, "bronze": bronze})
        };
        let calm = Place::with_small_steps();
        let started = Instant::now();
        let summary = calm.json(&command);
        let whole = started.elapsed();
        let expected = counts(&calm);
        assert!(expected["bronze"].as_u64() >= Some(1_000), "{summary}");
        assert_eq!(expected["hot"], expected["rows"][0]["rows"]);

        let place = Place::with_small_steps();
        let kills: u32 = (0..SOURCE_KILLS)
            .map(|_| u32::from(is_killed(&place, &command, random.below(whole.as_millis() as u64))))
            .sum();
        place.text(&command);
        assert_eq!(counts(&place), expected, "{source} after {kills} kills");
        assert!(kills > 0, "`{source}` was killed at least once");
    }
}

#[test]
fn up_killed_at_random_moments_loses_and_doubles_nothing() {
    let mut random = Random::from_environment();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let start = contract::Timestamp::parse_rfc3339("2026-01-01T00:00:00Z").expect("a time");
    let stream = EventStream { first: 40, growth: 60, last: 1_600, start, poll_interval_seconds: 0 };
    let server = runtime.block_on(Replay::stream(stream)).expect("a port");
    let mut place = Place::with_small_steps();
    place.environment.extend([
        ("DATABROKER_GITHUB_FEEDS", "[\"public\"]".to_owned()),
        ("DATABROKER_GITHUB_BASE_URL", server.base_url()),
        ("DATABROKER_GITHUB_POLL_INTERVAL_SECONDS", "0".to_owned()),
    ]);
    for _ in 0..UP_KILLS {
        let up = place.up(&[]);
        std::thread::sleep(Duration::from_millis(random.below(700)));
        up.kill();
    }
    let up = place.up(&[]);
    let rows = || place.count("SELECT count(*) FROM silver.github");
    crate::support::eventually("all that was served is a row", || {
        server.newest() >= stream.last && rows() >= stream.last
    });
    assert!(up.end().success(), "{}", place.up_log());
    let verified = place.json(&["verify"]);
    assert_eq!(verified["ok"], json!(true), "{verified:#}");
    assert_eq!(rows(), stream.last);
    let ids = format!(
        "SELECT count(DISTINCT _id) FROM silver.github WHERE _id BETWEEN '{}' AND '{}'",
        EventStream::id(1),
        EventStream::id(stream.last)
    );
    assert_eq!(place.count(&ids), stream.last);
    assert_eq!(place.count("SELECT coalesce(sum(records), 0) FROM ops.coverage WHERE kind = 'missed'"), 0);
}
