//! The wish to end: asked for by SIGINT, SIGTERM, SIGQUIT (Ctrl-\) or SIGHUP (the terminal is gone), by `--duration`, or by a
//! part that failed; heeded by every thread.
//!
//! Works for threads (which wait with a timeout) and for tasks alike. Nothing is killed: whoever holds data writes it
//! first. Only a second signal, a while after the first, ends the process at once, for the person whose disk hangs.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;
use tokio::sync::watch;

use crate::confine;

/// A second signal within this time is the same wish: `timeout` and terminals signal a process and its group.
const SAME_WISH: Duration = Duration::from_secs(1);

/// Shared by all who must end together.
#[derive(Clone, Debug)]
pub(crate) struct Stop(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    asked: Mutex<bool>,
    wake: Condvar,
    tasks: watch::Sender<bool>,
}

impl Stop {
    /// A stop that nobody has asked for yet.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Inner {
            asked: Mutex::new(false),
            wake: Condvar::new(),
            tasks: watch::Sender::new(false),
        }))
    }

    /// A stop that SIGINT, SIGTERM, SIGQUIT and SIGHUP ask for. SIGQUIT leaves no core then, and no fault either.
    pub(crate) fn on_signals() -> std::io::Result<Self> {
        let stop = Self::new();
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGQUIT, SIGHUP])?;
        let asked = stop.clone();
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            confine::to_computing();
            let mut first = None;
            for _ in signals.forever() {
                asked.ask();
                let first = *first.get_or_insert_with(Instant::now);
                if first.elapsed() > SAME_WISH {
                    std::process::exit(1);
                }
            }
        })?;
        Ok(stop)
    }

    /// Asks everybody to end.
    pub(crate) fn ask(&self) {
        *self.0.asked.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.wake.notify_all();
        self.0.tasks.send_replace(true);
    }

    /// Waits on a thread until somebody asks (true) or `timeout` has passed (false).
    pub(crate) fn wait(&self, timeout: Duration) -> bool {
        let asked = self.0.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let (asked, _) = self
            .0
            .wake
            .wait_timeout_while(asked, timeout, |asked| !*asked)
            .unwrap_or_else(PoisonError::into_inner);
        *asked
    }

    /// Waits in a task until somebody asks.
    pub(crate) async fn asked(&self) {
        // An error means that the sender is gone, and it lives as long as `self`.
        let _ = self.0.tasks.subscribe().wait_for(|asked| *asked).await;
    }
}

/// Asks for the end when it goes, also by a panic: nobody must wait for a thread that is no more.
pub(crate) struct AskOnDrop<'a>(pub(crate) &'a Stop);

impl Drop for AskOnDrop<'_> {
    fn drop(&mut self) {
        self.0.ask();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_wake_at_once() {
        let stop = Stop::new();
        assert!(!stop.wait(Duration::ZERO));
        let waiting = stop.clone();
        let thread = std::thread::spawn(move || waiting.wait(Duration::from_secs(60)));
        stop.ask();
        assert!(thread.join().expect("no panic"));
        assert!(stop.wait(Duration::ZERO));
    }

    #[tokio::test]
    async fn tasks_wake_even_if_they_come_late() {
        let stop = Stop::new();
        stop.ask();
        stop.asked().await;
    }
}
