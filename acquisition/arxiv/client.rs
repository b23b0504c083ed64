//! Requests to arXiv, through the one gate.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use contract::{Clock, Error, Remedy, Result, Timestamp, metric};
use reqwest::header::{ETAG, HeaderMap, HeaderName, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED, LOCATION};
use reqwest::redirect::Policy;
use reqwest::{Proxy, StatusCode, Url};
use serde::{Deserialize, Serialize};

use super::gate::{Gate, INTERVAL_MAX};
use super::page::Page;
use super::schema::SCHEMA;
use super::settings::Settings;
use super::text::mend;
use super::xml::Element;
use crate::Context;
use crate::http::{BodyTrouble, explained, read_body, retry_after, text};

/// Before something is asked again that arXiv refused: the user may have changed the setting, or arXiv its mind.
pub(super) const REFUSED_WAIT: Duration = Duration::from_secs(15 * 60);

/// No answer makes a collector wait longer.
const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);

/// Redirects of one request; from `http` to `https` and to another host are two.
const REDIRECTS_MAX: usize = 4;

/// Bytes of a refusal that are looked at for what it says.
const SAID_BYTES_MAX: usize = 64 << 10;

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
        let interval = Duration::try_from_secs_f64(seconds).ok().filter(|interval| *interval <= INTERVAL_MAX);
        let Some(interval) = interval else {
            let right = format!("should be from 0 to {}", INTERVAL_MAX.as_secs());
            let doing = format!("use `arxiv.request_interval_seconds` = {seconds} ({right})");
            return Err(Error::change(doing));
        };
        let http = http_client(settings)?;
        let (clock, page_bytes_max) = (context.clock.clone(), settings.page_bytes_max);
        Ok(Self { http, gate: Gate::new(interval), clock, page_bytes_max })
    }

    /// Asks for `url`. None when it has not changed since `known`.
    ///
    /// # Errors
    /// See [`Failure`].
    pub(super) async fn get(
        &self,
        url: Url,
        known: Option<&Validators>,
        doing: &str,
    ) -> Result<Option<Answer>, Failure> {
        let mut url = url;
        for _ in 0..=REDIRECTS_MAX {
            match self.ask(url, known, doing).await? {
                Reply::Answer(answer) => return Ok(Some(answer)),
                Reply::Unchanged => return Ok(None),
                Reply::Elsewhere(next) => url = next,
            }
        }
        let doing = format!("{doing}: arXiv answers with one redirect after the other");
        Err(Failure::Refused { error: Error::new(Remedy::RetryAfter(REFUSED_WAIT), doing), code: None })
    }

    /// One request, after the one before has ended.
    async fn ask(&self, url: Url, known: Option<&Validators>, doing: &str) -> Result<Reply, Failure> {
        let mut pass = self.gate.enter().await.map_err(|wait| limited(doing, wait))?;
        let mut request = self.http.get(url.clone());
        for (name, value) in known.into_iter().flat_map(Validators::headers) {
            request = request.header(name, value);
        }
        let mut response = request.send().await.map_err(|error| broken(doing, error))?;
        let (status, validators) = (response.status(), Validators::of(response.headers()));
        metric::HTTP_REQUESTS.add(&[SCHEMA.source.0, status.as_str()], 1);
        let retry_after = retry_after(response.headers(), self.clock.now()).map(|wait| wait.min(WAIT_MAX));
        // What the head says holds whatever becomes of the body.
        if asks_to_wait(status, retry_after) {
            return Err(limited(doing, pass.refused(retry_after)));
        }
        if status == StatusCode::NOT_MODIFIED && known.is_some() {
            pass.served();
            return Ok(Reply::Unchanged);
        }
        if let Some(next) = redirect(&url, status, response.headers()) {
            return Ok(Reply::Elsewhere(next));
        }
        let mut body = BytesMut::new();
        let read = read_body(&mut response, self.page_bytes_max, &mut body).await;
        if status != StatusCode::OK {
            return Err(refused(status, &body, doing));
        }
        match read {
            Ok(()) => {}
            Err(BodyTrouble::Broken(error)) => return Err(broken(doing, error)),
            Err(BodyTrouble::TooLarge) => {
                metric::HTTP_REQUESTS.add(&[SCHEMA.source.0, "error"], 1);
                let doing = format!("{doing}: a page exceeds `arxiv.page_bytes_max` = {}", self.page_bytes_max);
                return Err(Failure::Passing(Error::new(Remedy::RetryAfter(REFUSED_WAIT), doing)));
            }
        }
        let body = body.freeze();
        if is_page(&body) {
            pass.served();
        } else {
            // `Rate exceeded.` comes with a 200 too.
            pass.refused(None);
        }
        Ok(Reply::Answer(Answer { body, validators }))
    }

    /// Makes the requests after this one rarer.
    pub(super) async fn slow_down(&self) {
        if let Ok(mut pass) = self.gate.enter().await {
            pass.refused(None);
        }
    }
}

/// What one request brought.
enum Reply {
    Answer(Answer),
    /// What is known is current.
    Unchanged,
    /// It is at another address, which is asked in turn.
    Elsewhere(Url),
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// arXiv asks to wait: 429, 503, or `Retry-After` with another status. `RetryAfter` with that wait.
    Limited(Error),
    /// It does not answer this request, and will not answer the next of its kind: 4xx. `RetryAfter`, and the code of the
    /// archive's error.
    Refused { error: Error, code: Option<String> },
    /// The network, 5xx: `Retry`.
    Passing(Error),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Limited(error) | Failure::Refused { error, .. } | Failure::Passing(error) => error,
        }
    }
}

fn asks_to_wait(status: StatusCode, retry_after: Option<Duration>) -> bool {
    let may_say_when = status == StatusCode::FORBIDDEN || status.is_server_error();
    matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
        || may_say_when && retry_after.is_some()
}

/// Where a redirect leads.
fn redirect(from: &Url, status: StatusCode, headers: &HeaderMap) -> Option<Url> {
    let next = from.join(text(headers, &LOCATION)?).ok()?;
    (matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) && matches!(next.scheme(), "http" | "https"))
        .then_some(next)
}

/// Whether these bytes are XML, and not a page for people or a line of text.
fn is_page(body: &[u8]) -> bool {
    let start = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii_start();
    let is_html = [&b"<html"[..], b"<!doctype html"]
        .iter()
        .any(|html| start.get(..html.len()).is_some_and(|start| start.eq_ignore_ascii_case(html)));
    start.starts_with(b"<") && !is_html
}

fn broken(doing: &str, error: reqwest::Error) -> Failure {
    metric::HTTP_REQUESTS.add(&[SCHEMA.source.0, "error"], 1);
    Failure::Passing(Error::retry(doing).because(explained(error)))
}

fn refused(status: StatusCode, body: &[u8], doing: &str) -> Failure {
    let body = &body[..body.len().min(SAID_BYTES_MAX)];
    let page = Page::read(Bytes::copy_from_slice(body), Timestamp::default());
    let said = page.error().or_else(|| said(body)).unwrap_or_else(|| "it does not say why".to_owned());
    let doing = format!("{doing}: arXiv answers {} ({said})", status.as_u16());
    if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT {
        return Failure::Passing(Error::retry(doing));
    }
    let code = page.errors.into_iter().next().map(|(code, _)| code);
    Failure::Refused { error: Error::new(Remedy::RetryAfter(REFUSED_WAIT), doing), code }
}

/// What the body of a refusal says that is no error of OAI-PMH or of the API: the description of a listing, or a line of
/// text.
fn said(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(body);
    let listing = Element::parse(&text).ok().and_then(|root| {
        let channel = root.child("channel").unwrap_or(&root);
        ["description", "subtitle", "title"].iter().find_map(|name| channel.text_of(name))
    });
    let plain = || Some(text.clone().into_owned()).filter(|text| !text.trim_start().starts_with('<'));
    let said = mend(&listing.or_else(plain)?).chars().take(200).collect::<String>();
    Some(said).filter(|said| !said.is_empty())
}

fn http_client(settings: &Settings) -> Result<reqwest::Client> {
    let wrong = |name: &str, error: reqwest::Error| Error::change(format!("use `arxiv.{name}`")).because(error);
    let mut builder = reqwest::Client::builder()
        .user_agent(&settings.user_agent)
        .timeout(Duration::from_secs(settings.timeout_seconds.max(1)))
        // Each redirect is a request of its own, which the gate lets through; and no connection stays open beside the
        // one of the next request.
        .redirect(Policy::none())
        .pool_max_idle_per_host(0);
    if !settings.proxy_url.is_empty() {
        builder = builder.proxy(Proxy::all(&settings.proxy_url).map_err(|error| wrong("proxy_url", error))?);
    }
    builder.build().map_err(|error| wrong("user_agent", error))
}

fn limited(doing: &str, wait: Duration) -> Failure {
    let wait = wait.max(Duration::from_secs(1));
    let doing = format!("{doing}: arXiv asks to wait {} s", wait.as_secs());
    Failure::Limited(Error::new(Remedy::RetryAfter(wait), doing))
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
