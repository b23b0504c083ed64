//! SQL over the tables: read-only, in bounded memory and time.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use contract::{Error, Result, TableStream};
use datafusion::catalog::{CatalogProvider, MemoryCatalogProvider, MemorySchemaProvider, SchemaProvider};
use datafusion::error::DataFusionError;
use datafusion::execution::SessionState;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::physical_plan::SendableRecordBatchStream;
use datafusion::prelude::{SQLOptions, SessionConfig, SessionContext};
use futures::stream::{self, Stream, StreamExt};
use tokio::time::Instant;

use crate::Settings;
use crate::layout::Layout;
use crate::place::Place;
use crate::query_error::explain;
use crate::scan::Scan;
use crate::table::View;
use crate::travel;

/// Characters of a query: a longer one is a program's mistake, and its plan would fill the memory.
const QUERY_BYTES_MAX: usize = 1 << 20;

/// The name before the schemas, which no query needs to say.
const CATALOG: &str = "databroker";

/// Answers queries. All of them together use the memory and disk that the settings allow.
pub(crate) struct Engine {
    template: SessionState,
    /// For [`Engine::scan`].
    scanning: SessionState,
    rows_max: usize,
    seconds_max: u64,
}

/// Rows of a batch of a scan: with rows of 30 KB a batch of the engine's usual size would be 250 MB.
const SCAN_BATCH_ROWS: usize = 1_024;

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
            .build_arc();
        let runtime = runtime.map_err(|error| Error::stop("start the query engine").because(error))?;
        if !place.is_on_disk() {
            runtime.register_object_store(place.store_url().as_ref(), place.store().clone());
        }
        let config = self::config().with_target_partitions(settings.query_threads);
        let scan_config = self::config().with_target_partitions(1).with_batch_size(SCAN_BATCH_ROWS);
        let template =
            SessionStateBuilder::new().with_config(config).with_runtime_env(runtime).with_default_features().build();
        let scanning = SessionStateBuilder::new_from_existing(template.clone()).with_config(scan_config).build();
        Ok(Self { template, scanning, rows_max: settings.query_rows_max, seconds_max: settings.query_seconds_max })
    }

    /// Answers a query over tables at one moment.
    pub(crate) async fn query(&self, query: &str, tables: Vec<(Arc<Layout>, View)>) -> Result<TableStream> {
        if query.len() > QUERY_BYTES_MAX {
            return Err(Error::change(format!(
                "answer a query of {} bytes: {QUERY_BYTES_MAX} is the most",
                query.len()
            )));
        }
        let names: Vec<String> = tables.iter().map(|(layout, _)| layout.name.clone()).collect();
        let deadline = Instant::now() + Duration::from_secs(self.seconds_max);
        let started = tokio::time::timeout_at(deadline, start(&self.template, query, tables)).await;
        let stream = started.map_err(|_| self.late())?.map_err(|error| explain(&error, &names))?;
        let schema = stream.schema();
        let running =
            Running { stream, deadline, rows_left: self.rows_max, late: self.late(), rows_max: self.rows_max };
        Ok(TableStream { schema, batches: running.batches(names) })
    }

    /// Answers a query of ours, however long it takes and however much it answers.
    pub(crate) async fn scan(&self, query: &str, tables: Vec<(Arc<Layout>, View)>) -> Result<TableStream> {
        let names: Vec<String> = tables.iter().map(|(layout, _)| layout.name.clone()).collect();
        let stream = start(&self.scanning, query, tables).await.map_err(|error| explain(&error, &names))?;
        let schema = stream.schema();
        let batches = stream.map(move |batch| batch.map_err(|error| explain(&error, &names)));
        Ok(TableStream { schema, batches: Box::pin(batches) })
    }

    fn late(&self) -> Error {
        Error::retry(format!(
            "answer the query within {} s (setting `cold.query_seconds_max`); ask for less, such as one day",
            self.seconds_max
        ))
    }
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
    config
}

async fn start(
    state: &SessionState,
    query: &str,
    tables: Vec<(Arc<Layout>, View)>,
) -> Result<SendableRecordBatchStream, DataFusionError> {
    let context = SessionContext::new_with_state(state.clone());
    context.register_catalog_list(Arc::new(datafusion::catalog::MemoryCatalogProviderList::new()));
    travel::register(&context, &tables);
    context.register_catalog(CATALOG, catalog(tables)?);
    let state = context.state();
    let dialect = state.config().options().sql_parser.dialect;
    let statement = state.sql_to_statement(query, &dialect)?;
    let plan = state.statement_to_plan(statement).await?;
    let read_only = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    read_only.verify_plan(&plan)?;
    context.execute_logical_plan(plan).await?.execute_stream().await
}

struct Running {
    stream: SendableRecordBatchStream,
    deadline: Instant,
    rows_left: usize,
    rows_max: usize,
    late: Error,
}

impl Running {
    /// The answer, which ends with an error where a limit is reached.
    fn batches(self, names: Vec<String>) -> Pin<Box<dyn Stream<Item = Result<RecordBatch>> + Send>> {
        let batches = stream::unfold(Some(self), move |running| {
            let names = names.clone();
            async move {
                let mut running = running?;
                let next = match tokio::time::timeout_at(running.deadline, running.stream.next()).await {
                    Err(_) => return Some((Err(running.late), None)),
                    Ok(next) => next?,
                };
                match next {
                    Ok(batch) => match running.rows_left.checked_sub(batch.num_rows()) {
                        Some(left) => {
                            running.rows_left = left;
                            Some((Ok(batch), Some(running)))
                        }
                        None => Some((Err(too_many(running.rows_max)), None)),
                    },
                    Err(error) => Some((Err(explain(&error, &names)), None)),
                }
            }
        });
        Box::pin(batches)
    }
}

fn too_many(rows_max: usize) -> Error {
    Error::retry(format!(
        "answer more than {rows_max} rows (setting `cold.query_rows_max`); add a LIMIT, or group the rows"
    ))
}

fn catalog(tables: Vec<(Arc<Layout>, View)>) -> Result<Arc<dyn CatalogProvider>, DataFusionError> {
    let mut schemas: BTreeMap<String, Arc<MemorySchemaProvider>> = BTreeMap::new();
    for (layout, view) in tables {
        let (schema, name) = layout.name.split_once('.').expect("tables are named `SCHEMA.NAME`");
        let schema = schemas.entry(schema.to_owned()).or_default();
        schema.register_table(name.to_owned(), Arc::new(Scan::new(layout.clone(), view)))?;
    }
    let catalog = MemoryCatalogProvider::new();
    for (name, schema) in schemas {
        catalog.register_schema(&name, schema)?;
    }
    Ok(Arc::new(catalog))
}
