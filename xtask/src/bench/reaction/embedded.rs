//! A server that asks before it generates, for its own sockets: what it sees is when it is let go on, and when not.

use std::io::Write;
use std::net::TcpStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::anyhow;
use netdiag_embed::{Pacing, Settings, StreamPacer};
use netdiag_pacer::{State, TpsRange};
use netdiag_telemetry::Tps;

use super::stage::{EVENT, PATIENCE, Retries, STEP, Stage};
use super::{Silence, Stop};

/// How often its state is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// One for all connections, as a server has it.
pub(super) fn pacing() -> anyhow::Result<Pacing> {
    let range = TpsRange::try_new(Tps::try_new(5.0)?, Tps::try_new(80.0)?)?;
    Ok(Pacing::try_new(Settings::new(range, Tps::try_new(16.0)?))?)
}

/// When each token was let through.
type Admissions = Arc<Mutex<Vec<Instant>>>;

/// Generates until the connection ends.
fn stream(
    pacing: &Pacing,
    mut server: TcpStream,
) -> anyhow::Result<(Arc<StreamPacer>, Admissions)> {
    let pacer = Arc::new(pacing.stream(&server)?);
    let admissions = Admissions::default();
    let (asking, note) = (Arc::clone(&pacer), Arc::clone(&admissions));
    std::thread::spawn(move || {
        while asking.admitted_blocking(1).is_ok() {
            note.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
            if server.write_all(EVENT).is_err() {
                return;
            }
            asking.on_sent(1, EVENT.len() as u64);
            std::thread::sleep(STEP);
        }
    });
    Ok((pacer, admissions))
}

/// A silence on the link of this number.
pub(super) fn silence(
    stage: &Stage,
    pacing: &Pacing,
    place: usize,
    number: usize,
) -> anyhow::Result<Silence> {
    // As the kernel has it; the library bounds them where it can.
    let retries = Retries::Doubling;
    let connection = stage.connect(place, number, retries, None)?;
    let (_pacer, admissions) = stream(pacing, connection.server.try_clone()?)?;
    std::thread::sleep(connection.warm_up);
    let since = connection.silence()?;
    std::thread::sleep(connection.silence);
    let acked = connection.acked()?;
    let back = connection.restore()?;
    let first = connection.first_ack(acked)?;
    let first =
        first.join().map_err(|_| anyhow!("the thread that waits for an ACK panicked"))??;
    // It goes on within this, or has not gone on.
    let end = first + PATIENCE;
    let admitted = || admissions.lock().unwrap_or_else(PoisonError::into_inner).clone();
    while admitted().last().is_none_or(|last| *last < back) && Instant::now() < end {
        std::thread::sleep(LOOK);
    }
    let all = admitted();
    // After its last token it asked at once, and was not let go on before the link was back.
    let held = all.iter().rfind(|at| **at < back).copied().unwrap_or(since);
    let resumed = all.iter().find(|at| **at >= back).copied().unwrap_or(end);
    let resumed = resumed.saturating_duration_since(first);
    // Longer than a token takes at the least rate, and then another.
    let pause = Duration::from_millis(250);
    let in_silence = all.windows(2).filter(|pair| pair[0] >= since && pair[1] < back);
    let wavered = in_silence.filter(|pair| pair[1] - pair[0] > pause).count() > 0;
    Ok(Silence {
        retries,
        held: held.saturating_duration_since(since),
        heard: first - back,
        resumed: resumed.saturating_sub(stage.rtt(place)),
        wavered,
    })
}

/// A reader that stops at the end of the link of this number.
pub(super) fn stop(
    stage: &Stage,
    pacing: &Pacing,
    place: usize,
    number: usize,
) -> anyhow::Result<Stop> {
    let connection = stage.connect_small(place, number)?;
    let (pacer, _) = stream(pacing, connection.server.try_clone()?)?;
    std::thread::sleep(connection.warm_up);
    let since = Instant::now();
    connection.client.limit(0);
    let shut = connection.window_shut()?;
    while pacer.report().state != State::Reader && shut.elapsed() < PATIENCE {
        std::thread::sleep(LOOK);
    }
    Ok(Stop { shut: shut - since, named: shut.elapsed() })
}
