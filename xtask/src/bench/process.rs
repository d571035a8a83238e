//! What another process uses, as the kernel accounts for it (proc(5)).

use std::fs;
use std::time::Duration;

use anyhow::Context;

/// What a process has used up to now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    /// Processor time of all its threads.
    pub(super) cpu: Duration,
    /// Memory, bytes.
    pub(super) resident: u64,
}

/// Of the process of this ID.
pub(super) fn usage(pid: u32) -> anyhow::Result<Usage> {
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
    let status = read("status")?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let resident =
        resident.and_then(|text| text.trim().trim_end_matches(" kB").parse::<u64>().ok());
    Ok(Usage {
        cpu: Duration::from_millis(10 * (ticks.0 + ticks.1)),
        resident: 1024 * resident.context("no VmRSS in /proc/PID/status")?,
    })
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
