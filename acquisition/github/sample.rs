//! The sample that ships with the program: real events, made to look as if they had just happened.

use std::sync::OnceLock;

use bytes::Bytes;
use contract::{RawRecord, Timestamp};
use std::sync::Arc;

use super::file::reading;
use super::time::parse_time;
use crate::file::{Adapt, open_bytes};
use crate::{Context, OpenFile};

/// Events one a line; see `sample/README.md` for where they come from.
static EVENTS: &[u8] = include_bytes!("sample/events.json.gz");

/// The newest `created_at` in the sample; a test holds this.
const NEWEST: &str = "2026-01-03T00:00:00Z";

/// Opens the sample. Every `created_at` is moved by the same whole seconds, so that the newest is now.
pub(super) fn sample(context: &Context) -> OpenFile {
    let clock = context.clock.clone();
    let shift_seconds = OnceLock::new();
    let adapt: Adapt = Arc::new(move |record| {
        let shift = *shift_seconds.get_or_init(|| {
            let newest = parse_time(NEWEST).unwrap_or_default();
            (clock.now().0 - newest.0).div_euclid(1_000_000)
        });
        moved(record, shift)
    });
    open_bytes("github/sample", EVENTS, adapt, context, reading())
}

/// The record with its time moved, in the body too. One without a time of its own stays as it is.
fn moved(record: RawRecord, seconds: i64) -> RawRecord {
    let Some((start, end)) = created_at(&record.body) else { return record };
    let event_time = Timestamp(record.event_time.0 + seconds * 1_000_000);
    let text = event_time.to_string();
    let body = [&record.body[..start], text.as_bytes(), &record.body[end..]].concat();
    RawRecord { event_time, body: Bytes::from(body), ..record }
}

/// Where the event's own time stands: GitHub writes it after the payload, whose times come before.
fn created_at(body: &[u8]) -> Option<(usize, usize)> {
    let key = b"\"created_at\":\"";
    let start = memchr::memmem::rfind(body, key)? + key.len();
    let end = start + memchr::memchr(b'"', &body[start..])?;
    let text = std::str::from_utf8(&body[start..end]).ok()?;
    parse_time(text).map(|_| (start, end))
}
