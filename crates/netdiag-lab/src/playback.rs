//! Changing links on time.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::lab::LabError;
use crate::link::{Controls, Link};
use crate::schedule::Schedule;
use crate::setup::hurry;
use crate::spec::Duplex;

/// Schedules being played. Dropped, it leaves the links as they are.
#[derive(Debug)]
pub struct Playback {
    started: Instant,
    /// Dropped to end it.
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// A change that is due.
struct Change {
    at: Duration,
    controls: Controls,
    link: Duplex,
}

impl Playback {
    pub(crate) fn start(links: &[Link], schedules: &[Schedule]) -> Result<Self, LabError> {
        if links.len() != schedules.len() {
            let (schedules, links) = (schedules.len(), links.len());
            return Err(LabError::Schedules { schedules, links });
        }
        let mut changes = Vec::new();
        for (link, schedule) in links.iter().zip(schedules) {
            changes.extend(schedule.steps().iter().map(|(at, step)| Change {
                at: *at,
                controls: link.controls().clone(),
                link: step.clone(),
            }));
        }
        changes.sort_by_key(|change| change.at);
        let (stop, stopped) = mpsc::channel();
        let started = Instant::now();
        // What holds at first holds when this returns.
        let later = changes.split_off(changes.partition_point(|change| change.at.is_zero()));
        for change in changes {
            change.controls.set(&change.link)?;
        }
        let thread = std::thread::Builder::new()
            .name("netdiag-play".to_owned())
            .spawn(move || play(later, started, &stopped))
            .map_err(|source| LabError::System { doing: "playing a schedule", source })?;
        Ok(Self { started, stop: Some(stop), thread: Some(thread) })
    }

    /// When time zero of the schedules was.
    pub fn started(&self) -> Instant {
        self.started
    }
}

impl Drop for Playback {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn play(changes: Vec<Change>, started: Instant, stopped: &mpsc::Receiver<()>) {
    hurry();
    for change in changes {
        let wait = change.at.saturating_sub(started.elapsed());
        // Nothing is ever sent: the end of the wait is the time, or the end.
        if stopped.recv_timeout(wait) != Err(RecvTimeoutError::Timeout) {
            return;
        }
        if let Err(error) = change.controls.set(&change.link) {
            tracing::error!(%error, "the schedule of the links ends early");
            return;
        }
    }
}
