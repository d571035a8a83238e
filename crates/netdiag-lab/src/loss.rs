//! Which packets are lost: one by one, or in bursts.
//!
//! Bursts come from the model of Gilbert ("Capacity of a Burst-Noise Channel", Bell System Technical Journal 39, 1960) as
//! Elliott generalised it ("Estimates of Error Rates for Codes on Burst-Noise Channels", BSTJ 42, 1963): a link is in a good
//! or in a bad state, goes from good to bad with probability p at each packet and back with r, and a packet comes through with
//! probability k in the good state and h in the bad one. Independent losses are the same with nothing but the good state.
//!
//! | rattan-core's `LossCell`             | here                        | why                                              |
//! | ------------------------------------ | --------------------------- | ------------------------------------------------ |
//! | by how many were lost in a row       | by a hidden state           | the bad state of the general model lets some pass |
//! | one generator for its whole life     | begun anew at each change   | arms that send more or less meet the same link    |
//!
//! Invariant: a process is what its parameters and seed say, packet by packet, and reads no clock.

use rand::distr::Bernoulli;
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use crate::spec::InvalidSpec;

/// How a link loses packets: a Gilbert–Elliott model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Loss {
    /// From good to bad.
    p: f64,
    /// From bad to good.
    r: f64,
    /// Share lost in the good state: 1 − k.
    good: f64,
    /// Share lost in the bad state: 1 − h.
    bad: f64,
}

impl Loss {
    pub(crate) const NONE: Self = Self { p: 0.0, r: 1.0, good: 0.0, bad: 0.0 };
    const ALL: Self = Self { good: 1.0, bad: 1.0, ..Self::NONE };

    /// Each packet by itself.
    pub(crate) fn independent(share: f64) -> Result<Self, InvalidSpec> {
        probability("loss", share)?;
        Ok(Self { good: share, ..Self::NONE })
    }

    /// Gilbert's model with h = 0: everything is lost in the bad state, which lasts `burst` packets on average.
    pub(crate) fn bursts(share: f64, burst: f64) -> Result<Self, InvalidSpec> {
        probability("loss", share)?;
        // In each good spell of at least one packet there is no loss.
        let most = burst / (1.0 + burst);
        if !(burst.is_finite() && burst >= 1.0 && share <= most) {
            return Err(InvalidSpec::Burst { burst, share });
        }
        let r = burst.recip();
        Ok(Self { p: r * share / (1.0 - share), r, good: 0.0, bad: 1.0 })
    }

    /// The general model.
    pub(crate) fn gilbert_elliott(p: f64, r: f64, k: f64, h: f64) -> Result<Self, InvalidSpec> {
        for (name, value) in [("p", p), ("r", r), ("k", k), ("h", h)] {
            probability(name, value)?;
        }
        if p + r == 0.0 {
            return Err(InvalidSpec::Frozen);
        }
        Ok(Self { p, r, good: 1.0 - k, bad: 1.0 - h })
    }

    /// The share of packets lost in the long run.
    pub(crate) fn mean(&self) -> f64 {
        let bad = self.share_bad();
        (1.0 - bad) * self.good + bad * self.bad
    }

    /// How many are lost in a row, on average. 1 where nothing is lost.
    pub(crate) fn mean_burst(&self) -> f64 {
        let Self { p, r, good, bad } = self;
        let share_bad = self.share_bad();
        // A burst begins with a packet that is lost after one that was not.
        let after_good = (1.0 - p) * good + p * bad;
        let after_bad = r * good + (1.0 - r) * bad;
        let begins =
            (1.0 - share_bad) * (1.0 - good) * after_good + share_bad * (1.0 - bad) * after_bad;
        if self.mean() == 0.0 { 1.0 } else { self.mean() / begins }
    }

    /// The share of packets that find the bad state, in the long run.
    fn share_bad(&self) -> f64 {
        self.p / (self.p + self.r)
    }
}

fn probability(name: &'static str, value: f64) -> Result<(), InvalidSpec> {
    match (0.0..=1.0).contains(&value) {
        true => Ok(()),
        false => Err(InvalidSpec::Probability { name, value }),
    }
}

/// One direction's losses.
#[derive(Debug)]
pub(crate) struct Losses {
    good: Chances,
    bad: Chances,
    is_bad: bool,
    random: Xoshiro256PlusPlus,
}

/// What a packet meets in a state, as thresholds that random numbers are compared with.
#[derive(Clone, Copy, Debug)]
struct Chances {
    lost: Bernoulli,
    leave: Bernoulli,
}

impl Chances {
    fn new(lost: f64, leave: f64) -> Self {
        let of = |share| Bernoulli::new(share).expect("a Loss has probabilities only");
        Self { lost: of(lost), leave: of(leave) }
    }
}

impl Losses {
    /// Begins in a state drawn from the long run, so that the first packets are like all others.
    pub(crate) fn new(model: Loss, seed: u64) -> Self {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
        let is_bad = random.random_bool(model.share_bad());
        let (good, bad) = (Chances::new(model.good, model.p), Chances::new(model.bad, model.r));
        Self { good, bad, is_bad, random }
    }

    /// Loses everything.
    pub(crate) fn blackout() -> Self {
        Self::new(Loss::ALL, 0)
    }

    /// A word of it, for those who want it in the caches.
    pub(crate) fn touch(&self) -> u64 {
        u64::from(self.is_bad)
    }

    /// Whether the next packet is lost.
    pub(crate) fn takes_next(&mut self) -> bool {
        let Chances { lost, leave } = if self.is_bad { self.bad } else { self.good };
        let is_lost = self.random.sample(lost);
        self.is_bad ^= self.random.sample(leave);
        is_lost
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The share of lost packets and the mean length of bursts among many.
    fn simulate(model: Loss, packets: usize) -> (f64, f64) {
        let mut losses = Losses::new(model, 5);
        let lost: Vec<bool> = (0..packets).map(|_| losses.takes_next()).collect();
        let count = lost.iter().filter(|lost| **lost).count() as f64;
        let bursts = lost.chunk_by(|a, b| a == b).filter(|run| run[0]).count() as f64;
        (count / packets as f64, count / bursts)
    }

    #[test]
    fn means_are_those_asked_for() {
        for (share, burst) in [(0.01, 1.0), (0.05, 3.0), (0.2, 10.0), (0.5, 1.0), (0.5, 4.0)] {
            let model = Loss::bursts(share, burst).expect("possible");
            assert!((model.mean() - share).abs() < 1e-12, "{model:?}");
            assert!((model.mean_burst() - burst).abs() < 1e-9, "{model:?}");
            let (lost, length) = simulate(model, 1_000_000);
            // A million packets hold at least 10,000 bursts: one percent is a standard deviation at most.
            assert!((lost / share - 1.0).abs() < 0.05, "{lost} for {share}");
            assert!((length / burst - 1.0).abs() < 0.05, "{length} for {burst}");
        }
    }

    #[test]
    fn the_general_model_keeps_its_formulas() {
        let model = Loss::gilbert_elliott(0.02, 0.2, 0.999, 0.4).expect("possible");
        let (lost, length) = simulate(model, 1_000_000);
        // The bad state holds 1/11 of the packets.
        assert!((model.mean() - (0.001 * 10.0 + 0.6) / 11.0).abs() < 1e-12, "{}", model.mean());
        assert!((lost / model.mean() - 1.0).abs() < 0.05, "{lost} for {}", model.mean());
        let burst = model.mean_burst();
        assert!((length / burst - 1.0).abs() < 0.02, "{length} for {burst}");
    }

    #[test]
    fn independent_losses_make_the_bursts_of_chance() {
        let model = Loss::independent(0.2).expect("possible");
        assert_eq!(model.mean(), 0.2);
        assert!((model.mean_burst() - 1.25).abs() < 1e-12);
        assert_eq!(Loss::NONE.mean_burst(), 1.0);
        assert!((0..1000).all(|_| Losses::blackout().takes_next()));
        let mut none = Losses::new(Loss::NONE, 1);
        assert!((0..1000).all(|_| !none.takes_next()));
    }

    #[test]
    fn impossible_losses_are_named() {
        let check = |result: Result<Loss, InvalidSpec>, expected: &str| {
            let error = result.expect_err("impossible").to_string();
            assert!(error.starts_with(expected), "{error}");
        };
        check(Loss::independent(1.01), "loss 1.01 is not between 0 and 1");
        check(Loss::independent(f64::NAN), "loss NaN is not between 0 and 1");
        check(Loss::bursts(0.1, 0.5), "burst of 0.5 packets at loss 0.1: ");
        check(Loss::bursts(0.7, 2.0), "burst of 2 packets at loss 0.7: ");
        check(Loss::bursts(0.1, f64::INFINITY), "burst of inf packets");
        check(Loss::gilbert_elliott(0.1, 1.5, 1.0, 0.0), "r 1.5 is not between 0 and 1");
        check(Loss::gilbert_elliott(0.0, 0.0, 1.0, 0.0), "p and r are both 0");
    }

    proptest! {
        #[test]
        fn the_same_seed_loses_the_same_packets(
            share in 0.0..0.5f64, burst in 1.0..50.0f64, seed: u64
        ) {
            let model = Loss::bursts(share, burst).expect("possible");
            let (mut one, mut other) = (Losses::new(model, seed), Losses::new(model, seed));
            for _ in 0..100 {
                prop_assert_eq!(one.takes_next(), other.takes_next());
            }
        }

        #[test]
        fn means_are_shares_and_bursts_at_least_one_packet(
            p in 0.0..=1.0f64, r in 0.001..=1.0f64, k in 0.0..=1.0f64, h in 0.0..=1.0f64
        ) {
            let model = Loss::gilbert_elliott(p, r, k, h).expect("possible");
            prop_assert!((0.0..=1.0).contains(&model.mean()));
            prop_assert!(model.mean_burst() >= 1.0 - 1e-9);
        }
    }
}
