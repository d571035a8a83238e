//! The phases of an experiment as they were run, and what each is to the rate: calm, a fault, or a measured link.
//!
//! A rate can fall where a fault begins and come back where a calm phase does. A measured link (`trace`) wanders by itself and is
//! neither, so nothing is expected of the rate there.

use netdiag_lab::{Phase, PhaseKind, Scenario};
use serde::Serialize;

/// About what the rate takes to follow a turn of the link: two to three seconds down and three to four back up, in runs of the
/// shipped scenarios. What is over sooner cannot be reacted to.
const REACTION_SECONDS: f64 = 4.0;

/// What a phase is to the rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    Calm,
    Fault,
    /// A recorded or made-up link.
    Measured,
}

impl Role {
    fn of(kind: PhaseKind) -> Self {
        match kind {
            PhaseKind::Calm => Self::Calm,
            PhaseKind::Trace => Self::Measured,
            PhaseKind::Jitter | PhaseKind::Lossy | PhaseKind::Blackout | PhaseKind::Bufferbloat => {
                Self::Fault
            }
        }
    }

    /// As the style sheet of the report calls it.
    pub(crate) fn class(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Fault => "fault",
            Self::Measured => "measured",
        }
    }
}

/// A phase as it was run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct PhaseSpan {
    pub(crate) name: String,
    pub(crate) kind: &'static str,
    pub(crate) role: Role,
    pub(crate) from_seconds: f64,
    pub(crate) to_seconds: f64,
}

/// Phases of one role that follow one another, taken as one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Stretch {
    pub(crate) role: Role,
    pub(crate) from_seconds: f64,
    pub(crate) to_seconds: f64,
}

/// The phases of a scenario.
pub(crate) fn spans(scenario: &Scenario) -> Vec<PhaseSpan> {
    let mut start = 0.0;
    let span = |phase: &Phase| {
        let from_seconds = start;
        start += phase.duration().as_secs_f64();
        PhaseSpan {
            name: phase.name().to_owned(),
            kind: phase.kind().name(),
            role: Role::of(phase.kind()),
            from_seconds,
            to_seconds: start,
        }
    };
    scenario.phases().iter().map(span).collect()
}

/// The phase at a time. An interval belongs to the phase that it ends in, so one that ends with a phase is that phase's.
pub(crate) fn at(phases: &[PhaseSpan], seconds: f64) -> Option<&PhaseSpan> {
    let phase = phases.iter().find(|phase| seconds <= phase.to_seconds);
    phase.or(phases.last())
}

/// What of the phases had come by a time.
pub(crate) fn until(phases: &[PhaseSpan], seconds: f64) -> Vec<PhaseSpan> {
    let begun = phases.iter().filter(|phase| phase.from_seconds < seconds);
    begun
        .map(|phase| PhaseSpan { to_seconds: phase.to_seconds.min(seconds), ..phase.clone() })
        .collect()
}

/// The phases with those of one role joined.
pub(crate) fn stretches(phases: &[PhaseSpan]) -> Vec<Stretch> {
    phases
        .chunk_by(|before, after| before.role == after.role)
        .filter_map(|alike| {
            let (first, last) = (alike.first()?, alike.last()?);
            let (from_seconds, to_seconds) = (first.from_seconds, last.to_seconds);
            Some(Stretch { role: first.role, from_seconds, to_seconds })
        })
        .collect()
}

/// What to say of stretches that are over before the rate can have followed; `natural` are the phases as the scenario has them.
pub(crate) fn too_short(phases: &[PhaseSpan], natural: &[PhaseSpan]) -> Option<String> {
    let lengths = |phases: &[PhaseSpan]| -> Vec<f64> {
        let turns = stretches(phases).into_iter().filter(|part| part.role != Role::Measured);
        turns.map(|part| part.to_seconds - part.from_seconds).collect()
    };
    let all = lengths(phases);
    let short: Vec<f64> =
        all.iter().copied().filter(|length| *length < REACTION_SECONDS - 1e-6).collect();
    let shortest = short.iter().copied().reduce(f64::min)?;
    let whole = natural.last().map_or(0.0, |phase| phase.to_seconds);
    let least = lengths(natural).into_iter().reduce(f64::min).unwrap_or(whole);
    let remedy = if least < REACTION_SECONDS {
        "the scenario itself has such".to_owned()
    } else {
        format!("with --duration {:.0}s none is", (whole * REACTION_SECONDS / least).ceil())
    };
    Some(format!(
        "{} of {} calm or faulty stretches are shorter than the {REACTION_SECONDS:.0} s that the rate takes to follow (the shortest \
         {shortest:.1} s), so how it did there says little; {remedy}",
        short.len(),
        all.len(),
    ))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A phase of a role, for tests.
    pub(in crate::experiment) fn phase(from: f64, to: f64, role: Role) -> PhaseSpan {
        let name = role.class().to_owned();
        PhaseSpan { name, kind: role.class(), role, from_seconds: from, to_seconds: to }
    }

    #[test]
    fn faults_in_a_row_are_one_and_a_measured_link_is_neither() {
        let scenario = Scenario::builtin("flaky-wifi").expect("shipped");
        let parts = stretches(&spans(&scenario));
        let seconds: Vec<(f64, f64)> =
            parts.iter().map(|part| (part.from_seconds, part.to_seconds)).collect();
        assert_eq!(seconds, [(0.0, 12.0), (12.0, 24.0), (24.0, 32.0), (32.0, 47.0), (47.0, 60.0)]);
        let scenario = Scenario::builtin("lte-drive").expect("shipped");
        let roles: Vec<Role> = stretches(&spans(&scenario)).iter().map(|part| part.role).collect();
        assert_eq!(roles, [Role::Measured, Role::Fault, Role::Measured]);
    }

    #[test]
    fn an_interval_is_of_the_phase_that_it_ends_in() {
        let phases = [phase(0.0, 2.0, Role::Calm), phase(2.0, 4.0, Role::Fault)];
        let role = |seconds| at(&phases, seconds).map(|phase| phase.role);
        assert_eq!(role(2.0), Some(Role::Calm));
        assert_eq!([role(2.1), role(4.0), role(9.0)], [Some(Role::Fault); 3]);
        assert_eq!(at(&[], 1.0), None);
    }

    #[test]
    fn stretches_that_are_over_too_soon_are_told_with_the_remedy() {
        let scenario = Scenario::builtin("flaky-wifi").expect("shipped");
        let natural = spans(&scenario);
        assert_eq!(too_short(&natural, &natural), None);
        let short = scenario.fit(std::time::Duration::from_secs(15)).expect("fits");
        let told = too_short(&spans(&short), &natural).expect("told");
        assert!(told.starts_with("5 of 5 calm or faulty stretches"), "{told}");
        assert!(told.contains("the shortest 2.0 s") && told.contains("--duration 30s"), "{told}");
        let drive = spans(&Scenario::builtin("lte-drive").expect("shipped"));
        let told = too_short(&drive, &drive).expect("told");
        assert!(told.starts_with("1 of 1") && told.contains("the scenario itself"), "{told}");
        let control = spans(&Scenario::builtin("clean-long-haul").expect("shipped"));
        assert_eq!(too_short(&control, &control), None);
    }
}
