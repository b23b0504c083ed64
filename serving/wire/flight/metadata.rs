//! What clients list: catalogs, schemas, tables, and what this server can.

use arrow_flight::sql::metadata::{SqlInfoData, SqlInfoDataBuilder};
use arrow_flight::sql::{SqlInfo, SqlSupportedTransaction};
use contract::{Error, Result};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::datasource::TableType;
use datafusion::error::DataFusionError;
use datafusion::prelude::SessionContext;

/// Kinds of tables.
pub(crate) const TABLE_TYPES: &[&str] = &["TABLE", "VIEW"];

/// A table in its catalog.
pub(crate) struct Listed {
    pub(crate) schema: String,
    pub(crate) name: String,
    pub(crate) kind: &'static str,
    pub(crate) columns: SchemaRef,
}

/// The name of a session's catalog.
pub(crate) fn catalog_name(session: &SessionContext) -> String {
    session.state().config().options().catalog.default_catalog.clone()
}

/// All tables.
pub(crate) async fn tables(session: &SessionContext) -> Result<Vec<Listed>, DataFusionError> {
    let mut tables = Vec::new();
    let Some(catalog) = session.catalog(&catalog_name(session)) else { return Ok(tables) };
    for schema_name in catalog.schema_names() {
        let Some(schema) = catalog.schema(&schema_name) else { continue };
        for name in schema.table_names() {
            let Some(table) = schema.table(&name).await? else { continue };
            let kind = match table.table_type() {
                TableType::View => "VIEW",
                TableType::Base | TableType::Temporary => "TABLE",
            };
            tables.push(Listed { schema: schema_name.clone(), name, kind, columns: table.schema() });
        }
    }
    Ok(tables)
}

/// What this server is and can.
pub(crate) fn server() -> Result<SqlInfoData> {
    let mut about = SqlInfoDataBuilder::new();
    about.append(SqlInfo::FlightSqlServerName, "databroker");
    about.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    about.append(SqlInfo::FlightSqlServerArrowVersion, "1.3");
    about.append(SqlInfo::FlightSqlServerReadOnly, true);
    about.append(SqlInfo::FlightSqlServerSql, true);
    about.append(SqlInfo::FlightSqlServerSubstrait, false);
    about.append(SqlInfo::FlightSqlServerTransaction, SqlSupportedTransaction::None as i32);
    about.append(SqlInfo::FlightSqlServerCancel, true);
    about.append(SqlInfo::FlightSqlServerBulkIngestion, false);
    about.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
    about.build().map_err(|cause| Error::stop("say what Flight SQL can").because(cause))
}
