//! ISO 8601 in its short and truncated forms. What stands after a date that was read is not looked at.

use contract::Timestamp;
use jiff::{ToSpan, civil};

use super::date::{micros_of, time_of_day, zone_seconds};

/// The digits of a date: `Y` and `y` of the year in four and in two, `M` month, `D` day, `O` day of the year; `-` must
/// stand there, `~` may.
const FORMS: &[&str] = &[
    "YYYY~MM~DD",
    "YYYY-MM",
    "YYYY~OOO",
    "yy~MM~DD",
    "yy~OOO",
    "YYYY",
    "-yy~MM",
    "-OOO",
    "-yy",
    "--MM~DD",
    "--MM",
    "---DD",
];

/// The point in time; what the form leaves out before its first digit is taken from `now`, and after its last is the
/// first of its kind.
pub(super) fn parse(text: &str, now: Timestamp) -> Option<Timestamp> {
    let (parts, rest) = FORMS.iter().find_map(|form| matched(form, text))?;
    let (year, month, day) = now.day().civil();
    let is_year_given = parts.year.is_some();
    let year = match parts.year {
        Some(two) if parts.is_short => i64::from(year) / 100 * 100 + two,
        Some(year) => year,
        None => i64::from(year),
    };
    let default_month = if is_year_given || parts.ordinal.is_some() { 1 } else { i64::from(month) };
    let month = parts.month.unwrap_or(default_month);
    let is_day_implied = is_year_given || parts.month.is_some() || parts.ordinal.is_some();
    let day = parts.day.unwrap_or(if is_day_implied { 1 } else { i64::from(day) });
    let first = civil::Date::new(i16::try_from(year).ok().filter(|year| *year > 0)?, 1, 1).ok()?;
    // A month 13 or a day 31 of June runs over, as the C library's `mktime` has it.
    let date = first.checked_add((month - 1).months()).ok()?;
    let date = date.checked_add((parts.ordinal.unwrap_or(day) - 1).days()).ok()?;
    Timestamp::in_calendar(micros_of(date) + clock(rest))
}

#[derive(Default)]
struct Parts {
    year: Option<i64>,
    is_short: bool,
    month: Option<i64>,
    day: Option<i64>,
    ordinal: Option<i64>,
}

fn matched<'a>(form: &str, text: &'a str) -> Option<(Parts, &'a str)> {
    let (mut parts, mut rest) = (Parts::default(), text);
    for kind in form.chars() {
        if kind == '~' {
            rest = rest.strip_prefix('-').unwrap_or(rest);
            continue;
        }
        let letter = rest.chars().next()?;
        rest = &rest[letter.len_utf8()..];
        if kind == '-' {
            (letter == '-').then_some(())?;
            continue;
        }
        let digit = i64::from(letter.to_digit(10)?);
        let part = match kind {
            'M' => &mut parts.month,
            'D' => &mut parts.day,
            'O' => &mut parts.ordinal,
            _ => &mut parts.year,
        };
        parts.is_short |= kind == 'y';
        let is_first_too_large =
            part.is_none() && digit > i64::from(kind == 'M') + 3 * i64::from(matches!(kind, 'D' | 'O'));
        if matches!(kind, 'M' | 'D' | 'O') && is_first_too_large {
            return None;
        }
        *part = Some(part.unwrap_or(0) * 10 + digit);
    }
    Some((parts, rest))
}

/// Microseconds from midnight of `t10:14:55.5+01:00` at the start of what follows the date; zero if there is no time.
fn clock(rest: &str) -> i64 {
    let time = rest.strip_prefix('t').unwrap_or(rest).trim_start();
    let end = time.find(|letter: char| !(letter.is_ascii_digit() || matches!(letter, ':' | '.' | ',')));
    let (time, zone) = time.split_at(end.unwrap_or(time.len()));
    if !time.contains(':') {
        return 0;
    }
    let zone = zone.split_whitespace().next().unwrap_or("");
    time_of_day(time).unwrap_or(0) - zone_seconds(zone).unwrap_or(0) * 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_forms_are_completed() {
        let now = Timestamp::parse_rfc3339("2026-05-06T07:08:09Z").unwrap();
        for (text, expected) in [
            ("20031231", "2003-12-31T00:00:00Z"),
            ("20031231t10:14:55z", "2003-12-31T10:14:55Z"),
            ("2003-12-31t10:14:55+0100", "2003-12-31T09:14:55Z"),
            ("2003-335", "2003-12-01T00:00:00Z"),
            ("2003335", "2003-12-01T00:00:00Z"),
            ("031231", "2003-12-31T00:00:00Z"),
            ("03335", "2003-12-01T00:00:00Z"),
            ("-0312", "2003-12-01T00:00:00Z"),
            ("-03-12", "2003-12-01T00:00:00Z"),
            ("-335", "2026-12-01T00:00:00Z"),
            ("--12-31", "2026-12-31T00:00:00Z"),
            ("--12", "2026-12-01T00:00:00Z"),
            ("---31", "2026-05-31T00:00:00Z"),
        ] {
            assert_eq!(parse(text, now).map(|time| time.to_string()).as_deref(), Some(expected), "{text}");
        }
        assert_eq!(parse("x", now), None);
        assert_eq!(parse("-", now), None);
    }
}
