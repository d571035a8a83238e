//! `netdiag up` as a child of a bench, and what it answers.
//!
//! Invariant: the child ends with its handle.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// For what must be answered, on however busy a machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running `netdiag up`; ended when dropped.
pub(super) struct Up {
    child: Child,
    says: std::io::Lines<BufReader<std::process::ChildStderr>>,
    /// Where its hints are.
    pub(super) hints: SocketAddr,
}

impl Up {
    /// Starts it with hints on a port of their own, and these arguments.
    pub(super) fn start<S: AsRef<OsStr>>(
        netdiag: &Path,
        arguments: impl IntoIterator<Item = S>,
    ) -> anyhow::Result<Self> {
        let mut child = Command::new(netdiag)
            .args(["up", "--listen", "127.0.0.1:0", "--log-level", "error"])
            .args(arguments)
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .context("cannot run netdiag up")?;
        let says = BufReader::new(child.stderr.take().context("no stderr")?).lines();
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut up = Self { child, says, hints: nowhere };
        up.hints = up.address("hints on")?;
        Ok(up)
    }

    /// The address that it says next behind these words.
    pub(super) fn address(&mut self, words: &str) -> anyhow::Result<SocketAddr> {
        let line = self.says.by_ref().map_while(Result::ok).find(|line| line.contains(words));
        let line = line.context("netdiag up says no address")?;
        let (_, rest) = line.split_once("http://").context("netdiag up says no address")?;
        Ok(rest.split([' ', '/']).next().unwrap_or_default().parse()?)
    }

    /// The ID of its process.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

/// Somebody who asks it again and again, on one connection.
pub(super) struct Asking {
    address: SocketAddr,
    connection: BufReader<TcpStream>,
}

impl Asking {
    pub(super) fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let connection = TcpStream::connect(address)?;
        connection.set_nodelay(true)?;
        connection.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { address, connection: BufReader::new(connection) })
    }

    /// The JSON at `path`.
    pub(super) fn get(&mut self, path: &str) -> anyhow::Result<Value> {
        Ok(serde_json::from_slice(&self.body(path)?)?)
    }

    /// What is at `path`, as it comes.
    pub(super) fn body(&mut self, path: &str) -> anyhow::Result<Vec<u8>> {
        let question = format!("GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", self.address);
        self.connection.get_mut().write_all(question.as_bytes())?;
        let mut length = None;
        let mut line = String::new();
        self.connection.read_line(&mut line)?;
        ensure!(line.starts_with("HTTP/1.1 200"), "{path}: {line}");
        while line.trim_end() != "" {
            line.clear();
            self.connection.read_line(&mut line)?;
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = Some(value.trim().parse()?);
            }
        }
        let mut body = vec![0; length.context("an answer without a length")?];
        self.connection.read_exact(&mut body)?;
        Ok(body)
    }
}
