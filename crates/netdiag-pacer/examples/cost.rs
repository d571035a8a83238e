//! What pacing costs, for `cargo xtask bench pacer`: built for release, and alone in a process.
//!
//! `cost FLOWS ROUNDS` prints a line for each round: the seconds of a tick (every flow observed, the engine shared out, the shares
//! granted), and those of the sharing alone among streams of as many kinds as there can be. What the kernel would say is made up
//! before the clock starts. Flows are in all states at once and change them, so that no branch is learnt by heart.

// It measures time and talks to another program, which the crate itself never does.
#![allow(clippy::disallowed_methods, clippy::print_stdout)]

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use netdiag_pacer::{
    Attribution, Carry, Claim, Evidence, Lead, Need, TpsRange, Unread, allocate, share,
};
use netdiag_telemetry::Tps;

/// Between two ticks.
const TICK: Duration = Duration::from_millis(100);

/// Bytes of a token.
const TOKEN: u64 = 230;

/// Tokens/s of the engine for each flow: three quarters of what readers read, so that there is something to share out.
const EACH: f64 = 9.0;

/// A flow, and what its kernel counts.
struct Flow {
    carry: Carry,
    attribution: Attribution,
    unread: Unread,
    seen: Evidence,
    known: u64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<usize> =
        std::env::args().skip(1).map(|argument| argument.parse()).collect::<Result<_, _>>()?;
    let [flows, rounds] = arguments[..] else { return Err("usage: cost FLOWS ROUNDS".into()) };
    let range = TpsRange::try_new(Tps::try_new(5.0)?, Tps::try_new(80.0)?)?;
    let capacity = Tps::try_new(EACH * flows as f64)?;
    let mut random = Random(1);
    let mut all: Vec<Flow> = Vec::with_capacity(flows);
    for _ in 0..flows {
        let reading = Tps::try_new(8.0 + 8.0 * random.share())?;
        all.push(Flow {
            carry: Carry::new(range),
            attribution: Attribution::new(),
            unread: Unread::new(reading, Duration::ZERO),
            seen: Evidence { srtt: Some(rtt(&mut random)), ..Evidence::default() },
            known: 0,
        });
    }
    let mut needs = Vec::with_capacity(flows);
    for round in 1..=rounds {
        let now = TICK * u32::try_from(round)?;
        all.iter_mut().for_each(|flow| happen(flow, &mut random));
        let began = Instant::now();
        tick(now, capacity, &mut all, &mut needs);
        let of_tick = began.elapsed();
        let claims = claims(flows, &mut random)?;
        let began = Instant::now();
        black_box(allocate(capacity, black_box(&claims)));
        println!("{} {}", of_tick.as_secs_f64(), began.elapsed().as_secs_f64());
    }
    Ok(())
}

/// What a pacer does ten times a second.
fn tick(now: Duration, capacity: Tps, flows: &mut [Flow], needs: &mut Vec<Need>) {
    needs.clear();
    for Flow { carry, attribution, unread, seen, known } in &mut *flows {
        let delivered = (seen.bytes_acked - *known) as f64 / carry.bytes_per_token();
        *known = seen.bytes_acked;
        unread.deliver(now, delivered);
        attribution.account(&carry.observe(now, seen, Lead::BUSY.spare(unread)));
        needs.push(Need {
            cap: carry.cap(),
            reading: unread.reading(),
            lead: unread.lead(),
            ahead: Lead::BUSY.ahead(carry),
        });
    }
    let rates = share(capacity, needs);
    for (flow, rate) in flows.iter_mut().zip(rates) {
        flow.carry.grant(rate);
    }
}

/// A tick of the kernel's: most flows get their tokens through, some silently wait, some have more than their path takes, and
/// some a reader who does not read.
fn happen(flow: &mut Flow, random: &mut Random) {
    let Flow { carry, seen, .. } = flow;
    let written = TOKEN * (1 + (random.share() * 2.0) as u64);
    carry.on_sent((written / TOKEN) as u32, written);
    seen.queued += written;
    seen.busy += TICK;
    let kind = random.share();
    if kind < 0.1 {
        seen.last_ack_age += TICK;
        seen.backoff = (seen.backoff + 1).min(8);
        return;
    }
    seen.last_ack_age = Duration::from_millis(20);
    seen.backoff = 0;
    seen.notsent = 0;
    if kind < 0.2 {
        seen.rwnd_limited += TICK * 3 / 4;
        seen.notsent = seen.queued / 2;
    } else if kind < 0.4 {
        seen.bytes_acked += seen.queued / 2;
        seen.queued -= seen.queued / 2;
        seen.notsent = seen.queued / 2;
    } else {
        seen.bytes_acked += seen.queued;
        seen.queued = 0;
    }
    seen.srtt = Some(rtt(random));
    seen.rttvar = seen.srtt.map(|srtt| srtt / 4);
}

fn rtt(random: &mut Random) -> Duration {
    Duration::from_micros(20_000 + (random.share() * 180e3) as u64)
}

/// Claims of which no two are alike.
fn claims(count: usize, random: &mut Random) -> Result<Vec<Claim>, Box<dyn Error>> {
    let claim = |random: &mut Random| {
        let claim = Claim::try_new(80.0 * random.share(), 1.0 + 15.0 * random.share())?;
        claim.starting_at(10.0 * random.share())
    };
    Ok((0..count).map(|_| claim(random)).collect::<Result<_, _>>()?)
}

/// Even numbers from a fixed stream (Knuth's MMIX generator), so that every run measures the same.
struct Random(u64);

impl Random {
    /// From 0 to 1.
    fn share(&mut self) -> f64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}
