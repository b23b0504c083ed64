//! The port: bound, counted connections, stopped together.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use contract::{Error, Result, metric};
use tokio::net::{TcpListener, lookup_host};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::Kafka;
use super::connection::{Connection, Limits, Peer};
use super::coordinator::TICK;
use super::topics::Opened;
use crate::{EmbeddedLog, Settings};

/// The pause after a connection could not be accepted, which is for want of file descriptors by rule.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The port, being served.
#[derive(Debug)]
pub struct Server {
    /// Where Kafka's protocol is answered.
    pub address: SocketAddr,
    port: JoinHandle<()>,
}

impl Server {
    /// Waits until all connections are closed after the stop.
    pub async fn ended(self) {
        if let Err(panic) = self.port.await {
            tracing::error!(%panic, "the port of Kafka's protocol ended by a defect");
        }
    }
}

/// Binds `log.kafka_listen` and serves until `stop`; answers none if that setting is empty. The port is bound when it returns.
///
/// # Errors
/// `Change` for a setting that is wrong, and for an address that is in use or that others reach without being told.
pub async fn serve(log: Arc<EmbeddedLog>, stop: CancellationToken) -> Result<Option<Server>> {
    let settings = log.settings.clone();
    let opened = Opened(settings.kafka_produce_topics.clone());
    let told = told_address(&settings.kafka_advertise)?;
    if settings.kafka_listen.is_empty() {
        return Ok(None);
    }
    let listener = bind(&settings).await?;
    let failed = |cause| Error::stop("ask for the port that was bound").because(cause);
    let address = listener.local_addr().map_err(failed)?;
    let kafka = Arc::new(Kafka::new(log, opened));
    let port = Port { kafka, told, connections_max: settings.kafka_connections_max, stop };
    Ok(Some(Server { address, port: tokio::spawn(port.accept(listener)) }))
}

async fn bind(settings: &Settings) -> Result<TcpListener> {
    let listen = &settings.kafka_listen;
    let doing = || format!("listen on `{listen}` (`log.kafka_listen`)");
    let mut addresses = lookup_host(listen)
        .await
        .map_err(|cause| Error::change(format!("{}: it must be like `127.0.0.1:9092`", doing())).because(cause))?;
    let address = addresses.next().ok_or_else(|| Error::change(doing()).because("the name has no address"))?;
    if !address.ip().is_loopback() && !settings.kafka_allow_other_hosts {
        return Err(Error::change(format!(
            "{}: others reach it, and nobody is asked who they are; listen on 127.0.0.1, or set \
             `log.kafka_allow_other_hosts`",
            doing()
        )));
    }
    TcpListener::bind(address).await.map_err(|cause| match cause.kind() {
        std::io::ErrorKind::AddrInUse => Error::change(format!(
            "listen on `{address}`: another process has the port; end it, or set `log.kafka_listen` to another"
        )),
        _ => Error::change(doing()).because(cause),
    })
}

/// The host and port that clients are told to come to, if not where they came.
fn told_address(text: &str) -> Result<Option<(String, u16)>> {
    if text.is_empty() {
        return Ok(None);
    }
    let parts = text.rsplit_once(':').and_then(|(host, port)| Some((host.to_owned(), port.parse().ok()?)));
    let is_usable = |(host, port): &(String, u16)| !host.is_empty() && *port > 0;
    parts.filter(is_usable).map(Some).ok_or_else(|| {
        Error::change(format!(
            "tell clients `{text}` (`log.kafka_advertise`): it must be like `broker.example.org:9092`"
        ))
    })
}

struct Port {
    kafka: Arc<Kafka>,
    told: Option<(String, u16)>,
    connections_max: usize,
    stop: CancellationToken,
}

impl Port {
    async fn accept(self, listener: TcpListener) {
        let free = Arc::new(Semaphore::new(self.connections_max.min(Semaphore::MAX_PERMITS)));
        let limits = Arc::new(Limits::new());
        let mut connections = JoinSet::new();
        metric::KAFKA_CONNECTIONS.set(&[], 0.0);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let next = async {
                let place = Arc::clone(&free).acquire_owned().await.expect("never closed");
                (place, listener.accept().await)
            };
            let (place, accepted) = tokio::select! {
                () = self.stop.cancelled() => break,
                now = tick.tick() => {
                    self.kafka.coordinator.tick(now);
                    continue;
                }
                Some(_) = connections.join_next() => {
                    metric::KAFKA_CONNECTIONS.set(&[], connections.len() as f64);
                    continue;
                }
                next = next => next,
            };
            let peer =
                accepted.and_then(|(stream, address)| Ok((Peer::of(&stream, address, self.told.as_ref())?, stream)));
            match peer {
                Ok((peer, stream)) => {
                    let connection = Connection::new(Arc::clone(&self.kafka), Arc::clone(&limits), peer, stream);
                    connections.spawn(async move {
                        connection.serve().await;
                        drop(place);
                    });
                    metric::KAFKA_CONNECTIONS.set(&[], connections.len() as f64);
                }
                Err(cause) => {
                    tracing::warn!(%cause, "a connection to Kafka's port could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(listener);
        // What is being appended ends as it does; its client hears nothing and asks again elsewhere or later.
        connections.shutdown().await;
        metric::KAFKA_CONNECTIONS.set(&[], 0.0);
    }
}
