//! What the machine says of its checks, on a serial line of its own: `plan NAME…` once, then `NAME ok|FAILED DETAIL` for
//! each, in that order, and `end`.
//!
//! Invariant: every check of the plan gets a verdict. Without one by the machine it is `FAILED`, whatever became of it.

use serde_json::json;

/// What became of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Ok,
    Failed,
    /// It could not be made here.
    Absent,
}

/// A row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) kernel: String,
    pub(super) check: String,
    pub(super) outcome: Outcome,
    /// What was measured, or why it failed.
    pub(super) detail: String,
}

/// Collects what one machine says.
#[derive(Debug, Default)]
pub(super) struct Collector {
    kernel: String,
    plan: Vec<String>,
    verdicts: Vec<Verdict>,
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

impl Verdict {
    /// A verdict on a kernel as a whole: that it could not be had, or did not come up.
    pub(super) fn of_kernel(kernel: &str, outcome: Outcome, detail: &str) -> Self {
        let (kernel, detail) = (kernel.to_owned(), detail.to_owned());
        Self { kernel, check: "boot".to_owned(), outcome, detail }
    }

    /// A line with columns as wide as they are in `all`.
    fn line(&self, all: &[Self]) -> String {
        let width = |of: fn(&Self) -> &str| all.iter().map(|v| of(v).len()).max().unwrap_or(0);
        let (kernel, check) = (width(|v| &v.kernel), width(|v| &v.check));
        let Self { outcome, detail, .. } = self;
        let line = format!(
            "{:<kernel$}  {:<check$}  {:<6}  {detail}",
            self.kernel,
            self.check,
            outcome.word()
        );
        line.trim_end().to_owned()
    }
}

impl Collector {
    pub(super) fn new(kernel: &str) -> Self {
        Self { kernel: kernel.to_owned(), ..Self::default() }
    }

    /// Takes a line, and returns the verdict in it. Others mean nothing: the firmware may speak as well.
    pub(super) fn take(&mut self, line: &str) -> Option<&Verdict> {
        let mut words = line.trim().splitn(3, ' ');
        let (name, outcome) = (words.next()?, words.next());
        match (name, outcome) {
            ("plan", Some(_)) if self.plan.is_empty() => {
                self.plan = line.split_whitespace().skip(1).map(str::to_owned).collect();
                return None;
            }
            ("end", None) => {
                self.ended = true;
                return None;
            }
            _ => {}
        }
        let outcome = match outcome? {
            "ok" => Outcome::Ok,
            "FAILED" => Outcome::Failed,
            _ => return None,
        };
        if !self.plan.iter().any(|planned| planned == name) {
            return None;
        }
        let (check, detail) = (name.to_owned(), words.next().unwrap_or_default().to_owned());
        self.verdicts.push(Verdict { kernel: self.kernel.clone(), check, outcome, detail });
        self.verdicts.last()
    }

    /// All verdicts, once the machine is off. `why` says how it ended, for what it left undone.
    pub(super) fn close(mut self, why: &str) -> Vec<Verdict> {
        if self.plan.is_empty() {
            return vec![Verdict::of_kernel(&self.kernel, Outcome::Failed, why)];
        }
        for check in self.plan {
            if !self.verdicts.iter().any(|verdict| verdict.check == check) {
                let (kernel, detail) = (self.kernel.clone(), why.to_owned());
                let outcome = Outcome::Failed;
                self.verdicts.push(Verdict { kernel, check, outcome, detail });
            }
        }
        if !self.ended && !self.verdicts.iter().any(|verdict| verdict.outcome == Outcome::Failed) {
            self.verdicts.push(Verdict::of_kernel(&self.kernel, Outcome::Failed, why));
        }
        self.verdicts
    }
}

/// The table, a line for each verdict.
pub(super) fn table(verdicts: &[Verdict]) -> String {
    verdicts.iter().map(|verdict| format!("{}\n", verdict.line(verdicts))).collect()
}

/// The same for a program.
pub(super) fn json(verdicts: &[Verdict]) -> String {
    let rows = verdicts.iter().map(|verdict| {
        json!({
            "kernel": verdict.kernel,
            "check": verdict.check,
            "outcome": verdict.outcome.word(),
            "detail": verdict.detail,
        })
    });
    format!("{:#}\n", json!({"checks": rows.collect::<Vec<_>>()}))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of what a machine has said.
    fn said(lines: &[&str]) -> String {
        let mut collector = Collector::new("6.1.0");
        for line in lines {
            collector.take(line);
        }
        table(&collector.close("the machine ended early"))
    }

    #[test]
    fn verdicts_become_a_table() {
        let lines = ["\x1bc firmware", "plan a long\r", "a ok 2 ms, 3 more\r", "long ok", "end\r"];
        assert_eq!(said(&lines), "6.1.0  a     ok      2 ms, 3 more\n6.1.0  long  ok\n");
    }

    #[test]
    fn what_has_no_verdict_has_failed() {
        let check = |lines: &[&str], expected: &str| assert_eq!(said(lines), expected, "{lines:?}");
        check(&[], "6.1.0  boot  FAILED  the machine ended early\n");
        check(&["a ok 1", "end"], "6.1.0  boot  FAILED  the machine ended early\n");
        check(
            &["plan a b", "a FAILED 1", "b", "b maybe", "c ok 1"],
            "6.1.0  a  FAILED  1\n6.1.0  b  FAILED  the machine ended early\n",
        );
        // All checks are done, and then it does not come to its end.
        check(
            &["plan a", "a ok"],
            "6.1.0  a     ok\n6.1.0  boot  FAILED  the machine ended early\n",
        );
    }

    #[test]
    fn a_program_reads_the_same() {
        let verdicts = [Verdict::of_kernel("6.12", Outcome::Absent, "not offered")];
        let value: serde_json::Value = serde_json::from_str(&json(&verdicts)).expect("JSON");
        let expected = json!({
            "kernel": "6.12", "check": "boot", "outcome": "absent", "detail": "not offered",
        });
        assert_eq!(value["checks"][0], expected);
    }
}
