//! The checks, in the order of the table: the machine first, then the sources, then what fault injection needs.

use std::fs;
use std::path::Path;

use netdiag_probe::support;
use netdiag_telemetry::Source;

use super::{Check, Report, Status, faults, qdisc};
use crate::confine;

/// Linux capabilities that matter here, by their bit (`include/uapi/linux/capability.h`), and what each is good for.
const CAPABILITIES: [(&str, u32, Need); 4] = [
    ("CAP_BPF", 39, Need::Ebpf),
    ("CAP_PERFMON", 38, Need::Ebpf),
    ("CAP_SYS_ADMIN", 21, Need::Namespaces),
    ("CAP_SYS_PTRACE", 19, Need::Namespaces),
];

/// The first kernel with every feature the eBPF source uses: the last to come was the atomic compare-and-exchange.
const EBPF_KERNEL: (u32, u32) = (5, 12);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    Ebpf,
    Namespaces,
}

/// Runs every check.
pub(super) fn all() -> Report {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let mut checks = vec![kernel(&release, &uname.machine().to_string_lossy())];
    checks.extend(wsl(&release));
    checks.push(container());
    checks.push(btf(Path::new("/sys/kernel/btf/vmlinux")));
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    checks.push(capabilities(&status));
    checks.push(sandbox(&status, confine::supported()));
    checks.push(unprivileged_bpf(&read("/proc/sys/kernel/unprivileged_bpf_disabled")));
    checks.extend(lockdown(&read("/sys/kernel/security/lockdown")));

    let hooks = support::hooks();
    let ebpf = !hooks.is_empty() && hooks.iter().all(|(_, result)| result.is_ok());
    checks.extend(hooks.into_iter().map(|(name, result)| hook(name, result)));
    let dump = support::sock_diag();
    let sockdiag = dump.is_ok();
    checks.push(sock_diag(dump));
    let is_root = rustix::process::geteuid().is_root();
    checks.push(namespaces(support::namespaces(), is_root));

    checks.extend(qdisc::checks());
    checks.extend(faults::check());
    let source = if ebpf { Some(Source::Ebpf) } else { sockdiag.then_some(Source::Sockdiag) };
    // Without hooks there is still the other source; what fails is then only a part.
    if sockdiag {
        for check in checks.iter_mut().filter(|check| check.status == Status::Fail) {
            check.status = Status::Warn;
        }
    }
    Report { works: source.is_some(), source, checks }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

fn kernel(release: &str, machine: &str) -> Check {
    let detail = format!("Linux {release} on {machine}");
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let version = match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
        _ => return Check::ok("kernel", detail),
    };
    if version >= EBPF_KERNEL {
        return Check::ok("kernel", detail);
    }
    let (major, minor) = EBPF_KERNEL;
    Check::warn(
        "kernel",
        detail,
        format!(
            "the ebpf source needs Linux {major}.{minor} or later; until then, sockdiag is used"
        ),
    )
}

fn wsl(release: &str) -> Option<Check> {
    let release = release.to_lowercase();
    release.contains("microsoft").then(|| {
        Check::warn(
            "wsl",
            "running under WSL2",
            "only connections of the Linux side are seen; for faults and eBPF, keep the kernel up to date with `wsl --update`",
        )
    })
}

fn container() -> Check {
    let marked = ["/.dockerenv", "/run/.containerenv"].iter().any(|path| Path::new(path).exists());
    let cgroup = read("/proc/self/cgroup");
    let named = ["docker", "kubepods", "containerd", "libpod", "lxc"];
    if !marked && !named.iter().any(|name| cgroup.contains(name)) {
        return Check::ok("container", "no sign of one");
    }
    Check::warn(
        "container",
        "running inside one: connections of the host and of other containers may be out of sight",
        "to see the whole host, start it as root with --network=host --pid=host --cap-drop=ALL --cap-add=BPF --cap-add=PERFMON --cap-add=SYS_ADMIN --cap-add=SYS_PTRACE",
    )
}

fn btf(path: &Path) -> Check {
    match fs::metadata(path) {
        Ok(file) => Check::ok("btf", format!("{} ({} KiB)", path.display(), file.len() / 1024)),
        Err(error) => Check::fail(
            "btf",
            format!("{}: {error}", path.display()),
            "use a kernel with CONFIG_DEBUG_INFO_BTF=y (all larger distributions have it)",
        ),
    }
}

/// The capabilities that `/proc/self/status` says we have.
fn effective(status: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or_default()
}

/// What they are good for.
fn capabilities(status: &str) -> Check {
    let effective = effective(status);
    let lacking = |need: Option<Need>| {
        let mut names = Vec::new();
        for (name, bit, its_need) in CAPABILITIES {
            if effective & (1 << bit) == 0 && need.is_none_or(|need| need == its_need) {
                names.push(name);
            }
        }
        names
    };
    if lacking(None).is_empty() {
        let names: Vec<&str> = CAPABILITIES.iter().map(|(name, ..)| *name).collect();
        return Check::ok("capabilities", names.join(", "));
    }
    let (for_ebpf, for_others) = (lacking(Some(Need::Ebpf)), lacking(Some(Need::Namespaces)));
    let mut remedies = Vec::new();
    if !for_ebpf.is_empty() {
        remedies.push(
            "for eBPF: run as root, or `sudo setcap cap_bpf,cap_perfmon+ep` on the netdiag binary",
        );
    }
    if !for_others.is_empty() {
        remedies.push("for other network namespaces: also cap_sys_admin and cap_sys_ptrace");
    }
    Check::warn(
        "capabilities",
        format!("without {}", lacking(None).join(", ")),
        remedies.join("; "),
    )
}

/// What servers give up once they have begun, as far as this kernel knows how.
fn sandbox(status: &str, (landlock, filters): (bool, bool)) -> Check {
    let given_up = [
        ("capabilities", true),
        ("files (Landlock)", landlock),
        ("system calls (seccomp)", filters),
    ];
    let list = |wanted: bool| {
        let names = given_up.iter().filter(|(_, is)| *is == wanted).map(|(name, _)| *name);
        names.collect::<Vec<_>>().join(", ")
    };
    let mut detail = format!("servers give up {} once they have begun", list(true));
    // With these other namespaces are looked into.
    let around = CAPABILITIES.iter().filter(|(.., need)| *need == Need::Namespaces);
    let kept: Vec<&str> = around
        .filter(|(_, bit, _)| effective(status) & (1 << bit) != 0)
        .map(|(name, ..)| *name)
        .collect();
    if !kept.is_empty() {
        let kept = kept.join(" and ");
        detail += &format!(
            "; started like this, `up` and `agent` keep {kept} on one thread, which looks into other network namespaces, \
             unless --netns says which (/proc/self/ns/net for their own)"
        );
    }
    if landlock && filters {
        return Check::ok("sandbox", detail);
    }
    Check::warn(
        "sandbox",
        format!("{detail}; not {}", list(false)),
        "use a kernel with CONFIG_SECURITY_LANDLOCK=y (5.13 or later, `landlock` among its lsm=) and CONFIG_SECCOMP_FILTER=y, \
         or rely on the unit or the container to confine them",
    )
}

/// Never a lack: our programs need capabilities whatever this says. Shown because it explains refusals.
fn unprivileged_bpf(value: &str) -> Check {
    let meaning = match value {
        "0" => "0: unprivileged programs are allowed (ours need capabilities anyway)",
        "1" => "1: unprivileged programs are refused until the next boot",
        "2" => "2: unprivileged programs are refused",
        "" => "unknown (no bpf() system call?)",
        other => other,
    };
    Check::ok("unprivileged_bpf_disabled", meaning)
}

fn lockdown(value: &str) -> Option<Check> {
    if value.is_empty() {
        return None;
    }
    if value.contains("[confidentiality]") {
        return Some(Check::warn(
            "lockdown",
            "confidentiality: eBPF may not read kernel memory",
            "boot with lockdown=integrity or less, or live with --source sockdiag",
        ));
    }
    Some(Check::ok("lockdown", value))
}

fn hook(name: &str, result: Result<(), String>) -> Check {
    let name = format!("hook {name}");
    match result {
        Ok(()) => Check::ok(&name, "loads and attaches"),
        Err(error) => Check::fail(
            &name,
            error,
            "the ebpf source is not available; --source auto uses sockdiag instead",
        ),
    }
}

fn sock_diag(result: Result<usize, String>) -> Check {
    match result {
        Ok(flows) => Check::ok("sock_diag", format!("answers; {flows} TCP connections here")),
        Err(error) => Check::fail(
            "sock_diag",
            error,
            "use a kernel with CONFIG_INET_DIAG and CONFIG_INET_TCP_DIAG (`modprobe tcp_diag`)",
        ),
    }
}

fn namespaces((seen, entered): (usize, usize), is_root: bool) -> Check {
    let detail = format!("{seen} besides our own, {entered} can be entered");
    if seen == entered {
        // Other people's processes do not show theirs.
        let hidden =
            if is_root { "" } else { "; without root there may be others that are not seen" };
        return Check::ok("network namespaces", detail + hidden);
    }
    Check::warn(
        "network namespaces",
        detail,
        "run as root, or with CAP_SYS_ADMIN and CAP_SYS_PTRACE, to see stalls in the others",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_kernel_is_a_warning() {
        let check =
            |release: &str, status| assert_eq!(kernel(release, "x").status, status, "{release}");
        check("6.18.44-custom", Status::Ok);
        check("5.12.0", Status::Ok);
        check("5.11.22", Status::Warn);
        check("5.4.0-200-generic", Status::Warn);
        check("4.19", Status::Warn);
        check("strange", Status::Ok);
    }

    #[test]
    fn capabilities_are_told_by_what_they_are_for() {
        let all = capabilities("Name:\tx\nCapEff:\t000001ffffffffff\n");
        assert_eq!(all.status, Status::Ok);
        let none = capabilities("CapEff:\t0000000000000000\n");
        assert_eq!(none.status, Status::Warn);
        let remedy = none.remedy.expect("a remedy");
        assert!(remedy.contains("setcap cap_bpf") && remedy.contains("cap_sys_ptrace"), "{remedy}");
        // BPF and PERFMON alone.
        let ebpf = capabilities("CapEff:\t000000c000000000\n");
        assert_eq!(ebpf.detail, "without CAP_SYS_ADMIN, CAP_SYS_PTRACE");
        assert!(!ebpf.remedy.expect("a remedy").contains("setcap"));
    }

    #[test]
    fn what_the_sandbox_lacks_and_what_it_keeps_is_told() {
        let check = |status: &str, supported, expected: &[&str]| {
            let check = sandbox(status, supported);
            for part in expected {
                assert!(check.detail.contains(part), "{part} in {check:?}");
            }
            check.status
        };
        let unprivileged = "CapEff:\t000000c000000000\n";
        let all = ["capabilities, files (Landlock), system calls (seccomp)"];
        assert_eq!(check(unprivileged, (true, true), &all), Status::Ok);
        let root = "CapEff:\t000001ffffffffff\n";
        let kept = ["keep CAP_SYS_ADMIN and CAP_SYS_PTRACE on one thread"];
        assert_eq!(check(root, (true, true), &kept), Status::Ok);
        assert!(!sandbox(unprivileged, (true, true)).detail.contains("keep"));
        let lacking =
            ["give up capabilities, system calls (seccomp) once", "; not files (Landlock)"];
        assert_eq!(check(unprivileged, (false, true), &lacking), Status::Warn);
    }

    #[test]
    fn wsl_is_recognised() {
        assert!(wsl("5.15.153.1-microsoft-standard-WSL2").is_some());
        assert!(wsl("6.1.0-18-amd64").is_none());
    }

    #[test]
    fn every_lack_has_a_remedy() {
        for check in all().checks {
            assert_eq!(check.remedy.is_some(), check.status != Status::Ok, "{check:?}");
            assert!(!check.detail.is_empty(), "{check:?}");
        }
    }
}
