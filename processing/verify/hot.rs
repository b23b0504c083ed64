//! Proof 3: the hot store against silver.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::AsArray;
use arrow::datatypes::TimestampMicrosecondType;
use arrow::record_batch::RecordBatch;
use contract::{Day, Error, Offset, Partition, Positions, Result, StoredRow, Timestamp, row_json};
use futures::StreamExt;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{Proof, silver_table};
use crate::rebuild::{as_schema, join, places, silver};
use crate::{Engines, Recipe};

/// Rows judged at once: 24 bytes of memory each. Where there are more they are judged in parts, and both stores are
/// read for each.
const ROWS_AT_ONCE: u64 = 4_000_000;

/// What can be mended from silver.
#[derive(Default)]
pub(super) struct Remedy {
    /// To be written anew.
    wrong: Vec<(Partition, Offset)>,
    /// Not in silver.
    surplus: Vec<(Partition, Offset)>,
}

/// Proves what lies below the positions of both stores.
pub(super) async fn prove(engines: &Engines, recipe: Recipe, cold: &Positions) -> Result<(Proof, Remedy)> {
    let source = recipe.schema.source;
    let marks = engines.hot.committed(source).await?.min(cold);
    let first_day = engines.hot.first_day(engines.clock.now());
    let unreadable = |cause| Error::stop(format!("list the indices of `{source}`")).because(cause);
    let indices = engines.hot.indices(&format!("{source}-*")).await.map_err(unreadable)?;
    let passes = indices.iter().map(|index| index.rows).sum::<u64>().div_ceil(ROWS_AT_ONCE).max(1);
    let mut judge = Judge {
        recipe,
        marks,
        first_day,
        part: (0, passes as Offset),
        proof: Proof::new("hot"),
        remedy: Remedy::default(),
    };
    for pass in 0..passes {
        judge.part.0 = pass as Offset;
        judge.pass(engines).await?;
    }
    Ok((judge.proof, judge.remedy))
}

/// A row of the hot store.
struct Kept {
    hash: u64,
    offset: Offset,
    partition: Partition,
    /// The number of its index.
    index: u16,
    is_in_silver: bool,
}

struct Judge {
    recipe: Recipe,
    marks: Positions,
    first_day: Option<Day>,
    /// Which part of the offsets is judged now, of how many.
    part: (Offset, Offset),
    proof: Proof,
    remedy: Remedy,
}

impl Judge {
    async fn pass(&mut self, engines: &Engines) -> Result<()> {
        let mut kept: Vec<Kept> = Vec::new();
        let mut names: Vec<String> = Vec::new();
        let mut stored = engines.hot.rows(self.recipe.schema.source).await?;
        while let Some(row) = stored.next().await {
            let row = row?;
            if names.last() != Some(&row.index) {
                names.push(row.index.clone());
            }
            kept.extend(self.note(&row, names.len() - 1));
        }
        kept.sort_unstable_by_key(|row| (row.partition, row.offset));
        for twice in kept.windows(2).filter(|pair| pair[0].place() == pair[1].place()) {
            self.differs(twice[1].place(), "is in the hot store more than once");
        }
        let days: Vec<_> = names.iter().map(|name| index_days(name)).collect();
        let filter =
            self.first_day.map_or("true".to_owned(), |day| format!("event_time >= TIMESTAMP '{day}T00:00:00Z'"));
        let schema = self.recipe.schema.arrow();
        let mut rows = silver(engines, self.recipe, &filter).await?.batches;
        while let Some(batch) = rows.next().await {
            self.compare(&as_schema(&batch?, &schema)?, &mut kept, &days);
        }
        let table = silver_table(self.recipe.schema.source);
        for row in kept.iter().filter(|row| !row.is_in_silver) {
            let (partition, offset) = row.place();
            self.proof.differs(|| {
                format!("the hot store has a row at partition {partition}, offset {offset} that `{table}` has not")
            });
            self.remedy.surplus.push((partition, offset));
        }
        Ok(())
    }

    fn is_judged(&self, partition: Partition, offset: Offset) -> bool {
        let (part, parts) = self.part;
        offset < self.marks.of(partition) && offset.rem_euclid(parts) == part
    }

    fn note(&mut self, row: &StoredRow, index: usize) -> Option<Kept> {
        // Days past the retention leave in their own time.
        let is_past = |first| index_days(&row.index).is_some_and(|(_, end)| end <= first);
        if self.first_day.is_some_and(is_past) || !self.is_judged(row.partition, row.offset) {
            return None;
        }
        *self.proof.counts.entry("hot_rows").or_default() += 1;
        Some(Kept {
            hash: hash(&row.id, row.source_json.as_bytes()),
            offset: row.offset,
            partition: row.partition,
            index: u16::try_from(index).expect("indices are days or months, and a source has fewer"),
            is_in_silver: false,
        })
    }

    /// Compares rows of silver with what the hot store has of them.
    fn compare(&mut self, batch: &RecordBatch, kept: &mut [Kept], days: &[Option<(Day, Day)>]) {
        let ids = batch.column(2).as_string::<i32>();
        let times = batch.column(3).as_primitive::<TimestampMicrosecondType>();
        let mut json = Vec::new();
        for (row, (partition, offset)) in places(batch).enumerate() {
            if !self.is_judged(partition, offset) {
                continue;
            }
            *self.proof.counts.entry("silver_rows").or_default() += 1;
            json.clear();
            row_json::write_row(batch, row, &mut json);
            let (id, day) = (ids.value(row), Timestamp(times.value(row)).day());
            let expected = hash(id, &json);
            let from = kept.partition_point(|row| row.place() < (partition, offset));
            let length = kept[from..].partition_point(|row| row.place() == (partition, offset));
            let found = &mut kept[from..from + length];
            // One that stands there twice was named already.
            found.iter_mut().for_each(|row| row.is_in_silver = true);
            let difference = match found.first() {
                None => "is not in the hot store",
                Some(found) if found.hash != expected => "has other values in the hot store",
                Some(found) if !covers(days[usize::from(found.index)], day) => {
                    "stands in the index of another day in the hot store"
                }
                Some(_) => continue,
            };
            let source = self.recipe.schema.source;
            self.differs((partition, offset), &format!("(`{id}` of `silver.{source}`) {difference}"));
        }
    }

    fn differs(&mut self, (partition, offset): (Partition, Offset), how: &str) {
        self.proof.differs(|| format!("the row at partition {partition}, offset {offset} {how}"));
        self.remedy.wrong.push((partition, offset));
    }
}

impl Kept {
    fn place(&self) -> (Partition, Offset) {
        (self.partition, self.offset)
    }
}

fn covers(days: Option<(Day, Day)>, day: Day) -> bool {
    days.is_none_or(|(first, end)| first <= day && day < end)
}

fn hash(id: &str, json: &[u8]) -> u64 {
    xxh3_64_with_seed(json, xxh3_64_with_seed(id.as_bytes(), 0))
}

/// The days of `github-2026.11.22` or `github-2026.11`: the first, and the one after the last.
fn index_days(index: &str) -> Option<(Day, Day)> {
    let (_, date) = index.rsplit_once('-')?;
    let date = date.replace('.', "-");
    if let Some(day) = Day::parse(&date) {
        return Some((day, Day(day.0 + 1)));
    }
    let first = Day::parse(&format!("{date}-01"))?;
    // 31 days after the first of a month lies in the next one, whose first is that many days before.
    let (_, _, past) = Day(first.0 + 31).civil();
    Some((first, Day(first.0 + 32 - i32::from(past))))
}

pub(super) async fn repair(engines: &Engines, recipe: Recipe, remedy: &Remedy) -> Result<Vec<String>> {
    let source = recipe.schema.source;
    let mut done = Vec::new();
    let mut wrong: BTreeMap<Partition, BTreeSet<Offset>> = BTreeMap::new();
    for &(partition, offset) in &remedy.wrong {
        wrong.entry(partition).or_default().insert(offset);
    }
    for (partition, offsets) in wrong {
        let offsets: Vec<_> = offsets.into_iter().collect();
        for some in offsets.chunks(1_000) {
            let list: Vec<_> = some.iter().map(Offset::to_string).collect();
            let filter = format!("_partition = {partition} AND _offset IN ({})", list.join(", "));
            let mut batches = silver(engines, recipe, &filter).await?.batches;
            let (schema, mut rows) = (recipe.schema.arrow(), Vec::new());
            while let Some(batch) = batches.next().await {
                rows.push(as_schema(&batch?, &schema)?);
            }
            let rows = join(&schema, &rows)?;
            engines.hot.replace(source, &rows).await?;
            done.push(format!("wrote {} rows of `silver.{source}` into the hot store", rows.num_rows()));
        }
    }
    if !remedy.surplus.is_empty() {
        engines.hot.remove(source, &remedy.surplus).await?;
        done.push(format!("removed {} rows from the hot store", remedy.surplus.len()));
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_tells_its_days() {
        let days = |name: &str| index_days(name).map(|(first, end)| (first.to_string(), end.to_string()));
        let expect = |first: &str, end: &str| Some((first.to_owned(), end.to_owned()));
        assert_eq!(days("github-2026.11.30"), expect("2026-11-30", "2026-12-01"));
        assert_eq!(days("github-2024.02"), expect("2024-02-01", "2024-03-01"));
        assert_eq!(days("github-2015.12"), expect("2015-12-01", "2016-01-01"));
        assert_eq!(days("github"), None);
    }
}
