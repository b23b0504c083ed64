//! When a feed is asked again: from how often it changes, and from what its publisher asks for.
//!
//! All of it follows from the cursor and the time, so that an answer 304 changes no cursor and a restart no schedule.

use std::time::Duration;

use contract::Timestamp;
use serde::{Deserialize, Serialize};

use super::settings::Settings;

/// Before it is known how often a feed changes.
const INTERVAL_FIRST: Duration = Duration::from_secs(30 * 60);

/// A feed that answers 410 is asked again after this: publishers come back.
pub(super) const GONE_INTERVAL: Duration = Duration::from_secs(7 * 86_400);

const HOUR: i64 = 3_600_000_000;

/// What a feed asks of those who poll it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Hints {
    /// Seconds that an answer stays good: the longest of `ttl`, `sy:updatePeriod` and the cache headers.
    pub(super) seconds: u64,
    /// Hours of the day, UTC, in which not to come: bit 0 is the hour from midnight. `skipHours` of RSS.
    pub(super) skip_hours: u32,
    /// Days not to come: bit 0 is Monday. `skipDays` of RSS.
    pub(super) skip_days: u8,
}

/// The days as `skipDays` names them.
pub(super) const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// The limits of a schedule, from the settings.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    min: Duration,
    max: Duration,
    pub(super) backoff_max: Duration,
}

impl Limits {
    pub(super) fn new(settings: &Settings) -> Self {
        let min = Duration::from_secs(settings.interval_seconds_min.clamp(1, 86_400));
        let week = 7 * 86_400;
        Self {
            min,
            max: Duration::from_secs(settings.interval_seconds_max.min(week)).max(min),
            backoff_max: Duration::from_secs(settings.backoff_seconds_max.min(week)).max(min),
        }
    }

    /// The wait after an answer. `changes` are the times at which there was something new, oldest first; `seed` tells
    /// feeds apart, so that those with the same interval drift away from each other.
    pub(super) fn wait(&self, changes: &[Timestamp], hints: &Hints, seed: u64, now: Timestamp) -> Duration {
        let asked = Duration::from_secs(hints.seconds).min(self.backoff_max);
        let wait = self.pace(changes, now).max(asked);
        let wait = wait + wait.mul_f64((seed % 1_000) as f64 / 20_000.0);
        wait + until_welcome(hints, now, wait)
    }

    /// The wait after so many failures in a row: twice as long each time, up to a day.
    pub(super) fn backoff(&self, failures: u32) -> Duration {
        let doubled = self.min.saturating_mul(1 << failures.saturating_sub(1).min(20));
        doubled.min(self.backoff_max)
    }

    /// The wait while a hub sends what is new.
    pub(super) fn quiet(&self) -> Duration {
        self.max
    }

    /// Half the mean time between changes, so that few are seen late; a feed that falls silent is asked less and less.
    fn pace(&self, changes: &[Timestamp], now: Timestamp) -> Duration {
        let (Some(&first), Some(&last)) = (changes.first(), changes.last()) else {
            return self.bounded(INTERVAL_FIRST);
        };
        let gaps = u32::try_from(changes.len() - 1).unwrap_or(u32::MAX);
        let mean = last.since(first).checked_div(gaps).unwrap_or(2 * INTERVAL_FIRST);
        self.bounded(mean.max(now.since(last)) / 2)
    }

    fn bounded(&self, interval: Duration) -> Duration {
        interval.clamp(self.min, self.max)
    }
}

/// How much later than `now + wait` the first hour begins that is not skipped.
fn until_welcome(hints: &Hints, now: Timestamp, wait: Duration) -> Duration {
    let due = now.0.saturating_add(i64::try_from(wait.as_micros()).unwrap_or(i64::MAX));
    let hour = due.div_euclid(HOUR);
    let is_welcome = |later: &i64| {
        let hour = hour + later;
        // 1970 began on a Thursday.
        let day = (hour.div_euclid(24) + 3).rem_euclid(7);
        hints.skip_hours & (1 << hour.rem_euclid(24)) == 0 && hints.skip_days & (1 << day) == 0
    };
    // Whoever skips all hours means something else.
    match (0..7 * 24).find(is_welcome) {
        None | Some(0) => Duration::ZERO,
        Some(later) => Timestamp((hour + later) * HOUR).since(Timestamp(due)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_700_000_000_000_000);

    fn limits() -> Limits {
        Limits::new(&Settings::default())
    }

    /// The wait in minutes after changes so many minutes ago.
    fn wait(minutes_ago: &[i64], hints: Hints) -> u64 {
        let changes: Vec<_> = minutes_ago.iter().map(|ago| Timestamp(NOW.0 - ago * 60_000_000)).collect();
        limits().wait(&changes, &hints, 0, NOW).as_secs() / 60
    }

    #[test]
    fn a_busy_feed_is_asked_often_and_a_quiet_one_seldom() {
        let none = Hints::default();
        assert_eq!(wait(&[], none), 30);
        assert_eq!(wait(&[0], none), 30);
        assert_eq!(wait(&[90, 60, 30, 0], none), 15);
        assert_eq!(wait(&[3, 2, 1, 0], none), 5, "not below the least");
        assert_eq!(wait(&[690, 660, 630, 600], none), 300, "it fell silent");
        assert_eq!(wait(&[20_000, 10_000], none), 360, "not above the most");
    }

    #[test]
    fn a_publisher_may_ask_for_less_up_to_a_day() {
        let hours = |hours: u64| Hints { seconds: hours * 3_600, ..Hints::default() };
        assert_eq!(wait(&[3, 2, 1, 0], hours(2)), 120);
        assert_eq!(wait(&[3, 2, 1, 0], hours(24 * 365)), 1_440);
        assert_eq!(wait(&[690, 600], hours(1)), 300, "less often than asked for is fine");
    }

    #[test]
    fn hours_in_which_nobody_is_welcome_are_waited_out() {
        // NOW is 22:13:20.
        let skip = |hours: &[u32]| Hints { skip_hours: hours.iter().map(|hour| 1 << hour).sum(), ..Hints::default() };
        assert_eq!(wait(&[], skip(&[21, 23])), 30);
        assert_eq!(wait(&[], skip(&[22, 23, 0])), 2 * 60 + 46);
        assert_eq!(wait(&[], Hints { skip_hours: (1 << 24) - 1, ..Hints::default() }), 30, "all hours");
    }

    #[test]
    fn days_on_which_nobody_is_welcome_are_waited_out() {
        // NOW is a Tuesday.
        let skip = |days: &[u8]| Hints { skip_days: days.iter().map(|day| 1 << day).sum(), ..Hints::default() };
        assert_eq!(wait(&[], skip(&[0, 2])), 30);
        assert_eq!(wait(&[], skip(&[1, 2])), 30 + 76 + 24 * 60);
        assert_eq!(wait(&[], skip(&[0, 1, 2, 3, 4, 5, 6])), 30, "all days");
    }

    #[test]
    fn failures_back_off_to_a_day_and_no_further() {
        let minutes: Vec<u64> = (1..12).map(|failures| limits().backoff(failures).as_secs() / 60).collect();
        assert_eq!(minutes, [5, 10, 20, 40, 80, 160, 320, 640, 1_280, 1_440, 1_440]);
        assert_eq!(limits().backoff(u32::MAX).as_secs(), 86_400);
    }

    #[test]
    fn feeds_of_the_same_pace_drift_apart() {
        let waits: std::collections::HashSet<_> =
            (0..100).map(|seed| limits().wait(&[], &Hints::default(), seed, NOW)).collect();
        assert_eq!(waits.len(), 100);
        assert!(waits.iter().all(|wait| (1_800..1_900).contains(&wait.as_secs())));
    }

    #[test]
    fn settings_out_of_range_are_bounded() {
        let wild = Settings {
            interval_seconds_min: u64::MAX,
            interval_seconds_max: 0,
            backoff_seconds_max: 0,
            ..Settings::default()
        };
        assert_eq!(Limits::new(&wild).wait(&[], &Hints::default(), 0, NOW), Duration::from_secs(86_400));
    }
}
