//! How a feed does, as its cursor tells.

use std::fmt;

use contract::{Cursor, Timestamp};
use serde::Serialize;

use super::feed_state::State;

/// What a user wants to know of a feed. That it fails at the moment stands in the log and in `status` of a running
/// program: a failure is no progress, so no cursor tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FeedHealth {
    /// What the feed calls itself.
    pub title: Option<String>,
    /// When there was something new last.
    pub changed_at: Option<String>,
    /// Where it has moved to for good (301, 308).
    pub moved_to: Option<String>,
    /// Since when it says that it is gone for good (410).
    pub gone_since: Option<String>,
    /// The hub that sends what is new.
    pub hub: Option<String>,
}

impl FeedHealth {
    /// Reads the cursor of a feed's collector; none of what is no such cursor.
    pub fn read(cursor: &Cursor) -> Option<Self> {
        let state = State::read(cursor).ok()?;
        let written = |time: Timestamp| time.to_string();
        Some(Self {
            title: state.title,
            changed_at: state.changes.last().copied().map(written),
            moved_to: state.address.map(String::from),
            gone_since: state.gone_since.map(written),
            hub: state.subscription.map(|subscription| subscription.hub.into()),
        })
    }
}

/// One line; empty parts are left out.
impl fmt::Display for FeedHealth {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            ("new entries last", &self.changed_at),
            ("moved to", &self.moved_to),
            ("gone since", &self.gone_since),
            ("hub", &self.hub),
        ];
        let parts = parts.iter().filter_map(|(what, value)| value.as_ref().map(|value| format!("{what} {value}")));
        let line = parts.collect::<Vec<_>>().join(", ");
        out.write_str(if line.is_empty() { "no entries yet" } else { &line })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_tells_what_became_of_its_feed() {
        let mut state = State::default();
        state.gone_since = Some(Timestamp(0));
        state.changes.push(Timestamp(1_000_000));
        state.note_move(reqwest::Url::parse("https://new.example/").ok(), 1);
        let health = FeedHealth::read(&state.write().unwrap()).unwrap();
        let line =
            "new entries last 1970-01-01T00:00:01Z, moved to https://new.example/, gone since 1970-01-01T00:00:00Z";
        assert_eq!(health.to_string(), line);
        assert_eq!(FeedHealth::read(&Cursor::default()).unwrap().to_string(), "no entries yet");
        assert_eq!(FeedHealth::read(&Cursor("no cursor".to_owned())), None);
    }
}
