//! Labs for those who are not root: in a user namespace of one's own everybody is.
//!
//! Kernels and distributions differ in whom they allow this (`kernel.unprivileged_userns_clone`, AppArmor's
//! `kernel.apparmor_restrict_unprivileged_userns`, containers' seccomp filters), so it is tried rather than asked.

use std::{fs, io};

use nix::sched::{CloneFlags, unshare};
use rustix::process::{getegid, geteuid};

use crate::lab::LabError;

const DOING: &str = "making a user namespace";

/// Moves this process into a new user namespace, in which it has every capability, and a new network namespace, in which it may
/// use them. Outside it is allowed no more than before. Namespaces it had open are out of reach from then on, except its own.
///
/// To be called before the first thread is started: the kernel refuses it afterwards.
///
/// # Errors
///
/// [`LabError::NotPermitted`] where the kernel or the distribution does not allow it.
pub fn enter_user_namespace() -> Result<(), LabError> {
    let (user, group) = (geteuid().as_raw(), getegid().as_raw());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)
        .map_err(|error| refusal(error.into()))?;
    // Without this no group may be mapped (user_namespaces(7)).
    fs::write("/proc/self/setgroups", "deny").map_err(refusal)?;
    fs::write("/proc/self/uid_map", format!("0 {user} 1\n")).map_err(refusal)?;
    fs::write("/proc/self/gid_map", format!("0 {group} 1\n")).map_err(refusal)
}

fn refusal(source: io::Error) -> LabError {
    match source.kind() {
        io::ErrorKind::PermissionDenied => {
            LabError::NotPermitted { doing: DOING, capability: "CAP_SYS_ADMIN", source }
        }
        _ => LabError::System { doing: DOING, source },
    }
}
