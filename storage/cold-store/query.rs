//! SQL over the tables: read-only, in bounded memory and time.

use std::path::PathBuf;
use std::sync::Arc;

use contract::{Error, Result, TableStream};
use datafusion::error::DataFusionError;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::prelude::SessionConfig;

use crate::Settings;
use crate::place::Place;
use crate::query_threads::QueryThreads;
use crate::session::{CATALOG, QueryLimits, Session, Tables};
use crate::truncate;
use crate::views::sketch;

/// Answers queries. All of them together use the memory and disk that the settings allow.
pub(crate) struct Engine {
    template: SessionState,
    /// For [`Engine::scan`].
    scanning: SessionState,
    limits: QueryLimits,
    threads: Arc<QueryThreads>,
}

/// Rows of a batch of a scan: with rows of 30 KB a batch of the engine's usual size would be 250 MB.
const SCAN_BATCH_ROWS: usize = 1_024;

/// Bytes of footers that are kept in memory once a query has read them; the longest unused give way.
const FOOTERS_BYTES_MAX: usize = 32 << 20;

impl Engine {
    /// An engine that reads files of `place` and spills into the directory `spill`, or where the system keeps temporary
    /// files.
    pub(crate) fn new(spill: Option<PathBuf>, settings: &Settings, place: &Place) -> Result<Self> {
        let mode = spill.map_or(DiskManagerMode::OsTmpDirectory, |spill| DiskManagerMode::Directories(vec![spill]));
        let disk =
            DiskManagerBuilder::default().with_mode(mode).with_max_temp_directory_size(settings.query_spill_bytes_max);
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(FairSpillPool::new(settings.query_memory_bytes_max)))
            .with_disk_manager_builder(disk)
            .with_metadata_cache_limit(FOOTERS_BYTES_MAX)
            .build_arc();
        let runtime = runtime.map_err(|error| Error::stop("start the query engine").because(error))?;
        if !place.is_on_disk() {
            runtime.register_object_store(place.store_url().as_ref(), place.store().clone());
        }
        let config = self::config().with_target_partitions(settings.query_threads);
        let scan_config = self::config().with_target_partitions(1).with_batch_size(SCAN_BATCH_ROWS);
        let builder = SessionStateBuilder::new().with_config(config).with_runtime_env(runtime).with_default_features();
        let mut template = builder.with_physical_optimizer_rules(crate::uniqueness::rules()).build();
        add_functions(&mut template).map_err(|error| Error::stop("start the query engine").because(error))?;
        let scanning = SessionStateBuilder::new_from_existing(template.clone()).with_config(scan_config).build();
        let limits = QueryLimits { rows_max: settings.query_rows_max, seconds_max: settings.query_seconds_max };
        let threads = Arc::new(QueryThreads::new(settings.query_threads)?);
        Ok(Self { template, scanning, limits, threads })
    }

    /// Answers a query of ours, however long it takes and however much it answers.
    pub(crate) async fn scan(&self, query: &str, tables: Tables) -> Result<TableStream> {
        let session = Session::new(&self.scanning, tables, None, self.threads.clone())?;
        session.query(query).await
    }

    /// Begins to read tables for ourselves, however long it takes and however much it answers.
    pub(crate) fn unlimited(&self, tables: Tables) -> Result<Session> {
        Session::new(&self.template, tables, None, self.threads.clone())
    }

    /// Begins to read tables at one moment.
    pub(crate) fn session(&self, tables: Tables) -> Result<Session> {
        Session::new(&self.template, tables, Some(self.limits), self.threads.clone())
    }
}

/// The functions of the language of views, which stand open to every query, and those in the place of the engine's.
fn add_functions(state: &mut SessionState) -> Result<(), DataFusionError> {
    state.register_udaf(Arc::new(sketch::sketch()))?;
    state.register_udaf(Arc::new(sketch::sketch_merge()))?;
    state.register_udf(Arc::new(sketch::estimate()))?;
    state.register_udf(Arc::new(truncate::date_trunc()))?;
    Ok(())
}

fn config() -> SessionConfig {
    let mut config = SessionConfig::new()
        .with_information_schema(true)
        .with_default_catalog_and_schema(CATALOG, "silver")
        .with_create_default_catalog_and_schema(false)
        .with_collect_statistics(true);
    let options = config.options_mut();
    options.sql_parser.collect_spans = true;
    // One type of text in answers: that of the tables.
    options.sql_parser.map_string_types_to_utf8view = false;
    // `SELECT now()` and times without a zone mean UTC, as all times here.
    options.execution.time_zone = Some("UTC".to_owned());
    // Columns that no filter needs are read of the rows that pass: long texts are most of a file.
    options.execution.parquet.pushdown_filters = true;
    config
}
