//! The privilege that faults need, for us and for the tools that we start.

use rustix::thread::{
    CapabilitySet, capabilities, configure_capability_in_ambient_set, set_capabilities,
};

use crate::failure::UsageError;

/// Makes sure that we may change interfaces, and `tc` as well.
///
/// A capability that the binary has from `setcap` ends with it, unless the kernel is told that programs started by this
/// thread inherit it.
pub(crate) fn share_with_tools() -> Result<(), UsageError> {
    let mut sets = capabilities(None).map_err(|error| UsageError::because(REFUSAL, error))?;
    if !sets.effective.contains(CapabilitySet::NET_ADMIN) {
        return Err(lacking());
    }
    sets.inheritable |= CapabilitySet::NET_ADMIN;
    // Where this is forbidden root's tools have it all the same, and others' will say so.
    let _ = set_capabilities(None, sets)
        .and_then(|()| configure_capability_in_ambient_set(CapabilitySet::NET_ADMIN, true));
    Ok(())
}

/// What to say where the privilege is lacking.
pub(crate) fn lacking() -> UsageError {
    UsageError::new(REFUSAL)
}

const REFUSAL: &str = "changing the interfaces of this network namespace is not permitted; run as root, or give the binary \
     CAP_NET_ADMIN (`sudo setcap cap_net_admin+ep FILE`)";
