//! What commands give up once they have begun, as the kernel accounts for it: of every thread.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{
    DEADLINE, Running, complaint, csv_path, netdiag, output, root, rows, skipped, until,
};

/// `CAP_SYS_PTRACE` and `CAP_SYS_ADMIN`, as `/proc` writes them.
const TO_LOOK_AROUND: &str = "0000000000280000";
const NONE: &str = "0000000000000000";

/// What one thread has.
#[derive(Debug)]
struct Thread {
    name: String,
    /// `CapInh`, `CapPrm`, `CapEff`, `CapAmb`.
    sets: [String; 4],
    bounding: String,
    no_new_privs: bool,
    filtered: bool,
}

impl Thread {
    fn has_only(&self, kept: &str) -> bool {
        let [inheritable, permitted, effective, ambient] = &self.sets;
        [permitted, effective, &self.bounding].iter().all(|set| *set == kept)
            && [inheritable, ambient].iter().all(|set| *set == NONE)
            && self.no_new_privs
            && self.filtered
    }
}

fn threads(pid: u32) -> Vec<Thread> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let status = |task: fs::DirEntry| fs::read_to_string(task.path().join("status")).ok();
    let statuses: Vec<String> = tasks.filter_map(|task| status(task.ok()?)).collect();
    let field = |status: &str, name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
        line.unwrap_or_default().trim().to_owned()
    };
    statuses
        .iter()
        .map(|status| Thread {
            name: field(status, "Name"),
            sets: ["CapInh", "CapPrm", "CapEff", "CapAmb"].map(|name| field(status, name)),
            bounding: field(status, "CapBnd"),
            no_new_privs: field(status, "NoNewPrivs") == "1",
            filtered: field(status, "Seccomp") == "2",
        })
        .collect()
}

/// Waits until all threads have nothing left but what `kept` says of the one that has the probe. Each confines itself when it starts.
fn settle(pid: u32, kept: &str) {
    let mut wrong = Vec::new();
    let end = Instant::now() + DEADLINE;
    while Instant::now() < end {
        wrong = threads(pid);
        assert!(wrong.len() > 1, "{wrong:?}");
        wrong.retain(|thread| !thread.has_only(if thread.name == "sampler" { kept } else { NONE }));
        if wrong.is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("{wrong:#?}");
}

/// `agent` or `up` on this host's own connections, with every program that the kernel can load.
fn watching(command: &str, path: &Path) -> Command {
    let mut watching = netdiag([command, "--source", "ebpf", "--loopback", "--log-level", "info"]);
    watching.args(["--interval", "0.02", "--window", "1", "--max-samples", "20", "--csv"]);
    watching.arg(path);
    watching
}

#[test]
fn privileges_are_given_up_and_the_probe_goes_on() {
    if !root("privileges_are_given_up_and_the_probe_goes_on") {
        return;
    }
    for (command, own) in [("agent", true), ("up", true), ("agent", false)] {
        let (folder, path) = csv_path();
        let mut arguments = watching(command, &path);
        if own {
            arguments.args(["--netns", "/proc/self/ns/net"]);
        }
        if command == "up" {
            arguments.args(["--listen", "127.0.0.1:0"]);
        }
        let mut running = Running::start(arguments);
        let told = running.line_with("confined: ");
        let folder_told = fs::canonicalize(folder.path()).expect("it is there");
        assert!(told.contains("no capabilities; "), "{told}");
        assert!(
            told.contains("no Landlock") || told.contains(&folder_told.display().to_string()),
            "{told}"
        );
        assert_eq!(told.contains("CAP_SYS_PTRACE and CAP_SYS_ADMIN"), !own, "{told}");
        settle(running.pid(), if own { NONE } else { TO_LOOK_AROUND });

        // The maps are read, connections that come and go are seen, and the file is replaced by a shorter one.
        let inode = fs::metadata(&path).expect("a file").ino();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        until("samples and a shorter file", || {
            let mut client =
                TcpStream::connect(listener.local_addr().expect("bound")).expect("connects");
            let (mut server, _) = listener.accept().expect("accepts");
            for _ in 0..20 {
                server.write_all(&[7; 1000]).expect("sends");
                client.read_exact(&mut [0; 1000]).expect("receives");
            }
            let rows = rows(&path);
            let sources: BTreeSet<&str> = rows.iter().map(|row| row[17].as_str()).collect();
            assert!(sources.is_empty() || sources == BTreeSet::from(["ebpf"]), "{sources:?}");
            let measured = rows.iter().any(|row| row[1].parse::<f64>().is_ok_and(|rtt| rtt > 0.0));
            let replaced = fs::metadata(&path).is_ok_and(|file| file.ino() != inode);
            (measured && replaced).then_some(())
        });
        settle(running.pid(), if own { NONE } else { TO_LOOK_AROUND });
        let (status, stderr) = running.end_by(Signal::TERM);
        assert_eq!(status.code(), Some(0), "{stderr:#?}");
        assert!(!stderr.iter().any(|line| line.contains("WARN")), "{stderr:#?}");
    }
}

#[test]
fn servers_keep_nothing() {
    if !root("servers_keep_nothing") {
        return;
    }
    let (_folder, path) = csv_path();
    // One that is not there yet may be anybody's, which takes something to read.
    fs::write(&path, "").expect("a file");
    let csv = path.display().to_string();
    let commands: [&[&str]; 4] = [
        &["serve", "--listen", "127.0.0.1:0", "--csv", &csv],
        &["dashboard", "--dashboard-listen", "127.0.0.1:0", "--csv", &csv],
        &["gateway", "--listen", "127.0.0.1:0", "--upstream", "http://localhost:9"],
        &["fleet", "--listen", "127.0.0.1:0", "--bus", "nats://localhost:9"],
    ];
    for arguments in commands {
        let mut running = Running::start(netdiag(arguments));
        let told = running.line_with("confined: ");
        assert!(told.contains("no capabilities"), "{told}");
        // Also what examines the machine for the dashboard has ended then.
        settle(running.pid(), NONE);
        let (status, stderr) = running.end_by(Signal::TERM);
        assert_eq!(status.code(), Some(0), "{arguments:?}: {stderr:#?}");
    }
}

#[test]
fn all_is_kept_if_that_is_wished() {
    let (_folder, path) = csv_path();
    let mut command = netdiag(["serve", "--listen", "127.0.0.1:0", "--no-sandbox", "--csv"]);
    command.arg(&path);
    let mut running = Running::start(command);
    running.address();
    let threads = threads(running.pid());
    let main = threads.iter().find(|thread| thread.name == "netdiag").expect("the main thread");
    if main.filtered {
        skipped("all_is_kept_if_that_is_wished", "who runs the tests is confined");
        return;
    }
    assert!(!main.no_new_privs || own_no_new_privs(), "{main:?}");
    let (_, stderr) = running.end_by(Signal::TERM);
    assert!(!stderr.iter().any(|line| line.contains("confined")), "{stderr:#?}");
}

fn own_no_new_privs() -> bool {
    rustix::thread::no_new_privs().unwrap_or(false)
}

/// The allocator's background thread would be there before anything is confined. That the settings of `.cargo/config.toml` are in the binary shows in
/// nothing else but what a process weighs after hours.
#[test]
fn the_allocator_has_our_settings_and_no_thread() {
    let mut command = netdiag(["--version"]);
    command.env("_RJEM_MALLOC_CONF", "confirm_conf:true");
    let told = complaint(&output(command));
    let settings = "background_thread:false,narenas:2,dirty_decay_ms:0,muzzy_decay_ms:0,thp:never";
    assert!(told.contains(&format!("--with-malloc-conf): \"{settings}\"")), "{told}");
}
