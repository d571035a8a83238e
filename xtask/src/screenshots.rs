//! `cargo xtask screenshots`: the dashboard in all its states and widths, of a real run over an emulated link, to be looked at; and
//! the two pictures in `docs/` that the READMEs show.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use netdiag_lab::{Lab, LinkSpec, ServerSide};
use rustix::process::{Pid, Signal, kill_process};

use crate::command;
use crate::test::fetch_page_tools;

/// What is usual must have been seen for a while before something is not.
const CALM: Duration = Duration::from_secs(45);
/// By then the light is on and the rate has followed.
const BAD: Duration = Duration::from_secs(8);
/// Until a silence is a stall.
const SILENT: Duration = Duration::from_secs(3);

/// The pictures in `docs/`: file, language, theme.
const DOCUMENTS: [[&str; 3]; 2] =
    [["docs/dashboard.png", "en-GB", "light"], ["docs/dashboard.zh-CN.png", "zh-CN", "dark"]];

pub(crate) fn run() -> anyhow::Result<()> {
    ensure!(command::is_root(), "the pictures are taken over an emulated link: run it as root");
    fetch_page_tools()?;
    let netdiag = crate::release_binary("netdiag", &["--bin", "netdiag"], "netdiag")?;
    let folder = crate::target_directory().join("screenshots");
    fs::create_dir_all(&folder)?;
    let link = |rtt: u64| LinkSpec::delayed(Duration::from_millis(rtt / 2));
    // Far, lossy, and wide enough for a third of what the streams send.
    let (good, bad) = (link(40)?, link(260)?.with_loss(0.02)?.with_rate(120_000)?);
    let lab = Lab::start(&good, ServerSide::default())?;
    let streams: Vec<_> = (0..6).map(|_| stream(&lab)).collect::<anyhow::Result<_>>()?;
    let up = Shown::start(
        Command::new(&netdiag)
            .args(["up", "--listen", "127.0.0.1:0"])
            .args(["--dashboard-listen", "127.0.0.1:0", "--netns"])
            .arg(lab.server_netns()),
    )?;
    std::thread::sleep(CALM);
    up.all(&folder, "calm")?;
    lab.set(&bad)?;
    std::thread::sleep(BAD);
    for [file, locale, scheme] in DOCUMENTS {
        up.one(file, locale, scheme)?;
    }
    up.all(&folder, "anomaly")?;
    lab.set(good.clone().blackout())?;
    std::thread::sleep(SILENT);
    up.all(&folder, "stalled")?;
    drop((up, streams));
    let empty = folder.join("empty.csv");
    let alone = |csv: &Path| {
        let listen = ["dashboard", "--dashboard-listen", "127.0.0.1:0", "--csv"];
        Shown::start(Command::new(&netdiag).args(listen).arg(csv))
    };
    let _ = fs::remove_file(&empty);
    alone(&empty)?.all(&folder, "empty")?;
    // A recording that ended long ago.
    let stale = folder.join("stale.csv");
    let rows = (0..200).map(|row| format!("{},40000,43000,0\n", 1_700_000_000 + row));
    fs::write(
        &stale,
        "timestamp,avg_rtt_us,p95_rtt_us,retrans_count\n".to_owned() + &rows.collect::<String>(),
    )?;
    alone(&stale)?.all(&folder, "stale")?;
    println!("look at them: {}", folder.display());
    Ok(())
}

/// A process with a dashboard; ended when dropped.
struct Shown {
    child: Child,
    address: SocketAddr,
}

impl Shown {
    fn start(command: &mut Command) -> anyhow::Result<Self> {
        let mut child = command.stderr(Stdio::piped()).spawn().context("cannot run netdiag")?;
        let lines = BufReader::new(child.stderr.take().context("no stderr")?).lines();
        let mut lines = lines.map_while(Result::ok);
        let line = lines.find(|line| line.contains("dashboard on http://"));
        let line = line.context("netdiag says no address")?;
        let (_, rest) = line.split_once("http://").context("netdiag says no address")?;
        let address = rest.split([' ', ';']).next().unwrap_or_default().parse()?;
        // What it says later must find a reader.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Self { child, address })
    }

    fn all(&self, folder: &Path, name: &str) -> anyhow::Result<()> {
        self.shoot(&[&folder.to_string_lossy(), name])
    }

    fn one(&self, file: &str, locale: &str, scheme: &str) -> anyhow::Result<()> {
        self.shoot(&["", "", "one", file, locale, scheme])
    }

    fn shoot(&self, more: &[&str]) -> anyhow::Result<()> {
        let script = "crates/netdiag-dashboard/tests/browser/shots.js";
        let address = format!("http://{}", self.address);
        command::run("node", &[&[script, &address], more].concat())
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

/// Tokens from the lab's server to its client, until the client's end is dropped.
fn stream(lab: &Lab) -> anyhow::Result<TcpStream> {
    let address = SocketAddr::new(lab.server_ip(), 0);
    let listener = lab.on_server(|| TcpListener::bind(address))??;
    let address = listener.local_addr()?;
    let client = lab.on_client(|| TcpStream::connect(address))??;
    let (mut server, _) = listener.accept()?;
    server.set_nodelay(true)?;
    std::thread::spawn(move || {
        while server.write_all(&[b'.'; 120]).is_ok() {
            std::thread::sleep(Duration::from_millis(25));
        }
    });
    let mut reader = client.try_clone()?;
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while reader.read(&mut buffer).is_ok_and(|read| read > 0) {}
    });
    Ok(client)
}
