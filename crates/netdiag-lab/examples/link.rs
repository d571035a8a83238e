//! A link to try things on: `cargo run --release -p netdiag-lab --example link -- --delay 50ms --loss 1%`
//!
//! Prints where its ends are and how to get there, and is gone on Ctrl-C or however else it ends.

#![allow(clippy::print_stdout, clippy::print_stderr)] // printing is what it is for

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use netdiag_lab::{Lab, LinkSpec, ServerSide};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Emulate a link between two network namespaces until Ctrl-C. Needs root.
#[derive(Parser)]
struct Arguments {
    /// One-way delay: 50ms, 800us, 0.2s
    #[arg(long, default_value = "0s", value_parser = duration)]
    delay: Duration,
    /// How far the delay varies to either side
    #[arg(long, default_value = "0s", value_parser = duration)]
    jitter: Duration,
    /// Packets lost: 1% or 0.01
    #[arg(long, default_value = "0", value_parser = share)]
    loss: f64,
    /// Bits per second: 500kbit, 10mbit, 1gbit
    #[arg(long, value_parser = rate)]
    rate: Option<u64>,
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
    let mut spec = LinkSpec::delayed(arguments.delay)?
        .with_jitter(arguments.jitter)?
        .with_loss(arguments.loss)?;
    if let Some(rate) = arguments.rate {
        spec = spec.with_rate(rate)?;
    }
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let side = if arguments.host { ServerSide::Host } else { ServerSide::Namespace };
    let lab = Lab::start(spec, side)?;
    for (end, v4, v6, netns) in [
        ("client", lab.client_ip(), lab.client_ipv6(), lab.client_netns()),
        ("server", lab.server_ip(), lab.server_ipv6(), lab.server_netns()),
    ] {
        println!("{end} {v4} {v6}");
        println!("       nsenter --net={} COMMAND", netns.display());
    }
    signals.forever().next();
    Ok(())
}

fn duration(text: &str) -> Result<Duration, String> {
    let seconds = scaled(text, &[("ms", 1e-3), ("us", 1e-6), ("s", 1.0)])?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

fn share(text: &str) -> Result<f64, String> {
    scaled(text, &[("%", 0.01), ("", 1.0)])
}

fn rate(text: &str) -> Result<u64, String> {
    scaled(text, &[("kbit", 1e3), ("mbit", 1e6), ("gbit", 1e9), ("bit", 1.0)]).map(|bps| bps as u64)
}

/// A number with one of the units, which are tried in this order.
fn scaled(text: &str, units: &[(&str, f64)]) -> Result<f64, String> {
    let found = units.iter().find_map(|(unit, scale)| Some((text.strip_suffix(unit)?, scale)));
    let parsed = found.and_then(|(number, scale)| Some(number.trim().parse::<f64>().ok()? * scale));
    let names: Vec<_> = units.iter().map(|(unit, _)| *unit).collect();
    parsed.ok_or_else(|| format!("a number with its unit is wanted (one of {})", names.join(" ")))
}
