//! An authority of a test's own, for servers and clients that let themselves be known by certificates.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

/// An authority made for one test, and what it has signed.
pub(crate) struct Authority {
    folder: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(DnType::CommonName, "NetDiag test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("an authority");
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).expect("written");
        Self { folder, issuer }
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// A certificate and its key, by this name for whoever is called `host`.
    pub(crate) fn sign(&self, name: &str, host: &str) -> [PathBuf; 2] {
        let params = CertificateParams::new(vec![host.to_owned()]).expect("a name");
        let key = KeyPair::generate().expect("a key");
        let signed = params.signed_by(&key, &self.issuer).expect("signed");
        let files = [self.path(&format!("{name}.pem")), self.path(&format!("{name}.key"))];
        std::fs::write(&files[0], signed.pem()).expect("written");
        std::fs::write(&files[1], key.serialize_pem()).expect("written");
        files
    }
}

/// As an argument.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}
