//! `POST /webhooks/github`: deliveries of GitHub's webhooks.
//!
//! A delivery becomes one event: its id is the delivery's, its type that of the Events API (`pull_request` is
//! `PullRequestEvent`), its payload the bytes that were sent. It happened at the newest time that its payload states, so
//! that a delivery that is sent again is the same event.
//!
//! Sources: <https://docs.github.com/en/webhooks/webhook-events-and-payloads>,
//! <https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries>.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use contract::{Clock, RawRecord, RecordId, Timestamp, Webhook, WebhookAnswer, WebhookRequest};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::value::RawValue;
use sha2::Sha256;

use super::reject::nests_too_deep;
use super::schema::SCHEMA;
use super::time::parse_time;
use crate::push::{Inbox, NotTaken, PushCollector, channel};
use crate::{Context, Secret};

/// Bytes of the name of an event and of a delivery's id: GitHub's have 40.
const NAME_BYTES_MAX: usize = 100;

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
        let (inbox, collector) = channel(SCHEMA.source, "github/webhook", context.harvest);
        (Self { secret, inbox, clock: context.clock.clone() }, collector)
    }

    fn read(&self, request: &WebhookRequest) -> Result<RawRecord, Refused> {
        if request.method != "POST" {
            return Err((405, "deliveries are sent with POST"));
        }
        let signature =
            request.header("x-hub-signature-256").ok_or((401, "the header X-Hub-Signature-256 is missing"))?;
        if !self.is_signed(signature, &request.body) {
            return Err((401, "the signature is not that of `github.webhook_secret`"));
        }
        let name = |header, missing| {
            let is_name = |name: &&str| {
                let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
                (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_plain)
            };
            request.header(header).filter(is_name).ok_or((400, missing))
        };
        let event = name("x-github-event", "the header X-GitHub-Event should name an event, such as `push`")?;
        let delivery = name("x-github-delivery", "the header X-GitHub-Delivery should be the delivery's id")?;
        let payload = payload(request).ok_or((400, "the body should be JSON, or a form with JSON as `payload`"))?;
        let text = std::str::from_utf8(&payload).ok().filter(|_| !nests_too_deep(&payload));
        let stated = text.and_then(newest_time).ok_or((400, "the payload is no JSON object"))?;
        let fetched_at = self.clock.now();
        let event_time = stated.filter(|time| *time <= fetched_at).unwrap_or(fetched_at);
        let kind = event_type(event);
        let head = format!(
            r#"{{"id":"{delivery}","type":"{kind}","webhook":"{event}","created_at":"{event_time}","payload":"#
        );
        let body = Bytes::from([head.as_bytes(), payload.trim_ascii(), b"}"].concat());
        Ok(RawRecord { id: RecordId::from(delivery.to_owned()), event_time, fetched_at, body })
    }

    /// Compares in constant time.
    fn is_signed(&self, signature: &str, body: &[u8]) -> bool {
        let Some(secret) = self.secret.reveal() else { return false };
        let Some(signature) = signature.strip_prefix("sha256=").and_then(bytes_of_hexadecimal) else { return false };
        let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes());
        mac.is_ok_and(|mac| mac.chain_update(body).verify_slice(&signature).is_ok())
    }
}

#[async_trait]
impl Webhook for GithubWebhook {
    fn path(&self) -> &'static str {
        "github"
    }

    async fn receive(&self, request: WebhookRequest) -> WebhookAnswer {
        let answer = |status, body: &str| WebhookAnswer { status, body: format!("{body}\n") };
        match self.read(&request) {
            Ok(record) => match self.inbox.deliver(vec![record]).await {
                Ok(()) => answer(202, "logged"),
                Err(NotTaken) => answer(503, "not logged: send it again later"),
            },
            Err((status, reason)) => answer(status, reason),
        }
    }
}

/// The JSON, which may come in a form.
fn payload(request: &WebhookRequest) -> Option<Bytes> {
    let is_form =
        request.header("content-type").is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"));
    if !is_form {
        return Some(request.body.clone());
    }
    let pairs = reqwest::Url::parse("form:").ok().map(|mut url| {
        url.set_query(std::str::from_utf8(&request.body).ok());
        url
    })?;
    let (_, json) = pairs.query_pairs().find(|(name, _)| name == "payload")?;
    Some(Bytes::from(json.into_owned()))
}

fn bytes_of_hexadecimal(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    let is_whole = digits.len().is_multiple_of(2) && digits.iter().all(u8::is_ascii_hexdigit);
    let pairs = text.get(..).filter(|_| is_whole)?;
    (0..pairs.len()).step_by(2).map(|at| u8::from_str_radix(&pairs[at..at + 2], 16).ok()).collect()
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

/// The newest time that an object, or an object directly in it, states; none outside if it is no JSON object.
fn newest_time(json: &str) -> Option<Option<Timestamp>> {
    let members = |json| serde_json::from_str::<BTreeMap<Cow<'_, str>, &RawValue>>(json).ok();
    let newest = |members: &BTreeMap<Cow<'_, str>, &RawValue>| {
        members.iter().filter_map(|(name, value)| stated_time(name, value.get())).max()
    };
    let payload = members(json)?;
    let objects = payload.values().map(|value| value.get()).filter(|value| value.starts_with('{'));
    Some(objects.filter_map(members).filter_map(|object| newest(&object)).max().max(newest(&payload)))
}

/// A time as text; of pushes also as seconds since 1970. When something expires is not when something happened.
fn stated_time(name: &str, value: &str) -> Option<Timestamp> {
    let is_time = (name.ends_with("_at") || name == "timestamp") && name != "expires_at";
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

    const SECRET: &str = "It's a Secret to Everybody";

    fn webhook() -> (Arc<GithubWebhook>, PushCollector) {
        let now = Timestamp::parse_rfc3339("2026-01-02T03:04:05Z").unwrap();
        let context = Context { clock: Arc::new(move || now), ..Context::default() };
        let (webhook, collector) = GithubWebhook::new(Secret::from(SECRET.to_owned()), &context);
        (Arc::new(webhook), collector)
    }

    fn signature(body: &[u8]) -> String {
        let mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap().chain_update(body);
        let digits: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("sha256={digits}")
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
        assert!(webhook().0.is_signed(expected, b"Hello, World!"));
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
        let cases = [
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
