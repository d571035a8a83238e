//! A link to try things on: `cargo run --release -p netdiag-lab --example link -- --delay-ms 50 --loss 0.01`
//!
//! Prints where its ends are, and takes it down on Ctrl-C.

#![allow(clippy::print_stdout)] // printing is what it is for

use std::time::Duration;

use clap::Parser;
use netdiag_lab::{Lab, LinkSpec, ServerSide};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

#[derive(Parser)]
struct Arguments {
    /// One-way delay, milliseconds
    #[arg(long, default_value_t = 0)]
    delay_ms: u64,
    /// How far the delay varies, milliseconds
    #[arg(long, default_value_t = 0)]
    jitter_ms: u64,
    /// Share of packets lost, 0..=1
    #[arg(long, default_value_t = 0.0)]
    loss: f64,
    /// Bits per second
    #[arg(long)]
    rate: Option<u64>,
    /// Put the server's end on the host instead of in a namespace
    #[arg(long)]
    host: bool,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    let mut spec = LinkSpec::delayed(Duration::from_millis(arguments.delay_ms))?
        .with_jitter(Duration::from_millis(arguments.jitter_ms))?
        .with_loss(arguments.loss)?;
    if let Some(rate) = arguments.rate {
        spec = spec.with_rate(rate)?;
    }
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let side = if arguments.host { ServerSide::Host } else { ServerSide::Namespace };
    let lab = Lab::start(spec, side)?;
    println!("client {} in {}", lab.client_ip(), lab.client_netns().display());
    println!("server {} in {}", lab.server_ip(), lab.server_netns().display());
    signals.forever().next();
    Ok(())
}
