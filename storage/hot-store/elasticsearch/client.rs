//! Requests to one of several hosts.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use contract::{Error, Result, with_causes};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use serde_json::Value;

use super::answer::Answer;
use super::settings::Login;
use super::{ElasticsearchSettings, tls};

/// Until a connection is there.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// Connections kept open to a host.
const IDLE_MAX: usize = 8;

/// The hosts of one cluster. Every request of ours may be sent twice, so one that was not answered goes to the next host.
pub(super) struct Client {
    http: reqwest::Client,
    hosts: Vec<Url>,
    shown: String,
    /// The host that answered last.
    first: AtomicUsize,
}

/// What a request carries.
pub(super) enum Body {
    None,
    Json(Value),
    /// Lines of JSON, each with its end.
    Lines(Bytes),
}

impl Client {
    pub(super) fn new(settings: &ElasticsearchSettings) -> Result<Self> {
        settings.check()?;
        let hosts = settings.urls()?;
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization(&settings.login()?)? {
            headers.insert(AUTHORIZATION, value);
        }
        let builder = reqwest::Client::builder()
            // The addresses are the user's own; a proxy for the web has no business with them.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .default_headers(headers)
            .connect_timeout(CONNECT_MAX)
            .pool_max_idle_per_host(IDLE_MAX)
            .timeout(Duration::from_secs(settings.request_seconds_max));
        let http = tls::apply(settings, builder)?.build();
        let http = http.map_err(|cause| Error::change("set up the client of Elasticsearch").because(cause))?;
        Ok(Self { http, hosts, shown: settings.hosts_shown(), first: AtomicUsize::new(0) })
    }

    /// The hosts, for messages.
    pub(super) fn hosts(&self) -> String {
        self.shown.clone()
    }

    /// The answer of the first host that has one, beginning with the one that answered last. `path` is without the first
    /// slash. An answer that says "not here, not now" (502, 503, 504) is the last resort.
    pub(super) async fn send(&self, method: Method, path: &str, body: Body) -> Result<Answer> {
        let first = self.first.load(Ordering::Relaxed);
        let (mut resort, mut causes) = (None, Vec::new());
        for place in (first..first + self.hosts.len()).map(|place| place % self.hosts.len()) {
            match self.ask(&self.hosts[place], &method, path, &body).await {
                Ok(answer) if is_elsewhere(answer.status) => resort = Some(answer),
                Ok(answer) => {
                    self.first.store(place, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(cause) => causes.push(format!("{}: {cause}", self.hosts[place].as_str().trim_end_matches('/'))),
            }
        }
        resort.ok_or_else(|| Error::retry("reach Elasticsearch").because(causes.join("; ")))
    }

    /// As `send`, and answers the JSON of an answer that went well.
    pub(super) async fn ask_json(&self, method: Method, path: &str, body: Body, doing: &str) -> Result<Value> {
        self.send(method, path, body).await?.json(doing)
    }

    async fn ask(&self, host: &Url, method: &Method, path: &str, body: &Body) -> Result<Answer, String> {
        let url = format!("{host}{path}");
        let request = self.http.request(method.clone(), url);
        let request = match body {
            Body::None => request,
            Body::Json(body) => request.json(body),
            Body::Lines(lines) => request.header("content-type", "application/x-ndjson").body(lines.clone()),
        };
        let response = request.send().await.map_err(explained)?;
        let status = response.status();
        let body = response.bytes().await.map_err(explained)?;
        Ok(Answer { status, body })
    }
}

fn is_elsewhere(status: StatusCode) -> bool {
    matches!(status, StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT)
}

fn authorization(login: &Login) -> Result<Option<HeaderValue>> {
    use base64::Engine as _;
    let text = match login {
        Login::Nobody => return Ok(None),
        Login::ApiKey(key) => format!("ApiKey {key}"),
        Login::Basic { username, password } => {
            format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}")))
        }
    };
    let wrong = |_| Error::change("log in to Elasticsearch: the API key has letters that no header may have");
    let mut value = HeaderValue::from_str(&text).map_err(wrong)?;
    value.set_sensitive(true);
    Ok(Some(value))
}

/// Without the address, which may hold a password.
fn explained(error: reqwest::Error) -> String {
    with_causes(&error.without_url())
}
