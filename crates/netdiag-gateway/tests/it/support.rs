//! A gateway in front of whatever engine a test needs.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use netdiag_gateway::{Adapter, Gateway, HealthCheck, RequestLimits, Settings, default_limits};
use netdiag_http::Exposure;
use netdiag_lab::engine::{self, Engine};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// For what must happen, on however busy a machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A gateway that is running.
pub(crate) struct Running {
    pub(crate) gateway: Gateway,
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    pub(crate) task: JoinHandle<()>,
}

impl Running {
    /// Asks it to end.
    pub(crate) fn stop(&mut self) {
        drop(self.stop.take());
    }
}

/// Settings for these engines, without pace or comments.
pub(crate) fn settings(engines: &[SocketAddr]) -> Settings {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    Settings {
        upstreams: engines
            .iter()
            .map(|engine| format!("http://{engine}").parse().expect("valid"))
            .collect(),
        authorities: None,
        adapter: Adapter::Generic,
        // Scripts answer what they are scripted to; nobody asks them how they are.
        health: HealthCheck { every: Duration::from_secs(3600), ..HealthCheck::default() },
        exposure: Exposure::try_new(listen, None, false).expect("loopback"),
        tls: None,
        limits: default_limits(),
        requests: RequestLimits::default(),
        pace: None,
        keep_alive: None,
        resume_window: None,
        drain: Duration::from_secs(5),
        exports: None,
        pseudonyms: None,
    }
}

/// Starts a gateway.
pub(crate) async fn start(settings: Settings) -> Running {
    start_on(settings, TcpListener::bind("127.0.0.1:0").await.expect("bind")).await
}

/// Starts a gateway that listens there.
pub(crate) async fn start_on(settings: Settings, listener: TcpListener) -> Running {
    let gateway = Gateway::try_new(settings).expect("valid");
    let address = listener.local_addr().expect("bound");
    let (stop, stopped) = oneshot::channel();
    let serving = gateway.clone();
    let task = tokio::spawn(async move {
        serving
            .serve(listener, async move {
                let _ = stopped.await;
            })
            .await;
    });
    Running { gateway, address, stop: Some(stop), task }
}

/// A gateway in front of one engine.
pub(crate) async fn before(engine: SocketAddr) -> Running {
    start(settings(&[engine])).await
}

/// A demo engine that is running.
pub(crate) async fn demo(settings: engine::Settings) -> (Engine, SocketAddr) {
    let engine = Engine::try_new(settings).expect("valid");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("bound");
    let running = engine.clone();
    tokio::spawn(async move { running.serve(listener, std::future::pending()).await });
    (engine, address)
}

/// An engine that does with each connection, after it has read a request's head, what the script says. Health checks are no part
/// of any script.
pub(crate) async fn script<F>(
    act: impl Fn(TcpStream, String) -> F + Send + Sync + 'static,
) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("bound");
    let act = std::sync::Arc::new(act);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let act = std::sync::Arc::clone(&act);
            tokio::spawn(async move {
                let head = head(&mut stream).await;
                if head.starts_with("GET /health ") {
                    let ok = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                    let _ = stream.write_all(ok).await;
                } else if !head.is_empty() {
                    act(stream, head).await;
                }
            });
        }
    });
    address
}

/// An engine that sends these bytes and closes.
pub(crate) async fn says(answer: impl Into<Vec<u8>>) -> SocketAddr {
    let answer = answer.into();
    script(move |mut stream, _| {
        let answer = answer.clone();
        async move {
            let _ = stream.write_all(&answer).await;
            // The end of what was said, and not a reset for what was not read.
            let _ = stream.shutdown().await;
            let _ = timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await;
        }
    })
    .await
}

/// A request's head, and nothing behind it.
pub(crate) async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// Sends bytes and gives what comes until the end.
pub(crate) async fn exchange(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.expect("connects");
    let mut answer = Vec::new();
    let told = String::from_utf8_lossy(&request[..request.len().min(200)]).into_owned();
    let exchanged = timeout(PATIENCE, async {
        // A server that has had enough may close while this is being sent.
        let _ = stream.write_all(request).await;
        let _ = stream.read_to_end(&mut answer).await;
    });
    let ended = exchanged.await.is_ok();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let last = answer.len() - answer.len().min(500);
    assert!(ended, "no end in time for {told:?}: …{:?}", answer.get(last..));
    answer
}

/// A request for a path, on a connection for itself.
pub(crate) fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").into_bytes()
}

/// A request with a body, on a connection for itself.
pub(crate) fn post(path: &str, extra: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{extra}content-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// A chat that is streamed.
pub(crate) const CHAT: &str =
    r#"{"model": "netdiag-demo", "stream": true, "messages": [{"role": "user", "content": "Hi"}]}"#;

/// The body of a response without its chunks' frames.
pub(crate) fn unchunked(answer: &str) -> (String, String) {
    let (head, mut left) = answer.split_once("\r\n\r\n").expect("a head");
    if !head.contains("transfer-encoding: chunked") {
        return (head.to_owned(), left.to_owned());
    }
    let mut body = String::new();
    while let Some((size, rest)) = left.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("a chunk's size");
        if size == 0 {
            return (head.to_owned(), body);
        }
        body.push_str(&rest[..size]);
        left = rest[size..].strip_prefix("\r\n").expect("a chunk's end");
    }
    panic!("cut off: {answer}");
}

/// A request's body, by its length or in chunks; nothing if it does not come to its end.
pub(crate) async fn body(stream: &mut TcpStream, head: &str) -> Option<String> {
    let mut body = Vec::new();
    if head.contains("transfer-encoding: chunked") {
        while !body.ends_with(b"0\r\n\r\n") {
            if stream.read_buf(&mut body).await.unwrap_or_default() == 0 {
                return None;
            }
        }
        let text = String::from_utf8_lossy(&body).into_owned();
        return Some(unchunked(&format!("transfer-encoding: chunked\r\n\r\n{text}")).1);
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    body.resize(length.map_or(0, |length| length.parse().expect("a number")), 0);
    stream.read_exact(&mut body).await.ok()?;
    Some(String::from_utf8_lossy(&body).into_owned())
}
