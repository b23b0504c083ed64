//! Index names: which days an index holds, and which indices a request means.

use std::collections::BTreeMap;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use contract::{Day, SearchError, SourceId, Timestamp};

use crate::source::EVENT_TIME;

/// Rows by the index they belong to.
pub(crate) type Groups = BTreeMap<String, Vec<usize>>;

/// The days of one index, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Period {
    pub(crate) first: Day,
    pub(crate) last: Day,
}

impl Period {
    /// Whether it holds a moment, or what comes after it; any does where there is none.
    pub(crate) fn reaches(&self, since: Option<Timestamp>) -> bool {
        since.is_none_or(|since| self.last >= since.day())
    }
}

/// See [`contract::HotDrafts::boundary`], of a store that has indices of some periods.
pub(crate) fn boundary(periods: impl Iterator<Item = Period>, keeps_all: bool, since: Timestamp) -> Timestamp {
    let day = since.day();
    let holds = |period: &Period| (period.first..=period.last).contains(&day);
    let first = periods.filter(holds).map(|period| period.first).min().unwrap_or(day);
    if keeps_all { first.first_of_month().start() } else { first.start() }
}

/// `github-2026.11.22`.
pub(crate) fn daily_name(source: SourceId, day: Day) -> String {
    let (year, month, day) = day.civil();
    format!("{source}-{year:04}.{month:02}.{day:02}")
}

/// `github-2015.01`.
pub(crate) fn monthly_name(source: SourceId, day: Day) -> String {
    let (year, month, _) = day.civil();
    format!("{source}-{year:04}.{month:02}")
}

/// The days of an index of `source`; none when the name is not that of one.
pub(crate) fn period(source: SourceId, name: &str) -> Option<Period> {
    let date = name.strip_prefix(source.0)?.strip_prefix('-')?;
    if let Some(day) = Day::parse(&date.replace('.', "-")) {
        return (daily_name(source, day) == name).then_some(Period { first: day, last: day });
    }
    let first = Day::parse(&format!("{}-01", date.replace('.', "-")))?;
    let same_month = |day: Day| day.civil().1 == first.civil().1;
    let last = (27..=30).rev().map(|days| Day(first.0 + days)).find(|&day| same_month(day))?;
    (monthly_name(source, first) == name).then_some(Period { first, last })
}

/// The index of a day. One that is there already is used whatever the settings say, so that a day never stands in two after
/// `retention_days` was changed.
pub(crate) fn choose_name(source: SourceId, day: Day, keeps_all: bool, is_there: impl Fn(&str) -> bool) -> String {
    let (daily, monthly) = (daily_name(source, day), monthly_name(source, day));
    let by_month = match (is_there(&daily), is_there(&monthly)) {
        (true, _) => false,
        (false, true) => true,
        (false, false) => keeps_all,
    };
    if by_month { monthly } else { daily }
}

/// The rows by the index they belong to, without those before `first_day`.
pub(crate) fn by_index(batch: &RecordBatch, first_day: Option<Day>, name: impl Fn(Day) -> String) -> Groups {
    let times = batch.column(EVENT_TIME).as_primitive::<TimestampMicrosecondType>();
    let mut days: BTreeMap<Day, Vec<usize>> = BTreeMap::new();
    for (row, &time) in times.values().iter().enumerate() {
        days.entry(Timestamp(time).day()).or_default().push(row);
    }
    let mut groups = Groups::new();
    for (day, mut rows) in days {
        if first_day.is_none_or(|first| day >= first) {
            groups.entry(name(day)).or_default().append(&mut rows);
        }
    }
    groups
}

/// The names among `names`, in order, that an Elasticsearch index expression means: a comma-separated list of
/// names, aliases (one for each source), patterns with `*`, `_all`, and exclusions (`-github-2026.11.*`).
/// Source: <https://www.elastic.co/guide/en/elasticsearch/reference/8.19/api-conventions.html>.
///
/// # Errors
/// 404 for a name, not a pattern, that is not there.
pub(crate) fn resolve<'a>(
    expression: &str,
    names: &[&'a str],
    aliases: &[SourceId],
) -> Result<Vec<&'a str>, SearchError> {
    let mut chosen = vec![false; names.len()];
    for (place, part) in expression.split(',').map(str::trim).enumerate() {
        let (part, choose) = match part.strip_prefix('-') {
            Some(rest) if place > 0 => (rest, false),
            _ => (part, true),
        };
        let is_pattern = part.contains('*') || part.is_empty() || part == "_all";
        let pattern = if part.is_empty() || part == "_all" { "*" } else { part };
        let mut found = false;
        for alias in aliases.iter().filter(|alias| matches(pattern, alias.0)) {
            found = true;
            for (chosen, name) in chosen.iter_mut().zip(names) {
                if period(*alias, name).is_some() {
                    *chosen = choose;
                }
            }
        }
        for (chosen, name) in chosen.iter_mut().zip(names) {
            if matches(pattern, name) {
                found = true;
                *chosen = choose;
            }
        }
        if !found && !is_pattern {
            return Err(SearchError {
                status: 404,
                kind: "index_not_found_exception",
                reason: format!("no such index [{part}]"),
            });
        }
    }
    Ok(names.iter().zip(chosen).filter(|(_, chosen)| *chosen).map(|(name, _)| *name).collect())
}

/// Whether a name fits a pattern in which `*` stands for any run of characters. Linear in both but for
/// the last star's retries, so no pattern is slow.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut at, mut from) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while from < name.len() {
        if pattern.get(at) == Some(&b'*') {
            star = Some((at, from));
            at += 1;
        } else if pattern.get(at) == Some(&name[from]) {
            (at, from) = (at + 1, from + 1);
        } else if let Some((star_at, star_from)) = star {
            star = Some((star_at, star_from + 1));
            (at, from) = (star_at + 1, star_from + 1);
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    const GITHUB: SourceId = SourceId("github");
    const NAMES: [&str; 4] = ["arxiv-2026.11", "github-2026.11.21", "github-2026.11.22", "github-2026.12.01"];

    fn resolved(expression: &str) -> Vec<&'static str> {
        resolve(expression, &NAMES, &[SourceId("arxiv"), GITHUB, SourceId("news")]).unwrap()
    }

    #[test]
    fn a_name_tells_its_days_and_nothing_else_is_one() {
        let day = Day::parse("2024-02-29").unwrap();
        assert_eq!(period(GITHUB, "github-2024.02.29"), Some(Period { first: day, last: day }));
        let february = Period { first: Day::parse("2024-02-01").unwrap(), last: day };
        assert_eq!(period(GITHUB, "github-2024.02"), Some(february));
        assert_eq!(daily_name(GITHUB, day), "github-2024.02.29");
        assert_eq!(monthly_name(GITHUB, day), "github-2024.02");
        for other in ["github", "github-", "github-2024", "github-2024.2.29", "github-2024-02-29", "githubs-2024.02.29"]
        {
            assert_eq!(period(GITHUB, other), None, "{other}");
        }
    }

    #[test]
    fn aliases_patterns_lists_and_exclusions_choose_indices() {
        assert_eq!(resolved("github"), NAMES[1..]);
        assert_eq!(resolved("*hub"), NAMES[1..]);
        assert_eq!(resolved("github-*.11.*"), NAMES[1..3]);
        assert_eq!(resolved("_all"), NAMES);
        assert_eq!(resolved(""), NAMES);
        assert_eq!(resolved("*,-github-2026.11*"), [NAMES[0], NAMES[3]]);
        assert_eq!(resolved("github-2026.11.22,arxiv"), [NAMES[0], NAMES[2]]);
        assert_eq!(resolved("git*-2026.12.01"), [NAMES[3]]);
    }

    #[test]
    fn an_unknown_pattern_or_empty_alias_is_empty_but_an_unknown_name_is_not_found() {
        assert!(resolved("dns-*").is_empty());
        assert!(resolved("news").is_empty());
        let error = resolve("github,dns-2026.11.22", &NAMES, &[GITHUB]).unwrap_err();
        assert_eq!((error.status, error.kind), (404, "index_not_found_exception"));
        assert_eq!(error.reason, "no such index [dns-2026.11.22]");
    }
}
