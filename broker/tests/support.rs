//! Running `databroker`, and events for it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// A data directory of its own, and the environment that every command on it gets.
pub(crate) struct Place {
    pub(crate) home: tempfile::TempDir,
    pub(crate) environment: Vec<(&'static str, String)>,
}

impl Place {
    /// An empty one that keeps all days in the hot store and listens on free ports.
    pub(crate) fn new() -> Self {
        let environment = vec![
            ("DATABROKER_HOT_RETENTION_DAYS", "0".to_owned()),
            ("DATABROKER_SERVING_ELASTICSEARCH_LISTEN", "127.0.0.1:0".to_owned()),
            ("DATABROKER_SERVING_HTTP_LISTEN", "127.0.0.1:0".to_owned()),
            ("DATABROKER_LOG_KAFKA_LISTEN", "127.0.0.1:0".to_owned()),
            ("DATABROKER_SQL_POSTGRES_LISTEN", "127.0.0.1:0".to_owned()),
            ("DATABROKER_SQL_FLIGHT_LISTEN", "127.0.0.1:0".to_owned()),
            // Nothing beyond this machine is asked.
            ("DATABROKER_ARXIV_OAI_SETS", "[]".to_owned()),
            ("DATABROKER_GITHUB_FEEDS", "[]".to_owned()),
            ("DATABROKER_NEWS_FEEDS", "[]".to_owned()),
        ];
        Self { home: tempfile::tempdir().expect("a temporary directory"), environment }
    }

    /// The same with steps so small that every hand-over happens often.
    pub(crate) fn with_small_steps() -> Self {
        let mut place = Self::new();
        let small = [
            ("DATABROKER_BACKFILL_RECORDS_MAX", "150"),
            ("DATABROKER_PROCESSING_BATCH_BYTES_MAX", "120000"),
            ("DATABROKER_PROCESSING_HOT_COMMIT_INTERVAL_MS", "30"),
            ("DATABROKER_PROCESSING_HOT_COMMIT_BACKLOG_MS", "60"),
            ("DATABROKER_COLD_COMMIT_INTERVAL_MS", "80"),
            ("DATABROKER_LOG_SEGMENT_BYTES_MAX", "200000"),
            ("DATABROKER_PROCESSING_JANITOR_INTERVAL_MS", "700"),
            ("DATABROKER_COLD_COMPACTION_FILES_MIN", "6"),
            ("DATABROKER_COLD_CHECKPOINT_INTERVAL_COMMITS", "5"),
        ];
        place.environment.extend(small.map(|(name, value)| (name, value.to_owned())));
        place
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_databroker"));
        self.surround(&mut command);
        command.current_dir(self.home.path()).arg("--data").arg(self.data()).args(arguments);
        command.stdin(Stdio::null());
        command
    }

    /// Gives a command this place's environment, and none of the settings and seeds of who runs the tests.
    pub(crate) fn surround(&self, command: &mut Command) {
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("DATABROKER_")) {
            command.env_remove(name);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("databroker starts")
    }

    /// Runs a command that must succeed, and answers what it prints.
    pub(crate) fn text(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.success(),
            "{arguments:?}: {}\n{said}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stdout)
        );
        String::from_utf8(output.stdout).expect("text")
    }

    /// The same with `--json`.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let text = self.text(&[&["--json"], arguments].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?} prints one document: {error}\n{text}"))
    }

    /// A query whose first row's first column is a number.
    pub(crate) fn count(&self, query: &str) -> u64 {
        let rows = self.json(&["sql", query]);
        rows[0]
            .as_object()
            .and_then(|row| row.values().next())
            .and_then(Value::as_u64)
            .unwrap_or_else(|| panic!("{query}: {rows}"))
    }

    /// Whether the samples of all sources, which a running `up --sample` reads, are in a store.
    pub(crate) fn has_samples(&self, store: &str) -> bool {
        let sources = &self.json(&["status"])["sources"];
        acquisition::SOURCES.iter().all(|source| {
            let status = &sources[source.id.0];
            let cursor = &status["collectors"][format!("{source}/sample", source = source.id)];
            let read = cursor.as_str().is_some_and(|cursor| cursor.contains("\"done\":true"));
            read && status["lag"][store]["records"] == json!(0)
        })
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.home.path().join(name);
        std::fs::write(&path, bytes).expect("writable");
        path.to_str().expect("text").to_owned()
    }

    /// Starts `up`.
    pub(crate) fn starting_up(&self, arguments: &[&str]) -> Up {
        let log = std::fs::File::create(self.home.path().join("up.log")).expect("writable");
        let child = self
            .command(&[&["up"], arguments].concat())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("databroker starts");
        let [http, elasticsearch, kafka, postgres, flight] = [const { String::new() }; 5];
        Up { child, http, elasticsearch, kafka, postgres, flight }
    }

    /// Starts `up` and waits until it is ready.
    pub(crate) fn up(&self, arguments: &[&str]) -> Up {
        let mut up = self.starting_up(arguments);
        let deadline = Instant::now() + Duration::from_secs(60);
        while Instant::now() < deadline {
            if let Some(status) = up.child.try_wait().expect("a child") {
                panic!("`up` ended: {status}\n{}", self.up_log());
            }
            if up.learn(&self.data()) {
                return up;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("`up` is not ready within a minute\n{}", self.up_log());
    }

    pub(crate) fn up_log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("up.log")).unwrap_or_default()
    }
}

/// A running `databroker up`; killed when dropped.
pub(crate) struct Up {
    pub(crate) child: Child,
    pub(crate) http: String,
    pub(crate) elasticsearch: String,
    pub(crate) kafka: String,
    /// Host and port of PostgreSQL's protocol.
    pub(crate) postgres: String,
    /// Host and port of Flight SQL.
    pub(crate) flight: String,
}

impl Up {
    fn learn(&mut self, data: &Path) -> bool {
        let note = std::fs::read(data.join("running.json"))
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        let Some(note) = note.filter(|note| note["pid"] == json!(self.child.id())) else { return false };
        self.http = note["http"].as_str().expect("an address").to_owned();
        self.elasticsearch = note["elasticsearch"].as_str().expect("an address").to_owned();
        self.kafka = note["kafka"].as_str().unwrap_or_default().to_owned();
        self.postgres = note["postgres"].as_str().unwrap_or_default().to_owned();
        self.flight = note["flight"].as_str().unwrap_or_default().to_owned();
        http("GET", &format!("{}/health/ready", self.http), "").0 == 200
    }

    /// Asks it to end, as Ctrl-C does, and waits.
    pub(crate) fn end(mut self) -> std::process::ExitStatus {
        interrupt(&self.child);
        self.child.wait().expect("it ends")
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }
}

/// Sends what Ctrl-C sends.
pub(crate) fn interrupt(child: &Child) {
    signal(child.id(), "INT");
}

/// Sends a signal by its name without "SIG".
pub(crate) fn signal(pid: u32, name: &str) {
    let arguments = [format!("-{name}"), pid.to_string()];
    assert!(Command::new("kill").args(arguments).status().expect("kill runs").success());
}

impl Drop for Up {
    fn drop(&mut self) {
        // It may have ended before.
        self.child.kill().unwrap_or_default();
        self.child.wait().map(drop).unwrap_or_default();
    }
}

/// One request with JSON on loopback: status and body.
pub(crate) fn http(method: &str, url: &str, body: &str) -> (u16, String) {
    request(method, url, &[("content-type", "application/json")], body)
}

/// The same with headers.
pub(crate) fn request(method: &str, url: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
    let request = async {
        let method: reqwest::Method = method.parse().expect("a method");
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let request = client.request(method, url).body(body.to_owned());
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let answer = request.send().await?;
        let status = answer.status().as_u16();
        Ok::<_, reqwest::Error>((status, answer.text().await?))
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(request).unwrap_or_else(|error| (0, error.to_string()))
}

/// The answer to a request that must succeed.
pub(crate) fn http_json(method: &str, url: &str, body: &Value) -> Value {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let (status, text) = http(method, url, &body);
    assert_eq!(status, 200, "{method} {url}: {text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{url}: {error}\n{text}"))
}

/// Waits until `condition` holds, asking often.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "not within a minute: {what}");
        std::thread::sleep(Duration::from_millis(30));
    }
}

/// Made events of GitHub: ids from `from` on, a type and a day by the id, some longer ones.
pub(crate) fn events(from: u64, count: u64) -> Vec<Value> {
    const TYPES: [&str; 5] = ["PushEvent", "WatchEvent", "IssuesEvent", "CreateEvent", "MadeUpEvent"];
    let event = |number: u64| {
        let kind = TYPES[(number % 5) as usize];
        let (day, hour, minute) = (1 + number % 3, number / 3 % 24, number % 60);
        let words = "memory leak in the parser of nested arrays ".repeat((number % 7) as usize + 1);
        let payload = match kind {
            "PushEvent" => {
                json!({"size": 1, "ref": "refs/heads/main", "commits": [{"sha": format!("{number:040x}"), "message": words}]})
            }
            "IssuesEvent" => {
                json!({"action": "opened", "issue": {"number": number, "title": words, "body": "It leaks.", "state": "open"}})
            }
            _ => json!({}),
        };
        json!({
            "id": (10_000_000_000_u64 + number).to_string(),
            "type": kind,
            "actor": {"id": number % 97, "login": format!("user{}", number % 97)},
            "repo": {"id": number % 31, "name": format!("org{}/repo{}", number % 5, number % 31)},
            "payload": payload,
            "public": true,
            "created_at": format!("2026-01-{day:02}T{hour:02}:{minute:02}:00Z"),
        })
    };
    (from..from + count).map(event).collect()
}

/// A made feed of so many entries, the newest first, some hours apart.
pub(crate) fn feed(entries: u64) -> String {
    let item = |number: u64| {
        let (day, hour) = (1 + number / 24 % 28, number % 24);
        format!(
            "<item><guid>entry-{number}</guid><title>Entry {number}</title><link>https://a.example/{number}</link>\
             <pubDate>{day:02} Jan 2026 {hour:02}:00:00 GMT</pubDate></item>"
        )
    };
    let items: String = (1..=entries).rev().map(item).collect();
    format!("<rss version=\"2.0\"><channel><title>A feed</title>{items}</channel></rss>")
}

/// Events as lines, gzip.
pub(crate) fn gzip_lines(events: &[Value]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for event in events {
        writeln!(out, "{event}").expect("a vector takes all");
    }
    out.finish().expect("a vector takes all")
}

/// Small numbers that look random, from a seed: the same seed gives the same run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// From `DATABROKER_TEST_SEED`, or from the time; said, so that a failure can be run again.
    pub(crate) fn from_environment() -> Self {
        let now = std::time::UNIX_EPOCH.elapsed().map_or(1, |since| since.as_nanos() as u64);
        let seed = std::env::var("DATABROKER_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(now);
        println!("DATABROKER_TEST_SEED={seed}");
        Self(seed)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}
