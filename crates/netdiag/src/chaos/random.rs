//! Random faults with calm between them, as the original's chaos script made them; the same for the same seed.
//!
//! Pure: the seed comes in, times go out as durations.

use std::time::Duration;

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng as _, SeedableRng as _};

use super::fault::{Discipline, Fault};
use super::values::{BitRate, Percent};

/// How long a fault lasts, milliseconds: long enough for a health score to fall, short enough for several in a minute.
const FAULT_MS: (u64, u64) = (2_000, 8_000);
/// How long it is calm afterwards, milliseconds: long enough to see the recovery.
const CALM_MS: (u64, u64) = (2_000, 6_000);
/// Delays in one direction, milliseconds: from a continent to a satellite.
const DELAY_MS: (u64, u64) = (20, 300);
/// Losses, percent: from what TCP notices to what it barely survives.
const LOSS_PERCENT: (u64, u64) = (1, 20);
/// Rates, kbit/s: from a bad mobile link to one that a stream of text never fills.
const RATE_KBIT: (u64, u64) = (64, 8_192);

/// A fault or a calm, and how long it lasts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Step {
    pub(crate) fault: Fault,
    pub(crate) lasts: Duration,
}

/// An endless sequence of faults with calm between them.
#[derive(Clone, Debug)]
pub(crate) struct Steps {
    random: Xoshiro256PlusPlus,
    discipline: Discipline,
    calm_is_next: bool,
}

impl Steps {
    /// The steps of `seed`, as far as `discipline` can do them.
    pub(crate) fn new(seed: u64, discipline: Discipline) -> Self {
        let random = Xoshiro256PlusPlus::seed_from_u64(seed);
        Self { random, discipline, calm_is_next: false }
    }

    /// A delay, jitter, losses, a limited rate, or all at once.
    fn fault(&mut self) -> Fault {
        let calm = Fault::CALM;
        if self.discipline == Discipline::Tbf {
            return calm.limited(self.rate());
        }
        match self.between((0, 4)) {
            0 => self.delayed(calm, 0),
            1 => self.delayed(calm, 100),
            2 => calm.losing(self.loss()),
            3 => calm.limited(self.rate()),
            _ => {
                let (loss, rate) = (self.loss(), self.rate());
                self.delayed(calm, 50).losing(loss).limited(rate)
            }
        }
    }

    /// A delay with a jitter of up to that share of it, and at least a half of that.
    fn delayed(&mut self, fault: Fault, jitter_percent: u64) -> Fault {
        let delay = self.between(DELAY_MS);
        let jitter = delay * self.between((jitter_percent / 2, jitter_percent)) / 100;
        let [delay, jitter] = [delay, jitter].map(Duration::from_millis);
        // A share of the delay is never longer than it.
        fault.delayed(delay, jitter).unwrap_or(fault)
    }

    fn loss(&mut self) -> Percent {
        Percent::try_new(self.between(LOSS_PERCENT) as f64).unwrap_or_default()
    }

    /// Slow and fast rates are equally likely by their order of magnitude.
    fn rate(&mut self) -> BitRate {
        let doublings = u64::from((RATE_KBIT.1 / RATE_KBIT.0).ilog2());
        let kbit = RATE_KBIT.0 << self.between((0, doublings - 1));
        BitRate::kbit(self.between((kbit, 2 * kbit)))
    }

    /// A whole number from `low` to `high`, both included.
    fn between(&mut self, (low, high): (u64, u64)) -> u64 {
        let span = u128::from(high - low) + 1;
        low + ((u128::from(self.random.next_u64()) * span) >> 64) as u64
    }
}

impl Iterator for Steps {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        let (fault, lasts) = match self.calm_is_next {
            true => (Fault::CALM, self.between(CALM_MS)),
            false => (self.fault(), self.between(FAULT_MS)),
        };
        self.calm_is_next = !self.calm_is_next;
        Some(Step { fault, lasts: Duration::from_millis(lasts) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers in the words that `tc` is told: limit, delay and jitter in µs, loss in percent, bit/s.
    fn numbers(step: &Step) -> [f64; 5] {
        let words = Discipline::Netem.words(&step.fault, 1500);
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        let parts = words.split(|c: char| !is_number(c)).filter(|part| !part.is_empty());
        let numbers: Vec<f64> = parts.map(|part| part.parse().expect("a number")).collect();
        numbers.try_into().expect("five numbers")
    }

    #[test]
    fn the_same_seed_gives_the_same_faults() {
        let steps = |seed| Steps::new(seed, Discipline::Netem).take(100).collect::<Vec<_>>();
        assert_eq!(steps(7), steps(7));
        assert_ne!(steps(7), steps(8));
    }

    #[test]
    fn faults_and_calms_take_turns_within_bounds() {
        let within = |value: f64, (low, high): (u64, u64)| {
            value == 0.0 || (low as f64..=high as f64).contains(&value)
        };
        let mut told = std::collections::BTreeSet::new();
        for (index, step) in Steps::new(1, Discipline::Netem).take(2000).enumerate() {
            let calm = index % 2 == 1;
            assert_eq!(step.fault == Fault::CALM, calm, "{step:?}");
            let (low, high) = if calm { CALM_MS } else { FAULT_MS };
            assert!((low..=high).contains(&(step.lasts.as_millis() as u64)), "{step:?}");
            let [_, delay, jitter, loss, rate] = numbers(&step);
            assert!(within(delay / 1e3, DELAY_MS) && jitter <= delay, "{step:?}");
            assert!(within(loss, LOSS_PERCENT), "{step:?}");
            let unlimited = BitRate::HIGHEST.get() as f64;
            assert!(rate == unlimited || within(rate / 1e3, RATE_KBIT), "{step:?}");
            told.insert((delay > 0.0, jitter > 0.0, loss > 0.0, rate < unlimited));
        }
        // Calm, delay, jitter, loss, rate and all at once have all been there.
        assert_eq!(told.len(), 6, "{told:?}");
    }

    #[test]
    fn a_token_bucket_is_asked_for_rates_only() {
        let mut faults = Steps::new(1, Discipline::Tbf).take(100).map(|step| step.fault);
        assert!(faults.all(|fault| !fault.needs_netem()));
    }
}
