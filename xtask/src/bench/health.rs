//! How well changes of a path are found, on labelled RTT traces (RIPE Atlas, `WenqinSHAO/rtt`): `epoch;rtt;cp`, a row every
//! four minutes, `cp` 1 at the first row of each new level.
//!
//! Everything is causal: a row's score is made from it and the rows before it, and no label is used but to count. A trace is
//! replayed with an interval of half a second per row, through the code that judges live links. A row counts with its score
//! and nothing is forgiven nearby; a row without an answer counts too, as a round trip of the timeout.
//!
//! The anomaly flag is no detector of changes but of harm that lasts, from about twice the RTT. Few of these changes, of some
//! percent, do harm; the flag's row shows how quiet it stays meanwhile.
//!
//! Invariant: all detectors see the same rows, and each figure is the mean over the traces.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use netdiag_health::ranking::{average_precision, roc_auc};
use netdiag_health::{Assessment, ChangeDetector, Health, Observation, RttRange};
use netdiag_iforest::{IsolationForest, Params};

use super::{Bar, Bound, Report};

/// Where the data lie beside a checkout unless a flag or [`VARIABLE`] says otherwise.
const FOLDER: &str = "../shared/data/rtt-changes";
const VARIABLE: &str = "NETDIAG_RTT_CHANGES";
/// Time between two rows.
const PERIOD: Duration = Duration::from_secs(240);
/// The interval that a row stands for in the replay: the agent's default.
const INTERVAL: Duration = Duration::from_millis(500);
/// The measurement's timeout: what takes as long, or is not above zero, was lost.
const TIMEOUT_MS: f64 = 1000.0;
/// An alarm within so many rows from a labelled change has found it.
const WITHIN: usize = 10;
/// A median/MAD detector's alarm (Iglewicz & Hoaglin 1993 for their modified z-score).
const MAD_ALARM: f64 = 3.5;
/// The plain detectors: rows of the median, rows of the MAD. One window for both as in the textbook, of the length that does
/// best here; and the best pair that was found.
const MAD_ROWS: [(usize, usize); 2] = [(10, 10), (3, 200)];
/// What the forest alone looks at: the distances to the row before, and to the medians of the last ten and two hundred.
const FOREST_ROWS: [usize; 3] = [1, 10, 200];
/// Rows from one training of it to the next.
const RETRAIN: usize = 250;
/// False alarms a day at which scores are compared as alarms.
const FALSE_PER_DAY: f64 = 4.0;

/// A labelled trace.
struct Trace {
    rtts: Vec<Duration>,
    changes: Vec<bool>,
}

/// A detector's answer to one trace, row by row.
enum Answer {
    /// The higher, the likelier a change.
    Score(Vec<f64>),
    /// Whether an alarm is on.
    Alarm(Vec<bool>),
}

/// Detectors by name.
type Detector = (String, Box<dyn Fn(&Trace) -> Answer>);

pub(super) fn run(data: Option<&Path>) -> anyhow::Result<Report> {
    let columns = vec!["detector", "AP", "ROC-AUC", "found", "median delay", "false/day"];
    let mut report = Report { columns, ..Report::default() };
    let named = data.map(Path::to_owned).or_else(|| std::env::var_os(VARIABLE).map(PathBuf::from));
    let folder = named.clone().unwrap_or_else(|| crate::root().join(FOLDER));
    // Without the data there is nothing to measure; a folder that was asked for must be there.
    if named.is_none() && !folder.is_dir() {
        let remedy = format!("name a folder with --data or {VARIABLE}");
        report.absent.push(format!("traces ({} is no folder: {remedy})", folder.display()));
        return Ok(report);
    }
    let traces = read_folder(&folder)?;
    for (index, (name, detector)) in detectors().iter().enumerate() {
        let answers: Vec<Answer> = traces.iter().map(detector).collect();
        let figures = Figures::of(&answers, &traces);
        report.rows.push(figures.row(name));
        // The change detector by itself, and the score that hints carry.
        let of = match index {
            0 => "rtt_changes",
            1 => "live_score",
            _ => continue,
        };
        let bar = |name: &str, value: Option<f64>, limit| Bar {
            name: format!("{of}_{name}"),
            value: value.unwrap_or(f64::NAN),
            bound: Bound::AtLeast(limit),
            unit: "",
        };
        report.bars.push(bar("ap", figures.ap, 0.252));
        report.bars.push(bar("roc", figures.roc, 0.942));
    }
    Ok(report)
}

/// Ours first.
fn detectors() -> Vec<Detector> {
    let mut detectors: Vec<Detector> = vec![
        (
            "netdiag surprise".to_owned(),
            Box::new(|trace| {
                let mut detector = ChangeDetector::new();
                Answer::Score(trace.rtts.iter().map(|&rtt| detector.push(rtt)).collect())
            }),
        ),
        (
            "netdiag anomaly score".to_owned(),
            Box::new(|trace| Answer::Score(replay(trace, |assessment| assessment.anomaly_score))),
        ),
        (
            "netdiag anomaly flag".to_owned(),
            Box::new(|trace| Answer::Alarm(replay(trace, |assessment| assessment.anomaly))),
        ),
    ];
    let forest = |trace: &Trace| Answer::Score(forest_scores(&trace.rtts));
    detectors.push(("forest alone".to_owned(), Box::new(forest)));
    for (near, long) in MAD_ROWS {
        let name = format!("median of {near}, MAD of {long}");
        let score = move |trace: &Trace| mad_scores(&trace.rtts, near, long);
        let alarm = move |trace: &Trace| {
            Answer::Alarm(score(trace).iter().map(|&score| score > MAD_ALARM).collect())
        };
        detectors.push((name.clone(), Box::new(move |trace| Answer::Score(score(trace)))));
        detectors.push((format!("{name}, above {MAD_ALARM}"), Box::new(alarm)));
    }
    detectors
}

/// The live judgement, which trains itself as it goes.
fn replay<T>(trace: &Trace, read: impl Fn(&Assessment) -> T) -> Vec<T> {
    let mut health = Health::new(0);
    let judge = |&rtt: &Duration| {
        let rtt = Some(RttRange { min: rtt, p95: rtt });
        let seen = Observation { rtt, segs_out: Some(1), ..Observation::default() };
        let assessment = health.observe(&seen, INTERVAL);
        // A training set that has no variation leaves the model before it in place.
        if let Some(set) = health.take_training_set()
            && let Ok(model) = set.train(&Params::default())
        {
            health.set_model(Arc::new(model));
        }
        read(&assessment)
    };
    trace.rtts.iter().map(judge).collect()
}

/// A forest of what a row is like beside those before it, trained again and again on the rows so far. The health model's own
/// features are taken over seconds, so that a spike moves none of them: at the very row of a change they would have nothing
/// to say.
fn forest_scores(rtts: &[Duration]) -> Vec<f64> {
    let ln: Vec<f64> = rtts.iter().map(|rtt| rtt.as_secs_f64().ln()).collect();
    let features = |at: usize| {
        FOREST_ROWS.map(|rows| (ln[at] - median(&ln[at.saturating_sub(rows)..at.max(1)])) as f32)
    };
    let rows: Vec<f32> = (0..ln.len()).flat_map(features).collect();
    let width = FOREST_ROWS.len();
    let mut forest = None;
    let score = |(at, row): (usize, &[f32])| {
        if at > 0 && at % RETRAIN == 0 {
            forest = IsolationForest::fit(&Params::default(), &rows[..at * width], width).ok();
        }
        // A forest's score falls where a row is unusual.
        forest.as_ref().and_then(|forest| forest.score_row(row).ok()).map_or(0.0, |score| -score)
    };
    rows.chunks_exact(width).enumerate().map(score).collect()
}

/// Distance to the median of the last `near` rows over the MAD of the last `long`, neither with the row itself.
fn mad_scores(rtts: &[Duration], near: usize, long: usize) -> Vec<f64> {
    let ms: Vec<f64> = rtts.iter().map(|rtt| rtt.as_secs_f64() * 1e3).collect();
    let score = |at: usize| {
        if at == 0 {
            return 0.0;
        }
        let deviation = (ms[at] - median(&ms[at.saturating_sub(near)..at])).abs();
        let past = &ms[at.saturating_sub(long)..at];
        let middle = median(past);
        let distances: Vec<f64> = past.iter().map(|past| (past - middle).abs()).collect();
        // 1.4826 MAD is a standard deviation of normal noise; a tenth of a millisecond keeps a constant past from dividing.
        deviation / (1.4826 * median(&distances) + 0.1)
    };
    (0..ms.len()).map(score).collect()
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    let middle = values.len() / 2;
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}

/// A detector's figures over all traces.
struct Figures {
    ap: Option<f64>,
    roc: Option<f64>,
    alarms: Alarms,
}

impl Figures {
    fn of(answers: &[Answer], traces: &[Trace]) -> Self {
        let scores: Vec<(&[f64], &[bool])> = answers
            .iter()
            .zip(traces)
            .filter_map(|(answer, trace)| match answer {
                Answer::Score(scores) => Some((&scores[..], &trace.changes[..])),
                Answer::Alarm(_) => None,
            })
            .collect();
        let mean = |figure: fn(&[f64], &[bool]) -> Option<f64>| {
            let figures = scores.iter().map(|(scores, labels)| figure(scores, labels));
            let sum: f64 = figures.sum::<Option<f64>>()?;
            (!scores.is_empty()).then(|| sum / scores.len() as f64)
        };
        let mut alarms = Alarms::default();
        for (answer, trace) in answers.iter().zip(traces) {
            alarms.add(&match answer {
                Answer::Alarm(on) => Alarms::of(on, &trace.changes),
                Answer::Score(scores) => Alarms::at_rate(scores, &trace.changes),
            });
        }
        Self { ap: mean(average_precision), roc: mean(roc_auc), alarms }
    }

    fn row(&self, name: &str) -> Vec<String> {
        let or_dash = |figure: Option<f64>| figure.map_or("-".to_owned(), |f| format!("{f:.3}"));
        let mut cells = vec![name.to_owned(), or_dash(self.ap), or_dash(self.roc)];
        cells.extend(self.alarms.cells());
        cells
    }
}

/// What alarms found, over one trace or several.
#[derive(Clone, Debug, Default)]
struct Alarms {
    changes: usize,
    /// Rows from each found change to the alarm.
    delays: Vec<usize>,
    false_alarms: usize,
    rows: usize,
}

impl Alarms {
    /// An alarm is where it comes on. It finds the changes of the [`WITHIN`] rows that end with it, and is false if there
    /// are none.
    fn of(on: &[bool], changes: &[bool]) -> Self {
        let comes_on = |row: &usize| on[*row] && (*row == 0 || !on[*row - 1]);
        let raised: Vec<usize> = (0..on.len()).filter(comes_on).collect();
        let delay = |change: usize| {
            let next = raised.get(raised.partition_point(|&row| row < change))?;
            (next - change < WITHIN).then_some(next - change)
        };
        let found =
            |alarm: usize| (alarm.saturating_sub(WITHIN - 1)..=alarm).any(|row| changes[row]);
        let changed: Vec<usize> = (0..changes.len()).filter(|&row| changes[row]).collect();
        Self {
            changes: changed.len(),
            delays: changed.iter().filter_map(|&change| delay(change)).collect(),
            false_alarms: raised.iter().filter(|&&alarm| !found(alarm)).count(),
            rows: on.len(),
        }
    }

    /// The alarms of a score above the threshold at which a trace has [`FALSE_PER_DAY`] false ones.
    fn at_rate(scores: &[f64], changes: &[bool]) -> Self {
        let mut thresholds = scores.to_vec();
        thresholds.sort_by(f64::total_cmp);
        thresholds.dedup();
        let above = |threshold: f64| {
            let on: Vec<bool> = scores.iter().map(|&score| score > threshold).collect();
            Self::of(&on, changes)
        };
        let days = days(scores.len());
        // From the highest down: lower thresholds have more false alarms only up to where those run into one another.
        let mut lowest = above(f64::INFINITY);
        for &threshold in thresholds.iter().rev() {
            let alarms = above(threshold);
            if alarms.false_alarms as f64 > FALSE_PER_DAY * days {
                break;
            }
            lowest = alarms;
        }
        lowest
    }

    fn add(&mut self, other: &Alarms) {
        self.changes += other.changes;
        self.delays.extend(&other.delays);
        self.false_alarms += other.false_alarms;
        self.rows += other.rows;
    }

    fn cells(&self) -> [String; 3] {
        let found = self.delays.len() as f64 / self.changes as f64;
        let delays: Vec<f64> = self.delays.iter().map(|&rows| rows as f64).collect();
        let delay = match delays.is_empty() {
            true => "-".to_owned(),
            false => format!("{:.0} min", median(&delays) * PERIOD.as_secs_f64() / 60.0),
        };
        let false_per_day = self.false_alarms as f64 / days(self.rows);
        [format!("{:.0} %", 100.0 * found), delay, format!("{false_per_day:.1}")]
    }
}

fn days(rows: usize) -> f64 {
    rows as f64 * PERIOD.as_secs_f64() / 86_400.0
}

/// Every trace of a folder, in the order of names.
fn read_folder(folder: &Path) -> anyhow::Result<Vec<Trace>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "csv"));
    paths.sort();
    ensure!(
        !paths.is_empty(),
        "no .csv file in {}: give a folder of `epoch;rtt;cp` traces",
        folder.display()
    );
    let read = |path: &PathBuf| {
        let text = fs::read_to_string(path)?;
        parse(&text)
    };
    paths.iter().map(|path| read(path).with_context(|| format!("{}", path.display()))).collect()
}

/// `epoch;rtt;cp` with a header: RTT in milliseconds, lost where it is not above 0 or at least 1000.
fn parse(text: &str) -> anyhow::Result<Trace> {
    let mut trace = Trace { rtts: Vec::new(), changes: Vec::new() };
    for (index, line) in text.lines().enumerate().skip(1).filter(|(_, line)| !line.is_empty()) {
        let number = |field: Option<&str>| field.and_then(|field| field.trim().parse::<f64>().ok());
        let mut fields = line.split(';').skip(1);
        let (Some(rtt), Some(change)) = (number(fields.next()), number(fields.next())) else {
            bail!("line {}: `{line}` is not `epoch;rtt;cp`", index + 1);
        };
        let lost = !(rtt > 0.0 && rtt < TIMEOUT_MS);
        trace.rtts.push(Duration::from_secs_f64(if lost { TIMEOUT_MS } else { rtt } / 1e3));
        trace.changes.push(change > 0.5);
    }
    ensure!(trace.changes.contains(&true), "no change is labelled: there is nothing to find");
    Ok(trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_find_what_came_shortly_before_them() {
        let rows = |at: &[usize]| (0..60).map(|row| at.contains(&row)).collect::<Vec<bool>>();
        let check = |alarms: &[usize], changes: &[usize], delays: &[usize], false_alarms| {
            let found = Alarms::of(&rows(alarms), &rows(changes));
            assert_eq!(
                (&found.delays[..], found.false_alarms),
                (delays, false_alarms),
                "{alarms:?}"
            );
        };
        check(&[], &[5], &[], 0);
        check(&[5], &[5], &[0], 0);
        check(&[14], &[5], &[9], 0);
        check(&[15], &[5], &[], 1);
        check(&[4], &[5], &[], 1);
        check(&[20, 21, 22, 40], &[18, 20], &[2, 0], 1);
    }

    #[test]
    fn a_trace_is_parsed_with_its_losses() {
        let trace = parse("epoch;rtt;cp\n1;20.5;0\n2;-3;1\n3;1000;0.0\n").expect("a trace");
        let expected = [20.5, 1000.0, 1000.0].map(|ms| Duration::from_secs_f64(ms / 1e3));
        assert_eq!(
            (&trace.rtts[..], &trace.changes[..]),
            (&expected[..], &[false, true, false][..])
        );
        let error = parse("epoch;rtt;cp\n1;20;1\n2;x;0\n").err().expect("not a number");
        assert_eq!(error.to_string(), "line 3: `2;x;0` is not `epoch;rtt;cp`");
        assert!(parse("epoch;rtt;cp\n1;20;0\n").is_err());
    }
}
