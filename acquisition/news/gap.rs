//! What a poll saw of a feed and what it knows it missed.

use contract::{CollectorId, Coverage, CoverageKind, RawRecord, Timestamp};

use super::feed_state::News;

/// What is estimated at the most: a feed that is busier than this is not polled often enough to say.
const MISSED_MAX: f64 = 1e6;

/// One line for what came, and one before it if the feed's entries do not reach back to one that is known.
/// `newest_before` is the newest entry of earlier polls.
pub(super) fn coverage(
    collector: &CollectorId,
    news: &News,
    newest_before: Option<Timestamp>,
    now: Timestamp,
) -> Vec<Coverage> {
    let line = |kind, from: Timestamp, to: Timestamp, records, reason: String| Coverage {
        source: "news".to_owned(),
        collector: collector.0.clone(),
        kind,
        from,
        to: to.max(Timestamp(from.0.saturating_add(1))),
        records,
        reason,
    };
    let times = || news.records.iter().map(|record| record.event_time.min(now));
    let (Some(oldest), Some(newest)) = (times().min(), times().max()) else { return Vec::new() };
    let end = Timestamp(newest.0.saturating_add(1));
    let count = news.records.len() as u64;
    let covered = |from| line(CoverageKind::Covered, from, end, count, "one poll of the feed".to_owned());
    match newest_before.filter(|_| news.is_known_feed) {
        Some(before) if !news.meets_known && oldest > before => {
            let (missed, how) = estimate(&news.records, oldest.0.saturating_sub(before.0), now);
            let reason = format!("the feed's oldest entry is newer than the newest one known; {how}");
            vec![line(CoverageKind::Missed, before, oldest, missed, reason), covered(oldest)]
        }
        before => vec![covered(before.unwrap_or(oldest).min(newest))],
    }
}

/// What was missed is taken to have been as busy as what was seen; where entries have no time, at least one.
fn estimate(records: &[RawRecord], gap_micros: i64, now: Timestamp) -> (u64, String) {
    let dated =
        || records.iter().filter(|record| record.event_time != record.fetched_at).map(|r| r.event_time.min(now));
    let count = dated().count();
    let (Some(first), Some(last)) = (dated().min(), dated().max()) else {
        return (1, "at least one, since its entries have no times".to_owned());
    };
    let seen_seconds = last.since(first).as_secs_f64();
    if count < 2 || seen_seconds < 1.0 {
        return (1, "at least one, since its entries tell no pace".to_owned());
    }
    let gap_seconds = gap_micros as f64 / 1e6;
    let missed = ((count - 1) as f64 / seen_seconds * gap_seconds - 1.0).round().clamp(1.0, MISSED_MAX);
    (missed as u64, format!("estimated from {count} entries in {seen_seconds:.0} s"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_700_000_000_000_000);

    fn minutes(minutes: i64) -> Timestamp {
        Timestamp(NOW.0 + minutes * 60_000_000)
    }

    /// News of entries at minutes before now; 0 is an entry without a time.
    fn news(entries: &[i64], meets_known: bool) -> News {
        let record = |&at: &i64| RawRecord {
            id: at.to_string().into(),
            event_time: minutes(at),
            fetched_at: NOW,
            body: Vec::new().into(),
        };
        News { records: entries.iter().map(record).collect(), meets_known, is_known_feed: true }
    }

    fn lines(news: &News, before: Option<Timestamp>) -> Vec<(CoverageKind, Timestamp, Timestamp, u64)> {
        let lines = coverage(&CollectorId("news/feed/x".to_owned()), news, before, NOW);
        lines.into_iter().map(|line| (line.kind, line.from, line.to, line.records)).collect()
    }

    fn after(time: Timestamp) -> Timestamp {
        Timestamp(time.0 + 1)
    }

    #[test]
    fn entries_that_meet_a_known_one_leave_no_gap() {
        let seen = lines(&news(&[-10, -20], true), Some(minutes(-30)));
        assert_eq!(seen, [(CoverageKind::Covered, minutes(-30), after(minutes(-10)), 2)]);
        assert_eq!(lines(&news(&[], true), Some(minutes(-30))), []);
    }

    #[test]
    fn a_feed_that_moved_on_leaves_a_gap_with_an_estimate() {
        let seen = lines(&news(&[-10, -20, -30], false), Some(minutes(-100)));
        let missed = (CoverageKind::Missed, minutes(-100), minutes(-30), 6);
        assert_eq!(seen, [missed, (CoverageKind::Covered, minutes(-30), after(minutes(-10)), 3)]);
    }

    #[test]
    fn entries_without_times_are_missed_by_one_at_least() {
        let seen = lines(&news(&[0, 0], false), Some(minutes(-100)));
        assert_eq!(seen[0], (CoverageKind::Missed, minutes(-100), NOW, 1));
    }

    #[test]
    fn a_first_poll_and_old_entries_added_later_leave_no_gap() {
        let first = News { is_known_feed: false, ..news(&[-10, -20], false) };
        assert_eq!(lines(&first, None), [(CoverageKind::Covered, minutes(-20), after(minutes(-10)), 2)]);
        let older = lines(&news(&[-200], false), Some(minutes(-100)));
        assert_eq!(older, [(CoverageKind::Covered, minutes(-200), after(minutes(-200)), 1)]);
    }
}
