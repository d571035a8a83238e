//! Emulated links between clients and a server, on the kernel's real TCP.
//!
//! Each client's network namespace and the server's (one of its own, or the host) have a TUN interface for the link between
//! them, and every packet is delayed, dropped and paced in user space. Unlike netem this needs no kernel module, and links
//! can change while they run, at will or on a [`Schedule`], which a [`Scenario`] gives for each group of clients. The server
//! has a namespace of its own by default, so that its TCP counters are nobody else's; [`ServerSide::Host`] puts it on the
//! host.
//!
//! For fleets there is a NATS server, too ([`Broker`]).
//!
//! Invariants: an impossible link ([`LinkSpec`]) cannot be built. Nothing a [`Lab`] makes has a name or a file that could
//! outlive its process, so that nothing is left to remove after a panic, a signal or SIGKILL. Labs of any number of
//! processes run beside each other.

#![forbid(unsafe_code)]

mod bottleneck;
mod broker;
mod cellular;
pub mod client;
mod device;
mod emulator;
pub mod engine;
mod jitter;
mod lab;
mod link;
mod loss;
pub mod metrics;
mod netns;
mod playback;
mod queue;
mod scenario;
mod schedule;
mod setup;
pub mod sim;
mod spec;
mod subnet;
mod trace;
pub mod units;
mod user_namespace;

pub use broker::{Broker, BrokerError};
pub use lab::{Lab, LabError, ServerSide};
pub use link::{Direction, Link};
pub use playback::Playback;
pub use queue::{Discipline, Queue, QueueLength};
pub use scenario::{
    Group, InvalidDivision, InvalidDuration, Phase, PhaseKind, Portion, Scenario, ScenarioError,
};
pub use schedule::{InvalidSchedule, Schedule};
pub use spec::{Duplex, InvalidSpec, LinkSpec};
pub use trace::{InvalidTrace, Trace};
pub use user_namespace::enter_user_namespace;
