//! An emulated link between a client and a server, on the kernel's real TCP.
//!
//! Two network namespaces joined by rattan-core, which moves every packet through user space and delays, drops and paces
//! it on the way. Unlike netem this needs no kernel module, and the link can change while it runs. The server's side is
//! a namespace of its own by default, so that its TCP counters are nobody else's; [`ServerSide::Host`] puts it on the
//! host.
//!
//! Invariants: an impossible link ([`LinkSpec`]) cannot be built; what a [`Lab`] made is gone when it is dropped, and
//! what a killed process left behind is removed before the next lab starts, never that of a process that lives.

#![forbid(unsafe_code)]

mod jitter;
mod lab;
mod leftovers;
mod spec;

pub use lab::{Direction, Lab, LabError, ServerSide};
pub use spec::{InvalidSpec, LinkSpec};
