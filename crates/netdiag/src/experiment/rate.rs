//! How the recommended rate followed the link: transitions from one state to the other, each with its time.
//!
//! A fault in which the rate was slow already shows nothing about falling, and a calm phase into which it came undiminished nothing
//! about coming back. Neither is counted as a reaction, nor as one that failed to come.

use serde::Serialize;

use super::phases::{self, PhaseSpan, Role, Stretch};
use super::record::Tick;

/// Share of the highest rate that counts as slowed down, and as recovered.
const SLOW: f64 = 0.5;
const RECOVERED: f64 = 0.9;

/// What was recommended, tokens/s per stream, means over clients.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Rate {
    pub(crate) mean_tps: Option<f64>,
    pub(crate) mean_in_calm_tps: Option<f64>,
    pub(crate) mean_in_faults_tps: Option<f64>,
    pub(crate) lowest_tps: Option<f64>,
    /// From the start of a fault to half of the highest rate; `None` where no fault follows another phase.
    pub(crate) falls: Option<Reactions>,
    /// From the end of a fault to 90 % of the highest rate; `None` where no calm phase follows a fault.
    pub(crate) recoveries: Option<Reactions>,
    /// Why there is none of these, for people.
    #[serde(skip)]
    pub(crate) why_no_falls: &'static str,
    #[serde(skip)]
    pub(crate) why_no_recoveries: &'static str,
}

/// How often the rate reacted where it could, and how soon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Reactions {
    /// Turns of the link before which the rate was on the other side of the bound.
    pub(crate) possible: usize,
    /// Those after which it crossed it before the link turned again.
    pub(crate) seen: usize,
    /// Turns before which it was on this side already.
    pub(crate) already: usize,
    pub(crate) median_seconds: Option<f64>,
    pub(crate) longest_seconds: Option<f64>,
}

impl Rate {
    /// Of an arm's intervals. `highest` is the most that can be recommended.
    pub(crate) fn of(ticks: &[Tick], phases: &[PhaseSpan], highest: f64) -> Self {
        let stretches = phases::stretches(phases);
        let mean = |role: Option<Role>| {
            let rates: Vec<f64> = ticks
                .iter()
                .filter(|tick| {
                    let phase = phases::at(phases, tick.seconds);
                    role.is_none_or(|role| phase.is_some_and(|phase| phase.role == role))
                })
                .map(|tick| tick.current_tps)
                .collect();
            (!rates.is_empty()).then(|| rates.iter().sum::<f64>() / rates.len() as f64)
        };
        // What was not run, because the experiment was cut short, cannot have been reacted to.
        let end = ticks.last().map_or(0.0, |tick| tick.seconds);
        let turns = |is: fn(Role, Role) -> bool| -> Vec<Stretch> {
            let pairs = stretches.windows(2);
            let turns = pairs.filter(|pair| is(pair[0].role, pair[1].role)).map(|pair| pair[1]);
            turns.filter(|turn| turn.from_seconds < end).collect()
        };
        let faults = turns(|_, now| now == Role::Fault);
        let calms = turns(|before, now| before == Role::Fault && now == Role::Calm);
        let is_slow = |tick: &Tick| tick.current_tps < SLOW * highest;
        let is_back = |tick: &Tick| tick.current_tps >= RECOVERED * highest;
        let has = |role: Role| phases.iter().any(|phase| phase.role == role);
        Self {
            mean_tps: mean(None),
            mean_in_calm_tps: mean(Some(Role::Calm)),
            mean_in_faults_tps: mean(Some(Role::Fault)),
            lowest_tps: ticks.iter().map(|tick| tick.current_tps).reduce(f64::min),
            falls: Reactions::of(&faults, ticks, &is_slow),
            recoveries: Reactions::of(&calms, ticks, &is_back),
            why_no_falls: match has(Role::Fault) {
                false => "no fault in this scenario",
                true => "no fault after another phase",
            },
            why_no_recoveries: match (has(Role::Fault), has(Role::Calm)) {
                (false, _) => "no fault in this scenario",
                (true, false) => "no calm phase in this scenario",
                (true, true) => "no calm phase after a fault",
            },
        }
    }
}

impl Reactions {
    /// Reactions to the beginning of each of `turns`: the first interval in it that is `there`, if the one before was not.
    fn of(turns: &[Stretch], ticks: &[Tick], there: &dyn Fn(&Tick) -> bool) -> Option<Self> {
        if turns.is_empty() {
            return None;
        }
        let mut reactions = Self::default();
        let mut times = Vec::new();
        for turn in turns {
            let begins = ticks.partition_point(|tick| tick.seconds <= turn.from_seconds);
            let ends = ticks.partition_point(|tick| tick.seconds <= turn.to_seconds);
            // Without an interval before the turn nothing is known of how it was.
            let Some(before) = begins.checked_sub(1).map(|last| &ticks[last]) else { continue };
            if there(before) {
                reactions.already += 1;
                continue;
            }
            reactions.possible += 1;
            let crossed = ticks[begins..ends].iter().find(|tick| there(tick));
            times.extend(crossed.map(|tick| tick.seconds - turn.from_seconds));
        }
        times.sort_unstable_by(f64::total_cmp);
        Some(Self {
            seen: times.len(),
            median_seconds: netdiag_health::quantile_of_sorted(&times, 0.5),
            longest_seconds: times.last().copied(),
            ..reactions
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::phases::tests::phase;
    use super::super::record::tests::tick;
    use super::*;

    fn rate(rates: &[(f64, f64)], phases: &[PhaseSpan]) -> Rate {
        let ticks: Vec<Tick> = rates.iter().map(|&(at, rate)| tick(at, rate)).collect();
        Rate::of(&ticks, phases, 80.0)
    }

    /// Possible, seen, already, median, longest.
    fn figures(of: Option<Reactions>) -> (usize, usize, usize, Option<f64>, Option<f64>) {
        let of = of.expect("there are turns");
        (of.possible, of.seen, of.already, of.median_seconds, of.longest_seconds)
    }

    /// Calm and faults of five seconds each in turn.
    fn in_turn(count: usize) -> Vec<PhaseSpan> {
        let role = |number| if number % 2 == 0 { Role::Calm } else { Role::Fault };
        let span = |number| phase(5.0 * number as f64, 5.0 * (number + 1) as f64, role(number));
        (0..count).map(span).collect()
    }

    #[test]
    fn reactions_are_timed_from_the_turn_of_the_link() {
        // Two faults in a row are one; the rate has not come back when the next begins.
        let phases = [
            phase(0.0, 10.0, Role::Calm),
            phase(10.0, 15.0, Role::Fault),
            phase(15.0, 20.0, Role::Fault),
            phase(20.0, 30.0, Role::Calm),
            phase(30.0, 40.0, Role::Fault),
            phase(40.0, 45.0, Role::Calm),
            phase(45.0, 50.0, Role::Fault),
        ];
        let rates = [
            (9.0, 80.0),
            (11.0, 50.0),
            (12.0, 39.0),
            (19.0, 5.0),
            (21.0, 60.0),
            (23.5, 72.0),
            (34.0, 30.0),
            (44.0, 71.0),
            (49.0, 72.0),
        ];
        let rate = rate(&rates, &phases);
        assert_eq!(figures(rate.falls), (3, 2, 0, Some(3.0), Some(4.0)));
        assert_eq!(figures(rate.recoveries), (2, 1, 0, Some(3.5), Some(3.5)));
        assert_eq!(rate.lowest_tps, Some(5.0));
        assert_eq!(rate.mean_in_calm_tps, Some((80.0 + 60.0 + 72.0 + 71.0) / 4.0));
    }

    #[test]
    fn a_rate_that_never_falls_has_nothing_to_recover_from() {
        let rates: Vec<(f64, f64)> = (1..=25).map(|second| (f64::from(second), 80.0)).collect();
        let rate = rate(&rates, &in_turn(5));
        assert_eq!(figures(rate.falls), (2, 0, 0, None, None));
        assert_eq!(figures(rate.recoveries), (0, 0, 2, None, None));
    }

    #[test]
    fn a_rate_that_falls_and_never_returns_has_fallen_once() {
        let at = |second: u32| if second < 8 { 80.0 } else { 5.0 };
        let rates: Vec<_> = (1..=25).map(|second| (f64::from(second), at(second))).collect();
        let rate = rate(&rates, &in_turn(5));
        assert_eq!(figures(rate.falls), (1, 1, 1, Some(3.0), Some(3.0)));
        assert_eq!(figures(rate.recoveries), (2, 0, 0, None, None));
    }

    #[test]
    fn a_measured_link_is_no_fault_and_a_silence_in_it_is() {
        let phases = [
            phase(0.0, 10.0, Role::Measured),
            phase(10.0, 15.0, Role::Fault),
            phase(15.0, 25.0, Role::Measured),
        ];
        let drive = rate(&[(9.0, 70.0), (12.0, 20.0), (20.0, 80.0)], &phases);
        assert_eq!(figures(drive.falls), (1, 1, 0, Some(2.0), Some(2.0)));
        assert_eq!(drive.recoveries, None);
        assert_eq!(drive.why_no_recoveries, "no calm phase in this scenario");
        assert_eq!((drive.mean_in_calm_tps, drive.mean_in_faults_tps), (None, Some(20.0)));
        let calm = rate(&[(9.0, 70.0)], &[phase(0.0, 10.0, Role::Calm)]);
        assert_eq!((calm.falls, calm.why_no_falls), (None, "no fault in this scenario"));
    }

    #[test]
    fn what_was_not_run_was_not_missed() {
        let rate = rate(&[(4.0, 80.0), (7.0, 30.0)], &in_turn(5));
        assert_eq!(figures(rate.falls), (1, 1, 0, Some(2.0), Some(2.0)));
        assert_eq!(rate.recoveries, None);
    }

    #[test]
    fn nothing_recorded_is_nothing_said() {
        let rate = rate(&[], &[phase(0.0, 1.0, Role::Calm)]);
        assert_eq!((rate.mean_in_calm_tps, rate.lowest_tps, rate.falls), (None, None, None));
    }
}
