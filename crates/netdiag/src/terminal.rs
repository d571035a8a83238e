//! What a person sees on stderr: log lines, and below them one live status line on a terminal.
//!
//! Both write to the same screen, so log lines go through [`LogWriter`], which lifts the status line out of the way.
//! Invariant: without a terminal there is no status line and no colour.

mod progress;

use std::io::{self, IsTerminal as _, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use rustix::termios::tcgetwinsize;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::csv_file::is_stdout;
pub(crate) use progress::{Progress, Unit};

/// The last log line, while something else has the screen.
static HELD_BACK: Mutex<Option<String>> = Mutex::new(None);

/// The one status line or progress bar of the process, once there is one.
static STATUS: OnceLock<ProgressBar> = OnceLock::new();

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogLevel {
    /// Only what makes the command fail.
    Error,
    /// And what a person should look into.
    Warn,
    /// And what happens once: start, stop, fallback.
    Info,
    /// And what happens now and then.
    Debug,
    /// And everything else.
    Trace,
}

impl From<LogLevel> for LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => LevelFilter::ERROR,
            LogLevel::Warn => LevelFilter::WARN,
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Debug => LevelFilter::DEBUG,
            LogLevel::Trace => LevelFilter::TRACE,
        }
    }
}

/// Sends log lines of `level` and worse to stderr. Libraries below us stay at `info` even under `trace`, where they
/// would bury our own lines.
pub(crate) fn init_logging(level: LogLevel) {
    let level = LevelFilter::from(level);
    let own = tracing_subscriber::filter::Targets::new()
        .with_target("netdiag", level)
        // What becomes of its connection we tell ourselves.
        .with_target("async_nats", LevelFilter::OFF)
        .with_default(level.min(LevelFilter::INFO));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(LogWriter)
        .with_ansi(io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_target(level >= LevelFilter::DEBUG);
    // Fails only if called twice, and then the first logger serves.
    let _ = tracing_subscriber::registry().with(own).with(lines).try_init();
}

/// Writes whole log lines to stderr without tearing the status line.
struct LogWriter;

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = LogWriter;

    fn make_writer(&'a self) -> LogWriter {
        LogWriter
    }
}

impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Some(held) = held_back().as_mut() {
            *held = without_time(&String::from_utf8_lossy(line));
            return Ok(line.len());
        }
        let write = || io::stderr().lock().write_all(line);
        match STATUS.get() {
            Some(status) => status.suspend(write)?,
            None => write()?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// A log line without its time and its colours, which a screen has its own of.
fn without_time(line: &str) -> String {
    let mut parts = line.split('\x1b');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        // What follows the escape character is a colour up to its `m`.
        plain += part.split_once('m').map_or(part, |(_colour, text)| text);
    }
    plain.trim().split_once(' ').map_or("", |(_time, rest)| rest.trim_start()).to_owned()
}

/// The whole screen, on which log lines have no place; the last one is kept to be shown there.
pub(crate) struct WholeScreen(());

impl WholeScreen {
    /// Takes it, until this is dropped.
    pub(crate) fn take() -> Self {
        *held_back() = Some(String::new());
        Self(())
    }

    /// The last log line.
    pub(crate) fn last_line(&self) -> String {
        held_back().clone().unwrap_or_default()
    }
}

impl Drop for WholeScreen {
    fn drop(&mut self) {
        *held_back() = None;
    }
}

fn held_back() -> MutexGuard<'static, Option<String>> {
    // Each change is complete in itself.
    HELD_BACK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells the person something that is not a log line (the banner, where hints are served).
pub(crate) fn say(line: &str) {
    // A closed stderr loses the banner, not the service.
    let _ = LogWriter.write_all(format!("{line}\n").as_bytes());
}

/// The live line at the bottom of a terminal; does nothing elsewhere.
#[derive(Clone, Debug)]
pub(crate) struct StatusLine(Option<ProgressBar>);

impl StatusLine {
    /// A status line if stderr is a terminal, unless rows for `csv` are printed to a terminal as well.
    pub(crate) fn start_beside(csv: Option<&Path>) -> Self {
        let crowded = csv.is_some_and(is_stdout) && io::stdout().is_terminal();
        if crowded || !io::stderr().is_terminal() {
            return Self(None);
        }
        let status = STATUS.get_or_init(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{wide_msg}") {
                bar.set_style(style);
            }
            bar
        });
        Self(Some(status.clone()))
    }

    /// Whether anybody can see it.
    pub(crate) fn is_shown(&self) -> bool {
        self.0.is_some()
    }

    /// Replaces the text; cut off after the last word that the terminal has room for.
    pub(crate) fn set(&self, text: String) {
        if let Some(bar) = &self.0 {
            let size = tcgetwinsize(io::stderr()).ok().map(|size| size.ws_col);
            // 0 is what terminals without a size say.
            let columns = size.filter(|&columns| columns > 0).unwrap_or(u16::MAX);
            bar.set_message(fitting(&text, columns.into()).to_owned());
        }
    }

    /// Removes the line from the screen.
    pub(crate) fn clear(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

/// The first words of `text` that fit into `columns`, at least as much of the first one. Every character of ours is one
/// column wide.
pub(crate) fn fitting(text: &str, columns: usize) -> &str {
    let Some((end, next)) = text.char_indices().nth(columns) else { return text };
    let fitting = &text[..end];
    let whole = if next == ' ' { Some(end) } else { fitting.rfind(' ') };
    let words = whole.map_or(fitting, |end| &fitting[..end]);
    words.trim_end_matches([' ', '│', '(', ','])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_on_the_screen_has_no_time_and_no_colours() {
        let check = |line: &str, told: &str| assert_eq!(without_time(line), told);
        let time = "2026-11-27T14:10:22.295009Z";
        check(
            &format!("\x1b[2m{time}\x1b[0m \x1b[33m WARN\x1b[0m bus a: connection lost\n"),
            "WARN bus a: connection lost",
        );
        check(&format!("{time}  INFO bus a: connected\n"), "INFO bus a: connected");
        check("", "");
    }

    #[test]
    fn narrow_terminals_cut_between_words() {
        let check = |columns: usize, expected: &str| {
            assert_eq!(fitting("60.0 tok/s │ 2 flows", columns), expected, "{columns}");
        };
        check(20, "60.0 tok/s │ 2 flows");
        check(19, "60.0 tok/s │ 2");
        check(12, "60.0 tok/s");
        check(10, "60.0 tok/s");
        check(9, "60.0");
        check(2, "60");
        check(0, "");
    }
}
