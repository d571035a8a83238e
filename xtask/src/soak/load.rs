//! The load: clients that stream all the time, over emulated links and over loopback, and ten thousand who come and go.
//!
//! What a client may expect is that its stream ends: with `[DONE]`, with an event that says why not, or with its connection. One that
//! neither goes on nor ends is stuck, and that is what the soak looks for. Invariant: every stream that began is counted once.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use netdiag_lab::{Duplex, Lab, LinkSpec};
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use socket2::SockRef;

use super::signs::local;

/// The gateway's.
pub(super) const PORT: u16 = 8080;

/// Streams at once on each link, and on loopback.
const STREAMS: usize = 4;

/// Loopback and the links of [`links`].
pub(super) const PLACES: usize = 4;

/// Tokens of an answer: two to ten seconds of the demo engine's.
const TOKENS: std::ops::RangeInclusive<u32> = 40..=250;

/// The gateway says something every five seconds (`--keep-alive`), and holds nobody for longer than ten (`--hold-max`), so after
/// twice that silence a stream is stuck.
const SILENCE: Duration = Duration::from_secs(20);

/// An answer of 250 tokens at the least rate that anybody is ever given by a hint, 5 tokens/s, twice over.
const LONGEST: Duration = Duration::from_secs(100);

/// How long a client that was refused waits until it asks again.
const REST: Duration = Duration::from_millis(200);

/// Connections that open and close, how many threads do it, and how many each has open at a time.
const FLOWS: usize = 10_000;
const OPENERS: usize = 8;
const OPEN: usize = 64;

/// How streams ended.
#[derive(Default)]
pub(super) struct Tally {
    /// Whole, by place: loopback, then the links.
    pub(super) done: [AtomicU64; PLACES],
    /// With an event or a status that says why.
    pub(super) told: AtomicU64,
    /// With their connection.
    pub(super) broken: AtomicU64,
    /// There was nobody to connect to.
    pub(super) refused: AtomicU64,
    pub(super) stuck: Mutex<Vec<String>>,
}

/// The way a stream has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Done,
    Told,
    Broken,
    Refused,
    Stuck,
}

/// All who stream, until they are told to end.
pub(super) struct Clients {
    pub(super) tally: Arc<Tally>,
    done: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// What the links are like: a near one, one that loses packets, a slow one.
pub(super) fn links() -> anyhow::Result<[Duplex; PLACES - 1]> {
    let ms = Duration::from_millis;
    let near = LinkSpec::delayed(ms(10))?;
    let lossy = LinkSpec::delayed(ms(40))?.with_jitter(ms(5))?.with_loss(0.01)?;
    let slow = LinkSpec::delayed(ms(60))?.with_rate(400_000)?;
    Ok([near.into(), lossy.into(), slow.into()])
}

impl Clients {
    /// Starts them at the far end of each link, and on loopback.
    pub(super) fn start(lab: &Lab, seed: u64) -> anyhow::Result<Self> {
        let mut clients = Self { tally: Arc::default(), done: Arc::default(), threads: Vec::new() };
        let over_links = SocketAddr::new(lab.server_ip(), PORT);
        for number in 0..STREAMS as u64 {
            let client = |target, place: usize| {
                let random =
                    Xoshiro256PlusPlus::seed_from_u64(seed ^ ((place as u64) << 32 | number));
                let (tally, done) = (Arc::clone(&clients.tally), Arc::clone(&clients.done));
                move || stream_on(target, place, random, &tally, &done)
            };
            for (place, link) in (1..).zip(lab.links()) {
                let client = client(over_links, place);
                clients.threads.push(link.on_client(|| std::thread::spawn(client))?);
            }
            let client = client(local(PORT), 0);
            clients.threads.push(lab.on_server(|| std::thread::spawn(client))?);
        }
        Ok(clients)
    }

    /// Lets every stream end, and tells how they did.
    pub(super) fn end(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// One client: a stream after the other.
fn stream_on(
    target: SocketAddr,
    place: usize,
    mut random: Xoshiro256PlusPlus,
    tally: &Tally,
    done: &AtomicBool,
) {
    let begun = Instant::now();
    while !done.load(Ordering::Relaxed) {
        let tokens = random.random_range(TOKENS);
        let began = Instant::now();
        // Told to end, it goes on until its stream is over: that it ends is what is tested.
        let (ending, bytes) = stream(target, tokens, SILENCE, LONGEST);
        let count = match ending {
            Ending::Done => &tally.done[place],
            Ending::Told => &tally.told,
            Ending::Broken => &tally.broken,
            Ending::Refused => &tally.refused,
            Ending::Stuck => {
                let what = format!(
                    "a stream of {tokens} tokens to {target}, begun after {:.0} s: {bytes} bytes in {:.1} s",
                    (began - begun).as_secs_f64(),
                    began.elapsed().as_secs_f64()
                );
                tally.stuck.lock().unwrap_or_else(PoisonError::into_inner).push(what);
                continue;
            }
        };
        count.fetch_add(1, Ordering::Relaxed);
        if ending != Ending::Done {
            std::thread::sleep(REST);
        }
    }
}

/// Whether a stream gives a token, and ends, within this time.
pub(super) fn token(target: SocketAddr, patience: Duration) -> bool {
    stream(target, 1, patience, patience).0 == Ending::Done
}

/// A request for a stream of so many tokens.
pub(super) fn question(target: SocketAddr, tokens: u32) -> String {
    let body = format!(
        r#"{{"model": "netdiag-demo", "prompt": "soak", "max_tokens": {tokens}, "ignore_eos": true, "stream": true}}"#
    );
    format!(
        "POST /v1/completions HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Reads a stream to its end; how that was, and how many bytes came.
fn stream(
    target: SocketAddr,
    tokens: u32,
    silence: Duration,
    longest: Duration,
) -> (Ending, usize) {
    let began = Instant::now();
    let patience = Duration::from_secs(1).min(silence);
    let Ok(mut connection) = TcpStream::connect_timeout(&target, patience) else {
        return (Ending::Refused, 0);
    };
    let asked = connection
        .set_read_timeout(Some(patience.min(Duration::from_millis(500))))
        .and_then(|()| connection.write_all(question(target, tokens).as_bytes()));
    if asked.is_err() {
        return (Ending::Broken, 0);
    }
    let (mut piece, mut end, mut bytes) = ([0; 8192], Vec::new(), 0);
    let (mut last, mut is_told) = (Instant::now(), false);
    loop {
        match connection.read(&mut piece) {
            Ok(0) => return (if is_told { Ending::Told } else { Ending::Broken }, bytes),
            Ok(read) => {
                if bytes == 0 && !piece.starts_with(b"HTTP/1.1 200") {
                    is_told = true;
                }
                bytes += read;
                last = Instant::now();
                // What is looked for may come in two pieces.
                end.extend_from_slice(&piece[..read]);
                if contains(&end, b"data: [DONE]") && !is_told {
                    return (Ending::Done, bytes);
                }
                is_told |= contains(&end, b"\"error\"");
                end.drain(..end.len().saturating_sub(16));
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if last.elapsed() >= silence || began.elapsed() >= longest {
                    return (Ending::Stuck, bytes);
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return (if is_told { Ending::Told } else { Ending::Broken }, bytes),
        }
        if began.elapsed() >= longest {
            return (Ending::Stuck, bytes);
        }
    }
}

fn contains(text: &[u8], what: &[u8]) -> bool {
    text.windows(what.len()).any(|window| window == what)
}

/// Ten thousand connections to the gateway, a part of them at a time: half ask and read the answer, a quarter say nothing, a quarter
/// reset. To be called in the namespace of the parts. Returns how many could not be opened, or were not answered with 200.
pub(super) fn flows() -> anyhow::Result<usize> {
    let opener = |number: usize| {
        let mut open = std::collections::VecDeque::with_capacity(OPEN);
        let mut failed = 0;
        for count in 0..FLOWS / OPENERS {
            if open.len() == OPEN {
                open.pop_front();
            }
            match flow(number + count) {
                Ok(connection) => open.push_back(connection),
                Err(_) => failed += 1,
            }
        }
        failed
    };
    std::thread::scope(|scope| {
        let openers: Vec<_> =
            (0..OPENERS).map(|number| scope.spawn(move || opener(number))).collect();
        let mut failed = 0;
        for opener in openers {
            failed += opener.join().map_err(|_| anyhow!("an opener of flows panicked"))?;
        }
        Ok(failed)
    })
}

fn flow(number: usize) -> std::io::Result<TcpStream> {
    let mut connection = TcpStream::connect_timeout(&local(PORT), Duration::from_secs(5))?;
    match number % 4 {
        0 | 1 => {
            connection.set_read_timeout(Some(Duration::from_secs(5)))?;
            connection.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
            let mut piece = [0; 512];
            let read = connection.read(&mut piece)?;
            if !piece[..read].starts_with(b"HTTP/1.1 200") {
                return Err(ErrorKind::InvalidData.into());
            }
        }
        2 => SockRef::from(&connection).set_linger(Some(Duration::ZERO))?,
        _ => {}
    }
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Says this to whoever asks, and then waits or closes.
    fn server(says: &'static str, closes: bool) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        std::thread::spawn(move || {
            let (mut connection, _) = listener.accept().expect("somebody");
            let mut asked = [0; 4096];
            let _ = connection.read(&mut asked);
            let _ = connection.write_all(says.as_bytes());
            if !closes {
                // Until the client has gone.
                while connection.read(&mut asked).is_ok_and(|read| read > 0) {}
            }
        });
        address
    }

    #[test]
    fn a_stream_that_neither_goes_on_nor_ends_is_stuck() {
        let check = |says, closes, expected| {
            let soon = Duration::from_millis(300);
            assert_eq!(stream(server(says, closes), 1, soon, soon).0, expected, "{says} {closes}");
        };
        check("HTTP/1.1 200 OK\r\n\r\ndata: {}\n\ndata: [DONE]\n\n", false, Ending::Done);
        check("HTTP/1.1 200 OK\r\n\r\ndata: {}\n\n", false, Ending::Stuck);
        check("HTTP/1.1 200 OK\r\n\r\ndata: {}\n\n", true, Ending::Broken);
        check("HTTP/1.1 200 OK\r\n\r\ndata: {\"error\": {}}\n\n", true, Ending::Told);
        check("HTTP/1.1 502 Bad Gateway\r\n\r\n{}", true, Ending::Told);
        check("", false, Ending::Stuck);
        check("", true, Ending::Broken);
    }

    #[test]
    fn nobody_to_connect_to_is_no_broken_stream() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        drop(listener);
        let soon = Duration::from_millis(300);
        assert_eq!(stream(address, 1, soon, soon).0, Ending::Refused);
    }
}
