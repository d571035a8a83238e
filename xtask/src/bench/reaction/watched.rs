//! A server that knows nothing of pacing, or does what the hints say, and `netdiag up` beside it.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::anyhow;
use serde_json::Value;

use super::stage::{EVENT, PATIENCE, Retries, STEP, Stage};
use super::{Silence, Stop};
use crate::bench::up::Asking;

/// How often hints are asked for.
const ASK: Duration = Duration::from_millis(10);

/// The stream of a server; over when dropped.
struct Stream {
    over: Arc<AtomicBool>,
    /// What the hints say, for a server that heeds them.
    held: Arc<AtomicBool>,
}

impl Stream {
    fn start(mut server: TcpStream, heeds: bool) -> Self {
        let (over, held) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (stop, hold) = (Arc::clone(&over), Arc::clone(&held));
        std::thread::spawn(move || {
            let (began, mut turns) = (Instant::now(), 0);
            while !stop.load(Ordering::Relaxed) {
                let is_due = !heeds || !hold.load(Ordering::Relaxed);
                if is_due && server.write_all(EVENT).is_err() {
                    return;
                }
                turns += 1;
                std::thread::sleep((STEP * turns).saturating_sub(began.elapsed()));
            }
        });
        Self { over, held }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // It may be in a write, which ends with its connection.
        self.over.store(true, Ordering::Relaxed);
    }
}

/// Asks for the stream's hint until `is_so`, or until `end`; when that was.
fn until(
    asking: &mut Asking,
    path: &str,
    end: Instant,
    mut is_so: impl FnMut(&Value) -> bool,
) -> anyhow::Result<Option<Instant>> {
    while Instant::now() < end {
        let turn = Instant::now();
        if is_so(&asking.get(path)?) {
            return Ok(Some(Instant::now()));
        }
        std::thread::sleep(ASK.saturating_sub(turn.elapsed()));
    }
    Ok(None)
}

/// A silence on the link of this number.
pub(super) fn silence(stage: &Stage, place: usize, number: usize) -> anyhow::Result<Silence> {
    let retries = Retries::ALL[number % Retries::ALL.len()];
    let connection = stage.connect(place, number, retries, None)?;
    let stream = Stream::start(connection.server.try_clone()?, (number / 3).is_multiple_of(2));
    let mut asking = Asking::connect(stage.up.hints)?;
    let path = format!("/v1/hint?peer={}", connection.client.address()?);
    let is_held = |hint: &Value| {
        let is_held = hint["hold"] == true;
        stream.held.store(is_held, Ordering::Relaxed);
        is_held
    };
    until(&mut asking, &path, Instant::now() + connection.warm_up, |hint| {
        is_held(hint);
        false
    })?;
    let since = connection.silence()?;
    let end = since + connection.silence;
    let held = until(&mut asking, &path, end, is_held)?;
    let given_up = until(&mut asking, &path, end, |hint| held.is_some() && !is_held(hint))?;
    let acked = connection.acked()?;
    let back = connection.restore()?;
    let first = connection.first_ack(acked)?;
    let resumed = until(&mut asking, &path, back + PATIENCE, |hint| !is_held(hint))?;
    let first =
        first.join().map_err(|_| anyhow!("the thread that waits for an ACK panicked"))??;
    let resumed = resumed.map_or(PATIENCE, |resumed| resumed.saturating_duration_since(first));
    Ok(Silence {
        retries,
        held: held.map_or(PATIENCE, |held| held - since),
        heard: first - back,
        resumed: resumed.saturating_sub(stage.rtt(place)),
        wavered: given_up.is_some(),
    })
}

/// A reader that stops at the end of the link of this number.
pub(super) fn stop(stage: &Stage, place: usize, number: usize) -> anyhow::Result<Stop> {
    let connection = stage.connect_small(place, number)?;
    let _stream = Stream::start(connection.server.try_clone()?, false);
    let mut asking = Asking::connect(stage.up.hints)?;
    let path = format!("/v1/hint?peer={}", connection.client.address()?);
    std::thread::sleep(connection.warm_up);
    let since = Instant::now();
    connection.client.limit(0);
    let shut = connection.window_shut()?;
    let is_reader = |hint: &Value| hint["state"] == "reader";
    let named = until(&mut asking, &path, shut + PATIENCE, is_reader)?;
    let named = named.map_or(PATIENCE, |named| named - shut);
    Ok(Stop { shut: shut - since, named })
}
