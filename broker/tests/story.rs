//! The story of a user: what README promises, step by step.

use serde_json::{Value, json};

use crate::support::{Place, events, eventually, gzip_lines, http, http_json};

#[test]
fn the_samples_are_searchable_and_queryable_soon_after_the_start() {
    let mut place = Place::new();
    place.environment.retain(|(name, _)| *name != "DATABROKER_HOT_RETENTION_DAYS");
    let up = place.up(&["--sample"]);
    let search = |body: Value| http_json("POST", &format!("{}/github/_search", up.elasticsearch), &body);
    eventually("the samples are in the hot store", || place.has_samples("hot"));
    for source in acquisition::SOURCES {
        let found = http_json("GET", &format!("{}/{}/_count", up.elasticsearch, source.id), &json!({}));
        assert!(found["count"].as_u64() >= Some(900), "`{}`: {found}", source.id);
    }

    let total = search(json!({"track_total_hits": true}))["hits"]["total"]["value"].as_u64().expect("a number");
    assert!(total > 900, "the sample has {total} events");
    let by_type = search(json!({"size": 0, "aggs": {"t": {"terms": {"field": "type", "size": 50}}}}));
    let buckets = by_type["aggregations"]["t"]["buckets"].as_array().expect("buckets").clone();
    assert_eq!(buckets.iter().map(|bucket| bucket["doc_count"].as_u64().expect("a count")).sum::<u64>(), total);

    // Rows that are not committed to the cold store are seen by SQL all the same.
    let rows = http_json(
        "POST",
        &format!("{}/api/sql", up.http),
        &json!({"query": "SELECT type, count(*) AS n FROM silver.github GROUP BY 1"}),
    );
    for bucket in buckets {
        let row = rows.as_array().expect("rows").iter().find(|row| row["type"] == bucket["key"]);
        assert_eq!(row.expect("each type is in both stores")["n"], bucket["doc_count"], "{bucket}");
    }
    // The command line goes through the running process.
    let status = place.json(&["status"]);
    assert_eq!(status["serving"], json!(true));
    assert_eq!(status["sources"]["github"]["rows"].as_u64(), Some(total));
    let found = place.text(&["search", "github", "type:PushEvent", "--size", "3"]);
    assert!(found.lines().count() == 4 && found.contains("PushEvent"), "{found}");

    let (_, metrics) = http("GET", &format!("{}/metrics", up.http), "");
    let line = metrics.lines().find(|line| line.starts_with("databroker_processed_rows_total{source=\"github\"}"));
    assert_eq!(line.and_then(|line| line.rsplit(' ').next()), Some(total.to_string().as_str()), "{metrics}");
    assert_eq!(place.json(&["verify"])["ok"], json!(true));
    assert!(up.end().success(), "{}", place.up_log());
    assert_eq!(place.count("SELECT count(*) FROM silver.github"), total, "draining commits what was only written");
}

#[test]
fn a_backfill_is_summed_up_and_the_same_files_again_add_nothing() {
    let place = Place::new();
    let mut all = events(0, 400);
    all.extend(events(0, 20));
    let file = place.write("hour.json.gz", &gzip_lines(&all));
    let first = place.json(&["backfill", "github", &file]);
    assert_eq!((&first["records"], &first["rows"], &first["duplicates"]), (&json!(420), &json!(400), &json!(20)));
    let again = place.json(&["backfill", "github", &file]);
    assert_eq!((&again["records"], &again["rows"], &again["files_done_before"]), (&json!(0), &json!(0), &json!(1)));
    assert!(place.text(&["backfill", "github", &file]).contains("read before"));

    // The same events in another file are duplicates.
    let other = place
        .write("other.json", events(0, 400).iter().map(|event| format!("{event}\n")).collect::<String>().as_bytes());
    let other = place.json(&["backfill", "github", &other]);
    assert_eq!((&other["records"], &other["rows"], &other["duplicates"]), (&json!(400), &json!(0), &json!(400)));
    assert_eq!(place.count("SELECT count(*) FROM silver.github"), 400);
    let hits = place.json(&[
        "search",
        "github",
        "title:\"memory leak\"",
        "--from",
        "2026-01-02",
        "--to",
        "2026-01-03",
        "--size",
        "100",
    ]);
    let expected = events(0, 400)
        .iter()
        .filter(|event| {
            event["type"] == "IssuesEvent"
                && event["created_at"].as_str().is_some_and(|at| at.starts_with("2026-01-02"))
        })
        .count();
    assert_eq!(hits["hits"]["total"]["value"], json!(expected));
    assert_eq!(place.json(&["verify"])["ok"], json!(true));
}

#[test]
fn a_backfill_goes_through_the_running_process() {
    let mut place = Place::new();
    // Nothing to poll: the feed list is empty.
    place.environment.push(("DATABROKER_GITHUB_FEEDS", "[]".to_owned()));
    let up = place.up(&[]);
    let file = place.write("hour.json.gz", &gzip_lines(&events(0, 300)));
    let summary = place.json(&["backfill", "github", &file]);
    assert_eq!(summary["rows"], json!(300));
    assert_eq!(place.count("SELECT count(*) FROM silver.github"), 300);
    let second = place.run(&["up"]);
    assert_eq!(second.status.code(), Some(64), "a second `up` on the same directory is refused");
    assert!(
        String::from_utf8_lossy(&second.stderr).contains(&up.child.id().to_string()),
        "the message names the owner"
    );
    assert!(up.end().success());
}

#[test]
fn bad_input_costs_no_good_record_and_is_kept_with_its_bytes_and_reason() {
    let place = Place::new();
    let good = events(0, 4);
    let mut file = Vec::new();
    let deep = format!(
        "{{\"id\":\"77\",\"type\":\"PushEvent\",\"created_at\":\"2026-01-01T00:00:00Z\",\"payload\":{}{}}}",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    let bad: [&[u8]; 6] = [
        b"\x00\xff\xfe binary \x01\x02",
        br#"{"id":"70","type":"PushEvent","type":"WatchEvent","created_at":"2026-01-01T00:00:00Z"}"#,
        br#"{"id":"71","type":{"a":1},"created_at":"2026-01-01T00:00:00Z"}"#,
        br#"{"id":"72","type":"PushEvent","created_at":"yesterday"}"#,
        deep.as_bytes(),
        br#"{"id":"73","type":"PushEvent","created_at":"2026-01-01T00:00:00Z","payl"#,
    ];
    for (event, bad) in good.iter().cycle().zip(bad) {
        file.extend(event.to_string().bytes().chain([b'\n']).chain(bad.iter().copied()).chain([b'\n']));
    }
    let file = place.write("bad.json", &file);
    let summary = place.json(&["backfill", "github", &file]);
    let number = |name: &str| summary[name].as_u64().expect("a number");
    assert_eq!(number("rows"), 4, "{summary}");
    assert_eq!(number("records"), number("rows") + number("duplicates") + number("rejects"));
    assert!(number("rejects") >= 6, "{summary}");
    let letters = place.json(&["dead-letters", "--limit", "100"]);
    assert_eq!(letters["total"], json!(number("rejects")), "{letters:#}");
    for letter in letters["dead_letters"].as_array().expect("letters") {
        assert!(
            letter["reason"].as_str().is_some_and(|reason| reason.len() > 10)
                && letter["body_bytes"].as_u64() > Some(0),
            "{letter}"
        );
    }
    let bodies = place.count("SELECT count(*) FROM ops.dead_letters d JOIN bronze.github b ON b._partition = d._partition AND b._offset = d._offset AND b.body = d.body");
    assert_eq!(bodies, number("rejects"), "a dead letter has the record's bytes");
    let replayed = place.json(&["dead-letters", "replay"]);
    assert_eq!((&replayed["rows"], &replayed["open"]), (&json!(0), &json!(number("rejects"))), "what is bad stays bad");
    let letters = place.count("SELECT count(*) FROM ops.dead_letters");
    assert_eq!(letters, number("rejects"), "and is not there twice for it");
    assert_eq!(place.json(&["verify"])["ok"], json!(true));
}

#[test]
fn an_event_beyond_the_record_limit_becomes_a_dead_letter_with_its_bytes() {
    let place = Place::new();
    let body = "x".repeat(contract::limits::RECORD_BYTES_MAX);
    let large = json!({"id": "9", "type": "IssuesEvent", "created_at": "2026-01-01T00:00:00Z", "actor": {"id": 1},
        "payload": {"issue": {"body": body}}});
    let file = place.write("large.json", format!("{large}\n{}\n", events(0, 1)[0]).as_bytes());
    let summary = place.json(&["backfill", "github", &file]);
    assert_eq!((&summary["rows"], &summary["rejects"]), (&json!(1), &json!(1)), "{summary}");
    let letters = place.json(&["dead-letters"]);
    let letter = &letters["dead_letters"][0];
    assert_eq!((&letter["id"], &letter["kind"]), (&json!("9"), &json!("size")), "{letter}");
    assert_eq!(letter["body_bytes"].as_u64(), Some(large.to_string().len() as u64));
}

#[test]
fn a_dead_letter_is_open_until_its_id_is_a_row_of_the_same_day() {
    let place = Place::new();
    let event = |day: u32, more: &str| {
        format!(
            r#"{{"id":"70","type":"WatchEvent",{more}"created_at":"2026-01-{day:02}T00:00:00Z","actor":{{"id":1}}}}"#
        )
    };
    let backfill = |name: &str, text: String| place.json(&["backfill", "github", &place.write(name, text.as_bytes())]);
    let open = || place.json(&["dead-letters"])["total"].clone();
    let summary = backfill("bad.json", event(1, "\"type\":\"ForkEvent\","));
    assert_eq!((&summary["rejects"], open()), (&json!(1), json!(1)), "{summary}");
    assert_eq!(backfill("other-day.json", event(2, ""))["rows"], json!(1));
    assert_eq!(open(), json!(1), "the id of another day is another event");
    assert_eq!(backfill("same-day.json", event(1, ""))["rows"], json!(1));
    assert_eq!(open(), json!(0));
}

#[test]
fn a_damaged_archive_gives_what_stands_before_the_damage() {
    let place = Place::new();
    let whole = gzip_lines(&events(0, 2_000));
    let cut = place.write("cut.json.gz", &whole[..whole.len() / 2]);
    let summary = place.json(&["backfill", "github", &cut]);
    assert!(summary["rows"].as_u64() > Some(500), "{summary}");
    assert!(summary["notes"].to_string().contains("cut.json.gz"), "{summary}");
    // The whole file, which is another by its hash, then brings the rest.
    let whole = place.write("whole.json.gz", &whole);
    place.json(&["backfill", "github", &whole]);
    assert_eq!(place.count("SELECT count(DISTINCT _id) FROM silver.github"), 2_000);
    assert_eq!(place.json(&["verify"])["ok"], json!(true));
}

#[test]
fn wrong_use_is_told_and_exits_64() {
    let place = Place::new();
    let refused = |arguments: &[&str], says: &str| {
        let output = place.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {said}");
        assert!(said.contains(says), "{arguments:?}: {said}");
    };
    refused(&["status"], "there is nothing in it yet");
    refused(&["backfil", "github", "x"], "backfill");
    refused(&["backfill", "gihub", "/nonexistent"], "known: arxiv");
    refused(&["backfill", "github", "/nonexistent"], "/nonexistent");
    let file = place.write("one.json", b"");
    assert_eq!(place.json(&["backfill", "github", &file])["records"], json!(0), "an empty file is no error");
    refused(&["sql", "SELECT * FROM silver.gihub"], "github");
    refused(&["sql", "DROP TABLE silver.github"], "only read");
    refused(&["search", "github", "type:("], "search");
    place.write("databroker.toml", b"[hot]\nretention_dys = 3\n");
    refused(&["status"], "retention_days");
}

#[test]
fn a_lost_hot_store_is_filled_again_also_with_what_the_log_let_go() {
    let mut place = Place::with_small_steps();
    place.environment.extend([
        ("DATABROKER_LOG_COMPRESSION", "none".to_owned()),
        ("DATABROKER_LOG_RETENTION_BYTES", "300000".to_owned()),
        ("DATABROKER_COLD_QUERY_ROWS_MAX", "10".to_owned()),
    ]);
    for part in 0..4_u64 {
        let file = place.write(&format!("{part}.json.gz"), &gzip_lines(&events(part * 1_000, 1_000)));
        place.json(&["backfill", "github", &file]);
    }
    let up = place.up(&[]);
    let starts = || place.json(&["status"])["topics"]["github.raw"].as_array().expect("partitions").clone();
    eventually("the log let go of its start", || starts().iter().all(|part| part["start"].as_i64() > Some(0)));
    assert!(up.end().success(), "{}", place.up_log());

    std::fs::remove_dir_all(place.data().join("hot")).expect("it is there");
    let found = || place.json(&["search", "github", "--size", "0"])["hits"]["total"]["value"].as_u64();
    let up = place.up(&[]);
    eventually("all rows are searchable again", || found() == Some(4_000));
    assert!(up.end().success(), "{}", place.up_log());
    assert_eq!(place.json(&["verify"])["ok"], json!(true));
}

#[test]
fn a_lost_log_costs_no_record_that_comes_after_it() {
    let place = Place::new();
    for (name, first) in [("before.json", 0), ("after.json", 300)] {
        let events = events(first, 300);
        let file = events.iter().map(|event| format!("{event}\n")).collect::<String>();
        let summary = place.json(&["backfill", "github", &place.write(name, file.as_bytes())]);
        assert_eq!(summary["rows"], json!(300), "{name}");
        if first == 0 {
            std::fs::remove_dir_all(place.data().join("log")).expect("it is there");
        }
    }
    assert_eq!(place.count("SELECT count(DISTINCT _id) FROM silver.github"), 600);
    assert_eq!(place.json(&["search", "github", "--size", "0"])["hits"]["total"]["value"], json!(600));
    let verified = place.json(&["verify"]);
    assert_eq!(verified["ok"], json!(true), "{verified:#}");

    // Log and hot store at once: what the log had is filled from the cold store.
    for lost in ["log", "hot"] {
        std::fs::remove_dir_all(place.data().join(lost)).expect("it is there");
    }
    let more = events(600, 50).iter().map(|event| format!("{event}\n")).collect::<String>();
    assert_eq!(place.json(&["backfill", "github", &place.write("more.json", more.as_bytes())])["rows"], json!(50));
    assert_eq!(place.json(&["search", "github", "--size", "0"])["hits"]["total"]["value"], json!(650));
    let verified = place.json(&["verify"]);
    assert_eq!(verified["ok"], json!(true), "{verified:#}");
}

#[test]
fn verify_names_what_was_taken_away_and_repair_brings_it_back() {
    let mut place = Place::new();
    // What users may ask for limits no proof.
    place.environment.push(("DATABROKER_COLD_QUERY_ROWS_MAX", "10".to_owned()));
    let file = place.write("hour.json.gz", &gzip_lines(&events(0, 300)));
    place.json(&["backfill", "github", &file]);
    assert_eq!(place.json(&["verify"])["ok"], json!(true));

    let broken = |proof: &str, named: &str| {
        let output = place.run(&["--json", "verify"]);
        assert_eq!(output.status.code(), Some(1), "a broken proof exits 1");
        let report: Value = serde_json::from_slice(&output.stdout).expect("one document");
        let sources = report["sources"].as_array().expect("all sources");
        let github = sources.iter().find(|source| source["source"] == json!("github")).expect("it is a source");
        let proofs = github["proofs"].as_array().expect("four proofs").clone();
        let proof = proofs.iter().find(|entry| entry["name"] == json!(proof)).expect("the proof").clone();
        assert_eq!(proof["ok"], json!(false), "{report:#}");
        assert!(proof["named"].to_string().contains(named), "{proof:#}");
    };
    crate::foreign::delete_from_delta(&place.data().join("cold/silver/github"), "_id = '10000000007'");
    broken("silver", "10000000007");
    assert!(place.text(&["verify", "--repair"]).contains("mended"));
    assert_eq!(place.json(&["verify"])["ok"], json!(true));

    crate::foreign::delete_from_delta(&place.data().join("cold/bronze/github"), "id = '10000000011'");
    broken("bronze", "is missing");
    place.text(&["verify", "--repair"]);
    assert_eq!(place.json(&["verify"])["ok"], json!(true));

    let mut indices =
        std::fs::read_dir(place.data().join("hot")).expect("indices").map(|entry| entry.expect("readable").path());
    let index = indices.find(|path| {
        path.is_dir() && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("github-2026.01"))
    });
    remove_from_hot(&index.expect("an index of January"), "10000000013");
    broken("hot", "10000000013");
    place.text(&["verify", "--repair"]);
    assert_eq!(place.json(&["verify"])["ok"], json!(true));

    flip_a_byte(&place);
    broken("bronze", "log");
}

/// Removes a row behind the store's back, as damage would.
fn remove_from_hot(index: &std::path::Path, id: &str) {
    let index = tantivy::Index::open_in_dir(index).expect("an index");
    let field = index.schema().get_field("_id").expect("the field of ids");
    let payload = index.load_metas().expect("metadata").payload.expect("positions");
    let mut writer: tantivy::IndexWriter = index.writer_with_num_threads(1, 20_000_000).expect("a writer");
    writer.delete_term(tantivy::Term::from_field_text(field, id));
    let mut commit = writer.prepare_commit().expect("a commit");
    commit.set_payload(&payload);
    commit.commit().expect("a commit");
}

/// Changes a byte in the middle of the log.
fn flip_a_byte(place: &Place) {
    let journal = place.data().join("log/journal");
    let segment = std::fs::read_dir(&journal).expect("segments").map(|entry| entry.expect("readable").path());
    let segment = segment
        .filter(|path| path.extension().is_some_and(|kind| kind == "log"))
        .max_by_key(|path| path.metadata().map_or(0, |about| about.len()));
    let segment = segment.expect("a segment");
    let mut bytes = std::fs::read(&segment).expect("readable");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    std::fs::write(&segment, bytes).expect("writable");
}

#[test]
fn the_settings_in_force_can_be_printed_and_read_again() {
    let place = Place::new();
    let printed = place.text(&["config"]);
    assert!(printed.contains("retention_days = 0"), "{printed}");
    place.write("databroker.toml", printed.as_bytes());
    assert_eq!(place.text(&["config"]), printed);
    assert!(place.text(&["config", "--reference"]).contains("#retention_days = 10"));
}

#[test]
fn doctor_finds_nothing_wrong_with_a_fresh_directory_and_names_a_taken_port() {
    let mut place = Place::new();
    assert_eq!(place.json(&["doctor"])["ok"], json!(true));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    place.environment.push(("DATABROKER_SERVING_HTTP_LISTEN", address.clone()));
    place.environment.retain(|(name, value)| *name != "DATABROKER_SERVING_HTTP_LISTEN" || *value == address);
    let output = place.run(&["doctor"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains(&address));
}

#[test]
fn the_query_of_the_docs_answers_one_row_of_each_paper() {
    let place = Place::new();
    let record = |id: &str, day: u32, versions: u32, title: &str| {
        let versions: String = (1..=versions)
            .map(|number| format!("<version version='v{number}'><date>2026-01-0{number}</date></version>"))
            .collect();
        let metadata =
            format!("<metadata><arXivRaw><id>{id}</id>{versions}<title>{title}</title></arXivRaw></metadata>");
        let header = format!("<identifier>oai:arXiv.org:{id}</identifier><datestamp>2026-01-0{day}</datestamp>");
        match versions.is_empty() {
            true => format!("<record><header status='deleted'>{header}</header></record>"),
            false => format!("<record><header>{header}</header>{metadata}</record>"),
        }
    };
    let item = |id: &str, version: u32, title: &str| {
        format!(
            "<item><title>{title}</title><link>https://arxiv.org/abs/{id}</link>\
             <description>arXiv:{id}v{version} Announce Type: replace Abstract: x</description>\
             <pubDate>Thu, 08 Jan 2026 00:00:00 -0500</pubDate></item>"
        )
    };
    let harvested = [
        record("2601.00001", 4, 2, "Newest"),
        record("2601.00001", 3, 1, "Old"),
        record("2601.00002", 3, 1, "Of the archive"),
        record("2601.00003", 2, 1, "Before it was deleted"),
        record("2601.00003", 9, 0, ""),
    ];
    let listed = [
        item("2601.00001", 2, "Of the listing"),
        item("2601.00002", 2, "Announced"),
        item("2601.00003", 1, "Of the listing"),
        item("2601.00004", 1, "Not yet harvested"),
    ];
    let pages = [
        place.write(
            "page.xml",
            format!("<OAI-PMH><ListRecords>{}</ListRecords></OAI-PMH>", harvested.concat()).as_bytes(),
        ),
        place.write("listing.xml", format!("<rss><channel>{}</channel></rss>", listed.concat()).as_bytes()),
    ];
    assert_eq!(place.json(&["backfill", "arxiv", &pages[0], &pages[1]])["rows"], json!(9));
    let rows = place.json(&["sql", include_str!("../../acquisition/arxiv/current.sql")]);
    let told = |row: &Value| json!([row["arxiv_id"], row["version"], row["format"], row["title"]]);
    let told: Vec<Value> = rows.as_array().expect("rows").iter().map(told).collect();
    let expected = [
        json!(["2601.00001", 2, "arXivRaw", "Newest"]),
        json!(["2601.00002", 2, "rss", "Announced"]),
        json!(["2601.00003", null, "header", null]),
        json!(["2601.00004", 1, "rss", "Not yet harvested"]),
    ];
    assert_eq!(told, expected);
}
