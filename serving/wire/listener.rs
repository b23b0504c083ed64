//! Accepting connections, so many at a time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use contract::{Error, Result, metric};
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::settings::check_reach;

/// The pause after a connection could not be accepted, which is for want of file descriptors by rule.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound port.
pub(crate) struct Listener {
    pub(crate) address: SocketAddr,
    protocol: &'static str,
    listener: TcpListener,
    places: Arc<Semaphore>,
    places_all: usize,
}

/// The place of a connection among so many; free again when it is dropped.
pub(crate) struct ConnectionPlace {
    protocol: &'static str,
    places: Arc<Semaphore>,
    places_all: usize,
    place: Option<OwnedSemaphorePermit>,
}

impl Listener {
    /// Binds the address of a setting of `[sql]`; none where it is empty.
    pub(crate) async fn bind(
        protocol: &'static str,
        setting: &str,
        listen: &str,
        connections_max: usize,
        has_token: bool,
    ) -> Result<Option<Self>> {
        if listen.is_empty() {
            return Ok(None);
        }
        let doing = || format!("listen on `{listen}` (`sql.{setting}`)");
        let mut addresses = lookup_host(listen)
            .await
            .map_err(|cause| Error::change(format!("{}: it must be like `127.0.0.1:5433`", doing())).because(cause))?;
        let address = addresses.next().ok_or_else(|| Error::change(doing()).because("the name has no address"))?;
        check_reach(setting, address, has_token)?;
        let listener = TcpListener::bind(address).await.map_err(|cause| match cause.kind() {
            std::io::ErrorKind::AddrInUse => Error::change(format!(
                "listen on `{address}`: another process has the port; end it, or set `sql.{setting}` to another"
            )),
            _ => Error::change(doing()).because(cause),
        })?;
        let address =
            listener.local_addr().map_err(|cause| Error::stop("ask for the port that was bound").because(cause))?;
        if !address.ip().is_loopback() {
            tracing::warn!(%address, protocol, "others reach this port, which is not encrypted: put a tunnel before it");
        }
        let places_all = connections_max.min(Semaphore::MAX_PERMITS);
        let places = Arc::new(Semaphore::new(places_all));
        Ok(Some(Self { address, protocol, listener, places, places_all }))
    }

    /// The next connection, once there is a place for it.
    pub(crate) async fn accept(&self) -> (TcpStream, ConnectionPlace) {
        loop {
            let place = Arc::clone(&self.places).acquire_owned().await.expect("the semaphore is never closed");
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    if let Err(cause) = stream.set_nodelay(true) {
                        tracing::debug!(%cause, "small pieces of answers may wait for larger ones");
                    }
                    let place = ConnectionPlace {
                        protocol: self.protocol,
                        places: Arc::clone(&self.places),
                        places_all: self.places_all,
                        place: Some(place),
                    };
                    place.measure();
                    return (stream, place);
                }
                Err(cause) => {
                    tracing::warn!(%cause, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

impl ConnectionPlace {
    fn measure(&self) {
        let taken = self.places_all.saturating_sub(self.places.available_permits());
        metric::SQL_CONNECTIONS.set(&[self.protocol], taken as f64);
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        self.place.take();
        self.measure();
    }
}
