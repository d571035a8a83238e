//! Serving the engine over sockets whose tokens are counted.
//!
//! axum's own server would do but for one thing: each response must know the socket it goes to.
//!
//! Invariant: no more sockets are open than [`MOST_CONNECTIONS`], those included that are closed and still deliver.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
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
            () = accept(listener, self.router(), MOST_CONNECTIONS) => {}
        }
    }
}

/// Serves every connection that comes, `most` at once, for ever. Dropped, it cuts them.
async fn accept(listener: TcpListener, router: Router, most: usize) {
    let places = Arc::new(Semaphore::new(most));
    let mut connections = JoinSet::new();
    let next = async || {
        // Never closed.
        let place = Arc::clone(&places).acquire_owned().await.map_err(io::Error::other)?;
        let (stream, peer) = listener.accept().await?;
        Ok::<_, io::Error>((stream, peer, place))
    };
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = next() => match accepted {
                Ok((stream, peer, place)) => {
                    connections.spawn(connection(stream, peer, place, router.clone()));
                }
                Err(error) => {
                    // Running out of descriptors passes when connections close.
                    tracing::warn!(%error, "cannot accept a connection; trying again");
                    tokio::time::sleep(RETRY).await;
                }
            },
        }
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    place: OwnedSemaphorePermit,
    router: Router,
) {
    if let Err(error) = serve_connection(stream, peer, place, router).await {
        tracing::debug!(%error, %peer, "connection ended");
    }
}

async fn serve_connection(
    stream: TcpStream,
    peer: SocketAddr,
    place: OwnedSemaphorePermit,
    router: Router,
) -> io::Result<()> {
    let stream = Counted::new(stream, peer, place)?;
    let service = TowerToHyperService::new(router.layer(Extension(stream.connection())));
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME);
    builder.serve_connection(TokioIo::new(stream), service).await.map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::timeout;

    use super::*;
    use crate::engine::{Model, Settings};

    /// For what must happen, on however busy a machine.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// Asks for a long answer on a connection of its own.
    async fn ask(address: SocketAddr) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.expect("connect");
        let body = r#"{"prompt": "x", "max_tokens": 100000, "ignore_eos": true, "stream": true}"#;
        let head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\n";
        let request = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(request.as_bytes()).await.expect("send");
        stream
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_connection_that_still_delivers_takes_its_place() {
        let model = Model {
            step: Duration::from_micros(20),
            step_per_seat: Duration::ZERO,
            ..Model::default()
        };
        let settings = Settings { model, ..Settings::default() };
        let engine = Engine::try_new(settings).expect("valid");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("bound");
        let (running, router) = (engine.clone(), engine.router());
        tokio::spawn(async move { running.run().await });
        tokio::spawn(accept(listener, router, 1));
        let mut slow = ask(address).await;
        // It reads nothing, so much of the answer is in the kernel when it says that it will ask no more.
        while engine.requests().first().is_none_or(|request| request.tokens.generated < 50_000) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        slow.shutdown().await.expect("half closed");
        while !engine.requests().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(engine.tokens().in_flight > 0, "{:?}", engine.tokens());
        let mut next = ask(address).await;
        let answer = timeout(Duration::from_millis(300), next.read_u8()).await;
        assert!(answer.is_err(), "{answer:?} while the place was taken");
        drop(slow);
        timeout(PATIENCE, next.read_u8()).await.expect("its turn").expect("an answer");
    }
}
