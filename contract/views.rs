//! Views: questions whose answers are kept up to date.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};

use crate::{Day, Error, Positions, Result, SourceId, TableStream, Timestamp};

/// Answers views: what a batch run stored, merged with the rows that came since.
///
/// | case | what an answer holds |
/// | --- | --- |
/// | the view never ran, or its file changed since | the view over all rows: slower, and as right |
/// | rows came since the last run | their part is computed and merged |
/// | rows came for days that the last run made | as any other: what counts is the offset, not the time |
/// | a run ends while an answer is computed | the stored result and the rows past it, as they were when it began |
/// | rows were mended (`verify --repair`), or made anew (`reprocess`, which runs the views then) below the watermark | the old rows, until the next run, which makes their days anew |
#[async_trait]
pub trait Views: Send + Sync {
    /// All views, by name; with those that are refused.
    ///
    /// # Errors
    /// When the folder of views or a stored result cannot be read.
    async fn views(&self) -> Result<Vec<ViewSummary>>;

    /// Answers one view.
    ///
    /// # Errors
    /// `Change` for an unknown view, one that is refused, or a wrong request; `Retry` when a limit was reached.
    async fn view(&self, name: &str, request: &ViewRequest) -> Result<ViewAnswer>;
}

/// What is asked of a view.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ViewRequest {
    /// Only rows whose time is at this point or later; for a view that has one.
    pub from: Option<Timestamp>,
    /// Only rows whose time lies before this point.
    pub to: Option<Timestamp>,
    /// Only rows of the answer for which this SQL expression over its columns is true: `type = 'PushEvent'`.
    pub filter: Option<String>,
    /// The first so many rows of the answer.
    pub rows_max: Option<u64>,
}

impl ViewRequest {
    /// Reads a point in time as a person writes it: RFC 3339, a date, `now`, or `now-6h` (s, m, h, d).
    ///
    /// # Errors
    /// `Change`, with what would be right.
    pub fn parse_time(text: &str, now: Timestamp) -> Result<Timestamp> {
        let before_now = || {
            let past = text.strip_prefix("now")?;
            if past.is_empty() {
                return Some(now);
            }
            let ago = past.strip_prefix('-')?;
            let (count, unit) = ago.split_at_checked(ago.len().checked_sub(1)?)?;
            let seconds = match unit {
                "s" => 1,
                "m" => 60,
                "h" => 3_600,
                "d" => 86_400,
                _ => return None,
            };
            Some(now.minus(Duration::from_secs(count.parse::<u64>().ok()?.saturating_mul(seconds))))
        };
        let date = || Day::parse(text).map(Day::start);
        Timestamp::parse_rfc3339(text).or_else(date).or_else(before_now).ok_or_else(|| {
            Error::change(format!(
                "read the time `{text}`: write `2026-11-22T15:00:00Z`, `2026-11-22`, `now` or `now-6h` (s, m, h, d)"
            ))
        })
    }
}

/// An answer, and how far it reaches.
pub struct ViewAnswer {
    /// How far each layer reaches.
    pub boundary: Boundary,
    /// The rows.
    pub table: TableStream,
}

/// Up to where the batch layer answers, and up to where the speed layer does after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boundary {
    /// When the stored result was made; none where nothing is stored, and all was computed.
    pub batch_at: Option<Timestamp>,
    /// Every source that the view reads.
    pub sources: Vec<SourceBoundary>,
}

/// The boundary in one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceBoundary {
    /// The source.
    pub source: SourceId,
    /// The next offsets of the stored result: the speed layer begins there.
    pub watermark: Positions,
    /// The next offsets of the answer.
    pub rows_to: Positions,
    /// All that was in the store at this time is in the answer: now in the process that writes, else the last commit.
    pub fresh_to: Option<Timestamp>,
    /// Records known to be missed in the interval asked; estimated.
    pub missed_records: u64,
    /// Intervals known to be missed in it.
    pub missed_intervals: u64,
    /// The first and the last time that was covered, within the interval asked; none where nothing was.
    pub covered: Option<(Timestamp, Timestamp)>,
}

/// A line of `databroker views list`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewSummary {
    /// Its name.
    pub name: String,
    /// `shipped`, or its file.
    pub place: String,
    /// What it is for, or why it is refused.
    pub answers: Result<String, String>,
    /// How old its stored result may get.
    pub every: Duration,
    /// The stored result; none before the first run.
    pub stored: Option<StoredResult>,
}

/// What a run stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredResult {
    /// When the run began.
    pub at: Timestamp,
    /// Rows in the table.
    pub rows: u64,
    /// Whether it was made by the statement that the view's file has now.
    pub is_current: bool,
}

impl Boundary {
    /// `{"batch_at": …, "sources": [{"source", "watermark": {"0": 17}, "rows_to", "fresh_to", "covered": {"from", "to"},
    /// "missed": {"intervals", "records"}}]}`; times in RFC 3339, null where there is none.
    pub fn to_json(&self) -> Value {
        let sources = self.sources.iter().map(|source| {
            let covered = source.covered.map(|(from, to)| json!({"from": from.to_string(), "to": to.to_string()}));
            json!({
                "source": source.source.0,
                "watermark": source.watermark,
                "rows_to": source.rows_to,
                "fresh_to": source.fresh_to.map(|at| at.to_string()),
                "covered": covered,
                "missed": {"intervals": source.missed_intervals, "records": source.missed_records},
            })
        });
        json!({"batch_at": self.batch_at.map(|at| at.to_string()), "sources": sources.collect::<Vec<_>>()})
    }
}

impl ViewSummary {
    /// `{"name", "place", "answers", "refused", "every_seconds", "stored": {"at", "rows", "is_current"}}`; null where there
    /// is none.
    pub fn to_json(&self) -> Value {
        let stored = self
            .stored
            .as_ref()
            .map(|stored| json!({"at": stored.at.to_string(), "rows": stored.rows, "is_current": stored.is_current}));
        json!({
            "name": self.name,
            "place": self.place,
            "answers": self.answers.as_ref().ok(),
            "refused": self.answers.as_ref().err(),
            "every_seconds": self.every.as_secs(),
            "stored": stored,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_as_people_write_it() {
        let now = Timestamp::parse_rfc3339("2026-11-22T15:00:00Z").expect("a time");
        for (text, expected) in [
            ("2026-11-22T15:00:00+01:00", "2026-11-22T14:00:00Z"),
            ("2026-11-20", "2026-11-20T00:00:00Z"),
            ("now", "2026-11-22T15:00:00Z"),
            ("now-90m", "2026-11-22T13:30:00Z"),
            ("now-2d", "2026-11-20T15:00:00Z"),
        ] {
            assert_eq!(
                Some(ViewRequest::parse_time(text, now).expect(text)),
                Timestamp::parse_rfc3339(expected),
                "{text}"
            );
        }
        for text in ["", "now-", "now-h", "now+1h", "now-1w", "nowé", "yesterday", "2026-13-01"] {
            let error = ViewRequest::parse_time(text, now).expect_err(text).to_string();
            assert!(error.contains("write `2026-11-22T15:00:00Z`"), "{error}");
        }
    }
}
