//! A NATS server for tests and benches: Debian's `nats-server` on a free port of loopback.
//!
//! Invariant: the server and what it stores end with the [`Broker`]; one that is restarted is found on the same port.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long it may take to listen, on however busy a machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// It is not installed, or may not be started.
    #[error(
        "cannot start nats-server: {0}; install the package of that name, as `cargo xtask test` does"
    )]
    Start(#[source] io::Error),
    /// It runs and does not listen, or has ended.
    #[error("nats-server does not listen; it says:\n{0}")]
    Silent(String),
    /// Anything else that the system refused.
    #[error(transparent)]
    System(#[from] io::Error),
}

/// The server, ended when dropped.
#[derive(Debug)]
pub struct Broker {
    child: Child,
    arguments: Vec<String>,
    port: u16,
    store: tempfile::TempDir,
}

impl Broker {
    /// With JetStream.
    ///
    /// # Errors
    ///
    /// It does not start.
    pub fn start() -> Result<Self, BrokerError> {
        Self::with(&["-js"])
    }

    /// With these arguments besides its port.
    ///
    /// # Errors
    ///
    /// It does not start.
    pub fn with(arguments: &[&str]) -> Result<Self, BrokerError> {
        let store = tempfile::tempdir()?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let place = store.path().display().to_string();
        let mut all =
            ["-a", "127.0.0.1", "-p", &port.to_string(), "-sd", &place].map(String::from).to_vec();
        all.extend(arguments.iter().map(|&argument| argument.to_owned()));
        let child = spawn(&all, log(&store))?;
        let mut broker = Self { child, arguments: all, port, store };
        broker.wait()?;
        Ok(broker)
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Its port on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The ID of its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged.
    pub fn said(&self) -> String {
        std::fs::read_to_string(log(&self.store)).unwrap_or_default()
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it anew on the same port.
    ///
    /// # Errors
    ///
    /// It does not start.
    pub fn restart(&mut self) -> Result<(), BrokerError> {
        self.kill();
        self.child = spawn(&self.arguments, log(&self.store))?;
        self.wait()
    }

    /// Makes it hang: it takes nothing and says nothing, and its connections stay open.
    ///
    /// # Errors
    ///
    /// It has ended.
    pub fn freeze(&self) -> io::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on.
    ///
    /// # Errors
    ///
    /// It has ended.
    pub fn thaw(&self) -> io::Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        let pid = Pid::from_raw(self.child.id().cast_signed()).ok_or(io::ErrorKind::NotFound)?;
        Ok(kill_process(pid, signal)?)
    }

    fn wait(&mut self) -> Result<(), BrokerError> {
        let start = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            if start.elapsed() > PATIENCE || self.child.try_wait()?.is_some() {
                return Err(BrokerError::Silent(self.said()));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        // Whoever listens there may be another's, if the port was taken meanwhile.
        match self.child.try_wait()? {
            Some(_) => Err(BrokerError::Silent(self.said())),
            None => Ok(()),
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

fn log(store: &tempfile::TempDir) -> PathBuf {
    store.path().join("log")
}

fn spawn(arguments: &[String], log: PathBuf) -> Result<Child, BrokerError> {
    let log = File::options().create(true).append(true).open(log)?;
    Command::new("nats-server")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .map_err(BrokerError::Start)
}
