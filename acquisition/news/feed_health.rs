//! How a feed does, as its cursor tells.
//!
//! | note | written |
//! | --- | --- |
//! | an answer | with the cursor when something is new, after a failure, and else once in six hours: the log would grow by megabytes a day if each of two thousand feeds said each time that nothing is new |
//! | a failure | each: they become fewer, down to one a day |

use std::fmt;
use std::time::Duration;

use contract::{Cursor, Timestamp};
use serde::{Deserialize, Serialize};

use super::feed_state::State;

/// For so long an answer that brings nothing is not noted.
const ANSWER_NOTED_FOR: Duration = Duration::from_secs(6 * 3600);

/// Characters of a failure's reason.
const REASON_CHARS_MAX: usize = 300;

/// What the cursor says beside what was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Noted {
    answered_at: Option<Timestamp>,
    /// From that answer to the next request.
    wait_seconds: u64,
    pub(super) failure: Option<Failure>,
}

/// That a feed fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failure {
    since: Timestamp,
    at: Timestamp,
    /// Polls in a row.
    polls: u32,
    reason: String,
    wait_seconds: u64,
}

impl Noted {
    /// Notes an answer, if that is due.
    pub(super) fn answered(&mut self, now: Timestamp, wait: Duration, is_news: bool) {
        let has_failed = self.failure.take().is_some();
        let is_old = self.answered_at.is_none_or(|at| now.since(at) >= ANSWER_NOTED_FOR);
        if is_news || has_failed || is_old {
            (self.answered_at, self.wait_seconds) = (Some(now), wait.as_secs());
        }
    }

    /// Notes a failure, which goes on from the one before.
    pub(super) fn failed(&mut self, now: Timestamp, wait: Duration, reason: &str) {
        let before = self.failure.take();
        self.failure = Some(Failure {
            since: before.as_ref().map_or(now, |before| before.since),
            at: now,
            polls: before.map_or(0, |before| before.polls).saturating_add(1),
            reason: reason.chars().take(REASON_CHARS_MAX).collect(),
            wait_seconds: wait.as_secs(),
        });
    }
}

/// Whether a feed answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FeedCondition {
    /// It was not asked yet.
    New,
    /// The last answer was good.
    Answers,
    /// It is asked again, later each time.
    Fails,
    /// It says that it is gone for good; it is asked each week.
    Gone,
}

/// What a user wants to know of a feed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FeedHealth {
    /// Whether it answers.
    pub state: FeedCondition,
    /// What the feed calls itself.
    pub title: Option<String>,
    /// When it answered last; six hours before the last answer at the most.
    pub answered_at: Option<String>,
    /// When there was something new last.
    pub changed_at: Option<String>,
    /// The failure, while it fails.
    pub failure: Option<FeedFailure>,
    /// When it is asked next; none where it was asked since, or no program runs.
    pub next_poll_at: Option<String>,
    /// From one request to the next, in seconds.
    pub interval_seconds: Option<u64>,
    /// Where it has moved to for good (301, 308).
    pub moved_to: Option<String>,
    /// Where it says that it moves to; believed when it says so again and again.
    pub moving_to: Option<String>,
    /// Since when it says that it is gone for good (410).
    pub gone_since: Option<String>,
    /// The hub that sends what is new.
    pub hub: Option<String>,
}

/// Why a feed fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FeedFailure {
    /// The first of the failures in a row.
    pub since: String,
    /// The last of them.
    pub at: String,
    /// How many.
    pub polls: u32,
    /// The reason of the last.
    pub reason: String,
}

impl FeedHealth {
    /// Reads the cursor of a feed's collector, empty where it has none; none of what is no such cursor.
    pub fn read(cursor: &Cursor, now: Timestamp) -> Option<Self> {
        let state = State::read(cursor).ok()?;
        let written = |time: Timestamp| time.to_string();
        let (noted, moving_to) = (state.noted.clone(), state.moving_to().map(String::from));
        let condition = match (&state.gone_since, &noted.failure, noted.answered_at.or(state.newest)) {
            (_, Some(_), _) => FeedCondition::Fails,
            (Some(_), None, _) => FeedCondition::Gone,
            (None, None, Some(_)) => FeedCondition::Answers,
            (None, None, None) => FeedCondition::New,
        };
        let asked = match &noted.failure {
            Some(failure) => Some((failure.at, failure.wait_seconds)),
            None => noted.answered_at.map(|at| (at, noted.wait_seconds)),
        };
        let asked = asked.filter(|_| condition != FeedCondition::Gone);
        let next = asked.and_then(|(at, wait)| at.0.checked_add(i64::try_from(wait).ok()?.checked_mul(1_000_000)?));
        Some(Self {
            state: condition,
            title: state.title,
            answered_at: noted.answered_at.map(written),
            changed_at: state.changes.last().copied().map(written),
            failure: noted.failure.map(FeedFailure::of),
            next_poll_at: next.map(Timestamp).filter(|&next| next > now).map(written),
            interval_seconds: asked.map(|(_, wait)| wait),
            moved_to: state.address.map(String::from),
            moving_to,
            gone_since: state.gone_since.map(written),
            hub: state.subscription.map(|subscription| subscription.hub.into()),
        })
    }
}

impl FeedFailure {
    fn of(failure: Failure) -> Self {
        let Failure { since, at, polls, reason, .. } = failure;
        Self { since: since.to_string(), at: at.to_string(), polls, reason }
    }
}

/// One line; empty parts are left out.
impl fmt::Display for FeedHealth {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.state, &self.failure) {
            (FeedCondition::New, _) => return out.write_str("not asked yet"),
            (FeedCondition::Answers, _) => out.write_str("answers")?,
            (FeedCondition::Gone, _) => out.write_str("gone, asked each week")?,
            (FeedCondition::Fails, None) => out.write_str("fails")?,
            (FeedCondition::Fails, Some(FeedFailure { since, at, polls, reason })) => {
                let times = if *polls == 1 { "once".to_owned() } else { format!("{polls} times, last {at}") };
                write!(out, "fails since {since} ({times}): {reason}")?;
            }
        }
        let interval = self.interval_seconds.map(|seconds| match seconds {
            0..120 => format!("{seconds} s"),
            120..7_200 => format!("{} min", seconds / 60),
            _ => format!("{} h", seconds / 3_600),
        });
        for (what, value) in [
            ("answered", &self.answered_at),
            ("new entries last", &self.changed_at),
            ("asked again after", &interval),
            ("next", &self.next_poll_at),
            ("moved to", &self.moved_to),
            ("moves to", &self.moving_to),
            ("gone since", &self.gone_since),
            ("hub", &self.hub),
        ] {
            if let Some(value) = value {
                write!(out, ", {what} {value}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(state: &State, now: i64) -> FeedHealth {
        FeedHealth::read(&state.write().unwrap(), Timestamp(now * 1_000_000)).unwrap()
    }

    #[test]
    fn a_cursor_tells_what_became_of_its_feed() {
        let mut state = State::default();
        assert_eq!(read(&state, 0).to_string(), "not asked yet");
        state.noted.answered(Timestamp(0), Duration::from_secs(1_800), true);
        state.changes.push(Timestamp(0));
        state.note_move(reqwest::Url::parse("https://new.example/").ok(), 2);
        let line = "answers, answered 1970-01-01T00:00:00Z, new entries last 1970-01-01T00:00:00Z, asked again after \
                    30 min, next 1970-01-01T00:30:00Z, moves to https://new.example/";
        assert_eq!(read(&state, 0).to_string(), line);
        assert_eq!(read(&state, 1_800).next_poll_at, None, "it was asked then, and nothing was new");
        state.noted.failed(Timestamp(1_800_000_000), Duration::from_secs(300), "the server answers 500");
        state.noted.failed(Timestamp(2_100_000_000), Duration::from_secs(600), "the server answers 502");
        let line = "fails since 1970-01-01T00:30:00Z (2 times, last 1970-01-01T00:35:00Z): the server answers 502, \
                    answered 1970-01-01T00:00:00Z, new entries last 1970-01-01T00:00:00Z, asked again after 10 min, \
                    next 1970-01-01T00:45:00Z, moves to https://new.example/";
        assert_eq!(read(&state, 2_200).to_string(), line);
        state.noted.failure = None;
        state.gone_since = Some(Timestamp(0));
        let gone = read(&state, 0);
        assert_eq!((gone.state, gone.next_poll_at), (FeedCondition::Gone, None));
        assert_eq!(FeedHealth::read(&Cursor("no cursor".to_owned()), Timestamp(0)), None);
    }

    #[test]
    fn an_answer_that_brings_nothing_is_noted_every_six_hours_and_after_a_failure() {
        let (hour, wait) = (3_600_000_000, Duration::from_secs(60));
        let mut noted = Noted::default();
        let mut at = |hours: i64, is_news: bool, fails: bool| {
            if fails {
                noted.failed(Timestamp(hours * hour), wait, &"x".repeat(1_000));
                assert!(serde_json::to_string(&noted).unwrap().len() < 600);
            }
            noted.answered(Timestamp(hours * hour), wait, is_news);
            noted.answered_at.map(|at| at.0 / hour)
        };
        let seen = [(1, true, false), (2, false, false), (7, false, false), (8, false, true), (9, true, false)];
        assert_eq!(seen.map(|(hours, is_news, fails)| at(hours, is_news, fails)), [1, 1, 7, 8, 9].map(Some));
    }
}
