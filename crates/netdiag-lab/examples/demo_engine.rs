//! The demo engine by itself, paced by a hint server if one is named.
//!
//! `cargo run -p netdiag-lab --example demo_engine -- --listen 127.0.0.1:8000 --hints 127.0.0.1:9000`, and then
//! `curl -N 127.0.0.1:8000/v1/chat/completions -d '{"model": "netdiag-demo", "stream": true, "messages": [{"role": "user", "content": "Hello"}]}'`.

#![allow(clippy::print_stderr)] // printing is what it is for

use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser;
use netdiag_lab::engine::{Engine, HintServer, Settings};
use tokio::net::{TcpListener, TcpSocket};

/// Serve a fixed text at the pace of a real engine, OpenAI-compatible. There is no model behind it.
#[derive(Parser)]
struct Args {
    /// Listen here.
    #[arg(long, default_value = "127.0.0.1:8000")]
    listen: SocketAddr,
    /// Ask this hint server how fast each client's stream may go.
    #[arg(long)]
    hints: Option<SocketAddr>,
    /// Show it this token.
    #[arg(long, env = "NETDIAG_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args = Args::parse();
    let engine = Engine::try_new(Settings::default())?;
    let listener = TcpListener::bind(args.listen).await?;
    eprintln!("demo engine, no model: http://{}/v1", listener.local_addr()?);
    if let Some(address) = args.hints {
        let server = HintServer { address, token: args.token, every: Duration::from_millis(200) };
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
