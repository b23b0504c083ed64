//! Which ids stand as rows already: how upstream repeats are told.
//!
//! The rule: a record is a duplicate if its id, in its period of event time (a day or a month, called by its first
//! day here), stands as a row at a lower offset of its partition. The memory is the cold store itself. Of every
//! period that records arrive for, the ids of
//! the committed rows are read once and kept as 64-bit hashes; a hash that is known is looked up exactly.
//! Rows that the cold store has not committed are kept exactly, until it has. So a restart loses nothing,
//! and both stores decide alike whenever they ask.

use std::collections::{HashMap, HashSet};
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
    /// Nothing known yet; keeps about `ids_max` hashes.
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
        for day in records.iter().map(|at| self.period.first_day(at.record.event_time)).collect::<HashSet<_>>() {
            self.load(cold, day).await?;
        }
        for at in records {
            let (day, id) = (self.period.first_day(at.record.event_time), at.record.id.as_str());
            let key = hash(day, id);
            let committed = self.days.get(&day).is_some_and(|known| known.hashes.contains(&key));
            if committed && !self.recent.get(&key).is_some_and(|places| places.iter().any(|place| &*place.id == id)) {
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
        self.evict();
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

    async fn load(&mut self, cold: &dyn ColdStore, day: Day) -> Result<()> {
        if let Some(known) = self.days.get_mut(&day) {
            known.used = self.clock;
            return Ok(());
        }
        let mut hashes = HashedSet::default();
        let mut ids = cold.ids(self.source, day).await?.batches;
        while let Some(batch) = ids.next().await {
            let batch = batch?;
            hashes.extend(batch.column(0).as_string::<i32>().iter().flatten().map(|id| hash(day, id)));
        }
        // Rows that were made but not committed when the day was last dropped from memory.
        let recent = self.recent.iter().filter(|(_, places)| places.iter().any(|place| place.day == day));
        hashes.extend(recent.map(|(&key, _)| key));
        self.days.insert(day, KnownDay { hashes, used: self.clock });
        Ok(())
    }

    /// Drops the days used longest ago, but none of the batch in hand.
    fn evict(&mut self) {
        let mut total: usize = self.days.values().map(|known| known.hashes.len()).sum();
        while total > self.ids_max {
            let oldest =
                self.days.iter().filter(|(_, known)| known.used < self.clock).min_by_key(|(_, known)| known.used);
            let Some((&day, known)) = oldest else { return };
            total -= known.hashes.len();
            self.days.remove(&day);
        }
    }
}
