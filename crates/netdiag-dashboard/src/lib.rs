//! The dashboard: what a link does, what is made of it, and what is recommended, live in a browser.
//!
//! Whoever measures pushes one [`Point`] per interval into a [`Feed`]; [`router`] turns the feed into a page, its assets and
//! one stream of server-sent events with history on connect. The page itself is hand-written and embedded
//! (`crates/netdiag-dashboard/assets`); there is no build step.
//!
//! Invariants: memory is bounded however long it runs and whoever watches; nothing is formatted while nobody looks; the page
//! loads nothing from another host, and its policy says so to the browser.

#![forbid(unsafe_code)]

mod assets;
mod document;
mod events;
mod experiment;
mod feed;
mod flow;
mod history;
mod metrics;
mod routes;
mod wire;

pub use document::Document;
pub use experiment::{Arm, ArmTick, Experiment, Phase};
pub use feed::{Feed, Label, Mode, Staleness};
pub use flow::{FlowRow, flows_json};
pub use history::Point;
pub use metrics::dashboard_metrics;
pub use routes::{Options, router, router_and_metrics};
