//! The experiment: the same faults, paced and unpaced, side by side on the kernel's real TCP.
//!
//! Every arm has a lab of its own, with links that do the same at the same time: same schedule, same seed. In it an engine answers
//! clients, and the probe watches the server's namespace, as it would on a server. In a paced arm the engine asks the hints
//! how fast each client's stream may go; in the others it does not, and the hints are what it would have been told.
//!
//! Where clients come through the gateway it is the gateway that paces, and the engine is told to pause by it; it hears no hints.
//!
//! Invariant: nothing is compared that was not run at the same time under the same conditions.

mod answers;
mod arm;
mod bootstrap;
mod chart;
mod comparison;
mod conditions;
mod cpu;
mod figures;
mod files;
mod findings;
mod folder;
mod front;
mod live;
mod phases;
mod privileges;
mod progress;
mod rate;
mod record;
mod report;
mod run;

pub(crate) use conditions::{Conditions, Policy, Via};
pub(crate) use figures::table;
pub(crate) use files::write;
pub(crate) use findings::findings;
pub(crate) use folder::Folder;
pub(crate) use live::{about, feed};
pub(crate) use phases::{spans, too_short};
pub(crate) use privileges::acquire as acquire_privileges;
pub(crate) use record::Record;
pub(crate) use report::render as report;
pub(crate) use run::{Ended, Plan, Ran, TELL, run};
