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
    pub(crate) fn with(records: impl IntoIterator<Item = RawRecord>) -> Arc<Self> {
        let log = Self::default();
        log.add(records);
        Arc::new(log)
    }

    /// All into partition 0.
    pub(crate) fn add(&self, records: impl IntoIterator<Item = RawRecord>) {
        let mut logged = self.records.lock().unwrap();
        for record in records {
            let offset = logged.len() as Offset;
            logged.push(LogRecord { partition: 0, offset, appended_at: record.fetched_at, record });
        }
        self.more.notify_waiters();
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
        let at = from.of(0);
        let read = || self.records.lock().unwrap().iter().skip(at as usize).take(3).cloned().collect::<Vec<_>>();
        let mut records = read();
        if records.is_empty() {
            let more = tokio::time::timeout(wait, self.more.notified()).await;
            records = if more.is_ok() { read() } else { records };
        }
        let next = at + records.len() as Offset;
        let lost = self.lost.lock().unwrap().clone();
        let is_lost = |offset| lost.iter().any(|lost| (lost.range.from..lost.range.to).contains(&offset));
        records.retain(|at| !is_lost(at.offset));
        let lost = lost.iter().filter(|lost| (at..next).contains(&lost.range.from)).cloned().collect();
        Ok(Batch { records, next: Positions([(0, next)].into()), lost })
    }
    async fn extents(&self) -> Result<BTreeMap<Topic, Extent>> {
        let end = self.records.lock().unwrap().len() as Offset;
        let extent = Extent { partitions: vec![PartitionExtent { start: 0, end, bytes: 0 }] };
        Ok([(Topic::raw(SOURCE), extent)].into())
    }
    async fn begin_after(&self, _: &Topic, committed: &Positions) -> Result<()> {
        assert!(self.records.lock().unwrap().len() as Offset >= committed.of(0), "no test lets it lose its end");
        Ok(())
    }
    async fn release(&self, _: &Topic, positions: &Positions) -> Result<()> {
        *self.released.lock().unwrap() = positions.clone();
        Ok(())
    }
}

/// Either store: rows by offset, those that are only written apart.
pub(crate) struct MemoryStore {
    name: &'static str,
    state: Mutex<State>,
    pub(crate) errors: Mutex<VecDeque<Error>>,
}

#[derive(Default)]
struct State {
    written: Vec<Row>,
    written_to: Positions,
    committed: Vec<Row>,
    committed_to: Positions,
    dead: u64,
}

struct Row {
    place: (Partition, Offset),
    id: String,
    day: Day,
    text: String,
}

impl MemoryStore {
    pub(crate) fn new(name: &'static str) -> Arc<Self> {
        Arc::new(Self { name, state: Mutex::default(), errors: Mutex::default() })
    }

    /// Offset and text of every committed row.
    pub(crate) fn rows(&self) -> Vec<(Offset, String)> {
        self.state.lock().unwrap().committed.iter().map(|row| (row.place.1, row.text.clone())).collect()
    }

    pub(crate) fn dead(&self) -> u64 {
        self.state.lock().unwrap().dead
    }

    /// What a crash leaves.
    pub(crate) fn crash(&self) {
        let mut state = self.state.lock().unwrap();
        state.written.clear();
        state.written_to = state.committed_to.clone();
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
        let mut state = self.state.lock().unwrap();
        let next = state.written_to.clone();
        assert_eq!(rows.span.gap_after(&next), None, "a span leaves a gap");
        let silver = drop_below(&rows.silver, &next);
        for (row, place) in crate::rebuild::places(&silver).enumerate() {
            let text = |column: usize| silver.column(column).as_string::<i32>().value(row).to_owned();
            let time = silver.column(3).as_primitive::<TimestampMicrosecondType>().value(row);
            state.written.push(Row { place, id: text(2), day: Timestamp(time).day(), text: text(5) });
        }
        state.dead += drop_below(&rows.dead_letters, &next).num_rows() as u64;
        state.written_to = next.max(&rows.span.next());
        Ok(())
    }
    async fn commit(&self, _: SourceId) -> Result<Positions> {
        self.fail()?;
        let mut state = self.state.lock().unwrap();
        let written = std::mem::take(&mut state.written);
        state.committed.extend(written);
        state.committed_to = state.written_to.clone();
        Ok(state.committed_to.clone())
    }
    async fn committed(&self, _: SourceId) -> Result<Positions> {
        Ok(self.state.lock().unwrap().committed_to.clone())
    }
    async fn resume(&self, _: SourceId, partitions: &[Partition]) -> Result<Positions> {
        self.fail()?;
        let mut state = self.state.lock().unwrap();
        let committed = state.committed_to.only(partitions);
        state.written.retain(|row| !partitions.contains(&row.place.0));
        state.written_to.put(&committed);
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
        let state = self.state.lock().unwrap();
        let ids: Vec<_> = state.committed.iter().filter(|row| row.day == day).collect();
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
        let state = self.state.lock().unwrap();
        let found = state.committed.iter().filter(|row| row.day == day && ids.contains(&row.id.as_str()));
        let place = |row: &Row| IdPlace { id: row.id.clone(), partition: row.place.0, offset: row.place.1 };
        Ok(found.map(place).collect())
    }
    async fn rows_at(&self, _: SourceId, ranges: &[OffsetRange]) -> Result<Vec<(Partition, Offset)>> {
        let is_asked = |&(partition, offset): &(Partition, Offset)| {
            ranges.iter().any(|range| range.partition == partition && (range.from..range.to).contains(&offset))
        };
        let state = self.state.lock().unwrap();
        Ok(state.committed.iter().map(|row| row.place).filter(is_asked).collect())
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
