//! Points in time and days, both UTC.

use std::fmt;
use std::time::Duration;

const MICROS_PER_DAY: i64 = 86_400_000_000;

/// A point in time: microseconds since 1970-01-01T00:00:00 UTC, leap seconds not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The day this point lies in.
    pub fn day(self) -> Day {
        Day(self.0.div_euclid(MICROS_PER_DAY) as i32)
    }

    /// This point moved by `duration` into the future; it stops at the end of the range.
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration.as_micros().min(i64::MAX as u128) as i64))
    }

    /// This point moved by `duration` into the past; it stops at the start of the range.
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(duration.as_micros().min(i64::MAX as u128) as i64))
    }

    /// How long after `earlier` this point lies; zero if it lies before.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// The point so many microseconds after 1970, if it lies in the years 0001 to 9999 as all readers of the stores have
    /// them; the last of these ends a day early, so that it does in every time zone.
    pub fn in_calendar(micros: i64) -> Option<Self> {
        let year_one = -62_135_596_800_000_000;
        (micros >= year_one && jiff::Timestamp::from_microsecond(micros).is_ok()).then_some(Self(micros))
    }

    /// Reads an RFC 3339 date and time with any offset: `2015-01-01T15:00:00Z`.
    /// Answers none for anything else, and for years outside 0001 to 9999.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let instant: jiff::Timestamp = text.parse().ok()?;
        Self::in_calendar(instant.as_microsecond())
    }
}

/// RFC 3339 in UTC with as many decimals as needed: `2015-01-01T15:00:00Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(instant) => instant.fmt(out),
            Err(_) => write!(out, "{} µs", self.0),
        }
    }
}

/// A day of UTC: days since 1970-01-01, as in Arrow's Date32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(pub i32);

impl Day {
    /// The first microsecond of the day.
    pub fn start(self) -> Timestamp {
        Timestamp(i64::from(self.0) * MICROS_PER_DAY)
    }

    /// Year, month (1 to 12) and day of the month, in the Gregorian calendar.
    #[expect(clippy::missing_panics_doc, reason = "every day is brought into the calendar's range first")]
    pub fn civil(self) -> (i16, i8, i8) {
        let date = jiff::civil::date(1970, 1, 1)
            .checked_add(jiff::Span::new().days(self.0.clamp(-719_162, 2_932_896)))
            .expect("years 0001 to 9999 are in jiff's range");
        (date.year(), date.month(), date.day())
    }

    /// The first day of its month.
    pub fn first_of_month(self) -> Self {
        Self(self.0 - i32::from(self.civil().2) + 1)
    }

    /// Reads `2026-11-22`.
    pub fn parse(text: &str) -> Option<Self> {
        let date: jiff::civil::Date = text.parse().ok()?;
        let epoch = jiff::civil::date(1970, 1, 1);
        Some(Self(date.since((jiff::Unit::Day, epoch)).ok()?.get_days()))
    }
}

/// ISO 8601: `2026-11-22`.
impl fmt::Display for Day {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.civil();
        write!(out, "{year:04}-{month:02}-{day:02}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_and_written_with_its_microseconds() {
        let time = Timestamp::parse_rfc3339("2015-02-01T01:00:00.00001+01:00").expect("valid");
        assert_eq!(time.to_string(), "2015-02-01T00:00:00.00001Z");
        assert_eq!(Timestamp::parse_rfc3339("2015-02-01"), None);
        assert_eq!(Timestamp::parse_rfc3339("-002015-02-01T00:00:00Z"), None);
    }

    #[test]
    fn times_outside_the_calendar_are_none() {
        for text in ["0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-05:00"] {
            assert_eq!(Timestamp::parse_rfc3339(text), None, "{text}");
        }
        let first = Timestamp::parse_rfc3339("0001-01-01T00:00:00Z").expect("valid");
        assert_eq!(Timestamp::in_calendar(first.0), Some(first));
        assert_eq!(Timestamp::in_calendar(first.0 - 1), None);
        assert_eq!(Timestamp::in_calendar(i64::MAX), None);
    }

    #[test]
    fn a_day_starts_at_midnight_also_before_1970() {
        let time = Timestamp::parse_rfc3339("1969-12-31T23:59:59Z").expect("valid");
        assert_eq!(time.day(), Day(-1));
        assert_eq!(time.day().to_string(), "1969-12-31");
        assert_eq!(Day::parse("1969-12-31"), Some(Day(-1)));
        assert!(time.day().start() < time);
        assert_eq!(time.day().first_of_month().to_string(), "1969-12-01");
    }
}
