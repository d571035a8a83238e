//! The sentences at the top of a report: what the paced arms changed against the first arm that is not paced, whichever way it
//! went, and how the rate followed the link.

use super::comparison::{Compared, Comparison};
use super::rate::Reactions;
use super::record::{ArmRecord, Record};
use crate::figures::counted;

/// All sentences about a run.
pub(crate) fn findings(record: &Record) -> Vec<String> {
    let mut findings = Vec::new();
    for arm in record.arms.iter().filter(|arm| arm.paced) {
        findings.extend(pace_of(arm));
        let own = record.comparisons.iter().filter(|comparison| comparison.arm == arm.name);
        findings.extend(own.filter_map(|comparison| sentence(comparison, record)));
    }
    findings.extend(record.arms.iter().filter_map(failures));
    findings
}

fn sentence(comparison: &Comparison, record: &Record) -> Option<String> {
    let arm = |name: &str| record.arms.iter().find(|arm| arm.name == name);
    let (ours, theirs) = (arm(&comparison.arm)?, arm(&comparison.against)?);
    let (name, than) = (&ours.name, &theirs.name);
    let of = |of: fn(&ArmRecord) -> Option<f64>| of(ours).zip(of(theirs));
    let said = match comparison.figure {
        Compared::WasteRatio => {
            let (our, their) = of(|arm| arm.summary.waste_ratio)?;
            let left = |arm: &ArmRecord| counted(arm.summary.left, "reader", "readers");
            format!(
                "Wasted: {:.2} % of what {name} generated ({} left), {:.2} % of what {than} did ({} left)",
                our * 100.0,
                left(ours),
                their * 100.0,
                left(theirs),
            )
        }
        Compared::StallRatio => {
            let (our, their) = of(|arm| arm.summary.stall_ratio)?;
            let (our, their) = (our * 100.0, their * 100.0);
            format!(
                "Gaps of more than 200 ms: {our:.1} % of the time with {name}, {their:.1} % with {than}"
            )
        }
        Compared::QoeMean => {
            let (our, their) = of(|arm| arm.summary.qoe_mean)?;
            format!("Quality of experience: {our:.3} with {name}, {their:.3} with {than}")
        }
    };
    let interval = comparison.difference;
    let interval = match comparison.figure {
        Compared::QoeMean => format!("{:+.3} to {:+.3}", interval.low, interval.high),
        _ => format!("{:+.2} to {:+.2} points", interval.low * 100.0, interval.high * 100.0),
    };
    let interval = interval.replace('-', "−");
    let verdict = comparison.verdict.words();
    Some(format!("{said}: {verdict} (95 % interval of the difference: {interval})."))
}

/// How the rate followed the link.
fn pace_of(arm: &ArmRecord) -> Vec<String> {
    let rate = &arm.rate;
    let mut sentences = Vec::new();
    if let Some(mean) = rate.mean_tps {
        let part = |rate: Option<f64>, where_: &str| {
            rate.map_or(String::new(), |rate| format!(", {rate:.0} in {where_}"))
        };
        sentences.push(format!(
            "{}: {mean:.0} tokens/s per stream were recommended on average{}{}.",
            arm.name,
            part(rate.mean_in_calm_tps, "calm phases"),
            part(rate.mean_in_faults_tps, "faults"),
        ));
    }
    sentences.extend(match &rate.falls {
        None => vec![format!("The rate had nothing to react to: {}.", rate.why_no_falls)],
        Some(falls) => falls_of(falls),
    });
    match &rate.recoveries {
        Some(back) if back.possible > 0 => sentences.push(format!(
            "It was back at 90 % of the highest in {} of {} after a fault that had slowed it{}.",
            back.seen,
            counted(back.possible, "calm phase", "calm phases"),
            times(back),
        )),
        None if rate.falls.is_some() => sentences
            .push(format!("Nothing can be said of how it comes back: {}.", rate.why_no_recoveries)),
        _ => {}
    }
    sentences
}

fn falls_of(falls: &Reactions) -> Vec<String> {
    let mut sentences = Vec::new();
    if falls.possible > 0 {
        sentences.push(format!(
            "The rate fell below half of the highest in {} of {}{}.",
            falls.seen,
            counted(falls.possible, "fault", "faults"),
            times(falls),
        ));
    }
    if falls.already > 0 {
        sentences.push(format!(
            "Before {} it was below half of the highest already.",
            counted(falls.already, "fault", "faults")
        ));
    }
    sentences
}

fn times(reactions: &Reactions) -> String {
    let times = reactions.median_seconds.zip(reactions.longest_seconds);
    times.map_or(String::new(), |(median, longest)| match reactions.seen {
        1 => format!(", after {median:.1} s"),
        _ => format!(", median {median:.1} s, longest {longest:.1} s"),
    })
}

fn failures(arm: &ArmRecord) -> Option<String> {
    let failure = arm.failure.as_ref()?;
    Some(format!(
        "{} of {} failed, {} of them for this reason: {}.",
        counted(arm.summary.failed, "answer", "answers"),
        arm.name,
        failure.answers,
        failure.reason,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_a_median_and_the_longest() {
        let of = |seen, median, longest| {
            let reactions = Reactions {
                possible: 3,
                seen,
                already: 0,
                median_seconds: median,
                longest_seconds: longest,
            };
            falls_of(&reactions).join(" ")
        };
        let fell = "The rate fell below half of the highest in";
        assert_eq!(of(0, None, None), format!("{fell} 0 of 3 faults."));
        assert_eq!(of(1, Some(2.0), Some(2.0)), format!("{fell} 1 of 3 faults, after 2.0 s."));
        let told = format!("{fell} 3 of 3 faults, median 2.1 s, longest 3.0 s.");
        assert_eq!(of(3, Some(2.1), Some(3.0)), told);
        let slow = Reactions { already: 1, ..Reactions::default() };
        assert_eq!(falls_of(&slow), ["Before 1 fault it was below half of the highest already."]);
    }
}
