//! Kafka's clients judge the log: kcat, Python's confluent-kafka (librdkafka) and the Java client.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::foreign::python_of_tests;
use crate::support::{Place, Up, events, eventually, gzip_lines, http};

fn script(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/kafka").join(name);
    path.to_str().expect("text").to_owned()
}

fn place() -> Place {
    let mut place = Place::new();
    place.environment.push(("DATABROKER_LOG_KAFKA_PRODUCE_TOPICS", r#"["github.raw", "scratch", "app.*"]"#.to_owned()));
    place
}

/// Runs a client to its end; it must succeed.
fn run(up: &Up, program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("`{program}` is set up by `./test`: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?} with {}: {said}", up.kafka);
    String::from_utf8(output.stdout).expect("text")
}

/// What kcat reads from the start of a topic to its end.
fn kcat_read(up: &Up, topic: &str, format: &str) -> Vec<String> {
    let read = run(up, "kcat", &["-b", &up.kafka, "-C", "-t", topic, "-o", "beginning", "-e", "-q", "-f", format]);
    read.lines().map(str::to_owned).collect()
}

fn kcat_produce(up: &Up, arguments: &[&str], lines: &str) {
    let mut kcat = Command::new("kcat");
    kcat.args(["-b", &up.kafka, "-P"]).args(arguments).stdin(Stdio::piped());
    let mut kcat = kcat.spawn().expect("kcat is set up by `./test`");
    kcat.stdin.take().expect("piped").write_all(lines.as_bytes()).expect("taken");
    assert!(kcat.wait().expect("it ends").success());
}

#[test]
fn kcat_lists_reads_and_writes_and_what_it_wrote_becomes_rows_and_dead_letters() {
    let place = place();
    let file = place.write("hour.json.gz", &gzip_lines(&events(0, 400)));
    place.json(&["backfill", "github", &file]);
    let up = place.up(&[]);
    let listed: Value = serde_json::from_str(&run(&up, "kcat", &["-b", &up.kafka, "-L", "-J"])).expect("one document");
    let topics: Vec<_> = listed["topics"].as_array().expect("topics").iter().map(|topic| &topic["topic"]).collect();
    assert_eq!(topics, ["arxiv.raw", "databroker.coverage", "dns.raw", "github.raw", "news.raw", "scratch"]);

    let mut ids = kcat_read(&up, "github.raw", "%k %h\n");
    ids.sort();
    assert_eq!(ids.len(), 400);
    assert!(ids[0].starts_with("10000000000 id=10000000000,event_time=1767225600000000,fetched_at="), "{}", ids[0]);

    // A good event under its id, the same again, and bytes that are no event: a row, a duplicate, a dead letter.
    let event = events(1_000, 1).remove(0).to_string();
    let lines = format!("10000001000\t{event}\n10000001000\t{event}\nbroken\t{{\"id\": \n");
    kcat_produce(&up, &["-t", "github.raw", "-K", "\\t", "-z", "snappy"], &lines);
    let count = |query: &str| place.count(query);
    eventually("what was produced is in the cold store", || {
        count("SELECT count(*) AS n FROM bronze.github") == 403
            && count("SELECT count(*) AS n FROM silver.github WHERE _id = '10000001000'") == 1
    });
    let letters = place.json(&["dead-letters"]);
    assert!(letters.to_string().contains("broken"), "{letters}");
    assert!(up.end().success());
    place.json(&["verify"]);
}

#[test]
fn every_codec_comes_back_byte_for_byte_from_any_offset_and_by_time() {
    let place = place();
    let up = place.up(&[]);
    let done: Value =
        serde_json::from_str(&run(&up, &python_of_tests(), &[&script("codecs.py"), &up.kafka])).expect("one document");
    assert_eq!(done, json!({"records": 3_000}));
    // Another implementation reads the same, also after a restart.
    assert_eq!(kcat_read(&up, "app.codecs", "%o\n").len(), 3_001);
    assert!(up.end().success());
    let up = place.up(&[]);
    assert_eq!(kcat_read(&up, "app.codecs", "%o\n").len(), 3_001);
}

#[test]
fn a_group_whose_members_leave_die_and_come_loses_nothing() {
    let place = place();
    let up = place.up(&[]);
    for strategy in ["range", "cooperative-sticky"] {
        let folder = place.home.path().join(strategy);
        std::fs::create_dir(&folder).expect("writable");
        let arguments = [&script("group.py"), &up.kafka, folder.to_str().expect("text"), strategy];
        let done: Value = serde_json::from_str(&run(&up, &python_of_tests(), &arguments.map(|text| text as &str)))
            .expect("one document");
        assert_eq!(done["members"], json!(3), "{done}");
        assert_eq!(done["lost"], json!(0), "{done}");
        assert!(done["again"].as_u64().is_some_and(|again| again <= 160), "{done}");
        assert_eq!(done["committed"], json!([750, 750, 750, 750]), "{done}");
        assert_eq!(done["is_listed"], json!(true));
        assert_eq!(done["state"], json!("EMPTY"), "{done}");
    }
}

#[test]
fn kafkas_java_client_lists_produces_consumes_and_joins_a_group() {
    let jars =
        std::env::var("DATABROKER_TEST_KAFKA_JARS").expect("`DATABROKER_TEST_KAFKA_JARS` is set by `./test`: run that");
    let place = place();
    let up = place.up(&[]);
    let read = run(&up, "java", &["-cp", &format!("{jars}/*"), &script("Clients.java"), &up.kafka]);
    assert_eq!(serde_json::from_str::<Value>(&read).expect("one document"), json!({"records": 2_500}));
}

#[test]
fn hostile_bytes_are_closed_with_a_line_and_counted_and_the_memory_stays() {
    let place = place();
    let up = place.up(&[]);
    let memory = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", up.child.id())).expect("it runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line of it");
        line.split_whitespace().nth(1).expect("a number").parse::<u64>().expect("kB") / 1_024
    };
    let before = memory();
    let mut held = Vec::new();
    for _ in 0..40 {
        // A metadata request that says it names 2,147,483,647 topics.
        let mut lying = vec![0, 0, 0, 14, 0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xff];
        lying.extend_from_slice(&i32::MAX.to_be_bytes());
        let mut client = std::net::TcpStream::connect(&up.kafka).expect("it listens");
        client.write_all(&lying).expect("taken");
        // One that says it will send 32 MB and sends nothing.
        let mut slow = std::net::TcpStream::connect(&up.kafka).expect("it listens");
        slow.write_all(&(32_i32 << 20).to_be_bytes()).expect("taken");
        held.push((client, slow));
    }
    eventually("they are closed", || up_log_lines(&place, "closed a Kafka client: a request Metadata") >= 40);
    assert!(memory() < before + 100, "{before} MB before, {} MB after", memory());
    let (_, metrics) = http("GET", &format!("{}/metrics", up.http), "");
    assert!(metrics.contains("databroker_kafka_connections_closed_total{reason=\"malformed\"} 40"), "{metrics}");
    let listed = run(&up, "kcat", &["-b", &up.kafka, "-L"]);
    assert!(listed.contains("github.raw"), "{listed}");
}

fn up_log_lines(place: &Place, wanted: &str) -> usize {
    place.up_log().lines().filter(|line| line.contains(wanted)).count()
}

#[test]
fn a_port_that_is_taken_is_named_with_its_setting() {
    let mut place = place();
    let holder = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = holder.local_addr().expect("bound").port();
    place.environment.push(("DATABROKER_LOG_KAFKA_LISTEN", format!("127.0.0.1:{port}")));
    let output = place.run(&["up"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(said.contains(&format!("127.0.0.1:{port}")) && said.contains("`log.kafka_listen`"), "{said}");
}
