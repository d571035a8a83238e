//! An experiment as the dashboard shows it: its phases, and what its arms do meanwhile.

use bytes::Bytes;
use serde::Serialize;

/// Ticks of an arm that are kept: three hours at two per second. Longer experiments are shown at half the resolution.
const MOST_TICKS: usize = 20_000;

/// What is run.
#[derive(Clone, Debug, Serialize)]
pub struct Experiment {
    /// Name of the scenario.
    pub scenario: String,
    /// Its line of description.
    pub description: String,
    /// How long it takes, seconds.
    pub seconds: f64,
    /// Streams per arm.
    pub streams: usize,
    /// One after the other.
    pub phases: Vec<Phase>,
    /// Side by side.
    pub arms: Vec<Arm>,
}

/// A phase of the links.
#[derive(Clone, Debug, Serialize)]
pub struct Phase {
    /// As the scenario calls it.
    pub name: String,
    /// What happens to the links.
    pub kind: &'static str,
    /// Its begin, seconds since the start.
    pub from_seconds: f64,
    /// Its end.
    pub to_seconds: f64,
    /// Not a calm one.
    pub fault: bool,
}

/// One of those that are compared.
#[derive(Clone, Debug, Serialize)]
pub struct Arm {
    /// The policy's name.
    pub name: String,
    /// Whether its engine follows hints.
    pub paced: bool,
}

/// One interval of an arm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ArmTick {
    /// Its end, seconds since the start.
    pub seconds: f64,
    /// 95th percentile of the round trips, milliseconds.
    pub rtt_p95: Option<f64>,
    /// Segments retransmitted.
    pub retrans: u64,
    /// 0..=1.
    pub health: f64,
    /// The light.
    pub anomaly: bool,
    /// Recommended rate, tokens/s for each stream.
    pub current_tps: f64,
    /// Tokens/s of all streams together.
    pub generated_tps: f64,
}

/// An experiment and how far it has come.
#[derive(Debug)]
pub(crate) struct Progress {
    about: Experiment,
    running: bool,
    pub(crate) arms: Vec<Vec<ArmTick>>,
    pub(crate) report: Option<Bytes>,
}

/// The event `experiment`.
#[derive(Debug, Serialize)]
pub(crate) struct View<'a> {
    #[serde(flatten)]
    about: &'a Experiment,
    running: bool,
    report: bool,
}

/// The event `arm`: ticks by columns.
#[derive(Debug, Default, Serialize)]
pub(crate) struct ArmView {
    arm: usize,
    seconds: Vec<f64>,
    rtt_p95: Vec<Option<f64>>,
    retrans: Vec<u64>,
    health: Vec<f64>,
    anomaly: Vec<u8>,
    current_tps: Vec<f64>,
    generated_tps: Vec<f64>,
}

impl Progress {
    pub(crate) fn new(about: Experiment) -> Self {
        let arms = vec![Vec::new(); about.arms.len()];
        Self { about, running: true, arms, report: None }
    }

    pub(crate) fn finish(&mut self, report: Option<Bytes>) {
        self.running = false;
        self.report = report;
    }

    pub(crate) fn view(&self) -> View<'_> {
        View { about: &self.about, running: self.running, report: self.report.is_some() }
    }

    /// Takes in a tick of an arm. True if earlier ticks had to make room, so that what was sent of them is no longer what is
    /// kept.
    pub(crate) fn push(&mut self, arm: usize, tick: ArmTick) -> bool {
        let Some(ticks) = self.arms.get_mut(arm) else { return false };
        ticks.push(tick);
        if ticks.len() < MOST_TICKS {
            return false;
        }
        // Of two neighbours the worse one: that is what people look for.
        let worse =
            |pair: &[ArmTick]| pair.iter().copied().min_by(|a, b| a.health.total_cmp(&b.health));
        *ticks = ticks.chunks(2).filter_map(worse).collect();
        true
    }
}

impl ArmView {
    pub(crate) fn new(arm: usize, ticks: &[ArmTick]) -> Self {
        let mut view = Self { arm, ..Self::default() };
        for tick in ticks {
            view.seconds.push(tick.seconds);
            view.rtt_p95.push(tick.rtt_p95);
            view.retrans.push(tick.retrans);
            view.health.push(tick.health);
            view.anomaly.push(tick.anomaly.into());
            view.current_tps.push(tick.current_tps);
            view.generated_tps.push(tick.generated_tps);
        }
        view
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn experiment() -> Experiment {
        Experiment {
            scenario: "s".into(),
            description: "d".into(),
            seconds: 1.0,
            streams: 1,
            phases: Vec::new(),
            arms: vec![Arm { name: "none".into(), paced: false }],
        }
    }

    #[test]
    fn long_experiments_keep_what_was_worst() {
        let mut progress = Progress::new(experiment());
        for number in 0..100_000_u32 {
            let health = if number == 77 { 0.1 } else { 1.0 };
            progress.push(
                0,
                ArmTick {
                    seconds: number.into(),
                    rtt_p95: None,
                    retrans: 0,
                    health,
                    anomaly: false,
                    current_tps: 80.0,
                    generated_tps: 1.0,
                },
            );
        }
        let ticks = &progress.arms[0];
        assert!(ticks.len() < MOST_TICKS);
        assert!(ticks.iter().any(|tick| tick.health == 0.1));
        assert!(ticks.windows(2).all(|pair| pair[0].seconds < pair[1].seconds));
        // An arm that does not exist is nobody's.
        assert!(!progress.push(1, ticks[0].to_owned()));
    }
}
