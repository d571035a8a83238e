//! The dashboard in a real browser: programs in `crates/netdiag-dashboard/tests/browser` look at the page in headless Chromium,
//! while what they look at is set up, degraded and restarted here.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use netdiag_hints::{Board, Options, StreamEntry, router};
use netdiag_http::{Exposure, GivenUp, Limits, serve};
use netdiag_lab::{Lab, LinkSpec, ServerSide};
use netdiag_pacer::{Hint, State, TpsRange, WhenStale};
use netdiag_telemetry::{FlowKey, LinkSample, Scope, Tps};
use rustix::process::Signal;
use tokio::sync::watch;

use crate::closed_loop::Stream;
use crate::dashboard::{dashboard, recording};
use crate::support::{Running, csv_path, netdiag, root, skipped};

/// What the issue of the dashboard promises: a link gets worse, and this soon it is on the screen.
const SEEN_WITHIN: Duration = Duration::from_secs(2);

/// A program that looks at a page.
pub(crate) struct Look {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Look {
    /// Starts it on the dashboard at `address`; `None`, told as a skipped test, where there is no browser.
    pub(crate) fn start(
        test: &str,
        script: &str,
        address: SocketAddr,
        more: &[&str],
    ) -> Option<Self> {
        let package = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("netdiag-dashboard");
        if !package.join("node_modules").is_dir() {
            skipped(test, "no node_modules: run `cargo xtask test page`");
            return None;
        }
        let script: PathBuf = package.join("tests/browser").join(script);
        let mut command = Command::new("node");
        command.arg(script).arg(format!("http://{address}")).args(more);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = child.spawn().expect("node runs");
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().expect("stdout is piped"));
        Some(Self { child, input, output })
    }

    /// Waits for this line.
    pub(crate) fn expect(&mut self, line: &str) {
        let mut told = String::new();
        self.output.read_line(&mut told).expect("a line");
        assert_eq!(told.trim_end(), line);
    }

    pub(crate) fn tell(&mut self, line: &str) {
        writeln!(self.input.as_mut().expect("stdin is piped"), "{line}").expect("it listens");
    }

    /// Waits until it is content, and returns what it still had to say.
    pub(crate) fn end(mut self) -> String {
        drop(self.input.take());
        let mut told = String::new();
        self.output.read_to_string(&mut told).expect("text");
        assert!(self.child.wait().expect("an end").success(), "{told}");
        // For whoever runs this with --nocapture.
        let _ = write!(std::io::stderr(), "{told}");
        told
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn it_shows_the_hints_very_values() {
    let (_folder, path) = csv_path();
    recording(&path, 300);
    let file = path.to_str().expect("text");
    // A file that stands still, so that both say the same whenever they are asked.
    let (_running, address) = dashboard(&["--csv", file, "--stale-after", "86400"]);
    let fixed = ["serve", "--csv", file, "--listen", "127.0.0.1:0", "--stale-after", "86400"];
    let mut serve = Running::start(netdiag(fixed));
    let hints = format!("http://{}", serve.address());
    let test = "dashboard_page::it_shows_the_hints_very_values";
    let Some(look) = Look::start(test, "values.js", address, &[&hints]) else { return };
    look.end();
}

#[test]
fn language_theme_range_and_exports() {
    let (_folder, path) = csv_path();
    recording(&path, 300);
    let file = path.to_str().expect("text");
    let (_running, address) = dashboard(&["--csv", file, "--stale-after", "86400"]);
    let test = "dashboard_page::language_theme_range_and_exports";
    let Some(look) = Look::start(test, "switches.js", address, &[]) else { return };
    look.end();
}

#[test]
fn everybody_can_use_it() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let _client = TcpStream::connect(("127.0.0.1", port)).expect("connects");
    let selected = port.to_string();
    let fixed = ["up", "--listen", "127.0.0.1:0", "--dashboard-listen", "127.0.0.1:0"];
    let more = ["--no-dashboard=false", "--source", "sockdiag", "--loopback", "--port", &selected];
    let mut running = Running::start(netdiag(fixed.iter().chain(&more)));
    let address = running.address_of("dashboard on");
    let test = "dashboard_page::everybody_can_use_it";
    let Some(look) = Look::start(test, "accessible.js", address, &[]) else { return };
    look.end();
}

#[test]
fn a_link_that_gets_worse_is_seen_at_once() {
    let test = "dashboard_page::a_link_that_gets_worse_is_seen_at_once";
    if !root(test) {
        return;
    }
    let delayed = |rtt: u64| LinkSpec::delayed(Duration::from_millis(rtt / 2)).expect("a link");
    let good = delayed(20);
    let bad = delayed(200).with_loss(0.05).expect("a link");
    let lab = Lab::start(&good, ServerSide::default()).expect("a lab");
    let _stream = Stream::start(&lab);
    let fixed = ["up", "--listen", "127.0.0.1:0", "--dashboard-listen", "127.0.0.1:0"];
    let more = ["--no-dashboard=false", "--policy", "classic", "--interval", "0.1", "--netns"];
    let mut command = netdiag(fixed.iter().chain(&more));
    command.arg(lab.server_netns());
    let mut running = Running::start(command);
    let address = running.address_of("dashboard on");
    let Some(mut look) = Look::start(test, "change.js", address, &[]) else { return };
    look.expect("calm");
    look.expect("watching");
    lab.set(&bad).expect("the link gets worse");
    let at = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
    look.tell(&at.to_string());
    let told = look.end();
    let words: Vec<&str> = told.split_whitespace().collect();
    let ["light", light, "rate", rate] = words[..] else { panic!("{told}") };
    for after in [light, rate] {
        let after: u64 = after.parse().expect("milliseconds since the link got worse");
        assert!(Duration::from_millis(after) <= SEEN_WITHIN, "{told}");
    }
}

#[test]
fn a_server_that_restarts_is_found_again() {
    let (_folder, path) = csv_path();
    recording(&path, 100);
    let file = path.to_str().expect("text");
    let (running, address) = dashboard(&["--csv", file, "--stale-after", "86400"]);
    let test = "dashboard_page::a_server_that_restarts_is_found_again";
    let Some(mut look) = Look::start(test, "reconnect.js", address, &[]) else { return };
    look.expect("live");
    running.end_by(Signal::TERM);
    look.tell("stopped");
    look.expect("lost");
    let listen = address.to_string();
    let again = ["dashboard", "--listen", &listen, "--csv", file, "--stale-after", "86400"];
    let mut running = Running::start(netdiag(again));
    running.address_of("dashboard on");
    look.tell("started");
    look.expect("live again");
    look.end();
}

#[test]
fn an_hour_is_drawn_in_no_time() {
    let (_folder, path) = csv_path();
    recording(&path, 7200);
    let file = path.to_str().expect("text");
    let (_running, address) = dashboard(&["--csv", file]);
    let test = "dashboard_page::an_hour_is_drawn_in_no_time";
    let Some(mut look) = Look::start(test, "hour.js", address, &[]) else { return };
    let mut file = std::fs::OpenOptions::new().append(true).open(&path).expect("a file");
    for _ in 0..10 {
        look.expect("row");
        let at = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
        writeln!(file, "{at:.3},21000,26000,0").expect("a row");
        look.tell("written");
    }
    look.end();
}

#[test]
fn ten_thousand_flows_are_no_burden() {
    let (_boards, hints) = hint_server(10_000);
    let url = format!("http://{hints}");
    let (_running, address) = dashboard(&["--hints", &url]);
    let test = "dashboard_page::ten_thousand_flows_are_no_burden";
    let Some(look) = Look::start(test, "flows.js", address, &[]) else { return };
    look.end();
}

/// The real hint server over a board of so many flows, every hundredth of which stalls.
fn hint_server(flows: u32) -> (watch::Sender<Arc<Board>>, SocketAddr) {
    let tps = |rate| Tps::try_new(rate).expect("a rate");
    let range = TpsRange::try_new(tps(5.0), tps(80.0)).expect("a range");
    let unknown = Hint::unknown(range, &Scope::Host, "made up");
    let clear = Hint { state: State::Clear, ..unknown };
    let stream = |number: u32| {
        let local: SocketAddr = "192.0.2.1:8000".parse().expect("an address");
        let peer = SocketAddr::from((0x0a00_0000_u32.wrapping_add(number).to_be_bytes(), 4000));
        let stalled = number.is_multiple_of(100);
        let sample = LinkSample {
            timestamp: Duration::from_secs(1),
            rtt: None,
            srtt: Some(Duration::from_micros(u64::from(number % 977) * 100)),
            retrans_segs: u64::from(number % 5),
            segs_out: Some(10),
            avg_cwnd: Some(10.0),
            throughput_bps: Some(8000.0),
            flows: Some(1),
            stalled_flows: Some(stalled.into()),
            source: None,
        };
        let state = if stalled { State::Stalled } else { State::Clear };
        let hint = Hint { state, ..clear.clone() };
        let key = FlowKey::new(1, local, peer);
        StreamEntry { key, hint, sample, liveness: None, waiting: Duration::ZERO, carried: None }
    };
    let streams = (0..flows).map(stream).collect();
    let board =
        Board::new(clear.clone(), BTreeMap::new(), streams, Some(tokio::time::Instant::now()));
    let boards = watch::Sender::new(Arc::new(board));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("a socket");
    let address = listener.local_addr().expect("an address");
    let options = Options {
        range,
        stale_after: Duration::from_secs(3600),
        when_stale: WhenStale::Max,
        exposure: Exposure::try_new(address, None, false).expect("loopback"),
        bus: None,
        given_up: GivenUp::default(),
        exports: None,
        pseudonyms: None,
    };
    let router = router(boards.subscribe(), options);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            let end = std::future::pending();
            serve(listener, router, Limits::default(), GivenUp::default(), end).await;
        });
    });
    (boards, address)
}
