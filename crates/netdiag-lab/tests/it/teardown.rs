//! That nothing stays behind, whatever ended the lab or its process.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, UdpSocket};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use netdiag_lab::{Lab, Schedule, ServerSide};
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use rustix::process::{Pid, Signal, kill_process, test_kill_process_group};

use crate::{connect, lab, lab_of, link, ms, round_trips, turn};

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

/// How many processes the next test ends; its default costs some seconds, the bench asks for a hundred.
const RUNS: &str = "NETDIAG_LAB_KILLS";

/// Processes with a lab in use end at any time and in any way: while they set it up, use it or take it down.
#[test]
fn random_ends_leave_nothing() {
    let _turn = turn();
    if lab(link(0), ServerSide::Host).is_none() {
        return;
    }
    let runs = std::env::var(RUNS).map_or(10, |runs| runs.parse().expect("a number of runs"));
    // A host of its own, where nobody else has interfaces.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a namespace");
            let before = traces_of_labs();
            let mut random = Xoshiro256PlusPlus::seed_from_u64(3);
            let mut standing = 0;
            for run in 0..runs {
                let manner = MANNERS[run % MANNERS.len()];
                let after = Duration::from_micros(random.random_range(0..80_000));
                standing += usize::from(end_one(manner, after));
                let gone = comes_true(|| traces_of_labs() == before);
                assert!(gone, "{manner}: {:?}, before {before:?}", traces_of_labs());
            }
            // For the bench, and for whoever runs this with --nocapture.
            println!("ends: {standing} of {runs} had a lab that stood; nothing left");
        });
    });
}

/// Starts a process that makes and uses a lab, and ends it in some manner after a while. Whether its lab stood by then.
fn end_one(manner: &str, after: Duration) -> bool {
    let mut child = child_with(manner).process_group(0).spawn().expect("child");
    let id = Pid::from_child(&child);
    std::thread::sleep(after);
    match manner {
        "killed" => kill_process(id, Signal::KILL).expect("signal"),
        "interrupted" | "asked to end" => kill_process(id, Signal::INT).expect("signal"),
        "terminated" => kill_process(id, Signal::TERM).expect("signal"),
        // Those end by themselves.
        _ => drop(child.stdin.take()),
    }
    let mut said = String::new();
    child.stdout.take().expect("piped").read_to_string(&mut said).expect("text");
    child.wait().expect("reap");
    assert!(test_kill_process_group(id).is_err(), "{manner}: it left a process");
    said.contains(CHILD)
}

/// What labs leave where others can see it: interfaces, reserved addresses, names of namespaces.
fn traces_of_labs() -> Vec<String> {
    let read = |file: &str| std::fs::read_to_string(file).expect("readable");
    let interfaces = read("/proc/thread-self/net/dev");
    let mut traces: Vec<String> = interfaces
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, _)| name.trim().to_owned())
        .collect();
    let sockets = read("/proc/thread-self/net/unix");
    traces.extend(sockets.lines().filter(|line| line.contains("netdiag-lab")).map(str::to_owned));
    let mounts = read("/proc/self/mountinfo");
    traces.extend(mounts.lines().filter(|line| line.contains(" nsfs ")).map(str::to_owned));
    let names = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
    traces.extend(names.map(|name| name.path().display().to_string()));
    traces
}

/// How a child ends: by a signal that it does not expect, by one that it handles, by a panic, or by itself.
const MANNERS: [&str; 6] =
    ["killed", "interrupted", "terminated", "asked to end", "panicking", "by itself"];

/// Set in a child to the manner of its end.
const CHILD: &str = "NETDIAG_LAB_CHILD";

/// Not a test of its own: the process that the tests above end.
#[test]
fn child() {
    let Ok(manner) = std::env::var(CHILD) else { return };
    let asked = (manner == "asked to end").then(|| {
        let mut signals = signal_hook::iterator::Signals::new([signal_hook::consts::SIGINT]);
        std::thread::spawn(move || signals.as_mut().expect("signals").forever().next())
    });
    let lab = lab_of([link(1).into(), link(5).into()], ServerSide::Host).expect("the parent could");
    let steps = [1, 2].map(|n| (ms(20 * (n - 1)), link(n).into()));
    let schedule = Schedule::try_new(steps).expect("in order");
    let _playback = lab.play(&[schedule.clone(), schedule]).expect("plays");
    round_trips(&mut connect(&lab), 1);
    let mut out = std::io::stdout();
    writeln!(out, "\n{CHILD} {} {}", lab.server_ip(), lab.client_netns_inode()).expect("parent");
    match asked {
        Some(asked) => drop(asked.join()),
        // Until the parent closes its end, or is gone.
        None => drop(std::io::stdin().read(&mut [0])),
    }
    assert_ne!(manner, "panicking", "on purpose");
}

/// This program again, as a process with a lab.
fn child_with(manner: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("own path"));
    command
        .args(["--exact", "teardown::child", "--nocapture"])
        .env(CHILD, manner)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}

/// A lab on the host in a process of its own: the process, the server's address, the client's namespace.
fn lab_of_another_process() -> (Child, IpAddr, u64) {
    let mut child = child_with("by a signal").spawn().expect("child");
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

#[track_caller]
fn wait_until(condition: impl Fn() -> bool) {
    assert!(comes_true(condition), "still there");
}

/// Whether it does in time: the kernel takes down what a dead process held in the background.
fn comes_true(condition: impl Fn() -> bool) -> bool {
    let end = Instant::now() + Duration::from_secs(10);
    while !condition() {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(ms(10));
    }
    true
}
