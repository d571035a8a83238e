//! Labs for those who are not root: in a user namespace of one's own everybody is.
//!
//! Kernels and distributions differ in whom they allow this (`kernel.unprivileged_userns_clone`, AppArmor's
//! `kernel.apparmor_restrict_unprivileged_userns`, containers' seccomp filters), so it is tried rather than asked.

use std::{fs, io};

use nix::sched::{CloneFlags, unshare};
use rustix::process::{DumpableBehavior, getegid, geteuid, set_dumpable_behavior};

use crate::lab::{LabError, refused};
use crate::netns::new_here;
use crate::setup::namespace_refused;

const DOING: &str = "making a user namespace";

/// Moves this process into a new user namespace, in which it has every capability, and a new network namespace, in which it may
/// use them. Outside it is allowed no more than before. Namespaces it had open are out of reach from then on, except its own.
///
/// To be called before the first thread is started: the kernel refuses it afterwards.
///
/// # Errors
///
/// [`LabError::NotPermitted`] where the kernel or the distribution does not allow it, [`LabError::TooManyNamespaces`] where a
/// limit is reached (a limit of 0 is how some forbid it).
pub fn enter_user_namespace() -> Result<(), LabError> {
    let (user, group) = (geteuid().as_raw(), getegid().as_raw());
    // Of a binary that has capabilities from its file (setcap) the kernel gives `/proc/self` to root, who alone could then
    // write the maps below. Others may trace us from now on only if they have the capabilities that we have.
    set_dumpable_behavior(DumpableBehavior::Dumpable).map_err(|error| refusal(error.into()))?;
    unshare(CloneFlags::CLONE_NEWUSER).map_err(|error| refusal(error.into()))?;
    // Without this no group may be mapped (user_namespaces(7)).
    fs::write("/proc/self/setgroups", "deny").map_err(refusal)?;
    fs::write("/proc/self/uid_map", format!("0 {user} 1\n")).map_err(refusal)?;
    fs::write("/proc/self/gid_map", format!("0 {group} 1\n")).map_err(refusal)?;
    new_here().map_err(namespace_refused)
}

fn refusal(source: io::Error) -> LabError {
    match source.kind() {
        // ENOSPC, of which there is no other cause here.
        io::ErrorKind::StorageFull => {
            LabError::TooManyNamespaces { doing: DOING, sysctl: "user.max_user_namespaces", source }
        }
        _ => refused(DOING, "CAP_SYS_ADMIN", source),
    }
}
