//! What each stream of one engine gets until the next tick: the least for those whose clients have most to read.
//!
//! Every stream is given what keeps its client some seconds of text ahead, and no more. A token ahead of its reader is worth
//! nothing now, and nothing ever if the reader leaves; but it is what carries the reader over the next silence of the path. So
//! how far ahead is asked for stream by stream: the more, the less its path can be relied upon.
//!
//! ```text
//! lead  = unread tokens / reading rate                                                        seconds
//! want  = min(cap, reading · (1 + (ahead − lead) / 1 s))     0 if held                         tokens/s
//! start = lead: streams with a longer lead join in later, so that leads even out
//! ```
//!
//! A feedback loop with one integrator (the lead) and a time constant of a second: it cannot oscillate while a tick and a round
//! trip are shorter than that.
//!
//! Invariants: those of [`allocate`]; a stream that is held, or whose credit is spent, gets nothing.

use netdiag_telemetry::Tps;

use crate::allocator::{Claim, allocate};
use crate::carry::Lead;

/// How quickly a lead is brought to where it should be. Longer than a tick and a round trip, shorter than a lead.
const SECONDS: f64 = 1.0;

/// Leads beyond this are as long as any, seconds: nobody is an hour of text ahead. With far larger numbers rates would drown in
/// rounding.
const LONGEST: f64 = 3600.0;

/// How much is asked of the engine that streams share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Load {
    /// Streams do not share it, or nobody knows.
    #[default]
    Unshared,
    /// Everybody has what it needs.
    Idle,
    /// Somebody waits, or has less than it could read.
    Busy,
}

impl Load {
    /// How far ahead of their readers streams should be under it.
    pub fn lead(self) -> Lead {
        match self {
            Load::Unshared | Load::Idle => Lead::IDLE,
            Load::Busy => Lead::BUSY,
        }
    }
}

/// One stream's need.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Need {
    /// The most it can use, tokens/s; 0 while it is held.
    pub cap: f64,
    /// Its client's reading rate.
    pub reading: Tps,
    /// Seconds until its client runs dry.
    pub lead: f64,
    /// Seconds that it should be at.
    pub ahead: f64,
}

/// The rate of each stream of an engine that generates `capacity` with all seats taken, tokens/s, in their order. What is no
/// number in a need counts as 0.
pub fn share(capacity: Tps, needs: &[Need]) -> Vec<f64> {
    let claims: Vec<Claim> = needs.iter().map(claim).collect();
    allocate(capacity, &claims)
}

/// The load, and each stream's rate in tokens/s, from the needs of those that ask; those that do not may have what they like when
/// they come, until the next tick. `waiting` requests have no stream yet.
pub fn plan(capacity: Tps, waiting: usize, needs: &[Option<Need>]) -> (Load, Vec<f64>) {
    let asking: Vec<Need> = needs.iter().flatten().copied().collect();
    let is_short = waiting > 0 || read(&asking) > capacity.get();
    let mut rates = share(capacity, &asking).into_iter();
    let rates = needs.iter().map(|need| match need {
        Some(_) => rates.next().unwrap_or_default(),
        None => f64::INFINITY,
    });
    (if is_short { Load::Busy } else { Load::Idle }, rates.collect())
}

/// What clients that can be sent something read, tokens/s.
pub(crate) fn read<'a>(needs: impl IntoIterator<Item = &'a Need>) -> f64 {
    needs.into_iter().filter(|need| need.cap > 0.0).map(|need| need.reading.get()).sum()
}

/// What a stream asks for.
pub(crate) fn claim(need: &Need) -> Claim {
    let seconds = |value: f64| if value.is_finite() { value.clamp(0.0, LONGEST) } else { 0.0 };
    let (lead, ahead) = (seconds(need.lead), seconds(need.ahead));
    let reading = need.reading.get();
    let want = reading * (1.0 + (ahead - lead) / SECONDS);
    // `max` and `min` of no number and a number are the number.
    let cap = want.min(need.cap.max(0.0)).max(0.0);
    let claim = Claim::try_new(cap, reading).and_then(|claim| claim.starting_at(lead / SECONDS));
    debug_assert!(claim.is_ok(), "{claim:?}");
    claim.unwrap_or_else(|_| Claim::nothing())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tps(n: f64) -> Tps {
        Tps::try_new(n).expect("valid")
    }

    fn need(cap: f64, lead: f64, ahead: f64) -> Need {
        Need { cap, reading: tps(10.0), lead, ahead }
    }

    #[test]
    fn who_runs_dry_comes_first_and_who_is_far_ahead_waits() {
        let check = |capacity: f64, ahead: f64, needs: &[(f64, f64)], expected: &[f64]| {
            let needs: Vec<Need> =
                needs.iter().map(|&(cap, lead)| need(cap, lead, ahead)).collect();
            let shares = share(tps(capacity), &needs);
            for (share, expected) in shares.iter().zip(expected) {
                assert!((share - expected).abs() < 1e-9, "{shares:?}");
            }
        };
        // At its lead a stream gets what its client reads; below it more, beyond it less.
        check(
            1000.0,
            2.0,
            &[(80.0, 2.0), (80.0, 1.0), (80.0, 2.5), (80.0, 9.0)],
            &[10.0, 20.0, 5.0, 0.0],
        );
        // The link's cap holds, and who is held gets nothing.
        check(1000.0, 8.0, &[(80.0, 0.0), (7.0, 0.0), (0.0, 0.0)], &[80.0, 7.0, 0.0]);
        // Too little for all: leads even out.
        check(20.0, 8.0, &[(80.0, 0.0), (80.0, 2.0)], &[20.0, 0.0]);
        check(40.0, 8.0, &[(80.0, 0.0), (80.0, 2.0)], &[30.0, 10.0]);
    }

    #[test]
    fn leads_settle_without_swinging() {
        let (mut leads, mut before) = ([0.0, 3.0, 12.0], [0.0; 3]);
        for tick in 0..1000 {
            let needs: Vec<Need> = leads.iter().map(|&lead| need(80.0, lead, 5.0)).collect();
            let shares = share(tps(60.0), &needs);
            for ((lead, share), before) in leads.iter_mut().zip(shares).zip(&mut before) {
                assert!(tick < 100 || (share - *before).abs() < 0.5, "{share} after {before}");
                *before = share;
                *lead = f64::max(0.0, *lead + (share / 10.0 - 1.0) * 0.1);
            }
        }
        assert!(leads.iter().all(|lead| (lead - 5.0).abs() < 1e-6), "{leads:?}");
        assert!(before.iter().all(|share| (share - 10.0).abs() < 1e-6), "{before:?}");
    }

    #[test]
    fn the_engine_is_short_when_somebody_waits_or_cannot_read_on() {
        let check = |waiting, needs: &[Option<Need>], expected| {
            assert_eq!(plan(tps(25.0), waiting, needs).0, expected, "{needs:?}");
        };
        let reads = Some(need(80.0, 0.0, 0.5));
        check(0, &[], Load::Idle);
        check(0, &[reads, reads], Load::Idle);
        check(1, &[reads, reads], Load::Busy);
        check(0, &[reads, reads, reads], Load::Busy);
        // Who is held, or generates nothing, takes nothing from the others.
        check(0, &[reads, reads, Some(need(0.0, 0.0, 0.5)), None], Load::Idle);
    }

    #[test]
    fn who_does_not_ask_has_no_share_and_is_not_stopped() {
        let (_, rates) = plan(tps(20.0), 0, &[None, Some(need(80.0, 0.0, 0.5)), None]);
        assert_eq!(rates, [f64::INFINITY, 15.0, f64::INFINITY]);
    }

    proptest! {
        #[test]
        fn grants_add_up_to_the_capacity_at_most(
            needs in prop::collection::vec(
                prop::option::of((0.0..100.0, 0.0..20.0).prop_map(|(cap, lead)| need(cap, lead, 0.5))), 0..40
            ),
            capacity in 0.1..1e4,
            waiting in 0usize..2,
        ) {
            let (_, rates) = plan(tps(capacity), waiting, &needs);
            prop_assert_eq!(rates.len(), needs.len());
            let asking = rates.iter().zip(&needs).filter(|(_, need)| need.is_some());
            let sum: f64 = asking.map(|(rate, _)| rate).sum();
            prop_assert!(sum <= capacity * (1.0 + 1e-9), "{sum} of {capacity}");
        }

        #[test]
        fn any_needs_are_met_within_caps_and_capacity(
            needs in prop::collection::vec((any::<f64>(), 0.1..100.0, any::<f64>()), 0..40),
            capacity in 0.1..1e4,
            ahead: f64,
        ) {
            let needs: Vec<Need> = needs
                .into_iter()
                .map(|(cap, reading, lead)| Need { cap, reading: tps(reading), lead, ahead })
                .collect();
            let shares = share(tps(capacity), &needs);
            prop_assert!(shares.iter().sum::<f64>() <= capacity * (1.0 + 1e-9));
            for (share, need) in shares.iter().zip(&needs) {
                prop_assert!(*share >= 0.0 && (*share <= need.cap.max(0.0)), "{share} for {need:?}");
            }
        }
    }
}
