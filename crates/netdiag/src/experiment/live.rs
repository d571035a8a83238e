//! An experiment on the dashboard while it runs.

use std::time::Duration;

use netdiag_dashboard::{
    Arm as ShownArm, ArmTick, Experiment, Feed, Label, Mode, Phase, Point, Staleness,
};
use netdiag_hints::Board;
use netdiag_lab::Scenario;
use netdiag_pacer::{Hint, TpsRange, WhenStale};
use netdiag_telemetry::Scope;

use super::conditions::Policy;
use super::phases::{PhaseSpan, Role};
use super::record::Tick;
use crate::sampler::Interval;

/// Four intervals without a measurement are no chance.
const STALE_AFTER: Duration = Duration::from_secs(2);

/// Where an arm is shown while it runs.
pub(crate) struct Shown {
    pub(crate) feed: Feed,
    /// Which of the arms it is.
    pub(crate) arm: usize,
    /// Whether its links are those of the overview.
    pub(crate) is_host: bool,
}

impl Shown {
    /// Shows an interval.
    pub(crate) fn take(&self, tick: &Tick, board: &Board, interval: &Interval<'_>) {
        let shown = ArmTick {
            seconds: tick.seconds,
            rtt_p95: tick.p95_rtt_ms,
            retrans: tick.retrans_segs,
            health: tick.health,
            anomaly: tick.anomaly,
            current_tps: tick.current_tps,
            generated_tps: tick.generated_tps,
        };
        self.feed.push_arm(self.arm, shown);
        if self.is_host {
            let point = Point::new(&interval.tick.host.sample, &board.host);
            self.feed.push(point, board.host.clone(), board.sampled_at);
        }
    }
}

/// What the dashboard shows until there is an interval.
pub(crate) fn feed(range: TpsRange) -> Feed {
    let label = Label {
        mode: Mode::Experiment,
        telemetry: "netdiag experiment".to_owned(),
        has_streams: false,
        has_gateway: false,
        has_fleet: false,
        has_machine: true,
    };
    let staleness = Staleness { after: STALE_AFTER, policy: WhenStale::Max };
    Feed::new(label, staleness, Hint::unknown(range, &Scope::Host, "the links are being set up"))
}

/// The experiment as the dashboard describes it.
pub(crate) fn about(
    scenario: &Scenario,
    phases: &[PhaseSpan],
    streams: usize,
    arms: &[Policy],
) -> Experiment {
    Experiment {
        scenario: scenario.name().to_owned(),
        description: scenario.description().to_owned(),
        seconds: scenario.duration().as_secs_f64(),
        streams,
        phases: phases
            .iter()
            .map(|phase| Phase {
                name: phase.name.clone(),
                kind: phase.kind,
                from_seconds: phase.from_seconds,
                to_seconds: phase.to_seconds,
                fault: phase.role == Role::Fault,
            })
            .collect(),
        arms: arms
            .iter()
            .map(|arm| ShownArm { name: arm.name().to_owned(), paced: *arm != Policy::None })
            .collect(),
    }
}
