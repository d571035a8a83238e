//! `netdiag pace` prints the text, at the rate, and ends when it should.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{DEADLINE, Running, complaint, csv_path, netdiag, output, until};

/// Twenty seconds of rows, half a second apart, the last one `ahead` of now: at 20 ms, the last five seconds at `rtt_ms`.
fn write_rows(path: &Path, rtt_ms: u32, ahead: f64) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs_f64();
    let mut text = "timestamp,avg_rtt_us,p95_rtt_us,retrans_count\n".to_owned();
    for row in 0..40 {
        let at = now + ahead - f64::from(39 - row) * 0.5;
        let us = 1000 * if row < 30 { 20 } else { rtt_ms };
        writeln!(text, "{at:.3},{us},{us},0").expect("a string");
    }
    std::fs::write(path, text).expect("file");
}

fn piped(mut command: Command) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the binary runs")
}

fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a pid");
    kill_process(pid, signal).expect("the process is there");
}

fn code(child: &mut Child) -> Option<i32> {
    until("the end", || child.try_wait().expect("wait")).code()
}

#[test]
fn the_text_comes_out_whole_and_not_too_fast() {
    for (mode, tokens) in [("word", 4.0), ("char", 21.0)] {
        let started = Instant::now();
        let args = ["pace", "Once upon a  time né\u{301}e", "--mode", mode, "--max-tps", "20"];
        let output = output(netdiag(args));
        assert_eq!(output.status.code(), Some(0), "{}", complaint(&output));
        assert_eq!(output.stdout, "Once upon a  time né\u{301}e\n".as_bytes());
        // All but the first wait for a twentieth of a second each; what the start took counts for the second.
        let least = Duration::from_secs_f64((tokens - 1.0) / 20.0);
        assert!(started.elapsed() >= least, "{mode}: {:?}", started.elapsed());
        assert_eq!(complaint(&output), "netdiag: 20.0 tok/s: no --csv to follow\n");
    }
}

#[test]
fn the_rate_follows_the_file() {
    let (_folder, path) = csv_path();
    write_rows(&path, 1000, 0.0);
    // A text that never ends, to a reader that takes everything.
    let mut command = netdiag(["pace", "-", "--stale-after", "1", "--csv"]);
    command.arg(&path).stdin(Stdio::from(std::fs::File::open("/dev/zero").expect("zeros")));
    let mut running = Running::start(command);
    let slow = running.line_with("tok/s");
    assert!(slow.contains("(constrained: path: p95 RTT 1000 ms, usually 20 ms"), "{slow}");
    assert!(slow.contains(" 5.") && slow.contains(" tok/s"), "{slow}");
    // By another clock, which does not matter once somebody watches.
    write_rows(&path, 20, 20.0);
    running.line_with("clear: p95 RTT 20 ms, usually 20 ms");
    std::fs::remove_file(&path).expect("deletes");
    let stale = running.line_with("stale");
    assert!(stale.contains("60.0 tok/s (stale: telemetry is "), "{stale}");
    let (status, stderr) = running.end_by(Signal::TERM);
    assert_eq!(status.code(), Some(0), "{stderr:#?}");
}

#[test]
fn an_absent_file_is_told_once_and_follows_the_policy() {
    let (_folder, path) = csv_path();
    for (policy, told) in [("max", "60.0 tok/s"), ("min", "5.0 tok/s"), ("hold", "holding")] {
        let mut command = netdiag(["pace", "-", "--when-stale", policy, "--csv"]);
        command.arg(&path);
        let mut child = piped(command);
        child.stdin.take().expect("a pipe").write_all(b"on ce").expect("writes");
        let mut stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        let mut complaint = String::new();
        stderr.read_line(&mut complaint).expect("text");
        if policy == "hold" {
            signal(&child, Signal::INT);
        }
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(0));
        let printed = if policy == "hold" { "" } else { "on ce\n" };
        assert_eq!(String::from_utf8_lossy(&output.stdout), printed);
        stderr.read_to_string(&mut complaint).expect("text");
        let expected = format!("netdiag: {told}: {} is not there yet\n", path.display());
        assert_eq!(complaint, expected);
    }
}

#[test]
fn stdin_is_printed_as_it_comes_and_a_signal_ends_the_line() {
    let mut child = piped(netdiag(["pace", "-"]));
    let mut stdin = child.stdin.take().expect("a pipe");
    let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    stdin.write_all(b"first second").expect("writes");
    let mut first = [0; 6];
    stdout.read_exact(&mut first).expect("comes before the end of the text");
    assert_eq!(&first, b"first ");
    signal(&child, Signal::INT);
    assert_eq!(code(&mut child), Some(0));
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).expect("text");
    assert_eq!(rest, "\n");
}

#[test]
fn readers_that_leave_or_stop_reading_do_no_harm() {
    let args = ["pace", "-", "--max-tps", "1000000"];
    let endless = || {
        let mut command = netdiag(args);
        command.stdin(Stdio::from(std::fs::File::open("/dev/zero").expect("zeros")));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("the binary runs")
    };
    let mut left = endless();
    drop(left.stdout.take());
    assert_eq!(code(&mut left), Some(0));
    let mut told = String::new();
    left.stderr.take().expect("a pipe").read_to_string(&mut told).expect("text");
    assert!(!told.contains("error"), "{told}");

    // Fills the pipe, then waits for a reader that never reads; the signal is heard all the same.
    let mut stuck = endless();
    let pipe = stuck.stdout.as_ref().expect("a pipe");
    let room = rustix::pipe::fcntl_getpipe_size(pipe).expect("a pipe") as u64;
    until("a full pipe", || {
        let waiting = rustix::io::ioctl_fionread(pipe).expect("a pipe");
        (waiting + 4096 >= room).then_some(())
    });
    let asked = Instant::now();
    signal(&stuck, Signal::TERM);
    assert_eq!(code(&mut stuck), Some(0));
    assert!(asked.elapsed() < DEADLINE.min(Duration::from_secs(1)), "{:?}", asked.elapsed());
}

#[test]
fn what_cannot_be_printed_or_read_is_told() {
    let check = |mut command: Command, expected: i32, told: &[&str]| {
        let output = command.output().expect("the binary runs");
        let complaint = complaint(&output);
        assert_eq!(output.status.code(), Some(expected), "{complaint}");
        for told in told {
            assert!(complaint.contains(told), "no `{told}` in {complaint}");
        }
    };
    check(netdiag(["pace"]), 2, &["TEXT"]);
    check(netdiag(["pace", "x", "--mode", "line"]), 2, &["--mode line", "word, char"]);
    let crossed = ["pace", "x", "--min-tps", "70"];
    check(netdiag(crossed), 2, &["--min-tps 70 is above --max-tps 60 (the default)"]);
    for rate in ["0", "-1", "nan", "inf", "fast"] {
        let rate = format!("--max-tps={rate}");
        check(netdiag(["pace", "x", rate.as_str()]), 2, &["--max-tps"]);
    }
    let (_folder, path) = csv_path();
    let name = path.to_str().expect("text");
    std::fs::write(&path, "timestamp,avg_rtt_us,p95_rtt_us,retrans_count\n1,fast,3,4\n")
        .expect("file");
    check(netdiag(["pace", "x", "--csv", name]), 2, &[name, "line 2", "`avg_rtt_us`: `fast`"]);
    let mut full = netdiag(["pace", "x"]);
    full.stdout(std::fs::File::options().write(true).open("/dev/full").expect("device"));
    let child = full.stderr(Stdio::piped()).spawn().expect("the binary runs");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(1));
    let complaint = complaint(&output);
    assert!(complaint.contains("cannot write to stdout: No space left"), "{complaint}");
}
