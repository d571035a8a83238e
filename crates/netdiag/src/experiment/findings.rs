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
    sentences.push(match &rate.falls {
        None => format!("The rate had nothing to react to: {}.", rate.why_no_falls),
        Some(falls) => {
            let slow = falls.already;
            let already = match slow {
                0 => String::new(),
                _ => format!("; before {slow} more it was slow already"),
            };
            format!(
                "The rate fell below half of the highest in {} of {}{}{already}.",
                falls.seen,
                counted(falls.possible, "fault", "faults"),
                times(falls),
            )
        }
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
