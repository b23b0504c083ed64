//! The log on a real Kafka, which `engines/kafka/start` runs: `cargo test -p kafka-log --features real-servers`. Needs Java
//! and Maven.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use contract::conformance::log::{Maker, PARTITIONS, SOURCE, suite};
use contract::{Log, SystemClock};

use crate::{KafkaLog, Settings};

/// The first start fetches the jars.
const START_WAIT: Duration = Duration::from_secs(300);

/// A broker that ends with the test.
pub(crate) struct Server {
    child: Child,
    folder: PathBuf,
    pub(crate) port: u16,
}

impl Server {
    pub(crate) fn start(folder: &Path) -> Self {
        Self::start_at(folder, free_port())
    }

    pub(crate) fn start_at(folder: &Path, port: u16) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../engines/kafka/start");
        let said = folder.join("said");
        let out = std::fs::File::create(&said).unwrap();
        let child = Command::new(script)
            .args([folder.as_os_str(), port.to_string().as_ref()])
            .stdin(Stdio::null())
            .stdout(out)
            .spawn()
            .unwrap();
        let mut server = Self { child, folder: folder.to_owned(), port };
        let since = Instant::now();
        while !std::fs::read_to_string(&said).unwrap().contains("ready ") {
            assert!(server.child.try_wait().unwrap().is_none(), "Kafka ended; see {}", server.folder.display());
            assert!(since.elapsed() < START_WAIT, "Kafka is not ready");
            std::thread::sleep(Duration::from_millis(100));
        }
        server
    }

    pub(crate) fn settings(&self, prefix: &str) -> Settings {
        Settings {
            bootstrap_servers: format!("127.0.0.1:{}", self.port),
            topic_prefix: prefix.to_owned(),
            ..Settings::default()
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ended = self.child.kill().and_then(|()| self.child.wait());
    }
}

/// A port that is free together with the one a hundred above, which the controller takes.
fn free_port() -> u16 {
    loop {
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        if port < 65_000 && TcpListener::bind(("127.0.0.1", port + 100)).is_ok() {
            return port;
        }
    }
}

struct OnKafka(Server);

#[async_trait]
impl Maker for OnKafka {
    async fn open(&self, name: &str) -> Arc<dyn Log> {
        assert_eq!(PARTITIONS, 4, "as in topics.toml");
        let settings = self.0.settings(&format!("{name}-"));
        Arc::new(KafkaLog::open(settings, &[SOURCE], Arc::new(SystemClock)).await.unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_kafka_keeps_what_the_suite_of_logs_asks() {
    let folder = tempfile::tempdir().unwrap();
    suite(&OnKafka(Server::start(folder.path()))).await;
}
