//! How far a command has come that ends by itself: a bar on a terminal, and nothing elsewhere.
//!
//! Invariant: whatever is told after the command has ended or failed stands on a screen without a bar.

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::STATUS;

/// How often the bar moves while a single step takes long, so that nobody takes it for dead.
const TICK: Duration = Duration::from_millis(100);

/// What is counted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Unit {
    Bytes,
    Rows,
    Models,
    Runs,
}

/// A progress bar; gone from the screen when dropped.
#[derive(Debug)]
pub(crate) struct Progress(Option<ProgressBar>);

impl Progress {
    /// A bar if stderr is a terminal.
    pub(crate) fn start() -> Self {
        if !io::stderr().is_terminal() {
            return Self(None);
        }
        let bar = STATUS.get_or_init(|| {
            let bar = ProgressBar::no_length();
            bar.enable_steady_tick(TICK);
            bar
        });
        Self(Some(bar.clone()))
    }

    /// Begins a part of the work, of so many units; 0 if nobody knows.
    pub(crate) fn begin(&self, what: &str, total: u64, unit: Unit) {
        let Some(bar) = &self.0 else { return };
        let count = match unit {
            Unit::Bytes => "{bytes}/{total_bytes}",
            Unit::Rows => "{human_pos}/{human_len} rows",
            Unit::Models => "{pos}/{len} models",
            Unit::Runs => "{pos}/{len} runs",
        };
        let template = format!("{{spinner}} {{msg}} [{{bar:24}}] {count} {{elapsed}}");
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.reset();
        if total > 0 {
            bar.set_length(total);
        } else {
            bar.unset_length();
        }
        bar.set_message(what.to_owned());
    }

    /// So many units more are done.
    pub(crate) fn advance(&self, units: u64) {
        if let Some(bar) = &self.0 {
            bar.inc(units);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
