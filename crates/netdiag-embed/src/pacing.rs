//! All streams of one engine: looked at together, and the engine shared among them.
//!
//! Locks are taken for one stream at a time, so that nobody who asks waits for a tick that looks at ten thousand others.
//!
//! Invariants: what the streams that ask for tokens are granted in a tick adds up to the capacity at most; one tick at a time.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::time::{Duration, Instant};

use netdiag_pacer::{Load, Need, Report, TpsRange, plan};
use netdiag_telemetry::{FlowKey, Tps};

use crate::stream::{Stream, StreamPacer};

/// A stream that has not asked for so long generates nothing now (its prompt is being read, or a tool runs) and its share is the
/// others'. Ten ticks: who waits asks at least once in each.
const QUIET_AFTER: Duration = Duration::from_secs(1);

/// How soon after a tick another may follow because a held stream has heard of an ACK. Many links may come back at once.
const SOONEST: Duration = Duration::from_millis(10);

/// What a [`Pacing`] is told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Least and greatest rate of a stream.
    pub range: TpsRange,
    /// How fast clients read.
    pub reading: Tps,
    /// What the engine generates with all seats taken; `None`: streams do not share it, and each has what its path takes.
    pub capacity: Option<Tps>,
    /// How often connections are looked at.
    pub tick: Duration,
}

/// Settings that make no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSettings {
    /// Too often for timers, or too rare to see a stall within a second.
    #[error("a tick of {0:?}: give one from 10 ms to 500 ms (100 ms is what was tuned for)")]
    Tick(Duration),
}

impl Settings {
    /// Without a capacity, and with the tick that the pacer was tuned for.
    pub fn new(range: TpsRange, reading: Tps) -> Self {
        Self { range, reading, capacity: None, tick: Duration::from_millis(100) }
    }
}

/// The pacer of all streams; clones are handles to the same one.
#[derive(Clone, Debug)]
pub struct Pacing {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: Settings,
    began: Instant,
    waiting: AtomicUsize,
    /// Somebody ticks for all, so that no stream need do it on its way.
    is_driven: AtomicBool,
    streams: Mutex<Streams>,
    ticks: Mutex<Ticks>,
}

#[derive(Debug, Default)]
struct Streams {
    by_number: BTreeMap<u64, Arc<Stream>>,
    next: u64,
}

/// Somebody ticks for all, until this is dropped.
struct Driving(Weak<Shared>);

impl Drop for Driving {
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            shared.is_driven.store(false, Ordering::Relaxed);
        }
    }
}

/// Who holds it ticks.
#[derive(Debug, Default)]
struct Ticks {
    last: Option<Duration>,
    load: Load,
}

impl Pacing {
    /// A pacer without streams.
    ///
    /// # Errors
    ///
    /// A tick that is too short or too long.
    pub fn try_new(settings: Settings) -> Result<Self, InvalidSettings> {
        if !(Duration::from_millis(10)..=Duration::from_millis(500)).contains(&settings.tick) {
            return Err(InvalidSettings::Tick(settings.tick));
        }
        let shared = Shared {
            settings,
            began: Instant::now(),
            waiting: AtomicUsize::new(0),
            is_driven: AtomicBool::new(false),
            streams: Mutex::default(),
            ticks: Mutex::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Paces `socket`, a connected TCP socket, from now on. Until the next tick it may have what its path takes. Other sockets of
    /// the same connection, such as a duplicate, do as well.
    ///
    /// It also has the kernel try once a second while the client is silent ([`netdiag_tcpinfo::set_longest_retry`], where Linux is new
    /// enough), because a stream can go on only when an ACK has come, and then sets the pause that it found.
    ///
    /// The handle has a descriptor of its own, so the connection is closed when both are dropped, the socket and the handle: a client that
    /// reads until the end waits for the later of the two.
    ///
    /// # Errors
    ///
    /// Not a connected TCP socket, or no descriptor is left to duplicate it.
    pub fn stream(&self, socket: impl AsFd) -> io::Result<StreamPacer> {
        self.stream_reading_at(socket, self.shared.settings.reading)
    }

    /// The same for a client whose reading rate is known.
    ///
    /// # Errors
    ///
    /// Those of [`Pacing::stream`].
    pub fn stream_reading_at(&self, socket: impl AsFd, reading: Tps) -> io::Result<StreamPacer> {
        let now = self.now();
        let mut stream = Stream::open(socket, self.shared.settings.range, reading, now)?;
        let mut streams = self.streams();
        if stream.came_in_a_silence() {
            let other = streams.by_number.values().find(|other| other.key() == stream.key());
            if let Some(other) = other {
                stream.had(other);
            }
        }
        let stream = Arc::new(stream);
        let number = streams.next;
        streams.next += 1;
        streams.by_number.insert(number, Arc::clone(&stream));
        Ok(StreamPacer::new(self.clone(), number, stream))
    }

    /// So many requests wait for a seat: while any does, nobody is sent far ahead. Without being told, streams that read more together
    /// than the engine generates are all that shows it.
    pub fn set_waiting(&self, requests: usize) {
        self.shared.waiting.store(requests, Ordering::Relaxed);
    }

    /// All streams as they are, in the order in which they came.
    pub fn reports(&self) -> Vec<(FlowKey, Report)> {
        self.tick_if_due();
        self.all().iter().map(|stream| (stream.key(), stream.report())).collect()
    }

    /// Ticks for as long as other handles or streams are there; for a task.
    pub async fn run(self) {
        let _driving = self.driving();
        let (tick, shared) = self.into_weak();
        while let Some(pacing) = Self::upgrade(&shared) {
            pacing.drive();
            drop(pacing);
            tokio::time::sleep(tick).await;
        }
    }

    /// The same for a thread.
    pub fn run_blocking(self) {
        let _driving = self.driving();
        let (tick, shared) = self.into_weak();
        while let Some(pacing) = Self::upgrade(&shared) {
            pacing.drive();
            drop(pacing);
            std::thread::sleep(tick);
        }
    }

    /// Since the pacer was made.
    pub(crate) fn now(&self) -> Duration {
        self.shared.began.elapsed()
    }

    pub(crate) fn tick_length(&self) -> Duration {
        self.shared.settings.tick
    }

    fn driving(&self) -> Driving {
        self.shared.is_driven.store(true, Ordering::Relaxed);
        Driving(Arc::downgrade(&self.shared))
    }

    /// A tick by whoever ticks for all.
    fn drive(&self) {
        // It sleeps for a tick in between, and wakes a moment late.
        self.tick_after(self.shared.settings.tick / 2);
    }

    pub(crate) fn tick_if_due(&self) {
        // A stream that looked after thousands of others would keep all waiting that share its thread.
        if !self.shared.is_driven.load(Ordering::Relaxed) {
            self.tick_after(self.shared.settings.tick);
        }
    }

    /// A stream's silence is over. Where the engine is shared only a tick gives it a share again; where it is not, it is looked at alone,
    /// because thousands may come back at once.
    pub(crate) fn wake(&self, stream: &Stream) {
        match self.shared.settings.capacity {
            Some(_) => self.tick_after(SOONEST),
            None => {
                stream.observe(self.now(), Load::default(), QUIET_AFTER);
            }
        }
    }

    /// Looks at all streams and shares the engine anew, unless that was done within `least` or is being done.
    pub(crate) fn tick_after(&self, least: Duration) {
        let mut ticks = match self.shared.ticks.try_lock() {
            Ok(ticks) => ticks,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        let now = self.now();
        if ticks.last.is_some_and(|last| now.saturating_sub(last) < least) {
            return;
        }
        ticks.last = Some(now);
        let streams = self.all();
        let needs: Vec<Option<Need>> = streams
            .iter()
            .map(|stream| stream.observe(self.now(), ticks.load, QUIET_AFTER))
            .collect();
        let Some(capacity) = self.shared.settings.capacity else { return };
        let waiting = self.shared.waiting.load(Ordering::Relaxed);
        let (load, rates) = plan(capacity, waiting, &needs);
        ticks.load = load;
        for (stream, rate) in streams.iter().zip(rates) {
            stream.grant(self.now(), rate);
        }
    }

    pub(crate) fn remove(&self, number: u64) {
        self.streams().by_number.remove(&number);
    }

    fn all(&self) -> Vec<Arc<Stream>> {
        self.streams().by_number.values().cloned().collect()
    }

    fn streams(&self) -> MutexGuard<'_, Streams> {
        self.shared.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn into_weak(self) -> (Duration, Weak<Shared>) {
        (self.tick_length(), Arc::downgrade(&self.shared))
    }

    fn upgrade(shared: &Weak<Shared>) -> Option<Self> {
        shared.upgrade().map(|shared| Self { shared })
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    fn tps(n: f64) -> Tps {
        Tps::try_new(n).expect("valid")
    }

    #[test]
    fn a_tick_of_no_use_is_named() {
        let range = TpsRange::try_new(tps(5.0), tps(80.0)).expect("in order");
        let check = |tick: u64, told: Option<&str>| {
            let settings =
                Settings { tick: Duration::from_millis(tick), ..Settings::new(range, tps(16.0)) };
            let error = Pacing::try_new(settings).err().map(|error| error.to_string());
            assert_eq!(error.is_some(), told.is_some(), "{error:?}");
            assert!(error.unwrap_or_default().contains(told.unwrap_or_default()));
        };
        check(0, Some("a tick of 0ns: give one from 10 ms"));
        check(5000, Some("a tick of 5s"));
        check(100, None);
    }
}
