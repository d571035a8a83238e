//! What can be done with an engine besides reading it, so that a client which takes nothing costs it nothing.
//!
//! | adapter | a silent client's engine | where it works |
//! | --- | --- | --- |
//! | [`Adapter::Generic`] | is not read; goes on until the buffers between are full | everywhere |
//! | [`Adapter::Netdiag`] | is told to pause, and to go on ([`told`]) | engines with `docs/engines.md`'s contract |
//!
//! Invariant: an adapter changes when an engine works and never what a client is told.

pub(crate) mod told;

use std::sync::Arc;

use hyper::header::HeaderMap;

use crate::Shared;
use crate::passing::Course;
use crate::source::Source;
use told::Told;

/// How engines are held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Adapter {
    /// By not reading them.
    #[default]
    Generic,
    /// By the calls of `docs/engines.md`.
    Netdiag,
}

/// The source that holds this answer's engine. `asked` are the request's headers, `answered` the answer's.
pub(crate) fn source(
    gateway: &Arc<Shared>,
    course: Course,
    asked: &HeaderMap,
    answered: &HeaderMap,
) -> Box<dyn Source> {
    match gateway.settings.adapter {
        Adapter::Generic => Box::new(course),
        Adapter::Netdiag => match told::Control::of(gateway, &course, asked, answered) {
            Some(control) => Box::new(Told::new(control, course)),
            None => Box::new(course),
        },
    }
}
