//! SIGKILL at random moments: whatever it hits, every record ends in both stores once. Here backfills; `up` in `crash_up`.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Place, Random, events, feed, gzip_lines};

/// Kills of a backfill of each source; with those of `up` at least 50.
const KILLS: u32 = 38;

/// Kills of one backfill before it may come to its end.
const KILLS_OF_ONE: u32 = 8;

/// What a source's rows are told apart by: a condition of SQL and the same as a search.
pub(crate) type Group = (&'static str, &'static str);

/// What a place holds of a source, as both stores tell it: all rows and those of each group.
pub(crate) fn picture(place: &Place, source: &str, groups: &[Group]) -> Value {
    let verified = place.json(&["verify", source]);
    assert_eq!(verified["ok"], json!(true), "{verified:#}");
    let groups: Vec<Group> = [("true", "*")].iter().chain(groups).copied().collect();
    let counts: Vec<_> = (0..)
        .zip(&groups)
        .map(|(place, (condition, _))| {
            let ids = format!("count(DISTINCT CASE WHEN {condition} THEN _id END) AS ids{place}");
            format!("count(CASE WHEN {condition} THEN 1 END) AS rows{place}, {ids}")
        })
        .collect();
    let cold = place.json(&["sql", &format!("SELECT {} FROM silver.{source}", counts.join(", "))]);
    let hot: Vec<_> = groups
        .iter()
        .map(|(_, query)| place.json(&["search", source, query, "--size", "0"])["hits"]["total"]["value"].clone())
        .collect();
    for (number, found) in (0..).zip(&hot) {
        assert_eq!(*found, cold[0][format!("rows{number}")], "{:?}: {cold}", groups[number]);
        assert_eq!(*found, cold[0][format!("ids{number}")], "{:?}: {cold}", groups[number]);
        assert!(found.as_u64() > Some(0), "{:?} tells nothing apart", groups[number]);
    }
    let dead = format!("SELECT count(DISTINCT id) FROM ops.dead_letters WHERE source = '{source}'");
    json!({"hot": hot, "dead": place.count(&dead)})
}

/// Runs a command, kills it after so long, and says whether that was before its end.
pub(crate) fn is_killed(place: &Place, command: &[&str], life_ms: u64) -> bool {
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

/// Kills backfills of the files that `write` makes, each round in a fresh place, and compares with one that nobody
/// disturbs. Answers what that one said.
fn kill_backfills(source: &str, groups: &[Group], write: impl Fn(&Place) -> Vec<String>) -> Value {
    let mut random = Random::from_environment();
    let command = |files: &[String]| -> Vec<String> {
        ["backfill", source].into_iter().map(str::to_owned).chain(files.iter().cloned()).collect()
    };
    let calm = Place::with_small_steps();
    let files = command(&write(&calm));
    let started = Instant::now();
    let summary = calm.json(&files.iter().map(String::as_str).collect::<Vec<_>>());
    let whole_ms = started.elapsed().as_millis() as u64;
    let expected = picture(&calm, source, groups);

    let (mut kills, mut rounds) = (0, 0);
    while kills < KILLS {
        rounds += 1;
        assert!(rounds <= KILLS, "{kills} kills in {rounds} rounds: it ends before it is killed");
        let place = Place::with_small_steps();
        let files = command(&write(&place));
        let command: Vec<_> = files.iter().map(String::as_str).collect();
        // Each goes on where the one before was killed, so that half of the time reaches every part.
        let is_killed = |_: &u32| is_killed(&place, &command, random.below(whole_ms / 2));
        kills += (0..KILLS_OF_ONE).filter(is_killed).count() as u32;
        place.text(&command);
        assert_eq!(picture(&place, source, groups), expected, "round {rounds}");
    }
    println!("{source}: {kills} kills of backfills in {rounds} rounds, each of {whole_ms} ms undisturbed");
    summary
}

/// Two files with records in common, repeats within a file, and pieces that are no events.
fn write_events(place: &Place) -> Vec<String> {
    let mut first = events(0, 700);
    first.extend(events(200, 100));
    let mut second = events(500, 700);
    second.insert(300, json!({"id": "1", "type": 5, "created_at": "2026-01-01T00:00:00Z"}));
    let mut cut = gzip_lines(&second);
    cut.extend(gzip_lines(&[json!("not an event")]));
    vec![place.write("first.json.gz", &gzip_lines(&first)), place.write("second.json.gz", &cut)]
}

#[test]
fn backfills_of_github_killed_at_random_moments_end_as_an_undisturbed_one() {
    let types: [Group; 5] = [
        ("type = 'PushEvent'", "type:PushEvent"),
        ("type = 'WatchEvent'", "type:WatchEvent"),
        ("type = 'IssuesEvent'", "type:IssuesEvent"),
        ("type = 'CreateEvent'", "type:CreateEvent"),
        ("type = 'MadeUpEvent'", "type:MadeUpEvent"),
    ];
    let summary = kill_backfills("github", &types, write_events);
    let counts = ["records", "rows", "duplicates", "rejects"].map(|name| summary[name].as_u64());
    assert_eq!(counts, [1_502, 1_200, 300, 2].map(Some));
}

fn sample(source: &str, name: &str) -> Vec<String> {
    vec![format!("{}/../acquisition/{source}/sample/{name}", env!("CARGO_MANIFEST_DIR"))]
}

#[test]
fn backfills_of_arxiv_killed_at_random_moments_end_as_an_undisturbed_one() {
    let archives: [Group; 2] =
        [("primary_category LIKE 'cs.%'", "primary_category:cs.*"), ("version = 1", "version:1")];
    let summary = kill_backfills("arxiv", &archives, |_| sample("arxiv", "papers.xml.gz"));
    assert!(summary["rows"].as_u64() >= Some(1_000), "{summary}");
}

#[test]
fn backfills_of_dns_killed_at_random_moments_end_as_an_undisturbed_one() {
    let kinds: [Group; 3] =
        [("qtype = 'A'", "qtype:A"), ("qtype = 'AAAA'", "qtype:AAAA"), ("rcode = 'NXDOMAIN'", "rcode:NXDOMAIN")];
    let summary = kill_backfills("dns", &kinds, |_| sample("dns", "messages.fstrm.gz"));
    assert!(summary["rows"].as_u64() >= Some(1_000), "{summary}");
}

#[test]
fn backfills_of_news_killed_at_random_moments_end_as_an_undisturbed_one() {
    let digits: [Group; 2] = [("guid LIKE '%3'", "guid:*3"), ("guid LIKE '%7'", "guid:*7")];
    let feeds = |place: &Place| {
        [400, 900].map(|entries| place.write(&format!("{entries}.xml"), feed(entries).as_bytes())).to_vec()
    };
    let summary = kill_backfills("news", &digits, feeds);
    let counts = ["records", "rows", "duplicates", "rejects"].map(|name| summary[name].as_u64());
    assert_eq!(counts, [1_300, 900, 400, 0].map(Some));
}
