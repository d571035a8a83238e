//! A streaming server that paces its own connections: an axum handler, and no probe, gateway or privilege.
//!
//! `cargo run --release -p netdiag-embed --example embedded -- [ADDRESS]`, then `curl -N 'http://127.0.0.1:8000/generate?tokens=500'`,
//! once more with `--limit-rate 2k`, and meanwhile `curl http://127.0.0.1:8000/streams`. What became of each stream is printed when it
//! ends.
//!
//! Three things make a handler pace itself: [`Connection`] hands it its socket, `admitted` comes before each token, `on_sent` after.

#![allow(clippy::print_stdout, clippy::print_stderr)] // printing is what it is for

use std::error::Error;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::IncomingStream;
use axum::{Json, Router};
use futures_util::stream::unfold;
use netdiag_embed::{Pacing, Settings, StreamPacer};
use netdiag_pacer::TpsRange;
use netdiag_telemetry::Tps;
use serde::Deserialize;
use tokio::net::TcpListener;

/// A duplicate of the connection's descriptor, for as long as the connection lives.
#[derive(Clone)]
struct Connection(Arc<io::Result<OwnedFd>>);

impl Connected<IncomingStream<'_, TcpListener>> for Connection {
    fn connect_info(incoming: IncomingStream<'_, TcpListener>) -> Self {
        // A token is a small write, which must not wait for the ACK of the one before.
        let socket = incoming.io().set_nodelay(true);
        Self(Arc::new(socket.and_then(|()| incoming.io().as_fd().try_clone_to_owned())))
    }
}

#[derive(Deserialize)]
struct Request {
    #[serde(default = "usual_length")]
    tokens: u32,
}

fn usual_length() -> u32 {
    200
}

/// The response of a model that always has a token ready.
async fn generate(
    State(pacing): State<Pacing>,
    ConnectInfo(Connection(socket)): ConnectInfo<Connection>,
    Query(request): Query<Request>,
) -> Response {
    let stream = match &*socket {
        Ok(socket) => pacing.stream(socket),
        Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
    };
    let stream = match stream {
        Ok(stream) => Told(stream),
        Err(error) => {
            return (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response();
        }
    };
    let events = unfold((stream, 0), move |(stream, n)| async move {
        if n == request.tokens {
            return None;
        }
        // Not before the network can use it. The body is polled, so a client that leaves ends this as well.
        if let Err(gone) = stream.0.admitted(1).await {
            return Some((
                Err(io::Error::new(io::ErrorKind::BrokenPipe, gone)),
                (stream, request.tokens),
            ));
        }
        let event = format!("data: {{\"index\":{n},\"text\":\"word \"}}\n\n");
        stream.0.on_sent(1, event.len() as u64);
        Some((Ok(event), (stream, n + 1)))
    });
    let kind = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    (kind, Body::from_stream(events)).into_response()
}

/// All streams that run.
async fn streams(State(pacing): State<Pacing>) -> impl IntoResponse {
    let reports = pacing.reports().into_iter();
    Json(reports.map(|(key, report)| (key.peer.to_string(), report)).collect::<Vec<_>>())
}

/// A stream that tells how it went when it ends, however it does.
struct Told(StreamPacer);

impl Drop for Told {
    fn drop(&mut self) {
        let report = self.0.report();
        let causes = report.causes;
        println!(
            "{}: {} tokens in {:.1} s, {:.0} acknowledged, {}; engine {:.1} s, path {:.1} s, reader {:.1} s, pacer {:.1} s",
            self.0.key().peer,
            report.sent,
            causes.total().as_secs_f64(),
            report.acked,
            report.state.as_str(),
            causes.engine.as_secs_f64(),
            causes.path.as_secs_f64(),
            causes.reader.as_secs_f64(),
            causes.pacer.as_secs_f64(),
        );
    }
}

/// A stream has up to 50 tokens/s, the engine 500, and people read 16.
pub(crate) fn settings() -> Result<Settings, Box<dyn Error + Send + Sync>> {
    let tps = Tps::try_new;
    let range = TpsRange::try_new(tps(5.0)?, tps(50.0)?)?;
    Ok(Settings { capacity: Some(tps(500.0)?), ..Settings::new(range, tps(16.0)?) })
}

/// Serves until it is stopped.
pub(crate) async fn serve(listener: TcpListener, pacing: Pacing) -> io::Result<()> {
    let routes = Router::new()
        .route("/generate", get(generate))
        .route("/streams", get(streams))
        .with_state(pacing);
    axum::serve(listener, routes.into_make_service_with_connect_info::<Connection>()).await
}

#[tokio::main]
async fn main() -> ExitCode {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8000".to_owned());
    let run = async {
        let pacing =
            Pacing::try_new(settings().map_err(io::Error::other)?).map_err(io::Error::other)?;
        let listener = TcpListener::bind(&address).await?;
        println!("http://{}/generate", listener.local_addr()?);
        serve(listener, pacing).await
    };
    match run.await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("embedded: {address}: {error}");
            ExitCode::FAILURE
        }
    }
}
