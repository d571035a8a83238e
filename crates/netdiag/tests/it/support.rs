//! Running the binary and waiting for what it does.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Long enough for a loaded machine; a test that works never waits for it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// The binary, in an environment of its own.
pub(crate) fn netdiag<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_netdiag"));
    command.args(args).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("NETDIAG_") {
            command.env_remove(name);
        }
    }
    // Its port is the same for all; tests of the dashboard choose one.
    command.env("NETDIAG_NO_DASHBOARD", "true");
    command
}

/// Runs to the end. For commands that end by themselves.
pub(crate) fn output(mut command: Command) -> Output {
    command.output().expect("the binary runs")
}

/// stderr as text.
pub(crate) fn complaint(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A folder with a name for a CSV in it.
pub(crate) fn csv_path() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("net_data.csv");
    (folder, path)
}

/// A process that goes on until it is told to end; killed when dropped.
pub(crate) struct Running {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Running {
    /// Starts `command` and collects its stderr.
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child =
            command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary runs");
        let stderr = child.stderr.take().expect("stderr is piped");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self { child, lines, seen: Vec::new() }
    }

    /// Waits for a line on stderr that contains `text`.
    pub(crate) fn line_with(&mut self, text: &str) -> String {
        let end = Instant::now() + DEADLINE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("no line with `{text}` on stderr: {:#?}", self.seen);
            };
            self.seen.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
    }

    /// The address that the hint server says it listens on.
    pub(crate) fn address(&mut self) -> SocketAddr {
        self.address_of("hints on")
    }

    /// The address behind these words.
    pub(crate) fn address_of(&mut self, words: &str) -> SocketAddr {
        let line = self.line_with(&format!("{words} http://"));
        let (_, rest) = line.split_once("http://").expect("an address");
        let end = rest.find(|c: char| "/;".contains(c) || c.is_whitespace()).unwrap_or(rest.len());
        rest[..end].parse().expect("an address")
    }

    /// The ID of its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal and waits for the end, which must come within two seconds.
    pub(crate) fn end_by(mut self, signal: Signal) -> (ExitStatus, Vec<String>) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a pid");
        let asked = Instant::now();
        kill_process(pid, signal).expect("the process is there");
        let status = until("the end", || self.child.try_wait().expect("wait"));
        assert!(asked.elapsed() < Duration::from_secs(2), "took {:?} to end", asked.elapsed());
        self.seen.extend(self.lines.iter());
        (status, std::mem::take(&mut self.seen))
    }

    /// Waits for the process to end by itself.
    pub(crate) fn end(mut self) -> (ExitStatus, Vec<String>) {
        let status = until("the end", || self.child.try_wait().expect("wait"));
        self.seen.extend(self.lines.iter());
        (status, std::mem::take(&mut self.seen))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks again and again until there is an answer.
pub(crate) fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "still waiting for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A `GET`: the status and the body.
pub(crate) fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("connects");
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sends");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    (status, body.to_owned())
}

/// `GET /v1/hint`, as JSON.
pub(crate) fn hint(address: SocketAddr, query: &str) -> serde_json::Value {
    let (status, body) = get(address, &format!("/v1/hint{query}"));
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).expect("JSON")
}

/// The complete rows of a CSV as lists of cells, without the header.
pub(crate) fn rows(path: &Path) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    let cells = |line: &str| line.split(',').map(str::to_owned).collect();
    complete.lines().skip(1).map(cells).collect()
}

/// Width and height of a PNG, as its header says.
pub(crate) fn png_size(png: &[u8]) -> (u32, u32) {
    assert!(png.starts_with(b"\x89PNG\r\n\x1a\n"), "no PNG");
    let number = |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().expect("four bytes"));
    (number(16), number(20))
}

/// Whether we are root; if not, says that the test is skipped.
pub(crate) fn root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skipped(test, "needs root");
    }
    root
}

/// The user and group without rights, by the number that all distributions give them.
const NOBODY: u32 = 65534;

/// The command as a user without privileges; `None`, told as a skipped test, if that cannot be arranged.
pub(crate) fn unprivileged(test: &str, args: &[&str]) -> Option<Command> {
    let mut command = netdiag(args);
    if rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY).current_dir("/");
        let mut probe = netdiag(["--version"]);
        probe.uid(NOBODY).gid(NOBODY).current_dir("/");
        // The build folder may be out of reach for others.
        if !probe.output().is_ok_and(|output| output.status.success()) {
            skipped(test, "the binary is where only root can run it");
            return None;
        }
    }
    Some(command)
}

/// Says that a test did not run, straight to the terminal, past the test harness's capture.
pub(crate) fn skipped(test: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {test} ({why})");
}
