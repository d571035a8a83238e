//! A proxy of hyper and nothing else, for `cargo xtask bench gateway`: what the library itself costs, built as its own examples do.
//!
//! `bare_proxy ENGINE` prints the address that it listens on, and then passes every request on, each on a connection of its own.

#![allow(clippy::print_stdout)] // another program reads it

use std::error::Error;
use std::net::SocketAddr;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpSocket, TcpStream};

/// Connections that may wait to be accepted: thousands come within seconds.
const BACKLOG: u32 = 4096;

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let engine = std::env::args().nth(1).ok_or("usage: bare_proxy ENGINE")?.parse()?;
    let socket = TcpSocket::new_v4()?;
    socket.bind(([127, 0, 0, 1], 0).into())?;
    let listener = socket.listen(BACKLOG)?;
    println!("{}", listener.local_addr()?);
    loop {
        let (client, _) = listener.accept().await?;
        client.set_nodelay(true)?;
        tokio::spawn(async move {
            let service = service_fn(move |request| pass(engine, request));
            // A client that leaves is no failure of ours.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(client), service)
                .await;
        });
    }
}

async fn pass(
    engine: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response<Incoming>, Failure> {
    let stream = TcpStream::connect(engine).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?)
}
