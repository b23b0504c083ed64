//! The two ports: bound together, stopped together.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use contract::{Error, Result};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::routes::router;
use crate::{Door, Services, Settings};

/// How long requests that are being answered may take after the shutdown; `docker stop` kills after 10 s.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// The pause after a connection could not be accepted, which is for want of file descriptors by rule.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Both ports, being served.
#[derive(Debug)]
pub struct Server {
    /// Where Elasticsearch's REST is answered; none where that is off.
    pub elasticsearch: Option<SocketAddr>,
    /// Where SQL, commands, metrics and health are answered.
    pub http: SocketAddr,
    ports: Vec<JoinHandle<()>>,
}

impl Server {
    /// Waits for the shutdown and, after it, up to 5 s for the requests that are being answered.
    pub async fn ended(self) {
        for port in self.ports {
            if let Err(panic) = port.await {
                tracing::error!(%panic, "a port ended by a defect");
            }
        }
    }
}

/// Binds both ports (one where Elasticsearch's is off) and serves until `shutdown` is ready. Both are bound when it returns.
///
/// # Errors
/// `Change` for an address that is wrong, in use, or open to others without a token, and for a limit of zero.
pub async fn serve(
    settings: &Settings,
    services: Services,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<Server> {
    settings.check()?;
    let elasticsearch = match settings.elasticsearch_listen.as_str() {
        "" => None,
        listen => Some(bind(settings, "elasticsearch_listen", listen).await?),
    };
    let http = bind(settings, "http_listen", &settings.http_listen).await?;
    let addresses = (elasticsearch.as_ref().map(local_address).transpose()?, local_address(&http)?);

    let (stop, stopping) = watch::channel(false);
    tokio::spawn(async move {
        shutdown.await;
        stop.send_replace(true);
        // The receivers must see the value, not that the sender is gone.
        stop.closed().await;
    });
    let slots = Arc::new(Semaphore::new(settings.concurrent_requests_max.min(Semaphore::MAX_PERMITS)));
    let start = |listener, door| {
        let app = router(door, settings, services.clone(), Arc::clone(&slots));
        let port = Port { app, settings: settings.clone(), stopping: stopping.clone() };
        tokio::spawn(port.accept(listener))
    };
    let doors = elasticsearch.map(|listener| (listener, Door::Elasticsearch)).into_iter().chain([(http, Door::Http)]);
    let ports = doors.map(|(listener, door)| start(listener, door)).collect();
    Ok(Server { elasticsearch: addresses.0, http: addresses.1, ports })
}

async fn bind(settings: &Settings, setting: &str, listen: &str) -> Result<TcpListener> {
    let doing = || format!("listen on `{listen}` (`serving.{setting}`)");
    let mut addresses = lookup_host(listen)
        .await
        .map_err(|cause| Error::change(format!("{}: it must be like `127.0.0.1:9200`", doing())).because(cause))?;
    let address = addresses.next().ok_or_else(|| Error::change(doing()).because("the name has no address"))?;
    settings.check_reach(setting, address)?;
    TcpListener::bind(address).await.map_err(|cause| match cause.kind() {
        std::io::ErrorKind::AddrInUse => Error::change(format!(
            "listen on `{address}`: another process has the port; end it, or set `serving.{setting}` to another"
        )),
        _ => Error::change(doing()).because(cause),
    })
}

fn local_address(listener: &TcpListener) -> Result<SocketAddr> {
    listener.local_addr().map_err(|cause| Error::stop("ask for the port that was bound").because(cause))
}

struct Port {
    app: Router,
    settings: Settings,
    stopping: watch::Receiver<bool>,
}

impl Port {
    async fn accept(self, listener: TcpListener) {
        let free = Arc::new(Semaphore::new(self.settings.connections_max.min(Semaphore::MAX_PERMITS)));
        let mut connections = JoinSet::new();
        let mut stopping = self.stopping.clone();
        loop {
            let next = async {
                let place = Arc::clone(&free).acquire_owned().await.expect("never closed");
                (place, listener.accept().await)
            };
            let (place, accepted) = tokio::select! {
                () = stopped(&mut stopping) => break,
                Some(_) = connections.join_next() => continue,
                next = next => next,
            };
            match accepted {
                Ok((stream, _)) => {
                    if let Err(cause) = stream.set_nodelay(true) {
                        tracing::debug!(%cause, "small pieces of answers may wait for larger ones");
                    }
                    let connection = self.connection(stream);
                    connections.spawn(async move {
                        connection.await;
                        drop(place);
                    });
                }
                Err(cause) => {
                    tracing::warn!(%cause, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(listener);
        let drained = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN_MAX, drained).await.is_err() {
            tracing::warn!(connections = connections.len(), "requests were cut off at the shutdown");
            connections.shutdown().await;
        }
    }

    /// Serves one connection until the client ends it, or until the answer in hand is complete after a shutdown.
    fn connection(&self, stream: TcpStream) -> impl Future<Output = ()> + Send + use<> {
        let service = TowerToHyperService::new(self.app.clone());
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(self.settings.head_seconds_max));
        let mut stopping = self.stopping.clone();
        async move {
            let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = stopped(&mut stopping) => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            // What goes wrong on a connection is the client's: it left, or sent no HTTP.
            if let Err(cause) = ended {
                tracing::debug!(%cause, "a connection broke off");
            }
        }
    }
}

/// Resolves after the shutdown.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // A sender that is gone has ended too; and the value itself, a lock, must not be held.
    stopping.wait_for(|stopping| *stopping).await.map(drop).unwrap_or(());
}
