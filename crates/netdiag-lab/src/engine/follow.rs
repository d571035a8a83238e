//! Pacing by a hint server, the way any engine would be: asking it, per client, how long to sleep between two tokens.
//!
//! Only `sleep_seconds` and `hold` are read, so the original project's server will do as well as `netdiag up`.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use axum::body::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, StatusCode, header};
use netdiag_http::{HttpConnection, HttpError};
use netdiag_telemetry::Tps;
use serde::Deserialize;
use tokio::net::TcpSocket;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::{Engine, Pace};

/// A hint has a few hundred bytes.
const LARGEST_HINT: usize = 64 * 1024;

/// How often a hint server may be asked: not without a pause, and often enough that a day's change is noticed.
const EVERY: RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(24 * 60 * 60);

/// Where hints come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HintServer {
    address: SocketAddr,
    token: Option<String>,
    every: Duration,
}

/// A time between questions that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("hints every {0:?}: give a time from {least:?} to {most:?}", least = EVERY.start(), most = EVERY.end())]
pub struct InvalidEvery(Duration);

impl HintServer {
    /// The one at this address, to be asked about every stream once in this time. It is shown `token`, if it wants one
    /// (`--auth-token-file`).
    pub fn try_new(
        address: SocketAddr,
        token: Option<String>,
        every: Duration,
    ) -> Result<Self, InvalidEvery> {
        if !EVERY.contains(&every) {
            return Err(InvalidEvery(every));
        }
        Ok(Self { address, token, every })
    }
}

/// The fields that an engine needs.
#[derive(Debug, Deserialize)]
struct Answer {
    sleep_seconds: f64,
    #[serde(default)]
    hold: bool,
}

#[derive(Debug, thiserror::Error)]
enum NoHint {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("request: {0}")]
    Request(#[from] hyper::http::Error),
    #[error("the hint server answered {0}")]
    Status(StatusCode),
    #[error("hint: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    #[error("hint: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the hint server did not answer within {0:?}")]
    Late(Duration),
}

impl Engine {
    /// Paces every request by what `server` says of its client, for ever. `socket` opens a socket where the server can be
    /// reached. While it cannot be, nobody is slowed down: no hint is no reason to.
    pub async fn follow(
        &self,
        server: &HintServer,
        socket: impl Fn() -> io::Result<TcpSocket> + Send + Sync,
    ) {
        let mut ticks = interval(server.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut connection = None;
        let mut reachable = true;
        loop {
            ticks.tick().await;
            let round = self.ask_round(server, &socket, &mut connection);
            let paces = timeout(server.every.max(LATE), round).await;
            let paces = paces.unwrap_or(Err(NoHint::Late(server.every.max(LATE))));
            let was_reachable = std::mem::replace(&mut reachable, paces.is_ok());
            let paces = paces.unwrap_or_else(|error| {
                connection = None;
                if was_reachable {
                    tracing::warn!(%error, address = %server.address, "no hints, so nobody is paced");
                }
                BTreeMap::new()
            });
            self.pace(move |peer| {
                peer.and_then(|peer| paces.get(&peer).copied()).unwrap_or_default()
            });
        }
    }

    /// Asks once for every client there is.
    async fn ask_round(
        &self,
        server: &HintServer,
        socket: &(impl Fn() -> io::Result<TcpSocket> + Send + Sync),
        connection: &mut Option<HttpConnection>,
    ) -> Result<BTreeMap<SocketAddr, Pace>, NoHint> {
        let mut paces = BTreeMap::new();
        for peer in self.peers() {
            let reused = connection.is_some();
            let mut pace = ask(server, socket, connection, peer).await;
            // A server may close a connection between two questions, which is found out with the next one.
            if reused && pace.as_ref().is_err_and(NoHint::is_of_the_connection) {
                *connection = None;
                pace = ask(server, socket, connection, peer).await;
            }
            paces.insert(peer, pace?);
        }
        Ok(paces)
    }
}

impl NoHint {
    /// Whether another connection may do better.
    fn is_of_the_connection(&self) -> bool {
        matches!(self, Self::Http(_) | Self::Body(_))
    }
}

/// Least time that a server has for a round of answers.
const LATE: Duration = Duration::from_secs(1);

/// Asks for one client, on the connection that there is or on a new one.
async fn ask(
    server: &HintServer,
    socket: &(impl Fn() -> io::Result<TcpSocket> + Send + Sync),
    connection: &mut Option<HttpConnection>,
    peer: SocketAddr,
) -> Result<Pace, NoHint> {
    let connection = match connection {
        Some(connection) => connection,
        None => {
            let socket = socket().map_err(HttpError::from)?;
            connection.insert(HttpConnection::open(socket, server.address).await?)
        }
    };
    let mut request = Request::get(format!("/v1/hint?peer={peer}"))
        .header(header::HOST, server.address.to_string());
    if let Some(token) = &server.token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let response = connection.send(request.body(Full::<Bytes>::default())?).await?;
    if response.status() != StatusCode::OK {
        return Err(NoHint::Status(response.status()));
    }
    let body = Limited::new(response.into_body(), LARGEST_HINT).collect().await;
    let answer: Answer = serde_json::from_slice(&body.map_err(NoHint::Body)?.to_bytes())?;
    // A sleep of nothing, or none that can be slept, is no limit.
    Ok(Pace { rate: Tps::try_new(1.0 / answer.sleep_seconds).ok(), hold: answer.hold })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::engine::Settings;

    #[test]
    fn a_server_is_asked_with_pauses_that_clocks_can_hold() {
        let server = |every| HintServer::try_new(([127, 0, 0, 1], 9000).into(), None, every);
        for every in [Duration::ZERO, Duration::MAX] {
            let error = server(every).expect_err("impossible").to_string();
            assert!(error.ends_with(": give a time from 1ms to 86400s"), "{error}");
        }
        assert!(server(Duration::from_millis(1)).is_ok());
    }

    /// A hint server that closes each connection after an answer without having said so.
    async fn abrupt(listener: TcpListener) {
        while let Ok((mut stream, _)) = listener.accept().await {
            // The request's head comes at once.
            let _ = stream.read(&mut [0; 4096]).await;
            let body = r#"{"sleep_seconds": 0.1}"#;
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            let _ = stream.write_all((head + body).as_bytes()).await;
        }
    }

    #[tokio::test]
    async fn a_connection_that_was_closed_meanwhile_is_opened_anew() {
        let bound = async || {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
            let address = listener.local_addr().expect("bound");
            (listener, address)
        };
        let (listener, address) = bound().await;
        tokio::spawn(abrupt(listener));
        let server = HintServer::try_new(address, None, Duration::from_secs(1)).expect("valid");
        let engine = Engine::try_new(Settings::default()).expect("valid");
        let (listener, address) = bound().await;
        let serving = engine.clone();
        tokio::spawn(async move { serving.serve(listener, std::future::pending()).await });
        let mut client = TcpStream::connect(address).await.expect("connect");
        let body = r#"{"prompt": "x", "stream": true}"#;
        let head = format!("POST /v1/completions HTTP/1.1\r\ncontent-length: {}", body.len());
        let request = format!("{head}\r\nhost: localhost\r\n\r\n{body}");
        client.write_all(request.as_bytes()).await.expect("send");
        client.read_u8().await.expect("an answer begins");
        let mut connection = None;
        for round in 0..3 {
            let paces = engine.ask_round(&server, &TcpSocket::new_v4, &mut connection).await;
            let paces = paces.unwrap_or_else(|error| panic!("round {round}: {error}"));
            let pace = paces.values().next().and_then(|pace| pace.rate).expect("a pace");
            assert!((pace.get() - 10.0).abs() < 1e-9, "{pace:?}");
        }
    }
}
