//! Jitter: how much longer than the least a packet is held.
//!
//! | netem                            | here                           | why                                          |
//! | -------------------------------- | ------------------------------ | -------------------------------------------- |
//! | each packet overtakes if it can  | order is kept                  | queues keep it; reordering is not jitter     |
//! | a new delay for each packet      | a new one each 20 ms           | in order, a burst would get its maximum      |
//! | drawn when a packet comes        | drawn for the stretch of time  | arms that send more or less meet the same link |
//! | normal or Pareto from a table    | uniform                        | its bounds can be tested exactly             |

use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use tokio::time::Instant;

/// Time between draws: the gap between two tokens at 50 tokens/s, so that each token of a usual stream has its own.
const DRAW_EVERY: Duration = Duration::from_millis(20);

/// One direction's jitter. Reads no clock: packets say when they came.
#[derive(Debug)]
pub(crate) struct Jitter {
    spread: Duration,
    seed: u64,
    since: Instant,
}

impl Jitter {
    /// From `since` on holds packets for zero to `spread`, uniformly.
    pub(crate) fn new(spread: Duration, seed: u64, since: Instant) -> Self {
        Self { spread, seed, since }
    }

    /// How long to hold a packet that came at `now`.
    pub(crate) fn hold(&self, now: Instant) -> Duration {
        held(self.spread, self.seed, now.duration_since(self.since))
    }
}

/// How long a packet is held that comes at `time` after jitter of this spread and seed began.
pub(crate) fn held(spread: Duration, seed: u64, time: Duration) -> Duration {
    if spread.is_zero() {
        return Duration::ZERO;
    }
    let stretch = time.as_nanos() / DRAW_EVERY.as_nanos();
    // A generator of its own for each stretch: whether packets came before does not matter.
    let seed = seed.wrapping_add(stretch as u64);
    spread.mul_f64(Xoshiro256PlusPlus::seed_from_u64(seed).random_range(0.0..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_is_uniform_up_to_the_spread_and_constant_within_a_stretch() {
        let start = Instant::now();
        assert_eq!(Jitter::new(Duration::ZERO, 7, start).hold(start), Duration::ZERO);
        let spread = Duration::from_millis(40);
        let jitter = Jitter::new(spread, 7, start);
        let mut sum = Duration::ZERO;
        let mut quarters = [0; 4];
        for n in 0..1000 {
            let now = start + n * DRAW_EVERY;
            let held = jitter.hold(now);
            assert!(held <= spread, "{held:?}");
            assert_eq!(jitter.hold(now + DRAW_EVERY / 2), held);
            quarters[(held.as_millis() / 10).min(3) as usize] += 1;
            sum += held;
        }
        // The mean of a thousand has a standard deviation of 0.37 ms; four of them.
        assert!((sum / 1000).abs_diff(spread / 2) < Duration::from_micros(1500), "{sum:?}");
        // 250 each, with a standard deviation of 14.
        assert!(quarters.iter().all(|count| (190..310).contains(count)), "{quarters:?}");
    }

    #[test]
    fn what_is_held_depends_on_time_and_seed_alone() {
        let start = Instant::now();
        let [one, same, other] =
            [7, 7, 8].map(|seed| Jitter::new(Duration::from_millis(40), seed, start));
        let later = start + 37 * DRAW_EVERY;
        one.hold(start);
        assert_eq!(one.hold(later), same.hold(later));
        assert_ne!(one.hold(later), other.hold(later));
    }
}
