//! Serving the engine over sockets whose tokens are counted.
//!
//! axum's own server would do but for one thing: each response must know the socket it goes to.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::Engine;
use super::connection::Counted;
use super::routes::DESCRIPTION;

/// Connections at once. More wait in the kernel's backlog.
const MOST_CONNECTIONS: usize = 4096;

/// Time for a request's head to arrive, and for an idle connection to ask again.
const HEAD_TIME: Duration = Duration::from_secs(30);

/// Time after which to accept again when that failed.
const RETRY: Duration = Duration::from_millis(100);

impl Engine {
    /// Generates and serves until `shutdown` completes; then every connection is cut.
    pub async fn serve(&self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        if let Ok(address) = listener.local_addr() {
            tracing::info!("{DESCRIPTION}; serving on http://{address}/v1");
        }
        tokio::select! {
            () = shutdown => {}
            () = self.run() => {}
            () = accept(listener, self.router()) => {}
        }
    }
}

/// Serves every connection that comes, for ever. Dropped, it cuts them.
async fn accept(listener: TcpListener, router: Router) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < MOST_CONNECTIONS => match accepted {
                Ok((stream, peer)) => drop(connections.spawn(connection(stream, peer, router.clone()))),
                Err(error) => {
                    // Running out of descriptors passes when connections close.
                    tracing::warn!(%error, "cannot accept a connection; trying again");
                    tokio::time::sleep(RETRY).await;
                }
            },
        }
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, router: Router) {
    if let Err(error) = serve_connection(stream, peer, router).await {
        tracing::debug!(%error, %peer, "connection ended");
    }
}

async fn serve_connection(stream: TcpStream, peer: SocketAddr, router: Router) -> io::Result<()> {
    let stream = Counted::new(stream, peer)?;
    let service = TowerToHyperService::new(router.layer(Extension(stream.connection())));
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME);
    builder.serve_connection(TokioIo::new(stream), service).await.map_err(io::Error::other)
}
