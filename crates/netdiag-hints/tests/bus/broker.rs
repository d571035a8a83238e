//! A NATS server for one test: Debian's `nats-server` on a free port of loopback, ended with the test.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

const PATIENCE: Duration = Duration::from_secs(10);

/// The server, ended when dropped.
#[derive(Debug)]
pub(crate) struct Broker {
    child: Child,
    arguments: Vec<String>,
    pub(crate) port: u16,
    _store: tempfile::TempDir,
}

impl Broker {
    /// With JetStream.
    pub(crate) fn start() -> Self {
        Self::with(&["-js"])
    }

    /// With these arguments besides its port.
    pub(crate) fn with(arguments: &[&str]) -> Self {
        let store = tempfile::tempdir().expect("a directory");
        let port = free_port();
        let mut all: Vec<String> =
            ["-a", "127.0.0.1", "-p", &port.to_string()].map(String::from).to_vec();
        all.extend(["-sd".to_owned(), store.path().display().to_string()]);
        all.extend(arguments.iter().map(|&argument| argument.to_owned()));
        let child = spawn(&all, store.path());
        let broker = Self { child, arguments: all, port, _store: store };
        broker.wait();
        broker
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Ends it at once, as a crash would.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it anew on the same port.
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.child = spawn(&self.arguments, self._store.path());
        self.wait();
    }

    /// Stops or resumes the process without ending it.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed()).expect("a process");
        kill_process(pid, signal).expect("our own child");
    }

    fn wait(&self) {
        let start = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            assert!(start.elapsed() < PATIENCE, "nats-server does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(arguments: &[String], store: &Path) -> Child {
    let log = store.join("log");
    let log = std::fs::File::options().create(true).append(true).open(log).expect("a log");
    Command::new("nats-server")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a log"))
        .stderr(log)
        .spawn()
        .expect("nats-server, of the package of the same name, which `cargo xtask test` installs")
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("an address").port()
}
