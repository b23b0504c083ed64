//! The forms in which GitHub writes a time.

use contract::Timestamp;

/// Reads `2015-01-01T15:00:00Z` (RFC 3339, any offset) or, as the timeline before 2015 wrote it,
/// `2012/04/11 15:01:33 -0700`.
pub(super) fn parse_time(text: &str) -> Option<Timestamp> {
    Timestamp::parse_rfc3339(text).or_else(|| parse_timeline(text))
}

fn parse_timeline(text: &str) -> Option<Timestamp> {
    let well_formed = text.is_ascii() && text.len() == "2012/04/11 15:01:33 -0700".len() && &text[10..11] == " ";
    if !well_formed {
        return None;
    }
    let date = text[..10].replace('/', "-");
    Timestamp::parse_rfc3339(&format!("{date}T{}{}:{}", &text[11..19], text[19..23].trim_start(), &text[23..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_time_are_read() {
        let read = |text| parse_time(text).map(|time| time.to_string());
        assert_eq!(read("2015-01-01T15:00:00Z").as_deref(), Some("2015-01-01T15:00:00Z"));
        assert_eq!(read("2012-04-11T15:01:33-07:00").as_deref(), Some("2012-04-11T22:01:33Z"));
        assert_eq!(read("2012/04/11 15:01:33 -0700").as_deref(), Some("2012-04-11T22:01:33Z"));
        for wrong in ["", "yesterday", "2012/04/11 15:01:33", "2012/13/11 15:01:33 -0700", "ä012/04/11 15:01:33 -070"]
        {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
