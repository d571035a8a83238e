//! Why a probe could not be opened or read, each with the remedy.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use crate::ebpf::chain;

/// Why a probe could not be opened or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// The kernel does not describe its types.
    #[error("the kernel has no BTF ({0}); it needs CONFIG_DEBUG_INFO_BTF=y (Linux 5.12 or later)")]
    NoBtf(String),
    /// The kernel may not be asked to load programs.
    #[error("not permitted to load eBPF ({0}): run as root, or with CAP_BPF and CAP_PERFMON")]
    NotPermitted(String),
    /// The kernel refused a program.
    #[error("loading {what} failed: {cause}")]
    Load {
        /// The object or the hook.
        what: String,
        /// The kernel's or the loader's words.
        cause: String,
    },
    /// The object is not the one this code belongs to.
    #[error("the BPF object does not fit this program: {0} (rebuild it with `cargo xtask bpf`)")]
    Object(String),
    /// A map could not be read.
    #[error("reading the BPF map {map} failed: {source}")]
    Map {
        /// Its name.
        map: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Netlink `sock_diag` did not answer.
    #[error("netlink sock_diag failed: {0} (is CONFIG_INET_DIAG enabled?)")]
    SockDiag(#[source] io::Error),
    /// The namespace that was asked for cannot be used.
    #[error(
        "network namespace {path}: {source} (expected a path such as /run/netns/NAME or /proc/PID/ns/net)"
    )]
    Netns {
        /// As given.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl ProbeError {
    pub(crate) fn object(cause: impl ToString) -> Self {
        Self::Object(cause.to_string())
    }

    /// A failed load or attach; a refusal for lack of privilege is told apart, because its remedy is another.
    pub(crate) fn load(what: &str, error: &(dyn Error + 'static)) -> Self {
        let mut link = Some(error);
        while let Some(error) = link {
            let io = error.downcast_ref::<io::Error>();
            if let Some(io) = io.filter(|io| io.kind() == io::ErrorKind::PermissionDenied) {
                // What was refused (a map, a program) says nothing: without privilege everything is.
                return Self::NotPermitted(io.to_string());
            }
            link = error.source();
        }
        Self::Load { what: what.to_owned(), cause: chain(error) }
    }
}
