//! A subscriber of WebSub (<https://www.w3.org/TR/websub/>): a hub sends what is new as it is published.
//!
//! | case | outcome |
//! | --- | --- |
//! | a feed names a hub and itself, in its document or in the header `Link` | its collector asks the hub, with a callback that nobody can guess and a secret |
//! | the hub asks whether that is meant (GET, `hub.challenge`) | the challenge if topic and callback are ours, else 404 |
//! | the hub has moved (307, 308) | it is asked where it went |
//! | the process starts again, or the feed's host asked for peace | the hub is heard before the feed's turn to be asked comes |
//! | `news.websub_callback_url` is taken back | the subscription is forgotten, and its hub gets 404 |
//! | the hub denies | the feed is polled as before; the hub is asked again in a week |
//! | content with the right signature | 200 once it is on disk; 503 if that takes too long, so that the hub comes again |
//! | content with a wrong signature or none | 403, nothing is read |
//! | a lease is two thirds over | the collector asks again, with the same callback and secret |
//! | an unsubscription that we did not ask for | 404, so the hub goes on |
//! | the hub falls silent | the feed is still polled, at its longest interval |

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use contract::{Error, Result, Timestamp, WebhookAnswer, WebhookRequest};
use hmac::{Hmac, KeyInit, Mac};
use reqwest::Url;
use serde::{Deserialize, Serialize};
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};
use tokio::sync::{mpsc, oneshot};

use crate::hexadecimal::{bytes_of_hexadecimal, hexadecimal};

/// Events of one feed that wait for its collector; a hub that is faster is told to come again.
pub(super) const EVENTS_MAX: usize = 4;

/// How long a hub waits for content to be on disk; hubs themselves give up after 10 to 60 seconds.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// What is asked of a hub: the usual ten days.
const LEASE: Duration = Duration::from_secs(10 * 86_400);

/// Leases beyond are taken as this.
const LEASE_MAX: Duration = Duration::from_secs(365 * 86_400);

/// Before a hub is asked again that did not come back to verify.
const UNVERIFIED_WAIT: Duration = Duration::from_secs(3_600);

/// Before a hub is asked again that denied.
const DENIED_WAIT: Duration = Duration::from_secs(7 * 86_400);

/// Bytes of a challenge; hubs send 10 to 100.
const CHALLENGE_BYTES_MAX: usize = 1_024;

/// A feed's subscription; a part of its cursor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Subscription {
    pub(super) hub: Url,
    /// The feed as the hub knows it: its own `rel="self"`.
    pub(super) topic: String,
    /// The end of the callback's path: 128 random bits as hex.
    token: String,
    /// What the hub signs with: 256 random bits as hex.
    secret: String,
    /// None before the first time.
    asked_at: Option<Timestamp>,
    lease: Option<Lease>,
    is_denied: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Lease {
    from: Timestamp,
    to: Timestamp,
}

/// What a hub tells a feed's collector.
#[derive(Debug)]
pub(super) enum Event {
    /// The subscription holds for this long.
    Granted(Duration),
    /// There will be none.
    Denied,
    /// What is new.
    Content(Content),
}

/// What a hub sends: the feed, or the part of it that is new.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) body: Bytes,
    pub(super) content_type: Option<String>,
    /// Told once the content is on disk.
    pub(super) logged: oneshot::Sender<()>,
}

/// All subscriptions of this process, by the end of their callback's path.
pub(super) struct WebSub {
    /// Where hubs reach it, up to the token.
    callback: String,
    body_bytes_max: usize,
    listeners: Mutex<HashMap<String, Listener>>,
}

#[derive(Clone)]
struct Listener {
    topic: String,
    secret: String,
    events: mpsc::Sender<Event>,
}

impl Subscription {
    /// A new one, not yet asked for.
    pub(super) fn new(hub: Url, topic: String) -> Result<Self> {
        Ok(Self { hub, topic, token: random(16)?, secret: random(32)?, asked_at: None, lease: None, is_denied: false })
    }

    /// When the hub is to be asked again.
    pub(super) fn renew_at(&self) -> Timestamp {
        let wait = if self.is_denied { DENIED_WAIT } else { UNVERIFIED_WAIT };
        let Some(asked_at) = self.asked_at else { return Timestamp::default() };
        let asked = later(asked_at, wait);
        match self.lease {
            Some(Lease { from, to }) => asked.max(later(from, to.since(from) * 2 / 3)),
            None => asked,
        }
    }

    /// Whether the hub sends what is new.
    pub(super) fn is_active(&self, now: Timestamp) -> bool {
        !self.is_denied && self.lease.is_some_and(|lease| now < lease.to)
    }

    pub(super) fn note_asked(&mut self, now: Timestamp) {
        (self.asked_at, self.is_denied) = (Some(now), false);
    }

    pub(super) fn note_granted(&mut self, lease: Duration, now: Timestamp) {
        self.lease = Some(Lease { from: now, to: later(now, lease.min(LEASE_MAX)) });
        self.is_denied = false;
    }

    pub(super) fn note_denied(&mut self, now: Timestamp) {
        (self.lease, self.asked_at, self.is_denied) = (None, Some(now), true);
    }
}

impl WebSub {
    /// `base` is where hubs reach this program's HTTP port.
    ///
    /// # Errors
    /// `Change` if that is no address.
    pub(super) fn new(base: &str, body_bytes_max: usize) -> Result<Self> {
        let is_web =
            Url::parse(base).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.query().is_none());
        if !is_web {
            let right = "should be as `https://news.example.org`";
            return Err(Error::change(format!("use `news.websub_callback_url` = `{base}` ({right})")));
        }
        let callback = format!("{}/webhooks/news/websub/", base.trim_end_matches('/'));
        Ok(Self { callback, body_bytes_max, listeners: Mutex::default() })
    }

    /// Whoever holds the other end of `events` hears of this subscription.
    pub(super) fn listen(&self, subscription: &Subscription, events: &mpsc::Sender<Event>) {
        let Subscription { topic, secret, .. } = subscription.clone();
        self.lock().insert(subscription.token.clone(), Listener { topic, secret, events: events.clone() });
    }

    /// Nobody hears of it any more.
    pub(super) fn forget(&self, subscription: &Subscription) {
        self.lock().remove(&subscription.token);
    }

    /// The form that asks the hub.
    pub(super) fn form(&self, subscription: &Subscription) -> String {
        let mut form = Url::parse("http://form").expect("a constant");
        form.query_pairs_mut()
            .append_pair("hub.mode", "subscribe")
            .append_pair("hub.topic", &subscription.topic)
            .append_pair("hub.callback", &format!("{}{}", self.callback, subscription.token))
            .append_pair("hub.secret", &subscription.secret)
            .append_pair("hub.lease_seconds", &LEASE.as_secs().to_string());
        form.query().unwrap_or_default().to_owned()
    }

    /// What is plain before the body is there: whether there is such a subscription, and a signature.
    pub(super) fn admit(&self, head: &WebhookRequest) -> Result<usize, WebhookAnswer> {
        let token = head.path.strip_prefix("websub/").unwrap_or_default();
        if !self.lock().contains_key(token) {
            return Err(answer(404, "no such subscription"));
        }
        match (head.method.as_str(), head.header("x-hub-signature")) {
            ("POST", None) => Err(answer(403, "the signature is missing or wrong")),
            ("POST", Some(_)) => Ok(self.body_bytes_max),
            _ => Ok(0),
        }
    }

    /// Answers a hub; the path is `websub/TOKEN`.
    pub(super) async fn receive(&self, request: WebhookRequest) -> WebhookAnswer {
        let token = request.path.strip_prefix("websub/").unwrap_or_default();
        let listener = self.lock().get(token).cloned();
        let Some(listener) = listener else { return answer(404, "no such subscription") };
        match request.method.as_str() {
            "GET" => listener.verify(&request).await,
            "POST" => listener.take(request, self.body_bytes_max).await,
            _ => answer(405, "GET or POST"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Listener>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener {
    /// Section 5.3: the hub asks whether the subscription is meant, or says that it is denied.
    async fn verify(&self, request: &WebhookRequest) -> WebhookAnswer {
        let is_ours = request.query("hub.topic") == Some(&self.topic);
        let event = match request.query("hub.mode") {
            Some("subscribe") if is_ours => {
                let lease = request.query("hub.lease_seconds").and_then(|seconds| seconds.parse().ok());
                Event::Granted(lease.map_or(LEASE, Duration::from_secs))
            }
            Some("denied") if is_ours => Event::Denied,
            _ => return answer(404, "not asked for"),
        };
        let challenge = request.query("hub.challenge").unwrap_or_default();
        // What is echoed must not be taken for a page.
        let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'<';
        if challenge.len() > CHALLENGE_BYTES_MAX || !challenge.bytes().all(is_plain) {
            return answer(400, "`hub.challenge` should be short and plain");
        }
        match self.tell(event).await {
            true => answer(200, challenge),
            false => answer(503, "busy"),
        }
    }

    /// Section 7: content, which counts only with the right signature.
    async fn take(&self, request: WebhookRequest, body_bytes_max: usize) -> WebhookAnswer {
        if request.body.len() > body_bytes_max {
            return answer(413, &format!("at most {body_bytes_max} bytes"));
        }
        let signature = request.header("x-hub-signature");
        if !signature.is_some_and(|signature| is_signed(&request.body, signature, self.secret.as_bytes())) {
            return answer(403, "the signature is missing or wrong");
        }
        let (logged, is_logged) = oneshot::channel();
        let content_type = request.header("content-type").map(str::to_owned);
        let content = Content { body: request.body, content_type, logged };
        let is_told = self.tell(Event::Content(content)).await;
        match is_told && matches!(tokio::time::timeout(ANSWER_MAX, is_logged).await, Ok(Ok(()))) {
            true => answer(200, ""),
            false => answer(503, "busy"),
        }
    }

    async fn tell(&self, event: Event) -> bool {
        self.events.send_timeout(event, ANSWER_MAX).await.is_ok()
    }
}

fn answer(status: u16, body: &str) -> WebhookAnswer {
    WebhookAnswer { status, body: body.to_owned() }
}

/// Whether `signature` (`METHOD=HEX`) is the HMAC of the body; compared in constant time. Section 7.1.
fn is_signed(body: &[u8], signature: &str, secret: &[u8]) -> bool {
    let Some((method, hex)) = signature.trim().split_once('=') else { return false };
    let Some(expected) = bytes_of_hexadecimal(hex) else { return false };
    match method.to_ascii_lowercase().as_str() {
        "sha1" => verify::<Hmac<Sha1>>(body, &expected, secret),
        "sha256" => verify::<Hmac<Sha256>>(body, &expected, secret),
        "sha384" => verify::<Hmac<Sha384>>(body, &expected, secret),
        "sha512" => verify::<Hmac<Sha512>>(body, &expected, secret),
        _ => false,
    }
}

fn verify<M: Mac + KeyInit>(body: &[u8], expected: &[u8], secret: &[u8]) -> bool {
    <M as KeyInit>::new_from_slice(secret).is_ok_and(|mac| mac.chain_update(body).verify_slice(expected).is_ok())
}

fn random(bytes: usize) -> Result<String> {
    let mut random = vec![0; bytes];
    getrandom::fill(&mut random).map_err(|error| Error::stop("get random bytes from the system").because(error))?;
    Ok(hexadecimal(&random))
}

fn later(time: Timestamp, wait: Duration) -> Timestamp {
    Timestamp(time.0.saturating_add(i64::try_from(wait.as_micros()).unwrap_or(i64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_700_000_000_000_000);

    fn subscription() -> Subscription {
        let hub = Url::parse("https://hub.example/").unwrap();
        Subscription::new(hub, "https://a.example/feed?a=1&b=2".to_owned()).unwrap()
    }

    fn listening() -> (WebSub, Subscription, mpsc::Receiver<Event>) {
        let websub = WebSub::new("https://me.example", 1_000).unwrap();
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let subscription = subscription();
        websub.listen(&subscription, &sender);
        (websub, subscription, events)
    }

    async fn get(websub: &WebSub, token: &str, query: &str) -> (u16, String) {
        let url = Url::parse(&format!("http://me.example/?{query}")).unwrap();
        let query = url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
        let path = format!("websub/{token}");
        let answer = websub.receive(WebhookRequest { method: "GET".into(), path, query, ..Default::default() }).await;
        (answer.status, answer.body)
    }

    async fn post(websub: &WebSub, token: &str, signature: Option<&str>, body: &'static str) -> u16 {
        let named = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut headers = vec![named("content-type", "application/rss+xml")];
        headers.extend(signature.map(|signature| named("x-hub-signature", signature)));
        let (method, path, body) = ("POST".to_owned(), format!("websub/{token}"), Bytes::from(body));
        websub.receive(WebhookRequest { method, path, headers, body, ..Default::default() }).await.status
    }

    fn sign(body: &str, secret: &str) -> String {
        let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap().chain_update(body);
        format!("sha256={}", hexadecimal(&mac.finalize().into_bytes()))
    }

    #[test]
    fn the_hub_is_asked_with_a_callback_and_a_secret_that_nobody_knows() {
        let websub = WebSub::new("https://me.example/", 1_000).unwrap();
        let (one, other) = (subscription(), subscription());
        assert!(one.token != other.token && one.secret != other.secret);
        let form = websub.form(&one);
        let expected = format!(
            "hub.mode=subscribe&hub.topic=https%3A%2F%2Fa.example%2Ffeed%3Fa%3D1%26b%3D2&hub.callback=https%3A%2F%2Fme.example%2Fwebhooks%2Fnews%2Fwebsub%2F{}&hub.secret={}&hub.lease_seconds=864000",
            one.token, one.secret
        );
        assert_eq!(form, expected);
        assert!(
            WebSub::new("me.example", 1).is_err_and(|error| error.to_string().contains("https://news.example.org"))
        );
    }

    #[tokio::test]
    async fn only_what_was_asked_for_is_verified() {
        let (websub, Subscription { token, .. }, mut events) = listening();
        let topic = "hub.topic=https%3A%2F%2Fa.example%2Ffeed%3Fa%3D1%26b%3D2";
        let asked = format!("hub.mode=subscribe&{topic}&hub.challenge=c-1&hub.lease_seconds=600");
        assert_eq!(get(&websub, &token, &asked).await, (200, "c-1".to_owned()));
        assert!(matches!(events.try_recv(), Ok(Event::Granted(lease)) if lease.as_secs() == 600));
        let foreign = "hub.mode=subscribe&hub.topic=https://b.example/&hub.challenge=c";
        for (token, query, status) in [
            ("0", asked.as_str(), 404),
            (&token, foreign, 404),
            (&token, &format!("hub.mode=unsubscribe&{topic}&hub.challenge=c"), 404),
            (&token, &format!("hub.mode=subscribe&{topic}&hub.challenge=%3Cscript%3E"), 400),
            (&token, "", 404),
        ] {
            assert_eq!(get(&websub, token, query).await.0, status, "{query}");
        }
        assert!(events.try_recv().is_err());
        assert_eq!(get(&websub, &token, &format!("hub.mode=denied&{topic}&hub.reason=no")).await.0, 200);
        assert!(matches!(events.try_recv(), Ok(Event::Denied)));
    }

    #[tokio::test]
    async fn content_is_answered_once_it_is_on_disk() {
        let (websub, Subscription { token, secret, .. }, mut events) = listening();
        let signature = sign("<rss/>", &secret);
        let (status, ()) = tokio::join!(post(&websub, &token, Some(&signature), "<rss/>"), async {
            let Some(Event::Content(content)) = events.recv().await else { panic!("no content") };
            assert_eq!(
                (&content.body[..], content.content_type.as_deref()),
                (&b"<rss/>"[..], Some("application/rss+xml"))
            );
            content.logged.send(()).unwrap();
        });
        assert_eq!(status, 200);
        let (status, ()) = tokio::join!(post(&websub, &token, Some(&signature), "<rss/>"), async {
            drop(events.recv().await);
        });
        assert_eq!(status, 503, "it was not logged, so the hub comes again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_collector_that_does_not_answer_lets_the_hub_come_again() {
        let (websub, Subscription { token, secret, .. }, events) = listening();
        assert_eq!(post(&websub, &token, Some(&sign("<rss/>", &secret)), "<rss/>").await, 503);
        drop(events);
        assert_eq!(post(&websub, &token, Some(&sign("<rss/>", &secret)), "<rss/>").await, 503);
    }

    #[tokio::test]
    async fn content_without_the_right_signature_is_not_read() {
        let (websub, Subscription { token, secret, .. }, mut events) = listening();
        let right = sign("<rss/>", &secret);
        for wrong in
            [None, Some(""), Some("sha256=00"), Some("md5=00"), Some("sha256=zz"), Some("sha256=0"), Some("é=é")]
        {
            assert_eq!(post(&websub, &token, wrong, "<rss/>").await, 403, "{wrong:?}");
        }
        assert_eq!(post(&websub, &token, Some(&right), "<rss>").await, 403);
        assert_eq!(post(&websub, "0", Some(&right), "<rss/>").await, 404);
        let large = "x".repeat(1_001).leak();
        assert_eq!(post(&websub, &token, Some(&sign(large, &secret)), large).await, 413);
        assert!(events.try_recv().is_err());
    }

    #[test]
    fn a_body_is_taken_only_of_a_hub_that_was_asked_and_signs() {
        let (websub, Subscription { token, .. }, _events) = listening();
        let admit = |method: &str, token: &str, signature: Option<&str>| {
            let headers = signature.map(|value| ("x-hub-signature".to_owned(), value.to_owned())).into_iter().collect();
            let (method, path) = (method.to_owned(), format!("websub/{token}"));
            let head = WebhookRequest { method, path, headers, ..Default::default() };
            websub.admit(&head).map_err(|answer| answer.status)
        };
        assert_eq!(admit("POST", &token, Some("sha256=00")), Ok(1_000));
        assert_eq!(admit("GET", &token, None), Ok(0));
        assert_eq!(admit("POST", &token, None), Err(403));
        assert_eq!(admit("POST", "0", Some("sha256=00")), Err(404));
    }

    #[test]
    fn every_method_of_the_specification_is_known() {
        // HMACs of RFC 4231 (test case 2) and, for SHA-1, RFC 2202 (test case 2).
        let (secret, body) = (b"Jefe", b"what do ya want for nothing?");
        for signature in [
            "sha1=effcdf6ae5eb2fa2d27416d5f184df9c259a7c79",
            "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            "sha384=af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649",
            "SHA512=164B7A7BFCF819E2E395FBE73B56E0A387BD64222E831FD610270CD7EA2505549758BF75C05A994A6D034F65F8F0E6FDCAEAB1A34D4A6B4B636E070A38BCE737",
        ] {
            assert!(is_signed(body, signature, secret), "{signature}");
            assert!(!is_signed(b"other", signature, secret));
        }
    }

    #[test]
    fn a_lease_is_renewed_when_two_thirds_are_over() {
        let minutes = |minutes: i64| Timestamp(NOW.0 + minutes * 60_000_000);
        let mut subscription = subscription();
        assert!(subscription.renew_at() < NOW, "at once");
        subscription.note_asked(NOW);
        assert_eq!((subscription.renew_at(), subscription.is_active(NOW)), (minutes(60), false));
        subscription.note_granted(Duration::from_secs(300 * 60), minutes(1));
        assert_eq!(subscription.renew_at(), minutes(201));
        assert!(subscription.is_active(minutes(300)) && !subscription.is_active(minutes(301)));
        subscription.note_asked(minutes(201));
        assert_eq!(subscription.renew_at(), minutes(261), "no answer: again in an hour");
        subscription.note_denied(minutes(202));
        assert_eq!((subscription.renew_at(), subscription.is_active(minutes(203))), (minutes(202 + 7 * 1_440), false));
        subscription.note_granted(Duration::from_secs(u64::MAX), minutes(1));
        assert!(subscription.is_active(minutes(300_000)));
    }
}
