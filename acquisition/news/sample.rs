//! The sample that ships with the program: invented articles that are always fresh.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use contract::{RawRecord, Timestamp};

use super::SCHEMA;
use super::split::{Fetched, split};
use crate::file::{Cutter, FileInfo, Reading, open_bytes};
use crate::unpack::Form;
use crate::{Context, OpenFile};

/// Eight feeds; see `sample/README.md`.
static FEEDS: &[u8] = include_bytes!("sample/feeds.txt.gz");

/// What stands between two documents.
const SEPARATOR: u8 = 0x0c;

/// Opens the sample; the newest article was published at this moment.
pub(super) fn sample(context: &Context) -> OpenFile {
    let cutter = |_: &FileInfo| -> Box<dyn Cutter> { Box::new(SampleCutter::default()) };
    let reading = Reading { source: SCHEMA.source, form: Form::Bytes, cutter };
    open_bytes("news/sample", FEEDS, Arc::new(|record| record), context, reading)
}

#[derive(Default)]
struct SampleCutter {
    buffer: BytesMut,
}

impl Cutter for SampleCutter {
    fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    fn cut(&mut self, is_end: bool, now: Timestamp, records: &mut Vec<RawRecord>) {
        if !is_end {
            return;
        }
        let feeds = std::mem::take(&mut self.buffer);
        for feed in feeds[..].split(|byte| *byte == SEPARATOR) {
            let text = dated(&String::from_utf8_lossy(feed), now);
            let fetched = Fetched { bytes: text.as_bytes(), fetched_from: Some("sample"), ..Fetched::at(now) };
            records.extend(split(fetched).records);
        }
    }
}

/// The text with its dates written out: `@rfc3339 3600@` is an hour before `now`.
fn dated(text: &str, now: Timestamp) -> String {
    let mut dated = String::with_capacity(text.len());
    for (place, piece) in text.split('@').enumerate() {
        match (place % 2 == 1).then(|| date(piece, now)).flatten() {
            Some(date) => dated.push_str(&date),
            None => dated.push_str(piece),
        }
    }
    dated
}

fn date(piece: &str, now: Timestamp) -> Option<String> {
    let (form, seconds) = piece.split_once(' ')?;
    let time = now.minus(Duration::from_secs(seconds.parse().ok()?));
    if form == "rfc3339" {
        return Some(time.to_string());
    }
    let time = jiff::Timestamp::from_second(time.0.div_euclid(1_000_000)).ok()?;
    jiff::fmt::rfc2822::to_string(&time.to_zoned(jiff::tz::TimeZone::UTC)).ok()
}
