//! Sharing one engine among many streams: weighted max-min fair under each stream's cap, and work-conserving.
//!
//! Water-filling (Bertsekas & Gallager, *Data Networks*, 2nd edition, section 6.5.2, with weights): all rates rise together,
//! each at the speed of its weight; one that reaches its cap stays there; the others go on until the capacity is used up. Who
//! reaches its cap first is known from cap over weight, so one sort and one pass do it, O(n log n).
//!
//! Invariants: no rate is above its cap, nor their sum above the capacity (up to rounding); capacity is left over only when every
//! cap is reached; nobody could be given more without taking it from somebody who has less in proportion to weight.

use netdiag_telemetry::Tps;

/// What one stream asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Claim {
    cap: f64,
    weight: f64,
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
        Ok(Self { cap, weight })
    }

    /// Units of the water level at which the cap is reached.
    fn full_at(&self) -> f64 {
        self.cap / self.weight
    }
}

/// The rate of each claim, tokens/s, in their order.
pub fn allocate(capacity: Tps, claims: &[Claim]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..claims.len()).collect();
    order.sort_unstable_by(|&a, &b| claims[a].full_at().total_cmp(&claims[b].full_at()));
    // Summed from behind, so that what is left after many subtractions is no rounding error.
    let mut weights = vec![0.0; claims.len() + 1];
    for (place, &claim) in order.iter().enumerate().rev() {
        weights[place] = weights[place + 1] + claims[claim].weight;
    }
    let mut rates = vec![0.0; claims.len()];
    let mut left = capacity.get();
    for (place, &claim) in order.iter().enumerate() {
        let Claim { cap, weight } = claims[claim];
        // The share of one who gets no more than the others in proportion.
        rates[claim] = cap.min(left * (weight / weights[place]));
        left = (left - rates[claim]).max(0.0);
    }
    rates
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
