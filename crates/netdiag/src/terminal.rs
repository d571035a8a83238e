//! What a person sees on stderr: log lines, and below them one live status line on a terminal.
//!
//! Both write to the same screen, so log lines go through [`LogWriter`], which lifts the status line out of the way.
//! Invariant: without a terminal there is no status line and no colour.

use std::io::{self, IsTerminal as _, Write};
use std::sync::OnceLock;

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// The one status line of the process, once there is one.
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

/// Tells the person something that is not a log line (the banner, where hints are served).
pub(crate) fn say(line: &str) {
    // A closed stderr loses the banner, not the service.
    let _ = LogWriter.write_all(format!("{line}\n").as_bytes());
}

/// The live line at the bottom of a terminal; does nothing elsewhere.
#[derive(Clone, Debug)]
pub(crate) struct StatusLine(Option<ProgressBar>);

impl StatusLine {
    /// A status line if stderr is a terminal.
    pub(crate) fn start() -> Self {
        if !io::stderr().is_terminal() {
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

    /// Replaces the text; cut off at the terminal's width.
    pub(crate) fn set(&self, text: String) {
        if let Some(bar) = &self.0 {
            bar.set_message(text);
        }
    }

    /// Removes the line from the screen.
    pub(crate) fn clear(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
