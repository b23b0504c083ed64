//! Which ids stand as rows already: how upstream repeats are told.
//!
//! The rule: a record is a duplicate if its id, in its period of event time (a day or a month, called by its first
//! day here), stands as a row at a lower offset of its partition, or in another partition: an id changes its partition
//! only when the topic has grown, so that row came first. The memory is the cold store itself. Of every period that
//! records arrive for, the ids of the committed rows are read once and kept as 64-bit hashes; a hash that is known is
//! looked up exactly. Where the periods of one batch are too many to be kept, its ids are looked up without that.
//! Rows that the cold store has not committed are kept exactly, until it has. So a restart loses nothing,
//! and both stores decide alike whenever they ask.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

use arrow::array::AsArray;
use contract::{ColdStore, Day, LogRecord, Offset, Partition, Period, Positions, Result, RowSchema, SourceId};
use futures::StreamExt;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Keys are hashes already.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {
        unreachable!("only u64 keys are hashed");
    }
    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

type HashedSet = HashSet<u64, BuildHasherDefault<AsItIs>>;
type HashedMap<V> = HashMap<u64, V, BuildHasherDefault<AsItIs>>;

/// Where a row stands.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    id: Box<str>,
    day: Day,
    partition: Partition,
    offset: Offset,
}

struct KnownDay {
    hashes: HashedSet,
    used: u64,
}

/// The ids that stand as rows, of one source.
pub(crate) struct KnownIds {
    source: SourceId,
    period: Period,
    days: HashMap<Day, KnownDay>,
    /// Rows that the cold store had not committed when last told; several ids may share a hash.
    recent: HashedMap<Vec<Place>>,
    recent_order: std::collections::VecDeque<(u64, Partition, Offset)>,
    /// Committed rows that a record of the batch in hand may repeat.
    found: HashedMap<Vec<Place>>,
    clock: u64,
    ids_max: usize,
}

fn hash(day: Day, id: &str) -> u64 {
    xxh3_64_with_seed(id.as_bytes(), day.0 as u64)
}

impl KnownIds {
    /// Nothing known yet; keeps about `ids_max` hashes, and of one period alone what it has.
    pub(crate) fn new(schema: &RowSchema, ids_max: usize) -> Self {
        Self {
            source: schema.source,
            period: schema.period,
            days: HashMap::new(),
            recent: HashMap::default(),
            recent_order: Default::default(),
            found: HashMap::default(),
            clock: 0,
            ids_max,
        }
    }

    /// Reads what is needed to judge `records`: ids of days not yet known, and the exact places of those
    /// that may be repeats.
    pub(crate) async fn prepare(&mut self, cold: &dyn ColdStore, records: &[LogRecord]) -> Result<()> {
        self.clock += 1;
        self.found.clear();
        let mut suspects: HashMap<Day, Vec<&str>> = HashMap::new();
        let days: BTreeSet<Day> = records.iter().map(|at| self.period.first_day(at.record.event_time)).collect();
        for day in &days {
            if let Some(known) = self.days.get_mut(day) {
                known.used = self.clock;
            }
        }
        for day in days {
            self.load(cold, day).await?;
        }
        for at in records {
            let (day, id) = (self.period.first_day(at.record.event_time), at.record.id.as_str());
            let key = hash(day, id);
            let may_be_committed = self.days.get(&day).is_none_or(|known| known.hashes.contains(&key));
            if may_be_committed
                && !self.recent.get(&key).is_some_and(|places| places.iter().any(|place| &*place.id == id))
            {
                suspects.entry(day).or_default().push(id);
            }
        }
        for (day, ids) in suspects {
            for found in cold.find_ids(self.source, day, &ids).await? {
                let key = hash(day, &found.id);
                let place = Place { id: found.id.into(), day, partition: found.partition, offset: found.offset };
                self.found.entry(key).or_default().push(place);
            }
        }
        Ok(())
    }

    /// Whether the record, which `prepare` was told of, repeats a row.
    pub(crate) fn is_duplicate(&self, at: &LogRecord) -> bool {
        let (day, id) = (self.period.first_day(at.record.event_time), at.record.id.as_str());
        let key = hash(day, id);
        let places = [&self.recent, &self.found].into_iter().filter_map(|map| map.get(&key)).flatten();
        places.into_iter().any(|place| {
            // The same id falls into another partition only after the topic has grown: that row came first.
            let came_first = place.partition != at.partition || place.offset < at.offset;
            came_first && &*place.id == id && place.day == day
        })
    }

    /// Notes that the record became a row.
    pub(crate) fn insert(&mut self, at: &LogRecord) {
        let (day, id) = (self.period.first_day(at.record.event_time), at.record.id.as_str());
        let key = hash(day, id);
        if let Some(known) = self.days.get_mut(&day) {
            known.hashes.insert(key);
        }
        let place = Place { id: id.into(), day, partition: at.partition, offset: at.offset };
        self.recent.entry(key).or_default().push(place);
        self.recent_order.push_back((key, at.partition, at.offset));
    }

    /// Forgets the exact places of rows below `committed`: they can be looked up now.
    pub(crate) fn committed(&mut self, committed: &Positions) {
        while let Some(&(key, partition, offset)) = self.recent_order.front() {
            if offset >= committed.of(partition) {
                return;
            }
            self.recent_order.pop_front();
            if let Some(places) = self.recent.get_mut(&key) {
                places.retain(|place| place.partition != partition || place.offset != offset);
                if places.is_empty() {
                    self.recent.remove(&key);
                }
            }
        }
    }

    /// Reads the ids of a day, unless there is no room for them beside those of the batch's other days.
    async fn load(&mut self, cold: &dyn ColdStore, day: Day) -> Result<()> {
        if self.days.contains_key(&day) || !self.has_room(0) {
            return Ok(());
        }
        let mut hashes = HashedSet::default();
        let mut ids = cold.ids(self.source, day).await?.batches;
        while let Some(batch) = ids.next().await {
            let batch = batch?;
            hashes.extend(batch.column(0).as_string::<i32>().iter().flatten().map(|id| hash(day, id)));
            if !self.has_room(hashes.len()) {
                return Ok(());
            }
        }
        // Rows that were made but not committed when the day was last dropped from memory.
        let recent = self.recent.iter().filter(|(_, places)| places.iter().any(|place| place.day == day));
        hashes.extend(recent.map(|(&key, _)| key));
        self.days.insert(day, KnownDay { hashes, used: self.clock });
        Ok(())
    }

    /// Whether so many hashes of one more day may be kept; drops the days used longest ago for them, but none of the
    /// batch in hand. A day has always room alone.
    fn has_room(&mut self, more: usize) -> bool {
        let mut total: usize = more + self.days.values().map(|known| known.hashes.len()).sum::<usize>();
        while total > self.ids_max {
            let oldest =
                self.days.iter().filter(|(_, known)| known.used < self.clock).min_by_key(|(_, known)| known.used);
            let Some((&day, known)) = oldest else { return self.days.is_empty() };
            total -= known.hashes.len();
            self.days.remove(&day);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use contract::{OffsetRange, RowsBuilder, Span, Store};

    use super::*;
    use crate::memory::{MemoryStore, SCHEMA, SOURCE, TextProcessor, record};

    fn logged(offset: Offset, id: &str, day: i32) -> LogRecord {
        let record = record(id, day, "row");
        LogRecord { partition: 0, offset, appended_at: record.fetched_at, record }
    }

    #[tokio::test]
    async fn a_batch_over_many_days_keeps_few_ids_and_tells_every_repeat() {
        const DAYS: i32 = 40;
        let batch = |from: Offset| -> Vec<LogRecord> {
            let ids = (0..DAYS).flat_map(|day| ["a", "b"].map(|id| (id, day)));
            (from..).zip(ids).map(|(offset, (id, day))| logged(offset, id, day)).collect()
        };
        let cold = MemoryStore::new("cold");
        let mut builder = RowsBuilder::new(&SCHEMA);
        let stored = batch(0);
        for at in stored.iter().filter(|at| at.record.id.as_str() == "a") {
            builder.record(at, &TextProcessor).unwrap();
        }
        let to = stored.len() as Offset;
        let span = Span { source: SOURCE, ranges: vec![OffsetRange { partition: 0, from: 0, to }] };
        cold.write(&builder.finish(span)).await.unwrap();
        cold.commit(SOURCE).await.unwrap();

        let mut known = KnownIds::new(&SCHEMA, 10);
        for round in 1..4 {
            let again = batch(round * to);
            known.prepare(&*cold, &again).await.unwrap();
            assert!(known.days.len() <= 11, "the ids of {} days are kept", known.days.len());
            for at in &again {
                let is_known = known.is_duplicate(at);
                assert_eq!(is_known, at.record.id.as_str() == "a" || round > 1, "round {round}: {at:?}");
                if !is_known {
                    known.insert(at);
                }
            }
            // Days that are not of the next batch make room for its own.
            let other = [logged((round + 1) * to - 1, "c", 1_000 + round as i32)];
            known.prepare(&*cold, &other).await.unwrap();
            assert!(known.days.contains_key(&Day(1_000 + round as i32)) && !known.is_duplicate(&other[0]));
        }
    }

    #[tokio::test]
    async fn one_day_with_more_ids_than_are_kept_is_kept_alone() {
        let cold = MemoryStore::new("cold");
        let mut builder = RowsBuilder::new(&SCHEMA);
        for offset in 0..30 {
            builder.record(&logged(offset, &offset.to_string(), 7), &TextProcessor).unwrap();
        }
        let span = Span { source: SOURCE, ranges: vec![OffsetRange { partition: 0, from: 0, to: 30 }] };
        cold.write(&builder.finish(span)).await.unwrap();
        cold.commit(SOURCE).await.unwrap();
        let mut known = KnownIds::new(&SCHEMA, 10);
        let again = [logged(30, "29", 7)];
        known.prepare(&*cold, &again).await.unwrap();
        assert!(known.is_duplicate(&again[0]));
        assert_eq!(known.days[&Day(7)].hashes.len(), 30);
    }
}
