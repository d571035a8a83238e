//! How many hints a second `netdiag up` answers, and how late the slowest of a hundred is, beside nginx with a file of the same bytes
//! and a Flask server of the original's shape.
//!
//! All share all cores with wrk, which asks on 64 connections that stay open, each for the next as soon as it has the one before.
//! Servers take turns, round by round, and what is compared is the median of the rounds' ratios: whatever else the machine does
//! meets all of them. `up` goes on measuring meanwhile, and its probe looks at everybody's packets alike.

mod peers;

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use super::pacer::load;
use super::server::{Server, cpu_of};
use super::up::{Asking, Up};
use super::{Bar, Bound, Options, Report};
use crate::command;
use crate::median::median;

/// Connections, and wrk's threads.
const CONNECTIONS: &str = "64";
const THREADS: &str = "2";

/// Rounds, how many times as many with `--long`, and the seconds of each server in each.
const ROUNDS: usize = 7;
const LONG: usize = 5;
const SECONDS: u32 = 4;

/// Requests answered per second, of nginx's.
const RATE: f64 = 0.8;
/// The slowest of a hundred, of nginx's.
const P99: f64 = 2.0;

/// wrk asks more often than anybody may by default. The limit is in force, only where it is not met.
const RATE_LIMIT: &str = "1000000";

/// What a token must look like, and no more: nobody is kept out.
const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// A server under load.
struct Subject {
    name: &'static str,
    address: SocketAddr,
    token: bool,
    running: Running,
    rounds: Vec<Round>,
}

enum Running {
    Ours(Up),
    Theirs(Server),
}

/// What wrk saw in one round, and what the server took for it.
struct Round {
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    cpu_us: f64,
    failed: f64,
}

pub(super) fn run(options: &Options) -> anyhow::Result<Report> {
    command::ensure_debian(&[("wrk", "wrk")])?;
    let columns = vec![
        "server",
        "requests/s",
        "to nginx",
        "p50 ms",
        "p99 ms",
        "p99 to nginx",
        "CPU us/request",
        "failed",
    ];
    let mut report = Report { columns, ..Report::default() };
    let folder = tempfile::tempdir()?;
    let script = folder.path().join("figures.lua");
    fs::write(&script, include_str!("hints/figures.lua"))?;
    let before = load()?;
    let mut subjects = subjects(folder.path(), &mut report)?;
    for round in 0..if options.long { ROUNDS * LONG } else { ROUNDS } {
        eprintln!("round {}", round + 1);
        for subject in &mut subjects {
            let measured = subject.measure(&script).context(subject.name)?;
            subject.rounds.push(measured);
        }
    }
    let [ours, _, nginx, ..] = &subjects[..] else { bail!("not all were measured") };
    for subject in &subjects {
        report.rows.push(subject.cells(nginx));
    }
    let mut last = vec!["machine's load before and after".to_owned(), format!("{before:.2}")];
    last.push(format!("{:.2}", load()?));
    last.resize_with(report.columns.len(), String::new);
    report.rows.push(last);
    let [rate, p99] = ours.beside(nginx);
    // A peer that refuses is none.
    let failed =
        subjects[..3].iter().flat_map(|subject| &subject.rounds).map(|round| round.failed).sum();
    for (name, value, bound) in [
        ("rate_to_nginx", rate, Bound::AtLeast(RATE)),
        ("p99_to_nginx", p99, Bound::AtMost(P99)),
        ("failed_requests", failed, Bound::AtMost(0.0)),
    ] {
        report.bars.push(Bar { name: name.to_owned(), value, bound, unit: "" });
    }
    Ok(report)
}

/// Ourselves without and with a token, nginx, and those of the others that can be had.
fn subjects(folder: &Path, report: &mut Report) -> anyhow::Result<Vec<Subject>> {
    let netdiag = crate::release_binary("netdiag", &["--bin", "netdiag"], "netdiag")?;
    let token = folder.join("token");
    fs::write(&token, TOKEN)?;
    fs::set_permissions(&token, Permissions::from_mode(0o600))?;
    let start = |arguments: &[&Path]| {
        let always = ["--no-dashboard", "--rate-limit", RATE_LIMIT].map(Path::new);
        Up::start(&netdiag, always.iter().chain(arguments))
    };
    let (open, guarded) = (start(&[])?, start(&[Path::new("--auth-token-file"), &token])?);
    let answer = Asking::connect(open.hints)?.body("/")?;
    let nginx = peers::file_server(&answer)?;
    let mut subjects = vec![
        Subject::ours("netdiag up", open, false),
        Subject::ours("netdiag up, with a token", guarded, true),
        Subject::theirs("nginx, a file", nginx),
    ];
    type Start = fn(&Path, &[u8]) -> anyhow::Result<Server>;
    let others: [(&'static str, Start); 2] =
        [("Flask, its own server", peers::flask), ("Flask, gunicorn", peers::gunicorn)];
    let python = peers::python();
    for (name, start) in others {
        let python: Result<&PathBuf, String> =
            python.as_ref().map_err(|error| format!("{error:#}"));
        let started =
            python.and_then(|python| start(python, &answer).map_err(|error| format!("{error:#}")));
        match started {
            Ok(server) => subjects.push(Subject::theirs(name, server)),
            Err(error) => report.absent.push(format!("{name} ({error})")),
        }
    }
    Ok(subjects)
}

impl Subject {
    fn ours(name: &'static str, up: Up, token: bool) -> Self {
        Self { name, address: up.hints, token, running: Running::Ours(up), rounds: Vec::new() }
    }

    fn theirs(name: &'static str, server: Server) -> Self {
        let address = server.address();
        Self { name, address, token: false, running: Running::Theirs(server), rounds: Vec::new() }
    }

    fn cpu(&self) -> anyhow::Result<Duration> {
        match &self.running {
            Running::Ours(up) => cpu_of(&[up.pid()]),
            Running::Theirs(server) => server.cpu(),
        }
    }

    fn measure(&self, script: &Path) -> anyhow::Result<Round> {
        let mut wrk = Command::new("wrk");
        wrk.args(["--threads", THREADS, "--connections", CONNECTIONS, "--latency"]);
        wrk.args(["--duration", &format!("{SECONDS}s"), "--script"]).arg(script);
        if self.token {
            wrk.args(["--header", &format!("Authorization: Bearer {TOKEN}")]);
        }
        let before = self.cpu()?;
        let output = wrk.arg(format!("http://{}/", self.address)).output();
        let output = output.context("cannot run wrk")?;
        let cpu = self.cpu()? - before;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "wrk: {said}{}", String::from_utf8_lossy(&output.stderr));
        Round::read(&said, cpu)
    }

    /// In each round the ratios of rates and of the slowest of a hundred.
    fn beside(&self, nginx: &Self) -> [f64; 2] {
        let pairs = || self.rounds.iter().zip(&nginx.rounds);
        [
            median(pairs().map(|(ours, theirs)| ours.per_second / theirs.per_second)),
            median(pairs().map(|(ours, theirs)| ours.p99_ms / theirs.p99_ms)),
        ]
    }

    fn cells(&self, nginx: &Self) -> Vec<String> {
        let of = |of: fn(&Round) -> f64| median(self.rounds.iter().map(of));
        let [rate, p99] = self.beside(nginx);
        vec![
            self.name.to_owned(),
            format!("{:.0}", of(|round| round.per_second)),
            format!("{rate:.2}"),
            format!("{:.2}", of(|round| round.p50_ms)),
            format!("{:.2}", of(|round| round.p99_ms)),
            format!("{p99:.2}"),
            format!("{:.1}", of(|round| round.cpu_us)),
            self.rounds.iter().map(|round| round.failed).sum::<f64>().to_string(),
        ]
    }
}

impl Round {
    /// Takes the figures out of what wrk says; `cpu` is what the server has used meanwhile.
    fn read(said: &str, cpu: Duration) -> anyhow::Result<Self> {
        let line = said.lines().find_map(|line| line.strip_prefix("figures "));
        let numbers = line.with_context(|| format!("wrk says no figures: {said}"))?;
        let numbers: Vec<f64> =
            numbers.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        let [requests, micros, p50, p99, failed] = numbers[..] else { bail!("wrk: {said}") };
        ensure!(requests > 0.0, "no request was answered");
        Ok(Self {
            per_second: requests / (micros / 1e6),
            p50_ms: p50 / 1e3,
            p99_ms: p99 / 1e3,
            cpu_us: cpu.as_secs_f64() * 1e6 / requests,
            failed,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_among_what_wrk_says() {
        let said = "Running 4s test\n  Latency 1ms\nfigures 200000 4000000 900 2500 3\n";
        let round = Round::read(said, Duration::from_secs(2)).expect("figures");
        assert_eq!((round.per_second, round.p50_ms, round.p99_ms), (50_000.0, 0.9, 2.5));
        assert_eq!((round.cpu_us, round.failed), (10.0, 3.0));
        assert!(Round::read("unable to connect", Duration::ZERO).is_err());
        assert!(Round::read("figures 0 4000000 0 0 64", Duration::ZERO).is_err());
    }
}
