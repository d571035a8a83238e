//! One HTTP connection as a client, in whichever network namespace its socket was opened.

use std::io;
use std::net::SocketAddr;

use axum::body::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpSocket;
use tokio::task::JoinSet;

/// A connection to a server. Dropped, it closes.
#[derive(Debug)]
pub struct HttpConnection {
    local: SocketAddr,
    sender: SendRequest<Full<Bytes>>,
    /// The task that reads and writes.
    _driver: JoinSet<()>,
}

/// Why a connection failed.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Below HTTP.
    #[error("connection: {0}")]
    Io(#[from] io::Error),
    /// The other end speaks otherwise than agreed, or has gone.
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
}

impl HttpConnection {
    /// Connects `socket`. Small writes leave at once.
    pub async fn open(socket: TcpSocket, target: SocketAddr) -> Result<Self, HttpError> {
        let stream = socket.connect(target).await?;
        stream.set_nodelay(true)?;
        let local = stream.local_addr()?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to the server ended");
            }
        });
        Ok(Self { local, sender, _driver: driver })
    }

    /// Our end's address.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Sends a request, once the one before has been answered.
    pub async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, HttpError> {
        self.sender.ready().await?;
        Ok(self.sender.send_request(request).await?)
    }
}
