//! Capabilities of the calling thread, and the way back to them.

use std::fmt;

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    clear_ambient_capability_set, no_new_privs, remove_capability_from_bounding_set,
    set_capabilities, set_no_new_privs,
};

/// What is left of a thread's capabilities.
#[derive(Clone, Copy, Debug)]
pub(super) struct Left {
    set: CapabilitySet,
    no_new_privs: bool,
}

impl Left {
    pub(super) fn is_none(self) -> bool {
        self.set.is_empty()
    }
}

/// What this thread has, or can make its own.
pub(super) fn held() -> CapabilitySet {
    capabilities(None).map(|sets| sets.permitted).unwrap_or(CapabilitySet::empty())
}

/// Gives up all but these, in all sets, and the means to have them again: programs with file capabilities or set-user-ID bits, and the
/// bounding set, where that is ours to shorten.
pub(super) fn drop_all_but(keep: CapabilitySet) -> Left {
    let held = held();
    let set = held & keep;
    for capability in CapabilitySet::all().iter() {
        // Without CAP_SETPCAP it stays as it is, which is of use to nobody who can gain no privileges.
        if !set.contains(capability)
            && held.contains(CapabilitySet::SETPCAP)
            && capability_is_in_bounding_set(capability).unwrap_or(false)
        {
            let _ = remove_capability_from_bounding_set(capability);
        }
    }
    let _ = clear_ambient_capability_set();
    let sets =
        CapabilitySets { effective: set, permitted: set, inheritable: CapabilitySet::empty() };
    // To have fewer is refused to nobody.
    let _ = set_capabilities(None, sets);
    let _ = set_no_new_privs(true);
    // What is so, and not what was wanted.
    let set = capabilities(None).map(|sets| sets.permitted).unwrap_or(held);
    Left { set, no_new_privs: no_new_privs().unwrap_or(false) }
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&names(self.set))?;
        if !self.no_new_privs {
            f.write_str(", and may gain new ones")?;
        }
        Ok(())
    }
}

/// `CAP_SYS_ADMIN and CAP_SYS_PTRACE`, or `no capabilities`.
pub(super) fn names(set: CapabilitySet) -> String {
    let names: Vec<String> = set.iter_names().map(|(name, _)| format!("CAP_{name}")).collect();
    match &names[..] {
        [] => "no capabilities".to_owned(),
        [all @ .., last] if !all.is_empty() => format!("{} and {last}", all.join(", ")),
        [one, ..] => one.clone(),
    }
}
