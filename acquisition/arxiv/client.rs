//! Requests to arXiv, through the one gate.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use contract::{Clock, Error, Remedy, Result, metric};
use reqwest::header::{ETAG, HeaderMap, HeaderName, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};
use reqwest::{Proxy, StatusCode, Url, redirect};
use serde::{Deserialize, Serialize};

use super::gate::Gate;
use super::page::Page;
use super::schema::SCHEMA;
use super::settings::Settings;
use crate::Context;
use crate::http::{BodyTrouble, read_body, retry_after, text, with_causes};

/// Before something is asked again that arXiv refused: the user may have changed the setting, or arXiv its mind.
pub(super) const REFUSED_WAIT: Duration = Duration::from_secs(15 * 60);

/// No answer makes a collector wait longer.
const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);

/// Redirects of one request; from `http` to `https` and to another host are two.
const REDIRECTS_MAX: usize = 5;

/// What all collectors of arXiv ask with.
pub(super) struct Client {
    http: reqwest::Client,
    gate: Gate,
    clock: Arc<dyn Clock>,
    page_bytes_max: u64,
}

/// What tells a server which answer we have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Validators {
    etag: Option<String>,
    last_modified: Option<String>,
}

/// An answer with a body.
pub(super) struct Answer {
    pub(super) body: Bytes,
    pub(super) validators: Validators,
}

impl Client {
    /// One for all collectors, with one gate.
    pub(super) fn new(settings: &Settings, context: &Context) -> Result<Self> {
        let seconds = settings.request_interval_seconds;
        let interval =
            Duration::try_from_secs_f64(seconds).ok().filter(|interval| *interval <= Duration::from_secs(3600));
        let Some(interval) = interval else {
            let doing = format!("use `arxiv.request_interval_seconds` = {seconds} (should be from 0 to 3600)");
            return Err(Error::change(doing));
        };
        let http = http_client(settings)?;
        let (clock, page_bytes_max) = (context.clock.clone(), settings.page_bytes_max);
        Ok(Self { http, gate: Gate::new(interval), clock, page_bytes_max })
    }

    /// Asks for `url`. None when it has not changed since `known`.
    ///
    /// # Errors
    /// `Retry` for what passes, `RetryAfter` where arXiv says when, or refuses.
    pub(super) async fn get(&self, url: Url, known: Option<&Validators>, doing: &str) -> Result<Option<Answer>> {
        let mut pass = self.gate.enter().await.map_err(|wait| limited(doing, wait))?;
        let failed = |error: reqwest::Error| {
            metric::HTTP_REQUESTS.add(&[SCHEMA.source.0, "error"], 1);
            let remedy = if error.is_redirect() { Remedy::RetryAfter(REFUSED_WAIT) } else { Remedy::Retry };
            Error::new(remedy, doing).because(with_causes(error))
        };
        let mut request = self.http.get(url);
        for (name, value) in known.into_iter().flat_map(Validators::headers) {
            request = request.header(name, value);
        }
        let mut response = request.send().await.map_err(failed)?;
        let (status, validators) = (response.status(), Validators::of(response.headers()));
        let retry_after = retry_after(response.headers(), self.clock.now()).map(|wait| wait.min(WAIT_MAX));
        if status == StatusCode::NOT_MODIFIED && known.is_some() {
            metric::HTTP_REQUESTS.add(&[SCHEMA.source.0, status.as_str()], 1);
            pass.served();
            return Ok(None);
        }
        let mut body = BytesMut::new();
        match read_body(&mut response, self.page_bytes_max, &mut body).await {
            Ok(()) => {}
            Err(BodyTrouble::Broken(error)) => return Err(failed(error)),
            Err(BodyTrouble::TooLarge) => {
                metric::HTTP_REQUESTS.add(&[SCHEMA.source.0, "error"], 1);
                let doing = format!("{doing}: a page exceeds `arxiv.page_bytes_max` = {}", self.page_bytes_max);
                return Err(Error::new(Remedy::RetryAfter(REFUSED_WAIT), doing));
            }
        }
        let body = body.freeze();
        metric::HTTP_REQUESTS.add(&[SCHEMA.source.0, status.as_str()], 1);
        match status {
            StatusCode::OK => {
                pass.served();
                Ok(Some(Answer { body, validators }))
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                Err(limited(doing, pass.refused(retry_after)))
            }
            _ => Err(self.refused(status, body, doing)),
        }
    }

    /// Makes the requests after this one rarer.
    pub(super) async fn slow_down(&self) {
        if let Ok(mut pass) = self.gate.enter().await {
            pass.refused(None);
        }
    }

    fn refused(&self, status: StatusCode, body: Bytes, doing: &str) -> Error {
        let said = Page::read(body, self.clock.now()).error().unwrap_or_else(|| "it does not say why".to_owned());
        let doing = format!("{doing}: arXiv answers {} ({said})", status.as_u16());
        let passes = status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT;
        Error::new(if passes { Remedy::Retry } else { Remedy::RetryAfter(REFUSED_WAIT) }, doing)
    }
}

fn http_client(settings: &Settings) -> Result<reqwest::Client> {
    let wrong = |name: &str, error: reqwest::Error| Error::change(format!("use `arxiv.{name}`")).because(error);
    let mut builder = reqwest::Client::builder()
        .user_agent(&settings.user_agent)
        .timeout(Duration::from_secs(settings.timeout_seconds.max(1)))
        .redirect(redirect::Policy::limited(REDIRECTS_MAX));
    if !settings.proxy_url.is_empty() {
        builder = builder.proxy(Proxy::all(&settings.proxy_url).map_err(|error| wrong("proxy_url", error))?);
    }
    builder.build().map_err(|error| wrong("user_agent", error))
}

fn limited(doing: &str, wait: Duration) -> Error {
    let wait = wait.max(Duration::from_secs(1));
    Error::new(Remedy::RetryAfter(wait), format!("{doing}: arXiv asks to wait {} s", wait.as_secs()))
}

impl Validators {
    fn of(headers: &HeaderMap) -> Self {
        let value = |name: HeaderName| text(headers, &name).map(str::to_owned);
        Self { etag: value(ETAG), last_modified: value(LAST_MODIFIED) }
    }

    fn headers(&self) -> impl Iterator<Item = (HeaderName, &str)> {
        let etag = self.etag.as_deref().map(|value| (IF_NONE_MATCH, value));
        etag.into_iter().chain(self.last_modified.as_deref().map(|value| (IF_MODIFIED_SINCE, value)))
    }
}
