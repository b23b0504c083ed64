//! Both ports: bound together, stopped together.

use std::net::SocketAddr;
use std::sync::Arc;

use contract::{Result, Secret};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::flight::FlightPort;
use crate::listener::Listener;
use crate::postgres::PostgresPort;
use crate::statements::Statements;
use crate::{Database, Settings};

/// Both ports, being served.
#[derive(Debug)]
pub struct Server {
    /// Where PostgreSQL's protocol is answered; none where that is off.
    pub postgres: Option<SocketAddr>,
    /// Where Flight SQL is answered; none where that is off.
    pub flight: Option<SocketAddr>,
    ports: Vec<JoinHandle<()>>,
}

impl Server {
    /// Waits for the shutdown and, after it, for a few seconds for the statements that are being answered.
    pub async fn ended(self) {
        for port in self.ports {
            if let Err(panic) = port.await {
                tracing::error!(%panic, "a port ended by a defect");
            }
        }
    }
}

/// Binds the ports that are on and serves until `stop`. All are bound when it returns.
///
/// # Errors
/// `Change` for an address that is wrong, in use, or open to others without a token, and for a limit of zero.
pub async fn serve(
    settings: &Settings,
    token: &Secret,
    database: Arc<dyn Database>,
    stop: CancellationToken,
) -> Result<Server> {
    settings.check()?;
    let token = token.reveal().map(str::to_owned);
    let (most, has_token) = (settings.connections_max, token.is_some());
    let postgres = Listener::bind("postgres", "postgres_listen", &settings.postgres_listen, most, has_token).await?;
    let flight = Listener::bind("flight", "flight_listen", &settings.flight_listen, most, has_token).await?;
    let statements = Statements::new(database, settings);
    let mut server = Server {
        postgres: postgres.as_ref().map(|listener| listener.address),
        flight: flight.as_ref().map(|listener| listener.address),
        ports: Vec::new(),
    };
    if let Some(listener) = postgres {
        let port = PostgresPort::new(statements.clone(), token.clone());
        server.ports.push(tokio::spawn(port.serve(listener, stop.clone())));
    }
    if let Some(listener) = flight {
        let port = FlightPort::new(statements, token.as_deref())?;
        server.ports.push(tokio::spawn(port.serve(listener, stop)));
    }
    Ok(server)
}
