//! TLS on both sides of the gateway, by rustls with ring.

use std::path::Path;
use std::sync::Arc;

use netdiag_http::{TlsError, certificate, tls_client};
use rustls::crypto::ring::default_provider;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// What clients are answered with: a certificate chain and its key, both PEM. HTTP/2 is offered first (ALPN, RFC 7301).
pub fn acceptor(chain: &Path, key: &Path) -> Result<TlsAcceptor, TlsError> {
    let (certificates, key) = certificate(chain, key)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Pair)?
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .map_err(TlsError::Pair)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// How engines are asked over TLS. They are asked in HTTP/1.1, whatever clients speak.
pub(crate) fn connector(roots: RootCertStore) -> Result<TlsConnector, TlsError> {
    let mut config = tls_client(roots, None)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}
