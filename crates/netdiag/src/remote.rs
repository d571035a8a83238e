//! A question to another process of ours, at its address.
//!
//! Invariant: what goes wrong is told with what to do about it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, StatusCode, header};
use netdiag_http::{HttpConnection, Token};
use tokio::net::{TcpSocket, lookup_host};
use tokio::time::timeout;

use crate::args::values::ServerUrl;

/// Time to connect and to be answered.
pub(crate) const ANSWER: Duration = Duration::from_secs(5);

/// Time for somebody who knows better than the answer that there is already.
const SOON: Duration = Duration::from_secs(1);

/// Largest answer, bytes: as many streams as a gateway passes on at once have some four megabytes, as many nodes as a fleet may have
/// as many.
const LARGEST_LIST: usize = 16 << 20;

/// Who is asked, for complaints.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Who {
    pub(crate) token_flag: &'static str,
    pub(crate) name: &'static str,
}

/// A gateway's port for those who run it.
#[derive(Clone, Debug)]
pub(crate) struct RemoteGateway {
    pub(crate) url: ServerUrl,
    pub(crate) token: Option<Token>,
}

impl RemoteGateway {
    /// The streams that it is passing on, as JSON.
    pub(crate) async fn streams(&self) -> anyhow::Result<Vec<u8>> {
        let who = Who {
            token_flag: "--gateway-token-file",
            name: "the --admin-listen address of a `netdiag gateway`",
        };
        text(&self.url, self.token.as_ref(), who, "/v1/netdiag/streams").await
    }
}

/// The processes that share a fleet's engines. Those that are connected to the bus know the same.
#[derive(Clone, Debug)]
pub(crate) struct RemoteFleet {
    urls: Vec<ServerUrl>,
    token: Option<Token>,
    /// Which of them answered last.
    last: Arc<AtomicUsize>,
}

impl RemoteFleet {
    pub(crate) fn new(urls: Vec<ServerUrl>, token: Option<Token>) -> Self {
        Self { urls, token, last: Arc::default() }
    }

    /// The fleet as JSON, from whoever answered last, or else from the first that does now: any of them may be down, or away from
    /// the bus. What one says that is away is told only if nobody knows better.
    pub(crate) async fn view(&self) -> anyhow::Result<Vec<u8>> {
        let who = Who {
            token_flag: "--fleet-token-file",
            name: "the --listen address of a `netdiag fleet`",
        };
        let (mut first, mut apart) = (None, None);
        for turn in 0..self.urls.len() {
            let at = (self.last.load(Ordering::Relaxed) + turn) % self.urls.len();
            let url = &self.urls[at];
            let asking = text(url, self.token.as_ref(), who, "/v1/fleet");
            let patience = if apart.is_some() { SOON } else { 2 * ANSWER };
            let answer = timeout(patience, asking).await;
            match answer.unwrap_or_else(|_| Err(anyhow::anyhow!("did not answer in time"))) {
                Ok(view) if is_apart(&view) => apart = apart.or(Some(view)),
                Ok(view) => {
                    self.last.store(at, Ordering::Relaxed);
                    return Ok(view);
                }
                Err(error) => first = first.or(Some(error.context(url.to_string()))),
            }
        }
        match apart {
            Some(view) => Ok(view),
            None => Err(first.unwrap_or_else(|| anyhow::anyhow!("there is nobody to ask"))),
        }
    }
}

/// Whether a process of the fleet says that it hears nothing of the others.
fn is_apart(view: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Said {
        is_connected: bool,
    }
    serde_json::from_slice(view).is_ok_and(|said: Said| !said.is_connected)
}

/// The whole answer to a GET.
async fn text(
    url: &ServerUrl,
    token: Option<&Token>,
    who: Who,
    path: &str,
) -> anyhow::Result<Vec<u8>> {
    let (_connection, response) = ask(url, token, who, path).await?;
    let body = Limited::new(response.into_body(), LARGEST_LIST).collect();
    let body = timeout(ANSWER, body).await.context("did not answer in time")?;
    let body = body.map_err(|error| anyhow::anyhow!("its answer to {path}: {error}"))?;
    Ok(body.to_bytes().into())
}

/// The answer to a GET, on a connection of its own.
pub(crate) async fn ask(
    url: &ServerUrl,
    token: Option<&Token>,
    who: Who,
    path: &str,
) -> anyhow::Result<(HttpConnection, Response<Incoming>)> {
    let ServerUrl { host, port } = url;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let asking = async {
        let addresses = lookup_host((bare, *port)).await.context("has no address")?;
        // A name may have several, of which the server listens on one.
        let mut opened = Err(anyhow::anyhow!("has no address"));
        for address in addresses {
            let socket = match address.is_ipv4() {
                true => TcpSocket::new_v4(),
                false => TcpSocket::new_v6(),
            };
            opened = HttpConnection::open(socket?, address).await.map_err(Into::into);
            if opened.is_ok() {
                break;
            }
        }
        let mut connection = opened?;
        let mut request = Request::get(path).header(header::HOST, format!("{host}:{port}"));
        if let Some(value) = token.and_then(Token::header) {
            request = request.header(header::AUTHORIZATION, value);
        }
        let response = connection.send(request.body(Full::<Bytes>::default())?).await?;
        Ok::<_, anyhow::Error>((connection, response))
    };
    let late = io::Error::new(io::ErrorKind::TimedOut, "did not answer in time");
    let (connection, response) = timeout(ANSWER, asking).await.map_err(|_| late)??;
    let Who { token_flag, name } = who;
    match response.status() {
        StatusCode::OK => Ok((connection, response)),
        StatusCode::UNAUTHORIZED if token.is_some() => {
            anyhow::bail!(
                "refuses the token of {token_flag}: give the one of its --auth-token-file"
            )
        }
        StatusCode::UNAUTHORIZED => anyhow::bail!("wants a token: give {token_flag}"),
        status => anyhow::bail!("answers {status} to {path}; is it {name} of this version?"),
    }
}
