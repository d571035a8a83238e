//! Which queueing disciplines the kernel has, tried with `tc` in a network namespace of its own.
//!
//! The namespace belongs to the `unshare` process alone and is gone with it, qdisc and all, however that ends.

use std::process::{Command, Stdio};

use super::Check;
use crate::chaos::fault::{Discipline, Fault};

/// What `netdiag chaos` can use, and what is lacking without it.
const DISCIPLINES: [(Discipline, &str); 2] = [
    (Discipline::Netem, "no tool can give an interface delay, jitter or losses"),
    (Discipline::Tbf, "no tool but netem can limit an interface's rate"),
];

/// The MTU of the loopback interface, which every network namespace has.
const LOOPBACK_MTU: u32 = 65_536;

/// The exit status by which a shell, and `unshare`, say that a program was not found.
const NOT_FOUND: i32 = 127;

/// One check per discipline.
pub(super) fn checks() -> impl Iterator<Item = Check> {
    DISCIPLINES.into_iter().map(|(discipline, lack)| check(discipline, lack))
}

fn check(discipline: Discipline, lack: &str) -> Check {
    let name = discipline.name();
    let words = discipline.words(&Fault::CALM, LOOPBACK_MTU);
    let title = format!("qdisc {name}");
    let mut trial = Command::new("unshare");
    // Who is not root may be root in a user namespace of his own, which is enough to ask.
    if !rustix::process::geteuid().is_root() {
        trial.args(["--user", "--map-root-user"]);
    }
    trial.args(["--net", "tc", "qdisc", "add", "dev", "lo", "root"]);
    trial.args(words.split_whitespace());
    let output = match trial.stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(error) => return untried(&title, &format!("`unshare`: {error}"), "install util-linux"),
    };
    if output.status.success() {
        return Check::ok(&title, "available");
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let complaint = complaint.lines().next().unwrap_or_default().trim();
    if output.status.code() == Some(NOT_FOUND) {
        return untried(&title, complaint, "install iproute2");
    }
    // `unshare` did not get as far as `tc`, so nothing is known of the kernel's modules.
    if complaint.starts_with("unshare: ") {
        return untried(&title, complaint, "run as root (in a container with CAP_SYS_ADMIN)");
    }
    Check::warn(
        &title,
        format!("not available ({complaint}); without it {lack}"),
        format!("`modprobe sch_{name}`, or a kernel with it; only `netdiag chaos` needs it"),
    )
}

fn untried(title: &str, why: &str, remedy: &str) -> Check {
    Check::warn(title, format!("untried ({why})"), remedy)
}
