//! `netdiag dashboard` on a file and on a hint server, and the one built into `up`: what reaches a viewer. What a browser makes of
//! it is in `dashboard_page.rs`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{
    DEADLINE, Running, complaint, csv_path, get, netdiag, output, unprivileged, until,
};

/// A recording of `rows` intervals of half a second that ends now; its last tenth is a bad link.
pub(crate) fn recording(path: &Path, rows: u32) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
    let mut text = "timestamp,avg_rtt_us,p95_rtt_us,retrans_count\n".to_owned();
    for row in 0..rows {
        let bad = row >= rows - rows / 10;
        let (rtt, retrans) = if bad { (150_000, 4) } else { (20_000 + row % 7 * 300, 0) };
        let at = now - f64::from(rows - row - 1) * 0.5;
        text += &format!("{at:.3},{rtt},{},{retrans}\n", rtt + 5_000);
    }
    std::fs::write(path, text).expect("a file");
}

/// `netdiag dashboard` with these flags, and where it is.
pub(crate) fn dashboard(args: &[&str]) -> (Running, SocketAddr) {
    let fixed = ["dashboard", "--listen", "127.0.0.1:0"];
    let mut running = Running::start(netdiag(fixed.iter().chain(args)));
    let address = running.address_of("dashboard on");
    (running, address)
}

/// The events of a stream.
struct Events(std::io::Lines<BufReader<TcpStream>>);

impl Events {
    fn open(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).expect("connects");
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        write!(stream, "GET /api/events HTTP/1.1\r\nHost: {address}\r\n\r\n").expect("asks");
        Self(BufReader::new(stream).lines())
    }

    /// The data of the next event of this name.
    fn next(&mut self, name: &str) -> Value {
        let wanted = format!("event: {name}");
        loop {
            let line = self.0.next().expect("an open stream").expect("a line");
            if line.ends_with(&wanted) {
                let data = self.0.next().expect("an open stream").expect("a line");
                let data = data.strip_prefix("data: ").expect("data");
                return serde_json::from_str(data).expect("JSON");
            }
        }
    }
}

#[test]
fn a_file_is_shown_from_its_beginning_and_while_it_grows() {
    let (_folder, path) = csv_path();
    recording(&path, 200);
    let (running, address) = dashboard(&["--csv", path.to_str().expect("text")]);
    let mut events = Events::open(address);
    let hello = events.next("hello");
    assert_eq!((&hello["mode"], &hello["has_streams"]), (&"csv".into(), &false.into()));
    let rows = events.next("rows");
    assert_eq!(rows["rtt_p95"][0], 25.0);
    assert_eq!(rows["throughput_bps"][0], Value::Null);
    let now = events.next("now");
    assert_eq!(now["anomaly"], true, "{now}");
    events.next("live");
    let at = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
    let mut file = std::fs::OpenOptions::new().append(true).open(&path).expect("a file");
    writeln!(file, "{at:.3},99000,123000,7").expect("a row");
    let row = events.next("rows");
    assert_eq!((&row["rtt_p95"][0], &row["retrans"][0]), (&123.into(), &7.into()));
    let (status, body) = get(address, "/api/streams");
    assert!(status == 404 && body.contains("cannot be listed"), "{status} {body}");
    let (status, stderr) = running.end_by(Signal::TERM);
    assert_eq!(status.code(), Some(0), "{stderr:#?}");
}

#[test]
fn a_file_that_is_not_there_yet_is_waited_for() {
    let (_folder, path) = csv_path();
    let (_running, address) = dashboard(&["--csv", path.to_str().expect("text")]);
    let mut events = Events::open(address);
    assert_eq!(events.next("now")["state"], "stale");
    recording(&path, 20);
    // It may be read while it is written.
    let mut rows = 0;
    while rows < 20 {
        rows += events.next("rows")["t"].as_array().expect("times").len();
    }
    assert_eq!(rows, 20);
}

#[test]
fn another_process_hints_are_followed_with_its_rows_and_flows() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let client = TcpStream::connect(("127.0.0.1", port)).expect("connects");
    let (_server, _) = listener.accept().expect("accepts");
    let folder = tempfile::tempdir().expect("folder");
    let token = folder.path().join("token");
    std::fs::write(&token, "0123456789abcdef").expect("a file");
    let token = token.to_str().expect("text");
    let start = |listen: &str| {
        let fixed = ["up", "--listen", listen, "--interval", "0.1", "--window", "1", "--loopback"];
        let port = port.to_string();
        let more = ["--source", "sockdiag", "--port", &port, "--auth-token-file", token];
        Running::start(netdiag(fixed.iter().chain(&more)))
    };
    let mut up = start("127.0.0.1:0");
    let hints = up.address();
    let url = format!("http://{hints}");

    // Without the token it says what it needs.
    let (mut without, _) = dashboard(&["--hints", &url]);
    without.line_with("wants a token: give --hints-token-file");
    let other = folder.path().join("other");
    std::fs::write(&other, "fedcba9876543210").expect("a file");
    let other = other.to_str().expect("text");
    let (mut wrong, _) = dashboard(&["--hints", &url, "--hints-token-file", other]);
    wrong.line_with("refuses the token of --hints-token-file");

    let (mut running, address) = dashboard(&["--hints", &url, "--hints-token-file", token]);
    let mut events = Events::open(address);
    let hello = events.next("hello");
    assert_eq!((&hello["mode"], &hello["telemetry"]), (&"hints".into(), &url.as_str().into()));
    let row = events.next("rows");
    assert_eq!(row["flows"][0], 1.0, "{row}");
    let peer = client.local_addr().expect("an address").to_string();
    until("the flow", || {
        let (_, body) = get(address, "/api/streams");
        let all: Value = serde_json::from_str(&body).expect("JSON");
        (all["total"] == 1 && all["streams"][0]["peer"] == peer.as_str()).then_some(())
    });
    // The other end goes and comes back.
    up.end_by(Signal::TERM);
    running.line_with("asking again");
    until("staleness", || (events.next("now")["state"] == "stale").then_some(()));
    let _up = start(&hints.to_string());
    // What is repeated to who connects is not shown twice, nor as healthy.
    running.line_with("answers again");
    until("news", || (events.next("now")["state"] != "stale").then_some(()));
}

#[test]
fn up_has_one_of_its_own() {
    let fixed = ["up", "--listen", "127.0.0.1:0", "--dashboard-listen", "127.0.0.1:0"];
    let mut running = Running::start(netdiag(fixed.iter().chain(&["--no-dashboard=false"])));
    running.address();
    let address = running.address_of("dashboard on");
    let mut events = Events::open(address);
    assert_eq!(events.next("hello")["mode"], "up");
    let rows = events.next("rows");
    assert_eq!(rows["state"].as_array().map(Vec::len), rows["t"].as_array().map(Vec::len));
    let (status, body) = get(address, "/api/streams");
    assert!(status == 200 && body.contains("\"total\""), "{status} {body}");
    let (status, body) = get(address, "/api/machine");
    assert!(status == 200 && body.contains("\"checks\""), "{status} {body}");
    let (status, stderr) = running.end_by(Signal::TERM);
    assert_eq!(status.code(), Some(0), "{stderr:#?}");
}

#[test]
fn it_needs_no_privileges() {
    let (_folder, path) = csv_path();
    let args = ["dashboard", "--listen", "127.0.0.1:0", "--csv", path.to_str().expect("text")];
    let Some(command) = unprivileged("dashboard::it_needs_no_privileges", &args) else { return };
    let mut running = Running::start(command);
    let address = running.address_of("dashboard on");
    assert_eq!(get(address, "/").0, 200);
}

#[test]
fn mistakes_are_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let (_folder, path) = csv_path();
    std::fs::write(&path, "time,rtt\n1,2\n").expect("a file");
    let file = path.to_str().expect("text");
    let check = |args: &[&str], told: &[&str]| {
        let output = output(netdiag(args));
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", complaint(&output));
        let complaint = complaint(&output);
        assert!(told.iter().all(|told| complaint.contains(told)), "{args:?}: {complaint}");
    };
    check(&["dashboard", "--csv", file, "--hints", "http://a"], &["--csv and --hints", "one"]);
    check(&["dashboard", "--csv", file, "--listen", "127.0.0.1:0"], &[file, "timestamp"]);
    check(&["dashboard", "--hints", "localhost:9000"], &["--hints localhost:9000", "http://HOST"]);
    check(&["dashboard", "--hints", "https://a"], &["https://a", "encryption"]);
    check(&["dashboard", "--listen", &address], &[&address, "--dashboard-listen ADDR:PORT"]);
    check(&["dashboard", "--listen", "0.0.0.0:0"], &["--auth-token-file, or --no-auth"]);
    check(
        &[
            "dashboard",
            "--listen",
            "127.0.0.1:0",
            "--hints",
            "http://a",
            "--hints-token-file",
            "/no/such",
        ],
        &["--hints-token-file", "/no/such"],
    );
    check(&["dashboard", "--hints-token-file", file], &["--hints-token-file", "give --hints URL"]);
    check(&["dashboard", "--listen", "nowhere"], &["127.0.0.1:8501"]);
    check(&["experiment", "--dashboard-listen", "127.0.0.1:0"], &["--serve-dashboard"]);
    let up = ["up", "--listen", "127.0.0.1:0", "--no-dashboard=false", "--dashboard-listen"];
    check(&[&up[..], &[&address]].concat(), &[&address, "--no-dashboard"]);
}
