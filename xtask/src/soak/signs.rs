//! Signs of life: what each part is there for, asked for ten times a second by a thread of its own.
//!
//! A fault is over for the user when every sign is there again, and so recovery is the time until the last of them is and stays.
//! Invariant: an answer counts when it has come, so that one who does not answer is not well meanwhile.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::ChildStdout;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use netdiag_lab::Lab;
use serde_json::Value;

use super::load;

/// Between two questions.
const EVERY: Duration = Duration::from_millis(100);

/// Without an answer for so long there is none.
const PATIENCE: Duration = Duration::from_secs(1);

/// A sign that was not looked for in so long is none: who looks has two to ask at most, and hangs.
const BLIND: Duration = Duration::from_secs(3);

/// A hint older than this is none: ten of those that come, and half of what makes it stale.
const OLDEST_HINT: f64 = 1.0;

/// The same on the bus: as much, where the host's hint comes ten times a second.
const BUS_SILENCE: Duration = Duration::from_secs(1);

/// The sign that is looked for at a link's far end.
const OVER_LINK: &str = "streams over a link";

/// A sign, and when it was there.
pub(super) struct Sign {
    pub(super) name: &'static str,
    seen: Mutex<Vec<(Instant, bool)>>,
}

/// What is found of a sign since a fault.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Recovery {
    /// It is there, for good since so long after the end of the fault: not at all, if it was never missed after that.
    After(Duration),
    /// It was not there when last looked.
    Never,
}

impl Sign {
    fn new(name: &'static str) -> Arc<Self> {
        Arc::new(Self { name, seen: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Instant, bool)>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, is_there: bool) {
        self.lock().push((Instant::now(), is_there));
    }

    /// Forgets what was before the next fault.
    pub(super) fn forget(&self) {
        let mut seen = self.lock();
        let last = seen.pop();
        *seen = last.into_iter().collect();
    }

    /// Whether it is there now.
    pub(super) fn is_there(&self) -> bool {
        self.lock().last().is_some_and(|&(at, is_there)| is_there && at.elapsed() < BLIND)
    }

    /// How it came back from a fault that ended at `restored`.
    pub(super) fn recovery(&self, restored: Instant) -> Recovery {
        recovery(&self.lock(), restored, Instant::now())
    }
}

fn recovery(seen: &[(Instant, bool)], restored: Instant, now: Instant) -> Recovery {
    if seen.last().is_none_or(|&(at, _)| now - at >= BLIND) {
        return Recovery::Never;
    }
    let missed = seen.iter().rposition(|&(_, is_there)| !is_there);
    let back = match missed {
        None => return Recovery::After(Duration::ZERO),
        Some(missed) => seen.get(missed + 1),
    };
    back.map_or(Recovery::Never, |&(at, _)| Recovery::After(at.saturating_duration_since(restored)))
}

/// Those who look, ended with the soak.
pub(super) struct Watching {
    pub(super) signs: Vec<Arc<Sign>>,
    bus: Arc<Mutex<Option<Instant>>>,
    done: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Watching {
    /// Starts a thread for each sign, in the namespace of the parts.
    pub(super) fn start(lab: &Lab) -> anyhow::Result<Self> {
        type Ask = Box<dyn FnMut() -> bool + Send>;
        let over_link = SocketAddr::new(lab.server_ip(), load::PORT);
        let bus: Arc<Mutex<Option<Instant>>> = Arc::default();
        let heard = Arc::clone(&bus);
        let asks: Vec<(&'static str, Ask)> = vec![
            ("hints of up", Box::new(|| hint(9000).is_ok())),
            ("hints of serve", Box::new(|| hint(9001).is_ok())),
            ("hints on the bus", Box::new(move || lock(&heard).is_some_and(is_recent))),
            ("fleet", Box::new(|| [9003, 9004].into_iter().any(|port| leads(port).is_ok()))),
            ("streams", Box::new(|| load::token(local(load::PORT), PATIENCE))),
            (OVER_LINK, Box::new(move || load::token(over_link, PATIENCE))),
            ("dashboard", Box::new(|| [8501, 8502].into_iter().all(|port| lives(port).is_ok()))),
        ];
        let mut watching =
            Self { signs: Vec::new(), bus, done: Arc::default(), threads: Vec::new() };
        for (name, mut ask) in asks {
            let sign = Sign::new(name);
            watching.signs.push(Arc::clone(&sign));
            let done = Arc::clone(&watching.done);
            let look = move || {
                while !done.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    sign.note(ask());
                    std::thread::sleep(EVERY.saturating_sub(began.elapsed()));
                }
            };
            // A thread is where it was started.
            let thread = if name == OVER_LINK {
                lab.on_client(|| std::thread::spawn(look))?
            } else {
                lab.on_server(|| std::thread::spawn(look))?
            };
            watching.threads.push(thread);
        }
        Ok(watching)
    }

    /// Listens to what `watch` prints.
    pub(super) fn hear(&mut self, stdout: ChildStdout) {
        let bus = Arc::clone(&self.bus);
        self.threads.push(std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let hint = serde_json::from_str::<Value>(&line).unwrap_or_default();
                if is_good(&hint) {
                    *lock(&bus) = Some(Instant::now());
                }
            }
        }));
    }

    /// Ends the threads; what they listen to must be gone.
    pub(super) fn end(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn lock(at: &Mutex<Option<Instant>>) -> MutexGuard<'_, Option<Instant>> {
    at.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_recent(at: Instant) -> bool {
    at.elapsed() < BUS_SILENCE
}

/// Fresh, and of telemetry.
fn is_good(hint: &Value) -> bool {
    hint["age_seconds"].as_f64().is_some_and(|age| age < OLDEST_HINT) && hint["state"] != "stale"
}

fn hint(port: u16) -> anyhow::Result<()> {
    let hint = get(port, "/v1/hint")?;
    let hint: Value = serde_json::from_str(&hint)?;
    ensure!(is_good(&hint), "{hint}");
    Ok(())
}

/// Leads, and knows of the node with its streams.
fn leads(port: u16) -> anyhow::Result<()> {
    ensure!(is_leader(port)?, "it follows");
    let fleet: Value = serde_json::from_str(&get(port, "/v1/fleet")?)?;
    let node = &fleet["engines"][0]["nodes"][0];
    ensure!(node["node"] == "soak" && node["is_silent"] == false, "{fleet}");
    Ok(())
}

/// Whether this process of the fleet leads. To be asked in the namespace of the parts.
pub(super) fn is_leader(port: u16) -> anyhow::Result<bool> {
    let fleet: Value = serde_json::from_str(&get(port, "/v1/fleet")?)?;
    Ok(fleet["is_leader"] == true)
}

fn lives(port: u16) -> anyhow::Result<()> {
    get(port, "/livez").map(drop)
}

pub(super) fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// The body of an answer with status 200.
fn get(port: u16, path: &str) -> anyhow::Result<String> {
    let mut connection = TcpStream::connect_timeout(&local(port), PATIENCE)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    write!(
        connection,
        "GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    ensure!(head.starts_with("HTTP/1.1 200"), "{head}");
    Ok(body.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recovery_ends_with_the_last_time_that_a_sign_was_missed() {
        let zero = Instant::now();
        let check = |seen: &str, expected: Recovery| {
            // A look each second; the fault ends at 2.
            let at = |second: usize| zero + Duration::from_secs(second as u64);
            let seen: Vec<_> =
                seen.chars().enumerate().map(|(second, c)| (at(second), c == '+')).collect();
            assert_eq!(recovery(&seen, at(2), at(seen.len())), expected, "{seen:?}");
            // Nobody looks any more.
            assert_eq!(recovery(&seen, at(2), at(seen.len() + 2)), Recovery::Never);
        };
        let after = |seconds| Recovery::After(Duration::from_secs(seconds));
        check("+++++", after(0));
        check("-++++", after(0));
        check("+--++", after(1));
        check("+---+", after(2));
        check("+-+-+", after(2));
        check("+++--", Recovery::Never);
        check("", Recovery::Never);
    }
}
