//! Which source is at work, and how it is told when it is not the one hoped for.

use std::process::{Child, Command};

use rustix::process::Signal;

use crate::support::{
    Running, complaint, csv_path, hint, netdiag, output, root, unprivileged, until,
};

#[test]
fn without_privileges_sock_diag_serves_and_one_line_says_why() {
    let args = ["up", "--listen", "127.0.0.1:0", "--interval", "0.05", "--window", "1"];
    let test = "source::without_privileges_sock_diag_serves_and_one_line_says_why";
    let Some(command) = unprivileged(test, &args) else { return };
    let mut running = Running::start(command);
    let address = running.address();
    until("telemetry", || Some(()).filter(|()| hint(address, "")["source"] == "sockdiag"));
    let (status, stderr) = running.end_by(Signal::TERM);
    assert_eq!(status.code(), Some(0), "{stderr:#?}");
    let told: Vec<_> =
        stderr.iter().filter(|line| line.contains("eBPF is not available")).collect();
    assert_eq!(told.len(), 1, "{stderr:#?}");
    assert!(told[0].contains("run as root"), "{told:?}");
}

#[test]
fn ebpf_or_nothing_is_a_failure_with_a_remedy() {
    let test = "source::ebpf_or_nothing_is_a_failure_with_a_remedy";
    let args = ["up", "--listen", "127.0.0.1:0", "--source", "ebpf"];
    let Some(command) = unprivileged(test, &args) else { return };
    let output = output(command);
    assert_eq!(output.status.code(), Some(1), "{}", complaint(&output));
    let told = complaint(&output);
    assert!(told.contains("no telemetry") && told.contains("run as root"), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
}

/// A process with a network namespace of its own.
struct Elsewhere(Child);

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn another_namespace_can_be_chosen() {
    if !root("source::another_namespace_can_be_chosen") {
        return;
    }
    // `unshare` becomes `sleep`, so its ID is that of a process inside.
    let sleeper = Command::new("unshare").args(["--net", "sleep", "60"]).spawn().expect("unshare");
    let elsewhere = Elsewhere(sleeper);
    let pid = elsewhere.0.id().to_string();
    let own = std::fs::read_link("/proc/self/ns/net").expect("a namespace");
    until("the namespace", || {
        std::fs::read_link(format!("/proc/{pid}/ns/net")).ok().filter(|theirs| *theirs != own)
    });
    // A connection in our own namespace, which must not be seen.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let _client = std::net::TcpStream::connect(address).expect("connects");
    for source in ["ebpf", "sockdiag"] {
        let (_folder, path) = csv_path();
        let mut command = netdiag(["agent", "--loopback", "--log-level", "info", "--netns"]);
        command.args([&pid, "--source", source, "--duration", "0.2", "--csv"]).arg(&path);
        let (status, stderr) = Running::start(command).end();
        assert_eq!(status.code(), Some(0), "{stderr:#?}");
        let told = format!("watching 0 flows by {source}");
        assert!(stderr.iter().any(|line| line.contains(&told)), "{stderr:#?}");
    }
}
