//! A made-up cellular link, for where no recorded one is at hand.
//!
//! The model is that of Winstein, Sivaraman and Balakrishnan ("Stochastic Forecasts Achieve High Throughput and Low Delay over
//! Cellular Networks", NSDI 2013, section 3.1), who fitted it to drives like those in Mahimahi's traces: packets leave as a
//! Poisson process whose rate wanders as a Brownian motion, and when it has come down to zero it stays there for a while, an
//! outage.
//!
//! | theirs                                   | ours                          | why                                           |
//! | ---------------------------------------- | ----------------------------- | --------------------------------------------- |
//! | 0 to 1000 packets/s                      | 0 to 1, stretched to the mean | any mean can be asked for                     |
//! | wanders by 200 packets/s in a second     | by 0.2                        | the same shape                                |
//! | outages end with a rate of 1/s, at zero  | at a tenth of the highest     | from zero it falls back at once: silent for 45 % |
//!
//! So it is silent for 15 % of the time, in 7 outages of over 300 ms a minute, the longest 5 s, and the packets of a second
//! stray by 0.7 of their mean; the UMTS drive that they recorded has 12 %, 8, 5.8 s and 0.8.
//!
//! Invariant: the same parameters give the same trace in every version.

use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use crate::spec::InvalidSpec;
use crate::trace::{OPPORTUNITY, Trace};

/// How long a made-up trace is until it begins anew: longer than most experiments.
const PERIOD_MS: u32 = 5 * 60 * 1000;

/// How often the rate moves, ms: the tick of the paper.
const TICK_MS: u32 = 20;

/// Of the highest rate: what it wanders in a second (200 of 1000 packets).
const WANDER: f64 = 0.2;

/// Outages that end in a second, of those under way.
const ENDING: f64 = 1.0;

/// Of the highest rate: what it is after an outage.
const COMEBACK: f64 = 0.1;

/// The rates that have a trace: at the lowest a packet in half a second, at the highest ten megabytes of memory.
const RATES: std::ops::RangeInclusive<u64> = 24_000..=100_000_000;

/// A trace that carries `mean` bits per second on average. Which one, the seed says.
pub(crate) fn cellular(mean: u64, seed: u64) -> Result<Trace, InvalidSpec> {
    if !RATES.contains(&mean) {
        return Err(InvalidSpec::CellularRate {
            mean,
            lowest: *RATES.start(),
            highest: *RATES.end(),
        });
    }
    let shape = wandering(seed);
    let area: f64 = shape.iter().sum();
    let packets = mean as f64 / f64::from(8 * OPPORTUNITY) * f64::from(PERIOD_MS) / 1000.0;
    let mut random = Xoshiro256PlusPlus::seed_from_u64(!seed);
    let mut times = Vec::with_capacity(packets as usize + 1);
    for (tick, height) in shape.iter().enumerate().filter(|(_, height)| **height > 0.0) {
        // Gaps of a Poisson process are exponential; what reaches beyond the tick is drawn anew with the next one's rate.
        let gap = f64::from(TICK_MS) / (height / area * packets);
        let start = tick as f64 * f64::from(TICK_MS);
        let mut at = 0.0;
        loop {
            at -= gap * (1.0 - random.random::<f64>()).ln();
            if at >= f64::from(TICK_MS) {
                break;
            }
            times.push((start + at).ceil() as u32);
        }
    }
    // The last line is the length.
    times.push(PERIOD_MS);
    Trace::from_opportunities(times).map_err(|_| InvalidSpec::CellularRate {
        mean,
        lowest: *RATES.start(),
        highest: *RATES.end(),
    })
}

/// The rate in each tick, as a share of the highest.
fn wandering(seed: u64) -> Vec<f64> {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let seconds = f64::from(TICK_MS) / 1000.0;
    let mut rate: f64 = 0.5;
    let ticks = PERIOD_MS / TICK_MS;
    (0..ticks)
        .map(|_| {
            if rate == 0.0 {
                if random.random_bool(ENDING * seconds) {
                    rate = COMEBACK;
                }
            } else {
                // A step of a Brownian motion (Box and Muller, Annals of Mathematical Statistics 29, 1958), kept below 1 by
                // reflection.
                let radius = (-2.0 * (1.0 - random.random::<f64>()).ln()).sqrt();
                let angle = std::f64::consts::TAU * random.random::<f64>();
                rate += WANDER * seconds.sqrt() * radius * angle.cos();
                rate = if rate > 1.0 { 2.0 - rate } else { rate }.max(0.0);
            }
            rate
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_mean_is_the_one_asked_for_and_outages_are_like_those_on_the_road() {
        for seed in 0..20 {
            let trace = cellular(6_000_000, seed).expect("possible");
            // A Poisson count of 150,000 strays by 0.26 %.
            assert!((trace.mean_rate() / 6e6 - 1.0).abs() < 0.015, "{trace:?}");
            assert_eq!(trace.period(), Duration::from_secs(300));
            assert_eq!(trace, cellular(6_000_000, seed).expect("possible"));
        }
        let silences: Vec<Duration> = (0..20)
            .map(|seed| cellular(6_000_000, seed).expect("possible").longest_silence())
            .collect();
        assert!(silences.iter().any(|silence| *silence > Duration::from_secs(2)), "{silences:?}");
        assert!(silences.iter().all(|silence| *silence < Duration::from_secs(30)), "{silences:?}");
    }

    /// A recording would not change either. A change of this is a new model and needs a name of its own in scenarios.
    #[test]
    fn the_trace_is_the_same_in_every_version() {
        let trace = cellular(6_000_000, 3).expect("possible");
        let times = (0..).map(|number| trace.time_of(number));
        let times: Vec<u64> = times.take_while(|time| *time < 300_000).collect();
        // FNV-1a (Fowler, Noll, Vo), of the times as 64-bit numbers.
        let hash = times.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, time| {
            (hash ^ time).wrapping_mul(0x0100_0000_01b3)
        });
        assert_eq!(
            (&times[..8], times.len(), hash),
            (&[3, 3, 4, 4, 5, 10, 12, 13][..], 150_213, 0x894e_3732_567c_5bf4)
        );
    }

    #[test]
    fn rates_without_a_trace_are_refused() {
        for mean in [0, 23_999, 100_000_001] {
            let error = cellular(mean, 1).expect_err("impossible").to_string();
            assert!(error.starts_with(&format!("mean {mean} bit/s")), "{error}");
        }
        cellular(24_000, 1).expect("the slowest");
    }
}
