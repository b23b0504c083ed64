//! Where a feed's collector stands: its cursor.
//!
//! It is written with every harvest and, for all feeds, at the start of each segment of the log, so it is small: 1 to 3 kB.
//! What publishers put into it is bounded, so that it stays far below what the log takes of a cursor, 512 KiB.

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use contract::{Cursor, Error, RawRecord, Result, Timestamp};
use reqwest::Url;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use xxhash_rust::xxh3::xxh3_64;

use super::feed_health::Noted;
use super::schedule::Hints;
use super::split::ENTRIES_MAX;

/// Hashes of entries that the feed no longer shows but may show again (feeds shuffle).
const GONE_ENTRIES_MAX: usize = 64;

/// Hashes at all: as many entries as are read of a feed. Feeds of 700 are seen, which are 7 kB of cursor; the most are
/// 214 kB.
const HASHES_MAX: usize = ENTRIES_MAX + GONE_ENTRIES_MAX;

/// Links known to be shared by several entries.
const SHARED_LINKS_MAX: usize = 256;

/// Entries known to have had their link alone: 171 kB of cursor at the most, where ids are their links none.
const OWNERS_MAX: usize = 16_000;

/// Those of them that the feed no longer shows.
const GONE_OWNERS_MAX: usize = 256;

/// Bytes of an address that a publisher names: where the feed moved to, its hub, its topic. Longer ones are not kept.
pub(super) const ADDRESS_BYTES_MAX: usize = 2 << 10;

/// Times of changes that the interval is made from.
const CHANGES_MAX: usize = 8;

/// Characters of a feed's title.
const TITLE_CHARS_MAX: usize = 200;

/// Bytes of a validator; a longer one is not sent back.
const VALIDATOR_BYTES_MAX: usize = 512;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct State {
    /// What the feed calls itself.
    pub(super) title: Option<String>,
    pub(super) etag: Option<String>,
    pub(super) last_modified: Option<String>,
    /// Hash of the body, for servers that know no conditional requests.
    body: u64,
    /// Hashes of the entries seen, those of the last answer first.
    seen: Hashes,
    /// Hashes of links that several entries shared, the latest first: they identify none from then on but their owners.
    shared_links: Hashes,
    /// Hashes of entries that had their link alone, those of the last answer first: it identifies them for good.
    owners: Hashes,
    /// Time of the newest entry seen.
    pub(super) newest: Option<Timestamp>,
    /// When there was something new, oldest first.
    pub(super) changes: Vec<Timestamp>,
    /// What the feed asks of those who poll it.
    pub(super) hints: Hints,
    /// Where the feed has moved to for good.
    pub(super) address: Option<Url>,
    /// Where it says that it has moved to.
    moving: Option<Moving>,
    /// Since when it answers 410.
    pub(super) gone_since: Option<Timestamp>,
    /// How it does.
    pub(super) noted: Noted,
    /// Its subscription at a hub.
    pub(super) subscription: Option<super::websub::Subscription>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Moving {
    to: Url,
    /// Polls in a row that saw it.
    polls: u32,
}

/// A list of 64-bit hashes, as base64 of their bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Hashes(Vec<u64>);

/// What of an answer is new.
pub(super) struct News {
    /// New entries, in the feed's order.
    pub(super) records: Vec<RawRecord>,
    /// Whether an entry was met that is known.
    pub(super) meets_known: bool,
    /// Whether this is not the first answer.
    pub(super) is_known_feed: bool,
}

impl State {
    pub(super) fn read(cursor: &Cursor) -> Result<Self> {
        match cursor.0.as_str() {
            "" => Ok(Self::default()),
            // A field that a later version added is passed over.
            text => {
                serde_json::from_str(text).map_err(|error| Error::change("read the cursor of a feed").because(error))
            }
        }
    }

    pub(super) fn write(&self) -> Result<Cursor> {
        let text =
            serde_json::to_string(self).map_err(|error| Error::stop("write the cursor of a feed").because(error))?;
        Ok(Cursor(text))
    }

    /// Notes a body; false if it is the one that was read last.
    pub(super) fn note_body(&mut self, body: &[u8]) -> bool {
        let hash = xxh3_64(body);
        std::mem::replace(&mut self.body, hash) != hash
    }

    /// Notes what the feed calls itself.
    pub(super) fn note_title(&mut self, title: Option<&str>) {
        self.title = title.map(|title| title.chars().take(TITLE_CHARS_MAX).collect());
    }

    /// Notes what a conditional request will send.
    pub(super) fn note_validators(&mut self, etag: Option<&str>, last_modified: Option<&str>) {
        let short = |value: Option<&str>| value.filter(|value| value.len() <= VALIDATOR_BYTES_MAX).map(str::to_owned);
        (self.etag, self.last_modified) = (short(etag), short(last_modified));
    }

    /// Notes where permanent redirects lead, and follows them once `confirmations` polls in a row saw the same.
    pub(super) fn note_move(&mut self, to: Option<Url>, confirmations: u32) {
        let Some(to) = to.filter(|to| to.as_str().len() <= ADDRESS_BYTES_MAX) else {
            self.moving = None;
            return;
        };
        let before = self.moving.take().filter(|moving| moving.to == to).map_or(0, |moving| moving.polls);
        let polls = before.saturating_add(1);
        if polls >= confirmations {
            self.address = Some(to);
        } else {
            self.moving = Some(Moving { to, polls });
        }
    }

    /// Where permanent redirects lead that are not believed yet.
    pub(super) fn moving_to(&self) -> Option<Url> {
        self.moving.as_ref().map(|moving| moving.to.clone())
    }

    /// The links known to be shared, and the entries known to have had theirs alone.
    pub(super) fn links(&self) -> [Vec<u64>; 2] {
        [self.shared_links.0.clone(), self.owners.0.clone()]
    }

    /// Notes links that were seen to be shared, and entries that have theirs alone. A part of the feed, as a hub sends it,
    /// says nothing about those that are not in it.
    pub(super) fn note_links(&mut self, mut links: Vec<u64>, mut owners: Vec<u64>, is_part: bool) {
        links.retain(|link| !self.shared_links.0.contains(link));
        links.sort_unstable();
        links.truncate(SHARED_LINKS_MAX);
        self.shared_links.0.truncate(SHARED_LINKS_MAX - links.len());
        self.shared_links.0.splice(..0, links);
        let mut listed = HashSet::with_capacity(owners.len());
        owners.retain(|owner| listed.insert(*owner));
        let gone = self.owners.0.iter().filter(|owner| !listed.contains(owner));
        owners.extend(gone.take(if is_part { OWNERS_MAX } else { GONE_OWNERS_MAX }));
        owners.truncate(OWNERS_MAX);
        self.owners = Hashes(owners);
    }

    /// Keeps of an answer's entries what is new, and remembers all. What a hub sends is a part of the feed, so that
    /// what was seen before stays.
    pub(super) fn take_news(&mut self, records: Vec<RawRecord>, is_part: bool, now: Timestamp) -> News {
        let known: HashSet<u64> = self.seen.0.iter().copied().collect();
        let mut listed = HashSet::with_capacity(records.len());
        let mut rows = HashSet::with_capacity(records.len());
        let mut news = News { records: Vec::new(), meets_known: false, is_known_feed: self.newest.is_some() };
        let mut seen = Vec::with_capacity(records.len());
        for record in records {
            let hash = content_of(&record);
            if listed.insert(hash) {
                seen.push(hash);
            }
            let is_known = known.contains(&hash);
            news.meets_known |= is_known;
            if !is_known && rows.insert(xxh3_64(record.id.as_str().as_bytes())) {
                news.records.push(record);
            }
        }
        let gone = self.seen.0.iter().filter(|hash| !listed.contains(hash));
        let gone_max = if is_part { HASHES_MAX } else { GONE_ENTRIES_MAX };
        seen.extend(gone.take(gone_max));
        seen.truncate(HASHES_MAX);
        self.seen = Hashes(seen);
        if !news.records.is_empty() {
            self.changes.push(now);
            let excess = self.changes.len().saturating_sub(CHANGES_MAX);
            self.changes.drain(..excess);
            let newest = news.records.iter().map(|record| record.event_time.min(now)).max();
            self.newest = self.newest.max(newest);
        }
        news
    }

    /// Where the collector stands while `rest` of what an answer brought is not yet handed over: one that is started from
    /// here asks for the answer again and brings the rest. `before` is the state before the answer.
    pub(super) fn without<'a>(&self, rest: impl Iterator<Item = &'a RawRecord>, before: &Self) -> Self {
        let rest: HashSet<u64> = rest.map(content_of).collect();
        let mut state = Self {
            etag: before.etag.clone(),
            last_modified: before.last_modified.clone(),
            body: before.body,
            newest: before.newest,
            changes: before.changes.clone(),
            ..self.clone()
        };
        state.seen.0.retain(|hash| !rest.contains(hash));
        state
    }
}

/// What tells an entry from those seen before: its article and content, the first two parts of its id. A date that is
/// always now, or an id that is always new, makes no new row each time the feed is asked.
fn content_of(record: &RawRecord) -> u64 {
    let id = record.id.as_str();
    xxh3_64(id.rsplit_once('.').map_or(id, |(content, _)| content).as_bytes())
}

impl Serialize for Hashes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes: Vec<u8> = self.0.iter().flat_map(|hash| hash.to_le_bytes()).collect();
        serializer.serialize_str(&STANDARD_NO_PAD.encode(bytes))
    }
}

impl<'de> Deserialize<'de> for Hashes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD_NO_PAD.decode(text).map_err(serde::de::Error::custom)?;
        let (hashes, rest) = bytes.as_chunks::<8>();
        if !rest.is_empty() {
            return Err(serde::de::Error::custom("hashes of 8 bytes each are cut"));
        }
        Ok(Self(hashes.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_700_000_000_000_000);

    fn records(numbers: std::ops::Range<i64>) -> Vec<RawRecord> {
        let record = |number: i64| RawRecord {
            id: format!("entry-{number}").into(),
            event_time: Timestamp(number),
            fetched_at: NOW,
            body: Vec::new().into(),
        };
        numbers.rev().map(record).collect()
    }

    fn ids(news: &News) -> Vec<&str> {
        news.records.iter().map(|record| record.id.as_str()).collect()
    }

    #[test]
    fn a_cursor_says_all_and_stays_small() {
        let mut state = State::default();
        state.note_validators(Some("\"abc\""), Some("Tue, 14 Nov 2023 22:14:20 GMT"));
        state.note_title(Some(&"é".repeat(1_000)));
        assert!(state.note_body(b"one"));
        state.take_news(records(0..30), false, NOW);
        let cursor = state.write().unwrap();
        assert_eq!(State::read(&cursor).unwrap(), state);
        assert!(cursor.0.len() < 1_200, "{} bytes", cursor.0.len());
        state.take_news(records(0..100_000), false, NOW);
        state.note_links((0..1_000).collect(), (0..100_000).collect(), false);
        assert!(state.write().unwrap().0.len() < 400 << 10);
        let long = Url::parse(&format!("http://a.example/{}", "x".repeat(4_000))).ok();
        state.note_move(long, 1);
        assert_eq!((state.links().map(|links| links.len()), &state.address), ([SHARED_LINKS_MAX, OWNERS_MAX], &None));
        state.note_validators(Some(&"x".repeat(1_000)), None);
        assert_eq!(state.etag, None);
    }

    #[test]
    fn entries_come_once_and_those_gone_for_a_while_too() {
        let mut state = State::default();
        assert_eq!(ids(&state.take_news(records(0..3), false, NOW)), ["entry-2", "entry-1", "entry-0"]);
        let news = state.take_news(records(2..5), false, NOW);
        assert_eq!((ids(&news), news.meets_known), (vec!["entry-4", "entry-3"], true));
        let news = state.take_news(records(0..5), false, NOW);
        assert!(news.records.is_empty() && news.meets_known);
        let news = state.take_news(records(10..12), false, NOW);
        assert!(news.is_known_feed && !news.meets_known);
    }

    #[test]
    fn a_pushed_part_forgets_nothing_of_the_whole() {
        let mut state = State::default();
        state.take_news(records(0..200), false, NOW);
        assert_eq!(ids(&state.take_news(records(200..201), true, NOW)), ["entry-200"]);
        assert!(state.take_news(records(0..201), false, NOW).records.is_empty());
    }

    #[test]
    fn a_move_is_believed_when_it_is_seen_again_and_again() {
        let url = |text| Some(Url::parse(text).unwrap());
        let mut state = State::default();
        let new = "https://new.example/feed";
        for to in [url(new), url(new), None, url(new), url("https://other.example/"), url(new), url(new)] {
            state.note_move(to, 3);
            assert_eq!(state.address, None);
        }
        state.note_move(url(new), 3);
        assert_eq!((state.address, state.moving), (url(new), None));
    }

    #[test]
    fn a_body_is_new_once() {
        let mut state = State::default();
        assert_eq!([b"a", b"a", b"b"].map(|body| state.note_body(body)), [true, false, true]);
    }

    #[test]
    fn a_cursor_that_is_none_is_an_error_of_its_feed_alone_and_one_of_a_later_version_is_read() {
        let error = State::read(&Cursor("{\"seen\":\"AAA\"}".to_owned())).unwrap_err();
        assert!(error.to_string().starts_with("failed to read the cursor of a feed"), "{error}");
        assert_eq!(error.remedy(), contract::Remedy::Change);
        let later = Cursor("{\"title\":\"T\",\"what_comes_later\":1}".to_owned());
        assert_eq!(State::read(&later).unwrap().title.as_deref(), Some("T"));
    }

    #[test]
    fn an_entry_whose_date_or_id_alone_changes_comes_once() {
        let record = |id: &str| RawRecord { id: id.into(), ..records(0..1).remove(0) };
        let mut state = State::default();
        let both = vec![record("article.content.1"), record("article.content.2")];
        assert_eq!(state.take_news(both, false, NOW).records.len(), 2, "in one answer they are two");
        assert!(state.take_news(vec![record("article.content.3")], false, NOW).records.is_empty());
        assert_eq!(state.take_news(vec![record("article.other.3")], false, NOW).records.len(), 1);
    }
}
