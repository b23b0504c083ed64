//! A server over stores and commands that say what a test tells them to, asked over real sockets.

mod api;
mod elasticsearch;
mod fakes;
mod guarding;

use std::sync::Arc;

use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::{ROUTES, Server, Services, Settings, serve};
use fakes::{FakeCold, FakeControl, FakeHot, FakeTail, FakeWebhook};

/// A running server and the fakes behind it.
struct Running {
    server: Server,
    stop: oneshot::Sender<()>,
    hot: Arc<FakeHot>,
    cold: Arc<FakeCold>,
    control: Arc<FakeControl>,
    webhook: Arc<FakeWebhook>,
    client: Client,
}

fn loopback() -> Settings {
    Settings { elasticsearch_listen: "127.0.0.1:0".into(), http_listen: "127.0.0.1:0".into(), ..Settings::default() }
}

async fn start(settings: Settings) -> Running {
    let (hot, cold, control) = (Arc::<FakeHot>::default(), Arc::<FakeCold>::default(), Arc::<FakeControl>::default());
    let webhook = Arc::<FakeWebhook>::default();
    let services = Services {
        hot: hot.clone(),
        cold: cold.clone(),
        views: cold.clone(),
        clock: Arc::new(contract::SystemClock),
        control: control.clone(),
        tail: Arc::new(FakeTail),
        webhooks: vec![webhook.clone()],
        metrics: Arc::new(|| "databroker_up 1\n".to_owned()),
        health: Arc::new(|| (false, json!({"status": "failed", "parts": {"cold": {"reason": "no <space>"}}}))),
    };
    let (stop, stopped) = oneshot::channel();
    let shutdown = async { stopped.await.unwrap_or(()) };
    let server = serve(&settings, services, shutdown).await.expect("free ports");
    let client = Client::builder().no_proxy().build().expect("a client");
    Running { server, stop, hot, cold, control, webhook, client }
}

impl Running {
    fn elasticsearch(&self, method: &str, path: &str) -> RequestBuilder {
        let url = format!("http://{}{path}", self.server.elasticsearch.expect("it is on"));
        self.client.request(method.parse().expect("a method"), url)
    }

    fn http(&self, method: &str, path: &str) -> RequestBuilder {
        let url = format!("http://{}{path}", self.server.http);
        self.client.request(method.parse().expect("a method"), url)
    }

    async fn search(&self, path_and_query: &str) -> (u16, Value) {
        answer(self.elasticsearch("GET", path_and_query)).await
    }
}

async fn send(request: RequestBuilder) -> Response {
    request.send().await.expect("an answer")
}

async fn answer(request: RequestBuilder) -> (u16, Value) {
    let response = send(request).await;
    (response.status().as_u16(), response.json().await.expect("a JSON answer"))
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().expect("text"))
}

#[tokio::test]
async fn every_route_answers_on_its_port_and_the_page_lists_it() {
    let running = start(loopback()).await;
    let page = send(running.http("GET", "/")).await.text().await.expect("a page");
    for route in ROUTES {
        let path = route
            .path
            .replace("{index}", "github")
            .replace("{id}", "1")
            .replace("{name}", "status")
            .replace("{view}", "none")
            .replace("{source}", "made");
        let path = path.replace("{*path}", "made");
        let body = match route.path {
            "/api/sql" => "SELECT n",
            path if path.ends_with("_msearch") => "{}\n{}\n",
            _ => "",
        };
        for method in route.methods {
            let request = match route.door {
                crate::Door::Elasticsearch => running.elasticsearch(method, &path),
                crate::Door::Http => running.http(method, &path),
            };
            let status = send(request.body(body)).await.status().as_u16();
            let is_reason = route.path == "/health/ready" && status == 503;
            let is_taken = route.path.starts_with("/webhooks/") && status == 202;
            assert!(status == 200 || is_reason || is_taken, "{method} {path} answered {status}");
        }
        assert!(page.contains(route.path), "{} is not on the page", route.path);
    }
}
