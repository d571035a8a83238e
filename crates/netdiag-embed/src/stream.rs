//! One stream: a pacer and the socket that tells it.
//!
//! The descriptor is a duplicate, because whoever owns the socket (an HTTP library, mostly) gives it away for as long as it serves.
//!
//! Invariants: a wait that is dropped has admitted nothing; waiting ends when the connection does.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use netdiag_pacer::{Admission, Load, Need, Pacer, Report, State, TpsRange};
use netdiag_telemetry::{FlowKey, FlowSnapshot, Tps};

use crate::pacing::Pacing;
use crate::patience::Patience;

/// The kernel's longest pause between two tries while the client is silent, so that a link that is back is found out within it: the
/// least that Linux takes. Its own pauses double up to two minutes: after a silence of four seconds the next is as long as that.
const RETRY: Duration = Duration::from_secs(1);

/// How often a stream is looked at that has nothing under way: the kernel has nothing new to say of it. Long after a tick, and well
/// within the gap across which the pacer still compares.
const IDLE_LOOK: Duration = Duration::from_secs(1);

/// Why nothing more can be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Gone {
    /// The connection is over.
    #[error("the connection to the client is closed")]
    Closed,
    /// The client has vanished without closing it.
    #[error("the client has acknowledged nothing for over 30 s")]
    Lost,
}

/// A stream's share of [`Pacing`]. Dropping it takes the stream out.
#[derive(Debug)]
pub struct StreamPacer {
    pacing: Pacing,
    number: u64,
    stream: Arc<Stream>,
}

#[derive(Debug)]
pub(crate) struct Stream {
    socket: OwnedFd,
    key: FlowKey,
    /// The longest pause between two tries as the connection had it; `None` where this kernel cannot be told another.
    retry: Option<Duration>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    pacer: Pacer,
    /// When it last asked.
    asked: Duration,
    /// Bytes acknowledged, as last heard.
    acked: u64,
    is_closed: bool,
    /// When the socket was last looked at.
    looked: Duration,
    /// All that was handed on until then had arrived, and nothing was since.
    is_idle: bool,
    /// The kernel was told to try every [`RETRY`].
    is_urged: bool,
}

impl StreamPacer {
    pub(crate) fn new(pacing: Pacing, number: u64, stream: Arc<Stream>) -> Self {
        Self { pacing, number, stream }
    }

    /// Whether `tokens` more may be generated now. If so they count; say what became of them with [`StreamPacer::on_sent`]. If not, the
    /// server is taken to wait until it asks again.
    pub fn admit(&self, tokens: u32) -> Admission {
        self.pacing.tick_if_due();
        let admission = self.stream.admit(self.pacing.now(), tokens);
        if admission != Admission::Hold || !self.stream.hear() {
            return admission;
        }
        let admission = self.stream.admit(self.pacing.now(), tokens);
        if admission != Admission::Hold || !self.stream.is_waking() {
            return admission;
        }
        self.pacing.wake(&self.stream);
        self.stream.admit(self.pacing.now(), tokens)
    }

    /// Waits until `tokens` more may be generated. They count from then on; a wait that is dropped counts nothing.
    ///
    /// # Errors
    ///
    /// Nothing can be delivered any more.
    pub async fn admitted(&self, tokens: u32) -> Result<(), Gone> {
        let mut patience = Patience::new();
        let _waiting = Waiting(self);
        while let Some(pause) = self.attempt(tokens, &mut patience)? {
            tokio::time::sleep(pause).await;
        }
        Ok(())
    }

    /// The same on a thread.
    ///
    /// # Errors
    ///
    /// Nothing can be delivered any more.
    pub fn admitted_blocking(&self, tokens: u32) -> Result<(), Gone> {
        let mut patience = Patience::new();
        let _waiting = Waiting(self);
        while let Some(pause) = self.attempt(tokens, &mut patience)? {
            std::thread::sleep(pause);
        }
        Ok(())
    }

    /// `tokens` of those admitted were handed on as `bytes` of text. Those that have no text (the end of a text, a hidden thought) are
    /// handed on as none.
    pub fn on_sent(&self, tokens: u32, bytes: u64) {
        let mut inner = self.stream.inner();
        inner.is_idle = false;
        inner.pacer.on_sent(tokens, bytes);
    }

    /// What limits the stream, as it was last looked at.
    pub fn state(&self) -> State {
        self.stream.inner().pacer.carry().state()
    }

    /// It may have so many tokens/s of the engine from now on, for those who share an engine, or a connection, themselves. Where
    /// [`crate::Settings::capacity`] is given, the next tick decides anew.
    pub fn grant(&self, rate: f64) {
        self.stream.grant(self.pacing.now(), rate);
    }

    /// What is known of the stream.
    pub fn report(&self) -> Report {
        self.pacing.tick_if_due();
        self.stream.report()
    }

    /// Which connection it is.
    pub fn key(&self) -> FlowKey {
        self.stream.key
    }

    /// Why nothing more can be delivered, if so.
    pub fn gone(&self) -> Option<Gone> {
        self.stream.gone()
    }

    /// The client has been silent for so long that it has vanished.
    pub fn is_lost(&self) -> bool {
        self.gone() == Some(Gone::Lost)
    }

    fn attempt(&self, tokens: u32, patience: &mut Patience) -> Result<Option<Duration>, Gone> {
        let admission = self.admit(tokens);
        match self.gone() {
            Some(gone) if admission != Admission::Now => Err(gone),
            _ => Ok(patience.pause(admission, self.pacing.tick_length())),
        }
    }
}

/// Somebody waits for admission, until this is dropped: with the wait that is not wanted any more, too.
struct Waiting<'a>(&'a StreamPacer);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.stream.inner().pacer.end_wait(self.0.pacing.now());
    }
}

impl Drop for StreamPacer {
    fn drop(&mut self) {
        self.pacing.remove(self.number);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // The end of the stream may still be under way when its socket is closed.
        let is_urged = self.inner().is_urged;
        self.urge(is_urged, false);
    }
}

impl Stream {
    pub(crate) fn open(
        socket: impl AsFd,
        range: TpsRange,
        reading: Tps,
        now: Duration,
    ) -> io::Result<Self> {
        let socket = socket.as_fd().try_clone_to_owned()?;
        let seen = netdiag_tcpinfo::snapshot(&socket)?;
        // Kernels before 6.15 cannot be told: there the stream goes on later, and that is all.
        let retry = netdiag_tcpinfo::longest_retry(&socket).ok();
        let mut inner = Inner {
            pacer: Pacer::new(range, reading, now),
            asked: now,
            acked: 0,
            is_closed: false,
            looked: now,
            is_idle: false,
            is_urged: false,
        };
        inner.see(now, &seen);
        Ok(Self { socket, key: seen.key, retry, inner: Mutex::new(inner) })
    }

    pub(crate) fn key(&self) -> FlowKey {
        self.key
    }

    /// Whether the connection had, when this came, what another handle sets during a silence.
    pub(crate) fn came_in_a_silence(&self) -> bool {
        self.retry.is_some_and(|retry| retry <= RETRY)
    }

    /// What the connection had is what this other handle of it found.
    pub(crate) fn had(&mut self, other: &Self) {
        self.retry = other.retry;
    }

    pub(crate) fn report(&self) -> Report {
        self.inner().pacer.report()
    }

    /// Looks at the socket. What it needs of the engine, unless it has been quiet for `quiet`.
    pub(crate) fn observe(&self, now: Duration, load: Load, quiet: Duration) -> Option<Need> {
        let is_due = {
            let inner = self.inner();
            !inner.is_idle || now.saturating_sub(inner.looked) >= IDLE_LOOK
        };
        let seen = is_due.then(|| netdiag_tcpinfo::snapshot_as(self.key, &self.socket));
        let mut inner = self.inner();
        inner.pacer.set_load(load);
        match seen {
            Some(Ok(seen)) => {
                inner.see(now, &seen);
                let is_silent = inner.is_silent(&seen);
                self.urge(inner.is_urged, is_silent);
                inner.is_urged = is_silent;
            }
            // It was a TCP socket when it came; one that cannot be asked any more is none.
            Some(Err(_)) => inner.is_closed = true,
            None => {}
        }
        let is_quiet = inner.is_closed || now.saturating_sub(inner.asked) > quiet;
        (!is_quiet).then(|| inner.pacer.need())
    }

    /// Has the kernel try every [`RETRY`] while a client is silent, and at its own pace otherwise. Said again at every look, since who held
    /// this socket before may have let go of it only now, and taken back what is not theirs any more.
    fn urge(&self, is_urged: bool, is_silent: bool) {
        // One that is as short already is not ours to lengthen.
        let Some(retry) = self.retry.filter(|&retry| retry > RETRY) else { return };
        // A socket that does not take it is closed, which the next look at it tells.
        let _ = match (is_urged, is_silent) {
            (_, true) => netdiag_tcpinfo::set_longest_retry(&self.socket, RETRY),
            (true, false) => netdiag_tcpinfo::restore_longest_retry(&self.socket, retry),
            (false, false) => Ok(()),
        };
    }

    pub(crate) fn grant(&self, now: Duration, rate: f64) {
        self.inner().pacer.grant(now, rate);
    }

    fn admit(&self, now: Duration, tokens: u32) -> Admission {
        let mut inner = self.inner();
        inner.asked = inner.asked.max(now);
        if std::mem::take(&mut inner.is_idle) {
            // Nobody has looked meanwhile, and the time so far was not that of what comes now.
            inner.pacer.observe_idle(now);
        }
        inner.pacer.admit(now, tokens)
    }

    /// Asks the kernel what has been acknowledged; whether that is more than before.
    fn hear(&self) -> bool {
        let heard = netdiag_tcpinfo::read(&self.socket);
        let mut inner = self.inner();
        let Ok(info) = heard else {
            inner.is_closed = true;
            return false;
        };
        inner.is_closed = info.is_closed();
        let acked = info.counters().bytes_acked;
        let is_more = acked > inner.acked;
        inner.acked = acked;
        inner.pacer.acknowledge(acked);
        is_more
    }

    /// It was held and is not any more, but has no share of the engine yet.
    fn is_waking(&self) -> bool {
        let inner = self.inner();
        let was_held = matches!(inner.pacer.carry().state(), State::Stalled | State::Reader);
        was_held && !inner.pacer.is_held()
    }

    fn gone(&self) -> Option<Gone> {
        let inner = self.inner();
        if inner.is_closed {
            Some(Gone::Closed)
        } else {
            inner.pacer.is_lost().then_some(Gone::Lost)
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn see(&mut self, now: Duration, seen: &FlowSnapshot) {
        self.acked = seen.counters.bytes_acked;
        self.is_closed = seen.closed;
        self.looked = now;
        self.pacer.observe(now, seen);
        // What the HTTP library still has may go out at any time, and the kernel knows nothing of it.
        let has_none = self.pacer.under_way() < 1.0;
        self.is_idle = has_none && self.pacer.carry().state() == State::Idle;
    }

    /// Data is out and nothing is heard. A shut window is no silence: then nothing is out, and the kernel probes
    /// (see [`netdiag_tcpinfo::restore_longest_retry`]).
    fn is_silent(&self, seen: &FlowSnapshot) -> bool {
        let is_out = seen.liveness.is_some_and(|live| live.unacked_segs > 0);
        is_out && self.pacer.carry().state() == State::Stalled
    }
}
