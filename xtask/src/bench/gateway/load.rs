//! Both ends of what is measured, as one process: an engine without a model, and clients that read it.
//!
//! Invariant: the process ends with [`Ends`].

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, ensure};
use serde_json::Value;

/// So many streams with so many events/s each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) streams: usize,
    pub(super) per_second: f64,
    /// How long it is measured.
    pub(super) seconds: f64,
}

/// What the clients saw of a load.
#[derive(Clone, Copy, Debug)]
pub(super) struct Figures {
    pub(super) events: f64,
    pub(super) seconds: f64,
    /// From an event's being written to its being read.
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    /// Events more than a second behind their schedule, and streams that were at the end.
    pub(super) late: f64,
    /// Streams without an event.
    pub(super) failed: f64,
}

/// The share of a load that must have come for its figures to mean something.
const ENOUGH: f64 = 0.5;

pub(super) struct Ends {
    child: Child,
    loads: Option<ChildStdin>,
    says: BufReader<ChildStdout>,
    engine: SocketAddr,
}

impl Ends {
    pub(super) fn start() -> anyhow::Result<Self> {
        let target = ["--example", "streams"];
        let binary = crate::release_binary("netdiag-gateway", &target, "examples/streams")?;
        let mut child = Command::new(binary)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run the engine")?;
        let loads = child.stdin.take();
        let says = BufReader::new(child.stdout.take().context("no output")?);
        let mut ends = Self { child, loads, says, engine: SocketAddr::from(([127, 0, 0, 1], 0)) };
        ends.engine = ends.line()?.parse()?;
        Ok(ends)
    }

    pub(super) fn engine(&self) -> SocketAddr {
        self.engine
    }

    /// Runs a load through `target`. `look` is called when it has begun and when it is over.
    pub(super) fn run<T>(
        &mut self,
        target: SocketAddr,
        load: Load,
        mut look: impl FnMut() -> anyhow::Result<T>,
    ) -> anyhow::Result<(Figures, [T; 2])> {
        let loads = self.loads.as_mut().context("no input")?;
        let Load { streams, per_second, seconds } = load;
        writeln!(loads, "{target} {streams} {per_second} {seconds}")?;
        let begun = self.line()?;
        ensure!(begun == "begun", "the clients said {begun:?}");
        let before = look()?;
        let line = self.line()?;
        // The streams are open until they are told to end.
        let after = look()?;
        writeln!(self.loads.as_mut().context("no input")?, "end")?;
        let said: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
        let number = |name: &str| said[name].as_f64().with_context(|| format!("{name} in {line}"));
        let figures = Figures {
            events: number("events")?,
            seconds: number("seconds")?,
            p50_ms: number("p50_ms")?,
            p99_ms: number("p99_ms")?,
            late: number("late")?,
            failed: number("failed")?,
        };
        let expected = streams as f64 * per_second * seconds;
        ensure!(figures.events > ENOUGH * expected, "of {expected} events came {line}");
        Ok((figures, [before, after]))
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.says.read_line(&mut line)?;
        ensure!(!line.is_empty(), "the engine has ended");
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        // At the end of its input it ends by itself.
        drop(self.loads.take());
        let _ = self.child.wait();
    }
}
