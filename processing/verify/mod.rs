//! The four proofs that nothing was lost and nothing counted twice, by reading the log and both stores.
//!
//! | proof | says |
//! | --- | --- |
//! | `bronze` | bronze holds every record of the log below its mark once, with the log's bytes, and no other where the log reaches |
//! | `silver` | every record of bronze is a row, repeats the id of a row, or is a dead letter; no row or dead letter is without its record |
//! | `hot` | every row younger than the retention is in the hot store once with the same values, and nothing else is |
//! | `balance` | records in = rows + duplicates + rejects |
//!
//! Marks are the positions both stores have committed; what lies beyond them is work in progress and not judged.

mod bronze;
mod hot;
mod silver;

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Field, Schema, TimeUnit, TimestampMicrosecondType};
use contract::{Offset, Partition, Positions, Result, SourceId, Timestamp};
use futures::StreamExt;

use crate::rebuild::{as_schema, places};
use crate::{Engines, Recipe};

/// How many differences a proof names; all are counted.
const NAMED_MAX: usize = 20;

/// What `verify` found for one source.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Report {
    /// The source.
    pub source: String,
    /// Whether all proofs hold.
    pub ok: bool,
    /// The next offset per partition, up to which was judged.
    pub marks: Positions,
    /// The proofs, in order.
    pub proofs: Vec<Proof>,
    /// What `--repair` did, a line each; empty without it.
    pub repairs: Vec<String>,
}

/// One proof.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Proof {
    /// `bronze`, `silver`, `hot` or `balance`.
    pub name: &'static str,
    /// Whether it holds.
    pub ok: bool,
    /// What was counted, by name.
    pub counts: std::collections::BTreeMap<&'static str, u64>,
    /// How many differences there are.
    pub differences: u64,
    /// The first of them, a sentence each.
    pub named: Vec<String>,
}

impl Proof {
    fn new(name: &'static str) -> Self {
        Self { name, ok: true, ..Self::default() }
    }

    fn differs(&mut self, what: impl FnOnce() -> String) {
        self.ok = false;
        self.differences += 1;
        if self.named.len() < NAMED_MAX {
            self.named.push(what());
        }
    }
}

/// Proves a source, in memory that does not grow with it; with `repair` mends what can be mended from bronze (and bronze from the log), and proves
/// again.
///
/// # Errors
/// When something cannot be read. A difference is not an error.
pub async fn verify(engines: &Engines, recipe: Recipe, repair: bool) -> Result<Report> {
    let (mut report, remedies) = prove(engines, recipe).await?;
    if !repair || report.ok {
        return Ok(report);
    }
    let mut repairs = bronze::repair(engines, recipe.schema.source, &remedies.bronze).await?;
    let mut silver = remedies.silver;
    if !repairs.is_empty() {
        silver = silver::prove(engines, recipe.schema, &report.marks).await?.2;
    }
    let silver_repairs = silver::repair(engines, recipe, silver).await?;
    let mut hot = remedies.hot;
    if !silver_repairs.is_empty() {
        hot = hot::prove(engines, recipe, &report.marks).await?.1;
    }
    repairs.extend(silver_repairs);
    repairs.extend(hot::repair(engines, recipe, &hot).await?);
    if !repairs.is_empty() {
        report = prove(engines, recipe).await?.0;
    }
    report.repairs = repairs;
    Ok(report)
}

/// What each proof found to mend.
struct Remedies {
    bronze: bronze::Remedy,
    silver: silver::Remedy,
    hot: hot::Remedy,
}

async fn prove(engines: &Engines, recipe: Recipe) -> Result<(Report, Remedies)> {
    let source = recipe.schema.source;
    let cold = engines.cold.committed(source).await?;
    let (bronze_proof, bronze) = bronze::prove(engines, source, &cold).await?;
    let (silver_proof, balance, silver) = silver::prove(engines, recipe.schema, &cold).await?;
    let (hot_proof, hot) = hot::prove(engines, recipe, &cold).await?;
    let proofs = vec![bronze_proof, silver_proof, hot_proof, balance];
    let ok = proofs.iter().all(|proof| proof.ok);
    let report = Report { source: source.0.to_owned(), ok, marks: cold, proofs, repairs: Vec::new() };
    Ok((report, Remedies { bronze, silver, hot }))
}

/// The rows of a table that tell who a record is: `take` is given partition, offset, id and event time of each.
async fn for_each_id(
    engines: &Engines,
    (table, id): (&str, &str),
    filter: &str,
    mut take: impl FnMut(Partition, Offset, &str, Timestamp),
) -> Result<()> {
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let columns =
        [("_partition", DataType::Int64), ("_offset", DataType::Int64), ("id", DataType::Utf8), ("event_time", time)];
    let schema = Arc::new(Schema::new(columns.map(|(name, kind)| Field::new(name, kind, true)).to_vec()));
    let query = format!("SELECT _partition, _offset, {id}, event_time FROM {table} WHERE {filter}");
    let mut batches = engines.cold.scan(&query).await?.batches;
    while let Some(batch) = batches.next().await {
        let batch = as_schema(&batch?, &schema)?;
        let ids = batch.column(2).as_string::<i32>();
        let times = batch.column(3).as_primitive::<TimestampMicrosecondType>();
        for (row, (partition, offset)) in places(&batch).enumerate() {
            take(partition, offset, ids.value(row), Timestamp(times.value(row)));
        }
    }
    Ok(())
}

fn bronze_table(source: SourceId) -> String {
    format!("bronze.{source}")
}

fn silver_table(source: SourceId) -> String {
    format!("silver.{source}")
}
