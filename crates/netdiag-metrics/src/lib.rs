//! Metrics that know what they are, for every process of the project.
//!
//! A [`Described`] registry is `prometheus-client`'s with a list beside it: of each family its name, type and unit, and of each of
//! its labels what the values are and what bounds their number. Nothing can be registered without. What is exposed, what is
//! exported and what `docs/metrics.md` says come from this one registration, so that none of them can be about something else.
//!
//! Invariant: no label has values without a bound.

#![forbid(unsafe_code)]

mod described;
mod exports;
mod exposition;
mod reading;

pub use described::{Bound, Described, FamilyDescription, Label, Labelled, Labels, Within};
pub use exports::ExportStatus;
pub use exposition::{Scrape, respond};
