//! An engine without a model and clients that read it, for `cargo xtask bench gateway`: both ends of what is measured, alone in a
//! process.
//!
//! It prints the address of its engine. Each line of its input, `ADDRESS STREAMS PER_SECOND SECONDS`, is a load: so many clients ask that
//! address for a stream with so many events/s each. When all have had one, `begun` is printed; after the seconds one line of JSON, and the
//! streams end with the next line. Each event says when it was due and when it was written, by the clock that tells when it was read, so
//! that what lies between is the way alone. The engine is one thread that sleeps until the next event is due; the clients are another.
//!
//! Invariant: an event that does not come is noticed, because every stream is asked at the end what it has had last.

// It measures time and talks to another program, which the crate itself never does.
#![allow(clippy::disallowed_methods, clippy::print_stdout)]

mod engine;
mod reading;

use std::error::Error;
use std::io::BufRead as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use reading::Reading;

/// What every client asks for.
const QUESTION: &str =
    r#"{"model":"none","stream":true,"messages":[{"role":"user","content":"Hi"}]}"#;

/// Connections are opened so fast, per second: they are not what is measured.
const RAMP: f64 = 1000.0;

/// For all streams to begin, and for one that is behind to go on.
const PATIENCE: Duration = Duration::from_secs(60);

/// Behind its schedule by so much, an event is late: twice what a reader notices.
const LATE: Duration = Duration::from_secs(1);

/// What all share.
struct Shared {
    began: Instant,
    /// Nanoseconds between two events of a stream.
    period: AtomicU64,
    streams: AtomicUsize,
    /// Clients that have had an event.
    reading: AtomicUsize,
    phase: AtomicUsize,
    waits: Mutex<Vec<Waits>>,
}

/// One event's nanoseconds since it was written, and since it was due.
#[derive(Clone, Copy)]
struct Waits {
    written: u64,
    due: u64,
}

/// What a [`Shared`] is doing.
const BEGINNING: usize = 0;
const MEASURING: usize = 1;

fn main() -> Result<(), Box<dyn Error>> {
    let shared = Arc::new(Shared {
        began: Instant::now(),
        period: AtomicU64::new(1),
        streams: AtomicUsize::new(1),
        reading: AtomicUsize::new(0),
        phase: AtomicUsize::new(BEGINNING),
        waits: Mutex::default(),
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let address = engine::start(&runtime, &shared)?;
    println!("{address}");
    let mut lines = std::io::stdin().lock().lines();
    while let Some(line) = lines.next().transpose()? {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [target, streams, per_second, seconds] = words[..] else {
            return Err("a load is ADDRESS STREAMS PER_SECOND SECONDS".into());
        };
        let seconds = Duration::from_secs_f64(seconds.parse()?);
        let load = load(&shared, target.parse()?, streams.parse()?, per_second.parse()?, seconds);
        let (mut clients, figures) = runtime.block_on(load);
        println!("{figures}");
        lines.next().transpose()?;
        runtime.block_on(clients.shutdown());
    }
    Ok(())
}

/// One load, and what came of it.
async fn load(
    shared: &Arc<Shared>,
    target: SocketAddr,
    streams: usize,
    per_second: f64,
    seconds: Duration,
) -> (JoinSet<std::io::Result<()>>, String) {
    shared.period.store((1e9 / per_second) as u64, Ordering::Relaxed);
    shared.streams.store(streams, Ordering::Relaxed);
    shared.reading.store(0, Ordering::Relaxed);
    shared.phase.store(BEGINNING, Ordering::Relaxed);
    let mut clients = JoinSet::new();
    let start = Instant::now();
    let mut last_seen = Vec::with_capacity(streams);
    for number in 0..streams {
        let at = Duration::from_secs_f64(number as f64 / RAMP);
        tokio::time::sleep(at.saturating_sub(start.elapsed())).await;
        let seen = Arc::new(AtomicU64::new(0));
        last_seen.push(Arc::clone(&seen));
        let shared = Arc::clone(shared);
        clients.spawn(async move { client(&shared, target, &seen).await });
    }
    while shared.reading.load(Ordering::Relaxed) < streams && start.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    shared.waits().clear();
    shared.phase.store(MEASURING, Ordering::Relaxed);
    println!("begun");
    let start = Instant::now();
    tokio::time::sleep(seconds).await;
    let elapsed = start.elapsed().as_secs_f64();
    shared.phase.store(BEGINNING, Ordering::Relaxed);
    let waits = std::mem::take(&mut *shared.waits());
    // What should have come by now and has not is late as well.
    let (now, period) = (shared.now(), shared.period.load(Ordering::Relaxed));
    let newest = now.saturating_sub(period + LATE.as_nanos() as u64);
    let behind = last_seen.iter().filter(|seen| seen.load(Ordering::Relaxed) < newest).count();
    let late = waits.iter().filter(|waits| waits.due > LATE.as_nanos() as u64).count() + behind;
    let quantile = |share: f64, of: fn(&Waits) -> u64| {
        let mut values: Vec<u64> = waits.iter().map(of).collect();
        values.sort_unstable();
        let rank = (share * values.len() as f64).ceil() as usize;
        values.get(rank.saturating_sub(1)).map_or(f64::NAN, |&nanos| nanos as f64 / 1e6)
    };
    let failed = streams - shared.reading.load(Ordering::Relaxed).min(streams);
    let figures = format!(
        r#"{{"events":{},"seconds":{elapsed:.3},"p50_ms":{:.4},"p99_ms":{:.4},"due_p99_ms":{:.4},"late":{late},"failed":{failed}}}"#,
        waits.len(),
        quantile(0.5, |waits| waits.written),
        quantile(0.99, |waits| waits.written),
        quantile(0.99, |waits| waits.due),
    );
    (clients, figures)
}

/// Asks for a stream and reads it until it is told to stop, or the stream ends.
async fn client(shared: &Shared, target: SocketAddr, seen: &AtomicU64) -> std::io::Result<()> {
    let mut stream = timeout(PATIENCE, TcpStream::connect(target)).await??;
    stream.set_nodelay(true)?;
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: {target}\r\nauthorization: Bearer none\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{QUESTION}",
        QUESTION.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut reading = Reading::default();
    let mut buffer = [0; 4096];
    let mut is_first = true;
    loop {
        let length = stream.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        let now = shared.now();
        let mut last = 0;
        reading.take(&buffer[..length], |due, written| {
            last = due;
            if shared.phase.load(Ordering::Relaxed) == MEASURING {
                let (written, due) = (now.saturating_sub(written), now.saturating_sub(due));
                shared.waits().push(Waits { written, due });
            }
        });
        if last > 0 {
            seen.store(last, Ordering::Relaxed);
            if std::mem::take(&mut is_first) {
                shared.reading.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl Shared {
    /// Nanoseconds since the program started.
    fn now(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    fn waits(&self) -> std::sync::MutexGuard<'_, Vec<Waits>> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
