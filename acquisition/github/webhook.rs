//! `POST /webhooks/github`: deliveries of GitHub's webhooks.
//!
//! A delivery becomes one event: its id is the delivery's, its type that of the Events API (`pull_request` is
//! `PullRequestEvent`), its payload the bytes that were sent. It happened at the newest time that its payload states, so
//! that a delivery that is sent again is the same event; where it states none (memberships), see [`crate::push`].
//!
//! | delivery | answer |
//! | --- | --- |
//! | signed, and on disk | 202 |
//! | the same again | 202; told as a duplicate by its id |
//! | not signed, or with another secret | 401 |
//! | no delivery: no event, no id, no JSON | 400 |
//! | larger than [`RECORD_BYTES_MAX`] | 413: a dead letter would hide from its sender that it is no row |
//! | the log does not take it within 10 s, or the program ends | 503 |
//!
//! GitHub does not send again by itself what was not answered with success; its page of a webhook's deliveries does, for
//! three days. What was answered 413 or 503 is counted as lost.
//!
//! GitHub signs the body and no header: whoever has seen a signed body can send it again under another delivery's id or
//! event, and it is another row then. Only TLS keeps bodies from being seen: put a proxy with TLS before the port.
//!
//! Sources: <https://docs.github.com/en/webhooks/webhook-events-and-payloads>,
//! <https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries>.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use contract::limits::{RECORD_BYTES_MAX, WEBHOOK_FORM_BYTES_MAX};
use contract::metric;
use contract::{Clock, RawRecord, RecordId, Timestamp, Webhook, WebhookAnswer, WebhookRequest};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::value::RawValue;
use sha2::Sha256;

use super::reject::nests_too_deep;
use super::schema::SCHEMA;
use super::time::parse_time;
use crate::hexadecimal::bytes_of_hexadecimal;
use crate::push::{Inbox, NotTaken, PushCollector, channel};
use crate::{Context, Secret};

/// Bytes of the name of an event and of a delivery's id: GitHub's have 40.
const NAME_BYTES_MAX: usize = 100;

/// How long the log may take. GitHub gives up after this.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// How far GitHub's clock may be ahead of ours: a time beyond is of what will happen.
const CLOCKS_DIFFER_MAX: Duration = Duration::from_secs(300);

const COLLECTOR: &str = "github/webhook";

/// Takes deliveries that are signed with the secret.
pub(super) struct GithubWebhook {
    secret: Secret,
    inbox: Inbox,
    clock: Arc<dyn Clock>,
}

/// Why a delivery is refused: the status, and what would have been right.
type Refused = (u16, &'static str);

impl GithubWebhook {
    /// A webhook and the collector of its deliveries.
    pub(super) fn new(secret: Secret, context: &Context) -> (Self, PushCollector) {
        let (inbox, collector) = channel(SCHEMA.source, COLLECTOR, context.harvest);
        (Self { secret, inbox, clock: context.clock.clone() }, collector)
    }

    fn read(&self, request: &WebhookRequest) -> Result<RawRecord, Refused> {
        let Head { signature, event, delivery } = Head::read(request)?;
        if !self.is_signed(&signature, &request.body) {
            return Err((401, "the signature is not that of `github.webhook_secret`"));
        }
        let payload = payload(request).ok_or((400, "the body should be JSON, or a form with JSON as `payload`"))?;
        let text = std::str::from_utf8(&payload).ok().filter(|_| !nests_too_deep(&payload));
        let fetched_at = self.clock.now();
        let latest = fetched_at.plus(CLOCKS_DIFFER_MAX);
        let stated = text.and_then(|text| newest_time(text, latest)).ok_or((400, "the payload is no JSON object"))?;
        let event_time = stated.unwrap_or(fetched_at);
        let kind = event_type(event);
        let head = format!(
            r#"{{"id":"{delivery}","type":"{kind}","webhook":"{event}","created_at":"{event_time}","payload":"#
        );
        let body = Bytes::from([head.as_bytes(), payload.trim_ascii(), b"}"].concat());
        if body.len() > RECORD_BYTES_MAX {
            return Err((413, "the payload is larger than a record may be"));
        }
        Ok(RawRecord { id: RecordId::from(delivery.to_owned()), event_time, fetched_at, body })
    }

    /// Compares in constant time.
    fn is_signed(&self, signature: &[u8], body: &[u8]) -> bool {
        let Some(secret) = self.secret.reveal() else { return false };
        let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes());
        mac.is_ok_and(|mac| mac.chain_update(body).verify_slice(signature).is_ok())
    }

    /// Hands the record in and waits until it is on disk; false where that takes too long. It may be logged all the same
    /// then, which sending it again does not double.
    async fn is_logged(&self, record: RawRecord) -> bool {
        let told = tokio::time::timeout(ANSWER_MAX, self.inbox.deliver(vec![record])).await;
        match told.unwrap_or(Err(NotTaken)) {
            Ok(()) => true,
            Err(NotTaken) => false,
        }
    }
}

/// What a delivery says before its body.
struct Head<'a> {
    signature: Vec<u8>,
    event: &'a str,
    delivery: &'a str,
}

impl<'a> Head<'a> {
    fn read(request: &'a WebhookRequest) -> Result<Self, Refused> {
        if request.method != "POST" {
            return Err((405, "deliveries are sent with POST"));
        }
        let signature =
            request.header("x-hub-signature-256").ok_or((401, "the header X-Hub-Signature-256 is missing"))?;
        let signature = signature.strip_prefix("sha256=").and_then(bytes_of_hexadecimal);
        let signature = signature.filter(|bytes| bytes.len() == 32);
        let signature = signature.ok_or((401, "the header X-Hub-Signature-256 should be `sha256=` and 64 digits"))?;
        let name = |header, missing| {
            let is_name = |name: &&str| {
                let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
                (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_plain)
            };
            request.header(header).filter(is_name).ok_or((400, missing))
        };
        let event = name("x-github-event", "the header X-GitHub-Event should name an event, such as `push`")?;
        let delivery = name("x-github-delivery", "the header X-GitHub-Delivery should be the delivery's id")?;
        Ok(Self { signature, event, delivery })
    }
}

#[async_trait]
impl Webhook for GithubWebhook {
    fn path(&self) -> &'static str {
        "github"
    }

    fn admit(&self, head: &WebhookRequest) -> Result<usize, WebhookAnswer> {
        Head::read(head).map_err(|(status, reason)| answer(status, reason))?;
        Ok(if is_form(head) { WEBHOOK_FORM_BYTES_MAX } else { RECORD_BYTES_MAX })
    }

    async fn receive(&self, request: WebhookRequest) -> WebhookAnswer {
        let read = self.read(&request);
        // The record has what is needed of it, and the log may take its time.
        drop(request);
        let (status, reason) = match read {
            Ok(record) => match self.is_logged(record).await {
                true => (202, "logged"),
                false => (503, "not logged: send it again later"),
            },
            Err(refused) => refused,
        };
        let labels = [SCHEMA.source.0, COLLECTOR];
        metric::RECEIVED_RECORDS.add(&labels, u64::from([202, 413, 503].contains(&status)));
        metric::LOST_RECORDS.add(&[labels[0], labels[1], "too large"], u64::from(status == 413));
        metric::LOST_RECORDS.add(&[labels[0], labels[1], "not logged"], u64::from(status == 503));
        answer(status, reason)
    }
}

fn answer(status: u16, reason: &str) -> WebhookAnswer {
    WebhookAnswer { status, body: format!("{reason}\n") }
}

fn is_form(request: &WebhookRequest) -> bool {
    request.header("content-type").is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"))
}

/// The JSON, which may come in a form.
fn payload(request: &WebhookRequest) -> Option<Bytes> {
    if !is_form(request) {
        return Some(request.body.clone());
    }
    let pairs = reqwest::Url::parse("form:").ok().map(|mut url| {
        url.set_query(std::str::from_utf8(&request.body).ok());
        url
    })?;
    let (_, json) = pairs.query_pairs().find(|(name, _)| name == "payload")?;
    Some(Bytes::from(json.into_owned()))
}

/// The type in the Events API of a webhook's event: `pull_request` is `PullRequestEvent`.
fn event_type(webhook: &str) -> String {
    let mut name = String::with_capacity(webhook.len() + 5);
    for word in webhook.split('_') {
        let mut letters = word.chars();
        name.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        name.push_str(letters.as_str());
    }
    name + "Event"
}

/// The newest time up to `latest` that an object, or an object directly in it, states; none outside if it is no JSON
/// object.
fn newest_time(json: &str, latest: Timestamp) -> Option<Option<Timestamp>> {
    let members = |json| serde_json::from_str::<BTreeMap<Cow<'_, str>, &RawValue>>(json).ok();
    let newest = |members: &BTreeMap<Cow<'_, str>, &RawValue>| {
        let times = members.iter().filter_map(|(name, value)| stated_time(name, value.get()));
        times.filter(|time| *time <= latest).max()
    };
    let payload = members(json)?;
    let objects = payload.values().map(|value| value.get()).filter(|value| value.starts_with('{'));
    Some(objects.filter_map(members).filter_map(|object| newest(&object)).max().max(newest(&payload)))
}

/// A time as text; of pushes also as seconds since 1970. When something expires is not when something happened.
fn stated_time(name: &str, value: &str) -> Option<Timestamp> {
    let is_time = (name.ends_with("_at") || name == "timestamp") && !name.ends_with("expires_at");
    let text = Some(value).filter(|_| is_time)?;
    match text.parse::<i64>() {
        Ok(seconds) => seconds.checked_mul(1_000_000).map(Timestamp),
        Err(_) => parse_time(text.trim_matches('"')),
    }
}

#[cfg(test)]
mod tests {
    use contract::{Collector, Cursor, LogRecord, RowsBuilder, Span, row_json};

    use super::*;
    use crate::github::GithubProcessor;
    use crate::hexadecimal::hexadecimal;

    const SECRET: &str = "It's a Secret to Everybody";

    fn webhook() -> (Arc<GithubWebhook>, PushCollector) {
        let now = Timestamp::parse_rfc3339("2026-01-02T03:04:05Z").unwrap();
        let context = Context { clock: Arc::new(move || now), ..Context::default() };
        let (webhook, collector) = GithubWebhook::new(Secret::from(SECRET.to_owned()), &context);
        (Arc::new(webhook), collector)
    }

    fn signature(body: &[u8]) -> String {
        let mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap().chain_update(body);
        format!("sha256={}", hexadecimal(&mac.finalize().into_bytes()))
    }

    fn delivery(event: &str, body: &str) -> WebhookRequest {
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        WebhookRequest {
            method: "POST".to_owned(),
            headers: vec![
                header("x-github-event", event),
                header("x-github-delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958"),
                header("x-hub-signature-256", &signature(body.as_bytes())),
            ],
            body: Bytes::copy_from_slice(body.as_bytes()),
            ..WebhookRequest::default()
        }
    }

    /// The row of a delivery that is taken.
    fn row(request: &WebhookRequest) -> serde_json::Value {
        let record = webhook().0.read(request).unwrap();
        let mut rows = RowsBuilder::new(&SCHEMA);
        let logged = LogRecord { partition: 0, offset: 0, appended_at: record.fetched_at, record };
        rows.record(&logged, &GithubProcessor).unwrap();
        let rows = rows.finish(Span { source: SCHEMA.source, ranges: Vec::new() });
        let mut json = Vec::new();
        row_json::write_row(&rows.silver, 0, &mut json);
        serde_json::from_slice(&json).unwrap()
    }

    #[test]
    fn the_signature_of_githubs_own_example_is_right() {
        // Source: "Testing the webhook payload validation" on the page that the module names.
        let expected = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        assert_eq!(signature(b"Hello, World!"), expected);
        let signed = bytes_of_hexadecimal(expected.strip_prefix("sha256=").unwrap()).unwrap();
        assert!(webhook().0.is_signed(&signed, b"Hello, World!"));
    }

    #[test]
    fn a_delivery_becomes_a_row_of_the_events_api() {
        let body = r#"{"action":"opened","issue":{"number":7,"title":"Crash","updated_at":"2026-01-02T03:00:00Z",
            "user":{"login":"octocat"}},"repository":{"id":2,"full_name":"octo/repo","private":true,
            "pushed_at":1735689600},"organization":{"login":"octo","id":3},"sender":{"login":"hubot","id":4,"type":"Bot"}}"#;
        let row = row(&delivery("issues", body));
        let expect = [
            ("id", "72d3162e-cc78-11e3-81ab-4c9367dc0958".into()),
            ("type", "IssuesEvent".into()),
            ("action", "opened".into()),
            ("title", "Crash".into()),
            ("number", 7.into()),
            ("repo_name", "octo/repo".into()),
            ("org_login", "octo".into()),
            ("actor_login", "hubot".into()),
            ("is_bot", true.into()),
            ("public", false.into()),
            ("created_at", serde_json::Value::from("2026-01-02T03:00:00Z")),
        ];
        for (column, value) in expect {
            assert_eq!(row[column], value, "{column}");
        }
    }

    #[test]
    fn a_push_has_its_commits_and_an_event_that_is_not_known_its_common_fields() {
        let commit = r#"{"id":"6dcb09b5","message":"Fix all the bugs","author":{"name":"Mona"}}"#;
        let push = format!(r#"{{"ref":"refs/heads/main","before":"a1","after":"b2","commits":[{commit}]}}"#);
        let row_of_push = row(&delivery("push", &push));
        assert_eq!(row_of_push["commit_messages"], serde_json::json!(["Fix all the bugs"]));
        assert_eq!(row_of_push["commit_shas"], serde_json::json!(["6dcb09b5"]));
        assert_eq!((&row_of_push["commit_count"], &row_of_push["head"]), (&1.into(), &"b2".into()));
        let odd = r#"{"action":"completed","head":{"not":"a text"},"sender":{"login":"octocat","id":4}}"#;
        let row_of_odd = row(&delivery("check_suite", odd));
        assert_eq!((&row_of_odd["type"], &row_of_odd["action"]), (&"CheckSuiteEvent".into(), &"completed".into()));
        assert_eq!(row_of_odd["actor_login"], "octocat");
    }

    #[test]
    fn a_form_is_read_like_json() {
        let form = "payload=%7B%22action%22%3A%22started%22%7D";
        let mut request = delivery("watch", form);
        request.headers.push(("content-type".to_owned(), "application/x-www-form-urlencoded".to_owned()));
        assert_eq!(row(&request)["action"], "started");
    }

    #[test]
    fn what_is_not_signed_not_json_or_not_named_is_refused() {
        let good = delivery("push", "{}");
        let without = |name: &str| {
            let mut request = good.clone();
            request.headers.retain(|(known, _)| known != name);
            request
        };
        let mut forged = good.clone();
        forged.body = Bytes::from_static(b"{} ");
        let mut short = good.clone();
        short.headers.retain_mut(|(name, value)| {
            value.truncate(if name == "x-hub-signature-256" { 9 } else { 99 });
            true
        });
        assert_eq!(webhook().0.admit(&short).unwrap_err().status, 401, "the head tells it");
        let cases = [
            (short, 401),
            (WebhookRequest { method: "GET".to_owned(), ..good.clone() }, 405),
            (without("x-hub-signature-256"), 401),
            (forged, 401),
            (without("x-github-event"), 400),
            (without("x-github-delivery"), 400),
            (delivery("pu\"sh", "{}"), 400),
            (delivery("push", "[]"), 400),
            (delivery("push", "{"), 400),
            (delivery("push", &format!("{{\"a\":{}1{}}}", "[".repeat(200), "]".repeat(200))), 400),
        ];
        for (request, status) in cases {
            assert_eq!(webhook().0.read(&request).unwrap_err().0, status, "{request:?}");
        }
        assert!(webhook().0.read(&good).is_ok());
        assert_eq!(webhook().0.admit(&good), Ok(RECORD_BYTES_MAX));
    }

    #[tokio::test]
    async fn a_delivery_that_no_record_holds_is_refused_and_becomes_no_dead_letter() {
        let body = |bytes: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(bytes));
        let receive = async |body: String| webhook().0.receive(delivery("push", &body)).await.status;
        assert_eq!(receive(body(RECORD_BYTES_MAX)).await, 413);
        assert!(webhook().0.read(&delivery("push", &body(RECORD_BYTES_MAX - 1_000))).is_ok());
    }

    #[test]
    fn a_delivery_sent_again_states_the_same_time_whatever_lies_ahead() {
        let time = |body: &str| webhook().0.read(&delivery("member", body)).unwrap().event_time.to_string();
        let now = "2026-01-02T03:04:05Z";
        let ahead = r#""token_expires_at":"2026-01-02T01:00:00Z","starts_at":"2026-02-01T00:00:00Z""#;
        assert_eq!(
            time(&format!(r#"{{{ahead},"member":{{"created_at":"2025-12-31T01:02:03Z"}}}}"#)),
            "2025-12-31T01:02:03Z"
        );
        assert_eq!(time(r#"{"created_at":"2026-01-02T03:05:00Z"}"#), "2026-01-02T03:05:00Z", "clocks differ");
        assert_eq!(time(&format!("{{{ahead}}}")), now, "it states none of its own");
    }

    #[tokio::test]
    async fn the_request_is_let_go_before_the_log_is_waited_for() {
        let (webhook, mut collector) = webhook();
        let request = delivery("push", "{}");
        let body = request.body.clone();
        let answered = tokio::spawn(async move { webhook.receive(request).await.status });
        let harvest = collector.poll(&Cursor::default()).await.unwrap();
        assert!(!answered.is_finished() && body.is_unique());
        harvest.acknowledge.unwrap().on_disk();
        assert_eq!(answered.await.unwrap(), 202);
    }

    #[tokio::test(start_paused = true)]
    async fn a_log_that_takes_nothing_is_told_to_the_sender_in_time() {
        let (webhook, _collector) = webhook();
        let started = tokio::time::Instant::now();
        assert_eq!(webhook.receive(delivery("push", "{}")).await.status, 503);
        assert_eq!(started.elapsed(), ANSWER_MAX);
    }

    #[tokio::test]
    async fn success_is_answered_only_once_the_delivery_is_on_disk() {
        let (webhook, mut collector) = webhook();
        let receive = || {
            let webhook = webhook.clone();
            tokio::spawn(async move { webhook.receive(delivery("push", "{}")).await.status })
        };
        let answered = receive();
        let harvest = collector.poll(&Cursor::default()).await.unwrap();
        assert!(!answered.is_finished());
        harvest.acknowledge.as_ref().unwrap().on_disk();
        assert_eq!(answered.await.unwrap(), 202);
        let again = receive();
        let repeated = collector.poll(&Cursor::default()).await.unwrap();
        assert_eq!(repeated.records[0].id, harvest.records[0].id, "a repeat is told by its id");
        drop(repeated);
        assert_eq!(again.await.unwrap(), 503, "what the log did not take is to be sent again");
    }
}
