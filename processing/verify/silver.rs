//! Proofs 2 and 4: rows and dead letters against bronze, and the balance.
//!
//! The three tables are read whole, but of them only the columns that tell who a record is. What is kept of a row is its
//! place and a 64-bit hash of its id and period, and that of a part of the ids at once: there are as many passes as that
//! takes. Among a hundred million rows two different ids are taken for one with a probability of 1 in 4,000.

use contract::{
    ColdTable, LogRecord, Offset, OffsetRange, Partition, Period, Positions, Result, RowSchema, RowsBuilder, SourceId,
    Span, Timestamp,
};
use futures::StreamExt;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::{Proof, bronze_table, for_each_id, silver_table};
use crate::rebuild::{as_schema, log_records};
use crate::{Engines, Recipe};

/// Rows judged at once: 24 bytes of memory each.
const ROWS_AT_ONCE: u64 = 4_000_000;
/// Rows mended in one commit.
const MENDED_AT_ONCE: usize = 10_000;

/// What can be mended from bronze.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Remedy {
    /// Records of bronze that are nowhere.
    missing: Vec<(Partition, Offset)>,
    /// Rows without a record, or a second row of an id.
    surplus: Vec<(Partition, Offset)>,
    /// Dead letters that stand more than once or without a record.
    surplus_dead: Vec<(Partition, Offset)>,
}

pub(super) async fn prove(engines: &Engines, schema: &RowSchema, marks: &Positions) -> Result<(Proof, Proof, Remedy)> {
    let source = schema.source;
    let (bronze, silver) = (bronze_table(source), silver_table(source));
    let below: u64 = marks.0.values().map(|&next| next.unsigned_abs()).sum();
    let passes = below.div_ceil(ROWS_AT_ONCE).max(1);
    let mut judge = Judge::new(source);
    for pass in 0..passes {
        let part = Part { pass, passes, period: schema.period, marks };
        let mut known = Known::default();
        for_each_id(engines, (&silver, "_id"), "true", |partition, offset, id, time| {
            known.rows.extend(part.row(partition, offset, id, time));
        })
        .await?;
        let own = format!("source = '{source}'");
        for_each_id(engines, ("ops.dead_letters", "id"), &own, |partition, offset, id, time| {
            known.letters.extend(part.row(partition, offset, id, time));
        })
        .await?;
        judge.sort(&mut known);
        for_each_id(engines, (&bronze, "id"), "true", |partition, offset, id, time| {
            if let Some(record) = part.row(partition, offset, id, time) {
                judge.record(&mut known, &record, id);
            }
        })
        .await?;
        judge.leftovers(&known);
    }
    Ok(judge.finish())
}

/// Which rows are judged in one pass.
struct Part<'a> {
    pass: u64,
    passes: u64,
    period: Period,
    marks: &'a Positions,
}

/// A row, a dead letter or a record.
#[derive(Clone, Copy)]
struct Row {
    /// The hash of its id and the period of its event time.
    key: u64,
    offset: Offset,
    partition: Partition,
    /// Whether its record was met.
    has_record: bool,
}

impl Part<'_> {
    /// What is kept of a row; nothing if its turn is not now, or if it lies beyond the marks.
    fn row(&self, partition: Partition, offset: Offset, id: &str, event_time: Timestamp) -> Option<Row> {
        let is_now = xxh3_64(id.as_bytes()) % self.passes == self.pass;
        if !is_now || offset >= self.marks.of(partition) {
            return None;
        }
        let key = xxh3_64_with_seed(id.as_bytes(), self.period.first_day(event_time).0 as u64);
        Some(Row { key, offset, partition, has_record: false })
    }
}

impl Row {
    fn place(&self) -> (Partition, Offset) {
        (self.partition, self.offset)
    }
}

/// The rows and dead letters of one pass; sorted by their keys.
#[derive(Default)]
struct Known {
    rows: Vec<Row>,
    letters: Vec<Row>,
}

struct Judge {
    source: SourceId,
    proof: Proof,
    remedy: Remedy,
    records: u64,
    rows: u64,
    duplicates: u64,
    rejects: u64,
}

impl Judge {
    fn new(source: SourceId) -> Self {
        let (proof, remedy) = (Proof::new("silver"), Remedy::default());
        Self { source, proof, remedy, records: 0, rows: 0, duplicates: 0, rejects: 0 }
    }

    /// Sorts what is known, and names what stands there more than once.
    fn sort(&mut self, known: &mut Known) {
        self.rows += known.rows.len() as u64;
        self.rejects += known.letters.len() as u64;
        for list in [&mut known.rows, &mut known.letters] {
            list.sort_unstable_by_key(|row| (row.key, row.offset, row.partition));
        }
        let table = silver_table(self.source);
        for same in known.rows.chunk_by(|one, other| one.key == other.key) {
            for Row { partition, offset, .. } in &same[1..] {
                self.proof.differs(|| {
                    format!(
                        "an id is a row of `{table}` more than once, again at partition {partition}, offset {offset}"
                    )
                });
                self.remedy.surplus.push((*partition, *offset));
            }
        }
        for twice in known.letters.windows(2).filter(|pair| pair[0].place() == pair[1].place()) {
            self.dead_differs(twice[1].place(), "stands more than once");
        }
    }

    /// Judges a record of bronze.
    fn record(&mut self, known: &mut Known, record: &Row, id: &str) {
        self.records += 1;
        let Row { partition, offset, .. } = *record;
        let (mut has_place, mut is_repeat, mut is_known) = (false, false, false);
        for row in same(&mut known.rows, record.key) {
            is_known = true;
            if row.place() == record.place() {
                row.has_record = true;
                has_place = true;
            } else {
                is_repeat |= row.partition != partition || row.offset < offset;
            }
        }
        for letter in same(&mut known.letters, record.key).iter_mut().filter(|row| row.place() == record.place()) {
            letter.has_record = true;
            has_place = true;
        }
        if has_place {
            return;
        }
        self.duplicates += u64::from(is_repeat);
        if !is_known {
            let table = silver_table(self.source);
            self.proof.differs(|| {
                format!(
                    "`{id}` (partition {partition}, offset {offset}) is neither in `{table}` nor in the dead letters"
                )
            });
            self.remedy.missing.push((partition, offset));
        }
    }

    /// Names what has no record, once all records were judged.
    fn leftovers(&mut self, known: &Known) {
        let (bronze, silver) = (bronze_table(self.source), silver_table(self.source));
        for Row { partition, offset, .. } in known.rows.iter().filter(|row| !row.has_record) {
            self.proof.differs(|| {
                format!("the row of `{silver}` at partition {partition}, offset {offset} has no record in `{bronze}`")
            });
            self.remedy.surplus.push((*partition, *offset));
        }
        for letter in known.letters.iter().filter(|letter| !letter.has_record) {
            self.dead_differs(letter.place(), &format!("has no record in `{bronze}`"));
        }
    }

    fn dead_differs(&mut self, (partition, offset): (Partition, Offset), how: &str) {
        self.proof.differs(|| format!("the dead letter at partition {partition}, offset {offset} {how}"));
        self.remedy.surplus_dead.push((partition, offset));
    }

    /// The proof about silver, the balance, and what can be mended.
    fn finish(mut self) -> (Proof, Proof, Remedy) {
        let Self { records, rows, duplicates, rejects, .. } = self;
        for list in [&mut self.remedy.missing, &mut self.remedy.surplus, &mut self.remedy.surplus_dead] {
            list.sort_unstable();
            list.dedup();
        }
        let mut balance = Proof::new("balance");
        balance.counts =
            [("records", records), ("rows", rows), ("duplicates", duplicates), ("rejects", rejects)].into();
        if records != rows + duplicates + rejects {
            balance.differs(|| {
                format!("{records} records are not {rows} rows + {duplicates} duplicates + {rejects} rejects")
            });
        }
        self.proof.counts = [("rows", rows), ("rejects", rejects)].into();
        (self.proof, balance, self.remedy)
    }
}

/// Those of one key; the list is sorted by it.
fn same(list: &mut [Row], key: u64) -> &mut [Row] {
    let from = list.partition_point(|row| row.key < key);
    let length = list[from..].partition_point(|row| row.key == key);
    &mut list[from..from + length]
}

/// Processes anew what is missing, from the bytes in bronze, and removes what is too much.
pub(super) async fn repair(engines: &Engines, recipe: Recipe, remedy: Remedy) -> Result<Vec<String>> {
    let source = recipe.schema.source;
    let mut done = Vec::new();
    if !remedy.surplus.is_empty() {
        engines.cold.mend(source, ColdTable::Silver, &remedy.surplus, None).await?;
        done.push(format!("removed {} rows from `silver.{source}`", remedy.surplus.len()));
    }
    if !remedy.surplus_dead.is_empty() {
        engines.cold.mend(source, ColdTable::DeadLetters, &remedy.surplus_dead, None).await?;
        done.push(format!(
            "removed dead letters at {} places that stood twice or had no record",
            remedy.surplus_dead.len()
        ));
    }
    let missing: Vec<_> = remedy.missing.iter().chain(&remedy.surplus_dead).copied().collect();
    for places in missing.chunks(MENDED_AT_ONCE) {
        let mut builder = RowsBuilder::new(recipe.schema);
        for at in bronze_records(engines, source, places).await? {
            // A reject is noted by the builder, and goes to the dead letters below.
            builder.record(&at, recipe.processor).unwrap_or_default();
        }
        let rows = builder.finish(Span { source, ranges: Vec::<OffsetRange>::new() });
        engines.cold.mend(source, ColdTable::Silver, &[], Some(&rows.silver)).await?;
        engines.cold.mend(source, ColdTable::DeadLetters, &[], Some(&rows.dead_letters)).await?;
        done.push(format!(
            "made {} rows and {} dead letters from `bronze.{source}`",
            rows.silver.num_rows(),
            rows.dead_letters.num_rows()
        ));
    }
    Ok(done)
}

async fn bronze_records(engines: &Engines, source: SourceId, places: &[(Partition, Offset)]) -> Result<Vec<LogRecord>> {
    let wanted: Vec<_> = places.iter().map(|(p, o)| format!("(_partition = {p} AND _offset = {o})")).collect();
    let schema = contract::bronze_schema();
    let mut records = Vec::new();
    for wanted in wanted.chunks(500) {
        let query = format!(
            "SELECT _partition, _offset, id, event_time, fetched_at, appended_at, body FROM {} WHERE {}",
            bronze_table(source),
            wanted.join(" OR ")
        );
        let mut answer = engines.cold.scan(&query).await?.batches;
        while let Some(batch) = answer.next().await {
            records.extend(log_records(&as_schema(&batch?, &schema)?));
        }
    }
    records.sort_by_key(|record| (record.partition, record.offset));
    records.dedup_by_key(|record| (record.partition, record.offset));
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: SourceId = SourceId("made");

    type Place = (Partition, Offset, &'static str);

    fn judged(passes: u64, rows: &[Place], letters: &[Place], records: &[Place]) -> (Proof, Proof, Remedy) {
        let marks = Positions([(0, 100), (1, 100)].into());
        let mut judge = Judge::new(SOURCE);
        for pass in 0..passes {
            let part = Part { pass, passes, period: Period::Day, marks: &marks };
            let row = |&(partition, offset, id): &Place| part.row(partition, offset, id, Timestamp(0));
            let mut known = Known {
                rows: rows.iter().filter_map(row).collect(),
                letters: letters.iter().filter_map(row).collect(),
            };
            judge.sort(&mut known);
            for (record, at) in records.iter().filter_map(|at| Some((row(at)?, at))) {
                judge.record(&mut known, &record, at.2);
            }
            judge.leftovers(&known);
        }
        judge.finish()
    }

    #[test]
    fn in_any_number_of_passes_every_difference_is_told_once_and_the_rest_balances() {
        let rows = [(0, 1, "a"), (0, 2, "b"), (1, 3, "c"), (0, 9, "b"), (0, 100, "beyond the mark")];
        let letters = [(1, 4, "d"), (1, 4, "d"), (1, 8, "e")];
        let records = [
            (0, 1, "a"),
            (0, 2, "b"),
            (1, 3, "c"),
            (1, 4, "d"),
            (0, 5, "a"),
            (1, 6, "a"),
            (0, 7, "nowhere"),
            (0, 9, "b"),
            (0, 101, "beyond the mark"),
        ];
        for passes in [1, 3, 7] {
            let (silver, balance, remedy) = judged(passes, &rows, &letters, &records);
            let expected = Remedy { missing: vec![(0, 7)], surplus: vec![(0, 9)], surplus_dead: vec![(1, 4), (1, 8)] };
            assert_eq!(remedy, expected, "{passes} passes");
            assert_eq!(silver.differences, 4, "{:?}", silver.named);
            assert_eq!(balance.counts["duplicates"], 2, "of `a`, in its partition and in another");
        }
        let (silver, balance, _) = judged(2, &rows[..3], &letters[..1], &records[..6]);
        assert!(silver.ok && balance.ok, "{:?} {:?}", silver.named, balance.named);
    }

    #[test]
    fn a_row_without_its_record_is_named_also_when_the_record_is_a_repeat_of_it() {
        let (silver, balance, remedy) = judged(1, &[(0, 5, "a")], &[], &[(0, 3, "a"), (0, 6, "a")]);
        assert_eq!(remedy.surplus, [(0, 5)]);
        assert!(!silver.ok && balance.ok, "the numbers alone would not tell");
    }
}
