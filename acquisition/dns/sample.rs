//! The sample that ships with the program: made messages, as if they had just been seen.

use std::sync::{Arc, OnceLock};

use bytes::BytesMut;
use contract::{RawRecord, Timestamp};

use super::dnstap::{Dnstap, Moment};
use super::file::reading;
use super::settings::Settings;
use crate::file::{Adapt, open_bytes};
use crate::{Context, OpenFile};

/// A Frame Stream; see `sample/README.md` for how it was made.
static MESSAGES: &[u8] = include_bytes!("sample/messages.fstrm.gz");

/// The newest message of the sample, in seconds since 1970; a test holds this.
const NEWEST_SECONDS: i64 = 1_767_398_400;

/// Opens the sample. All times are moved by the same whole seconds, so that the newest is now.
///
/// # Panics
/// Never: the default settings are right.
pub(super) fn sample(context: &Context) -> OpenFile {
    let clock = context.clock.clone();
    let shift_seconds = OnceLock::new();
    let adapt: Adapt = Arc::new(move |record| {
        let shift = *shift_seconds.get_or_init(|| clock.now().0.div_euclid(1_000_000) - NEWEST_SECONDS);
        moved(record, shift)
    });
    let reading = reading(&Settings::default(), None).expect("the default settings are right");
    open_bytes("dns/sample", MESSAGES, adapt, context, reading)
}

/// The record with its times moved, in the body too.
fn moved(record: RawRecord, seconds: i64) -> RawRecord {
    let Ok(dnstap) = Dnstap::read(&record.body) else { return record };
    let moved =
        |time: Option<Moment>| time.map(|time| Moment { seconds: time.seconds.saturating_add_signed(seconds), ..time });
    let (query_time, response_time) = (moved(dnstap.query_time), moved(dnstap.response_time));
    let mut body = BytesMut::new();
    Dnstap { query_time, response_time, ..dnstap }.write(&mut body);
    let event_time = Timestamp(record.event_time.0 + seconds * 1_000_000);
    RawRecord { event_time, body: body.freeze(), ..record }
}
