//! Proof 3: the hot store against silver.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use contract::{Day, Offset, Partition, Positions, Result, row_json};
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

/// The hash of each row by its place; 32 bytes of memory a row of the hot store.
type Hashes = HashMap<(Partition, Offset), u64>;

pub(super) async fn prove(engines: &Engines, recipe: Recipe, marks: &Positions) -> Result<(Proof, Remedy)> {
    let source = recipe.schema.source;
    let mut proof = Proof::new("hot");
    let mut remedy = Remedy::default();
    let first_day = engines.hot.first_day(engines.clock.now());
    let judged = |partition: Partition, offset: Offset| offset < marks.of(partition);

    let mut hot = Hashes::new();
    let mut stored = engines.hot.rows(source).await?;
    while let Some(row) = stored.next().await {
        let row = row?;
        // Days past the retention leave in their own time.
        let kept = first_day.is_none_or(|first| index_day(&row.index).is_none_or(|day| day >= first));
        if !kept || !judged(row.partition, row.offset) {
            continue;
        }
        *proof.counts.entry("hot_rows").or_default() += 1;
        if hot.insert((row.partition, row.offset), hash(&row.id, row.source_json.as_bytes())).is_some() {
            proof.differs(|| {
                format!(
                    "`{}` (partition {}, offset {}) is in the hot store more than once",
                    row.id, row.partition, row.offset
                )
            });
            remedy.wrong.push((row.partition, row.offset));
        }
    }
    let schema = recipe.schema.arrow();
    let names: Vec<_> = schema.fields().iter().map(|field| format!("\"{}\"", field.name())).collect();
    let since = first_day.map_or("true".to_owned(), |day| format!("event_day >= DATE '{day}'"));
    let query = format!("SELECT {} FROM {} WHERE {since}", names.join(", "), silver_table(source));
    let mut silver = engines.cold.sql(&query).await?.batches;
    let mut json = Vec::new();
    while let Some(batch) = silver.next().await {
        let batch = as_schema(&batch?, &schema)?;
        let ids = arrow::array::AsArray::as_string::<i32>(batch.column(2));
        for (row, (partition, offset)) in
            places(&batch).enumerate().filter(|&(_, (partition, offset))| judged(partition, offset))
        {
            *proof.counts.entry("silver_rows").or_default() += 1;
            json.clear();
            row_json::write_row(&batch, row, &mut json);
            let difference = match hot.remove(&(partition, offset)) {
                None => "is not in the hot store",
                Some(stored) if stored != hash(ids.value(row), &json) => "has other values in the hot store",
                Some(_) => continue,
            };
            proof.differs(|| {
                format!(
                    "`{}` of `silver.{source}` (partition {partition}, offset {offset}) {difference}",
                    ids.value(row)
                )
            });
            remedy.wrong.push((partition, offset));
        }
    }
    for (partition, offset) in hot.into_keys().collect::<BTreeSet<_>>() {
        proof.differs(|| {
            format!("the hot store has a row at partition {partition}, offset {offset} that `silver.{source}` has not")
        });
        remedy.surplus.push((partition, offset));
    }
    Ok((proof, remedy))
}

fn hash(id: &str, json: &[u8]) -> u64 {
    xxh3_64_with_seed(json, xxh3_64_with_seed(id.as_bytes(), 0))
}

/// The day of `github-2026.11.22`; none for an index by month.
fn index_day(index: &str) -> Option<Day> {
    let (_, date) = index.rsplit_once('-')?;
    Day::parse(&date.replace('.', "-"))
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
