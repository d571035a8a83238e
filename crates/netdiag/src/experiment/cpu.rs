//! What an experiment costs the machine it runs on, so that it can be told whether links or processors set the pace.
//!
//! Links are emulated by one thread per arm, and engine and clients share a few; one that is busy all the time, or that waits for
//! a core, delays what it carries, and then the figures are the machine's.

use std::fs;
use std::time::{Duration, Instant};

use serde::Serialize;

/// Name of the threads that emulate links.
const EMULATOR: &str = "netdiag-lab";

/// Name of the threads that engine and clients run on.
pub(crate) const WORKER: &str = "streams";

/// How busy the machine was, 0..=1 each; `None` where the kernel does not tell.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct CpuUse {
    /// Idle share of all processors' time.
    pub(crate) idle: Option<f64>,
    /// Share of a core that the busiest emulator used,
    pub(crate) busiest_emulator: Option<f64>,
    /// and share of the time for which the one that waited longest was ready and had no core.
    pub(crate) emulator_waited: Option<f64>,
    /// The same of the threads of engine and clients.
    pub(crate) busiest_worker: Option<f64>,
    pub(crate) worker_waited: Option<f64>,
}

/// The machine at one moment.
#[derive(Debug)]
pub(crate) struct CpuMeter {
    at: Instant,
    /// Mean over all processors.
    idle: Option<Duration>,
    threads: Vec<Thread>,
}

/// What a thread has had so far.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Thread {
    id: String,
    name: String,
    ran: Duration,
    waited: Duration,
}

impl CpuMeter {
    pub(crate) fn start() -> Self {
        Self { at: Instant::now(), idle: idle_time(), threads: threads() }
    }

    /// What was used since the start.
    pub(crate) fn used(&self) -> CpuUse {
        let now = Self::start();
        let elapsed = now.at.duration_since(self.at).as_secs_f64();
        let share = |time: Duration| (time.as_secs_f64() / elapsed).min(1.0);
        let most = |name: &str, of: fn(&Thread) -> Duration| {
            let used = now.threads.iter().filter(|thread| thread.name == name).map(|thread| {
                let before = self.threads.iter().find(|before| before.id == thread.id);
                of(thread).saturating_sub(before.map_or(Duration::ZERO, of))
            });
            used.max().map(share)
        };
        CpuUse {
            idle: self
                .idle
                .zip(now.idle)
                .map(|(before, after)| share(after.saturating_sub(before))),
            busiest_emulator: most(EMULATOR, |thread| thread.ran),
            emulator_waited: most(EMULATOR, |thread| thread.waited),
            busiest_worker: most(WORKER, |thread| thread.ran),
            worker_waited: most(WORKER, |thread| thread.waited),
        }
    }
}

impl CpuUse {
    /// In a sentence; nothing if the kernel tells nothing.
    pub(crate) fn sentence(&self) -> String {
        let percent = |share: Option<f64>| {
            share.map_or("–".to_owned(), |share| format!("{:.0} %", share * 100.0))
        };
        if self.idle.is_none() && self.busiest_emulator.is_none() {
            return String::new();
        }
        format!(
            "The processors were idle for {} of their time; the busiest emulator of links used {} of a core and waited for one for {} of \
             the time, the busiest thread of engines and clients {} and {}.",
            percent(self.idle),
            percent(self.busiest_emulator),
            percent(self.emulator_waited),
            percent(self.busiest_worker),
            percent(self.worker_waited),
        )
    }
}

/// Time that a processor has been idle since the machine started, mean over all.
fn idle_time() -> Option<Duration> {
    mean_idle(&fs::read_to_string("/proc/uptime").ok()?, &fs::read_to_string("/proc/stat").ok()?)
}

/// `/proc/uptime` sums the idle time of all processors that are online, whichever of them this process may use, and `/proc/stat`
/// has a line for each of those (proc(5)).
fn mean_idle(uptime: &str, stat: &str) -> Option<Duration> {
    let idle: f64 = uptime.split_whitespace().nth(1)?.parse().ok()?;
    let is_processor = |line: &&str| {
        let number = line.strip_prefix("cpu").and_then(|rest| rest.split(' ').next());
        number.is_some_and(|number| number.parse::<u32>().is_ok())
    };
    let processors = stat.lines().filter(is_processor).count();
    Duration::try_from_secs_f64(idle / processors as f64).ok()
}

/// This process's threads; none where the kernel has no scheduler statistics.
fn threads() -> Vec<Thread> {
    let Ok(tasks) = fs::read_dir("/proc/self/task") else { return Vec::new() };
    tasks
        .filter_map(|task| {
            let task = task.ok()?;
            let name = fs::read_to_string(task.path().join("comm")).ok()?;
            // Nanoseconds on a processor and ready without one, and the number of times it got one.
            let stat = fs::read_to_string(task.path().join("schedstat")).ok()?;
            let mut figures = stat.split_whitespace().map(|figure| figure.parse().ok());
            Some(Thread {
                id: task.file_name().to_string_lossy().into_owned(),
                name: name.trim().to_owned(),
                ran: Duration::from_nanos(figures.next()??),
                waited: Duration::from_nanos(figures.next()??),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_thread_is_found_by_its_name() {
        let meter = CpuMeter::start();
        let busy = std::thread::Builder::new().name(WORKER.to_owned()).spawn(|| {
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(300) {
                std::hint::spin_loop();
            }
            // Threads that have ended are not told of.
            CpuMeter::start()
        });
        let end = busy.expect("a thread").join().expect("no panic");
        let worker = end.threads.iter().find(|thread| thread.name == WORKER);
        // Asked in another way, so that only a kernel without such statistics excuses their absence.
        if fs::exists("/proc/thread-self/schedstat").expect("a /proc") {
            let worker = worker.expect("the thread's statistics");
            assert!(worker.ran + worker.waited >= Duration::from_millis(250), "{worker:?}");
        }
        let used = meter.used();
        assert_eq!(used.busiest_emulator, None);
        assert!(used.idle.is_none_or(|idle| (0.0..=1.0).contains(&idle)), "{used:?}");
    }

    #[test]
    fn idle_time_is_shared_by_the_processors_that_are_online() {
        // Of eight processors, whichever of them this process may use.
        let lines: String = (0..8).map(|number| format!("cpu{number} 1 2 3\n")).collect();
        let stat = format!("cpu  9 9 9\n{lines}intr 5\nctxt 5\n");
        assert_eq!(mean_idle("1000.00 4000.00\n", &stat), Some(Duration::from_secs(500)));
        assert_eq!(mean_idle("1000.00 4000.00\n", "intr 5\n"), None);
        assert_eq!(mean_idle("", &stat), None);
    }

    #[test]
    fn what_is_not_known_is_not_said() {
        assert_eq!(CpuUse::default().sentence(), "");
        let cpu = CpuUse { idle: Some(0.425), busiest_emulator: Some(0.2), ..CpuUse::default() };
        assert!(cpu.sentence().contains("idle for 42 % of their time"), "{}", cpu.sentence());
    }
}
