//! The message bus: hints pushed over NATS, for fleets whose engines cannot each poll a hint server.
//!
//! A hint is worth something while it is new, so nothing here is ever kept for later: core NATS, at most once, the newest wins. What
//! cannot be sent at once is not sent, because the next board comes a moment later; what a subscriber has not taken is replaced by
//! what comes. Whoever joins late finds the last values in a key-value bucket, each with the time when it was said and how long it
//! holds. One machine needs none of this: there, hints go through a `watch` channel.
//!
//! ```text
//! netdiag.v1.hint.<node>.host                         netdiag.v1.hint.*.host: all hosts
//! netdiag.v1.hint.<node>.peer.192-0-2-1               `.`, which separates levels, and `:` are written `-`
//! netdiag.v1.hint.<node>.stream.192-0-2-1_50000       netdiag.v1.hint.<node>.>: all that one node says
//! ```
//!
//! Invariants: memory is bounded whatever the broker does; a broker that is gone, full, or refuses us never delays a hint that is
//! served otherwise, and is asked again for ever; a node's name in a message is the one in its subject, which the broker's permissions
//! speak of.

mod bucket;
mod connection;
mod coordinator;
mod election;
mod fleet;
mod history;
mod last_values;
mod latest;
mod member;
mod message;
mod publisher;
mod selection;
mod settings;
mod subject;
mod subscriber;

pub use connection::Bus;
pub use coordinator::{FleetSettings, FleetView, coordinate};
pub use fleet::{EngineName, EngineView, MemberView};
pub use history::EngineHistory;
pub use member::{HeardLevel, Member, MemberSettings, Seat, seat};
pub use message::{InvalidMessage, NodeHint};
pub use publisher::{BusStatus, PublishSettings, publish};
pub use selection::Scopes;
pub use settings::{BusSettings, BusUrl, Credentials, InvalidBus};
pub use subject::{InvalidNode, NodeName};
pub use subscriber::{HintSubscriber, Update};
