//! An inference loop that lets the network set its pace: the original project's client, in Rust.
//!
//! `cargo run --release -p netdiag-hints --example poll_hint -- [URL] [TEXT] [--token-file FILE]`

#![allow(clippy::print_stdout, clippy::print_stderr)] // printing is what it is for

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde::Deserialize;

/// The two fields this loop needs; the server sends more.
#[derive(Deserialize)]
struct Hint {
    sleep_seconds: f64,
    hold: bool,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        // Nobody reads any more.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("poll_hint: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let secret = take_token(&mut arguments)?;
    let mut arguments = arguments.into_iter();
    let url = arguments.next().unwrap_or_else(|| "http://127.0.0.1:9000".to_owned());
    let text = arguments.next().unwrap_or_else(|| "Once upon a time there was a link.".to_owned());
    let agent: ureq::Agent =
        ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(1))).build().into();
    let mut sleep = Duration::from_millis(50);
    let mut reachable = true;
    let mut due = Instant::now();
    for token in text.split_inclusive(' ') {
        loop {
            let mut request = agent.get(&url);
            if let Some(secret) = &secret {
                request = request.header("authorization", format!("Bearer {secret}"));
            }
            let hint = request.call().and_then(|mut answer| answer.body_mut().read_json::<Hint>());
            let was_reachable = std::mem::replace(&mut reachable, hint.is_ok());
            match hint {
                Ok(hint) if hint.hold => std::thread::sleep(Duration::from_millis(100)),
                Ok(hint) => {
                    sleep = Duration::try_from_secs_f64(hint.sleep_seconds).unwrap_or(sleep);
                    break;
                }
                // No hint is no reason to stop: go on at the last rate.
                Err(error) => {
                    if was_reachable {
                        eprintln!("[no hint, going on at the last rate: {error}]");
                    }
                    break;
                }
            }
        }
        // From token to token, so that the time it takes to ask is part of the sleep. What is late is not made up for.
        due = (due + sleep).max(Instant::now());
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        print!("{token}");
        std::io::stdout().flush()?;
    }
    println!();
    Ok(())
}

/// Takes `--token-file FILE` out of `arguments` and reads the token: the first line, as the server does.
fn take_token(arguments: &mut Vec<String>) -> io::Result<Option<String>> {
    let Some(flag) = arguments.iter().position(|argument| argument == "--token-file") else {
        return Ok(None);
    };
    let path = arguments.drain(flag..arguments.len().min(flag + 2)).nth(1);
    let path = path.ok_or_else(|| io::Error::other("--token-file needs the path of a file"))?;
    let text = std::fs::read_to_string(&path).map_err(|error| {
        io::Error::new(error.kind(), format!("--token-file {path}: cannot be read: {error}"))
    })?;
    Ok(text.lines().next().map(|line| line.trim().to_owned()))
}
