//! A collector over TLS: believed by its authority alone, and by its name.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::process::Signal;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, crypto};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::{Collector, SECRET};
use crate::authority::{Authority, text};
use crate::support::{Running, get, netdiag, until};

/// Whoever cannot agree on TLS is left, and the next one is waited for.
pub(super) struct Listener {
    pub(super) listener: tokio::net::TcpListener,
    pub(super) tls: TlsAcceptor,
}

impl axum::serve::Listener for Listener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let Ok((stream, address)) = self.listener.accept().await else { continue };
            if let Ok(stream) = self.tls.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

fn acceptor([cert, key]: &[PathBuf; 2]) -> TlsAcceptor {
    let cert = CertificateDer::from_pem_file(cert).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(key).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![cert], key)
        .expect("a pair");
    TlsAcceptor::from(Arc::new(config))
}

/// `netdiag serve` that pushes to `url`, trusting `ca`, or whom the system trusts.
fn pushing(url: &str, headers: &Path, ca: Option<&Path>) -> Running {
    let mut arguments = vec!["serve", "--listen", "127.0.0.1:0", "--otlp", url];
    arguments.extend(["--otlp-interval", "0.2", "--otlp-headers-file", text(headers)]);
    arguments.extend(ca.iter().flat_map(|ca| ["--otlp-ca", text(ca)]));
    let mut serve = netdiag(arguments);
    serve.env("NETDIAG_CSV", headers.with_file_name("net_data.csv"));
    Running::start(serve)
}

/// What it says of its last export.
fn is_up(hints: SocketAddr) -> Option<f64> {
    let (_, text) = get(hints, "/metrics");
    text.lines().find_map(|line| line.strip_prefix("netdiag_otlp_up ")?.parse().ok())
}

#[test]
fn a_collector_is_believed_by_its_authority_and_its_name() {
    let (own, other) = (Authority::new(), Authority::new());
    let headers = own.path("headers");
    std::fs::write(&headers, format!("authorization: Bearer {SECRET}\n")).expect("written");
    let (ours, others) = (own.path("ca.pem"), other.path("ca.pem"));
    let any_port = || "127.0.0.1:0".parse().expect("an address");

    let collector =
        Collector::start_with(any_port(), Some(acceptor(&own.sign("server", "127.0.0.1"))));
    let url = format!("https://{}", collector.address);
    let mut running = pushing(&url, &headers, Some(&ours));
    let hints = running.address();
    until("exports", || (collector.count() >= 3).then_some(()));
    let (sent, _) = collector.shared.taken.lock().expect("no panic")[0].clone();
    assert_eq!(sent["authorization"], format!("Bearer {SECRET}"));
    until("the metric", || (is_up(hints) == Some(1.0)).then_some(()));
    let (status, told) = running.end_by(Signal::TERM);
    assert!(status.success(), "{told:?}");

    let elsewhere =
        Collector::start_with(any_port(), Some(acceptor(&own.sign("elsewhere", "otlp.example"))));
    let before = collector.count();
    for (collector, ca) in
        [(&collector, Some(&*others)), (&collector, None), (&elsewhere, Some(&*ours))]
    {
        let url = format!("https://{}", collector.address);
        let mut running = pushing(&url, &headers, ca);
        let hints = running.address();
        let told = running.line_with("metrics are not exported meanwhile");
        assert!(told.contains("certificate"), "{told}");
        until("a drop", || (is_up(hints) == Some(0.0)).then_some(()));
        let (status, told) = running.end_by(Signal::TERM);
        assert!(status.success(), "{told:?}");
        assert!(!told.iter().any(|line| line.contains(SECRET)), "{told:?}");
    }
    assert_eq!((collector.count(), elsewhere.count()), (before, 0));
}
