//! Whether a lab can be set up, decided by what this process may do and not by who it is: root in a container often may not, and
//! somebody else with capabilities may.

use netdiag_lab::{LabError, enter_user_namespace};
use netdiag_probe::SourceChoice;
use rustix::thread::{CapabilitySet, capabilities};

use crate::failure::UsageError;

const REMEDY: &str = "run it as root (in a container with CAP_SYS_ADMIN and CAP_NET_ADMIN), or allow user namespaces (`sysctl \
     kernel.unprivileged_userns_clone=1`, `sysctl user.max_user_namespaces=1000`, and on Ubuntu `sysctl \
     kernel.apparmor_restrict_unprivileged_userns=0`)";

/// Makes sure that namespaces can be made, in a user namespace of one's own where it must be, and says what can measure in them.
///
/// To be called before the first thread is started, because the kernel moves no process with several into a user namespace.
pub(crate) fn acquire() -> Result<SourceChoice, UsageError> {
    let needed = CapabilitySet::SYS_ADMIN | CapabilitySet::NET_ADMIN;
    if capabilities(None).is_ok_and(|sets| sets.effective.contains(needed)) {
        return Ok(SourceChoice::Auto);
    }
    enter_user_namespace().map_err(|error| {
        UsageError::because(format!("an experiment needs network namespaces; {REMEDY}"), error)
    })?;
    Ok(SourceChoice::Sockdiag)
}

/// What the machine does not allow can never work, so it is told like a mistake of the caller.
pub(super) fn refusal(error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref() {
        Some(LabError::NotPermitted { .. }) => {
            UsageError::because(format!("cannot set up the links; {REMEDY}"), error).into()
        }
        Some(LabError::NoTun(_)) => UsageError::because("cannot set up the links", error).into(),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn what_the_machine_does_not_allow_is_no_failure_of_the_run() {
        let is_usage =
            |error: LabError| refusal(error.into()).downcast_ref::<UsageError>().is_some();
        let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
        assert!(is_usage(LabError::NoTun(denied())));
        let (doing, capability) = ("making a network namespace", "CAP_SYS_ADMIN");
        assert!(is_usage(LabError::NotPermitted { doing, capability, source: denied() }));
        assert!(!is_usage(LabError::System { doing, source: denied() }));
    }
}
