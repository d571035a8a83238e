//! `netdiag serve` follows a file through everything that can happen to it.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Running, complaint, csv_path, hint, netdiag, output, until};

const HEADER: &str = "timestamp,avg_rtt_us,p95_rtt_us,retrans_count\n";

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs_f64()
}

/// Twenty rows, half a second apart, the last one `age` seconds old.
fn recording(rtt_ms: u32, age: f64) -> String {
    let mut text = String::new();
    for row in 0..20 {
        let at = now() - age - f64::from(19 - row) * 0.5;
        let us = rtt_ms * 1000;
        writeln!(text, "{at:.3},{us},{us},0").expect("a string");
    }
    text
}

fn append(path: &Path, text: &str) {
    let mut file = std::fs::File::options().append(true).open(path).expect("file");
    file.write_all(text.as_bytes()).expect("appends");
}

fn serve(path: &Path, args: &[&str]) -> Running {
    let mut command = netdiag(["serve", "--port", "0", "--csv"]);
    command.arg(path).args(args);
    Running::start(command)
}

fn wait_for(address: SocketAddr, what: &str, found: impl Fn(&Value) -> bool) -> Value {
    until(what, || Some(hint(address, "")).filter(&found))
}

#[test]
fn a_file_may_come_late_grow_and_be_replaced() {
    let (_folder, path) = csv_path();
    let mut running = serve(&path, &[]);
    let address = running.address();
    assert_eq!(hint(address, "")["state"], "stale");
    assert_eq!(hint(address, "")["current_tps"], 80.0);

    std::fs::write(&path, HEADER.to_owned() + &recording(20, 0.0)).expect("file");
    wait_for(address, "a clear link", |hint| hint["state"] == "clear");
    append(&path, &recording(500, -10.0));
    let slow = wait_for(address, "a slow link", |hint| hint["state"] == "constrained");
    assert!(slow["current_tps"].as_f64().is_some_and(|rate| rate < 40.0), "{slow}");
    // The file knows no peers, and a slow host is no reason to let one run.
    let peer = hint(address, "?peer=192.0.2.1");
    assert!(peer["scope"] == "host" && peer["state"] == "constrained", "{peer}");

    // Truncated, and written anew in place.
    std::fs::write(&path, HEADER.to_owned() + &recording(20, -20.0)).expect("file");
    wait_for(address, "a clear link", |hint| hint["state"] == "clear");
    // Replaced by another file, as a rotation does.
    let other = path.with_extension("new");
    std::fs::write(&other, HEADER.to_owned() + &recording(500, -30.0)).expect("file");
    std::fs::rename(&other, &path).expect("renames");
    wait_for(address, "a slow link", |hint| hint["state"] == "constrained");
    let (status, stderr) = running.end_by(Signal::TERM);
    assert_eq!(status.code(), Some(0), "{stderr:#?}");
}

#[test]
fn an_old_recording_is_stale_and_says_how_old() {
    let (_folder, path) = csv_path();
    std::fs::write(&path, HEADER.to_owned() + &recording(500, 3600.0)).expect("file");
    let mut running = serve(&path, &["--when-stale", "min"]);
    let address = running.address();
    let old = hint(address, "");
    assert_eq!((&old["state"], &old["current_tps"]), (&"stale".into(), &5.0.into()), "{old}");
    assert!(old["age_seconds"].as_f64().is_some_and(|age| age > 3599.0), "{old}");
    // A row that comes is fresh by its coming, whatever its clock says.
    append(&path, &recording(20, 7200.0));
    wait_for(address, "fresh telemetry", |hint| hint["state"] != "stale");
}

#[test]
fn rows_that_stop_become_stale() {
    let (_folder, path) = csv_path();
    // By a clock that is an hour ahead.
    std::fs::write(&path, HEADER.to_owned() + &recording(500, -3600.0)).expect("file");
    let mut running = serve(&path, &["--stale-after", "0.5"]);
    let address = running.address();
    let stale = wait_for(address, "stale telemetry", |hint| hint["state"] == "stale");
    assert_eq!(stale["current_tps"], 80.0, "missing telemetry never throttles: {stale}");
}

#[test]
fn a_malformed_file_is_refused_at_the_start_and_passed_over_later() {
    let (_folder, path) = csv_path();
    let check = |text: &[u8], told: &[&str]| {
        std::fs::write(&path, text).expect("file");
        let mut command = netdiag(["serve", "--port", "0", "--csv"]);
        command.arg(&path);
        let output = output(command);
        assert_eq!(output.status.code(), Some(2), "{}", complaint(&output));
        for told in told {
            assert!(complaint(&output).contains(told), "no `{told}` in {}", complaint(&output));
        }
    };
    check(
        b"timestamp,label\n1,2\n",
        &["net_data.csv", "line 1", "`avg_rtt_us`", "; give another file"],
    );
    let bad = format!("{HEADER}1,2,3,0\n2,fast,3,0\n");
    let told = ["net_data.csv", "line 3", "`avg_rtt_us`", "`fast`", "; mend or remove that line"];
    check(bad.as_bytes(), &told);
    // No newline, so no line ever ends.
    check("x".repeat(3 << 20).as_bytes(), &["net_data.csv", "line 1: longer than 65536 bytes"]);
    check((HEADER.to_owned() + &"7".repeat(3 << 20)).as_bytes(), &["line 2: longer than"]);
    check(b"\xff\xfe\n", &["net_data.csv", "line 1"]);

    std::fs::write(&path, HEADER.to_owned() + &recording(20, 0.0)).expect("file");
    let mut running = serve(&path, &[]);
    let address = running.address();
    append(&path, "nonsense\n");
    running.line_with("line 22");
    append(&path, &recording(500, -10.0));
    wait_for(address, "a slow link", |hint| hint["state"] == "constrained");
    // Each other cause is told at once, however soon after the first; and so is the end of it.
    append(&path, &"7".repeat(100_000));
    running.line_with("line 43: longer than");
    std::fs::write(&path, "timestamp,label\n").expect("file");
    running.line_with("column `avg_rtt_us` is missing");
    std::fs::remove_file(&path).expect("deletes");
    std::fs::create_dir(&path).expect("a folder");
    running.line_with("cannot be read: a directory");
    std::fs::remove_dir(&path).expect("deletes");
    std::fs::write(&path, HEADER.to_owned() + &recording(20, -20.0)).expect("file");
    running.line_with("is read again");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().expect("folder");
    let mut command = netdiag(["serve", "--port", "0", "--csv"]);
    command.arg(folder.path());
    let output = output(command);
    assert_eq!(output.status.code(), Some(2), "{}", complaint(&output));
    let name = folder.path().to_str().expect("text");
    assert!(complaint(&output).contains(name), "{}", complaint(&output));
}
