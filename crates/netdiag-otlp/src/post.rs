//! One export: a connection, a request, an answer. A connection of its own each time, because between two there is a minute, and
//! because nothing is simpler to be sure of.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use prost::Message as _;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::endpoint::Endpoint;
use crate::headers::Headers;

/// Largest answer, bytes. A collector's is empty or a sentence.
const LARGEST_ANSWER: usize = 64 * 1024;

/// What a collector says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It has taken all points but so many, for this reason.
    Taken { rejected: u64, why: String },
    /// It does not want them, and will not later.
    Refused(StatusCode),
    /// It asks for them later; after this time, if it says so.
    Later(StatusCode, Option<Duration>),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoAnswer {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    #[error("the request cannot be made: {0}")]
    Request(#[from] hyper::http::Error),
}

/// Asks a collector to take `body`. Before anything is sent, `found` is told where it is.
pub(crate) async fn post(
    endpoint: &Endpoint,
    headers: &Headers,
    tls: Option<&TlsConnector>,
    body: Bytes,
    found: impl Fn(&[SocketAddr]),
) -> Result<Answer, NoAnswer> {
    let addresses: Vec<SocketAddr> =
        lookup_host((endpoint.host(), endpoint.port())).await?.collect();
    found(&addresses);
    let stream = connect(&addresses).await?;
    stream.set_nodelay(true)?;
    let request = request(endpoint, headers, body)?;
    match (endpoint.is_tls(), tls) {
        (false, _) => ask(stream, request).await,
        (true, Some(tls)) => {
            let name =
                ServerName::try_from(endpoint.host().to_owned()).map_err(io::Error::other)?;
            ask(tls.connect(name, stream).await?, request).await
        }
        (true, None) => Err(io::Error::other("TLS was not prepared").into()),
    }
}

/// A name may have several addresses, of which it listens on one.
async fn connect(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut connected = Err(io::Error::other("its name has no address"));
    for address in addresses {
        connected = TcpStream::connect(address).await;
        if connected.is_ok() {
            break;
        }
    }
    connected
}

fn request(
    endpoint: &Endpoint,
    headers: &Headers,
    body: Bytes,
) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
    let mut request = Request::post(endpoint.path())
        .header(header::HOST, endpoint.authority())
        .header(header::USER_AGENT, concat!("netdiag-otlp/", env!("CARGO_PKG_VERSION")))
        .header(header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"))
        .header(header::CONNECTION, HeaderValue::from_static("close"))
        .body(Full::new(body))?;
    for (name, value) in headers.map() {
        request.headers_mut().append(name, value.clone());
    }
    Ok(request)
}

async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<Answer, NoAnswer> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends with us.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let response = sender.send_request(request).await?;
    Ok(answer(response).await)
}

async fn answer(response: Response<hyper::body::Incoming>) -> Answer {
    let (head, body) = response.into_parts();
    match head.status {
        status if status.is_success() => {
            // One that cannot be read says no more than its status.
            let body = Limited::new(body, LARGEST_ANSWER).collect().await;
            let body = body.map(|body| body.to_bytes()).unwrap_or_default();
            let told = ExportMetricsServiceResponse::decode(body).unwrap_or_default();
            let partial = told.partial_success.unwrap_or_default();
            let rejected = u64::try_from(partial.rejected_data_points).unwrap_or_default();
            Answer::Taken { rejected, why: partial.error_message }
        }
        // Those that the specification calls retryable.
        status @ (StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT) => Answer::Later(status, retry_after(&head.headers)),
        status => Answer::Refused(status),
    }
}

/// Seconds; a date is not worth reading, because there are newer metrics before most of them.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// TLS as [`post`] takes it.
pub(crate) fn connector(config: Arc<rustls::ClientConfig>) -> TlsConnector {
    TlsConnector::from(config)
}
