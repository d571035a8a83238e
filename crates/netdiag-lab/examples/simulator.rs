//! How fast the simulator runs, for `cargo xtask bench pacer`: built for release, and alone in a process.
//!
//! `simulator POLICY SECONDS` plays so much of a crowded world on one thread, and prints the mean number of streams under way, the tokens,
//! and the seconds of a processor that it took: on a machine that does other things as well, a clock would count those too. The engine is
//! twelve times as large as the simulator's usual one, so that a thousand streams are served side by side and do not wait in its queue,
//! where they would cost nothing; every other client is on a trace.

// It measures time and talks to another program, which the crate itself never does.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::num::NonZeroUsize;
use std::time::Duration;

use netdiag_lab::engine::Model;
use netdiag_lab::metrics::{Ending, StreamRecord};
use netdiag_lab::sim::{Policy, Setup, Study, World, play, synthetic_traces};
use netdiag_pacer::TpsRange;
use netdiag_telemetry::Tps;

/// Clients by what the engine can answer.
const LOAD: f64 = 0.9;

/// A thousand readers of some twelve tokens a second want so many seats, if a step takes 33 ms with all of them taken.
const SEATS: NonZeroUsize = NonZeroUsize::new(512).expect("not zero");
const STEP_PER_SEAT: Duration = Duration::from_micros(25);

/// Tokens in the KV cache: more than all the clients of ten minutes need.
const KV_TOKENS: u64 = 1 << 24;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [policy, seconds] = &arguments[..] else {
        return Err("usage: simulator POLICY SECONDS".into());
    };
    let policy = Policy::ALL.into_iter().find(|known| known.as_str() == policy);
    let policy = policy.ok_or("no such policy")?;
    let duration = Duration::from_secs(seconds.parse()?);
    let range = TpsRange::try_new(Tps::try_new(5.0)?, Tps::try_new(80.0)?)?;
    let paper = Study::paper(range, synthetic_traces(200..224)).setup;
    let world = World { load: LOAD, cellular: 0.6, vanishing: 0.3, duration, ..paper.world };
    let model =
        Model { seats: SEATS, step_per_seat: STEP_PER_SEAT, kv_tokens: KV_TOKENS, ..paper.model };
    let setup = Setup { world, model, ..paper };
    let before = processor_seconds()?;
    let (records, _) = play(&setup, policy, 1)?;
    let took = processor_seconds()? - before;
    let under_way: Duration = records.iter().map(|record| under_way(record, duration)).sum();
    let streams = under_way.as_secs_f64() / duration.as_secs_f64();
    let tokens: u64 = records.iter().map(|record| record.counts.generated).sum();
    println!("{streams} {tokens} {took}");
    Ok(())
}

/// What this thread has had of a processor; see the kernel's `Documentation/scheduler/sched-stats.rst`.
fn processor_seconds() -> Result<f64, Box<dyn Error>> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanos: f64 = text.split_ascii_whitespace().next().ok_or("an empty file")?.parse()?;
    Ok(nanos / 1e9)
}

/// From the question to the end of the answer, or of the run.
fn under_way(record: &StreamRecord, end: Duration) -> Duration {
    let ended = match record.ending {
        Ending::Complete => record.deliveries.last().copied().unwrap_or(end),
        Ending::Left(at) | Ending::Cut(at) => at,
        Ending::Failed => end,
    };
    ended.saturating_sub(record.submitted)
}
