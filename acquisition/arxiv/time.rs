//! The forms in which arXiv writes a time.

use contract::{Day, Timestamp};
use jiff::fmt::rfc2822::DateTimeParser;

/// RFC 2822 dates whose day of the week may be wrong.
static RFC_2822: DateTimeParser = DateTimeParser::new().relaxed_weekday(true);

/// Reads a day (`2007-03-30`, its midnight), RFC 3339 with any offset (`2007-04-02T19:18:42Z`), or RFC 2822
/// (`Mon, 2 Apr 2007 19:18:42 GMT`).
pub(super) fn parse_time(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    if let Some(day) = (text.len() == "2007-03-30".len()).then(|| Day::parse(text)).flatten() {
        return Some(day.start());
    }
    let from_mail = || {
        let time = RFC_2822.parse_timestamp(text).ok()?;
        Some(Timestamp(time.as_microsecond()))
    };
    Timestamp::parse_rfc3339(text).or_else(from_mail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_are_read() {
        for (text, expected) in [
            ("2007-03-30", "2007-03-30T00:00:00Z"),
            ("2016-05-26T17:59:46Z", "2016-05-26T17:59:46Z"),
            ("2025-01-15T00:00:00-05:00", "2025-01-15T05:00:00Z"),
            ("2025-09-18T04:00:02.388418+00:00", "2025-09-18T04:00:02.388418Z"),
            ("Mon, 2 Apr 2007 19:18:42 GMT", "2007-04-02T19:18:42Z"),
            ("Tue, 2 Apr 2007 19:18:42 GMT", "2007-04-02T19:18:42Z"),
            (" Thu, 18 Sep 2025 00:00:00 -0400\n", "2025-09-18T04:00:00Z"),
        ] {
            assert_eq!(parse_time(text).map(|time| time.to_string()).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn anything_else_is_none() {
        for text in ["", "yesterday", "2007", "2007-13-30", "2007/03/30", "1901-01-01T00:00+00:00x", "Mon, 2 Apr"] {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }
}
