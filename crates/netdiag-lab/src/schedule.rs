//! How a link changes over time: pure data, to be played by [`Lab::play`](crate::Lab::play).
//!
//! Invariant: the first change is at zero and each later than the one before, so that at any time there is exactly one link.

use std::time::Duration;

use crate::spec::Duplex;

/// Links and the times from which they hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    steps: Vec<(Duration, Duplex)>,
}

/// Why steps are no schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSchedule {
    /// No steps.
    #[error("a schedule without steps: give the link at time zero at least")]
    Empty,
    /// A time without a link.
    #[error("the first step is at {0:?}: it must be at zero, to say what the link is at first")]
    Start(Duration),
    /// Steps at the same time, or backwards.
    #[error("step {step} at {at:?} does not come after {before:?}: sort the steps by time")]
    Order {
        /// Which one, counted from 1.
        step: usize,
        /// Its time.
        at: Duration,
        /// That of the step before.
        before: Duration,
    },
}

impl Schedule {
    /// The links in `steps`, each from its time on; the last holds for ever.
    pub fn try_new(
        steps: impl IntoIterator<Item = (Duration, Duplex)>,
    ) -> Result<Self, InvalidSchedule> {
        let steps: Vec<_> = steps.into_iter().collect();
        match steps.first() {
            None => return Err(InvalidSchedule::Empty),
            Some((start, _)) if !start.is_zero() => return Err(InvalidSchedule::Start(*start)),
            Some(_) => {}
        }
        for (index, pair) in steps.windows(2).enumerate() {
            let (before, at) = (pair[0].0, pair[1].0);
            if at <= before {
                return Err(InvalidSchedule::Order { step: index + 2, at, before });
            }
        }
        Ok(Self { steps })
    }

    /// Of steps that are known to be in order, from zero on.
    pub(crate) fn from_ordered(steps: Vec<(Duration, Duplex)>) -> Self {
        debug_assert!(Self::try_new(steps.clone()).is_ok());
        Self { steps }
    }

    /// A link that never changes.
    pub fn constant(link: impl Into<Duplex>) -> Self {
        Self { steps: vec![(Duration::ZERO, link.into())] }
    }

    /// The steps, in order of time.
    pub fn steps(&self) -> &[(Duration, Duplex)] {
        &self.steps
    }

    /// The link at time zero.
    pub fn first(&self) -> &Duplex {
        &self.steps[0].1
    }

    /// The link at `time`.
    pub fn at(&self, time: Duration) -> &Duplex {
        let after = self.steps.partition_point(|(from, _)| *from <= time);
        &self.steps[after.saturating_sub(1)].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::LinkSpec;

    fn steps(seconds: &[u64]) -> Result<Schedule, InvalidSchedule> {
        let link = |n: &u64| LinkSpec::delayed(Duration::from_millis(*n)).expect("possible").into();
        Schedule::try_new(seconds.iter().map(|n| (Duration::from_secs(*n), link(n))))
    }

    #[test]
    fn each_link_holds_from_its_time_to_the_next() {
        let schedule = steps(&[0, 5, 9]).expect("in order");
        for (time, expected) in [(0, 0), (4, 0), (5, 5), (8, 5), (9, 9), (1000, 9)] {
            let delay = schedule.at(Duration::from_secs(time)).up.delay();
            assert_eq!(delay, Duration::from_millis(expected), "at {time} s");
        }
        assert_eq!(schedule.first(), schedule.at(Duration::ZERO));
        assert_eq!(Schedule::constant(LinkSpec::default()).steps().len(), 1);
    }

    #[test]
    fn what_is_no_schedule_is_named() {
        let check = |seconds: &[u64], expected: &str| {
            let error = steps(seconds).expect_err("no schedule").to_string();
            assert!(error.starts_with(expected), "{error}");
        };
        check(&[], "a schedule without steps");
        check(&[1, 2], "the first step is at 1s: it must be at zero");
        check(&[0, 2, 2], "step 3 at 2s does not come after 2s: sort");
        check(&[0, 3, 2], "step 3 at 2s does not come after 3s: sort");
    }
}
