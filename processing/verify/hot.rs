//! Proof 3: the hot store against silver.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use contract::{Day, Offset, Partition, Positions, Result, StoredRow, row_json};
use futures::StreamExt;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{Proof, silver_table};
use crate::rebuild::{as_schema, places, read_silver};
use crate::{Engines, Recipe};

/// What can be mended from silver.
#[derive(Default)]
pub(super) struct Remedy {
    /// To be written anew.
    wrong: Vec<(Partition, Offset)>,
    /// Not in silver.
    surplus: Vec<(Partition, Offset)>,
}

/// The hash of each row of one index by its place; about 40 bytes of memory a row.
type Hashes = HashMap<(Partition, Offset), u64>;

pub(super) async fn prove(engines: &Engines, recipe: Recipe, marks: &Positions) -> Result<(Proof, Remedy)> {
    let first_day = engines.hot.first_day(engines.clock.now());
    let mut judge = Judge { engines, recipe, marks, first_day, proof: Proof::new("hot"), remedy: Remedy::default() };
    let mut seen: Vec<String> = Vec::new();
    let mut index = String::new();
    let mut hashes = Hashes::new();
    let mut stored = engines.hot.rows(recipe.schema.source).await?;
    while let Some(row) = stored.next().await {
        let row = row?;
        if row.index != index {
            judge.index(&index, std::mem::take(&mut hashes), &mut seen).await?;
            index.clone_from(&row.index);
        }
        judge.note(&row, &mut hashes);
    }
    judge.index(&index, hashes, &mut seen).await?;
    // What is left are days that no index has.
    let others = if seen.is_empty() { "true".to_owned() } else { format!("NOT ({})", seen.join(" OR ")) };
    judge.compare(&others, Hashes::new()).await?;
    Ok((judge.proof, judge.remedy))
}

struct Judge<'a> {
    engines: &'a Engines,
    recipe: Recipe,
    marks: &'a Positions,
    first_day: Option<Day>,
    proof: Proof,
    remedy: Remedy,
}

impl Judge<'_> {
    fn judged(&self, partition: Partition, offset: Offset) -> bool {
        offset < self.marks.of(partition)
    }

    fn note(&mut self, row: &StoredRow, hashes: &mut Hashes) {
        let place = (row.partition, row.offset);
        // Days past the retention leave in their own time.
        let kept = self.first_day.is_none_or(|first| index_days(&row.index).is_none_or(|(_, end)| end > first));
        if !kept || !self.judged(row.partition, row.offset) {
            return;
        }
        *self.proof.counts.entry("hot_rows").or_default() += 1;
        if hashes.insert(place, hash(&row.id, row.source_json.as_bytes())).is_some() {
            let StoredRow { id, partition, offset, .. } = row;
            self.proof.differs(|| {
                format!("`{id}` (partition {partition}, offset {offset}) is in the hot store more than once")
            });
            self.remedy.wrong.push(place);
        }
    }

    /// Compares one index with the rows of its days.
    async fn index(&mut self, index: &str, hashes: Hashes, seen: &mut Vec<String>) -> Result<()> {
        let Some((first, end)) = index_days(index) else { return Ok(()) };
        let days =
            format!("(event_time >= TIMESTAMP '{first}T00:00:00Z' AND event_time < TIMESTAMP '{end}T00:00:00Z')");
        self.compare(&days, hashes).await?;
        seen.push(days);
        Ok(())
    }

    /// Compares the rows of silver that `filter` selects with what the hot store has of them.
    async fn compare(&mut self, filter: &str, mut hashes: Hashes) -> Result<()> {
        let source = self.recipe.schema.source;
        let schema = self.recipe.schema.arrow();
        let names: Vec<_> = schema.fields().iter().map(|field| format!("\"{}\"", field.name())).collect();
        let kept = self.first_day.map_or("true".to_owned(), |day| format!("event_time >= TIMESTAMP '{day}T00:00:00Z'"));
        let query = format!("SELECT {} FROM {} WHERE {kept} AND {filter}", names.join(", "), silver_table(source));
        let mut silver = self.engines.cold.sql(&query).await?.batches;
        let mut json = Vec::new();
        while let Some(batch) = silver.next().await {
            let batch = as_schema(&batch?, &schema)?;
            let ids = arrow::array::AsArray::as_string::<i32>(batch.column(2));
            for (row, (partition, offset)) in places(&batch).enumerate() {
                if !self.judged(partition, offset) {
                    continue;
                }
                *self.proof.counts.entry("silver_rows").or_default() += 1;
                json.clear();
                row_json::write_row(&batch, row, &mut json);
                let difference = match hashes.remove(&(partition, offset)) {
                    None => "is not in the hot store",
                    Some(stored) if stored != hash(ids.value(row), &json) => "has other values in the hot store",
                    Some(_) => continue,
                };
                let id = ids.value(row);
                self.proof.differs(|| {
                    format!("`{id}` of `silver.{source}` (partition {partition}, offset {offset}) {difference}")
                });
                self.remedy.wrong.push((partition, offset));
            }
        }
        for (partition, offset) in hashes.into_keys().collect::<BTreeSet<_>>() {
            self.proof.differs(|| {
                format!(
                    "the hot store has a row at partition {partition}, offset {offset} that `silver.{source}` has not"
                )
            });
            self.remedy.surplus.push((partition, offset));
        }
        Ok(())
    }
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
            let rows =
                read_silver(engines, recipe, &format!("_partition = {partition} AND _offset IN ({})", list.join(", ")))
                    .await?;
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
