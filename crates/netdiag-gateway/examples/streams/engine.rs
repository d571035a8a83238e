//! The engine: events on time, to as many streams as there are, by one thread.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;

use crate::Shared;
use crate::reading::{MARK, length_of_body};

/// Connections that may wait to be accepted: thousands come within seconds.
const BACKLOG: u32 = 4096;

const HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n\
                      transfer-encoding: chunked\r\n\r\n";

/// What a health check is answered.
const WELL: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";

/// How soon a stream that has just come gets a place in the schedule, at most.
const IDLE: Duration = Duration::from_millis(1);

/// Starts it; where it listens.
pub(crate) fn start(
    runtime: &tokio::runtime::Runtime,
    shared: &Arc<Shared>,
) -> std::io::Result<SocketAddr> {
    let _inside = runtime.enter();
    let socket = TcpSocket::new_v4()?;
    socket.bind(([127, 0, 0, 1], 0).into())?;
    let listener = socket.listen(BACKLOG)?;
    let address = listener.local_addr()?;
    let (come, coming) = mpsc::channel();
    runtime.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let come = come.clone();
            tokio::spawn(async move {
                // What goes wrong here shows at the client's end.
                let _ = welcome(stream, &come).await;
            });
        }
    });
    let shared = Arc::clone(shared);
    std::thread::Builder::new().name("engine".to_owned()).spawn(move || send(&shared, &coming))?;
    Ok(address)
}

/// Reads a request and hands its connection over.
async fn welcome(
    mut stream: tokio::net::TcpStream,
    come: &mpsc::Sender<TcpStream>,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut request = Vec::new();
    loop {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
        let Some(length) = length_of_body(&request) else { continue };
        if request.starts_with(b"GET ") {
            return stream.write_all(WELL).await;
        }
        if request.ends_with(b"0\r\n\r\n") || length.is_some_and(|whole| request.len() >= whole) {
            break;
        }
    }
    stream.write_all(HEAD).await?;
    // The other end shows if nobody takes it.
    let _ = come.send(stream.into_std()?);
    Ok(())
}

/// Sends every event when it is due. A stream whose client is gone, or takes nothing at all, is left.
fn send(shared: &Shared, coming: &mpsc::Receiver<TcpStream>) {
    let mut streams: Vec<Option<TcpStream>> = Vec::new();
    // The one that is due first on top.
    let mut schedule: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
    loop {
        let pause = schedule.peek().map_or(IDLE, |Reverse((due, _))| {
            Duration::from_nanos(due.saturating_sub(shared.now())).min(IDLE)
        });
        std::thread::sleep(pause);
        while let Ok(stream) = coming.try_recv() {
            if schedule.is_empty() {
                streams.clear();
            }
            let period = shared.period.load(Ordering::Relaxed);
            // Spread over the period, as the steps of many engines are.
            let spread = streams.len() as u64 * period
                / shared.streams.load(Ordering::Relaxed).max(1) as u64;
            let now = shared.now();
            let grid = now - now % period + spread % period;
            let due = if grid < now { grid + period } else { grid };
            schedule.push(Reverse((due, streams.len())));
            streams.push(Some(stream));
        }
        while let Some(&Reverse((due, number))) = schedule.peek()
            && due <= shared.now()
        {
            schedule.pop();
            let Some(Some(stream)) = streams.get_mut(number) else { continue };
            if stream.write_all(event(due, shared.now()).as_bytes()).is_ok() {
                schedule.push(Reverse((due + shared.period.load(Ordering::Relaxed), number)));
            } else {
                streams[number] = None;
            }
        }
    }
}

/// A delta as engines send it, in a chunk of its own.
fn event(due: u64, written: u64) -> String {
    let event = format!(
        "data: {{\"id\":\"chatcmpl-0123456789abcdef\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\
         \"model\":\"none\",\"choices\":[{{\"index\":0,\"delta\":{{{MARK}{due:016x}{written:016x}\"}},\
         \"logprobs\":null,\"finish_reason\":null}}]}}\n\n"
    );
    format!("{:x}\r\n{event}\r\n", event.len())
}
