//! That nothing stays behind, whatever ended the lab or its process.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use netdiag_lab::{Lab, ServerSide};
use rustix::process::{Pid, Signal, kill_process};

use crate::{SECOND, connect, lab, link, ms, round_trips, turn};

#[test]
fn five_labs_after_each_other_leave_nothing() {
    let _turn = turn();
    for side in [ServerSide::Namespace, ServerSide::Host].into_iter().cycle().take(5) {
        let Some(lab) = lab(link(0), side) else { return };
        round_trips(&mut connect(&lab), 1);
        gone_after(lab, drop);
    }
}

#[test]
fn a_panic_leaves_nothing() {
    let _turn = turn();
    let Some(lab) = lab(link(0), ServerSide::Host) else { return };
    gone_after(lab, |lab| {
        let panicked = std::thread::spawn(move || {
            let _lab = lab;
            panic!("on purpose");
        });
        panicked.join().expect_err("panicked");
    });
}

#[test]
fn signals_leave_nothing_and_spare_other_labs() {
    let _turn = turn();
    let Some(own) = lab(link(1), ServerSide::Host) else { return };
    let mut ends = connect(&own);
    for signal in [Signal::KILL, Signal::INT, Signal::TERM] {
        let (mut child, server, inode) = lab_of_another_process();
        assert!(has_address(server));
        assert!(mentions(child.id(), inode));
        kill_process(Pid::from_child(&child), signal).expect("signal");
        child.wait().expect("reap");
        wait_until(|| !has_address(server));
        assert!(!mounted(inode));
    }
    round_trips(&mut ends, 1);
}

const CHILD: &str = "NETDIAG_LAB_CHILD";

/// Not a test of its own: the process that the test above ends.
#[test]
fn child() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let lab = lab(link(1), ServerSide::Host).expect("the parent could");
    let mut out = std::io::stdout();
    writeln!(out, "\n{CHILD} {} {}", lab.server_ip(), lab.client_netns_inode()).expect("parent");
    std::thread::sleep(15 * SECOND);
}

/// This program again, with a lab on the host: itself, the server's address, the client's namespace.
fn lab_of_another_process() -> (Child, IpAddr, u64) {
    let mut child = Command::new(std::env::current_exe().expect("own path"))
        .args(["--exact", "teardown::child", "--nocapture"])
        .env(CHILD, "1")
        .stdout(Stdio::piped())
        .spawn()
        .expect("child");
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let line = lines
        .map(|line| line.expect("line"))
        .find_map(|line| line.strip_prefix(CHILD).map(str::to_owned))
        .expect("a lab");
    let (address, inode) = line.trim().split_once(' ').expect("two words");
    (child, address.parse().expect("address"), inode.parse().expect("inode"))
}

/// Ends the lab and checks that this process holds none of it any more.
fn gone_after(lab: Lab, end: impl FnOnce(Lab)) {
    let server = lab.server_ip();
    let client = lab.client_netns().to_owned();
    let inode = lab.client_netns_inode();
    let on_host = has_address(server);
    assert!(mentions(std::process::id(), inode));
    end(lab);
    // The interface goes with the emulator, so at once; there may be another lab with its number already.
    if on_host {
        assert!(!has_address(server) || client.exists());
    }
    assert!(!mounted(inode));
    wait_until(|| std::fs::read_link(&client).is_err() || !mentions(std::process::id(), inode));
}

/// Whether the host has this address: only then can a socket have it.
fn has_address(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

/// Whether a process has the namespace open.
fn mentions(process: u32, namespace: u64) -> bool {
    let files = std::fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
    let name = format!("net:[{namespace}]");
    files.filter_map(|file| std::fs::read_link(file.path()).ok()).any(|to| to.as_os_str() == &*name)
}

/// Whether a namespace has a name in the file system, as in `/run/netns`.
fn mounted(namespace: u64) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    mounts.contains(&format!("net:[{namespace}]"))
}

/// The kernel takes down what a dead process held in the background.
fn wait_until(condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < end, "still there");
        std::thread::sleep(ms(10));
    }
}
