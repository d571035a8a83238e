//! `netdiag chaos` on an interface of the test's own: faults are in force, and gone afterwards whatever ends the run.

use std::fs::Permissions;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::{Running, complaint, netdiag, output, root, skipped, unprivileged, until};
use crate::veth::{FAR_IP, NEAR, NEAR_IP, Veth};

/// The cable, or `None` where only root could make it.
fn veth(test: &str) -> Option<Veth> {
    root(&format!("chaos::{test}")).then(Veth::create)
}

/// Runs `command`; expects the exit code and one line with each of `told`.
fn ends(command: Command, code: i32, told: &[&str]) {
    let output = output(command);
    let complaint = complaint(&output);
    assert_eq!(output.status.code(), Some(code), "{complaint}");
    assert_eq!(complaint.lines().count(), 1, "{complaint}");
    for told in told {
        assert!(complaint.contains(told), "no `{told}` in {complaint}");
    }
}

/// A run that goes on, with its fault in force.
fn running(veth: &Veth, words: &str) -> Running {
    let mut running = Running::start(veth.chaos(words));
    running.line_with("Ctrl-C undoes it sooner");
    assert_eq!(veth.root_qdisc(NEAR)["handle"], "4e44:");
    running
}

#[test]
fn a_rate_is_what_tcp_gets_until_the_time_is_over() {
    let Some(veth) = veth("a_rate_is_what_tcp_gets_until_the_time_is_over") else { return };
    let second = Duration::from_secs(1);
    let mut limited = Running::start(veth.chaos("--rate 2mbit --for 4s"));
    let told = limited.line_with("rate 2 Mbit/s");
    assert!(
        told.starts_with("netdiag: va: rate 2 Mbit/s (by ") && told.contains("for 4 s"),
        "{told}"
    );
    let carried = veth.throughput(2 * second);
    assert!((1.8e6..2.1e6).contains(&carried), "{carried} bit/s");
    let (status, stderr) = limited.end();
    assert_eq!(status.code(), Some(0), "{stderr:#?}");
    // Not earlier than asked for; how much later is the machine's affair.
    let after = stderr.iter().find_map(|line| line.strip_prefix("netdiag: va: undone after "));
    let after = after.and_then(|after| after.strip_suffix(" s")).map(str::parse::<f64>);
    assert!(matches!(after, Some(Ok(4.0..))), "{stderr:#?}");
    veth.is_untouched();
    let carried = veth.throughput(second);
    assert!(carried > 20e6, "{carried} bit/s without a limit");
}

#[test]
fn every_signal_undoes_the_fault() {
    let Some(veth) = veth("every_signal_undoes_the_fault") else { return };
    for signal in [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT] {
        let (status, stderr) = running(&veth, "--rate 1mbit --for 1h").end_by(signal);
        assert_eq!(status.code(), Some(0), "{stderr:#?}");
        assert!(stderr.iter().any(|line| line.contains("va: undone after ")), "{stderr:#?}");
        veth.is_untouched();
    }
}

#[test]
fn a_reader_who_does_not_read_holds_no_fault() {
    let Some(veth) = veth("a_reader_who_does_not_read_holds_no_fault") else { return };
    let (mut reader, mut writer) = std::io::pipe().expect("a pipe");
    // One page, and full.
    rustix::pipe::fcntl_setpipe_size(&writer, 4096).expect("a small pipe");
    writer.write_all(&[b' '; 4096]).expect("room for a page");
    let mut command = veth.chaos("--rate 1mbit --for 500ms");
    let mut stuck = command.stderr(writer).spawn().expect("the binary runs");
    // Its end of the pipe goes with it, so that reading comes to an end.
    drop(command);
    for handle in ["4e44:", "0:"] {
        until(handle, || Some(()).filter(|()| veth.root_qdisc(NEAR)["handle"] == handle));
    }
    assert_eq!(stuck.try_wait().expect("a process"), None);
    let mut told = String::new();
    reader.read_to_string(&mut told).expect("text");
    assert!(told.contains("va: rate 1 Mbit/s") && told.contains("va: undone after"), "{told}");
    assert_eq!(stuck.wait().expect("a process").code(), Some(0));
}

#[test]
fn what_a_killed_run_leaves_is_reported_and_removed() {
    let Some(veth) = veth("what_a_killed_run_leaves_is_reported_and_removed") else { return };
    let faults = || {
        let report = output(veth.netdiag(["doctor", "--json"]));
        let report: serde_json::Value = serde_json::from_slice(&report.stdout).expect("JSON");
        let checks = report["checks"].as_array().expect("checks").clone();
        checks.into_iter().find(|check| check["name"] == "faults").expect("the check")
    };
    let restore = || veth.netdiag(["chaos", "--restore"]);
    let run = running(&veth, "--rate 1mbit --for 1h");
    let (check, pid) = (faults(), run.pid());
    assert_eq!(check["status"], "ok", "{check}");
    assert_eq!(check["detail"], format!("in force: {} on va by process {pid}", kind(&veth)));

    run.end_by(Signal::KILL);
    assert_eq!(veth.root_qdisc(NEAR)["handle"], "4e44:");
    let check = faults();
    assert_eq!(check["status"], "warn", "{check}");
    let detail = check["detail"].as_str().expect("text");
    assert!(detail.ends_with(&format!("killed: {} on va", kind(&veth))), "{check}");
    assert!(check["remedy"].as_str().is_some_and(|remedy| remedy.contains("--restore")), "{check}");

    ends(restore(), 0, &["va: removed ", "left by a run that was killed"]);
    veth.is_untouched();
    ends(restore(), 0, &["nothing to restore", "any interface"]);
    ends(veth.chaos("--restore"), 0, &["nothing to restore", "on va"]);
}

/// What a rate is limited by on this kernel.
fn kind(veth: &Veth) -> String {
    veth.root_qdisc(NEAR)["kind"].as_str().expect("text").to_owned()
}

#[test]
fn the_next_run_clears_up_after_a_killed_one() {
    let Some(veth) = veth("the_next_run_clears_up_after_a_killed_one") else { return };
    running(&veth, "--rate 1mbit --for 1h").end_by(Signal::KILL);
    let mut next = Running::start(veth.chaos("--rate 2mbit --for 1h"));
    next.line_with("removed what a killed run had left");
    next.line_with("rate 2 Mbit/s");
    let (status, stderr) = next.end_by(Signal::TERM);
    assert_eq!(status.code(), Some(0), "{stderr:#?}");
    veth.is_untouched();
}

#[test]
fn random_faults_change_and_a_removed_one_does_not_come_back() {
    let test = "random_faults_change_and_a_removed_one_does_not_come_back";
    let Some(veth) = veth(test) else { return };
    // Two seconds of a fault, and two of calm, where there is no netem.
    let mut run = Running::start(veth.chaos("--random --seed 2410 --for 1h"));
    run.line_with("random faults (by ");
    let fault = run.line_with(" for ");
    assert!(!fault.contains("calm"), "{fault}");
    veth.send_datagram();
    run.line_with("va: calm for ");
    let calm = veth.root_qdisc(NEAR);
    // Were it another one, it would have seen no packet.
    assert!(calm["packets"].as_u64().is_some_and(|packets| packets > 0), "{calm}");
    assert_eq!(calm["handle"], "4e44:");

    let pid = run.pid();
    let still = format!("of process {pid}, which still runs");
    ends(veth.netdiag(["chaos", "--restore"]), 0, &["va: removed ", &still]);
    let (status, stderr) = run.end();
    assert_eq!(status.code(), Some(1), "{stderr:#?}");
    let told = stderr.last().expect("a complaint");
    assert!(told.contains("va: somebody else has removed the fault"), "{told}");
    veth.is_untouched();
}

/// Whether this kernel has netem.
fn has_netem() -> bool {
    let mut trial = Command::new("unshare");
    trial.args(["--net", "tc", "qdisc", "add", "dev", "lo", "root", "netem"]);
    output(trial).status.success()
}

#[test]
fn what_needs_netem_says_so_without_it() {
    let test = "what_needs_netem_says_so_without_it";
    let Some(veth) = veth(test) else { return };
    if has_netem() {
        return skipped(&format!("chaos::{test}"), "this kernel has netem");
    }
    let told = ["delay 100 ms, loss 5 %: needs netem", "`modprobe sch_netem`", "--rate alone"];
    ends(veth.chaos("--delay 100ms --loss 5%"), 2, &told);
    veth.is_untouched();
}

#[test]
fn packets_are_delayed_and_lost_and_stay_in_order() {
    let test = "packets_are_delayed_and_lost_and_stay_in_order";
    let Some(veth) = veth(test) else { return };
    if !has_netem() {
        return skipped(&format!("chaos::{test}"), "this kernel has no netem");
    }
    // So that the ends know each other: the question for an address can be lost as well.
    assert_eq!(veth.datagrams(1).len(), 1);
    let run = running(&veth, "--delay 100ms --jitter 50ms --loss 20% --for 1h");
    assert_eq!(kind(&veth), "netem");
    let (sent, arrived) = (500, veth.datagrams(500));
    assert!(arrived.is_sorted_by_key(|&(number, _)| number), "{arrived:?}");
    // Five standard deviations of a binomial distribution on either side of 100.
    let lost = sent - arrived.len();
    assert!((55..=145).contains(&lost), "{lost} of {sent} lost");
    let delays: Vec<f64> = arrived.iter().map(|(_, delay)| delay.as_secs_f64() * 1e3).collect();
    assert!(delays.iter().all(|&delay| delay >= 50.0), "{delays:?}");
    // Order costs time: who comes behind a packet that waits long waits as long.
    let mean = delays.iter().sum::<f64>() / delays.len() as f64;
    assert!((100.0..160.0).contains(&mean), "{mean} ms");
    run.end_by(Signal::TERM);
    veth.is_untouched();
}

#[test]
fn an_interface_may_get_another_name_or_go() {
    let Some(veth) = veth("an_interface_may_get_another_name_or_go") else { return };
    let run = running(&veth, "--rate 1mbit --for 1h");
    veth.near(&["ip", "link", "set", NEAR, "down"]);
    veth.near(&["ip", "link", "set", NEAR, "name", "renamed"]);
    let (status, stderr) = run.end_by(Signal::TERM);
    assert_eq!(status.code(), Some(0), "{stderr:#?}");
    veth.near(&["ip", "link", "set", "renamed", "name", NEAR]);
    veth.near(&["ip", "link", "set", NEAR, "up"]);
    veth.is_untouched();

    let run = running(&veth, "--rate 1mbit --for 1h");
    veth.near(&["ip", "link", "del", NEAR]);
    let (status, stderr) = run.end_by(Signal::TERM);
    assert_eq!(status.code(), Some(0), "{stderr:#?}");
    assert!(stderr.iter().any(|line| line.contains("va: the interface is gone")), "{stderr:#?}");
}

#[test]
fn what_is_somebody_elses_is_left_alone() {
    let Some(veth) = veth("what_is_somebody_elses_is_left_alone") else { return };
    let run = running(&veth, "--rate 1mbit --for 1h");
    let holder = format!("process {} already injects", run.pid());
    ends(veth.chaos("--rate 2mbit"), 2, &["--iface va: ", &holder, "another interface"]);
    run.end_by(Signal::TERM);

    let theirs = "tc qdisc add dev va root handle 1: tbf rate 5mbit burst 10kb latency 50ms";
    veth.near(&theirs.split(' ').collect::<Vec<_>>());
    let told = ["--iface va: ", "somebody's own (tbf 1:)", "`tc qdisc del dev va root`"];
    ends(veth.chaos("--rate 2mbit"), 2, &told);
    ends(veth.netdiag(["chaos", "--restore"]), 0, &["nothing to restore"]);
    assert_eq!(veth.root_qdisc(NEAR)["handle"], "1:");
}

#[test]
fn the_interface_of_ones_own_login_needs_force() {
    let Some(veth) = veth("the_interface_of_ones_own_login_needs_force") else { return };
    let login = format!("{FAR_IP} 50123 {NEAR_IP} 22");
    let told = [
        "--iface va: carries your own login from 10.77.0.2 (SSH_CONNECTION)",
        "another interface, or add --force",
    ];
    let mut own = veth.chaos("--rate 1mbit");
    own.env("SSH_CONNECTION", &login);
    ends(own, 2, &told);
    // As under sudo: the shell knows it, and what it starts does not.
    let inner = veth.chaos("--rate 1mbit");
    let mut shell = Command::new("sh");
    shell.args(["-c", "env -u SSH_CONNECTION \"$0\" \"$@\"; exit $?"]);
    shell.arg(inner.get_program()).args(inner.get_args()).env("SSH_CONNECTION", &login);
    ends(shell, 2, &told);
    veth.is_untouched();
    // Logins that do not come by this interface are none of its business.
    for elsewhere in ["192.0.2.7 50123 192.0.2.1 22", "UNKNOWN 65535 UNKNOWN 65535", ""] {
        let mut other = veth.chaos("--rate 1mbit --for 10ms");
        other.env("SSH_CONNECTION", elsewhere);
        assert_eq!(output(other).status.code(), Some(0), "{elsewhere}");
    }
    let mut forced = veth.chaos("--rate 1mbit --for 1h --force");
    forced.env("SSH_CONNECTION", &login);
    let mut forced = Running::start(forced);
    forced.line_with("rate 1 Mbit/s");
    forced.end_by(Signal::TERM);
    veth.is_untouched();
}

#[test]
fn without_privileges_or_tools_there_is_a_remedy() {
    let test = "without_privileges_or_tools_there_is_a_remedy";
    // Refused before anything is touched, so the loopback interface is as good as any.
    let args = ["chaos", "--iface", "lo", "--rate", "1gbit", "--for", "10ms"];
    if let Some(command) = unprivileged(&format!("chaos::{test}"), &args) {
        ends(command, 2, &["not permitted", "run as root", "setcap cap_net_admin+ep"]);
    }
    let mut absent = netdiag(args);
    absent.env("PATH", "/nowhere");
    ends(absent, 1, &["`ip` cannot be run", "install iproute2"]);

    let Some(veth) = veth(test) else { return };
    let folder = tempfile::tempdir().expect("folder");
    let old = folder.path().join("tc");
    std::fs::write(&old, "#!/bin/sh\necho not JSON\n").expect("file");
    std::fs::set_permissions(&old, Permissions::from_mode(0o755)).expect("file");
    let mut command = veth.chaos("--rate 1mbit");
    let path = std::env::var("PATH").expect("a path");
    command.env("PATH", format!("{}:{path}", folder.path().display()));
    ends(command, 1, &["`tc -j qdisc show`", "iproute2 4.17 or later"]);
    veth.is_untouched();
}
