//! A log and stores in memory, for this crate's tests: they keep their promises and can be told to fail.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, TimestampMicrosecondType};
use async_trait::async_trait;
use contract::*;
use futures::StreamExt;
use serde_json::Value;
use tokio::sync::Notify;

pub(crate) const SOURCE: SourceId = SourceId("made");

pub(crate) static SCHEMA: RowSchema = RowSchema {
    source: SOURCE,
    period: Period::Day,
    columns: &[Column { name: "text", kind: Kind::Text, search: Search::Words, doc: "The body." }],
};

/// Takes the body as text; refuses what starts with `bad`, panics at `panic`.
pub(crate) struct TextProcessor;

impl Processor for TextProcessor {
    fn process(&self, record: &RawRecord, row: &mut RowBuilder) -> Result<(), Reject> {
        let text = String::from_utf8_lossy(&record.body);
        if text.starts_with("bad") {
            return Err(Reject::new("made", "it is bad"));
        }
        row.text(SCHEMA.place("text"), &text);
        assert!(!text.starts_with("panic"), "told to");
        Ok(())
    }
}

pub(crate) fn record(id: &str, day: i32, body: &str) -> RawRecord {
    let time = Day(day).start();
    RawRecord { id: id.into(), event_time: time, fetched_at: time, body: body.to_owned().into() }
}

#[derive(Default)]
pub(crate) struct MemoryLog {
    partitions: Partition,
    records: Mutex<Vec<LogRecord>>,
    released: Mutex<Positions>,
    more: Notify,
    cursors: Mutex<BTreeMap<CollectorId, Cursor>>,
    /// Lines of the ledger that were appended.
    pub(crate) coverage: Mutex<Vec<Coverage>>,
    /// Offsets that damage took.
    pub(crate) lost: Mutex<Vec<Lost>>,
    /// What the next appends answer.
    pub(crate) errors: Mutex<VecDeque<Error>>,
}

impl MemoryLog {
    /// All in one partition.
    pub(crate) fn with(records: impl IntoIterator<Item = RawRecord>) -> Arc<Self> {
        let log = Self::of(1);
        log.add(records);
        log
    }

    pub(crate) fn of(partitions: Partition) -> Arc<Self> {
        Arc::new(Self { partitions, ..Self::default() })
    }

    pub(crate) fn add(&self, records: impl IntoIterator<Item = RawRecord>) {
        let mut logged = self.records.lock().unwrap();
        for record in records {
            let partition = partition_of(record.id.as_str().as_bytes(), self.partitions);
            let offset = logged.iter().filter(|at| at.partition == partition).count() as Offset;
            logged.push(LogRecord { partition, offset, appended_at: record.fetched_at, record });
        }
        self.more.notify_waiters();
    }

    /// Some records of each partition asked.
    fn some(&self, from: &Positions) -> Vec<LogRecord> {
        let logged = self.records.lock().unwrap();
        let of = |(&partition, &offset): (&Partition, &Offset)| {
            logged.iter().filter(move |at| at.partition == partition && at.offset >= offset).take(3).cloned()
        };
        from.0.iter().flat_map(of).collect()
    }

    pub(crate) fn released(&self) -> Positions {
        self.released.lock().unwrap().clone()
    }
}

#[async_trait]
impl Log for MemoryLog {
    async fn append(&self, harvest: &Harvest) -> Result<Appended> {
        self.errors.lock().unwrap().pop_front().map_or(Ok(()), Err)?;
        self.add(harvest.records.clone());
        self.coverage.lock().unwrap().extend(harvest.coverage.clone());
        self.cursors.lock().unwrap().insert(harvest.collector.clone(), harvest.cursor.clone());
        Ok(Appended::default())
    }
    async fn cursor(&self, collector: &CollectorId) -> Result<Option<Cursor>> {
        Ok(self.cursors.lock().unwrap().get(collector).cloned())
    }
    async fn cursors(&self, _: &str) -> Result<Vec<(CollectorId, Cursor)>> {
        Ok(Vec::new())
    }
    async fn read(&self, _: &Topic, from: &Positions, _: usize, wait: Duration) -> Result<Batch> {
        let mut records = self.some(from);
        if records.is_empty() {
            // A short wait has what a process is told of its partitions seen often.
            let wait = wait.min(Duration::from_millis(5));
            let more = tokio::time::timeout(wait, self.more.notified()).await;
            records = if more.is_ok() { self.some(from) } else { records };
        }
        let mut next = from.clone();
        records.iter().for_each(|at| next.advance(at.partition, at.offset + 1));
        let lost = self.lost.lock().unwrap().clone();
        let is_lost = |at: &LogRecord| {
            let covers = |lost: &Lost| {
                lost.range.partition == at.partition && (lost.range.from..lost.range.to).contains(&at.offset)
            };
            lost.iter().any(covers)
        };
        records.retain(|at| !is_lost(at));
        let is_met = |lost: &&Lost| {
            let OffsetRange { partition, from: first, .. } = lost.range;
            (from.of(partition)..next.of(partition)).contains(&first)
        };
        let lost = lost.iter().filter(is_met).cloned().collect();
        Ok(Batch { records, next, lost })
    }
    async fn extents(&self) -> Result<BTreeMap<Topic, Extent>> {
        let logged = self.records.lock().unwrap();
        let end = |partition| logged.iter().filter(|at| at.partition == partition).count() as Offset;
        let partitions =
            (0..self.partitions).map(|partition| PartitionExtent { start: 0, end: end(partition), bytes: 0 });
        Ok([(Topic::raw(SOURCE), Extent { partitions: partitions.collect() })].into())
    }
    async fn begin_after(&self, topic: &Topic, committed: &Positions) -> Result<()> {
        assert!(self.extents().await?[topic].end().reaches(committed), "no test lets it lose its end");
        Ok(())
    }
    async fn release(&self, _: &Topic, positions: &Positions) -> Result<()> {
        *self.released.lock().unwrap() = positions.clone();
        Ok(())
    }
}

/// A place in the log.
type Place = (Partition, Offset);

/// Either store, as one process has it open: what it wrote, and what it and others committed.
pub(crate) struct MemoryStore {
    name: &'static str,
    durable: Arc<Mutex<Durable>>,
    written: Mutex<Written>,
    pub(crate) errors: Mutex<VecDeque<Error>>,
}

#[derive(Default)]
struct Durable {
    rows: Vec<Row>,
    dead: Vec<Place>,
    next: Positions,
}

#[derive(Default)]
struct Written {
    rows: Vec<Row>,
    dead: Vec<Place>,
    next: Positions,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Row {
    place: Place,
    id: String,
    day: Day,
    text: String,
}

impl MemoryStore {
    pub(crate) fn new(name: &'static str) -> Arc<Self> {
        Arc::new(Self { name, durable: Arc::default(), written: Mutex::default(), errors: Mutex::default() })
    }

    /// The same store as another process opens it.
    pub(crate) fn beside(&self) -> Arc<Self> {
        let next = self.durable.lock().unwrap().next.clone();
        let written = Mutex::new(Written { next, ..Written::default() });
        Arc::new(Self { name: self.name, durable: self.durable.clone(), written, errors: Mutex::default() })
    }

    /// Offset and text of every committed row.
    pub(crate) fn rows(&self) -> Vec<(Offset, String)> {
        self.durable.lock().unwrap().rows.iter().map(|row| (row.place.1, row.text.clone())).collect()
    }

    /// All that is committed, in order.
    pub(crate) fn holds(&self) -> (Vec<Row>, Vec<Place>) {
        let durable = self.durable.lock().unwrap();
        let (mut rows, mut dead) = (durable.rows.clone(), durable.dead.clone());
        rows.sort();
        dead.sort_unstable();
        (rows, dead)
    }

    pub(crate) fn dead(&self) -> usize {
        self.durable.lock().unwrap().dead.len()
    }

    /// What a crash leaves.
    pub(crate) fn crash(&self) {
        let next = self.durable.lock().unwrap().next.clone();
        *self.written.lock().unwrap() = Written { next, ..Written::default() };
    }

    fn fail(&self) -> Result<()> {
        self.errors.lock().unwrap().pop_front().map_or(Ok(()), Err)
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn name(&self) -> &'static str {
        self.name
    }
    async fn write(&self, rows: &Rows) -> Result<()> {
        self.fail()?;
        let mut written = self.written.lock().unwrap();
        let next = written.next.clone();
        assert_eq!(rows.span.gap_after(&next), None, "a span leaves a gap");
        let silver = drop_below(&rows.silver, &next);
        for (row, place) in crate::rebuild::places(&silver).enumerate() {
            let text = |column: usize| silver.column(column).as_string::<i32>().value(row).to_owned();
            let time = silver.column(3).as_primitive::<TimestampMicrosecondType>().value(row);
            written.rows.push(Row { place, id: text(2), day: Timestamp(time).day(), text: text(5) });
        }
        written.dead.extend(crate::rebuild::places(&drop_below(&rows.dead_letters, &next)));
        written.next = next.max(&rows.span.next());
        Ok(())
    }
    async fn commit(&self, _: SourceId) -> Result<Positions> {
        self.fail()?;
        let (mut durable, mut written) = (self.durable.lock().unwrap(), self.written.lock().unwrap());
        let before = durable.next.clone();
        // What another process committed meanwhile is there already.
        let is_new = |place: &Place| place.1 >= before.of(place.0);
        durable.rows.extend(std::mem::take(&mut written.rows).into_iter().filter(|row| is_new(&row.place)));
        durable.dead.extend(std::mem::take(&mut written.dead).into_iter().filter(is_new));
        durable.next = before.max(&written.next);
        Ok(durable.next.clone())
    }
    async fn committed(&self, _: SourceId) -> Result<Positions> {
        Ok(self.durable.lock().unwrap().next.clone())
    }
    async fn resume(&self, _: SourceId, partitions: &[Partition]) -> Result<Positions> {
        self.fail()?;
        let committed = self.durable.lock().unwrap().next.only(partitions);
        let mut written = self.written.lock().unwrap();
        written.rows.retain(|row| !partitions.contains(&row.place.0));
        written.dead.retain(|place| !partitions.contains(&place.0));
        written.next.put(&committed);
        Ok(committed)
    }
}

const NOT_ASKED: &str = "no test of this crate asks it";

#[async_trait]
impl HotStore for MemoryStore {
    async fn search(&self, _: &str, _: &Value) -> Result<Value, SearchError> {
        unreachable!("{NOT_ASKED}")
    }
    async fn count(&self, _: &str, _: &Value) -> Result<Value, SearchError> {
        unreachable!("{NOT_ASKED}")
    }
    async fn mapping(&self, _: &str) -> Result<Value, SearchError> {
        unreachable!("{NOT_ASKED}")
    }
    async fn indices(&self, _: &str) -> Result<Vec<IndexSummary>, SearchError> {
        unreachable!("{NOT_ASKED}")
    }
    fn first_day(&self, _: Timestamp) -> Option<Day> {
        None
    }
    async fn expire(&self, _: SourceId, _: Timestamp, _: &Positions) -> Result<Expired> {
        unreachable!("{NOT_ASKED}")
    }
    async fn rows(&self, _: SourceId) -> Result<RowStream> {
        unreachable!("{NOT_ASKED}")
    }
    async fn replace(&self, _: SourceId, _: &RecordBatch) -> Result<()> {
        unreachable!("{NOT_ASKED}")
    }
    async fn remove(&self, _: SourceId, _: &[(Partition, Offset)]) -> Result<()> {
        unreachable!("{NOT_ASKED}")
    }
}

#[async_trait]
impl ColdStore for MemoryStore {
    async fn ids(&self, _: SourceId, day: Day) -> Result<TableStream> {
        let state = self.durable.lock().unwrap();
        let ids: Vec<_> = state.rows.iter().filter(|row| row.day == day).collect();
        let fields = [("id", DataType::Utf8), ("_partition", DataType::Int64), ("_offset", DataType::Int64)];
        let schema = Arc::new(Schema::new(fields.map(|(name, kind)| Field::new(name, kind, false)).to_vec()));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(ids.iter().map(|row| &row.id))),
            Arc::new(Int64Array::from_iter_values(ids.iter().map(|row| i64::from(row.place.0)))),
            Arc::new(Int64Array::from_iter_values(ids.iter().map(|row| row.place.1))),
        ];
        let batch = RecordBatch::try_new(schema.clone(), columns).unwrap();
        Ok(TableStream { schema, batches: futures::stream::iter([Ok(batch)]).boxed() })
    }
    async fn find_ids(&self, _: SourceId, day: Day, ids: &[&str]) -> Result<Vec<IdPlace>> {
        let state = self.durable.lock().unwrap();
        let found = state.rows.iter().filter(|row| row.day == day && ids.contains(&row.id.as_str()));
        let place = |row: &Row| IdPlace { id: row.id.clone(), partition: row.place.0, offset: row.place.1 };
        Ok(found.map(place).collect())
    }
    async fn rows_at(&self, _: SourceId, ranges: &[OffsetRange]) -> Result<Vec<(Partition, Offset)>> {
        let is_asked = |&(partition, offset): &(Partition, Offset)| {
            ranges.iter().any(|range| range.partition == partition && (range.from..range.to).contains(&offset))
        };
        let state = self.durable.lock().unwrap();
        Ok(state.rows.iter().map(|row| row.place).filter(is_asked).collect())
    }
    async fn sql(&self, _: &str) -> Result<TableStream> {
        unreachable!("{NOT_ASKED}")
    }
    async fn commit_coverage(&self, _: OffsetRange, _: &[(Offset, Coverage)]) -> Result<()> {
        unreachable!("{NOT_ASKED}")
    }
    async fn coverage_committed(&self) -> Result<Positions> {
        unreachable!("{NOT_ASKED}")
    }
    async fn mend(&self, _: SourceId, _: ColdTable, _: &[(Partition, Offset)], _: Option<&RecordBatch>) -> Result<()> {
        unreachable!("{NOT_ASKED}")
    }
    async fn maintain(&self) -> Result<Vec<String>> {
        unreachable!("{NOT_ASKED}")
    }
}
