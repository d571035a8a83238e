//! `netdiag agent` writes rows, and leaves a whole file whatever ends it.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Running, complaint, csv_path, netdiag, output, rows, until};

#[test]
fn rows_come_at_the_interval_until_a_signal() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let (_folder, path) = csv_path();
        let mut command = netdiag(["agent", "--interval", "0.05", "--window", "1", "--csv"]);
        command.arg(&path);
        let running = Running::start(command);
        until("five rows", || (rows(&path).len() >= 5).then_some(()));
        let (status, stderr) = running.end_by(signal);
        assert_eq!(status.code(), Some(0), "{stderr:#?}");
        let rows = rows(&path);
        let times: Vec<f64> = rows.iter().map(|row| row[0].parse().expect("a time")).collect();
        assert!(times.is_sorted(), "{times:?}");
        let text = std::fs::read_to_string(&path).expect("file");
        assert!(text.ends_with('\n') && rows.iter().all(|row| row.len() == 18), "{text}");
    }
}

#[test]
fn traffic_is_in_the_rows_and_the_last_interval_too() {
    let (_folder, path) = csv_path();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let mut command = netdiag(["agent", "--source", "sockdiag", "--loopback", "--csv"]);
    // One interval is far longer than the test: the only row is the one written at the end.
    command.arg(&path).args(["--interval", "600", "--window", "600", "--log-level", "info"]);
    command.args(["--port", &port.to_string()]);
    let mut client = TcpStream::connect(("127.0.0.1", port)).expect("connects");
    let (mut server, _) = listener.accept().expect("accepts");
    let mut running = Running::start(command);
    running.line_with("watching");
    server.write_all(&[7; 10_000]).expect("sends");
    let mut received = [0; 10_000];
    client.read_exact(&mut received).expect("receives");
    let (status, stderr) = running.end_by(Signal::TERM);
    assert_eq!(status.code(), Some(0), "{stderr:#?}");
    let rows = rows(&path);
    assert_eq!(rows.len(), 1, "{rows:?}");
    let cell = |index: usize| rows[0][index].parse::<f64>().expect("a number");
    let (retransmitted, sent, throughput, flows) = (cell(7), cell(8), cell(10), cell(15));
    assert!(sent >= 1.0 && throughput > 0.0, "{rows:?}");
    assert_eq!((retransmitted, flows, rows[0][17].as_str()), (0.0, 1.0, "sockdiag"));
}

#[test]
fn a_duration_ends_it() {
    let (_folder, path) = csv_path();
    let mut command = netdiag(["agent", "--source", "sockdiag", "--csv"]);
    command.arg(&path).args(["--interval", "0.05", "--duration", "0.2"]);
    let output = output(command);
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty() && output.stdout.is_empty(), "quiet without a terminal");
    assert!(rows(&path).len() >= 2);
}

/// An agent that prints its rows to a pipe.
fn printing() -> Command {
    let mut command = netdiag(["agent", "--source", "sockdiag", "--csv", "-"]);
    command.args(["--interval", "0.05", "--window", "1"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn rows_can_be_printed() {
    let (folder, _path) = csv_path();
    let mut command = printing();
    let output = output({
        command.args(["--duration", "0.2"]).current_dir(folder.path());
        command
    });
    assert_eq!(output.status.code(), Some(0));
    let printed = String::from_utf8(output.stdout).expect("text");
    let lines: Vec<&str> = printed.lines().collect();
    assert!(lines[0].starts_with("timestamp,min_rtt_us,") && lines.len() > 2, "{printed}");
    assert!(lines.iter().all(|line| line.split(',').count() == 18), "{printed}");
    let left = std::fs::read_dir(folder.path()).expect("a folder").count();
    assert_eq!(left, 0, "no file named `-`");
}

#[test]
fn readers_of_printed_rows_may_leave_or_stop_reading() {
    let mut left = printing().spawn().expect("the binary runs");
    let mut stdout = left.stdout.take().expect("a pipe");
    let mut some = [0; 16];
    stdout.read_exact(&mut some).expect("the header");
    drop(stdout);
    let output = left.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), complaint(&output)), (Some(0), String::new()));

    let mut stuck = printing().spawn().expect("the binary runs");
    // One page, in which the header leaves no room for sure.
    let pipe = stuck.stdout.as_ref().expect("a pipe");
    rustix::pipe::fcntl_setpipe_size(pipe, 4096).expect("a small pipe");
    until("a full pipe", || {
        let waiting = rustix::io::ioctl_fionread(pipe).expect("a pipe");
        (waiting > 0).then_some(())
    });
    let asked = Instant::now();
    let pid = Pid::from_child(&stuck);
    kill_process(pid, Signal::TERM).expect("the process is there");
    let status = until("the end", || stuck.try_wait().expect("wait"));
    assert_eq!(status.code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
}

#[test]
fn a_file_that_cannot_grow_is_exit_code_1() {
    let (_folder, path) = csv_path();
    // A limit on the size of files stands in for a full disk: the kernel refuses the write (EFBIG).
    let mut command = Command::new("sh");
    let script =
        "trap '' XFSZ; ulimit -f 2; exec \"$0\" agent --interval 0.01 --window 1 --csv \"$1\"";
    command.args(["-c", script, env!("CARGO_BIN_EXE_netdiag")]).arg(&path);
    let (status, stderr) = Running::start(command).end();
    assert_eq!(status.code(), Some(1), "{stderr:#?}");
    let told = stderr.join("\n");
    assert!(told.contains("net_data.csv") && told.contains("cannot write"), "{told}");
    let text = std::fs::read_to_string(&path).expect("file");
    assert!(text.ends_with('\n') && rows(&path).len() > 3, "{text}");
}
