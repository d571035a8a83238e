//! Who asks for what and when, over which link, and how they behave: the world that every policy meets alike.
//!
//! Everything about a client is drawn before the run from the run's seed, and nothing depends on what the policy does, but that
//! a client without patience may give up. A higher load has the same clients, closer together.
//!
//! | what | value | source |
//! | --- | --- | --- |
//! | prompts | log-normal, mean 161 tokens | ShareGPT in Kwon et al. (vLLM, SOSP 2023), §6.1, figure 11 |
//! | answers | log-normal, mean 338 tokens | the same |
//! | their spread | σ = 0.9, cut at 2048 | by eye: the 99th percentile, 1,830, lies at the end of that figure's axis |
//! | gaps between requests | exponential, or gamma with a coefficient of variation | Poisson as in vLLM; gamma where bursty, as fitted in Xiang et al. (ServeGen, arXiv 2505.09999) |
//! | reading rates | even, 8 to 16 tok/s | DESIGN §9; the slower are twice what Andes (arXiv 2404.16283) takes for English, the faster skim |
//! | first token | expected within 1 s | Andes |
//! | fixed links | 10 to 120 ms, log-even; 10 to 100 Mbit/s; loss as below | a city and an ocean away; never the bottleneck of text |
//! | cellular links | 60 to 140 ms without queueing, a trace from a random place on; loss as below | Huang et al. (MobiSys 2012) for the round trips |
//! | loss | as the world says (Gilbert–Elliott); in the presets 0.1 %, packet by packet | radio links retransmit by themselves, which hides most. A burst is so many packets long: to a sender that backs off, one of eight would last half a minute |
//! | when clients go | evenly within the time that the answer takes to read | nothing better is known |

use std::time::Duration;

use netdiag_telemetry::Tps;
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::Micros;
use super::link::{Capacity, Link};
use crate::loss::{Loss, Losses};
use crate::metrics::Reader;
use crate::trace::Trace;

/// Mean prompt and answer, tokens, the spread of both as the σ of their logarithm, and the longest.
const PROMPT_MEAN: f64 = 161.31;
const OUTPUT_MEAN: f64 = 337.99;
const SIGMA: f64 = 0.9;
const LONGEST: f64 = 2048.0;

const READING: [f64; 2] = [8.0, 16.0];
const EXPECTED_TTFT: Duration = Duration::from_secs(1);
const FIXED_RTT_MS: [f64; 2] = [10.0, 120.0];
const FIXED_MBPS: [f64; 2] = [10.0, 100.0];
const CELLULAR_RTT_MS: [f64; 2] = [60.0, 140.0];

/// The world, but for its seed.
#[derive(Clone, Debug)]
pub struct World {
    /// Requests per second, in units of what the engine could answer at most with all seats taken.
    pub load: f64,
    /// How unevenly requests come: coefficient of variation of the gaps, 1 = Poisson.
    pub burstiness: f64,
    /// Share of clients on cellular links.
    pub cellular: f64,
    /// Share of those that vanish without a word.
    pub vanishing: f64,
    /// Share of the others (of all but those that vanish) that close the connection before the end.
    pub leaving: f64,
    /// Silence after which a client gives up; `None`: never.
    pub patience: Option<Duration>,
    /// Times in which a cellular link loses everything, on average per minute, and how long they last.
    pub outages: Option<(f64, Duration)>,
    /// Round trip of the links that are not cellular; `None`: each its own.
    pub round_trip: Option<Duration>,
    /// Share of the packets that is lost, and how many are lost in a row on average.
    pub loss: (f64, f64),
    /// What cellular links carry; a client has one of them.
    pub traces: Vec<Trace>,
    /// How long requests come, and the end of the run.
    pub duration: Duration,
}

/// A world that cannot be.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum InvalidWorld {
    /// Not a positive number.
    #[error("{name} {value} is not a number above 0")]
    NotPositive {
        /// Which one.
        name: &'static str,
        /// As given.
        value: f64,
    },
    /// Not a share.
    #[error("{name} {value} is not between 0 and 1")]
    Share {
        /// Which one.
        name: &'static str,
        /// As given.
        value: f64,
    },
    /// No such loss.
    #[error(transparent)]
    Loss(#[from] crate::spec::InvalidSpec),
    /// Nothing to play.
    #[error(
        "a share of {0} of the clients is on cellular links, and there is no trace for them: give one, or a share of 0"
    )]
    NoTrace(f64),
}

/// How a client ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gone {
    Stays,
    /// Closes the connection.
    Leaves(Micros),
    /// Is not there any more.
    Vanishes(Micros),
}

/// One client and its request.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) submitted: Micros,
    pub(super) prompt: u32,
    pub(super) output: u32,
    pub(super) reader: Reader,
    pub(super) gone: Gone,
    pub(super) link: Link,
}

impl World {
    /// Whether it can be.
    pub(super) fn validate(&self) -> Result<(), InvalidWorld> {
        for (name, value) in [("load", self.load), ("burstiness", self.burstiness)] {
            if !(value.is_finite() && value > 0.0) {
                return Err(InvalidWorld::NotPositive { name, value });
            }
        }
        let shares =
            [("cellular", self.cellular), ("vanishing", self.vanishing), ("leaving", self.leaving)];
        for (name, value) in shares {
            if !(0.0..=1.0).contains(&value) {
                return Err(InvalidWorld::Share { name, value });
            }
        }
        Loss::bursts(self.loss.0, self.loss.1)?;
        if self.cellular > 0.0 && self.traces.is_empty() {
            return Err(InvalidWorld::NoTrace(self.cellular));
        }
        Ok(())
    }

    /// Everybody who comes, in order, to an engine that generates at most `capacity` tokens/s.
    pub(super) fn clients(&self, capacity: f64, seed: u64) -> Vec<Client> {
        let mean_gap = OUTPUT_MEAN / (capacity * self.load);
        let end = self.duration.as_micros() as Micros;
        let mut arrivals = Xoshiro256PlusPlus::seed_from_u64(seed);
        let mut clients = Vec::new();
        let mut now = 0.0;
        loop {
            now += mean_gap * gamma_gap(&mut arrivals, self.burstiness);
            let submitted = (now * 1e6) as Micros;
            if submitted >= end {
                return clients;
            }
            // A client of its own seed is the same whatever was drawn for those before it.
            let seed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(clients.len() as u64);
            clients.push(self.client(submitted, end, seed));
        }
    }

    fn client(&self, submitted: Micros, end: Micros, seed: u64) -> Client {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
        let rng = &mut random;
        let prompt = log_normal(rng, PROMPT_MEAN);
        let output = log_normal(rng, OUTPUT_MEAN);
        let rate = reading_rate(rng);
        let is_cellular = rng.random_bool(self.cellular);
        let vanishes = rng.random_bool(self.vanishing);
        let leaves = rng.random_bool(self.leaving);
        let takes = EXPECTED_TTFT.as_secs_f64() + f64::from(output) * rate.seconds_per_token();
        let going = submitted + (rng.random::<f64>() * takes * 1e6) as Micros;
        let gone = match (is_cellular && vanishes, leaves) {
            (true, _) => Gone::Vanishes(going),
            (false, true) => Gone::Leaves(going),
            (false, false) => Gone::Stays,
        };
        let mut link = if is_cellular {
            self.cellular_link(rng, submitted, end)
        } else {
            self.fixed_link(rng)
        };
        if let Gone::Vanishes(at) = gone {
            link.cut_at(at);
        }
        Client {
            submitted,
            prompt,
            output,
            reader: Reader { rate, expected_ttft: EXPECTED_TTFT },
            gone,
            link,
        }
    }

    fn cellular_link(&self, rng: &mut Xoshiro256PlusPlus, from: Micros, end: Micros) -> Link {
        let trace = self.traces[rng.random_range(0..self.traces.len())].clone();
        let offset = trace.period().mul_f64(rng.random::<f64>());
        let rtt = between(rng, CELLULAR_RTT_MS) * 1e3;
        // Virtual time is the trace's, so that a trace is not begun anew with each client.
        let link = Link::new(
            Capacity::Trace(trace.starting_at(offset)),
            [(rtt / 2.0) as Micros; 2],
            self.losses(rng),
        );
        let Some((per_minute, length)) = self.outages.filter(|outages| outages.0 > 0.0) else {
            return link;
        };
        let mut spans = Vec::new();
        let (mut at, length) = (from, length.as_micros() as Micros);
        loop {
            at += (exponential(rng) * 60e6 / per_minute) as Micros;
            if at >= end {
                return link.with_outages(spans);
            }
            spans.push((at, at + length));
            at += length;
        }
    }

    fn fixed_link(&self, rng: &mut Xoshiro256PlusPlus) -> Link {
        let [low, high] = FIXED_RTT_MS.map(f64::ln);
        let drawn = between(rng, [low, high]).exp() * 1e3;
        let rtt = self.round_trip.map_or(drawn, |rtt| rtt.as_secs_f64() * 1e6);
        let per_byte = 8.0 / between(rng, FIXED_MBPS);
        Link::new(Capacity::Rate(per_byte), [(rtt / 2.0) as Micros; 2], self.losses(rng))
    }

    fn losses(&self, rng: &mut Xoshiro256PlusPlus) -> Option<Losses> {
        let (share, burst) = self.loss;
        let model = Loss::bursts(share, burst).ok().filter(|_| share > 0.0)?;
        Some(Losses::new(model, rng.random()))
    }
}

fn reading_rate(rng: &mut Xoshiro256PlusPlus) -> Tps {
    loop {
        // Whatever is drawn is a rate; the compiler cannot know it.
        if let Ok(rate) = Tps::try_new(between(rng, READING)) {
            return rate;
        }
    }
}

fn between(rng: &mut Xoshiro256PlusPlus, [low, high]: [f64; 2]) -> f64 {
    low + (high - low) * rng.random::<f64>()
}

fn exponential(rng: &mut Xoshiro256PlusPlus) -> f64 {
    -(1.0 - rng.random::<f64>()).ln()
}

/// Box and Muller (Annals of Mathematical Statistics 29, 1958).
fn normal(rng: &mut Xoshiro256PlusPlus) -> f64 {
    let radius = (2.0 * exponential(rng)).sqrt();
    radius * (std::f64::consts::TAU * rng.random::<f64>()).cos()
}

/// A whole number from 1 on whose logarithm is normal, of this mean.
fn log_normal(rng: &mut Xoshiro256PlusPlus, mean: f64) -> u32 {
    let mu = mean.ln() - SIGMA * SIGMA / 2.0;
    (mu + SIGMA * normal(rng)).exp().round().clamp(1.0, LONGEST) as u32
}

/// A gap of mean 1 and this coefficient of variation, gamma distributed (Marsaglia and Tsang, ACM TOMS 26(3), 2000).
fn gamma_gap(rng: &mut Xoshiro256PlusPlus, variation: f64) -> f64 {
    if variation == 1.0 {
        return exponential(rng);
    }
    let shape = variation.powi(-2);
    // Below 1 the method needs a shape one higher, and a power of an even number.
    let (raised, factor) = if shape < 1.0 {
        (shape + 1.0, (1.0 - rng.random::<f64>()).powf(1.0 / shape))
    } else {
        (shape, 1.0)
    };
    let d = raised - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = normal(rng);
        let v = (1.0 + c * x).powi(3);
        if v > 0.0 && (1.0 - rng.random::<f64>()).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return d * v * factor / shape;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean_and_variation(values: impl Iterator<Item = f64>) -> (f64, f64) {
        let values: Vec<f64> = values.collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let square = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64;
        (mean, square.sqrt() / mean)
    }

    #[test]
    fn lengths_and_gaps_have_the_moments_asked_for() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
        for variation in [0.5, 1.0, 2.0, 4.0] {
            let (mean, spread) =
                mean_and_variation((0..400_000).map(|_| gamma_gap(&mut rng, variation)));
            assert!((mean - 1.0).abs() < 0.03, "{mean} at {variation}");
            assert!((spread / variation - 1.0).abs() < 0.05, "{spread} at {variation}");
        }
        let lengths = (0..200_000).map(|_| f64::from(log_normal(&mut rng, OUTPUT_MEAN)));
        let (mean, _) = mean_and_variation(lengths);
        // What is cut at 2048 makes up two percent.
        assert!((mean / OUTPUT_MEAN - 0.98).abs() < 0.02, "{mean}");
    }

    #[test]
    fn a_world_that_cannot_be_is_refused() {
        let world = World {
            load: 1.0,
            burstiness: 1.0,
            cellular: 0.3,
            vanishing: 0.1,
            leaving: 0.1,
            patience: None,
            outages: None,
            round_trip: None,
            loss: (0.001, 1.0),
            traces: Vec::new(),
            duration: Duration::from_secs(10),
        };
        let told = |world: World| world.validate().expect_err("impossible").to_string();
        assert!(told(world.clone()).contains("no trace"));
        assert!(told(World { load: 0.0, ..world.clone() }).starts_with("load 0 is not a number"));
        assert!(told(World { leaving: 1.1, ..world.clone() }).starts_with("leaving 1.1"));
        World { cellular: 0.0, ..world }.validate().expect("possible");
    }
}
