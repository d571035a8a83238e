//! Prints every flow the probe sees, once a second, for a given number of seconds:
//! `cargo run --release -p netdiag-probe --example flows -- 5 [sockdiag]`.

#![allow(clippy::print_stdout)] // printing is what it is for

use std::time::Duration;

use netdiag_probe::{FlowFilter, Probe, ProbeConfig, ProbeError, SourceChoice};

fn main() -> Result<(), ProbeError> {
    let mut arguments = std::env::args().skip(1);
    let seconds: u32 = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(5);
    let source = match arguments.next().as_deref() {
        Some("sockdiag") => SourceChoice::Sockdiag,
        _ => SourceChoice::Auto,
    };
    let filter = FlowFilter { loopback: true, ..FlowFilter::default() };
    let mut probe = Probe::open(&ProbeConfig { source, filter, ..ProbeConfig::default() })?;
    println!("source {}, {:?}", probe.source(), probe.fallback_reason());
    for _ in 0..seconds {
        std::thread::sleep(Duration::from_secs(1));
        for flow in probe.snapshot()? {
            let rtt = flow.rtt.summary().map(|rtt| (rtt.avg, rtt.p95, rtt.samples));
            println!("{} {:?} rtt {rtt:?} {:?}", flow.key, flow.counters, flow.liveness);
        }
    }
    println!("losses {:?}", probe.losses());
    Ok(())
}
