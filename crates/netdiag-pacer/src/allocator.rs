//! Sharing one engine among many streams: weighted max-min fair under each stream's cap, those in need first, and work-conserving.
//!
//! Water-filling (Bertsekas & Gallager, *Data Networks*, 2nd edition, section 6.5.2, with weights): all rates rise together,
//! each at the speed of its weight; one that reaches its cap stays there; the others go on until the capacity is used up. A
//! claim that can wait joins in once the water has risen to its *start*, as if the vessel's bottom were higher there: that is how
//! a stream whose client has text to read makes room for one that is about to run dry, and why both have the same once the
//! first has waited long enough. Where each claim joins and where it is full is known beforehand, so a sort and a pass do it,
//! O(n log n).
//!
//! Invariants: no rate is above its cap, nor their sum above the capacity (up to rounding); capacity is left over only when every
//! cap is reached; with equal starts nobody could be given more without taking it from somebody who has less in proportion to
//! weight.

use netdiag_telemetry::Tps;

/// What one stream asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Claim {
    cap: f64,
    weight: f64,
    start: f64,
}

/// A claim that nobody can have.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum InvalidClaim {
    /// Not a rate.
    #[error("a cap of {0} tokens/s: give a number from 0 up, or infinity")]
    Cap(f64),
    /// Not a weight.
    #[error("a weight of {0}: give a finite number above 0")]
    Weight(f64),
    /// Not a level.
    #[error("a start at level {0}: give a finite number from 0 up")]
    Start(f64),
}

impl Claim {
    /// Up to `cap` tokens/s (0 for one that can use nothing now, infinite for one without a limit of its own), in proportion to
    /// `weight` where not all can have theirs.
    ///
    /// # Errors
    ///
    /// A cap that is negative or no number; a weight that is not a finite number above 0.
    pub fn try_new(cap: f64, weight: f64) -> Result<Self, InvalidClaim> {
        if cap.is_nan() || cap < 0.0 {
            return Err(InvalidClaim::Cap(cap));
        }
        if !weight.is_finite() || weight <= 0.0 {
            return Err(InvalidClaim::Weight(weight));
        }
        Ok(Self { cap, weight, start: 0.0 })
    }

    /// The same, joining in when claims of weight 1 that could not wait have `start` tokens/s: the less urgent, the higher.
    ///
    /// # Errors
    ///
    /// A start that is negative or not finite.
    pub fn starting_at(self, start: f64) -> Result<Self, InvalidClaim> {
        if !start.is_finite() || start < 0.0 {
            return Err(InvalidClaim::Start(start));
        }
        Ok(Self { start, ..self })
    }

    /// No claim at all.
    pub(crate) fn nothing() -> Self {
        Self { cap: 0.0, weight: 1.0, start: 0.0 }
    }

    /// Where it joins in and where it is full, with the weight that takes part from there on or no more.
    pub(crate) fn turns(&self) -> [(f64, f64); 2] {
        [(self.start, self.weight), (self.full_at(), -self.weight)]
    }

    /// The most that is asked for, tokens/s.
    pub(crate) fn cap(&self) -> f64 {
        self.cap
    }

    /// The water level at which the cap is reached.
    fn full_at(&self) -> f64 {
        self.start + self.cap / self.weight
    }

    /// What it has while the water stands at `level`, tokens/s.
    pub(crate) fn at(&self, level: f64) -> f64 {
        (self.weight * (level - self.start)).clamp(0.0, self.cap)
    }
}

/// The rate of each claim, tokens/s, in their order.
pub fn allocate(capacity: Tps, claims: &[Claim]) -> Vec<f64> {
    let level = water_level(capacity, claims);
    claims.iter().map(|claim| claim.at(level)).collect()
}

/// How high the water stands when `capacity` is used up; infinite if it never is. What each claim has follows from it alone
/// ([`Claim::at`]).
fn water_level(capacity: Tps, claims: &[Claim]) -> f64 {
    let capacity = capacity.get();
    let caps: f64 = claims.iter().map(|claim| claim.cap).sum();
    if caps <= capacity {
        return f64::INFINITY;
    }
    // Where the level rises past a point, so much weight more (or less) takes part.
    let mut turns: Vec<(f64, f64)> = Vec::with_capacity(2 * claims.len());
    for claim in claims.iter().filter(|claim| claim.cap > 0.0) {
        turns.extend(claim.turns());
    }
    turns.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let found = rise(capacity, &turns);
    // Weights that were added and taken away again leave rounding behind. What that is, is known at the level found.
    let over: f64 = claims.iter().map(|claim| claim.at(found)).sum::<f64>() - capacity;
    let taking_part: f64 = claims
        .iter()
        .filter(|claim| claim.start < found && found < claim.full_at())
        .map(|claim| claim.weight)
        .sum();
    if taking_part > 0.0 { found - over / taking_part } else { found }
}

/// How high the water stands when `capacity` is used up, from where claims join in and are full, sorted by level.
pub(crate) fn rise(capacity: f64, turns: &[(f64, f64)]) -> f64 {
    let (mut level, mut weight, mut used) = (0.0, 0.0f64, 0.0);
    for &(turn, change) in turns {
        let there = used + weight * (turn - level);
        if weight > 0.0 && there >= capacity {
            break;
        }
        if turn.is_finite() {
            (used, level) = (there, turn);
            weight = (weight + change).max(0.0);
        }
    }
    if weight > 0.0 { level + (capacity - used) / weight } else { level }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn claim(cap: f64, weight: f64) -> Claim {
        Claim::try_new(cap, weight).expect("possible")
    }

    fn shares(capacity: f64, claims: &[(f64, f64)]) -> Vec<f64> {
        let claims: Vec<Claim> = claims.iter().map(|&(cap, weight)| claim(cap, weight)).collect();
        allocate(Tps::try_new(capacity).expect("a rate"), &claims)
    }

    #[test]
    fn shares_by_hand() {
        const ANY: f64 = f64::INFINITY;
        assert_eq!(shares(90.0, &[]), [0.0; 0]);
        assert_eq!(shares(90.0, &[(ANY, 1.0), (ANY, 1.0), (ANY, 1.0)]), [30.0, 30.0, 30.0]);
        assert_eq!(shares(90.0, &[(ANY, 1.0), (ANY, 2.0)]), [30.0, 60.0]);
        // What one cannot use is the others'.
        assert_eq!(shares(90.0, &[(ANY, 1.0), (10.0, 1.0), (ANY, 1.0)]), [40.0, 10.0, 40.0]);
        assert_eq!(shares(90.0, &[(ANY, 1.0), (0.0, 1.0)]), [90.0, 0.0]);
        // A cap in proportion to the weight counts, not the cap.
        assert_eq!(shares(90.0, &[(50.0, 10.0), (30.0, 1.0), (ANY, 1.0)]), [50.0, 20.0, 20.0]);
        // Nobody is given more than it can use.
        assert_eq!(shares(90.0, &[(10.0, 1.0), (20.0, 5.0)]), [10.0, 20.0]);
    }

    #[test]
    fn impossible_claims_are_named() {
        let check = |cap, weight, told: &str| {
            let error = Claim::try_new(cap, weight).expect_err("impossible").to_string();
            assert!(error.contains(told), "{error}");
        };
        check(-1.0, 1.0, "a cap of -1 tokens/s");
        check(f64::NAN, 1.0, "a cap of NaN");
        check(1.0, 0.0, "a weight of 0");
        check(1.0, f64::NAN, "a weight of NaN");
        check(1.0, f64::INFINITY, "a weight of inf");
    }

    #[test]
    fn whoever_can_wait_joins_in_later() {
        const ANY: f64 = f64::INFINITY;
        let shares = |capacity: f64, claims: &[(f64, f64, f64)]| {
            let claims: Vec<Claim> = claims
                .iter()
                .map(|&(cap, weight, start)| {
                    claim(cap, weight).starting_at(start).expect("possible")
                })
                .collect();
            allocate(Tps::try_new(capacity).expect("a rate"), &claims)
        };
        // Below its start a claim has nothing; above it they rise together.
        assert_eq!(shares(20.0, &[(ANY, 1.0, 0.0), (ANY, 1.0, 30.0)]), [20.0, 0.0]);
        assert_eq!(shares(50.0, &[(ANY, 1.0, 0.0), (ANY, 1.0, 30.0)]), [40.0, 10.0]);
        // The start is a level: a claim of weight 2 has twice as much at it.
        assert_eq!(shares(50.0, &[(ANY, 2.0, 0.0), (ANY, 1.0, 30.0)]), [50.0, 0.0]);
        // Urgency is no privilege beyond the cap, and none of it is wasted.
        assert_eq!(shares(50.0, &[(10.0, 1.0, 0.0), (ANY, 1.0, 300.0)]), [10.0, 40.0]);
        assert_eq!(shares(50.0, &[(10.0, 1.0, 0.0), (20.0, 1.0, 300.0)]), [10.0, 20.0]);
        let error = claim(1.0, 1.0).starting_at(f64::NAN).expect_err("impossible");
        assert!(error.to_string().contains("level NaN"), "{error}");
    }

    fn any_claims() -> impl Strategy<Value = Vec<Claim>> {
        let cap = prop_oneof![Just(0.0), Just(f64::INFINITY), 1e-3..1e4];
        prop::collection::vec((cap, 1e-3..1e3).prop_map(|(cap, weight)| claim(cap, weight)), 0..60)
    }

    proptest! {
        #[test]
        fn it_is_max_min_fair_and_wastes_nothing(claims in any_claims(), capacity in 0.1..1e5) {
            let rates = allocate(Tps::try_new(capacity).expect("a rate"), &claims);
            let near = 1e-9 * capacity;
            let sum: f64 = rates.iter().sum();
            prop_assert!(sum <= capacity + near, "{sum} of {capacity}");
            let is_full = |at: usize| rates[at] >= claims[at].cap - near;
            for (rate, claim) in rates.iter().zip(&claims) {
                prop_assert!((0.0..=claim.cap).contains(rate), "{rate} of {claim:?}");
            }
            let hungry: Vec<usize> = (0..claims.len()).filter(|&at| !is_full(at)).collect();
            prop_assert!(hungry.is_empty() || sum >= capacity - near, "{sum} of {capacity}");
            // Everybody who wants more stands at the same level, and nobody above it.
            for &poor in &hungry {
                let level = rates[poor] / claims[poor].weight;
                for (rate, claim) in rates.iter().zip(&claims) {
                    let other = rate / claim.weight;
                    prop_assert!(other <= level * (1.0 + 1e-9) + 1e-12, "{other} above {level}");
                }
            }
        }

        #[test]
        fn those_who_can_wait_have_no_more_than_those_who_cannot(
            claims in any_claims(),
            starts in prop::collection::vec(0.0..1e3, 60),
            capacity in 0.1..1e5,
        ) {
            let claims: Vec<Claim> = claims
                .iter()
                .zip(starts)
                .map(|(claim, start)| claim.starting_at(start).expect("possible"))
                .collect();
            let rates = allocate(Tps::try_new(capacity).expect("a rate"), &claims);
            let near = 1e-9 * capacity;
            let sum: f64 = rates.iter().sum();
            prop_assert!(sum <= capacity + near, "{sum} of {capacity}");
            let hungry = |at: &usize| rates[*at] < claims[*at].cap - near;
            let is_satisfied = !(0..claims.len()).any(|at| hungry(&at));
            prop_assert!(is_satisfied || sum >= capacity - near, "{sum} of {capacity}");
            // The level that a claim has reached is no higher than what those who want more have reached or wait for.
            for poor in (0..claims.len()).filter(hungry) {
                let level = claims[poor].start + rates[poor] / claims[poor].weight;
                for (rate, claim) in rates.iter().zip(&claims).filter(|(rate, _)| **rate > near) {
                    let other = claim.start + rate / claim.weight;
                    prop_assert!(other <= level * (1.0 + 1e-9) + 1e-6, "{other} above {level}");
                }
            }
        }

        #[test]
        fn the_order_does_not_matter(claims in any_claims(), capacity in 0.1..1e5) {
            let capacity = Tps::try_new(capacity).expect("a rate");
            let rates = allocate(capacity, &claims);
            let reversed: Vec<Claim> = claims.iter().rev().copied().collect();
            for (a, b) in rates.iter().zip(allocate(capacity, &reversed).iter().rev()) {
                prop_assert!((a - b).abs() <= 1e-9 * capacity.get(), "{a} and {b}");
            }
        }
    }
}
