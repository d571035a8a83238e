//! Packets through a lab: stamped one by one, or as many as the link carries.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use netdiag_lab::{Direction, Lab, LinkSpec};
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_tcp_congestion};

/// The socket's buffer, bytes: what comes while the reader waits for a core must not be lost there.
const BUFFER: usize = 4 << 20;

/// How long after the last packet another may come: longer than the longest delay here.
const PATIENCE: Duration = Duration::from_millis(700);

/// A packet sent from the server to the client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet {
    /// Both since the first packet's turn.
    pub(super) sent: Duration,
    pub(super) came: Option<Duration>,
}

/// Puts the calling thread, and those it starts, before others: what is measured is the link, not the wait for a core among
/// compilers.
pub(super) fn hurry() {
    let _ = rustix::process::setpriority_process(None, -20);
}

/// Sends packets to the first client with a gap in between. Times are since the call.
pub(super) fn one_way(lab: &Lab, packets: usize, gap: Duration) -> anyhow::Result<Vec<Packet>> {
    let start = Instant::now();
    let (server, client) = sockets(lab)?;
    let to = client.local_addr()?;
    client.set_read_timeout(Some(PATIENCE))?;
    let receiver = std::thread::spawn(move || {
        let mut came = HashMap::new();
        let mut number = [0; 8];
        while client.recv(&mut number).is_ok() {
            came.insert(u64::from_ne_bytes(number), start.elapsed());
        }
        came
    });
    let begin = start.elapsed();
    let mut sent = Vec::with_capacity(packets);
    for number in 0..packets {
        let due = begin + gap * number as u32;
        std::thread::sleep(due.saturating_sub(start.elapsed()));
        sent.push(start.elapsed());
        server.send_to(&(number as u64).to_ne_bytes(), to)?;
    }
    let came = receiver.join().map_err(|_| anyhow!("the receiving thread panicked"))?;
    let packet = |(number, sent)| Packet { sent, came: came.get(&(number as u64)).copied() };
    Ok(sent.into_iter().enumerate().map(packet).collect())
}

/// Bits per second of IP packets that a TCP connection gets from the server to the client.
pub(super) fn saturated_by_tcp(lab: &Lab, time: Duration) -> anyhow::Result<f64> {
    let address = SocketAddr::new(lab.server_ip(), 0);
    let listener = lab.on_server(|| TcpListener::bind(address))??;
    let target = listener.local_addr()?;
    let mut client = lab.on_client(|| TcpStream::connect(target))??;
    let (mut server, _) = listener.accept()?;
    // The host's own may be BBR, which keeps off the last percents of a link.
    set_tcp_congestion(&server, "reno")?;
    let writer = std::thread::spawn(move || while server.write_all(&[0; 1 << 16]).is_ok() {});
    client.set_read_timeout(Some(Duration::from_secs(10)))?;
    let reading = client.try_clone()?;
    let reader = std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while (&reading).read(&mut buffer).is_ok_and(|read| read > 0) {}
    });
    std::thread::sleep(Duration::from_secs(2));
    let rate = received_for(lab, time);
    client.shutdown(std::net::Shutdown::Both)?;
    for thread in [writer, reader] {
        thread.join().map_err(|_| anyhow!("a thread of the connection panicked"))?;
    }
    // Reads what was on its way, so that the next measurement begins with nothing.
    let _ = client.read(&mut [0]);
    rate
}

/// Bits per second of IP packets that reach the client when the link becomes `down` while more is sent than it carries.
pub(super) fn saturated_by_udp(lab: &Lab, down: &LinkSpec, time: Duration) -> anyhow::Result<f64> {
    /// More than the traces here carry in any second: 36 Mbit/s of full packets.
    const GAP: Duration = Duration::from_micros(333);
    let (server, client) = sockets(lab)?;
    let to = client.local_addr()?;
    let over = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&over);
    let sender = std::thread::spawn(move || {
        let (start, mut sent) = (Instant::now(), 0);
        while !stop.load(Ordering::Relaxed) && server.send_to(&[0; 1472], to).is_ok() {
            sent += 1;
            std::thread::sleep((GAP * sent).saturating_sub(start.elapsed()));
        }
    });
    std::thread::sleep(Duration::from_millis(100));
    lab.set_direction(Direction::Down, down)?;
    // What is under way from before.
    std::thread::sleep(down.delay());
    let rate = received_for(lab, time);
    over.store(true, Ordering::Relaxed);
    sender.join().map_err(|_| anyhow!("the sending thread panicked"))?;
    rate
}

/// Bits per second that the client's interface receives in this time.
fn received_for(lab: &Lab, time: Duration) -> anyhow::Result<f64> {
    let (start, before) = (Instant::now(), received(lab)?);
    std::thread::sleep(time);
    let (bytes, elapsed) = (received(lab)? - before, start.elapsed());
    Ok(bytes as f64 * 8.0 / elapsed.as_secs_f64())
}

/// Bytes of IP packets that the client's interface has received.
fn received(lab: &Lab) -> anyhow::Result<u64> {
    let table = lab.on_client(|| std::fs::read_to_string("/proc/thread-self/net/dev"))??;
    let line = table.lines().find(|line| line.trim_start().starts_with("netdiag"));
    let (_, counters) = line.and_then(|line| line.split_once(':')).context("no interface")?;
    Ok(counters.split_whitespace().next().context("no counter")?.parse()?)
}

/// UDP sockets of the server and of the first client.
fn sockets(lab: &Lab) -> anyhow::Result<(UdpSocket, UdpSocket)> {
    let (client_ip, server_ip) = (lab.client_ip(), lab.server_ip());
    let client = lab.on_client(|| UdpSocket::bind((client_ip, 0)))??;
    let server = lab.on_server(|| UdpSocket::bind((server_ip, 0)))??;
    set_socket_recv_buffer_size(&client, BUFFER)?;
    Ok((server, client))
}
