//! The thread that owns the probe: asks it on a steady schedule and hands every interval on.
//!
//! Between two intervals it may look at the flows more often, for who paces them; an interval then holds what all of its looks saw.
//!
//! A thread and not a task, because the probe blocks (briefly) in system calls. Deadlines are counted from the start,
//! so a slow poll delays one interval and shifts none; deadlines that passed meanwhile are skipped, and the counters of
//! their time are in the next interval. Rates use the monotonic clock; the wall clock is only shown.
//!
//! Once the probe is open the thread gives up what it took to open it. A probe that fails after that is opened again as `sock_diag`, or,
//! where `--source ebpf` rules that out, ends the command: whoever runs it as a service starts it anew, with all privileges.
//!
//! Invariants: no other error of the probe ends the thread, and none escapes unlogged; after a stop, one last interval holds what
//! was counted since the one before.

mod privileges;
mod seen;

use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use netdiag_probe::{Losses, Probe, ProbeConfig, ProbeError};
use netdiag_telemetry::{FlowSnapshot, FlowTable, Source, Tick};

use crate::confine::{Confined, Confinement};
use crate::failure::UsageError;
use crate::stop::{AskOnDrop, Stop};
use privileges::{again, confine};
use seen::Seen;

/// After this many failed polls in a row the probe is opened anew, which may choose the other source.
const REOPEN_AFTER: u32 = 10;

/// A complaint that stays true is repeated this often.
const REPEAT: Duration = Duration::from_secs(60);

/// What one interval showed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interval<'a> {
    pub(crate) tick: &'a Tick,
    /// How long it lasted.
    pub(crate) elapsed: Duration,
    /// What the probe had no room for, since it was opened.
    pub(crate) losses: Losses,
}

/// Who is told what was sampled. It is called on the sampler's thread; what it spends is taken from the interval.
pub(crate) trait Watcher: Send + 'static {
    /// Every flow as it is `now`, since the start; with the interval if one ends with it.
    fn take(&mut self, flows: &[FlowSnapshot], now: Duration, interval: Option<&Interval<'_>>);
}

/// Who asks for no more than intervals.
pub(crate) struct PerInterval<F>(pub(crate) F);

impl<F: FnMut(&Interval<'_>) + Send + 'static> Watcher for PerInterval<F> {
    fn take(&mut self, _flows: &[FlowSnapshot], _now: Duration, interval: Option<&Interval<'_>>) {
        if let Some(interval) = interval {
            (self.0)(interval);
        }
    }
}

/// What to sample, and how.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) probe: ProbeConfig,
    pub(crate) interval: Duration,
    /// How often flows are looked at in between, if that is more often.
    pub(crate) look_every: Option<Duration>,
    pub(crate) window: Duration,
}

/// Share of the time that looks in between may take, as its inverse: with so many flows that a look takes longer than a tenth of
/// the time between two, there are fewer of them.
const LOOKING: u32 = 10;

/// What a look takes is the least of so many: one that waited for a core among others says nothing of the flows.
const LOOKS: usize = 4;

/// A running sampler.
#[derive(Debug)]
pub(crate) struct Sampler {
    thread: JoinHandle<anyhow::Result<()>>,
    start: Start,
}

/// What was found at the start.
#[derive(Clone, Debug)]
pub(crate) struct Start {
    pub(crate) source: Source,
    pub(crate) flows: usize,
    /// What the thread has left.
    pub(crate) confined: Option<Arc<Confined>>,
}

impl Sampler {
    /// Opens the probe, confines its thread, and samples until `stop`. Fails if there is no telemetry to begin with.
    pub(crate) fn start(
        settings: Settings,
        stop: Stop,
        watcher: impl Watcher,
        confinement: &Confinement,
    ) -> anyhow::Result<Self> {
        let confinement = confinement.clone();
        let (ready, started) = sync_channel(1);
        // The probe is opened on the thread, too, as it is again when it has failed.
        let thread = std::thread::Builder::new()
            .name("sampler".to_owned())
            .spawn(move || {
                // Also after a panic: nobody must wait for samples that no longer come.
                let _end = AskOnDrop(&stop);
                match Sampling::open(settings, &confinement) {
                    Ok((sampling, start)) => {
                        // The receiver waits for this and nothing else.
                        let _ = ready.send(Ok(start));
                        sampling.run(&stop, watcher)
                    }
                    Err(error) => {
                        let _ = ready.send(Err(error));
                        Ok(())
                    }
                }
            })
            .context("cannot start the sampling thread")?;
        let start = started.recv().context("the sampling thread ended early")??;
        Ok(Self { thread, start })
    }

    /// What was found at the start.
    pub(crate) fn found(&self) -> Start {
        self.start.clone()
    }

    /// Waits for the end, which a [`Stop`] brings about; an error if it ended by itself.
    pub(crate) fn join(self) -> anyhow::Result<()> {
        self.thread.join().map_err(|_| anyhow::anyhow!("the sampling thread panicked"))?
    }
}

struct Sampling {
    settings: Settings,
    probe: Probe,
    table: FlowTable,
    started: Instant,
    /// When the last tick was, since `started`.
    last: Duration,
    /// What was seen since then.
    seen: Seen,
    /// What the last looks took that ended no interval.
    looked_for: [Duration; LOOKS],
    failures: u32,
    /// The probe cannot be opened again as it was.
    is_confined: bool,
    complained: Option<Instant>,
    losses: Losses,
    losses_told: Option<Instant>,
}

impl Sampling {
    /// Takes in what the connections had counted before we came: it belongs to no interval.
    fn open(settings: Settings, confinement: &Confinement) -> anyhow::Result<(Self, Start)> {
        let mut probe = open_probe(&settings.probe)?;
        let confined = confine(&mut probe, &settings.probe, confinement).map(Arc::new);
        let flows = probe.snapshot().context("no telemetry")?;
        let source = probe.source();
        let mut sampling = Self {
            table: FlowTable::new(settings.window, source),
            settings,
            probe,
            started: Instant::now(),
            last: Duration::ZERO,
            seen: Seen::default(),
            looked_for: [Duration::ZERO; LOOKS],
            failures: 0,
            is_confined: confined.is_some(),
            complained: None,
            losses: Losses::default(),
            losses_told: None,
        };
        sampling.tick(&flows);
        Ok((sampling, Start { source, flows: flows.len(), confined }))
    }

    fn run(mut self, stop: &Stop, mut watcher: impl Watcher) -> anyhow::Result<()> {
        loop {
            let elapsed = self.started.elapsed();
            let next = next_deadline(elapsed, self.settings.interval, self.looks());
            let stopped = stop.wait(next.at.saturating_sub(elapsed));
            let began = self.started.elapsed();
            // Who wakes late may have missed more than what was waited for.
            let is_tick = stopped || next.is_tick || began >= next.tick;
            let Some(flows) = self.poll()? else {
                if stopped {
                    return Ok(());
                }
                continue;
            };
            let now = self.started.elapsed();
            if is_tick {
                let all = self.seen.take(&flows);
                let (tick, elapsed) = self.tick(&all);
                let losses = self.probe.losses();
                watcher.take(&flows, now, Some(&Interval { tick: &tick, elapsed, losses }));
                self.tell(losses);
                if self.looks() == 1 {
                    self.looked_for.iter_mut().for_each(|look| *look /= 2);
                }
            } else {
                watcher.take(&flows, now, None);
                self.seen.add(flows);
                self.looked_for.rotate_right(1);
                self.looked_for[0] = self.started.elapsed().saturating_sub(began);
            }
            if stopped {
                return Ok(());
            }
        }
    }

    /// Looks per interval, the one that ends it included. Where that leaves none between two
    /// ends, one is tried again after a while.
    fn looks(&self) -> u32 {
        let Some(look_every) = self.settings.look_every else { return 1 };
        let look = self.looked_for.into_iter().min().unwrap_or_default();
        let least = look_every.max(look * LOOKING);
        let looks = self.settings.interval.as_nanos() / least.as_nanos().max(1);
        u32::try_from(looks).unwrap_or(u32::MAX).max(1)
    }

    fn tick(&mut self, flows: &[FlowSnapshot]) -> (Tick, Duration) {
        let now = netdiag_telemetry::Instant {
            monotonic: self.started.elapsed(),
            unix: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
        };
        let elapsed = now.monotonic.saturating_sub(self.last);
        self.last = now.monotonic;
        (self.table.tick(flows, now), elapsed)
    }

    fn poll(&mut self) -> anyhow::Result<Option<Vec<FlowSnapshot>>> {
        match self.probe.snapshot() {
            Ok(flows) => {
                if self.failures > 0 {
                    tracing::info!(failed = self.failures, "the probe answers again");
                }
                self.failures = 0;
                Ok(Some(flows))
            }
            Err(error) => {
                self.failures += 1;
                if self.complained.is_none_or(|at| at.elapsed() >= REPEAT) {
                    self.complained = Some(Instant::now());
                    tracing::warn!("no telemetry for now, trying again: {error}");
                }
                if self.failures.is_multiple_of(REOPEN_AFTER) {
                    self.reopen()?;
                }
                Ok(None)
            }
        }
    }

    fn reopen(&mut self) -> anyhow::Result<()> {
        let was = self.probe.source();
        let Some(source) = again(self.settings.probe.source, self.is_confined) else {
            anyhow::bail!(
                "the eBPF probe failed, and the privileges to load it were given up; started anew, it is loaded again"
            );
        };
        let config = ProbeConfig { source, ..self.settings.probe.clone() };
        match open_probe(&config) {
            Ok(probe) => {
                if probe.source() != was {
                    let now = probe.source();
                    tracing::warn!("the {was} probe failed; going on with {now}, until a restart");
                }
                self.table.set_source(probe.source());
                self.probe = probe;
            }
            Err(error) => tracing::debug!("opening the probe anew failed: {error:#}"),
        }
        Ok(())
    }

    fn tell(&mut self, losses: Losses) {
        if losses == self.losses || self.losses_told.is_some_and(|at| at.elapsed() < REPEAT) {
            return;
        }
        self.losses = losses;
        self.losses_told = Some(Instant::now());
        let Losses { flows, rtt_samples, closings } = losses;
        if losses != Losses::default() {
            tracing::warn!(
                flows,
                rtt_samples,
                closings,
                "the probe had no room for some of what it saw; raise --max-flows or narrow the selection"
            );
        }
    }
}

/// Opens the probe and says, once, if it is not the one that was hoped for.
fn open_probe(config: &ProbeConfig) -> anyhow::Result<Probe> {
    let probe = Probe::open(config).map_err(|error| match error {
        ProbeError::Netns { .. } => UsageError::because("--netns", error).into(),
        error => anyhow::Error::new(error).context("no telemetry"),
    })?;
    if let Some(reason) = probe.fallback_reason() {
        tracing::warn!("eBPF is not available, using sock_diag instead: {reason}");
    }
    Ok(probe)
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Deadline {
    at: Duration,
    /// It ends an interval.
    is_tick: bool,
    /// When the interval ends.
    tick: Duration,
}

/// The next of `looks` looks at an interval after `elapsed`. Each is counted from the interval's start, so that the last is its end
/// whatever the interval can be divided by.
fn next_deadline(elapsed: Duration, interval: Duration, looks: u32) -> Deadline {
    let (elapsed, interval) = (elapsed.as_nanos(), interval.as_nanos().max(1));
    let looks = u128::from(looks.max(1));
    let start = elapsed - elapsed % interval;
    // The first of them that is not over.
    let number = (elapsed - start) * looks / interval + 1;
    let number = if start + interval * number / looks <= elapsed { number + 1 } else { number };
    let nanos = |nanos: u128| Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
    let tick = nanos(start + interval);
    Deadline {
        at: nanos(start + interval * number / looks).min(tick),
        is_tick: number >= looks,
        tick,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_neither_drift_nor_pile_up() {
        let ms = Duration::from_millis;
        let next = |elapsed| next_deadline(elapsed, ms(500), 1).at;
        assert_eq!(next(ms(0)), ms(500));
        assert_eq!(next(ms(510)), ms(1000));
        // A poll that took three intervals: those are skipped, the next one is on time.
        assert_eq!(next(ms(1730)), ms(2000));
    }

    #[test]
    fn every_interval_ends_in_time_however_many_looks_it_has() {
        for interval in [350, 500, 650, 750, 1000] {
            for looks in [1, 2, 3, 6, 7, 9, 10] {
                let interval = Duration::from_millis(interval);
                let (mut now, mut ticks, mut seen) = (Duration::ZERO, 0, 0);
                while now < interval * 20 {
                    let next = next_deadline(now, interval, looks);
                    assert!(next.at > now && next.at <= next.tick, "{next:?} after {now:?}");
                    assert_eq!(next.is_tick, next.at == next.tick, "{next:?}");
                    // It is a little late now and then.
                    now = next.at + Duration::from_micros(seen % 3);
                    seen += 1;
                    ticks += u32::from(next.is_tick);
                }
                assert_eq!((ticks, seen), (20, 20 * u64::from(looks)), "{interval:?}, {looks}");
            }
        }
    }
}
