//! A table as the query engine sees it: the committed files and the rows that wait, as one.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{FieldRef, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::pruning::PrunableStatistics;
use datafusion::common::stats::Precision;
use datafusion::common::{DFSchema, Result, Statistics};
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::union::UnionExec;

use crate::committed::CommittedFile;
use crate::layout::Layout;
use crate::table::View;

/// A table at one moment.
pub(crate) struct Scan {
    layout: Arc<Layout>,
    view: View,
}

impl Scan {
    /// A table as `view` shows it.
    pub(crate) fn new(layout: Arc<Layout>, view: View) -> Self {
        Self { layout, view }
    }

    /// The same under its name, for a session.
    pub(crate) fn named(layout: Arc<Layout>, view: View) -> (String, Arc<dyn TableProvider>) {
        (layout.name.clone(), Arc::new(Self::new(layout, view)))
    }

    /// The files that may hold rows for which all filters are true, by partition value and statistics.
    fn prune(&self, state: &dyn Session, filters: &[Expr]) -> Result<Vec<Arc<CommittedFile>>> {
        let files = &self.view.committed.files;
        let Some(filter) = conjunction(filters.iter().cloned()) else { return Ok(files.clone()) };
        let schema = DFSchema::try_from(self.layout.schema.clone())?;
        let filter = state.create_physical_expr(filter, &schema)?;
        let predicate = PruningPredicateBuilder::new().with_file_schema(self.layout.schema.clone());
        let Ok(predicate) = predicate.try_build(filter) else {
            // A filter that says nothing about bounds; it is applied to the rows.
            return Ok(files.clone());
        };
        let bounds = files.iter().map(|file| file.bounds.clone()).collect();
        let keep = predicate.prune(&PrunableStatistics::new(bounds, self.layout.schema.clone()))?;
        Ok(files.iter().zip(keep).filter(|(_, keep)| *keep).map(|(file, _)| file.clone()).collect())
    }

    fn scan_files(
        &self,
        state: &dyn Session,
        files: &[Arc<CommittedFile>],
        projection: Option<&Vec<usize>>,
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let partition: Vec<FieldRef> = self.layout.partition_field().cloned().into_iter().collect();
        let schema = TableSchema::builder(self.layout.files.clone()).with_table_partition_cols(partition).build();
        let mut total = Statistics::new_unknown(&self.layout.schema);
        total.num_rows = files.iter().fold(Precision::Exact(0), |sum, file| sum.add(&rows(file)));
        let columns = self.layout.files.fields().len();
        let files = files.iter().map(|file| partitioned_file(&self.layout, file, columns)).collect();
        let groups = FileGroup::new(files).split_files(state.config().target_partitions());
        // Data files never change, so a footer that was read stands.
        let (url, runtime) = (self.layout.place.store_url(), state.runtime_env());
        let footers = runtime.cache_manager.get_file_metadata_cache();
        let reader = CachedParquetFileReaderFactory::new(runtime.object_store(&url)?, footers);
        let source = ParquetSource::new(schema)
            .with_table_parquet_options(state.table_options().parquet.clone())
            .with_parquet_file_reader_factory(Arc::new(reader));
        let config = FileScanConfigBuilder::new(url, Arc::new(source))
            .with_file_groups(groups)
            .with_statistics(total)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}

#[async_trait]
impl TableProvider for Scan {
    fn schema(&self) -> SchemaRef {
        self.layout.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let files = self.prune(state, filters)?;
        let mut parts = Vec::new();
        if !files.is_empty() {
            parts.push(self.scan_files(state, &files, projection, limit)?);
        }
        let pending: Vec<RecordBatch> = self.view.pending.iter().map(|pending| pending.rows.clone()).collect();
        if !pending.is_empty() {
            let schema = self.layout.schema.clone();
            parts.push(MemorySourceConfig::try_new_exec(&[pending], schema, projection.cloned())?);
        }
        match parts.len() {
            0 => {
                let schema = datafusion::common::project_schema(&self.layout.schema, projection)?;
                Ok(Arc::new(EmptyExec::new(schema)))
            }
            1 => Ok(parts.remove(0)),
            _ => UnionExec::try_new(parts),
        }
    }

    /// Files are left out by every filter; the rows are filtered by the engine.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }
}

impl std::fmt::Debug for Scan {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Scan of `{}` at {:?}", self.layout.name, self.view.committed.version)
    }
}

fn rows(file: &Arc<CommittedFile>) -> Precision<usize> {
    file.rows.map_or(Precision::Absent, Precision::Exact)
}

fn partitioned_file(layout: &Layout, file: &Arc<CommittedFile>, columns: usize) -> PartitionedFile {
    let path = layout.place.location(&file.relative);
    // The bounds need not be values that occur, so they must not answer `max(…)`.
    let mut statistics = file.bounds.as_ref().clone().to_inexact();
    statistics.num_rows = rows(file);
    // Those of the partition column are added from its value.
    statistics.column_statistics.truncate(columns);
    let mut found = PartitionedFile::new(path.to_string(), file.bytes);
    found.object_meta.location = path;
    found.partition_values = file.value.scalar().into_iter().collect();
    found.with_statistics(Arc::new(statistics))
}
