//! Silver at one moment, whole or in part, as tables of a query.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use contract::{Day, Period, Positions, Result, SourceId, Timestamp};
use datafusion::catalog::TableProvider;
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, LogicalPlanBuilder};
use datafusion::prelude::{col, lit};

use super::check::Shape;
use crate::committed::Committed;
use crate::layout::{Layout, PartitionValue};
use crate::marks::prefix;
use crate::scan::Scan;
use crate::store::Inner;
use crate::table::View;

/// Silver of one source at a moment.
pub(crate) struct Moment {
    layout: Arc<Layout>,
    view: View,
    /// The next offsets of its committed rows.
    pub(crate) committed: Positions,
    /// The next offsets of all its rows.
    pub(crate) rows_to: Positions,
    /// When the last of its files was written.
    pub(crate) written_at: Option<Timestamp>,
}

impl Inner {
    /// Silver of the sources that a view reads, all at one moment.
    pub(crate) async fn moments(&self, shape: &Shape) -> Result<BTreeMap<SourceId, Moment>> {
        if self.has_others() {
            for source in &shape.sources {
                self.source(*source)?.silver.refresh().await?;
            }
        }
        let written = self.written();
        let moment = |id: &SourceId| {
            let silver = &self.source(*id)?.silver;
            let view = silver.view().clone();
            let committed = view.committed.marks.of(&prefix(&silver.layout.name, *id));
            let rows_to = written.get(id).map_or_else(Positions::default, |written| written.silver().clone());
            let written_at = view.committed.files.iter().map(|file| file.modified_ms).max();
            Ok((
                *id,
                Moment {
                    layout: silver.layout.clone(),
                    view,
                    rows_to: rows_to.max(&committed),
                    committed,
                    written_at: written_at.map(|ms| Timestamp(ms.saturating_mul(1_000))),
                },
            ))
        };
        shape.sources.iter().map(moment).collect()
    }
}

impl Moment {
    /// Where the table lies, as other engines name it.
    pub(crate) fn place(&self) -> String {
        // Hadoop, by which Spark reads, has another name for S3.
        self.layout.place.shown("").replacen("s3://", "s3a://", 1)
    }

    /// What is committed.
    pub(crate) fn files(&self) -> &Committed {
        &self.view.committed
    }

    /// The committed rows; of some periods, or all.
    pub(crate) fn stored(&self, periods: Option<(&BTreeSet<Day>, Period)>) -> Arc<dyn TableProvider> {
        let committed = &self.view.committed;
        let files = committed.files.iter().filter(|file| match (periods, &file.value) {
            (Some((periods, period)), PartitionValue::Day(day)) => periods.contains(&first_day(Day(*day), period)),
            _ => true,
        });
        let committed = Committed {
            id: committed.id.clone(),
            version: committed.version,
            files: files.cloned().collect(),
            marks: committed.marks.clone(),
            configuration: committed.configuration.clone(),
            differs: committed.differs,
        };
        Arc::new(Scan::new(self.layout.clone(), View { committed: Arc::new(committed), pending: Vec::new() }))
    }

    /// The rows at or past a watermark, committed or not.
    pub(crate) fn past(&self, watermark: &Positions) -> Result<Arc<dyn TableProvider>, DataFusionError> {
        let rows = Arc::new(Scan::new(self.layout.clone(), self.view.clone()));
        let Some(filter) = past(watermark) else { return Ok(rows) };
        let plan =
            LogicalPlanBuilder::scan(self.layout.name.as_str(), provider_as_source(rows), None)?.filter(filter)?;
        Ok(Arc::new(ViewTable::new(plan.build()?, None)))
    }
}

/// The first day of the period of a view in which a period of silver lies.
pub(crate) fn first_day(day: Day, period: Period) -> Day {
    match period {
        Period::Day => day,
        Period::Month => day.first_of_month(),
    }
}

/// Whether a row stands at or past a watermark; none if all do.
fn past(watermark: &Positions) -> Option<Expr> {
    let known: Vec<Expr> = watermark.0.keys().map(|&partition| lit(i64::from(partition))).collect();
    let ends = watermark.0.iter().filter(|(_, next)| **next > 0);
    ends.clone().next()?;
    // Partitions that came since are past it altogether.
    let others = col("_partition").in_list(known, true);
    let past = watermark.0.iter().map(|(&partition, &next)| {
        col("_partition").eq(lit(i64::from(partition))).and(col("_offset").gt_eq(lit(next)))
    });
    Some(past.fold(others, Expr::or))
}
