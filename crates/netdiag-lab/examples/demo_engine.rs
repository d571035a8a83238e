//! The demo engine by itself, paced by a hint server if one is named.
//!
//! `cargo run -p netdiag-lab --example demo_engine -- --listen 127.0.0.1:8000 --hints http://127.0.0.1:9000`, and then
//! `curl -N http://127.0.0.1:8000/v1/chat/completions -d '{"stream": true, "messages": [{"role": "user", "content": "Hello"}]}'`.

#![allow(clippy::print_stderr)] // printing is what it is for

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use netdiag_lab::engine::{Engine, HintServer, Settings};
use tokio::net::{TcpListener, TcpSocket};

/// How often hints are asked for: as fresh as they get, and a question for each of two hundred streams takes a fraction of it.
const EVERY: Duration = Duration::from_millis(200);

/// Serve a fixed text at the pace of a real engine, OpenAI-compatible. There is no model behind it.
#[derive(Parser)]
struct Args {
    /// Listen here.
    #[arg(long, default_value = "127.0.0.1:8000")]
    listen: SocketAddr,
    /// Ask this hint server how fast each client's stream may go: http://127.0.0.1:9000
    #[arg(long, value_name = "URL", value_parser = address)]
    hints: Option<SocketAddr>,
    /// Show it this token.
    #[arg(long, env = "NETDIAG_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo engine: error: {error}");
            // Only what was asked for can be wrong.
            ExitCode::from(2)
        }
    }
}

async fn run(args: Args) -> Result<(), Box<dyn std::error::Error>> {
    let engine = Engine::try_new(Settings::default())?;
    let listener = TcpListener::bind(args.listen).await.map_err(|error| {
        format!(
            "cannot listen on {}: {error}; choose another address with --listen, or end what uses this one (`ss -ltnp` \
             tells)",
            args.listen
        )
    })?;
    eprintln!("demo engine, no model: http://{}/v1", listener.local_addr()?);
    if let Some(address) = args.hints {
        let server = HintServer::try_new(address, args.token, EVERY)?;
        let engine = engine.clone();
        let socket = move || match address {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        };
        tokio::spawn(async move { engine.follow(&server, socket).await });
    }
    engine.serve(listener, std::future::pending()).await;
    Ok(())
}

/// `http://HOST:PORT`, as `netdiag up` prints it, or the address alone.
fn address(text: &str) -> Result<SocketAddr, String> {
    let wanted = || "must be http://HOST:PORT, such as http://127.0.0.1:9000".to_owned();
    let place = text.strip_prefix("http://").unwrap_or(text);
    let place = place.split_once('/').map_or(place, |(place, _)| place);
    let mut found = place.to_socket_addrs().map_err(|error| format!("{}: {error}", wanted()))?;
    found.next().ok_or_else(wanted)
}
