//! One GET with all that guards it: addresses, turns, redirects, time and size.
//!
//! Redirects are followed here and not by the client, so that each target is judged and permanent ones are known.

use std::fmt;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use contract::{Clock, Error, Result, SourceId, metric};
use flate2::read::MultiGzDecoder;
use reqwest::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, IF_MODIFIED_SINCE, IF_NONE_MATCH, LOCATION};
use reqwest::{Client, Proxy, RequestBuilder, Response, StatusCode, Url, redirect};

use super::hosts::Hosts;
use super::settings::Settings;
use crate::address_guard::{AddressGuard, Refused};
use crate::http::{BodyTrouble, explained, read_body, retry_after, text};

const SOURCE: &str = "news";

/// Of a host that asks for peace with 429 or 503 but does not say for how long.
const PEACE: Duration = Duration::from_secs(15 * 60);

/// Waits that are set longer are taken as this: no clock ends before.
const WEEK_SECONDS: u64 = 7 * 86_400;

/// Asks for documents. Shared by everything of news that goes out.
pub(super) struct Fetcher {
    http: Client,
    guard: AddressGuard,
    hosts: Hosts,
    clock: Arc<dyn Clock>,
    pub(super) redirects_max: usize,
    peace_max: Duration,
}

/// What to ask.
#[derive(Clone, Copy)]
pub(super) struct Ask<'a> {
    pub(super) url: &'a Url,
    pub(super) accept: &'static str,
    /// What the last answer said of itself, for a conditional request.
    pub(super) etag: Option<&'a str>,
    pub(super) last_modified: Option<&'a str>,
    /// Bytes of the body, unpacked.
    pub(super) bytes_max: usize,
}

/// What came back; the body is read of a success only.
#[derive(Debug)]
pub(super) struct Answer {
    /// Where it came from, after redirects.
    pub(super) url: Url,
    /// Where permanent redirects lead, up to the first that is not.
    pub(super) moved_to: Option<Url>,
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// Why nothing came back.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The host wants peace for this long, and was not asked.
    Later(Duration),
    /// Reads after what was tried.
    Failed(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Later(wait) => write!(out, "its host asked to be left alone for {} s", wait.as_secs()),
            Self::Failed(reason) => out.write_str(reason),
        }
    }
}

impl Fetcher {
    /// A fetcher by its settings; `Change` when one is wrong.
    pub(super) fn new(settings: &Settings, clock: Arc<dyn Clock>) -> Result<Self> {
        let wrong = |name: &str, error: reqwest::Error| Error::change(format!("use `news.{name}`")).because(error);
        let guard = AddressGuard::new(SourceId(SOURCE), settings.allow_private_addresses, &settings.ports);
        let builder = Client::builder()
            .user_agent(&settings.user_agent)
            .timeout(Duration::from_secs(settings.timeout_seconds.clamp(1, WEEK_SECONDS)))
            .redirect(redirect::Policy::none());
        let builder = if settings.proxy_url.is_empty() {
            builder.no_proxy().dns_resolver(Arc::new(guard.clone()))
        } else {
            let is_web = settings.proxy_url.starts_with("http://") || settings.proxy_url.starts_with("https://");
            if !is_web {
                return Err(Error::change("use `news.proxy_url` (should be as `http://proxy.example.org:3128`)"));
            }
            builder.proxy(Proxy::all(&settings.proxy_url).map_err(|error| wrong("proxy_url", error))?)
        };
        Ok(Self {
            http: builder.build().map_err(|error| wrong("user_agent", error))?,
            guard,
            hosts: Hosts::new(settings),
            clock,
            redirects_max: settings.redirects_max,
            peace_max: Duration::from_secs(settings.backoff_seconds_max.min(WEEK_SECONDS)),
        })
    }

    /// Asks, and follows redirects.
    pub(super) async fn get(&self, ask: &Ask<'_>) -> Result<Answer, Trouble> {
        let mut url = ask.url.clone();
        let (mut moved_to, mut is_permanent) = (None, true);
        for _ in 0..=self.redirects_max {
            let (answer, target) = self.get_once(&Ask { url: &url, ..*ask }).await?;
            let Some(target) = target else { return Ok(Answer { moved_to, ..answer }) };
            is_permanent &= matches!(answer.status, StatusCode::MOVED_PERMANENTLY | StatusCode::PERMANENT_REDIRECT);
            if is_permanent {
                moved_to = Some(target.clone());
            }
            url = target;
        }
        Err(self.too_many_redirects())
    }

    /// Asks; an answer that is a redirect comes with where it leads.
    pub(super) async fn get_once(&self, ask: &Ask<'_>) -> Result<(Answer, Option<Url>), Trouble> {
        let answer = self.send(self.request(ask), ask.url, ask.bytes_max).await?;
        let target = redirect_target(&answer, ask.url)?;
        Ok((answer, target))
    }

    /// Sends a form, also to where it is redirected with its method kept.
    pub(super) async fn post_form(&self, url: &Url, form: String) -> Result<Answer, Trouble> {
        let mut url = url.clone();
        for _ in 0..=self.redirects_max {
            let request = self.http.post(url.clone()).header(CONTENT_TYPE, "application/x-www-form-urlencoded");
            let answer = self.send(request.body(form.clone()), &url, 0).await?;
            let keeps_method = matches!(answer.status, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT);
            match redirect_target(&answer, &url)?.filter(|_| keeps_method) {
                Some(target) => url = target,
                None => return Ok(answer),
            }
        }
        Err(self.too_many_redirects())
    }

    fn too_many_redirects(&self) -> Trouble {
        Trouble::Failed(format!("it is redirected more than {} times (`news.redirects_max`)", self.redirects_max))
    }

    fn request(&self, ask: &Ask<'_>) -> RequestBuilder {
        let mut request = self.http.get(ask.url.clone()).header(ACCEPT, ask.accept);
        if let Some(etag) = ask.etag {
            request = request.header(IF_NONE_MATCH, etag);
        }
        if let Some(time) = ask.last_modified {
            request = request.header(IF_MODIFIED_SINCE, time);
        }
        request
    }

    /// One request to one address, in its turn.
    async fn send(&self, request: RequestBuilder, url: &Url, bytes_max: usize) -> Result<Answer, Trouble> {
        self.guard.check(url).map_err(|refused| Trouble::Failed(refused.to_string()))?;
        let host = url.host_str().unwrap_or_default();
        let _turn = self.hosts.turn(host).await.map_err(Trouble::Later)?;
        let failed = |error| {
            metric::HTTP_REQUESTS.add(&[SOURCE, "error"], 1);
            Trouble::Failed(reason(error))
        };
        let mut response = request.send().await.map_err(failed)?;
        let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
        if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            let wait = retry_after(&headers, self.clock.now()).unwrap_or(PEACE);
            self.hosts.hold_off(host, wait.min(self.peace_max));
        }
        let body = match status.is_success() {
            true => body(&mut response, &headers, bytes_max).await.inspect_err(|_| {
                metric::HTTP_REQUESTS.add(&[SOURCE, "error"], 1);
            })?,
            false => Bytes::new(),
        };
        metric::HTTP_REQUESTS.add(&[SOURCE, status.as_str()], 1);
        Ok(Answer { url: url.clone(), moved_to: None, status, headers, body })
    }
}

fn redirect_target(answer: &Answer, url: &Url) -> Result<Option<Url>, Trouble> {
    let is_redirect = matches!(answer.status.as_u16(), 301 | 302 | 303 | 307 | 308);
    if !is_redirect {
        return Ok(None);
    }
    // Publishers write UTF-8 into this header, which RFC 9110 does not allow.
    let location = answer.headers.get(LOCATION).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let target = location.as_deref().and_then(|location| url.join(location.trim()).ok());
    let missing = || Trouble::Failed(format!("it is redirected ({}) to nowhere", answer.status.as_u16()));
    let mut target = target.ok_or_else(missing)?;
    target.set_fragment(None);
    Ok(Some(target))
}

/// The body, unpacked.
async fn body(response: &mut Response, headers: &HeaderMap, bytes_max: usize) -> Result<Bytes, Trouble> {
    let coding = text(headers, &CONTENT_ENCODING).unwrap_or_default().trim().to_ascii_lowercase();
    if matches!(coding.as_str(), "br" | "zstd" | "deflate" | "compress") {
        return Err(Trouble::Failed(format!("it is packed as `{coding}`, which was not asked for")));
    }
    let mut body = BytesMut::new();
    read_body(response, bytes_max as u64, &mut body).await.map_err(|trouble| match trouble {
        BodyTrouble::Broken(error) => Trouble::Failed(explained(error)),
        BodyTrouble::TooLarge => too_large(bytes_max),
    })?;
    // A file `feed.xml.gz` is served as it is: packed, with nothing in the headers that says so.
    if body.starts_with(&[0x1f, 0x8b]) {
        return unpack(&body, bytes_max).map(Bytes::from);
    }
    Ok(body.freeze())
}

fn unpack(body: &[u8], bytes_max: usize) -> Result<Vec<u8>, Trouble> {
    let mut unpacked = Vec::new();
    let read = MultiGzDecoder::new(body).take(bytes_max as u64 + 1).read_to_end(&mut unpacked);
    match read {
        Ok(bytes) if bytes > bytes_max => Err(too_large(bytes_max)),
        Ok(_) => Ok(unpacked),
        Err(error) => Err(Trouble::Failed(format!("its gzip is damaged: {error}"))),
    }
}

fn too_large(bytes_max: usize) -> Trouble {
    Trouble::Failed(format!(
        "it has more than {bytes_max} bytes unpacked (see `news.feed_bytes_max`, `page_bytes_max`)"
    ))
}

/// Why a request failed.
fn reason(error: reqwest::Error) -> String {
    match Refused::behind(&error) {
        Some(refused) => refused.to_string(),
        None => explained(error),
    }
}
