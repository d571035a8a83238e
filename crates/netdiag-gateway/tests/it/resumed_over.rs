//! Streams that go on over HTTP/2 and over TLS: what is kept for a client knows nothing of its connection.

use std::sync::Arc;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::{TokioExecutor, TokioIo};
use netdiag_gateway::Settings;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::held::until;
use crate::resumed::{Seen, asks, fast, resumable};
use crate::secure::Files;
use crate::support::{PATIENCE, Running, demo, start};

const TOKENS: u32 = 80;

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Speech {
    tls: bool,
    http2: bool,
}

enum Sender {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

/// A connection, which is closed when it is dropped.
struct Connection {
    sender: Sender,
    driver: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

impl Connection {
    async fn open(gateway: &Running, speech: Speech, files: &Files) -> Self {
        let socket = TcpStream::connect(gateway.address).await.expect("connects");
        let io: Box<dyn Io> = if speech.tls {
            let mut config = files.client();
            config.alpn_protocols =
                vec![if speech.http2 { b"h2".into() } else { b"http/1.1".into() }];
            let tls = tokio_rustls::TlsConnector::from(Arc::new(config));
            let name = "localhost".try_into().expect("a name");
            Box::new(tls.connect(name, socket).await.expect("a handshake"))
        } else {
            Box::new(socket)
        };
        let io = TokioIo::new(io);
        if speech.http2 {
            let shaken = http2::handshake(TokioExecutor::new(), io).await;
            let (sender, driver) = shaken.expect("HTTP/2");
            Self { sender: Sender::Two(sender), driver: tokio::spawn(driver).abort_handle() }
        } else {
            let (sender, driver) = http1::handshake(io).await.expect("HTTP/1.1");
            Self { sender: Sender::One(sender), driver: tokio::spawn(driver).abort_handle() }
        }
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        let answered = async {
            match &mut self.sender {
                Sender::One(sender) => {
                    sender.ready().await?;
                    sender.send_request(request).await
                }
                Sender::Two(sender) => {
                    sender.ready().await?;
                    sender.send_request(request).await
                }
            }
        };
        let response = timeout(PATIENCE, answered).await.expect("in time").expect("an answer");
        assert_eq!(response.status(), StatusCode::OK);
        response
    }

    async fn ask(&mut self) -> Response<Incoming> {
        let request = Request::post("http://localhost/v1/chat/completions");
        let request = request.header(header::HOST, "localhost").body(Full::from(asks(TOKENS)));
        self.send(request.expect("valid")).await
    }

    async fn resume(&mut self, seen: &Seen) -> Response<Incoming> {
        let request = Request::get(format!("http://localhost/v1/netdiag/streams/{}", seen.id));
        let request = request.header(header::HOST, "localhost").header("last-event-id", &seen.last);
        self.send(request.body(Full::default()).expect("valid")).await
    }
}

/// Reads so many pieces, or all of them.
async fn read(seen: &mut Seen, response: &mut Response<Incoming>, pieces: usize) {
    let id = response.headers()["x-netdiag-stream-id"].to_str().expect("text").to_owned();
    let mut body = Vec::new();
    for _ in 0..pieces {
        let frame = timeout(PATIENCE, response.body_mut().frame()).await.expect("in time");
        let Some(frame) = frame else { break };
        body.extend_from_slice(frame.expect("no error").data_ref().expect("data"));
    }
    seen.take_events(&id, &String::from_utf8_lossy(&body));
}

async fn check(speech: Speech) {
    let files = Files::for_name("localhost");
    let (engine, address) = demo(fast()).await;
    let tls = speech.tls.then(|| files.acceptor());
    let settings = Settings { tls, ..resumable(address, PATIENCE) };
    let gateway = start(settings).await;
    let mut connection = Connection::open(&gateway, speech, &files).await;
    let mut undisturbed = Seen::default();
    read(&mut undisturbed, &mut connection.ask().await, usize::MAX).await;
    assert!(undisturbed.is_done(), "{speech:?} {undisturbed:?}");
    let is_parked = || gateway.gateway.streams().iter().any(|stream| stream.parked);

    // The connection is lost twice, each time further on.
    let mut seen = Seen::default();
    let mut response = connection.ask().await;
    for _ in 0..2 {
        read(&mut seen, &mut response, 10).await;
        assert!(!seen.is_done() && !seen.data.is_empty(), "{speech:?} {seen:?}");
        drop((connection, response));
        until("parked", is_parked).await;
        connection = Connection::open(&gateway, speech, &files).await;
        response = connection.resume(&seen).await;
    }
    read(&mut seen, &mut response, usize::MAX).await;
    assert!(seen.is_done() && seen.text() == undisturbed.text(), "{speech:?} {seen:?}");

    // Of a connection with many only the stream is lost, and another goes on beside it.
    if speech.http2 {
        let mut seen = [Seen::default(), Seen::default()];
        let mut lost = connection.ask().await;
        let mut kept = connection.ask().await;
        read(&mut seen[0], &mut lost, 10).await;
        drop(lost);
        until("parked", is_parked).await;
        let mut resumed = connection.resume(&seen[0]).await;
        read(&mut seen[0], &mut resumed, usize::MAX).await;
        read(&mut seen[1], &mut kept, usize::MAX).await;
        for seen in seen {
            assert!(seen.is_done() && seen.text() == undisturbed.text(), "{speech:?} {seen:?}");
        }
    }
    let streams = if speech.http2 { 4 } else { 2 };
    assert_eq!(
        engine.tokens().generated,
        streams * u64::from(TOKENS),
        "nothing was asked for twice"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn over_http_2() {
    check(Speech { tls: false, http2: true }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls() {
    check(Speech { tls: true, http2: false }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_and_http_2() {
    check(Speech { tls: true, http2: true }).await;
}
