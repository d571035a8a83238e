//! What pacing costs at 10,000 flows, and how much faster than real time the simulator is with a thousand streams, on one core.
//!
//! Each figure is taken in a process of its own, several times in turns with the others, so that whatever else the machine does
//! meets all of them. The least is what counts, because other work can only add to it; the median beside it, and the machine's
//! load, say how quiet it was.

use std::process::Command;

use anyhow::{Context, ensure};

use super::{Bar, Bound, Report};

/// Flows of a tick, and streams of a sharing.
const FLOWS: usize = 10_000;

/// Ticks in a turn: ten seconds, in which flows come into all their states.
const TICKS: usize = 100;

/// Turns, and how many times as many with `--long`.
const TURNS: usize = 7;
const LONG: usize = 5;

/// Milliseconds of a tick, and of a sharing.
const TICK_MS: f64 = 5.0;
const ALLOCATION_MS: f64 = 2.0;

/// Simulated seconds of a turn: half of them with a thousand streams and more.
const SIMULATED: u32 = 300;

/// Streams under way, on average over the run.
const STREAMS: f64 = 1000.0;

/// How many times faster than real time.
const SPEED: f64 = 200.0;

/// The policies that are simulated, the one that must be so fast first. The others look at fewer things.
const POLICIES: [&str; 6] = ["carry", "none", "classic", "proteus", "buffer", "oracle"];

/// A run of the simulator.
struct Run {
    streams: f64,
    tokens: f64,
    seconds: f64,
}

pub(super) fn run(long: bool) -> anyhow::Result<Report> {
    let cost = crate::release_binary("netdiag-pacer", &["--example", "cost"], "examples/cost")?;
    let simulator =
        crate::release_binary("netdiag-lab", &["--example", "simulator"], "examples/simulator")?;
    let (mut ticks, mut allocations) = (Vec::new(), Vec::new());
    let mut runs: Vec<Vec<Run>> = POLICIES.iter().map(|_| Vec::new()).collect();
    let before = load()?;
    for _ in 0..if long { TURNS * LONG } else { TURNS } {
        let mut measure = Command::new(&cost);
        for round in numbers(measure.args([FLOWS, TICKS].map(|number| number.to_string())))? {
            let [tick, allocation] = round[..] else { anyhow::bail!("{round:?} is no round") };
            ticks.push(tick);
            allocations.push(allocation);
        }
        for (policy, runs) in POLICIES.iter().zip(&mut runs) {
            let mut simulate = Command::new(&simulator);
            for run in numbers(simulate.args([*policy, &SIMULATED.to_string()]))? {
                let [streams, tokens, seconds] = run[..] else {
                    anyhow::bail!("{run:?} is no run")
                };
                runs.push(Run { streams, tokens, seconds });
            }
        }
    }
    let columns = vec!["what", "best", "median", "unit", "streams", "tokens/s"];
    let mut report = Report { columns, ..Report::default() };
    let mut bar = |name: &str, value, bound, unit| {
        report.bars.push(Bar { name: name.to_owned(), value, bound, unit });
    };
    for (what, name, seconds, limit) in [
        ("tick of 10000 flows", "tick_ms", &mut ticks, TICK_MS),
        ("sharing among 10000 streams", "allocator_ms", &mut allocations, ALLOCATION_MS),
    ] {
        let [least, median] = least_and_median(seconds).map(|seconds| seconds * 1e3);
        bar(name, least, Bound::AtMost(limit), "ms");
        report.rows.push(cells(what, [least, median], "ms", None));
    }
    for (policy, runs) in POLICIES.iter().zip(&runs) {
        let mut seconds: Vec<f64> = runs.iter().map(|run| run.seconds).collect();
        let [best, median] = least_and_median(&mut seconds).map(|s| f64::from(SIMULATED) / s);
        let first = runs.first().context("no runs")?;
        let (streams, tps) = (first.streams, first.tokens / f64::from(SIMULATED));
        let what = format!("simulator, {policy}");
        report.rows.push(cells(&what, [best, median], "x real time", Some([streams, tps])));
        if *policy == POLICIES[0] {
            ensure!(
                streams >= STREAMS,
                "{streams:.0} streams are under way, {STREAMS} were asked for"
            );
            let bound = Bound::AtLeast(SPEED);
            let name = "simulator_carry_speed".to_owned();
            report.bars.push(Bar { name, value: best, bound, unit: "x" });
        }
    }
    let loads = [before, load()?].map(|load| format!("{load:.2}"));
    let [before, after] = loads;
    let row = ["machine's load before and after", &before, &after, "processes", "", ""];
    report.rows.push(row.map(str::to_owned).to_vec());
    Ok(report)
}

/// The numbers that a program prints, line by line.
pub(super) fn numbers(program: &mut Command) -> anyhow::Result<Vec<Vec<f64>>> {
    let name = program.get_program().to_string_lossy().into_owned();
    let output = program.output().with_context(|| format!("cannot run {name}"))?;
    ensure!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    let numbers = |line: &str| line.split_ascii_whitespace().map(str::parse).collect();
    text.lines().map(numbers).collect::<Result<_, _>>().with_context(|| format!("{name}: {text}"))
}

fn least_and_median(values: &mut [f64]) -> [f64; 2] {
    values.sort_unstable_by(f64::total_cmp);
    let at = |place: usize| values.get(place).copied().unwrap_or(f64::NAN);
    [at(0), at(values.len() / 2)]
}

fn cells(what: &str, values: [f64; 2], unit: &str, of: Option<[f64; 2]>) -> Vec<String> {
    let figure =
        |value: f64| if value < 10.0 { format!("{value:.2}") } else { format!("{value:.0}") };
    let [best, median] = values.map(figure);
    let [streams, tps] = of.map_or_else(Default::default, |of| of.map(figure));
    vec![what.to_owned(), best, median, unit.to_owned(), streams, tps]
}

/// Processes that ran or waited for a processor, on average over the last minute.
pub(super) fn load() -> anyhow::Result<f64> {
    const FILE: &str = "/proc/loadavg";
    let text = std::fs::read_to_string(FILE).context(FILE)?;
    let first = text.split_ascii_whitespace().next().with_context(|| format!("{FILE} is empty"))?;
    first.parse().with_context(|| format!("{FILE}: {first}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_and_the_median_are_told() {
        assert_eq!(least_and_median(&mut [3.0, 1.0, 2.0]), [1.0, 2.0]);
        assert!(least_and_median(&mut [])[0].is_nan());
        let expected = ["tick", "1.50", "12", "ms", "", ""].map(str::to_owned);
        assert_eq!(cells("tick", [1.5, 12.0], "ms", None), expected);
    }
}
