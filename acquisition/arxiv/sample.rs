//! The sample that ships with the program: real papers, made to look as if they had been submitted these days.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use contract::{RawRecord, Timestamp};
use jiff::fmt::rfc2822::DateTimePrinter;

use super::file::reading;
use super::framing::record;
use super::time::parse_time;
use crate::file::{Adapt, open_bytes};
use crate::{Context, OpenFile};

/// A page of OAI-PMH; see `sample/README.md` for where its records come from.
static PAPERS: &[u8] = include_bytes!("sample/papers.xml.gz");

/// The newest time in the sample; a test holds this.
const NEWEST: Timestamp = Timestamp(1_767_398_400_000_000);

/// Elements that hold a time.
const TIMES: &[&str] = &["<created>", "<updated>", "<date>", "<datestamp>"];

/// Opens the sample. Every time is moved by the same whole seconds, so that the newest is now; days by whole days.
pub(super) fn sample(context: &Context) -> OpenFile {
    let clock = context.clock.clone();
    let shift_seconds = OnceLock::new();
    let adapt: Adapt = Arc::new(move |record| {
        let shift = *shift_seconds.get_or_init(|| (clock.now().0 - NEWEST.0).div_euclid(1_000_000));
        moved(record, shift)
    });
    open_bytes("arxiv/sample", PAPERS, adapt, context, reading())
}

/// The record with its times moved. It keeps its id, so that it is the same paper each time the sample is read.
fn moved(old: RawRecord, seconds: i64) -> RawRecord {
    let text = String::from_utf8_lossy(&old.body);
    let mut body = String::with_capacity(text.len());
    let mut rest = &*text;
    while let Some((start, length)) = next_time(rest) {
        body.push_str(&rest[..start]);
        body.push_str(&moved_time(&rest[start..start + length], seconds));
        rest = &rest[start + length..];
    }
    body.push_str(rest);
    let new = record(Bytes::from(body), None, old.fetched_at);
    RawRecord { id: old.id, ..new }
}

/// Where the next time stands, and its length.
fn next_time(text: &str) -> Option<(usize, usize)> {
    let starts = TIMES.iter().filter_map(|tag| text.find(tag).map(|at| at + tag.len()));
    let start = starts.min()?;
    text[start..].find('<').map(|length| (start, length))
}

/// The time in the form it had.
fn moved_time(text: &str, seconds: i64) -> String {
    let Some(time) = parse_time(text) else { return text.to_owned() };
    if text.len() == "2026-01-03".len() {
        return Timestamp(time.0 + seconds.div_euclid(86_400) * 86_400_000_000).day().to_string();
    }
    let moved = Timestamp(time.0 + seconds * 1_000_000);
    let instant = jiff::Timestamp::from_microsecond(moved.0).ok();
    instant.and_then(|instant| DateTimePrinter::new().timestamp_to_rfc9110_string(&instant).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_moved_in_the_form_they_have() {
        assert_eq!(moved_time("2026-01-01", 86_400 + 5), "2026-01-02");
        assert_eq!(moved_time("2026-01-01", -5), "2025-12-31");
        assert_eq!(moved_time("Sat, 03 Jan 2026 00:00:00 GMT", 61), "Sat, 03 Jan 2026 00:01:01 GMT");
        assert_eq!(NEWEST.to_string(), "2026-01-03T00:00:00Z");
    }
}
