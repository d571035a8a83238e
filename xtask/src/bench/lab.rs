//! Whether emulated links are what they are asked to be, measured by the kernel's own UDP and TCP through them; what links, engine
//! and clients cost; and whether anything stays behind when processes with a lab end at random.
//!
//! Both ends of a link are threads of this process, so that one clock stamps a packet at both and delays are one-way. Seeds
//! are fixed: chance is the same in every run, and a figure that strays does so for a reason.

mod streams;
mod traffic;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use netdiag_lab::{
    Discipline, Duplex, Lab, LinkSpec, Queue, QueueLength, Schedule, ServerSide, Trace,
};

use self::traffic::{Packet, one_way, saturated_by_tcp, saturated_by_udp};
use super::{Bar, Bound, Options, Report};
use crate::command;
use crate::median::median;

/// One-way delays, ms: none, a city's, a continent's, an ocean's, a satellite's.
const DELAYS: [u64; 5] = [0, 5, 40, 120, 300];
/// Packets for each: their median strays by a few microseconds.
const DELAY_PACKETS: usize = 300;

/// Independent losses.
const LOSSES: [f64; 3] = [0.002, 0.02, 0.2];
/// Mean loss and mean burst.
const BURSTS: [(f64, f64); 2] = [(0.02, 3.0), (0.1, 8.0)];
/// Packets for each: 40 losses at the rarest, and 400 bursts of the rarest, which say less than so many single losses.
const LOSS_PACKETS: usize = 20_000;
const BURST_PACKETS: usize = 60_000;
/// Normal deviate of a 99 % interval.
const Z99: f64 = 2.576;

/// Rates, bits/s.
const RATES: [u64; 4] = [500_000, 5_000_000, 20_000_000, 100_000_000];
/// How long each is measured, after a start in which TCP finds the rate.
const RATE_TIME: Duration = Duration::from_secs(4);
/// How long a trace is measured.
const TRACE_TIME: Duration = Duration::from_secs(20);
/// Where recorded traces lie beside a checkout, unless `--data` says otherwise.
const FOLDER: &str = "../shared/traces";

/// Processes that are ended.
const ENDS: usize = 100;
/// How many times as much is measured with `--long`.
const LONG: u32 = 3;

pub(super) fn run(options: &Options) -> anyhow::Result<Report> {
    ensure!(command::is_root(), "the lab makes network namespaces: run it as root");
    traffic::hurry();
    let times = if options.long { LONG } else { 1 };
    let columns = vec!["what", "asked", "measured", "unit"];
    let mut report = Report { columns, ..Report::default() };
    delays(&mut report)?;
    losses(&mut report, times as usize)?;
    rates(&mut report, times)?;
    traces(&mut report, options.data.as_deref(), times)?;
    changes(&mut report)?;
    streams::measure(&mut report)?;
    ends(&mut report)?;
    Ok(report)
}

impl Report {
    fn row(&mut self, what: impl Into<String>, asked: String, measured: String, unit: &str) {
        self.rows.push(vec![what.into(), asked, measured, unit.to_owned()]);
    }

    fn at_most(&mut self, name: &str, value: f64, limit: f64, unit: &'static str) {
        self.bars.push(Bar { name: name.to_owned(), value, bound: Bound::AtMost(limit), unit });
    }

    fn at_least(&mut self, name: &str, value: f64, limit: f64, unit: &'static str) {
        self.bars.push(Bar { name: name.to_owned(), value, bound: Bound::AtLeast(limit), unit });
    }
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn lab(link: LinkSpec) -> anyhow::Result<Lab> {
    Ok(Lab::start(link, ServerSide::Namespace)?)
}

/// Delay within 1 ms and 1 %, by the median; how far most packets stray says what the machine adds.
fn delays(report: &mut Report) -> anyhow::Result<()> {
    let mut worst: f64 = 0.0;
    for asked in DELAYS {
        let lab = lab(LinkSpec::delayed(ms(asked))?)?;
        let mut delays = delays_of(&one_way(&lab, DELAY_PACKETS, ms(2))?)?;
        delays.sort_by(f64::total_cmp);
        let (median, p99) = (median(delays.iter().copied()), delays[delays.len() * 99 / 100]);
        let row = format!("{median:.2} (99 % below {p99:.2})");
        report.row("one-way delay, median", asked.to_string(), row, "ms");
        worst = worst.max((median - asked as f64).abs() / (1.0 + asked as f64 / 100.0));
    }
    report.at_most("delay_error_of_tolerance", worst, 1.0, "of 1 ms + 1 %");
    let spec = LinkSpec::delayed(ms(50))?.with_jitter(ms(30))?;
    // So far apart that none waits for the one before it.
    let mut delays = delays_of(&one_way(&lab(spec)?, 100, ms(65))?)?;
    delays.sort_by(f64::total_cmp);
    let at = |share: f64| delays[((delays.len() - 1) as f64 * share) as usize];
    let row = format!("{:.1} / {:.1} / {:.1}", at(0.0), at(0.5), at(1.0));
    report.row("jitter, least / median / most", "20 / 50 / 80".to_owned(), row, "ms");
    Ok(())
}

/// Milliseconds under way; on a link without loss every packet must come.
fn delays_of(packets: &[Packet]) -> anyhow::Result<Vec<f64>> {
    let delay = |packet: &Packet| Some((packet.came? - packet.sent).as_secs_f64() * 1000.0);
    let delays: Option<Vec<f64>> = packets.iter().map(delay).collect();
    delays.context("a link without loss lost a packet")
}

/// Loss and burst length within their 99 % intervals.
fn losses(report: &mut Report, times: usize) -> anyhow::Result<()> {
    let [mut independent, mut share_in_bursts, mut length]: [f64; 3] = [0.0; 3];
    let run = |spec: LinkSpec, packets: usize| -> anyhow::Result<Vec<bool>> {
        let packets = one_way(&lab(spec)?, packets * times, Duration::from_micros(150))?;
        Ok(packets.iter().map(|packet| packet.came.is_none()).collect())
    };
    let count = |lost: &[bool]| lost.iter().filter(|lost| **lost).count() as f64;
    for asked in LOSSES {
        let lost = run(LinkSpec::delayed(ms(5))?.with_loss(asked)?, LOSS_PACKETS)?;
        let share = count(&lost) / lost.len() as f64;
        let deviation = (asked * (1.0 - asked) / lost.len() as f64).sqrt();
        independent = independent.max((share - asked).abs() / (Z99 * deviation));
        report.row("independent loss", percent(asked), percent(share), "%");
    }
    for (asked, burst) in BURSTS {
        let lost = run(LinkSpec::delayed(ms(5))?.with_burst_loss(asked, burst)?, BURST_PACKETS)?;
        let bursts = lost.chunk_by(|a, b| a == b).filter(|run| run[0]).count() as f64;
        let (share, mean) = (count(&lost) / lost.len() as f64, count(&lost) / bursts);
        // Losses in a row depend on each other: the state's correlation from one packet to the next is 1 − p − r.
        let r = 1.0 / burst;
        let correlation = 1.0 - r - r * asked / (1.0 - asked);
        let inflation = (1.0 + correlation) / (1.0 - correlation);
        let deviation = (asked * (1.0 - asked) * inflation / lost.len() as f64).sqrt();
        share_in_bursts = share_in_bursts.max((share - asked).abs() / (Z99 * deviation));
        // Bursts are geometric.
        let deviation = (1.0 - r).sqrt() / r / bursts.sqrt();
        length = length.max((mean - burst).abs() / (Z99 * deviation));
        report.row("burst loss", percent(asked), percent(share), "%");
        report.row("mean burst", format!("{burst:.2}"), format!("{mean:.2}"), "packets");
    }
    report.at_most("loss_error_of_99_interval", independent, 1.0, "");
    report.at_most("burst_loss_error_of_99_interval", share_in_bursts, 1.0, "");
    report.at_most("burst_length_error_of_99_interval", length, 1.0, "");
    Ok(())
}

fn percent(share: f64) -> String {
    format!("{:.2}", share * 100.0)
}

/// Rates within 3 %, of TCP with its headers.
fn rates(report: &mut Report, times: u32) -> anyhow::Result<()> {
    let mut worst: f64 = 0.0;
    for asked in RATES {
        // A queue of two round trips, so that TCP never leaves the link idle.
        let queue = Queue::try_new(Discipline::DropTail, QueueLength::Time(ms(200)))?;
        let slow = LinkSpec::delayed(ms(10))?.with_rate(asked)?.with_queue(queue);
        let lab = Lab::start(
            Duplex { up: LinkSpec::delayed(ms(10))?, down: slow },
            ServerSide::Namespace,
        )?;
        let measured = saturated_by_tcp(&lab, RATE_TIME * times)?;
        let error = (measured / asked as f64 - 1.0) * 100.0;
        report.row(
            "rate, by TCP",
            mbit(asked as f64),
            format!("{} ({error:+.1} %)", mbit(measured)),
            "Mbit/s",
        );
        worst = worst.max(error.abs());
    }
    report.at_most("rate_error", worst, 3.0, "%");
    Ok(())
}

fn mbit(rate: f64) -> String {
    format!("{:.3}", rate / 1e6)
}

/// Traces within 5 % of what they allow in the time.
fn traces(report: &mut Report, data: Option<&Path>, times: u32) -> anyhow::Result<()> {
    let mut named = vec![("two seconds with a silence".to_owned(), uneven_trace())];
    let folder = data.map_or_else(|| crate::root().join(FOLDER), Path::to_owned);
    // Without recorded traces the made-up one is measured; a folder that was asked for must be there.
    if data.is_none() && !folder.is_dir() {
        report
            .absent
            .push(format!("traces ({} is no folder: name one with --data)", folder.display()));
    } else {
        for path in recorded(&folder)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            named.push((name, fs::read(&path).with_context(|| path.display().to_string())?));
        }
    }
    let mut worst: f64 = 0.0;
    for (name, text) in &named {
        let trace = Trace::parse(text).with_context(|| name.clone())?;
        let time = TRACE_TIME * times;
        let asked = carried(text, time)? / time.as_secs_f64();
        let down = LinkSpec::delayed(ms(5))?.with_trace(trace);
        let measured = saturated_by_udp(&lab(LinkSpec::delayed(ms(5))?)?, &down, time)?;
        let error = (measured / asked - 1.0) * 100.0;
        report.row(
            format!("trace {name}"),
            mbit(asked),
            format!("{} ({error:+.1} %)", mbit(measured)),
            "Mbit/s",
        );
        worst = worst.max(error.abs());
    }
    report.at_most("trace_error", worst, 5.0, "%");
    Ok(())
}

/// The traces in a folder, in the order of their names.
fn recorded(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let paths: Result<Vec<PathBuf>, _> =
        entries.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut paths = paths?;
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "down" || ending == "up"));
    paths.sort();
    Ok(paths)
}

/// Two seconds: rates from 1 to 20 Mbit/s, and half a second of silence.
fn uneven_trace() -> Vec<u8> {
    let rate = |ms: u32| {
        if (700..1200).contains(&ms) { 0.0 } else { 1.0 + 19.0 * f64::from(ms % 300) / 300.0 }
    };
    let (mut text, mut credit) = (String::new(), 0.0);
    for ms in 1..=2000 {
        credit += rate(ms) * 1000.0 / 12_000.0;
        while credit >= 1.0 {
            text += &format!("{ms}\n");
            credit -= 1.0;
        }
    }
    (text + "2000\n").into_bytes()
}

/// Bits that a trace's lines allow in the time, counted from the text and not by the code that plays it.
fn carried(text: &[u8], time: Duration) -> anyhow::Result<f64> {
    let lines: Vec<u128> = std::str::from_utf8(text)?
        .lines()
        .map(|line| Ok(line.trim().parse()?))
        .collect::<anyhow::Result<_>>()?;
    let period = *lines.last().context("no lines")?;
    let (rounds, rest) = (time.as_millis() / period, time.as_millis() % period);
    let in_rest = lines.iter().filter(|line| **line <= rest).count();
    Ok((rounds as usize * lines.len() + in_rest) as f64 * 1500.0 * 8.0)
}

/// Changes of a schedule, felt within 50 ms.
fn changes(report: &mut Report) -> anyhow::Result<()> {
    const EVERY: u64 = 250;
    const CHANGES: u64 = 24;
    let near = LinkSpec::delayed(ms(1))?;
    let far = LinkSpec::delayed(ms(12))?;
    // Silence, a short delay, a long one: each change can be told from the packets.
    let cycle = [near.clone().blackout(), near, far];
    let step = |n: u64| (ms(n * EVERY), Duplex::from(&cycle[n as usize % cycle.len()]));
    let schedule = Schedule::try_new((0..=CHANGES).map(step))?;
    let lab = lab(LinkSpec::default())?;
    let started = Instant::now();
    let playback = lab.play(std::slice::from_ref(&schedule))?;
    let zero = playback.started() - started;
    let packets = one_way(&lab, (CHANGES + 1) as usize * EVERY as usize, ms(1))?;
    let came = |packet: &Packet| packet.came.map(|came| (came, came - packet.sent));
    let mut latest = Duration::ZERO;
    for n in 1..=CHANGES {
        let planned = zero + ms(n * EVERY);
        let around =
            |time: Duration| time + ms(EVERY / 2) > planned && time < planned + ms(EVERY / 2);
        let mut near_it = packets.iter().filter_map(came).filter(|(came, _)| around(*came));
        let felt = match n % 3 {
            // The last that came before the silence.
            0 => near_it.next_back(),
            // The first after it.
            1 => near_it.next(),
            // The last that took the short way: none can be faster than the link.
            _ => near_it.rfind(|(_, delay)| *delay < ms(12)),
        };
        let (felt, _) = felt.with_context(|| format!("no packets around change {n}"))?;
        latest = latest.max(felt.abs_diff(planned));
    }
    let figure = format!("{:.1}", latest.as_secs_f64() * 1000.0);
    report.row(format!("latest of {CHANGES} scheduled changes"), "0".to_owned(), figure, "ms");
    report.at_most("change_latest_ms", latest.as_secs_f64() * 1000.0, 50.0, "ms");
    Ok(())
}

/// Processes with a lab ended at random times and in random ways, by the test that does so.
fn ends(report: &mut Report) -> anyhow::Result<()> {
    let test = "teardown::random_ends_leave_nothing";
    let output = Command::new("cargo")
        .args(["test", "--quiet", "--package", "netdiag-lab", "--test", "it", test])
        .args(["--", "--exact", "--nocapture"])
        .env("NETDIAG_LAB_KILLS", ENDS.to_string())
        .current_dir(crate::root())
        .output()
        .context("cannot run cargo test")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let stood = said.lines().find_map(|line| line.strip_prefix("ends: "));
    let figure =
        stood.and_then(|said| said.split_once(';')).map_or("it failed", |(figure, _)| figure);
    report.row("random ends of a process", ENDS.to_string(), figure.to_owned(), "");
    let left = if output.status.success() && stood.is_some() { 0.0 } else { 1.0 };
    if left > 0.0 {
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
    }
    report.at_most("ends_that_leave_something", left, 0.0, "");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_trace_allows_is_counted_over_its_rounds() {
        let check = |ms: u64, packets: usize| {
            let bits = carried(b"1\n1\n4\n10\n", Duration::from_millis(ms)).expect("a trace");
            assert_eq!(bits, packets as f64 * 12_000.0, "{ms} ms");
        };
        check(0, 0);
        check(3, 2);
        check(10, 4);
        check(14, 7);
        check(100, 40);
        assert!(carried(b"", Duration::ZERO).is_err() && carried(b"x", Duration::ZERO).is_err());
    }

    #[test]
    fn the_uneven_trace_has_its_silence() {
        let trace = Trace::parse(&uneven_trace()).expect("a trace");
        assert_eq!(trace.period(), Duration::from_secs(2));
        assert!(trace.longest_silence() >= Duration::from_millis(500), "{trace:?}");
    }
}
