//! Jitter: how much longer than the least a packet is held.
//!
//! | netem                            | here                                | why                                       |
//! | -------------------------------- | ----------------------------------- | ----------------------------------------- |
//! | each packet overtakes if it can  | order is kept                       | queues keep it; reordering is not jitter  |
//! | a new delay for each packet      | a new one each 20 ms at the soonest | in order, a burst would get its maximum   |
//! | normal or Pareto from a table    | uniform                             | its bounds can be tested exactly          |

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

/// Time between draws: the gap between two tokens at 50 tokens/s, so that each token of a usual stream has its own.
const DRAW_EVERY: Duration = Duration::from_millis(20);

/// One direction's jitter. Reads no clock: packets say when they came.
#[derive(Debug)]
pub(crate) struct Jitter {
    random: StdRng,
    spread: Duration,
    held: Duration,
    drawn: Option<Instant>,
}

impl Jitter {
    pub(crate) fn new(seed: u64) -> Self {
        let random = StdRng::seed_from_u64(seed);
        Self { random, spread: Duration::ZERO, held: Duration::ZERO, drawn: None }
    }

    /// From now on holds packets for zero to `spread`, uniformly.
    pub(crate) fn set(&mut self, spread: Duration) {
        self.spread = spread;
        self.drawn = None;
    }

    /// How long to hold a packet that came at `now`.
    pub(crate) fn hold(&mut self, now: Instant) -> Duration {
        if self.drawn.is_none_or(|drawn| now.duration_since(drawn) >= DRAW_EVERY) {
            self.held = self.spread.mul_f64(self.random.random_range(0.0..=1.0));
            self.drawn = Some(now);
        }
        self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_is_uniform_up_to_the_spread_and_constant_within_a_draw() {
        let mut jitter = Jitter::new(7);
        let start = Instant::now();
        assert_eq!(jitter.hold(start), Duration::ZERO);
        let spread = Duration::from_millis(40);
        jitter.set(spread);
        let mut sum = Duration::ZERO;
        for n in 0..1000 {
            let now = start + n * DRAW_EVERY;
            let held = jitter.hold(now);
            assert!(held <= spread, "{held:?}");
            assert_eq!(jitter.hold(now + DRAW_EVERY / 2), held);
            sum += held;
        }
        // The mean of a thousand has a standard deviation of 0.37 ms; four of them.
        assert!((sum / 1000).abs_diff(spread / 2) < Duration::from_micros(1500), "{sum:?}");
    }
}
