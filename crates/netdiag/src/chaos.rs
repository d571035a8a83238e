//! Faults on a real interface: what they are, putting them there, and taking them away again whatever happens.
//!
//! A fault is one root queueing discipline with a handle of our own ([`HANDLE`]). So the kernel alone holds the state:
//! whoever comes after a run that was killed finds what it left, and nothing that is somebody else's is ever removed.

pub(crate) mod fault;
pub(crate) mod injection;
pub(crate) mod iproute;
pub(crate) mod lock;
pub(crate) mod login;
pub(crate) mod privilege;
pub(crate) mod random;
pub(crate) mod restore;
pub(crate) mod run;
pub(crate) mod target;
pub(crate) mod values;

/// The handle of our queueing disciplines: `ND`. The kernel itself counts from 8000 up, and people from 1.
pub(crate) const HANDLE: &str = "4e44:";
