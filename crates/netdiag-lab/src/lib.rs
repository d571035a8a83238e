//! An emulated link between a client and a server, on the kernel's real TCP.
//!
//! A client's network namespace and a server's (one of its own, or the host) each have a TUN interface, and rattan-core
//! delays, drops and paces every packet between the two. Unlike netem this needs no kernel module, and the link can
//! change while it runs. The server has a namespace of its own by default, so that its TCP counters are nobody else's;
//! [`ServerSide::Host`] puts it on the host.
//!
//! Invariants: an impossible link ([`LinkSpec`]) cannot be built. Nothing a [`Lab`] makes has a name or a file that could
//! outlive its process, so that nothing is left to remove after a panic, a signal or SIGKILL. Labs of any number of
//! processes run beside each other.

#![forbid(unsafe_code)]

mod device;
mod emulator;
mod jitter;
mod lab;
mod netns;
mod spec;
mod subnet;

pub use lab::{Direction, Lab, LabError, ServerSide};
pub use spec::{InvalidSpec, LinkSpec};
