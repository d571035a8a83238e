//! Pacing by a hint server, the way any engine would be: asking it, per client, how long to sleep between two tokens.
//!
//! Only `sleep_seconds` and `hold` are read, so the original project's server will do as well as `netdiag up`.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
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

/// Where hints come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HintServer {
    /// Its address.
    pub address: SocketAddr,
    /// What it wants to be shown (`--auth-token-file`), if anything.
    pub token: Option<String>,
    /// Time between two rounds of questions.
    pub every: Duration,
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
            let connection = match connection {
                Some(connection) => connection,
                None => {
                    let socket = socket().map_err(HttpError::from)?;
                    connection.insert(HttpConnection::open(socket, server.address).await?)
                }
            };
            paces.insert(peer, hint(server, connection, peer).await?);
        }
        Ok(paces)
    }
}

/// Least time that a server has for a round of answers.
const LATE: Duration = Duration::from_secs(1);

async fn hint(
    server: &HintServer,
    connection: &mut HttpConnection,
    peer: SocketAddr,
) -> Result<Pace, NoHint> {
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
