//! PostgreSQL's protocol: what psql, drivers and BI programs speak.
//! Source: <https://www.postgresql.org/docs/16/protocol.html>.

mod answer;
mod catalog;
#[cfg(test)]
mod client_test;
mod connection;
mod cursor;
mod failure;
mod parameters;
mod parse;
mod query;
mod rewrite;
mod variables;

use std::sync::Arc;
use std::time::Duration;

use contract::Result;
use datafusion_postgres::pgwire::tokio::process_socket;
use tokio::sync::OnceCell;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::listener::Listener;
use crate::statements::Statements;
use catalog::PgCatalog;
use connection::{Cancels, Handlers};

/// The name in metrics.
pub(crate) const PROTOCOL: &str = "postgres";

/// How long connections may go on after the shutdown: what they are being answered is read by a client that waits for it.
const DRAIN_MAX: Duration = Duration::from_secs(2);

/// What all connections share.
pub(crate) struct Shared {
    statements: Statements,
    /// Made for the first statement: it takes memory that a port which nobody uses need not have.
    catalog: OnceCell<PgCatalog>,
    cancels: Arc<Cancels>,
    token: Option<String>,
}

impl Shared {
    /// PostgreSQL's catalog.
    pub(crate) async fn catalog(&self) -> Result<&PgCatalog> {
        self.catalog.get_or_try_init(async || PgCatalog::new()).await
    }
}

/// PostgreSQL's protocol, ready to be served.
pub(crate) struct PostgresPort(Arc<Shared>);

impl PostgresPort {
    pub(crate) fn new(statements: Statements, token: Option<String>) -> Self {
        Self(Arc::new(Shared { statements, catalog: OnceCell::new(), cancels: Arc::default(), token }))
    }

    pub(crate) async fn serve(self, listener: Listener, stop: CancellationToken) {
        let mut connections = JoinSet::new();
        loop {
            let (stream, place) = tokio::select! {
                () = stop.cancelled() => break,
                Some(_) = connections.join_next() => continue,
                accepted = listener.accept() => accepted,
            };
            let handlers = Arc::new(Handlers::new(self.0.clone()));
            connections.spawn(async move {
                // What goes wrong on a connection is the client's: it left, or speaks another protocol.
                if let Err(cause) = process_socket(stream, None, handlers).await {
                    tracing::debug!(%cause, "a connection of PostgreSQL's protocol broke off");
                }
                drop(place);
            });
        }
        drop(listener);
        // Clients keep idle connections for long; only those that are being answered end by themselves.
        let answered = async {
            while self.0.cancels.any() {
                self.0.cancels.ended().await
            }
        };
        tokio::time::timeout(DRAIN_MAX, answered).await.unwrap_or_default();
        connections.shutdown().await;
    }
}
