//! Which ids stand as rows already: how upstream repeats are told.
//!
//! The rule: a record is a duplicate if its id, in its period of event time (a day or a month, called by its first
//! day here), stands as a row at a lower offset of its partition, or in another partition: an id changes its partition
//! only when the topic has grown, so that row came first. A new partition is read only when the others are committed as far
//! as the log reached when it was first seen. Where several processes share the partitions, an id is not told as repeated
//! that somebody who has not seen the growth (for half a minute at the most) writes to its old place meanwhile. The memory
//! is the cold store itself:
//!
//! | record | how it is judged |
//! | --- | --- |
//! | its id is that of a row which the cold store has not committed | those are kept exactly, until it has |
//! | it is read again: the cold store has committed its offset | it is no duplicate if a row stands there; else as the next ones |
//! | its id is not in the set of its period, read once from the committed rows ([`set`]) | it is none |
//! | its id is in that set, or the set found no room | its id is looked up among the committed rows |
//!
//! So a restart loses nothing, both stores decide alike whenever they ask, and the memory is bounded: what finds no room,
//! of many periods or of one, is looked up.

mod filter;
mod numbers;
mod set;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::Hasher;

use arrow::array::AsArray;
use contract::{
    ColdStore, Day, LogRecord, Offset, OffsetRange, Partition, Period, Positions, Processor, Reject, Result, RowSchema,
    RowsBuilder, SourceId,
};
use futures::StreamExt;

use set::{IdSet, Key};

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

/// Memory of a hash table: a byte for each place beside what stands there, and one place in eight stays free.
fn table_bytes<T>(capacity: usize) -> usize {
    capacity * 8 / 7 * (size_of::<T>() + 1)
}

/// Where a row stands.
type Place = (Partition, Offset);

struct KnownPeriod {
    ids: Ids,
    /// The batch that last had a record of it.
    used: u64,
}

/// What is in memory of a period's ids.
enum Ids {
    All(IdSet),
    /// They are looked up, since they found no room in so many bytes.
    Nothing {
        room: usize,
    },
}

impl Ids {
    fn bytes(&self) -> usize {
        let own = size_of::<(Day, KnownPeriod)>();
        match self {
            Self::All(ids) => own + ids.bytes(),
            Self::Nothing { .. } => own,
        }
    }
}

/// The ids that stand as rows, of one source.
pub(crate) struct KnownIds {
    source: SourceId,
    period: Period,
    periods: HashMap<Day, KnownPeriod>,
    /// What the cold store had committed when last told, and the rows that it had not.
    committed: Positions,
    recent: HashMap<Day, HashMap<Box<str>, Place>>,
    /// Committed rows that a record of the batch in hand may repeat.
    found: HashMap<Day, HashMap<String, Vec<Place>>>,
    /// Batches so far.
    clock: u64,
    bytes_max: usize,
}

impl KnownIds {
    /// Nothing known yet. The ids of committed rows take `bytes_max` of memory, and what a batch adds to them.
    pub(crate) fn new(schema: &RowSchema, bytes_max: usize) -> Self {
        Self {
            source: schema.source,
            period: schema.period,
            periods: HashMap::new(),
            committed: Positions::default(),
            recent: HashMap::new(),
            found: HashMap::new(),
            clock: 0,
            bytes_max,
        }
    }

    /// Reads what is needed to judge `records`: ids of periods not yet known, and the exact places of those
    /// that may be repeats.
    pub(crate) async fn prepare(&mut self, cold: &dyn ColdStore, records: &[LogRecord]) -> Result<()> {
        self.clock += 1;
        self.found.clear();
        let periods: BTreeSet<Day> = records.iter().map(|at| self.period_of(at)).collect();
        for period in &periods {
            if let Some(known) = self.periods.get_mut(period) {
                known.used = self.clock;
            }
        }
        self.make_room();
        for period in periods {
            self.load(cold, period).await?;
        }
        let standing = self.standing(cold, records).await?;
        let mut suspects: HashMap<Day, Vec<&str>> = HashMap::new();
        for at in records {
            let (period, id) = (self.period_of(at), at.record.id.as_str());
            if self.may_be_committed(period, id)
                && !standing.contains(&(at.partition, at.offset))
                && !self.recent.get(&period).is_some_and(|recent| recent.contains_key(id))
            {
                suspects.entry(period).or_default().push(id);
            }
        }
        for (period, ids) in suspects {
            let found = self.found.entry(period).or_default();
            for place in cold.find_ids(self.source, period, &ids).await? {
                found.entry(place.id).or_default().push((place.partition, place.offset));
            }
        }
        Ok(())
    }

    /// Whether the record, which `prepare` was told of, repeats a row.
    fn is_duplicate(&self, at: &LogRecord) -> bool {
        let (period, id) = (self.period_of(at), at.record.id.as_str());
        let recent = self.recent.get(&period).and_then(|recent| recent.get(id));
        let found = self.found.get(&period).and_then(|found| found.get(id));
        // The same id falls into another partition only after the topic has grown: that row came first.
        let mut places = recent.into_iter().chain(found.into_iter().flatten());
        places.any(|&(partition, offset)| partition != at.partition || offset < at.offset)
    }

    /// Notes that the record became a row.
    fn insert(&mut self, at: &LogRecord) {
        let (period, id) = (self.period_of(at), at.record.id.as_str());
        if let Some(KnownPeriod { ids: Ids::All(ids), .. }) = self.periods.get_mut(&period) {
            ids.insert(Key::of(id));
        }
        if at.offset >= self.committed.of(at.partition) {
            self.recent.entry(period).or_default().insert(id.into(), (at.partition, at.offset));
        }
    }

    /// Makes rows of records, which `prepare` was told of: repeats go to bronze alone. Answers how many became rows.
    pub(crate) fn add_rows(
        &mut self,
        builder: &mut RowsBuilder,
        processor: &dyn Processor,
        records: &[LogRecord],
        rejected: impl Fn(&Reject),
    ) -> u64 {
        let mut made = 0;
        for at in records {
            if self.is_duplicate(at) {
                builder.duplicate(at);
                continue;
            }
            match builder.record(at, processor) {
                Ok(()) => {
                    self.insert(at);
                    made += 1;
                }
                Err(reject) => rejected(&reject),
            }
        }
        made
    }

    /// Forgets the exact places of rows below `committed`: they can be looked up now.
    pub(crate) fn committed(&mut self, committed: &Positions) {
        if self.committed == *committed {
            return;
        }
        self.committed = committed.clone();
        for recent in self.recent.values_mut() {
            recent.retain(|_, &mut (partition, offset)| offset >= committed.of(partition));
        }
        self.recent.retain(|_, recent| !recent.is_empty());
    }

    fn period_of(&self, at: &LogRecord) -> Day {
        self.period.first_day(at.record.event_time)
    }

    fn may_be_committed(&self, period: Day, id: &str) -> bool {
        match self.periods.get(&period).map(|known| &known.ids) {
            Some(Ids::All(ids)) => ids.may_contain(Key::of(id)),
            Some(Ids::Nothing { .. }) | None => true,
        }
    }

    /// Which of the records are committed rows already. After a crash, or where the hot store is made anew, nearly all are,
    /// and their offsets lead to few files, which their ids need not.
    async fn standing(&self, cold: &dyn ColdStore, records: &[LogRecord]) -> Result<HashSet<Place>> {
        let mut ranges: BTreeMap<Partition, OffsetRange> = BTreeMap::new();
        for at in records.iter().filter(|at| at.offset < self.committed.of(at.partition)) {
            let (partition, from, to) = (at.partition, at.offset, at.offset + 1);
            let range = ranges.entry(partition).or_insert(OffsetRange { partition, from, to });
            (range.from, range.to) = (range.from.min(from), range.to.max(to));
        }
        if ranges.is_empty() {
            return Ok(HashSet::new());
        }
        let ranges: Vec<_> = ranges.into_values().collect();
        Ok(cold.rows_at(self.source, &ranges).await?.into_iter().collect())
    }

    /// Reads the ids of a period, unless there is no room for them beside those of the batch's other periods.
    async fn load(&mut self, cold: &dyn ColdStore, period: Day) -> Result<()> {
        let before = match self.periods.get(&period).map(|known| &known.ids) {
            Some(Ids::All(_)) => return Ok(()),
            Some(Ids::Nothing { room }) => Some(*room),
            None => None,
        };
        let others = self.periods.iter().filter(|(day, known)| **day != period && known.used == self.clock);
        let room = self.bytes_max.saturating_sub(others.map(|(_, known)| known.ids.bytes()).sum());
        // Reading them with each batch, in vain, would take long.
        if before.is_some_and(|before| room <= 2 * before) {
            return Ok(());
        }
        let ids = self.read(cold, period, room).await?;
        self.periods.insert(period, KnownPeriod { ids, used: self.clock });
        self.make_room();
        Ok(())
    }

    async fn read(&self, cold: &dyn ColdStore, period: Day, room: usize) -> Result<Ids> {
        let mut ids = IdSet::new(self.bytes_max);
        let mut batches = cold.ids(self.source, period).await?.batches;
        while let Some(batch) = batches.next().await {
            batch?.column(0).as_string::<i32>().iter().flatten().for_each(|id| ids.insert(Key::of(id)));
            if ids.bytes() > room {
                return Ok(Ids::Nothing { room });
            }
        }
        // Rows that were made but not committed when the period was last dropped from memory.
        self.recent.get(&period).into_iter().flatten().for_each(|(id, _)| ids.insert(Key::of(id)));
        Ok(Ids::All(ids))
    }

    /// Drops the periods used longest ago, until what is kept has room; of the batch in hand those that take the most,
    /// which are looked up from now on.
    fn make_room(&mut self) {
        let mut total: usize = self.periods.values().map(|known| known.ids.bytes()).sum();
        while total > self.bytes_max {
            let by_use = self.periods.iter().filter(|(_, known)| known.used < self.clock);
            if let Some((&oldest, _)) = by_use.min_by_key(|(_, known)| known.used) {
                total -= self.periods.remove(&oldest).map_or(0, |known| known.ids.bytes());
                continue;
            }
            let kept = self.periods.values_mut().filter(|known| matches!(known.ids, Ids::All(_)));
            let Some(largest) = kept.max_by_key(|known| known.ids.bytes()) else { return };
            let bytes = largest.ids.bytes();
            largest.ids = Ids::Nothing { room: bytes };
            total = total - bytes + largest.ids.bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use contract::{RowsBuilder, Span, Store, partition_of};
    use proptest::prelude::*;

    use super::*;
    use crate::memory::{MemoryStore, SCHEMA, SOURCE, TextProcessor, record};

    /// Numbers from a seed (splitmix64).
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: usize) -> usize {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = self.0;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((mixed ^ (mixed >> 31)) % bound as u64) as usize
        }

        /// An id of one of the forms that there are, out of few.
        fn id(&mut self) -> String {
            let number = self.below(400);
            match self.below(9) {
                0 => format!("{number}"),
                1 => format!("5f3a-l0-{number}"),
                // Each stands alone in its run.
                2 => format!("{}", (number % 20) << 20),
                3 => format!("a-0{number}"),
                _ => format!("sha256:{number}"),
            }
        }
    }

    /// Processes records of a log again and again, as a pipeline does, and holds each decision to a plain map.
    struct Trial {
        log: Vec<LogRecord>,
        next: Positions,
        /// The row of each id.
        rows: HashMap<(Day, String), Place>,
        cold: Arc<MemoryStore>,
        known: KnownIds,
        /// How far into the log the pipeline is, and the stores have committed.
        at: usize,
        committed: usize,
        paths: BTreeSet<&'static str>,
    }

    impl Trial {
        fn new(bytes_max: usize) -> Self {
            Self {
                log: Vec::new(),
                next: Positions::default(),
                rows: HashMap::new(),
                cold: MemoryStore::new("cold"),
                known: KnownIds::new(&SCHEMA, bytes_max),
                at: 0,
                committed: 0,
                paths: BTreeSet::new(),
            }
        }

        fn append(&mut self, random: &mut Random, partitions: Partition) {
            // Mostly one busy day, at times many.
            let days = if random.below(4) == 0 { 40 } else { 2 };
            for _ in 0..=random.below(120) {
                let (id, day) = (random.id(), random.below(days) as i32);
                let partition = partition_of(id.as_bytes(), partitions);
                let offset = self.next.of(partition);
                self.next.advance(partition, offset + 1);
                let body = if random.below(8) == 0 { "bad" } else { "row" };
                let record = record(&id, day, body);
                self.log.push(LogRecord { partition, offset, appended_at: record.fetched_at, record });
            }
        }

        /// What a map says: the first record of an id that is understood is the row.
        fn becomes_row(&mut self, at: &LogRecord) -> bool {
            let key = (at.record.event_time.day(), at.record.id.to_string());
            let place = (at.partition, at.offset);
            &at.record.body[..] != b"bad" && *self.rows.entry(key).or_insert(place) == place
        }

        async fn process(&mut self, count: usize) {
            let to = self.log.len().min(self.at + count);
            let batch = self.log[self.at..to].to_vec();
            self.known.committed(&self.cold.committed(SOURCE).await.unwrap());
            self.known.prepare(&*self.cold, &batch).await.unwrap();
            self.note_paths();
            let mut builder = RowsBuilder::new(&SCHEMA);
            let mut span = BTreeMap::new();
            for at in &batch {
                let becomes_row = !self.known.is_duplicate(at) && builder.record(at, &TextProcessor).is_ok();
                assert_eq!(becomes_row, self.becomes_row(at), "{at:?}, with {:?}", self.paths);
                if becomes_row {
                    self.known.insert(at);
                }
                let (partition, from) = (at.partition, at.offset);
                span.entry(partition).or_insert(OffsetRange { partition, from, to: from }).to = from + 1;
            }
            let span = Span { source: SOURCE, ranges: span.into_values().collect() };
            self.cold.write(&builder.finish(span)).await.unwrap();
            self.at = to;
        }

        fn note_paths(&mut self) {
            let bytes: usize = self.known.periods.values().map(|known| known.ids.bytes()).sum();
            let are_looked_up = self.known.periods.values().all(|known| matches!(known.ids, Ids::Nothing { .. }));
            assert!(bytes <= self.known.bytes_max || are_looked_up, "{bytes} bytes are kept");
            for known in self.known.periods.values() {
                self.paths.insert(match &known.ids {
                    Ids::All(ids) if ids.is_filter() => "a filter",
                    Ids::All(_) => "a set",
                    Ids::Nothing { .. } => "nothing",
                });
            }
        }

        /// What a crash leaves; the hot store may be behind the cold one, and then reading begins there.
        fn crash(&mut self, random: &mut Random) {
            self.cold.crash();
            self.known = KnownIds::new(&SCHEMA, self.known.bytes_max);
            self.at = random.below(self.committed + 1).max(self.committed.saturating_sub(random.below(300)));
        }

        async fn run(&mut self, random: &mut Random) {
            let mut partitions = 1;
            for _ in 0..150 {
                match random.below(12) {
                    0 => partitions = 3,
                    1 => self.crash(random),
                    2..4 => {
                        self.cold.commit(SOURCE).await.unwrap();
                        self.committed = self.committed.max(self.at);
                    }
                    4..8 => self.append(random, partitions),
                    _ => self.process(1 + random.below(200)).await,
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn repeats_are_told_as_a_plain_map_tells_them_whatever_the_memory_and_the_crashes(seed: u64, kilobytes in 0_usize..24) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(Trial::new(kilobytes << 10).run(&mut Random(seed)));
        }
    }

    #[tokio::test]
    async fn every_way_of_keeping_ids_is_taken_by_such_trials() {
        let mut paths = BTreeSet::new();
        for seed in 0..12 {
            let mut trial = Trial::new((seed as usize % 4) * 4_000);
            trial.run(&mut Random(seed)).await;
            paths.extend(trial.paths);
        }
        assert_eq!(paths.into_iter().collect::<Vec<_>>(), ["a filter", "a set", "nothing"]);
    }
}
