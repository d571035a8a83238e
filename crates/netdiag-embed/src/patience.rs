//! How long to wait before asking again.
//!
//! The kernel tells nobody when an ACK arrives, so one who is held must look. A credit of a few tokens over a short path is free again
//! within a millisecond, a radio link within seconds: so the first looks come quickly, and later ones at a pace that
//! is a fraction of what anybody notices. Each costs a system call.
//!
//! Invariant: no pause is longer than [`Patience::LONGEST`] or a tick, nor shorter than [`Patience::SHORTEST`].

use std::time::Duration;

use netdiag_pacer::Admission;

/// The waits of one request for admission.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    held: Duration,
    next: Duration,
}

impl Patience {
    /// Timers are no finer.
    const SHORTEST: Duration = Duration::from_millis(1);

    /// In the first second of a hold. A resumption is to be known within 100 ms of the ACK; this leaves most of it to the tick.
    const OFTEN: Duration = Duration::from_millis(20);

    /// After that: ten thousand who wait for silent clients would else take a core.
    const LONGEST: Duration = Duration::from_millis(50);

    /// From which on a hold is a long one.
    const LONG_HOLD: Duration = Duration::from_secs(1);

    pub(crate) fn new() -> Self {
        Self { held: Duration::ZERO, next: Self::SHORTEST }
    }

    /// When to ask again after `admission`; `None`: never, it was granted.
    pub(crate) fn pause(&mut self, admission: Admission, tick: Duration) -> Option<Duration> {
        match admission {
            Admission::Now => None,
            // The rate may be another after the tick.
            Admission::Wait(wait) => {
                *self = Self::new();
                Some(wait.min(tick).max(Self::SHORTEST))
            }
            Admission::Hold => {
                let pause = self.next;
                self.held = self.held.saturating_add(pause);
                let most = if self.held < Self::LONG_HOLD { Self::OFTEN } else { Self::LONGEST };
                self.next = (pause * 2).min(most);
                Some(pause)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TICK: Duration = Duration::from_millis(100);

    #[test]
    fn a_hold_is_looked_at_soon_and_then_often() {
        let mut patience = Patience::new();
        let pauses: Vec<u128> = (0..100)
            .filter_map(|_| patience.pause(Admission::Hold, TICK))
            .map(|pause| pause.as_millis())
            .collect();
        assert_eq!(pauses[..8], [1, 2, 4, 8, 16, 20, 20, 20]);
        assert_eq!(pauses[99], 50);
        // Whoever was let go on begins anew.
        patience.pause(Admission::Wait(TICK), TICK);
        assert_eq!(patience.pause(Admission::Hold, TICK), Some(Duration::from_millis(1)));
    }

    proptest! {
        #[test]
        fn pauses_are_within_their_bounds(
            answers in prop::collection::vec(prop::option::of(any::<u64>()), 1..200),
        ) {
            let mut patience = Patience::new();
            for answer in answers {
                let admission = answer.map_or(Admission::Hold, |nanos| {
                    Admission::Wait(Duration::from_nanos(nanos))
                });
                let pause = patience.pause(admission, TICK).expect("not granted");
                let most = if answer.is_some() { TICK } else { Patience::LONGEST };
                prop_assert!((Patience::SHORTEST..=most).contains(&pause), "{pause:?}");
            }
            prop_assert_eq!(patience.pause(Admission::Now, TICK), None);
        }
    }
}
