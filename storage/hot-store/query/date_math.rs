//! Dates as Elasticsearch reads them: ISO 8601 in any precision, epoch numbers, and date math.
//! Source: <https://www.elastic.co/guide/en/elasticsearch/reference/8.19/common-options.html#date-math>.

use contract::{SearchError, Timestamp};
use jiff::civil::{Date, DateTime, Time};
use jiff::{SignedDuration, Span};

use super::ast::Scalar;
use super::error::{Result, bad, illegal};

const MICROS_PER_MILLI: i64 = 1_000;
const MICROS_PER_SECOND: i64 = 1_000_000;

/// What a column of dates is read by unless the query says otherwise.
const DEFAULT_FORMAT: &str = "strict_date_optional_time||epoch_millis";

/// The formats that are known; all that are not epochs are read by the one ISO 8601 reader.
const FORMATS: &[&str] = &[
    "date",
    "date_optional_time",
    "date_time",
    "date_time_no_millis",
    "epoch_millis",
    "epoch_second",
    "strict_date",
    "strict_date_optional_time",
    "strict_date_optional_time_nanos",
    "strict_date_time",
    "strict_date_time_no_millis",
    "yyyy",
    "yyyy-MM",
    "yyyy-MM-dd",
    "yyyy-MM-dd HH:mm:ss",
    "yyyy-MM-dd'T'HH:mm:ss",
    "yyyy-MM-dd'T'HH:mm:ss.SSSZ",
    "yyyy-MM-dd'T'HH:mm:ssZ",
];

/// How dates of one query are read.
#[derive(Clone, Copy, Debug)]
pub(super) struct DateReader<'a> {
    now: Timestamp,
    format: &'a str,
    /// Seconds east of UTC for dates without a zone, and for rounding.
    zone_seconds: i64,
}

impl<'a> DateReader<'a> {
    /// A reader at `now` with the `format` and `time_zone` of a query.
    pub(super) fn new(now: Timestamp, format: Option<&'a str>, time_zone: Option<&str>) -> Result<Self> {
        let format = format.unwrap_or(DEFAULT_FORMAT);
        for part in format.split("||") {
            if !FORMATS.contains(&part) {
                return Err(illegal(format!(
                    "Invalid format: [{part}] is not supported; supported are [{}]",
                    FORMATS.join(", ")
                )));
            }
        }
        let zone_seconds = time_zone.map_or(Ok(0), zone_seconds)?;
        Ok(Self { now, format, zone_seconds })
    }

    /// The same reader for dates in another zone.
    pub(super) fn in_zone(self, zone_seconds: i64) -> Self {
        Self { zone_seconds, ..self }
    }

    /// Reads a date. With `up` the last microsecond that the text still means, else the first:
    /// `2015-01-01` means the whole day, a text with milliseconds the whole millisecond.
    pub(super) fn read(&self, value: &Scalar, up: bool) -> Result<Timestamp> {
        match value {
            Scalar::Integer(number) => self.epoch(*number, up),
            Scalar::Float(number) if number.is_finite() => self.epoch(*number as i64, up),
            Scalar::Text(text) => self.text(text, up),
            other => Err(self.wrong(&other.text())),
        }
    }

    fn epoch(&self, number: i64, up: bool) -> Result<Timestamp> {
        let unit = if self.format.split("||").any(|part| part == "epoch_second") {
            MICROS_PER_SECOND
        } else {
            MICROS_PER_MILLI
        };
        let micros = number.checked_mul(unit).ok_or_else(|| self.wrong(&number.to_string()))?;
        self.check(Timestamp(micros.saturating_add(if up { unit - 1 } else { 0 })), &number.to_string())
    }

    fn text(&self, text: &str, up: bool) -> Result<Timestamp> {
        let text = text.trim();
        let (anchor, math) = match text.strip_prefix("now") {
            Some(math) => (self.now, math),
            None => match text.split_once("||") {
                // The anchor of a sum is its start, whatever the end asked for.
                Some((anchor, math)) => (self.plain(anchor, false)?, math),
                None => return self.plain(text, up),
            },
        };
        self.check(self.math(anchor, math, up).ok_or_else(|| self.wrong(text))?, text)
    }

    fn plain(&self, text: &str, up: bool) -> Result<Timestamp> {
        let digits = text.strip_prefix('-').unwrap_or(text);
        let is_year = digits.len() == 4 && !self.format.starts_with("epoch");
        if !is_year && !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return self.epoch(text.parse().map_err(|_| self.wrong(text))?, up);
        }
        let micros = iso(text, self.zone_seconds, up).ok_or_else(|| self.wrong(text))?;
        self.check(Timestamp(micros), text)
    }

    /// Applies `+1M-2d/d`.
    fn math(&self, anchor: Timestamp, math: &str, up: bool) -> Option<Timestamp> {
        let mut local = civil(anchor.0.checked_add(self.zone_seconds * MICROS_PER_SECOND)?)?;
        let mut rest = math.as_bytes();
        while let Some((operation, after)) = rest.split_first() {
            let digits = after.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let (number, after) = after.split_at(digits);
            let (unit, after) = after.split_first()?;
            let number = if number.is_empty() { 1 } else { std::str::from_utf8(number).ok()?.parse().ok()? };
            local = match operation {
                b'+' => add(local, *unit, number)?,
                b'-' => add(local, *unit, -number)?,
                b'/' if digits == 0 && up => {
                    let next = add(floor(local, *unit)?, *unit, 1)?;
                    next.checked_sub(SignedDuration::from_micros(1)).ok()?
                }
                b'/' if digits == 0 => floor(local, *unit)?,
                _ => return None,
            };
            rest = after;
        }
        Some(Timestamp(micros(local)? - self.zone_seconds * MICROS_PER_SECOND))
    }

    /// Only what tantivy's nanoseconds can hold.
    fn check(&self, time: Timestamp, text: &str) -> Result<Timestamp> {
        let micros_max = i64::MAX / 1_000;
        if (-micros_max..=micros_max).contains(&time.0) { Ok(time) } else { Err(self.wrong(text)) }
    }

    fn wrong(&self, text: &str) -> SearchError {
        bad("parse_exception", format!("failed to parse date field [{text}] with format [{}]", self.format))
    }
}

/// Reads `+01:00`, `-0530`, `Z`, `UTC`; names of places are not known.
pub(super) fn zone_seconds(text: &str) -> Result<i64> {
    offset(text)
        .ok_or_else(|| illegal(format!("time_zone [{text}] is not supported; give an offset as [+01:00], or [UTC]")))
}

fn offset(text: &str) -> Option<i64> {
    if ["Z", "z", "UTC", "GMT"].contains(&text) {
        return Some(0);
    }
    let (sign, digits) = match text.as_bytes().first()? {
        b'+' => (1, &text[1..]),
        b'-' => (-1, &text[1..]),
        _ => return None,
    };
    let digits = digits.replacen(':', "", 1);
    if ![2, 4].contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let hours: i64 = digits[..2].parse().ok()?;
    let minutes: i64 = if digits.len() == 4 { digits[2..].parse().ok()? } else { 0 };
    (hours <= 18 && minutes < 60).then_some(sign * (hours * 3_600 + minutes * 60))
}

/// Reads `2015`, `2015-01`, `2015-01-01`, `2015-01-01T12`, … `2015-01-01T12:30:45.123456+01:00`, in microseconds.
fn iso(text: &str, zone_seconds: i64, up: bool) -> Option<i64> {
    if !text.is_ascii() {
        return None;
    }
    let (date, time) = match text.find(['T', 't', ' ']) {
        Some(place) => (&text[..place], Some(&text[place + 1..])),
        None => (text, None),
    };
    let mut parts = date.split('-');
    let year = number(parts.next()?, 4)?;
    let month = optional(parts.next())?;
    let day = optional(parts.next())?;
    if parts.next().is_some() || (time.is_some() && day.is_none()) {
        return None;
    }
    let first = Date::new(year, month.unwrap_or(1) as i8, day.unwrap_or(1) as i8).ok()?;
    let Some(time) = time.filter(|time| !time.is_empty()) else {
        let start = DateTime::from_parts(first, Time::midnight());
        let unit = if month.is_none() { b'y' } else { [b'M', b'd'][usize::from(day.is_some())] };
        let end = if up { micros(add(start, unit, 1)?)? - 1 } else { micros(start)? };
        return Some(end - zone_seconds * MICROS_PER_SECOND);
    };
    let zone_at = time.find(['Z', 'z', '+', '-']).unwrap_or(time.len());
    let (clock, zone) = time.split_at(zone_at);
    let zone_seconds = if zone.is_empty() { zone_seconds } else { offset(zone)? };
    let (start, length) = clock_micros(clock)?;
    let day_start = micros(DateTime::from_parts(first, Time::midnight()))?;
    Some(day_start + start + if up { length - 1 } else { 0 } - zone_seconds * MICROS_PER_SECOND)
}

/// Microseconds since midnight of `12`, `12:30`, `12:30:45`, `12:30:45.123456`, and how many are meant.
fn clock_micros(clock: &str) -> Option<(i64, i64)> {
    let (clock, fraction) = match clock.split_once(['.', ',']) {
        Some((clock, fraction)) => (clock, Some(fraction)),
        None => (clock, None),
    };
    let mut parts = clock.split(':');
    let hour = i64::from(number(parts.next()?, 2)?);
    let minute = optional(parts.next())?.map(i64::from);
    let second = optional(parts.next())?.map(i64::from);
    if parts.next().is_some() || hour > 23 || minute.unwrap_or(0) > 59 || second.unwrap_or(0) > 59 {
        return None;
    }
    let seconds = hour * 3_600 + minute.unwrap_or(0) * 60 + second.unwrap_or(0);
    let whole = seconds * MICROS_PER_SECOND;
    match (minute, second, fraction) {
        (None, _, None) => Some((whole, 3_600 * MICROS_PER_SECOND)),
        (_, None, None) => Some((whole, 60 * MICROS_PER_SECOND)),
        (_, Some(_), None) => Some((whole, MICROS_PER_SECOND)),
        (_, Some(_), Some(fraction)) => {
            if fraction.is_empty() || fraction.len() > 9 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            let nanos: i64 = format!("{fraction:0<9}").parse().ok()?;
            Some((whole + nanos / 1_000, if fraction.len() <= 3 { MICROS_PER_MILLI } else { 1 }))
        }
        (_, None, Some(_)) => None,
    }
}

fn number(text: &str, digits: usize) -> Option<i16> {
    let is_number = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok())?
}

/// A part that may be missing, of two digits; none if it is there and is no number.
fn optional(part: Option<&str>) -> Option<Option<i16>> {
    match part {
        None => Some(None),
        Some(part) => number(part, 2).map(Some),
    }
}

/// The wall-clock time at these microseconds since 1970.
pub(super) fn civil(micros: i64) -> Option<DateTime> {
    let seconds = SignedDuration::from_micros(micros);
    DateTime::from_parts(Date::constant(1970, 1, 1), Time::midnight()).checked_add(seconds).ok()
}

/// Microseconds since 1970 of a wall-clock time.
pub(super) fn micros(time: DateTime) -> Option<i64> {
    let epoch = DateTime::from_parts(Date::constant(1970, 1, 1), Time::midnight());
    i64::try_from(time.duration_since(epoch).as_micros()).ok()
}

/// The time moved by `number` of the unit `y M q w d h H m s`; `q` is a quarter.
pub(super) fn add(time: DateTime, unit: u8, number: i64) -> Option<DateTime> {
    let span = Span::new();
    let span = match unit {
        b'y' => span.try_years(number),
        b'q' => span.try_months(number.checked_mul(3)?),
        b'M' => span.try_months(number),
        b'w' => span.try_weeks(number),
        b'd' => span.try_days(number),
        b'h' | b'H' => span.try_hours(number),
        b'm' => span.try_minutes(number),
        b's' => span.try_seconds(number),
        _ => return None,
    };
    time.checked_add(span.ok()?).ok()
}

/// The start of the unit that the time lies in; weeks start on Monday.
pub(super) fn floor(time: DateTime, unit: u8) -> Option<DateTime> {
    let date = time.date();
    let (date, clock) = match unit {
        b'y' => (date.first_of_year(), Time::midnight()),
        b'q' => (Date::new(date.year(), (date.month() - 1) / 3 * 3 + 1, 1).ok()?, Time::midnight()),
        b'M' => (date.first_of_month(), Time::midnight()),
        b'w' => {
            let days = i64::from(date.weekday().to_monday_zero_offset());
            (date.checked_sub(Span::new().days(days)).ok()?, Time::midnight())
        }
        b'd' => (date, Time::midnight()),
        b'h' | b'H' => (date, Time::new(time.hour(), 0, 0, 0).ok()?),
        b'm' => (date, Time::new(time.hour(), time.minute(), 0, 0).ok()?),
        b's' => (date, Time::new(time.hour(), time.minute(), time.second(), 0).ok()?),
        _ => return None,
    };
    Some(DateTime::from_parts(date, clock))
}

/// As Elasticsearch writes a date: `2015-01-01T00:00:00.000Z`, with the offset if there is one.
pub(super) fn write(micros: i64, zone_seconds: i64) -> String {
    let Some(local) = micros.checked_add(zone_seconds * MICROS_PER_SECOND).and_then(civil) else {
        return format!("{micros} µs");
    };
    let zone = match zone_seconds {
        0 => "Z".to_owned(),
        seconds => {
            let sign = if seconds < 0 { '-' } else { '+' };
            format!("{sign}{:02}:{:02}", seconds.abs() / 3_600, seconds.abs() / 60 % 60)
        }
    };
    let (date, time) = (local.date(), local.time());
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}{zone}",
        date.year(),
        date.month(),
        date.day(),
        time.hour(),
        time.minute(),
        time.second(),
        time.millisecond()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, up: bool) -> String {
        let now = Timestamp::parse_rfc3339("2026-11-22T12:34:56.789012Z").expect("valid");
        let reader = DateReader::new(now, None, None).expect("valid");
        match reader.read(&Scalar::Text(text.to_owned()), up) {
            Ok(time) => time.to_string(),
            Err(error) => error.kind.to_owned(),
        }
    }

    #[test]
    fn a_date_means_its_first_and_last_microsecond() {
        let cases = [
            ("2015", "2015-01-01T00:00:00Z", "2015-12-31T23:59:59.999999Z"),
            ("2016-02", "2016-02-01T00:00:00Z", "2016-02-29T23:59:59.999999Z"),
            ("2015-01-01", "2015-01-01T00:00:00Z", "2015-01-01T23:59:59.999999Z"),
            ("2015-01-01T12", "2015-01-01T12:00:00Z", "2015-01-01T12:59:59.999999Z"),
            ("2015-01-01T12:30:45Z", "2015-01-01T12:30:45Z", "2015-01-01T12:30:45.999999Z"),
            ("2015-01-01T12:30:45.12+01:00", "2015-01-01T11:30:45.12Z", "2015-01-01T11:30:45.120999Z"),
            ("2015-01-01 12:30:45.123456", "2015-01-01T12:30:45.123456Z", "2015-01-01T12:30:45.123456Z"),
            ("1420070400000", "2015-01-01T00:00:00Z", "2015-01-01T00:00:00.000999Z"),
            ("now", "2026-11-22T12:34:56.789012Z", "2026-11-22T12:34:56.789012Z"),
            ("now-1d/d", "2026-11-21T00:00:00Z", "2026-11-21T23:59:59.999999Z"),
            ("now/w", "2026-11-16T00:00:00Z", "2026-11-22T23:59:59.999999Z"),
            ("now+1h-30m/h", "2026-11-22T13:00:00Z", "2026-11-22T13:59:59.999999Z"),
            ("2015-01-31||+1M/d", "2015-02-28T00:00:00Z", "2015-02-28T23:59:59.999999Z"),
            ("2015-01-01||/M", "2015-01-01T00:00:00Z", "2015-01-31T23:59:59.999999Z"),
        ];
        for (text, first, last) in cases {
            assert_eq!(read(text, false), first, "{text}");
            assert_eq!(read(text, true), last, "{text}");
        }
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in [
            "",
            "yesterday",
            "2015-13-01",
            "2015-02-30",
            "now+1x",
            "now-",
            "now/2d",
            "2015-01-01T25",
            "é",
            "2015-01-01T12:30:45+99:00",
            "now+9999999999999999d",
            "99999999999999999999",
            "2015-01-01T1:2:3",
        ] {
            assert_eq!(read(text, false), "parse_exception", "{text}");
        }
        assert!(DateReader::new(Timestamp(0), Some("dd.MM.yyyy"), None).is_err());
        assert!(DateReader::new(Timestamp(0), None, Some("Europe/Berlin")).is_err());
    }

    #[test]
    fn dates_without_a_zone_are_read_in_the_zone_of_the_query() {
        let reader = DateReader::new(Timestamp(0), None, Some("-05:00")).expect("valid");
        let time = reader.read(&Scalar::Text("2015-01-01".to_owned()), false).expect("valid");
        assert_eq!(time.to_string(), "2015-01-01T05:00:00Z");
        assert_eq!(write(time.0, -5 * 3_600), "2015-01-01T00:00:00.000-05:00");
    }
}
