//! The experiment: the same faults, paced and unpaced, side by side on the kernel's real TCP.
//!
//! Every arm has a lab of its own, with links that do the same at the same time: same schedule, same seed. In it an engine answers
//! clients, and the probe watches the server's namespace, as it would on a server. In a paced arm the engine asks the hints
//! how fast each client's stream may go; in the others it does not, and the hints are what it would have been told.
//!
//! Invariant: nothing is compared that was not run at the same time under the same conditions.

mod arm;
mod chart;
mod cpu;
mod figures;
mod files;
mod live;
mod record;
mod report;

pub(crate) use arm::{Arm, ArmData, Conditions, EndedArm, Policy};
pub(crate) use cpu::{CpuMeter, WORKER};
pub(crate) use figures::{findings, table};
pub(crate) use files::write;
pub(crate) use live::{Shown, about, feed};
pub(crate) use record::{PhaseSpan, Record};
pub(crate) use report::render as report;
