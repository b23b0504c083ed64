//! The examples, run on the samples as their users run them.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::support::{Place, Up, events, eventually, gzip_lines};

/// A port of this machine at which nobody answers.
const NOBODY: &str = "127.0.0.1:1";

fn run(place: &Place, name: &str, arguments: &[&str]) -> Output {
    let python = std::env::var("DATABROKER_TEST_EXAMPLES_PYTHON")
        .expect("`DATABROKER_TEST_EXAMPLES_PYTHON` is set by `./test`, which sets Python up: run that");
    let mut command = Command::new(python);
    place.surround(&mut command);
    command.current_dir(place.home.path()).env("PYTHONDONTWRITEBYTECODE", "1");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name)).args(arguments);
    command.output().expect("Python starts")
}

/// What an example prints, its numbers without commas.
fn printed(place: &Place, name: &str, arguments: &[&str]) -> String {
    let output = run(place, name, arguments);
    assert!(output.status.success(), "{name}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").replace(',', "")
}

/// The exit code of an example that cannot do its work, and what it says of that.
fn refused(place: &Place, name: &str, arguments: &[&str]) -> (i32, String) {
    let output = run(place, name, arguments);
    let said = String::from_utf8(output.stderr).expect("text");
    assert!(!said.contains("Traceback"), "{name}: {said}");
    (output.status.code().expect("it ends by itself"), said)
}

/// The words of the line of a table that begins with `name`.
fn words<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let mut lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines.find(|words| words.first() == Some(&name)).unwrap_or_else(|| panic!("no line `{name}` in\n{text}"))
}

/// The number that stands behind `before`.
fn number_behind(text: &str, before: &str) -> f64 {
    let (_, rest) = text.split_once(before).unwrap_or_else(|| panic!("no `{before}` in\n{text}"));
    let number: String = rest.chars().take_while(|letter| letter.is_ascii_digit() || *letter == '.').collect();
    number.parse().unwrap_or_else(|_| panic!("no number behind `{before}` in\n{text}"))
}

/// The rows of a query of a name and a count.
fn counts(place: &Place, query: &str) -> Vec<(String, u64)> {
    let rows = place.json(&["sql", query]);
    let rows = rows.as_array().unwrap_or_else(|| panic!("{query}: {rows}")).iter();
    rows.map(|row| (row["name"].as_str().expect("a name").to_owned(), row["n"].as_u64().expect("a count"))).collect()
}

#[test]
fn each_example_says_of_the_samples_what_sql_says() {
    let mut place = Place::new();
    place.environment.push(("DATABROKER_COLD_COMMIT_INTERVAL_MS", "200".to_owned()));
    let up = place.up(&["--sample"]);
    eventually("the samples are in the cold store", || place.has_samples("cold"));
    learns_the_categories(&place, &up);
    counts_and_forecasts_the_hours(&place);
    clusters_the_repositories(&place, &up);
    assert!(up.end().success(), "{}", place.up_log());
}

fn learns_the_categories(place: &Place, up: &Up) {
    let flight = format!("grpc://{}", up.flight);
    let said = printed(place, "arxiv_categories.py", &["--flight-sql", &flight, "--category-papers-min", "20"]);
    let papers = "FROM silver.arxiv WHERE deleted IS NOT TRUE AND abstract <> ''";
    let categories = counts(
        place,
        &format!(
            "SELECT primary_category AS name, count(DISTINCT arxiv_id) AS n {papers} \
             GROUP BY 1 HAVING count(DISTINCT arxiv_id) >= 20"
        ),
    );
    assert!(categories.len() >= 5, "{categories:?}");
    for (category, papers) in &categories {
        assert_eq!(words(&said, category)[1], papers.to_string(), "{category} in\n{said}");
    }
    let all = place.count(&format!("SELECT count(DISTINCT arxiv_id) {papers}"));
    let learned: u64 = categories.iter().map(|(_, papers)| papers).sum();
    assert!(said.starts_with(&format!("{all} papers; left out: ")), "{said}");
    assert!(said.contains(&format!("together {} papers", all - learned)), "{said}");
    assert!(said.contains(&format!("\n{} categories {learned} papers each of 5 parts", categories.len())), "{said}");
    let (right, guessed) = (number_behind(&said, "in turn: "), number_behind(&said, "the largest category: "));
    assert!(right > guessed + 20.0, "{right} % right, {guessed} % by guessing\n{said}");
    assert!(words(&said, "quant-ph").contains(&"quantum"), "{said}");
}

fn counts_and_forecasts_the_hours(place: &Place) {
    let said = printed(place, "github_hours.py", &["--types", "5"]);
    // The first hour and the last one are cut by the sample's ends.
    let hours = "WITH hours AS (SELECT type, date_trunc('hour', event_time) AS hour FROM silver.github), \
        ends AS (SELECT min(hour) AS first, max(hour) AS last FROM hours), \
        whole AS (SELECT hours.* FROM hours CROSS JOIN ends WHERE hour > first AND hour < last)";
    let (events, whole_hours) = (
        place.count(&format!("{hours} SELECT count(*) FROM whole")),
        place.count(&format!("{hours} SELECT count(DISTINCT hour) FROM whole")),
    );
    assert!(said.starts_with(&format!("{events} events in {whole_hours} whole hours")), "{said}");
    let types = counts(
        place,
        &format!("{hours} SELECT type AS name, count(*) AS n FROM whole GROUP BY 1 ORDER BY n DESC, name LIMIT 5"),
    );
    assert_eq!(types.len(), 5, "{types:?}");
    let lately = counts(
        place,
        &format!(
            "{hours} SELECT type AS name, count(*) AS n FROM whole \
             WHERE hour > (SELECT max(hour) FROM whole) - INTERVAL '24' HOUR GROUP BY 1"
        ),
    );
    for (name, events) in &types {
        let row = words(&said, name);
        assert_eq!(row[1], events.to_string(), "{name} in\n{said}");
        let in_a_day = lately.iter().find(|(other, _)| other == name).map_or(0, |(_, events)| *events);
        let mean: f64 = row[3].parse().expect("a mean");
        // It is shown with two digits.
        assert!((mean - in_a_day as f64 / 24.0).abs() < 0.006, "{name}: {in_a_day} events in a day, but\n{said}");
    }
    assert!(said.contains("error: day before"), "two days are enough to look back by one:\n{said}");
}

fn clusters_the_repositories(place: &Place, up: &Up) {
    let data = place.data();
    let arguments = ["--http", &up.http, "--data", data.to_str().expect("text"), "--like", "rust-lang/rust"];
    let said = printed(place, "repository_clusters.py", &arguments);
    let repositories = place.count("SELECT count(DISTINCT repo_name) FROM silver.github WHERE repo_name <> '/'");
    let same = format!("the broker places {repositories} of {repositories} repositories where Python does");
    assert!(said.contains(&same) && said.contains("Most like rust-lang/rust:"), "{said}");
    let shown = || place.json(&["views", "show", "repository_features", "--top", "1000000"])["rows"].clone();
    let in_cluster = |rows: &Value, number: u64| {
        let rows = rows.as_array().expect("rows").iter();
        rows.filter(|row| row["cluster_number"] == json!(number)).count() as u64
    };
    let clusters = number_behind(&said, "rows stored\n") as u64;
    let shown_before = shown();
    let sizes: Vec<_> = (0..clusters).map(|number| in_cluster(&shown_before, number)).collect();
    assert!(clusters >= 2 && sizes.iter().sum::<u64>() == repositories, "{sizes:?}");
    for (number, size) in sizes.iter().enumerate() {
        assert_eq!(words(&said, &number.to_string())[1], size.to_string(), "cluster {number} in\n{said}");
    }
    // What comes now is placed by the broker, without Python, and what is stored is what SQL reads.
    let more = place.write("more.json.gz", &gzip_lines(&events(0, 100)));
    place.json(&["backfill", "github", &more]);
    let rows = shown();
    let new = rows.as_array().expect("rows").iter().find(|row| row["repository"] == "org0/repo0");
    assert!(new.is_some_and(|row| row["cluster_number"].is_u64() && row["push_share"].is_f64()), "{new:?}");
    let events = place.count("SELECT count(*) FROM silver.github WHERE repo_name <> '/'");
    assert_eq!(place.count("SELECT sum(events) FROM gold.repository_features"), events);
}

#[test]
fn an_example_says_that_there_are_no_rows_or_that_its_token_is_wrong() {
    let mut place = Place::new();
    place.environment.push(("DATABROKER_SERVING_TOKEN", "opensesame".to_owned()));
    let up = place.up(&[]);
    let flight = format!("grpc://{}", up.flight);
    let asked: [(&str, &[&str]); 3] = [
        ("arxiv_categories.py", &["--flight-sql", &flight]),
        ("github_hours.py", &[]),
        ("repository_clusters.py", &["--http", &up.http]),
    ];
    for (name, arguments) in asked {
        let (code, said) = refused(&place, name, arguments);
        assert!(code == 1 && said.contains("`databroker up --sample`"), "{name}: {code}, {said}");
        // The table is read as files, so nobody asks for a token.
        if name != "github_hours.py" {
            let (code, said) = refused(&place, name, &[arguments, &["--token", "sesame"]].concat());
            assert!(code == 64 && said.contains("token"), "{name}: {code}, {said}");
        }
    }
    assert!(up.end().success(), "{}", place.up_log());
}

#[test]
fn an_example_says_that_the_broker_is_away() {
    let place = Place::new();
    let (flight, http) = (format!("grpc://{NOBODY}"), format!("http://{NOBODY}"));
    let asked: [(&str, &[&str]); 3] = [
        ("arxiv_categories.py", &["--flight-sql", &flight]),
        ("github_hours.py", &[]),
        ("repository_clusters.py", &["--http", &http]),
    ];
    for (name, arguments) in asked {
        let (code, said) = refused(&place, name, arguments);
        assert!(code == 69 && said.contains("`databroker up`"), "{name}: {code}, {said}");
    }
    assert!(!place.data().exists(), "an example that ends in vain leaves no file");
}
