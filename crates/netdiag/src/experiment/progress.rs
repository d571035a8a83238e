//! What is told while the arms run: a live line on a terminal, and elsewhere a line for each phase when it is over, because only then
//! are its figures its own.

use super::arm::RunningArm;
use super::phases::{self, PhaseSpan};
use super::record::Tick;
use crate::terminal::{StatusLine, say};

/// The progress of a run.
pub(super) struct Progress<'a> {
    status: StatusLine,
    phases: &'a [PhaseSpan],
    arms: &'a [RunningArm],
    /// Phases that were told.
    told: usize,
}

impl<'a> Progress<'a> {
    pub(super) fn start(phases: &'a [PhaseSpan], arms: &'a [RunningArm]) -> Self {
        Self { status: StatusLine::start_beside(None), phases, arms, told: 0 }
    }

    /// Tells how it is at a time since the start.
    pub(super) fn tell(&mut self, seconds: f64) {
        if self.status.is_shown() {
            let phase = phases::at(self.phases, seconds).map_or("", |phase| phase.name.as_str());
            self.status.set(format!("{seconds:>3.0} s {phase} │ {}", self.arms(seconds)));
            return;
        }
        while let Some(phase) =
            self.phases.get(self.told).filter(|phase| phase.to_seconds <= seconds)
        {
            self.told += 1;
            say(&format!(
                "{:>3.0} s end of {} │ {}",
                phase.to_seconds,
                phase.name,
                self.arms(phase.to_seconds)
            ));
        }
    }

    /// Tells what is left to tell.
    pub(super) fn end(mut self, seconds: f64) {
        if !self.status.is_shown() {
            self.tell(seconds);
        }
        self.status.clear();
    }

    /// Each arm's newest interval at that time.
    fn arms(&self, seconds: f64) -> String {
        let arms = self.arms.iter().map(|arm| line(arm.name(), arm.newest(seconds).as_ref()));
        arms.collect::<Vec<_>>().join(" │ ")
    }
}

fn line(name: &str, tick: Option<&Tick>) -> String {
    let Some(tick) = tick else { return format!("{name} –") };
    let rtt = tick.p95_rtt_ms.map_or("–".to_owned(), |ms| format!("{ms:.0} ms"));
    format!(
        "{name} {:.0} tok/s, health {:.2}, {rtt}, {} resent",
        tick.generated_tps, tick.health, tick.retrans_segs
    )
}
