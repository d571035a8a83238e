//! Clients that speak TLS, or HTTP/2, or both.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use netdiag_gateway::{Settings, acceptor};
use netdiag_lab::engine;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::support::{CHAT, Running, demo, settings, start};

/// A gateway with a certificate, and what trusts it, offering these protocols.
async fn with_tls(engine: std::net::SocketAddr, protocol: &[u8]) -> (Running, TlsConnector) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a key");
    let folder = tempfile::tempdir().expect("folder");
    let (chain, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&chain, made.cert.pem()).expect("written");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("written");
    let tls = acceptor(&chain, &key).expect("a pair");
    // Nothing in a file that is no certificate is taken for one.
    assert!(acceptor(&key, &key).is_err() && acceptor(&chain, &chain).is_err());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).expect("an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    let gateway = start(Settings { tls: Some(tls), ..settings(&[engine]) }).await;
    (gateway, TlsConnector::from(Arc::new(config)))
}

async fn chat_over_2(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Vec<String> {
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io))
            .await
            .expect("HTTP/2");
    tokio::spawn(connection);
    // At the same time on one connection.
    let asked = (0..5).map(|_| {
        let mut sender = sender.clone();
        async move {
            let request = Request::post("http://localhost/v1/chat/completions")
                .body(Full::new(Bytes::from_static(CHAT.as_bytes())))
                .expect("valid");
            let response = sender.send_request(request).await.expect("an answer");
            assert_eq!(response.status(), StatusCode::OK);
            assert!(response.headers().contains_key("x-netdiag-stream-id"));
            let body = response.into_body().collect().await.expect("a body").to_bytes();
            String::from_utf8_lossy(&body).into_owned()
        }
    });
    futures_util::future::join_all(asked).await
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_without_tls() {
    let (_, engine) = demo(engine::Settings::default()).await;
    let pace = Some(crate::paced::free());
    let gateway = start(Settings { pace, ..settings(&[engine]) }).await;
    let io = TcpStream::connect(gateway.address).await.expect("connects");
    for body in chat_over_2(io).await {
        assert!(body.ends_with("data: [DONE]\n\n"), "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_and_1_with_tls() {
    let (_, engine) = demo(engine::Settings::default()).await;
    let name = ServerName::try_from("localhost").expect("a name");
    let (gateway, connector) = with_tls(engine, b"h2").await;
    let io = TcpStream::connect(gateway.address).await.expect("connects");
    let io = connector.connect(name.clone(), io).await.expect("TLS");
    assert_eq!(io.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    for body in chat_over_2(io).await {
        assert!(body.ends_with("data: [DONE]\n\n"), "{body}");
    }
    let (gateway, connector) = with_tls(engine, b"http/1.1").await;
    let io = TcpStream::connect(gateway.address).await.expect("connects");
    let io = connector.connect(name, io).await.expect("TLS");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(io)).await.expect("HTTP/1.1");
    tokio::spawn(connection);
    let request = Request::get("/health").header("host", "localhost").body(Full::new(Bytes::new()));
    let response = sender.send_request(request.expect("valid")).await.expect("an answer");
    assert_eq!(response.status(), StatusCode::OK);
}

/// A stream that its client resets ends at the engine, while the connection goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_http_2_that_is_reset_ends_at_the_engine() {
    let (counts, engine) = demo(engine::Settings::default()).await;
    let gateway = start(settings(&[engine])).await;
    let io = TcpStream::connect(gateway.address).await.expect("connects");
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io))
            .await
            .expect("HTTP/2");
    tokio::spawn(connection);
    let ask = |tokens: u32| {
        let body = format!(
            r#"{{"stream": true, "ignore_eos": true, "max_tokens": {tokens}, "messages": [{{"role": "user", "content": "Hi"}}]}}"#
        );
        Request::post("http://localhost/v1/chat/completions")
            .body(Full::new(Bytes::from(body)))
            .expect("valid")
    };
    let mut response = sender.send_request(ask(100_000)).await.expect("an answer");
    response.body_mut().frame().await.expect("an event").expect("whole");
    let left = std::time::Instant::now();
    drop(response);
    while counts.aborted().requests == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(left.elapsed() < Duration::from_millis(500), "{:?}", left.elapsed());
    let response = sender.send_request(ask(3)).await.expect("an answer");
    assert_eq!(response.status(), StatusCode::OK);
}
