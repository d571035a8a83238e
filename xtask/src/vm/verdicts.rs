//! What the machine says of its checks, on a serial line of its own: `plan NAME…` once, then
//! `NAME ok|FAILED PASSED FAILED SKIPPED DETAIL` for each, the numbers being those of its tests, in that order, and `end`.
//!
//! Invariant: every check of the plan gets a verdict. Without one by the machine it is `FAILED`, whatever became of it.

use std::fmt;
use std::ops::Add;
use std::time::Duration;

use serde_json::{Value, json};

/// What became of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Ok,
    Failed,
    /// It could not be made here.
    Absent,
}

/// How many tests a check has made. What is no executable of tests counts as one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tests {
    passed: u32,
    failed: u32,
    /// They said that they cannot run there; the reason is in the detail.
    skipped: u32,
}

/// What became of a check, and what it took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    check: String,
    outcome: Outcome,
    tests: Tests,
    took: Duration,
    /// What was measured, or why it failed.
    detail: String,
}

/// The verdicts on one kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Examined {
    kernel: String,
    verdicts: Vec<Verdict>,
    /// From the start of the machine to its end.
    took: Duration,
}

/// Collects what one machine says.
#[derive(Debug, Default)]
pub(super) struct Collector {
    kernel: String,
    plan: Vec<String>,
    verdicts: Vec<Verdict>,
    /// When the check that is being made was begun, after the start of the machine.
    begun: Duration,
    ended: bool,
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "FAILED",
            Self::Absent => "absent",
        }
    }
}

impl Tests {
    /// From three words.
    fn read<'a>(mut words: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut number = || words.next()?.parse().ok();
        Some(Self { passed: number()?, failed: number()?, skipped: number()? })
    }

    fn all(self) -> u32 {
        self.passed + self.failed + self.skipped
    }
}

impl Add for Tests {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            skipped: self.skipped + other.skipped,
        }
    }
}

impl Verdict {
    fn row(&self, kernel: &str) -> [String; 9] {
        let Tests { passed, failed, skipped } = self.tests;
        let numbers = [self.tests.all(), passed, failed, skipped].map(|number| number.to_string());
        let [all, passed, failed, skipped] = numbers;
        let took = format!("{:.0} s", self.took.as_secs_f64());
        let (kernel, check, outcome) = (kernel.to_owned(), self.check.clone(), self.outcome.word());
        let outcome = outcome.to_owned();
        [kernel, check, outcome, all, passed, failed, skipped, took, self.detail.clone()]
    }

    fn json(&self) -> Value {
        json!({
            "check": self.check,
            "verdict": self.outcome.word(),
            "passed": self.tests.passed,
            "failed": self.tests.failed,
            "skipped": self.tests.skipped,
            "seconds": self.took.as_secs_f64().round(),
            "detail": self.detail,
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.took.as_secs_f64();
        write!(f, "{} {} ({seconds:.0} s)", self.check, self.outcome.word())?;
        if self.detail.is_empty() { Ok(()) } else { write!(f, ": {}", self.detail) }
    }
}

impl Examined {
    /// A kernel as a whole: that it could not be had, or did not come up.
    fn whole(kernel: &str, outcome: Outcome, took: Duration, detail: &str) -> Self {
        let (check, detail) = ("boot".to_owned(), detail.to_owned());
        let verdict = Verdict { check, outcome, tests: Tests::default(), took, detail };
        Self { kernel: kernel.to_owned(), verdicts: vec![verdict], took }
    }

    /// One that could not be had, for a reason.
    pub(super) fn absent(kernel: &str, why: &str) -> Self {
        Self::whole(kernel, Outcome::Absent, Duration::ZERO, why)
    }

    /// `ok` if all are, with the sum of their tests.
    fn sum(&self) -> Verdict {
        let mut outcomes = self.verdicts.iter().map(|verdict| verdict.outcome);
        let outcome = outcomes.find(|&outcome| outcome != Outcome::Ok).unwrap_or(Outcome::Ok);
        let tests = self.verdicts.iter().map(|verdict| verdict.tests);
        let tests = tests.fold(Tests::default(), Add::add);
        Verdict { check: "all".to_owned(), outcome, tests, took: self.took, detail: String::new() }
    }

    /// What is wrong, for a sentence; `None` if all is well.
    pub(super) fn complaint(&self) -> Option<String> {
        let bad = |verdict: &&Verdict| verdict.outcome != Outcome::Ok;
        let names: Vec<String> = self
            .verdicts
            .iter()
            .filter(bad)
            .map(|verdict| format!("{} {}", verdict.check, verdict.outcome.word()))
            .collect();
        (!names.is_empty()).then(|| format!("Linux {}: {}", self.kernel, names.join(", ")))
    }
}

impl Collector {
    pub(super) fn new(kernel: &str) -> Self {
        Self { kernel: kernel.to_owned(), ..Self::default() }
    }

    /// Takes a line that came `at` this time after the start of the machine, and returns the verdict in it. Others mean
    /// nothing: the firmware may speak as well.
    pub(super) fn take(&mut self, line: &str, at: Duration) -> Option<&Verdict> {
        let mut words = line.split_whitespace();
        let name = words.next()?;
        match name {
            "plan" if self.plan.is_empty() => {
                self.plan = words.map(str::to_owned).collect();
                self.begun = at;
                return None;
            }
            "end" => {
                self.ended = true;
                return None;
            }
            _ => {}
        }
        let outcome = match words.next()? {
            "ok" => Outcome::Ok,
            "FAILED" => Outcome::Failed,
            _ => return None,
        };
        let tests = Tests::read(&mut words)?;
        if !self.plan.iter().any(|planned| planned == name) {
            return None;
        }
        let took = at.saturating_sub(self.begun);
        self.begun = at;
        let detail = words.collect::<Vec<_>>().join(" ");
        self.verdicts.push(Verdict { check: name.to_owned(), outcome, tests, took, detail });
        self.verdicts.last()
    }

    /// All verdicts, once the machine is off, `at` this time after its start. `why` says how it ended, for what it left
    /// undone.
    pub(super) fn close(mut self, why: &str, at: Duration) -> Examined {
        let failed = |check: &str, took| Verdict {
            check: check.to_owned(),
            outcome: Outcome::Failed,
            tests: Tests { failed: 1, ..Tests::default() },
            took,
            detail: why.to_owned(),
        };
        if self.plan.is_empty() {
            return Examined::whole(&self.kernel, Outcome::Failed, at, why);
        }
        // All that is left is spent on the first that has no verdict.
        let mut left = at.saturating_sub(self.begun);
        for check in &self.plan {
            if !self.verdicts.iter().any(|verdict| verdict.check == *check) {
                self.verdicts.push(failed(check, std::mem::take(&mut left)));
            }
        }
        if !self.ended && self.verdicts.iter().all(|verdict| verdict.outcome == Outcome::Ok) {
            self.verdicts.push(failed("end", left));
        }
        Examined { kernel: self.kernel, verdicts: self.verdicts, took: at }
    }
}

/// The table, a line for each verdict and one for each kernel.
pub(super) fn table(all: &[Examined]) -> String {
    const HEAD: [&str; 9] =
        ["kernel", "check", "verdict", "tests", "passed", "failed", "skipped", "time", "detail"];
    let mut rows = vec![HEAD.map(str::to_owned)];
    for examined in all {
        let sum = examined.sum();
        let verdicts = examined.verdicts.iter().chain([&sum]);
        rows.extend(verdicts.map(|verdict| verdict.row(&examined.kernel)));
    }
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    let line = |row: &[String; 9]| {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            // Names and the detail are read from the left, numbers from the right.
            match column {
                3..8 => format!("{cell:>width$}"),
                _ => format!("{cell:<width$}"),
            }
        });
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

/// The same for a program.
pub(super) fn json(all: &[Examined]) -> String {
    let kernels = all.iter().map(|examined| {
        let mut kernel = examined.sum().json();
        kernel["kernel"] = examined.kernel.clone().into();
        kernel["checks"] = examined.verdicts.iter().map(Verdict::json).collect();
        kernel
    });
    format!("{:#}\n", json!({"kernels": kernels.collect::<Vec<_>>()}))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a machine has said, a line every second, and a second later it was off.
    fn said(lines: &[&str]) -> Examined {
        let mut collector = Collector::new("6.1.0");
        for (second, line) in (1..).zip(lines) {
            collector.take(line, Duration::from_secs(second));
        }
        collector.close("it ended early", Duration::from_secs(lines.len() as u64 + 1))
    }

    #[test]
    fn verdicts_become_a_table() {
        let lines = [
            "\x1bc firmware",
            "plan a long\r",
            "a ok 1 0 0 2 ms, 3 more\r",
            "not of the plan",
            "long FAILED 10 2 1 exit 101\r",
            "end\r",
        ];
        let expected = "\
kernel  check  verdict  tests  passed  failed  skipped  time  detail
6.1.0   a      ok           1       1       0        0   1 s  2 ms, 3 more
6.1.0   long   FAILED      13      10       2        1   2 s  exit 101
6.1.0   all    FAILED      14      11       2        1   7 s
6.12    boot   absent       0       0       0        0   0 s  not offered
6.12    all    absent       0       0       0        0   0 s
";
        let absent = Examined::absent("6.12", "not offered");
        assert_eq!(table(&[said(&lines), absent]), expected);
    }

    #[test]
    fn what_has_no_verdict_has_failed() {
        // The rows without the head, the kernel and the sum.
        let check = |lines: &[&str], expected: &[&str]| {
            let examined = said(lines);
            let told: Vec<String> = examined.verdicts.iter().map(Verdict::to_string).collect();
            assert_eq!(told, expected, "{lines:?}");
            assert_eq!(examined.sum().outcome, Outcome::Failed, "{lines:?}");
        };
        check(&[], &["boot FAILED (1 s): it ended early"]);
        check(&["a ok 1 0 0", "end"], &["boot FAILED (3 s): it ended early"]);
        check(
            &["plan a b c", "a FAILED 0 1 0 why", "b", "b maybe 1 0 0", "b ok 1 0", "d ok 1 0 0"],
            &[
                "a FAILED (1 s): why",
                "b FAILED (5 s): it ended early",
                "c FAILED (0 s): it ended early",
            ],
        );
        // All checks are done, and then it does not come to its end.
        check(&["plan a", "a ok 1 0 0"], &["a ok (1 s)", "end FAILED (1 s): it ended early"]);
    }

    #[test]
    fn a_complaint_names_what_is_wrong() {
        assert_eq!(said(&["plan a", "a ok 1 0 0", "end"]).complaint(), None);
        let complaint = said(&["plan a b c", "a ok 1 0 0", "b FAILED 0 1 0"]).complaint();
        assert_eq!(complaint.as_deref(), Some("Linux 6.1.0: b FAILED, c FAILED"));
        let complaint = Examined::absent("6.12", "not offered").complaint();
        assert_eq!(complaint.as_deref(), Some("Linux 6.12: boot absent"));
    }

    #[test]
    fn a_program_reads_the_same() {
        let all = [said(&["plan a", "a ok 3 0 1 skipped: x (no y)", "end"])];
        let value: Value = serde_json::from_str(&json(&all)).expect("JSON");
        let row = |check: &str, seconds: f64, detail: &str| {
            json!({
                "check": check, "verdict": "ok", "passed": 3, "failed": 0, "skipped": 1,
                "seconds": seconds, "detail": detail,
            })
        };
        let mut expected = row("all", 4.0, "");
        expected["kernel"] = "6.1.0".into();
        expected["checks"] = json!([row("a", 1.0, "skipped: x (no y)")]);
        assert_eq!(value, json!({"kernels": [expected]}));
    }
}
