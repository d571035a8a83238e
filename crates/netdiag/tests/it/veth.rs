//! A cable between two network namespaces that belong to the test, so that faults meet nobody else.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::support::{netdiag, output, until};

/// The end of the cable that faults are injected at, and its address.
pub(crate) const NEAR: &str = "va";
pub(crate) const NEAR_IP: &str = "10.77.0.1";
/// The other end's address.
pub(crate) const FAR_IP: &str = "10.77.0.2";

/// A network namespace. It is gone with its process, which ends with ours because its input does.
struct Namespace {
    holder: Child,
    path: String,
}

impl Namespace {
    fn create() -> Self {
        let mut command = Command::new("unshare");
        command.args(["--net", "cat"]).stdin(Stdio::piped()).stdout(Stdio::null());
        let holder = command.spawn().expect("unshare");
        let path = format!("/proc/{}/ns/net", holder.id());
        let own = std::fs::read_link("/proc/self/ns/net").expect("a namespace");
        until("a namespace of its own", || {
            std::fs::read_link(&path).ok().filter(|theirs| *theirs != own)
        });
        Self { holder, path }
    }

    /// Runs `task` on a thread in there. Sockets that it opens stay there.
    fn inside<T: Send>(&self, task: impl FnOnce() -> T + Send) -> T {
        let file = File::open(&self.path).expect("a namespace");
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("enters");
                task()
            });
            thread.join().expect("no panic")
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// The cable.
pub(crate) struct Veth {
    near: Namespace,
    far: Namespace,
}

impl Veth {
    pub(crate) fn create() -> Self {
        let veth = Self { near: Namespace::create(), far: Namespace::create() };
        let peer = veth.far.holder.id().to_string();
        veth.near(&[
            "ip", "link", "add", NEAR, "type", "veth", "peer", "name", "vb", "netns", &peer,
        ]);
        for (end, name, ip) in [(&veth.near, NEAR, NEAR_IP), (&veth.far, "vb", FAR_IP)] {
            run_in(end, &["ip", "addr", "add", &format!("{ip}/24"), "dev", name]);
            run_in(end, &["ip", "link", "set", name, "up"]);
        }
        veth
    }

    /// Runs a tool at the near end.
    pub(crate) fn near(&self, words: &[&str]) -> String {
        run_in(&self.near, words)
    }

    /// `netdiag` at the near end; a signal to the process is one to `netdiag`.
    pub(crate) fn netdiag<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let inner = netdiag(args);
        let mut command = enter(&self.near);
        command.arg(inner.get_program()).args(inner.get_args()).stdin(Stdio::null());
        for (name, _) in inner.get_envs() {
            command.env_remove(name);
        }
        command
    }

    /// `netdiag chaos` at the near end.
    pub(crate) fn chaos(&self, words: &str) -> Command {
        let words = words.split_ascii_whitespace();
        self.netdiag(["chaos", "--iface", NEAR].into_iter().chain(words))
    }

    /// The root queueing discipline of an interface at the near end, as `tc` describes it.
    pub(crate) fn root_qdisc(&self, interface: &str) -> serde_json::Value {
        let all = self.near(&["tc", "-s", "-j", "qdisc", "show"]);
        let all: Vec<serde_json::Value> = serde_json::from_str(&all).expect("JSON");
        let is_it = |qdisc: &serde_json::Value| qdisc["dev"] == interface && qdisc["root"] == true;
        all.into_iter().find(is_it).expect("a queueing discipline")
    }

    /// Asserts that the near end is as it was made.
    pub(crate) fn is_untouched(&self) {
        let root = self.root_qdisc(NEAR);
        assert_eq!((&root["kind"], &root["handle"]), (&"noqueue".into(), &"0:".into()), "{root}");
    }

    /// Sends a datagram to the other end.
    pub(crate) fn send_datagram(&self) {
        let socket = self.near.inside(|| UdpSocket::bind((NEAR_IP, 0))).expect("binds");
        socket.send_to(&[0; 100], (FAR_IP, 9)).expect("sends");
    }

    /// Sends `count` numbered datagrams to the other end, one every two milliseconds; those that arrive, and how long after
    /// they were sent.
    pub(crate) fn datagrams(&self, count: u32) -> Vec<(u32, Duration)> {
        let receiver = self.far.inside(|| UdpSocket::bind((FAR_IP, 0))).expect("binds");
        let address = receiver.local_addr().expect("an address");
        // Longer than any delay, even where the machine is an emulated one; after it nothing is under way.
        receiver.set_read_timeout(Some(Duration::from_secs(2))).expect("a timeout");
        let sender = self.near.inside(|| UdpSocket::bind((NEAR_IP, 0))).expect("binds");
        let started = Instant::now();
        let sending = std::thread::spawn(move || {
            for number in 0..count {
                let sent = u32::try_from(started.elapsed().as_micros()).expect("not so long");
                let message = [number.to_be_bytes(), sent.to_be_bytes()].concat();
                sender.send_to(&message, address).expect("sends");
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let (mut arrived, mut message) = (Vec::new(), [0; 8]);
        while receiver.recv(&mut message).is_ok() {
            let number =
                |at: usize| u32::from_be_bytes(message[at..at + 4].try_into().expect("four"));
            let sent = Duration::from_micros(number(4).into());
            arrived.push((number(0), started.elapsed().saturating_sub(sent)));
        }
        sending.join().expect("no panic");
        arrived
    }

    /// How many bit/s come out of the far end, over `time` and after a start of half a second, while TCP sends what it can.
    /// Counted on the wire: what a reader gets comes in bursts, after what was lost before it.
    pub(crate) fn throughput(&self, time: Duration) -> f64 {
        let listener = self.far.inside(|| TcpListener::bind((FAR_IP, 0))).expect("binds");
        let address = listener.local_addr().expect("an address");
        let mut sender = self.near.inside(|| TcpStream::connect(address)).expect("connects");
        let (mut receiver, _) = listener.accept().expect("accepts");
        let end = receiver.try_clone().expect("a socket");
        let sending = std::thread::spawn(move || while sender.write_all(&[0; 1 << 16]).is_ok() {});
        let reading = std::thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while receiver.read(&mut buffer).is_ok_and(|read| read > 0) {}
        });
        std::thread::sleep(Duration::from_millis(500));
        let (started, before) = (Instant::now(), self.received());
        std::thread::sleep(time);
        let carried = (self.received() - before) * 8;
        let carried = carried as f64 / started.elapsed().as_secs_f64();
        // Nobody reads any more, and the sender hears of it.
        end.shutdown(Shutdown::Both).expect("a connection");
        for thread in [sending, reading] {
            thread.join().expect("no panic");
        }
        carried
    }

    /// Bytes of all frames that came out of the far end.
    fn received(&self) -> u64 {
        let devices = self.far.inside(|| std::fs::read_to_string("/proc/thread-self/net/dev"));
        let devices = devices.expect("proc");
        let counters = devices.lines().find_map(|line| line.trim().strip_prefix("vb:"));
        let bytes = counters.and_then(|counters| counters.split_ascii_whitespace().next());
        bytes.and_then(|bytes| bytes.parse().ok()).expect("a number")
    }
}

fn enter(namespace: &Namespace) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", namespace.path));
    command
}

fn run_in(namespace: &Namespace, words: &[&str]) -> String {
    let mut command = enter(namespace);
    command.args(words);
    let Output { ref stdout, status, .. } = output(command);
    assert!(status.success(), "{words:?}");
    String::from_utf8_lossy(stdout).into_owned()
}
