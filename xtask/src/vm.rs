//! `cargo xtask vm`: our eBPF programs and `netdiag chaos` on Debian's kernels, which have the netem that the machine at hand
//! may lack, each booted under qemu.
//!
//! The processor is always emulated: a machine that cannot nest virtual machines may well have a `/dev/kvm` that opens, and
//! then hang. That takes minutes, so this is no part of `cargo xtask test`. What the checks are stands in `vm/init.sh`.
//!
//! Invariants: a kernel or a check without a verdict is never silence: it is `absent` or `FAILED`, with the reason, and the
//! command fails. The machine at hand is not changed but for the tools that are installed: whatever ends the command, the
//! virtual machine ends with it, and what is left is kernels and consoles' logs in the target folder.

mod image;
mod kernel;
mod verdicts;

use std::fs;
use std::io::{BufRead, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, ensure};

use crate::command;
use image::Programs;
use kernel::Kernel;
use verdicts::{Collector, Examined};

/// The kernel of Debian 12, and that of Debian 13, which is also among the updates of 12.
const SERIES: [&str; 2] = ["6.1", "6.12"];

/// Seconds that a machine may take. It needs four minutes on two cores, and eight if others keep them busy; this only ends one
/// that hangs.
const LIMIT_S: &str = "1800";

/// What is needed beside Rust, and the Debian package that has it.
const NEEDS: [(&str, &str); 5] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("tc", "iproute2"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
];

/// What to run, and how to tell.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Boot the newest kernel of this series that apt offers; repeatable
    #[arg(long = "kernel", value_name = "SERIES", default_values = SERIES, value_parser = series)]
    kernels: Vec<String>,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// Boots every kernel, prints the verdicts, and fails unless all are good.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    ensure!(
        std::env::consts::ARCH == "x86_64" && command::exists("apt-cache"),
        "the kernels are Debian's for x86-64, taken by apt: run this on such a Debian or Ubuntu, or in a container of one"
    );
    command::ensure_debian(&NEEDS)?;
    let folder = crate::target_directory().join("vm");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    // All of them first: what the network refuses is known before the minutes that follow.
    let mut kernels = Vec::new();
    for series in &options.kernels {
        let kernel = kernel::obtain(series, &folder)?;
        if kernel.is_none() {
            eprintln!("Linux {series} is absent: {}", kernel::ABSENT);
        }
        kernels.push((series, kernel));
    }
    let programs = build()?;
    let mut all = Vec::new();
    for (series, kernel) in &kernels {
        all.push(match kernel {
            Some(kernel) => examine(kernel, &programs, &folder)?,
            None => Examined::absent(series, kernel::ABSENT),
        });
    }
    print!("{}", if options.json { verdicts::json(&all) } else { verdicts::table(&all) });
    let complaints: Vec<String> = all.iter().filter_map(Examined::complaint).collect();
    ensure!(complaints.is_empty(), "{}", complaints.join("; "));
    Ok(())
}

/// A series of kernels, like `6.1`.
fn series(text: &str) -> Result<String, String> {
    let is_number = |part: &str| part.parse::<u16>().is_ok();
    match text.split_once('.') {
        Some((major, minor)) if is_number(major) && is_number(minor) => Ok(text.to_owned()),
        _ => Err("not a series of kernels; give its first two numbers, as in 6.1".to_owned()),
    }
}

/// The binary and the tests, optimised: an emulated processor is slow enough.
fn build() -> anyhow::Result<Programs> {
    let messages = command::output(
        "cargo",
        &[
            "test",
            "--release",
            "--no-run",
            "--quiet",
            "--message-format=json-render-diagnostics",
            "--package=netdiag",
            "--package=netdiag-probe",
            "--test=it",
            "--test=loopback",
        ],
    )?;
    let built = |name: &str| {
        executable(&messages, name)
            .with_context(|| format!("cargo has built no executable of the name {name}"))
    };
    let tests = vec![("chaos", built("it")?), ("probe", built("loopback")?)];
    Ok(Programs { netdiag: built("netdiag")?, tests })
}

/// The path of a built target, in cargo's messages.
fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == name)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
}

/// Runs a machine to its end, telling each verdict as it comes.
fn examine(kernel: &Kernel, programs: &Programs, folder: &Path) -> anyhow::Result<Examined> {
    // A file without a name, which goes with whoever has it open.
    let archive = tempfile::tempfile_in(folder).with_context(|| folder.display().to_string())?;
    let mut writer = BufWriter::new(&archive);
    image::write(kernel, programs, &mut writer)?;
    writer.flush()?;
    drop(writer);
    let console = folder.join(format!("console-{}.log", kernel.release));
    eprintln!("booting Linux {}; its console: {}", kernel.release, console.display());
    let started = Instant::now();
    // `setpriv` and `timeout` rather than a handler of signals and a clock of ours: they end the machine also if we are
    // killed.
    let mut machine = Command::new("setpriv")
        .args(["--pdeathsig", "TERM", "timeout", "--foreground", LIMIT_S, "qemu-system-x86_64"])
        .args(["-accel", "tcg,thread=multi", "-smp", "2", "-m", "1G"])
        .args(["-display", "none", "-monitor", "none", "-nic", "none", "-no-reboot"])
        .args(["-append", "console=ttyS0 panic=-1 mitigations=off"])
        .arg("-kernel")
        .arg(kernel.image())
        .args(["-initrd", "/dev/stdin"])
        // The first line is the console, the second has the verdicts.
        .arg("-serial")
        .arg(format!("file:{}", console.display()))
        .args(["-serial", "file:/dev/stdout"])
        .stdin(archive)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run `setpriv … timeout … qemu-system-x86_64`")?;
    let lines = BufReader::new(machine.stdout.take().context("no output of qemu")?);
    let mut collector = Collector::new(&kernel.release);
    for line in lines.split(b'\n') {
        if let Some(verdict) = collector.take(&String::from_utf8_lossy(&line?), started.elapsed()) {
            eprintln!("{verdict}");
        }
    }
    let status = machine.wait()?;
    let why = match status.code() {
        Some(124) => format!("no verdict within {LIMIT_S} s"),
        Some(0) => "the machine stopped before it came to this".to_owned(),
        _ => format!("qemu failed ({status})"),
    };
    Ok(collector.close(&why, started.elapsed()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_two_numbers() {
        for good in ["6.1", "6.12", "5.10"] {
            assert_eq!(series(good).as_deref(), Ok(good));
        }
        for bad in ["", "6", "6.", "6.1.0", "v6.1", "6.x", "-6.1"] {
            assert!(series(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn executables_are_found_in_what_cargo_says() {
        let messages = concat!(
            "not JSON\n",
            r#"{"reason":"compiler-artifact","target":{"name":"it"},"executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"it"},"executable":"/t/it-1"}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        assert_eq!(executable(messages, "it"), Some(PathBuf::from("/t/it-1")));
        assert_eq!(executable(messages, "loopback"), None);
    }
}
