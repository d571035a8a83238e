//! Clients that do everything wrong, at every port that there is: they trickle, say nothing, talk nonsense, leave in the middle, reset,
//! or take nothing of what they asked for.
//!
//! None of them may keep another from being served, or leave anything behind in the server. What they send follows from the seed.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use socket2::{Domain, SockRef, Socket, Type};

use super::load::question;
use super::signs::local;

/// The gateway and its operators' side, both hint servers, both dashboards, both of the fleet, and the longest that each has to say.
const PORTS: [(u16, &str); 8] = [
    (8080, ""),
    (9901, "/metrics"),
    (9000, "/v1/events"),
    (9001, "/v1/events"),
    (8501, "/api/events"),
    (8502, "/api/events"),
    (9003, "/metrics"),
    (9004, "/metrics"),
];

/// Of each kind at each port, and in the crowds before processes are warm. What is kept of the largest crowd so far, each thread keeps of
/// its own part of it, so of crowds that are alike now and then one is the largest. After larger ones that is rarer.
const EACH: usize = 3;
const EACH_OF_CROWD: usize = 2 * EACH;

/// Between two bytes of a trickle.
const TRICKLE: Duration = Duration::from_millis(250);

/// Tokens of a stream that nobody reads: more than all buffers hold.
const UNREAD: u32 = 5000;

#[derive(Clone, Copy)]
enum Kind {
    /// A byte of a head now and then.
    SlowLoris,
    /// A connection, and nothing else.
    Silent,
    /// What is no HTTP.
    Garbage,
    /// Half a head, half a body; then closes its side.
    Half,
    /// Resets in the middle of an answer.
    Reset,
    /// Asks for a stream and opens no window for it.
    ZeroWindow,
}

const KINDS: [Kind; 6] =
    [Kind::SlowLoris, Kind::Silent, Kind::Garbage, Kind::Half, Kind::Reset, Kind::ZeroWindow];

/// Lets them all loose until `end`. To be called in the namespace of the parts. The ports at which nobody got a connection.
pub(super) fn clients(seed: u64, is_crowd: bool, end: Instant) -> Vec<u16> {
    let each = if is_crowd { EACH_OF_CROWD } else { EACH };
    let connected: [AtomicUsize; PORTS.len()] = Default::default();
    std::thread::scope(|scope| {
        for ((port, path), connected) in PORTS.into_iter().zip(&connected) {
            for (number, kind) in KINDS.into_iter().enumerate() {
                scope.spawn(move || {
                    let seed = seed ^ (u64::from(port) << 16 | number as u64);
                    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
                    while Instant::now() < end {
                        if let Ok(open) = connections(kind, each, local(port)) {
                            connected.fetch_add(open.len(), Ordering::Relaxed);
                            // That they are thrown out is as it should be.
                            let _ = clients_of(kind, open, (port, path), &mut random, end);
                        }
                        std::thread::sleep(TRICKLE);
                    }
                });
            }
        }
    });
    let lonely =
        PORTS.into_iter().zip(connected).filter(|(_, count)| count.load(Ordering::Relaxed) == 0);
    lonely.map(|((port, _), _)| port).collect()
}

fn connections(kind: Kind, each: usize, target: SocketAddr) -> std::io::Result<Vec<TcpStream>> {
    let mut open = Vec::with_capacity(each);
    for _ in 0..each {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        if matches!(kind, Kind::ZeroWindow) {
            // The kernel has a least size, which is small enough.
            socket.set_recv_buffer_size(1)?;
        }
        socket.connect_timeout(&target.into(), Duration::from_secs(1))?;
        socket.set_read_timeout(Some(TRICKLE))?;
        socket.set_write_timeout(Some(TRICKLE))?;
        open.push(TcpStream::from(socket));
    }
    Ok(open)
}

fn clients_of(
    kind: Kind,
    mut open: Vec<TcpStream>,
    (port, path): (u16, &str),
    random: &mut Xoshiro256PlusPlus,
    end: Instant,
) -> std::io::Result<()> {
    let target = local(port);
    let body = r#"{"model": "netdiag-demo", "prom"#;
    let half = format!("POST /v1/completions HTTP/1.1\r\nHost: {target}\r\nContent-Length: 9999");
    for connection in &mut open {
        match kind {
            Kind::SlowLoris => connection.write_all(b"GET / HTTP/1.1\r\nX-Slow: ")?,
            Kind::Silent => {}
            Kind::Garbage => {
                let bytes: Vec<u8> =
                    std::iter::repeat_with(|| random.random()).take(4096).collect();
                connection.write_all(&bytes)?;
            }
            Kind::Half => {
                let text =
                    if random.random() { half.clone() } else { format!("{half}\r\n\r\n{body}") };
                connection.write_all(text.as_bytes())?;
                connection.shutdown(std::net::Shutdown::Write)?;
            }
            Kind::Reset | Kind::ZeroWindow => {
                let asked = format!("GET {path} HTTP/1.1\r\nHost: {target}\r\n\r\n");
                let text = if path.is_empty() { question(target, UNREAD) } else { asked };
                connection.write_all(text.as_bytes())?;
            }
        }
    }
    match kind {
        Kind::SlowLoris => {
            while Instant::now() < end {
                std::thread::sleep(TRICKLE);
                for connection in &mut open {
                    connection.write_all(b"x")?;
                }
            }
        }
        Kind::Silent | Kind::ZeroWindow => {
            std::thread::sleep(end.saturating_duration_since(Instant::now()));
        }
        Kind::Reset => {
            let mut some = [0; 256];
            for connection in &mut open {
                let _ = connection.read(&mut some);
                SockRef::from(&*connection).set_linger(Some(Duration::ZERO))?;
            }
        }
        Kind::Garbage | Kind::Half => {
            let mut answer = [0; 4096];
            for connection in &mut open {
                while connection.read(&mut answer).is_ok_and(|read| read > 0) {}
            }
        }
    }
    Ok(())
}
