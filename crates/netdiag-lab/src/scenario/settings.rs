//! What a file says about a link, layer over layer, until it is one.
//!
//! Invariant: every value remembers the line that it came from, so that values that do not fit together can be traced to it.

use std::time::Duration;

use crate::queue::Queue;
use crate::spec::{Capacity, InvalidSpec, LinkSpec};

/// A value and its line.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Set<T> {
    pub(super) value: T,
    pub(super) line: usize,
}

/// What is said about one direction. What is not said is as in the layer below.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Settings {
    pub(super) delay: Option<Set<Duration>>,
    pub(super) jitter: Option<Set<Duration>>,
    pub(super) loss: Option<Set<f64>>,
    pub(super) burst: Option<Set<f64>>,
    pub(super) capacity: Option<Set<Capacity>>,
    pub(super) queue: Option<Set<Queue>>,
}

/// What a table says: for both directions, and for each.
#[derive(Clone, Debug, Default)]
pub(super) struct Sides {
    pub(super) both: Settings,
    pub(super) up: Settings,
    pub(super) down: Settings,
}

/// Values that make no link, and the line of the one to change.
#[derive(Debug)]
pub(super) struct Misfit {
    pub(super) line: usize,
    pub(super) message: String,
}

impl Settings {
    /// This, with what `over` says on top.
    pub(super) fn under(&self, over: &Self) -> Self {
        Self {
            delay: over.delay.clone().or(self.delay.clone()),
            jitter: over.jitter.clone().or(self.jitter.clone()),
            loss: over.loss.clone().or(self.loss.clone()),
            burst: over.burst.clone().or(self.burst.clone()),
            capacity: over.capacity.clone().or(self.capacity.clone()),
            queue: over.queue.clone().or(self.queue.clone()),
        }
    }

    /// The link that this describes.
    pub(super) fn build(&self) -> Result<LinkSpec, Misfit> {
        let value =
            |set: &Option<Set<Duration>>| set.as_ref().map_or(Duration::ZERO, |set| set.value);
        let line = |set: &Option<Set<Duration>>| set.as_ref().map_or(1, |set| set.line);
        let at =
            |line: usize| move |error: InvalidSpec| Misfit { line, message: error.to_string() };
        let (delay, jitter) = (line(&self.delay), line(&self.jitter));
        let mut link = LinkSpec::delayed(value(&self.delay)).map_err(at(delay))?;
        // Of two that do not fit together the later one is likelier to be the new one.
        link = link.with_jitter(value(&self.jitter)).map_err(at(delay.max(jitter)))?;
        link = match (&self.loss, &self.burst) {
            (None, None) => link,
            (None, Some(burst)) => {
                let message =
                    format!("burst = {}: says how losses come together; add loss", burst.value);
                return Err(Misfit { line: burst.line, message });
            }
            (Some(loss), None) => link.with_loss(loss.value).map_err(at(loss.line))?,
            (Some(loss), Some(burst)) => {
                let line = loss.line.max(burst.line);
                link.with_burst_loss(loss.value, burst.value).map_err(at(line))?
            }
        };
        link = match &self.capacity {
            None => link,
            Some(Set { value: Capacity::Unlimited, .. }) => link,
            Some(Set { value: Capacity::Rate(rate), line }) => {
                link.with_rate(*rate).map_err(at(*line))?
            }
            Some(Set { value: Capacity::Trace(trace), .. }) => link.with_trace(trace.clone()),
        };
        Ok(match &self.queue {
            None => link,
            Some(queue) => link.with_queue(queue.value),
        })
    }
}

impl Sides {
    /// Line and key of something that is said about losses.
    pub(super) fn losses(&self) -> Option<(usize, &'static str)> {
        let of = |settings: &Settings| {
            let loss = settings.loss.as_ref().map(|set| (set.line, "loss"));
            loss.or(settings.burst.as_ref().map(|set| (set.line, "burst")))
        };
        [&self.both, &self.up, &self.down].into_iter().find_map(of)
    }

    /// What is said about each direction, up first.
    pub(super) fn directions(&self) -> [Settings; 2] {
        [self.both.under(&self.up), self.both.under(&self.down)]
    }
}
