//! Arrow Flight SQL: tables in columns, as ADBC, JDBC and Arrow's own clients read them.
//! Source: <https://arrow.apache.org/docs/format/FlightSql.html>.

#[cfg(test)]
mod client_test;
mod guard;
mod handle;
mod metadata;
mod parameters;
mod service;
mod status;

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use arrow_flight::flight_service_server::FlightServiceServer;
use contract::Result;
use futures::stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

use crate::listener::{ConnectionPlace, Listener};
use crate::statements::Statements;
use guard::Guard;
use service::FlightSql;

/// The name in metrics.
pub(crate) const PROTOCOL: &str = "flight";

/// How long answers may go on after the shutdown.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// Calls of one connection at a time; one more waits.
const CALLS_MAX: u32 = 64;

/// After so long without a byte a client is asked whether it is there, and cut off if it does not answer for as long.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Flight SQL, ready to be served.
pub(crate) struct FlightPort {
    guard: Guard,
    service: FlightSql,
}

impl FlightPort {
    pub(crate) fn new(statements: Statements, token: Option<&str>) -> Result<Self> {
        let guard = Guard::new(token);
        Ok(Self { service: FlightSql::new(statements, guard.clone())?, guard })
    }

    pub(crate) async fn serve(self, listener: Listener, stop: CancellationToken) {
        let guard = self.guard;
        let service = FlightServiceServer::with_interceptor(self.service, move |request| guard.check(request));
        let connections = stream::unfold(listener, async |listener| {
            let (stream, place) = listener.accept().await;
            Some((Ok::<_, std::io::Error>(Connection { stream, _place: place }), listener))
        });
        let served = tonic::transport::Server::builder()
            .max_concurrent_streams(CALLS_MAX)
            .http2_keepalive_interval(Some(KEEP_ALIVE))
            .http2_keepalive_timeout(Some(KEEP_ALIVE))
            .add_service(service)
            .serve_with_incoming_shutdown(connections, stop.clone().cancelled_owned());
        let drained = async {
            stop.cancelled().await;
            tokio::time::sleep(DRAIN_MAX).await;
        };
        tokio::select! {
            ended = served => {
                if let Err(cause) = ended {
                    tracing::error!(%cause, "Flight SQL is no longer answered");
                }
            }
            () = drained => tracing::warn!("answers over Flight SQL were cut off at the shutdown"),
        }
    }
}

/// A connection, which has its place until it ends.
struct Connection {
    stream: TcpStream,
    _place: ConnectionPlace,
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
