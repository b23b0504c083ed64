//! Dates as feeds write them. The forms are tried in this order; what none reads is no date.
//!
//! | form | example | from |
//! | --- | --- | --- |
//! | W3CDTF, RFC 3339, with a blank too | `2003-12-31T10:14:55.5-08:00`, `2003-12`, `2003-12-31 10:14 PST` | <https://www.w3.org/TR/NOTE-datetime> |
//! | RFC 822 and 2822 | `Thu, 1 Jan 04 19:48:21 EST`, `Jan 1 2004`, `Thu, 01 Jan 2004 19:48 Etc/GMT` | <https://www.rfc-editor.org/rfc/rfc2822#section-3.3> |
//! | `asctime`, `date` | `Sun Jan  4 16:29:06 PST 2004` | C |
//! | Perforce | `Fri, 2006/09/15 08:19:53 EDT` | |
//! | seconds since 1970, ten digits | `1136073600` | |
//! | Hungarian, Greek, Korean, German, French | `Do, 01 Mai 2004`, see `date_words.rs` | |
//! | day, month, year with dots | `2.1.2004 10:00` | |
//! | ISO 8601, also its short forms | `20031231`, `2003-365`, `031231`, `-0312`, `--1231T10:14:55+0100` | ISO 8601:1988 |
//!
//! Two digits of a year are 1990 to 2089. A zone that is not known, or none, is UTC, as feedparser has it: of names only
//! those of RFC 822 and a few more are known. Fractions of a second are kept.

use contract::Timestamp;
use jiff::civil;

use super::date_words::{in_english, in_numbers, with_english_month};

/// Bytes of a text that is looked at; the longest date seen has 60.
const DATE_BYTES_MAX: usize = 100;

/// The point in time that a text states. `now` completes the forms of ISO 8601 that leave out the year or century.
pub(super) fn parse(text: &str, now: Timestamp) -> Option<Timestamp> {
    let text = text.trim();
    if text.is_empty() || text.len() > DATE_BYTES_MAX {
        return None;
    }
    let lower = text.to_lowercase();
    w3cdtf(&lower)
        .or_else(|| rfc822(&lower))
        .or_else(|| asctime(&lower))
        .or_else(|| perforce(&lower))
        .or_else(|| w3cdtf(&in_numbers(&lower)?))
        .or_else(|| rfc822(&in_english(text)?.to_lowercase()))
        .or_else(|| rfc822(&with_english_month(&lower)?))
        .or_else(|| dotted(&lower))
        .or_else(|| epoch_seconds(&lower))
        .or_else(|| super::date_iso::parse(&lower, now))
}

/// Date, `T` or blanks, time, and the zone attached or after blanks.
fn w3cdtf(text: &str) -> Option<Timestamp> {
    let (date, rest) = match text.split_once('t') {
        Some(parts) => parts,
        None => text.split_once(char::is_whitespace).unwrap_or((text, "")),
    };
    let mut numbers = date.trim().splitn(3, '-').map(|part| part.trim().parse::<i64>().ok());
    let year = date.trim().split('-').next().filter(|year| year.len() == 4 && is_digits(year))?;
    numbers.next();
    let month = numbers.next().unwrap_or(Some(1))?;
    let day = numbers.next().unwrap_or(Some(1))?;
    let rest = rest.trim();
    let zone_start = rest.find(|letter: char| !(letter.is_ascii_digit() || matches!(letter, ':' | '.' | ',')));
    let (time, zone) = rest.split_at(zone_start.unwrap_or(rest.len()));
    if time.is_empty() && !zone.is_empty() {
        return None;
    }
    moment([year.parse().ok()?, month, day], time_of_day(time)?, zone_seconds(zone.trim())?)
}

/// Words in the order day, month, year, time, zone; the day's name before, month and day swapped, zone and time missing.
fn rfc822(text: &str) -> Option<Timestamp> {
    let words = text.replace(',', " ");
    let mut words: Vec<&str> = words.split_whitespace().collect();
    if words.len() > 3 || words.first().is_some_and(|word| !starts_with_digit(word)) {
        let is_day = |word: &&str| word.get(..3).is_some_and(|start| DAYS.contains(&start));
        words.drain(..usize::from(words.first().is_some_and(is_day)));
    }
    // `01-Jan-2004` is one word.
    if let [first, rest @ ..] = words.as_slice()
        && first.bytes().filter(|byte| *byte == b'-').count() == 2
    {
        words = first.split('-').chain(rest.iter().copied()).collect();
    }
    let [first, second, year, rest @ ..] = words.as_slice() else { return None };
    let (day, month) = match month_number(second) {
        Some(month) => (first, month),
        None => (second, month_number(first)?),
    };
    let day = day.trim_end_matches(|letter: char| letter.is_ascii_alphabetic() || letter == '.').parse().ok()?;
    let year = full_year(year)?;
    let (time, zone) = match rest {
        [] => ("", ""),
        [time] => (*time, ""),
        [time, zone, ..] => (*time, *zone),
    };
    // 12 o'clock is the first hour of either half.
    let half = 12 * 3_600 * 1_000_000;
    let micros = match (time_of_day(time)?, zone) {
        (micros, "am") => micros % half,
        (micros, "pm") => micros % half + half,
        (micros, _) => micros,
    };
    moment([year, month, day], micros, zone_seconds(zone)?)
}

/// Day's name, month, day, time, zone or none, year.
fn asctime(text: &str) -> Option<Timestamp> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (month, day, time, zone, year) = match words.as_slice() {
        [_, month, day, time, year] => (month, day, time, "", year),
        [_, month, day, time, zone, year] => (month, day, time, *zone, year),
        _ => return None,
    };
    let date = [full_year(year)?, month_number(month)?, day.parse().ok()?];
    moment(date, time_of_day(time)?, zone_seconds(zone)?)
}

/// Day's name, `year/month/day`, time, zone.
fn perforce(text: &str) -> Option<Timestamp> {
    let rest = text.split_once(',').map_or(text, |(_, rest)| rest);
    let mut words = rest.split_whitespace();
    let date: Vec<i64> = words.next()?.split('/').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let date = date.try_into().ok().filter(|date: &[i64; 3]| date[0] > 31)?;
    let time = time_of_day(words.next().unwrap_or(""))?;
    moment(date, time, zone_seconds(words.next().unwrap_or(""))?)
}

/// Day, month, year, time, zone.
fn dotted(text: &str) -> Option<Timestamp> {
    let mut words = text.split_whitespace();
    let date = words.next()?.trim_end_matches([',', '.']);
    let [day, month, year] = date.split('.').collect::<Vec<_>>().try_into().ok()?;
    let year: i64 = Some(year).filter(|year| year.len() == 4)?.parse().ok()?;
    let date = [year, month.parse().ok()?, day.parse().ok()?];
    moment(date, time_of_day(words.next().unwrap_or(""))?, zone_seconds(words.next().unwrap_or(""))?)
}

/// What a program writes that takes a clock for a date.
fn epoch_seconds(text: &str) -> Option<Timestamp> {
    let seconds: i64 = Some(text).filter(|text| text.len() == 10 && is_digits(text))?.parse().ok()?;
    Timestamp::in_calendar(seconds * 1_000_000)
}

/// Year, month, day; then microseconds of the day; then seconds east of UTC.
fn moment([year, month, day]: [i64; 3], micros: i64, zone_seconds: i64) -> Option<Timestamp> {
    let (year, month, day) = (i16::try_from(year).ok()?, i8::try_from(month).ok()?, i8::try_from(day).ok()?);
    let date = civil::Date::new(year, month, day).ok().filter(|_| year > 0)?;
    Timestamp::in_calendar(micros_of(date) + micros - zone_seconds * 1_000_000)
}

/// The start of a day, as if it were in UTC.
pub(super) fn micros_of(date: civil::Date) -> i64 {
    let days = civil::date(1970, 1, 1).until(date).map_or(0, |span| span.get_days());
    i64::from(days) * 86_400_000_000
}

/// Microseconds of the day of `10:14:55.5`, also without seconds, minutes or all.
pub(super) fn time_of_day(text: &str) -> Option<i64> {
    let mut parts = text.split([':', '.', ',']).map(str::trim);
    let mut number = || match parts.next() {
        None | Some("") => Some(0),
        Some(part) => is_digits(part).then(|| part.parse::<i64>().ok()).flatten().filter(|value| *value < 100),
    };
    // What exceeds a clock runs over: 24:00, a leap second, `25:61`.
    let (hours, minutes, seconds) = (number()?, number()?, number()?);
    let fraction = text.split_once(['.', ',']).map_or("", |(_, fraction)| fraction);
    let is_plain = fraction.is_empty() || !is_digits(fraction);
    let micros = if is_plain { 0 } else { format!("{fraction:0<6.6}").parse().unwrap_or(0) };
    Some(((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + micros)
}

/// Seconds east of UTC of `+0100`, `-05:00`, `gmt+1`, `est`; zero for none and for a name that is not known.
pub(super) fn zone_seconds(text: &str) -> Option<i64> {
    let text = text.strip_prefix("etc/").unwrap_or(text);
    let text = match text.strip_prefix("gmt").or_else(|| text.strip_prefix("utc")) {
        Some(rest) if rest.starts_with(['+', '-']) => rest,
        _ => text,
    };
    let Some(sign) = text.chars().next().filter(|sign| matches!(sign, '+' | '-')) else {
        let known = ZONES.iter().find(|(name, _)| *name == text);
        return Some(known.map_or(0, |(_, hours)| hours * 3600));
    };
    let digits: String = text[1..].chars().filter(|letter| *letter != ':').collect();
    if !is_digits(&digits) || digits.len() > 6 {
        return None;
    }
    let (hours, minutes) = digits.split_at(digits.len().min(2));
    let seconds = hours.parse::<i64>().ok()? * 3600 + minutes.get(..2).unwrap_or("0").parse::<i64>().ok()? * 60;
    Some(if sign == '-' { -seconds } else { seconds })
}

fn full_year(text: &str) -> Option<i64> {
    let year: i64 = Some(text).filter(|text| is_digits(text) && text.len() <= 4)?.parse().ok()?;
    Some(match text.len() {
        1 | 2 if year < 90 => 2000 + year,
        1 | 2 => 1900 + year,
        _ => year,
    })
}

fn month_number(word: &str) -> Option<i64> {
    let start = word.get(..3)?;
    MONTHS.iter().position(|month| *month == start).map(|place| place as i64 + 1)
}

fn starts_with_digit(word: &str) -> bool {
    word.starts_with(|letter: char| letter.is_ascii_digit())
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

const DAYS: &[&str] = &["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

/// Hours east of UTC: RFC 822, section 5, and those that feeds use beside. Of the military letters only those that
/// RFC 822 got right by accident of sign are dependable, so only these are read as feedparser reads them.
const ZONES: &[(&str, i64)] = &[
    ("adt", -3),
    ("ast", -4),
    ("at", -4),
    ("edt", -4),
    ("est", -5),
    ("et", -5),
    ("cdt", -5),
    ("cst", -6),
    ("ct", -6),
    ("mdt", -6),
    ("mst", -7),
    ("mt", -7),
    ("pdt", -7),
    ("pst", -8),
    ("pt", -8),
    ("a", -1),
    ("n", 1),
    ("m", -12),
    ("y", 12),
    ("met", 1),
    ("mest", 2),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        let now = Timestamp::parse_rfc3339("2026-05-06T07:08:09Z").unwrap();
        parse(text, now).map_or_else(|| "none".to_owned(), |time| time.to_string())
    }

    #[test]
    fn w3cdtf_is_read_in_all_its_lengths() {
        for (text, expected) in [
            ("2003-12-31T10:14:55.5-08:00", "2003-12-31T18:14:55.5Z"),
            ("2003-12-31T10:14:55Z", "2003-12-31T10:14:55Z"),
            ("2003-12-31T10:14+0100", "2003-12-31T09:14:00Z"),
            ("2003-12-31 10:14:55 PST", "2003-12-31T18:14:55Z"),
            ("2003-12", "2003-12-01T00:00:00Z"),
            ("2003", "2003-01-01T00:00:00Z"),
            ("2003-13-31T10:14:55Z", "2004-01-31T10:14:55Z"),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn rfc_822_is_read_with_all_its_sins() {
        for (text, expected) in [
            ("Thu, 01 Jan 2004 19:48:21 GMT", "2004-01-01T19:48:21Z"),
            ("Thu,1 Jan 04 19:48 EST", "2004-01-02T00:48:00Z"),
            ("Thursday, January 1st, 2004 19:48:21 +0000", "2004-01-01T19:48:21Z"),
            ("Jan 1 2004 19:48:21 -0330", "2004-01-01T23:18:21Z"),
            ("01 Jan 99", "1999-01-01T00:00:00Z"),
            ("Thu, 01 Jan 2004 19:48:21", "2004-01-01T19:48:21Z"),
            ("Thu, 01 Jan 2004 19:48:21 GMT-05:00", "2004-01-02T00:48:21Z"),
            ("Thu, 01 Jan 2004 00:00:00 Etc/GMT", "2004-01-01T00:00:00Z"),
            ("Friday, January 29, 2021 04:42 PM", "2021-01-29T16:42:00Z"),
            ("01-Jan-2004 10:00:00", "2004-01-01T10:00:00Z"),
            ("Thu, 31 Jun 2004 19:48:21 GMT", "none"),
            ("Thu, 01 Foo 2004 19:48:21 GMT", "none"),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn other_forms_are_read() {
        for (text, expected) in [
            ("Sun Jan  4 16:29:06 PST 2004", "2004-01-05T00:29:06Z"),
            ("Sun Jan 4 16:29:06 2004", "2004-01-04T16:29:06Z"),
            ("Fri, 2006/09/15 08:19:53 EDT", "2006-09-15T12:19:53Z"),
            ("2004-július-13T9:15-05:00", "2004-07-13T14:15:00Z"),
            ("Κυρ, 11 Ιούλ 2004 12:00:00 EST", "2004-07-11T17:00:00Z"),
            ("2004년 05월 28일  01:31:15", "2004-05-27T16:31:15Z"),
            ("2004-05-25 오후 11:23:17", "2004-05-25T14:23:17Z"),
            ("Do, 01 Jan 2004 10:00:00 +0100", "2004-01-01T09:00:00Z"),
            ("Samstag, 1. Mai 2004", "2004-05-01T00:00:00Z"),
            ("Mi, 06 Okt 2004 10:00:00 GMT", "2004-10-06T10:00:00Z"),
            ("lun., 05 févr. 2004 10:00:00 +0100", "2004-02-05T09:00:00Z"),
            ("15 août 2004 10:00", "2004-08-15T10:00:00Z"),
            ("2.1.2004", "2004-01-02T00:00:00Z"),
            ("14.3.2022, 10:05", "2022-03-14T10:05:00Z"),
            ("1136073600", "2006-01-01T00:00:00Z"),
            ("yesterday", "none"),
            ("", "none"),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn what_the_zone_moves_out_of_the_calendar_is_no_date() {
        for text in ["0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-05:00", "00010101t00:00:00+01:00"] {
            assert_eq!(read(text), "none", "{text}");
        }
        assert_eq!(read("0001-01-01T00:00:00Z"), "0001-01-01T00:00:00Z");
    }

    #[test]
    fn no_text_brings_it_down() {
        for text in ["T", "-", "--", "+", ":", "t:", "é", "0t", "9999-99-99t99", "1 1 1 1 1", "---", "2003-12-31t+é"]
        {
            assert_ne!(read(text), text, "no time is written like that");
        }
    }
}
