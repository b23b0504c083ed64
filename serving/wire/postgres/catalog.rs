//! PostgreSQL's own tables and functions, by which clients list tables and columns.

use std::sync::{Arc, Mutex, PoisonError};

use contract::{Error, Result};
use datafusion::arrow::array::{AsArray, StringArray};
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::catalog::{MemorySchemaProvider, SchemaProvider, TableFunctionImpl};
use datafusion::datasource::empty::EmptyTable;
use datafusion::error::DataFusionError;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::scalar::ScalarValue;
use datafusion_postgres::datafusion_pg_catalog::pg_catalog::context::EmptyContextProvider;
use datafusion_postgres::datafusion_pg_catalog::pg_catalog::oid_type_planner::PgOidTypePlanner;
use datafusion_postgres::datafusion_pg_catalog::setup_pg_catalog;

use super::variables::{SEARCH_PATH, SERVER_VERSION, initial};

/// The one catalog, which is the database to clients.
const CATALOG: &str = "databroker";

/// The schema of PostgreSQL's own tables.
const PG_CATALOG: &str = "pg_catalog";

/// Table functions that PostgreSQL has, or has otherwise.
const TABLE_FUNCTIONS: &[&str] = &["generate_series", "range", "pg_get_keywords"];

/// A table as clients are told of it.
type Shape = (String, String, SchemaRef);

/// PostgreSQL's catalog over the tables' names and columns. It is one for all statements, since clients ask for a table's number
/// in one and for the table of that number in the next.
pub(crate) struct PgCatalog {
    /// Has the shapes of all tables, and no rows.
    shapes: SessionContext,
    known: Mutex<Vec<Shape>>,
    tables: Arc<dyn SchemaProvider>,
    functions: Vec<Arc<ScalarUDF>>,
    table_functions: Vec<(&'static str, Arc<dyn TableFunctionImpl>)>,
}

impl PgCatalog {
    pub(crate) fn new() -> Result<Self> {
        let failed = |cause: DataFusionError| Error::stop("set up PostgreSQL's catalog").because(cause);
        let shapes =
            SessionContext::new_with_config(SessionConfig::new().with_default_catalog_and_schema(CATALOG, SEARCH_PATH));
        let own = shapes.state().scalar_functions().clone();
        setup_pg_catalog(&shapes, CATALOG, EmptyContextProvider).map_err(|cause| failed(*cause))?;
        let version = format!("PostgreSQL {SERVER_VERSION} (databroker {})", env!("CARGO_PKG_VERSION"));
        shapes.register_udf(constant("version", ScalarValue::from(version)));
        // Drivers look for types of extensions by it, of which there are none.
        let none = |_: &[ColumnarValue]| Ok(ColumnarValue::Scalar(ScalarValue::Int32(None)));
        shapes.register_udf(create_udf(
            "to_regtype",
            vec![DataType::Utf8],
            DataType::Int32,
            Volatility::Stable,
            Arc::new(none),
        ));
        shapes.register_udf(current_setting());
        let state = shapes.state();
        let is_new = |(name, function): &(&String, &Arc<ScalarUDF>)| {
            own.get(*name).is_none_or(|before| !Arc::ptr_eq(before, function))
        };
        let functions = state.scalar_functions().iter().filter(is_new).map(|(_, function)| function.clone()).collect();
        let table_functions = TABLE_FUNCTIONS
            .iter()
            .filter_map(|name| Some((*name, state.table_functions().get(*name)?.function().clone())))
            .collect();
        let tables = shapes.catalog(CATALOG).and_then(|catalog| catalog.schema(PG_CATALOG));
        let tables = tables.ok_or_else(|| Error::stop("set up PostgreSQL's catalog: it has no tables"))?;
        Ok(Self { shapes, known: Mutex::default(), tables, functions, table_functions })
    }

    /// A session for one statement of a client of PostgreSQL: with that server's functions, and where it asks for them
    /// (`with_tables`) that server's tables.
    pub(crate) async fn context(
        &self,
        session: &SessionContext,
        search_path: &[String],
        with_tables: bool,
    ) -> Result<SessionContext, DataFusionError> {
        let state = session.state();
        let catalog_name = state.config().options().catalog.default_catalog.clone();
        let catalog = session.catalog(&catalog_name);
        let catalog =
            catalog.ok_or_else(|| DataFusionError::Internal(format!("there is no catalog {catalog_name}")))?;
        let schema = search_path.iter().find(|name| catalog.schema(name).is_some());
        let schema = schema.map_or(SEARCH_PATH, String::as_str);
        let config = state.config().clone().with_default_catalog_and_schema(catalog_name.clone(), schema);
        let builder = SessionStateBuilder::new_from_existing(state).with_config(config);
        let context = SessionContext::new_with_state(builder.with_type_planner(Arc::new(PgOidTypePlanner)).build());
        for function in &self.functions {
            context.register_udf(function.as_ref().clone());
        }
        for (name, function) in &self.table_functions {
            context.register_udtf(name, function.clone());
        }
        context.register_udf(constant("current_schema", ScalarValue::from(schema)));
        context.register_udf(constant("current_database", ScalarValue::from(CATALOG)));
        if with_tables {
            self.learn(session, &catalog_name).await?;
            catalog.register_schema(PG_CATALOG, self.tables.clone())?;
        }
        Ok(context)
    }

    /// Brings the shapes up to what a session has.
    async fn learn(&self, session: &SessionContext, catalog: &str) -> Result<(), DataFusionError> {
        let now = shapes(session, catalog).await?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if *known == now {
            return Ok(());
        }
        let catalog = self.shapes.catalog(CATALOG);
        let catalog = catalog.ok_or_else(|| DataFusionError::Internal(format!("there is no catalog {CATALOG}")))?;
        let schemas: std::collections::BTreeSet<_> = now.iter().map(|(schema, ..)| schema).collect();
        for schema in schemas {
            let tables = MemorySchemaProvider::new();
            for (_, name, columns) in now.iter().filter(|(of, ..)| of == schema) {
                tables.register_table(name.clone(), Arc::new(EmptyTable::new(columns.clone())))?;
            }
            catalog.register_schema(schema, Arc::new(tables))?;
        }
        *known = now;
        Ok(())
    }
}

/// The tables of a session, in no order of note but always the same.
async fn shapes(session: &SessionContext, catalog: &str) -> Result<Vec<Shape>, DataFusionError> {
    let mut shapes = Vec::new();
    let Some(catalog) = session.catalog(catalog) else { return Ok(shapes) };
    for schema_name in catalog.schema_names().into_iter().filter(|name| name != PG_CATALOG) {
        let Some(schema) = catalog.schema(&schema_name) else { continue };
        for name in schema.table_names() {
            if let Some(table) = schema.table(&name).await? {
                shapes.push((schema_name.clone(), name, table.schema()));
            }
        }
    }
    shapes.sort_by(|one, other| (&one.0, &one.1).cmp(&(&other.0, &other.1)));
    Ok(shapes)
}

/// A function without arguments that always answers the same.
fn constant(name: &str, value: ScalarValue) -> ScalarUDF {
    let answer = move |_: &[ColumnarValue]| Ok(ColumnarValue::Scalar(value.clone()));
    create_udf(name, Vec::new(), DataType::Utf8, Volatility::Stable, Arc::new(answer))
}

/// `current_setting('server_version')`: what a variable is before a client sets it; null where there is none.
fn current_setting() -> ScalarUDF {
    let answer = |arguments: &[ColumnarValue]| {
        let arrays = ColumnarValue::values_to_arrays(arguments)?;
        let names = arrays[0].as_string::<i32>();
        let values: StringArray = names.iter().map(|name| name.and_then(initial)).collect();
        Ok(ColumnarValue::Array(Arc::new(values)))
    };
    create_udf("current_setting", vec![DataType::Utf8], DataType::Utf8, Volatility::Stable, Arc::new(answer))
}
