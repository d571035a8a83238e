//! A report as a table for people; its JSON twin is the report itself.
//!
//! Invariant: figures and their intervals are rounded for the eye only; nothing is computed from what is printed.

use std::fmt;

use super::{Capacities, Cell, Estimate, Report, SERVED_QOE};

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "± is the half-width of the 95 % interval over {} seeds", self.seeds.len())?;
        for cell in &self.cells {
            write!(f, "\n{cell}")?;
        }
        for capacities in &self.capacities {
            write!(f, "\n{capacities}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |share: f64| 100.0 * share;
        writeln!(
            f,
            "load {}, {} % on cellular links, {} % of those vanish",
            self.load,
            percent(self.mix.cellular).round(),
            percent(self.mix.vanishing).round()
        )?;
        writeln!(
            f,
            "  {:8} {:>15} {:>16} {:>16} {:>14} {:>14} {:>8} {:>8}",
            "policy",
            "QoE",
            "QoE - none",
            "waste %",
            "unread tok",
            "effective/s",
            "stall %",
            "TTFT s"
        )?;
        for row in &self.rows {
            writeln!(
                f,
                "  {:8} {:>15} {:>16} {:>16} {:>14} {:>14} {:>8} {:>8}",
                row.policy.as_str(),
                figure(row.qoe, 1.0, 4),
                row.qoe_gain.map_or_else(String::new, |gain| figure(gain, 1.0, 4)),
                figure(row.waste_ratio, 100.0, 3),
                figure(row.unread_tokens, 1.0, 0),
                figure(row.effective_tps, 1.0, 0),
                format!("{:.1}", percent(row.stall_ratio.mean)),
                format!("{:.2}", row.ttft_seconds.mean),
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Capacities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "highest load with QoE >= {SERVED_QOE}, {:.0} % on cellular links, {:.0} % of those vanish:",
            100.0 * self.mix.cellular,
            100.0 * self.mix.vanishing
        )?;
        for (policy, load) in &self.loads {
            write!(f, "  {} {}", policy.as_str(), figure(*load, 1.0, 3))?;
        }
        writeln!(f)
    }
}

fn figure(estimate: Estimate, times: f64, digits: usize) -> String {
    let mean = estimate.mean * times;
    match estimate.within {
        Some(within) => format!("{mean:.digits$} ±{:.digits$}", within * times),
        None => format!("{mean:.digits$}"),
    }
}
