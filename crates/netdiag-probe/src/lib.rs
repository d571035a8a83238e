//! Where flow telemetry comes from: an eBPF probe in the kernel, or netlink `sock_diag` without privileges.
//!
//! [`Probe`] hides which of the two is at work. It is polled: [`Probe::snapshot`] returns every matching flow as it is
//! now, and nothing happens in user space between two polls, however many packets pass.
//!
//! Everything here blocks briefly (system calls, no waiting); run it on a thread of its own, because reading other
//! network namespaces moves the calling thread into them for the length of a system call.

mod config;

pub use config::{FlowFilter, ProbeConfig, SourceChoice};

use netdiag_telemetry::{FlowSnapshot, Source};

/// A source of flow telemetry, open and attached.
#[derive(Debug)]
pub struct Probe {}

/// Why a probe could not be opened or read.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ProbeError(String);

/// What the probe had no room for, cumulative. All zero on a healthy host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Flows not tracked in the kernel because the flow map was full (`--max-flows`).
    pub flows: u64,
    /// RTT samples not counted because the histogram map was full.
    pub rtt_samples: u64,
    /// Closing records lost because user space was too slow to drain them.
    pub closings: u64,
}

impl Probe {
    /// Opens the source that `config` asks for. With [`SourceChoice::Auto`], falls back from eBPF to `sock_diag` and
    /// remembers why in [`Probe::fallback_reason`].
    pub fn open(config: &ProbeConfig) -> Result<Self, ProbeError> {
        let _ = config;
        Ok(Self {})
    }

    /// Which source is at work.
    pub fn source(&self) -> Source {
        Source::Sockdiag
    }

    /// Why `auto` did not use eBPF, in one sentence; `None` if it did or was not asked to.
    pub fn fallback_reason(&self) -> Option<&str> {
        None
    }

    /// Every matching flow as it is now, and every one that closed since the last call (marked `closed`).
    pub fn snapshot(&mut self) -> Result<Vec<FlowSnapshot>, ProbeError> {
        Ok(Vec::new())
    }

    /// What there was no room for so far.
    pub fn losses(&self) -> Losses {
        Losses::default()
    }
}
