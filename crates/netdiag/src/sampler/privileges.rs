//! What reading an open probe takes, and what becomes of one that fails when the rest is given up.

use netdiag_probe::{Probe, ProbeConfig, SourceChoice};
use netdiag_telemetry::Source;
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

use crate::confine::{Confined, Confinement, Exceptions};

/// What a probe that failed is opened again as; `None` if it cannot be.
pub(super) fn again(wanted: SourceChoice, is_confined: bool) -> Option<SourceChoice> {
    match wanted {
        _ if !is_confined => Some(wanted),
        SourceChoice::Ebpf => None,
        SourceChoice::Auto | SourceChoice::Sockdiag => Some(SourceChoice::Sockdiag),
    }
}

/// Confines this thread to what reading the open probe takes.
pub(super) fn confine(
    probe: &mut Probe,
    config: &ProbeConfig,
    confinement: &Confinement,
) -> Option<Confined> {
    if !confinement.is_any() {
        return None;
    }
    let bpf = probe.source() == Source::Ebpf;
    let mut keep = CapabilitySet::empty();
    let around = CapabilitySet::SYS_ADMIN | CapabilitySet::SYS_PTRACE;
    let held = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    let namespaces = config.looks_around() && held.contains(CapabilitySet::SYS_ADMIN);
    if namespaces {
        keep |= around;
    }
    if bpf && held.contains(CapabilitySet::BPF) && !is_readable_with(keep & held, probe) {
        keep |= CapabilitySet::BPF;
    }
    confinement.enter(Exceptions { capabilities: keep, namespaces, bpf, ..Exceptions::NONE })
}

/// Whether the probe's maps can be read with these alone. Linux before 5.19 wants CAP_BPF for each call where `unprivileged_bpf_disabled` is
/// set, later ones leave it to who has a map open.
fn is_readable_with(set: CapabilitySet, probe: &mut Probe) -> bool {
    std::thread::scope(|scope| {
        let tried = scope.spawn(|| {
            let sets = CapabilitySets {
                effective: set,
                permitted: set,
                inheritable: CapabilitySet::empty(),
            };
            set_capabilities(None, sets).is_ok() && probe.snapshot().is_ok()
        });
        tried.join().unwrap_or(false)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_that_failed_is_opened_again_as_far_as_privileges_are_left() {
        use SourceChoice::{Auto, Ebpf, Sockdiag};
        for (wanted, confined) in [(Auto, Some(Sockdiag)), (Ebpf, None), (Sockdiag, Some(Sockdiag))]
        {
            assert_eq!(again(wanted, false), Some(wanted));
            assert_eq!(again(wanted, true), confined, "{wanted:?}");
        }
    }
}
