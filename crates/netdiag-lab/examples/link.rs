//! Links to try things on: `cargo run --release -p netdiag-lab --example link -- --delay 50ms --loss 1%`, or a scenario over and
//! over: `… --example link -- --scenario flaky-wifi`
//!
//! Prints where the ends are and how to get there, and is gone on Ctrl-C or however else it ends.

#![allow(clippy::print_stdout, clippy::print_stderr)] // printing is what it is for

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use netdiag_lab::{
    Discipline, Lab, LinkSpec, Queue, QueueLength, Scenario, Schedule, ServerSide, Trace, units,
};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Emulate links between network namespaces until Ctrl-C. Needs root.
#[derive(Parser)]
struct Arguments {
    /// One-way delay: 50ms, 800us, 0.2s
    #[arg(long, default_value = "0s", value_parser = units::duration)]
    delay: Duration,
    /// How far the delay varies to either side
    #[arg(long, default_value = "0s", value_parser = units::duration)]
    jitter: Duration,
    /// Packets lost: 1% or 0.01
    #[arg(long, default_value = "0", value_parser = units::share)]
    loss: f64,
    /// How many of them in a row, on average; each by itself unless given
    #[arg(long)]
    burst: Option<f64>,
    /// Bits per second: 500kbit, 10mbit, 1gbit
    #[arg(long, value_parser = units::bit_rate)]
    rate: Option<u64>,
    /// A recorded link in Mahimahi's format, in place of a rate
    #[arg(long, conflicts_with = "rate")]
    trace: Option<PathBuf>,
    /// How long packets may wait for the rate; 1000 of them unless given
    #[arg(long, value_parser = units::duration)]
    queue: Option<Duration>,
    /// Drop from the queue by CoDel
    #[arg(long)]
    codel: bool,
    /// A shipped scenario or the file of one, with a client for each of its groups, in place of all of the above
    #[arg(long)]
    scenario: Option<String>,
    /// Put the server's end on the host instead of in a namespace
    #[arg(long)]
    host: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let scenario = arguments.scenario.as_deref().map(Scenario::open).transpose()?;
    let (schedules, seed) = match &scenario {
        Some(scenario) => (scenario.schedules(), scenario.seed()),
        None => (vec![Schedule::constant(link(arguments)?)], 1),
    };
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let side = if arguments.host { ServerSide::Host } else { ServerSide::Namespace };
    let links = schedules.iter().map(|schedule| schedule.first().clone());
    let lab = Lab::start_links(links, side, seed)?;
    let end = |name: &str, v4, v6, netns: &std::path::Path| {
        println!("{name} {v4} {v6}");
        println!("       nsenter --net={} COMMAND", netns.display());
    };
    end("server", lab.server_ip(), lab.server_ipv6(), lab.server_netns());
    for link in lab.links() {
        end("client", link.client_ip(), link.client_ipv6(), link.client_netns());
    }
    let Some(scenario) = scenario else {
        signals.forever().next();
        return Ok(());
    };
    let mut signalled = move || signals.pending().next().is_some();
    loop {
        let playback = lab.play(&schedules)?;
        let mut start = Duration::ZERO;
        for phase in scenario.phases() {
            println!("{:>6.1} s  {} ({})", start.as_secs_f64(), phase.name(), phase.kind());
            start += phase.duration();
            while playback.started().elapsed() < start {
                if signalled() {
                    return Ok(());
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }
}

fn link(arguments: &Arguments) -> Result<LinkSpec, Box<dyn std::error::Error>> {
    let mut spec = LinkSpec::delayed(arguments.delay)?.with_jitter(arguments.jitter)?;
    spec = match arguments.burst {
        Some(burst) => spec.with_burst_loss(arguments.loss, burst)?,
        None => spec.with_loss(arguments.loss)?,
    };
    if let Some(rate) = arguments.rate {
        spec = spec.with_rate(rate)?;
    }
    if let Some(trace) = &arguments.trace {
        spec = spec.with_trace(Trace::parse(&std::fs::read(trace)?)?);
    }
    let discipline = if arguments.codel { Discipline::CoDel } else { Discipline::DropTail };
    let length = arguments.queue.map_or(Queue::default().length(), QueueLength::Time);
    Ok(spec.with_queue(Queue::try_new(discipline, length)?))
}
