//! The cold store's tables for clients of PostgreSQL's protocol and of Flight SQL.

use std::sync::Arc;

use async_trait::async_trait;
use cold_store::DeltaStore;
use contract::{Error, Result, TableStream};
use sql_wire::{DataFusionError, Database, LogicalPlan, Server, Session, SessionContext};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::broker::Broker;

struct Tables(Arc<DeltaStore>);

struct Reading(cold_store::Session);

#[async_trait]
impl Database for Tables {
    async fn session(&self) -> Result<Arc<dyn Session>> {
        Ok(Arc::new(Reading(self.0.session().await?)))
    }
}

#[async_trait]
impl Session for Reading {
    fn context(&self) -> &SessionContext {
        self.0.context()
    }

    fn explain(&self, error: &DataFusionError) -> Error {
        self.0.explain(error)
    }

    async fn run(&self, context: &SessionContext, plan: LogicalPlan) -> Result<TableStream> {
        self.0.run(context, plan).await
    }
}

/// Answers SQL in both protocols until `stop`.
pub(crate) async fn serve(broker: &Broker, stop: CancellationToken) -> Result<Server> {
    let database = Arc::new(Tables(broker.cold.clone()));
    let server = sql_wire::serve(&broker.settings.sql, &broker.settings.serving.token, database, stop).await?;
    if let Some(address) = server.postgres {
        info!(postgres = %address, "SQL: psql -h {} -p {} -d databroker", address.ip(), address.port());
    }
    if let Some(address) = server.flight {
        info!(flight = %address, "SQL in columns: grpc://{address} (Arrow Flight SQL)");
    }
    Ok(server)
}
