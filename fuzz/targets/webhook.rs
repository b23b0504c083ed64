//! Any bytes as a signed delivery of the source that `FUZZ_SOURCE` names: refused, or a record whose row or reject is no
//! panic. The first byte chooses the form of the body.
#![no_main]

mod source;

use std::sync::LazyLock;

use acquisition::{Context, Settings};
use contract::{Cursor, LogRecord, RowsBuilder, Span, WebhookRequest};
use hmac::{Hmac, KeyInit, Mac};
use libfuzzer_sys::fuzz_target;
use sha2::Sha256;
use tokio::runtime::Runtime;

use source::SOURCE;

const SECRET: &str = "It's a Secret to Everybody";

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_current_thread().build().expect("a runtime"));

fuzz_target!(|bytes: &[u8]| {
    let Some((form, body)) = bytes.split_first() else { return };
    let mut settings = Settings::default();
    settings.github.feeds.clear();
    settings.github.webhook_secret = SECRET.to_owned().into();
    let mut collectors = (SOURCE.collectors)(&settings, &Context::default()).expect("good settings");
    let webhook = collectors.webhooks.pop().expect("it is set up");
    let mut collector = collectors.polled.pop().expect("it takes deliveries");
    let cursor = Cursor::default();
    RUNTIME.block_on(async {
        tokio::select! {
            answer = webhook.receive(delivery(*form, body)) => assert!((400..500).contains(&answer.status)),
            harvest = collector.poll(&cursor) => process(harvest.expect("a delivery")),
        }
    });
});

fn delivery(form: u8, body: &[u8]) -> WebhookRequest {
    let mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("any length").chain_update(body);
    let digits: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let content_type = if form % 2 == 0 { "application/json" } else { "application/x-www-form-urlencoded" };
    let headers = [
        ("x-github-event", "issues"),
        ("x-github-delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958"),
        ("x-hub-signature-256", &format!("sha256={digits}")),
        ("content-type", content_type),
    ];
    WebhookRequest {
        method: "POST".to_owned(),
        headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        body: body.to_vec().into(),
        ..WebhookRequest::default()
    }
}

fn process(harvest: contract::Harvest) {
    let mut rows = RowsBuilder::new(SOURCE.schema);
    for (offset, record) in (0..).zip(harvest.records) {
        let logged = LogRecord { partition: 0, offset, appended_at: record.fetched_at, record };
        if let Err(reject) = rows.record(&logged, SOURCE.processor) {
            assert_ne!(reject.kind, "panic", "{reject}");
        }
    }
    rows.finish(Span { source: SOURCE.id, ranges: Vec::new() });
}
