//! Those who answer: ourselves, nginx with a file of the very same bytes, and Flask.

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;
use rustix::process::Signal;

use super::super::server::{Server, free_address, nginx};
use crate::command;

/// What Flask needs, of the series that were current when this was written.
const PACKAGES: [&str; 2] = ["flask~=3.1", "gunicorn~=23.0"];

/// Threads of each of gunicorn's processes: together as many as there are connections, because each keeps one.
const GUNICORN_THREADS: &str = "32";

/// The application, as a module.
const APPLICATION: &str = include_str!("flask_hints.py");

/// nginx with the answer as a file, which it need not look for again and again.
pub(super) fn file_server(answer: &[u8]) -> anyhow::Result<Server> {
    let folder = tempfile::tempdir()?;
    // If we are root its workers are somebody else.
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
    fs::write(folder.path().join("hint.json"), answer)?;
    let address = free_address()?;
    let root = folder.path().display();
    let http = format!(
        "  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000000;
  open_file_cache max=16 inactive=600s;
  default_type application/json;
  server {{
    listen {address} backlog=4096;
    root {root};
    location = / {{ try_files /hint.json =404; }}
  }}"
    );
    let command = nginx(&http, folder.path())?;
    Server::start("nginx", command, Some(address), Signal::TERM, folder)
}

/// The Python that Flask is installed for.
pub(super) fn python() -> anyhow::Result<PathBuf> {
    command::python_with("flask", &PACKAGES).context("Flask cannot be installed")
}

/// Flask by the server that it has itself.
pub(super) fn flask(python: &Path, answer: &[u8]) -> anyhow::Result<Server> {
    let (folder, address) = application(answer)?;
    let mut command = Command::new(python);
    command.arg(folder.path().join("flask_hints.py")).arg(address.port().to_string());
    quiet(&mut command);
    Server::start("Flask", command, Some(address), Signal::TERM, folder)
}

/// Flask by gunicorn, with a process for each core.
pub(super) fn gunicorn(python: &Path, answer: &[u8]) -> anyhow::Result<Server> {
    let (folder, address) = application(answer)?;
    let cores = std::thread::available_parallelism()?.to_string();
    let mut command = Command::new(python);
    command.args(["-m", "gunicorn", "--workers", &cores, "--threads", GUNICORN_THREADS]);
    command.args(["--keep-alive", "60", "--log-level", "error", "--bind", &address.to_string()]);
    command.arg("flask_hints:app").current_dir(folder.path());
    quiet(&mut command);
    Server::start("gunicorn", command, Some(address), Signal::TERM, folder)
}

fn application(answer: &[u8]) -> anyhow::Result<(tempfile::TempDir, SocketAddr)> {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("hint.json"), answer)?;
    fs::write(folder.path().join("flask_hints.py"), APPLICATION)?;
    Ok((folder, free_address()?))
}

fn quiet(command: &mut Command) {
    command.stdout(Stdio::null()).stderr(Stdio::null());
}
