//! An inference loop that lets the network set its pace: the original project's client, in Rust.
//!
//! `cargo run -p netdiag-hints --example poll_hint -- [URL] [TEXT]`

#![allow(clippy::print_stdout, clippy::print_stderr)] // printing is what it is for

use std::io::Write;
use std::time::Duration;

use serde::Deserialize;

/// The two fields this loop needs; the server sends more.
#[derive(Deserialize)]
struct Hint {
    sleep_seconds: f64,
    hold: bool,
}

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().unwrap_or_else(|| "http://127.0.0.1:9000".to_owned());
    let text = arguments.next().unwrap_or_else(|| "Once upon a time there was a link.".to_owned());
    let agent: ureq::Agent =
        ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(1))).build().into();
    let mut sleep = Duration::from_millis(50);
    for token in text.split_inclusive(' ') {
        loop {
            let hint =
                agent.get(&url).call().and_then(|mut answer| answer.body_mut().read_json::<Hint>());
            match hint {
                Ok(hint) if hint.hold => std::thread::sleep(Duration::from_millis(100)),
                Ok(hint) => {
                    sleep = Duration::try_from_secs_f64(hint.sleep_seconds).unwrap_or(sleep);
                    break;
                }
                // No hint is no reason to stop: go on at the last rate.
                Err(error) => {
                    eprintln!("[no hint: {error}]");
                    break;
                }
            }
        }
        std::thread::sleep(sleep);
        print!("{token}");
        std::io::stdout().flush()?;
    }
    println!();
    Ok(())
}
