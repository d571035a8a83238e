//! Engines that are asked over TLS, and what engines say before their answer.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use netdiag_gateway::{Settings, acceptor};
use netdiag_http::authorities;
use netdiag_lab::engine;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{
    CHAT, PATIENCE, before, demo, exchange, get, post, says, script, settings, start, unchunked,
};

/// A certificate, and what trusts it, in files.
pub(crate) struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    pub(crate) fn for_name(name: &str) -> Self {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).expect("a key");
        let folder = tempfile::tempdir().expect("folder");
        std::fs::write(folder.path().join("cert.pem"), made.cert.pem()).expect("written");
        let key = made.signing_key.serialize_pem();
        std::fs::write(folder.path().join("key.pem"), key).expect("written");
        Self { folder }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// What answers with it.
    pub(crate) fn acceptor(&self) -> tokio_rustls::TlsAcceptor {
        acceptor(&self.path("cert.pem"), &self.path("key.pem")).expect("a pair")
    }

    /// A client that trusts it and nobody else.
    pub(crate) fn client(&self) -> rustls::ClientConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(authorities(&self.path("cert.pem")).expect("an authority"))
            .with_no_client_auth()
    }
}

/// TLS in front of an engine that speaks none, and how many connections it has had.
async fn tls_before(engine: SocketAddr, files: &Files) -> (SocketAddr, Arc<AtomicUsize>) {
    let acceptor = files.acceptor();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("bound");
    let acceptor = Arc::new(acceptor);
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = Arc::clone(&acceptor);
            counted.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                // A client that does not trust us ends the handshake.
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
                let mut engine = TcpStream::connect(engine).await.expect("connects");
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut engine).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    (address, count)
}

fn over_tls(host: &str, engine: SocketAddr, trusted: &Files) -> Settings {
    let url = format!("https://{host}:{}", engine.port());
    let authorities = Some(authorities(&trusted.path("cert.pem")).expect("an authority"));
    Settings { upstreams: vec![url.parse().expect("valid")], authorities, ..settings(&[]) }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_with_a_certificate_that_is_trusted_is_asked() {
    let files = Files::for_name("localhost");
    let (counts, plain) = demo(engine::Settings::default()).await;
    let (engine, connections) = tls_before(plain, &files).await;
    let gateway = start(over_tls("localhost", engine, &files)).await;
    let short =
        r#"{"stream": true, "max_tokens": 5, "messages": [{"role": "user", "content": "Hi"}]}"#;
    for _ in 0..3 {
        let answer = exchange(gateway.address, &post("/v1/chat/completions", "", short)).await;
        let (head, body) = unchunked(&answer);
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(body.ends_with("data: [DONE]\n\n"), "{body}");
    }
    // All of them, and the health check's.
    assert!(connections.load(Ordering::Relaxed) <= 2, "{connections:?}");
    // A client that leaves ends its work through TLS as well.
    let mut stream = TcpStream::connect(gateway.address).await.expect("connects");
    let long = r#"{"stream": true, "ignore_eos": true, "max_tokens": 100000, "messages": [{"role": "user", "content": "Hi"}]}"#;
    stream.write_all(&post("/v1/chat/completions", "", long)).await.expect("sends");
    let mut begun = vec![0; 2000];
    stream.read_exact(&mut begun).await.expect("reads");
    drop(stream);
    crate::held::until("aborted", || counts.aborted().requests == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_not_trusted_gets_nothing() {
    let (files, others) = (Files::for_name("localhost"), Files::for_name("localhost"));
    let elsewhere = Files::for_name("engine.example");
    let plain = script(|_, head| async move { panic!("it was asked: {head}") }).await;
    let check = async |shown: &Files, trusted: &Files| {
        let (engine, _) = tls_before(plain, shown).await;
        let gateway = start(over_tls("localhost", engine, trusted)).await;
        let answer = exchange(gateway.address, &get("/v1/models")).await;
        assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
        assert!(
            answer.contains("engine_unreachable") && !answer.contains("ertificate"),
            "{answer}"
        );
    };
    // Another authority, and the right one for another name.
    check(&files, &others).await;
    check(&elsewhere, &elsewhere).await;
}

/// It is read with the handshake, so that nothing is left in the socket to wait for.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_comes_with_the_end_of_the_handshake_is_answered() {
    let files = Files::for_name("localhost");
    let tls = Some(files.acceptor());
    let engine = says("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    let gateway = start(Settings { tls, ..settings(&[engine]) }).await;
    let config = files.client();
    let address = gateway.address;
    let asking = tokio::task::spawn_blocking(move || {
        let name = "localhost".try_into().expect("a name");
        let mut session = rustls::ClientConnection::new(Arc::new(config), name).expect("a session");
        // Kept until it may be sent, and then sent in one piece with what ends the handshake.
        session.writer().write_all(&get("/")).expect("kept");
        let mut socket = std::net::TcpStream::connect(address).expect("connects");
        socket.set_read_timeout(Some(PATIENCE)).expect("set");
        let mut answer = Vec::new();
        let _ = rustls::Stream::new(&mut session, &mut socket).read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    });
    let answer = asking.await.expect("no panic");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok"), "{answer:?}");
}

#[test]
fn files_without_a_certificate_are_no_authorities() {
    let files = Files::for_name("localhost");
    for name in ["key.pem", "none.pem"] {
        let error = authorities(&files.path(name)).expect_err(name).to_string();
        assert!(error.contains(name), "{error}");
    }
}

/// hyper's client takes them and says nothing of them, so that they end here, however many there are. What RFC 9110 §15.2 wants of a
/// proxy it cannot do: see ARCHITECTURE.md.
#[tokio::test]
async fn what_an_engine_says_before_its_answer_ends_here() {
    let early = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n\
                 HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </y>\r\n\r\n";
    let end = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 29\r\n\r\n\
               data: 1\r\n\r\ndata: [DONE]\r\n\r\n";
    let engine = script(move |mut stream, head| async move {
        let _ = crate::support::body(&mut stream, &head).await;
        for part in [early, end] {
            let _ = stream.write_all(part.as_bytes()).await;
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    let gateway = before(engine).await;
    for request in [post("/v1/chat/completions", "", CHAT), post("/upload", "", "x")] {
        let answer = exchange(gateway.address, &request).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
        assert!(!answer.contains("link:") && answer.contains("data: [DONE]"), "{answer}");
    }
    // To change to another protocol was not asked for.
    let engine = crate::support::says(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nbytes",
    );
    let gateway = before(engine.await).await;
    let answer = exchange(gateway.address, &get("/")).await;
    assert!(answer.starts_with("HTTP/1.1 502") && answer.contains("malformed"), "{answer}");
    assert!(!answer.contains("HTTP/1.1 101") && !answer.contains("bytes"), "{answer}");
}
