//! Another process: what it uses, as the kernel accounts for it (proc(5)), and its end.

use std::fs;
use std::process::Child;
use std::time::Duration;

use anyhow::Context;

/// A process that is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Ended(pub(crate) Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a process has used up to now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// Processor time of all its threads.
    pub(crate) cpu: Duration,
    /// Memory, bytes.
    pub(crate) resident: u64,
}

/// Of the process of this ID.
pub(crate) fn usage(pid: u32) -> anyhow::Result<Usage> {
    let read = |file: &str| {
        let path = format!("/proc/{pid}/{file}");
        fs::read_to_string(&path).with_context(|| path)
    };
    let stat = read("stat")?;
    // What stands in brackets may have spaces.
    let (_, rest) = stat.rsplit_once(") ").context("no such /proc/PID/stat")?;
    let field =
        |number: usize| rest.split(' ').nth(number - 3).and_then(|field| field.parse::<u64>().ok());
    // utime and stime, in the hundredths of a second in which Linux has always told them (USER_HZ).
    let ticks = field(14).zip(field(15)).context("no such /proc/PID/stat")?;
    Ok(Usage { cpu: Duration::from_millis(10 * (ticks.0 + ticks.1)), resident: resident(pid)? })
}

/// Memory of the process of this ID, bytes; counted now, unlike the kernel's quick account in `status`.
pub(crate) fn resident(pid: u32) -> anyhow::Result<u64> {
    Ok(memory(pid)?.resident)
}

/// What a process has in memory, bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    pub(crate) resident: u64,
    /// Of that, what belongs to no file: what it has allocated.
    pub(crate) anonymous: u64,
}

/// As [`resident`].
pub(crate) fn memory(pid: u32) -> anyhow::Result<Memory> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let rollup = fs::read_to_string(&path).with_context(|| path.clone())?;
    let bytes = |name: &str| {
        let text = rollup.lines().find_map(|line| line.strip_prefix(name)?.strip_suffix("kB"));
        let kilobytes = text.and_then(|text| text.trim().parse::<u64>().ok());
        Ok::<_, anyhow::Error>(1024 * kilobytes.with_context(|| format!("no {name} in {path}"))?)
    };
    Ok(Memory { resident: bytes("Rss:")?, anonymous: bytes("Anonymous:")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_s_own_usage_is_something() {
        let start = std::time::Instant::now();
        let mut n = 0_u64;
        while start.elapsed() < Duration::from_millis(50) {
            n = std::hint::black_box(n + 1);
        }
        let used = usage(std::process::id()).expect("of this process");
        assert!(used.cpu >= Duration::from_millis(10) && used.resident > 1 << 20, "{used:?}");
        assert!(usage(u32::MAX).is_err());
    }
}
