//! The conformance suite against a real Elasticsearch, which `engines/elasticsearch/start` runs: needs Java and Maven, so it
//! is behind the feature `real-servers`.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use async_trait::async_trait;
use contract::HotStore;
use contract::conformance::hot_store::{CASES, NOW, RETENTION_DAYS, SCHEMA, Subject};
use reqwest::Method;
use tempfile::TempDir;

use super::client::{Body, Client};
use super::{ElasticsearchSettings, ElasticsearchStore};

/// A server that ends with the test.
struct RealServer {
    child: Child,
    settings: ElasticsearchSettings,
    _data: TempDir,
}

impl RealServer {
    fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../engines/elasticsearch/start");
        let mut command = Command::new(script);
        command.arg(data.path()).arg(port.to_string()).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("ready "), "the server did not start: {line}");
        let hosts = format!("127.0.0.1:{port}");
        let settings = ElasticsearchSettings { hosts, replicas: 0, ..ElasticsearchSettings::default() };
        Self { child, settings, _data: data }
    }

    async fn clear(&self) {
        let client = Client::new(&self.settings).unwrap();
        for name in ["made-*", super::CHECKPOINT_INDEX, super::REFUSED_INDEX] {
            let path = format!("{name}/_alias?expand_wildcards=all&ignore_unavailable=true");
            let found = client.ask_json(Method::GET, &path, Body::None, "list").await.unwrap();
            for name in found.as_object().unwrap().keys() {
                client.ask_json(Method::DELETE, name, Body::None, "remove").await.unwrap();
            }
        }
    }
}

impl Drop for RealServer {
    fn drop(&mut self) {
        let _ended = self.child.kill().and_then(|()| self.child.wait());
    }
}

#[async_trait]
impl Subject for RealServer {
    async fn open(&self) -> Arc<dyn HotStore> {
        Arc::new(ElasticsearchStore::open(&self.settings, &[&SCHEMA], RETENTION_DAYS, Arc::new(|| NOW)).await.unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn real_servers_the_store_passes_the_conformance_suite_on_elasticsearch() {
    let server = RealServer::start();
    for (name, case) in CASES {
        println!("{name}");
        server.clear().await;
        case(&server).await;
    }
}
